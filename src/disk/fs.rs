//! The real data directory, through calls that block.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Dir, Disk, Entry, EntryKind};
use crate::time::Timestamp;

const DIR_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o640;
const LOCK_NAME: &str = ".lock";

/// The data directory of this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Fs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    access: Access,
}

#[derive(Debug)]
enum Access {
    /// The lock is held until the last clone is dropped.
    Writing { _lock: File },
    /// A server may be writing at the same time. Files are opened for reading only.
    Beside,
}

/// Of a directory entry, symbolic links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its length.
    pub bytes: u64,
    /// When its content last changed.
    pub modified: Timestamp,
}

/// Of the file system that the data directory is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged process may still allocate.
    pub free_bytes: u64,
    /// Bytes in all.
    pub size_bytes: u64,
}

/// What became of a file that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It is removed.
    Removed,
    /// It is being read, and stays.
    BeingRead,
    /// It was not there any more.
    Gone,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum OpenError {
    /// Another server has the lock.
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A call failed.
    Io {
        /// What was tried: `create`, `lock`, ….
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked { path } => {
                write!(f, "{} is locked by another server", path.display())
            }
            OpenError::Io {
                operation, path, ..
            } => write!(f, "cannot {operation} {}", path.display()),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Locked { .. } => None,
            OpenError::Io { source, .. } => Some(source),
        }
    }
}

