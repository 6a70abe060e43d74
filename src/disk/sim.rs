//! A data directory in memory that fails, waits, stops and forgets on request, for tests of the code
//! that uses [`Disk`].
//!
//! ```text
//! bytes:  write ─▶ cache, dirty ──sync_data─▶ platter
//!                    └─sync_data fails─▶ cache, clean: no later sync brings them to the platter
//! names:  create, rename, remove ─▶ now ──sync_dir─▶ durable
//! ```
//!
//! A rename between two directories is one transaction, as in the journals of ext4 and XFS: until both
//! are synced a power cut may leave the old name, the new one, or both, but never neither. Within one
//! directory it leaves one of them.
//!
//! Operations are numbered from 0 as they begin; a [`Fault`] picks some of them. There is no time and no
//! chance here: the same calls in the same order have the same results. Clones share the disk.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::mem;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;

use super::{Dir, Disk, Entry, EntryKind};

/// The disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

/// An open file.
#[derive(Debug)]
pub struct SimFile {
    index: usize,
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

/// What a crash takes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process: all that it has written stays, as durable as it was.
    Process,
    /// The machine.
    Power {
        /// What becomes of bytes that are not synced.
        bytes: Unsynced,
        /// What becomes of names that are not synced.
        names: Unsettled,
    },
}

/// What becomes of bytes that are not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// They are lost, and a changed length with them.
    Lost,
    /// They had reached the platter.
    Kept,
    /// The first half had, and a file that has grown ends there.
    Half,
    /// The length had, the bytes had not: they are zero.
    Zeros,
}

/// What becomes of names that are not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// New names vanish, old ones come back.
    Undone,
    /// All is as it was seen.
    Done,
    /// New names stay, old ones come back.
    Most,
    /// New names vanish, old ones stay away.
    Fewest,
}

struct State {
    files: Vec<SimInode>,
    dirs: BTreeMap<Dir, Names>,
    /// Renames of which neither directory has been synced since.
    moves: Vec<Move>,
    capacity: u64,
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
            files: Vec::new(),
            dirs: Dir::ALL.map(|dir| (dir, Names::default())).into(),
            moves: Vec::new(),
            capacity: 1 << 40,
            faults: Vec::new(),
            log: Vec::new(),
            held: Vec::new(),
            granted: usize::MAX,
            is_stopped: false,
            wakers: Vec::new(),
        }
    }
}

#[derive(Clone, Default)]
struct SimInode {
    cache: Vec<u8>,
    /// Of each byte of `cache`.
    dirty: Vec<bool>,
    platter: Vec<u8>,
    reserved: usize,
}

#[derive(Clone, Default)]
struct Names {
    now: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Other,
}

#[derive(Clone)]
struct Move {
    from: (Dir, String),
    to: (Dir, String),
    node: Node,
}

impl SimDisk {
    /// Adds a fault to those that wait for their operations.
    pub fn fault(&self, fault: Fault) {
        self.state.borrow_mut().faults.push(fault);
    }

    /// Lets every operation that begins from now on go well.
    pub fn heal(&self) {
        self.state.borrow_mut().faults.clear();
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
        self.state.borrow_mut().capacity = bytes;
    }

