//! The blocking thread of a core: runs the calls that would block it, one after the other.
//!
//! Only calls of the commit loop come here (create, reserve, rename, sync a directory; on epoll also
//! write and sync), so at most `QUEUE_MAX` of them wait: one commit, one seal, and what a dropped
//! future has left.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use futures_channel::oneshot;

/// Calls that may wait for the blocking thread; one more finds it stuck, and fails.
const QUEUE_MAX: usize = 16;

type Call = Box<dyn FnOnce() + Send>;

/// A handle on the thread, which ends when the last handle is dropped.
#[derive(Clone)]
pub struct BlockingThread {
    calls: SyncSender<Call>,
}

impl BlockingThread {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// No thread can be made.
    pub fn start(name: String) -> io::Result<BlockingThread> {
        let (calls, waiting) = mpsc::sync_channel::<Call>(QUEUE_MAX);
        thread::Builder::new().name(name).spawn(move || {
            while let Ok(call) = waiting.recv() {
                // Its caller is told by the reply that never comes; the next call may do better.
                let _ = catch_unwind(AssertUnwindSafe(call));
            }
        })?;
        Ok(BlockingThread { calls })
    }

    /// Runs `call` on the thread. It runs to its end even if the future is dropped.
    ///
    /// # Errors
    ///
    /// The queue is full or the call panicked.
    pub async fn run<T, C>(&self, call: C) -> io::Result<T>
    where
        T: Send + 'static,
        C: FnOnce() -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(move || {
            // The caller may be gone: its answer then has no reader.
            let _ = reply.send(call());
        });
        self.calls
            .try_send(call)
            .map_err(|_| io::Error::other("the blocking thread is stuck or gone"))?;
        answer
            .await
            .map_err(|_| io::Error::other("a call on the blocking thread panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::{Driver, run};

    #[test]
    fn calls_run_in_order_and_a_full_queue_refuses() {
        run(Driver::Epoll, || async {
            let thread =
                BlockingThread::start("blocking".to_owned()).expect("a thread can be made");
            assert_eq!(thread.run(|| 6 * 7).await.expect("runs"), 42);

            let (open, gate) = mpsc::channel::<()>();
            let mut waiting = Vec::new();
            let blocked = thread.clone();
            waiting.push(monoio::spawn(async move {
                blocked.run(move || gate.recv().is_ok()).await
            }));
            // Until the thread has taken the blocking call, one place in the queue is its own.
            let refused = loop {
                let thread = thread.clone();
                let next = monoio::spawn(async move { thread.run(|| true).await });
                crate::rt::sleep(std::time::Duration::from_millis(1)).await;
                if next.is_finished() {
                    break next.await;
                }
                waiting.push(next);
            };
            let error = refused.expect_err("the queue is full");
            assert_eq!(error.to_string(), "the blocking thread is stuck or gone");
            assert!(waiting.len() <= QUEUE_MAX + 1);
            open.send(()).expect("the call is waiting");
            for call in waiting {
                assert!(call.await.expect("ran"));
            }
        })
        .expect("a runtime can be set up");
    }
}
