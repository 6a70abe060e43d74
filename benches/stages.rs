//! The stages of a report, one at a time and on one thread, in bytes of reports per second:
//! `cargo bench`, or `cargo bench -- check` for one of them.
//!
//! `limit` is what libraries take for the same bytes: simd-json, which the check of a usual report beats
//! and that of any other cannot, and the compressor, which no commit can beat. `load.sh` adds the check and
//! the compressor to its floor.
//!
//! `retention` is no stage: segments per second that a plan looks at.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use netwatch_server::catalog::Segment;
use netwatch_server::disk::{Dir, Disk, Fs, block_on};
use netwatch_server::http::head::{self, HeadScan};
use netwatch_server::report::Validator;
use netwatch_server::report::fast::{self, Host, Sample, Sink};
use netwatch_server::retention::{self, Limits};
use netwatch_server::segment::name::SegmentName;
use netwatch_server::segment::writer::{Batch, Encoder, Frame, Reach, Writer};
use netwatch_server::time::Timestamp;

mod inputs;
mod limits;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A size of reports as it is called here, and the samples per host that make it.
const SIZES: [(&str, usize); 3] = [("2KB", 1), ("13KB", 20), ("62KB", 100)];

/// Lines in a commit, beside commits of one.
const BATCH_LINES: usize = 64;

/// Segments of a large data directory.
const RETAINED: usize = 100_000;

/// Text of a segment until it is sealed: the server's default.
const SEGMENT_BYTES: usize = 10 << 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench_head(&mut criterion);
    bench_retention(&mut criterion);
    for (size, samples) in SIZES {
        let reports = inputs::reports(samples);
        bench_report(&mut criterion, size, &reports);
        bench_commit(&mut criterion, size, &reports);
        bench_limits(&mut criterion, size, &reports);
    }
    criterion.final_summary();
}

fn bench_head(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("head");
    group.throughput(Throughput::Bytes(inputs::BROWSER_HEAD.len() as u64));
    group.bench_function("browser", |bencher| {
        bencher.iter(|| {
            let bytes = black_box(inputs::BROWSER_HEAD);
            let len = HeadScan::default().find_end(bytes).expect("is well-formed");
            head::parse(&bytes[..len.expect("is whole")])
                .expect("is well-formed")
                .framing
        });
    });
}

/// A plan of which half goes.
fn bench_retention(criterion: &mut Criterion) {
    let minutes = |count: usize| Timestamp::from_ms(1_772_169_274_123 + 60_000 * count as u64);
    let segment = |count| {
        let time = minutes(count);
        Segment {
            name: SegmentName { time, core: 0 }.to_string().into(),
            file_bytes: 1 << 20,
            sidecar_bytes: Some(1 << 10),
            last_line: time,
        }
    };
    let segments: Vec<Segment> = (0..RETAINED).map(segment).collect();
    let limits = Limits {
        age: Some(Duration::from_secs(60 * RETAINED as u64 * 3 / 4)),
        bytes: Some((RETAINED as u64 / 2) << 20),
    };
    let mut group = criterion.benchmark_group("retention");
    group.throughput(Throughput::Elements(RETAINED as u64));
    let mut bench = |name: &str, segments: &[Segment]| {
        group.bench_function(BenchmarkId::new(name, RETAINED), |bencher| {
            bencher.iter(|| {
                let segments = black_box(segments);
                retention::plan(segments, limits, minutes(RETAINED)).len()
            });
        });
    };
    bench("plan", &segments);
    // Names that say nothing of the times; a prime that RETAINED is no multiple of visits each place once.
    let shuffled: Vec<Segment> = (0..RETAINED)
        .map(|place| segments[place * 7_919 % RETAINED].clone())
        .collect();
    bench("plan-shuffled", &shuffled);
}

fn bench_report(criterion: &mut Criterion, size: &str, reports: &[Vec<u8>]) {
    let throughput = Throughput::Bytes(mean_bytes(reports));
    let mut group = criterion.benchmark_group("report");
    group.throughput(throughput);
    let mut validator = Validator::new();
    let mut turn = reports.iter().cycle();
    group.bench_function(BenchmarkId::new("check", size), |bencher| {
        bencher.iter(|| {
            let body = turn.next().expect("it is a circle");
            validator.check(black_box(body)).expect("is valid");
        });
    });
    let unusual: Vec<Vec<u8>> = reports.iter().map(|body| inputs::unusual(body)).collect();
    let mut turn = unusual.iter().cycle();
    group.bench_function(BenchmarkId::new("check-unusual", size), |bencher| {
        bencher.iter(|| {
            let body = turn.next().expect("it is a circle");
            validator.check(black_box(body)).expect("is valid");
        });
    });
    let mut turn = reports.iter().cycle();
    group.bench_function(BenchmarkId::new("read", size), |bencher| {
        bencher.iter(|| {
            let body = turn.next().expect("it is a circle");
            let mut sum = Sum(0.0);
            fast::read(black_box(body), &mut sum).expect("is usual");
            sum.0
        });
    });
    let checked: Vec<_> = reports
        .iter()
        .map(|body| validator.check(body).expect("is valid"))
        .collect();
    let mut turn = checked.iter().cycle();
    let mut text = Vec::new();
    group.bench_function(BenchmarkId::new("append_line", size), |bencher| {
        bencher.iter(|| {
            let report = turn.next().expect("it is a circle");
            text.clear();
            report.append_line(black_box(Timestamp::MAX), &mut text);
        });
    });
}

