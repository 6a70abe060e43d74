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
