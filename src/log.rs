//! Where events go: standard output, as text on a terminal and as JSON elsewhere, through a thread of
//! its own. If that thread falls behind, lines are dropped rather than a core kept waiting.

use std::error::Error;
use std::io::{self, IsTerminal};

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

use crate::config::{Config, Effective, LogFormat};

/// Lines that may wait to be printed.
const LINES_MAX: usize = 16_384;

/// The level that the settings ask for.
pub fn level(config: &Config) -> LevelFilter {
    match config.debug {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    }
}

/// Says that a file with secrets can be read by everybody, if it can.
pub fn warn_of_exposed(effective: &Effective) {
    if let Some(exposed) = &effective.exposed {
        tracing::warn!(
            file = %exposed.path.display(),
            mode = format!("{:04o}", exposed.mode),
            settings = exposed.keys.join(","),
            "secrets can be read by every user"
        );
    }
}

/// An error and its causes, from the outermost to the first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The process's log. Lines are flushed when it is dropped.
pub struct Log {
    level: Handle<LevelFilter, Registry>,
    _guard: WorkerGuard,
}

impl Log {
    /// Installs it, for events up to this level.
    pub fn install(format: LogFormat, level: LevelFilter) -> Log {
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
        let (filter, level) = reload::Layer::new(level);
        let lines = fmt::layer()
            .with_target(false)
            .with_ansi(is_text && io::stdout().is_terminal())
            .with_writer(writer);
        let log = tracing_subscriber::registry().with(filter);
        if is_text {
            log.with(lines).init();
        } else {
            log.with(lines.json().flatten_event(true)).init();
        }
        Log {
            level,
            _guard: guard,
        }
    }

    /// Prints events up to this level from now on.
    pub fn set_level(&self, level: LevelFilter) {
        let set = self.level.reload(level);
        set.expect("the log lasts as long as its handle");
    }
}
