//! Reading a segment from its first line to its last, a piece at a time.
//!
//! ```text
//! file ─▶ stored bytes, 128 KiB ─▶ zstd ─▶ text: whole lines ─▶ line by line
//!                                           │ the start of the next line waits for its end
//! ```
//!
//! Files of any zstd tool are read, of more than one frame as well. What ends early is an error where the file
//! is sealed; of an open one the lines up to its last whole one are what there is.
//!
//! Memory: 128 KiB of stored bytes, the text of a block and a line (1.2 MiB at most), and the decoder's window
//! (128 KiB for segments of level 1, at most 8 MiB for ours).

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::WINDOW_LOG_MAX;
use crate::report::LINE_BYTES_MAX;

/// Bytes asked from the file at a time.
const STORED_BYTES: usize = 128 << 10;
/// Bytes decoded at a time: the most that a block holds (RFC 8878 §3.1.1.2.4).
const TEXT_BYTES: usize = 128 << 10;
/// Windows of files that others have written are as large as the zstd tool takes unasked.
const FOREIGN_WINDOW_LOG_MAX: u32 = 27;

/// What may be expected of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It is sealed: its frame ends, and its text ends at a line.
    Sealed,
    /// It is being written, or its writer has gone: it may end anywhere.
    Open,
    /// Another server's: frames that end, of larger windows; the last line may have no end.
    Foreign,
}

/// Why a segment could not be read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// The system does not give its bytes.
    Io(io::Error),
    /// They are not what a segment has.
    Damaged(&'static str),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Io(_) => f.write_str("cannot be read"),
            ReadError::Damaged(what) => write!(f, "is damaged: {what}"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Io(source) => Some(source),
            ReadError::Damaged(_) => None,
        }
    }
}

/// The lines of a segment.
pub struct Lines<R> {
    file: R,
    shape: Shape,
    context: DCtx<'static>,
    stored: Vec<u8>,
    /// `stored[stored_at..]` is not decoded yet.
    stored_at: usize,
    /// Whether the decoder stands between two frames.
    is_between_frames: bool,
    /// Whether it may hold text that had no room.
    has_more_text: bool,
    text: Vec<u8>,
    /// The current line, without its line feed; `line.start <= line.end <= text.len()`.
    line: Range<usize>,
    /// What follows the current line's line feed: `line.end <= rest <= text.len()`.
    rest: usize,
}

impl<R: Read> Lines<R> {
    /// Before the first line.
    ///
    /// # Errors
    ///
    /// There is no memory for a decoder.
    pub fn new(file: R, shape: Shape) -> Result<Lines<R>, ReadError> {
        let no_context = || {
            ReadError::Io(io::Error::new(
                io::ErrorKind::OutOfMemory,
                "no zstd context",
            ))
        };
        let mut context = DCtx::try_create().ok_or_else(no_context)?;
        let window_log_max = match shape {
            Shape::Sealed | Shape::Open => WINDOW_LOG_MAX,
            Shape::Foreign => FOREIGN_WINDOW_LOG_MAX,
        };
        context
            .set_parameter(DParameter::WindowLogMax(window_log_max))
            .map_err(|_| no_context())?;
        Ok(Lines {
            file,
            shape,
            context,
            stored: Vec::with_capacity(STORED_BYTES),
            stored_at: 0,
            is_between_frames: true,
            has_more_text: false,
            text: Vec::new(),
            line: 0..0,
            rest: 0,
        })
    }

    /// The line that the last call of [`Lines::advance`] has come to, without its line feed.
    pub fn line(&self) -> &[u8] {
        &self.text[self.line.clone()]
    }

