//! Closes the segments that nobody writes any more: at start what an earlier process has left in
//! `.open`, while running what a core has abandoned. A thread of its own; it tries again while the disk
//! refuses.

use std::error::Error;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::disk::{Dir, Disk, Entry, Fs, block_on};
use crate::segment::recover::{RecoverError, Recovered, recover_entry, salvage};
use crate::segment::writer::Abandoned;

/// Abandoned segments that may wait; one more is left to the next start.
pub const QUEUE_MAX: usize = 64;

/// How long to wait before the disk is tried again.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Recovers every entry of `.open`; none of them has a writer yet. Returns those that the disk would
/// not let go of.
///
/// # Errors
///
/// The directory cannot be listed.
pub fn recover_all(fs: &Fs) -> io::Result<Vec<Entry>> {
    let entries = block_on(fs.list(Dir::Open))?;
    let mut left = Vec::new();
    for entry in entries {
        match block_on(recover_entry(fs, &entry)) {
            Ok(recovered) => log(&entry.name, &recovered),
            Err(error) => {
                log_failure(&error);
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
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new()
        .name("salvage".to_owned())
        .spawn(move || run(&fs, left, &abandoned))
}

enum Task {
    Left(Entry),
    Abandoned(Abandoned),
}

fn run(fs: &Fs, left: Vec<Entry>, abandoned: &Receiver<Abandoned>) {
    let mut tasks: Vec<Task> = left.into_iter().map(Task::Left).collect();
    loop {
        let received = if tasks.is_empty() {
            abandoned.recv().map_err(RecvTimeoutError::from)
        } else {
            abandoned.recv_timeout(RETRY_EVERY)
        };
        let is_last = match received {
            Ok(segment) => {
                tasks.push(Task::Abandoned(segment));
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => true,
        };
        tasks.retain(|task| !try_task(fs, task));
        if is_last {
            return;
        }
    }
}

/// Whether the task is done.
fn try_task(fs: &Fs, task: &Task) -> bool {
    let (name, result) = match task {
        Task::Left(entry) => (&entry.name, block_on(recover_entry(fs, entry))),
        Task::Abandoned(abandoned) => (&abandoned.name, block_on(salvage(fs, abandoned))),
    };
    match result {
        Ok(recovered) => {
            log(name, &recovered);
            true
        }
        Err(error) => {
            log_failure(&error);
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
            copy: None,
        } => tracing::info!(name, lines, text_bytes, cut_bytes, "segment recovered"),
        Recovered::Sealed {
            name,
            lines,
            text_bytes,
            cut_bytes,
            copy: Some((copy, what)),
        } => tracing::warn!(
            name,
            lines,
            text_bytes,
            cut_bytes,
            what,
            copy,
            "segment recovered in part, the file as found is in .corrupt"
        ),
        Recovered::Removed { bytes } => {
            tracing::info!(name = found, bytes, "segment without a line removed");
        }
        Recovered::SetAside { name, what } => {
            tracing::error!(name, what, "file of .open moved to .corrupt");
        }
        Recovered::Gone => {
            tracing::info!(name = found, "segment had been moved, its name is synced")
        }
    }
}

fn log_failure(error: &RecoverError) {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let cause = causes.join(": ");
    tracing::warn!(error = %error, cause, "segment not recovered, to be tried again");
}
