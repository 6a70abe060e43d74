//! Looks after the data directory: one thread that publishes what is in it, removes what retention does not
//! keep, and makes the sidecars of what stays.
//!
//! ```text
//! start ─▶ thread: pass ─▶ wait a minute, for new limits or for a change of the directory ─▶ pass ─▶ … ─▶ stop
//!                  pass = look, remove, make some sidecars, publish
//! ```
//!
//! The thread is idle (see [`crate::idle`]), and no core waits for it. What cannot be removed is said once a pass
//! and tried again at the next. Files of `.open` and `.corrupt` are counted and never touched.
//!
//! Figures are written here alone; whoever reads them sees each as it was a moment ago.

use std::collections::BTreeSet;
use std::error::Error;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::disk::{Dir, Fs, Removal, Space};
use crate::idle;
use crate::live::LiveSettings;
use crate::retention::{Limits, Reason, plan, remove, remove_sidecar};
use crate::segment::name::is_segment;
use crate::sidecar::make::{Halt, Maker};
use crate::time::Timestamp;

/// From the end of a pass to the next.
const PASS_EVERY: Duration = Duration::from_secs(60);

/// How often the space of the file system is looked at, and freed memory given back.
const SPACE_EVERY: Duration = Duration::from_secs(10);

/// Removals after which it is looked at as well.
const SPACE_AFTER: usize = 256;

/// More than the allocator puts in one page with others.
const PAGE_BYTES: usize = 1 << 20;

/// How often the times of the directories are looked at, which tell whether a segment has been sealed or a
/// sidecar removed,
const CHANGES_EVERY: Duration = Duration::from_secs(2);
/// and so much longer for each segment, since a pass lists them all.
const CHANGES_EVERY_SEGMENT: Duration = Duration::from_micros(20);

/// Some files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub segments: u64,
    /// Their bytes, those of sidecars included.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct AtomicHeld {
    segments: AtomicU64,
    bytes: AtomicU64,
}

/// What is in the data directory, as of the last pass, and what has been removed from it.
#[derive(Debug, Default)]
pub struct Figures {
    sealed: AtomicHeld,
    open: AtomicHeld,
    corrupt: AtomicHeld,
    /// In the order of [`Reason::ALL`].
    removed: [AtomicHeld; Reason::ALL.len()],
    free_bytes: AtomicU64,
    size_bytes: AtomicU64,
    made_sidecars: AtomicU64,
    failed_sidecars: AtomicU64,
    unindexed: AtomicU64,
}

impl AtomicHeld {
    fn load(&self) -> Held {
        Held {
            segments: self.segments.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    fn store(&self, held: Held) {
        self.segments.store(held.segments, Relaxed);
        self.bytes.store(held.bytes, Relaxed);
    }
}

impl Figures {
    /// Sealed segments.
    pub fn sealed(&self) -> Held {
        self.sealed.load()
    }

    /// Segments in `.open`.
    pub fn open(&self) -> Held {
        self.open.load()
    }

    /// Files in `.corrupt`.
    pub fn corrupt(&self) -> Held {
        self.corrupt.load()
    }

    /// What has been removed for this reason since the start.
    pub fn removed(&self, reason: Reason) -> Held {
        self.removed[reason as usize].load()
    }

    /// The space of the file system.
    pub fn space(&self) -> Space {
        Space {
            free_bytes: self.free_bytes.load(Relaxed),
            size_bytes: self.size_bytes.load(Relaxed),
        }
    }

    /// Sidecars that have been made since the start,
    pub fn made_sidecars(&self) -> u64 {
        self.made_sidecars.load(Relaxed)
    }

    /// and tries that have failed.
    pub fn failed_sidecars(&self) -> u64 {
        self.failed_sidecars.load(Relaxed)
    }

    /// Sealed segments whose sidecar has not been looked at or made yet.
    pub fn unindexed(&self) -> u64 {
        self.unindexed.load(Relaxed)
    }

    fn count_removed(&self, reason: Reason, more: Held) {
        let removed = &self.removed[reason as usize];
        let before = removed.load();
        removed.store(Held {
            segments: before.segments + more.segments,
            bytes: before.bytes + more.bytes,
        });
    }
}

/// The work of the thread, without the thread.
#[derive(Debug)]
pub struct Housekeeping {
    fs: Fs,
    live: Arc<LiveSettings>,
    figures: Arc<Figures>,
    catalog: Catalog,
    sidecars: Maker,
    is_stopping: Arc<AtomicBool>,
    /// When the directories had last changed, before they were looked at.
    seen: Changes,
}

/// When names have last come to a directory or gone from it.
type Changes = [Option<Timestamp>; 2];

/// How a pass has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// All that was to go has gone, or could not; and so have the sidecars come that are to.
    Whole,
    /// Other limits are in effect: it is to be made again.
    ByFormerLimits,
    /// There are more sidecars to make.
    WithMore,
}

/// Files that could not be removed in a pass.
#[derive(Default)]
struct Failures {
    first: Option<(String, io::Error)>,
    count: u64,
}

impl Failures {
    fn add(&mut self, path: String, error: io::Error) {
        self.count += 1;
        self.first.get_or_insert((path, error));
    }

