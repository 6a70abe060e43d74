//! Figures in which a sample of a client, a host and a `t` counts once, where it was received first: browsers send
//! their history again with each report.
//!
//! Lines are read in their order, by one thread, and what has been seen is kept as hashes. Where there are more than
//! [`SEEN_MAX`], the samples are told from each other part by part, and all lines read again for each:
//!
//! ```text
//! all ─▶ too many: of several clients ─▶ one half of the clients, the other half ─▶ …
//!             └─▶ of one client ───────▶ one half of its samples, the other half ─▶ …
//! ```
//!
//! A part of the clients is cheap: a line of another one is told by its front. Hashes have 64 bits: of 100 million
//! samples one is taken for another by a chance of 1 in 3,700. A sample without a `t` is the same as no other.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh64::Xxh64;

use super::cursor::Cursor;
use super::merge::{Item, Line, Merge, Missing, Want, may_hold};
use super::sources::Source;
use super::summary::{Counted, Group, Work, Worker};
use super::{Filter, QueryError};
use crate::report::extract::{Host, Reading, leading_client};
use crate::sidecar::outcomes;
use crate::tally::{Outcome, Pace, Tally};

/// Hashes that are kept: as many as a table of 2^22 places takes, 36 MiB. One thread with such a table decodes half as
/// often as two with half of it each would.
pub(super) const SEEN_MAX: usize = (1 << 22) / 8 * 7;

/// The most parts of the clients, and of the samples of one, are 2^so many.
const BITS_MAX: u32 = 10;

/// Each sample is taken to be sent so often: there are fewer parts at first than all samples would take, and those that
/// turn out too large are halved.
const SENT_TIMES: u64 = 4;

/// Counts all that is asked of a worker, with at most so many hashes at a time.
pub(super) fn count(worker: &mut Worker<'_>, seen_max: usize) -> Result<(), QueryError> {
    let (sources, samples) = sources(worker)?;
    worker.counted.decoded_segments = sources.len();
    let parts = (samples / SENT_TIMES).div_ceil(seen_max as u64).max(1);
    let bits = parts.next_power_of_two().ilog2().min(BITS_MAX);
    let first = |index| Part::of_clients(Bits { bits, index });
    let mut waiting: Vec<Part> = (0..1 << bits).map(first).collect();
    let mut seen = Seen::with_capacity_and_hasher(seen_max, Default::default());
    while let Some(part) = waiting.pop() {
        let of_part = Telling {
            part,
            sources: &sources,
            seen: &mut seen,
            seen_max,
            is_full: false,
        };
        match of_part.count(worker)? {
            Found::All(counted) => worker.counted.add(*counted),
            Found::TooMany(of) => waiting.extend(part.halves(of, seen_max)?),
        }
        worker.check_bytes(0)?;
    }
    Ok(())
}

/// The segments that have to be read, and how many samples they have where their sidecars tell; of one client that is
/// not known.
fn sources(worker: &mut Worker<'_>) -> Result<(Vec<Source>, u64), QueryError> {
    let work = worker.work;
    let (mut sources, mut samples) = (Vec::new(), 0);
    for source in &work.sources {
        work.expect_going_on()?;
        match work.store.sidecar(source) {
            Some(sidecar) if !may_hold(work.filter, &sidecar) => worker.note_left_out(&sidecar),
            sidecar => {
                let hosts = sidecar.and_then(|sidecar| sidecar.hosts);
                let of_host = |hosts: Tally| hosts.samples(|name| work.filter.takes_host(name));
                samples += hosts.map_or(0, of_host);
                sources.push(source.clone());
            }
        }
    }
    match work.filter.client {
        Some(_) => Ok((sources, 0)),
        None => Ok((sources, samples)),
    }
}

/// What a part comes to.
enum Found {
    All(Box<Counted>),
    TooMany(Of),
}

/// Whose samples are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    OneClient,
    Clients,
}

/// Tells the samples of a part from each other.
struct Telling<'t> {
    part: Part,
    sources: &'t [Source],
    /// Hashes of samples that have been seen; `seen.len() <= seen_max`, so that the table never grows.
    seen: &'t mut Seen,
    seen_max: usize,
    /// Whether there was another one.
    is_full: bool,
}

