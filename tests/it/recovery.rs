//! Whatever is found in `.open`: no panic, no committed line lost, none stored twice, the same result
//! when it is done again; what is not understood is in `.corrupt` as it was.

#![allow(
    clippy::unwrap_used,
    reason = "clippy does not count the helpers here as tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::slice;
use std::task::{Context, Poll, Waker};

use netwatch_server::disk::sim::{Crash, End, Fault, Part, SimDisk, Unsettled, Unsynced};
use netwatch_server::disk::{Dir, Disk, block_on};
use netwatch_server::segment::recover::{RecoverError, Recovered, recover_entry, salvage};
use netwatch_server::segment::writer::Abandoned;
use rustix::io::Errno;

use crate::reports::{Generator, Random};
use crate::segments::{Built, build, contents, crashes, decode, recover_all, sealed};

const NAME: &str = "reports-20260227T051434.123Z-c003.jsonl.zst";
const NEXT: &str = "reports-20260227T051434.124Z-c003.jsonl.zst";
const THIRD: &str = "reports-20260227T051434.125Z-c003.jsonl.zst";

/// The blocks begin here: magic, descriptor and window come before.
const FRAME_HEADER_BYTES: usize = 6;

/// Lines that hardly compress.
fn dense(random: &mut Random, lines: usize, bytes: usize) -> String {
    let mut text = String::new();
    for _ in 0..lines {
        let digits = (0..bytes).map(|_| char::from(b'!' + random.below(90) as u8));
        text.extend(digits);
        text.push('\n');
    }
    text
}

/// Commits of one line, of some, of blocks that do not compress, and of more than one block.
fn segment() -> Built {
    let mut random = Random::new(7);
    let mut reports = Generator::new(7, 1);
    let mut report = || {
        let report = reports.next_report("a client");
        String::from_utf8(report).unwrap() + "\n"
    };
    let one = report();
    let texts = [
        "{}\n".to_owned(),
        one.clone(),
        dense(&mut random, 3, 200),
        one.repeat(260),
        dense(&mut random, 1, 40),
        (0..3).map(|_| report()).collect(),
    ];
    assert!(texts[3].len() > 3 * (128 << 10));
    build(NAME, 1, &texts)
}

fn small_segment() -> Built {
    let mut random = Random::new(8);
    let lines = |count| "{\"clientId\":\"a\",\"hosts\":[]}\n".repeat(count);
    build(NAME, 1, &[lines(1), dense(&mut random, 2, 60), lines(20)])
}

fn disk_with(open: &[u8]) -> SimDisk {
    let disk = SimDisk::default();
    disk.put(Dir::Open, NAME, open);
    disk
}

/// The text that recovery makes of an open file with this content, nothing if it makes none; checks that
/// it comes to the same a second time, and with the file there again.
#[track_caller]
fn recovered_text(found: &[u8]) -> (Vec<u8>, SimDisk) {
    let disk = disk_with(found);
    recover_all(&disk);
    let up = disk.names(Dir::Sealed).into_iter();
    let text = up.flat_map(|name| decode(&disk.content(Dir::Sealed, &name).unwrap()));
    let text: Vec<u8> = text.collect();
    let after = contents(&disk);
    assert_eq!(recover_all(&disk), []);
    disk.put(Dir::Open, NAME, found);
    let is_aside = text.is_empty() && !disk.names(Dir::Corrupt).is_empty();
    recover_all(&disk);
    if !is_aside {
        assert_eq!(contents(&disk), after);
    }
    (text, disk)
}

/// Whether the file as it was found is in `.corrupt`.
fn is_aside(disk: &SimDisk, found: &[u8]) -> bool {
    if let Some(whole) = disk.content(Dir::Corrupt, NAME) {
        return whole == found;
    }
    // What was kept and what was cut make it up.
    let (kept, tail) = (disk.content(Dir::Sealed, NAME), format!("{NAME}.tail"));
    match (kept, disk.content(Dir::Corrupt, &tail)) {
        (Some(kept), Some(tail)) => {
            let kept_len = found.len() - tail.len();
            found.ends_with(&tail) && kept[..kept_len] == found[..kept_len]
        }
        _ => false,
    }
}

