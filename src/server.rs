//! The process: data directory, recovery, sockets, one worker thread per core; then it waits for signals
//! and for workers, drains, and joins.
//!
//! ```text
//! first SIGTERM or SIGINT ─▶ every worker drains ─▶ all have ended ─▶ Ok
//! second signal ───────────────────────────────────────────────────▶ exit code 1, at once
//! a worker ends by itself ─▶ the others drain ─▶ all have ended ───▶ RunError::Worker
//! ```

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::config::{Config, Source};
use crate::conn::Deadlines;
use crate::disk::{Fs, OpenError};
use crate::health::Health;
use crate::limit::{ConnectionCounts, RateLimiter};
use crate::rt::net::{Share, bind_listener};
use crate::rt::{Driver, Panicked};
use crate::salvage;
use crate::segment::name::CoreIndex;
use crate::segment::writer::Abandoned;
use crate::worker::{self, Setup, WorkerError};

/// How often a port in use is tried, and the time between two tries.
const PORT_TRIES: u32 = 100;
const PORT_PAUSE: Duration = Duration::from_millis(10);

/// Descriptors kept for files, rings and threads: so many for the process, and so many a core.
const FILES_PER_PROCESS: u64 = 64;
const FILES_PER_CORE: u64 = 32;
/// A core keeps at most and at least so many connections, whatever the limit on descriptors.
const CONNECTIONS_MAX: u64 = 65_536;
const CONNECTIONS_MIN: u64 = 8;

/// Why the server did not start, or did not end as asked.
#[derive(Debug)]
pub enum RunError {
    /// The data directory cannot be used.
    Open(OpenError),
    /// `.open` cannot be listed.
    Recover {
        /// The data directory.
        root: String,
        /// Why not.
        source: io::Error,
    },
    /// An address cannot be listened on.
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// None of the default addresses can be listened on, as this machine has no such family.
    NoAddress,
    /// Something of the process cannot be set up.
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A worker ended by itself.
    Worker {
        /// Which.
        core: CoreIndex,
        /// Why.
        source: WorkerEnd,
    },
}

/// Why a worker thread ended.
#[derive(Debug)]
pub enum WorkerEnd {
    /// It says why.
    Error(WorkerError),
    /// It panicked outside of its tasks.
    Panicked(Panicked),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(_) => f.write_str("cannot use the data directory"),
            Self::Recover { root, .. } => write!(f, "cannot list .open in {root}"),
            Self::Bind { address, .. } => write!(f, "cannot listen on {address}"),
            Self::NoAddress => f.write_str("cannot listen on IPv4 or IPv6: there is neither"),
            Self::Setup { what, .. } => write!(f, "cannot set up {what}"),
            Self::Worker { core, .. } => write!(f, "worker of core {core} ended"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(source) => Some(source),
            Self::Recover { source, .. }
            | Self::Bind { source, .. }
            | Self::Setup { source, .. } => Some(source),
            Self::Worker { source, .. } => Some(source),
            Self::NoAddress => None,
        }
    }
}

impl fmt::Display for WorkerEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panicked(_) => f.write_str("the thread panicked"),
        }
    }
}

impl Error for WorkerEnd {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            Self::Panicked(panicked) => Some(panicked),
        }
    }
}

fn setup_error(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Setup { what, source }
}

enum Event {
    Signal,
    Ready,
    Ended(CoreIndex, Result<(), WorkerEnd>),
}

