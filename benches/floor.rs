//! The floor of `load.sh`: what a server on this runtime spends on a request before it does anything
//! with it. One thread, pinned; it parses the head, reads the body, answers 200 and forgets both.
//!
//! Not a server to use: no limits, no deadlines, no end but a signal.

use std::io;
use std::net::{SocketAddr, TcpStream};

use argh::FromArgs;
use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use netwatch_server::rt::net::{Listener, Share, bind_listener};
use netwatch_server::rt::{self, Driver};
use rustix::thread::{CpuSet, sched_setaffinity};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Room for a head and the largest body that `load.sh` posts.
const REQUEST_BYTES_MAX: usize = 80 << 10;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
    date: Fri, 27 Feb 2026 05:14:34 GMT\r\n\
    content-type: application/json\r\n\
    content-length: 16\r\n\r\n\
    {\"status\":\"ok\"}\n";

/// Reads requests with a Content-Length body and answers 200, on one CPU.
#[derive(FromArgs)]
struct Flags {
    /// the CPU to run on
    #[argh(option)]
    cpu: usize,

    /// the port to listen on, on 127.0.0.1
    #[argh(option)]
    port: u16,
}

fn main() -> io::Result<()> {
    let flags: Flags = argh::from_env();
    let mut cpus = CpuSet::new();
    cpus.set(flags.cpu);
    sched_setaffinity(None, &cpus)?;
    let address = SocketAddr::from(([127, 0, 0, 1], flags.port));
    let listener = bind_listener(address, Share::Alone)?;
    let (driver, _) = Driver::detect();
    rt::run(driver, || async {
        let listener = Listener::from_std(listener, driver)?;
        loop {
            listener.readable().await?;
            while let Some((socket, _)) = listener.accept()? {
                let stream = monoio::net::TcpStream::from_std(TcpStream::from(socket))?;
                rt::spawn(serve(stream));
            }
        }
    })?
}

/// Serves a connection to its end. A request follows the answer to the one before it, never sooner.
async fn serve(mut stream: monoio::net::TcpStream) {
    let mut buffer = Vec::with_capacity(REQUEST_BYTES_MAX);
    loop {
        let mut end = None;
        while end.is_none_or(|end| buffer.len() < end) {
            let filled = buffer.len();
            let (result, spare) = stream.read(buffer.slice_mut(filled..)).await;
            buffer = spare.into_inner();
            if result.is_err() || buffer.len() == filled {
                return;
            }
            if end.is_none() {
                end = request_len(&buffer);
            }
        }
        buffer.clear();
        let (result, _) = stream.write_all(ANSWER).await;
        if result.is_err() {
            return;
        }
    }
}

/// The bytes of head and body, once the head is there.
fn request_len(bytes: &[u8]) -> Option<usize> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(head_len)) = request.parse(bytes) else {
        return None;
    };
    let length = request
        .headers
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("content-length"));
    let length = str::from_utf8(length?.value).ok()?.parse::<usize>().ok()?;
    Some(head_len + length)
}
