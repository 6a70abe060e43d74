//! Checking one file.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::thread;
use std::time::Duration;

use crate::disk::{Dir, Disk, Fs, block_on};
use crate::report::{LINE_BYTES_MAX, ReportError, Validator};
use crate::segment::frame::{Ending, scan};
use crate::segment::name::SegmentName;
use crate::segment::writer::NAME_TRIES_MAX;
use crate::time::Timestamp;

/// Problems of a file that are described; more are only counted.
pub const PROBLEMS_MAX: usize = 20;

/// How often an open segment is read again whose end cannot be decoded, and after what time: much more than a write
/// takes.
const IN_FLIGHT_TRIES: u32 = 3;
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(10);

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Where it is.
    pub dir: Dir,
    /// Its name there.
    pub name: String,
    /// Whole lines in it.
    pub lines: u64,
    /// Bytes of text in it.
    pub text_bytes: u64,
    /// The first of what is wrong with it.
    pub problems: Vec<String>,
    /// How many things are.
    pub problems_count: u64,
    /// Why it could not be read, or not to its end.
    pub unreadable: Option<String>,
}

/// Checks a file; `None` if it has gone away since it was listed.
pub(super) fn check(fs: &Fs, dir: Dir, name: &str) -> Option<Checked> {
    // A segment that has been sealed since is where all sealed ones are.
    let places = match dir {
        Dir::Open => &[Dir::Open, Dir::Sealed][..],
        _ => &[dir],
    };
    for &dir in places {
        let mut checked = Checked {
            dir,
            name: name.to_owned(),
            lines: 0,
            text_bytes: 0,
            problems: Vec::new(),
            problems_count: 0,
            unreadable: None,
        };
        match fs.open_for_reading(dir, name) {
            Ok(file) => {
                let read = match SegmentName::parse(name) {
                    Some(segment) => check_ours(fs, &file, segment, &mut checked),
                    None => check_foreign(&file, &mut checked),
                };
                checked.unreadable = read.err().map(|error| error.to_string());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => checked.unreadable = Some(error.to_string()),
        }
        return Some(checked);
    }
    None
}

impl Checked {
    fn note(&mut self, problem: String) {
        self.problems_count += 1;
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }
}

/// A segment of this server, sealed or open.
fn check_ours(fs: &Fs, file: &File, segment: SegmentName, checked: &mut Checked) -> io::Result<()> {
    let unread = checked.clone();
    let mut ending = scan_ours(fs, file, segment, checked)?;
    for _ in 0..IN_FLIGHT_TRIES {
        let (Ending::Damaged { .. }, Dir::Open) = (&ending.1, checked.dir) else {
            break;
        };
        // A block that is being written looks like that; a little later it is whole.
        thread::sleep(IN_FLIGHT_PAUSE);
        *checked = unread.clone();
        ending = scan_ours(fs, file, segment, checked)?;
    }
    let (at, ending) = ending;
    match (ending, checked.dir) {
        (Ending::Whole, _) => {
            if checked.lines == 0 {
                checked.note("holds no line".to_owned());
            }
        }
        // Its writer is still at it, or recovery will see to it.
        (Ending::Open | Ending::Torn | Ending::Zeros, Dir::Open) => (),
        (Ending::Open | Ending::Torn, _) => {
            checked.note(format!("ends within the frame, after byte {at}"));
        }
        (Ending::Zeros, _) => checked.note(format!("only zeros from byte {at} on")),
        (Ending::Trailing, _) => checked.note(format!("other bytes behind the frame at byte {at}")),
        (Ending::Damaged { what }, _) => checked.note(format!("{what}, at byte {at}")),
    }
    Ok(())
}

/// Checks the lines of a segment; returns how many bytes of it were understood, and how they end.
fn scan_ours(
    fs: &Fs,
    file: &File,
    segment: SegmentName,
    checked: &mut Checked,
) -> io::Result<(u64, Ending)> {
    let len = block_on(fs.len(file))?;
    let mut lines = Lines::new(segment.time);
    let scan = block_on(scan(fs, file, len, |text| lines.take(text, checked)))?;
    (checked.lines, checked.text_bytes) = (scan.lines, scan.text_bytes);
    Ok((scan.understood, scan.ending))
}

/// Splits decoded text into lines and checks each.
struct Lines {
    validator: Validator,
    /// The time in the segment's name.
    named: Timestamp,
    number: u64,
    last: Option<Timestamp>,
    /// The line that the last piece of text did not end: `partial.len() <= LINE_BYTES_MAX + 1`.
    partial: Vec<u8>,
}

impl Lines {
    fn new(named: Timestamp) -> Lines {
        Lines {
            validator: Validator::new(),
            named,
            number: 0,
            last: None,
            partial: Vec::new(),
        }
    }

    fn take(&mut self, mut text: &[u8], checked: &mut Checked) {
        while let Some(end) = memchr::memchr(b'\n', text) {
            let (line, rest) = text.split_at(end + 1);
            if self.partial.is_empty() {
                self.check(line, checked);
            } else {
                self.extend_partial(line);
                let line = std::mem::take(&mut self.partial);
                self.check(&line, checked);
            }
            text = rest;
        }
        self.extend_partial(text);
    }

    /// One byte more than a line may have is enough to refuse it.
    fn extend_partial(&mut self, text: &[u8]) {
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.partial.len());
        self.partial
            .extend_from_slice(&text[..text.len().min(room)]);
    }

    fn check(&mut self, line: &[u8], checked: &mut Checked) {
        self.number += 1;
        let number = self.number;
        let received_at = match self.validator.check_line(line) {
            Ok(Some(received_at)) => received_at,
            Ok(None) => return checked.note(format!("line {number}: receivedAt: missing")),
            Err(error) => return checked.note(format!("line {number}: {error}")),
        };
        match self.last {
            None => {
                // A taken name makes way to a later millisecond, never to an earlier one.
                let later = self.named.ms().checked_sub(received_at.ms());
                if later.is_none_or(|later| later > u64::from(NAME_TRIES_MAX)) {
                    checked.note(format!(
                        "line 1: received at {received_at}, the name says {}",
                        self.named
                    ));
                }
            }
            Some(last) if received_at < last => {
                checked.note(format!(
                    "line {number}: received at {received_at}, after {last}"
                ));
            }
            Some(_) => (),
        }
        self.last = Some(received_at);
    }
}

/// A file of the Go server: any zstd frames, lines of JSON by a looser schema.
fn check_foreign(file: &File, checked: &mut Checked) -> io::Result<()> {
    let mut text = BufReader::new(zstd::Decoder::new(file)?);
    let mut validator = Validator::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = (LINE_BYTES_MAX + 1) as u64;
        let read = io::Read::take(&mut text, limit).read_until(b'\n', &mut line);
        match read {
            Ok(0) => break,
            Ok(_) => (),
            // The system's errors have a number, the decoder's have none.
            Err(error) if error.raw_os_error().is_some() => return Err(error),
            Err(error) => {
                checked.note(format!("after line {}: {error}", checked.lines));
                break;
            }
        }
        checked.text_bytes += line.len() as u64;
        if line.last() != Some(&b'\n') {
            checked.note(format!("line {} has no end", checked.lines + 1));
            break;
        }
        checked.lines += 1;
        let is_json = !matches!(
            validator.check_line(&line),
            Err(ReportError::Empty | ReportError::NotJson { .. } | ReportError::NotUtf8 { .. })
        );
        if !is_json {
            checked.note(format!("line {}: not valid JSON", checked.lines));
        }
    }
    Ok(())
}