#[test]
fn a_file_cut_anywhere_keeps_every_commit_before_the_cut() {
    let segment = segment();
    assert!(segment.whole.starts_with(&segment.open));
    let mut cut_within_blocks = 0;
    for len in 0..=segment.whole.len() {
        let found = &segment.whole[..len];
        let (text, disk) = recovered_text(found);
        assert!(segment.text.as_bytes().starts_with(&text), "{len}");
        assert!(text.len() >= segment.committed(len).len(), "{len}");
        cut_within_blocks += usize::from(is_aside(&disk, found));
    }
    assert!(cut_within_blocks > segment.open.len() / 2);
    for (len, text_len) in &segment.commits {
        let (text, disk) = recovered_text(&segment.whole[..*len]);
        assert_eq!(text, segment.text.as_bytes()[..*text_len]);
        assert_eq!(disk.names(Dir::Corrupt), [""; 0]);
    }
    let (_, disk) = recovered_text(&segment.whole);
    assert_eq!(disk.content(Dir::Sealed, NAME).unwrap(), segment.whole);
}

/// What recovery owes a segment with one bit wrong.
#[track_caller]
fn check_flip(segment: &Built, found: &[u8], byte: usize, has_checksum: bool) {
    let (text, disk) = recovered_text(found);
    if byte >= FRAME_HEADER_BYTES {
        assert!(
            text.starts_with(segment.committed(byte).as_bytes()),
            "{byte}"
        );
    }
    if has_checksum && text != segment.text.as_bytes() {
        assert!(is_aside(&disk, found), "{byte}");
    }
    // Without its checksum a frame may decode to other text, but what is cut off it is kept.
    let is_cut = text.len() < segment.text.len() && segment.text.as_bytes().starts_with(&text);
    if is_cut {
        assert!(is_aside(&disk, found), "{byte}");
    }
}

#[test]
fn a_wrong_bit_costs_nothing_before_its_block_and_nothing_unseen() {
    let segment = small_segment();
    for (file, has_checksum) in [(&segment.open, false), (&segment.whole, true)] {
        for byte in 0..file.len() {
            for bit in 0..8 {
                let mut found = file.clone();
                found[byte] ^= 1 << bit;
                check_flip(&segment, &found, byte, has_checksum);
            }
        }
    }
}

#[test]
fn wrong_bits_of_a_larger_segment() {
    let segment = self::segment();
    let mut random = Random::new(9);
    for _ in 0..500 {
        for (file, has_checksum) in [(&segment.open, false), (&segment.whole, true)] {
            let byte = random.below(file.len() as u64) as usize;
            let mut found = file.clone();
            found[byte] ^= 1 << random.below(8);
            check_flip(&segment, &found, byte, has_checksum);
        }
    }
}

#[test]
fn tails_of_zeros_are_cut_and_other_tails_are_kept_aside() {
    let segment = small_segment();
    let mut random = Random::new(10);
    for file in [&segment.open, &segment.whole] {
        for len in (1..20).chain([4096, 300_000]) {
            let zeros = [&file[..], &vec![0; len]].concat();
            let (text, disk) = recovered_text(&zeros);
            assert_eq!(text, segment.text.as_bytes(), "{len} zeros");
            assert_eq!(disk.names(Dir::Corrupt), [""; 0], "{len} zeros");
            // Nobody misses them. The end of a frame is written anew.
            let end_of_frame = (file.len() - segment.open.len()) as u64;
            let recovered = recover_all(&disk_with(&zeros));
            let [Recovered::Sealed { cut_bytes, .. }] = recovered[..] else {
                panic!("{recovered:?}");
            };
            assert_eq!(cut_bytes, end_of_frame, "{len} zeros");

            // The first one is neither a block's header nor the begin of the frame's end.
            let noise = (1..len).map(|_| random.below(256) as u8);
            let found: Vec<u8> = file.iter().copied().chain([0xFF]).chain(noise).collect();
            let (text, disk) = recovered_text(&found);
            assert_eq!(text, segment.text.as_bytes(), "{len} bytes of noise");
            assert!(is_aside(&disk, &found), "{len} bytes of noise");
        }
        let twice = [&file[..], &segment.whole].concat();
        let (text, disk) = recovered_text(&twice);
        assert_eq!(text, segment.text.as_bytes());
        assert!(is_aside(&disk, &twice));
    }
}

