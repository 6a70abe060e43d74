//! Retention: what is too old or too much goes, oldest first, and nothing else does; by the server and by
//! `netwatch-server retention`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use netwatch_server::config::Config;
use netwatch_server::disk::Fs;
use netwatch_server::housekeeping::{self, Figures, Held, Housekeeping};
use netwatch_server::live::{Live, LiveSettings};
use netwatch_server::retention::{Limits, Reason};
use netwatch_server::segment::name::{SegmentName, sidecar_of};
use netwatch_server::time::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::thread::{
    CapabilitySet, capabilities, remove_capability_from_bounding_set, set_capabilities,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Driver, Run, Server, both_drivers, post, run, wait_until};

both_drivers!(
    what_is_too_old_goes,
    what_is_too_much_goes,
    what_is_being_read_stays_for_a_while,
    what_cannot_be_removed_is_said,
    the_command_runs_beside_a_server,
);

const DAY: Duration = Duration::from_secs(86_400);
const HALF_A_DAY: Duration = Duration::from_secs(43_200);
const GO: &str = "reports-2026-02-27T05-14-34Z.jsonl.zst";
const GO_LATER: &str = "reports-2026-02-27T05-15-34Z.jsonl.zst";

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

/// The name of a segment that was begun so many days and twelve hours ago.
fn days_ago(days: u32) -> String {
    let time = SystemTime::now() - DAY * days - HALF_A_DAY;
    let time = Timestamp::from_system(time);
    SegmentName { time, core: 0 }.to_string()
}

/// Writes so many bytes, with the time of now.
fn put(dir: &Path, name: &str, bytes: usize) {
    fs::write(dir.join(name), vec![b'x'; bytes]).expect("the directory can be written");
}

fn put_sidecar(dir: &Path, segment: &str, bytes: usize) {
    let sidecar = sidecar_of(segment).expect("it is a segment's name");
    put(&dir.join(".index"), &sidecar, bytes);
}

/// Sets a file's time back.
fn age(dir: &Path, name: &str, days: u32) {
    let file = File::options().write(true).open(dir.join(name));
    let time = SystemTime::now() - DAY * days - HALF_A_DAY;
    file.and_then(|file| file.set_modified(time))
        .expect("the file is ours");
}

/// The names in a directory that do not begin with a dot, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the directory can be listed");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.into_string().expect("names are text"));
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

fn sorted<const N: usize>(names: [&str; N]) -> Vec<String> {
    let mut names = names.map(str::to_owned);
    names.sort();
    names.to_vec()
}

/// A directory as a server has left it.
fn data_dir() -> TempDir {
    let dir = TempDir::new().expect("a temporary directory can be made");
    // Not by the server's own code: while another test begins a process, that one holds this one's locks.
    fs::write(dir.path().join(".lock"), "").expect("the directory can be written");
    for below in [".open", ".corrupt", ".index"] {
        fs::create_dir(dir.path().join(below)).expect("the directory can be written");
    }
    dir
}

/// Warnings and errors in the log, but for the one that epoll comes with, and that what tests leave for segments has
/// nothing in it that a sidecar could tell.
fn problems(server: &Server) -> Vec<String> {
    let mut log = server.log();
    log.retain(|line| {
        let is_problem = ["WARN", "ERROR"].iter().any(|level| line.contains(level));
        is_problem && !line.contains("no io_uring") && !line.contains("sidecar not made")
    });
    log
}

fn limits(age: Option<Duration>, bytes: Option<u64>) -> Limits {
    Limits { age, bytes }
}

fn held(segments: u64, bytes: u64) -> Held {
    Held { segments, bytes }
}

/// Runs on a thread that cannot pass over the permissions of files, even if this process is root's; nor can
/// what it starts.
fn without_override<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let overrides = [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH];
    let run = || {
        let mut sets = capabilities(None).expect("there are capabilities");
        for capability in overrides {
            // Refused to those who have none.
            let _ = remove_capability_from_bounding_set(capability);
            sets.effective -= capability;
            sets.permitted -= capability;
            sets.inheritable -= capability;
        }
        set_capabilities(None, sets).expect("they can be given up");
        work()
    };
    thread::scope(|scope| scope.spawn(run).join()).expect("the work does not panic")
}

fn set_mode(dir: &Path, mode: u32) {
    fs::set_permissions(dir, Permissions::from_mode(mode)).expect("the directory is ours");
}

