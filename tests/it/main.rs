//! The server as others meet it: the real binary, over its socket, through its files, signals and log.
//!
//! One module per promise. Whatever talks to a server runs on io_uring and on epoll.

mod config;
mod health;
mod http;
mod limits;
mod shutdown;
mod support;
mod tidy;
mod verify;
