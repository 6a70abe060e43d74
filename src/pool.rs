//! The buffers that a core's connections take turns with, so that a busy core allocates nothing and an idle
//! connection holds nothing.
//!
//! Invariant: what is kept takes at most `KEPT_BUFFERS_BYTES_MAX` and `KEPT_SCRATCHES_BYTES_MAX`; what
//! is beyond that, or has grown unusually large, goes back to the allocator.

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

/// The buffers of one core that nobody uses now.
#[derive(Debug, Default)]
pub struct Pool {
    buffers: RefCell<Vec<BytesMut>>,
    /// Bytes of `buffers`: `buffers_bytes <= KEPT_BUFFERS_BYTES_MAX`.
    buffers_bytes: Cell<usize>,
    scratches: RefCell<Vec<Vec<u8>>>,
    /// Bytes of `scratches`: `scratches_bytes <= KEPT_SCRATCHES_BYTES_MAX`.
    scratches_bytes: Cell<usize>,
}

impl Pool {
    /// An empty buffer with room for [`READ_BYTES`].
    pub fn take_buffer(&self) -> BytesMut {
        match self.buffers.borrow_mut().pop() {
            Some(buffer) => {
                let bytes = self.buffers_bytes.get() - buffer.capacity();
                self.buffers_bytes.set(bytes);
                buffer
            }
            None => BytesMut::with_capacity(READ_BYTES),
        }
    }

    /// Takes a read buffer back; what is in it is dropped.
    pub fn keep_buffer(&self, mut buffer: BytesMut) {
        buffer.clear();
        // Takes the room in front back, which `advance` had given up, without a new allocation.
        buffer.reserve(READ_BYTES);
        let bytes = buffer.capacity();
        let kept = self.buffers_bytes.get() + bytes;
        if bytes <= KEPT_BUFFER_BYTES_MAX && kept <= KEPT_BUFFERS_BYTES_MAX {
            self.buffers_bytes.set(kept);
            self.buffers.borrow_mut().push(buffer);
        }
    }

    /// An empty buffer for an answer or a decoded body.
    pub fn take_scratch(&self) -> Vec<u8> {
        let scratch = self.scratches.borrow_mut().pop().unwrap_or_default();
        let bytes = self.scratches_bytes.get() - scratch.capacity();
        self.scratches_bytes.set(bytes);
        scratch
    }

    /// Takes such a buffer back; what is in it is dropped.
    pub fn keep_scratch(&self, mut scratch: Vec<u8>) {
        scratch.clear();
        let bytes = scratch.capacity();
        let kept = self.scratches_bytes.get() + bytes;
        if bytes <= KEPT_SCRATCH_BYTES_MAX && kept <= KEPT_SCRATCHES_BYTES_MAX {
            self.scratches_bytes.set(kept);
            self.scratches.borrow_mut().push(scratch);
        }
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
        assert_eq!(pool.buffers_bytes.get(), KEPT_BUFFERS_BYTES_MAX);
        for _ in 0..2 * KEPT_SCRATCHES_BYTES_MAX / KEPT_SCRATCH_BYTES_MAX {
            pool.keep_scratch(Vec::with_capacity(KEPT_SCRATCH_BYTES_MAX));
        }
        assert_eq!(pool.scratches_bytes.get(), KEPT_SCRATCHES_BYTES_MAX);
        pool.take_scratch();
        let kept = KEPT_SCRATCHES_BYTES_MAX - KEPT_SCRATCH_BYTES_MAX;
        assert_eq!(pool.scratches_bytes.get(), kept);
    }

    #[test]
    fn what_has_grown_large_is_not_kept() {
        let pool = Pool::default();
        pool.keep_buffer(BytesMut::with_capacity(KEPT_BUFFER_BYTES_MAX + 1));
        pool.keep_scratch(Vec::with_capacity(KEPT_SCRATCH_BYTES_MAX + 1));
        assert_eq!(pool.buffers_bytes.get(), 0);
        assert_eq!(pool.scratches_bytes.get(), 0);
    }
}
