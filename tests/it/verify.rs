//! `netwatch-server verify`: whole files pass, and each kind of damage is named.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    self, Driver, Run, Server, both_drivers, command, post, run, sealed, wait_until,
};

both_drivers!(a_directory_being_written_is_sound);

fn report(client_id: &str) -> String {
    format!(r#"{{"clientId":"{client_id}","timestamp":"t","hosts":[]}}"#)
}

fn line(received_at: &str, client_id: &str) -> String {
    let report = report(client_id);
    format!("{{\"receivedAt\":\"{received_at}\",{}\n", &report[1..])
}

fn verify(dir: &Path) -> Run {
    run(&["verify".as_ref(), dir.as_os_str()], &[])
}

/// A frame as a segment has it.
fn frame(text: &str) -> Vec<u8> {
    let frame = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1)?;
        encoder.include_checksum(true)?;
        std::io::Write::write_all(&mut encoder, text.as_bytes())?;
        encoder.finish()
    };
    frame().expect("memory takes it")
}

const NAME: &str = "reports-20260227T051434.123Z-c000.jsonl.zst";
const AT: &str = "2026-02-27T05:14:34.123Z";
const LATER: &str = "2026-02-27T05:14:34.124Z";

fn a_directory_being_written_is_sound(driver: Driver) {
    let mut server = Server::start(driver, &[("FLUSH_BYTES", "1KiB")]);
    let mut client = server.connect();
    for index in 0..100 {
        let body = report(&format!("client {index}"));
        assert_eq!(client.exchange(&post(body.as_bytes())).status, 200);
    }
    // What is open counts, and what is being sealed is found in one of its two places.
    let beside = verify(server.dir());
    assert_eq!(beside.code, Some(0), "{beside:?}");
    assert!(
        beside
            .stdout
            .contains(" 100 lines, 0 damaged, 0 unreadable\n")
    );
    drop(client);
    server.stop();
    let segments = sealed(server.dir()).len();
    assert!(segments > 3, "rolls were to happen");
    let after = verify(server.dir());
    let summary = format!("{segments} segments, 100 lines, 0 damaged, 0 unreadable\n");
    assert_eq!((after.code, after.stdout), (Some(0), summary));
    assert_eq!(after.stderr, "");
}

#[test]
fn damage_is_named() {
    #[track_caller]
    fn check(name: &str, bytes: &[u8], problem: &str) {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let run = verify(dir.path());
        let first = run.stdout.lines().next().unwrap_or_default();
        assert_eq!(first, format!("{name}  {problem}"));
        assert_eq!(run.code, Some(1));
    }
    let text = [line(AT, "a"), line(LATER, "b")].concat();
    let whole = frame(&text);
    let len = whole.len();
    // The frame.
    check(NAME, b"", "ends within the frame, after byte 0");
    check(NAME, b"reports", "no zstd frame, at byte 0");
    check(
        NAME,
        &whole[..len - 1],
        &format!("ends within the frame, after byte {}", len - 4),
    );
    check(
        NAME,
        &[&whole[..], b"x"].concat(),
        &format!("other bytes behind the frame at byte {len}"),
    );
    check(
        NAME,
        &[&whole[..], &whole].concat(),
        &format!("other bytes behind the frame at byte {len}"),
    );
    check(
        NAME,
        &[&whole[..], &[0; 9]].concat(),
        &format!("only zeros from byte {len} on"),
    );
    let mut flipped = whole.clone();
    flipped[len - 1] ^= 1;
    let at = len - 4;
    check(
        NAME,
        &flipped,
        &format!("content checksum does not match, at byte {at}"),
    );
    // The text.
    check(
        NAME,
        &frame(text.trim_end()),
        &format!(
            "text does not end at a line, at byte {}",
            frame(text.trim_end()).len()
        ),
    );
    check(NAME, &frame(""), "holds no line");
    // The lines.
    let bad = |bad: &str| frame(&[&line(AT, "a"), bad].concat());
    check(NAME, &bad("\n"), "line 2: body is empty");
    check(
        NAME,
        &bad(&(report("b") + "\n")),
        "line 2: receivedAt: missing",
    );
    check(
        NAME,
        &bad(&line(LATER, "b").replace("\"t\"", "3")),
        "line 2: timestamp: expected string",
    );
    check(
        NAME,
        &frame(&[line(LATER, "a"), line(AT, "b")].concat()),
        &format!("line 1: received at {LATER}, the name says {AT}"),
    );
    check(
        NAME,
        &frame(&[line(AT, "a"), line(LATER, "b"), line(AT, "c")].concat()),
        &format!("line 3: received at {AT}, after {LATER}"),
    );
    check(
        "reports-20260227T061434.123Z-c000.jsonl.zst",
        &whole,
        &format!("line 1: received at {AT}, the name says 2026-02-27T06:14:34.123Z"),
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let text = [line(AT, "a"), line(LATER, "b")].concat().into_bytes();
    let whole = frame(str::from_utf8(&text).unwrap());
    let dir = TempDir::new().unwrap();
    // Each byte of the frame, one flipped bit in each.
    for index in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[index] ^= 1 << (index % 8);
        fs::write(dir.path().join(NAME), &flipped).unwrap();
        let run = verify(dir.path());
        // Some bits mean nothing: the same text comes out, with the same checksum.
        let is_harmless = zstd::decode_all(&flipped[..]).is_ok_and(|found| found == text);
        assert!(run.code == Some(1) || is_harmless, "byte {index}: {run:?}");
    }
}

