//! Lines as they are stored, oldest first.

use std::io::{self, Read};

use super::cursor::Cursor;
use super::merge::{Item, Merge, Want};
use super::sources::Store;
use super::{Ended, EndedBy, Extent, Filter, LINES_BETWEEN, QueryError, Sink};
use crate::report::extract::Extractor;
use crate::segment::reader::ReadError;

/// Bytes of a file that are given at a time.
const COPY_BYTES: usize = 128 << 10;

/// Takes lines, and perhaps whole segments.
pub trait LineSink: Sink {
    /// In what form lines are wanted.
    fn want(&self) -> Want {
        Want::Lines
    }

    /// Takes more of the file of a segment, whose frame ends with the last of it. Asked only of who wants
    /// [`Want::Segments`].
    ///
    /// # Errors
    ///
    /// Nobody takes it.
    fn stored(&mut self, bytes: &[u8]) -> io::Result<()> {
        let _ = bytes;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Gives the lines that are asked for, each with its line feed.
///
/// # Errors
///
/// What has been given is then not all of it.
pub fn write(
    store: &Store,
    filter: &Filter,
    cursor: &Cursor,
    extent: Extent,
    sink: &mut impl LineSink,
) -> Result<Ended, QueryError> {
    let want = match extent {
        Extent::Whole => sink.want(),
        Extent::Page { .. } => Want::Lines,
    };
    let mut merge = Merge::new(store, filter, cursor)?;
    let mut extractor = Extractor::default();
    let (mut rows, mut bytes, mut passed_over) = (0, 0, 0);
    while !extent.is_reached(rows, bytes) {
        let line = match merge.next(want)? {
            None => {
                let cursor = merge.into_cursor(None)?;
                let by = EndedBy::Data;
                return Ok(Ended { cursor, by });
            }
            Some(Item::Segment { name, mut file }) => {
                copy(&name, &mut file, sink)?;
                continue;
            }
            Some(Item::Passed) => match sink.is_gone() {
                true => return Err(QueryError::Gone),
                false => continue,
            },
            Some(Item::Line(line)) => line.text,
        };
        let is_asked_for = !filter.asks_for_names()
            || filter.may_match(line)
                && extractor
                    .read(line, |reading| filter.takes_report(reading))
                    .unwrap_or(false);
        if is_asked_for {
            sink.text(line).map_err(QueryError::Sink)?;
            sink.text(b"\n").map_err(QueryError::Sink)?;
            rows += 1;
            bytes += line.len() as u64 + 1;
            continue;
        }
        passed_over += 1;
        if passed_over % LINES_BETWEEN == 0 && sink.is_gone() {
            return Err(QueryError::Gone);
        }
    }
    let cursor = merge.into_cursor(None)?;
    let by = EndedBy::Extent;
    Ok(Ended { cursor, by })
}

fn copy(name: &str, file: &mut dyn Read, sink: &mut impl LineSink) -> Result<(), QueryError> {
    let mut bytes = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(read) => sink.stored(&bytes[..read]).map_err(QueryError::Sink)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => {
                return Err(QueryError::Read {
                    path: name.to_owned(),
                    source: ReadError::Io(error),
                });
            }
        }
    }
}
