//! The commit loop of a core: takes batches from the shard and puts them into segments.
//!
//! ```text
//! Step::Commit ─▶ create (if none is open) ─▶ reserve ─▶ compress, write ─▶ sync ─▶ tickets are done
//!                    │ error                     │ error    │ error                      │ Then::Seal
//!                    ▼                           ▼          ▼                            ▼
//!                 refused                  refused, seal  refused, abandon      seal, beside the next
//! ```
//!
//! While one batch syncs, the next gathers: the slower the disk, the larger the batch, the fewer the
//! syncs. After a failure the shard's gate is shut; what had gathered is still tried, and then a probe
//! file every [`Policy::probe_every`] until the disk takes it. An abandoned segment goes to `salvage`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use crate::disk::{Dir, Disk};
use crate::health::Health;
use crate::metrics::core::CoreMetrics;
use crate::rt::{self, JoinHandle, Panicked};
use crate::segment::name::{CoreIndex, SegmentName};
use crate::segment::open::{OpenSegment, OpenSegments};
use crate::segment::recover::PROBE_PREFIX;
use crate::segment::space::reserve_space;
use crate::segment::writer::{self, Abandoned, Encoder, Frame, Reach, WriteError, Writer};
use crate::shard::{Batch, Fate, Reason, Refusal, Shard, Step, Then};
use crate::time::Now;

/// Bytes that a probe reserves and writes.
const PROBE_RESERVE_BYTES: u64 = 1 << 20;
const PROBE_WRITE_BYTES: usize = 4 << 10;

/// Names of abandoned segments that are kept in mind: more than can be given up within a millisecond.
const ABANDONED_MAX: usize = 64;

/// How a core commits.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which core this is.
    pub core: CoreIndex,
    /// How far a commit goes before its tickets are done.
    pub reach: Reach,
    /// Bytes of the disk that are left to others. May change at any time.
    pub free_bytes_min: Rc<Cell<u64>>,
    /// How long to wait after a failure before the disk is tried again.
    pub probe_every: Duration,
}

/// Where a commit loop leaves what others are to know.
pub struct Outlets {
    /// Of all cores.
    pub health: Arc<Health>,
    /// Takes the segments that are given up.
    pub salvage: SyncSender<Abandoned>,
    /// Of this core.
    pub metrics: Arc<CoreMetrics>,
    /// What readers may take of the segments of this core.
    pub open: Arc<OpenSegments>,
}

/// The segment that a core writes, and what readers see of it.
struct Open<D: Disk> {
    writer: Writer<D>,
    shown: Arc<OpenSegment>,
}

/// A core's commit loop and all that it owns.
pub struct CommitLoop<D: Disk, C> {
    policy: Policy,
    disk: Rc<D>,
    clock: C,
    shard: Rc<RefCell<Shard>>,
    health: Arc<Health>,
    salvage: SyncSender<Abandoned>,
    metrics: Arc<CoreMetrics>,
    shown: Arc<OpenSegments>,
    encoder: Encoder,
    scratch: Vec<u8>,
    open: Option<Open<D>>,
    /// The names of the last segments that were given up; at most [`ABANDONED_MAX`].
    abandoned: VecDeque<String>,
    /// At most one seal runs beside the commits.
    sealing: Option<JoinHandle<Result<(), Panicked>>>,
}