#[test]
fn a_taken_name_may_be_later_than_its_first_line() {
    let dir = TempDir::new().unwrap();
    let name = "reports-20260227T051434.130Z-c000.jsonl.zst";
    fs::write(dir.path().join(name), frame(&line(AT, "a"))).unwrap();
    assert_eq!(verify(dir.path()).code, Some(0));
}

#[test]
fn files_of_the_go_server_are_checked_by_looser_rules() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("reports-2026-02-27T05-14-34Z.jsonl.zst");
    let go = "{\"clientId\":\"\",\"geo\":null,\"hosts\":null,\"timestamp\":\"\"}\n";
    fs::write(&path, [frame(go), frame(go)].concat()).unwrap();
    let run = verify(dir.path());
    let summary = "1 segments, 2 lines, 0 damaged, 0 unreadable\n";
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), summary));
    fs::write(&path, frame(&[go, "{\n"].concat())).unwrap();
    let run = verify(dir.path());
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("  line 2: not valid JSON\n"), "{run:?}");
}

#[test]
fn json_says_the_same() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(NAME), b"reports").unwrap();
    let run = run(
        &["verify".as_ref(), "--json".as_ref(), dir.path().as_os_str()],
        &[],
    );
    let found: Value = serde_json::from_str(&run.stdout).unwrap();
    let expected = serde_json::json!({ "segments": [{
        "path": NAME,
        "lines": 0,
        "text_bytes": 0,
        "problems": ["no zstd frame, at byte 0"],
        "problems_count": 1,
        "unreadable": null,
    }] });
    assert_eq!((run.code, found), (Some(1), expected));
}

#[test]
fn what_cannot_be_checked_is_no_damage() {
    let missing = PathBuf::from("/nonexistent/reports");
    let run = verify(&missing);
    let message = "netwatch-server: cannot read /nonexistent/reports: \
        No such file or directory (os error 2)\n";
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), message));
    // Without an argument, the setting's directory.
    let dir = TempDir::new().unwrap();
    let dir = dir.path().to_str().unwrap();
    let run = support::run(&["verify"], &[("DATA_DIR", dir)]);
    let summary = "0 segments, 0 lines, 0 damaged, 0 unreadable\n";
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), summary));
}

/// A segment that takes a while to check: its text is 192 MiB, in lines of a report.
fn slow() -> Vec<u8> {
    let line = format!(
        "{{\"clientId\":\"a\",\"timestamp\":\"t\",\"hosts\":[],\"x\":\"{}\"}}\n",
        "x".repeat(970)
    );
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    let chunk = line.repeat(1024);
    for _ in 0..192 {
        std::io::Write::write_all(&mut encoder, chunk.as_bytes()).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}

#[test]
fn what_is_read_is_locked_for_reading() {
    let dir = TempDir::new().expect("a temporary directory can be made");
    let path = dir.path().join("reports-2026-02-27T05-14-34Z.jsonl.zst");
    fs::write(&path, slow()).expect("the directory can be written");
    let inode = fs::metadata(&path).expect("it is there").ino();
    let mut command = command();
    command.arg("verify").arg(dir.path()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    // `1: FLOCK  ADVISORY  READ 4711 fe:00:131075 0 EOF`, as proc_locks(5) has it.
    let is_locked = || {
        let locks = fs::read_to_string("/proc/locks").expect("the kernel tells");
        locks.lines().any(|lock| {
            let is_shared = lock.contains("FLOCK") && lock.contains("READ");
            is_shared && lock.contains(&format!(":{inode} "))
        })
    };
    let mut was_locked = false;
    wait_until("verify locks what it reads, or ends", || {
        was_locked = was_locked || is_locked();
        was_locked || child.try_wait().is_ok_and(|status| status.is_some())
    });
    assert!(was_locked, "verify has read without a lock");
    let output = child.wait_with_output().expect("the binary runs");
    let summary = "1 segments, 196608 lines, 0 damaged, 0 unreadable\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), summary);
}
