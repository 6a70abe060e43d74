//! Where a setting comes from: the layers that are asked for it, and what they answer.
//!
//! ```text
//! flag, then environment, then file, then default
//! ```
//!
//! The first that has the setting decides, and what the others have for it is not looked at. An empty
//! variable counts as unset; an empty string in the file is a value.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use strsim::damerau_levenshtein;

use super::domain::Domain;
use super::error::{ConfigError, Found};
use super::file::{File, Location};
use super::{Config, Flags, Secret, settings};

/// What settings are read from: flags and environment as they were at the start, and a file as it is when
/// it is read.
#[derive(Clone)]
pub struct Sources {
    flags: Flags,
    /// The variables of settings that are set, and not empty.
    env: BTreeMap<String, OsString>,
    location: Location,
}

/// The settings in effect, and where they come from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Their values.
    pub config: Config,
    /// One entry a setting, in the order of [`settings`].
    pub resolved: Vec<Resolved>,
    /// The configuration file, if there is one.
    pub file: Option<Arc<Path>>,
    /// A warning. No reason to refuse: a container or a package manager may leave no other way.
    pub exposed: Option<Exposed>,
}

/// A configuration file with secrets that every user of the machine can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The file.
    pub path: Arc<Path>,
    /// Its permissions: at least `0o004`.
    pub mode: u32,
    /// The settings that are secrets, at least one, in effect or not.
    pub keys: Vec<&'static str>,
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, mode, keys } = self;
        let keys = keys.join(" and ");
        let path = path.display();
        write!(
            f,
            "{path} holds {keys}, and every user can read it (mode {mode:04o})"
        )
    }
}

impl Sources {
    /// The sources of a process with these flags and this environment.
    pub fn new(flags: &Flags, env: impl Fn(&str) -> Option<OsString>) -> Sources {
        let location = Location::new(flags.config.as_ref(), &env);
        Self::with_location(flags, env, location)
    }

    pub(super) fn with_location(
        flags: &Flags,
        env: impl Fn(&str) -> Option<OsString>,
        location: Location,
    ) -> Sources {
        let names = settings().into_iter().map(|setting| setting.env());
        let env = names.filter_map(|name| {
            let value = env(&name).filter(|value| !value.is_empty())?;
            Some((name, value))
        });
        Sources {
            flags: flags.clone(),
            env: env.collect(),
            location,
        }
    }

    /// Reads the file, and has each setting from the first layer that has it.
    ///
    /// # Errors
    ///
    /// All problems: those of the file in its order, then those of settings in the order of [`settings`].
    /// At least one.
    pub fn resolve(&self) -> Result<Effective, Vec<ConfigError>> {
        let mut layers = match self.location.read() {
            Ok(file) => Layers::new(&self.env, file),
            Err(problems) => Layers {
                problems,
                ..Layers::new(&self.env, None)
            },
        };
        layers.refuse_unknown_keys();
        let config = Config::read(&self.flags, &mut layers);
        let (Some(config), true) = (config, layers.problems.is_empty()) else {
            return Err(layers.problems);
        };
        let problems = config.check(&layers.resolved);
        match problems.is_empty() {
            true => Ok(Effective {
                config,
                file: layers.file.as_ref().map(|file| Arc::clone(&file.path)),
                exposed: layers.exposed(),
                resolved: layers.resolved,
            }),
            false => Err(problems),
        }
    }
}

/// The layer that decided a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No layer above has it.
    Default,
    /// The configuration file.
    File {
        /// Its path, as it was given or found.
        path: Arc<Path>,
        /// Where the key stands, from 1.
        line: usize,
    },
    /// The variable that [`super::Setting::env`] names.
    Environment,
    /// The flag that [`super::Setting::flag`] names.
    Flag,
}

impl Source {
    /// What an operator would look for: `default`, `FILE:3`, `PORT` or `--port`.
    pub fn name(&self, key: &str) -> String {
        match self {
            Self::Default => String::from("default"),
            Self::File { path, line } => format!("{}:{line}", path.display()),
            Self::Environment => env_name(key),
            Self::Flag => flag_name(key),
        }
    }
}

