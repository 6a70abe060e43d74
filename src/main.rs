//! Flags, settings, log, run: the only place that turns an error into an exit code.

use std::error::Error;
use std::process::ExitCode;

use netwatch_server::config::{Config, Flags};
use netwatch_server::{log, server};
use tracing::level_filters::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags: Flags = argh::from_env();
    if flags.version {
        println!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let resolved = Config::resolve_with_sources(&flags, |name| std::env::var_os(name));
    let (config, settings) = match resolved {
        Ok(resolved) => resolved,
        Err(error) => {
            eprintln!("{}: {error}", env!("CARGO_PKG_NAME"));
            return ExitCode::FAILURE;
        }
    };
    if flags.check_config {
        for setting in settings {
            println!("{setting}");
        }
        return ExitCode::SUCCESS;
    }
    let level = match config.debug {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    };
    let log = log::install(config.log_format, level);
    let code = match server::run(&config) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = %chain(&error), "ended");
            1
        }
    };
    drop(log);
    // Not by returning: threads of a forced stop may still use what a normal exit tears down.
    std::process::exit(code)
}

/// An error and its causes, from the outermost to the first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
