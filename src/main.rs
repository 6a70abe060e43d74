//! Flags, settings, log, run: the only place that turns an error into an exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use indicatif::ProgressBar;
use netwatch_server::command::{Command, Verify};
use netwatch_server::config::{Config, Flags};
use netwatch_server::{log, server, verify};
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
    match &flags.command {
        Some(Command::Verify(arguments)) => verify(arguments, &config),
        None => serve(&config),
    }
}

fn serve(config: &Config) -> ExitCode {
    let level = match config.debug {
        true => LevelFilter::DEBUG,
        false => LevelFilter::INFO,
    };
    let log = log::install(config.log_format, level);
    let code = match server::run(config) {
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

fn verify(arguments: &Verify, config: &Config) -> ExitCode {
    let dir = arguments.dir.as_ref().unwrap_or(&config.data_dir);
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let progress = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let outcome = match verify::run(dir, progress) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("{}: {}", env!("CARGO_PKG_NAME"), chain(&error));
            return ExitCode::from(verify::Verdict::Unchecked as u8);
        }
    };
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    let printed = match arguments.json {
        true => verify::print::json(&outcome, &mut out),
        false => verify::print::table(&outcome, &mut out),
    };
    match printed {
        // Whoever reads may have seen enough.
        Ok(()) => ExitCode::from(outcome.verdict() as u8),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::from(outcome.verdict() as u8)
        }
        Err(error) => {
            eprintln!("{}: cannot print: {error}", env!("CARGO_PKG_NAME"));
            ExitCode::from(verify::Verdict::Unchecked as u8)
        }
    }
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
