//! The process: data directory, recovery, sockets, the threads at the side, one worker thread per core; then it
//! waits for signals and for workers, tells the service manager how things are, drains, and joins.
//!
//! ```text
//! SIGHUP ─▶ the settings are read again
//! first SIGTERM or SIGINT ─▶ every worker drains ─▶ all have ended ─▶ Ok
//! second signal ───────────────────────────────────────────────────▶ exit code 1, at once
//! a worker ends by itself ─▶ the others drain ─▶ all have ended ───▶ RunError::Worker
//! ```

mod reload;
mod sockets;

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use self::reload::Settings;
use self::sockets::Sockets;
use crate::admin::{self, Admin};
use crate::api::status;
use crate::config::{Config, Effective, Sources};
use crate::disk::{Fs, OpenError};
use crate::health::{Health, Verdict};
use crate::housekeeping::{self, Figures};
use crate::limit::ConnectionCounts;
use crate::live::{Live, LiveSettings, ms};
use crate::log::Log;
use crate::metrics::core::CoreMetrics;
use crate::metrics::queries::Queries;
use crate::metrics::{Inputs, Metrics, Reloads};
use crate::query::sources::Store;
use crate::rt::{Driver, Panicked};
use crate::salvage::{self, Tally};
use crate::segment::name::CoreIndex;
use crate::segment::open::OpenSegments;
use crate::segment::writer::Abandoned;
use crate::systemd::Manager;
use crate::time::Now;
use crate::worker::{self, Setup, WorkerError};

/// Descriptors kept for files, rings, threads and sockets of its own: so many for the process, and so many a core.
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
    /// The address for the admin listener cannot be listened on.
    BindAdmin {
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
            Self::BindAdmin { address, .. } => write!(f, "cannot listen on {address} (ADMIN_ADDR)"),
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
            | Self::BindAdmin { source, .. }
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
    /// The server is to end.
    Stop,
    /// The settings are to be read again.
    Reload,
    Ready,
    Ended(CoreIndex, Result<(), WorkerEnd>),
}

/// What the server has of the program around it.
pub struct Surroundings<'a> {
    /// Where the settings are read again.
    pub sources: &'a Sources,
    /// The sockets that the service manager has handed over.
    pub inherited: Vec<TcpListener>,
    /// Where events go.
    pub log: &'a Log,
}

