//! Settings as an operator gives them, and a server that cannot start says why.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use netwatch_server::config::{Reload, Setting, settings};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Driver, Run, Server, both_drivers, command, post, run};

both_drivers!(
    a_server_is_set_up_by_a_file,
    a_directory_has_one_server,
    a_port_has_one_server,
    a_directory_that_cannot_be_used,
    an_address_that_is_not_here,
    one_port_for_all_addresses,
    the_directory_is_made,
);

#[test]
fn help_names_every_setting() {
    let Run {
        code,
        stdout,
        stderr,
    } = run(&["--help"], &[]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    // Long lines are broken.
    let words: Vec<&str> = stdout.split_whitespace().collect();
    let text = words.join(" ");
    for setting in settings() {
        let (flag, env) = (setting.flag(), setting.env());
        let (range, default) = (&setting.range, setting.default);
        let option = format!("{flag} {}", setting.help);
        assert!(text.contains(&option), "{option:?} in {stdout}");
        let tail = format!("({env}; {range}; default {default})");
        assert!(setting.help.ends_with(&tail), "{tail:?} in {option:?}");
    }
    for line in stdout.lines() {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

#[test]
fn version_is_the_packages() {
    let version = concat!("netwatch-server ", env!("CARGO_PKG_VERSION"), "\n");
    let expected = Run {
        code: Some(0),
        stdout: version.to_owned(),
        stderr: String::new(),
    };
    assert_eq!(run(&["--version"], &[]), expected);
    // Whatever else is set.
    assert_eq!(run(&["--version"], &[("PORT", "x")]), expected);
}

#[test]
fn the_settings_table_of_the_readme() {
    let readme = include_str!("../../README.md");
    let rows: BTreeSet<[String; 5]> = readme
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let (env, flag) = cells.next()?.split_once(", ")?;
            let (env, flag) = (unquote(env)?, unquote(flag)?);
            let (default, range, reload) = (cells.next()?, cells.next()?, cells.next()?);
            flag.starts_with("--")
                .then(|| [env, flag, default, range, reload].map(str::to_owned))
        })
        .collect();
    let expected: BTreeSet<[String; 5]> = settings()
        .into_iter()
        .map(|setting| {
            let (env, flag) = (setting.env(), setting.flag());
            let reload = reload(&setting);
            [env, flag, setting.default.to_owned(), setting.range, reload]
        })
        .collect();
    assert_eq!(rows, expected);
}

/// The file that packages install says what the table says. Until it is edited it changes nothing but where the
/// data is: a command that is typed finds it as the service does.
#[test]
fn the_file_to_start_from() {
    let shipped = include_str!("../../deploy/config.toml");
    let packaged = |key: &str| (key == "data_dir").then_some("/var/lib/netwatch-server");
    let (head, rows) = shipped
        .split_once("\n\n")
        .expect("a head, then the settings");
    assert!(head.lines().all(|line| line.starts_with('#')), "{head}");
    let rows: Vec<&str> = rows.trim_end().split("\n\n").collect();
    let expected: Vec<String> = settings()
        .into_iter()
        .map(|setting| {
            let Setting {
                key,
                default,
                range,
                help,
                ..
            } = &setting;
            let (help, _) = help.rsplit_once(" (").expect("names stand at the end");
            // As people would write it.
            let is_bare = default.parse::<i64>().is_ok() || default.parse::<bool>().is_ok();
            let quote = if is_bare { "" } else { "\"" };
            let reload = reload(&setting);
            let row = match packaged(key) {
                Some(value) => format!("{key} = \"{value}\""),
                None => format!("#{key} = {quote}{default}{quote}"),
            };
            format!("# {help}\n# {range}; {reload}\n{row}")
        })
        .collect();
    assert_eq!(rows, expected);

    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("config.toml");
    let file = path.to_str().expect("its path is text");
    let check = |text: &str, source: &dyn Fn(&str) -> String| {
        fs::write(&path, text).expect("the directory can be written");
        let expected: String = settings()
            .into_iter()
            .map(|setting| {
                let key = setting.key;
                let value = packaged(key).unwrap_or(setting.default);
                format!("{key} = {value}  ({})\n", source(key))
            })
            .collect();
        let expected = Run {
            code: Some(0),
            stdout: expected,
            stderr: String::new(),
        };
        assert_eq!(run(&["--config", file, "--check-config"], &[]), expected);
    };
    let is_row = |line: &str| line[1..].starts_with(|first: char| first.is_ascii_lowercase());
    let lines = shipped.lines().map(|line| match line.strip_prefix('#') {
        Some(row) if is_row(line) => row,
        _ => line,
    });
    let lines: Vec<&str> = lines.collect();
    let place = |key: &str| {
        let start = format!("{key} = ");
        let index = lines.iter().position(|line| line.starts_with(&start));
        format!("{file}:{}", index.expect("every setting has a row") + 1)
    };
    check(shipped, &|key| match packaged(key) {
        Some(_) => place(key),
        None => "default".to_owned(),
    });
    check(&lines.join("\n"), &place);
}

/// As README spells it.
fn reload(setting: &Setting) -> String {
    match setting.reload {
        Reload::Live => "live".to_owned(),
        Reload::Restart => "restart".to_owned(),
    }
}

fn unquote(text: &str) -> Option<&str> {
    text.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn check_config_prints_value_and_source() {
    let env = [
        ("PORT", "0"),
        ("FLUSH_SECS", "120"),
        ("ACK", ""),
        ("DEBUG", "1"),
        ("RATE_PER_IP", "600/m"),
        ("TRUSTED_PROXIES", "10.0.0.0/8, ::1/128"),
    ];
    let args = ["--check-config", "--port", "8081", "--flush-bytes", "4096"];
    let Run {
        code,
        stdout,
        stderr,
    } = run(&args, &env);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    let set = [
        ("port", "port = 8081  (--port)"),
        ("flush_bytes", "flush_bytes = 4KiB  (--flush-bytes)"),
        ("flush_secs", "flush_secs = 2m  (FLUSH_SECS)"),
        ("debug", "debug = true  (DEBUG)"),
        ("rate_per_ip", "rate_per_ip = 600/m  (RATE_PER_IP)"),
        (
            "trusted_proxies",
            "trusted_proxies = 10.0.0.0/8,::1  (TRUSTED_PROXIES)",
        ),
    ];
    let expected: Vec<String> = settings()
        .iter()
        .map(
            |setting| match set.iter().find(|line| line.0 == setting.key) {
                Some((_, line)) => (*line).to_owned(),
                None => format!("{} = {}  (default)", setting.key, setting.default),
            },
        )
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn values_that_are_refused() {
    #[track_caller]
    fn check(args: &[&str], env: &[(&str, &str)], message: &str) {
        let expected = Run {
            code: Some(1),
            stdout: String::new(),
            stderr: format!("netwatch-server: {message}\n"),
        };
        assert_eq!(run(args, env), expected);
        // Before anything is done.
        let args = [args, &["--check-config"]].concat();
        assert_eq!(run(&args, env), expected);
    }
    check(
        &[],
        &[("PORT", "65536")],
        r#"port: expected 0 to 65535, found "65536" (from PORT)"#,
    );
    check(
        &["--port", ""],
        &[],
        r#"port: expected 0 to 65535, found "" (from --port)"#,
    );
    check(
        &["--flush-secs", "0"],
        &[("FLUSH_SECS", "60s")],
        r#"flush_secs: expected 1s to 1h, found "0" (from --flush-secs)"#,
    );
    check(
        &[],
        &[("FLUSH_BYTES", "10MiBi")],
        r#"flush_bytes: expected 1KiB to 1GiB, found "10MiBi" (from FLUSH_BYTES)"#,
    );
    check(
        &[],
        &[("ACK", "Durable")],
        r#"ack: expected durable, written or buffered, found "Durable" (from ACK)"#,
    );
    check(
        &["--compression-level", "-8"],
        &[],
        r#"compression_level: expected -7 to 19, found "-8" (from --compression-level)"#,
    );
    check(
        &[],
        &[("WORKERS", "0")],
        r#"workers: expected all or 1 to 1024, found "0" (from WORKERS)"#,
    );
    check(
        &[],
        &[("RATE_PER_IP", "0/s")],
        "rate_per_ip: expected off or 1 to 1000000 with /s, /m or /h, \
         found \"0/s\" (from RATE_PER_IP)",
    );
    check(
        &["--connections-per-ip", "0"],
        &[],
        r#"connections_per_ip: expected 1 to 1000000, found "0" (from --connections-per-ip)"#,
    );
    check(
        &[],
        &[("TRUSTED_PROXIES", "10.0.0.1/8")],
        "trusted_proxies: expected none or up to 64 networks, \
         found \"10.0.0.1/8\" (from TRUSTED_PROXIES)",
    );
    check(
        &[],
        &[("BODY_RATE_MIN", "63")],
        r#"body_rate_min: expected 64 to 1GiB, found "63" (from BODY_RATE_MIN)"#,
    );
    check(
        &[],
        &[("DEBUG", "yes")],
        r#"debug: expected true or false, found "yes" (from DEBUG)"#,
    );
    check(
        &[],
        &[("HOST", "my-machine")],
        "host: expected up to 16 different IP addresses with commas between, \
         found \"my-machine\" (from HOST)",
    );
    // All of them, in the order of the table.
    check(
        &["--workers", "0"],
        &[("FLUSH_SECS", "0"), ("PORT", "x")],
        "port: expected 0 to 65535, found \"x\" (from PORT)\n\
         netwatch-server: flush_secs: expected 1s to 1h, found \"0\" (from FLUSH_SECS)\n\
         netwatch-server: workers: expected all or 1 to 1024, found \"0\" (from --workers)",
    );
}

/// Two values of each setting, none of them its default, as `--check-config` spells them.
const VALUES: &[(&str, &str, &str)] = &[
    ("host", "127.0.0.1", "::1,127.0.0.1"),
    ("port", "1", "65535"),
    ("admin_addr", "off", "[::1]:9100"),
    ("admin_token", "0123456789abcdef", "fedcba9876543210"),
    ("metrics_username", "prometheus", "some one"),
    ("metrics_password", "p", "q"),
    ("data_dir", "/srv/a", "/srv/b"),
    ("ack", "written", "buffered"),
    (
        "cors_origins",
        "https://a.example",
        "http://a.example,http://b.example",
    ),
    ("rate_per_ip", "1/s", "600/m"),
    ("connections_per_ip", "1", "1000000"),
    ("trusted_proxies", "::1", "10.0.0.0/8,::1"),
    ("flush_bytes", "1KiB", "1GiB"),
    ("flush_secs", "1s", "1h"),
    ("compression_level", "-7", "19"),
    ("workers", "1", "1024"),
    ("shard_bytes_max", "2MiB", "16GiB"),
    ("min_free_bytes", "0", "1TiB"),
    ("retention_age", "60s", "30d"),
    ("retention_bytes", "1MiB", "1024TiB"),
    ("head_secs", "1s", "5m"),
    ("body_secs", "1s", "1h"),
    ("body_rate_min", "64", "1GiB"),
    ("idle_secs", "1s", "1h"),
    ("write_secs", "1s", "1h"),
    ("shutdown_secs", "0s", "5m"),
    ("log_format", "json", "text"),
    ("debug", "true", "false"),
];

/// Each setting by itself: the others of a layer say nothing of it.
#[test]
fn each_layer_hides_those_below() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("config.toml");
    let file = path.to_str().expect("its path is text");
    let keys: Vec<&str> = settings().iter().map(|setting| setting.key).collect();
    let with_values: Vec<&str> = VALUES.iter().map(|row| row.0).collect();
    assert_eq!(keys, with_values);

    let text: Vec<String> = VALUES
        .iter()
        .map(|row| format!("{} = {:?}", row.0, row.1))
        .collect();
    fs::write(&path, text.join("\n")).expect("the directory can be written");
    // No warning of the secrets in it.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("the file is ours");
    let env: Vec<(String, &str)> = VALUES
        .iter()
        .map(|row| (row.0.to_ascii_uppercase(), row.2))
        .collect();
    let env: Vec<(&str, &str)> = env
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let mut flags = Vec::new();
    for (setting, row) in settings().iter().zip(VALUES) {
        flags.push(setting.flag());
        // A switch has no value, and turns it on.
        if setting.key != "debug" {
            flags.push(row.1.to_owned());
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();

    let check = |flags: &[&str], env: &[(&str, &str)], expected: &dyn Fn(usize) -> String| {
        let args = [&["--check-config", "--config", file], flags].concat();
        let Run {
            code,
            stdout,
            stderr,
        } = run(&args, env);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let expected: Vec<String> = (0..VALUES.len()).map(expected).collect();
        assert_eq!(stdout.lines().collect::<Vec<_>>(), expected);
    };
    let line = |index: usize, value: &str, source: &str| {
        let key = VALUES[index].0;
        let is_secret = ["admin_token", "metrics_password"].contains(&key);
        let value = if is_secret { "***" } else { value };
        format!("{key} = {value}  ({source})")
    };
    let settings = settings();
    check(&[], &[], &|index| {
        line(index, VALUES[index].1, &format!("{file}:{}", index + 1))
    });
    check(&[], &env, &|index| {
        line(index, VALUES[index].2, env[index].0)
    });
    check(&flags, &env, &|index| {
        line(index, VALUES[index].1, &settings[index].flag())
    });
    check(&flags, &[], &|index| {
        line(index, VALUES[index].1, &settings[index].flag())
    });
}

#[test]
fn where_the_file_is_looked_for() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let put = |below: &str, text: &str| {
        let path = dir.path().join(below);
        fs::create_dir_all(path.parent().expect("it is below")).expect("directories can be made");
        fs::write(&path, text).expect("the directory can be written");
        path.to_str().expect("its path is text").to_owned()
    };
    let xdg = put("xdg/netwatch-server/config.toml", "port = 1");
    let home = put(
        "home/.config/netwatch-server/config.toml",
        "port = 2\nworkers = 2",
    );
    let named = put("named", "\n\nport = 3");
    let at = |name: &str| {
        dir.path()
            .join(name)
            .to_str()
            .expect("its path is text")
            .to_owned()
    };
    let check = |args: &[&str], env: &[(&str, &str)], port: &str, workers: &str| {
        let args = [&["--check-config"], args].concat();
        let Run {
            code,
            stdout,
            stderr,
        } = run(&args, env);
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let lines: Vec<&str> = stdout.lines().collect();
        assert!(lines.contains(&port), "{port:?} in {stdout}");
        assert!(lines.contains(&workers), "{workers:?} in {stdout}");
    };
    let (xdg_home, user_home) = (at("xdg"), at("home"));
    let xdg_env = ("XDG_CONFIG_HOME", xdg_home.as_str());
    let home_env = ("HOME", user_home.as_str());
    let default = "workers = all  (default)";
    let of_xdg = format!("port = 1  ({xdg}:1)");
    check(&[], &[xdg_env], &of_xdg, default);
    // One file: what the first does not say is not taken from the next.
    check(&[], &[xdg_env, home_env], &of_xdg, default);
    let of_home = [
        format!("port = 2  ({home}:1)"),
        format!("workers = 2  ({home}:2)"),
    ];
    // A relative path is no place, whatever is there.
    for nowhere in ["", "xdg", "."] {
        let env = [("XDG_CONFIG_HOME", nowhere), home_env];
        check(&[], &env, &of_home[0], &of_home[1]);
    }
    let of_named = format!("port = 3  ({named}:3)");
    check(
        &["--config", &named],
        &[xdg_env, home_env],
        &of_named,
        default,
    );
    let nothing = ["port = 8080  (default)", default];
    check(
        &["--config", "/dev/null"],
        &[xdg_env],
        nothing[0],
        nothing[1],
    );
}

#[test]
fn files_that_are_refused() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("config.toml");
    let file = path.to_str().expect("its path is text");
    // At the start, in a check of it, and by a command that needs a setting; `F` is the file.
    let check = |message: &str| {
        for (args, code) in [(&[][..], 1), (&["--check-config"], 1), (&["verify"], 2)] {
            let args = [&["--config", file], args].concat();
            let lines = message
                .lines()
                .map(|line| format!("netwatch-server: {line}\n"));
            let expected = Run {
                code: Some(code),
                stdout: String::new(),
                stderr: lines.collect::<String>().replace("{F}", file),
            };
            assert_eq!(run(&args, &[]), expected);
        }
    };
    check("cannot read the configuration file {F}: No such file or directory (os error 2)");
    fs::create_dir(&path).expect("a directory can be made");
    check("cannot read the configuration file {F}: it is not a file");
    fs::remove_dir(&path).expect("it is ours");

    let check = |text: &[u8], message: &str| {
        fs::write(&path, text).expect("the directory can be written");
        check(message);
    };
    // As long as a file may be it is read.
    let long = "#".repeat(65_536);
    let text = format!("port=x\n{}", &long[7..]);
    check(
        text.as_bytes(),
        "port: not TOML: string values must be quoted, expected literal string (from {F}:1:6)",
    );
    let text = format!("{text}#");
    check(
        text.as_bytes(),
        "the configuration file {F} exceeds 65536 bytes",
    );
    check(
        b"port = 1\ndata_dir = '/srv/caf\xe9'",
        "expected UTF-8 text, found byte 0xe9 (from {F}:2:21)",
    );
    check(
        b"port = 8080\nport = 8081\n",
        "port: not TOML: duplicate key (from {F}:2:1)",
    );
    check(
        b"\n# seconds\nflush_secs = 0\n",
        "flush_secs: expected 1s to 1h, found \"0\" (from {F}:3)",
    );
    check(
        b"flush_sec = 60\n",
        "flush_sec: no such setting, did you mean `flush_secs`? (from {F}:1)",
    );
    check(
        b"flush_secs = 0.5\n",
        "flush_secs: expected 1s to 1h, found a float (from {F}:1)",
    );
    check(
        b"admin_token = 's3cret'\n",
        "admin_token: expected none or 16 to 256 characters of a token68, \
         found \"***\" (from {F}:1)",
    );
    check(
        b"workers = 0\nprot = 1\n[server]\nport = 1\n",
        "prot: no such setting, did you mean `port`? (from {F}:2)\n\
         server: no such setting (from {F}:3)\n\
         workers: expected all or 1 to 1024, found \"0\" (from {F}:1)",
    );
}

#[test]
fn secrets_that_every_user_can_read() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("config.toml");
    let file = path.to_str().expect("its path is text");
    let check = |mode: u32, text: &str, env: &[(&str, &str)], warning: &str| {
        fs::write(&path, text).expect("the directory can be written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("the file is ours");
        let Run { code, stderr, .. } = run(&["--config", file, "--check-config"], env);
        let expected = match warning {
            "" => String::new(),
            _ => format!("netwatch-server: warning: {file} holds {warning}\n"),
        };
        assert_eq!((code, stderr), (Some(0), expected), "{mode:o} {text}");
    };
    let token = "admin_token = '0123456789abcdef'";
    let all = format!("{token}\nmetrics_username = 'u'\nmetrics_password = 'p'");
    let public = "admin_token, and every user can read it (mode 0644)";
    check(0o644, token, &[], public);
    check(
        0o604,
        &all,
        &[],
        "admin_token and metrics_password, and every user can read it (mode 0604)",
    );
    // It is there for all to read, though another one is in effect.
    check(0o644, token, &[("ADMIN_TOKEN", "fedcba9876543210")], public);
    check(0o640, &all, &[], "");
    check(0o644, "port = 1\nadmin_token = 'none'", &[], "");
    check(
        0o644,
        "metrics_username = 'none'",
        &[("ADMIN_TOKEN", "fedcba9876543210")],
        "",
    );
}

/// `verify` needs the settings only to know where to look.
#[test]
fn verify_of_a_named_directory_minds_no_settings() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let dir = dir.path().to_str().expect("its path is text");
    let sound = Run {
        code: Some(0),
        stdout: "0 segments, 0 lines, 0 damaged, 0 unreadable\n".to_owned(),
        stderr: String::new(),
    };
    assert_eq!(run(&["verify", dir], &[("PORT", "x")]), sound);
    assert_eq!(run(&["verify"], &[("DATA_DIR", dir)]), sound);
    let unchecked = Run {
        code: Some(2),
        stdout: String::new(),
        stderr: "netwatch-server: port: expected 0 to 65535, found \"x\" (from PORT)\n".to_owned(),
    };
    let settings = [("DATA_DIR", dir), ("PORT", "x")];
    assert_eq!(run(&["verify"], &settings), unchecked);
    let file = Path::new(dir).join("config.toml");
    fs::write(&file, format!("data_dir = {dir:?}")).expect("the directory can be written");
    let file = file.to_str().expect("its path is text");
    assert_eq!(run(&["--config", file, "verify"], &[]), sound);
    // Nor is a file that is not there missed.
    let nowhere = format!("{dir}/nowhere");
    assert_eq!(run(&["--config", &nowhere, "verify", dir], &[]), sound);
}

/// A reader that has gone, as `head` does, has seen what it wanted. A disk that is full has not.
#[test]
fn output_that_nobody_takes() {
    #[track_caller]
    fn check(args: &[&str], outputs: [Stdio; 2], code: i32, message: &str) {
        let [stdout, stderr] = outputs;
        let mut command = command();
        command.args(args).stdout(stdout).stderr(stderr);
        let output = command.spawn().and_then(Child::wait_with_output);
        let output = output.expect("the binary runs");
        let stderr = String::from_utf8(output.stderr).expect("standard error is text");
        let found = (output.status.code(), stderr.as_str());
        assert_eq!(found, (Some(code), message), "{args:?}");
    }
    let gone = || {
        let (reader, writer) = io::pipe().expect("a pipe can be made");
        drop(reader);
        Stdio::from(writer)
    };
    let full = || {
        let device = fs::File::options().write(true).open("/dev/full");
        Stdio::from(device.expect("Linux has it"))
    };
    let dir = TempDir::new().expect("a temporary directory can be made");
    let dir = dir.path().to_str().expect("its path is text");
    for args in [
        &["--help"][..],
        &["--version"],
        &["--check-config"],
        &["verify", dir],
        &["verify", "--json", dir],
    ] {
        check(args, [gone(), Stdio::piped()], 0, "");
        check(args, [gone(), gone()], 0, "");
    }
    for args in [&["verify", dir][..], &["verify", "--json", dir]] {
        let message = "netwatch-server: cannot print: No space left on device (os error 28)\n";
        check(args, [full(), Stdio::piped()], 2, message);
        check(args, [full(), gone()], 2, "");
    }
    // Complaints have no reader either.
    check(&["--prot", "1"], [gone(), gone()], 2, "");
    check(&["--port", "x"], [gone(), gone()], 1, "");
}

#[test]
fn flags_that_are_not_there() {
    #[track_caller]
    fn check(args: &[&str], message: &str) {
        let expected = Run {
            code: Some(2),
            stdout: String::new(),
            stderr: format!("netwatch-server: Unrecognized argument: {message}\n"),
        };
        assert_eq!(run(args, &[]), expected);
    }
    check(&["--prot", "1"], "--prot, did you mean `--port`?");
    check(
        &["--flush-sec", "1"],
        "--flush-sec, did you mean `--flush-secs`?",
    );
    check(
        &["--flush_secs", "1"],
        "--flush_secs, did you mean `--flush-secs`?",
    );
    check(&["--conf", "f"], "--conf, did you mean `--config`?");
    check(&["--check"], "--check");
    check(&["-v"], "-v");
    check(&["serve", "now"], "serve");
    // Of a command, which has flags of its own.
    check(&["verify", "--jsn"], "--jsn");
    check(
        &["verify", "--data-dir", "d"],
        "--data-dir goes before the command",
    );
    check(
        &["verify", "--data_dir", "d"],
        "--data_dir, did you mean `--data-dir`?",
    );
}

/// Wants a server with these settings to end at once, with these words.
#[track_caller]
fn refuses_to_start(driver: Driver, settings: &[(&str, &str)], message: &str) {
    let common = [("HOST", "127.0.0.1"), ("PORT", "0"), ("LOG_FORMAT", "json")];
    let settings = [&common, driver.env(), settings].concat();
    let Run {
        code,
        stdout,
        stderr,
    } = run::<&str>(&[], &settings);
    assert_eq!((code, stderr.as_str()), (Some(1), ""), "{stdout}");
    let last = stdout.lines().last().expect("a line of the log");
    let last: Value = serde_json::from_str(last).expect("the log is JSON");
    assert_eq!(
        (&last["level"], &last["message"], &last["error"]),
        (&"ERROR".into(), &"ended".into(), &message.into())
    );
}

fn a_server_is_set_up_by_a_file(driver: Driver) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("netwatch-server/config.toml");
    fs::create_dir(path.parent().expect("it is below")).expect("a directory can be made");
    let text = "rate_per_ip = '1/h'\nack = 'buffered'\nadmin_token = '0123456789abcdef'\n";
    fs::write(&path, text).expect("the directory can be written");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("the file is ours");
    let dir = dir.path().to_str().expect("its path is text");
    let server = Server::start(driver, &[("XDG_CONFIG_HOME", dir), ("ACK", "written")]);
    assert_eq!(server.wait_for_event("started")["ack"], "written");
    let warning = server.wait_for_event("secrets can be read by every user");
    assert_eq!(warning["file"], path.to_str().expect("its path is text"));
    assert_eq!(
        (&warning["mode"], &warning["settings"]),
        (&"0644".into(), &"admin_token".into())
    );
    let report = br#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
    let mut client = server.connect();
    assert_eq!(client.exchange(&post(report)).status, 200);
    assert_eq!(client.exchange(&post(report)).status, 429);
}

