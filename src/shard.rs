//! One core's lines on their way to the disk: batches, tickets, and what may be held.
//!
//! Pure: no I/O and no clock. A connection appends a line and gets a [`Ticket`]; the commit loop takes
//! [`Step`]s and reports how they ended; the ticket then wakes its connection, once.
//!
//! ```text
//! append ─▶ gathering ─(full, or its segment is)─▶ queue ─▶ next_step ─▶ Commit(batch) ─▶ end_commit
//!               └────────(the disk is free)─────────────────▲                              │
//!                                                                   tickets done, buffer reused
//! gate:  Open ──end_commit(Err)──▶ Refusing(why) ──end_commit(Ok), or a probe──▶ Open
//! ```
//!
//! Which lines share a segment is planned here, as they arrive: a segment ends at the line that fills it
//! or when it is old, and always between two batches.
//!
//! Within a segment the time of arrival never goes back: it is the wall clock at the segment's first line
//! plus what a monotonic clock has counted since. A wall clock that was set makes the next line begin a
//! new segment.
//!
//! Invariant: `held_bytes <= held_bytes_max` in every state, so a slow disk becomes refusals.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::segment::writer::Then;
use crate::time::{Now, Timestamp};

/// A batch takes no line beyond this: the longest stretch of text that is committed at once.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The wall clock may drift this far from a segment's own clock before a new segment begins.
const CLOCK_STEP_MS: u64 = 1000;

/// Buffers kept for reuse: one gathers while one is committed.
const SPARE_MAX: usize = 2;

/// Why a shard takes no line, or could not commit one that it had taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It holds as much as it may until the disk catches up.
    ShardFull,
    /// The disk has no space, or less than it must keep.
    DiskFull,
    /// The disk refused a write or a sync.
    DiskFailing,
    /// The server is stopping.
    Draining,
}

/// When lines that wait are to be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gather {
    /// As soon as the disk is free: clients wait for it.
    WhileDiskIsBusy,
    /// When there are this many bytes, or the first line is this old: clients have had their answer.
    Until {
        /// Bytes of text.
        bytes: usize,
        /// Milliseconds.
        age_ms: u64,
    },
}

/// What a shard is to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes that may be held and not committed.
    pub held_bytes_max: u64,
    /// A segment that has this many bytes of text is sealed.
    pub segment_bytes: u64,
    /// A segment is sealed this long after its first line.
    pub segment_ms: u64,
    /// When to commit.
    pub gather: Gather,
}

/// Lines for one commit.
#[derive(Debug)]
pub struct Batch {
    /// Whole lines.
    pub text: Vec<u8>,
    /// How many.
    pub lines: u32,
    /// When the first one was received.
    pub first: Timestamp,
    /// What is to follow the commit.
    pub then: Then,
    begun_ms: u64,
    tickets: Vec<usize>,
}

impl Batch {
    fn empty() -> Batch {
        Batch {
            text: Vec::new(),
            lines: 0,
            first: Timestamp::MAX,
            then: Then::KeepOpen,
            begun_ms: 0,
            tickets: Vec::new(),
        }
    }
}

/// What the commit loop is to do next.
#[derive(Debug)]
pub enum Step {
    /// Commit the batch, then call [`Shard::end_commit`].
    Commit(Batch),
    /// Seal the open segment, if there is one: it is old, or its clock is wrong.
    Seal,
    /// Seal the open segment and stop.
    Stop,
}

/// The segment that the gathering lines will go to.
#[derive(Clone, Copy, Debug)]
struct Planned {
    bytes: u64,
    begun: Now,
}

impl Planned {
    fn age_ms(self, now: Now) -> u64 {
        now.monotonic_ms.saturating_sub(self.begun.monotonic_ms)
    }

    fn received_at(self, now: Now) -> Timestamp {
        Timestamp::from_ms(self.begun.wall.ms() + self.age_ms(now))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Refusing(Refusal),
    Closed,
}

#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Done(Result<(), Refusal>),
    /// Its connection has gone; the commit frees it.
    Orphaned,
}

/// The lines of one core that are not committed.
#[derive(Debug)]
pub struct Shard {
    limits: Limits,
    gathering: Batch,
    queue: VecDeque<Batch>,
    spare: Vec<Batch>,
    /// Bytes of text in `gathering`, in `queue` and out for a commit.
    held_bytes: u64,
    planned: Option<Planned>,
    /// The open segment is to be sealed before `gathering` is committed.
    seal_pending: bool,
    gate: Gate,
    slots: Slab<Slot>,
    signal: Signal,
}

/// Wakes the commit loop.
#[derive(Debug, Default)]
struct Signal {
    is_set: bool,
    waker: Option<Waker>,
}

