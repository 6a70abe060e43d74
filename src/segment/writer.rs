//! Writing one segment: create exclusively, append commits, seal.
//!
//! ```text
//! create ──▶ Writer ──reserve, append*, sync──▶ … ──end──▶ Ended ──seal──▶ sealed
//!              │ any error but of reserve                    │ any error
//!              └──────────▶ Abandoned { committed }  ◀───────┘
//! ```
//!
//! `reserve` may fail and be tried again: the encoder has not seen the batch. After an error of `append`
//! or `sync` the file is never written again by this writer: `abandon` says up to where it is committed.
//! Invariant: `committed <= end`; what follows is `space`'s.

use std::fmt;
use std::io;

use zstd::zstd_safe::{
    CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, compress_bound, get_error_name,
    zstd_sys::ZSTD_EndDirective,
};

use super::name::SegmentName;
use super::space::{Behind, Space, Wanted};
use super::{CHECKSUM_BYTES, LAST_BLOCK};
use crate::disk::{Dir, Disk};

/// The longest stretch of compression between two writes, where other tasks of the core may run: about
/// half a millisecond at level 1, more at higher levels.
const ENCODE_BYTES_MAX: usize = 256 << 10;

/// Level 1 as it suits reports, in which whole samples repeat: matches of 5 bytes and more, and a window of
/// 128 KiB, the largest that never lies in two pieces of zstd's buffer where a batch has as much. By the reports of
/// the benches, in batches, this takes 13 to 19 % less CPU than the level's own choice at 13 and 62 KB and is 1 to
/// 4 % smaller; 6 to 14 % less at 2 KB, 3 % smaller to 1 % larger. A search over all parameters found nothing better
/// in both on all sizes. The context takes 0.93 MiB.
const REPORTS_AT_LEVEL_1: [CParameter; 2] = [CParameter::WindowLog(17), CParameter::MinMatch(5)];

/// What a header, an end of frame and the blocks' own headers may take beside the compressed text.
const FRAME_OVERHEAD_BYTES: usize = 18 + LAST_BLOCK.len() + CHECKSUM_BYTES + 64;

/// How often a taken name is tried again a millisecond later.
pub const NAME_TRIES_MAX: u32 = 10_000;

/// What the disk would not do for a segment.
#[derive(Debug)]
pub struct WriteError {
    /// What was tried: `create`, `append to`, ….
    pub operation: &'static str,
    /// On which file, below the data directory.
    pub path: String,
    /// What the system said.
    pub source: io::Error,
}

/// Whether space is what was missing.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.operation, self.path)
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn failed<'a>(
    operation: &'static str,
    dir: Dir,
    name: &'a str,
) -> impl FnOnce(io::Error) -> WriteError + 'a {
    move |source| WriteError {
        operation,
        path: format!("{}{name}", dir.prefix()),
        source,
    }
}

/// The compressor of a core: one zstd context, used for one frame after the other.
pub struct Encoder {
    context: CCtx<'static>,
}

/// How a piece of text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directive {
    Continue,
    Flush,
    End,
}

impl Encoder {
    /// A compressor at this level, -7 to 19.
    ///
    /// # Errors
    ///
    /// There is no memory for the context, or zstd refuses the level.
    pub fn new(level: i32) -> io::Result<Encoder> {
        let mut context = CCtx::try_create()
            .ok_or_else(|| io::Error::new(io::ErrorKind::OutOfMemory, "no zstd context"))?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).map_err(zstd_error)?;
        }
        if level == 1 {
            for parameter in REPORTS_AT_LEVEL_1 {
                context.set_parameter(parameter).map_err(zstd_error)?;
            }
        }
        Ok(Encoder { context })
    }

    /// Forgets whatever frame was begun.
    fn begin(&mut self) -> io::Result<()> {
        self.context
            .reset(ResetDirective::SessionOnly)
            .map_err(zstd_error)?;
        Ok(())
    }

    /// Compresses `text` behind the bytes of `out`.
    fn encode(&mut self, text: &[u8], directive: Directive, out: &mut Vec<u8>) -> io::Result<()> {
        let directive = match directive {
            Directive::Continue => ZSTD_EndDirective::ZSTD_e_continue,
            Directive::Flush => ZSTD_EndDirective::ZSTD_e_flush,
            Directive::End => ZSTD_EndDirective::ZSTD_e_end,
        };
        let mut input = InBuffer::around(text);
        loop {
            out.reserve(encoded_bytes_max(text.len() - input.pos()));
            let filled = out.len();
            let mut output = OutBuffer::around_pos(out, filled);
            let left = self
                .context
                .compress_stream2(&mut output, &mut input, directive)
                .map_err(zstd_error)?;
            let flushed = left == 0 || directive == ZSTD_EndDirective::ZSTD_e_continue;
            if flushed && input.pos() == text.len() {
                return Ok(());
            }
        }
    }
}

