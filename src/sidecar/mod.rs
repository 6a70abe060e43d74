//! Sidecars: what of a sealed segment is asked often, so that the answer needs no decoding.
//!
//! Owns the form of the file, what goes into it ([`Sidecar::of_lines`]), whether one found belongs to its segment as
//! that is now ([`load`]), and making them ([`make`]). Leaves to `housekeeping` when that is. Whoever reads does
//! without one that is missing or wrong, so a sidecar is never synced: it can be made again.
//!
//! ```text
//! .index/reports-….json    {"xxh64":"9f…","index":{"version":1,"segment":"reports-….jsonl.zst", …}}
//!                                    │             └──── hashed, byte for byte ───┘
//!                                    └ a file that was cut or changed has another
//! ```
//!
//! `hosts` has the latencies of each host by the minute of `receivedAt`, in the bins of [`crate::tally`]. It is
//! left out where a segment names more hosts than [`TALLY_BYTES_MAX`] can hold: such a segment is decoded to
//! be asked.

pub mod make;

use std::fmt;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh64::xxh64;

use crate::disk::{Dir, Disk, Fs, Stat, block_on};
use crate::report::extract::{Extractor, Host};
use crate::report::received_at;
use crate::segment::name::sidecar_of;
use crate::segment::reader::{Lines, ReadError};
use crate::tally::{Cell, Outcome, Pace, Sketch, Tally};
use crate::time::Timestamp;

/// Cells of a sidecar are of so many milliseconds.
pub const MINUTE_MS: u64 = 60_000;

/// The most that the cells of a segment may take in memory.
pub const TALLY_BYTES_MAX: usize = 2 << 20;

/// Longer files are none of ours.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What the form is called. Another one is made again.
const VERSION: u32 = 1;

/// The one that is being made, in `.index`. It takes its name by a rename, so that nobody finds half of one.
const PART_NAME: &str = ".part";

/// What a sidecar says of its segment.
#[derive(Debug)]
pub struct Sidecar {
    /// Lines in it.
    pub lines: u64,
    /// Bytes of its text.
    pub raw_bytes: u64,
    /// Lines that are no reports.
    pub skipped_lines: u64,
    /// When its first and its last line were received, if it has any: the least and the greatest time.
    pub received: Option<(Timestamp, Timestamp)>,
    /// The least and the greatest `t` of its samples, if any has one.
    pub t: Option<(f64, f64)>,
    /// Cells by host and minute; none if there are too many.
    pub hosts: Option<Tally>,
    /// The file's time, if that stands for the time of a line that has none.
    modified: Option<Timestamp>,
}

#[derive(Deserialize, Serialize)]
struct Envelope<'a> {
    xxh64: String,
    #[serde(borrow)]
    index: &'a RawValue,
}

#[derive(Deserialize, Serialize)]
struct Form {
    version: u32,
    segment: String,
    file_bytes: u64,
    lines: u64,
    raw_bytes: u64,
    skipped_lines: u64,
    received: Option<(u64, u64)>,
    modified: Option<u64>,
    t: Option<(f64, f64)>,
    hosts: Option<Vec<HostForm>>,
}

#[derive(Deserialize, Serialize)]
struct HostForm {
    host: Option<String>,
    minutes: Vec<MinuteForm>,
}

#[derive(Deserialize, Serialize)]
struct MinuteForm {
    start: u64,
    samples: u64,
    errors: u64,
    no_data: u64,
    /// None of these if no sample has a latency, or if it is beyond what JSON has.
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    /// The bins of the sketch, each as its least value in microseconds and its count.
    latencies: Vec<(u32, u64)>,
}

/// Why a sidecar that is there is not used.
#[derive(Debug)]
pub enum LoadError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not what was written.
    Damaged,
    /// It is of another version of this server, or of another file of this name.
    Stale,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoadError::Io(_) => "cannot be read",
            LoadError::Damaged => "is damaged",
            LoadError::Stale => "is not of this segment",
        })
    }
}

impl LoadError {
    /// What the system said, if it was asked in vain.
    pub fn cause(&self) -> Option<String> {
        match self {
            LoadError::Io(source) => Some(source.to_string()),
            LoadError::Damaged | LoadError::Stale => None,
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Io(source) => Some(source),
            LoadError::Damaged | LoadError::Stale => None,
        }
    }
}