/// Runs the server until a signal ends it.
///
/// # Errors
///
/// It could not start, or a worker died.
pub fn run(config: &Config) -> Result<(), RunError> {
    let started_ms = worker::now().monotonic_ms;
    let (events, inbox) = mpsc::channel();
    watch_signals(events.clone()).map_err(setup_error("signals"))?;
    let fs = Fs::lock(&config.data_dir).map_err(RunError::Open)?;
    let left = salvage::recover_all(&fs).map_err(|source| RunError::Recover {
        root: fs.root().display().to_string(),
        source,
    })?;
    let cpus = cpus().map_err(setup_error("the CPUs"))?;
    let count = config.workers.unwrap_or(cpus.len()).min(cpus.len());
    let sockets = bind_all(config, count)?;
    let (driver, why_not) = Driver::detect();
    if let Some(why) = why_not {
        tracing::warn!(%driver, why, "no io_uring");
    }
    let connections_max = connections_max(count).map_err(setup_error("descriptors"))?;
    let health = Arc::new(Health::new(count));
    let (salvage_queue, abandoned) = mpsc::sync_channel(salvage::QUEUE_MAX);
    let salvage = salvage::start(fs.clone(), left, abandoned);
    let salvage = salvage.map_err(setup_error("the salvage thread"))?;

    let mut workers = Workers {
        inbox,
        drains: Vec::new(),
        running: 0,
        failure: None,
    };
    let rate = config
        .rate_per_ip
        .map(|rate| Arc::new(RateLimiter::new(rate)));
    let connection_counts = Arc::new(ConnectionCounts::new());
    let mut addresses = sockets.addresses;
    for ((core, cpu), listeners) in (0..).zip(cpus).zip(sockets.by_core) {
        let setup = Setup {
            core,
            cpu,
            driver,
            listeners,
            fs: fs.clone(),
            salvage: SyncSender::clone(&salvage_queue),
            health: Arc::clone(&health),
            started_ms,
            ack: config.ack,
            origins: config.cors_origins.clone(),
            deadlines: Deadlines {
                idle_ms: ms(config.idle_secs),
                head_ms: ms(config.head_secs),
                body_ms: ms(config.body_secs),
                body_bytes_per_sec: config.body_rate_min,
                write_ms: ms(config.write_secs),
            },
            rate: rate.clone(),
            connection_counts: Arc::clone(&connection_counts),
            connections_per_ip: config.connections_per_ip,
            proxies: config.trusted_proxies.clone(),
            counters: Arc::default(),
            connections_max,
            held_bytes_max: config.shard_bytes_max,
            segment_bytes: config.flush_bytes,
            segment_ms: ms(config.flush_secs),
            level: config.compression_level,
            free_bytes_min: config.min_free_bytes,
            drain_ms: ms(config.shutdown_secs),
        };
        workers.start(setup, events.clone())?;
    }
    drop::<(SyncSender<Abandoned>, Sender<Event>)>((salvage_queue, events));
    if workers.wait_until_ready() {
        addresses.sort();
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            addresses = addresses.join(","),
            %driver,
            workers = count,
            ack = %config.ack,
            data_dir = %fs.root().display(),
            "started"
        );
    }
    workers.wait_until_ended()?;
    // Every core has ended: what it abandoned gets a last try, the rest waits for the next start.
    if salvage.join().is_err() {
        tracing::error!("the salvage thread panicked");
    }
    tracing::info!("stopped");
    Ok(())
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Sends an event at the first signal, from a thread of its own. A second one ends the process where it
/// stands: nobody may be there to take an event, in recovery or behind a disk that does not answer.
fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let has_come = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, then sets it.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&has_come))?;
        flag::register(signal, Arc::clone(&has_come))?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                // The receiver is gone when `run` has ended by itself.
                let _ = events.send(Event::Signal);
            }
        })?;
    Ok(())
}

/// The CPUs that this process may run on.
fn cpus() -> io::Result<Vec<usize>> {
    let mask = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&cpu| mask.is_set(cpu))
        .collect())
}

struct Sockets {
    addresses: Vec<SocketAddr>,
    by_core: Vec<Vec<TcpListener>>,
}

/// Binds every address once per core.
fn bind_all(config: &Config, cores: usize) -> Result<Sockets, RunError> {
    let mut sockets = Sockets {
        addresses: Vec::new(),
        by_core: (0..cores).map(|_| Vec::new()).collect(),
    };
    let mut port = config.port;
    for &ip in &config.host.addresses {
        match bind_address(SocketAddr::new(ip, port), &mut sockets.by_core) {
            Ok(address) => {
                // Port 0 is decided once, for all addresses.
                port = address.port();
                sockets.addresses.push(address);
            }
            Err(error) if config.host.source == Source::Default && is_absent(ip, &error) => {
                let cause = error.to_string();
                tracing::warn!(address = %ip, cause, "address family is not there");
            }
            Err(source) => {
                let address = SocketAddr::new(ip, port);
                return Err(RunError::Bind { address, source });
            }
        }
    }
    match sockets.addresses.is_empty() {
        true => Err(RunError::NoAddress),
        false => Ok(sockets),
    }
}

fn is_absent(ip: IpAddr, error: &io::Error) -> bool {
    let no_family = rustix::io::Errno::AFNOSUPPORT.raw_os_error();
    let absent = error.kind() == io::ErrorKind::AddrNotAvailable;
    ip.is_ipv6() && (absent || error.raw_os_error() == Some(no_family))
}