pub(super) fn env_name(key: &str) -> String {
    key.to_ascii_uppercase()
}

/// argh spells the flag of a field in the same way.
pub(super) fn flag_name(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// One setting in effect, displayed as the line of `--check-config`: `port = 8080  (PORT)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// [`super::Setting::key`].
    pub key: &'static str,
    /// The value as the server understood it, in the largest unit that divides it.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
    /// The value in its one spelling, secret or not.
    identity: Secret,
}

impl Resolved {
    /// Whether both settings have the same value, which `value` does not tell of secrets.
    pub(super) fn is_same_value(&self, other: &Resolved) -> bool {
        self.identity == other.identity
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key, value, source, ..
        } = self;
        write!(f, "{key} = {value}  ({})", source.name(key))
    }
}

/// The layers that are asked for every setting, and what they have answered so far.
pub(super) struct Layers<'a> {
    env: &'a BTreeMap<String, OsString>,
    file: Option<File>,
    /// The keys of secrets that the file holds.
    secrets: Vec<&'static str>,
    pub(super) resolved: Vec<Resolved>,
    pub(super) problems: Vec<ConfigError>,
}

impl Layers<'_> {
    pub(super) fn new(env: &BTreeMap<String, OsString>, file: Option<File>) -> Layers<'_> {
        Layers {
            env,
            file,
            secrets: Vec::new(),
            resolved: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// The value of `key` from the first layer that has it; `None` if it is refused.
    pub(super) fn read<D: Domain>(
        &mut self,
        key: &'static str,
        domain: &D,
        flag: Option<&str>,
        default: &'static str,
    ) -> Option<D::Value> {
        let in_file = self.read_file::<D>(key);
        if D::IS_SECRET
            && let Some((Found::Text(text), _)) = &in_file
            && text != default
        {
            self.secrets.push(key);
        }
        let (found, source) = if let Some(text) = flag {
            (Found::Text(OsString::from(text)), Source::Flag)
        } else if let Some(text) = self.env.get(&env_name(key)) {
            (Found::Text(text.clone()), Source::Environment)
        } else if let Some(answer) = in_file {
            answer
        } else {
            (Found::Text(OsString::from(default)), Source::Default)
        };
        let expected = match &found {
            Found::Kind(_) => domain.range(),
            Found::Text(text) => match text.to_str() {
                None => String::from("UTF-8 text"),
                Some(utf8) => match domain.parse(utf8, &source) {
                    None => domain.range(),
                    Some(value) => {
                        let spelled = domain.spell(&value);
                        self.resolved.push(Resolved {
                            key,
                            identity: Secret::new(if D::IS_SECRET { utf8 } else { &spelled }),
                            value: spelled,
                            source,
                        });
                        return Some(value);
                    }
                },
            },
        };
        let found = match found {
            Found::Text(_) if D::IS_SECRET => Found::Text(OsString::from(Secret::MASK)),
            found => found,
        };
        self.problems.push(ConfigError::Refused {
            key,
            expected,
            found,
            source,
        });
        None
    }

    fn read_file<D: Domain>(&self, key: &str) -> Option<(Found, Source)> {
        let file = self.file.as_ref()?;
        let entry = file.entry(key)?;
        let found = match D::IS_LIST {
            true => entry.found_as_list(),
            false => entry.found(),
        };
        Some((found, file.source(entry)))
    }

    fn exposed(&self) -> Option<Exposed> {
        let file = self.file.as_ref()?;
        let is_public = file.mode & 0o004 != 0;
        (is_public && !self.secrets.is_empty()).then(|| Exposed {
            path: Arc::clone(&file.path),
            mode: file.mode,
            keys: self.secrets.clone(),
        })
    }

    fn refuse_unknown_keys(&mut self) {
        let Some(file) = &self.file else { return };
        let keys: Vec<&'static str> = settings().iter().map(|setting| setting.key).collect();
        let unknown = file
            .entries
            .iter()
            .filter(|entry| !keys.contains(&&*entry.key));
        let problems = unknown.map(|entry| {
            // `FLUSH_SECS` and `flush-secs` are its other names.
            let key = entry.key.to_ascii_lowercase().replace('-', "_");
            ConfigError::UnknownKey {
                key: entry.key.clone(),
                nearest: nearest(&key, keys.iter().copied()),
                source: file.source(entry),
            }
        });
        self.problems.extend(problems);
    }
}

