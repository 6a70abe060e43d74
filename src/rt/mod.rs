//! The runtime of one core: the only place that knows monoio.
//!
//! Owns: choosing the driver, tasks, sleeping, yielding ([`run`], [`spawn`], [`sleep`], [`Yielder`]), sockets
//! with deadlines ([`net`]), writes to files ([`mod@file`]), and the blocking thread for what must not block a
//! core ([`blocking`]). Kept thin, so that another completion-based runtime can take monoio's place.
//!
//! What monoio 0.2.4 makes a rule here:
//!
//! - An operation that owns a buffer is awaited to its end, never dropped: bytes that arrive between a
//!   drop and its cancellation are lost. A deadline shuts the socket down, which ends the operation.
//! - Connections are accepted by readiness and `accept4`, since a cancelled `accept` leaks its socket.
//! - No task wakes itself: it would be run again before any other. Nor does it keep the queue from ever being empty:
//!   timers are looked at only then.
//! - A panic in a task would unwind the whole core, so every task runs inside [`catch_panic`].
//! - Dropping the runtime does not wait for file operations: `main` drains them, then exits.

pub mod blocking;
pub mod file;
pub mod net;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use monoio::net::UnixStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

pub use monoio::task::JoinHandle;

/// Submission queue entries; monoio submits early when they are used up.
const RING_ENTRIES: u32 = 4096;
/// Completion queue entries: room for one operation of each of 32,768 connections; the kernel keeps more
/// than fit, at some cost.
const RING_COMPLETIONS: u32 = 32_768;

/// How a core waits for its sockets and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// `io_uring(7)`.
    IoUring,
    /// `epoll(7)` for sockets, and the blocking thread for files.
    Epoll,
}

impl Driver {
    /// The driver for every core of this process: io_uring if a ring can really be set up, else epoll
    /// with the reason why not.
    pub fn detect() -> (Driver, Option<String>) {
        if !monoio::utils::detect_uring() {
            let why = "io_uring is switched off, forbidden or too old here".to_owned();
            return (Driver::Epoll, Some(why));
        }
        match ring_builder().build() {
            Ok(_) => (Driver::IoUring, None),
            Err(error) => (
                Driver::Epoll,
                Some(format!("cannot set up an io_uring: {error}")),
            ),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::IoUring => "io_uring",
            Driver::Epoll => "epoll",
        })
    }
}

fn ring_builder() -> RuntimeBuilder<IoUringDriver> {
    let mut ring = io_uring::IoUring::builder();
    // Without COOP_TASKRUN (Linux 5.19) every completion interrupts the core: a quarter as much CPU again for a small
    // request, and more than epoll needs. DEFER_TASKRUN takes 5 % less of a bare server; of this one less in one of
    // four cases and more in three, as completions then wait for tasks that are always ready. SINGLE_ISSUER alone
    // changes nothing.
    // No SQPOLL: monoio panics where its queue is full. (docs/performance.md)
    ring.setup_coop_taskrun()
        .setup_clamp()
        .setup_cqsize(RING_COMPLETIONS);
    RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(ring)
}

/// Builds this thread's runtime and runs `main` on it to its end.
///
/// # Errors
///
/// The ring or the epoll instance cannot be set up.
pub fn run<F: Future>(driver: Driver, main: impl FnOnce() -> F) -> io::Result<F::Output> {
    match driver {
        Driver::IoUring => {
            let mut runtime = ring_builder().enable_timer().build()?;
            Ok(runtime.block_on(async { main().await }))
        }
        Driver::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new()
                .enable_timer()
                .build()?;
            Ok(runtime.block_on(async { main().await }))
        }
    }
}

/// Starts a task on this core. A panic in it is logged and ends that task alone.
pub fn spawn<F>(task: F) -> JoinHandle<Result<F::Output, Panicked>>
where
    F: Future + 'static,
{
    let caught = catch_panic(task);
    monoio::spawn(async move {
        let result = caught.await;
        if let Err(panicked) = &result {
            tracing::error!(panic = %panicked, "task panicked");
        }
        result
    })
}

/// Waits at least `duration`; monoio's timer has a resolution of 1 ms.
pub async fn sleep(duration: Duration) {
    monoio::time::sleep(duration).await;
}

/// Lets tasks of this core yield to the others, after work of a millisecond or so.
///
/// A task that woke itself would be the next to run, and a timer takes 1 to 2 ms. So on a ring it waits for an
/// operation that ends as soon as it is submitted; monoio has no other that does nothing.
pub enum Yielder {
    /// A socket that can always be written to.
    Ring {
        /// Its polls end at once.
        ready: UnixStream,
        /// Kept open.
        _other_end: UnixStream,
    },
    /// By the timer: a queue that never empties, as by tasks that do nothing, would stop all timers.
    Epoll,
}

impl Yielder {
    /// For tasks of this core, on its runtime.
    ///
    /// # Errors
    ///
    /// No sockets can be made.
    pub fn new(driver: Driver) -> io::Result<Yielder> {
        match driver {
            Driver::IoUring => UnixStream::pair().map(|(ready, other_end)| Yielder::Ring {
                ready,
                _other_end: other_end,
            }),
            Driver::Epoll => Ok(Yielder::Epoll),
        }
    }

