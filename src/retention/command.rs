//! `netwatch-server retention`: looks once, and removes what the limits do not keep, or says what that is.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use super::{Limits, Reason, plan, remove, remove_sidecar};
use crate::catalog::{Catalog, LookError, Segment};
use crate::disk::{Fs, OpenError, Removal};
use crate::time::{Now, Timestamp};

/// Whether the command removes what it has planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It does.
    Remove,
    /// It only says what would go.
    DryRun,
}

/// What the command has found and done.
#[derive(Debug)]
pub struct Outcome {
    /// As asked for.
    pub mode: Mode,
    /// As asked for.
    pub limits: Limits,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// Segments that were there.
    pub segments: u64,
    /// Their bytes, with their sidecars.
    pub bytes: u64,
    /// Those that were to go, the oldest first.
    pub going: Vec<Going>,
    /// Names of sidecars that were left without a segment.
    pub sidecars: Vec<(String, Fate)>,
    /// Milliseconds that it took to list the directory.
    pub listed_ms: u64,
    /// Milliseconds that it took to plan.
    pub planned_ms: u64,
}

/// A segment that was to go.
#[derive(Debug)]
pub struct Going {
    /// Which.
    pub segment: Segment,
    /// Why.
    pub reason: Reason,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a file that was to go.
#[derive(Debug)]
pub enum Fate {
    /// Nothing: [`Mode::DryRun`].
    Planned,
    /// It is gone.
    Removed,
    /// Somebody reads it.
    BeingRead,
    /// The system does not let it go.
    Failed(io::Error),
}

/// The exit codes of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What was to go is gone, or is being read; or this was a dry run.
    Done = 0,
    /// Some of it could not be removed.
    Failed = 1,
    /// It is not known what there is, or what the limits are; nothing was removed.
    Unknown = 2,
}

impl Outcome {
    /// What it comes to.
    pub fn verdict(&self) -> Verdict {
        let sidecars = self.sidecars.iter().map(|(_, fate)| fate);
        let mut fates = self.going.iter().map(|going| &going.fate).chain(sidecars);
        match fates.any(|fate| matches!(fate, Fate::Failed(_))) {
            true => Verdict::Failed,
            false => Verdict::Done,
        }
    }
}

/// Why the command did nothing.
#[derive(Debug)]
pub enum RunError {
    /// The directory cannot be opened.
    Open(OpenError),
    /// Something in it cannot be looked at.
    Look {
        /// The directory.
        root: String,
        /// What.
        source: LookError,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => error.fmt(f),
            Self::Look { root, .. } => write!(f, "cannot tell what is in {root}"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(error) => error.source(),
            Self::Look { source, .. } => Some(source),
        }
    }
}

/// Removes what the limits do not keep, or says what that is; beside a server or without one.
///
/// # Errors
///
/// It cannot be told what there is.
pub fn run(
    root: &Path,
    limits: Limits,
    mode: Mode,
    clock: impl Fn() -> Now,
) -> Result<Outcome, RunError> {
    let fs = Fs::beside(root).map_err(RunError::Open)?;
    let begun = clock();
    let mut catalog = Catalog::default();
    catalog.look(&fs).map_err(|source| RunError::Look {
        root: root.display().to_string(),
        source,
    })?;
    let listed = clock();
    let planned = plan(catalog.segments(), limits, listed.wall);
    let planned_ms = clock().monotonic_ms - listed.monotonic_ms;
    let fate = |removed: io::Result<Removal>| match removed {
        Ok(Removal::Removed | Removal::Gone) => Fate::Removed,
        Ok(Removal::BeingRead) => Fate::BeingRead,
        Err(error) => Fate::Failed(error),
    };
    let going = planned.into_iter().map(|(segment, reason)| Going {
        segment: segment.clone(),
        reason,
        fate: match mode {
            Mode::DryRun => Fate::Planned,
            Mode::Remove => fate(remove(&fs, &segment.name)),
        },
    });
    let sidecar = |name: &String| {
        let fate = match mode {
            Mode::DryRun => Fate::Planned,
            Mode::Remove => fate(remove_sidecar(&fs, name).map(|()| Removal::Removed)),
        };
        (name.clone(), fate)
    };
    Ok(Outcome {
        mode,
        limits,
        now: listed.wall,
        segments: catalog.segments().len() as u64,
        bytes: catalog.bytes(),
        going: going.collect(),
        sidecars: catalog.orphans().iter().map(sidecar).collect(),
        listed_ms: listed.monotonic_ms - begun.monotonic_ms,
        planned_ms,
    })
}
