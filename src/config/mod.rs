//! Settings: flags, environment, a file and defaults become one checked [`Config`].
//!
//! Each setting is one row of `settings!` below: its help, key, type, default, range and reload. The row
//! makes the field of [`Flags`], the field of [`Config`] and the entry of [`settings`]; the key is its
//! name in the file and spells the other two, so `flush_secs` is `FLUSH_SECS` and `--flush-secs`.
//! [`Sources`] says which layer decides.
//!
//! Nothing but the file is opened here, nothing is bound or created, and the process environment is
//! not read: the caller passes a function that looks a variable up. Whether a directory can be written
//! or an address exists is found out by whoever uses it.
//!
//! Invariant: every value in a [`Config`] that [`Sources::resolve`] returned is in its range.
//!
//! Units: sizes are bytes, `1048576` or with `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024), `kB` or
//! `KB`, `MB`, `GB`, `TB` (powers of 1000); times are whole seconds, `90` or with `s`, `m`, `h`,
//! `d`.

mod domain;
mod error;
mod file;
mod layers;
mod reload;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use self::domain::{
    Addresses, Bools, DAY_SECS, Domain, GIB, Integers, KIB, MIB, NetworkLists, Or, OriginLists,
    Passwords, Paths, Rates, Sizes, SocketAddresses, TIB, Times, Tokens, UserNames, Words,
};
pub use self::domain::{Secret, secs};
pub use self::error::{ConfigError, Found, Position};
pub use self::file::FILE_BYTES_MAX;
pub use self::layers::{Effective, Exposed, Resolved, Source, Sources};
use self::layers::{Layers, env_name, flag_name, nearest};
pub use self::reload::{Change, Reload, changes};
use crate::api::cors::Origins;
use crate::api::forwarded::TrustedProxies;
use crate::command::Command;
use crate::limit::Rate;

/// Most addresses in `HOST`: each is one more socket on every worker.
pub const ADDRESSES_MAX: usize = 16;

/// Most workers: as many as a `cpu_set_t` has CPUs (`CPU_SETSIZE`, CPU_SET(3)).
pub const WORKERS_MAX: usize = 1024;

