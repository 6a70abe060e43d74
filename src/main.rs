//! Flags, settings, log, run: the only place that prints, and that turns an error into an exit code.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::PathBuf;
use std::process;

use argh::FromArgs;
use indicatif::{ProgressBar, ProgressStyle};
use netwatch_server::command::{Cat, Command, Retention, Samples, Summary, Verify};
use netwatch_server::config::{ConfigError, Effective, Flags, Sources, nearest_flag};
use netwatch_server::log::{self, Log, chain};
use netwatch_server::query::QueryError;
use netwatch_server::query::command::{self as query, Output, Terminal};
use netwatch_server::query::summary::Watch;
use netwatch_server::retention::command::{self, Mode};
use netwatch_server::retention::{self, Limits};
use netwatch_server::server::{self, Surroundings};
use netwatch_server::verify::{self, Verdict};
use netwatch_server::{systemd, worker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = env!("CARGO_PKG_NAME");

/// Bytes that are printed at once.
const PRINT_BYTES: usize = 64 << 10;

/// The exit code for flags that are not understood; for commands, also for what they could not tell.
const MISUSE: i32 = 2;

fn main() {
    // Not by returning: threads that outlive `run` may still use what a normal exit tears down.
    process::exit(match flags() {
        Ok(flags) => run(&flags),
        Err(code) => code,
    })
}

/// The flags, or the exit code if they ask for no more than help.
fn flags() -> Result<Flags, i32> {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    Flags::from_args(&[NAME], &args).map_err(|exit| match exit.status {
        Ok(()) => {
            print(exit.output.trim_end());
            0
        }
        Err(()) => {
            complain(explained(exit.output.trim_end()));
            MISUSE
        }
    })
}

/// What argh says of the arguments, with the flag that may have been meant.
fn explained(refusal: &str) -> String {
    let given = refusal.strip_prefix("Unrecognized argument: ");
    match given.and_then(|given| nearest_flag(given).map(|nearest| (given, nearest))) {
        None => refusal.to_owned(),
        Some((given, nearest)) if given == nearest => format!("{refusal} goes before the command"),
        Some((_, nearest)) => format!("{refusal}, did you mean `{nearest}`?"),
    }
}

fn run(flags: &Flags) -> i32 {
    if flags.version {
        print(format!("{NAME} {}", env!("CARGO_PKG_VERSION")));
        return 0;
    }
    let sources = Sources::new(flags, |name| std::env::var_os(name));
    if let Some(command) = &flags.command {
        return match command {
            Command::Verify(arguments) => verify(arguments, &sources) as i32,
            Command::Retention(arguments) => retention(arguments, &sources) as i32,
            Command::Cat(arguments) => cat(arguments, &sources) as i32,
            Command::Samples(arguments) => samples(arguments, &sources) as i32,
            Command::Summary(arguments) => summary(arguments, &sources) as i32,
        };
    }
    let effective = match sources.resolve() {
        Ok(effective) => effective,
        Err(problems) => {
            complain_of(&problems);
            return 1;
        }
    };
    if flags.check_config {
        if let Some(exposed) = &effective.exposed {
            complain(format!("warning: {exposed}"));
        }
        for setting in effective.resolved {
            print(setting);
        }
        return 0;
    }
    serve(&sources, &effective)
}

fn serve(sources: &Sources, effective: &Effective) -> i32 {
    let config = &effective.config;
    // Before there is another thread: it changes the environment.
    let inherited = match systemd::inherited_listeners() {
        Ok(inherited) => inherited,
        Err(error) => {
            complain(format!(
                "cannot take over the sockets of LISTEN_FDS: {error}"
            ));
            return 1;
        }
    };
    let log = Log::install(config.log_format, log::level(config));
    log::warn_of_exposed(effective);
    let surroundings = Surroundings {
        sources,
        inherited,
        log: &log,
    };
    match server::run(effective, surroundings) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = %chain(&error), "ended");
            1
        }
    }
}

