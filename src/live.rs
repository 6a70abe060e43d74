//! The settings that may change while the server runs: one value, replaced whole.
//!
//! Whoever needs them looks at [`LiveSettings`] now and then, without a lock: a core at its tick, the admin
//! listener at each request, housekeeping at each removal. A request is judged by what its core had seen when
//! its head came; its deadlines are those of the moment they are set.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::api::cors::Origins;
use crate::api::forwarded::TrustedProxies;
use crate::config::{Config, Secret};
use crate::limit::RateLimiter;
use crate::retention;
use crate::rt::net::TickMs;

/// Where the value in effect is found.
pub type LiveSettings = ArcSwap<Live>;

/// How long a connection may take over what, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Between two requests.
    pub idle_ms: TickMs,
    /// From a head's first byte to its last.
    pub head_ms: TickMs,
    /// From a head's end to the end of its body, and
    pub body_ms: TickMs,
    /// a second more for so many bytes of it that have come, but never longer without any.
    pub body_bytes_per_sec: u64,
    /// For an answer to be taken.
    pub write_ms: TickMs,
}

/// What may change.
#[derive(Clone, Debug)]
pub struct Live {
    /// Whose pages may post.
    pub origins: Origins,
    /// How long connections may take over what.
    pub deadlines: Deadlines,
    /// How often an address may post; of all cores.
    pub rate: Option<Arc<RateLimiter>>,
    /// The most connections of one address, those of proxies aside.
    pub connections_per_ip: u32,
    /// Whose word on a client's address is taken.
    pub proxies: TrustedProxies,
    /// Bytes of the disk that are left to others.
    pub free_bytes_min: u64,
    /// How long a drain may take.
    pub drain_ms: TickMs,
    /// What retention keeps.
    pub retention: retention::Limits,
    /// What every request to the admin listener has to bring.
    pub admin_token: Option<Secret>,
    /// User and password for `/metrics`.
    pub metrics_login: Option<(String, Secret)>,
}

impl Live {
    /// By these settings.
    pub fn from_config(config: &Config) -> Live {
        Live {
            origins: config.cors_origins.clone(),
            deadlines: Deadlines {
                idle_ms: ms(config.idle_secs),
                head_ms: ms(config.head_secs),
                body_ms: ms(config.body_secs),
                body_bytes_per_sec: config.body_rate_min,
                write_ms: ms(config.write_secs),
            },
            rate: config
                .rate_per_ip
                .map(|rate| Arc::new(RateLimiter::new(rate))),
            connections_per_ip: config.connections_per_ip,
            proxies: config.trusted_proxies.clone(),
            free_bytes_min: config.min_free_bytes,
            drain_ms: ms(config.shutdown_secs),
            retention: retention::Limits::of(config),
            admin_token: config.admin_token.clone(),
            metrics_login: config
                .metrics_username
                .clone()
                .zip(config.metrics_password.clone()),
        }
    }

    /// By other settings. What addresses have used of their rate stays used, if the rate is the same.
    pub fn renewed(&self, config: &Config) -> Live {
        let mut live = Live::from_config(config);
        if let (Some(had), Some(has)) = (&self.rate, &live.rate)
            && had.rate() == has.rate()
        {
            live.rate = Some(Arc::clone(had));
        }
        live
    }
}

/// In milliseconds.
pub fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_stays_the_same_is_not_forgotten() {
        let config = |rate: &str| Config {
            rate_per_ip: Some(rate.parse().unwrap()),
            ..Config::default()
        };
        let live = Live::from_config(&config("5/m"));
        let kept = |other: &Live| {
            let limiter = live.rate.as_ref().unwrap();
            other
                .rate
                .as_ref()
                .is_some_and(|rate| Arc::ptr_eq(rate, limiter))
        };
        assert!(kept(&live.renewed(&config("5/m"))));
        assert!(!kept(&live.renewed(&config("6/m"))));
        assert!(!kept(&live.renewed(&Config::default())));
    }
}
