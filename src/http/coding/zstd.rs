//! The zstd coding: frames one after the other, skippable ones among them (RFC 8878 §3.1).

use ::zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use ::zstd::zstd_safe::{DCtx, DParameter, ErrorCode, InBuffer, OutBuffer, ResetDirective};

use super::{Coding, CodingError, KEPT_STATE_BYTES_MAX, Moved, WINDOW_LOG_MAX};

/// The longest header of a frame (RFC 8878 §3.1.1.1).
const HEADER_BYTES_MAX: usize = 18;

/// The `zstd` coding. libzstd goes on to the next frame by itself.
pub(super) struct Zstd {
    context: DCtx<'static>,
    /// Bytes of the frame at hand that have gone in, as far as they can be its header's;
    /// `header_len <= HEADER_BYTES_MAX`.
    header_len: usize,
    /// Whether a frame has ended and nothing has come behind it.
    is_whole: bool,
    /// Whether a frame has ever ended.
    has_frames: bool,
}

impl Zstd {
    pub(super) fn new() -> Zstd {
        let mut context = DCtx::create();
        context
            .set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))
            .expect("10 to 31 is allowed");
        Zstd {
            context,
            header_len: 0,
            is_whole: false,
            has_frames: false,
        }
    }

    /// Whether the body may end here: behind a frame.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.context.sizeof()
    }

    pub(super) fn reset(&mut self) {
        let is_kept = self.context.sizeof() <= KEPT_STATE_BYTES_MAX;
        if !is_kept || self.context.reset(ResetDirective::SessionOnly).is_err() {
            *self = Zstd::new();
        }
        self.header_len = 0;
        (self.is_whole, self.has_frames) = (false, false);
    }

    pub(super) fn step(&mut self, fed: &[u8], out: &mut [u8]) -> Result<Moved, CodingError> {
        // A header goes in byte by byte. When one ends, libzstd looks whether a whole frame is there from the
        // first byte of the call, and if so takes a shorter way, which lets blocks beyond the window pass,
        // and which takes the end of a header for a frame that looks like one. So the split would matter.
        let fed = match self.header_len < HEADER_BYTES_MAX {
            true => &fed[..fed.len().min(1)],
            false => fed,
        };
        let mut input = InBuffer::around(fed);
        let mut out = OutBuffer::around(out);
        let hint = self
            .context
            .decompress_stream(&mut out, &mut input)
            .map_err(|code| self.error(code))?;
        let moved = Moved {
            taken: input.pos(),
            made: out.pos(),
        };
        if moved == Moved::NOTHING && !fed.is_empty() {
            return Err(CodingError::Malformed {
                coding: Coding::Zstd,
            });
        }
        // Without progress the hint speaks of a next frame, which need not come.
        if moved != Moved::NOTHING {
            self.is_whole = hint == 0;
            self.has_frames |= self.is_whole;
            self.header_len = match self.is_whole {
                true => 0,
                false => HEADER_BYTES_MAX.min(self.header_len + moved.taken),
            };
        }
        Ok(moved)
    }

    fn error(&self, code: ErrorCode) -> CodingError {
        let coding = Coding::Zstd;
        // As ZSTD_getErrorCode does: results are negated error codes.
        let is = |known: ZSTD_ErrorCode| 0usize.wrapping_sub(code) == known as usize;
        if is(ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge) {
            CodingError::Window
        } else if is(ZSTD_ErrorCode::ZSTD_error_prefix_unknown) && self.has_frames {
            CodingError::Trailing { coding }
        } else {
            CodingError::Malformed { coding }
        }
    }
}
