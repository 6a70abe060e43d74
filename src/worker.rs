//! What one core runs: its listeners, its connections, its commit loop, and the tick that keeps the
//! connections' deadlines and the date. Here I/O and clocks meet the pure parts.
//!
//! ```text
//! running ──drain──▶ draining ─────────────────────────▶ flushing ──▶ stopped
//! accept, serve      no listener; answers are the last     the shard is closed: the last
//!                    on their connection; idle ones end    commit, the last seal
//! ```
//!
//! A drain ends when no connection is left. After [`Live::drain_ms`] those that wait for their client are
//! cut off; those whose report is being committed are answered when it is, however long the disk takes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, SystemTime};

use futures_channel::oneshot;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::commit::{CommitLoop, Outlets, Policy};
use crate::config::Ack;
use crate::conn::{self, Parts, Peer, Shared};
use crate::disk::{CoreDisk, Fs};
use crate::health::Health;
use crate::http::head::Persistence;
use crate::http::response::HttpDate;
use crate::limit::ConnectionCounts;
use crate::live::{Live, LiveSettings};
use crate::metrics::core::{CoreMetrics, Meter, Nanos};
use crate::rt::net::{Connections, Listener, Owner, Stream, TickMs, is_of_connection};
use crate::rt::{self, Driver, Either, JoinHandle, Once, Panicked, Yielder};
use crate::segment::name::CoreIndex;
use crate::segment::open::OpenSegments;
use crate::segment::writer::{Abandoned, Encoder, Reach};
use crate::shard::{Gather, Limits, Refusal, Shard};
use crate::time::{Now, Timestamp};

/// How exactly deadlines are kept.
const TICK: Duration = Duration::from_millis(250);

/// The same on a core without connections, which then wakes half as often. A core that is late by half of systemd's
/// `WatchdogSec` is reported, so a second of that is too short.
const TICK_IDLE: Duration = Duration::from_millis(500);

/// How long a core with no room for another connection, or no descriptor, leaves the others in the
/// kernel's queue before it looks again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// During a drain a connection may stay idle this long, for the request that its client has sent.
const DRAIN_IDLE_MS: TickMs = 1_000;

/// How long a client may take for an answer that is ready only after a drain was to end.
const CUT_OFF_MS: TickMs = 1_000;

/// With `ACK=buffered` nobody waits for a commit: lines gather to a size that compresses and writes
/// well, and a crash loses at most this much time.
const BUFFERED_BYTES: usize = 256 << 10;
const BUFFERED_AGE_MS: u64 = 1_000;

/// How often a disk that refuses is tried again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// What a worker is started with.
pub struct Setup {
    /// Which core.
    pub core: CoreIndex,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// For all cores the same.
    pub driver: Driver,
    /// Where it accepts.
    pub listeners: Vec<TcpListener>,
    /// Who else has them.
    pub listeners_owner: Owner,
    /// The data directory.
    pub fs: Fs,
    /// Takes the segments it abandons.
    pub salvage: SyncSender<Abandoned>,
    /// Of all cores.
    pub health: Arc<Health>,
    /// When the server started, on the monotonic clock.
    pub started_ms: u64,
    /// What an answer to a report waits for.
    pub ack: Ack,
    /// What may change while it runs.
    pub live: Arc<LiveSettings>,
    /// The open connections of each address, of all cores.
    pub connection_counts: Arc<ConnectionCounts>,
    /// What the core counts and measures.
    pub metrics: Arc<CoreMetrics>,
    /// What readers may take of its segments.
    pub open: Arc<OpenSegments>,
    /// The most connections it keeps open.
    pub connections_max: usize,
    /// What its connections may read into and its shard may hold, together.
    pub held_bytes_max: u64,
    /// When a segment is full.
    pub segment_bytes: u64,
    /// When a segment is old.
    pub segment_ms: u64,
    /// The zstd level.
    pub level: i32,
}

/// Why a worker ended that should not have.
#[derive(Debug)]
pub enum WorkerError {
    /// Something could not be set up.
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Its commit loop panicked.
    Commit(Panicked),
    /// The tasks of a listener or the tick ended by a panic.
    Task(&'static str, Panicked),
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup { what, .. } => write!(f, "cannot set up {what}"),
            Self::Commit(_) => f.write_str("the commit loop panicked"),
            Self::Task(what, _) => write!(f, "the {what} panicked"),
        }
    }
}

impl std::error::Error for WorkerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Setup { source, .. } => Some(source),
            Self::Commit(panicked) | Self::Task(_, panicked) => Some(panicked),
        }
    }
}

fn setup_error(what: &'static str) -> impl FnOnce(io::Error) -> WorkerError {
    move |source| WorkerError::Setup { what, source }
}