    fn log(&self) {
        if let Some((path, error)) = &self.first {
            let (path, cause) = (path.as_str(), error.to_string());
            let failed = self.count;
            tracing::warn!(path, cause, failed, "file not removed, to be tried again");
        }
    }
}

impl Housekeeping {
    /// Nothing is looked at yet.
    pub fn new(fs: Fs, live: Arc<LiveSettings>, figures: Arc<Figures>) -> Housekeeping {
        Housekeeping {
            fs,
            live,
            figures,
            catalog: Catalog::default(),
            sidecars: Maker::default(),
            is_stopping: Arc::default(),
            seen: [None; 2],
        }
    }

    fn limits(&self) -> Limits {
        self.live.load().retention
    }

    fn changes(&self) -> Changes {
        [Dir::Sealed, Dir::Index].map(|dir| self.fs.changed(dir).ok())
    }

    /// Looks, and publishes what is there.
    fn look(&mut self) {
        self.seen = self.changes();
        if let Err(error) = self.catalog.look(&self.fs) {
            let cause = error.source().map(ToString::to_string);
            tracing::warn!(%error, cause, "data directory not seen whole");
        }
        self.publish();
    }

    /// Looks, removes what does not stay at this time, makes some sidecars, and publishes what is there then.
    pub fn pass(&mut self, now: Timestamp) -> Passed {
        self.look();
        let limits = self.limits();
        let mut failures = Failures::default();
        let has_removed_segments = self.remove_segments(limits, now, &mut failures);
        let has_removed_sidecars = self.remove_orphans(&mut failures);
        failures.log();
        if has_removed_segments || has_removed_sidecars {
            self.publish();
        }
        let halted = self.make_sidecars(limits);
        match (self.limits() == limits, halted) {
            (false, _) => Passed::ByFormerLimits,
            (true, Some(Halt::Turn)) => Passed::WithMore,
            (true, Some(Halt::Disk) | None) => Passed::Whole,
        }
    }

    fn make_sidecars(&mut self, limits: Limits) -> Option<Halt> {
        let (live, is_stopping) = (&self.live, &self.is_stopping);
        let may_go_on = || !is_stopping.load(Relaxed) && live.load().retention == limits;
        let free_bytes_min = live.load().free_bytes_min;
        let segments = self.catalog.segments();
        let made = self
            .sidecars
            .go(&self.fs, segments, free_bytes_min, may_go_on);
        let figures = &self.figures;
        figures.made_sidecars.fetch_add(made.made, Relaxed);
        figures.failed_sidecars.fetch_add(made.failed, Relaxed);
        figures.unindexed.store(made.left, Relaxed);
        made.halted
    }

    fn remove_segments(&mut self, limits: Limits, now: Timestamp, failures: &mut Failures) -> bool {
        let mut removed = [Held::default(); Reason::ALL.len()];
        let mut gone = BTreeSet::new();
        let going = plan(self.catalog.segments(), limits, now);
        for (index, (segment, reason)) in going.into_iter().enumerate() {
            // What nobody wants removed any more stays.
            if self.is_stopping.load(Relaxed) || self.limits() != limits {
                break;
            }
            if index % SPACE_AFTER == SPACE_AFTER - 1 {
                self.publish_space();
            }
            match remove(&self.fs, &segment.name) {
                Ok(Removal::Removed) => {
                    let bytes = segment.bytes();
                    let one = Held { segments: 1, bytes };
                    removed[reason as usize].segments += 1;
                    removed[reason as usize].bytes += bytes;
                    self.figures.count_removed(reason, one);
                    gone.insert(segment.name.clone());
                }
                Ok(Removal::BeingRead) => {
                    let (name, reason) = (&*segment.name, reason.to_string());
                    tracing::debug!(name, reason, "segment is being read, and kept");
                }
                // Somebody else has removed it.
                Ok(Removal::Gone) => drop(gone.insert(segment.name.clone())),
                Err(error) => failures.add(segment.name.to_string(), error),
            }
        }
        self.catalog.forget(&gone);
        let [by_age, by_bytes] = removed;
        if removed == [Held::default(); 2] {
            return !gone.is_empty();
        }
        tracing::info!(
            segments = by_age.segments + by_bytes.segments,
            bytes = by_age.bytes + by_bytes.bytes,
            segments_by_age = by_age.segments,
            segments_by_bytes = by_bytes.segments,
            "segments removed"
        );
        true
    }

    fn remove_orphans(&self, failures: &mut Failures) -> bool {
        let mut sidecars = 0;
        for name in self.catalog.orphans() {
            if self.is_stopping.load(Relaxed) {
                break;
            }
            match remove_sidecar(&self.fs, name) {
                Ok(()) => sidecars += 1,
                Err(error) => failures.add(format!("{}{name}", Dir::Index.prefix()), error),
            }
        }
        if sidecars > 0 {
            tracing::info!(sidecars, "sidecars without a segment removed");
        }
        sidecars > 0
    }

