//! Segments: the files that hold the lines, one zstd frame each.
//!
//! Owns: the name ([`name`]), writing ([`writer`]) and the room for it (`space`), what of those being written may be
//! read ([`open`]), reading line by line ([`reader`]) and block by block ([`frame`]), and closing what a dead or failed
//! writer has left ([`recover`]). Leaves to `shard` and `commit` what goes into which segment and when.
//!
//! ```text
//! reports-20260227T051434.123Z-c003.jsonl.zst
//!
//! ┌────────┬───────────────────────┬───────────────────────┬─────┬──────────┬──────────┐
//! │ frame  │ blocks of commit 1    │ blocks of commit 2    │  …  │ empty    │ XXH64 of │
//! │ header │ (flushed, whole lines)│ (flushed, whole lines)│     │ block ,  │ the text,│
//! │        │                       │                       │     │ "last"   │ 4 bytes  │
//! └────────┴───────────────────────┴───────────────────────┴─────┴──────────┴──────────┘
//!          └─ on stable storage ───┴─ being written: may be cut ─────┘
//! ```
//!
//! One frame (RFC 8878 §3.1.1) with a content checksum and a window of at most 8 MiB, no second and no
//! skippable frame: every streaming reader takes this shape. Each commit ends in a flush on a complete
//! line, so an open segment decodes up to its last commit, and the window carries over.
//! Zeros may follow its commits, for the next ones to be written over; the seal cuts them off.
//!
//! What a crash can leave in `.open`:
//!
//! | when | what | recovery |
//! | --- | --- | --- |
//! | before the first commit | an empty file, a header | removed: it holds no line |
//! | during the first commit | part of a block | set aside: a damaged block would look the same |
//! | between two commits | whole commits, perhaps zeros behind them | cut at the last line, closed, moved up |
//! | during a later one | the same, then a torn tail | copied aside, cut at the last line, closed, moved up |
//! | during a seal | a whole frame | moved up |
//! | during recovery | any of these | the same again |

pub mod frame;
pub mod name;
pub mod open;
pub mod reader;
pub mod recover;
pub(crate) mod space;
pub mod writer;

/// What ends a frame whose blocks end at a line: an empty raw block marked as the last one (RFC 8878
/// §3.1.1.2), then the checksum.
pub const LAST_BLOCK: [u8; 3] = [0x01, 0x00, 0x00];

/// Bytes of the content checksum: the low half of XXH64, little endian (RFC 8878 §3.1.1).
pub const CHECKSUM_BYTES: usize = 4;

/// The first bytes of every zstd frame, little endian (RFC 8878 §3.1.1).
pub const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// Windows are at most 8 MiB, the most that every engine's decoder takes.
pub const WINDOW_LOG_MAX: u32 = 23;