/// Runs the server until a signal ends it.
///
/// # Errors
///
/// It could not start, or a worker died.
pub fn run(effective: &Effective, surroundings: Surroundings<'_>) -> Result<(), RunError> {
    let config = &effective.config;
    let started = worker::now();
    let (events, inbox) = mpsc::channel();
    watch_signals(events.clone()).map_err(setup_error("signals"))?;
    let fs = Fs::lock(&config.data_dir).map_err(RunError::Open)?;
    let recovery = Arc::<Tally>::default();
    let left = salvage::recover_all(&fs, &recovery).map_err(|source| RunError::Recover {
        root: fs.root().display().to_string(),
        source,
    })?;
    let place = Place::find(config, surroundings.inherited)?;
    let live = Arc::new(LiveSettings::from_pointee(Live::from_config(config)));
    let figures = Arc::<Figures>::default();
    let wall_clock = || worker::now().wall;
    let housekeeper = housekeeping::start(
        fs.clone(),
        Arc::clone(&live),
        Arc::clone(&figures),
        wall_clock,
    );
    let housekeeper = housekeeper.map_err(setup_error("the housekeeping thread"))?;
    let (salvage_queue, abandoned) = mpsc::sync_channel(salvage::QUEUE_MAX);
    let salvage = salvage::start(fs.clone(), left, abandoned, Arc::clone(&recovery));
    let salvage = salvage.map_err(setup_error("the salvage thread"))?;

    let shared = Shared {
        fs,
        started,
        health: Arc::new(Health::new(place.cpus.len())),
        live,
        cores: place.cpus.iter().map(|_| Arc::default()).collect(),
        open: place.cpus.iter().map(|_| Arc::default()).collect(),
    };
    let reloads = Arc::<Reloads>::default();
    if let Some((listener, _)) = &place.admin {
        let queries = Arc::<Queries>::default();
        let metrics = Metrics::new(Inputs {
            cores: shared.cores.clone(),
            health: Arc::clone(&shared.health),
            driver: place.driver,
            recovery,
            figures,
            queries: Arc::clone(&queries),
            reloads: Arc::clone(&reloads),
            live: Arc::clone(&shared.live),
            clock: worker::now,
            started: started.wall,
        });
        let admin = Admin {
            live: Arc::clone(&shared.live),
            metrics,
            store: Store {
                fs: shared.fs.clone(),
                open: shared.open.clone(),
            },
            queries,
            clock: worker::now,
        };
        admin::start(listener, admin).map_err(setup_error("the admin threads"))?;
    }
    let settings = Settings {
        sources: surroundings.sources,
        log: surroundings.log,
        effective: effective.clone(),
        admin: place.admin.as_ref().map(|(_, address)| *address),
        live: Arc::clone(&shared.live),
        housekeeper: &housekeeper,
        reloads,
    };
    let mut supervisor = Supervisor {
        inbox,
        workers: Workers::default(),
        manager: Manager::from_env(),
        fed_ms: started.monotonic_ms,
        health: Arc::clone(&shared.health),
        driver: place.driver,
        settings,
        phase: Phase::Starting,
    };
    let started_event = place.describe(config, shared.fs.root().display().to_string());
    supervisor
        .workers
        .start_all(config, place, shared, &salvage_queue, &events)?;
    drop::<(SyncSender<Abandoned>, Sender<Event>)>((salvage_queue, events));
    if supervisor.wait_until_ready() {
        started_event();
        supervisor.tell_ready();
    }
    supervisor.wait_until_ended()?;
    // Every core has ended: what it abandoned gets a last try, the rest waits for the next start.
    if salvage.join().is_err() {
        tracing::error!("the salvage thread panicked");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Where the server runs: what it has of the machine.
struct Place {
    /// One for each core.
    cpus: Vec<usize>,
    driver: Driver,
    sockets: Sockets,
    admin: Option<(TcpListener, SocketAddr)>,
    /// The most of one core.
    connections_max: usize,
}

impl Place {
    fn find(config: &Config, inherited: Vec<TcpListener>) -> Result<Place, RunError> {
        let mut cpus = cpus().map_err(setup_error("the CPUs"))?;
        cpus.truncate(config.workers.unwrap_or(cpus.len()));
        let sockets = match inherited.is_empty() {
            true => sockets::bind_all(config, cpus.len())?,
            false => sockets::take_over(inherited, cpus.len())
                .map_err(setup_error("the sockets of the service manager"))?,
        };
        let admin = bind_admin(config)?;
        let (driver, why_not) = Driver::detect();
        if let Some(why) = why_not {
            tracing::warn!(%driver, why, "no io_uring");
        }
        let connections_max = connections_max(cpus.len()).map_err(setup_error("descriptors"))?;
        Ok(Place {
            cpus,
            driver,
            sockets,
            admin,
            connections_max,
        })
    }

    /// What is to be logged once the server takes reports.
    fn describe(&self, config: &Config, root: String) -> impl Fn() + use<> {
        let mut addresses = self.sockets.addresses.clone();
        addresses.sort();
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let admin = self.admin.as_ref().map(|(_, address)| address.to_string());
        let (driver, workers) = (self.driver, self.cpus.len());
        let ack = config.ack;
        move || {
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                addresses = addresses.join(","),
                admin = admin.as_deref().unwrap_or("off"),
                %driver,
                workers,
                %ack,
                data_dir = root,
                "started"
            );
        }
    }
}

/// What the cores share.
struct Shared {
    fs: Fs,
    started: Now,
    health: Arc<Health>,
    live: Arc<LiveSettings>,
    /// Of each core, its own.
    cores: Vec<Arc<CoreMetrics>>,
    /// The same.
    open: Vec<Arc<OpenSegments>>,
}

fn bind_admin(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, RunError> {
    let Some(address) = config.admin_addr else {
        return Ok(None);
    };
    let bound = sockets::bind_alone(address).and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound
        .map(Some)
        .map_err(|source| RunError::BindAdmin { address, source })
}

/// Sends an event at each SIGHUP and at the first signal to end, from a thread of its own. A second one to end
/// ends the process where it stands: nobody may be there to take an event, in recovery or behind a disk that
/// does not answer.
fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let has_come = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        // In this order: the first signal finds the flag unset, then sets it.
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&has_come))?;
        flag::register(signal, Arc::clone(&has_come))?;
    }
    let mut signals = Signals::new([SIGHUP, SIGTERM, SIGINT])?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let event = match signal {
                    SIGHUP => Event::Reload,
                    _ => Event::Stop,
                };
                // The receiver is gone when `run` has ended by itself.
                if events.send(event).is_err() {
                    return;
                }
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

/// The worker threads.
#[derive(Default)]
struct Workers {
    /// Emptied by the drain.
    drains: Vec<oneshot::Sender<()>>,
    running: usize,
    failure: Option<RunError>,
}

