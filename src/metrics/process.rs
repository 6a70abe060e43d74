//! What Linux says of this process (`proc_pid_stat(5)`, `proc_pid_limits(5)`). Nothing else of `/proc` is read:
//! a service may see no more than its own part.

use procfs::ProcResult;
use procfs::process::{LimitValue, Process};

/// The numbers that Prometheus' client libraries agree on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
    pub(super) threads: u64,
}

/// Reads them.
///
/// # Errors
///
/// `/proc` is not there, or hides the process from itself.
pub(super) fn read() -> ProcResult<ProcessFigures> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks_per_second = procfs::ticks_per_second() as f64;
    let max_fds = match process.limits()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit,
        LimitValue::Unlimited => u64::MAX,
    };
    Ok(ProcessFigures {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second,
        resident_bytes: stat.rss * procfs::page_size(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count()? as u64,
        max_fds,
        threads: stat.num_threads.cast_unsigned(),
    })
}
