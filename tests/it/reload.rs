//! What SIGHUP changes in a running server, and what it does not.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Driver, Server, both_drivers, plain_exchange, post, wait_until};

both_drivers!(
    settings_take_effect_while_running,
    what_needs_a_restart_is_said_and_left,
    a_bad_file_changes_nothing,
    a_wide_admin_listener_keeps_its_token,
    a_full_disk_heals_by_a_setting,
    a_file_that_vanishes_changes_nothing,
);

const REPORT: &str = r#"{"clientId":"c","timestamp":"t","hosts":[]}"#;

/// A server with a configuration file that can be written again.
struct Reloaded {
    server: Server,
    file: PathBuf,
    _dir: TempDir,
}

impl Reloaded {
    fn start(driver: Driver, file: &str) -> Reloaded {
        let dir = TempDir::new().expect("a directory");
        let path = dir.path().join("config.toml");
        fs::write(&path, file).expect("the file is written");
        // The environment wins over the file: what the tests have in common is not to be changed.
        let server = Server::start_with(driver, &[("WORKERS", "1")], |command| {
            let mut with_file = std::process::Command::new(command.get_program());
            with_file.env_clear().arg("--config").arg(&path);
            with_file
        });
        Reloaded {
            server,
            file: path,
            _dir: dir,
        }
    }

    /// Writes the file and has it read; waits until the server says that it has.
    #[track_caller]
    fn reload(&mut self, file: &str, event: &str) {
        let before = self.events(event).len();
        fs::write(&self.file, file).expect("the file is written");
        self.server.signal(Signal::HUP);
        wait_until(event, || self.events(event).len() > before);
    }

    fn events(&self, event: &str) -> Vec<Value> {
        let lines = self.server.log();
        let events = lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|line: &Value| line["message"] == event)
            .collect()
    }

    fn post(&self) -> u16 {
        self.server
            .connect()
            .exchange(&post(REPORT.as_bytes()))
            .status
    }

    fn origin_of_preflight(&self, origin: &str) -> Option<String> {
        let request = format!(
            "OPTIONS /api/v1/reports HTTP/1.1\r\nHost: h\r\nOrigin: {origin}\r\n\
             Access-Control-Request-Method: POST\r\n\r\n"
        );
        let answer = self.server.connect().exchange(request.as_bytes());
        answer
            .field("access-control-allow-origin")
            .map(str::to_owned)
    }
}

fn settings_take_effect_while_running(driver: Driver) {
    let mut running = Reloaded::start(driver, "");
    assert_eq!(running.post(), 200);
    assert!(running.origin_of_preflight("https://a.example").is_some());
    running.reload(
        "rate_per_ip = \"1/h\"\ncors_origins = [\"https://b.example\"]\ndebug = true\n",
        "settings reloaded",
    );
    let changed: Vec<String> = { running.events("setting changed") }
        .iter()
        .map(|event| format!("{} {} {}", event["key"], event["from"], event["to"]).replace('"', ""))
        .collect();
    let expected = [
        "cors_origins any https://b.example",
        "rate_per_ip off 1/h",
        "debug false true",
    ];
    assert_eq!(changed, expected);
    wait_until("the core has seen it", || {
        running.origin_of_preflight("https://a.example").is_none()
    });
    assert!(running.origin_of_preflight("https://b.example").is_some());
    assert_eq!((running.post(), running.post()), (200, 429));
    wait_until("refused requests are logged", || {
        !running.events("request refused").is_empty()
    });
    // What has been used of the rate stays used.
    running.reload("rate_per_ip = \"1/h\"\n", "settings reloaded");
    wait_until("the core has seen it", || {
        running.origin_of_preflight("https://a.example").is_some()
    });
    assert_eq!(running.post(), 429);
    running.reload("", "settings reloaded");
    wait_until("the rate is off", || running.post() == 200);
    let metrics = running.server.metrics();
    assert_eq!(
        metrics.sum(&["netwatch_config_reloads_total", "applied"]),
        3
    );
    assert_eq!(running.server.stop().code(), Some(0));
}

fn what_needs_a_restart_is_said_and_left(driver: Driver) {
    let mut running = Reloaded::start(driver, "flush_bytes = \"1MiB\"\n");
    for _ in 0..2 {
        running.reload(
            "flush_bytes = \"2MiB\"\nidle_secs = 5\n",
            "settings reloaded",
        );
    }
    let said = running.events("setting needs a restart");
    assert_eq!(said.len(), 2, "as long as it differs: {said:?}");
    for event in said {
        let said = [&event["key"], &event["from"], &event["to"], &event["level"]];
        assert_eq!(said, ["flush_bytes", "1MiB", "2MiB", "WARN"]);
    }
    let changed = running.events("setting changed");
    assert_eq!(changed.len(), 1, "once: {changed:?}");
}