fn zstd_error(code: usize) -> io::Error {
    io::Error::other(format!("zstd: {}", get_error_name(code)))
}

/// The most that `text_bytes` of text can add to a segment, its end included.
fn encoded_bytes_max(text_bytes: usize) -> usize {
    compress_bound(text_bytes) + FRAME_OVERHEAD_BYTES
}

/// How far a commit must go before its reports are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The kernel has the bytes.
    Written,
    /// They are on stable storage, the file's name included.
    Durable,
}

/// What becomes of a segment's frame with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// It takes more.
    GoesOn,
    /// It was the segment's last commit.
    Ends,
}

/// An open segment.
pub struct Writer<D: Disk> {
    file: D::File,
    name: String,
    /// Bytes of the file that are as durable as the last commit's [`Reach`] says.
    committed: u64,
    /// Bytes of the file that are written.
    end: u64,
    /// What the file has behind them.
    space: Space,
    lines: u64,
    text_bytes: u64,
}

/// A segment whose writer has given up on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abandoned {
    /// Its name in `.open`.
    pub name: String,
    /// The bytes that must be kept; what follows was refused to its clients.
    pub committed: u64,
}

impl<D: Disk> Writer<D> {
    /// Makes a segment for lines from `first` on, or from the next millisecond that is free.
    ///
    /// # Errors
    ///
    /// The file cannot be made.
    pub async fn create(
        disk: &D,
        encoder: &mut Encoder,
        first: SegmentName,
    ) -> Result<Writer<D>, WriteError> {
        let begun = encoder.begin();
        begun.map_err(failed("begin", Dir::Open, &first.to_string()))?;
        let mut segment = first;
        let mut tries = 0;
        let (file, name) = loop {
            let name = segment.to_string();
            match Self::create_named(disk, &name).await {
                Ok(file) => break (file, name),
                Err(error) => {
                    let taken = error.source.kind() == io::ErrorKind::AlreadyExists;
                    tries += 1;
                    if !taken || tries == NAME_TRIES_MAX {
                        return Err(error);
                    }
                    segment = segment.next();
                }
            }
        };
        Ok(Writer {
            file,
            name,
            committed: 0,
            end: 0,
            space: Space::default(),
            lines: 0,
            text_bytes: 0,
        })
    }

    async fn create_named(disk: &D, name: &str) -> Result<D::File, WriteError> {
        // A sealed one may have the name when the clock was set back.
        let sealed = disk.exists(Dir::Sealed, name).await;
        if sealed.map_err(failed("look for", Dir::Sealed, name))? {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(failed("create", Dir::Sealed, name)(error));
        }
        let created = disk.create(Dir::Open, name).await;
        created.map_err(failed("create", Dir::Open, name))
    }

    /// Makes its name durable, as the first durable commit must find it.
    ///
    /// # Errors
    ///
    /// The segment is then to be abandoned.
    pub async fn sync_name(&self, disk: &D) -> Result<(), WriteError> {
        let synced = disk.sync_dir(Dir::Open).await;
        synced.map_err(failed("sync the name of", Dir::Open, &self.name))
    }

    /// Its name in `.open`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that have been written to it.
    pub fn file_bytes(&self) -> u64 {
        self.end
    }

    /// Whether nothing has been committed to it.
    pub fn is_empty(&self) -> bool {
        self.committed == 0
    }

    /// Makes sure that `text_bytes` more of text fit on the disk, whatever they compress to, with
    /// `free_bytes_min` left to others. The segment is as before if they do not.
    ///
    /// # Errors
    ///
    /// The disk is full or has less free than that.
    pub async fn reserve(
        &mut self,
        disk: &D,
        text_bytes: usize,
        free_bytes_min: u64,
    ) -> Result<(), WriteError> {
        let wanted = Wanted {
            end: self.end,
            commit_bytes_max: encoded_bytes_max(text_bytes) as u64,
            free_bytes_min,
        };
        let reserved = self.space.reserve(disk, &self.file, wanted).await;
        reserved.map_err(failed("reserve space for", Dir::Open, &self.name))
    }