/// The sidecar of a sealed segment that the system describes so; `None` if it has none.
///
/// # Errors
///
/// There is one, and it is not to be used.
pub fn load(fs: &Fs, segment: &str, stat: Stat) -> Result<Option<Sidecar>, LoadError> {
    let Some(name) = sidecar_of(segment) else {
        return Ok(None);
    };
    match fs.read_whole(Dir::Index, &name, FILE_BYTES_MAX) {
        Ok(bytes) => Sidecar::decode(&bytes, segment, stat).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LoadError::Io(error)),
    }
}

/// Removes the sidecar of a segment, which is not to be used. One that cannot be removed stays unused.
pub fn discard(fs: &Fs, segment: &str) {
    if let Some(name) = sidecar_of(segment)
        && let Err(error) = block_on(remove_if_there(fs, &name))
    {
        tracing::debug!(name, cause = %error, "sidecar not removed");
    }
}

/// Writes the sidecar of a segment, in place of one that is there.
fn store(fs: &Fs, segment: &str, encoded: Vec<u8>) -> io::Result<()> {
    let Some(name) = sidecar_of(segment) else {
        return Err(io::Error::other("not a name of a segment"));
    };
    block_on(async {
        remove_if_there(fs, PART_NAME).await?;
        let file = fs.create(Dir::Index, PART_NAME).await?;
        let (written, _) = fs.write_all_at(&file, encoded, 0).await;
        written?;
        remove_if_there(fs, &name).await?;
        fs.rename((Dir::Index, PART_NAME), (Dir::Index, &name))
            .await
    })
}