    /// Returns when every task that is ready now has run.
    pub async fn yield_now(&self) {
        match self {
            Yielder::Ring { ready, .. } => {
                // An error ends the operation as well.
                let _ = ready.writable(false).await;
            }
            Yielder::Epoll => sleep(Duration::ZERO).await,
        }
    }
}

/// A task ended by a panic, with the panic's message.
#[derive(Debug)]
pub struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Panicked {}

impl Panicked {
    /// From what [`catch_unwind`] or a thread's `join` gives.
    pub fn from_payload(payload: &(dyn Any + Send)) -> Panicked {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked(message.unwrap_or_else(|| "no message".to_owned()))
    }
}

/// Runs a future to its end or to its first panic.
///
/// What the future shared with others must be whole after a panic. It is: the shard and the pools of a
/// core change in single calls that hold no borrow across an await, and a dropped ticket gives up its
/// place.
pub fn catch_panic<F: Future>(future: F) -> impl Future<Output = Result<F::Output, Panicked>> {
    // Boxed here: an async function would hold the future twice, as its argument and as what it awaits,
    // and so would every one around it. That is a connection's memory while it is idle.
    let mut future = Box::pin(future);
    poll_fn(move |context| {
        let step = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match step {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(payload) => Poll::Ready(Err(Panicked::from_payload(payload.as_ref()))),
        }
    })
}

/// Waits for the future or the time, whichever comes first. Only for futures that own no buffer: the
/// loser is dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Option<F::Output> {
    monoio::time::timeout(duration, future).await.ok()
}

/// Waits for either future. Only for futures that own no buffer: the loser is dropped.
pub async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// Which of two futures was first.
pub enum Either<A, B> {
    /// The first one given, also if both were ready.
    First(A),
    /// The second one.
    Second(B),
}

/// The output of the first of these tasks to end.
pub async fn first_ended<T>(tasks: &mut [JoinHandle<T>]) -> T {
    poll_fn(|context| {
        for task in &mut *tasks {
            if let Poll::Ready(output) = pin!(task).poll(context) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

/// Something that happens once, for any number of tasks of one core to wait for.
#[derive(Default)]
pub struct Once {
    has_happened: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Once {
    /// Lets it happen.
    pub fn happen(&self) {
        self.has_happened.set(true);
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Whether it has happened.
    pub fn has_happened(&self) -> bool {
        self.has_happened.get()
    }

    /// Waits for it. Safe to drop.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.has_happened() {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            // A task that waits again, after the other side of an `either` won, is in the list.
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn who_yields_lets_the_others_run_first() {
        for driver in [Driver::IoUring, Driver::Epoll] {
            let order = run(driver, || async move {
                let yielder = Rc::new(Yielder::new(driver).expect("two sockets"));
                let order = Rc::new(RefCell::new(Vec::new()));
                let tasks = ["a", "b", "c"].map(|name| {
                    let (yielder, order) = (Rc::clone(&yielder), Rc::clone(&order));
                    spawn(async move {
                        for step in 1..=2 {
                            order.borrow_mut().push(format!("{name}{step}"));
                            yielder.yield_now().await;
                        }
                    })
                });
                for task in tasks {
                    task.await.expect("no task panics");
                }
                order.take()
            })
            .expect("a runtime can be set up");
            assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "c2"], "{driver}");
        }
    }

    #[test]
    fn who_yields_stops_no_timer() {
        for driver in [Driver::IoUring, Driver::Epoll] {
            run(driver, || async {
                let yielder = Rc::new(Yielder::new(driver).expect("two sockets"));
                let is_over = Rc::new(Cell::new(false));
                let tasks = [(); 2].map(|()| {
                    let (yielder, is_over) = (Rc::clone(&yielder), Rc::clone(&is_over));
                    spawn(async move {
                        for _ in 0..10_000_000 {
                            if is_over.get() {
                                return;
                            }
                            yielder.yield_now().await;
                        }
                        panic!("the timer does not come");
                    })
                });
                sleep(Duration::from_millis(5)).await;
                is_over.set(true);
                for task in tasks {
                    task.await.expect("the timer comes");
                }
            })
            .expect("a runtime can be set up");
        }
    }

    #[test]
    fn a_panicking_task_leaves_the_others_alone() {
        for driver in [Driver::IoUring, Driver::Epoll] {
            let beats = run(driver, || async {
                let beats = Rc::new(Cell::new(0));
                let counted = Rc::clone(&beats);
                let other = spawn(async move {
                    for _ in 0..3 {
                        sleep(Duration::from_millis(1)).await;
                        counted.set(counted.get() + 1);
                    }
                });
                let bad = spawn(async {
                    sleep(Duration::from_millis(1)).await;
                    let empty: &[u8] = &[];
                    empty[std::hint::black_box(0)]
                });
                let panicked = bad.await.expect_err("the index is out of bounds");
                assert!(panicked.to_string().contains("out of bounds"));
                other.await.expect("the other task goes on");
                beats.get()
            })
            .expect("a runtime can be set up");
            assert_eq!(beats, 3, "{driver}");
        }
    }
}
