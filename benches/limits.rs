//! Yardsticks for the work that a server of these reports has to do: parsing one with a parser for any JSON,
//! and compressing it.

use simd_json::{Buffers, INPUT_PADDING, Tape};
use zstd::zstd_safe::{
    CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, compress_bound,
    zstd_sys::ZSTD_EndDirective,
};

/// Text of a frame until the next one begins.
const FRAME_BYTES: usize = 10 << 20;

/// simd-json, with buffers that it keeps.
pub(crate) struct Json {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl Json {
    pub(crate) fn new() -> Json {
        Json {
            scratch: Vec::new(),
            buffers: Buffers::default(),
            tape: Some(Tape(Vec::new())),
        }
    }

    /// Parses a copy of the bytes: the parser writes into its input.
    pub(crate) fn parse(&mut self, bytes: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        self.scratch.resize(bytes.len() + INPUT_PADDING, 0);
        let mut tape = self.tape.take().expect("it comes back").reset();
        let (len, buffers) = (bytes.len(), &mut self.buffers);
        simd_json::fill_tape_padded(&mut self.scratch, len, buffers, &mut tape)
            .expect("the bytes are JSON");
        self.tape = Some(tape.reset());
    }
}

/// zstd, one frame after the other, never flushed within one.
pub(crate) struct Zstd {
    context: CCtx<'static>,
    out: Vec<u8>,
    frame_bytes: usize,
}

impl Zstd {
    pub(crate) fn new(level: i32) -> Zstd {
        let mut context = CCtx::create();
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ChecksumFlag(true),
        ] {
            context.set_parameter(parameter).expect("is a parameter");
        }
        Zstd {
            context,
            out: Vec::new(),
            frame_bytes: 0,
        }
    }

    /// Compresses the bytes behind those before them.
    pub(crate) fn compress(&mut self, bytes: &[u8]) {
        if self.frame_bytes >= FRAME_BYTES {
            let reset = self.context.reset(ResetDirective::SessionOnly);
            reset.expect("can always be done");
            self.frame_bytes = 0;
        }
        self.frame_bytes += bytes.len();
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            self.out.clear();
            self.out.reserve(compress_bound(bytes.len()));
            let mut output = OutBuffer::around(&mut self.out);
            let directive = ZSTD_EndDirective::ZSTD_e_continue;
            self.context
                .compress_stream2(&mut output, &mut input, directive)
                .expect("there is room");
        }
    }
}