async fn remove_if_there(fs: &Fs, name: &str) -> io::Result<()> {
    match fs.remove(Dir::Index, name).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Widens a range so that it holds a value.
fn widen<T: Copy + PartialOrd>(range: &mut Option<(T, T)>, value: T) {
    let (least, greatest) = range.get_or_insert((value, value));
    if value < *least {
        *least = value;
    }
    if value > *greatest {
        *greatest = value;
    }
}

/// The samples of a host, as they count.
pub fn outcomes<'h>(host: &Host<'h, '_>) -> impl Iterator<Item = Outcome> + use<'h> {
    let samples = host.samples.iter();
    samples.map(|sample| Outcome {
        latency: sample.latency,
        is_error: sample.error.is_some(),
    })
}

impl Sidecar {
    /// Of these lines, of a file with this time.
    ///
    /// # Errors
    ///
    /// They cannot be read to their end.
    pub fn of_lines<R: Read>(
        mut lines: Lines<R>,
        modified: Timestamp,
    ) -> Result<Sidecar, ReadError> {
        let mut sidecar = Sidecar {
            lines: 0,
            raw_bytes: 0,
            skipped_lines: 0,
            received: None,
            t: None,
            hosts: Some(Tally::default()),
            modified: None,
        };
        let mut extractor = Extractor::default();
        let mut pace = Pace::default();
        let is_too_much = |tally: &mut Tally| tally.bytes() > TALLY_BYTES_MAX;
        while lines.advance()? {
            let line = lines.line();
            sidecar.add_line(line, modified, &mut extractor);
            if pace.is_due(line.len()) {
                sidecar.hosts.take_if(is_too_much);
            }
        }
        sidecar.hosts.take_if(is_too_much);
        if let Some(hosts) = &mut sidecar.hosts {
            hosts.compact();
        }
        Ok(sidecar)
    }

    fn add_line(&mut self, line: &[u8], modified: Timestamp, extractor: &mut Extractor) {
        self.lines += 1;
        self.raw_bytes += line.len() as u64 + 1;
        let received = received_at(line).unwrap_or_else(|| {
            self.modified = Some(modified);
            modified
        });
        widen(&mut self.received, received);
        let minute = received.ms() - received.ms() % MINUTE_MS;
        let read = extractor.read(line, |reading| {
            for host in reading.hosts() {
                for t in host.samples.iter().filter_map(|sample| sample.t) {
                    widen(&mut self.t, t);
                }
                if let Some(tally) = &mut self.hosts {
                    tally.record(host.name, minute, outcomes(&host));
                }
            }
        });
        self.skipped_lines += u64::from(read.is_none());
    }

    /// As bytes of a file, for the segment that the system describes so.
    pub fn encode(self, segment: &str, stat: Stat) -> Vec<u8> {
        let hosts = self.hosts.map(|tally| {
            let mut hosts: Vec<HostForm> = tally
                .into_groups()
                .map(|(host, steps)| HostForm {
                    host: host.map(|name| name.to_string()),
                    minutes: steps.into_iter().map(MinuteForm::of).collect(),
                })
                .collect();
            hosts.sort_by(|a, b| a.host.cmp(&b.host));
            hosts
        });
        let mut form = Form {
            version: VERSION,
            segment: segment.to_owned(),
            file_bytes: stat.bytes,
            lines: self.lines,
            raw_bytes: self.raw_bytes,
            skipped_lines: self.skipped_lines,
            received: self.received.map(|(first, last)| (first.ms(), last.ms())),
            modified: self.modified.map(Timestamp::ms),
            t: self.t,
            hosts,
        };
        let bytes = form.encode();
        if bytes.len() as u64 <= FILE_BYTES_MAX {
            return bytes;
        }
        // Names that take many escapes.
        form.hosts = None;
        form.encode()
    }

    fn decode(bytes: &[u8], segment: &str, stat: Stat) -> Result<Sidecar, LoadError> {
        let envelope: Envelope<'_> =
            serde_json::from_slice(bytes).map_err(|_| LoadError::Damaged)?;
        let index = envelope.index.get();
        if envelope.xxh64 != spelled(index) {
            return Err(LoadError::Damaged);
        }
        // What was hashed and still does not read is of another version.
        let form: Form = serde_json::from_str(index).map_err(|_| LoadError::Stale)?;
        let modified = form.modified.map(Timestamp::from_ms);
        let is_of_it = form.version == VERSION
            && form.segment == segment
            && form.file_bytes == stat.bytes
            && modified.is_none_or(|modified| modified == stat.modified);
        if !is_of_it {
            return Err(LoadError::Stale);
        }
        let hosts = form.hosts.map(tally_of).transpose()?;
        let received = form.received;
        Ok(Sidecar {
            lines: form.lines,
            raw_bytes: form.raw_bytes,
            skipped_lines: form.skipped_lines,
            received: received
                .map(|(first, last)| (Timestamp::from_ms(first), Timestamp::from_ms(last))),
            t: form.t,
            hosts,
            modified,
        })
    }
}

impl Form {
    fn encode(&self) -> Vec<u8> {
        let index = serde_json::value::to_raw_value(self).expect("these are numbers and text");
        let envelope = Envelope {
            xxh64: spelled(index.get()),
            index: &index,
        };
        let mut bytes = serde_json::to_vec(&envelope).expect("this is text");
        bytes.push(b'\n');
        bytes
    }
}

fn tally_of(hosts: Vec<HostForm>) -> Result<Tally, LoadError> {
    let mut tally = Tally::default();
    for HostForm { host, minutes } in hosts {
        for minute in minutes {
            let start = minute.start;
            let cell = minute.into_cell().ok_or(LoadError::Damaged)?;
            tally.add_cell(host.as_deref(), start, cell);
        }
    }
    Ok(tally)
}

fn spelled(index: &str) -> String {
    format!("{:016x}", xxh64(index.as_bytes(), 0))
}

impl MinuteForm {
    fn of((start, cell): (u64, Cell)) -> MinuteForm {
        let finite = |number: f64| number.is_finite().then_some(number);
        MinuteForm {
            start,
            samples: cell.samples,
            errors: cell.errors,
            no_data: cell.no_data,
            sum: finite(cell.sum),
            min: finite(cell.min),
            max: finite(cell.max),
            latencies: cell.latencies.into_bins(),
        }
    }

    fn into_cell(self) -> Option<Cell> {
        Some(Cell {
            samples: self.samples,
            errors: self.errors,
            no_data: self.no_data,
            sum: self.sum.unwrap_or(f64::INFINITY),
            min: self.min.unwrap_or(f64::INFINITY),
            max: self.max.unwrap_or(f64::NEG_INFINITY),
            latencies: Sketch::from_bins(self.latencies)?,
        })
    }
}
