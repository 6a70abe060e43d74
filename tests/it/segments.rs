//! Reading back what is on a disk in memory, by the zstd crate's own decoder.

use std::collections::BTreeMap;
use std::io::Read;

use netwatch_server::disk::sim::{Crash, SimDisk, Unsettled, Unsynced};
use netwatch_server::disk::{Dir, Disk, block_on};
use netwatch_server::segment::name::SegmentName;
use netwatch_server::segment::recover::{Recovered, recover_entry};
use netwatch_server::segment::writer::{Batch, Encoder, Reach, Then, Writer};

/// Every way in which the process or the machine may end.
pub(crate) fn crashes() -> Vec<Crash> {
    let mut crashes = vec![Crash::Process];
    for bytes in [
        Unsynced::Lost,
        Unsynced::Kept,
        Unsynced::Half,
        Unsynced::Zeros,
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
        let content = || disk.content(Dir::Open, &name).unwrap();
        let mut commits = Vec::new();
        let mut text = String::new();
        for batch in texts {
            segment.reserve(&disk, batch.len(), 0).await.unwrap();
            let commit = Batch {
                text: batch.as_bytes(),
                lines: batch.lines().count() as u32,
                reach: Reach::Durable,
                then: Then::KeepOpen,
            };
            let committed = segment.commit(&disk, &mut encoder, &mut out, commit);
            committed.await.unwrap();
            text.push_str(batch);
            commits.push((content().len(), text.len()));
        }
        let open = content();
        segment.end(&disk, &mut encoder, &mut out).await.unwrap();
        Built {
            open,
            whole: content(),
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
