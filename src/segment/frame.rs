//! Reading a segment's frame block by block (RFC 8878 §3.1.1), so that it is known after which block the
//! text ends at a line, and where and how the file stops being a frame.
//!
//! ```text
//! header ──▶ block ──▶ block ──▶ … ──▶ last block ──▶ checksum ──▶ end of file     Ending::Whole
//!    │         │                            │             │  └────▶ more bytes      Ending::Trailing
//!    │         ├─ the file ends at a line, or in the bytes that end a frame         Ending::Open
//!    ├─────────┴─ the file ends early elsewhere                                     Ending::Torn
//!    └─ wrong, does not decode, or the checksum is another                          Ending::Damaged
//! ```
//!
//! Memory: one block (128 KiB) as stored and as text, and the decoder's window.

use std::io;

use xxhash_rust::xxh64::Xxh64;
use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{CHECKSUM_BYTES, LAST_BLOCK, MAGIC, WINDOW_LOG_MAX};
use crate::disk::Disk;

/// No block holds more, stored or decoded (RFC 8878 §3.1.1.2.4).
const BLOCK_BYTES_MAX: usize = 128 << 10;
const BLOCK_HEADER_BYTES: usize = 3;
/// The longest header: magic, descriptor, window, dictionary, content size.
const FRAME_HEADER_BYTES_MAX: usize = 18;
/// Bytes asked from the disk at a time.
const READ_BYTES: usize = 256 << 10;

/// How the bytes of a file end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With one whole frame whose checksum is right.
    Whole,
    /// Between two blocks and at a line, or within the bytes that end a frame: its writer was stopped
    /// there.
    Open,
    /// Within a block, the header or a line.
    Torn,
    /// With zero bytes where a block, a checksum or the end of the file should be.
    Zeros,
    /// With other bytes behind a whole frame.
    Trailing,
    /// With something that is no part of a frame.
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
}

/// What [`scan`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes of the file after which the decoded text ends at a line; 0 if there is no whole line.
    pub cut: u64,
    /// XXH64 of the text up to there.
    pub hash: u64,
    /// Whether the block before `cut` is marked as the frame's last one.
    pub cut_is_last: bool,
    /// Bytes of text up to there.
    pub text_bytes: u64,
    /// Lines up to there.
    pub lines: u64,
    /// Bytes of the file that were understood: up to `ending`.
    pub understood: u64,
    /// How it ends.
    pub ending: Ending,
}

/// Reads the first `len` bytes of a file as a segment, and gives each piece of text to `text` as it is
/// decoded. Text behind [`Scan::cut`] is among it.
///
/// # Errors
///
/// The file cannot be read. What is in it is never an error.
pub async fn scan<D: Disk>(
    disk: &D,
    file: &D::File,
    len: u64,
    mut text: impl FnMut(&[u8]),
) -> io::Result<Scan> {
    let mut source = Source::new(disk, file, len);
    let mut decoder = Decoder::new()?;
    let mut scan = Scan {
        cut: 0,
        hash: Xxh64::new(0).digest(),
        cut_is_last: false,
        text_bytes: 0,
        lines: 0,
        understood: 0,
        ending: Ending::Open,
    };
    scan.ending = scan_frame(&mut source, &mut decoder, &mut scan, &mut text).await?;
    let is_cut = !matches!(scan.ending, Ending::Whole | Ending::Open);
    if is_cut && scan.understood < len && source.is_zero_from(scan.understood).await? {
        scan.ending = Ending::Zeros;
    }
    Ok(scan)
}