impl Signal {
    fn set(&mut self) {
        self.is_set = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Shard {
    /// An empty shard that takes lines.
    pub fn new(limits: Limits) -> Shard {
        Shard {
            limits,
            gathering: Batch::empty(),
            queue: VecDeque::new(),
            spare: Vec::new(),
            held_bytes: 0,
            planned: None,
            seal_pending: false,
            gate: Gate::Open,
            slots: Slab::new(),
            signal: Signal::default(),
        }
    }

    /// Whether a line would be taken now, were there room for it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn check_gate(&self) -> Result<(), Refusal> {
        match self.gate {
            Gate::Open => Ok(()),
            Gate::Refusing(why) => Err(why),
            Gate::Closed => Err(Refusal::Draining),
        }
    }

    /// Takes a line of at most `line_bytes_max` bytes, which `write` appends with the time it is given.
    /// Returns the key of its ticket.
    fn append(
        &mut self,
        now: Now,
        line_bytes_max: usize,
        write: impl FnOnce(Timestamp, &mut Vec<u8>),
    ) -> Result<usize, Refusal> {
        self.check_gate()?;
        if self.held_bytes + line_bytes_max as u64 > self.limits.held_bytes_max {
            return Err(Refusal::ShardFull);
        }
        // Before the batch is closed for its size: its segment may end here too.
        let received_at = self.plan(now);
        let had = self.gathering.text.len();
        if had > 0 && had + line_bytes_max > BATCH_BYTES_MAX {
            self.close_batch(Then::KeepOpen);
        }
        let batch = &mut self.gathering;
        if batch.lines == 0 {
            batch.first = received_at;
            batch.begun_ms = now.monotonic_ms;
        }
        let had = batch.text.len();
        write(received_at, &mut batch.text);
        let line_bytes = batch.text.len() - had;
        assert!(
            (1..=line_bytes_max).contains(&line_bytes),
            "a line has the length it was announced with"
        );
        batch.lines += 1;
        let key = self.slots.insert(Slot::Waiting(None));
        batch.tickets.push(key);
        let is_first = batch.lines == 1;
        self.held_bytes += line_bytes as u64;
        let gathered = self.gathering.text.len();
        let wakes = match self.limits.gather {
            Gather::WhileDiskIsBusy => is_first,
            Gather::Until { bytes, .. } => {
                is_first || (gathered >= bytes && gathered - line_bytes < bytes)
            }
        };
        if wakes {
            self.signal.set();
        }
        let planned = self.planned.as_mut().expect("`plan` has set it");
        planned.bytes += line_bytes as u64;
        if planned.bytes >= self.limits.segment_bytes {
            self.close_batch(Then::Seal);
        }
        Ok(key)
    }

    /// The line's time of arrival, by the clock of the segment it will go to.
    fn plan(&mut self, now: Now) -> Timestamp {
        if let Some(planned) = self.planned {
            let received_at = planned.received_at(now);
            let is_old = planned.age_ms(now) >= self.limits.segment_ms;
            let is_wrong = received_at.ms().abs_diff(now.wall.ms()) > CLOCK_STEP_MS;
            if !is_old && !is_wrong {
                return received_at;
            }
            self.end_segment();
        }
        self.planned = Some(Planned {
            bytes: 0,
            begun: now,
        });
        now.wall
    }

    /// Makes what has gathered the last of its segment.
    fn end_segment(&mut self) {
        if self.gathering.lines > 0 {
            self.close_batch(Then::Seal);
        } else if self.planned.take().is_some() {
            self.seal_pending = true;
            self.signal.set();
        }
    }

    fn close_batch(&mut self, then: Then) {
        self.gathering.then = then;
        if then == Then::Seal {
            self.planned = None;
        }
        let empty = self.spare.pop().unwrap_or_else(Batch::empty);
        let batch = mem::replace(&mut self.gathering, empty);
        self.queue.push_back(batch);
        self.signal.set();
    }

    /// What the commit loop is to do now; else the time by which it is to ask again, if it must.
    ///
    /// # Errors
    ///
    /// Nothing is to be done now.
    pub fn next_step(&mut self, monotonic_ms: u64) -> Result<Step, Option<u64>> {
        if !self.seal_pending
            && let Some(batch) = self.queue.pop_front()
        {
            return Ok(Step::Commit(batch));
        }
        if mem::take(&mut self.seal_pending) {
            return Ok(Step::Seal);
        }
        let segment_due = self
            .planned
            .map(|planned| planned.begun.monotonic_ms + self.limits.segment_ms);
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= monotonic_ms);
        let is_closed = self.gate == Gate::Closed;
        if self.gathering.lines > 0 {
            let gathered_due = match self.limits.gather {
                Gather::Until { bytes, age_ms } if self.gathering.text.len() < bytes => {
                    Some(self.gathering.begun_ms + age_ms)
                }
                _ => None,
            };
            if gathered_due.is_none() || is_due(gathered_due) || is_due(segment_due) || is_closed {
                let is_last = is_due(segment_due) || is_closed;
                self.close_batch(if is_last { Then::Seal } else { Then::KeepOpen });
                return self.queue.pop_front().map(Step::Commit).ok_or(None);
            }
            return Err([gathered_due, segment_due].into_iter().flatten().min());
        }
        if is_closed {
            return Ok(Step::Stop);
        }
        if is_due(segment_due) {
            self.planned = None;
            self.spare.clear();
            return Ok(Step::Seal);
        }
        Err(segment_due)
    }

