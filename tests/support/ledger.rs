//! What was sent and acknowledged, by the journals, against what is stored, by the segments.
//!
//! ```text
//!                  no line       one line         more lines
//! acknowledged     missing (1)   right            duplicated
//! sent only        right         unacknowledged   duplicated
//! not sent                       foreign          foreign
//! ```
//!
//! (1) Or lost, as may be: acknowledged from memory less than [`Check::may_lose_ms`] before the server was
//! killed, or noted after its power was cut.
//!
//! A line is *changed* if it is not the report that was sent, byte for byte, with `receivedAt` in front.
//! A sealed segment is *damaged* if it is not one zstd frame with a checksum and a window of at most
//! 8 MiB that holds whole lines, one at least, or if `receivedAt` goes back in it. Segments are read by the zstd crate
//! alone, not by the code under test. Memory: 8 bytes a report, and one line and window per thread.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use crate::journal::{Fact, ReportId};

/// A line begins with these and 24 bytes of time between them, in place of the report's `{`.
const STAMP_BEGIN: &[u8] = b"{\"receivedAt\":\"";
const STAMP_END: &[u8] = b"\",";
const TIME_BYTES: usize = 24;
const STAMP_BYTES: usize = STAMP_BEGIN.len() + TIME_BYTES + STAMP_END.len();

/// Of a frame's descriptor (RFC 8878 §3.1.1.1.1): a content checksum follows the blocks.
const CHECKSUM_FLAG: u8 = 0x04;
/// 8 MiB.
const WINDOW_LOG_MAX: u32 = 23;

/// So many faults are described; all are counted.
const DESCRIBED_MAX: usize = 10;

/// What to compare.
pub(crate) struct Check<'a> {
    pub(crate) journals: &'a [PathBuf],
    /// The data directory. Nothing must be writing it.
    pub(crate) data: &'a Path,
    /// Whether segments in `.open` count, as far as they decode.
    pub(crate) with_open: bool,
    /// Segments last written before this are not read.
    pub(crate) newer: Option<SystemTime>,
    /// What was acknowledged so shortly before its server was killed may be missing.
    pub(crate) may_lose_ms: u64,
}

/// What the comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Files read.
    pub(crate) segments: u64,
    /// Lines in them.
    pub(crate) lines: u64,
    /// Reports that have to be there.
    pub(crate) acknowledged: u64,
    /// Reports that are there, though their clients do not know it.
    pub(crate) unacknowledged: u64,
    /// Acknowledged reports that are not there.
    pub(crate) missing: u64,
    /// The same, so shortly before a kill that the promise allows it.
    pub(crate) lost: u64,
    /// Reports that are there more than once.
    pub(crate) duplicated: u64,
    /// Lines that nobody sent.
    pub(crate) foreign: u64,
    /// Lines that are not what was sent.
    pub(crate) changed: u64,
    /// Sealed segments that are not as they must be.
    pub(crate) damaged: u64,
    /// The first of these faults, in words.
    pub(crate) faults: Vec<String>,
}

impl Findings {
    /// Whether all is as promised.
    pub(crate) fn is_good(&self) -> bool {
        let faults = [
            self.missing,
            self.duplicated,
            self.foreign,
            self.changed,
            self.damaged,
        ];
        faults == [0; 5]
    }

    fn describe(&mut self, fault: String) {
        if self.faults.len() < DESCRIBED_MAX {
            self.faults.push(fault);
        }
    }

    fn add(&mut self, other: Findings) {
        self.segments += other.segments;
        self.lines += other.lines;
        self.foreign += other.foreign;
        self.changed += other.changed;
        self.damaged += other.damaged;
        for fault in other.faults {
            self.describe(fault);
        }
    }
}

impl Check<'_> {
    /// Reads the journals, then every segment, and compares.
    ///
    /// # Errors
    ///
    /// Something cannot be read, or a journal is not whole. The text says which.
    pub(crate) fn run(&self) -> Result<Findings, String> {
        let mut ledger = Ledger::default();
        for path in self.journals {
            ledger.read(path)?;
        }
        let mut segments = self.segments(self.data, Kind::Sealed)?;
        if self.with_open {
            segments.extend(self.segments(&self.data.join(".open"), Kind::Open)?);
        }
        let mut findings = count_lines(&ledger, &segments);
        ledger.settle(self.may_lose_ms, &mut findings);
        Ok(findings)
    }

    fn segments(&self, dir: &Path, kind: Kind) -> Result<Vec<(PathBuf, Kind)>, String> {
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        let mut segments = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let is_segment = entry.file_name().to_string_lossy().ends_with(".jsonl.zst");
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let written = written.map_err(failed)?;
            if is_segment && self.newer.is_none_or(|newer| written >= newer) {
                segments.push((entry.path(), kind));
            }
        }
        segments.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(segments)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sealed,
    Open,
}