fn what_is_too_old_goes(driver: Driver) {
    let dir = data_dir();
    let dir = dir.path();
    let [old, older, young] = [31, 40, 29].map(days_ago);
    put(dir, &old, 100);
    put_sidecar(dir, &old, 10);
    // Of files of the Go server the file's time counts, of ours the name.
    put(dir, &older, 1000);
    put(dir, &young, 10);
    age(dir, &young, 90);
    put_sidecar(dir, &young, 1);
    for (name, days) in [(GO, 31), (GO_LATER, 29)] {
        put(dir, name, 10_000);
        age(dir, name, days);
    }
    // What is no sealed segment, however old.
    put_sidecar(dir, "reports-gone.jsonl.zst", 1);
    put(&dir.join(".index"), "notes", 1);
    put(dir, "notes.txt", 1);
    age(dir, "notes.txt", 90);
    put(&dir.join(".corrupt"), &older, 1);
    age(dir, &format!(".corrupt/{older}"), 90);
    let [directory, link] = [50, 51].map(days_ago);
    fs::create_dir(dir.join(&directory)).expect("the name is free");
    std::os::unix::fs::symlink(dir.join(&old), dir.join(&link)).expect("the name is free");

    let mut server = Server::start_in(driver, dir, &[("RETENTION_AGE", "30d")]);
    let removed = server.wait_for_event("segments removed");
    let fields = |names: [&str; 4]| names.map(|name| removed[name].as_u64());
    let found = fields(["segments", "bytes", "segments_by_age", "segments_by_bytes"]);
    assert_eq!(found, [3, 11_110, 3, 0].map(Some));
    let sidecars = server.wait_for_event("sidecars without a segment removed");
    assert_eq!(sidecars["sidecars"], 1);
    let left = sorted([&young, GO_LATER, "notes.txt", &directory, &link]);
    assert_eq!(names(dir), left);
    let sidecar = sidecar_of(&young).expect("it is a segment's name");
    assert_eq!(names(&dir.join(".index")), sorted(["notes", &sidecar]));
    assert_eq!(names(&dir.join(".corrupt")), [older]);
    assert_eq!(server.stop().code(), Some(0));
    assert_eq!(problems(&server), [""; 0]);
}

fn what_is_too_much_goes(driver: Driver) {
    let dir = data_dir();
    let dir = dir.path();
    let segments = [4, 3, 2, 1].map(days_ago);
    for segment in &segments {
        put(dir, segment, 300 << 10);
    }
    // With its sidecar, one segment too many.
    put_sidecar(dir, &segments[3], 200 << 10);
    let mut server = Server::start_in(driver, dir, &[("RETENTION_BYTES", "1MiB")]);
    let removed = server.wait_for_event("segments removed");
    let found = ["segments", "bytes", "segments_by_age", "segments_by_bytes"];
    let found = found.map(|name| removed[name].as_u64());
    assert_eq!(found, [2, 600 << 10, 0, 2].map(Some));
    assert_eq!(names(dir), segments[2..]);
    server.stop();
    // What is left fits.
    let next = retention(dir, &["--dry-run"], &[("RETENTION_BYTES", "1MiB")]);
    let nothing = "0 of 2 segments would be removed, 0 of 819200 bytes\n";
    expect(&next, 0, nothing);
}

fn what_is_being_read_stays_for_a_while(driver: Driver) {
    let dir = data_dir();
    let dir = dir.path();
    let [read, other] = [3, 2].map(days_ago);
    put(dir, &read, 100);
    put_sidecar(dir, &read, 10);
    put(dir, &other, 100);
    let reader = File::open(dir.join(&read)).expect("it is there");
    flock(&reader, FlockOperation::NonBlockingLockShared).expect("nobody else has it");
    let settings = [("RETENTION_AGE", "1d"), ("DEBUG", "true")];
    let mut server = Server::start_in(driver, dir, &settings);
    let removed = server.wait_for_event("segments removed");
    assert_eq!(removed["segments"], 1);
    let kept = server.wait_for_event("segment is being read, and kept");
    assert_eq!(
        (&kept["name"], &kept["reason"]),
        (&json!(read), &json!("age"))
    );
    assert_eq!(names(dir), [read.as_str()]);
    assert_eq!(
        names(&dir.join(".index")),
        [sidecar_of(&read).expect("a sidecar")]
    );
    server.stop();
    assert_eq!(problems(&server), [""; 0]);
    // Not by a close, see `data_dir`.
    flock(&reader, FlockOperation::Unlock).expect("it is ours");
    let server = Server::start_in(driver, dir, &settings);
    server.wait_for_event("segments removed");
    assert_eq!(names(dir), [""; 0]);
    assert_eq!(names(&dir.join(".index")), [""; 0]);
}

