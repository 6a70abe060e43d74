//! Closing what is in `.open`: at start everything, while running what a core has abandoned.
//!
//! ```text
//! list ─▶ not a segment of ours ──────────────────────────▶ set aside in .corrupt
//!     └─▶ scan ─▶ no whole line ─▶ nothing else in it ────▶ removed
//!              │              └────▶ not understood ────────▶ set aside in .corrupt
//!              ├▶ not understood to the end ─▶ its tail copied to .corrupt, then as below
//!              └▶ cut after the last whole line ─▶ end the frame ─▶ sync ─▶ move up
//! ```
//!
//! A crash at any point repeats the same steps with the same result. Nothing that was committed is
//! removed: what cannot be understood goes to `.corrupt` first. A tail that its writer never committed
//! ([`Abandoned::committed`]) is cut without a copy.

use std::fmt;
use std::io;
use std::ops::Range;

use super::LAST_BLOCK;
use super::frame::{Ending, Scan, checksum_bytes, scan};
use super::name::SegmentName;
use super::writer::{Abandoned, WriteError, publish};
use crate::disk::{Dir, Disk, Entry, EntryKind};

/// The start of the names of files that only try whether the disk takes writes.
pub const PROBE_PREFIX: &str = ".probe-";

/// Bytes copied at a time.
const COPY_BYTES: usize = 256 << 10;

/// What became of one entry of `.open`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Moved up as a segment.
    Sealed {
        /// Its name in the data directory.
        name: String,
        /// Lines in it.
        lines: u64,
        /// Bytes of its text.
        text_bytes: u64,
        /// Bytes of the file that were kept,
        kept_bytes: u64,
        /// and those cut off its end, but for zeros that its writer had put there.
        cut_bytes: u64,
        /// What is wrong with its end, if that is not how a writer leaves it.
        doubt: Option<&'static str>,
        /// The name in `.corrupt` of what was cut off, where there is a doubt and something was.
        tail: Option<String>,
    },
    /// Removed: there was no whole line in it.
    Removed {
        /// Bytes of the file.
        bytes: u64,
    },
    /// Moved to `.corrupt` as it was.
    SetAside {
        /// Its name there.
        name: String,
        /// Why.
        what: String,
    },
    /// It had been moved or removed before, by a try that could not sync the names. They are synced now.
    Gone,
    /// Its name is not UTF-8, so that it is no file of ours and cannot be named here. It is left alone.
    Left,
}

/// A file of `.open` that could be neither closed nor moved; it stays there.
#[derive(Debug)]
pub struct RecoverError {
    /// Its name in `.open`.
    pub name: String,
    /// What failed.
    pub source: WriteError,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot recover .open/{}", self.name)
    }
}

impl std::error::Error for RecoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Recovers one entry of `.open` that has no writer.
///
/// # Errors
///
/// The disk refuses a write. The entry is then as found, or partly recovered: to be tried again.
pub async fn recover_entry<D: Disk>(disk: &D, entry: &Entry) -> Result<Recovered, RecoverError> {
    let name = &entry.name;
    let is_ours = SegmentName::parse(name).is_some();
    if entry.kind == EntryKind::Unnamable {
        return Ok(Recovered::Left);
    }
    let result = match (settle_if_gone(disk, name).await, entry.kind) {
        (Err(error), _) => Err(error),
        (Ok(Some(gone)), _) => Ok(gone),
        (Ok(None), EntryKind::Other | EntryKind::Unnamable) => {
            set_aside(disk, name, "not a regular file".to_owned()).await
        }
        (Ok(None), EntryKind::File) if name.starts_with(PROBE_PREFIX) => {
            remove(disk, name, 0).await
        }
        (Ok(None), EntryKind::File) if is_ours => recover_file(disk, name, None).await,
        (Ok(None), EntryKind::File) => {
            set_aside(disk, name, "not a name of a segment".to_owned()).await
        }
    };
    result.map_err(|source| RecoverError {
        name: name.clone(),
        source,
    })
}

/// Closes a segment that its core has given up, at its last commit.
///
/// # Errors
///
/// As [`recover_entry`].
pub async fn salvage<D: Disk>(disk: &D, abandoned: &Abandoned) -> Result<Recovered, RecoverError> {
    let name = &abandoned.name;
    let result = match settle_if_gone(disk, name).await {
        Err(error) => Err(error),
        Ok(Some(gone)) => Ok(gone),
        Ok(None) => recover_file(disk, name, Some(abandoned.committed)).await,
    };
    result.map_err(|source| RecoverError {
        name: name.clone(),
        source,
    })
}

/// Where an entry is that an earlier try had moved is not asked: its names may be un-synced anywhere.
async fn settle_if_gone<D: Disk>(disk: &D, name: &str) -> Result<Option<Recovered>, WriteError> {
    let settled = async {
        if disk.exists(Dir::Open, name).await? {
            return Ok(None);
        }
        // The one it was taken from last, as in a seal.
        for dir in [Dir::Sealed, Dir::Corrupt, Dir::Open] {
            disk.sync_dir(dir).await?;
        }
        Ok(Some(Recovered::Gone))
    };
    settled.await.map_err(failed("look for", name))
}

