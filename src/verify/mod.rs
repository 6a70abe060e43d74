//! Checking the segments of a data directory, beside a running server or without one.
//!
//! Owns what is checked of a file (`check`), which files there are and the threads that share them
//! ([`run`]). Leaves the printing to [`mod@print`].
//!
//! | a segment of ours | a file of the Go server | an open segment |
//! | --- | --- | --- |
//! | one frame, its checksum, nothing behind it | frames, their checksums | up to its last whole line |
//! | the text ends at a line | the same | |
//! | each line is a report with its time of arrival | each line is JSON | as a sealed one |
//! | the times never go back; the name is the first one | | as a sealed one |
//!
//! Nothing is written. A segment that is sealed meanwhile is followed to its new place; one that is
//! removed meanwhile is no longer there to be checked. One that is being read is not removed.

mod check;
pub mod print;

use std::io;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

pub use self::check::{Checked, PROBLEMS_MAX};

use crate::disk::OpenError;
use crate::disk::{Dir, Fs};
use crate::segment::name::is_segment;

/// What a whole directory is like.
#[derive(Debug)]
pub struct Outcome {
    /// One entry a file, sorted by directory and name; files that went away are left out.
    pub files: Vec<Checked>,
}

/// The exit codes of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every segment is as it should be.
    Sound = 0,
    /// At least one is not.
    Damaged = 1,
    /// None is known to be damaged, but at least one could not be read.
    Unchecked = 2,
}

impl Outcome {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        if self.files.iter().any(|file| file.problems_count > 0) {
            Verdict::Damaged
        } else if self.files.iter().any(|file| file.unreadable.is_some()) {
            Verdict::Unchecked
        } else {
            Verdict::Sound
        }
    }
}

/// Checks every segment, several at a time; `progress` is told how many of how many are done.
///
/// # Errors
///
/// The directory cannot be read.
pub fn run(root: &Path, progress: impl Fn(usize, usize) + Sync) -> Result<Outcome, OpenError> {
    let fs = Fs::beside(root)?;
    let files = segments(&fs).map_err(|source| OpenError::Io {
        operation: "list",
        path: root.to_owned(),
        source,
    })?;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut checked = Vec::new();
        while let Some((dir, name)) = files.get(next.fetch_add(1, Relaxed)) {
            checked.extend(check::check(&fs, *dir, name));
            progress(done.fetch_add(1, Relaxed) + 1, files.len());
        }
        checked
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut checked = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(files.len()))
            .map(|_| scope.spawn(work))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<Checked>>| {
            thread.join().expect("checking a file does not panic")
        };
        threads.into_iter().flat_map(join).collect::<Vec<_>>()
    });
    checked.sort_by(|a, b| (a.dir, &a.name).cmp(&(b.dir, &b.name)));
    Ok(Outcome { files: checked })
}

fn segments(fs: &Fs) -> io::Result<Vec<(Dir, String)>> {
    let mut files: Vec<(Dir, String)> = Vec::new();
    // The open ones first: one that is sealed in between is then seen twice, not missed.
    for dir in [Dir::Open, Dir::Sealed] {
        let segments = fs.files(dir)?.into_iter().filter(|name| is_segment(name));
        files.extend(segments.map(|name| (dir, name)));
    }
    // Of the two, the sealed one.
    files.sort_by(|(a_dir, a), (b_dir, b)| (a, a_dir).cmp(&(b, b_dir)));
    files.dedup_by(|(_, later), (_, first)| later == first);
    Ok(files)
}
