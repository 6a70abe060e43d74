//! A core at work allocates nothing per report, from the socket to the encoder, and little per connection.
//!
//! The pieces of a worker run on one thread, over real sockets and files, and the clients on another:
//! allocations are counted by thread. What a core does once in a while may allocate, and is counted
//! here: calls on its blocking thread, and buffers that meet the largest batch so far.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, SystemTime};

use futures_channel::oneshot;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use netwatch_server::commit::{CommitLoop, Outlets, Policy};
use netwatch_server::config::{Ack, Config};
use netwatch_server::conn::{self, Parts, Peer, Shared};
use netwatch_server::disk::{CoreDisk, Dir, Disk, Entry, Fs};
use netwatch_server::health::Health;
use netwatch_server::http::response::HttpDate;
use netwatch_server::limit::RateLimiter;
use netwatch_server::live::{Deadlines, Live};
use netwatch_server::metrics::core::Meter;
use netwatch_server::rt::net::{Connections, Listener, Share, Stream, bind_listener};
use netwatch_server::rt::{self, Driver, JoinHandle, Panicked, Yielder};
use netwatch_server::segment::writer::{Encoder, Reach};
use netwatch_server::shard::{Gather, Limits, Shard};
use netwatch_server::worker::{now, now_nanos};

#[path = "support/reports.rs"]
#[allow(dead_code, reason = "other targets use the rest")]
mod reports;

/// A call on the blocking thread takes its box and the channel of its answer.
const PER_CALL: u64 = 2;

/// Buffers and tables that grow, by doubling, when a batch is larger than all before it or more
/// connections are served at once. A twentieth of an allocation per report, at most.
const GROWTH_MAX: u64 = COUNTED as u64 / 20;

/// Reports before the count begins, and while it goes on.
const WARM_UP: usize = 1_280;
const COUNTED: usize = 2_560;

const DEADLINE: Duration = Duration::from_secs(60);

/// What the core did while allocations were counted.
struct Counts {
    allocations: u64,
    calls: u64,
    commits: u64,
}

/// A disk of a core that counts what is asked of it.
struct CountingDisk {
    disk: CoreDisk,
    driver: Driver,
    seen: Rc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Operations that are calls on the blocking thread.
    calls: Cell<u64>,
    syncs: Cell<u64>,
}

