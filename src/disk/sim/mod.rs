//! A data directory in memory that fails, waits, stops and forgets on request, for tests of the code
//! that uses [`Disk`].
//!
//! `media` holds its bytes and names, and knows which of them are stable.
//!
//! Operations are numbered from 0 as they begin; a [`Fault`] picks some of them. There is no time and no
//! chance here: the same calls in the same order have the same results. Clones share the disk.

mod media;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;

use self::media::Media;
pub use self::media::{Crash, SimFile, Unsettled, Unsynced};
use super::{Dir, Disk, Entry};

/// The disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

/// What is to go wrong: with the operations of this name (any, if `None`), after `skip` of them, `count`
/// times.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// As in [`SimDisk::log`].
    pub name: Option<&'static str>,
    /// Operations that go well before.
    pub skip: u64,
    /// Operations that do not.
    pub count: u64,
    /// What such an operation does all the same.
    pub part: Part,
    /// How it ends.
    pub end: End,
}

/// How much of an operation happens. Only writes and syncs of bytes can be halved; of the others, half
/// is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// None of it.
    Nothing,
    /// The first half of the bytes.
    Half,
    /// All of it.
    All,
}

/// How an operation ends that does not go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this error.
    Error(Errno),
    /// The process ends there: neither this operation nor any other one returns.
    Stop,
    /// It happens and returns well, but not before [`SimDisk::release`].
    Wait,
}

struct State {
    media: Media,
    faults: Vec<Fault>,
    log: Vec<&'static str>,
    held: Vec<usize>,
    /// Operations from this number on wait for a [`SimDisk::step`].
    granted: usize,
    is_stopped: bool,
    wakers: Vec<Waker>,
}

impl Default for State {
    fn default() -> Self {
        State {
            media: Media::default(),
            faults: Vec::new(),
            log: Vec::new(),
            held: Vec::new(),
            granted: usize::MAX,
            is_stopped: false,
            wakers: Vec::new(),
        }
    }
}

impl SimDisk {
    /// Adds a fault to those that wait for their operations.
    pub fn fault(&self, fault: Fault) {
        self.state.borrow_mut().faults.push(fault);
    }

    /// Ends the wait of operations with [`End::Wait`].
    pub fn release(&self) {
        let mut state = self.state.borrow_mut();
        state.held.clear();
        state.wake();
    }

    /// From now on each operation waits for a [`SimDisk::step`], so that others can run meanwhile.
    pub fn pace(&self) {
        let mut state = self.state.borrow_mut();
        state.granted = state.log.len();
    }

    /// Waits until an operation waits for a [`SimDisk::step`].
    pub async fn waiting(&self) {
        self.until(|state| state.granted < state.log.len()).await;
    }

    /// Lets the first operation that waits go on.
    pub fn step(&self) {
        let mut state = self.state.borrow_mut();
        state.granted += 1;
        state.wake();
    }

    /// Ends the process now.
    pub fn stop(&self) {
        self.state.borrow_mut().stop();
    }

    /// Waits until the process has ended.
    pub async fn stopped(&self) {
        self.until(|state| state.is_stopped).await;
    }