/// Both clocks, now.
pub fn now() -> Now {
    let monotonic = clock_gettime(ClockId::Monotonic);
    let secs = monotonic.tv_sec.unsigned_abs();
    Now {
        wall: Timestamp::from_system(SystemTime::now()),
        monotonic_ms: secs * 1000 + monotonic.tv_nsec.unsigned_abs() / 1_000_000,
    }
}

/// The monotonic clock, to measure with.
pub fn now_nanos() -> Nanos {
    let monotonic = clock_gettime(ClockId::Monotonic);
    monotonic.tv_sec.unsigned_abs() * 1_000_000_000 + monotonic.tv_nsec.unsigned_abs()
}

/// Runs a core on this thread until `drain` is sent or dropped, then drains it. `ready` is called once
/// everything is set up, `ended` with how it came out: that the core could not be set up, or that one of
/// its main tasks panicked.
///
/// After a panic this does not return: the ring may still be reading from and writing to buffers that end
/// with it, and the process is about to.
pub fn run(
    setup: Setup,
    ready: impl FnOnce(),
    drain: oneshot::Receiver<()>,
    ended: impl FnOnce(Result<(), WorkerError>),
) {
    let mut cpus = CpuSet::new();
    cpus.set(setup.cpu);
    if let Err(error) = sched_setaffinity(None, &cpus) {
        return ended(Err(setup_error("the CPU")(error.into())));
    }
    let driver = setup.driver;
    let mut ended = Some(ended);
    let ran = rt::run(driver, || async {
        let result = Worker::start_and_run(setup, ready, drain).await;
        let has_panicked = matches!(result, Err(WorkerError::Commit(_) | WorkerError::Task(..)));
        if let Some(ended) = ended.take() {
            ended(result);
        }
        if has_panicked {
            pending::<()>().await;
        }
    });
    if let (Err(error), Some(ended)) = (ran, ended) {
        ended(Err(setup_error("the runtime")(error)));
    }
}

struct Worker {
    core: CoreIndex,
    health: Arc<Health>,
    shared: Rc<Shared>,
    metrics: Arc<CoreMetrics>,
    listeners_owner: Owner,
    live: Arc<LiveSettings>,
    /// What was found there last.
    seen: RefCell<Arc<Live>>,
    /// The commit loop's share of it.
    free_bytes_min: Rc<Cell<u64>>,
    connections_max: usize,
    connection_counts: Arc<ConnectionCounts>,
    /// Whether a connection has been closed for that limit: it is said once.
    is_crowded: Cell<bool>,
    draining: Once,
}