fn what_cannot_be_removed_is_said(driver: Driver) {
    let dir = data_dir();
    let dir = dir.path();
    let [first, second] = [3, 2].map(days_ago);
    put(dir, &first, 100);
    put(dir, &second, 100);
    set_mode(dir, 0o500);
    let settings = [("RETENTION_AGE", "1d")];
    let mut server = without_override(|| Server::start_in(driver, dir, &settings));
    let failed = server.wait_for_event("file not removed, to be tried again");
    assert_eq!(failed["level"], "WARN");
    assert_eq!(
        (&failed["path"], &failed["failed"]),
        (&json!(first), &json!(2))
    );
    assert_eq!(failed["cause"], "Permission denied (os error 13)");
    assert_eq!(names(dir), [first, second]);
    // It goes on serving.
    server.connect().expect_kept();
    set_mode(dir, 0o700);
    assert_eq!(server.stop().code(), Some(0));
}

fn live(limits: Limits) -> Arc<LiveSettings> {
    Arc::new(LiveSettings::from_pointee(Live {
        retention: limits,
        ..Live::from_config(&Config::default())
    }))
}

#[test]
fn a_pass_that_failed_is_made_again() {
    let dir = data_dir();
    let dir = dir.path();
    let segments = [3, 2].map(days_ago);
    put(dir, &segments[0], 100);
    put(dir, &segments[1], 100);
    put_sidecar(dir, "reports-gone.jsonl.zst", 1);
    without_override(|| {
        let fs = Fs::lock(dir).expect("nobody else has it");
        let figures = Arc::new(Figures::default());
        let mut housekeeping =
            Housekeeping::new(fs, live(limits(Some(DAY), None)), Arc::clone(&figures));
        for place in [dir, &dir.join(".index")] {
            set_mode(place, 0o500);
        }
        housekeeping.pass(now());
        assert_eq!(names(dir), segments);
        assert_eq!(names(&dir.join(".index")), ["reports-gone.json"]);
        assert_eq!(figures.sealed(), held(2, 200));
        assert_eq!(figures.removed(Reason::Age), held(0, 0));
        for place in [dir, &dir.join(".index")] {
            set_mode(place, 0o700);
        }
        housekeeping.pass(now());
        assert_eq!(names(&dir.join(".index")), [""; 0]);
        // A lock is of the open file (flock(2)): a process that another test starts has the first pass's as well,
        // until it runs its program, and is a reader for that long.
        wait_until("nobody reads the segments", || {
            let is_removed = names(dir).is_empty();
            if !is_removed {
                housekeeping.pass(now());
            }
            is_removed
        });
        assert_eq!(figures.sealed(), held(0, 0));
        assert_eq!(figures.removed(Reason::Age), held(2, 200));
        // A segment that cannot be opened: it could be one that is being read.
        put(dir, &segments[0], 100);
        set_mode(&dir.join(&segments[0]), 0);
        housekeeping.pass(now());
        assert_eq!(names(dir), segments[..1]);
        // A directory that cannot be listed.
        set_mode(dir, 0o300);
        housekeeping.pass(now());
        set_mode(dir, 0o700);
        assert_eq!(names(dir), segments[..1]);
        assert_eq!(figures.sealed(), held(1, 100));
    });
}