/// Turns the rows into [`Flags`], [`Config`], [`Config::read`] and [`settings`].
///
/// A row is `key: type = default, domain, reload;` under its help. argh takes the help as a literal only,
/// so the bracketed end that repeats name, range and default is written out; a test compares it.
macro_rules! settings {
    (
        options: $(
            $(#[doc = $help:tt])+
            $key:ident: $value:ty = $default:literal, $domain:expr, $reload:ident;
        )+
        switches: $(
            $(#[doc = $switch_help:tt])+
            $switch:ident: $switch_value:ty = $switch_default:literal, $switch_domain:expr,
                $switch_reload:ident;
        )+
    ) => {
        /// Receives NetWatch reports over HTTP and keeps them as compressed JSON lines.
        //
        // Values stay text here, so that every layer is read and refused by the same code.
        #[derive(argh::FromArgs, Clone, Debug, Default)]
        #[argh(help_triggers("-h", "--help", "help"), usage = "[<options>] [<command> [<args>]]")]
        pub struct Flags {
            $(
                $(#[doc = $help])+
                #[argh(option)]
                pub $key: Option<String>,
            )+
            $(
                $(#[doc = $switch_help])+
                #[argh(switch)]
                pub $switch: bool,
            )+
            /// TOML file with settings (default: netwatch-server/config.toml in $XDG_CONFIG_HOME or
            /// ~/.config, else in /etc, where there is one)
            #[argh(option)]
            pub config: Option<PathBuf>,
            /// check all settings, print each with its value and source, and exit
            #[argh(switch)]
            pub check_config: bool,
            /// print the version, and exit
            #[argh(switch)]
            pub version: bool,
            /// what to do instead of serving
            #[argh(subcommand)]
            pub command: Option<Command>,
        }

        /// The settings in effect, each in its range.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $help])+ pub $key: $value, )+
            $( $(#[doc = $switch_help])+ pub $switch: $switch_value, )+
        }

        impl Config {
            /// Every setting's value; `None` if one is refused, which `layers` has noted.
            fn read(flags: &Flags, layers: &mut Layers<'_>) -> Option<Config> {
                // All are read before the first that is missing ends it: every problem is noted.
                $(
                    let flag = flags.$key.as_deref();
                    let $key = layers.read(stringify!($key), &$domain, flag, $default);
                )+
                $(
                    let flag = flags.$switch.then_some("true");
                    let $switch =
                        layers.read(stringify!($switch), &$switch_domain, flag, $switch_default);
                )+
                Some(Config { $( $key: $key?, )+ $( $switch: $switch?, )+ })
            }
        }

        /// Every setting, in the order of `--help`.
        pub fn settings() -> Vec<Setting> {
            vec![
                $( Setting {
                    key: stringify!($key),
                    default: $default,
                    range: $domain.range(),
                    help: concat!($($help),+).trim_ascii(),
                    reload: Reload::$reload,
                }, )+
                $( Setting {
                    key: stringify!($switch),
                    default: $switch_default,
                    range: $switch_domain.range(),
                    help: concat!($($switch_help),+).trim_ascii(),
                    reload: Reload::$switch_reload,
                }, )+
            ]
        }
    };
}

settings! {
options:
    /// addresses to listen on
    /// (HOST; up to 16 different IP addresses with commas between; default 0.0.0.0,::)
    host: Host = "0.0.0.0,::", Addresses, Restart;

    /// public port, 0 for any free one
    /// (PORT; 0 to 65535; default 8080)
    port: u16 = "8080", Integers(0..=u16::MAX), Restart;

    /// address of metrics and of reading back, `off` for none; beyond loopback it needs ADMIN_TOKEN
    /// (ADMIN_ADDR; off or an IP address with a port; default 127.0.0.1:8081)
    admin_addr: Option<SocketAddr> = "127.0.0.1:8081", Or("off", SocketAddresses), Restart;

    /// bearer token that every request to ADMIN_ADDR has to bring
    /// (ADMIN_TOKEN; none or 16 to 256 characters of a token68; default none)
    admin_token: Option<Secret> = "none", Or("none", Tokens), Live;

    /// user for basic authentication at /metrics
    /// (METRICS_USERNAME; none or 1 to 256 printable characters, no colon; default none)
    metrics_username: Option<String> = "none", Or("none", UserNames), Live;

    /// password of that user
    /// (METRICS_PASSWORD; none or 1 to 256 printable characters; default none)
    metrics_password: Option<Secret> = "none", Or("none", Passwords), Live;

    /// directory that holds the segments
    /// (DATA_DIR; a path; default ./data/reports)
    data_dir: PathBuf = "./data/reports", Paths, Restart;

    /// what a report's 200 promises: synced to disk, written to the kernel, or held in memory
    /// (ACK; durable, written or buffered; default durable)
    ack: Ack = "durable", Words(Ack::WORDS), Restart;

    /// origins whose pages may post, with commas between, as browsers spell them
    /// (CORS_ORIGINS; any or up to 64 origins; default any)
    cors_origins: Origins = "any", OriginLists, Live;

    /// requests for reports that one address may make, an IPv6 one as its /64; each report of a batch counts
    /// (RATE_PER_IP; off or 1 to 1000000 with /s, /m or /h; default off)
    rate_per_ip: Option<Rate> = "off", Or("off", Rates), Live;

    /// connections that one address may keep open, an IPv6 one as its /64
    /// (CONNECTIONS_PER_IP; 1 to 1000000; default 4096)
    connections_per_ip: u32 = "4096", Integers(1..=1_000_000), Live;

    /// networks of proxies whose Forwarded or X-Forwarded-For is believed, with commas between
    /// (TRUSTED_PROXIES; none or up to 64 networks; default none)
    trusted_proxies: TrustedProxies = "none", NetworkLists, Live;

    /// bytes of lines at which a segment is sealed
    /// (FLUSH_BYTES; 1KiB to 1GiB; default 10MiB)
    flush_bytes: u64 = "10MiB", Sizes(KIB..=GIB), Restart;

    /// time from its first line to the seal of a segment
    /// (FLUSH_SECS; 1s to 1h; default 60s)
    flush_secs: Duration = "60s", Times(1..=3600), Restart;

    /// zstd level, 0 for zstd's own default
    /// (COMPRESSION_LEVEL; -7 to 19; default 1)
    compression_level: i32 = "1", Integers(-7..=19), Restart;

    /// worker threads, one to a CPU; `all` takes every CPU the process may run on
    /// (WORKERS; all or 1 to 1024; default all)
    workers: Option<usize> = "all", Or("all", Integers(1..=WORKERS_MAX)), Restart;

    /// bytes a worker holds that are not committed yet; beyond, reports get 503
    /// (SHARD_BYTES_MAX; 2MiB to 16GiB; default 64MiB)
    shard_bytes_max: u64 = "64MiB", Sizes(2 * MIB..=16 * GIB), Restart;

    /// free disk space below which reports get 503
    /// (MIN_FREE_BYTES; 0 to 1TiB; default 256MiB)
    min_free_bytes: u64 = "256MiB", Sizes(0..=TIB), Live;

    /// time from its last line after which a sealed segment is removed
    /// (RETENTION_AGE; none or 60s to 36500d; default none)
    retention_age: Option<Duration> = "none", Or("none", Times(60..=36_500 * DAY_SECS)), Live;

    /// bytes of sealed segments beyond which the oldest are removed
    /// (RETENTION_BYTES; none or 1MiB to 1024TiB; default none)
    retention_bytes: Option<u64> = "none", Or("none", Sizes(MIB..=1024 * TIB)), Live;

    /// time a client has to send a request head
    /// (HEAD_SECS; 1s to 5m; default 10s)
    head_secs: Duration = "10s", Times(1..=300), Live;

    /// time a client has to send a request body
    /// (BODY_SECS; 1s to 1h; default 30s)
    body_secs: Duration = "30s", Times(1..=3600), Live;

    /// bytes that a body has to bring for each second beyond BODY_SECS
    /// (BODY_RATE_MIN; 64 to 1GiB; default 16KiB)
    body_rate_min: u64 = "16KiB", Sizes(64..=GIB), Live;

    /// time a connection may stay open between requests
    /// (IDLE_SECS; 1s to 1h; default 60s)
    idle_secs: Duration = "60s", Times(1..=3600), Live;

    /// time a client has to take a response
    /// (WRITE_SECS; 1s to 1h; default 30s)
    write_secs: Duration = "30s", Times(1..=3600), Live;

    /// time open requests have to end at shutdown
    /// (SHUTDOWN_SECS; 0s to 5m; default 5s)
    shutdown_secs: Duration = "5s", Times(0..=300), Live;

    /// form of log lines; `auto` is text on a terminal and JSON elsewhere
    /// (LOG_FORMAT; auto, json or text; default auto)
    log_format: LogFormat = "auto", Words(LogFormat::WORDS), Restart;

switches:
    /// log debug events as well
    /// (DEBUG; true or false; default false)
    debug: bool = "false", Bools, Live;
}

/// The flag that a misspelled one may have meant; itself, if it is one.
pub fn nearest_flag(given: &str) -> Option<String> {
    let given = given.strip_prefix("--")?.split('=').next()?;
    let given = given.to_ascii_lowercase().replace('-', "_");
    let settings = settings();
    let keys = settings.iter().map(|setting| setting.key);
    let keys = keys.chain(["config", "check_config", "version", "help"]);
    nearest(&given, keys).map(flag_name)
}

impl Config {
    /// What settings ask of each other.
    fn check(&self, resolved: &[Resolved]) -> Vec<ConfigError> {
        let mut problems = Vec::new();
        let mut missing = |key, expected: String| {
            let setting = resolved.iter().find(|setting| setting.key == key);
            let setting = setting.expect("every setting has been resolved");
            problems.push(ConfigError::Refused {
                key,
                expected,
                found: Found::Text(OsString::from(&setting.value)),
                source: setting.source.clone(),
            });
        };
        if let Some(address) = self.admin_addr
            && !address.ip().is_loopback()
            && self.admin_token.is_none()
        {
            let expected = format!("a token, since admin_addr = {address} is not loopback");
            missing("admin_token", expected);
        }
        match (&self.metrics_username, &self.metrics_password) {
            (Some(_), None) => {
                let expected = String::from("a password, since there is a metrics_username");
                missing("metrics_password", expected);
            }
            (None, Some(_)) => {
                let expected = String::from("a user, since there is a metrics_password");
                missing("metrics_username", expected);
            }
            _ => (),
        }
        problems
    }
}

impl Default for Config {
    /// Every setting at its default.
    fn default() -> Config {
        let env = BTreeMap::new();
        let config = Self::read(&Flags::default(), &mut Layers::new(&env, None));
        config.expect("each default is in its own range")
    }
}

/// The addresses of the public port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `1 <= addresses.len() <= ADDRESSES_MAX`, no two alike.
    pub addresses: Vec<IpAddr>,
    /// With [`Source::Default`] a machine without IPv6 is worth a warning only; an address that
    /// somebody asked for has to work.
    pub source: Source,
}

/// What has happened to a report when its client reads 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// It is on stable storage, the file's name too: it survives the machine.
    Durable,
    /// `write` returned: it survives the process, not the machine.
    Written,
    /// It is in memory: it survives neither.
    Buffered,
}

impl Ack {
    const WORDS: &[(&'static str, Ack)] = &[
        ("durable", Ack::Durable),
        ("written", Ack::Written),
        ("buffered", Ack::Buffered),
    ];
}

impl fmt::Display for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, ack)| ack == self);
        f.write_str(word.expect("each level has its word").0)
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    const WORDS: &[(&'static str, LogFormat)] = &[
        ("auto", LogFormat::Auto),
        ("json", LogFormat::Json),
        ("text", LogFormat::Text),
    ];
}

/// A setting as its row describes it; for `--help`, the README, and the tests that compare them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name in messages and the field of [`Config`]: `flush_secs`.
    pub key: &'static str,
    /// The default as an operator would write it: `60s`.
    pub default: &'static str,
    /// What is accepted, as refusals spell it: `1s to 1h`.
    pub range: String,
    /// The line of `--help`; it ends in `(FLUSH_SECS; 1s to 1h; default 60s)`.
    pub help: &'static str,
    /// Whether it can change while the server runs.
    pub reload: Reload,
}

impl Setting {
    /// The environment variable: `FLUSH_SECS`.
    pub fn env(&self) -> String {
        env_name(self.key)
    }

    /// The flag: `--flush-secs`.
    pub fn flag(&self) -> String {
        flag_name(self.key)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use std::path::Path;

    use argh::FromArgs;

    use super::file::Location;
    use super::*;

    pub(super) type Env<'a> = &'a [(&'a str, &'a str)];

    pub(super) fn flags(args: &[&str]) -> Flags {
        Flags::from_args(&["netwatch-server"], args).unwrap()
    }

    pub(super) fn lookup(env: Env<'_>, name: &str) -> Option<OsString> {
        let (_, value) = env.iter().find(|(key, _)| *key == name)?;
        Some(OsString::from(value))
    }

    /// What is in effect with these flags and variables, and a file of this text that messages call `F`;
    /// or one line a problem.
    pub(super) fn effective(args: &[&str], env: Env<'_>, file: &str) -> Result<Effective, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let location = Location::Named(path.clone());
        let sources = Sources::with_location(&flags(args), |name| lookup(env, name), location);
        let path_text = path.to_str().unwrap();
        let mut effective = sources
            .resolve()
            .map_err(|problems| messages(&problems).replace(path_text, "F"))?;
        for one in &mut effective.resolved {
            if let Source::File { path, .. } = &mut one.source {
                *path = Path::new("F").into();
            }
        }
        Ok(effective)
    }

    fn resolve(args: &[&str], env: Env<'_>) -> Result<Config, String> {
        effective(args, env, "").map(|effective| effective.config)
    }

    /// One line a problem.
    pub(super) fn messages(problems: &[ConfigError]) -> String {
        assert!(!problems.is_empty());
        let lines: Vec<String> = problems.iter().map(ConfigError::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn defaults() {
        let expected = Config {
            host: Host {
                addresses: vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
                source: Source::Default,
            },
            port: 8080,
            admin_addr: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            admin_token: None,
            metrics_username: None,
            metrics_password: None,
            data_dir: PathBuf::from("./data/reports"),
            ack: Ack::Durable,
            cors_origins: Origins::Any,
            rate_per_ip: None,
            connections_per_ip: 4096,
            trusted_proxies: TrustedProxies::default(),
            flush_bytes: 10_485_760,
            flush_secs: Duration::from_secs(60),
            compression_level: 1,
            workers: None,
            shard_bytes_max: 67_108_864,
            min_free_bytes: 268_435_456,
            retention_age: None,
            retention_bytes: None,
            head_secs: Duration::from_secs(10),
            body_secs: Duration::from_secs(30),
            body_rate_min: 16_384,
            idle_secs: Duration::from_secs(60),
            write_secs: Duration::from_secs(30),
            shutdown_secs: Duration::from_secs(5),
            log_format: LogFormat::Auto,
            debug: false,
        };
        assert_eq!(Config::default(), expected);
        assert_eq!(resolve(&[], &[]), Ok(expected));
    }

    /// A setting from the environment, and what it becomes as text.
    #[test]
    fn accepted() {
        #[track_caller]
        fn check(name: &str, text: &str, expected: &str) {
            let env = [(name, text)];
            let resolved = effective(&[], &env, "").unwrap().resolved;
            let set = resolved.iter().find(|r| env_name(r.key) == name).unwrap();
            assert_eq!(set.value, expected);
            assert_eq!(set.source, Source::Environment);
        }

        check("HOST", "127.0.0.1", "127.0.0.1");
        check("HOST", " ::1 ,\t10.0.0.1", "::1,10.0.0.1");
        check("HOST", "0:0:0:0:0:0:0:0", "::");
        check("HOST", &sixteen_addresses(), &sixteen_addresses());
        check("PORT", "0", "0");
        check("PORT", "65535", "65535");
        check("ADMIN_ADDR", "off", "off");
        check("ADMIN_ADDR", "127.0.0.1:0", "127.0.0.1:0");
        check("ADMIN_ADDR", "[::1]:9100", "[::1]:9100");
        check("ADMIN_TOKEN", "none", "none");
        check("ADMIN_TOKEN", "0123456789abcdef", "***");
        check("ADMIN_TOKEN", "-._~+/0123456789ABCDxyz==", "***");
        check("METRICS_USERNAME", "none", "none");
        check("METRICS_PASSWORD", "none", "none");
        check("DATA_DIR", "/var/lib/netwatch", "/var/lib/netwatch");
        check("DATA_DIR", "it's here", "it's here");
        check("ACK", "durable", "durable");
        check("ACK", "written", "written");
        check("ACK", "buffered", "buffered");
        check("RATE_PER_IP", "off", "off");
        check("RATE_PER_IP", "1/h", "1/h");
        check("RATE_PER_IP", "1000000/s", "1000000/s");
        check("CONNECTIONS_PER_IP", "1", "1");
        check("CONNECTIONS_PER_IP", "1000000", "1000000");
        check("TRUSTED_PROXIES", "none", "none");
        check("TRUSTED_PROXIES", "::1, 10.0.0.0/8", "::1,10.0.0.0/8");
        check("FLUSH_BYTES", "1024", "1KiB");
        check("FLUSH_BYTES", "1KiB", "1KiB");
        check("FLUSH_BYTES", "1024MiB", "1GiB");
        check("FLUSH_BYTES", "10MB", "10000000");
        check("FLUSH_BYTES", "1500kB", "1500000");
        check("FLUSH_SECS", "1", "1s");
        check("FLUSH_SECS", "1m", "60s");
        check("FLUSH_SECS", "90s", "90s");
        check("FLUSH_SECS", "120", "2m");
        check("FLUSH_SECS", "1h", "1h");
        check("COMPRESSION_LEVEL", "-7", "-7");
        check("COMPRESSION_LEVEL", "19", "19");
        check("WORKERS", "1", "1");
        check("WORKERS", "1024", "1024");
        check("WORKERS", "all", "all");
        check("SHARD_BYTES_MAX", "2MiB", "2MiB");
        check("SHARD_BYTES_MAX", "16GiB", "16GiB");
        check("MIN_FREE_BYTES", "0", "0");
        check("MIN_FREE_BYTES", "1TiB", "1TiB");
        check("RETENTION_AGE", "none", "none");
        check("RETENTION_AGE", "60", "60s");
        check("RETENTION_AGE", "30d", "30d");
        check("RETENTION_AGE", "36500d", "36500d");
        check("RETENTION_BYTES", "none", "none");
        check("RETENTION_BYTES", "1MiB", "1MiB");
        check("RETENTION_BYTES", "1024TiB", "1024TiB");
        check("HEAD_SECS", "1", "1s");
        check("HEAD_SECS", "300", "5m");
        check("BODY_SECS", "1", "1s");
        check("BODY_SECS", "3600", "1h");
        check("BODY_RATE_MIN", "64", "64");
        check("BODY_RATE_MIN", "1GiB", "1GiB");
        check("IDLE_SECS", "1", "1s");
        check("IDLE_SECS", "60m", "1h");
        check("WRITE_SECS", "1", "1s");
        check("WRITE_SECS", "1h", "1h");
        check("SHUTDOWN_SECS", "0", "0s");
        check("SHUTDOWN_SECS", "300", "5m");
        check("LOG_FORMAT", "auto", "auto");
        check("LOG_FORMAT", "json", "json");
        check("LOG_FORMAT", "text", "text");
        for yes in ["1", "t", "T", "TRUE", "true", "True"] {
            check("DEBUG", yes, "true");
        }
        for no in ["0", "f", "F", "FALSE", "false", "False"] {
            check("DEBUG", no, "false");
        }
    }

    /// A setting from the environment, values it does not take, and the range that it names.
    #[test]
    fn refused() {
        #[track_caller]
        fn check(name: &str, texts: &[&str], range: &str) {
            let key = name.to_ascii_lowercase();
            for text in texts {
                let error = resolve(&[], &[(name, text)]).unwrap_err();
                let expected = format!("{key}: expected {range}, found {text:?} (from {name})");
                assert_eq!(error, expected);
            }
        }

        let seventeen = sixteen_addresses() + ",::";
        check(
            "HOST",
            &[
                "localhost",
                "::,",
                ",",
                "[::]",
                "::,::",
                "0.0.0.0:80",
                &seventeen,
            ],
            "up to 16 different IP addresses with commas between",
        );
        check(
            "PORT",
            &["65536", "-1", "0x50", "80 ", ":80", "\u{1b}[0m"],
            "0 to 65535",
        );
        check(
            "RATE_PER_IP",
            &["0/s", "1000001/s", "10", "1/d", "none"],
            "off or 1 to 1000000 with /s, /m or /h",
        );
        check(
            "CONNECTIONS_PER_IP",
            &["0", "1000001", "off"],
            "1 to 1000000",
        );
        check(
            "ADMIN_ADDR",
            &[
                "8081",
                ":8081",
                "localhost:8081",
                "::1:8081",
                "127.0.0.1",
                "127.0.0.1:65536",
            ],
            "off or an IP address with a port",
        );
        check(
            "METRICS_USERNAME",
            &["a:b", "a\nb", &"u".repeat(257)],
            "none or 1 to 256 printable characters, no colon",
        );
        check(
            "RETENTION_AGE",
            &["59", "1", "off", "30w", "36501d"],
            "none or 60s to 36500d",
        );
        check(
            "RETENTION_BYTES",
            &["1", "1048575", "1025TiB"],
            "none or 1MiB to 1024TiB",
        );
        check(
            "TRUSTED_PROXIES",
            &["10.0.0.1/8", "::1,", "any", "proxy.example"],
            "none or up to 64 networks",
        );
        check("BODY_RATE_MIN", &["63", "2GiB", "off"], "64 to 1GiB");
        check(
            "ACK",
            &["synced", "Durable", "durable "],
            "durable, written or buffered",
        );
        let bad = [
            "MiB", "1.5MiB", "10M", "10mib", "10 MiB", "+10MiB", "-1", "0", "1023",
        ];
        check("FLUSH_BYTES", &bad, "1KiB to 1GiB");
        let beyond = ["1073741825", "2GB", "18446744073709551616", "16777216TiB"];
        check("FLUSH_BYTES", &beyond, "1KiB to 1GiB");
        let bad = [
            "0",
            "3601",
            "2h",
            "30d",
            "60S",
            "1m30s",
            "0.5s",
            "s",
            "213503982334602d",
        ];
        check("FLUSH_SECS", &bad, "1s to 1h");
        check("COMPRESSION_LEVEL", &["-8", "20", "fast"], "-7 to 19");
        check("WORKERS", &["0", "1025", "auto", "-1"], "all or 1 to 1024");
        check(
            "SHARD_BYTES_MAX",
            &["1MiB", "2MB", "17GiB"],
            "2MiB to 16GiB",
        );
        check("MIN_FREE_BYTES", &["2TB", "1025GiB", "10%"], "0 to 1TiB");
        check("HEAD_SECS", &["0", "301"], "1s to 5m");
        check("BODY_SECS", &["0", "3601"], "1s to 1h");
        check("IDLE_SECS", &["0", "3601"], "1s to 1h");
        check("WRITE_SECS", &["0", "3601"], "1s to 1h");
        check("SHUTDOWN_SECS", &["-1", "301"], "0s to 5m");
        check("LOG_FORMAT", &["JSON", "logfmt"], "auto, json or text");
        check("DEBUG", &["yes", "on", "tRUE", "2", " 1"], "true or false");
    }

    fn sixteen_addresses() -> String {
        let addresses: Vec<String> = (1..=16).map(|last| format!("10.0.0.{last}")).collect();
        addresses.join(",")
    }

    #[test]
    fn typed_values() {
        let env = [
            ("HOST", "0.0.0.0,::"),
            ("ACK", "written"),
            ("FLUSH_BYTES", "64KiB"),
            ("WORKERS", "3"),
            ("IDLE_SECS", "2m"),
            ("LOG_FORMAT", "json"),
            ("DEBUG", "T"),
        ];
        let expected = Config {
            // The same addresses as the default, but asked for.
            host: Host {
                source: Source::Environment,
                ..Config::default().host
            },
            ack: Ack::Written,
            flush_bytes: 65_536,
            workers: Some(3),
            idle_secs: Duration::from_secs(120),
            log_format: LogFormat::Json,
            debug: true,
            ..Config::default()
        };
        assert_eq!(resolve(&[], &env), Ok(expected));
    }

    #[test]
    fn check_config_lines() {
        let resolved = effective(&["--port", "0"], &[], "").unwrap().resolved;
        let lines: Vec<String> = resolved.iter().map(Resolved::to_string).collect();
        let expected = [
            "host = 0.0.0.0,::  (default)",
            "port = 0  (--port)",
            "admin_addr = 127.0.0.1:8081  (default)",
            "admin_token = none  (default)",
            "metrics_username = none  (default)",
            "metrics_password = none  (default)",
            "data_dir = ./data/reports  (default)",
            "ack = durable  (default)",
            "cors_origins = any  (default)",
            "rate_per_ip = off  (default)",
            "connections_per_ip = 4096  (default)",
            "trusted_proxies = none  (default)",
            "flush_bytes = 10MiB  (default)",
            "flush_secs = 60s  (default)",
            "compression_level = 1  (default)",
            "workers = all  (default)",
            "shard_bytes_max = 64MiB  (default)",
            "min_free_bytes = 256MiB  (default)",
            "retention_age = none  (default)",
            "retention_bytes = none  (default)",
            "head_secs = 10s  (default)",
            "body_secs = 30s  (default)",
            "body_rate_min = 16KiB  (default)",
            "idle_secs = 60s  (default)",
            "write_secs = 30s  (default)",
            "shutdown_secs = 5s  (default)",
            "log_format = auto  (default)",
            "debug = false  (default)",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_settings_ask_of_each_other() {
        #[track_caller]
        fn check(env: Env<'_>, expected: Result<(), &str>) {
            let found = resolve(&[], env).map(drop);
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        let token = ("ADMIN_TOKEN", "0123456789abcdef");
        let (user, password) = (("METRICS_USERNAME", "u"), ("METRICS_PASSWORD", "p"));
        for loopback in ["off", "127.3.2.1:1", "[::1]:0"] {
            check(&[("ADMIN_ADDR", loopback)], Ok(()));
        }
        for wide in ["0.0.0.0:8081", "[::]:8081", "10.0.0.1:8081"] {
            let expected = format!(
                "admin_token: expected a token, since admin_addr = {wide} is not loopback, \
                 found \"none\" (from default)"
            );
            check(&[("ADMIN_ADDR", wide)], Err(&expected));
            check(&[("ADMIN_ADDR", wide), token], Ok(()));
        }
        check(&[user, password], Ok(()));
        check(
            &[("ADMIN_ADDR", "[::]:1"), user],
            Err(
                "admin_token: expected a token, since admin_addr = [::]:1 is not loopback, \
                 found \"none\" (from default)\n\
                 metrics_password: expected a password, since there is a metrics_username, \
                 found \"none\" (from default)",
            ),
        );
        check(
            &[user],
            Err(
                "metrics_password: expected a password, since there is a metrics_username, \
                 found \"none\" (from default)",
            ),
        );
        check(
            &[("METRICS_USERNAME", "none"), password],
            Err(
                "metrics_username: expected a user, since there is a metrics_password, \
                 found \"none\" (from METRICS_USERNAME)",
            ),
        );
    }

    #[test]
    fn the_table_agrees_with_help_and_with_what_is_read() {
        let exit = Flags::from_args(&["netwatch-server"], &["--help"]).unwrap_err();
        assert_eq!(exit.status, Ok(()));
        let words: Vec<&str> = exit.output.split_ascii_whitespace().collect();
        let help_on_one_line = words.join(" ");

        let resolved = effective(&[], &[], "").unwrap().resolved;
        let settings = settings();
        assert_eq!(settings.len(), resolved.len());
        for (setting, resolved) in settings.iter().zip(resolved) {
            let Setting {
                key,
                default,
                range,
                help,
                ..
            } = setting;
            assert_eq!(resolved.key, *key);
            // A default is written as its value is spelled.
            assert_eq!(resolved.value, *default, "{key}");
            let end = format!(" ({}; {range}; default {default})", setting.env());
            assert!(help.ends_with(&end), "{help}\ndoes not end in{end}");
            let line = format!(" {} {help} -", setting.flag());
            assert!(help_on_one_line.contains(&line), "--help has no{line}");
        }
    }

    #[test]
    fn help() {
        let exit = Flags::from_args(&["netwatch-server"], &["-h"]).unwrap_err();
        let start = "Usage: netwatch-server [<options>] [<command> [<args>]]\n\n\
            Receives NetWatch reports over HTTP and keeps them as compressed JSON lines.\n\n\
            Options:\n  \
              --host            addresses to listen on (HOST; up to 16 different IP\n";
        assert!(exit.output.starts_with(start), "{}", exit.output);
        let end = "\n  \
              --config          TOML file with settings (default:\n                    \
                                netwatch-server/config.toml in $XDG_CONFIG_HOME or\n                    \
                                ~/.config, else in /etc, where there is one)\n  \
              --check-config    check all settings, print each with its value and source,\n                    \
                                and exit\n  \
              --version         print the version, and exit\n  \
              -h, --help, help  display usage information\n\n\
            Commands:\n";
        assert!(exit.output.contains(end), "{}", exit.output);
        for line in exit.output.lines() {
            assert!(line.len() <= 80, "wider than a terminal: {line}");
        }
    }

    #[test]
    fn switches() {
        let none = flags(&[]);
        assert!(!none.debug && !none.check_config && !none.version);
        let all = flags(&["--debug", "--check-config", "--version"]);
        assert!(all.debug && all.check_config && all.version);
    }
}
