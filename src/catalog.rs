//! The sealed segments of a data directory, as a list that is cheap to keep: their names come from one
//! listing, and length and time are asked of the system once a file, as a sealed file never changes.
//!
//! Owns: what of a segment is known without opening it ([`Segment`]), and the comparison of one listing with
//! the last ([`Catalog::look`]). Leaves to `retention` what goes. Files of the Go server count as well.
//!
//! ```text
//! .index ─▶ .open ─▶ DATA_DIR      listed in this order: a segment that is sealed meanwhile is seen twice,
//!                                  not missed, and its sidecar is never taken for one without a segment
//! ```
//!
//! A sidecar appears whole, by a rename, and does not change while its segment is there.
//!
//! The list is as long as the directory: about 150 bytes a segment. Lengths are in bytes.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::io;

use crate::disk::{Dir, Fs, Stat};
use crate::segment::name::{SegmentName, is_segment, segment_of, sidecar_of};
use crate::time::Timestamp;

/// A segment is sealed at most this long after its first line: the largest `FLUSH_SECS`.
const OPEN_MS_MAX: u64 = 3_600_000;

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its name in the data directory.
    pub name: Box<str>,
    /// The file's length.
    pub file_bytes: u64,
    /// The length of its sidecar, if there is one.
    pub sidecar_bytes: Option<u64>,
    /// When its last line was received, or somewhat later.
    pub last_line: Timestamp,
}

impl Segment {
    /// The bytes that are gone when it is: with its sidecar.
    pub fn bytes(&self) -> u64 {
        self.file_bytes + self.sidecar_bytes.unwrap_or(0)
    }

    /// The older one is the lesser one; between two of the same age, the name decides.
    pub fn cmp_age(&self, other: &Segment) -> Ordering {
        (self.last_line, &self.name).cmp(&(other.last_line, &other.name))
    }
}

/// When the last line of a segment was received, as far as its name and the file's time tell.
///
/// Our names hold the time of the first line, and a copy may have a fresh time: it then counts as an hour
/// later than its name says, and no more.
pub fn last_line(name: &str, modified: Timestamp) -> Timestamp {
    match SegmentName::parse(name) {
        Some(SegmentName { time: first, .. }) => {
            modified.clamp(first, Timestamp::from_ms(first.ms() + OPEN_MS_MAX))
        }
        None => modified,
    }
}

/// The sealed segments.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Sorted by name, each name once.
    segments: Vec<Segment>,
    /// Names in `.index`, sorted.
    orphans: Vec<String>,
}

/// What a look at the directory did not get to see first; the catalog has all the rest.
#[derive(Debug)]
pub struct LookError {
    /// What was tried: `list`, `look at`.
    pub operation: &'static str,
    /// On what, below the data directory.
    pub path: String,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.operation, self.path)
    }
}

impl std::error::Error for LookError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The names of segments in each directory, sorted.
#[derive(Debug, Default)]
struct Listing {
    sealed: Vec<String>,
    open: Vec<String>,
    /// Of segments that have a sidecar.
    indexed: Vec<String>,
}

impl Catalog {
    /// The segments, by name.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Bytes of all segments, with their sidecars.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(Segment::bytes).sum()
    }

    /// The sidecars whose segment is gone, by their names in `.index`.
    pub fn orphans(&self) -> &[String] {
        &self.orphans
    }

    /// Brings the catalog up to date.
    ///
    /// # Errors
    ///
    /// A directory cannot be listed, and the catalog is as it was; or a file cannot be looked at, and is not
    /// in the catalog.
    pub fn look(&mut self, fs: &Fs) -> Result<(), LookError> {
        let listing = Listing::read(fs)?;
        let mut failure = None;
        self.merge(listing, |dir, name| match fs.stat(dir, name) {
            Ok(stat) => Some(stat),
            // It was removed after the listing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                failure.get_or_insert(LookError {
                    operation: "look at",
                    path: format!("{}{name}", dir.prefix()),
                    source,
                });
                None
            }
        });
        failure.map_or(Ok(()), Err)
    }

    /// Drops segments that have been removed.
    pub fn forget(&mut self, gone: &BTreeSet<Box<str>>) {
        self.segments
            .retain(|segment| !gone.contains(&segment.name));
    }

    /// Asks `stat` about the files that are new since the last time; `None` is one that cannot be had.
    fn merge(&mut self, listing: Listing, mut stat: impl FnMut(Dir, &str) -> Option<Stat>) {
        let before = std::mem::take(&mut self.segments);
        let mut before = before.into_iter().peekable();
        let mut indexed = listing.indexed.into_iter().peekable();
        let mut orphans = Vec::new();
        for name in listing.sealed {
            while before.next_if(|known| *known.name < *name).is_some() {}
            while let Some(orphan) = indexed.next_if(|segment| *segment < name) {
                orphans.push(orphan);
            }
            let is_indexed = indexed.next_if_eq(&name).is_some();
            let known = before.next_if(|known| *known.name == *name);
            let Some(mut segment) = known.or_else(|| {
                let stat = stat(Dir::Sealed, &name)?;
                Some(Segment {
                    file_bytes: stat.bytes,
                    sidecar_bytes: None,
                    last_line: last_line(&name, stat.modified),
                    name: name.into_boxed_str(),
                })
            }) else {
                continue;
            };
            segment.sidecar_bytes = match (is_indexed, segment.sidecar_bytes) {
                (false, _) => None,
                (true, None) => {
                    let sidecar = sidecar_of(&segment.name);
                    let stat = sidecar.and_then(|sidecar| stat(Dir::Index, &sidecar));
                    stat.map(|stat| stat.bytes)
                }
                (true, known) => known,
            };
            self.segments.push(segment);
        }
        orphans.extend(indexed);
        let is_open = |segment: &String| listing.open.binary_search(segment).is_ok();
        orphans.retain(|segment| !is_open(segment));
        self.orphans = orphans
            .iter()
            .filter_map(|segment| sidecar_of(segment))
            .collect();
    }
}

