//! Where a setting comes from: the layers that are asked for it, what they answer, and how a value that
//! is refused is described.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;

use super::Secret;
use super::domain::Domain;

/// The layer that decided a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// No layer above has it.
    Default,
    /// The variable that [`Setting::env`] names.
    Environment,
    /// The flag that [`Setting::flag`] names.
    Flag,
}

impl Source {
    /// What an operator would look for: `default`, `PORT` or `--port`.
    pub fn name(self, key: &str) -> String {
        match self {
            Self::Default => String::from("default"),
            Self::Environment => env_name(key),
            Self::Flag => flag_name(key),
        }
    }
}

/// One setting in effect, displayed as the line of `--check-config`: `port = 8080  (PORT)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// [`Setting::key`].
    pub key: &'static str,
    /// The value as the server understood it, in the largest unit that divides it.
    pub value: String,
    /// Where the value comes from.
    pub source: Source,
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, source } = self;
        write!(f, "{key} = {value}  ({})", source.name(key))
    }
}

/// A setting that is refused; it stops the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// [`Setting::key`].
    pub key: &'static str,
    /// [`Setting::range`], or `UTF-8 text`.
    pub expected: String,
    /// The value that was given.
    pub found: OsString,
    /// The layer that gave it.
    pub source: Source,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.name(self.key);
        let Self {
            key,
            expected,
            found,
            ..
        } = self;
        write!(
            f,
            "{key}: expected {expected}, found {found:?} (from {source})"
        )
    }
}

impl Error for ConfigError {}

pub(super) fn env_name(key: &str) -> String {
    key.to_ascii_uppercase()
}

/// argh spells the flag of a field in the same way.
pub(super) fn flag_name(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The layers that are asked for every setting, and what they have answered so far.
pub(super) struct Layers<E> {
    env: E,
    pub(super) resolved: Vec<Resolved>,
    /// Settings that are refused.
    pub(super) problems: Vec<ConfigError>,
}

impl<E: Fn(&str) -> Option<OsString>> Layers<E> {
    pub(super) fn new(env: E) -> Layers<E> {
        Layers {
            env,
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
        let from_env = || (self.env)(&env_name(key)).filter(|text| !text.is_empty());
        let (text, source) = if let Some(text) = flag {
            (OsString::from(text), Source::Flag)
        } else if let Some(text) = from_env() {
            (text, Source::Environment)
        } else {
            (OsString::from(default), Source::Default)
        };
        let expected = match text.to_str() {
            None => String::from("UTF-8 text"),
            Some(utf8) => match domain.parse(utf8, source) {
                None => domain.range(),
                Some(value) => {
                    self.resolved.push(Resolved {
                        key,
                        value: domain.spell(&value),
                        source,
                    });
                    return Some(value);
                }
            },
        };
        let found = match D::IS_SECRET {
            true => OsString::from(Secret::MASK),
            false => text,
        };
        self.problems.push(ConfigError {
            key,
            expected,
            found,
            source,
        });
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::super::tests::{Env, flags, lookup, messages, resolve};
    use super::super::{Config, Flags, settings};
    use super::*;

    #[test]
    fn layers() {
        #[track_caller]
        fn check(args: &[&str], env: Env<'_>, expected: Result<&str, &str>) {
            let resolved = Config::resolve_with_sources(&flags(args), |name| lookup(env, name));
            let found = resolved
                .map_err(|problems| messages(&problems))
                .map(|(_, all)| {
                    let lines = all.iter().filter(|line| line.source != Source::Default);
                    let lines: Vec<String> = lines.map(Resolved::to_string).collect();
                    lines.join("\n")
                });
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        }
        check(&[], &[], Ok(""));
        check(&[], &[("PORT", "1")], Ok("port = 1  (PORT)"));
        check(&["--port", "2"], &[("PORT", "1")], Ok("port = 2  (--port)"));
        check(
            &["--port", "2"],
            &[("PORT", "what a flag hides is not read")],
            Ok("port = 2  (--port)"),
        );
        check(
            &[],
            &[("PORT", ""), ("DATA_DIR", ""), ("DEBUG", "")],
            Ok(""),
        );
        check(
            &["--debug"],
            &[("DEBUG", "0")],
            Ok("debug = true  (--debug)"),
        );
        check(&[], &[("port", "1"), ("--port", "1")], Ok(""));
        check(
            &["--compression-level", "-5", "--data-dir", "/srv/r"],
            &[("WORKERS", "2"), ("FLUSH_SECS", "120s")],
            Ok("data_dir = /srv/r  (--data-dir)\n\
                flush_secs = 2m  (FLUSH_SECS)\n\
                compression_level = -5  (--compression-level)\n\
                workers = 2  (WORKERS)"),
        );
        check(
            &[],
            &[("FLUSH_SECS", "0")],
            Err(r#"flush_secs: expected 1s to 1h, found "0" (from FLUSH_SECS)"#),
        );
        check(
            &["--flush-secs", "0"],
            &[("FLUSH_SECS", "60")],
            Err(r#"flush_secs: expected 1s to 1h, found "0" (from --flush-secs)"#),
        );
        check(
            &["--data-dir", ""],
            &[("DATA_DIR", "/srv/r")],
            Err(r#"data_dir: expected a path, found "" (from --data-dir)"#),
        );
        // Every refusal in the order of the table, whatever the layer.
        check(
            &["--workers", "0"],
            &[("IDLE_SECS", "1"), ("PORT", "x"), ("DEBUG", "maybe")],
            Err(r#"port: expected 0 to 65535, found "x" (from PORT)
workers: expected all or 1 to 1024, found "0" (from --workers)
debug: expected true or false, found "maybe" (from DEBUG)"#),
        );
    }

    #[test]
    fn an_environment_that_is_not_utf8_is_refused() {
        #[track_caller]
        fn check(name: &str, expected: &str) {
            let value = OsString::from_vec(b"caf\xE9".to_vec());
            let env = |key: &str| (key == name).then(|| value.clone());
            let error = Config::resolve(&Flags::default(), env).unwrap_err();
            assert_eq!(messages(&error), expected);
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
        let (config, resolved) =
            Config::resolve_with_sources(&Flags::default(), |key| lookup(&env, key)).unwrap();
        let lines: Vec<String> = resolved.iter().map(Resolved::to_string).collect();
        let shown = format!("{config:?} {resolved:?} {}", lines.join("\n"));
        assert!(!shown.contains("s3cret"), "{shown}");
        assert!(
            shown.contains("admin_token = ***  (ADMIN_TOKEN)"),
            "{shown}"
        );
        let short = resolve(&[], &[("ADMIN_TOKEN", "s3cret")]).unwrap_err();
        let expected = "admin_token: expected none or 16 to 256 characters of a token68, \
                        found \"***\" (from ADMIN_TOKEN)";
        assert_eq!(messages(&short), expected);
    }
}