    /// Tells every ticket of the batch how its commit ended, and sets the gate by it.
    pub fn end_commit(&mut self, mut batch: Batch, result: Result<(), Refusal>) {
        self.held_bytes -= batch.text.len() as u64;
        for key in batch.tickets.drain(..) {
            self.settle(key, result);
        }
        match result {
            Ok(()) => self.accept(),
            Err(why) => {
                self.refuse(why);
                // The segment has ended with the failure: what is held begins the next one.
                let held = self.queue.iter().chain([&self.gathering]);
                let bytes = held.fold(0, |bytes, batch| match batch.then {
                    Then::Seal => 0,
                    Then::KeepOpen => bytes + batch.text.len() as u64,
                });
                self.planned = self
                    .planned
                    .filter(|_| bytes > 0)
                    .map(|planned| Planned { bytes, ..planned });
                self.seal_pending = false;
            }
        }
        batch.text.clear();
        batch.lines = 0;
        batch.then = Then::KeepOpen;
        if self.spare.len() < SPARE_MAX {
            self.spare.push(batch);
        }
    }

    fn settle(&mut self, key: usize, result: Result<(), Refusal>) {
        let slot = &mut self.slots[key];
        match mem::replace(slot, Slot::Done(result)) {
            Slot::Waiting(Some(waker)) => waker.wake(),
            Slot::Waiting(None) => (),
            Slot::Orphaned | Slot::Done(_) => {
                self.slots.remove(key);
            }
        }
    }

    /// Takes lines again: the disk does.
    pub fn accept(&mut self) {
        if self.gate != Gate::Closed {
            self.gate = Gate::Open;
        }
    }

    /// Takes no lines until the next [`Shard::accept`].
    pub fn refuse(&mut self, why: Refusal) {
        if self.gate != Gate::Closed {
            self.gate = Gate::Refusing(why);
        }
    }

    /// Takes no lines from now on; what is held is committed, then [`Step::Stop`] comes.
    pub fn close(&mut self) {
        self.gate = Gate::Closed;
        self.signal.set();
    }

    /// Bytes of text that are held and not committed.
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Whether anything waits for a commit; batches that are out for one do not count.
    pub fn has_waiting(&self) -> bool {
        !self.queue.is_empty() || self.gathering.lines > 0
    }

    /// Ready when the shard may have a new [`Step`]: since the last time this was ready.
    pub fn poll_signal(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if mem::take(&mut self.signal.is_set) {
            return Poll::Ready(());
        }
        self.signal.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

/// The promise of an answer to one line. Dropped early, it gives up its place; the line is committed
/// all the same.
#[derive(Debug)]
pub struct Ticket {
    shard: Rc<RefCell<Shard>>,
    key: usize,
    state: TicketState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TicketState {
    Held,
    Returned,
}

impl Ticket {
    /// Appends a line to the shard, as [`Shard`] describes, for the ticket of its commit.
    ///
    /// # Errors
    ///
    /// The shard takes no line now.
    pub fn append(
        shard: &Rc<RefCell<Shard>>,
        now: Now,
        line_bytes_max: usize,
        write: impl FnOnce(Timestamp, &mut Vec<u8>),
    ) -> Result<Ticket, Refusal> {
        let key = shard.borrow_mut().append(now, line_bytes_max, write)?;
        Ok(Ticket {
            shard: Rc::clone(shard),
            key,
            state: TicketState::Held,
        })
    }
}

impl Future for Ticket {
    type Output = Result<(), Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shard = self.shard.borrow_mut();
        let slot = &mut shard.slots[self.key];
        if let Slot::Done(result) = *slot {
            shard.slots.remove(self.key);
            drop(shard);
            self.state = TicketState::Returned;
            return Poll::Ready(result);
        }
        *slot = Slot::Waiting(Some(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.state == TicketState::Returned {
            return;
        }
        let mut shard = self.shard.borrow_mut();
        match shard.slots[self.key] {
            Slot::Done(_) => {
                shard.slots.remove(self.key);
            }
            _ => shard.slots[self.key] = Slot::Orphaned,
        }
    }
}