    /// Commits a batch of whole lines: compress, write, and sync if the reach says so. Ends the frame as
    /// well if this is the last batch, so that the seal needs no sync of its own.
    ///
    /// `out` is scratch space. Other tasks of the core run at every write.
    ///
    /// # Errors
    ///
    /// The segment is then to be abandoned.
    pub async fn commit(
        &mut self,
        disk: &D,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
        batch: Batch<'_>,
    ) -> Result<(), WriteError> {
        if batch.reach == Reach::Durable {
            let zeros = self.space.write_zeros(disk, &self.file, self.end).await;
            zeros.map_err(failed("write zeros to", Dir::Open, &self.name))?;
        }
        // An error may have left bytes of another frame in it.
        out.clear();
        let mut pieces = batch.text.chunks(ENCODE_BYTES_MAX).peekable();
        while let Some(piece) = pieces.next() {
            let directive = match (pieces.peek(), batch.frame) {
                (Some(_), _) => Directive::Continue,
                (None, Frame::GoesOn) => Directive::Flush,
                (None, Frame::Ends) => Directive::End,
            };
            self.encode(encoder, piece, directive, out)?;
            self.write(disk, out).await?;
        }
        if batch.reach == Reach::Durable || batch.frame == Frame::Ends {
            self.sync(disk).await?;
        }
        if batch.reach == Reach::Durable {
            self.space.note_synced(self.end - self.committed);
        }
        self.committed = self.end;
        self.lines += u64::from(batch.lines);
        self.text_bytes += batch.text.len() as u64;
        Ok(())
    }

    /// Ends the frame of a segment that gets no more batches, and makes it durable.
    ///
    /// # Errors
    ///
    /// The segment is then to be abandoned.
    pub async fn end(
        &mut self,
        disk: &D,
        encoder: &mut Encoder,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        out.clear();
        self.encode(encoder, &[], Directive::End, out)?;
        self.write(disk, out).await?;
        self.sync(disk).await?;
        self.committed = self.end;
        Ok(())
    }

    fn encode(
        &self,
        encoder: &mut Encoder,
        text: &[u8],
        directive: Directive,
        out: &mut Vec<u8>,
    ) -> Result<(), WriteError> {
        let encoded = encoder.encode(text, directive, out);
        encoded.map_err(failed("compress for", Dir::Open, &self.name))
    }

    async fn write(&mut self, disk: &D, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if out.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(out);
        let len = bytes.len() as u64;
        let (result, mut bytes) = disk.write_all_at(&self.file, bytes, self.end).await;
        bytes.clear();
        *out = bytes;
        result.map_err(failed("append to", Dir::Open, &self.name))?;
        self.end += len;
        Ok(())
    }

    async fn sync(&self, disk: &D) -> Result<(), WriteError> {
        let synced = disk.sync_data(&self.file).await;
        synced.map_err(failed("sync", Dir::Open, &self.name))
    }

    /// What must be kept of the segment if it is given up.
    pub fn committed(&self) -> Abandoned {
        Abandoned {
            name: self.name.clone(),
            committed: self.committed,
        }
    }

    /// Gives the segment up after an error.
    pub fn abandon(self) -> Abandoned {
        self.committed()
    }

    /// Moves the ended segment up into the data directory; it never changes again.
    ///
    /// # Errors
    ///
    /// It may be in `.open`, in the data directory, or seen in both after a power cut: recovery settles
    /// that.
    pub async fn seal(self, disk: &D) -> Result<Sealed, WriteError> {
        let behind = self.space.behind(self.end);
        if behind != Behind::Nothing {
            let trimmed = disk.truncate(&self.file, self.end).await;
            trimmed.map_err(failed("trim", Dir::Open, &self.name))?;
        }
        if behind == Behind::Zeros {
            self.sync(disk).await?;
        }
        let name = publish(disk, &self.name).await?;
        Ok(Sealed {
            name,
            lines: self.lines,
            text_bytes: self.text_bytes,
            file_bytes: self.end,
        })
    }
}

/// Some whole lines for one commit.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The lines, each with its line break; not empty.
    pub text: &'a [u8],
    /// How many they are.
    pub lines: u32,
    /// How far to go before returning.
    pub reach: Reach,
    /// Whether more may follow.
    pub frame: Frame,
}

/// A segment that has been sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its name in the data directory.
    pub name: String,
    /// Lines in it.
    pub lines: u64,
    /// Bytes of its text.
    pub text_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// Moves a whole segment from `.open` up, under its name or the next one that is free, durably.
/// Returns the name.
pub(super) async fn publish<D: Disk>(disk: &D, open_name: &str) -> Result<String, WriteError> {
    let mut name = open_name.to_owned();
    loop {
        match disk
            .rename((Dir::Open, open_name), (Dir::Sealed, &name))
            .await
        {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let taken = SegmentName::parse(&name);
                name = match taken {
                    Some(segment) => segment.next().to_string(),
                    None => return Err(failed("move up", Dir::Open, open_name)(error)),
                };
            }
            Err(error) => return Err(failed("move up", Dir::Open, open_name)(error)),
        }
    }
    // The new name first: a crash between the two then shows the segment twice, never not at all.
    for dir in [Dir::Sealed, Dir::Open] {
        let synced = disk.sync_dir(dir).await;
        synced.map_err(failed("sync the name of", dir, &name))?;
    }
    Ok(name)
}
