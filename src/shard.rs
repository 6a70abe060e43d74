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
//! new segment. From one segment to the next it goes back only where the clock was set back by more than
//! `CLOCK_STEP_MS`: what is less is waited for, with the time of the last line.
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

use crate::time::{Now, Timestamp};

/// A batch takes no line beyond this but those of one body, which are committed together however long they
/// are. Room that each of a core's few batches has from the start. Some 10 ms of work, a few times a sync.
pub const BATCH_BYTES_MAX: usize = 2 << 20;

/// The wall clock may drift this far from a segment's own clock before a new segment begins, and be this far behind
/// the last line without an earlier time for the next one.
const CLOCK_STEP_MS: u64 = 1000;

/// Buffers kept for reuse, until a segment is sealed for its age: one gathers and one is committed, more
/// where reports are large.
const SPARE_MAX: usize = 4;

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

/// Why a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has as many bytes of lines as it may.
    Size,
    /// It is old, or the wall clock was set.
    Time,
    /// The server stops.
    Shutdown,
    /// The disk would not take more.
    Failure,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 4] = [
        Reason::Size,
        Reason::Time,
        Reason::Shutdown,
        Reason::Failure,
    ];

    /// As metrics spell it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Size => "size",
            Reason::Time => "time",
            Reason::Shutdown => "shutdown",
            Reason::Failure => "failure",
        }
    }
}

/// What follows a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Its segment stays open.
    KeepOpen,
    /// It is the last of its segment.
    Seal(Reason),
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

/// What a connection has to append: one report, or those of one body.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    /// How many; not 0.
    pub count: u32,
    /// Their bytes, with line breaks.
    pub bytes: usize,
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
            text: Vec::with_capacity(BATCH_BYTES_MAX),
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

