//! HTTP/1.1: bytes in, values out; no I/O, no clock (RFC 9110, RFC 9112).
//!
//! ```text
//! bytes ──▶ head::HeadScan ──▶ head::parse ──▶ Head ──┐
//!           where it ends      what it says           │ Framing
//! bytes ──▶ body::ChunkedDecoder ──▶ decoded bytes ◀──┘
//!
//! Response ──▶ bytes
//! ```
//!
//! Owns the grammar, how a message is framed, and the limits below. Leaves to others: sockets and
//! deadlines (`conn`), which methods and paths exist (`route`), status codes of refusals and content
//! codings (`api`).
//!
//! What two servers in a row could read differently is refused, never repaired: a request that passes
//! here has one reading. After any error the place where the next request begins is unknown, so the
//! connection is closed.
//!
//! Invariant: the answer to given bytes is the same however they were split on arrival. All sizes are
//! in bytes.

pub mod accept;
pub mod body;
pub mod coding;
pub mod head;
pub mod response;

/// Longest request head, from its first byte up to and with its blank line (RFC 6585 §5).
///
/// A browser sends 1 to 2 KiB, and up to 4 KiB for each cookie of a domain shared with other
/// applications. 16 KiB is also where Node.js stops.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest request line, without its CR LF: at least 8000 bytes are asked for by RFC 9112 §3.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 * 1024;

/// Most field lines in a head, and most in a trailer section (RFC 9110 §5.4).
///
/// A browser sends about 20, and each proxy on the way adds a few.
pub const FIELDS_MAX: usize = 64;

/// Most empty lines skipped before a request line (RFC 9112 §2.2 asks for at least one).
///
/// Old clients send one behind a body that they did not count; two leaves room for a client on a
/// terminal.
pub const EMPTY_LINES_MAX: usize = 2;

/// Longest line that announces a chunk, with its CR LF: 16 digits, and room for one extension.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;

/// Most bytes of chunk extensions in one body (RFC 9112 §7.1.1 asks for such a limit).
///
/// No extension is in common use, and none means anything here.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 1024;

/// Chunk lines and chunk ends may take this much more than the data that they frame.
///
/// A chunk of one byte costs five of framing. A client that writes byte by byte gets through 4 KiB;
/// a body of 1 MiB in such chunks would be 6 MiB of traffic, and is refused. Chunks of five bytes and
/// more never meet this limit.
pub const CHUNK_OVERHEAD_BYTES_MAX: u64 = 16 * 1024;

/// Longest trailer section, with its blank line: it is made of field lines, as a head is.
pub const TRAILER_BYTES_MAX: usize = HEAD_BYTES_MAX;

// A long target must be told from a large head: 414, not 431.
const _: () = assert!(REQUEST_LINE_BYTES_MAX + 2 * EMPTY_LINES_MAX + 4 <= HEAD_BYTES_MAX);
// One extension of the longest line fits into a body.
const _: () = assert!(CHUNK_LINE_BYTES_MAX <= CHUNK_EXTENSION_BYTES_MAX);