/// What the journals say, and how many lines were found of each report.
#[derive(Default)]
struct Ledger {
    /// By seed.
    runs: BTreeMap<u64, Run>,
}

#[derive(Default)]
struct Run {
    /// By connection, then by number.
    sent: Vec<Vec<Entry>>,
    /// The time from which `Entry::acked_ms` counts.
    first_ms: u64,
    killed_ms: Option<u64>,
}

#[derive(Default)]
struct Entry {
    /// 1 + the milliseconds from the run's first acknowledgement to this report's; 0: there is none.
    acked_ms: u32,
    lines: AtomicU16,
}

impl Ledger {
    fn read(&mut self, path: &Path) -> Result<(), String> {
        let failed = |what: String| format!("{}: {what}", path.display());
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let mut run = Run::default();
        let (mut seed, mut acks) = (None, Vec::new());
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(|error| failed(error.to_string()))?;
            match Fact::parse(&line) {
                Some(Fact::Run { seed: found }) if index == 0 => seed = Some(found),
                Some(Fact::Ack { at_ms, id }) if Some(id.seed) == seed => acks.push((at_ms, id)),
                Some(Fact::Sent { connection, count }) if connection as usize == run.sent.len() => {
                    let entries = (0..count).map(|_| Entry::default());
                    run.sent.push(entries.collect());
                }
                Some(Fact::Killed { at_ms }) => run.killed_ms = Some(at_ms),
                _ => return Err(failed(format!("line {}: not expected: {line}", index + 1))),
            }
        }
        let seed = seed.ok_or_else(|| failed("empty".to_owned()))?;
        run.first_ms = acks.iter().map(|ack| ack.0).min().unwrap_or(0);
        for (at_ms, id) in acks {
            let first_ms = run.first_ms;
            // The counts are written last: a journal without them is of a run that was cut short.
            let entry = run.entry_mut(id);
            let entry = entry.ok_or_else(|| failed(format!("{id} is not counted as sent")))?;
            entry.acked_ms = 1 + (at_ms - first_ms) as u32;
        }
        match self.runs.insert(seed, run) {
            None => Ok(()),
            Some(_) => Err(failed(format!("a second run with seed {seed}"))),
        }
    }

    /// The entry of a report that was sent.
    fn entry(&self, id: ReportId) -> Option<&Entry> {
        let run = self.runs.get(&id.seed)?;
        run.sent.get(id.connection as usize)?.get(id.n as usize)
    }

    /// Compares what is to be there with what was counted.
    fn settle(&self, may_lose_ms: u64, findings: &mut Findings) {
        for (seed, run) in &self.runs {
            let safe_ms = match run.killed_ms {
                Some(killed_ms) => killed_ms - may_lose_ms,
                None => u64::MAX,
            };
            for (connection, entries) in run.sent.iter().enumerate() {
                for (n, entry) in entries.iter().enumerate() {
                    let is_acked = entry.acked_ms > 0;
                    findings.acknowledged += u64::from(is_acked);
                    match entry.lines.load(Relaxed) {
                        0 if !is_acked => (),
                        0 => {
                            let acked_ms = run.first_ms + u64::from(entry.acked_ms) - 1;
                            if acked_ms > safe_ms {
                                findings.lost += 1;
                            } else {
                                findings.missing += 1;
                                findings.describe(format!(
                                    "missing: load-{seed}-{connection}-{n}, acknowledged at {acked_ms}"
                                ));
                            }
                        }
                        1 => findings.unacknowledged += u64::from(!is_acked),
                        lines => {
                            findings.duplicated += 1;
                            findings
                                .describe(format!("{lines} times: load-{seed}-{connection}-{n}"));
                        }
                    }
                }
            }
        }
    }
}

impl Run {
    fn entry_mut(&mut self, id: ReportId) -> Option<&mut Entry> {
        let entries = self.sent.get_mut(id.connection as usize)?;
        entries.get_mut(id.n as usize)
    }
}

/// Reads the segments, on as many threads as there are CPUs, and counts their lines in the ledger.
fn count_lines(ledger: &Ledger, segments: &[(PathBuf, Kind)]) -> Findings {
    let next = AtomicUsize::new(0);
    let findings = Mutex::new(Findings::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((path, kind)) = segments.get(next.fetch_add(1, Relaxed)) {
                    let mut found = Findings {
                        segments: 1,
                        ..Findings::default()
                    };
                    let read = count_segment(ledger, path, *kind, &mut found);
                    if let Err(what) = read {
                        found.damaged += 1;
                        found.describe(format!("damaged: {}: {what}", path.display()));
                    }
                    let findings = findings.lock();
                    findings.unwrap_or_else(PoisonError::into_inner).add(found);
                }
            });
        }
    });
    findings
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