async fn scan_frame<D: Disk>(
    source: &mut Source<'_, D>,
    decoder: &mut Decoder,
    scan: &mut Scan,
    text: &mut impl FnMut(&[u8]),
) -> io::Result<Ending> {
    let header = source.peek(FRAME_HEADER_BYTES_MAX).await?;
    let header_len = match frame_header_len(header) {
        Ok(Some(len)) => len,
        Ok(None) if header.is_empty() => return Ok(Ending::Open),
        Ok(None) => return Ok(Ending::Torn),
        Err(what) => return Ok(Ending::Damaged { what }),
    };
    if decoder.feed(&header[..header_len]).is_err() {
        let what = "frame header is refused";
        return Ok(Ending::Damaged { what });
    }
    source.consume(header_len);
    scan.understood = source.position;
    let (mut hash, mut text_bytes, mut lines) = (Xxh64::new(0), 0, 0);
    loop {
        let header = source.peek(BLOCK_HEADER_BYTES).await?;
        let &[a, b, c] = header else {
            let is_at_line = text_bytes == scan.text_bytes;
            return Ok(match LAST_BLOCK.starts_with(header) && is_at_line {
                true => Ending::Open,
                false => Ending::Torn,
            });
        };
        let block = match Block::parse([a, b, c]) {
            Ok(block) => block,
            Err(what) => return Ok(Ending::Damaged { what }),
        };
        // Zeros read as such blocks, and no encoder makes them. What follows zeros is no header, but might look like
        // one.
        if block.stored_bytes == 0 && !block.is_last {
            let what = "empty block";
            return Ok(Ending::Damaged { what });
        }
        let block_len = BLOCK_HEADER_BYTES + block.stored_bytes;
        let stored = source.peek(block_len).await?;
        if stored.len() < block_len {
            return Ok(Ending::Torn);
        }
        let Ok(decoded) = decoder.feed(stored) else {
            let what = "block does not decode";
            return Ok(Ending::Damaged { what });
        };
        // Where parts of a block are missing, and are zeros, the rest may decode all the same. No JSON text has one.
        if memchr::memchr(0, decoded).is_some() {
            let what = "a zero byte in the text";
            return Ok(Ending::Damaged { what });
        }
        source.consume(block_len);
        hash.update(decoded);
        text_bytes += decoded.len() as u64;
        lines += memchr::memchr_iter(b'\n', decoded).count() as u64;
        text(decoded);
        scan.understood = source.position;
        if decoded.last() == Some(&b'\n') {
            (scan.cut, scan.cut_is_last) = (source.position, block.is_last);
            (scan.hash, scan.text_bytes, scan.lines) = (hash.digest(), text_bytes, lines);
        }
        if block.is_last {
            break;
        }
    }
    let checksum = source.peek(CHECKSUM_BYTES).await?;
    let expected = checksum_bytes(hash.digest());
    if checksum.len() < CHECKSUM_BYTES && expected.starts_with(checksum) {
        return Ok(match text_bytes == scan.text_bytes {
            true => Ending::Open,
            false => Ending::Torn,
        });
    }
    if checksum != expected {
        let what = "content checksum does not match";
        return Ok(Ending::Damaged { what });
    }
    source.consume(CHECKSUM_BYTES);
    scan.understood = source.position;
    if scan.text_bytes != text_bytes {
        let what = "text does not end at a line";
        return Ok(Ending::Damaged { what });
    }
    Ok(match source.peek(1).await? {
        [] => Ending::Whole,
        _ => Ending::Trailing,
    })
}

/// The checksum field of a frame whose text has this hash.
pub fn checksum_bytes(hash: u64) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = hash.to_le_bytes();
    [a, b, c, d]
}