impl Listing {
    fn read(fs: &Fs) -> Result<Listing, LookError> {
        let mut indexed: Vec<String> = names(fs, Dir::Index)?
            .iter()
            .filter_map(|sidecar| segment_of(sidecar))
            .collect();
        indexed.sort();
        let [mut open, mut sealed] = [names(fs, Dir::Open)?, names(fs, Dir::Sealed)?];
        for names in [&mut open, &mut sealed] {
            names.retain(|name| is_segment(name));
        }
        Ok(Listing {
            sealed,
            open,
            indexed,
        })
    }
}

fn names(fs: &Fs, dir: Dir) -> Result<Vec<String>, LookError> {
    fs.files(dir).map_err(|source| LookError {
        operation: "list",
        path: match dir {
            Dir::Sealed => "the data directory".to_owned(),
            _ => dir.prefix().trim_end_matches('/').to_owned(),
        },
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings;

    const OURS: &str = "reports-20260227T051434.123Z-c003.jsonl.zst";
    const GO: &str = "reports-2026-02-27T05-14-34Z.jsonl.zst";
    const FIRST_MS: u64 = 1_772_169_274_123;

    #[test]
    fn a_segment_is_open_no_longer_than_flush_secs_allow() {
        let settings = settings();
        let flush_secs = settings.iter().find(|setting| setting.key == "flush_secs");
        assert_eq!(flush_secs.unwrap().range, "1s to 1h");
        assert_eq!(OPEN_MS_MAX, 60 * 60 * 1000);
    }

    #[test]
    fn the_time_of_the_last_line() {
        #[track_caller]
        fn check(name: &str, modified_ms: u64, expected_ms: u64) {
            let found = last_line(name, Timestamp::from_ms(modified_ms));
            assert_eq!(found, Timestamp::from_ms(expected_ms));
        }
        check(OURS, FIRST_MS + 60_000, FIRST_MS + 60_000);
        // Copied later, or by a tool that keeps no time at all.
        check(OURS, FIRST_MS + 9_000_000, FIRST_MS + 3_600_000);
        check(OURS, 0, FIRST_MS);
        check(GO, 0, 0);
        check(GO, FIRST_MS + 9_000_000, FIRST_MS + 9_000_000);
        let last = "reports-99991231T235959.999Z-c000.jsonl.zst";
        check(last, 0, Timestamp::MAX.ms());
    }

    fn listing(sealed: &[&str], open: &[&str], indexed: &[&str]) -> Listing {
        let [sealed, open, indexed] = [sealed, open, indexed].map(|names| {
            let names = names.iter().map(|name| format!("reports-{name}.jsonl.zst"));
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        });
        Listing {
            sealed,
            open,
            indexed,
        }
    }

    /// Merges a listing; the names that were asked about.
    fn merge(catalog: &mut Catalog, listing: Listing, gone: &[&str]) -> Vec<String> {
        let mut asked = Vec::new();
        catalog.merge(listing, |dir, name| {
            asked.push(format!("{}{name}", dir.prefix()));
            let bytes = match dir {
                Dir::Index => 1,
                _ => 100,
            };
            let modified = Timestamp::from_ms(asked.len() as u64);
            (!gone.contains(&name)).then_some(Stat { bytes, modified })
        });
        asked
    }

    fn names(catalog: &Catalog) -> Vec<(&str, u64)> {
        let segments = catalog.segments().iter();
        let stem = |name| str::strip_suffix(name, ".jsonl.zst").unwrap();
        segments
            .map(|segment| (&stem(&segment.name)["reports-".len()..], segment.bytes()))
            .collect()
    }

    #[test]
    fn only_what_is_new_is_looked_at() {
        let mut catalog = Catalog::default();
        let asked = merge(&mut catalog, listing(&["b", "d"], &[], &["d"]), &[]);
        let d = ["reports-d.jsonl.zst", ".index/reports-d.json"];
        assert_eq!(asked, ["reports-b.jsonl.zst", d[0], d[1]]);
        assert_eq!(names(&catalog), [("b", 100), ("d", 101)]);
        assert_eq!(catalog.bytes(), 201);
        let same = merge(&mut catalog, listing(&["b", "d"], &[], &["d"]), &[]);
        assert_eq!(same, [""; 0]);
        assert_eq!(names(&catalog), [("b", 100), ("d", 101)]);
        // Around and between, and a sidecar that has come later.
        let next = listing(&["a", "c", "d", "e"], &[], &["c", "d"]);
        let asked = merge(&mut catalog, next, &[]);
        let c = ["reports-c.jsonl.zst", ".index/reports-c.json"];
        let (a, e) = ("reports-a.jsonl.zst", "reports-e.jsonl.zst");
        assert_eq!(asked, [a, c[0], c[1], e]);
        let expected = [("a", 100), ("c", 101), ("d", 101), ("e", 100)];
        assert_eq!(names(&catalog), expected);
        let asked = merge(&mut catalog, listing(&["d", "e"], &[], &["e"]), &[]);
        assert_eq!(asked, [".index/reports-e.json"]);
        assert_eq!(names(&catalog), [("d", 100), ("e", 101)]);
        catalog.forget(&BTreeSet::from(["reports-d.jsonl.zst".into()]));
        assert_eq!(names(&catalog), [("e", 101)]);
    }

    #[test]
    fn sidecars_without_a_segment() {
        #[track_caller]
        fn check(
            sealed: &[&str],
            open: &[&str],
            indexed: &[&str],
            gone: &[&str],
            orphans: &[&str],
        ) {
            let mut catalog = Catalog::default();
            merge(&mut catalog, listing(sealed, open, indexed), gone);
            assert_eq!(catalog.orphans(), orphans);
        }
        let [a, c, e] = ["reports-a.json", "reports-c.json", "reports-e.json"];
        check(&["b", "d"], &[], &["b", "d"], &[], &[]);
        check(
            &["b", "d"],
            &[],
            &["a", "b", "c", "d", "e"],
            &[],
            &[a, c, e],
        );
        check(&[], &[], &["a"], &[], &[a]);
        // Written before its segment has moved up.
        check(&["b"], &["a"], &["a", "c"], &[], &[c]);
        // The segment was there when it was listed: the next look will tell.
        check(&["a"], &[], &["a"], &["reports-a.jsonl.zst"], &[]);
        // The dot and the hyphen change places between the two spellings.
        let sealed = ["a", "a-b", "a.jsonl"];
        check(&sealed, &[], &sealed, &[], &[]);
    }

    #[test]
    fn a_file_that_cannot_be_had_is_asked_for_again() {
        let mut catalog = Catalog::default();
        let name = "reports-a.jsonl.zst";
        let asked = merge(&mut catalog, listing(&["a"], &[], &["a"]), &[name]);
        assert_eq!((asked, names(&catalog)), (vec![name.to_owned()], vec![]));
        merge(
            &mut catalog,
            listing(&["a"], &[], &["a"]),
            &["reports-a.json"],
        );
        assert_eq!(names(&catalog), [("a", 100)]);
        let asked = merge(&mut catalog, listing(&["a"], &[], &["a"]), &[]);
        assert_eq!(asked, [".index/reports-a.json"]);
        assert_eq!(names(&catalog), [("a", 101)]);
    }

    #[test]
    fn the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), "text").unwrap();
        let mut catalog = Catalog::default();
        // As only the Go server has left it.
        write(GO);
        write("notes");
        std::fs::create_dir(dir.path().join("reports-dir.jsonl.zst")).unwrap();
        let link = dir.path().join("reports-link.jsonl.zst");
        std::os::unix::fs::symlink(dir.path().join(GO), link).unwrap();
        catalog.look(&Fs::beside(dir.path()).unwrap()).unwrap();
        let found = |catalog: &Catalog| -> Vec<(String, u64)> {
            let segments = catalog.segments().iter();
            segments
                .map(|segment| (segment.name.to_string(), segment.bytes()))
                .collect()
        };
        assert_eq!(found(&catalog), [(GO.to_owned(), 4)]);
        let fs = Fs::lock(dir.path()).unwrap();
        write(OURS);
        for sidecar in [OURS, "reports-gone.jsonl.zst", "reports-open.jsonl.zst"] {
            write(&format!(".index/{}", sidecar_of(sidecar).unwrap()));
        }
        write(".index/notes");
        write(".open/reports-open.jsonl.zst");
        catalog.look(&fs).unwrap();
        let expected = [(GO.to_owned(), 4), (OURS.to_owned(), 8)];
        assert_eq!(found(&catalog), expected);
        assert_eq!(catalog.segments()[1].last_line.ms(), FIRST_MS + 3_600_000);
        assert_eq!(catalog.orphans(), ["reports-gone.json"]);
        // A file in place of a directory.
        std::fs::remove_dir_all(dir.path().join(".index")).unwrap();
        write(".index");
        let error = catalog.look(&fs).unwrap_err();
        assert_eq!(error.to_string(), "cannot list .index");
        assert_eq!(found(&catalog), expected);
    }
}