#[test]
fn what_is_no_segment() {
    #[track_caller]
    fn check(name: &str, content: Option<&[u8]>, expected: Recovered) {
        let disk = SimDisk::default();
        match content {
            Some(content) => disk.put(Dir::Open, name, content),
            None => disk.put_other(Dir::Open, name),
        }
        assert_eq!(recover_all(&disk), slice::from_ref(&expected));
        assert_eq!(disk.names(Dir::Sealed), [""; 0]);
        if let Recovered::SetAside { name, .. } = expected {
            let aside = disk.content(Dir::Corrupt, &name).unwrap();
            assert_eq!(aside, content.unwrap_or_default());
        }
    }
    let aside = |name: &str, what: &str| Recovered::SetAside {
        name: name.to_owned(),
        what: what.to_owned(),
    };
    check(NAME, Some(b""), Recovered::Removed { bytes: 0 });
    check(NAME, Some(&[0; 99]), Recovered::Removed { bytes: 99 });
    let segment = small_segment();
    let header = &segment.open[..FRAME_HEADER_BYTES];
    check(NAME, Some(header), Recovered::Removed { bytes: 6 });
    let begun = &segment.open[..FRAME_HEADER_BYTES + 5];
    check(
        NAME,
        Some(begun),
        aside(NAME, "ends within a block or a line"),
    );
    let probe = ".probe-c003";
    check(probe, Some(&[0; 4096]), Recovered::Removed { bytes: 0 });
    check(
        "a.txt",
        Some(b"a"),
        aside("a.txt", "not a name of a segment"),
    );
    check(NAME, None, aside(NAME, "not a regular file"));
    check(".probe-c003", None, aside(probe, "not a regular file"));
    check("dir", None, aside("dir", "not a regular file"));
    check(NAME, Some(b"{}\n"), aside(NAME, "no zstd frame"));
    let skippable = b"\x50\x2A\x4D\x18\x00\x00\x00\x00";
    check(NAME, Some(skippable), aside(NAME, "no zstd frame"));
    let foreign = zstd::encode_all(&b"{}\n"[..], 1).unwrap();
    let no_checksum = "frame without a content checksum";
    check(NAME, Some(&foreign), aside(NAME, no_checksum));
}

#[test]
fn names_aside_are_never_reused() {
    let disk = SimDisk::default();
    for content in [b"a", b"b", b"c"] {
        disk.put(Dir::Open, "note", content);
        recover_all(&disk);
    }
    let aside = ["note", "note.1", "note.2"].map(|name| disk.content(Dir::Corrupt, name).unwrap());
    assert_eq!(aside, [b"a", b"b", b"c"]);
}

#[test]
fn a_sealed_segment_of_the_same_name_is_never_replaced_or_doubled() {
    #[track_caller]
    fn check(above: &[(&str, &[u8])], expected: &[&str]) {
        let segment = small_segment();
        let disk = disk_with(&segment.open);
        for (name, content) in above {
            disk.put(Dir::Sealed, name, content);
        }
        recover_all(&disk);
        assert_eq!(disk.names(Dir::Sealed), expected);
        for (name, content) in above {
            assert_eq!(disk.content(Dir::Sealed, name).unwrap(), *content);
        }
        let files = disk.names(Dir::Sealed).into_iter();
        let same =
            files.filter(|name| disk.content(Dir::Sealed, name) == Some(segment.whole.clone()));
        assert_eq!(same.count(), 1);
    }
    let segment = small_segment();
    let other = build(NAME, 1, &["{}\n".to_owned()]);
    let (same, other) = (&segment.whole[..], &other.whole[..]);
    check(&[], &[NAME]);
    check(&[(NAME, same)], &[NAME]);
    check(&[(NAME, other)], &[NAME, NEXT]);
    check(&[(NAME, other), (NEXT, same)], &[NAME, NEXT]);
    check(&[(NAME, other), (NEXT, other)], &[NAME, NEXT, THIRD]);
}

#[test]
fn a_file_that_cannot_be_read_is_kept_aside_or_left() {
    #[track_caller]
    fn check(errno: Errno, expected: Result<&str, &str>) {
        let segment = small_segment();
        let disk = disk_with(&segment.open);
        disk.fault(fault(Some("open"), 0, Part::Nothing, End::Error(errno)));
        let entries = block_on(disk.list(Dir::Open)).unwrap();
        match (block_on(recover_entry(&disk, &entries[0])), expected) {
            (Ok(Recovered::SetAside { what, .. }), Ok(expected)) => {
                assert_eq!(what, expected);
                assert!(is_aside(&disk, &segment.open));
            }
            (Err(error), Err(expected)) => {
                assert_eq!(error.to_string(), format!("cannot recover .open/{NAME}"));
                assert_eq!(error.source.to_string(), expected);
                recover_all(&disk);
                assert_eq!(disk.names(Dir::Sealed), [NAME]);
            }
            (result, _) => panic!("{errno}: {result:?}"),
        }
    }
    let denied = "cannot be read: Permission denied (os error 13)";
    check(Errno::ACCESS, Ok(denied));
    for errno in [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let expected = format!("cannot read .open/{NAME}");
        check(errno, Err(&expected));
    }
}