async fn recover_file<D: Disk>(
    disk: &D,
    name: &str,
    committed: Option<u64>,
) -> Result<Recovered, WriteError> {
    let (file, len, scan) = match read_through(disk, name, committed).await {
        Ok(read) => read,
        // Its lines are still on the disk, and a reader with more rights may get at them.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return set_aside(disk, name, format!("cannot be read: {error}")).await;
        }
        // The disk may answer at the next try.
        Err(error) => return Err(failed("read", name)(error)),
    };
    let doubt = doubt(&scan, committed);
    if scan.cut == 0 {
        return match doubt {
            Some(what) => set_aside(disk, name, what.to_owned()).await,
            None => remove(disk, name, len).await,
        };
    }
    let tail = match doubt {
        Some(_) if kept_bytes(&scan) < len => {
            let tail = copy_tail(disk, &file, name, kept_bytes(&scan)..len).await;
            Some(tail.map_err(failed("copy the tail of", name))?)
        }
        _ => None,
    };
    let closed = close(disk, &file, &scan).await;
    let closed_len = closed.map_err(failed("close", name))?;
    // A power cut between a seal and its syncs can show the segment in both places.
    let is_up = name_above(disk, &file, name, closed_len).await;
    let sealed_name = match is_up.map_err(failed("compare", name))? {
        Some(sealed_name) => {
            remove(disk, name, closed_len).await?;
            sealed_name
        }
        None => publish(disk, name).await?,
    };
    Ok(Recovered::Sealed {
        name: sealed_name,
        lines: scan.lines,
        text_bytes: scan.text_bytes,
        kept_bytes: kept_bytes(&scan),
        cut_bytes: cut_end(&scan, committed, len).saturating_sub(kept_bytes(&scan)),
        doubt,
        tail,
    })
}

/// Where the bytes end that somebody may miss: zeros are what the writer had put there itself.
fn cut_end(scan: &Scan, committed: Option<u64>, len: u64) -> u64 {
    match (&scan.ending, committed) {
        (Ending::Zeros, None) => scan.understood,
        _ => len,
    }
}

async fn read_through<D: Disk>(
    disk: &D,
    name: &str,
    committed: Option<u64>,
) -> io::Result<(D::File, u64, Scan)> {
    let file = disk.open(Dir::Open, name).await?;
    let len = disk.len(&file).await?;
    let read_len = committed.map_or(len, |committed| committed.min(len));
    let scan = scan(disk, &file, read_len, |_| ()).await?;
    Ok((file, len, scan))
}

/// Bytes of the file that stay as they are: the whole frame, or up to the last whole line.
fn kept_bytes(scan: &Scan) -> u64 {
    match scan.ending {
        Ending::Whole | Ending::Trailing => scan.understood,
        _ => scan.cut,
    }
}

/// Why there may have been more in a file than the scan could decode, so that what is cut must be kept;
/// `None` if there was not. The scan has seen nothing behind what is known to be committed.
fn doubt(scan: &Scan, committed: Option<u64>) -> Option<&'static str> {
    match (&scan.ending, committed) {
        (Ending::Whole, _) | (Ending::Open | Ending::Zeros, None) => None,
        (Ending::Open, Some(committed)) if scan.cut == committed => None,
        (Ending::Open, Some(_)) => Some("ends before its last commit"),
        (Ending::Zeros, Some(_)) => Some("zeros before its last commit"),
        // Mostly the torn tail of a crash; but a damaged length in a block's header looks the same.
        (Ending::Torn, _) => Some("ends within a block or a line"),
        (Ending::Trailing, _) => Some("other bytes follow the frame"),
        (Ending::Damaged { what }, _) => Some(what),
    }
}

/// Makes a whole frame of what is kept, durably; returns the file's length.
async fn close<D: Disk>(disk: &D, file: &D::File, scan: &Scan) -> io::Result<u64> {
    let kept = kept_bytes(scan);
    // Also where nothing is cut: its writer had reserved space behind the end.
    disk.truncate(file, kept).await?;
    let end = match scan.ending {
        Ending::Whole | Ending::Trailing => Vec::new(),
        _ if scan.cut_is_last => checksum_bytes(scan.hash).to_vec(),
        _ => [&LAST_BLOCK[..], &checksum_bytes(scan.hash)].concat(),
    };
    let end_len = end.len() as u64;
    // Where a sync has failed before, what we read may be in memory alone, and counts as written: only
    // what is written anew is certain to be synced.
    copy_bytes(disk, (file, 0), (file, 0), kept).await?;
    disk.write_all_at(file, end, kept).await.0?;
    disk.sync_data(file).await?;
    Ok(kept + end_len)
}