impl CountingDisk {
    /// A write or a sync is an operation of the ring, if there is one.
    fn count_transfer(&self) {
        if self.driver == Driver::Epoll {
            count(&self.seen.calls);
        }
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

macro_rules! counted_calls {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {$(
        async fn $name(&self, $($argument: $type),*) -> $output {
            count(&self.seen.calls);
            self.disk.$name($($argument),*).await
        }
    )*};
}

type File = <CoreDisk as Disk>::File;

impl Disk for CountingDisk {
    type File = File;

    counted_calls! {
        create(dir: Dir, name: &str) -> io::Result<File>;
        open(dir: Dir, name: &str) -> io::Result<File>;
        len(file: &File) -> io::Result<u64>;
        read_at(file: &File, bytes: Vec<u8>, offset: u64) -> io::Result<Vec<u8>>;
        reserve(file: &File, offset: u64, len: u64) -> io::Result<()>;
        write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()>;
        truncate(file: &File, len: u64) -> io::Result<()>;
        rename(from: (Dir, &str), to: (Dir, &str)) -> io::Result<()>;
        remove(dir: Dir, name: &str) -> io::Result<()>;
        exists(dir: Dir, name: &str) -> io::Result<bool>;
        sync_dir(dir: Dir) -> io::Result<()>;
        list(dir: Dir) -> io::Result<Vec<Entry>>;
        free_bytes() -> io::Result<u64>;
    }

    async fn write_all_at(
        &self,
        file: &File,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        self.count_transfer();
        self.disk.write_all_at(file, bytes, offset).await
    }

    async fn sync_data(&self, file: &File) -> io::Result<()> {
        self.count_transfer();
        count(&self.seen.syncs);
        self.disk.sync_data(file).await
    }
}

/// The clients of a core, on a thread of their own: every one of them posts, then all read their
/// answers, and so on.
struct Clients {
    orders: Sender<Order>,
    thread: thread::JoinHandle<()>,
}

struct Order {
    rounds: usize,
    done: oneshot::Sender<()>,
}

impl Clients {
    fn start(address: SocketAddr, count: usize, samples: usize) -> Clients {
        let (orders, inbox) = mpsc::channel();
        let thread = thread::spawn(move || run_clients(address, count, samples, &inbox));
        Clients { orders, thread }
    }

    /// Lets every client post so many reports, and waits for the last answer.
    async fn post(&self, rounds: usize) {
        let (done, is_done) = oneshot::channel();
        let order = Order { rounds, done };
        self.orders.send(order).expect("the clients are there");
        is_done.await.expect("every report is answered");
    }
}

fn run_clients(address: SocketAddr, count: usize, samples: usize, orders: &Receiver<Order>) {
    let mut generator = reports::Generator::new(1, samples);
    let mut clients: Vec<(TcpStream, Vec<u8>)> = (0..count)
        .map(|client| {
            let socket = TcpStream::connect(address).expect("connects");
            socket.set_read_timeout(Some(DEADLINE)).expect("is set");
            socket.set_write_timeout(Some(DEADLINE)).expect("is set");
            let report = generator.next_report(&format!("client-{client}"));
            let length = report.len();
            let head = format!(
                "POST /api/v1/reports HTTP/1.1\r\nhost: localhost\r\n\
                 content-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
            );
            (socket, [head.as_bytes(), &report].concat())
        })
        .collect();
    while let Ok(order) = orders.recv() {
        for _ in 0..order.rounds {
            for (socket, request) in &mut clients {
                socket.write_all(request).expect("the server reads");
            }
            for (socket, _) in &mut clients {
                read_answer(socket);
            }
        }
        order.done.send(()).expect("the core waits for it");
    }
}

fn read_answer(socket: &mut TcpStream) {
    let mut answer = [0; 1024];
    let mut len = 0;
    while !answer[..len].ends_with(b"{\"status\":\"ok\"}\n") {
        match socket.read(&mut answer[len..]).expect("answers in time") {
            0 => panic!("closed after {}", String::from_utf8_lossy(&answer[..len])),
            read => len += read,
        }
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// A core without its tick, whose only segment has room for all.
struct Core {
    shared: Rc<Shared>,
    seen: Rc<Seen>,
    commit: JoinHandle<Result<(), Panicked>>,
}

impl Core {
    fn start(fs: Fs, driver: Driver) -> Core {
        let shard = Rc::new(RefCell::new(Shard::new(Limits {
            held_bytes_max: 64 << 20,
            segment_bytes: 1 << 30,
            segment_ms: 3_600_000,
            gather: Gather::WhileDiskIsBusy,
        })));
        let health = Arc::new(Health::new(1));
        let seen = Rc::<Seen>::default();
        let meter = Meter {
            metrics: Arc::default(),
            clock: now_nanos,
        };
        let disk = CountingDisk {
            disk: CoreDisk::start(fs, driver, "disk-0".to_owned(), meter.clone())
                .expect("a thread"),
            driver,
            seen: Rc::clone(&seen),
        };
        let policy = Policy {
            core: 0,
            reach: Reach::Durable,
            free_bytes_min: Rc::default(),
            probe_every: Duration::from_secs(1),
        };
        // Nothing is abandoned here.
        let (salvage, _) = mpsc::sync_channel(1);
        let commit = CommitLoop::new(
            policy,
            disk,
            now,
            Rc::clone(&shard),
            Outlets {
                health: Arc::clone(&health),
                salvage,
                metrics: Arc::clone(&meter.metrics),
                open: Arc::default(),
            },
            Encoder::new(1).expect("an encoder"),
        );
        let commit = rt::spawn(commit.run());
        let ms = u64::try_from(DEADLINE.as_millis()).expect("fits");
        let parts = Parts {
            connections: Connections::new(),
            shard,
            core: 0,
            ack: Ack::Durable,
            held_bytes_max: u64::MAX,
            health,
            started_ms: now().monotonic_ms,
            clock: now,
            meter,
            yielder: Yielder::new(driver).expect("two sockets"),
        };
        let live = Rc::new(Live {
            deadlines: Deadlines {
                idle_ms: ms,
                head_ms: ms,
                body_ms: ms,
                body_bytes_per_sec: 1 << 10,
                write_ms: ms,
            },
            // Looked at by every request, and never reached.
            rate: Some(Arc::new(RateLimiter::new(
                "1000000/s".parse().expect("a rate"),
            ))),
            ..Live::from_config(&Config::default())
        });
        let date = HttpDate::from_system(SystemTime::now());
        let shared = Rc::new(Shared::new(parts, live, date));
        Core {
            shared,
            seen,
            commit,
        }
    }

    async fn accept(&self, listener: &Listener, count: usize) {
        while self.shared.parts.connections.count() < count {
            listener.readable().await.expect("polls");
            while let Some((socket, address)) = listener.accept().expect("accepts") {
                let stream = Stream::from_accepted(socket, &self.shared.parts.connections);
                let stream = stream.expect("registers");
                let peer = Peer {
                    address,
                    counted: None,
                };
                rt::spawn(conn::serve(stream, peer, Rc::clone(&self.shared)));
            }
        }
    }

    async fn stop(self) {
        self.shared.parts.connections.empty().await;
        self.shared.parts.shard.borrow_mut().close();
        self.commit.await.expect("no panic");
    }
}

/// Counts what a core allocates for [`COUNTED`] reports over `clients` connections.
///
/// The runtime is entered three times, which `rt::run` does not do: allocations are counted over a call.
fn run<D: monoio::Driver>(
    mut runtime: Runtime<D>,
    driver: Driver,
    samples: usize,
    clients: usize,
) -> Counts {
    let dir = tempfile::tempdir().expect("a directory");
    let fs = Fs::lock(dir.path()).expect("a data directory");
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = bind_listener(address, Share::Alone).expect("binds");
    let address = listener.local_addr().expect("is bound");
    let connections = clients;
    let clients = Clients::start(address, connections, samples);
    let core = runtime.block_on(async {
        let core = Core::start(fs, driver);
        let listener = Listener::from_std(listener, driver).expect("registers");
        core.accept(&listener, connections).await;
        clients.post(WARM_UP / connections).await;
        core
    });
    let seen = Rc::clone(&core.seen);
    let (calls, syncs) = (seen.calls.get(), seen.syncs.get());
    let allocated = allocation_counter::measure(|| {
        runtime.block_on(clients.post(COUNTED / connections));
    });
    let counts = Counts {
        allocations: allocated.count_total,
        calls: seen.calls.get() - calls,
        commits: seen.syncs.get() - syncs,
    };
    drop(clients.orders);
    clients.thread.join().expect("every answer was a 200");
    runtime.block_on(core.stop());
    counts
}

#[track_caller]
fn check(driver: Driver, samples: usize, clients: usize) {
    let Counts {
        allocations,
        calls,
        commits,
    } = match driver {
        Driver::IoUring => {
            let runtime = RuntimeBuilder::<IoUringDriver>::new().enable_timer();
            run(runtime.build().expect("a ring"), driver, samples, clients)
        }
        Driver::Epoll => {
            let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer();
            run(runtime.build().expect("epoll"), driver, samples, clients)
        }
    };
    let reports_per_commit = COUNTED as f64 / commits as f64;
    let counted = format!(
        "{driver}, {samples} samples, {clients} clients: {allocations} allocations for {COUNTED} reports \
         in {commits} commits with {calls} calls"
    );
    println!("{counted}");
    assert!(allocations <= PER_CALL * calls + GROWTH_MAX, "{counted}");
    // Else the bound would say nothing about the reports of a batch.
    let is_batched = reports_per_commit > clients as f64 / 16.0;
    assert!(is_batched, "{counted}");
}

/// What a connection takes while it is idle is its task, and little else. The largest wait of the whole
/// conversation counts, so that a large value kept over any of them shows here.
#[test]
fn a_connection_is_small() {
    fn task_bytes<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }
    let bytes = task_bytes(conn::serve);
    println!("{bytes} bytes");
    assert!(bytes <= 2048, "{bytes} bytes");
}

#[test]
fn a_report_allocates_nothing() {
    for driver in [Driver::IoUring, Driver::Epoll] {
        for samples in [1, 20, 100] {
            // 128 is half of what the pools of a core are made for, at the largest reports.
            for clients in [8, 128] {
                check(driver, samples, clients);
            }
        }
    }
}