fn bind_address(address: SocketAddr, by_core: &mut [Vec<TcpListener>]) -> io::Result<SocketAddr> {
    if address.port() != 0 {
        // A stranger that shares its port as well would silently take half of the connections.
        drop(bind_when_free(address, || thread::sleep(PORT_PAUSE))?);
    }
    let mut address = address;
    for listeners in by_core {
        let listener = bind_listener(address, Share::WithOtherCores)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(address)
}

/// Binds an address that may be about to be free: after a process was killed, the kernel takes down its
/// rings, and with them the listeners they waited for, some milliseconds after the process has gone.
fn bind_when_free(address: SocketAddr, mut pause: impl FnMut()) -> io::Result<TcpListener> {
    for _ in 1..PORT_TRIES {
        match bind_listener(address, Share::Alone) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => pause(),
            result => return result,
        }
    }
    bind_listener(address, Share::Alone)
}

/// Raises the limit on descriptors as far as it goes; the connections that each core may then keep.
fn connections_max(cores: usize) -> io::Result<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    let cores = cores as u64;
    let files = limit.current.unwrap_or(u64::MAX);
    let kept = FILES_PER_PROCESS + FILES_PER_CORE * cores;
    let per_core = files.saturating_sub(kept) / cores;
    Ok(per_core.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX) as usize)
}

struct Workers {
    inbox: Receiver<Event>,
    /// Emptied by the drain.
    drains: Vec<oneshot::Sender<()>>,
    running: usize,
    failure: Option<RunError>,
}

impl Workers {
    fn start(&mut self, setup: Setup, events: Sender<Event>) -> Result<(), RunError> {
        let (drain, drained) = oneshot::channel();
        let core = setup.core;
        let work = move || {
            let ready = || drop(events.send(Event::Ready));
            // The receiver is gone when `run` could not start all workers.
            let end = |end| drop(events.send(Event::Ended(core, end)));
            let ended = |result: Result<(), WorkerError>| end(result.map_err(WorkerEnd::Error));
            let worked = catch_unwind(AssertUnwindSafe(|| {
                worker::run(setup, ready, drained, ended);
            }));
            if let Err(payload) = worked {
                let panicked = Panicked::from_payload(&*payload);
                end(Err(WorkerEnd::Panicked(panicked)));
            }
        };
        let thread = thread::Builder::new().name(format!("core-{core}"));
        thread.spawn(work).map_err(setup_error("a worker thread"))?;
        self.drains.push(drain);
        self.running += 1;
        Ok(())
    }

    /// Whether every worker has been set up; if not, they drain.
    fn wait_until_ready(&mut self) -> bool {
        let mut waiting = self.running;
        while waiting > 0 {
            match self.inbox.recv() {
                Ok(Event::Ready) => waiting -= 1,
                Ok(Event::Signal) => {
                    self.drain();
                    return false;
                }
                Ok(Event::Ended(core, end)) => {
                    self.note_end(core, end);
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn wait_until_ended(mut self) -> Result<(), RunError> {
        while self.running > 0 {
            match self.inbox.recv() {
                Ok(Event::Ready) => (),
                Ok(Event::Signal) => self.drain(),
                Ok(Event::Ended(core, end)) => self.note_end(core, end),
                Err(_) => break,
            }
        }
        self.failure.map_or(Ok(()), Err)
    }

    fn drain(&mut self) {
        tracing::info!("draining");
        for drain in self.drains.drain(..) {
            // A worker that has ended drains no more.
            let _ = drain.send(());
        }
    }

    fn note_end(&mut self, core: CoreIndex, end: Result<(), WorkerEnd>) {
        self.running -= 1;
        if let Err(source) = end {
            self.failure
                .get_or_insert(RunError::Worker { core, source });
            if !self.drains.is_empty() {
                self.drain();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_waited_for_but_not_for_ever() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let holder = bind_listener(address, Share::Alone).expect("binds");
        let address = holder.local_addr().expect("is bound");
        let mut pauses = 0;
        let error = bind_when_free(address, || pauses += 1).expect_err("is in use");
        assert_eq!(
            (error.kind(), pauses),
            (io::ErrorKind::AddrInUse, PORT_TRIES - 1)
        );
        let mut holder = Some(holder);
        bind_when_free(address, || drop(holder.take())).expect("is free after a pause");
    }
}