/// The name under which a closed file is up already: its own, or, where other files have that, one of
/// those that a seal tries after it.
async fn name_above<D: Disk>(
    disk: &D,
    file: &D::File,
    name: &str,
    len: u64,
) -> io::Result<Option<String>> {
    let mut taken = SegmentName::parse(name);
    while let Some(segment) = taken {
        let above = segment.to_string();
        if !disk.exists(Dir::Sealed, &above).await? {
            return Ok(None);
        }
        if is_copy_of(disk, (Dir::Sealed, &above), file, 0..len).await? {
            return Ok(Some(above));
        }
        taken = Some(segment.next());
    }
    Ok(None)
}

async fn remove<D: Disk>(disk: &D, name: &str, bytes: u64) -> Result<Recovered, WriteError> {
    let removed = disk.remove(Dir::Open, name).await;
    removed.map_err(failed("remove", name))?;
    let synced = disk.sync_dir(Dir::Open).await;
    synced.map_err(failed("remove", name))?;
    Ok(Recovered::Removed { bytes })
}

/// Moves an entry to `.corrupt`, under its name or the first of `name.1`, `name.2`, … that is free.
async fn set_aside<D: Disk>(disk: &D, name: &str, what: String) -> Result<Recovered, WriteError> {
    let aside = async {
        let free = free_name_aside(disk, name).await?;
        disk.rename((Dir::Open, name), (Dir::Corrupt, &free))
            .await?;
        disk.sync_dir(Dir::Corrupt).await?;
        disk.sync_dir(Dir::Open).await?;
        Ok(free)
    };
    let name = aside.await.map_err(failed("move to .corrupt", name))?;
    Ok(Recovered::SetAside { name, what })
}

async fn free_name_aside<D: Disk>(disk: &D, name: &str) -> io::Result<String> {
    let mut free = name.to_owned();
    let mut number = 0;
    while disk.exists(Dir::Corrupt, &free).await? {
        number += 1;
        free = format!("{name}.{number}");
    }
    Ok(free)
}

/// Copies the end of a file to `.corrupt`, durably, unless that copy is there already; returns its name.
/// With the segment that is kept, it makes up the file as it was found.
async fn copy_tail<D: Disk>(
    disk: &D,
    file: &D::File,
    name: &str,
    range: Range<u64>,
) -> io::Result<String> {
    let mut copy_name = format!("{name}.tail");
    let mut number = 0;
    while disk.exists(Dir::Corrupt, &copy_name).await? {
        if is_copy_of(disk, (Dir::Corrupt, &copy_name), file, range.clone()).await? {
            return Ok(copy_name);
        }
        number += 1;
        copy_name = format!("{name}.tail.{number}");
    }
    // Under another name until it is whole: a crash leaves that, to be made anew.
    let part_name = format!("{name}.part");
    if disk.exists(Dir::Corrupt, &part_name).await? {
        disk.remove(Dir::Corrupt, &part_name).await?;
    }
    let copied = async {
        let copy = disk.create(Dir::Corrupt, &part_name).await?;
        copy_bytes(
            disk,
            (file, range.start),
            (&copy, 0),
            range.end - range.start,
        )
        .await?;
        disk.sync_data(&copy).await?;
        disk.rename((Dir::Corrupt, &part_name), (Dir::Corrupt, &copy_name))
            .await?;
        disk.sync_dir(Dir::Corrupt).await
    };
    if let Err(error) = copied.await {
        // A full disk must not be kept full by this. If it was renamed already there is nothing.
        let _ = disk.remove(Dir::Corrupt, &part_name).await;
        return Err(error);
    }
    Ok(copy_name)
}

/// Writes `len` bytes of one file, from an offset on, to an offset in another or in the same one.
async fn copy_bytes<D: Disk>(
    disk: &D,
    (from, from_offset): (&D::File, u64),
    (to, to_offset): (&D::File, u64),
    len: u64,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let bytes = disk
            .read_at(from, vec![0; count], from_offset + done)
            .await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = bytes.len() as u64;
        disk.write_all_at(to, bytes, to_offset + done).await.0?;
        done += count;
    }
    Ok(())
}

/// Whether there is a file of that name with these bytes of `file` as its content.
async fn is_copy_of<D: Disk>(
    disk: &D,
    (dir, name): (Dir, &str),
    file: &D::File,
    range: Range<u64>,
) -> io::Result<bool> {
    if !disk.exists(dir, name).await? {
        return Ok(false);
    }
    let len = range.end - range.start;
    let other = disk.open(dir, name).await?;
    if disk.len(&other).await? != len {
        return Ok(false);
    }
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        let ours = disk
            .read_at(file, vec![0; count], range.start + done)
            .await?;
        let theirs = disk.read_at(&other, vec![0; count], done).await?;
        if ours != theirs || ours.is_empty() {
            return Ok(false);
        }
        done += ours.len() as u64;
    }
    Ok(true)
}

fn failed<'a>(operation: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> WriteError + 'a {
    move |source| WriteError {
        operation,
        path: format!("{}{name}", Dir::Open.prefix()),
        source,
    }
}
