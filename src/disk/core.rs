//! The data directory as a core uses it: nothing here blocks the core.
//!
//! Writes and data syncs, which every commit has, are operations of the core's ring; on epoll, and for
//! all other calls, they run on the core's blocking thread.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::fs::{reserve_now, write_zeros_now};
use super::{Dir, Disk, Entry, Fs, block_on};
use crate::metrics::core::Meter;
use crate::rt::Driver;
use crate::rt::blocking::BlockingThread;
use crate::rt::file::RingFile;

/// [`Fs`] for the commit loop of one core.
pub struct CoreDisk {
    fs: Fs,
    blocking: BlockingThread,
    driver: Driver,
    meter: Meter,
}

/// A file of a [`CoreDisk`]: the same open file under two descriptors where there is a ring.
pub struct CoreFile {
    file: Arc<File>,
    ring: Option<RingFile>,
}

impl CoreDisk {
    /// Starts the blocking thread. The meter measures syncs.
    ///
    /// # Errors
    ///
    /// No thread can be made.
    pub fn start(
        fs: Fs,
        driver: Driver,
        thread_name: String,
        meter: Meter,
    ) -> io::Result<CoreDisk> {
        Ok(CoreDisk {
            fs,
            blocking: BlockingThread::start(thread_name)?,
            driver,
            meter,
        })
    }

    /// Runs a blocking call of [`Fs`] on the blocking thread.
    async fn call<T, C>(&self, call: C) -> io::Result<T>
    where
        T: Send + 'static,
        C: FnOnce(&Fs) -> io::Result<T> + Send + 'static,
    {
        let fs = self.fs.clone();
        self.blocking.run(move || call(&fs)).await?
    }

    async fn call_on<T, C>(&self, file: &CoreFile, call: C) -> io::Result<T>
    where
        T: Send + 'static,
        C: FnOnce(&File) -> io::Result<T> + Send + 'static,
    {
        let file = Arc::clone(&file.file);
        self.blocking.run(move || call(&file)).await?
    }

    fn file(&self, file: File) -> io::Result<CoreFile> {
        let ring = match self.driver {
            Driver::IoUring => Some(RingFile::from_std(file.try_clone()?)?),
            Driver::Epoll => None,
        };
        Ok(CoreFile {
            file: Arc::new(file),
            ring,
        })
    }
}

impl Disk for CoreDisk {
    type File = CoreFile;

    async fn create(&self, dir: Dir, name: &str) -> io::Result<CoreFile> {
        let name = name.to_owned();
        let file = self.call(move |fs| fs.create_now(dir, &name)).await?;
        self.file(file)
    }

    async fn open(&self, dir: Dir, name: &str) -> io::Result<CoreFile> {
        let name = name.to_owned();
        let file = self.call(move |fs| fs.open_now(dir, &name)).await?;
        self.file(file)
    }

    async fn len(&self, file: &CoreFile) -> io::Result<u64> {
        self.call_on(file, |file| Ok(file.metadata()?.len())).await
    }

    async fn read_at(&self, file: &CoreFile, bytes: Vec<u8>, offset: u64) -> io::Result<Vec<u8>> {
        let (fs, file) = (self.fs.clone(), Arc::clone(&file.file));
        self.blocking
            .run(move || block_on(fs.read_at(&file, bytes, offset)))
            .await?
    }

    async fn reserve(&self, file: &CoreFile, offset: u64, len: u64) -> io::Result<()> {
        self.call_on(file, move |file| reserve_now(file, offset, len))
            .await
    }

    async fn write_zeros(&self, file: &CoreFile, offset: u64, len: u64) -> io::Result<()> {
        self.call_on(file, move |file| write_zeros_now(file, offset, len))
            .await
    }

    async fn write_all_at(
        &self,
        file: &CoreFile,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (io::Result<()>, Vec<u8>) {
        if let Some(ring) = &file.ring {
            return ring.write_all_at(bytes, offset).await;
        }
        let (fs, file) = (self.fs.clone(), Arc::clone(&file.file));
        let call = move || block_on(fs.write_all_at(&file, bytes, offset));
        match self.blocking.run(call).await {
            Ok(done) => done,
            // The call kept the buffer.
            Err(error) => (Err(error), Vec::new()),
        }
    }

    async fn truncate(&self, file: &CoreFile, len: u64) -> io::Result<()> {
        self.call_on(file, move |file| file.set_len(len)).await
    }

    async fn sync_data(&self, file: &CoreFile) -> io::Result<()> {
        let began = (self.meter.clock)();
        let synced = match &file.ring {
            Some(ring) => ring.sync_data().await,
            None => self.call_on(file, File::sync_data).await,
        };
        if synced.is_ok() {
            let ended = (self.meter.clock)();
            self.meter.metrics.sync.observe(ended - began);
        }
        synced
    }

    async fn rename(&self, from: (Dir, &str), to: (Dir, &str)) -> io::Result<()> {
        let (from_dir, from_name) = (from.0, from.1.to_owned());
        let (to_dir, to_name) = (to.0, to.1.to_owned());
        self.call(move |fs| fs.rename_now((from_dir, &from_name), (to_dir, &to_name)))
            .await
    }

    async fn remove(&self, dir: Dir, name: &str) -> io::Result<()> {
        let name = name.to_owned();
        self.call(move |fs| fs.remove_now(dir, &name)).await
    }

    async fn exists(&self, dir: Dir, name: &str) -> io::Result<bool> {
        let name = name.to_owned();
        self.call(move |fs| fs.exists_now(dir, &name)).await
    }

    async fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        self.call(move |fs| fs.sync_dir_now(dir)).await
    }

    async fn list(&self, dir: Dir) -> io::Result<Vec<Entry>> {
        self.call(move |fs| fs.list_now(dir)).await
    }

    async fn free_bytes(&self) -> io::Result<u64> {
        self.call(Fs::free_bytes_now).await
    }
}