impl Worker {
    async fn start_and_run(
        setup: Setup,
        ready: impl FnOnce(),
        drain: oneshot::Receiver<()>,
    ) -> Result<(), WorkerError> {
        let shard = Rc::new(RefCell::new(Shard::new(shard_limits(&setup))));
        let connections = Connections::new();
        connections.expire(now().monotonic_ms);
        setup.health.note_tick(setup.core, now().monotonic_ms);
        setup
            .metrics
            .connections_max
            .set(setup.connections_max as u64);
        let seen = setup.live.load_full();
        let free_bytes_min = Rc::new(Cell::new(seen.free_bytes_min));
        let yielder = Yielder::new(setup.driver).map_err(setup_error("sockets to yield by"))?;
        let commit = commit_loop(&setup, Rc::clone(&shard), Rc::clone(&free_bytes_min))?;
        let mut listeners = Vec::new();
        for listener in setup.listeners {
            let listener = Listener::from_std(listener, setup.driver);
            listeners.push(listener.map_err(setup_error("a listener"))?);
        }
        let worker = Rc::new(Worker {
            core: setup.core,
            health: Arc::clone(&setup.health),
            connections_max: setup.connections_max,
            connection_counts: setup.connection_counts,
            metrics: Arc::clone(&setup.metrics),
            listeners_owner: setup.listeners_owner,
            live: setup.live,
            seen: RefCell::new(Arc::clone(&seen)),
            free_bytes_min,
            is_crowded: Cell::new(false),
            draining: Once::default(),
            shared: Rc::new(Shared::new(
                Parts {
                    connections,
                    shard,
                    core: setup.core,
                    ack: setup.ack,
                    held_bytes_max: setup.held_bytes_max,
                    health: setup.health,
                    started_ms: setup.started_ms,
                    clock: now,
                    meter: Meter {
                        metrics: setup.metrics,
                        clock: now_nanos,
                    },
                    yielder,
                },
                Rc::new(Live::clone(&seen)),
                HttpDate::from_system(SystemTime::now()),
            )),
        });
        let mut commit = rt::spawn(commit.run());
        let mut tick = rt::spawn(Rc::clone(&worker).tick());
        let mut accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| rt::spawn(Rc::clone(&worker).accept(listener)))
            .collect();
        ready();
        // None of these ends before a drain, but by a panic.
        let work = rt::either(&mut commit, &mut tick);
        let work = rt::either(rt::first_ended(&mut accepting), work);
        match rt::either(drain, work).await {
            Either::First(_) => worker.drain(accepting, commit).await,
            Either::Second(Either::First(ended)) => Err(unexpected(ended, "listener")),
            Either::Second(Either::Second(Either::First(ended))) => {
                Err(unexpected(ended, "commit loop"))
            }
            Either::Second(Either::Second(Either::Second(ended))) => Err(unexpected(ended, "tick")),
        }
    }

    async fn accept(self: Rc<Self>, listener: Listener) {
        // Said once when it begins, not at every try.
        let mut is_exhausted = false;
        while !self.draining.has_happened() {
            if self.shared.parts.connections.count() >= self.connections_max {
                if !is_exhausted {
                    let limit = self.connections_max;
                    tracing::warn!(core = self.core, limit, "as many connections as may be");
                }
                is_exhausted = true;
                rt::timeout(ACCEPT_PAUSE, self.draining.wait()).await;
                continue;
            }
            let waited = match rt::either(self.draining.wait(), listener.readable()).await {
                Either::First(()) => break,
                Either::Second(result) => result,
            };
            match waited.and_then(|()| self.accept_waiting(&listener, self.connections_max)) {
                Ok(()) => {
                    let open = self.shared.parts.connections.count();
                    is_exhausted = is_exhausted && open >= self.connections_max;
                }
                Err(error) => {
                    if !is_exhausted {
                        let cause = error.to_string();
                        tracing::warn!(core = self.core, cause, "accepting no connections");
                    }
                    is_exhausted = true;
                    rt::timeout(ACCEPT_PAUSE, self.draining.wait()).await;
                }
            }
        }
        if self.listeners_owner == Owner::ServiceManager {
            // What the kernel has queued waits there for the next server.
            return;
        }
        // What the kernel has queued would be reset when the listener closes. It is no more than a
        // backlog, and nothing comes after it.
        if let Err(error) = self.accept_waiting(&listener, usize::MAX) {
            let cause = error.to_string();
            tracing::warn!(
                core = self.core,
                cause,
                "queued connections are not accepted"
            );
        }
    }

    /// Accepts until nobody waits or so many connections are open.
    fn accept_waiting(&self, listener: &Listener, connections_max: usize) -> io::Result<()> {
        if self.shared.parts.connections.count() == 0 {
            self.refresh();
        }
        let live = self.shared.live();
        while self.shared.parts.connections.count() < connections_max {
            let (socket, peer) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.metrics.accept_errors.add(1);
                    match is_of_connection(&error) {
                        // The client has gone again.
                        true => continue,
                        false => return Err(error),
                    }
                }
            };
            self.metrics.connections.add(1);
            // All clients of a proxy share its address.
            let counted = if live.proxies.contains(peer) {
                None
            } else {
                let counts = &self.connection_counts;
                let Some(counted) = counts.open(peer.into(), live.connections_per_ip) else {
                    self.note_crowded(live.connections_per_ip);
                    continue;
                };
                Some(counted)
            };
            let stream = Stream::from_accepted(socket, &self.shared.parts.connections)?;
            let peer = Peer {
                address: peer,
                counted,
            };
            rt::spawn(conn::serve(stream, peer, Rc::clone(&self.shared)));
        }
        Ok(())
    }

    /// Refreshes what the core knows of time and settings, again and again. Never ends.
    async fn tick(self: Rc<Self>) {
        let connections = &self.shared.parts.connections;
        loop {
            let began = now_nanos();
            let (period, occupied) = match connections.count() {
                // The first one wants its deadlines kept.
                0 => (
                    TICK_IDLE,
                    rt::timeout(TICK_IDLE, connections.occupied()).await,
                ),
                _ => (TICK, rt::timeout(TICK, pending()).await),
            };
            if occupied.is_none() {
                let due = began + period.as_nanos() as Nanos;
                self.metrics.lag.observe(now_nanos().saturating_sub(due));
                self.shared.shrink();
            }
            self.refresh();
        }
    }

    /// Keeps the connections' deadlines, the date, the settings and what metrics say of now.
    fn refresh(&self) {
        let shared = &self.shared;
        shared.date.set(HttpDate::from_system(SystemTime::now()));
        let now_ms = now().monotonic_ms;
        shared.parts.connections.expire(now_ms);
        self.health.note_tick(self.core, now_ms);
        self.renew_settings();
        let open = shared.parts.connections.count() as u64;
        self.metrics.open_connections.set(open);
        let ways = shared.ways();
        self.metrics.usual_reports.set(ways.usual);
        self.metrics.unusual_reports.set(ways.unusual);
        let shard = shared.parts.shard.borrow();
        self.metrics.buffer_bytes.set(shard.held_bytes());
        self.metrics.waiting_reports.set(shard.held_lines());
    }

    fn renew_settings(&self) {
        let live = self.live.load();
        if Arc::ptr_eq(&live, &self.seen.borrow()) {
            return;
        }
        self.free_bytes_min.set(live.free_bytes_min);
        self.shared.set_live(Rc::new(Live::clone(&live)));
        self.seen.replace(Arc::clone(&live));
    }

    async fn drain(
        &self,
        accepting: Vec<JoinHandle<Result<(), Panicked>>>,
        commit: JoinHandle<Result<(), Panicked>>,
    ) -> Result<(), WorkerError> {
        self.health.refuse(self.core, Refusal::Draining);
        self.shared.stay.set(Persistence::Close);
        self.draining.happen();
        for accepting in accepting {
            accepting
                .await
                .map_err(|panicked| WorkerError::Task("listener", panicked))?;
        }
        let drain_ms = self.shared.live().drain_ms;
        let connections = &self.shared.parts.connections;
        connections.end_idle_at(connections.now() + DRAIN_IDLE_MS.min(drain_ms));
        let drained = rt::timeout(Duration::from_millis(drain_ms), connections.empty()).await;
        if drained.is_none() {
            let count = connections.count();
            tracing::warn!(core = self.core, count, "connections cut off");
            connections.abort_waits(CUT_OFF_MS);
            connections.empty().await;
        }
        self.shared.parts.shard.borrow_mut().close();
        let committed = commit.await;
        self.log_counts();
        committed.map_err(WorkerError::Commit)
    }

    fn note_crowded(&self, limit: u32) {
        self.metrics.refused_connections.add(1);
        if !self.is_crowded.replace(true) {
            let core = self.core;
            tracing::warn!(core, limit, "an address has as many connections as it may");
        }
    }

    fn log_counts(&self) {
        let refused = self.metrics.refused.iter();
        let refused: Vec<String> = refused
            .filter(|(_, count)| *count > 0)
            .map(|(code, count)| format!("{code}={count}"))
            .collect();
        let (core, stored) = (self.core, self.metrics.stored.get());
        tracing::info!(core, stored, refused = refused.join(" "), "core stopped");
    }
}

