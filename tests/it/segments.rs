//! Segments are one zstd frame each, whatever is in them and however far they are: written by the
//! server's own writer, read by the zstd crate's decoder. What other tests of files use is here as well.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers here as tests"
)]

use std::collections::BTreeMap;
use std::io::Read;

use netwatch_server::disk::sim::{Crash, SimDisk, Unsettled, Unsynced};
use netwatch_server::disk::{Dir, Disk, block_on};
use netwatch_server::segment::frame::{Ending, scan};
use netwatch_server::segment::name::SegmentName;
use netwatch_server::segment::recover::{Recovered, recover_entry};
use netwatch_server::segment::writer::{Batch, Encoder, Frame, Reach, Writer};
use xxhash_rust::xxh64::xxh64;

use crate::reports::{Generator, Random};

/// Every way in which the process or the machine may end.
pub(crate) fn crashes() -> Vec<Crash> {
    let mut crashes = vec![Crash::Process];
    for bytes in [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Half,
        Unsynced::Zeros,
        Unsynced::Pieces,
    ] {
        for names in [
            Unsettled::Undone,
            Unsettled::Done,
            Unsettled::Most,
            Unsettled::Fewest,
        ] {
            crashes.push(Crash::Power { bytes, names });
        }
    }
    crashes
}

/// Every file of a disk.
pub(crate) fn contents(disk: &SimDisk) -> BTreeMap<(Dir, String), Vec<u8>> {
    let names = Dir::ALL.map(|dir| disk.names(dir).into_iter().map(move |name| (dir, name)));
    let files = names.into_iter().flatten();
    files
        .map(|(dir, name)| {
            let content = disk.content(dir, &name).unwrap();
            ((dir, name), content)
        })
        .collect()
}

/// Recovers all of `.open`, as a start does; the disk must allow it.
pub(crate) fn recover_all(disk: &SimDisk) -> Vec<Recovered> {
    block_on(async {
        let mut all = Vec::new();
        for entry in disk.list(Dir::Open).await.unwrap() {
            all.push(recover_entry(disk, &entry).await.unwrap());
        }
        assert_eq!(disk.names(Dir::Open), [""; 0]);
        all
    })
}

/// The text of a sealed segment, which must be exactly one frame with a right content checksum, a
/// window of at most 8 MiB and whole lines in it.
#[track_caller]
pub(crate) fn decode(file: &[u8]) -> Vec<u8> {
    assert!(file[4] & 0x04 != 0, "the frame has a content checksum");
    let mut decoder = zstd::stream::read::Decoder::with_buffer(file)
        .unwrap()
        .single_frame();
    decoder.window_log_max(23).unwrap();
    let mut text = Vec::new();
    decoder.read_to_end(&mut text).unwrap();
    assert_eq!(decoder.finish(), [0; 0], "nothing follows the frame");
    assert!(text.ends_with(b"\n"), "the text ends at a line");
    text
}

/// Name and text of every sealed segment.
#[track_caller]
pub(crate) fn sealed(disk: &SimDisk) -> Vec<(String, String)> {
    let mut segments = Vec::new();
    for name in disk.names(Dir::Sealed) {
        let file = disk.content(Dir::Sealed, &name).unwrap();
        segments.push((name, String::from_utf8(decode(&file)).unwrap()));
    }
    segments
}

/// A segment as its writer leaves it.
pub(crate) struct Built {
    /// The open file.
    pub(crate) open: Vec<u8>,
    /// The same after its end was written.
    pub(crate) whole: Vec<u8>,
    /// All of its text.
    pub(crate) text: String,
    /// Of each commit: bytes of the file and of the text up to its end.
    pub(crate) commits: Vec<(usize, usize)>,
}

/// Writes a segment of these texts, one commit each.
pub(crate) fn build(name: &str, level: i32, texts: &[String]) -> Built {
    let disk = SimDisk::default();
    let mut encoder = Encoder::new(level).unwrap();
    let mut out = Vec::new();
    let name = SegmentName::parse(name).unwrap();
    block_on(async {
        let mut segment = Writer::create(&disk, &mut encoder, name).await.unwrap();
        let name = segment.name().to_owned();
        // Zeros may follow.
        let content = |segment: &Writer<SimDisk>| {
            let file = disk.content(Dir::Open, &name).unwrap();
            file[..segment.file_bytes() as usize].to_vec()
        };
        let mut commits = Vec::new();
        let mut text = String::new();
        for batch in texts {
            segment.reserve(&disk, batch.len(), 0).await.unwrap();
            let commit = Batch {
                text: batch.as_bytes(),
                lines: batch.lines().count() as u32,
                reach: Reach::Durable,
                frame: Frame::GoesOn,
            };
            let committed = segment.commit(&disk, &mut encoder, &mut out, commit);
            committed.await.unwrap();
            text.push_str(batch);
            commits.push((content(&segment).len(), text.len()));
        }
        let open = content(&segment);
        segment.end(&disk, &mut encoder, &mut out).await.unwrap();
        Built {
            open,
            whole: content(&segment),
            text,
            commits,
        }
    })
}

impl Built {
    /// The text of the commits that the first `len` bytes of the file hold.
    pub(crate) fn committed(&self, len: usize) -> &str {
        let before = self.commits.iter().rfind(|(file, _)| *file <= len);
        &self.text[..before.map_or(0, |&(_, text)| text)]
    }
}

/// The window that a frame's header asks of its decoder (RFC 8878 §3.1.1.1.2).
fn window_bytes(file: &[u8]) -> u64 {
    assert_eq!(file[4] & 0x20, 0, "there is a window descriptor");
    let (exponent, mantissa) = (file[5] >> 3, u64::from(file[5] & 7));
    let base = 1 << (10 + exponent);
    base + base / 8 * mantissa
}

