//! Receives NetWatch reports over HTTP and keeps them as zstd-compressed JSON lines.
//!
//! The way of a report, in reading order; a stage never calls an earlier one:
//!
//! ```text
//! socket ─▶ rt::net ─▶ conn ─▶ http ─▶ route ─▶ api ─▶ report ─▶ shard ─▶ commit ─▶ segment ─▶ disk
//!                        ▲                                         │         │
//!                        └──────────── 200, by a ticket ───────────┴─────────┘
//! ```
//!
//! At the side: [`server`] starts one [`worker`] per core and waits for signals, [`salvage`] closes the
//! segments that a core has given up, [`catalog`] knows the sealed ones, [`retention`] which of them go,
//! [`housekeeping`] removes those and makes a [`sidecar`] of [`tally`]s for the others, [`query`] answers what is
//! asked of them on threads that are [`idle`], [`verify`] checks files on demand, [`health`] says whether reports are
//! accepted, [`metrics`] what is counted and measured, [`admin`] shows it, [`limit`] says what an address may
//! still ask for, [`pool`] holds the connections' buffers, [`config`] the settings, [`live`] those that may
//! change, [`systemd`] what the service manager is told, [`command`] the sub-commands' arguments, [`time`] the
//! spelling of times, [`rt`] the runtime, [`log`] where events go.
//!
//! What is deliberately absent:
//!
//! 1. A lock or channel between socket and file: a shard belongs to its core. Cores share their health,
//!    the counts of [`limit`], the settings of [`live`], where to leave an abandoned segment, and how much of an
//!    open one readers may take, and nothing else.
//! 2. Knowledge of paths outside [`disk`]. No byte of a request ever reaches a path.
//! 3. A change to a sealed segment.
//! 4. A buffer, queue or count without a named limit. At the limit the server refuses or waits.
//! 5. A clock in a pure part: clocks are read in `server` and `worker`, and passed in.
//! 6. Blocking calls on a core, once its listener is open. Whoever reads what is stored has other threads, which run
//!    while no core wants the CPU.

pub mod server;

pub mod worker;

pub mod conn;
pub mod pool;

pub mod http;
pub mod route;

pub mod api;

pub mod report;
pub mod shard;

pub mod commit;
pub mod segment;

pub mod disk;

pub mod catalog;
pub mod retention;

pub mod query;
pub mod sidecar;
pub mod tally;

pub mod housekeeping;

pub mod salvage;
pub mod verify;

pub mod admin;
pub mod metrics;

pub mod command;
pub mod config;
pub mod health;
pub mod idle;
pub mod limit;
pub mod live;
pub mod log;
pub mod rt;
pub mod systemd;
pub mod time;