fn count_segment(
    ledger: &Ledger,
    path: &Path,
    kind: Kind,
    found: &mut Findings,
) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut file = BufReader::new(File::open(path).map_err(text)?);
    let descriptor = file.fill_buf().map_err(text)?.get(4).copied();
    if kind == Kind::Sealed && descriptor.is_none_or(|byte| byte & CHECKSUM_FLAG == 0) {
        return Err("no frame with a checksum".to_owned());
    }
    let mut decoder = zstd::Decoder::with_buffer(file).map_err(text)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(text)?;
    let mut reader = BufReader::new(decoder.single_frame());
    let mut line = Vec::new();
    let mut latest = [0; TIME_BYTES];
    loop {
        line.clear();
        match (reader.read_until(b'\n', &mut line), kind) {
            (Ok(0), _) => break,
            (Ok(_), _) if line.pop_if(|&mut byte| byte == b'\n').is_some() => (),
            // Where an open segment stops decoding, or in the middle of a line, its commits end.
            (_, Kind::Open) => return Ok(()),
            (Ok(_), Kind::Sealed) => return Err("the last line does not end".to_owned()),
            (Err(error), Kind::Sealed) => return Err(error.to_string()),
        }
        found.lines += 1;
        let Some(received_at) = count_line(ledger, &line, found) else {
            continue;
        };
        // Times of this spelling sort as text.
        if received_at < latest {
            let (now, before) = (received_at.escape_ascii(), latest.escape_ascii());
            return Err(format!("receivedAt {now} after {before}"));
        }
        latest = received_at;
    }
    let mut file = reader.into_inner().finish();
    match file.fill_buf().map_err(text)? {
        _ if kind == Kind::Open => Ok(()),
        [] if found.lines == 0 => Err("no line".to_owned()),
        [] => Ok(()),
        _ => Err("bytes after the frame".to_owned()),
    }
}

/// Counts a line, and returns its time if it is one of ours.
fn count_line(ledger: &Ledger, line: &[u8], found: &mut Findings) -> Option<[u8; TIME_BYTES]> {
    let ours = parse_line(line).and_then(|parsed| Some((ledger.entry(parsed.1)?, parsed)));
    let Some((entry, (received_at, id, members))) = ours else {
        found.foreign += 1;
        let start = line[..line.len().min(100)].escape_ascii();
        found.describe(format!("foreign: {start}"));
        return None;
    };
    entry.lines.fetch_add(1, Relaxed);
    if id.report()[1..] != *members {
        found.changed += 1;
        found.describe(format!("changed: {id}"));
    }
    Some(received_at)
}

