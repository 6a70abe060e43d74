//! Puts load on a server and keeps a journal; compares journals with what the server has stored.
//!
//! ```text
//! cargo run --release --example load -- run --addr 127.0.0.1:8080 --seconds 10 --journal /tmp/journal
//! cargo run --release --example load -- check --journal /tmp/journal --data data/reports
//! ```
//!
//! Each prints one line of JSON. `check` exits with 1 if what is stored is not what was acknowledged, and
//! with 2 if it cannot tell.

#[path = "../support/client.rs"]
mod client;
#[allow(dead_code, reason = "killing is left to scripts")]
#[path = "../support/journal.rs"]
mod journal;
#[path = "../support/ledger.rs"]
mod ledger;
#[path = "../support/load.rs"]
mod load;
#[path = "../support/reports.rs"]
mod reports;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use journal::Journal;
use ledger::{Check, Findings};
use load::{Load, OnError, Pace, Tally, Until};

/// Per host, if nothing else is asked for.
const SAMPLES: u32 = 20;

/// Load on a netwatch-server, with a journal.
#[derive(argh::FromArgs)]
struct Args {
    #[argh(subcommand)]
    command: Command,
}

#[derive(argh::FromArgs)]
#[argh(subcommand)]
enum Command {
    Run(RunArgs),
    Check(CheckArgs),
}

/// Post reports and note which of them were acknowledged.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "run")]
struct RunArgs {
    /// where the server listens: 127.0.0.1:8080
    #[argh(option)]
    addr: SocketAddr,
    /// connections, each with one report under way (default 32)
    #[argh(option, default = "32")]
    connections: u32,
    /// end after this many seconds
    #[argh(option)]
    seconds: Option<f64>,
    /// end after this many reports
    #[argh(option)]
    count: Option<u32>,
    /// samples per host: 1, 20 and 100 make reports of 2, 13 and 62 KB (default 20); given more than
    /// once, they are taken in turn
    #[argh(option)]
    samples: Vec<u32>,
    /// reports a second, sent when they are due; else each connection sends as soon as it is answered
    #[argh(option)]
    rate: Option<f64>,
    /// number of the run: another one for each run on one data directory (default 0)
    #[argh(option, default = "0")]
    seed: u64,
    /// file to make and to note acknowledged reports in
    #[argh(option)]
    journal: PathBuf,
    /// connect again when a connection breaks; else it is given up
    #[argh(switch)]
    keep_going: bool,
}

/// Compare journals with a data directory: every acknowledged report is there once, byte for byte.
#[derive(argh::FromArgs)]
#[argh(subcommand, name = "check")]
struct CheckArgs {
    /// journal of a run; all runs whose reports are in the directory are needed
    #[argh(option)]
    journal: Vec<PathBuf>,
    /// the data directory
    #[argh(option)]
    data: PathBuf,
    /// read segments in .open as well, as far as they decode
    #[argh(switch)]
    open: bool,
    /// read only segments that are not older than this file
    #[argh(option)]
    newer: Option<PathBuf>,
    /// allow the loss of what was acknowledged so many ms before its server was killed (default 0)
    #[argh(option, default = "0")]
    may_lose_ms: u64,
}

fn main() -> ExitCode {
    let args: Args = argh::from_env();
    let result = match args.command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(&args),
    };
    result.unwrap_or_else(|what| {
        eprintln!("load: {what}");
        ExitCode::from(2)
    })
}

fn run(args: RunArgs) -> Result<ExitCode, String> {
    let until = match (args.seconds, args.count) {
        (Some(seconds), None) => Until::Elapsed(Duration::from_secs_f64(seconds)),
        (None, Some(count)) => Until::Count(count),
        _ => return Err("expected one of --seconds and --count".to_owned()),
    };
    let load = Load {
        addr: args.addr,
        connections: args.connections,
        seed: args.seed,
        samples: match args.samples.as_slice() {
            [] => vec![SAMPLES],
            _ => args.samples,
        },
        until,
        pace: match args.rate {
            Some(reports_per_sec) => Pace::Open { reports_per_sec },
            None => Pace::Closed,
        },
        on_error: match args.keep_going {
            true => OnError::Reconnect,
            false => OnError::Stop,
        },
    };
    let failed = |error| format!("{}: {error}", args.journal.display());
    let journal = Journal::create(&args.journal, args.seed).map_err(failed)?;
    let tally = load.run(journal).map_err(failed)?;
    println!("{}", tally_json(&tally));
    Ok(ExitCode::SUCCESS)
}

fn tally_json(tally: &Tally) -> serde_json::Value {
    json!({
        "sent": tally.sent,
        "acknowledged": tally.acknowledged,
        "refused": tally.refused,
        "without_retry_after": tally.without_retry_after,
        "errors": tally.errors,
        "seconds": tally.elapsed.as_secs_f64(),
        "p50_ms": tally.latency_ms(0.5),
        "p99_ms": tally.latency_ms(0.99),
        "p99_9_ms": tally.latency_ms(0.999),
    })
}

fn check(args: &CheckArgs) -> Result<ExitCode, String> {
    let newer = args.newer.as_ref().map(|path| {
        let written = fs::metadata(path).and_then(|metadata| metadata.modified());
        written.map_err(|error| format!("{}: {error}", path.display()))
    });
    let check = Check {
        journals: &args.journal,
        data: &args.data,
        with_open: args.open,
        newer: newer.transpose()?,
        may_lose_ms: args.may_lose_ms,
    };
    let findings = check.run()?;
    for fault in &findings.faults {
        eprintln!("load: {fault}");
    }
    println!("{}", findings_json(&findings));
    Ok(match findings.is_good() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn findings_json(findings: &Findings) -> serde_json::Value {
    json!({
        "segments": findings.segments,
        "lines": findings.lines,
        "acknowledged": findings.acknowledged,
        "unacknowledged": findings.unacknowledged,
        "missing": findings.missing,
        "lost": findings.lost,
        "duplicated": findings.duplicated,
        "foreign": findings.foreign,
        "changed": findings.changed,
        "damaged": findings.damaged,
    })
}