impl Telling<'_> {
    fn count(mut self, worker: &mut Worker<'_>) -> Result<Found, QueryError> {
        let work = worker.work;
        self.seen.clear();
        let mut counted = Counted::default();
        let mut of: Option<(u64, Of)> = None;
        // Which segments is settled, the same for each part.
        let times = Filter {
            since: work.filter.since,
            until: work.filter.until,
            ..Filter::default()
        };
        let sources = self.sources.to_vec();
        let from = Cursor::default();
        let mut merge = Merge::of(work.store, &times, sources, &from, Missing::Error);
        let mut pace = Pace::default();
        while let Some(item) = merge.next(Want::Lines)? {
            let line = match item {
                Item::Line(line) => line,
                Item::Segment { .. } => unreachable!("lines are wanted"),
                Item::Passed => {
                    work.expect_going_on()?;
                    continue;
                }
            };
            if pace.is_due(line.text.len()) {
                work.expect_going_on()?;
                worker.check_bytes(counted.tally.bytes())?;
            }
            counted.note_first(Some(line.received));
            let is_elsewhere = |client| !self.part.clients.has(hash(Some(client), None, None));
            if leading_client(line.text).is_some_and(is_elsewhere)
                || !work.filter.may_match(line.text)
            {
                continue;
            }
            let read = worker.extractor.read(line.text, |reading| {
                let client = hash(reading.client, None, None);
                if self.part.clients.has(client) && work.filter.takes_client(reading) {
                    let (first, of) = of.get_or_insert((client, Of::OneClient));
                    if *first != client {
                        *of = Of::Clients;
                    }
                    self.count_line(worker.work, &line, reading, &mut counted.tally);
                }
            });
            // Of a line that says nothing it cannot be told where it belongs.
            if !work.filter.asks_for_names() && self.part.is_first() {
                counted.skipped_lines += u64::from(read.is_none());
            }
            if self.is_full {
                return Ok(Found::TooMany(of.map_or(Of::Clients, |(_, of)| of)));
            }
        }
        counted.tally.compact();
        Ok(Found::All(Box::new(counted)))
    }

    fn count_line(
        &mut self,
        work: &Work<'_>,
        line: &Line<'_>,
        reading: &Reading<'_>,
        tally: &mut Tally,
    ) {
        let step_ms = work.step_of(line.received);
        let group = Group::of(&work.summary.group, line.text, reading);
        for host in reading.hosts() {
            if !work.filter.takes_host(host.name) {
                continue;
            }
            let fresh = self.fresh(reading.client, &host);
            if !fresh.is_empty() {
                tally.record(group.name(&host), step_ms, fresh);
            }
        }
    }

    /// The samples of a host that have not been seen.
    fn fresh(&mut self, client: Option<&str>, host: &Host<'_, '_>) -> Vec<Outcome> {
        let samples = host.samples.iter().zip(outcomes(host));
        let fresh = samples.filter(|(sample, _)| {
            let hash = hash(client, host.name, sample.t);
            self.part.samples.has(hash) && (sample.t.is_none() || self.see(hash))
        });
        fresh.map(|(_, outcome)| outcome).collect()
    }

    /// Whether this one has not been seen.
    fn see(&mut self, hash: u64) -> bool {
        if self.seen.len() < self.seen_max {
            return self.seen.insert(hash);
        }
        let is_fresh = !self.seen.contains(&hash);
        self.is_full |= is_fresh;
        is_fresh
    }
}

/// Some hashes: those that begin with these bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bits {
    /// How many.
    bits: u32,
    /// What they are; `index < 1 << bits`.
    index: u64,
}

impl Bits {
    const NONE: Bits = Bits { bits: 0, index: 0 };

    fn has(self, hash: u64) -> bool {
        // Shifting by all bits is not allowed, and means nothing.
        self.bits == 0 || hash >> (64 - self.bits) == self.index
    }

    fn halves(self) -> Option<[Bits; 2]> {
        let half = |bit| Bits {
            bits: self.bits + 1,
            index: self.index << 1 | bit,
        };
        (self.bits < BITS_MAX).then(|| [half(0), half(1)])
    }
}

/// Some of the samples, by the hash of their client and by their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    clients: Bits,
    samples: Bits,
}

impl Part {
    fn of_clients(clients: Bits) -> Part {
        Part {
            clients,
            samples: Bits::NONE,
        }
    }

    /// Of each line there is one such part.
    fn is_first(self) -> bool {
        self.clients.index == 0 && self.samples.index == 0
    }

    fn halves(self, of: Of, seen_max: usize) -> Result<[Part; 2], QueryError> {
        if of == Of::Clients
            && let Some(halves) = self.clients.halves()
        {
            return Ok(halves.map(|clients| Part { clients, ..self }));
        }
        match self.samples.halves() {
            Some(halves) => Ok(halves.map(|samples| Part { samples, ..self })),
            None => Err(QueryError::TooManySamples {
                samples_max: (seen_max as u64) << BITS_MAX,
            }),
        }
    }
}

type Seen = HashSet<u64, BuildHasherDefault<AsItIs>>;

