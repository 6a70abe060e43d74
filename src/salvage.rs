//! Closes the segments that nobody writes any more: at start what an earlier process has left in
//! `.open`, while running what a core has abandoned. A thread of its own; it tries again while the disk
//! refuses.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::Level;

use crate::disk::{Dir, Disk, Entry, Fs, block_on};
use crate::metrics::core::Counter;
use crate::segment::recover::{RecoverError, Recovered, recover_entry, salvage};
use crate::segment::writer::Abandoned;

/// Abandoned segments that may wait to be noted, and that may wait for another try; one more is left to
/// the next start.
pub const QUEUE_MAX: usize = 64;

/// How long to wait before the disk is tried again, and how long at most when it goes on failing.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(60);

/// What has become of the segments that were found without a writer. Written by one thread at a time: the
/// main thread at start, then that of [`start`].
#[derive(Debug, Default)]
pub struct Tally {
    /// Segments that were closed and moved up.
    pub sealed: Counter,
    /// Segments that held no whole line.
    pub removed: Counter,
    /// Files that were moved to `.corrupt`.
    pub set_aside: Counter,
    /// Files that were left where they are: not to be closed yet, or none of ours.
    pub left: Counter,
    /// Bytes of files that were kept,
    pub kept_bytes: Counter,
    /// and cut.
    pub cut_bytes: Counter,
    /// Lines that were kept.
    pub lines: Counter,
}

impl Tally {
    fn count(&self, recovered: &Recovered) {
        match recovered {
            Recovered::Sealed {
                lines,
                kept_bytes,
                cut_bytes,
                ..
            } => {
                self.sealed.add(1);
                self.lines.add(*lines);
                self.kept_bytes.add(*kept_bytes);
                self.cut_bytes.add(*cut_bytes);
            }
            Recovered::Removed { bytes } => {
                self.removed.add(1);
                self.cut_bytes.add(*bytes);
            }
            Recovered::SetAside { .. } => self.set_aside.add(1),
            Recovered::Left => self.left.add(1),
            Recovered::Gone => (),
        }
    }
}

/// Recovers every entry of `.open`; none of them has a writer yet. Returns those that the disk would
/// not let go of.
///
/// # Errors
///
/// The directory cannot be listed.
pub fn recover_all(fs: &Fs, tally: &Tally) -> io::Result<Vec<Entry>> {
    let entries = block_on(fs.list(Dir::Open))?;
    let mut left = Vec::new();
    for entry in entries {
        match block_on(recover_entry(fs, &entry)) {
            Ok(recovered) => {
                tally.count(&recovered);
                log(&entry.name, &recovered);
            }
            Err(error) => {
                tally.left.add(1);
                log_failure(&error, Level::WARN);
                left.push(entry);
            }
        }
    }
    Ok(left)
}

/// Starts the thread. It ends when every sender of `abandoned` is gone, after a last try.
///
/// # Errors
///
/// No thread can be made.
pub fn start(
    fs: Fs,
    left: Vec<Entry>,
    abandoned: Receiver<Abandoned>,
    tally: Arc<Tally>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("salvage".to_owned())
        .spawn(move || run(&fs, left, &abandoned, &tally))
}

enum Task {
    Left(Entry),
    Abandoned(Abandoned),
}

fn run(fs: &Fs, left: Vec<Entry>, abandoned: &Receiver<Abandoned>, tally: &Tally) {
    let mut tasks: Vec<Task> = left.into_iter().map(Task::Left).collect();
    let mut wait = RETRY_FIRST;
    loop {
        let received = match tasks.is_empty() {
            true => abandoned.recv().map_err(RecvTimeoutError::from),
            false => abandoned.recv_timeout(wait),
        };
        match received {
            Ok(segment) => {
                let task = Task::Abandoned(segment);
                if !try_task(fs, &task, tally, Level::WARN) {
                    tally.left.add(1);
                    wait = RETRY_FIRST;
                    keep(&mut tasks, task);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                let before = tasks.len();
                // It has been said once.
                tasks.retain(|task| !try_task(fs, task, tally, Level::DEBUG));
                wait = match tasks.len() < before {
                    true => RETRY_FIRST,
                    false => RETRY_LAST.min(wait * 2),
                };
            }
            Err(RecvTimeoutError::Disconnected) => {
                tasks.retain(|task| !try_task(fs, task, tally, Level::WARN));
                return;
            }
        }
    }
}

fn keep(tasks: &mut Vec<Task>, task: Task) {
    if tasks.len() < QUEUE_MAX {
        tasks.push(task);
    } else {
        tracing::warn!(name = task.name(), "segment left to the next start");
    }
}

impl Task {
    fn name(&self) -> &str {
        match self {
            Task::Left(entry) => &entry.name,
            Task::Abandoned(abandoned) => &abandoned.name,
        }
    }
}

/// Whether the task is done. A failure is logged at this level.
fn try_task(fs: &Fs, task: &Task, tally: &Tally, level: Level) -> bool {
    let result = match task {
        Task::Left(entry) => block_on(recover_entry(fs, entry)),
        Task::Abandoned(abandoned) => block_on(salvage(fs, abandoned)),
    };
    match result {
        Ok(recovered) => {
            tally.count(&recovered);
            log(task.name(), &recovered);
            true
        }
        Err(error) => {
            log_failure(&error, level);
            false
        }
    }
}

fn log(found: &str, recovered: &Recovered) {
    match recovered {
        Recovered::Sealed {
            name,
            lines,
            text_bytes,
            cut_bytes,
            doubt: None,
            ..
        } => tracing::info!(name, lines, text_bytes, cut_bytes, "segment recovered"),
        Recovered::Sealed {
            name,
            lines,
            text_bytes,
            cut_bytes,
            doubt: Some(what),
            tail,
            ..
        } => tracing::warn!(
            name,
            lines,
            text_bytes,
            cut_bytes,
            what,
            tail,
            "segment recovered, its end was damaged"
        ),
        Recovered::Removed { bytes } => {
            tracing::info!(name = found, bytes, "segment without a line removed");
        }
        Recovered::SetAside { name, what } => {
            tracing::error!(name, what, "file of .open moved to .corrupt");
        }
        Recovered::Left => {
            tracing::warn!(
                name = found,
                "file of .open left alone, its name is not UTF-8"
            );
        }
        Recovered::Gone => {
            tracing::info!(name = found, "segment had been moved, its name is synced")
        }
    }
}

fn log_failure(error: &RecoverError, level: Level) {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let cause = causes.join(": ");
    match level {
        Level::WARN => {
            tracing::warn!(error = %error, cause, "segment not recovered, to be tried again");
        }
        _ => tracing::debug!(error = %error, cause, "segment still not recovered"),
    }
}
