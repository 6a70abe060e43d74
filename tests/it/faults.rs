//! A 2xx means that the report is on stable storage, whatever the disk does: the commit loop with its
//! shard, over a disk in memory on which every single operation fails, stops or waits in its turn.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers here as tests"
)]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use netwatch_server::commit::{CommitLoop, Outlets, Policy};
use netwatch_server::disk::sim::{Crash, End, Fault, Part, SimDisk, Unsettled, Unsynced};
use netwatch_server::disk::{Dir, Disk, block_on};
use netwatch_server::health::{Health, Verdict, WRITE_STUCK_MS};
use netwatch_server::rt::{self, Driver, Either, JoinHandle, Panicked};
use netwatch_server::segment::name::SegmentName;
use netwatch_server::segment::recover::salvage;
use netwatch_server::segment::writer::{Abandoned, Encoder, Reach};
use netwatch_server::shard::{Gather, Limits, Lines, Refusal, Shard, Ticket};
use netwatch_server::time::{Now, Timestamp};
use rustix::io::Errno;

use crate::reports::Random;
use crate::segments::{contents, crashes, recover_all, sealed};

const DRIVERS: [Driver; 2] = [Driver::Epoll, Driver::IoUring];

/// 2026-02-27T05:14:34.123Z.
const WALL_MS: u64 = 1_772_169_274_123;

/// Of a disk in memory, unless it is told another.
const CAPACITY: u64 = 1 << 40;

/// By far longer than a workload takes.
const DEADLINE: Duration = Duration::from_secs(60);

const TASKS: usize = 3;
const LINES: usize = 20;

/// A clock that goes on when it is told to.
#[derive(Clone)]
struct Clock {
    now: Rc<Cell<Now>>,
}

impl Clock {
    fn new() -> Clock {
        let now = Now {
            wall: Timestamp::from_ms(WALL_MS),
            monotonic_ms: 1_000_000,
        };
        Clock {
            now: Rc::new(Cell::new(now)),
        }
    }

    fn advance(&self, ms: u64) -> Now {
        let Now { wall, monotonic_ms } = self.now.get();
        self.now.set(Now {
            wall: Timestamp::from_ms(wall.ms() + ms),
            monotonic_ms: monotonic_ms + ms,
        });
        self.now.get()
    }

    fn set_wall(&self, ms: u64) {
        self.now.set(Now {
            wall: Timestamp::from_ms(ms),
            ..self.now.get()
        });
    }
}

/// What the clients know: each line as it was sent, and the answer to it.
#[derive(Clone, Default)]
struct Journal {
    lines: Rc<RefCell<BTreeMap<String, Option<Answer>>>>,
}

type Answer = Result<(), Refusal>;

impl Journal {
    fn answered(&self, answer: Answer) -> Vec<String> {
        let lines = self.lines.borrow();
        let answered = lines.iter().filter(|(_, known)| **known == Some(answer));
        answered.map(|(line, _)| line.clone()).collect()
    }

    fn acked(&self) -> Vec<String> {
        self.answered(Ok(()))
    }
}

/// A core without its sockets.
struct Core {
    tick_ms: u64,
    clock: Clock,
    shard: Rc<RefCell<Shard>>,
    health: Arc<Health>,
    journal: Journal,
    abandoned: Receiver<Abandoned>,
}

#[derive(Clone, Copy)]
struct Setup {
    reach: Reach,
    limits: Limits,
    /// How many abandoned segments may wait for their salvage.
    salvage_max: usize,
    /// How often a client whose line is refused tries again.
    patience: usize,
    /// By how much the clocks go on with each line.
    tick_ms: u64,
}

const SETUP: Setup = Setup {
    reach: Reach::Durable,
    limits: Limits {
        held_bytes_max: 1 << 20,
        segment_bytes: 16 << 10,
        segment_ms: 100,
        gather: Gather::WhileDiskIsBusy,
    },
    salvage_max: 64,
    patience: 1000,
    tick_ms: 7,
};

