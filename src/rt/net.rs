//! Sockets of one core: listeners that share a port, and connections with a deadline.
//!
//! A connection has one deadline at a time, kept in the core's [`Connections`] table. A tick of the
//! worker calls [`Connections::expire`], which ends the wait of every connection that is late: an idle
//! wait is woken, a read sees the end of the stream, a write fails. So no request sets a timer, no
//! operation that owns a buffer is ever dropped, and a deadline is kept to within one tick.
//!
//! ```text
//! wait_idle   no buffer is held: readiness only       late: woken, Idle::Late
//! read        the buffer belongs to the ring          late: shutdown(SHUT_RD), then Ok(0)
//! write_all   the buffer belongs to the ring          late: shutdown(SHUT_RDWR), then an error
//! leave       the task waits for something else       never late
//! ```
//!
//! The one unsafe line of the crate is here: a table entry keeps the number of a descriptor that its
//! `Stream` owns, so that `expire` can shut it down while an operation borrows the stream.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::BytesMut;
use monoio::buf::{IoBufMut, SliceMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, acceptfrom_with, bind, listen,
    recv, shutdown, socket_with, sockopt,
};
use slab::Slab;

use super::Driver;

/// Connections that the kernel may complete and queue before they are accepted (`listen(2)`); the
/// kernel lowers it to `net.core.somaxconn`. A burst beyond it costs clients a second.
pub const BACKLOG: i32 = 4096;

/// Milliseconds of the worker's monotonic clock, as its last tick read it.
pub type TickMs = u64;

/// Who else has a listening socket, and so its queue of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody: what is queued ends with the socket.
    Server,
    /// The service manager, who hands it to the next server.
    ServiceManager,
}

/// Who may bind the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// This socket alone: binding fails if anybody has the port.
    Alone,
    /// All sockets of this process's user that ask for it; the kernel spreads connections over them.
    WithOtherCores,
}