fn a_bad_file_changes_nothing(driver: Driver) {
    let mut running = Reloaded::start(driver, "connections_per_ip = 100\n");
    let bad = "cors_origins = [\"https://b.example\"]\nrate_per_ip = \"often\"\nidle_sec = 5\n";
    running.reload(bad, "settings not reloaded");
    let problems: Vec<String> = { running.events("settings not reloaded") }
        .iter()
        .map(|event| event["problem"].to_string())
        .collect();
    let file = running.file.display();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].contains("did you mean `idle_secs`"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains(&format!("(from {file}:2)")),
        "{problems:?}"
    );
    assert!(running.origin_of_preflight("https://a.example").is_some());
    let metrics = running.server.metrics();
    assert_eq!(metrics.sum(&["netwatch_config_reload_success"]), 0);
    assert_eq!(
        metrics.sum(&["netwatch_config_reloads_total", "refused"]),
        1
    );
    assert_eq!(running.post(), 200);
    running.reload("connections_per_ip = 100\n", "settings reloaded");
    assert_eq!(
        running
            .server
            .metrics()
            .sum(&["netwatch_config_reload_success"]),
        1
    );
}

/// A new address would need a restart; until then the old one must not lose its token.
fn a_wide_admin_listener_keeps_its_token(driver: Driver) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("config.toml");
    let token = "0123456789abcdef";
    let wide = format!("admin_addr = \"0.0.0.0:0\"\nadmin_token = \"{token}\"\n");
    fs::write(&path, wide).expect("the file is written");
    let server = Server::start_with(driver, &[("ADMIN_ADDR", ""), ("WORKERS", "1")], |command| {
        let mut with_file = std::process::Command::new(command.get_program());
        with_file.env_clear().arg("--config").arg(&path);
        with_file
    });
    fs::write(&path, "").expect("the file is written");
    server.signal(Signal::HUP);
    let refused = server.wait_for_event("settings not reloaded");
    let port = server.admin().port();
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let (head, _) = plain_exchange(([127, 0, 0, 1], port).into(), request);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let problem = refused["problem"].as_str().expect("a text");
    assert!(
        problem.starts_with("admin_token: expected a token until the next start"),
        "{problem}"
    );
}

fn a_full_disk_heals_by_a_setting(driver: Driver) {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("config.toml");
    fs::write(&path, "min_free_bytes = \"1TiB\"\n").expect("the file is written");
    let settings = [("WORKERS", "1"), ("MIN_FREE_BYTES", "")];
    let server = Server::start_with(driver, &settings, |command| {
        let mut with_file = std::process::Command::new(command.get_program());
        with_file.env_clear().arg("--config").arg(&path);
        with_file
    });
    let send = || server.connect().exchange(&post(REPORT.as_bytes())).status;
    assert_eq!(send(), 503);
    fs::write(&path, "min_free_bytes = 0\n").expect("the file is written");
    server.signal(Signal::HUP);
    wait_until("reports are taken again", || send() == 200);
    let metrics = server.metrics();
    let received = metrics.sum(&["netwatch_reports_received_total"]);
    assert_eq!(received, metrics.sum(&["netwatch_reports_total"]));
    assert_eq!(metrics.sum(&["netwatch_reports_total", "stored"]), 1);
    assert_eq!(metrics.sum(&["netwatch_disk_reserve_bytes"]), 0);
}

/// It may be being replaced: the defaults that are left would let everybody in.
fn a_file_that_vanishes_changes_nothing(driver: Driver) {
    let home = TempDir::new().expect("a directory");
    let dir = home.path().join("netwatch-server");
    fs::create_dir(&dir).expect("a directory");
    let path = dir.join("config.toml");
    fs::write(&path, "cors_origins = [\"https://b.example\"]\n").expect("the file is written");
    let home = home.path().to_str().expect("its path is text");
    let server = Server::start(driver, &[("WORKERS", "1"), ("XDG_CONFIG_HOME", home)]);
    fs::remove_file(&path).expect("the file is removed");
    server.signal(Signal::HUP);
    let refused = server.wait_for_event("settings not reloaded");
    let expected = format!(
        "{}: expected the file of the start, found none",
        path.display()
    );
    assert_eq!(refused["problem"], expected.as_str());
    fs::write(&path, "cors_origins = \"any\"\n").expect("the file is written");
    server.signal(Signal::HUP);
    let changed = server.wait_for_event("setting changed");
    assert_eq!(changed["key"], "cors_origins");
}
