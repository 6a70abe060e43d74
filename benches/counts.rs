//! The work of the stages, for `.ci/counts` to count its instructions: time says little on a machine that does
//! other things as well.
//!
//! ```text
//! counts          prints the names
//! counts NAME     does the work of that name, twice, and prints how many inputs it was done with
//! ```
//!
//! callgrind counts while [`counted`] runs, which is the second time: inputs have been made by then, and buffers
//! have grown. The inputs are heads, reports and answers, the same ones on every machine.
//!
//! Counted is user space, libraries included. Not counted are the kernel, so writes cost what it takes to ask for
//! them; runtime and sockets; segments that are created and sealed; and whatever is refused.
//!
//! Instructions are no time: one that misses a cache or the branch predictor counts like any other. A copy of
//! more than 4 KiB counts one for each byte, since glibc leaves it to an instruction that repeats. And the server
//! is another program, in which the compiler may inline otherwise.

use std::cell::RefCell;
use std::env;
use std::hint::black_box;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::UNIX_EPOCH;

use http::StatusCode;
use netwatch_server::api::cors::{Origin, Origins};
use netwatch_server::api::{JSON, reports};
use netwatch_server::disk::{Fs, block_on};
use netwatch_server::http::head::{self, Head, HeadScan};
use netwatch_server::http::response::{Content, HttpDate, Response, Terms};
use netwatch_server::report::Validator;
use netwatch_server::segment::name::SegmentName;
use netwatch_server::segment::writer::{Batch, Encoder, Frame, Reach, Writer};
use netwatch_server::shard::{Gather, Limits, Lines, Shard, Step, Ticket};
use netwatch_server::time::{Now, Timestamp};

mod inputs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inputs where all are the same.
const REPEATS: usize = 1_000;

/// Reports that wait together for one commit.
const BATCH_LINES: usize = 64;

/// When everything happens.
const NOW_MS: u64 = 1_772_169_274_123;

/// What a client sends that is no browser.
const SMALL_HEAD: &[u8] = b"POST /api/v1/reports HTTP/1.1\r\n\
    Host: reports.example.net\r\n\
    User-Agent: curl/8.18.0\r\n\
    Accept: */*\r\n\
    Content-Length: 13370\r\n\
    Content-Type: application/json\r\n\r\n";

/// What is counted. 1, 20 and 100 samples a host make reports of 2, 13 and 62 KB.
const WORKS: [(&str, fn()); 12] = [
    ("commit/1x/13KB", || commit(20, 1)),
    ("commit/64x/13KB", || commit(20, BATCH_LINES)),
    ("head/browser", || head(inputs::BROWSER_HEAD)),
    ("head/small", || head(SMALL_HEAD)),
    ("report/check-unusual/13KB", || check_unusual(20)),
    ("report/check/13KB", || check(20)),
    ("report/check/2KB", || check(1)),
    ("report/check/62KB", || check(100)),
    ("response/browser", || response(inputs::BROWSER_HEAD)),
    ("response/small", || response(SMALL_HEAD)),
    ("shard/64x/13KB", || shard(20)),
    ("shard/64x/2KB", || shard(1)),
];

