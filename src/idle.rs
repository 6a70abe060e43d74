//! Threads that run only while no other thread wants the CPU: whatever reads what is stored.
//!
//! The scheduling policy is `SCHED_IDLE` (sched(7)), and with it the disk serves them last where its scheduler
//! knows priorities (ionice(1)). Where a container forbids that, they get the lowest priority of the usual
//! policy.

use std::io;

use rustix::process::setpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// The lowest priority of the usual policy (setpriority(2)); of one thread, as Linux has it.
const NICE: i32 = 19;

/// Makes the calling thread idle, for as long as it lives: without privileges there is no way back.
///
/// # Errors
///
/// The system allows neither the policy nor the priority; the thread competes with the others then.
pub fn yield_to_all() -> io::Result<()> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy) {
        Ok(()) => Ok(()),
        Err(_) => Ok(setpriority_process(None, NICE)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_idle() {
        let thread = std::thread::spawn(|| {
            yield_to_all().unwrap();
            thread_priority::thread_schedule_policy().unwrap()
        });
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(thread.join().unwrap(), idle);
    }
}