fn fault(name: Option<&'static str>, skip: u64, part: Part, end: End) -> Fault {
    Fault {
        name,
        skip,
        count: 1,
        part,
        end,
    }
}

/// One of each that recovery has to deal with: names and contents of `.open`, and of what is sealed.
fn mixed_disk() -> SimDisk {
    let segment = small_segment();
    let other = build(NAME, 1, &["{}\n".to_owned()]);
    let name = |ms: u32| format!("reports-20260227T051435.{ms:03}Z-c000.jsonl.zst");
    let disk = SimDisk::default();
    let torn_len = segment.open.len() - 3;
    let mut damaged = segment.open.clone();
    damaged[segment.commits[1].0] ^= 0x06;
    // Of different text, since the same line is not stored twice.
    let files = [
        ("open", segment.open.clone()),
        ("torn", segment.open[..torn_len].to_vec()),
        (
            "ended in part",
            segment.whole[..segment.whole.len() - 2].to_vec(),
        ),
        ("whole", segment.whole.clone()),
        ("damaged", damaged),
        ("followed", [&segment.whole[..], b"x"].concat()),
        ("zeros", [&segment.open[..], &[0; 99]].concat()),
        ("begun", segment.open[..9].to_vec()),
        ("empty", Vec::new()),
    ];
    for (index, (_, content)) in (0..).zip(files) {
        disk.put(Dir::Open, &name(10 * index), &content);
    }
    disk.put(Dir::Sealed, &name(0), &other.whole);
    disk.put(Dir::Sealed, &name(10), &other.whole);
    disk.put(Dir::Sealed, &name(11), &other.whole);
    disk.put(Dir::Corrupt, &name(40), b"of an earlier time");
    disk.put(Dir::Open, ".probe-c000", &[0; 9]);
    disk.put(Dir::Open, "note", b"a note");
    disk.put_other(Dir::Open, "dir");
    disk
}

/// What is sealed, and the contents that are aside.
fn result(disk: &SimDisk) -> (BTreeMap<String, Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut up, mut aside) = (BTreeMap::new(), BTreeSet::new());
    for ((dir, name), content) in contents(disk) {
        match dir {
            Dir::Sealed => {
                decode(&content);
                up.insert(name, content);
            }
            Dir::Corrupt => {
                aside.insert(content);
            }
            Dir::Open | Dir::Index => panic!("{name} is left in {}", dir.prefix()),
        }
    }
    (up, aside)
}

/// Recovers all of `.open` until the process stops, if it does.
fn recover_until_stopped(disk: &SimDisk) {
    let recovery = async {
        for entry in disk.list(Dir::Open).await.unwrap() {
            recover_entry(disk, &entry).await.unwrap();
        }
    };
    let mut context = Context::from_waker(Waker::noop());
    let _: Poll<()> = pin!(recovery).poll(&mut context);
}

#[test]
fn recovery_stopped_anywhere_is_done_again_with_the_same_result() {
    let reference = mixed_disk();
    recover_all(&reference);
    let operations = reference.log().len() as u64;
    let (up, aside) = result(&reference);
    assert_eq!(up.len(), 3 + 7);
    assert!(operations > 150, "{operations}");
    for number in 0..operations {
        for part in [Part::Nothing, Part::Half, Part::All] {
            let disk = mixed_disk();
            disk.fault(fault(None, number, part, End::Stop));
            recover_until_stopped(&disk);
            let mut seen = Vec::new();
            for crash in crashes() {
                let told = format!("operation {number}, {part:?}, {crash:?}");
                let found = disk.crash(crash);
                if seen.contains(&contents(&found)) {
                    continue;
                }
                seen.push(contents(&found));
                recover_all(&found);
                let (again_up, again_aside) = result(&found);
                assert!(again_up == up, "{told}");
                assert!(again_aside.is_superset(&aside), "{told}");
                let (names, bytes) = (Unsettled::Fewest, Unsynced::Lost);
                let later = found.crash(Crash::Power { bytes, names });
                recover_all(&later);
                assert!(result(&later).0 == up, "{told}, then a power cut");
            }
        }
    }
}

