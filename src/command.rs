//! The sub-commands and their arguments; each one's work is in a module of its own name.

use std::path::PathBuf;

/// What to do instead of serving.
#[derive(argh::FromArgs, Clone, Debug)]
#[argh(subcommand)]
pub enum Command {
    /// See [`crate::verify`].
    Verify(Verify),
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