/// Binds a listening socket: non-blocking, closed on exec, and with `TCP_NODELAY`, which the
/// connections inherit.
///
/// # Errors
///
/// The address is taken, is not of this machine, or its family is switched off.
pub fn bind_listener(address: SocketAddr, share: Share) -> io::Result<TcpListener> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A port whose last connections are in TIME_WAIT can be bound again.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if share == Share::WithOtherCores {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    sockopt::set_tcp_nodelay(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Takes a listening socket over that somebody else has bound, as [`bind_listener`] would have left it.
///
/// # Errors
///
/// It is no TCP socket, or does not listen.
pub fn adopt_listener(listener: &TcpListener) -> io::Result<()> {
    if !sockopt::socket_acceptconn(listener)? {
        let address = listener.local_addr()?;
        return Err(io::Error::other(format!(
            "the socket of {address} does not listen"
        )));
    }
    listener.set_nonblocking(true)?;
    Ok(sockopt::set_tcp_nodelay(listener, true)?)
}

/// A listening socket on this core's runtime.
pub struct Listener {
    accepting: TcpListener,
    waiting: monoio::net::TcpListener,
    driver: Driver,
}

impl Listener {
    /// Takes over a socket of [`bind_listener`].
    ///
    /// # Errors
    ///
    /// The descriptor cannot be doubled or registered.
    pub fn from_std(listener: TcpListener, driver: Driver) -> io::Result<Listener> {
        let waiting = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
        Ok(Listener {
            accepting: listener,
            waiting,
            driver,
        })
    }

    /// Waits until a connection can be accepted. Safe to drop.
    ///
    /// # Errors
    ///
    /// The poll failed.
    pub async fn readable(&self) -> io::Result<()> {
        self.waiting.readable(false).await
    }

    /// The next waiting connection, if there is one, and the address it is from.
    ///
    /// # Errors
    ///
    /// As `accept4(2)`: of the process (`EMFILE`) or of one connection (`ECONNABORTED`).
    pub fn accept(&self) -> io::Result<Option<(OwnedFd, IpAddr)>> {
        // The ring waits inside the operation, so its sockets stay blocking; epoll's must not block.
        let flags = match self.driver {
            Driver::IoUring => SocketFlags::CLOEXEC,
            Driver::Epoll => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        };
        match acceptfrom_with(&self.accepting, flags) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                // A TCP listener's peers have an address.
                let peer = peer.map_or(IpAddr::from([0; 4]), |peer| peer.ip());
                Ok(Some((socket, peer.to_canonical())))
            }
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether an error of [`Listener::accept`] is about one connection, which has gone (accept(2), "Error
/// handling"). After any other the same would come again at once, so accepting must pause.
pub fn is_of_connection(error: &io::Error) -> bool {
    let gone = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::NONET,
        Errno::NOPROTOOPT,
        Errno::OPNOTSUPP,
        Errno::PERM,
        Errno::PROTO,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}

/// What a connection waits for; decides how a passed deadline ends the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Idle,
    Read,
    Write,
    /// Not for this socket.
    Elsewhere,
}

struct Slot {
    fd: RawFd,
    wait: Cell<Wait>,
    deadline: Cell<TickMs>,
    late: Cell<bool>,
    /// Shut down for reading by a deadline; it stays so.
    cut: Cell<bool>,
    idle_waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn end_wait(&self) {
        match self.wait.get() {
            Wait::Idle => {
                self.late.set(true);
                if let Some(waker) = self.idle_waker.borrow_mut().take() {
                    waker.wake();
                }
            }
            Wait::Read => {
                self.late.set(true);
                self.cut.set(true);
                self.shutdown(Shutdown::Read);
            }
            Wait::Write => {
                self.late.set(true);
                self.shutdown(Shutdown::Both);
            }
            Wait::Elsewhere => (),
        }
    }

    fn shutdown(&self, how: Shutdown) {
        // ENOTCONN: the peer has reset the connection, and the operation ends by that.
        let _ = shutdown(self.socket(), how);
    }

    fn socket(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as the slot is in the table: `Stream` owns it,
        // takes its slot out in `drop` before it closes it, and keeps the only other reference to the
        // slot. Table and stream belong to one thread.
        #[allow(unsafe_code)]
        unsafe {
            BorrowedFd::borrow_raw(self.fd)
        }
    }
}

/// The open connections of a core and their deadlines.
#[derive(Default)]
pub struct Connections {
    slots: RefCell<Slab<Rc<Slot>>>,
    now: Cell<TickMs>,
    /// No idle wait lasts longer than to here, once the core drains.
    idle_until: Cell<Option<TickMs>>,
    /// From now on a wait lasts no longer than this.
    wait_ms_max: Cell<Option<TickMs>>,
    emptied: RefCell<Option<Waker>>,
    occupied: RefCell<Option<Waker>>,
}

impl Connections {
    /// An empty table.
    pub fn new() -> Rc<Connections> {
        Rc::default()
    }

    /// How many connections are open.
    pub fn count(&self) -> usize {
        self.slots.borrow().len()
    }

    /// The time of the last tick.
    pub fn now(&self) -> TickMs {
        self.now.get()
    }

    /// Sets the time, and ends the wait of every connection whose deadline has passed.
    pub fn expire(&self, now: TickMs) {
        self.now.set(now);
        for (_, slot) in self.slots.borrow().iter() {
            let idle_until = match (slot.wait.get(), self.idle_until.get()) {
                (Wait::Idle, Some(until)) => until,
                _ => TickMs::MAX,
            };
            if slot.deadline.get().min(idle_until) <= now && !slot.late.get() {
                slot.end_wait();
            }
        }
    }

    /// From now on no connection stays idle beyond `until`.
    pub fn end_idle_at(&self, until: TickMs) {
        self.idle_until.set(Some(until));
    }

    /// Ends every wait for a peer at once: those connections fail and close. The others, whose tasks
    /// wait for something else, may still answer, but give their peers no more than `wait_ms_max`.
    pub fn abort_waits(&self, wait_ms_max: TickMs) {
        self.wait_ms_max.set(Some(wait_ms_max));
        for (_, slot) in self.slots.borrow().iter() {
            if slot.wait.get() != Wait::Elsewhere {
                slot.shutdown(Shutdown::Both);
            }
            // It may be between two reads.
            let latest = self.now().saturating_add(wait_ms_max);
            slot.deadline.set(slot.deadline.get().min(latest));
            slot.end_wait();
        }
    }

    /// Waits until a connection is open. One waiter at a time; safe to drop.
    pub async fn occupied(&self) {
        poll_fn(|context| {
            if self.count() > 0 {
                return Poll::Ready(());
            }
            *self.occupied.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until no connection is open. One waiter at a time.
    pub async fn empty(&self) {
        poll_fn(|context| {
            if self.count() == 0 {
                return Poll::Ready(());
            }
            *self.emptied.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// How an idle wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Bytes or the end of the stream are there.
    Readable,
    /// The deadline passed.
    Late,
}

/// A connection of this core.
pub struct Stream {
    socket: monoio::net::TcpStream,
    slot: Rc<Slot>,
    key: usize,
    table: Rc<Connections>,
}

impl Stream {
    /// Takes over a socket of [`Listener::accept`] and enters it in the table.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be registered with the driver.
    pub fn from_accepted(socket: OwnedFd, table: &Rc<Connections>) -> io::Result<Stream> {
        let socket = monoio::net::TcpStream::from_std(TcpStream::from(socket))?;
        let slot = Rc::new(Slot {
            fd: socket.as_raw_fd(),
            wait: Cell::new(Wait::Idle),
            deadline: Cell::new(TickMs::MAX),
            late: Cell::new(false),
            cut: Cell::new(false),
            idle_waker: RefCell::new(None),
        });
        let key = table.slots.borrow_mut().insert(Rc::clone(&slot));
        if let Some(waker) = table.occupied.borrow_mut().take() {
            waker.wake();
        }
        Ok(Stream {
            socket,
            slot,
            key,
            table: Rc::clone(table),
        })
    }

    /// Sets the deadline of what comes next: `after_ms` from the last tick.
    pub fn set_deadline(&self, after_ms: TickMs) {
        let after_ms = after_ms.min(self.table.wait_ms_max.get().unwrap_or(TickMs::MAX));
        let deadline = self.table.now().saturating_add(after_ms);
        self.slot.deadline.set(deadline);
        self.slot.late.set(false);
    }

    /// Moves the deadline by so much, but not beyond `after_ms` from the last tick, and not if the core drains
    /// and has no more time.
    pub fn extend_deadline(&self, more_ms: TickMs, after_ms: TickMs) {
        if self.table.wait_ms_max.get().is_none() {
            let deadline = self.slot.deadline.get();
            let latest = self.table.now().saturating_add(after_ms);
            let extended = deadline.saturating_add(more_ms).min(latest);
            self.slot.deadline.set(deadline.max(extended));
        }
    }

    /// Whether the deadline has passed since it was set.
    pub fn is_late(&self) -> bool {
        self.slot.late.get()
    }

    /// Whether a deadline has ended a read: then a read of 0 bytes says nothing about the peer, whose bytes
    /// may still come.
    pub fn is_cut(&self) -> bool {
        self.slot.cut.get()
    }

    /// Waits for bytes without holding a buffer.
    ///
    /// # Errors
    ///
    /// The poll failed.
    pub async fn wait_idle(&self) -> io::Result<Idle> {
        self.slot.wait.set(Wait::Idle);
        let mut readable = pin!(self.socket.readable(false));
        poll_fn(|context| {
            if let Poll::Ready(result) = readable.as_mut().poll(context) {
                return Poll::Ready(result.map(|()| Idle::Readable));
            }
            if self.slot.late.get() {
                return Poll::Ready(Ok(Idle::Late));
            }
            let mut waker = self.slot.idle_waker.borrow_mut();
            match &mut *waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => *waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// Reads behind the bytes of `buffer`, into its spare capacity; 0 is the end of the stream, or
    /// [`Stream::is_late`].
    pub async fn read(&mut self, buffer: BytesMut) -> (io::Result<usize>, BytesMut) {
        self.slot.wait.set(Wait::Read);
        let filled = buffer.len();
        let capacity = buffer.capacity();
        assert!(filled < capacity, "a read needs spare capacity");
        let spare: SliceMut<BytesMut> = buffer.slice_mut(filled..capacity);
        let (result, spare) = self.socket.read(spare).await;
        (result, spare.into_inner())
    }

    /// Writes all of `bytes`; the buffer comes back in any case.
    pub async fn write_all(&mut self, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        self.slot.wait.set(Wait::Write);
        let (result, bytes) = self.socket.write_all(bytes).await;
        (result.map(|_| ()), bytes)
    }

    /// Waits for something else than this socket: no deadline ends that.
    pub async fn leave<F: Future>(&self, elsewhere: F) -> F::Output {
        self.slot.wait.set(Wait::Elsewhere);
        elsewhere.await
    }

    /// Whether bytes have come that have not been read.
    pub fn has_bytes(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let peeked = recv(self.slot.socket(), &mut [0; 1], flags);
        peeked.is_ok_and(|(_, count)| count > 0)
    }

    /// The time of the last tick.
    pub fn now(&self) -> TickMs {
        self.table.now()
    }

    /// Tells the peer that nothing more will be sent (`shutdown(2)` with `SHUT_WR`).
    ///
    /// # Errors
    ///
    /// The peer has gone.
    pub async fn end_writing(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.table.slots.borrow_mut().remove(self.key);
        if self.table.count() == 0
            && let Some(waker) = self.table.emptied.borrow_mut().take()
        {
            waker.wake();
        }
    }
}