impl<D, C> CommitLoop<D, C>
where
    D: Disk + 'static,
    D::File: 'static,
    C: Fn() -> Now,
{
    /// A loop with no segment open.
    pub fn new(
        policy: Policy,
        disk: D,
        clock: C,
        shard: Rc<RefCell<Shard>>,
        outlets: Outlets,
        encoder: Encoder,
    ) -> Self {
        let Outlets {
            health,
            salvage,
            metrics,
            open: shown,
        } = outlets;
        CommitLoop {
            policy,
            disk: Rc::new(disk),
            clock,
            shard,
            health,
            salvage,
            metrics,
            shown,
            encoder,
            scratch: Vec::new(),
            open: None,
            abandoned: VecDeque::new(),
            sealing: None,
        }
    }

    /// Runs until the shard is closed and everything in it has been committed or refused, and every
    /// segment sealed or abandoned.
    pub async fn run(mut self) {
        loop {
            match self.next_step().await {
                Step::Commit(batch) => self.commit(batch).await,
                Step::Seal => self.seal(Reason::Time).await,
                Step::Stop => break,
            }
        }
        self.seal(Reason::Shutdown).await;
        self.finish_seal().await;
    }

    async fn next_step(&self) -> Step {
        loop {
            let now_ms = (self.clock)().monotonic_ms;
            let (step, is_refusing) = {
                let mut shard = self.shard.borrow_mut();
                (shard.next_step(now_ms), shard.awaits_probe())
            };
            let due = match step {
                Ok(step) => return step,
                Err(due) => due,
            };
            let signal = poll_fn(|context| self.shard.borrow_mut().poll_signal(context));
            if is_refusing {
                let waited = rt::timeout(self.policy.probe_every, signal).await;
                if waited.is_none() {
                    self.probe().await;
                }
            } else if let Some(due) = due {
                let wait = Duration::from_millis(due.saturating_sub(now_ms));
                rt::timeout(wait, signal).await;
            } else {
                signal.await;
            }
        }
    }

    async fn commit(&mut self, batch: Batch) {
        let core = self.policy.core;
        self.health.begin_write(core, (self.clock)().monotonic_ms);
        let result = self.try_commit(&batch).await;
        self.health.end_write(core);
        let error = match result {
            Ok(()) => {
                self.metrics.committed.add(1);
                self.metrics.commit_bytes.observe(batch.text.len() as u64);
                self.report_accepting();
                self.shard.borrow_mut().end_commit(batch, Ok(()));
                return;
            }
            Err(error) => error,
        };
        self.metrics.failed_commits.add(1);
        let (why, lines) = (refusal(&error), batch.lines);
        if self.shard.borrow().check_gate() != Err(Refusal::Draining) {
            self.health.refuse(core, why);
        }
        let cause = error.source().map(ToString::to_string);
        match self.shard.borrow_mut().end_commit(batch, Err(why)) {
            Fate::Settled => {
                tracing::error!(core, lines, ?why, error = %error, cause, "batch refused");
            }
            Fate::Kept => {
                tracing::warn!(core, lines, ?why, error = %error, cause, "batch to be tried again");
            }
            Fate::Lost => {
                tracing::error!(core, lines, ?why, error = %error, cause, "reports lost");
            }
        }
    }

    async fn try_commit(&mut self, batch: &Batch) -> Result<(), WriteError> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create(batch).await?,
        };
        let segment = &mut open.writer;
        let text_bytes = batch.text.len();
        let free_bytes_min = self.policy.free_bytes_min.get();
        let reserved = segment
            .reserve(&*self.disk, text_bytes, free_bytes_min)
            .await;
        if let Err(error) = reserved {
            if segment.is_empty() {
                self.abandon(open.writer.abandon());
            } else {
                // What it holds is whole, and its end has space.
                self.end_and_seal(open, Reason::Failure).await;
            }
            return Err(error);
        }
        let commit = writer::Batch {
            text: &batch.text,
            lines: batch.lines,
            reach: self.policy.reach,
            frame: match batch.then {
                Then::KeepOpen => Frame::GoesOn,
                Then::Seal(_) => Frame::Ends,
            },
        };
        let file_bytes = segment.file_bytes();
        let committed = segment
            .commit(&*self.disk, &mut self.encoder, &mut self.scratch, commit)
            .await;
        if committed.is_ok() {
            open.shown.note_committed(segment.file_bytes());
            self.metrics.lines.add(u64::from(batch.lines));
            self.metrics.raw_bytes.add(text_bytes as u64);
            let compressed = segment.file_bytes() - file_bytes;
            self.metrics.compressed_bytes.add(compressed);
        }
        match (committed, batch.then) {
            (Err(error), _) => {
                self.abandon(open.writer.abandon());
                Err(error)
            }
            (Ok(()), Then::KeepOpen) => {
                self.open = Some(open);
                Ok(())
            }
            (Ok(()), Then::Seal(reason)) => {
                self.metrics.flushes(reason).add(1);
                self.seal_beside(open.writer).await;
                Ok(())
            }
        }
    }

    async fn create(&mut self, batch: &Batch) -> Result<Open<D>, WriteError> {
        let mut first = SegmentName {
            time: batch.first,
            core: self.policy.core,
        };
        // Salvage knows a segment by its name: one that it may still have to do with is not used again.
        while self.abandoned.contains(&first.to_string()) {
            first = first.next();
        }
        let writer = Writer::create(&*self.disk, &mut self.encoder, first).await?;
        // Before the first byte of it: what a reader finds in the file, it finds here as well.
        let shown = self.shown.note_created(writer.name());
        if self.policy.reach == Reach::Durable
            && let Err(error) = writer.sync_name(&*self.disk).await
        {
            self.abandon(writer.abandon());
            return Err(error);
        }
        Ok(Open { writer, shown })
    }

    async fn seal(&mut self, reason: Reason) {
        if let Some(open) = self.open.take() {
            let core = self.policy.core;
            self.health.begin_write(core, (self.clock)().monotonic_ms);
            self.end_and_seal(open, reason).await;
            self.health.end_write(core);
        }
    }

    async fn end_and_seal(&mut self, open: Open<D>, reason: Reason) {
        let mut segment = open.writer;
        let file_bytes = segment.file_bytes();
        let ended = segment
            .end(&*self.disk, &mut self.encoder, &mut self.scratch)
            .await;
        match ended {
            Ok(()) => {
                let compressed = segment.file_bytes() - file_bytes;
                self.metrics.compressed_bytes.add(compressed);
                self.metrics.flushes(reason).add(1);
                self.seal_beside(segment).await;
            }
            Err(error) => {
                log_failed_seal(self.policy.core, &error);
                self.abandon(segment.abandon());
            }
        }
    }

    /// Moves an ended segment up while the next commits go on. Waits for the seal before it.
    async fn seal_beside(&mut self, segment: Writer<D>) {
        self.finish_seal().await;
        let disk = Rc::clone(&self.disk);
        let core = self.policy.core;
        let (salvage, metrics) = (self.salvage.clone(), Arc::clone(&self.metrics));
        let shown = Arc::clone(&self.shown);
        self.sealing = Some(rt::spawn(async move {
            let as_found = segment.committed();
            match segment.seal(&*disk).await {
                Ok(sealed) => {
                    shown.note_sealed(&as_found.name);
                    metrics.sealed.add(1);
                    tracing::debug!(
                        core,
                        name = sealed.name,
                        lines = sealed.lines,
                        text_bytes = sealed.text_bytes,
                        file_bytes = sealed.file_bytes,
                        "segment sealed"
                    );
                }
                Err(error) => {
                    log_failed_seal(core, &error);
                    hand_over(&salvage, as_found);
                }
            }
        }));
    }

    async fn finish_seal(&mut self) {
        if let Some(sealing) = self.sealing.take() {
            // A panic in it has been logged; the segment is in `.open` for the next start.
            let _ = sealing.await;
        }
    }

    fn abandon(&mut self, abandoned: Abandoned) {
        if self.abandoned.len() == ABANDONED_MAX {
            self.abandoned.pop_front();
        }
        self.abandoned.push_back(abandoned.name.clone());
        self.metrics.flushes(Reason::Failure).add(1);
        hand_over(&self.salvage, abandoned);
    }

    /// The disk has taken something.
    fn report_accepting(&self) {
        let gate = self.shard.borrow().check_gate();
        if gate == Err(Refusal::Draining) {
            return;
        }
        // Also where the shard was full for a moment, which is no state of the gate.
        self.health.accept(self.policy.core);
        if let Err(why) = gate {
            tracing::info!(core = self.policy.core, ?why, "accepting reports again");
        }
    }

    /// Tries whether the disk would take a segment, and opens the gate if it would.
    async fn probe(&self) {
        let probed = self.try_probe().await;
        if self.shard.borrow().check_gate() == Err(Refusal::Draining) {
            return;
        }
        if let Err(error) = probed {
            let (core, why, cause) = (self.policy.core, refusal_of(&error), error.to_string());
            let was = self.shard.borrow().check_gate();
            if was == Err(why) {
                tracing::debug!(core, ?why, cause, "the disk still refuses a probe file");
            } else {
                tracing::warn!(core, ?why, cause, "the disk refuses a probe file");
            }
            self.health.refuse(core, why);
            self.shard.borrow_mut().refuse(why);
            return;
        }
        self.report_accepting();
        self.shard.borrow_mut().accept();
    }

    async fn try_probe(&self) -> std::io::Result<()> {
        let name = format!("{PROBE_PREFIX}c{:03}", self.policy.core);
        if self.disk.exists(Dir::Open, &name).await? {
            self.disk.remove(Dir::Open, &name).await?;
        }
        let file = self.disk.create(Dir::Open, &name).await?;
        let result = async {
            let free_bytes_min = self.policy.free_bytes_min.get();
            reserve_space(&*self.disk, &file, 0, PROBE_RESERVE_BYTES, free_bytes_min).await?;
            let bytes = vec![0; PROBE_WRITE_BYTES];
            self.disk.write_all_at(&file, bytes, 0).await.0?;
            self.disk.sync_data(&file).await?;
            if self.policy.reach == Reach::Durable {
                self.disk.sync_dir(Dir::Open).await?;
            }
            Ok(())
        }
        .await;
        self.disk.remove(Dir::Open, &name).await?;
        result
    }
}

fn refusal(error: &WriteError) -> Refusal {
    refusal_of(&error.source)
}

fn refusal_of(error: &std::io::Error) -> Refusal {
    if writer::is_disk_full(error) {
        Refusal::DiskFull
    } else {
        Refusal::DiskFailing
    }
}

fn log_failed_seal(core: CoreIndex, error: &WriteError) {
    let cause = error.source().map(ToString::to_string);
    tracing::error!(core, error = %error, cause, "segment not sealed, to be salvaged");
}

fn hand_over(salvage: &SyncSender<Abandoned>, abandoned: Abandoned) {
    if let Err(error) = salvage.try_send(abandoned) {
        // It stays in `.open`, whole up to its last commit; the next start closes it.
        let (TrySendError::Full(segment) | TrySendError::Disconnected(segment)) = &error;
        tracing::warn!(name = segment.name, cause = %error, "segment left to the next start");
    }
}