    fn publish(&self) {
        let figures = &self.figures;
        figures.sealed.store(Held {
            segments: self.catalog.segments().len() as u64,
            bytes: self.catalog.bytes(),
        });
        match self.count(Dir::Open, is_segment) {
            Ok(held) => figures.open.store(held),
            Err(error) => warn_uncounted(".open", &error),
        }
        // Whatever its name: recovery cannot understand it.
        match self.count(Dir::Corrupt, |_| true) {
            Ok(held) => figures.corrupt.store(held),
            Err(error) => warn_uncounted(".corrupt", &error),
        }
        self.publish_space();
    }

    fn publish_space(&self) {
        let figures = &self.figures;
        match self.fs.space() {
            Ok(space) => {
                figures.free_bytes.store(space.free_bytes, Relaxed);
                figures.size_bytes.store(space.size_bytes, Relaxed);
            }
            Err(error) => warn_uncounted("the file system", &error),
        }
    }

    /// The regular files of a directory.
    fn count(&self, dir: Dir, counts: impl Fn(&str) -> bool) -> io::Result<Held> {
        let mut held = Held::default();
        for name in self.fs.files(dir)?.iter().filter(|name| counts(name)) {
            match self.fs.stat(dir, name) {
                Ok(stat) => {
                    held.segments += 1;
                    held.bytes += stat.bytes;
                }
                // It has moved up.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(error),
            }
        }
        Ok(held)
    }
}

fn warn_uncounted(place: &str, error: &io::Error) {
    let cause = error.to_string();
    tracing::warn!(place, cause, "data directory not seen whole");
}

/// The thread.
#[derive(Debug)]
pub struct Housekeeper {
    wake: SyncSender<()>,
    is_stopping: Arc<AtomicBool>,
}

/// Starts the thread, whose first pass begins at once. Until that has ended, the figures have the space alone.
///
/// # Errors
///
/// No thread can be made.
pub fn start(
    fs: Fs,
    live: Arc<LiveSettings>,
    figures: Arc<Figures>,
    clock: impl Fn() -> Timestamp + Send + 'static,
) -> io::Result<Housekeeper> {
    let housekeeping = Housekeeping::new(fs, live, figures);
    housekeeping.publish_space();
    let is_stopping = Arc::clone(&housekeeping.is_stopping);
    let (wake, inbox) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("housekeeping".to_owned())
        .spawn(move || run(housekeeping, &inbox, clock))?;
    Ok(Housekeeper { wake, is_stopping })
}

impl Housekeeper {
    /// Makes a pass soon: the limits may be others.
    pub fn wake(&self) {
        // If one waits to be read already, the pass it asks for has not begun.
        let _ = self.wake.try_send(());
    }

    /// Removes nothing more. Nobody waits for the thread: a disk that does not answer would hold the process,
    /// and what it has not done the next start does.
    pub fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
        self.wake();
    }
}

fn run(mut housekeeping: Housekeeping, inbox: &Receiver<()>, clock: impl Fn() -> Timestamp) {
    if let Err(error) = idle::yield_to_all() {
        tracing::debug!(cause = %error, "housekeeping competes with the cores");
    }
    loop {
        while housekeeping.pass(clock()) != Passed::Whole {
            if housekeeping.is_stopping.load(Relaxed) {
                return;
            }
        }
        if wait(&housekeeping, inbox) == Waited::InVain || housekeeping.is_stopping.load(Relaxed) {
            return;
        }
    }
}

/// Memory that any thread has freed goes back to the system a second later, but not before the allocator frees some
/// page again. A server that has become idle frees none, and would keep the batches of its last load: this frees one.
fn give_freed_memory_back() {
    drop(black_box(Vec::<u8>::with_capacity(PAGE_BYTES)));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// There is something to do.
    Enough,
    /// Nobody is there any more.
    InVain,
}

fn wait(housekeeping: &Housekeeping, inbox: &Receiver<()>) -> Waited {
    let segments = u32::try_from(housekeeping.catalog.segments().len()).unwrap_or(u32::MAX);
    let changes_every = CHANGES_EVERY + CHANGES_EVERY_SEGMENT * segments;
    let (mut waited, mut of_space) = (Duration::ZERO, Duration::ZERO);
    while waited < PASS_EVERY {
        match inbox.recv_timeout(changes_every) {
            Ok(()) => break,
            Err(RecvTimeoutError::Timeout) => {
                (waited, of_space) = (waited + changes_every, of_space + changes_every)
            }
            Err(RecvTimeoutError::Disconnected) => return Waited::InVain,
        }
        if of_space >= SPACE_EVERY {
            housekeeping.publish_space();
            give_freed_memory_back();
            of_space = Duration::ZERO;
        }
        if housekeeping.changes() != housekeeping.seen {
            break;
        }
    }
    Waited::Enough
}