#[test]
fn figures() {
    let dir = data_dir();
    let dir = dir.path();
    let fs = Fs::lock(dir).expect("nobody else has it");
    let segments = [5, 4, 3, 2].map(days_ago);
    for (index, segment) in segments.iter().enumerate() {
        put(dir, segment, 10_usize.pow(index as u32 + 1));
    }
    put_sidecar(dir, &segments[3], 1);
    // Old and large, and never touched.
    let open = days_ago(90);
    put(&dir.join(".open"), &open, 5_000_000);
    put(&dir.join(".open"), ".probe-3", 1);
    put(&dir.join(".corrupt"), "reports-aside", 20);
    put(&dir.join(".corrupt"), "reports-aside.1", 30);
    let figures = Arc::new(Figures::default());
    let settings = live(Limits::default());
    let mut housekeeping = Housekeeping::new(fs, Arc::clone(&settings), Arc::clone(&figures));
    let now = now();
    // Without limits everything stays.
    housekeeping.pass(now);
    assert_eq!(figures.sealed(), held(4, 11_111));
    assert_eq!(figures.open(), held(1, 5_000_000));
    assert_eq!(figures.corrupt(), held(2, 50));
    let space = figures.space();
    assert!(0 < space.free_bytes && space.free_bytes < space.size_bytes);
    settings.swap(live(limits(Some(DAY * 5), Some(11_010))).load_full());
    housekeeping.pass(now);
    assert_eq!(names(dir), segments[2..]);
    assert_eq!(figures.sealed(), held(2, 11_001));
    assert_eq!(figures.removed(Reason::Age), held(1, 10));
    assert_eq!(figures.removed(Reason::Bytes), held(1, 100));
    // What is new since, and what somebody else has removed.
    let newest = days_ago(1);
    put(dir, &newest, 7);
    fs::remove_file(dir.join(&segments[2])).expect("it is there");
    housekeeping.pass(now);
    assert_eq!(figures.sealed(), held(2, 10_008));
    settings.swap(live(limits(None, Some(10_007))).load_full());
    housekeeping.pass(now);
    assert_eq!(names(dir), [newest]);
    assert_eq!(figures.sealed(), held(1, 7));
    assert_eq!(figures.removed(Reason::Age), held(1, 10));
    assert_eq!(figures.removed(Reason::Bytes), held(2, 10_101));
    assert_eq!(figures.open(), held(1, 5_000_000));
    assert_eq!(names(&dir.join(".open")), [open]);
    assert_eq!(figures.corrupt(), held(2, 50));
}

#[test]
fn new_limits_take_effect_at_once() {
    let dir = data_dir();
    let dir = dir.path();
    let segment = days_ago(3);
    put(dir, &segment, 100);
    let fs = Fs::lock(dir).expect("nobody else has it");
    let figures = Arc::new(Figures::default());
    let settings = live(Limits::default());
    let started = housekeeping::start(fs, Arc::clone(&settings), Arc::clone(&figures), now);
    let housekeeper = started.expect("there is a thread");
    assert!(figures.space().size_bytes > 0, "before the first pass");
    wait_until("the first pass has ended", || {
        figures.sealed() == held(1, 100)
    });
    settings.swap(live(limits(Some(DAY), None)).load_full());
    housekeeper.wake();
    wait_until("the segment is removed", || figures.sealed() == held(0, 0));
    assert_eq!(figures.removed(Reason::Age), held(1, 100));
    // SCHED_IDLE (sched(7)).
    assert_eq!(policy("housekeeping"), [5]);
    housekeeper.stop();
    // The kernel may list it for a moment longer.
    wait_until("the thread is gone", || policy("housekeeping").is_empty());
    assert_eq!(names(dir), [""; 0]);
}

/// The limits are taken back as soon as the pass has removed something.
#[test]
fn a_pass_ends_where_its_limits_do() {
    const SEGMENTS: u64 = 20_000;
    let dir = data_dir();
    let dir = dir.path();
    for number in 0..SEGMENTS {
        put(dir, &format!("reports-{number:05}.jsonl.zst"), 1);
    }
    let fs = Fs::lock(dir).expect("nobody else has it");
    let figures = Arc::new(Figures::default());
    let settings = live(Limits::default());
    let started = housekeeping::start(fs, Arc::clone(&settings), Arc::clone(&figures), now);
    let housekeeper = started.expect("there is a thread");
    wait_until("the first pass has ended", || {
        figures.sealed() == held(SEGMENTS, SEGMENTS)
    });
    // All but one are too much.
    settings.swap(live(limits(None, Some(1))).load_full());
    housekeeper.wake();
    while figures.removed(Reason::Bytes).segments == 0 {
        std::hint::spin_loop();
    }
    settings.swap(live(Limits::default()).load_full());
    wait_until("the pass has ended", || {
        let removed = figures.removed(Reason::Bytes).segments;
        figures.sealed() == held(SEGMENTS - removed, SEGMENTS - removed)
    });
    let left = names(dir).len() as u64;
    assert_eq!(left + figures.removed(Reason::Bytes).segments, SEGMENTS);
    assert!(left > 1, "it has gone on to its end");
    housekeeper.stop();
}