impl Workers {
    fn start_all(
        &mut self,
        config: &Config,
        place: Place,
        shared: Shared,
        salvage: &SyncSender<Abandoned>,
        events: &Sender<Event>,
    ) -> Result<(), RunError> {
        let connection_counts = Arc::new(ConnectionCounts::new());
        let by_core = place.cpus.into_iter().zip(place.sockets.by_core);
        let shown = shared.cores.into_iter().zip(shared.open);
        for ((core, (cpu, listeners)), (metrics, open)) in (0..).zip(by_core).zip(shown) {
            let setup = Setup {
                core,
                cpu,
                driver: place.driver,
                listeners,
                listeners_owner: place.sockets.owner,
                fs: shared.fs.clone(),
                salvage: SyncSender::clone(salvage),
                health: Arc::clone(&shared.health),
                started_ms: shared.started.monotonic_ms,
                ack: config.ack,
                live: Arc::clone(&shared.live),
                connection_counts: Arc::clone(&connection_counts),
                metrics,
                open,
                connections_max: place.connections_max,
                held_bytes_max: config.shard_bytes_max,
                segment_bytes: config.flush_bytes,
                segment_ms: ms(config.flush_secs),
                level: config.compression_level,
            };
            self.start(setup, events.clone())?;
        }
        Ok(())
    }

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

    fn drain(&mut self) {
        tracing::info!("draining");
        for drain in self.drains.drain(..) {
            // A worker that has ended drains no more.
            let _ = drain.send(());
        }
    }
}

/// Waits for what happens to the server, and tells the service manager.
struct Supervisor<'a> {
    inbox: Receiver<Event>,
    workers: Workers,
    manager: Manager,
    /// When the manager was told last.
    fed_ms: u64,
    health: Arc<Health>,
    driver: Driver,
    settings: Settings<'a>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    /// The settings are to be read again once it has started.
    StartingToReload,
    Running,
    Draining,
}

impl Supervisor<'_> {
    /// Whether every worker has been set up; if not, they drain.
    fn wait_until_ready(&mut self) -> bool {
        let mut waiting = self.workers.running;
        while waiting > 0 {
            match self.inbox.recv() {
                Ok(Event::Ready) => waiting -= 1,
                Ok(Event::Reload) => self.phase = Phase::StartingToReload,
                Ok(Event::Stop) => {
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

    fn tell_ready(&mut self) {
        let status = self.status();
        self.manager.ready(&status);
        if std::mem::replace(&mut self.phase, Phase::Running) == Phase::StartingToReload {
            self.reload();
        }
    }

    fn wait_until_ended(mut self) -> Result<(), RunError> {
        while self.workers.running > 0 {
            match self.next_event() {
                Some(Event::Ready) => (),
                Some(Event::Reload) => self.reload(),
                Some(Event::Stop) => self.drain(),
                Some(Event::Ended(core, end)) => self.note_end(core, end),
                None => break,
            }
        }
        self.workers.failure.map_or(Ok(()), Err)
    }

    /// The next event, told the service manager how things are until then; `None` if there is nobody left to
    /// send one.
    fn next_event(&mut self) -> Option<Event> {
        loop {
            let Some(period) = self.manager.period() else {
                return self.inbox.recv().ok();
            };
            let now_ms = worker::now().monotonic_ms;
            let left_ms = (self.fed_ms + ms(period)).saturating_sub(now_ms);
            if left_ms == 0 {
                // Also when one event follows the other.
                let (last_tick, status) = (self.health.last_tick(), self.status());
                self.manager.feed(last_tick, now_ms, &status);
                self.fed_ms = now_ms;
                continue;
            }
            match self.inbox.recv_timeout(Duration::from_millis(left_ms)) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => (),
            }
        }
    }

    /// How things are, in words.
    fn status(&self) -> String {
        if self.phase == Phase::Draining {
            return "draining".to_owned();
        }
        let now_ms = worker::now().monotonic_ms;
        let verdicts: Vec<Verdict> = self.health.verdicts(now_ms).collect();
        let refusing = verdicts
            .iter()
            .find(|verdict| **verdict != Verdict::Accepting);
        match refusing {
            None => {
                let (count, driver) = (verdicts.len(), self.driver);
                format!("accepting reports on {count} cores ({driver})")
            }
            Some(verdict) => format!("refusing reports: {}", status::word(*verdict)),
        }
    }

    fn reload(&mut self) {
        if self.phase == Phase::Draining {
            tracing::warn!("settings not reloaded, the server is stopping");
            return;
        }
        self.manager.reloading();
        self.settings.reload();
        self.tell_ready();
    }

    fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.settings.housekeeper.stop();
        self.manager.stopping();
        self.workers.drain();
    }

    fn note_end(&mut self, core: CoreIndex, end: Result<(), WorkerEnd>) {
        self.workers.running -= 1;
        self.health.note_end(core);
        if let Err(source) = end {
            let failure = RunError::Worker { core, source };
            self.workers.failure.get_or_insert(failure);
            if !self.workers.drains.is_empty() {
                self.drain();
            }
        }
    }
}