impl Core {
    /// Starts the commit loop on this thread's runtime.
    fn start(disk: &SimDisk, setup: Setup) -> (Rc<Core>, JoinHandle<Result<(), Panicked>>) {
        let shard = Rc::new(RefCell::new(Shard::new(setup.limits)));
        let health = Arc::new(Health::new(1));
        let clock = Clock::new();
        let (salvage, abandoned) = sync_channel(setup.salvage_max);
        let policy = Policy {
            core: 0,
            reach: setup.reach,
            free_bytes_min: Rc::default(),
            probe_every: Duration::from_millis(1),
        };
        let commit_clock = clock.clone();
        let commit = CommitLoop::new(
            policy,
            disk.clone(),
            move || commit_clock.now.get(),
            Rc::clone(&shard),
            Outlets {
                health: Arc::clone(&health),
                salvage,
                metrics: Arc::default(),
                open: Arc::default(),
            },
            Encoder::new(1).unwrap(),
        );
        let core = Core {
            tick_ms: setup.tick_ms,
            clock,
            shard,
            health,
            journal: Journal::default(),
            abandoned,
        };
        (Rc::new(core), rt::spawn(commit.run()))
    }

    /// Appends a line of its own and notes it in the journal.
    fn append(&self, id: &str, pad: &str) -> Result<(String, Ticket), Refusal> {
        let now = self.clock.advance(self.tick_ms);
        let mut line = String::new();
        let empty = r#"{"receivedAt":"","id":"","pad":""}"#.len() + Timestamp::RFC3339_LEN + 1;
        let lines = Lines {
            count: 1,
            bytes: empty + id.len() + pad.len(),
        };
        let ticket = Ticket::append(&self.shard, now, lines, |received_at, text| {
            let received_at = received_at.rfc3339();
            let received_at = str::from_utf8(&received_at).unwrap();
            line =
                format!("{{\"receivedAt\":\"{received_at}\",\"id\":\"{id}\",\"pad\":\"{pad}\"}}");
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        })?;
        let known = self.journal.lines.borrow_mut().insert(line.clone(), None);
        assert_eq!(known, None, "every line is another");
        Ok((line, ticket))
    }

    async fn post(&self, id: &str, pad: &str) -> Answer {
        let (line, ticket) = self.append(id, pad)?;
        let answer = ticket.await;
        self.journal.lines.borrow_mut().insert(line, Some(answer));
        answer
    }