/// The scheduling policies of this process's threads of this name (proc_pid_stat(5)).
fn policy(name: &str) -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").expect("a process has threads");
    let of_thread = |stat: String| {
        let (before, after) = stat.rsplit_once(") ")?;
        let is_it = before.ends_with(&format!("({name}"));
        // The 41st field (proc_pid_stat(5)); the state behind the name is the third.
        let policy = after.split(' ').nth(38)?;
        is_it.then(|| policy.parse().expect("it is a number"))
    };
    let stats = tasks.filter_map(|task| {
        // One that has ended since has none.
        fs::read_to_string(task.ok()?.path().join("stat")).ok()
    });
    stats.filter_map(of_thread).collect()
}

#[test]
fn nothing_goes_by_default() {
    assert_eq!(Limits::of(&Config::default()), Limits::default());
}

fn retention(dir: &Path, args: &[&str], settings: &[(&str, &str)]) -> Run {
    let dir = dir.to_str().expect("its path is text");
    run(&[&["retention", dir], args].concat(), settings)
}

#[track_caller]
fn expect(run: &Run, code: i32, stdout: &str) {
    let expected = Run {
        code: Some(code),
        stdout: stdout.to_owned(),
        stderr: String::new(),
    };
    assert_eq!(*run, expected);
}

#[test]
fn a_dry_run_says_what_would_go() {
    let dir = data_dir();
    let dir = dir.path();
    let [oldest, read, newest] = [100, 20, 1].map(days_ago);
    put(dir, &oldest, 1_000);
    put_sidecar(dir, &oldest, 24);
    put(dir, &read, 512 << 10);
    put(dir, &newest, 1 << 20);
    put(dir, GO, 7);
    age(dir, GO, 40);
    put_sidecar(dir, "reports-gone.jsonl.zst", 1);
    let all = names(dir);
    let settings = [("RETENTION_AGE", "30d"), ("RETENTION_BYTES", "1MiB")];
    let table = format!(
        "{oldest}    1024  100d  age\n\
         {GO}            7   40d  age\n\
         {read}  524288   20d  bytes\n\
         .index/reports-gone.json  without a segment\n"
    );
    let would_go = "3 of 4 segments would be removed, 525319 of 1573895 bytes\n";
    let dry = retention(dir, &["--dry-run"], &settings);
    expect(&dry, 0, &format!("{table}{would_go}"));
    assert_eq!(names(dir), all);

    // A server holds the lock of the directory, a reader that of one segment.
    let _server = Fs::lock(dir).expect("nobody else has it");
    let reader = File::open(dir.join(&read)).expect("it is there");
    flock(&reader, FlockOperation::NonBlockingLockShared).expect("nobody else has it");
    let json_run = retention(dir, &["--dry-run", "--json"], &settings);
    let mut found: Value = serde_json::from_str(&json_run.stdout).expect("it is JSON");
    for measured in ["listed_ms", "planned_ms"] {
        let value = found[measured].take();
        assert!(value.as_u64().is_some(), "{measured}: {value}");
    }
    let listed = found["segments"].as_array_mut().expect("a list");
    for segment in listed {
        let time = segment["last_line"].take();
        let time = time.as_str().map(str::as_bytes);
        assert!(time.and_then(Timestamp::parse_rfc3339).is_some());
    }
    let going = |name: &str, bytes, reason| {
        json!({ "name": name, "bytes": bytes, "last_line": null, "reason": reason,
            "fate": "planned", "error": null })
    };
    let expected = json!({
        "dry_run": true,
        "retention_age_secs": 30 * 86_400,
        "retention_bytes": 1 << 20,
        "found": { "segments": 4, "bytes": 1_573_895 },
        "segments": [
            going(&oldest, 1024, "age"),
            going(GO, 7, "age"),
            going(&read, 524_288, "bytes"),
        ],
        "sidecars": [{ "name": "reports-gone.json", "fate": "planned", "error": null }],
        "listed_ms": null,
        "planned_ms": null,
    });
    assert_eq!((json_run.code, found), (Some(0), expected));

    let table = table.replace("bytes\n", "bytes, kept: it is being read\n");
    let gone = "2 of 4 segments removed, 1031 of 1573895 bytes\n";
    expect(
        &retention(dir, &[], &settings),
        0,
        &format!("{table}{gone}"),
    );
    assert_eq!(names(dir), sorted([&read, &newest]));
    assert_eq!(names(&dir.join(".index")), [""; 0]);
    // Not by a close, see `data_dir`.
    flock(&reader, FlockOperation::Unlock).expect("it is ours");
    let table = format!("{read}  524288  20d  bytes\n");
    let gone = "1 of 2 segments removed, 524288 of 1572864 bytes\n";
    expect(
        &retention(dir, &[], &settings),
        0,
        &format!("{table}{gone}"),
    );
    let nothing = "0 of 1 segments removed, 0 of 1048576 bytes\n";
    expect(&retention(dir, &[], &settings), 0, nothing);
    assert_eq!(names(dir), [newest]);
}