    /// The names of all operations so far, as in [`Disk`].
    pub fn log(&self) -> Vec<&'static str> {
        self.state.borrow().log.clone()
    }

    /// A durable file with this content.
    pub fn put(&self, dir: Dir, name: &str, content: &[u8]) {
        let mut state = self.state.borrow_mut();
        let node = Node::File(state.files.len());
        state.files.push(SimInode::durable(content.to_vec()));
        state.names(dir).put(name, node);
    }

    /// A durable entry that is no file.
    pub fn put_other(&self, dir: Dir, name: &str) {
        self.state.borrow_mut().names(dir).put(name, Node::Other);
    }

    /// The content of a file, empty for an entry that is none; `None` if there is no entry.
    pub fn content(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        match *state.dirs[&dir].now.get(name)? {
            Node::File(index) => Some(state.files[index].cache.clone()),
            Node::Other => Some(Vec::new()),
        }
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: Dir) -> Vec<String> {
        self.state.borrow().dirs[&dir].now.keys().cloned().collect()
    }

    /// The disk as another process finds it after a crash, without faults. This one stays as it is.
    pub fn crash(&self, crash: Crash) -> SimDisk {
        let state = self.state.borrow();
        let (mut files, mut dirs) = (state.files.clone(), state.dirs.clone());
        let mut moves = state.moves.clone();
        if let Crash::Power { bytes, names } = crash {
            for file in &mut files {
                *file = SimInode::durable(file.after_power_cut(bytes));
            }
            for (&dir, found) in &mut dirs {
                found.now = state.names_after_power_cut(dir, names);
                found.durable = found.now.clone();
            }
            moves.clear();
        }
        let state = State {
            files,
            dirs,
            moves,
            capacity: state.capacity,
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
        act: impl FnOnce(&mut State, Part) -> io::Result<T>,
    ) -> io::Result<T> {
        let (number, fault) = self.state.borrow_mut().begin(name);
        self.until(|state| {
            !state.is_stopped && number < state.granted && !state.held.contains(&number)
        })
        .await;
        let fault = match fault {
            Some(fault) if fault.end != End::Wait => fault,
            _ => return act(&mut self.state.borrow_mut(), Part::All),
        };
        if fault.part != Part::Nothing {
            // The outcome is the fault's.
            let _ = act(&mut self.state.borrow_mut(), fault.part);
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

    fn names(&mut self, dir: Dir) -> &mut Names {
        self.dirs.get_mut(&dir).expect("`default` has them all")
    }

    fn free_bytes(&self) -> u64 {
        let nodes = self.dirs.values().flat_map(|names| names.now.values());
        let used = nodes.map(|&node| match node {
            Node::File(index) => self.files[index].allocated() as u64,
            Node::Other => 0,
        });
        self.capacity.saturating_sub(used.sum())
    }

    fn rename(&mut self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        let found = self.names(from.0).now.get(from.1);
        let node = *found.ok_or(Errno::NOENT)?;
        if self.names(to.0).now.contains_key(to.1) {
            return Err(Errno::EXIST.into());
        }
        self.names(from.0).now.remove(from.1);
        self.names(to.0).now.insert(to.1.to_owned(), node);
        self.moves.push(Move {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            node,
        });
        Ok(())
    }

    fn sync_dir(&mut self, dir: Dir) {
        let moves = mem::take(&mut self.moves);
        let (settled, left) = moves
            .into_iter()
            .partition(|moved| [moved.from.0, moved.to.0].contains(&dir));
        self.moves = left;
        for Move { to, node, .. } in settled {
            let names = self.names(to.0);
            if names.now.get(&to.1) == Some(&node) {
                names.durable.insert(to.1, node);
            }
        }
        let names = self.names(dir);
        names.durable = names.now.clone();
    }

    fn names_after_power_cut(&self, dir: Dir, unsettled: Unsettled) -> BTreeMap<String, Node> {
        let Names { now, durable } = &self.dirs[&dir];
        let mut names = match unsettled {
            Unsettled::Undone => return durable.clone(),
            Unsettled::Done => return now.clone(),
            Unsettled::Most => durable.clone(),
            Unsettled::Fewest => now.clone(),
        };
        if unsettled == Unsettled::Most {
            names.extend(now.clone());
        } else {
            names.retain(|name, _| durable.contains_key(name));
        }
        for Move { from, to, node } in self.moves.iter().filter(|moved| moved.from.0 == dir) {
            if unsettled == Unsettled::Most && to.0 == dir {
                names.remove(&from.1);
            } else if unsettled == Unsettled::Fewest && durable.contains_key(&from.1) {
                names.insert(from.1.clone(), *node);
            }
        }
        names
    }
}

impl Names {
    fn put(&mut self, name: &str, node: Node) {
        self.now.insert(name.to_owned(), node);
        self.durable.insert(name.to_owned(), node);
    }
}

impl SimInode {
    fn durable(content: Vec<u8>) -> SimInode {
        SimInode {
            dirty: vec![false; content.len()],
            platter: content.clone(),
            reserved: 0,
            cache: content,
        }
    }

    fn allocated(&self) -> usize {
        self.cache.len().max(self.reserved)
    }

    fn resize(&mut self, len: usize) {
        self.cache.resize(len, 0);
        self.dirty.resize(len, true);
    }

    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.resize(self.cache.len().max(end));
        self.cache[offset..end].copy_from_slice(bytes);
        self.dirty[offset..end].fill(true);
    }

    fn dirty_bytes(&self) -> usize {
        self.dirty.iter().filter(|&&dirty| dirty).count()
    }

    fn sync(&mut self, bytes_max: usize) {
        self.platter.resize(self.cache.len(), 0);
        let dirty = self
            .dirty
            .iter_mut()
            .enumerate()
            .filter(|(_, dirty)| **dirty);
        for (index, dirty) in dirty.take(bytes_max) {
            self.platter[index] = self.cache[index];
            *dirty = false;
        }
    }

    fn after_power_cut(&self, unsynced: Unsynced) -> Vec<u8> {
        let bytes_max = match unsynced {
            Unsynced::Lost => return self.platter.clone(),
            Unsynced::Kept => usize::MAX,
            Unsynced::Half => self.dirty_bytes() / 2,
            Unsynced::Zeros => 0,
        };
        let mut file = self.clone();
        file.sync(bytes_max);
        if unsynced == Unsynced::Half {
            let had = self.platter.len();
            let missing = file.dirty.iter().skip(had).position(|&dirty| dirty);
            file.platter
                .truncate(missing.map_or(usize::MAX, |missing| had + missing));
        }
        file.platter
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn create(&self, dir: Dir, name: &str) -> io::Result<SimFile> {
        self.perform("create", |state, _| {
            if state.names(dir).now.contains_key(name) {
                return Err(Errno::EXIST.into());
            }
            let index = state.files.len();
            state.files.push(SimInode::default());
            let names = state.names(dir);
            names.now.insert(name.to_owned(), Node::File(index));
            Ok(SimFile { index })
        })
        .await
    }

    async fn open(&self, dir: Dir, name: &str) -> io::Result<SimFile> {
        self.perform("open", |state, _| match state.names(dir).now.get(name) {
            Some(&Node::File(index)) => Ok(SimFile { index }),
            Some(Node::Other) => Err(io::Error::other("not a regular file")),
            None => Err(Errno::NOENT.into()),
        })
        .await
    }

    async fn len(&self, file: &SimFile) -> io::Result<u64> {
        self.perform("len", |state, _| {
            Ok(state.files[file.index].cache.len() as u64)
        })
        .await
    }

    async fn read_at(
        &self,
        file: &SimFile,
        mut bytes: Vec<u8>,
        offset: u64,
    ) -> io::Result<Vec<u8>> {
        self.perform("read_at", |state, _| {
            let cache = &state.files[file.index].cache;
            let rest = &cache[cache.len().min(offset as usize)..];
            let count = rest.len().min(bytes.len());
            bytes.truncate(count);
            bytes.copy_from_slice(&rest[..count]);
            Ok(bytes)
        })
        .await
    }

    async fn reserve(&self, file: &SimFile, offset: u64, len: u64) -> io::Result<()> {
        self.perform("reserve", |state, _| {
            let free = state.free_bytes();
            let file = &mut state.files[file.index];
            let end = file.allocated().max((offset + len) as usize);
            if (end - file.allocated()) as u64 > free {
                return Err(Errno::NOSPC.into());
            }
            file.reserved = end;
            Ok(())
        })
        .await
    }

    async fn write_all_at(
        &self,
        file: &SimFile,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        let act = |state: &mut State, part| {
            let free = usize::try_from(state.free_bytes()).unwrap_or(usize::MAX);
            let file = &mut state.files[file.index];
            let offset = offset as usize;
            let end_max = file.allocated().saturating_add(free);
            let fits = bytes.len().min(end_max.saturating_sub(offset));
            match part {
                Part::Half => file.write(&bytes[..fits.min(bytes.len() / 2)], offset),
                _ => file.write(&bytes[..fits], offset),
            }
            if fits < bytes.len() {
                return Err(Errno::NOSPC.into());
            }
            Ok(())
        };
        let result = self.perform("write_all_at", act).await;
        (result, bytes)
    }

    async fn truncate(&self, file: &SimFile, len: u64) -> io::Result<()> {
        self.perform("truncate", |state, _| {
            let file = &mut state.files[file.index];
            file.resize(len as usize);
            file.reserved = 0;
            Ok(())
        })
        .await
    }

    async fn sync_data(&self, file: &SimFile) -> io::Result<()> {
        let act = |state: &mut State, part| {
            let file = &mut state.files[file.index];
            file.sync(match part {
                Part::Half => file.dirty_bytes() / 2,
                _ => usize::MAX,
            });
            Ok(())
        };
        let result = self.perform("sync_data", act).await;
        if result.is_err() {
            self.state.borrow_mut().files[file.index].dirty.fill(false);
        }
        result
    }

    async fn rename(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        self.perform("rename", |state, _| state.rename(from, to))
            .await
    }

    async fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.perform("remove", |state, _| {
            match state.names(dir).now.remove(name) {
                Some(_) => Ok(()),
                None => Err(Errno::NOENT.into()),
            }
        })
        .await
    }

    async fn exists(&self, dir: Dir, name: &str) -> io::Result<bool> {
        self.perform("exists", |state, _| {
            Ok(state.names(dir).now.contains_key(name))
        })
        .await
    }

    async fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.perform("sync_dir", |state, _| {
            state.sync_dir(dir);
            Ok(())
        })
        .await
    }

    async fn list(&self, dir: Dir) -> io::Result<Vec<Entry>> {
        self.perform("list", |state, _| {
            let entries = state.names(dir).now.iter().map(|(name, node)| Entry {
                name: name.clone(),
                kind: match node {
                    Node::File(_) => EntryKind::File,
                    Node::Other => EntryKind::Other,
                },
            });
            Ok(entries.collect())
        })
        .await
    }

    async fn free_bytes(&self) -> io::Result<u64> {
        self.perform("free_bytes", |state, _| Ok(state.free_bytes()))
            .await
    }
}
