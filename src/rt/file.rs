//! Writing to a file from a ring: the two operations of a commit that are on the way of every report.

use std::fs;
use std::io;

/// A file whose writes and syncs are operations of this core's ring. On epoll the same calls would
/// block the core: `disk` uses the blocking thread there.
#[derive(Debug)]
pub struct RingFile {
    file: monoio::fs::File,
}

impl RingFile {
    /// Takes the file over. Its descriptor is closed through the ring.
    ///
    /// # Errors
    ///
    /// None on Linux; the signature is monoio's.
    pub fn from_std(file: fs::File) -> io::Result<RingFile> {
        monoio::fs::File::from_std(file).map(|file| RingFile { file })
    }

    /// Writes all of `bytes` at `offset`; the buffer comes back in any case.
    pub async fn write_all_at(&self, bytes: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        self.file.write_all_at(bytes, offset).await
    }

    /// `fdatasync(2)`.
    ///
    /// # Errors
    ///
    /// What the kernel says; after an error nothing written since the last sync is known to be kept.
    pub async fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().await
    }
}
