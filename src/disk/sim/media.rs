//! What a [`super::SimDisk`] holds, what of it is stable, and what a crash leaves of it.
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

use std::collections::BTreeMap;
use std::io;
use std::mem;

use rustix::io::Errno;

use super::Part;
use crate::disk::{Dir, Entry, EntryKind};

/// A sector of this disk: small, so that a small commit has several.
const PIECE_BYTES: usize = 16;

/// An open file.
#[derive(Debug)]
pub struct SimFile {
    index: usize,
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
    /// The length had, and of the bytes every second piece: a disk writes its sectors in any order.
    Pieces,
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

#[derive(Clone)]
pub(super) struct Media {
    files: Vec<SimInode>,
    dirs: BTreeMap<Dir, Names>,
    /// Renames of which neither directory has been synced since.
    moves: Vec<Move>,
    /// Bytes in all.
    pub(super) capacity: u64,
}

impl Default for Media {
    fn default() -> Self {
        Media {
            files: Vec::new(),
            dirs: Dir::ALL.map(|dir| (dir, Names::default())).into(),
            moves: Vec::new(),
            capacity: 1 << 40,
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

impl Media {
    pub(super) fn after(&self, crash: Crash) -> Media {
        let mut media = self.clone();
        if let Crash::Power { bytes, names } = crash {
            for file in &mut media.files {
                *file = SimInode::durable(file.after_power_cut(bytes));
            }
            for (&dir, found) in &mut media.dirs {
                found.now = self.names_after_power_cut(dir, names);
                found.durable = found.now.clone();
            }
            media.moves.clear();
        }
        media
    }

    pub(super) fn put_file(&mut self, dir: Dir, name: &str, content: &[u8]) {
        let node = Node::File(self.files.len());
        self.files.push(SimInode::durable(content.to_vec()));
        self.dir(dir).put(name, node);
    }

    pub(super) fn put_other(&mut self, dir: Dir, name: &str) {
        self.dir(dir).put(name, Node::Other);
    }

    pub(super) fn content(&self, dir: Dir, name: &str) -> Option<Vec<u8>> {
        match *self.dirs[&dir].now.get(name)? {
            Node::File(index) => Some(self.files[index].cache.clone()),
            Node::Other => Some(Vec::new()),
        }
    }

    pub(super) fn names(&self, dir: Dir) -> Vec<String> {
        self.dirs[&dir].now.keys().cloned().collect()
    }

    pub(super) fn create(&mut self, dir: Dir, name: &str) -> io::Result<SimFile> {
        if self.exists(dir, name) {
            return Err(Errno::EXIST.into());
        }
        let index = self.files.len();
        self.files.push(SimInode::default());
        let names = &mut self.dir(dir).now;
        names.insert(name.to_owned(), Node::File(index));
        Ok(SimFile { index })
    }

    pub(super) fn open(&self, dir: Dir, name: &str) -> io::Result<SimFile> {
        match self.dirs[&dir].now.get(name) {
            Some(&Node::File(index)) => Ok(SimFile { index }),
            Some(Node::Other) => Err(io::Error::other("not a regular file")),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// What a reader sees.
    pub(super) fn cached(&self, file: &SimFile) -> &[u8] {
        &self.files[file.index].cache
    }

    pub(super) fn reserve(&mut self, file: &SimFile, end: usize) -> io::Result<()> {
        let free = self.free_bytes();
        let file = &mut self.files[file.index];
        let end = end.max(file.allocated());
        if (end - file.allocated()) as u64 > free {
            return Err(Errno::NOSPC.into());
        }
        file.reserved = end;
        Ok(())
    }

    /// As much as fits.
    pub(super) fn write(&mut self, file: &SimFile, bytes: &[u8], offset: usize) -> io::Result<()> {
        let free = usize::try_from(self.free_bytes()).unwrap_or(usize::MAX);
        let file = &mut self.files[file.index];
        let end_max = file.allocated().saturating_add(free);
        let fits = bytes.len().min(end_max.saturating_sub(offset));
        file.write(&bytes[..fits], offset);
        if fits < bytes.len() {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }

    pub(super) fn truncate(&mut self, file: &SimFile, len: usize) {
        let file = &mut self.files[file.index];
        file.resize(len);
        file.reserved = 0;
    }

    pub(super) fn sync_data(&mut self, file: &SimFile, part: Part) {
        let file = &mut self.files[file.index];
        file.sync(match part {
            Part::Half => file.dirty_bytes() / 2,
            _ => usize::MAX,
        });
    }

    /// Counts all bytes as written.
    pub(super) fn forget_dirty(&mut self, file: &SimFile) {
        self.files[file.index].dirty.fill(false);
    }

    pub(super) fn remove(&mut self, dir: Dir, name: &str) -> io::Result<()> {
        let removed = self.dir(dir).now.remove(name);
        removed.map(|_| ()).ok_or_else(|| Errno::NOENT.into())
    }

    pub(super) fn exists(&self, dir: Dir, name: &str) -> bool {
        self.dirs[&dir].now.contains_key(name)
    }

    pub(super) fn list(&self, dir: Dir) -> Vec<Entry> {
        let entries = self.dirs[&dir].now.iter().map(|(name, node)| Entry {
            name: name.clone(),
            kind: match node {
                Node::File(_) => EntryKind::File,
                Node::Other => EntryKind::Other,
            },
        });
        entries.collect()
    }

    fn dir(&mut self, dir: Dir) -> &mut Names {
        self.dirs.get_mut(&dir).expect("`default` has them all")
    }

    pub(super) fn free_bytes(&self) -> u64 {
        let nodes = self.dirs.values().flat_map(|names| names.now.values());
        let used = nodes.map(|&node| match node {
            Node::File(index) => self.files[index].allocated() as u64,
            Node::Other => 0,
        });
        self.capacity.saturating_sub(used.sum())
    }

    pub(super) fn rename(&mut self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        let found = self.dir(from.0).now.get(from.1);
        let node = *found.ok_or(Errno::NOENT)?;
        if self.dir(to.0).now.contains_key(to.1) {
            return Err(Errno::EXIST.into());
        }
        self.dir(from.0).now.remove(from.1);
        self.dir(to.0).now.insert(to.1.to_owned(), node);
        self.moves.push(Move {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            node,
        });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: Dir) {
        let moves = mem::take(&mut self.moves);
        let (settled, left) = moves
            .into_iter()
            .partition(|moved| [moved.from.0, moved.to.0].contains(&dir));
        self.moves = left;
        for Move { to, node, .. } in settled {
            let names = self.dir(to.0);
            if names.now.get(&to.1) == Some(&node) {
                names.durable.insert(to.1, node);
            }
        }
        let names = self.dir(dir);
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
            Unsynced::Zeros | Unsynced::Pieces => 0,
        };
        let mut file = self.clone();
        if unsynced == Unsynced::Pieces {
            for (index, dirty) in file.dirty.iter_mut().enumerate() {
                *dirty &= (index / PIECE_BYTES).is_multiple_of(2);
            }
            file.sync(usize::MAX);
        }
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