fn main() -> ExitCode {
    let names: Vec<String> = env::args().skip(1).collect();
    if names.is_empty() {
        for (name, _) in WORKS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    }
    match WORKS.iter().find(|(name, _)| names == [*name]) {
        Some((_, work)) => work(),
        None => {
            eprintln!("expected a name that `counts` prints, found {names:?}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Does work that goes over so many inputs.
fn count(inputs: usize, work: &mut dyn FnMut()) {
    work();
    counted(work);
    println!("{inputs}");
}

/// `.ci/counts` finds it by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    work();
    // With nothing behind it the call would become a jump, and this function end before the work does.
    black_box(());
}

fn parse(bytes: &[u8]) -> Head<'_> {
    let len = HeadScan::default().find_end(bytes).expect("is well-formed");
    head::parse(&bytes[..len.expect("is whole")]).expect("is well-formed")
}

fn head(bytes: &[u8]) {
    count(REPEATS, &mut || {
        for _ in 0..REPEATS {
            black_box(&parse(black_box(bytes)));
        }
    });
}

/// The answer to a report that came with this head.
fn response(bytes: &[u8]) {
    let head = parse(bytes);
    let terms = Terms::of(&head);
    let date = HttpDate::from_system(UNIX_EPOCH);
    let mut origin = Origin::default();
    origin.judge(&head, &Origins::Any);
    let response = Response {
        status: StatusCode::OK,
        content: Content::Body {
            content_type: JSON,
            bytes: reports::OK,
        },
        fields: &[],
    };
    let mut out = Vec::new();
    count(REPEATS, &mut || {
        for _ in 0..REPEATS {
            out.clear();
            black_box(&response).write(terms, &date, &origin.fields(), &mut out);
            black_box(&out);
        }
    });
}

fn check(samples: usize) {
    check_all(&inputs::reports(samples));
}

fn check_unusual(samples: usize) {
    let reports = inputs::reports(samples);
    let unusual: Vec<Vec<u8>> = reports.iter().map(|body| inputs::unusual(body)).collect();
    check_all(&unusual);
}

fn check_all(reports: &[Vec<u8>]) {
    let mut validator = Validator::new();
    count(reports.len(), &mut || {
        for body in reports {
            let checked = validator.check(black_box(body));
            black_box(checked.expect("is valid"));
        }
    });
}

/// Reports that are given to a shard, wait, are committed to nothing, and are told.
fn shard(samples: usize) {
    let now = Now {
        wall: Timestamp::from_ms(NOW_MS),
        monotonic_ms: 0,
    };
    let shard = Rc::new(RefCell::new(Shard::new(Limits {
        held_bytes_max: 64 << 20,
        segment_bytes: 10 << 20,
        segment_ms: 60_000,
        gather: Gather::WhileDiskIsBusy,
    })));
    let reports = inputs::reports(samples);
    let mut validator = Validator::new();
    let checked: Vec<_> = reports
        .iter()
        .map(|body| validator.check(body).expect("is valid"))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut tickets = Vec::with_capacity(BATCH_LINES);
    count(checked.len(), &mut || {
        for reports in checked.chunks(BATCH_LINES) {
            for report in reports {
                let lines = Lines {
                    count: 1,
                    bytes: report.line_len(),
                };
                let taken = Ticket::append(&shard, now, lines, |received_at, text| {
                    report.append_line(received_at, text);
                });
                let mut ticket = taken.expect("there is room");
                assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
                tickets.push(ticket);
            }
            loop {
                let step = shard.borrow_mut().next_step(now.monotonic_ms);
                let Ok(Step::Commit(batch)) = step else {
                    break;
                };
                shard.borrow_mut().end_commit(black_box(batch), Ok(()));
            }
            for mut ticket in tickets.drain(..) {
                let settled = Pin::new(&mut ticket).poll(&mut context);
                assert_eq!(settled, Poll::Ready(Ok(())));
            }
        }
    });
}

/// Lines on their way into a segment, so many in a commit.
fn commit(samples: usize, batch: usize) {
    let reports = inputs::reports(samples);
    let mut validator = Validator::new();
    let mut lines = Vec::new();
    for body in &reports {
        let mut line = Vec::new();
        let report = validator.check(body).expect("is valid");
        report.append_line(Timestamp::from_ms(NOW_MS), &mut line);
        lines.push(line);
    }
    let batches: Vec<Vec<u8>> = lines.chunks_exact(batch).map(<[_]>::concat).collect();
    // Of its calls, what the kernel does is not counted.
    let dir = tempfile::tempdir().expect("a directory");
    let fs = Fs::lock(dir.path()).expect("a data directory");
    let mut encoder = Encoder::new(1).expect("an encoder");
    let first = SegmentName {
        time: Timestamp::from_ms(NOW_MS),
        core: 0,
    };
    let created = block_on(Writer::create(&fs, &mut encoder, first));
    let mut segment = created.expect("the name is free");
    let mut out = Vec::new();
    count(batches.len() * batch, &mut || {
        for text in &batches {
            let batch = Batch {
                text: black_box(text),
                lines: batch as u32,
                reach: Reach::Written,
                frame: Frame::GoesOn,
            };
            let reserved = block_on(segment.reserve(&fs, text.len(), 0));
            reserved.expect("there is space");
            let committed = block_on(segment.commit(&fs, &mut encoder, &mut out, batch));
            committed.expect("there is space");
        }
    });
}
