//! The server as others meet it: the real binary, over its socket, through its files, signals and log.
//!
//! One module per promise. Whatever talks to a server runs on io_uring and on epoll.

mod admin;
mod batches;
mod config;
mod cors;
mod crash;
mod faults;
mod health;
mod http;
mod ingest;
mod limits;
mod metrics;
mod query;
mod recovery;
mod reload;
mod retention;
mod rfc;
mod segments;
mod shutdown;
mod support;
mod systemd;
mod tidy;
mod verify;

// What these have in common with `examples/load`.
#[path = "../support/client.rs"]
mod client;
#[path = "../support/journal.rs"]
mod journal;
#[path = "../support/ledger.rs"]
mod ledger;
#[allow(dead_code, reason = "some of it is for the program alone")]
#[path = "../support/load.rs"]
mod load;
#[path = "../support/reports.rs"]
mod reports;