fn verify(arguments: &Verify, sources: &Sources) -> Verdict {
    let Some(dir) = data_dir(&arguments.dir, sources) else {
        return Verdict::Unchecked;
    };
    // Hidden where standard error is no terminal.
    let bar = ProgressBar::new(0);
    let checked = verify::run(&dir, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let outcome = match checked {
        Ok(outcome) => outcome,
        Err(error) => {
            complain(chain(&error));
            return Verdict::Unchecked;
        }
    };
    let mut out = io::stdout().lock();
    let printed = match arguments.json {
        true => verify::print::json(&outcome, &mut out),
        false => verify::print::table(&outcome, &mut out),
    };
    if !is_taken(printed) {
        return Verdict::Unchecked;
    }
    outcome.verdict()
}

/// The data directory that is named, or else that of the settings, if these are right.
fn data_dir(named: &Option<PathBuf>, sources: &Sources) -> Option<PathBuf> {
    // A directory that is named needs no settings.
    if let Some(dir) = named {
        return Some(dir.clone());
    }
    match sources.resolve() {
        Ok(effective) => Some(effective.config.data_dir),
        Err(problems) => {
            complain_of(&problems);
            None
        }
    }
}

fn cat(arguments: &Cat, sources: &Sources) -> query::Verdict {
    let Some(dir) = data_dir(&arguments.dir, sources) else {
        return query::Verdict::Unknown;
    };
    print_rows(|terminal| query::cat(&dir, arguments, worker::now().wall, terminal))
}

fn samples(arguments: &Samples, sources: &Sources) -> query::Verdict {
    let Some(dir) = data_dir(&arguments.dir, sources) else {
        return query::Verdict::Unknown;
    };
    print_rows(|terminal| query::samples(&dir, arguments, worker::now().wall, terminal))
}

/// Has a command print to standard output, with its progress on standard error if that alone is a terminal.
fn print_rows(
    command: impl FnOnce(Terminal<'_, BufWriter<StdoutLock<'static>>>) -> Result<(), QueryError>,
) -> query::Verdict {
    let bar = match io::stdout().is_terminal() {
        true => ProgressBar::hidden(),
        false => ProgressBar::no_length(),
    };
    bar.set_style(ProgressStyle::with_template("{bytes} {bytes_per_sec}").expect("it is one"));
    let told = command(Terminal {
        out: BufWriter::with_capacity(PRINT_BYTES, io::stdout().lock()),
        progress: &|bytes| bar.inc(bytes),
    });
    bar.finish_and_clear();
    verdict(told)
}

struct Bar(ProgressBar);

impl Watch for Bar {
    fn is_gone(&self) -> bool {
        false
    }

    fn note_progress(&self, of: usize) {
        self.0.set_length(of as u64);
        self.0.inc(1);
    }
}

fn summary(arguments: &Summary, sources: &Sources) -> query::Verdict {
    let Some(dir) = data_dir(&arguments.dir, sources) else {
        return query::Verdict::Unknown;
    };
    let output = match io::stdout().is_terminal() {
        true => Output::Terminal,
        false => Output::Other,
    };
    let bar = Bar(ProgressBar::new(0));
    let now = worker::now().wall;
    let told = query::summary(&dir, arguments, now, output, &bar);
    bar.0.finish_and_clear();
    let mut out = BufWriter::with_capacity(PRINT_BYTES, io::stdout().lock());
    verdict(told.and_then(|told| told.print(&mut out)))
}

fn verdict(told: Result<(), QueryError>) -> query::Verdict {
    let Err(error) = told else {
        return query::Verdict::Told;
    };
    let verdict = query::Verdict::from(&error);
    if verdict != query::Verdict::Told {
        complain(chain(&error));
    }
    verdict
}

fn retention(arguments: &Retention, sources: &Sources) -> command::Verdict {
    let config = match sources.resolve() {
        Ok(effective) => effective.config,
        Err(problems) => {
            complain_of(&problems);
            return command::Verdict::Unknown;
        }
    };
    let dir = arguments.dir.as_ref().unwrap_or(&config.data_dir);
    let mode = match arguments.dry_run {
        true => Mode::DryRun,
        false => Mode::Remove,
    };
    let outcome = match command::run(dir, Limits::of(&config), mode, worker::now) {
        Ok(outcome) => outcome,
        Err(error) => {
            complain(chain(&error));
            return command::Verdict::Unknown;
        }
    };
    let mut out = io::stdout().lock();
    let printed = match arguments.json {
        true => retention::print::json(&outcome, &mut out),
        false => retention::print::table(&outcome, &mut out),
    };
    // What could not be printed has been done all the same.
    is_taken(printed);
    outcome.verdict()
}

fn print(line: impl Display) {
    is_taken(writeln!(io::stdout().lock(), "{line}"));
}

fn complain(line: impl Display) {
    // Where standard error is closed there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{NAME}: {line}");
}

/// One line a problem.
fn complain_of(problems: &[ConfigError]) {
    for problem in problems {
        complain(chain(problem));
    }
}

/// Whether output was taken, by a reader or by one who has seen enough and closed the pipe.
fn is_taken(printed: io::Result<()>) -> bool {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(format!("cannot print: {error}"));
            false
        }
        _ => true,
    }
}