    /// The disk holds this many bytes in all.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.borrow_mut().media.capacity = bytes;
    }

    /// The names of all operations so far, as in [`Disk`].
    pub fn log(&self) -> Vec<&'static str> {
        self.state.borrow().log.clone()
    }

    /// A durable file with this content.
    pub fn put(&self, dir: Dir, name: &str, content: &[u8]) {
        self.state.borrow_mut().media.put_file(dir, name, content);
    }

    /// A durable entry that is no file.
    pub fn put_other(&self, dir: Dir, name: &str) {
        self.state.borrow_mut().media.put_other(dir, name);
    }

    /// The content of a file, empty for an entry that is none; `None` if there is no entry.
    pub fn content(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        self.state.borrow().media.content(dir, name)
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: Dir) -> Vec<String> {
        self.state.borrow().media.names(dir)
    }

    /// The disk as another process finds it after a crash, without faults. This one stays as it is.
    pub fn crash(&self, crash: Crash) -> SimDisk {
        let state = State {
            media: self.state.borrow().media.after(crash),
            ..State::default()
        };
        SimDisk {
            state: Rc::new(RefCell::new(state)),
        }
    }

    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        poll_fn(|context: &mut Context<'_>| {
            let mut state = self.state.borrow_mut();
            if is_so(&state) {
                return Poll::Ready(());
            }
            // What waits in a process that has ended is never woken, and so is freed.
            if !state.is_stopped {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// One operation: what it does, given which part of it is to happen.
    async fn perform<T>(
        &self,
        name: &'static str,
        act: impl FnOnce(&mut Media, Part) -> io::Result<T>,
    ) -> io::Result<T> {
        let (number, fault) = self.state.borrow_mut().begin(name);
        self.until(|state| {
            !state.is_stopped && number < state.granted && !state.held.contains(&number)
        })
        .await;
        let fault = match fault {
            Some(fault) if fault.end != End::Wait => fault,
            _ => return act(&mut self.state.borrow_mut().media, Part::All),
        };
        if fault.part != Part::Nothing {
            // The outcome is the fault's.
            let _ = act(&mut self.state.borrow_mut().media, fault.part);
        }
        if let End::Error(errno) = fault.end {
            return Err(errno.into());
        }
        self.state.borrow_mut().stop();
        pending().await
    }
}

impl State {
    fn begin(&mut self, name: &'static str) -> (usize, Option<Fault>) {
        let number = self.log.len();
        self.log.push(name);
        let mut found = None;
        for fault in &mut self.faults {
            if fault.name.is_some_and(|wanted| wanted != name) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.count > 0 && found.is_none() {
                fault.count -= 1;
                found = Some(*fault);
            }
        }
        if found.is_some_and(|fault| fault.end == End::Wait) {
            self.held.push(number);
        }
        self.wake();
        (number, found)
    }

    fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.wake();
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn create(&self, dir: Dir, name: &str) -> io::Result<SimFile> {
        self.perform("create", |media, _| media.create(dir, name))
            .await
    }

    async fn open(&self, dir: Dir, name: &str) -> io::Result<SimFile> {
        self.perform("open", |media, _| media.open(dir, name)).await
    }

    async fn len(&self, file: &SimFile) -> io::Result<u64> {
        self.perform("len", |media, _| Ok(media.cached(file).len() as u64))
            .await
    }

    async fn read_at(
        &self,
        file: &SimFile,
        mut bytes: Vec<u8>,
        offset: u64,
    ) -> io::Result<Vec<u8>> {
        self.perform("read_at", |media, _| {
            let cached = media.cached(file);
            let rest = &cached[cached.len().min(offset as usize)..];
            let count = rest.len().min(bytes.len());
            bytes.truncate(count);
            bytes.copy_from_slice(&rest[..count]);
            Ok(bytes)
        })
        .await
    }

    async fn reserve(&self, file: &SimFile, offset: u64, len: u64) -> io::Result<()> {
        let end = (offset + len) as usize;
        self.perform("reserve", |media, _| media.reserve(file, end))
            .await
    }

    async fn write_zeros(&self, file: &SimFile, offset: u64, len: u64) -> io::Result<()> {
        let act = |media: &mut Media, part| {
            let len = match part {
                Part::Half => len / 2,
                _ => len,
            };
            media.write(file, &vec![0; len as usize], offset as usize)
        };
        self.perform("write_zeros", act).await
    }

    async fn write_all_at(
        &self,
        file: &SimFile,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        let act = |media: &mut Media, part| {
            let bytes = match part {
                Part::Half => &bytes[..bytes.len() / 2],
                _ => &bytes[..],
            };
            media.write(file, bytes, offset as usize)
        };
        let result = self.perform("write_all_at", act).await;
        (result, bytes)
    }

    async fn truncate(&self, file: &SimFile, len: u64) -> io::Result<()> {
        self.perform("truncate", |media, _| {
            media.truncate(file, len as usize);
            Ok(())
        })
        .await
    }

    async fn sync_data(&self, file: &SimFile) -> io::Result<()> {
        let act = |media: &mut Media, part| {
            media.sync_data(file, part);
            Ok(())
        };
        let result = self.perform("sync_data", act).await;
        if result.is_err() {
            self.state.borrow_mut().media.forget_dirty(file);
        }
        result
    }

    async fn rename(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        self.perform("rename", |media, _| media.rename(from, to))
            .await
    }

    async fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.perform("remove", |media, _| media.remove(dir, name))
            .await
    }

    async fn exists(&self, dir: Dir, name: &str) -> io::Result<bool> {
        self.perform("exists", |media, _| Ok(media.exists(dir, name)))
            .await
    }

    async fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.perform("sync_dir", |media, _| {
            media.sync_dir(dir);
            Ok(())
        })
        .await
    }

    async fn list(&self, dir: Dir) -> io::Result<Vec<Entry>> {
        self.perform("list", |media, _| Ok(media.list(dir))).await
    }

    async fn free_bytes(&self) -> io::Result<u64> {
        self.perform("free_bytes", |media, _| Ok(media.free_bytes()))
            .await
    }
}
