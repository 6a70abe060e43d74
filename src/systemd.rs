//! What the service manager is told (`sd_notify(3)`), and the sockets that it hands over (`sd_listen_fds(3)`).
//! Where there is none, nothing of this happens.
//!
//! The watchdog watches the cores: it is fed while each of them has come to its tick in half of the time that
//! the service manager allows.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::segment::name::CoreIndex;

/// How often the service manager is told, where it does not ask for more.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// The sockets that the service manager holds for this process, in its order.
///
/// # Errors
///
/// One of them is no listening TCP socket.
pub fn inherited_listeners() -> io::Result<Vec<TcpListener>> {
    let mut handed = ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..handed.len() {
        listeners.extend(handed.take_tcp_listener(index)?);
    }
    Ok(listeners)
}

/// Tells the service manager, if there is one.
#[derive(Debug)]
pub struct Manager {
    /// What it allows a core.
    watchdog: Option<Duration>,
    is_there: bool,
    status: String,
    /// The core that is late, while one is.
    late: Option<CoreIndex>,
    /// Whether telling has failed: it is said once.
    has_failed: bool,
}

impl Manager {
    /// As the environment names it.
    pub fn from_env() -> Manager {
        Manager {
            watchdog: sd_notify::watchdog_enabled(),
            is_there: std::env::var_os("NOTIFY_SOCKET").is_some(),
            status: String::new(),
            late: None,
            has_failed: false,
        }
    }

    /// How often [`Manager::feed`] is to be called; never, if nobody listens.
    pub fn period(&self) -> Option<Duration> {
        let quarter = self.watchdog.map(|allowed| allowed / 4);
        let period = quarter.map_or(STATUS_PERIOD, |quarter| quarter.min(STATUS_PERIOD));
        self.is_there.then_some(period)
    }

    /// The server takes reports.
    pub fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        self.tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The settings are being read again; [`Manager::ready`] follows.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => self.note_failure(&error),
        }
    }

    /// The server drains.
    pub fn stopping(&mut self) {
        let status = "draining";
        status.clone_into(&mut self.status);
        self.tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Feeds the watchdog while every core comes to its tick, and tells what has changed. `last_tick` is of
    /// the core that came to it the longest ago.
    pub fn feed(&mut self, last_tick: Option<(CoreIndex, u64)>, now_ms: u64, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.tell(&[NotifyState::Status(status)]);
        }
        let Some(allowed) = self.watchdog else {
            return;
        };
        let late = late_core(last_tick, now_ms, allowed);
        if late != self.late {
            match (late, last_tick) {
                (Some(core), Some((_, ticked_ms))) => {
                    let since_ms = now_ms - ticked_ms;
                    tracing::error!(core, since_ms, "core does not come to its tick");
                }
                _ => tracing::info!("every core comes to its tick again"),
            }
            self.late = late;
        }
        if late.is_none() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            self.note_failure(&error);
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.has_failed, true) {
            let cause = error.to_string();
            tracing::warn!(cause, "the service manager cannot be told");
        }
    }
}

/// The core that has not come to its tick in half of the time that is allowed.
fn late_core(
    last_tick: Option<(CoreIndex, u64)>,
    now_ms: u64,
    allowed: Duration,
) -> Option<CoreIndex> {
    let (core, ticked_ms) = last_tick?;
    let since = Duration::from_millis(now_ms.saturating_sub(ticked_ms));
    (since > allowed / 2).then_some(core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_late_after_half_of_what_is_allowed() {
        #[track_caller]
        fn check(last_tick: Option<(CoreIndex, u64)>, now_ms: u64, expected: Option<CoreIndex>) {
            let allowed = Duration::from_secs(10);
            assert_eq!(late_core(last_tick, now_ms, allowed), expected);
        }
        check(None, 99_999, None);
        check(Some((3, 1_000)), 1_000, None);
        check(Some((3, 1_000)), 6_000, None);
        check(Some((3, 1_000)), 6_001, Some(3));
        // A core that has ended.
        check(Some((3, u64::MAX)), 6_001, None);
    }
}
