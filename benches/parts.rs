//! What `load.sh` and `idle.sh` need beside the server, the floor and the load generator: reports to post,
//! the cost of the work that no server can do without, and clients that are idle.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, BufWriter, Read, Seek, Write, stdin, stdout};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Instant;

use argh::FromArgs;
use netwatch_server::report::Validator;
use rustix::time::{ClockId, clock_gettime};

mod limits;

#[path = "../tests/support/reports.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod reports;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of reports in a file: many times the compressor's window, which would find them again.
const BODIES_BYTES: usize = 16 << 20;

/// How often a file's reports are checked, parsed and compressed.
const PASSES: usize = 5;

/// The parts of a load measurement that are not the server or the load generator.
#[derive(FromArgs)]
struct Flags {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs)]
#[argh(subcommand)]
enum Command {
    Bodies(Bodies),
    Limits(Limits),
    Sync(Sync),
    Idle(Idle),
}

/// Prints 16 MiB of made-up reports, one on a line.
#[derive(FromArgs)]
#[argh(subcommand, name = "bodies")]
struct Bodies {
    /// samples of each of the 13 hosts: 1, 20 and 100 make 2, 13 and 62 KB
    #[argh(positional)]
    samples: usize,
}

/// Prints the CPU time in microseconds that a report of the file takes: to check as the server does, to parse
/// with simd-json, and to compress.
#[derive(FromArgs)]
#[argh(subcommand, name = "limits")]
struct Limits {
    /// reports, one on a line
    #[argh(positional)]
    file: String,
}

/// Writes so many bytes to the end of a file and syncs it, again and again; prints the median time of both together
/// in microseconds, and the 99th percentile.
#[derive(FromArgs)]
#[argh(subcommand, name = "sync")]
struct Sync {
    /// directory of the file, which is removed at the end
    #[argh(positional)]
    dir: PathBuf,

    /// bytes to write each time
    #[argh(positional)]
    bytes: usize,

    /// how often
    #[argh(positional)]
    count: usize,

    /// write over zeros that are synced before, as small commits are
    #[argh(switch)]
    over_zeros: bool,
}

/// Posts the file's first report once on each of so many connections, says `idle`, and keeps them open
/// until its input ends.
#[derive(FromArgs)]
#[argh(subcommand, name = "idle")]
struct Idle {
    /// address and port of the server
    #[argh(positional)]
    server: String,

    /// connections
    #[argh(positional)]
    count: usize,

    /// reports, one on a line
    #[argh(positional)]
    file: String,
}

fn main() -> io::Result<()> {
    let flags: Flags = argh::from_env();
    match flags.command {
        Command::Bodies(command) => bodies(&command),
        Command::Limits(command) => limits(&command),
        Command::Sync(command) => sync(&command),
        Command::Idle(command) => idle(&command),
    }
}

fn bodies(command: &Bodies) -> io::Result<()> {
    let mut generator = reports::Generator::new(1, command.samples);
    let mut out = BufWriter::new(stdout().lock());
    let mut bytes = 0;
    let mut client = 0;
    while bytes < BODIES_BYTES {
        let report = generator.next_report(&format!("client-{client}"));
        out.write_all(&report)?;
        out.write_all(b"\n")?;
        bytes += report.len();
        client += 1;
    }
    out.flush()
}

fn limits(command: &Limits) -> io::Result<()> {
    let text = fs::read(&command.file)?;
    let reports: Vec<&[u8]> = text.trim_ascii_end().split(|&byte| byte == b'\n').collect();
    let mut validator = Validator::new();
    let mut json = limits::Json::new();
    let mut zstd = limits::Zstd::new(1);
    let check_us = median_us(&reports, |report| {
        black_box(validator.check(report)).expect("it is a report");
    });
    assert_eq!(
        validator.ways().unusual,
        0,
        "browsers write no such reports"
    );
    let parse_us = median_us(&reports, |report| json.parse(report));
    let compress_us = median_us(&reports, |report| zstd.compress(report));
    println!("{check_us:.2} {parse_us:.2} {compress_us:.2}");
    Ok(())
}

/// CPU time per report, of the pass in the middle: what others run on the machine changes it little, and
/// about as much as it changes the server's.
fn median_us(reports: &[&[u8]], mut work: impl FnMut(&[u8])) -> f64 {
    let cpu_us = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
    };
    let mut passes = [(); PASSES].map(|()| {
        let began = cpu_us();
        for report in reports {
            work(report);
        }
        (cpu_us() - began) / reports.len() as f64
    });
    passes.sort_by(f64::total_cmp);
    passes[PASSES / 2]
}

/// What a commit asks of the disk, and nothing of what the server does around it.
fn sync(command: &Sync) -> io::Result<()> {
    let path = command.dir.join("sync");
    let mut file = File::create_new(&path)?;
    // What does not compress, as segments do not.
    let mut bytes = vec![0; command.bytes];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    if command.over_zeros {
        let len = (command.bytes * command.count) as u64;
        io::copy(&mut io::repeat(0).take(len), &mut file)?;
        file.sync_all()?;
        file.rewind()?;
    }
    let mut times_us = Vec::new();
    for _ in 0..command.count {
        let began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        times_us.push(began.elapsed().as_micros());
    }
    fs::remove_file(&path)?;
    times_us.sort_unstable();
    let p99 = (command.count * 99).div_ceil(100) - 1;
    println!("{} {}", times_us[command.count / 2], times_us[p99]);
    Ok(())
}

fn idle(command: &Idle) -> io::Result<()> {
    let text = fs::read_to_string(&command.file)?;
    let report = text.lines().next().unwrap_or_default();
    let request = format!(
        "POST /api/v1/reports HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{report}",
        report.len()
    );
    let mut sockets = Vec::new();
    for _ in 0..command.count {
        let mut socket = TcpStream::connect(&command.server)?;
        socket.write_all(request.as_bytes())?;
        let mut answer = [0; 1024];
        let len = socket.read(&mut answer)?;
        if !answer[..len].starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other("the server did not answer 200"));
        }
        sockets.push(socket);
    }
    println!("idle");
    io::copy(&mut stdin(), &mut io::sink())?;
    Ok(())
}
