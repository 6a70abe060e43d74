//! What the source says of itself, as far as it can be searched for.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest line of source, in characters; rustfmt leaves comments and long strings alone.
const LINE_CHARS_MAX: usize = 120;

/// A file of the repository.
struct Source {
    /// Below the repository's root.
    path: String,
    text: String,
}

impl Source {
    /// Lines with their numbers, up to the unit tests, without comments. Single items for tests are code.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate();
        lines
            .take_while(|(_, line)| *line != "mod tests {")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(index, line)| (index + 1, line))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory, by path.
fn sources(dir: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![root().join(dir)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("the directory can be listed");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("the file can be read");
            let path = path.strip_prefix(root()).expect("it is below the root");
            let path = path.to_str().expect("paths are text").to_owned();
            sources.push(Source { path, text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "no sources in {dir}");
    sources
}

/// Whether `word` stands in `line`, not inside a longer name.
fn has_word(line: &str, word: &str) -> bool {
    // With the quote, a lifetime is a name of its own.
    let is_name = |c: char| c.is_alphanumeric() || "_'".contains(c);
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        !before.ends_with(is_name) && !after.starts_with(is_name)
    })
}

/// Wants the words in the code of these files, or of those in these directories, and of no others.
/// A place where none of them is left is no exception any more, and has to go.
#[track_caller]
fn only_in(words: &[&str], places: &[&str]) {
    let mut found = Vec::new();
    let mut unused = places.to_vec();
    for source in sources("src") {
        for (number, line) in source.code() {
            if !words.iter().any(|word| has_word(line, word)) {
                continue;
            }
            let is_here = |place: &&str| source.path.starts_with(*place);
            if places.iter().any(is_here) {
                unused.retain(|place| !is_here(place));
            } else {
                found.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert_eq!(found, [""; 0], "{words:?} are for {places:?} alone");
    assert_eq!(unused, [""; 0], "{words:?} are not in these any more");
}

#[test]
fn files_are_touched_by_the_disk_alone() {
    // Settings come from a file that is read before there is a core, and again by the main thread alone.
    only_in(
        &["std::fs", "monoio::fs", "rustix::fs"],
        &[
            "src/config/file.rs",
            "src/disk/",
            "src/rt/file.rs",
            "src/verify/check.rs",
        ],
    );
    // Settings name a directory, commands take one; no request does.
    only_in(
        &["std::path"],
        &[
            "src/command.rs",
            "src/config/",
            "src/disk/",
            "src/main.rs",
            "src/query/command.rs",
            "src/retention/command.rs",
            "src/verify/mod.rs",
        ],
    );
}

#[test]
fn clocks_are_read_by_the_worker_alone() {
    let clocks = ["SystemTime::now", "Instant::now", "clock_gettime"];
    only_in(&clocks, &["src/worker.rs"]);
}

#[test]
fn one_module_spells_the_name_of_a_segment() {
    only_in(&["jsonl", "reports-"], &["src/segment/name.rs"]);
}

#[test]
fn one_module_knows_the_runtime() {
    only_in(&["monoio"], &["src/rt/"]);
}

#[test]
fn one_line_is_unsafe() {
    only_in(&["unsafe", "unsafe_code"], &["src/rt/net.rs"]);
    let sources = sources("src");
    let code = sources.iter().flat_map(Source::code);
    assert_eq!(code.filter(|(_, line)| has_word(line, "unsafe")).count(), 1);
}

#[test]
fn cores_share_nothing_that_makes_them_wait() {
    only_in(
        &[
            "Mutex", "RwLock", "Condvar", "OnceLock", "LazyLock", "Barrier",
        ],
        &[],
    );
    only_in(&["static"], &["src/main.rs"]);
    // To the blocking thread, to salvage, to housekeeping and to the main thread; none on the way of a report.
    only_in(
        &["mpsc"],
        &[
            "src/commit.rs",
            "src/housekeeping.rs",
            "src/rt/blocking.rs",
            "src/salvage.rs",
            "src/server/mod.rs",
            "src/worker.rs",
        ],
    );
    // Before there is a core, for a port that a killed process still holds; for a descriptor, on a thread that has
    // nothing else to do; and in a command, for a server to end a write.
    only_in(
        &["thread::sleep"],
        &[
            "src/admin/conn.rs",
            "src/server/sockets.rs",
            "src/verify/check.rs",
        ],
    );
}

#[test]
fn main_alone_prints_and_exits() {
    let words = [
        "print!",
        "println!",
        "eprint!",
        "eprintln!",
        "process::exit",
    ];
    only_in(&words, &["src/main.rs"]);
}

#[test]
fn status_codes_are_for_answers() {
    only_in(
        &["StatusCode"],
        &[
            "src/admin/",
            "src/api/",
            "src/conn/",
            "src/http/response.rs",
        ],
    );
}

#[test]
fn every_module_says_what_it_is() {
    for dir in ["src", "tests"] {
        for source in sources(dir) {
            assert!(source.text.starts_with("//! "), "{}", source.path);
        }
    }
}

#[test]
fn lines_have_an_end() {
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let at = format!("{}:{number}", source.path);
            assert!(line.chars().count() <= LINE_CHARS_MAX, "{at}: too long");
            assert!(!line.ends_with([' ', '\t']), "{at}: blank at the end");
        }
    }
}

#[test]
fn nothing_is_put_off() {
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("#[ig", "nore"),
    ];
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let mark = marks.iter().find(|mark| line.contains(**mark));
            assert_eq!(mark, None, "{}:{number}", source.path);
        }
    }
}

#[test]
fn every_dependency_says_what_for() {
    let manifest = include_str!("../../Cargo.toml");
    let mut is_dependency = false;
    let (mut before, mut count) = ("", 0);
    for line in manifest.lines() {
        if line.starts_with('[') {
            is_dependency = line.ends_with("dependencies]");
        } else if is_dependency && line.contains(" = ") {
            let reason = before.strip_prefix("# ");
            assert!(reason.is_some_and(|text| text.ends_with('.')), "{line}");
            count += 1;
        }
        before = line;
    }
    assert!(count > 20, "only {count} dependencies found");
}