fn a_directory_has_one_server(driver: Driver) {
    let mut server = Server::start(driver, &[]);
    let dir = fs::canonicalize(server.dir()).expect("the directory is there");
    let dir = dir.to_str().expect("its path is text");
    let message = format!("cannot use the data directory: {dir}/.lock is locked by another server");
    refuses_to_start(driver, &[("DATA_DIR", dir)], &message);
    // Not by another name of it either.
    let same = format!("{dir}/.open/..");
    refuses_to_start(driver, &[("DATA_DIR", &same)], &message);

    // The first one goes on, and leaves the directory to the next.
    let report = br#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
    assert_eq!(server.connect().exchange(&post(report)).status, 200);
    assert_eq!(server.stop().code(), Some(0));
    let mut next = Server::start_in(driver, server.dir(), &[]);
    assert_eq!(next.stop().code(), Some(0));
}

fn a_port_has_one_server(driver: Driver) {
    // Neither a server of ours, whose sockets share their port with each other, …
    let server = Server::start(driver, &[]);
    let check = |port: u16| {
        let dir = TempDir::new().expect("a temporary directory can be made");
        let dir = dir.path().to_str().expect("its path is text");
        let message =
            format!("cannot listen on 127.0.0.1:{port}: Address already in use (os error 98)");
        let port = port.to_string();
        refuses_to_start(driver, &[("DATA_DIR", dir), ("PORT", &port)], &message);
    };
    check(server.address().port());
    server.connect().expect_kept();
    // … nor a stranger.
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = stranger.local_addr().expect("it is bound");
    check(taken.port());
    // The admin listener's has a name of its own.
    let message =
        format!("cannot listen on {taken} (ADMIN_ADDR): Address already in use (os error 98)");
    let dir = TempDir::new().expect("a temporary directory can be made");
    let dir = dir.path().to_str().expect("its path is text");
    let settings = [("DATA_DIR", dir), ("ADMIN_ADDR", &taken.to_string())];
    refuses_to_start(driver, &settings, &message);
}