/// The name that a misspelled one may have meant: at most a third of it is wrong.
pub(super) fn nearest<T: AsRef<str>>(name: &str, names: impl Iterator<Item = T>) -> Option<T> {
    let near = names.filter_map(|known| {
        let most = known.as_ref().len() / 3;
        // Nothing is compared that is too long or too short.
        if name.len().abs_diff(known.as_ref().len()) > most {
            return None;
        }
        let distance = damerau_levenshtein(name, known.as_ref());
        (distance <= most.max(1)).then_some((distance, known))
    });
    let (_, known) = near.min_by_key(|(distance, _)| *distance)?;
    Some(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::tests::{Env, effective, flags, lookup, messages};
    use super::*;

    /// Wants these lines for what is not at its default, or these problems.
    #[track_caller]
    fn check(args: &[&str], env: Env<'_>, file: &str, expected: Result<&str, &str>) {
        let found = effective(args, env, file).map(|effective| {
            let set = |one: &&Resolved| one.source != Source::Default;
            let lines = effective.resolved.iter().filter(set);
            let lines: Vec<String> = lines.map(Resolved::to_string).collect();
            lines.join("\n")
        });
        assert_eq!(found.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn layers() {
        check(&[], &[], "", Ok(""));
        check(&[], &[("PORT", "1")], "", Ok("port = 1  (PORT)"));
        check(
            &["--port", "2"],
            &[("PORT", "1")],
            "",
            Ok("port = 2  (--port)"),
        );
        check(
            &["--port", "2"],
            &[("PORT", "what a flag hides is not read")],
            "",
            Ok("port = 2  (--port)"),
        );
        check(
            &[],
            &[("PORT", ""), ("DATA_DIR", ""), ("DEBUG", "")],
            "",
            Ok(""),
        );
        check(
            &["--debug"],
            &[("DEBUG", "0")],
            "",
            Ok("debug = true  (--debug)"),
        );
        check(&[], &[("port", "1"), ("--port", "1")], "", Ok(""));
        check(
            &["--compression-level", "-5", "--data-dir", "/srv/r"],
            &[("WORKERS", "2"), ("FLUSH_SECS", "120s")],
            "",
            Ok("data_dir = /srv/r  (--data-dir)\n\
                flush_secs = 2m  (FLUSH_SECS)\n\
                compression_level = -5  (--compression-level)\n\
                workers = 2  (WORKERS)"),
        );
        check(
            &[],
            &[("FLUSH_SECS", "0")],
            "",
            Err(r#"flush_secs: expected 1s to 1h, found "0" (from FLUSH_SECS)"#),
        );
        check(
            &["--flush-secs", "0"],
            &[("FLUSH_SECS", "60")],
            "",
            Err(r#"flush_secs: expected 1s to 1h, found "0" (from --flush-secs)"#),
        );
        check(
            &["--data-dir", ""],
            &[("DATA_DIR", "/srv/r")],
            "",
            Err(r#"data_dir: expected a path, found "" (from --data-dir)"#),
        );
        // Every refusal in the order of the table, whatever the layer.
        check(
            &["--workers", "0"],
            &[("IDLE_SECS", "1"), ("PORT", "x"), ("DEBUG", "maybe")],
            "",
            Err(r#"port: expected 0 to 65535, found "x" (from PORT)
workers: expected all or 1 to 1024, found "0" (from --workers)
debug: expected true or false, found "maybe" (from DEBUG)"#),
        );
    }

    #[test]
    fn the_file_is_below_the_environment() {
        check(&[], &[], "port = 1", Ok("port = 1  (F:1)"));
        check(&[], &[("PORT", "2")], "port = 1", Ok("port = 2  (PORT)"));
        check(
            &["--port", "3"],
            &[("PORT", "2")],
            "port = 1",
            Ok("port = 3  (--port)"),
        );
        check(&["--port", "3"], &[], "port = 1", Ok("port = 3  (--port)"));
        // An empty variable does not hide it.
        check(&[], &[("PORT", "")], "\nport = '1'", Ok("port = 1  (F:2)"));
        check(
            &["--debug"],
            &[],
            "debug = 'what a flag hides is not read'",
            Ok("debug = true  (--debug)"),
        );
        check(
            &[],
            &[],
            "debug = true\n\ncompression_level = -5 # fast\nflush_bytes = '4096'\nflush_secs = 90",
            Ok("flush_bytes = 4KiB  (F:4)\n\
                flush_secs = 90s  (F:5)\n\
                compression_level = -5  (F:3)\n\
                debug = true  (F:1)"),
        );
        check(
            &[],
            &[],
            "cors_origins = ['https://a.example', 'http://b.example:8000']\n\
             host = '::1, 127.0.0.1'\n\
             trusted_proxies = [\n  '10.0.0.0/8',\n  '::1',\n]",
            Ok("host = ::1,127.0.0.1  (F:2)\n\
                cors_origins = https://a.example,http://b.example:8000  (F:1)\n\
                trusted_proxies = 10.0.0.0/8,::1  (F:3)"),
        );
    }

    #[test]
    fn what_is_refused_in_a_file() {
        #[track_caller]
        fn refuse(file: &str, expected: &str) {
            check(&[], &[], file, Err(expected));
        }
        refuse(
            "port = 65536",
            r#"port: expected 0 to 65535, found "65536" (from F:1)"#,
        );
        // A value like others, not unset.
        refuse(
            "port = ''",
            r#"port: expected 0 to 65535, found "" (from F:1)"#,
        );
        refuse(
            "port = true",
            r#"port: expected 0 to 65535, found "true" (from F:1)"#,
        );
        refuse(
            "\nflush_secs = 1.5",
            "flush_secs: expected 1s to 1h, found a float (from F:2)",
        );
        refuse(
            "flush_secs = 00:01:00",
            "flush_secs: expected 1s to 1h, found a date or time (from F:1)",
        );
        refuse(
            "[ack]\nlevel = 'durable'",
            "ack: expected durable, written or buffered, found a table (from F:1)",
        );
        refuse(
            "data_dir = ['/srv']",
            "data_dir: expected a path, found an array (from F:1)",
        );
        refuse(
            "host = [127]",
            "host: expected up to 16 different IP addresses with commas between, \
             found an array of other than strings (from F:1)",
        );
        refuse(
            "trusted_proxies = []",
            "trusted_proxies: expected none or up to 64 networks, found an empty array (from F:1)",
        );
        refuse(
            "admin_token = 's3cret'",
            "admin_token: expected none or 16 to 256 characters of a token68, \
             found \"***\" (from F:1)",
        );
        // Those of the file first, then all others in the order of the table.
        check(
            &["--port", "x"],
            &[("ACK", "y")],
            "flush_secs = 0\ncolour = 'blue'\nhost = 'z'\n",
            Err("colour: no such setting (from F:2)\n\
                 host: expected up to 16 different IP addresses with commas between, \
                 found \"z\" (from F:3)\n\
                 port: expected 0 to 65535, found \"x\" (from --port)\n\
                 ack: expected durable, written or buffered, found \"y\" (from ACK)\n\
                 flush_secs: expected 1s to 1h, found \"0\" (from F:1)"),
        );
        check(
            &["--port", "x"],
            &[],
            "flush_secs = 0\ncolour = blue\n",
            Err(
                "not TOML: string values must be quoted, expected literal string (from F:2:10)\n\
                 port: expected 0 to 65535, found \"x\" (from --port)",
            ),
        );
        // What settings ask of each other, whichever layer they are from.
        check(
            &["--admin-addr", "[::]:1"],
            &[("METRICS_USERNAME", "u")],
            "admin_token = 'none'",
            Err(
                "admin_token: expected a token, since admin_addr = [::]:1 is not loopback, \
                 found \"none\" (from F:1)\n\
                 metrics_password: expected a password, since there is a metrics_username, \
                 found \"none\" (from default)",
            ),
        );
    }

    #[test]
    fn unknown_keys() {
        #[track_caller]
        fn refuse(key: &str, nearest: &str) {
            let unquoted = key.trim_matches('"');
            let expected = format!("{unquoted}: no such setting{nearest} (from F:1)");
            check(&[], &[], &format!("{key} = 's3cret'"), Err(&expected));
        }
        refuse("flush_sec", ", did you mean `flush_secs`?");
        refuse("flush-secs", ", did you mean `flush_secs`?");
        refuse("FLUSH_SECS", ", did you mean `flush_secs`?");
        refuse("prot", ", did you mean `port`?");
        refuse("hots", ", did you mean `host`?");
        refuse("admin_tokn", ", did you mean `admin_token`?");
        refuse("retention", ", did you mean `retention_age`?");
        refuse("secs", "");
        refuse("colour", "");
        refuse("\"\"", "");
        refuse("\"a\\nb\"", "");
        refuse(&"port".repeat(10_000), "");
        // The table is what is not known, not what is in it.
        check(
            &[],
            &[],
            "[server]\nport = 1\n\n[serve]\n",
            Err("server: no such setting (from F:1)\nserve: no such setting (from F:4)"),
        );
    }

    /// What was read at first is not what is read later; flags and environment are.
    #[test]
    fn a_file_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let flags = flags(&["--config", path.to_str().unwrap(), "--port", "3"]);
        let sources = Sources::new(&flags, |name| lookup(&[("WORKERS", "4")], name));
        let resolve = |file: &str| {
            std::fs::write(&path, file).unwrap();
            let config = sources.resolve().map_err(|problems| problems.len())?.config;
            Ok((config.port, config.workers, config.compression_level))
        };
        let file = "port = 1\nworkers = 1\ncompression_level = 2";
        assert_eq!(resolve(file), Ok((3, Some(4), 2)));
        assert_eq!(resolve("compression_level = 3"), Ok((3, Some(4), 3)));
        assert_eq!(resolve("compression_level = 20\nworkers = 'x'"), Err(1));
        assert_eq!(resolve(""), Ok((3, Some(4), 1)));
    }

    #[test]
    fn an_environment_that_is_not_utf8_is_refused() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            let value = OsString::from_vec(b"caf\xE9".to_vec());
            let env = |key: &str| (key == name).then(|| value.clone());
            let nowhere = Location::Searched(Vec::new());
            let sources = Sources::with_location(&Flags::default(), env, nowhere);
            assert_eq!(messages(&sources.resolve().unwrap_err()), expected);
        }
        for setting in settings() {
            let (key, env) = (setting.key, setting.env());
            let found = match key {
                "admin_token" | "metrics_password" => "***",
                _ => r"caf\xE9",
            };
            check(
                &env,
                &format!(r#"{key}: expected UTF-8 text, found "{found}" (from {env})"#),
            );
        }
    }

    #[test]
    fn a_secret_is_shown_nowhere() {
        let env = [
            ("ADMIN_TOKEN", "s3cret-s3cret-s3cret"),
            ("METRICS_USERNAME", "prometheus"),
            ("METRICS_PASSWORD", "s3cret of mine"),
        ];
        let effective = effective(&[], &env, "").unwrap();
        let lines: Vec<String> = effective.resolved.iter().map(Resolved::to_string).collect();
        let shown = format!("{effective:?} {}", lines.join("\n"));
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(
            shown.contains("admin_token = ***  (ADMIN_TOKEN)"),
            "{shown}"
        );
        check(
            &[],
            &[("ADMIN_TOKEN", "s3cret")],
            "",
            Err(
                "admin_token: expected none or 16 to 256 characters of a token68, \
                 found \"***\" (from ADMIN_TOKEN)",
            ),
        );
    }
}