#[test]
fn an_error_of_recovery_is_over_at_the_next_try() {
    let reference = mixed_disk();
    let found = reference.names(Dir::Open).into_iter();
    let found = found.map(|name| reference.content(Dir::Open, &name).unwrap());
    // Of each segment that recovery makes, the file that it makes it of.
    let origins: Vec<_> = found.collect();
    let origins = origins.into_iter().zip(recover_all(&reference));
    let origins = origins.filter_map(|(content, recovered)| match recovered {
        Recovered::Sealed { name, .. } => Some((name, content)),
        _ => None,
    });
    let origins: BTreeMap<_, _> = origins.collect();
    let operations = reference.log().len() as u64;
    let (up, aside) = result(&reference);
    for number in 1..operations {
        for part in [Part::Nothing, Part::Half, Part::All] {
            let told = format!("operation {number}, {part:?}");
            let disk = mixed_disk();
            disk.fault(fault(None, number, part, End::Error(Errno::IO)));
            let tries = block_on(async {
                let entries = disk.list(Dir::Open).await.unwrap();
                let mut left = Vec::new();
                for entry in entries {
                    if recover_entry(&disk, &entry).await.is_err() {
                        left.push(entry);
                    }
                }
                assert!(left.len() <= 1, "{told}");
                for entry in &left {
                    let again: Result<_, RecoverError> = recover_entry(&disk, entry).await;
                    again.unwrap_or_else(|error| panic!("{told}: {error}"));
                }
                left.len()
            });
            let (names, bytes) = (Unsettled::Fewest, Unsynced::Lost);
            let disk = disk.crash(Crash::Power { bytes, names });
            let (again_up, again_aside) = result(&disk);
            if tries == 1 {
                assert!(again_up == up, "{told}");
            }
            assert!(again_aside.is_superset(&aside), "{told}");
            // A file that could not be read is aside as it was.
            for (name, content) in &up {
                let origin = origins.get(name);
                let is_aside = origin.is_some_and(|origin| again_aside.contains(origin));
                assert!(is_aside || again_up.get(name) == Some(content), "{told}");
            }
        }
    }
}

#[test]
fn salvage_keeps_what_is_committed_and_nothing_else() {
    #[track_caller]
    fn check(found: &[u8], committed: usize, text: &str, what: Option<&str>) {
        let disk = disk_with(found);
        let abandoned = Abandoned {
            name: NAME.to_owned(),
            committed: committed as u64,
        };
        let salvaged = block_on(salvage(&disk, &abandoned)).unwrap();
        let stored: String = sealed(&disk).into_iter().map(|(_, text)| text).collect();
        assert_eq!(stored, text);
        let told = match &salvaged {
            Recovered::Sealed { doubt, .. } => *doubt,
            Recovered::SetAside { what, .. } => Some(what.as_str()),
            Recovered::Removed { .. } => None,
            Recovered::Gone | Recovered::Left => panic!("it was there"),
        };
        assert_eq!(told, what);
        // Where nothing was cut there is nothing to keep.
        let is_cut = !matches!(&salvaged, Recovered::Sealed { cut_bytes: 0, .. });
        assert_eq!(is_aside(&disk, found), what.is_some() && is_cut);
        assert_eq!(
            block_on(salvage(&disk, &abandoned)).unwrap(),
            Recovered::Gone
        );
    }
    let segment = small_segment();
    let (whole, commits) = (&segment.whole, &segment.commits);
    check(whole, 0, "", None);
    check(b"", 0, "", None);
    for &(len, text_len) in commits {
        let text = &segment.text[..text_len];
        check(&whole[..len], len, text, None);
        check(&whole[..whole.len() - 1], len, text, None);
        check(&[&whole[..len], b"noise"].concat(), len, text, None);
        check(&[&whole[..len], &[0; 99]].concat(), len, text, None);
    }
    check(whole, whole.len(), &segment.text, None);
    // Committed bytes that have gone bad.
    let [(first, first_text), (second, _), (third, _)] = commits[..] else {
        panic!("three commits");
    };
    let first_text = &segment.text[..first_text];
    let ends_early = Some("ends before its last commit");
    check(&whole[..first], third, first_text, ends_early);
    check(b"", third, "", ends_early);
    let torn = Some("ends within a block or a line");
    check(&whole[..second - 1], third, first_text, torn);
    let zeros = [&whole[..first], &[0; 31]].concat();
    check(
        &zeros,
        zeros.len(),
        first_text,
        Some("zeros before its last commit"),
    );
    let mut damaged = whole[..third].to_vec();
    damaged[first] |= 0x06;
    check(&damaged, third, first_text, Some("reserved block type"));
}