fn unexpected(ended: Result<(), Panicked>, what: &'static str) -> WorkerError {
    match ended {
        Err(panicked) => WorkerError::Task(what, panicked),
        Ok(()) => unreachable!("the {what} goes on until the shard is closed"),
    }
}

fn shard_limits(setup: &Setup) -> Limits {
    Limits {
        held_bytes_max: setup.held_bytes_max,
        segment_bytes: setup.segment_bytes,
        segment_ms: setup.segment_ms,
        gather: match setup.ack {
            Ack::Durable | Ack::Written => Gather::WhileDiskIsBusy,
            Ack::Buffered => Gather::Until {
                bytes: BUFFERED_BYTES,
                age_ms: BUFFERED_AGE_MS,
            },
        },
    }
}

type CoreCommitLoop = CommitLoop<CoreDisk, fn() -> Now>;

fn commit_loop(
    setup: &Setup,
    shard: Rc<RefCell<Shard>>,
    free_bytes_min: Rc<Cell<u64>>,
) -> Result<CoreCommitLoop, WorkerError> {
    let thread_name = format!("disk-{}", setup.core);
    let meter = Meter {
        metrics: Arc::clone(&setup.metrics),
        clock: now_nanos,
    };
    let disk = CoreDisk::start(setup.fs.clone(), setup.driver, thread_name, meter);
    let disk = disk.map_err(setup_error("the blocking thread"))?;
    let encoder = Encoder::new(setup.level).map_err(setup_error("the encoder"))?;
    let policy = Policy {
        core: setup.core,
        reach: match setup.ack {
            Ack::Durable => Reach::Durable,
            Ack::Written | Ack::Buffered => Reach::Written,
        },
        free_bytes_min,
        probe_every: PROBE_EVERY,
    };
    let outlets = Outlets {
        health: Arc::clone(&setup.health),
        salvage: setup.salvage.clone(),
        metrics: Arc::clone(&setup.metrics),
        open: Arc::clone(&setup.open),
    };
    let clock: fn() -> Now = now;
    Ok(CommitLoop::new(
        policy, disk, clock, shard, outlets, encoder,
    ))
}