/// What became of a batch whose commit has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its clients know how it ended.
    Settled,
    /// Its clients have had their answer before: it is held for another try.
    Kept,
    /// Its clients have had their answer before, and there will be no other try.
    Lost,
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
    /// The lines that they are.
    held_lines: u64,
    planned: Option<Planned>,
    /// When the last line was received.
    latest: Timestamp,
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
            held_lines: 0,
            planned: None,
            latest: Timestamp::from_ms(0),
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

    /// Takes lines which `write` appends with the time it is given, all to one commit. Returns the key of
    /// their ticket.
    fn append(
        &mut self,
        now: Now,
        lines: Lines,
        write: impl FnOnce(Timestamp, &mut Vec<u8>),
    ) -> Result<usize, Refusal> {
        self.check_gate()?;
        if self.held_bytes + lines.bytes as u64 > self.limits.held_bytes_max {
            return Err(Refusal::ShardFull);
        }
        // Before the batch is closed for its size: its segment may end here too.
        let planned_at = self.plan(now);
        let received_at = self.not_back(planned_at);
        self.latest = received_at;
        let had = self.gathering.text.len();
        if had > 0 && had + lines.bytes > BATCH_BYTES_MAX {
            self.close_batch(Then::KeepOpen);
        }
        let batch = &mut self.gathering;
        let is_first = batch.lines == 0;
        if is_first {
            batch.first = received_at;
            batch.begun_ms = now.monotonic_ms;
        }
        let had = batch.text.len();
        batch.text.reserve(lines.bytes);
        write(received_at, &mut batch.text);
        let bytes = batch.text.len() - had;
        assert_eq!(
            bytes, lines.bytes,
            "lines have the length they were announced with"
        );
        batch.lines += lines.count;
        let key = self.slots.insert(Slot::Waiting(None));
        batch.tickets.push(key);
        self.held_bytes += bytes as u64;
        self.held_lines += u64::from(lines.count);
        let gathered = self.gathering.text.len();
        let wakes = match self.limits.gather {
            Gather::WhileDiskIsBusy => is_first,
            Gather::Until { bytes: enough, .. } => {
                is_first || (gathered >= enough && gathered - bytes < enough)
            }
        };
        if wakes {
            self.signal.set();
        }
        let planned = self.planned.as_mut().expect("`plan` has set it");
        planned.bytes += bytes as u64;
        if planned.bytes >= self.limits.segment_bytes {
            self.close_batch(Then::Seal(Reason::Size));
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

    /// This time, or that of the last line where a clock is a little behind it: the clocks of two segments are read
    /// in whole milliseconds each, and NTP slows a clock down.
    fn not_back(&self, time: Timestamp) -> Timestamp {
        let behind_ms = self.latest.ms().saturating_sub(time.ms());
        match behind_ms <= CLOCK_STEP_MS {
            true => time.max(self.latest),
            false => time,
        }
    }

    /// Makes what has gathered the last of its segment.
    fn end_segment(&mut self) {
        if self.gathering.lines > 0 {
            self.close_batch(Then::Seal(Reason::Time));
        } else if self.planned.take().is_some() {
            // What it has is in the queue, kept for another try, or has left the shard.
            match self.queue.back_mut() {
                Some(last) => last.then = Then::Seal(Reason::Time),
                None => self.seal_pending = true,
            }
            self.signal.set();
        }
    }

    fn close_batch(&mut self, then: Then) {
        self.gathering.then = then;
        if then != Then::KeepOpen {
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
        if self.awaits_probe() {
            return Err(None);
        }
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
                self.close_batch(match (is_due(segment_due), is_closed) {
                    (true, _) => Then::Seal(Reason::Time),
                    (false, true) => Then::Seal(Reason::Shutdown),
                    (false, false) => Then::KeepOpen,
                });
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

    /// Tells every ticket of the batch how its commit ended, and sets the gate by it. Lines that were
    /// answered before their commit are kept after a failure, for another try in another segment.
    pub fn end_commit(&mut self, mut batch: Batch, result: Result<(), Refusal>) -> Fate {
        for key in batch.tickets.drain(..) {
            self.settle(key, result);
        }
        if let (Err(why), Gather::Until { .. }) = (result, self.limits.gather)
            && self.gate != Gate::Closed
        {
            self.refuse(why);
            // Its segment has ended, and another begins with it. What follows in the plan follows still;
            // where a seal was to follow, it is due behind this batch.
            if mem::take(&mut self.seal_pending) {
                batch.then = Then::Seal(Reason::Time);
            }
            self.queue.push_front(batch);
            return Fate::Kept;
        }
        self.held_bytes -= batch.text.len() as u64;
        self.held_lines -= u64::from(batch.lines);
        match result {
            Ok(()) => self.accept(),
            Err(why) => {
                self.refuse(why);
                // The segment has ended with the failure: what is held begins the next one.
                let held = self.queue.iter().chain([&self.gathering]);
                let bytes = held.fold(0, |bytes, batch| match batch.then {
                    Then::Seal(_) => 0,
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
        // The lines of one body may have taken more; that goes back to the allocator.
        if self.spare.len() < SPARE_MAX && batch.text.capacity() <= BATCH_BYTES_MAX {
            self.spare.push(batch);
        }
        match (result, self.limits.gather) {
            (Err(_), Gather::Until { .. }) => Fate::Lost,
            _ => Fate::Settled,
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

    /// The lines that are held and not committed.
    pub fn held_lines(&self) -> u64 {
        self.held_lines
    }

    /// Whether nothing is to be done before the disk is known to take writes again. Lines whose clients
    /// wait are tried without: they are refused, or show that it does.
    pub fn awaits_probe(&self) -> bool {
        let is_waited_for = self.limits.gather == Gather::WhileDiskIsBusy;
        let has_waiting = !self.queue.is_empty() || self.gathering.lines > 0;
        matches!(self.gate, Gate::Refusing(_)) && !(is_waited_for && has_waiting)
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
    /// Appends lines to the shard, as [`Shard`] describes, for the ticket of their commit. `write` gets the
    /// time of their arrival, and where to append.
    ///
    /// # Errors
    ///
    /// The shard takes no lines now.
    pub fn append(
        shard: &Rc<RefCell<Shard>>,
        now: Now,
        lines: Lines,
        write: impl FnOnce(Timestamp, &mut Vec<u8>),
    ) -> Result<Ticket, Refusal> {
        let key = shard.borrow_mut().append(now, lines, write)?;
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

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;
    use crate::report::reports::Random;

    const WALL_MS: u64 = 1_772_169_274_123;
    const LIMITS: Limits = Limits {
        held_bytes_max: 64 << 20,
        segment_bytes: 100,
        segment_ms: 60_000,
        gather: Gather::WhileDiskIsBusy,
    };

    fn at(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now {
            wall: Timestamp::from_ms(WALL_MS + wall_ms),
            monotonic_ms,
        }
    }

    fn shared(limits: Limits) -> Rc<RefCell<Shard>> {
        Rc::new(RefCell::new(Shard::new(limits)))
    }

    /// A line of this many bytes, its break included.
    fn append(shard: &Rc<RefCell<Shard>>, now: Now, bytes: usize) -> Result<Ticket, Refusal> {
        Ticket::append(shard, now, Lines { count: 1, bytes }, |_, text| {
            text.resize(text.len() + bytes - 1, b'x');
            text.push(b'\n');
        })
    }

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn poll(ticket: &mut Ticket, wakes: &Arc<Wakes>) -> Poll<Result<(), Refusal>> {
        let waker = Waker::from(Arc::clone(wakes));
        Pin::new(ticket).poll(&mut Context::from_waker(&waker))
    }

    /// All that the shard has to do at once, in words, each commit ending well.
    fn steps(shard: &Rc<RefCell<Shard>>, monotonic_ms: u64) -> Vec<String> {
        let mut steps = Vec::new();
        loop {
            let step = shard.borrow_mut().next_step(monotonic_ms);
            match step {
                Ok(Step::Commit(batch)) => {
                    let at_ms = batch.first.ms() - WALL_MS;
                    steps.push(format!("{} at {at_ms}, {:?}", batch.lines, batch.then));
                    shard.borrow_mut().end_commit(batch, Ok(()));
                }
                Ok(Step::Seal) => steps.push("seal".to_owned()),
                Ok(Step::Stop) => {
                    steps.push("stop".to_owned());
                    return steps;
                }
                Err(_) => return steps,
            }
        }
    }

    #[test]
    fn which_lines_share_a_segment() {
        /// Lines of 30 bytes at these times, wall and monotonic; what is committed after all of them.
        #[track_caller]
        fn check(lines: &[(u64, u64)], asked_ms: u64, expected: &[&str]) {
            let shard = shared(LIMITS);
            for &(wall_ms, monotonic_ms) in lines {
                let ticket = append(&shard, at(wall_ms, monotonic_ms), 30);
                drop(ticket.expect("there is room"));
            }
            assert_eq!(steps(&shard, asked_ms), expected);
            assert_eq!(shard.borrow().held_bytes(), 0);
            assert!(shard.borrow().slots.is_empty());
        }
        check(&[], 0, &[]);
        check(&[(0, 0)], 0, &["1 at 0, KeepOpen"]);
        // By bytes: the line that fills it is its last.
        check(&[(0, 0); 3], 0, &["3 at 0, KeepOpen"]);
        check(&[(0, 0); 4], 0, &["4 at 0, Seal(Size)"]);
        check(&[(0, 0); 5], 0, &["4 at 0, Seal(Size)", "1 at 0, KeepOpen"]);
        // By age: of the first line, on the monotonic clock.
        let old = &["2 at 0, Seal(Time)", "1 at 60000, KeepOpen"];
        check(&[(0, 0), (59_999, 59_999), (60_000, 60_000)], 60_000, old);
        check(&[(0, 0)], 59_999, &["1 at 0, KeepOpen"]);
        check(&[(0, 0)], 60_000, &["1 at 0, Seal(Time)"]);
        // By a wall clock that was set, back or forward, but not by one that drifts.
        check(&[(1000, 0), (0, 0)], 0, &["2 at 1000, KeepOpen"]);
        check(&[(0, 0), (1000, 0)], 0, &["2 at 0, KeepOpen"]);
        let back = &["1 at 1001, Seal(Time)", "1 at 0, KeepOpen"];
        check(&[(1001, 0), (0, 0)], 0, back);
        let forward = &["1 at 0, Seal(Time)", "1 at 1001, KeepOpen"];
        check(&[(0, 0), (1001, 0)], 0, forward);
    }

    #[test]
    fn times_go_on_from_one_segment_to_the_next() {
        // Full with each line, and the wall clock behind the one before by some milliseconds, or set back.
        let limits = Limits {
            segment_bytes: 30,
            ..LIMITS
        };
        let shard = shared(limits);
        let times = [5000, 4999, 5001, 4001, 4000, 4002].map(|wall_ms| {
            drop(append(&shard, at(wall_ms, 0), 30));
            let step = shard.borrow_mut().next_step(0);
            match step {
                Ok(Step::Commit(batch)) => {
                    let first_ms = batch.first.ms() - WALL_MS;
                    shard.borrow_mut().end_commit(batch, Ok(()));
                    first_ms
                }
                step => panic!("{step:?}"),
            }
        });
        assert_eq!(times, [5000, 5000, 5001, 5001, 4000, 4002]);
    }

    #[test]
    fn a_segment_that_is_committed_already_is_sealed_before_the_next() {
        #[track_caller]
        fn check(second: Now, expected: &[&str]) {
            let shard = shared(LIMITS);
            drop(append(&shard, at(5000, 0), 30));
            assert_eq!(steps(&shard, 0), ["1 at 5000, KeepOpen"]);
            drop(append(&shard, second, 30));
            assert_eq!(steps(&shard, second.monotonic_ms), expected);
        }
        check(at(5500, 500), &["1 at 5500, KeepOpen"]);
        check(at(0, 500), &["seal", "1 at 0, KeepOpen"]);
        check(at(9000, 500), &["seal", "1 at 9000, KeepOpen"]);
        check(at(65_000, 60_000), &["seal", "1 at 65000, KeepOpen"]);
    }

    #[test]
    fn an_idle_segment_is_sealed_in_its_time() {
        let shard = shared(LIMITS);
        drop(append(&shard, at(0, 10), 30));
        assert_eq!(steps(&shard, 10), ["1 at 0, KeepOpen"]);
        let next_step = |now_ms| shard.borrow_mut().next_step(now_ms);
        assert!(matches!(next_step(11), Err(Some(60_010))));
        assert!(matches!(next_step(60_010), Ok(Step::Seal)));
        assert!(matches!(next_step(60_011), Err(None)));
    }

    #[test]
    fn batches_end_at_their_limit_and_at_lines() {
        let limits = Limits {
            segment_bytes: u64::MAX,
            ..LIMITS
        };
        let shard = shared(limits);
        for _ in 0..10 {
            drop(append(&shard, at(0, 0), 1 << 19));
        }
        let expected = ["4 at 0, KeepOpen", "4 at 0, KeepOpen", "2 at 0, KeepOpen"];
        assert_eq!(steps(&shard, 0), expected);
    }

    #[test]
    fn a_full_batch_stays_in_its_segment_when_that_ends() {
        let limits = Limits {
            segment_bytes: u64::MAX,
            ..LIMITS
        };
        for (next, at_ms) in [(at(0, 9), 0), (at(70_000, 70_000), 70_000)] {
            let shard = shared(limits);
            for _ in 0..4 {
                drop(append(&shard, at(5000, 0), 1 << 19));
            }
            drop(append(&shard, next, 1 << 19));
            let expected = [
                "4 at 5000, Seal(Time)".to_owned(),
                format!("1 at {at_ms}, KeepOpen"),
            ];
            assert_eq!(steps(&shard, next.monotonic_ms), expected);
        }
    }

    #[test]
    fn lines_nobody_waits_for_gather_to_a_size_or_an_age() {
        let limits = Limits {
            gather: Gather::Until {
                bytes: 70,
                age_ms: 1000,
            },
            ..LIMITS
        };
        let shard = shared(limits);
        let next_step = |now_ms| shard.borrow_mut().next_step(now_ms);
        for now_ms in [10, 20] {
            drop(append(&shard, at(0, now_ms), 30));
            assert!(matches!(next_step(now_ms), Err(Some(1010))));
        }
        drop(append(&shard, at(0, 30), 30));
        assert_eq!(steps(&shard, 30), ["3 at 0, KeepOpen"]);
        drop(append(&shard, at(0, 40), 1));
        assert!(matches!(next_step(1039), Err(Some(1040))));
        assert_eq!(steps(&shard, 1040), ["1 at 30, KeepOpen"]);
    }

    #[test]
    fn what_is_held_is_bounded_until_it_is_committed() {
        let limits = Limits {
            held_bytes_max: 100,
            segment_bytes: u64::MAX,
            ..LIMITS
        };
        let shard = shared(limits);
        let full = Some(Refusal::ShardFull);
        assert_eq!(append(&shard, at(0, 0), 101).err(), full);
        drop(append(&shard, at(0, 0), 60).expect("there is room"));
        assert_eq!(append(&shard, at(0, 0), 41).err(), full);
        let Ok(Step::Commit(batch)) = shard.borrow_mut().next_step(0) else {
            panic!("a batch waits");
        };
        // A batch that is out is held as well.
        assert_eq!(append(&shard, at(0, 0), 41).err(), full);
        drop(append(&shard, at(0, 0), 40).expect("there is room"));
        assert_eq!(shard.borrow().held_bytes(), 100);
        shard.borrow_mut().end_commit(batch, Ok(()));
        assert_eq!(shard.borrow().held_bytes(), 40);
        drop(append(&shard, at(0, 0), 60).expect("there is room again"));
    }

    #[test]
    fn the_gate_follows_the_disk_until_it_is_closed() {
        let shard = shared(LIMITS);
        let check = |expected| assert_eq!(shard.borrow().check_gate(), expected);
        let commit = |result| {
            let Ok(Step::Commit(batch)) = shard.borrow_mut().next_step(0) else {
                panic!("a batch waits");
            };
            shard.borrow_mut().end_commit(batch, result);
        };
        let append = || append(&shard, at(0, 0), 10).map(drop);
        append().expect("there is room");
        check(Ok(()));
        commit(Err(Refusal::DiskFull));
        check(Err(Refusal::DiskFull));
        assert_eq!(append(), Err(Refusal::DiskFull));
        shard.borrow_mut().refuse(Refusal::DiskFailing);
        check(Err(Refusal::DiskFailing));
        shard.borrow_mut().accept();
        append().expect("the gate is open");
        shard.borrow_mut().close();
        check(Err(Refusal::Draining));
        commit(Err(Refusal::DiskFull));
        check(Err(Refusal::Draining));
        shard.borrow_mut().accept();
        check(Err(Refusal::Draining));
        assert_eq!(steps(&shard, 0), ["stop"]);
    }

    #[test]
    fn closing_commits_what_is_held_and_then_stops() {
        let limits = Limits {
            gather: Gather::Until {
                bytes: 1000,
                age_ms: 1000,
            },
            ..LIMITS
        };
        let shard = shared(limits);
        for _ in 0..5 {
            drop(append(&shard, at(0, 0), 30));
        }
        shard.borrow_mut().close();
        assert_eq!(
            steps(&shard, 0),
            ["4 at 0, Seal(Size)", "1 at 0, Seal(Shutdown)", "stop"]
        );
    }

    #[test]
    fn a_ticket_is_woken_once_and_its_place_is_free_again() {
        for result in [Ok(()), Err(Refusal::DiskFailing)] {
            let shard = shared(LIMITS);
            let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
            let mut polled = append(&shard, at(0, 0), 10).expect("there is room");
            let early = append(&shard, at(0, 0), 10).expect("there is room");
            let late = append(&shard, at(0, 0), 10).expect("there is room");
            let mut unpolled = append(&shard, at(0, 0), 10).expect("there is room");
            assert_eq!(poll(&mut polled, &wakes), Poll::Pending);
            assert_eq!(poll(&mut polled, &wakes), Poll::Pending);
            drop(early);
            let Ok(Step::Commit(batch)) = shard.borrow_mut().next_step(0) else {
                panic!("a batch waits");
            };
            assert_eq!((batch.lines, wakes.0.load(Relaxed)), (4, 0));
            shard.borrow_mut().end_commit(batch, result);
            assert_eq!(wakes.0.load(Relaxed), 1);
            assert_eq!(poll(&mut polled, &wakes), Poll::Ready(result));
            assert_eq!(poll(&mut unpolled, &wakes), Poll::Ready(result));
            drop((polled, late, unpolled));
            assert!(shard.borrow().slots.is_empty());
            assert_eq!(wakes.0.load(Relaxed), 1);
        }
    }

    #[test]
    fn the_loop_is_signalled_when_there_is_something_new() {
        let shard = shared(LIMITS);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let poll = || {
            let mut context = Context::from_waker(&waker);
            shard.borrow_mut().poll_signal(&mut context).is_ready()
        };
        assert!(!poll());
        drop(append(&shard, at(0, 0), 10));
        assert_eq!(wakes.0.load(Relaxed), 1);
        assert!(poll());
        assert!(!poll());
        // The loop comes for it anyway.
        drop(append(&shard, at(0, 0), 10));
        assert!(!poll());
        shard.borrow_mut().close();
        assert!(poll());
    }

    /// What the lines of each segment must be like, whatever happens: the model is a list of lines.
    #[test]
    fn random_operations() {
        for seed in 0..120 {
            let mut random = Random::new(seed);
            let limits = Limits {
                held_bytes_max: 9 << 20,
                segment_bytes: *random.pick(&[1, 500, 6 << 20]),
                segment_ms: 50,
                gather: *random.pick(&[
                    Gather::WhileDiskIsBusy,
                    Gather::Until {
                        bytes: 300,
                        age_ms: 20,
                    },
                ]),
            };
            Model::new(limits).run(&mut random, seed);
        }
    }

    struct Model {
        limits: Limits,
        shard: Rc<RefCell<Shard>>,
        wall_ms: u64,
        monotonic_ms: u64,
        next_line: u64,
        /// Lines that are held, in order, with the tickets that are not done.
        held: VecDeque<(u64, usize, Option<Ticket>)>,
        /// Of the segment that is open: bytes, time of the last line, begin of the first.
        open: Option<(u64, u64, u64)>,
    }

    impl Model {
        fn new(limits: Limits) -> Model {
            Model {
                limits,
                shard: shared(limits),
                wall_ms: WALL_MS,
                monotonic_ms: 0,
                next_line: 0,
                held: VecDeque::new(),
                open: None,
            }
        }

        fn run(mut self, random: &mut Random, seed: u64) {
            for _ in 0..400 {
                match random.below(10) {
                    0..6 => self.append(random),
                    6..8 => {
                        self.step(random, seed);
                    }
                    8 => {
                        let ms = random.below(30);
                        self.monotonic_ms += ms;
                        self.wall_ms = self.wall_ms + ms + random.below(3) - 1;
                        if random.below(8) == 0 {
                            self.wall_ms = WALL_MS - 1_000_000 + random.below(2_000_000);
                        }
                    }
                    _ => self.shard.borrow_mut().accept(),
                }
                let held: u64 = self.held.iter().map(|(_, bytes, _)| *bytes as u64).sum();
                assert_eq!(self.shard.borrow().held_bytes(), held, "seed {seed}");
                assert!(held <= self.limits.held_bytes_max, "seed {seed}");
                let lines = self.held.len() as u64;
                assert_eq!(self.shard.borrow().held_lines(), lines, "seed {seed}");
            }
            self.shard.borrow_mut().close();
            while self.step(random, seed) {}
            assert!(self.held.is_empty(), "seed {seed}");
            assert!(self.shard.borrow().slots.is_empty(), "seed {seed}");
        }

        fn append(&mut self, random: &mut Random) {
            let bytes = match random.below(12) {
                0 => 1 << 20,
                _ => 40 + random.below(200) as usize,
            };
            let now = Now {
                wall: Timestamp::from_ms(self.wall_ms),
                monotonic_ms: self.monotonic_ms,
            };
            let number = self.next_line;
            let lines = Lines { count: 1, bytes };
            let ticket = Ticket::append(&self.shard, now, lines, |received_at, text| {
                let line = format!(
                    "{number:08} {:016} {:010} ",
                    received_at.ms(),
                    now.monotonic_ms
                );
                text.extend_from_slice(line.as_bytes());
                text.resize(text.len() + bytes - line.len() - 1, b'x');
                text.push(b'\n');
            });
            if let Ok(ticket) = ticket {
                self.next_line += 1;
                self.held.push_back((number, bytes, Some(ticket)));
            }
        }

        /// Does what the shard says; whether there may be more.
        fn step(&mut self, random: &mut Random, seed: u64) -> bool {
            let step = self.shard.borrow_mut().next_step(self.monotonic_ms);
            match step {
                Ok(Step::Commit(batch)) => self.commit(batch, random, seed),
                Ok(Step::Seal) => self.open = None,
                Ok(Step::Stop) => return false,
                Err(due) => {
                    let due_ms = due.unwrap_or(u64::MAX);
                    assert!(due_ms > self.monotonic_ms, "seed {seed}");
                    if let Some((_, _, begun_ms)) = self.open {
                        let end_ms = begun_ms + self.limits.segment_ms;
                        assert!(due_ms <= end_ms, "seed {seed}: not sealed in time");
                    }
                }
            }
            true
        }

        fn commit(&mut self, batch: Batch, random: &mut Random, seed: u64) {
            assert!(batch.text.len() <= BATCH_BYTES_MAX, "seed {seed}");
            let text = String::from_utf8(batch.text.clone()).expect("ASCII");
            let first_ms = batch.first.ms();
            let mut first = None;
            for (line, (expected, ..)) in text.lines().zip(&self.held) {
                let field = |range: Range<usize>| -> u64 { line[range].parse().expect("a number") };
                let (number, received_ms, now_ms) = (field(0..8), field(9..25), field(26..36));
                assert_eq!(number, *expected, "seed {seed}");
                first.get_or_insert(received_ms);
                let (bytes, last_ms, begun_ms) = self.open.unwrap_or((0, received_ms, now_ms));
                assert!(received_ms >= last_ms, "seed {seed}: back in time");
                assert!(bytes < self.limits.segment_bytes, "seed {seed}: too long");
                let age_ms = now_ms - begun_ms;
                assert!(age_ms < self.limits.segment_ms, "seed {seed}: too old");
                let bytes = bytes + line.len() as u64 + 1;
                self.open = Some((bytes, received_ms, begun_ms));
            }
            assert_eq!(first, Some(first_ms));
            let lines = text.lines().count();
            assert_eq!(batch.lines as usize, lines);
            let then = batch.then;
            // Meanwhile others go on, and the disk may fail.
            for _ in 0..random.below(20) {
                self.append(random);
            }
            let result = match random.below(5) {
                0 => Err(Refusal::DiskFailing),
                _ => Ok(()),
            };
            if then != Then::KeepOpen || result.is_err() {
                self.open = None;
            }
            let fate = self.shard.borrow_mut().end_commit(batch, result);
            let is_kept = result.is_err() && self.limits.gather != Gather::WhileDiskIsBusy;
            let is_closed = self.shard.borrow().gate == Gate::Closed;
            let expected = match (is_kept, is_closed) {
                (false, _) => Fate::Settled,
                (true, false) => Fate::Kept,
                (true, true) => Fate::Lost,
            };
            assert_eq!(fate, expected, "seed {seed}");
            let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
            for (_, _, ticket) in self.held.iter_mut().take(lines) {
                if let Some(mut ticket) = ticket.take()
                    && random.below(3) > 0
                {
                    assert_eq!(poll(&mut ticket, &wakes), Poll::Ready(result));
                }
            }
            if fate != Fate::Kept {
                self.held.drain(..lines);
            }
            if let Some((_, _, Some(ticket))) = self.held.back_mut() {
                assert_eq!(poll(ticket, &wakes), Poll::Pending, "seed {seed}");
            }
        }
    }
}