/// The length of the frame header at the front of `bytes`; `None` if it is not all there.
fn frame_header_len(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    let magic_len = bytes.len().min(MAGIC.len());
    if bytes[..magic_len] != MAGIC[..magic_len] {
        return Err("no zstd frame");
    }
    let Some(&descriptor) = bytes.get(MAGIC.len()) else {
        return Ok(None);
    };
    let is_single_segment = descriptor & 0x20 != 0;
    if descriptor & 0x08 != 0 {
        return Err("reserved bit in the frame header");
    }
    if descriptor & 0x04 == 0 {
        return Err("frame without a content checksum");
    }
    let window = usize::from(!is_single_segment);
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let content_size = match descriptor >> 6 {
        0 => usize::from(is_single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let len = MAGIC.len() + 1 + window + dictionary + content_size;
    Ok((bytes.len() >= len).then_some(len))
}

struct Block {
    stored_bytes: usize,
    is_last: bool,
}

impl Block {
    /// RFC 8878 §3.1.1.2: last (1 bit), type (2 bits), size (21 bits), little endian.
    fn parse([a, b, c]: [u8; 3]) -> Result<Block, &'static str> {
        let header = u32::from_le_bytes([a, b, c, 0]);
        let size = (header >> 3) as usize;
        if size > BLOCK_BYTES_MAX {
            return Err("block is larger than 128 KiB");
        }
        let stored_bytes = match header >> 1 & 3 {
            0 | 2 => size,
            1 => 1,
            _ => return Err("reserved block type"),
        };
        Ok(Block {
            stored_bytes,
            is_last: header & 1 != 0,
        })
    }
}

struct Decoder {
    context: DCtx<'static>,
    text: Vec<u8>,
}

impl Decoder {
    fn new() -> io::Result<Decoder> {
        let no_context = || io::Error::new(io::ErrorKind::OutOfMemory, "no zstd context");
        let mut context = DCtx::try_create().ok_or_else(no_context)?;
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .map_err(|_| no_context())?;
        Ok(Decoder {
            context,
            text: Vec::with_capacity(2 * BLOCK_BYTES_MAX),
        })
    }

    /// The text that these stored bytes, a whole header or block, decode to.
    fn feed(&mut self, stored: &[u8]) -> Result<&[u8], ()> {
        self.text.clear();
        let mut input = InBuffer::around(stored);
        loop {
            let filled = self.text.len();
            let mut output = OutBuffer::around_pos(&mut self.text, filled);
            let fed = self.context.decompress_stream(&mut output, &mut input);
            fed.map_err(|_| ())?;
            let progress = self.text.len() > filled;
            if input.pos() == stored.len() && !progress {
                return Ok(&self.text);
            }
            if self.text.len() == self.text.capacity() {
                // A block decodes to 128 KiB at most, so something else is being decoded.
                return Err(());
            }
        }
    }
}

/// A file's bytes in order, some at a time.
struct Source<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    len: u64,
    /// Bytes of the file before `buffer[consumed..]`.
    position: u64,
    buffer: Vec<u8>,
    /// 0 <= consumed <= buffer.len()
    consumed: usize,
}

impl<'a, D: Disk> Source<'a, D> {
    fn new(disk: &'a D, file: &'a D::File, len: u64) -> Self {
        Source {
            disk,
            file,
            len,
            position: 0,
            buffer: Vec::new(),
            consumed: 0,
        }
    }

    /// The next `count` bytes, or those that are left.
    async fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        let held = self.buffer.len() - self.consumed;
        let left = usize::try_from(self.len - self.position).unwrap_or(usize::MAX);
        if held < count && held < left {
            let wanted = left.min(count.max(READ_BYTES));
            self.buffer.clear();
            self.consumed = 0;
            self.buffer.resize(wanted, 0);
            let buffer = std::mem::take(&mut self.buffer);
            self.buffer = self.disk.read_at(self.file, buffer, self.position).await?;
            if self.buffer.len() < wanted {
                // The file is shorter than it was.
                self.len = self.position + self.buffer.len() as u64;
            }
        }
        let ready = self.buffer.len().min(self.consumed.saturating_add(count));
        Ok(&self.buffer[self.consumed..ready])
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count;
        self.position += count as u64;
    }

    /// Whether every byte from `position` on is zero.
    async fn is_zero_from(&mut self, position: u64) -> io::Result<bool> {
        (self.position, self.consumed) = (position, 0);
        self.buffer.clear();
        loop {
            let bytes = self.peek(READ_BYTES).await?;
            let count = bytes.len();
            if bytes.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            if count == 0 {
                return Ok(true);
            }
            self.consume(count);
        }
    }
}