fn a_directory_that_cannot_be_used(driver: Driver) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let file = dir.path().join("file");
    fs::write(&file, "").expect("the directory can be written");
    let file = file.to_str().expect("its path is text");
    let message = format!(
        "cannot use the data directory: cannot create {file}/.lock: Not a directory (os error 20)"
    );
    refuses_to_start(driver, &[("DATA_DIR", file)], &message);
    let below = format!("{file}/reports");
    let message = format!(
        "cannot use the data directory: cannot create {below}: Not a directory (os error 20)"
    );
    refuses_to_start(driver, &[("DATA_DIR", &below)], &message);
    let message = "cannot use the data directory: cannot create /proc/netwatch: \
                   No such file or directory (os error 2)";
    refuses_to_start(driver, &[("DATA_DIR", "/proc/netwatch")], message);
}

fn an_address_that_is_not_here(driver: Driver) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let dir = dir.path().to_str().expect("its path is text");
    // Of a network that no machine is in (RFC 5737).
    let settings = [
        ("DATA_DIR", dir),
        ("HOST", "127.0.0.1,192.0.2.1"),
        ("PORT", "0"),
    ];
    let common = [("LOG_FORMAT", "json")];
    let settings = [&common, driver.env(), &settings].concat();
    let Run { code, stdout, .. } = run::<&str>(&[], &settings);
    assert_eq!(code, Some(1), "{stdout}");
    let message = "cannot listen on 192.0.2.1:";
    let cause = ": Cannot assign requested address (os error 99)";
    assert!(
        stdout.contains(message) && stdout.contains(cause),
        "{stdout}"
    );
}

