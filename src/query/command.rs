//! `netwatch-server cat`, `samples` and `summary`: the same questions on the command line, beside a running
//! server or without one.

use std::io::{self, Write};
use std::path::Path;

use super::cursor::Cursor;
use super::params::Params;
use super::print::{self, Look, SPARKS_MAX};
use super::reports::LineSink;
use super::sources::Store;
use super::summary::{self, Figures, Summary, Watch};
use super::{Filter, QueryError, Sink, reports, samples};
use crate::command;
use crate::disk::Fs;
use crate::sidecar::MINUTE_MS;
use crate::time::Timestamp;

/// Pages of a command have no bound on their bytes.
const BYTES_MAX: u64 = u64::MAX;

/// The exit codes of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All that was asked for has been told, or as much as the reader wanted.
    Told = 0,
    /// Something of it could not be read.
    Unread = 1,
    /// It is not known what is asked, or there is no such directory.
    Unknown = 2,
}

impl From<&QueryError> for Verdict {
    fn from(error: &QueryError) -> Verdict {
        match error {
            QueryError::Sink(error) if error.kind() == io::ErrorKind::BrokenPipe => Verdict::Told,
            QueryError::Param(_) | QueryError::Open(_) | QueryError::List { .. } => {
                Verdict::Unknown
            }
            _ => Verdict::Unread,
        }
    }
}

/// Where a command prints, and who watches.
pub struct Terminal<'t, W> {
    /// What is asked for.
    pub out: W,
    /// Told how many bytes have been printed.
    pub progress: &'t dyn Fn(u64),
}

impl<W: Write> Sink for Terminal<'_, W> {
    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        (self.progress)(text.len() as u64);
        self.out.write_all(text)
    }
}

impl<W: Write> LineSink for Terminal<'_, W> {}

fn store(dir: &Path) -> Result<Store, QueryError> {
    let fs = Fs::beside(dir).map_err(QueryError::Open)?;
    Ok(Store {
        fs,
        open: Vec::new(),
    })
}

/// Prints lines.
///
/// # Errors
///
/// Not all of them.
pub fn cat<W: Write>(
    dir: &Path,
    arguments: &command::Cat,
    now: Timestamp,
    mut terminal: Terminal<'_, W>,
) -> Result<(), QueryError> {
    let params = Params::of_flags([
        ("since", &arguments.since),
        ("until", &arguments.until),
        ("client", &arguments.client),
        ("host", &arguments.host),
        ("limit", &arguments.limit),
    ]);
    let (filter, extent) = (params.filter(now)?, params.extent(BYTES_MAX)?);
    let (store, cursor) = (store(dir)?, Cursor::default());
    reports::write(&store, &filter, &cursor, extent, &mut terminal)?;
    terminal.out.flush().map_err(QueryError::Sink)
}

/// Prints rows of samples.
///
/// # Errors
///
/// Not all of them.
pub fn samples<W: Write>(
    dir: &Path,
    arguments: &command::Samples,
    now: Timestamp,
    mut terminal: Terminal<'_, W>,
) -> Result<(), QueryError> {
    let params = Params::of_flags([
        ("since", &arguments.since),
        ("until", &arguments.until),
        ("client", &arguments.client),
        ("host", &arguments.host),
        ("limit", &arguments.limit),
        ("format", &arguments.format),
    ]);
    let (filter, extent) = (params.filter(now)?, params.extent(BYTES_MAX)?);
    let format = params.format()?;
    let (store, cursor) = (store(dir)?, Cursor::default());
    samples::write(&store, &filter, &cursor, extent, format, &mut terminal)?;
    terminal.out.flush().map_err(QueryError::Sink)
}

/// What standard output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// People look at it.
    Terminal,
    /// A file or another program.
    Other,
}

/// Figures, and how they are to be printed.
#[derive(Debug)]
pub struct Told {
    figures: Figures,
    summary: Summary,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Table(Look),
}

impl Told {
    /// Prints them.
    ///
    /// # Errors
    ///
    /// `out` takes no more.
    pub fn print(self, out: &mut impl Write) -> Result<(), QueryError> {
        let printed = match self.form {
            Form::Json => print::json(&self.figures, &self.summary, out),
            Form::Table(look) => print::table(self.figures, &self.summary, look, out),
        };
        printed.and_then(|()| out.flush()).map_err(QueryError::Sink)
    }
}

/// The figures that are asked for.
///
/// # Errors
///
/// They cannot be had.
pub fn summary(
    dir: &Path,
    arguments: &command::Summary,
    now: Timestamp,
    output: Output,
    watch: &dyn Watch,
) -> Result<Told, QueryError> {
    let dedupe = arguments.dedupe.then(|| "true".to_owned());
    let params = Params::of_flags([
        ("since", &arguments.since),
        ("until", &arguments.until),
        ("client", &arguments.client),
        ("host", &arguments.host),
        ("step", &arguments.step),
        ("group", &arguments.group),
        ("dedupe", &dedupe),
    ]);
    let filter = params.filter(now)?;
    let mut summary = params.summary()?;
    let store = store(dir)?;
    let form = match (arguments.json, summary.step_ms, output) {
        (true, _, _) => Form::Json,
        (false, Some(_), _) => Form::Table(Look::BySteps),
        (false, None, Output::Other) => Form::Table(Look::ByGroups),
        (false, None, Output::Terminal) => {
            summary.step_ms = Some(spark_ms(&store, &filter, now)?);
            Form::Table(Look::WithSparklines)
        }
    };
    let figures = summary::run(&store, &filter, &summary, watch)?;
    Ok(Told {
        figures,
        summary,
        form,
    })
}

/// The step that makes a sparkline of the time asked for, in whole minutes as sidecars have them.
fn spark_ms(store: &Store, filter: &Filter, now: Timestamp) -> Result<u64, QueryError> {
    let sources = store.sources(filter)?;
    let first = sources.iter().map(|source| source.position.named()).min();
    let since = filter.since.max(first).unwrap_or(now);
    let until = filter.until.unwrap_or(now);
    let span_ms = until.ms().saturating_sub(since.ms());
    Ok(spark_step(span_ms))
}

fn spark_step(span_ms: u64) -> u64 {
    // One more than it takes, as the first one may begin earlier.
    let steps = SPARKS_MAX - 1;
    let step_ms = span_ms.div_ceil(steps).next_multiple_of(MINUTE_MS);
    step_ms.max(MINUTE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_sparkline() {
        for (span_ms, expected_minutes) in [
            (0, 1),
            (1, 1),
            (47 * 60_000, 1),
            (47 * 60_000 + 1, 2),
            (86_400_000, 31),
        ] {
            let step_ms = spark_step(span_ms);
            assert_eq!(step_ms / MINUTE_MS, expected_minutes, "{span_ms}");
            assert!(span_ms / step_ms < SPARKS_MAX);
        }
    }
}