impl Fs {
    /// Makes the directory and those in it where they are missing, their names durable, and takes the
    /// lock.
    ///
    /// # Errors
    ///
    /// Another server holds the lock, or a call fails.
    pub fn lock(root: &Path) -> Result<Fs, OpenError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io {
                operation,
                path,
                source,
            }
        };
        create_dir_durably(root).map_err(failed("create", root))?;
        let root = fs::canonicalize(root).map_err(failed("resolve", root))?;
        let lock_path = root.join(LOCK_NAME);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(failed("create", &lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => (),
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: lock_path }),
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        let shared = Shared {
            root,
            access: Access::Writing { _lock: lock },
        };
        let disk = Fs {
            shared: Arc::new(shared),
        };
        for dir in Dir::ALL {
            let path = disk.dir_path(dir);
            create_dir_durably(&path).map_err(failed("create", &path))?;
        }
        Ok(disk)
    }

    /// Opens the directory beside a server or without one, to read segments or to remove sealed ones.
    /// Nothing is made, and the directory is not locked.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn beside(root: &Path) -> Result<Fs, OpenError> {
        let failed = |source| OpenError::Io {
            operation: "read",
            path: root.to_owned(),
            source,
        };
        let root = fs::canonicalize(root).map_err(failed)?;
        let access = Access::Beside;
        Ok(Fs {
            shared: Arc::new(Shared { root, access }),
        })
    }

    /// Opens a segment to read it. Until the file is closed, retention leaves it where it is.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`].
    pub fn open_for_reading(&self, dir: Dir, name: &str) -> io::Result<File> {
        let file = self.open_to_read(dir, name)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            // It is being removed at this moment: it can be read to its end all the same.
            Ok(()) | Err(Errno::WOULDBLOCK) => Ok(file),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file unless somebody reads it. A reader that takes no lock keeps what it has opened: the
    /// file is gone when the last one has closed it.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn remove_unread(&self, dir: Dir, name: &str) -> io::Result<Removal> {
        let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        // For writing as well where that may be: over NFS an exclusive lock needs it (flock(2)).
        let mut options = OpenOptions::new();
        options.write(true);
        let opened = match self.open_by(options, dir, name) {
            Err(error) if !is_gone(&error) => self.open_to_read(dir, name),
            result => result,
        };
        let file = match opened {
            Err(error) if is_gone(&error) => return Ok(Removal::Gone),
            result => result?,
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(Removal::BeingRead),
            result => result?,
        }
        // Still under the lock.
        match self.remove_now(dir, name) {
            Err(error) if is_gone(&error) => Ok(Removal::Gone),
            result => result.map(|()| Removal::Removed),
        }
    }

    /// The names of the regular files of a directory, sorted. A data directory that only the Go server has
    /// written has no other directories in it, and no files in them.
    ///
    /// # Errors
    ///
    /// It cannot be listed.
    pub fn files(&self, dir: Dir) -> io::Result<Vec<String>> {
        let entries = match self.list_now(dir) {
            Err(error) if dir != Dir::Sealed && error.kind() == io::ErrorKind::NotFound => {
                Vec::new()
            }
            result => result?,
        };
        let files = entries
            .into_iter()
            .filter(|entry| entry.kind == EntryKind::File);
        Ok(files.map(|entry| entry.name).collect())
    }

    /// All bytes of a file that has at most so many.
    ///
    /// # Errors
    ///
    /// As [`Disk::open`], or it is longer.
    pub fn read_whole(&self, dir: Dir, name: &str, bytes_max: u64) -> io::Result<Vec<u8>> {
        let file = self.open_to_read(dir, name)?;
        let mut bytes = Vec::new();
        let read = file.take(bytes_max + 1).read_to_end(&mut bytes)? as u64;
        if read > bytes_max {
            return Err(io::Error::other(format!("more than {bytes_max} bytes")));
        }
        Ok(bytes)
    }

    /// Length and time of an entry.
    ///
    /// # Errors
    ///
    /// It is not there, or the system refuses.
    pub fn stat(&self, dir: Dir, name: &str) -> io::Result<Stat> {
        let metadata = fs::symlink_metadata(self.path(dir, name))?;
        Ok(Stat {
            bytes: metadata.len(),
            modified: Timestamp::from_system(metadata.modified()?),
        })
    }

    /// When a name last came to a directory or went from it.
    ///
    /// # Errors
    ///
    /// It is not there, or the system refuses.
    pub fn changed(&self, dir: Dir) -> io::Result<Timestamp> {
        let metadata = fs::metadata(self.dir_path(dir))?;
        Ok(Timestamp::from_system(metadata.modified()?))
    }

    /// Length and time of an open file.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn stat_open(&self, file: &File) -> io::Result<Stat> {
        let metadata = file.metadata()?;
        Ok(Stat {
            bytes: metadata.len(),
            modified: Timestamp::from_system(metadata.modified()?),
        })
    }

    /// The space of the file system.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn space(&self) -> io::Result<Space> {
        let state = rustix::fs::statvfs(&self.shared.root)?;
        Ok(Space {
            free_bytes: state.f_bavail.saturating_mul(state.f_frsize),
            size_bytes: state.f_blocks.saturating_mul(state.f_frsize),
        })
    }

    /// The directory's absolute path.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    fn path(&self, dir: Dir, name: &str) -> PathBuf {
        self.dir_path(dir).join(name)
    }

    fn dir_path(&self, dir: Dir) -> PathBuf {
        self.shared.root.join(dir.prefix())
    }

    pub(super) fn create_now(&self, dir: Dir, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(self.path(dir, name))
    }

    pub(super) fn open_now(&self, dir: Dir, name: &str) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(matches!(self.shared.access, Access::Writing { .. }));
        self.open_by(options, dir, name)
    }

    fn open_to_read(&self, dir: Dir, name: &str) -> io::Result<File> {
        self.open_by(OpenOptions::new(), dir, name)
    }

    fn open_by(&self, mut options: OpenOptions, dir: Dir, name: &str) -> io::Result<File> {
        // O_NONBLOCK: a named pipe would otherwise block the open.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = options
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(self.path(dir, name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(file)
    }

    pub(super) fn rename_now(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        let (from, to) = (self.path(from.0, from.1), self.path(to.0, to.1));
        match rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE) {
            // A file system that knows no flags: a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS) => {
                fs::hard_link(&from, &to)?;
                fs::remove_file(&from)
            }
            result => Ok(result?),
        }
    }

    pub(super) fn remove_now(&self, dir: Dir, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(dir, name))
    }

    pub(super) fn exists_now(&self, dir: Dir, name: &str) -> io::Result<bool> {
        match fs::symlink_metadata(self.path(dir, name)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn sync_dir_now(&self, dir: Dir) -> io::Result<()> {
        File::open(self.dir_path(dir))?.sync_all()
    }

    pub(super) fn list_now(&self, dir: Dir) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.dir_path(dir))? {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match name.to_str() {
                None => EntryKind::Unnamable,
                Some(_) if entry.file_type()?.is_file() => EntryKind::File,
                Some(_) => EntryKind::Other,
            };
            entries.push(Entry {
                name: name.to_string_lossy().into_owned(),
                kind,
            });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    pub(super) fn free_bytes_now(&self) -> io::Result<u64> {
        self.space().map(|space| space.free_bytes)
    }
}

/// [`Disk::reserve`] on a file of the file system.
pub(super) fn reserve_now(file: &File, offset: u64, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, len) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

/// [`Disk::write_zeros`] on a file of the file system.
pub(super) fn write_zeros_now(file: &File, offset: u64, len: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 << 10];
    let mut done = 0;
    while done < len {
        let count = (len - done).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..count as usize], offset + done)?;
        done += count;
    }
    Ok(())
}

