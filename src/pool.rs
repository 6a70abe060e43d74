//! The buffers that a core's connections take turns with, so that a busy core allocates nothing and an idle
//! connection holds nothing.
//!
//! Invariant: what is kept takes at most `KEPT_BUFFERS_BYTES_MAX` and `KEPT_SCRATCHES_BYTES_MAX`; what
//! is beyond that, or has grown unusually large, goes back to the allocator. So does, by and by, what nobody wants
//! any more: the tick of the core sees to that.

use std::cell::{Cell, RefCell};

use bytes::BytesMut;

/// Room for a head and a usual report, so that most requests take one read.
pub const READ_BYTES: usize = 16 << 10;

/// A read buffer that has grown beyond this is not kept for the next request.
const KEPT_BUFFER_BYTES_MAX: usize = 256 << 10;
/// Bytes of read buffers that a core keeps for its next requests: those of 256 connections with reports
/// of 62 KB, since a ring reads on all of them at once.
const KEPT_BUFFERS_BYTES_MAX: usize = 16 << 20;
/// Bytes of buffers for answers and for decoded bodies that a core keeps, and the largest of them. By
/// bytes: the answers to a whole batch, some 200 bytes each, are on their way at once.
const KEPT_SCRATCHES_BYTES_MAX: usize = 4 << 20;
const KEPT_SCRATCH_BYTES_MAX: usize = 64 << 10;

/// Of what nobody has wanted since the last look, this part goes at each look: bursts that come again soon find
/// most of their buffers, and after some 10 s of nothing there are none (20 s where no connection is open).
const SHRINK_DIVISOR: usize = 8;

/// The buffers of one core that nobody uses now.
#[derive(Debug, Default)]
pub struct Pool {
    /// `buffers.bytes <= KEPT_BUFFERS_BYTES_MAX`
    buffers: Kept<BytesMut>,
    /// `scratches.bytes <= KEPT_SCRATCHES_BYTES_MAX`
    scratches: Kept<Vec<u8>>,
}

impl Pool {
    /// An empty buffer with room for [`READ_BYTES`].
    pub fn take_buffer(&self) -> BytesMut {
        let kept = self.buffers.take(BytesMut::capacity);
        kept.unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES))
    }

    /// Takes a read buffer back; what is in it is dropped.
    pub fn keep_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        // Takes the room in front back, which `advance` had given up, without a new allocation.
        buffer.reserve(READ_BYTES);
        let bytes = buffer.capacity();
        if bytes <= KEPT_BUFFER_BYTES_MAX {
            self.buffers.keep(buffer, bytes, KEPT_BUFFERS_BYTES_MAX);
        }
    }

    /// An empty buffer for an answer or a decoded body.
    pub fn take_scratch(&self) -> Vec<u8> {
        self.scratches.take(Vec::capacity).unwrap_or_default()
    }

    /// Takes such a buffer back; what is in it is dropped.
    pub fn keep_scratch(&self, mut scratch: Vec<u8>) {
        scratch.clear();
        let bytes = scratch.capacity();
        if bytes <= KEPT_SCRATCH_BYTES_MAX {
            self.scratches
                .keep(scratch, bytes, KEPT_SCRATCHES_BYTES_MAX);
        }
    }

    /// Gives some of the buffers back that nobody has wanted since the last call. To be called from time to time.
    pub fn shrink(&self) {
        self.buffers.shrink(BytesMut::capacity);
        self.scratches.shrink(Vec::capacity);
    }
}

/// Buffers of one kind, the one that was used last on top.
#[derive(Debug, Default)]
struct Kept<B> {
    stack: RefCell<Vec<B>>,
    /// Bytes of `stack`.
    bytes: Cell<usize>,
    /// The fewest that `stack` has had since the last [`Kept::shrink`]; `<= stack.len()`.
    unwanted: Cell<usize>,
}

impl<B> Kept<B> {
    fn take(&self, capacity: impl Fn(&B) -> usize) -> Option<B> {
        let mut stack = self.stack.borrow_mut();
        let buffer = stack.pop()?;
        self.bytes.set(self.bytes.get() - capacity(&buffer));
        self.unwanted.set(self.unwanted.get().min(stack.len()));
        Some(buffer)
    }

    fn keep(&self, buffer: B, bytes: usize, bytes_max: usize) {
        let bytes = self.bytes.get() + bytes;
        if bytes <= bytes_max {
            self.bytes.set(bytes);
            self.stack.borrow_mut().push(buffer);
        }
    }

    fn shrink(&self, capacity: impl Fn(&B) -> usize) {
        let mut stack = self.stack.borrow_mut();
        let going = self.unwanted.get().div_ceil(SHRINK_DIVISOR);
        for buffer in stack.drain(..going) {
            self.bytes.set(self.bytes.get() - capacity(&buffer));
        }
        self.unwanted.set(stack.len());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_reused() {
        let pool = Pool::default();
        let mut buffer = pool.take_buffer();
        buffer.extend_from_slice(&[0; READ_BYTES]);
        buffer.advance(READ_BYTES - 1);
        pool.keep_buffer(buffer);
        let again = pool.take_buffer();
        assert_eq!((again.len(), again.capacity()), (0, READ_BYTES));
        for _ in 0..2 * KEPT_BUFFERS_BYTES_MAX / READ_BYTES {
            pool.keep_buffer(BytesMut::with_capacity(READ_BYTES));
        }
        assert_eq!(pool.buffers.bytes.get(), KEPT_BUFFERS_BYTES_MAX);
        for _ in 0..2 * KEPT_SCRATCHES_BYTES_MAX / KEPT_SCRATCH_BYTES_MAX {
            pool.keep_scratch(Vec::with_capacity(KEPT_SCRATCH_BYTES_MAX));
        }
        assert_eq!(pool.scratches.bytes.get(), KEPT_SCRATCHES_BYTES_MAX);
        pool.take_scratch();
        let kept = KEPT_SCRATCHES_BYTES_MAX - KEPT_SCRATCH_BYTES_MAX;
        assert_eq!(pool.scratches.bytes.get(), kept);
    }

    #[test]
    fn what_has_grown_large_is_not_kept() {
        let pool = Pool::default();
        pool.keep_buffer(BytesMut::with_capacity(KEPT_BUFFER_BYTES_MAX + 1));
        pool.keep_scratch(Vec::with_capacity(KEPT_SCRATCH_BYTES_MAX + 1));
        assert_eq!(pool.buffers.bytes.get(), 0);
        assert_eq!(pool.scratches.bytes.get(), 0);
    }

    #[test]
    fn what_nobody_wants_goes() {
        let pool = Pool::default();
        let taken: Vec<_> = (0..100).map(|_| pool.take_buffer()).collect();
        taken
            .into_iter()
            .for_each(|buffer| pool.keep_buffer(buffer));
        let kept = || {
            let count = pool.buffers.stack.borrow().len();
            assert_eq!(pool.buffers.bytes.get(), count * READ_BYTES);
            count
        };
        // They have just come.
        pool.shrink();
        assert_eq!(kept(), 100);
        // As many as are wanted between two looks stay, however often.
        for _ in 0..100 {
            let taken: Vec<_> = (0..60).map(|_| pool.take_buffer()).collect();
            taken
                .into_iter()
                .for_each(|buffer| pool.keep_buffer(buffer));
            pool.shrink();
        }
        assert_eq!(kept(), 60);
        pool.shrink();
        assert_eq!(kept(), 52);
        (0..40).for_each(|_| pool.shrink());
        assert_eq!(kept(), 0);
        pool.shrink();
    }
}