fn one_port_for_all_addresses(driver: Driver) {
    if TcpListener::bind("[::1]:0").is_err() {
        println!("no IPv6 here");
        return;
    }
    let server = Server::start(driver, &[("HOST", "127.0.0.1, ::1")]);
    let port = server.address().port();
    let started = server.wait_for_event("started");
    let addresses = format!("127.0.0.1:{port},[::1]:{port}");
    assert_eq!(started["addresses"], addresses);
    assert_eq!(started["version"], env!("CARGO_PKG_VERSION"));
    for address in ["127.0.0.1", "[::1]"] {
        let address = format!("{address}:{port}").parse().expect("an address");
        let client = crate::support::Client::connect(address);
        client.expect("the server listens").expect_kept();
    }
}

fn the_directory_is_made(driver: Driver) {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let data_dir = dir.path().join("a/b");
    let mut server = Server::start_in(driver, &data_dir, &[]);
    let report = br#"{"clientId":"c","timestamp":"t","hosts":[]}"#;
    assert_eq!(server.connect().exchange(&post(report)).status, 200);
    assert_eq!(server.stop().code(), Some(0));
    let mode = |path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
            & 0o7777
    };
    let segments = crate::support::sealed(&data_dir);
    assert_eq!(segments.len(), 1);
    assert_eq!(mode(data_dir.join(".open")), 0o750);
    assert_eq!(mode(data_dir.join(&segments[0].name)), 0o640);
    assert_eq!(mode(data_dir), 0o750);
}