/// The time, the name, and the bytes after `receivedAt`, which are those of the report after its `{`.
fn parse_line(line: &[u8]) -> Option<([u8; TIME_BYTES], ReportId, &[u8])> {
    let (stamp, members) = line.split_at_checked(STAMP_BYTES)?;
    let time = stamp.strip_prefix(STAMP_BEGIN)?.strip_suffix(STAMP_END)?;
    let id = members.strip_prefix(b"\"clientId\":\"")?;
    let id = id.split(|&byte| byte == b'"').next()?;
    let id = ReportId::parse(str::from_utf8(id).ok()?)?;
    Some((time.try_into().ok()?, id, members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, note_killed};
    use std::io::Write;

    const NAME: &str = "reports-20260227T051434.123Z-c000.jsonl.zst";

    fn id(n: u32) -> ReportId {
        ReportId {
            seed: 7,
            connection: 0,
            n,
            samples: 1,
        }
    }

    /// A line as a server stores it, received in this second.
    fn line(n: u32, second: u32) -> Vec<u8> {
        let mut line = format!("{{\"receivedAt\":\"2026-02-27T05:14:{second:02}.000Z\",");
        line.push_str(str::from_utf8(&id(n).report()[1..]).unwrap());
        line.push('\n');
        line.into_bytes()
    }

    fn frame(text: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// What is found of a run that sent reports 0 to 3 and was acknowledged 0 to 2, if its server has
    /// left this file.
    fn findings(dir: &str, file: &[u8], may_lose_ms: u64) -> Findings {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join(".open")).unwrap();
        fs::write(data.path().join(dir).join(NAME), file).unwrap();
        let journals = [data.path().join("journal")];
        let journal = Journal::create(&journals[0], 7).unwrap();
        for n in 0..3 {
            journal.acknowledge(id(n)).unwrap();
        }
        journal.end(&[4]).unwrap();
        let killed_ms = crate::journal::now_ms() + 1000;
        note_killed(&journals[0], killed_ms).unwrap();
        let check = Check {
            journals: &journals,
            data: data.path(),
            with_open: true,
            newer: None,
            may_lose_ms,
        };
        check.run().unwrap()
    }

    #[test]
    fn each_fault_is_found() {
        #[track_caller]
        fn check(text: &[Vec<u8>], expected: Findings) {
            let mut found = findings("", &frame(&text.concat()), 0);
            let faults =
                found.missing + found.duplicated + found.foreign + found.changed + found.damaged;
            assert_eq!(found.is_good(), faults == 0);
            assert_eq!(found.faults.len() as u64, faults, "{:?}", found.faults);
            found.faults.clear();
            let expected = Findings {
                segments: 1,
                acknowledged: 3,
                ..expected
            };
            assert_eq!(found, expected);
        }
        let good = [line(0, 1), line(1, 1), line(2, 2)];
        let with = |more: &[Vec<u8>]| [&good[..], more].concat();
        let all = Findings {
            lines: 3,
            ..Findings::default()
        };
        check(&good, Findings { ..all });
        check(
            &good[1..],
            Findings {
                lines: 2,
                missing: 1,
                ..Findings::default()
            },
        );
        let four = || Findings {
            lines: 4,
            ..Findings::default()
        };
        let unacknowledged = Findings {
            unacknowledged: 1,
            ..four()
        };
        check(&with(&[line(3, 2)]), unacknowledged);
        let duplicated = Findings {
            duplicated: 1,
            ..four()
        };
        check(&with(&[line(1, 2)]), duplicated);
        // The connection has sent 0 to 3.
        let foreign = || Findings {
            foreign: 1,
            ..four()
        };
        check(&with(&[line(4, 2)]), foreign());
        check(&with(&[b"{}\n".to_vec()]), foreign());
        let mut changed = line(3, 2);
        let end = changed.len() - 4;
        changed[end] ^= 1;
        let found = Findings {
            unacknowledged: 1,
            changed: 1,
            ..four()
        };
        check(&with(&[changed]), found);
        let damaged = Findings {
            unacknowledged: 1,
            damaged: 1,
            ..four()
        };
        check(&with(&[line(3, 1)]), damaged);
    }

    #[test]
    fn damage_is_found_in_sealed_segments_alone() {
        #[track_caller]
        fn check(file: &[u8], expected: &str) {
            let found = findings("", file, 0);
            assert_eq!(found.damaged, 1);
            let what = found.faults.iter().find_map(|fault| {
                let (_, what) = fault.split_once(&format!("{NAME}: "))?;
                Some(what)
            });
            assert_eq!(what, Some(expected));
            assert_eq!(findings(".open", file, 0).damaged, 0);
        }
        let text = [line(0, 1), line(1, 1), line(2, 2)].concat();
        let whole = frame(&text);
        check(&whole[..whole.len() - 9], "incomplete frame");
        check(&[&whole[..], &whole].concat(), "bytes after the frame");
        check(&[&whole[..], &[0]].concat(), "bytes after the frame");
        check(
            &frame(&text[..text.len() - 1]),
            "the last line does not end",
        );
        let unchecked = zstd::encode_all(&text[..], 1).unwrap();
        check(&unchecked, "no frame with a checksum");
        check(&frame(b""), "no line");
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        check(&wrong, "Restored data doesn't match checksum");
    }

    #[test]
    fn loss_is_allowed_shortly_before_a_kill_only() {
        let two = frame(&[line(0, 1), line(1, 1)].concat());
        let found = findings("", &two, 0);
        assert_eq!((found.missing, found.lost), (1, 0));
        // The kill is noted a second after the acknowledgements.
        let found = findings("", &two, 500);
        assert_eq!((found.missing, found.lost), (1, 0));
        let found = findings("", &two, 100_000);
        assert_eq!((found.missing, found.lost), (0, 1));
    }

    #[test]
    fn an_incomplete_journal_is_refused() {
        #[track_caller]
        fn check(journal: &str, expected: &str) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("journal");
            fs::write(&path, journal).unwrap();
            let check = Check {
                journals: std::slice::from_ref(&path),
                data: dir.path(),
                with_open: false,
                newer: None,
                may_lose_ms: 0,
            };
            let error = check.run().unwrap_err();
            assert_eq!(error, format!("{}: {expected}", path.display()));
        }
        check("", "empty");
        check(
            "run 7\nack 5 load-7-0-0-1\n",
            "load-7-0-0-1 is not counted as sent",
        );
        check(
            "run 7\nack 5 load-8-0-0-1\nsent 0 1\n",
            "line 2: not expected: ack 5 load-8-0-0-1",
        );
        check(
            "run 7\nack 5 load-7-00-0-1\n",
            "line 2: not expected: ack 5 load-7-00-0-1",
        );
        check("run 7\nsent 1 1\n", "line 2: not expected: sent 1 1");
    }
}
