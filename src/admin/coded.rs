//! Bodies by the content coding that a client takes (RFC 9110 §8.4): as they are, gzip, or zstd (RFC 8878).
//!
//! A zstd body may hold frames as they are stored, with frames of its own between them: a sequence of frames is one
//! body (RFC 8878 §3).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use zstd::Encoder;

use crate::http::accept::weighted;
use crate::http::head::Head;

/// The level of both codings: fast, and on these texts nearly as small as higher ones.
const ZSTD_LEVEL: i32 = 1;

/// How a body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// The best that the request takes.
    pub(super) fn accepted(head: &Head<'_>) -> Coding {
        let (mut gzip, mut zstd) = (0, 0);
        for (name, weight) in weighted(head.fields("accept-encoding")) {
            if name.eq_ignore_ascii_case("zstd") {
                zstd = weight.max(zstd);
            } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
                gzip = weight.max(gzip);
            }
        }
        match (zstd, gzip) {
            (0, 0) => Coding::Identity,
            _ if zstd >= gzip => Coding::Zstd,
            _ => Coding::Gzip,
        }
    }

    /// Its name in `Content-Encoding`; none for what is not coded.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Coding::Identity => None,
            Coding::Gzip => Some("gzip"),
            Coding::Zstd => Some("zstd"),
        }
    }

    /// The fields that tell of it. Caches have to know that there are others.
    pub(super) fn fields(self) -> Vec<(&'static str, String)> {
        let vary = ("vary", "accept-encoding".to_owned());
        let coded = self
            .name()
            .map(|name| ("content-encoding", name.to_owned()));
        coded.into_iter().chain([vary]).collect()
    }
}

/// Codes what is written to it.
pub(super) enum Coded<W: Write> {
    Identity(W),
    Gzip(GzEncoder<W>),
    Zstd(Frames<W>),
}

/// Frames, one behind the other.
pub(super) enum Frames<W: Write> {
    /// Within a frame.
    Open(Encoder<'static, W>),
    /// Behind one, or before the first.
    Between(W, Count),
    /// An error has left nothing to go on with.
    Broken,
}

/// How many frames there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    None,
    Some,
}

impl<W: Write> Coded<W> {
    pub(super) fn new(coding: Coding, out: W) -> Coded<W> {
        match coding {
            Coding::Identity => Coded::Identity(out),
            Coding::Gzip => Coded::Gzip(GzEncoder::new(out, Compression::fast())),
            Coding::Zstd => Coded::Zstd(Frames::Between(out, Count::None)),
        }
    }

    /// Writes bytes of a frame that is stored: from its first byte on, and then to its end.
    pub(super) fn write_stored(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Coded::Zstd(frames) => {
                frames.between()?.write_all(bytes)?;
                if let Frames::Between(_, count) = frames {
                    *count = Count::Some;
                }
                Ok(())
            }
            Coded::Identity(_) | Coded::Gzip(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Ends the coding; what is behind it.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Coded::Identity(out) => Ok(out),
            Coded::Gzip(encoder) => encoder.finish(),
            Coded::Zstd(Frames::Between(out, Count::Some)) => Ok(out),
            // No frame at all is no zstd to some.
            Coded::Zstd(mut frames) => {
                frames.open()?;
                frames.between()?;
                match frames {
                    Frames::Between(out, _) => Ok(out),
                    Frames::Open(_) | Frames::Broken => Err(io::ErrorKind::BrokenPipe.into()),
                }
            }
        }
    }
}

impl<W: Write> Frames<W> {
    fn open(&mut self) -> io::Result<&mut Encoder<'static, W>> {
        if let Frames::Between(..) = self
            && let Frames::Between(out, _) = std::mem::replace(self, Frames::Broken)
        {
            let mut encoder = Encoder::new(out, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            *self = Frames::Open(encoder);
        }
        match self {
            Frames::Open(encoder) => Ok(encoder),
            Frames::Between(..) | Frames::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn between(&mut self) -> io::Result<&mut W> {
        if let Frames::Open(_) = self
            && let Frames::Open(encoder) = std::mem::replace(self, Frames::Broken)
        {
            *self = Frames::Between(encoder.finish()?, Count::Some);
        }
        match self {
            Frames::Between(out, _) => Ok(out),
            Frames::Open(_) | Frames::Broken => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl<W: Write> Write for Coded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Coded::Identity(out) => out.write(bytes),
            Coded::Gzip(encoder) => encoder.write(bytes),
            Coded::Zstd(frames) => frames.open()?.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::http::head;

    #[test]
    fn what_clients_take() {
        #[track_caller]
        fn check(field: &str, expected: Coding) {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n");
            let head = head::parse(request.as_bytes()).unwrap();
            assert_eq!(Coding::accepted(&head), expected);
        }
        check("", Coding::Identity);
        check("Accept-Encoding: br\r\n", Coding::Identity);
        check("Accept-Encoding: gzip, deflate, br, zstd\r\n", Coding::Zstd);
        check("Accept-Encoding: gzip, zstd;q=0.5\r\n", Coding::Gzip);
        check("Accept-Encoding: ZSTD;q=0, x-gzip\r\n", Coding::Gzip);
        check("Accept-Encoding: gzip;q=0\r\n", Coding::Identity);
    }

    #[test]
    fn they_decode() {
        for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
            for text in ["", "some text"] {
                let mut coded = Coded::new(coding, Vec::new());
                coded.write_all(text.as_bytes()).unwrap();
                let bytes = coded.finish().unwrap();
                let decoded = match coding {
                    Coding::Identity => String::from_utf8(bytes).unwrap(),
                    Coding::Gzip => {
                        io::read_to_string(flate2::read::GzDecoder::new(&bytes[..])).unwrap()
                    }
                    Coding::Zstd => {
                        assert!(!bytes.is_empty());
                        io::read_to_string(zstd::Decoder::new(&bytes[..]).unwrap()).unwrap()
                    }
                };
                assert_eq!(decoded, text, "{coding:?}");
            }
        }
    }

    #[test]
    fn stored_frames_stand_between_others() {
        let stored = zstd::encode_all(&b"stored,"[..], 3).unwrap();
        let mut coded = Coded::new(Coding::Zstd, Vec::new());
        for part in [&b"a,"[..], b"b,"] {
            coded.write_all(part).unwrap();
        }
        let (begin, end) = stored.split_at(5);
        coded.write_stored(begin).unwrap();
        coded.write_stored(end).unwrap();
        coded.write_stored(&stored).unwrap();
        coded.write_all(b"c").unwrap();
        let bytes = coded.finish().unwrap();
        let mut text = String::new();
        zstd::Decoder::new(&bytes[..])
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a,b,stored,stored,c");
        let mut gzip = Coded::new(Coding::Gzip, Vec::new());
        assert!(gzip.write_stored(&stored).is_err());
    }
}