    /// One client: sends its lines one after the other; one that is refused is sent anew under another
    /// id, as long as there is patience.
    async fn client(self: Rc<Self>, index: usize, mut patience: usize) {
        let mut random = Random::new(index as u64);
        for number in 0..LINES {
            let pad_bytes = match (index, number) {
                // More than one stretch of compression, and more than one write.
                (0, 9) => 300_000,
                _ => random.below(3000) as usize,
            };
            let mut pad = String::new();
            while pad.len() < pad_bytes {
                pad.push_str(&format!("{:016x}", random.next_u64()));
            }
            let mut tries = 0;
            while self
                .post(&format!("{index}-{number}-{tries}"), &pad)
                .await
                .is_err()
            {
                tries += 1;
                if patience == 0 {
                    return;
                }
                patience -= 1;
                rt::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Lets the disk's operations go on one by one, with some turns for all other tasks in between. Ends with
/// the process.
fn pace(disk: &SimDisk) {
    disk.pace();
    let disk = disk.clone();
    rt::spawn(async move {
        loop {
            let ended = rt::either(disk.stopped(), disk.waiting()).await;
            if matches!(ended, Either::First(())) {
                return;
            }
            for _ in 0..2 {
                rt::spawn(async {}).await.unwrap();
            }
            disk.step();
        }
    });
}

/// What is left when the process has ended.
struct Ended {
    disk: SimDisk,
    journal: Journal,
    abandoned: Vec<Abandoned>,
}

/// Runs the clients to their end, or to the end of the process. Nothing of it may hang or panic.
async fn run_workload(disk: &SimDisk, setup: Setup) -> Ended {
    let (core, commit) = Core::start(disk, setup);
    pace(disk);
    let clients: Vec<_> = (0..TASKS)
        .map(|index| rt::spawn(Rc::clone(&core).client(index, setup.patience)))
        .collect();
    let work = async {
        for client in clients {
            client.await.expect("no client panics");
        }
        core.shard.borrow_mut().close();
        commit.await.expect("the loop does not panic");
    };
    let ended = rt::timeout(DEADLINE, rt::either(disk.stopped(), work)).await;
    match ended.expect("the loop ends") {
        Either::First(()) => (),
        Either::Second(()) => assert_eq!(core.shard.borrow().held_bytes(), 0),
    }
    disk.stop();
    Ended {
        disk: disk.crash(Crash::Process),
        journal: core.journal.clone(),
        abandoned: core.abandoned.try_iter().collect(),
    }
}

impl Ended {
    /// Recovers the disk after a crash, and compares the lines on it with the journal.
    fn check_after(&self, crash: Crash) -> (SimDisk, BTreeSet<String>) {
        let disk = self.disk.crash(crash);
        recover_all(&disk);
        let used: usize = contents(&disk).values().map(Vec::len).sum();
        let free = block_on(disk.free_bytes()).expect("it has no faults");
        // What is aside is as it was, with the space behind its end.
        if disk.names(Dir::Corrupt).is_empty() {
            let left = CAPACITY - used as u64;
            assert_eq!(free, left, "{crash:?} leaves space reserved");
        }
        let stored = stored_lines(&disk);
        for line in self.journal.acked() {
            assert!(stored.contains(&line), "{crash:?} lost {line:.70}");
        }
        let sent = self.journal.lines.borrow();
        for line in &stored {
            assert!(sent.contains_key(line), "{crash:?} made up {line:.70}");
        }
        (disk, stored)
    }

    /// The same for every crash that leaves something else, and for a power cut after its recovery.
    fn check_after_all(&self) {
        let mut seen = Vec::new();
        for crash in crashes() {
            let found = contents(&self.disk.crash(crash));
            if seen.contains(&found) {
                continue;
            }
            seen.push(found);
            let (disk, stored) = self.check_after(crash);
            let (names, bytes) = (Unsettled::Fewest, Unsynced::Lost);
            let later = disk.crash(Crash::Power { bytes, names });
            recover_all(&later);
            assert_eq!(stored_lines(&later), stored, "{crash:?}, then a power cut");
        }
    }

    /// Salvages what was abandoned: all that was acknowledged is stored, and nothing else.
    fn check_salvaged(&self) {
        let disk = self.disk.crash(Crash::Process);
        for abandoned in &self.abandoned {
            block_on(salvage(&disk, abandoned)).expect("the disk takes it");
        }
        for name in disk.names(Dir::Open) {
            // What no writer or probe was ever given is for the next start to remove.
            let is_empty = disk.content(Dir::Open, &name) == Some(Vec::new());
            assert!(is_empty || name == ".probe-c000", "{name} is left");
        }
        assert_eq!(disk.names(Dir::Corrupt), [""; 0]);
        let acked: BTreeSet<_> = self.journal.acked().into_iter().collect();
        assert_eq!(stored_lines(&disk), acked);
        let (names, bytes) = (Unsettled::Fewest, Unsynced::Lost);
        let later = disk.crash(Crash::Power { bytes, names });
        assert_eq!(stored_lines(&later), acked);
    }
}

/// The lines of all sealed segments. Each is there once; within a segment the time of arrival never goes
/// back and begins with the name's.
#[track_caller]
fn stored_lines(disk: &SimDisk) -> BTreeSet<String> {
    let mut stored = BTreeSet::new();
    for (name, text) in sealed(disk) {
        let received_at = |line: &str| line[15..39].to_owned();
        let times: Vec<_> = text.lines().map(received_at).collect();
        assert!(times.is_sorted(), "{name}");
        let segment = SegmentName::parse(&name).unwrap();
        let named = String::from_utf8(segment.time.rfc3339().to_vec()).unwrap();
        assert!(named >= times[0], "{name} begins at {}", times[0]);
        for line in text.lines() {
            assert!(stored.insert(line.to_owned()), "twice: {line:.60}");
        }
    }
    stored
}

/// Operations of the workload without faults.
async fn workload_operations(setup: Setup) -> usize {
    let disk = SimDisk::default();
    let ended = run_workload(&disk, setup).await;
    assert_eq!(ended.abandoned, []);
    ended.check_salvaged();
    assert_eq!(ended.journal.acked().len(), TASKS * LINES);
    let has_zeros = disk.log().contains(&"write_zeros");
    assert_eq!(has_zeros, setup.reach == Reach::Durable);
    disk.log().len()
}

fn at(number: usize, part: Part, end: End) -> Fault {
    Fault {
        name: None,
        skip: number as u64,
        count: 1,
        part,
        end,
    }
}

/// Runs the workload once for every operation of it, with this fault there.
fn sweep(setup: Setup, fault: impl Fn(usize) -> Fault, check: impl Fn(Ended)) {
    for driver in DRIVERS {
        rt::run(driver, || async {
            let operations = workload_operations(setup).await;
            assert!(operations > 60, "the workload has {operations} operations");
            for number in 0..operations {
                let disk = SimDisk::default();
                disk.fault(fault(number));
                let ended = run_workload(&disk, setup).await;
                let log = disk.log();
                let operation = log.get(number);
                let told = format!("{driver}, operation {number} of {operations}: {operation:?}");
                let checked = catch_unwind(AssertUnwindSafe(|| check(ended)));
                assert!(checked.is_ok(), "{told}");
            }
        })
        .unwrap();
    }
}

#[test]
fn a_process_stopped_at_any_operation_loses_nothing() {
    for part in [Part::Nothing, Part::Half, Part::All] {
        let fault = |number| at(number, part, End::Stop);
        sweep(SETUP, fault, |ended| ended.check_after_all());
    }
}

#[test]
fn what_is_written_survives_the_process() {
    let setup = Setup {
        reach: Reach::Written,
        ..SETUP
    };
    for part in [Part::Nothing, Part::Half, Part::All] {
        let fault = |number| at(number, part, End::Stop);
        sweep(setup, fault, |ended| {
            ended.check_after(Crash::Process);
        });
    }
}

#[test]
fn one_error_anywhere_refuses_some_lines_and_is_over() {
    for part in [Part::Nothing, Part::Half, Part::All] {
        let fault = |number| at(number, part, End::Error(Errno::IO));
        sweep(SETUP, fault, |ended| {
            assert_eq!(ended.journal.acked().len(), TASKS * LINES);
            ended.check_salvaged();
            ended.check_after_all();
        });
    }
}

#[test]
fn errors_for_ever_end_the_loop() {
    let setup = Setup {
        patience: 2,
        ..SETUP
    };
    let fault = |number| Fault {
        count: u64::MAX,
        ..at(number, Part::Nothing, End::Error(Errno::IO))
    };
    sweep(setup, fault, |ended| {
        ended.check_salvaged();
        ended.check_after_all();
    });
}

#[test]
fn abandoned_segments_that_nobody_notes_wait_for_the_next_start() {
    let setup = Setup {
        salvage_max: 0,
        ..SETUP
    };
    let fault = |number| at(number, Part::Nothing, End::Error(Errno::IO));
    sweep(setup, fault, |ended| {
        assert_eq!(ended.abandoned, []);
        assert_eq!(ended.journal.acked().len(), TASKS * LINES);
        ended.check_after_all();
    });
}

#[test]
fn a_disk_that_is_full_for_three_operations_refuses_as_long() {
    let fault = |number| Fault {
        count: 3,
        ..at(number, Part::Half, End::Error(Errno::NOSPC))
    };
    sweep(SETUP, fault, |ended| {
        let failing = Err(Refusal::DiskFailing);
        assert_eq!(ended.journal.answered(failing), [""; 0]);
        assert_eq!(ended.journal.acked().len(), TASKS * LINES);
        ended.check_salvaged();
        ended.check_after_all();
    });
}

/// Looks again and again, with a turn for all other tasks in between.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            rt::sleep(Duration::from_millis(1)).await;
        }
    };
    let seen = rt::timeout(DEADLINE, looking).await;
    assert!(seen.is_some(), "{what}");
}

#[test]
fn a_full_disk_refuses_until_space_is_freed() {
    // A segment reserves a MiB, and so does a probe; the lines take some 300 KiB.
    for capacity in [0, 1 << 19, (1 << 20) + 1000, (1 << 20) + (100 << 10)] {
        for driver in DRIVERS {
            rt::run(driver, || async {
                let disk = SimDisk::default();
                disk.set_capacity(capacity);
                let (core, commit) = Core::start(&disk, SETUP);
                let clients: Vec<_> = (0..TASKS)
                    .map(|index| rt::spawn(Rc::clone(&core).client(index, usize::MAX)))
                    .collect();
                let full = Verdict::Refusing(Refusal::DiskFull);
                let verdict = || core.health.verdicts(0).next();
                until("health says full", || verdict() == Some(full)).await;
                disk.set_capacity(CAPACITY);
                for client in clients {
                    client.await.expect("no client panics");
                }
                assert_eq!(verdict(), Some(Verdict::Accepting), "{capacity}");
                core.shard.borrow_mut().close();
                commit.await.expect("the loop does not panic");
                let ended = Ended {
                    disk: disk.crash(Crash::Process),
                    journal: core.journal.clone(),
                    abandoned: core.abandoned.try_iter().collect(),
                };
                let failing = Err(Refusal::DiskFailing);
                assert_eq!(ended.journal.answered(failing), [""; 0]);
                assert_eq!(ended.journal.acked().len(), TASKS * LINES);
                ended.check_salvaged();
            })
            .unwrap();
        }
    }
}

#[test]
fn a_stuck_sync_bounds_what_is_held_and_shows_in_health() {
    for driver in DRIVERS {
        rt::run(driver, || async {
            let disk = SimDisk::default();
            disk.fault(Fault {
                name: Some("sync_data"),
                skip: 2,
                count: 1,
                part: Part::All,
                end: End::Wait,
            });
            let (core, commit) = Core::start(&disk, SETUP);
            for id in ["a", "b"] {
                core.post(id, "").await.expect("the disk takes it");
            }
            let syncs = || {
                disk.log()
                    .iter()
                    .filter(|&&name| name == "sync_data")
                    .count()
            };
            let mut waiting = vec![core.append("c", "").expect("there is room")];
            until("the third sync", || syncs() == 3).await;
            let pad = "x".repeat(10_000);
            let refused = loop {
                match core.append(&waiting.len().to_string(), &pad) {
                    Ok(taken) => waiting.push(taken),
                    Err(refused) => break refused,
                }
                let held = core.shard.borrow().held_bytes();
                assert!(held <= SETUP.limits.held_bytes_max, "{held}");
            };
            assert_eq!(refused, Refusal::ShardFull);
            assert!(waiting.len() > 10, "{}", waiting.len());

            let began_ms = core.clock.now.get().monotonic_ms - core.tick_ms * waiting.len() as u64;
            let verdict = |now_ms| core.health.verdicts(now_ms).next();
            assert_eq!(verdict(began_ms), Some(Verdict::Accepting));
            let since_ms = WRITE_STUCK_MS + 1;
            assert_eq!(
                verdict(began_ms + since_ms),
                Some(Verdict::Stuck { since_ms })
            );
            assert_eq!(syncs(), 3, "nothing goes past the sync that is stuck");

            disk.release();
            for (line, ticket) in waiting {
                ticket.await.expect("the disk takes it");
                let mut lines = core.journal.lines.borrow_mut();
                lines.insert(line, Some(Ok(())));
            }
            core.post("z", "").await.expect("there is room again");
            assert_eq!(verdict(began_ms + since_ms), Some(Verdict::Accepting));
            core.shard.borrow_mut().close();
            commit.await.expect("the loop does not panic");
            let stored = stored_lines(&disk).into_iter().collect::<Vec<_>>();
            assert_eq!(stored, core.journal.acked());
        })
        .unwrap();
    }
}

#[test]
fn names_are_free_whatever_the_clock_does() {
    const HOUR_MS: u64 = 3_600_000;
    let setup = Setup {
        limits: Limits {
            segment_bytes: 1,
            ..SETUP.limits
        },
        tick_ms: 0,
        ..SETUP
    };
    for driver in DRIVERS {
        rt::run(driver, || async {
            let disk = SimDisk::default();
            // Sealed by somebody else, under the name that the first line will ask for.
            let taken = "reports-20260227T051434.123Z-c000.jsonl.zst";
            disk.put(Dir::Sealed, taken, b"not ours");
            let (core, commit) = Core::start(&disk, setup);
            let walls = [0, 2 * HOUR_MS, HOUR_MS, 0, 5 * HOUR_MS, HOUR_MS];
            for (number, wall_ms) in walls.into_iter().enumerate() {
                core.clock.set_wall(WALL_MS + wall_ms);
                for line in 0..3 {
                    let id = format!("{number}-{line}");
                    core.post(&id, "").await.expect("the disk takes it");
                }
            }
            core.shard.borrow_mut().close();
            commit.await.expect("the loop does not panic");
            assert_eq!(disk.content(Dir::Sealed, taken).unwrap(), b"not ours");
            block_on(disk.remove(Dir::Sealed, taken)).unwrap();
            assert_eq!(disk.names(Dir::Sealed).len(), 3 * walls.len());
            let stored = stored_lines(&disk).into_iter().collect::<Vec<_>>();
            assert_eq!(stored, core.journal.acked());
        })
        .unwrap();
    }
}