#[test]
fn without_a_limit_it_says_so() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let segment = days_ago(1000);
    put(dir.path(), &segment, 100);
    let unset = "neither RETENTION_AGE nor RETENTION_BYTES is set\n";
    let nothing = "0 of 1 segments would be removed, 0 of 100 bytes\n";
    let dry = retention(dir.path(), &["--dry-run"], &[]);
    expect(&dry, 0, &format!("{unset}{nothing}"));
    let nothing = "0 of 1 segments removed, 0 of 100 bytes\n";
    expect(
        &retention(dir.path(), &[], &[]),
        0,
        &format!("{unset}{nothing}"),
    );
    assert_eq!(names(dir.path()), [segment]);
}

#[test]
fn the_command_takes_the_settings() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let segment = days_ago(3);
    put(dir.path(), &segment, 100);
    let path = dir.path().to_str().expect("its path is text");
    let args = ["--retention-age", "2d", "retention", "--dry-run"];
    let settings = [("DATA_DIR", path), ("RETENTION_AGE", "30d")];
    let would_go = "1 of 1 segments would be removed, 100 of 100 bytes\n";
    let table = format!("{segment}  100  3d  age\n{would_go}");
    expect(&run(&args, &settings), 0, &table);
}

#[test]
fn what_the_command_cannot_do_is_said() {
    #[track_caller]
    fn check(run: &Run, message: &str) {
        let expected = Run {
            code: Some(2),
            stdout: String::new(),
            stderr: format!("netwatch-server: {message}\n"),
        };
        assert_eq!(*run, expected);
    }
    let missing = Path::new("/nonexistent/reports");
    check(
        &retention(missing, &[], &[]),
        "cannot read /nonexistent/reports: No such file or directory (os error 2)",
    );
    let dir = TempDir::new().expect("a temporary directory can be made");
    let dir = dir.path();
    check(
        &retention(dir, &[], &[("RETENTION_AGE", "1s")]),
        r#"retention_age: expected none or 60s to 36500d, found "1s" (from RETENTION_AGE)"#,
    );
    put(dir, ".index", 1);
    let shown = dir.display();
    check(
        &retention(dir, &[], &[]),
        &format!(
            "cannot tell what is in {shown}: cannot list .index: Not a directory (os error 20)"
        ),
    );
    fs::remove_file(dir.join(".index")).expect("it is there");
    // What cannot be removed.
    let segment = days_ago(3);
    put(dir, &segment, 100);
    set_mode(dir, 0o500);
    let refused = without_override(|| retention(dir, &[], &[("RETENTION_AGE", "1d")]));
    set_mode(dir, 0o700);
    let table = format!(
        "{segment}  100  3d  age, kept: Permission denied (os error 13)\n\
         0 of 1 segments removed, 0 of 100 bytes\n"
    );
    expect(&refused, 1, &table);
}

fn the_command_runs_beside_a_server(driver: Driver) {
    let mut server = Server::start(driver, &[]);
    let report = br#"{"clientId":"a","timestamp":"t","hosts":[]}"#;
    assert_eq!(server.connect().exchange(&post(report)).status, 200);
    let segment = days_ago(3);
    put(server.dir(), &segment, 2 << 20);
    // By bytes as well, what is open does not count and does not go.
    let done = retention(server.dir(), &[], &[("RETENTION_BYTES", "1MiB")]);
    let table = format!(
        "{segment}  2097152  3d  bytes\n\
         1 of 1 segments removed, 2097152 of 2097152 bytes\n"
    );
    expect(&done, 0, &table);
    assert_eq!(names(&server.dir().join(".open")).len(), 1);
    assert_eq!(server.connect().exchange(&post(report)).status, 200);
    assert_eq!(server.stop().code(), Some(0));
    let lines: usize = crate::support::sealed(server.dir())
        .iter()
        .map(|segment| segment.lines.len())
        .sum();
    assert_eq!(lines, 2);
}