/// All latencies of a report, added up.
struct Sum(f64);

impl<'b> Sink<'b> for Sum {
    fn client(&mut self, id: &'b str) {
        black_box(id);
    }

    fn geo(&mut self, json: &'b [u8]) {
        black_box(json);
    }

    fn sample(&mut self, sample: Sample<'b>) {
        black_box((sample.t, sample.error));
        self.0 += sample.latency.unwrap_or(0.0);
    }

    fn host(&mut self, host: Host<'b>) {
        black_box(host);
    }
}

/// Commits to memory, if there is a file system in it, with their share of creating and sealing segments.
fn bench_commit(criterion: &mut Criterion, size: &str, reports: &[Vec<u8>]) {
    let mut validator = Validator::new();
    let mut lines = Vec::new();
    for body in reports {
        let report = validator.check(body).expect("is valid");
        let mut line = Vec::new();
        report.append_line(Timestamp::from_ms(1_772_169_274_123), &mut line);
        lines.push(line);
    }
    let dir = match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => dir,
        Err(_) => tempfile::tempdir().expect("a directory"),
    };
    let fs = Fs::lock(dir.path()).expect("a data directory");
    let mut group = criterion.benchmark_group("commit");
    for batch in [1, BATCH_LINES] {
        let batches: Vec<Vec<u8>> = lines.chunks_exact(batch).map(<[_]>::concat).collect();
        let mut turn = batches.iter().cycle();
        let mut segments = Segments::new(fs.clone());
        let bytes: usize = batches.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes((bytes / batches.len()) as u64));
        group.bench_function(BenchmarkId::new(format!("{batch}x"), size), |bencher| {
            bencher.iter(|| {
                let text = turn.next().expect("it is a circle");
                block_on(segments.commit(black_box(text), batch as u32));
            });
        });
    }
}

/// One segment after the other, each removed when it is sealed.
struct Segments {
    fs: Fs,
    encoder: Encoder,
    out: Vec<u8>,
    open: Option<(Writer<Fs>, usize)>,
    begun: u64,
}

impl Segments {
    fn new(fs: Fs) -> Segments {
        Segments {
            fs,
            encoder: Encoder::new(1).expect("an encoder"),
            out: Vec::new(),
            open: None,
            begun: 0,
        }
    }

    async fn commit(&mut self, text: &[u8], lines: u32) {
        let (mut segment, had) = match self.open.take() {
            Some(open) => open,
            None => (self.create().await, 0),
        };
        let has = had + text.len();
        let frame = match has >= SEGMENT_BYTES {
            true => Frame::Ends,
            false => Frame::GoesOn,
        };
        let batch = Batch {
            text,
            lines,
            reach: Reach::Written,
            frame,
        };
        let reserved = segment.reserve(&self.fs, text.len(), 0).await;
        reserved.expect("there is space");
        let committed = segment
            .commit(&self.fs, &mut self.encoder, &mut self.out, batch)
            .await;
        committed.expect("there is space");
        if frame == Frame::GoesOn {
            self.open = Some((segment, has));
            return;
        }
        let sealed = segment.seal(&self.fs).await.expect("moves up");
        let removed = self.fs.remove(Dir::Sealed, &sealed.name).await;
        removed.expect("was there");
    }

    async fn create(&mut self) -> Writer<Fs> {
        self.begun += 1;
        let first = SegmentName {
            time: Timestamp::from_ms(1_772_169_274_123 + self.begun),
            core: 0,
        };
        let created = Writer::create(&self.fs, &mut self.encoder, first).await;
        created.expect("the name is free")
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        if let Some((segment, _)) = self.open.take() {
            let removed = block_on(self.fs.remove(Dir::Open, segment.name()));
            removed.expect("was there");
        }
    }
}

fn bench_limits(criterion: &mut Criterion, size: &str, reports: &[Vec<u8>]) {
    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Bytes(mean_bytes(reports)));
    let mut json = limits::Json::new();
    let mut turn = reports.iter().cycle();
    group.bench_function(BenchmarkId::new("simd-json", size), |bencher| {
        bencher.iter(|| json.parse(black_box(turn.next().expect("it is a circle"))));
    });
    let mut zstd = limits::Zstd::new(1);
    let mut turn = reports.iter().cycle();
    group.bench_function(BenchmarkId::new("zstd-1", size), |bencher| {
        bencher.iter(|| zstd.compress(black_box(turn.next().expect("it is a circle"))));
    });
}

fn mean_bytes(reports: &[Vec<u8>]) -> u64 {
    let bytes: usize = reports.iter().map(Vec::len).sum();
    (bytes / reports.len()) as u64
}
