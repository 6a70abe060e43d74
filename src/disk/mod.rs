//! The data directory: the few file operations that the server uses, and all of its knowledge of paths.
//!
//! [`Disk`] is the list of operations. Three implementations: [`Fs`], calls that block, for start,
//! recovery, salvage and commands; [`CoreDisk`], the same calls off the core thread, with writes and
//! syncs on the ring, for the commit loop; [`sim::SimDisk`], in memory, which fails, stops and forgets
//! on request, for tests of the code that uses the trait.
//!
//! ```text
//! DATA_DIR/            Dir::Sealed   segments that never change
//! DATA_DIR/.open/      Dir::Open     segments being written
//! DATA_DIR/.corrupt/   Dir::Corrupt  what recovery could not understand
//! DATA_DIR/.index/     Dir::Index    sidecars: what of a segment is known without decoding it
//! DATA_DIR/.lock                     held while a server runs
//! ```
//!
//! Names are given by the caller (`segment::name`); no byte of a request reaches them. Offsets and
//! lengths are in bytes. Errors come as the system gives them: the caller knows which file and why.
//!
//! Sealed segments are removed only where nobody reads them: who reads one opens it by
//! [`Fs::open_for_reading`], who removes one does so by [`Fs::remove_unread`].

mod core;
mod fs;
pub mod sim;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

pub use self::core::CoreDisk;
pub use fs::{Fs, OpenError, Removal, Space, Stat};

/// A directory of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dir {
    /// The data directory itself: sealed segments.
    Sealed,
    /// `.open`: segments being written.
    Open,
    /// `.corrupt`: files set aside.
    Corrupt,
    /// `.index`: sidecars of sealed segments.
    Index,
}

impl Dir {
    /// All of them, the one that holds the others first.
    pub const ALL: [Dir; 4] = [Dir::Sealed, Dir::Open, Dir::Corrupt, Dir::Index];

    /// The path below the data directory, for messages: empty, or with a slash at its end.
    pub fn prefix(self) -> &'static str {
        match self {
            Dir::Sealed => "",
            Dir::Open => ".open/",
            Dir::Corrupt => ".corrupt/",
            Dir::Index => ".index/",
        }
    }
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// Anything else: a directory, a symbolic link, a socket.
    Other,
    /// Anything whose name is not UTF-8; the name in the entry has replacement characters.
    Unnamable,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, without its directory.
    pub name: String,
    /// What it is, symbolic links not followed.
    pub kind: EntryKind,
}

/// The operations on the data directory.
///
/// Durability is as on Linux file systems: bytes are on stable storage once [`Disk::sync_data`] has
/// returned, names once [`Disk::sync_dir`] has. An operation that returns an error may have happened,
/// in part or whole.
#[allow(
    async_fn_in_trait,
    reason = "futures stay on the thread that made them, so they need not be Send"
)]
pub trait Disk {
    /// A file opened for reading and writing. It is closed on drop.
    type File;

    /// Makes a file that must not exist (`O_EXCL`), mode 0640.
    async fn create(&self, dir: Dir, name: &str) -> io::Result<Self::File>;

    /// Opens an existing regular file; a symbolic link is refused.
    async fn open(&self, dir: Dir, name: &str) -> io::Result<Self::File>;

    /// The file's length.
    async fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Fills `bytes` from `offset`, or as much of it as the file has; returns the part filled.
    async fn read_at(&self, file: &Self::File, bytes: Vec<u8>, offset: u64) -> io::Result<Vec<u8>>;

    /// Reserves space for the file's bytes from `offset`, without changing its length
    /// (`fallocate(2)` with `FALLOC_FL_KEEP_SIZE`). Where the file system has no such call this does
    /// nothing, and a write may then find the disk full.
    async fn reserve(&self, file: &Self::File, offset: u64, len: u64) -> io::Result<()>;

    /// Writes zeros to `len` bytes from `offset`, which the file's length then covers. Once they are synced, a write
    /// in their place changes no metadata, and [`Disk::sync_data`] has only bytes to make durable.
    async fn write_zeros(&self, file: &Self::File, offset: u64, len: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the buffer comes back in any case.
    async fn write_all_at(
        &self,
        file: &Self::File,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>);

    /// Sets the length; space reserved beyond it is given back.
    async fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable (`fdatasync(2)`).
    async fn sync_data(&self, file: &Self::File) -> io::Result<()>;

    /// Moves a file to a name that must not exist (`renameat2(2)` with `RENAME_NOREPLACE`).
    async fn rename(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()>;

    /// Removes a file.
    async fn remove(&self, dir: Dir, name: &str) -> io::Result<()>;

    /// Whether the name is taken, by whatever it is.
    async fn exists(&self, dir: Dir, name: &str) -> io::Result<bool>;

    /// Makes the directory's names durable (`fsync(2)`).
    async fn sync_dir(&self, dir: Dir) -> io::Result<()>;

    /// The entries of a directory, sorted by name.
    async fn list(&self, dir: Dir) -> io::Result<Vec<Entry>>;

    /// Bytes that an unprivileged process may still allocate.
    async fn free_bytes(&self) -> io::Result<u64>;
}

/// The output of a future over a disk whose calls block ([`Fs`]), and so never wait.
///
/// # Panics
///
/// The future waits: it was given another disk.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a future over a blocking disk does not wait"),
    }
}