/// Hashes are hashed already. A part has the high bits in common; the table takes a place from the low ones and a tag
/// from the high ones, and so gets neither.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0.rotate_left(u64::BITS / 2)
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is written as a number")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Of who asked, what was asked and when.
fn hash(client: Option<&str>, host: Option<&str>, t: Option<f64>) -> u64 {
    let mut hash = Xxh64::new(0);
    for name in [client, host] {
        // The length tells where one ends, and one more than any that there is none.
        let len = name.map_or(u64::MAX, |name| name.len() as u64);
        hash.update(&len.to_le_bytes());
        hash.update(name.unwrap_or_default().as_bytes());
    }
    // -0 is 0.
    hash.update(&t.map_or(u64::MAX, |t| (t + 0.0).to_bits()).to_le_bytes());
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Fs;
    use crate::query::sources::Store;
    use crate::query::summary::{Counting, Grouping, Summary, Watch, count_with};

    struct Nobody;

    impl Watch for Nobody {
        fn is_gone(&self) -> bool {
            false
        }

        fn note_progress(&self, _: usize) {}
    }

    /// A segment of these clients' reports, each with its samples' times; a line that is none in front.
    fn store(dir: &std::path::Path, reports: &[(String, std::ops::Range<u64>)]) -> Store {
        let mut text = String::from("no report\n");
        for (client, times) in reports {
            let history: Vec<String> = times
                .clone()
                .map(|t| format!("{{\"t\":{t},\"latency\":{t}}}"))
                .collect();
            let history = history.join(",");
            text += &format!(
                "{{\"receivedAt\":\"2026-02-27T05:14:34.123Z\",\"clientId\":\"{client}\",\
                 \"hosts\":[{{\"name\":\"h\",\"history\":[{history},{{}}]}}],\"timestamp\":\"\"}}\n"
            );
        }
        let fs = Fs::lock(dir).unwrap();
        let name = crate::segment::name::SegmentName::parse(NAME).unwrap();
        std::fs::write(
            dir.join(name.to_string()),
            zstd::encode_all(text.as_bytes(), 1).unwrap(),
        )
        .unwrap();
        Store {
            fs,
            open: Vec::new(),
        }
    }

    const NAME: &str = concat!("reports-20260227T051434.123Z-c000.", "jsonl.zst");

    type Counts = (Vec<(String, u64, f64)>, u64);

    /// Samples and their greatest latency, by client, with so many hashes at a time; and lines that are no reports.
    fn counts(store: &Store, client: Option<&str>, seen_max: usize) -> Result<Counts, QueryError> {
        let filter = Filter {
            client: client.map(super::super::Name::new),
            ..Filter::default()
        };
        let summary = Summary {
            step_ms: None,
            group: Grouping::Client,
            counting: Counting::Distinct,
        };
        let figures = count_with(store, &filter, &summary, &Nobody, |worker| {
            count(worker, seen_max)
        })?;
        let rows = figures.rows.iter();
        let rows = rows.map(|row| {
            (
                row.group.as_deref().unwrap().to_owned(),
                row.cell.samples,
                row.cell.max,
            )
        });
        Ok((rows.collect(), figures.skipped_lines))
    }

    #[test]
    fn parts_come_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut reports: Vec<(String, std::ops::Range<u64>)> = Vec::new();
        for client in 0..20 {
            for n in 0..10 {
                reports.push((client.to_string(), n * 5..n * 5 + 20));
            }
        }
        // More than all others, and more than are kept.
        reports.push(("much".to_owned(), 0..1000));
        let store = store(dir.path(), &reports);
        // 65 times, and one without a time in each of 10 reports.
        let mut expected: Vec<(String, u64, f64)> = (0..20)
            .map(|client| (client.to_string(), 75, 64.0))
            .collect();
        expected.push(("much".to_owned(), 1001, 999.0));
        expected.sort_by(|a, b| a.0.cmp(&b.0));
        for seen_max in [100_000, 300, 40] {
            assert_eq!(
                counts(&store, None, seen_max).unwrap(),
                (expected.clone(), 1),
                "{seen_max}"
            );
            let of_one = counts(&store, Some("much"), seen_max).unwrap();
            assert_eq!(
                of_one,
                (vec![("much".to_owned(), 1001, 999.0)], 0),
                "{seen_max}"
            );
        }
        let error = counts(&store, None, 1).unwrap_err().to_string();
        assert!(
            error.starts_with("more than 1024 samples to be told from each other"),
            "{error}"
        );
    }

    #[test]
    fn halves_share_all_hashes() {
        let [low, high] = Bits::NONE.halves().unwrap();
        for hash in [0, 1, u64::MAX, 1 << 63, (1 << 63) - 1] {
            assert!(Bits::NONE.has(hash));
            assert!(low.has(hash) != high.has(hash));
        }
        let last = Bits {
            bits: BITS_MAX,
            index: 0,
        };
        assert_eq!(last.halves(), None);
    }

    #[test]
    fn hashes_tell_apart() {
        let hashes = [
            hash(Some("ab"), Some("c"), Some(1.0)),
            hash(Some("a"), Some("bc"), Some(1.0)),
            hash(Some("ab"), None, Some(1.0)),
            hash(None, Some("ab"), Some(1.0)),
            hash(Some("ab"), Some(""), Some(1.0)),
            hash(Some("ab"), Some("c"), Some(2.0)),
            hash(Some("ab"), Some("c"), None),
        ];
        let distinct: HashSet<u64> = hashes.into_iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(hash(None, None, Some(0.0)), hash(None, None, Some(-0.0)));
    }
}