/// Makes a directory and the missing ones above it, each one's name durable.
fn create_dir_durably(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(DIR_MODE).create(path) {
        // Whoever made it before may not have synced its name.
        Ok(()) => (),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = path.parent().ok_or(error)?;
            create_dir_durably(above)?;
            DirBuilder::new().mode(DIR_MODE).create(path)?;
        }
        Err(error) => return Err(error),
    }
    let above = match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => return Ok(()),
    };
    match File::open(above).and_then(|above| above.sync_all()) {
        // A directory that is not ours to read is not ours to sync: its owner has made the one in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

impl Disk for Fs {
    type File = File;

    async fn create(&self, dir: Dir, name: &str) -> io::Result<File> {
        self.create_now(dir, name)
    }

    async fn open(&self, dir: Dir, name: &str) -> io::Result<File> {
        self.open_now(dir, name)
    }

    async fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    async fn read_at(&self, file: &File, mut bytes: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    async fn reserve(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        reserve_now(file, offset, len)
    }

    async fn write_zeros(&self, file: &File, offset: u64, len: u64) -> io::Result<()> {
        write_zeros_now(file, offset, len)
    }

    async fn write_all_at(
        &self,
        file: &File,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        (file.write_all_at(&bytes, offset), bytes)
    }

    async fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    async fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    async fn rename(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        self.rename_now(from, to)
    }

    async fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        self.remove_now(dir, name)
    }

    async fn exists(&self, dir: Dir, name: &str) -> io::Result<bool> {
        self.exists_now(dir, name)
    }

    async fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.sync_dir_now(dir)
    }

    async fn list(&self, dir: Dir) -> io::Result<Vec<Entry>> {
        self.list_now(dir)
    }

    async fn free_bytes(&self) -> io::Result<u64> {
        self.free_bytes_now()
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_on;
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("a/b/c");
        let first = Fs::lock(&root).expect("the first has it");
        let error = Fs::lock(&root).expect_err("the second does not get it");
        let path = first.root().join(".lock");
        assert_eq!(
            error.to_string(),
            format!("{} is locked by another server", path.display())
        );
        drop(first);
        Fs::lock(&root).expect("the lock is free");
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("file");
        fs::write(&root, "").expect("writes");
        let error = Fs::lock(&root).expect_err("a file is in the way");
        assert_eq!(
            error.to_string(),
            format!("cannot create {}", root.join(".lock").display())
        );
        let source = std::error::Error::source(&error).expect("a cause");
        assert_eq!(source.to_string(), "Not a directory (os error 20)");
    }

    #[test]
    fn names_are_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Fs::lock(dir.path()).expect("locks");
        block_on(async {
            disk.create(Dir::Open, "a").await.expect("creates");
            let error = disk.create(Dir::Open, "a").await.expect_err("exists");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            disk.create(Dir::Sealed, "a").await.expect("creates");
            let error = disk
                .rename((Dir::Open, "a"), (Dir::Sealed, "a"))
                .await
                .expect_err("exists");
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            disk.rename((Dir::Open, "a"), (Dir::Sealed, "b"))
                .await
                .expect("the name is free");
            assert!(!disk.exists(Dir::Open, "a").await.expect("looks"));
        });
    }

    #[test]
    fn links_and_pipes_are_not_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Fs::lock(dir.path()).expect("locks");
        let outside = dir.path().join("outside");
        fs::write(&outside, "secret").expect("writes");
        std::os::unix::fs::symlink(&outside, disk.path(Dir::Open, "link")).expect("links");
        rustix::fs::mknodat(
            CWD,
            disk.path(Dir::Open, "pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("makes a pipe");
        fs::create_dir(disk.path(Dir::Open, "dir")).expect("makes a directory");
        block_on(async {
            for name in ["link", "pipe", "dir", "absent"] {
                assert!(disk.open(Dir::Open, name).await.is_err(), "{name}");
            }
            let entries = disk.list(Dir::Open).await.expect("lists");
            assert!(entries.iter().all(|entry| entry.kind == EntryKind::Other));
        });
    }

    #[test]
    fn a_name_that_is_not_text_is_left_alone() {
        use std::os::unix::ffi::OsStrExt;

        use crate::segment::recover::{Recovered, recover_entry};

        let dir = tempfile::tempdir().expect("a directory");
        let disk = Fs::lock(dir.path()).expect("locks");
        let name = std::ffi::OsStr::from_bytes(b"reports-\xff.jsonl.zst");
        let path = dir.path().join(".open").join(name);
        fs::write(&path, "text").expect("writes");
        block_on(async {
            let entries = disk.list(Dir::Open).await.expect("lists");
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].kind, EntryKind::Unnamable);
            let recovered = recover_entry(&disk, &entries[0]).await;
            assert_eq!(recovered.expect("nothing is tried"), Recovered::Left);
        });
        assert_eq!(fs::read(&path).expect("it is there"), b"text");
    }

    #[test]
    fn what_is_read_is_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Fs::lock(dir.path()).expect("locks");
        let beside = Fs::beside(dir.path()).expect("opens");
        fs::write(dir.path().join("a"), "text").expect("writes");
        let readers = [&server, &beside].map(|disk| {
            let file = disk.open_for_reading(Dir::Sealed, "a");
            file.expect("it is there")
        });
        for reader in readers {
            for disk in [&server, &beside] {
                let removal = disk.remove_unread(Dir::Sealed, "a").expect("looks");
                assert_eq!(removal, Removal::BeingRead);
            }
            drop(reader);
        }
        // One that has only opened it keeps what it has.
        let open = File::open(dir.path().join("a")).expect("it is there");
        for expected in [Removal::Removed, Removal::Gone] {
            let removal = beside.remove_unread(Dir::Sealed, "a").expect("removes");
            assert_eq!(removal, expected);
        }
        assert_eq!(io::read_to_string(&open).expect("reads"), "text");
        // What is being removed can be read.
        fs::write(dir.path().join("b"), "text").expect("writes");
        let remover = File::open(dir.path().join("b")).expect("it is there");
        rustix::fs::flock(&remover, FlockOperation::NonBlockingLockExclusive).expect("locks");
        let reader = beside.open_for_reading(Dir::Sealed, "b");
        assert_eq!(
            io::read_to_string(reader.expect("opens")).expect("reads"),
            "text"
        );
        fs::create_dir(dir.path().join("c")).expect("makes a directory");
        let error = beside.remove_unread(Dir::Sealed, "c").expect_err("no file");
        assert_eq!(error.to_string(), "not a regular file");
    }

    #[test]
    fn facts() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Fs::lock(dir.path()).expect("locks");
        let path = dir.path().join(".index/a");
        fs::write(&path, "text").expect("writes");
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_772_169_274_123);
        let file = File::options().write(true).open(&path).expect("opens");
        file.set_modified(at).expect("sets");
        let expected = Stat {
            bytes: 4,
            modified: Timestamp::from_ms(1_772_169_274_123),
        };
        assert_eq!(disk.stat(Dir::Index, "a").expect("looks"), expected);
        let error = disk.stat(Dir::Index, "b").expect_err("is not there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        let space = disk.space().expect("looks");
        assert!(0 < space.free_bytes && space.free_bytes < space.size_bytes);
    }

    #[test]
    fn reserving_keeps_the_length_and_truncating_gives_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Fs::lock(dir.path()).expect("locks");
        block_on(async {
            let file = disk.create(Dir::Open, "a").await.expect("creates");
            disk.reserve(&file, 0, 1 << 20).await.expect("reserves");
            assert_eq!(disk.len(&file).await.expect("looks"), 0);
            let (result, bytes) = disk.write_all_at(&file, b"hello".to_vec(), 0).await;
            result.expect("writes");
            let read = disk.read_at(&file, vec![0; 99], 1).await.expect("reads");
            assert_eq!(read, bytes[1..]);
            disk.truncate(&file, 5).await.expect("truncates");
            use std::os::unix::fs::MetadataExt;
            assert!(file.metadata().expect("looks").blocks() * 512 < 1 << 20);
        });
    }
}