/// Commits of a line and of several blocks.
fn texts() -> Vec<String> {
    let mut reports = Generator::new(1, 5);
    let mut lines = |count| -> String {
        let reports = (0..count).map(|_| reports.next_report("a client"));
        let lines = reports.map(|report| String::from_utf8(report).unwrap() + "\n");
        lines.collect()
    };
    let texts = vec!["{}\n".to_owned(), lines(1), lines(100), lines(2)];
    assert!(texts[2].len() > 3 * (128 << 10));
    texts
}

#[test]
fn every_level_makes_one_frame_that_decodes_at_every_commit() {
    for level in -7..=19 {
        let built = build(
            "reports-20260227T051434.123Z-c003.jsonl.zst",
            level,
            &texts(),
        );
        assert_eq!(decode(&built.whole), built.text.as_bytes(), "level {level}");
        assert!(window_bytes(&built.whole) <= 8 << 20, "level {level}");
        for &(len, text_len) in &built.commits {
            let mut text = Vec::new();
            let decoder = zstd::stream::read::Decoder::with_buffer(&built.open[..len]);
            let error = decoder.unwrap().read_to_end(&mut text).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
            assert!(text == built.text.as_bytes()[..text_len], "level {level}");
        }
    }
}

/// Scans a file: the ending, the bytes, text bytes and lines before the cut, and the text.
fn scanned(file: &[u8]) -> (Ending, u64, u64, u64, Vec<u8>) {
    let disk = SimDisk::default();
    disk.put(Dir::Open, "file", file);
    block_on(async {
        let open = disk.open(Dir::Open, "file").await.unwrap();
        let mut text = Vec::new();
        let scan = scan(&disk, &open, file.len() as u64, |piece| {
            text.extend_from_slice(piece)
        });
        let scan = scan.await.unwrap();
        assert!(scan.cut <= scan.understood);
        let hash = xxh64(&text[..scan.text_bytes as usize], 0);
        assert_eq!(scan.hash, hash);
        (scan.ending, scan.cut, scan.text_bytes, scan.lines, text)
    })
}

#[test]
fn a_scan_tells_how_a_file_ends() {
    let texts = texts();
    let built = build("reports-20260227T051434.123Z-c003.jsonl.zst", 1, &texts);
    for (index, &(len, text_len)) in built.commits.iter().enumerate() {
        let lines: usize = texts[..=index]
            .iter()
            .map(|text| text.lines().count())
            .sum();
        let expected = |ending| {
            let text = built.text.as_bytes()[..text_len].to_vec();
            (ending, len as u64, text_len as u64, lines as u64, text)
        };
        let open = &built.open[..len];
        let with = |tail: &[u8]| scanned(&[open, tail].concat());
        let damaged = |what| expected(Ending::Damaged { what });
        assert_eq!(with(b""), expected(Ending::Open));
        assert_eq!(with(b"\x01"), expected(Ending::Open));
        assert_eq!(with(b"\x01\x00"), expected(Ending::Open));
        assert_eq!(with(b"\x01\x00\x00"), expected(Ending::Open));
        assert_eq!(with(b"\x02"), expected(Ending::Torn));
        assert_eq!(with(b"\x09\x00\x00"), expected(Ending::Torn));
        assert_eq!(with(&[0; 100]), expected(Ending::Zeros));
        assert_eq!(with(b"\x06\x00\x00"), damaged("reserved block type"));
        let large = damaged("block is larger than 128 KiB");
        assert_eq!(with(b"\x00\x00\xFF"), large);
        assert_eq!(with(b"\x0C\x00\x00\xFF"), damaged("block does not decode"));
        let checksum = damaged("content checksum does not match");
        assert_eq!(with(b"\x01\x00\x00\xFF\xFF\xFF\xFF"), checksum);
        let (ending, cut, ..) = with(b"\x08\x00\x00x");
        assert_eq!((ending, cut), (Ending::Torn, len as u64), "within a line");
    }
    let [.., (len, _)] = built.commits[..] else {
        panic!("there are commits");
    };
    for end in len..built.whole.len() {
        assert_eq!(scanned(&built.whole[..end]).0, Ending::Open, "{end}");
    }
    assert_eq!(scanned(&built.whole).0, Ending::Whole);
    let with = |tail: &[u8]| scanned(&[&built.whole, tail].concat()).0;
    assert_eq!(with(b"x"), Ending::Trailing);
    assert_eq!(with(&built.whole), Ending::Trailing);
    assert_eq!(with(&[0; 9]), Ending::Zeros);
}

/// A disk writes the sectors of a commit in any order; those that are missing are zeros.
#[test]
fn a_commit_with_holes_is_not_taken_for_whole() {
    let mut reports = Generator::new(1, 20);
    let mut lines = |count| -> String {
        let reports = (0..count).map(|_| reports.next_report("a client"));
        let lines = reports.map(|report| String::from_utf8(report).unwrap() + "\n");
        lines.collect()
    };
    let texts = [lines(3), lines(16)];
    let built = build("reports-20260227T051434.123Z-c003.jsonl.zst", 1, &texts);
    let begin = built.commits[0].0;
    let mut random = Random::new(7);
    for sector in [64, 512, 4096] {
        let mut damaged = 0;
        while damaged < 300 {
            let mut file = built.open.clone();
            for piece in file[begin..].chunks_mut(sector) {
                if random.below(4) == 0 {
                    piece.fill(0);
                }
            }
            if file == built.open {
                continue;
            }
            damaged += 1;
            let (_, cut, text_bytes, _, text) = scanned(&file);
            let kept = &text[..text_bytes as usize];
            assert!(cut >= begin as u64 && built.text.as_bytes().starts_with(kept));
        }
    }
}
