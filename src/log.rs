//! Where events go: standard output, as text on a terminal and as JSON elsewhere, through a thread of
//! its own. If that thread falls behind, lines are dropped rather than a core kept waiting.

use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use crate::config::LogFormat;

/// Lines that may wait to be printed.
const LINES_MAX: usize = 16_384;

/// Installs the process's log. Lines are flushed when the guard is dropped.
pub fn install(format: LogFormat, level: LevelFilter) -> WorkerGuard {
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .thread_name("log")
        .finish(io::stdout());
    let is_text = match format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stdout().is_terminal(),
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(is_text && io::stdout().is_terminal())
        .with_writer(writer);
    if is_text {
        log.init();
    } else {
        log.json().flatten_event(true).init();
    }
    guard
}
