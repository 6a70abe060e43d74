//! The sub-commands and their arguments; each one's work is in a module of its own name.

use std::path::PathBuf;

/// What to do instead of serving.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand)]
pub enum Command {
    /// See [`crate::verify`].
    Verify(Verify),
    /// See [`crate::retention`].
    Retention(Retention),
    /// See [`crate::query::reports`].
    Cat(Cat),
    /// See [`crate::query::samples`].
    Samples(Samples),
    /// See [`crate::query::summary`].
    Summary(Summary),
}

/// Check every segment of a data directory; exit with 0, with 1 if one is damaged, with 2 if one could
/// not be checked.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand, name = "verify")]
pub struct Verify {
    /// data directory (default: the setting DATA_DIR)
    #[argh(positional)]
    pub dir: Option<PathBuf>,

    /// print one JSON object instead of a table
    #[argh(switch)]
    pub json: bool,
}

/// Remove the sealed segments that RETENTION_AGE and RETENTION_BYTES do not keep, as a running server does
/// every minute; exit with 0, with 1 if one could not be removed, with 2 if the directory or the settings
/// could not be read.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand, name = "retention")]
pub struct Retention {
    /// data directory (default: the setting DATA_DIR)
    #[argh(positional)]
    pub dir: Option<PathBuf>,

    /// remove nothing, print what would go
    #[argh(switch)]
    pub dry_run: bool,

    /// print one JSON object instead of a table
    #[argh(switch)]
    pub json: bool,
}

/// Print the stored lines that are asked for, oldest first, beside a running server or without one.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand, name = "cat")]
pub struct Cat {
    /// data directory (default: the setting DATA_DIR)
    #[argh(positional)]
    pub dir: Option<PathBuf>,

    /// received then or later: a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or one before now
    /// as -1h
    #[argh(option)]
    pub since: Option<String>,

    /// received before that
    #[argh(option)]
    pub until: Option<String>,

    /// posted by this client
    #[argh(option)]
    pub client: Option<String>,

    /// with this host
    #[argh(option)]
    pub host: Option<String>,

    /// at most so many lines
    #[argh(option)]
    pub limit: Option<String>,
}

/// Print one row for each sample, oldest report first.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand, name = "samples")]
pub struct Samples {
    /// data directory (default: the setting DATA_DIR)
    #[argh(positional)]
    pub dir: Option<PathBuf>,

    /// received then or later: a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or one before now
    /// as -1h
    #[argh(option)]
    pub since: Option<String>,

    /// received before that
    #[argh(option)]
    pub until: Option<String>,

    /// posted by this client
    #[argh(option)]
    pub client: Option<String>,

    /// of this host
    #[argh(option)]
    pub host: Option<String>,

    /// at most so many rows
    #[argh(option)]
    pub limit: Option<String>,

    /// ndjson or csv (default ndjson)
    #[argh(option)]
    pub format: Option<String>,
}

/// Print how many samples there were, how many errors, and how slow: by host, or by something else.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand, name = "summary")]
pub struct Summary {
    /// data directory (default: the setting DATA_DIR)
    #[argh(positional)]
    pub dir: Option<PathBuf>,

    /// received then or later: a time as 2026-02-27T05:14:34Z, milliseconds since 1970, or one before now
    /// as -1h
    #[argh(option)]
    pub since: Option<String>,

    /// received before that
    #[argh(option)]
    pub until: Option<String>,

    /// posted by this client
    #[argh(option)]
    pub client: Option<String>,

    /// of this host
    #[argh(option)]
    pub host: Option<String>,

    /// a row for each step of this length as well, 1s to 366d
    #[argh(option)]
    pub step: Option<String>,

    /// host, client, /geo or a JSON pointer into it as /geo/country (default host)
    #[argh(option)]
    pub group: Option<String>,

    /// count a sample once that a client has sent again
    #[argh(switch)]
    pub dedupe: bool,

    /// print one JSON object instead of a table
    #[argh(switch)]
    pub json: bool,
}