    /// Comes to the next line, if there is one.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not what its shape promises.
    pub fn advance(&mut self) -> Result<bool, ReadError> {
        let mut searched = self.rest;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.text[searched..]) {
                let end = searched + at;
                (self.line, self.rest) = (self.rest..end, end + 1);
                return Ok(true);
            }
            // What has no end yet goes to the front, and the next text behind it.
            self.text.drain(..self.rest);
            searched = self.text.len();
            (self.line, self.rest) = (0..0, 0);
            if searched > LINE_BYTES_MAX {
                return Err(ReadError::Damaged("a line is too long"));
            }
            if !self.decode_more()? {
                return self.end();
            }
        }
    }

    /// At the end of the file, with text that has no line feed.
    fn end(&mut self) -> Result<bool, ReadError> {
        match (self.shape, self.text.is_empty()) {
            (Shape::Open, _) => {
                self.text.clear();
                Ok(false)
            }
            _ if !self.is_between_frames => Err(ReadError::Damaged("the file ends within a frame")),
            (_, true) => Ok(false),
            (Shape::Sealed, false) => Err(ReadError::Damaged("the text does not end at a line")),
            (Shape::Foreign, false) => {
                (self.line, self.rest) = (0..self.text.len(), self.text.len());
                Ok(true)
            }
        }
    }

    /// Appends to the text; false at the end of the file.
    fn decode_more(&mut self) -> Result<bool, ReadError> {
        let filled = self.text.len();
        self.text.reserve(TEXT_BYTES);
        loop {
            // What had no room the last time comes out without more input.
            let has_input = self.stored_at < self.stored.len() || self.has_more_text;
            if !has_input && !self.read_more()? {
                return Ok(false);
            }
            let mut input = InBuffer::around(&self.stored[self.stored_at..]);
            let mut output = OutBuffer::around_pos(&mut self.text, filled);
            let decoded = self.context.decompress_stream(&mut output, &mut input);
            self.stored_at += input.pos();
            match decoded {
                Ok(left) => self.is_between_frames = left == 0,
                Err(code) => return Err(ReadError::Damaged(get_error_name(code))),
            }
            let is_full = self.text.len() == self.text.capacity();
            self.has_more_text = is_full && !self.is_between_frames;
            if self.text.len() > filled {
                return Ok(true);
            }
        }
    }

    fn read_more(&mut self) -> Result<bool, ReadError> {
        self.stored.resize(STORED_BYTES, 0);
        self.stored_at = 0;
        loop {
            match self.file.read(&mut self.stored) {
                Ok(read) => {
                    self.stored.truncate(read);
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => {
                    self.stored.clear();
                    return Err(ReadError::Io(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.include_checksum(true).unwrap();
        io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn lines(file: &[u8], shape: Shape) -> Result<Vec<String>, String> {
        let mut lines = Lines::new(file, shape).unwrap();
        let mut found = Vec::new();
        while lines.advance().map_err(|error| error.to_string())? {
            found.push(String::from_utf8(lines.line().to_vec()).unwrap());
        }
        // It stays at the end.
        assert!(!lines.advance().unwrap());
        Ok(found)
    }

    #[test]
    fn shapes() {
        #[track_caller]
        fn check(file: &[u8], shape: Shape, expected: Result<&[&str], &str>) {
            let expected =
                expected.map(|lines| lines.iter().map(|&line| line.to_owned()).collect());
            assert_eq!(lines(file, shape), expected.map_err(str::to_owned));
        }
        let [whole, open_end] = ["a\n\nbc\n", "a\nb"].map(frame);
        let abc = Ok(&["a", "", "bc"][..]);
        for shape in [Shape::Sealed, Shape::Open, Shape::Foreign] {
            check(&whole, shape, abc);
            check(&[], shape, Ok(&[]));
        }
        let no_end = "is damaged: the text does not end at a line";
        check(&open_end, Shape::Sealed, Err(no_end));
        check(&open_end, Shape::Open, Ok(&["a"]));
        check(&open_end, Shape::Foreign, Ok(&["a", "b"]));
        let cut = &whole[..whole.len() - 1];
        let within = "is damaged: the file ends within a frame";
        check(cut, Shape::Sealed, Err(within));
        check(cut, Shape::Open, abc);
        let both = [&whole[..], &whole].concat();
        check(&both, Shape::Foreign, Ok(&["a", "", "bc", "a", "", "bc"]));
        let mut wrong = whole.clone();
        *wrong.last_mut().unwrap() ^= 1;
        let checksum = "is damaged: Restored data doesn't match checksum";
        check(&wrong, Shape::Sealed, Err(checksum));
        check(
            b"no frame",
            Shape::Sealed,
            Err("is damaged: Unknown frame descriptor"),
        );
    }

    #[test]
    fn lines_of_any_length() {
        let lengths = [
            0,
            1,
            TEXT_BYTES - 1,
            TEXT_BYTES,
            TEXT_BYTES + 1,
            3,
            LINE_BYTES_MAX - 1,
        ];
        let text: Vec<String> = lengths.iter().map(|&len| "x".repeat(len)).collect();
        let file = frame(&(text.join("\n") + "\n"));
        assert_eq!(lines(&file, Shape::Sealed).unwrap(), text);
        let file = frame(&"x".repeat(LINE_BYTES_MAX + TEXT_BYTES));
        assert_eq!(
            lines(&file, Shape::Sealed),
            Err("is damaged: a line is too long".to_owned())
        );
    }
}
