//! The configuration file: where it is looked for, and how its TOML becomes entries.
//!
//! Owns the only reading that settings need. It happens before the first core starts, or on the main thread,
//! which serves nobody. Leaves it to [`super::layers`] which keys there are and which values they take.
//!
//! ```text
//! --config FILE                                       has to be there
//! $XDG_CONFIG_HOME/netwatch-server/config.toml   ┐
//!  or $HOME/.config/netwatch-server/config.toml  ├    the first that is there, alone
//! /etc/netwatch-server/config.toml               ┘
//! ```
//!
//! A file that is there and cannot be read is a problem, and never passed over for the next.
//!
//! Source: TOML 1.1; XDG Base Directory Specification, "Environment variables".

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use toml::de::{DeInteger, DeTable, DeValue, Error};

use super::error::{ConfigError, Found, Position};
use super::layers::Source;
use super::settings;

/// The longest file that is read: some ten times one that spells out and explains every setting.
pub const FILE_BYTES_MAX: usize = 64 << 10;

/// Below each directory that is searched.
const NAME: &str = "netwatch-server/config.toml";

/// Where the file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// There, or it is a problem.
    Named(PathBuf),
    /// At the first of these where there is one, if at any.
    Searched(Vec<PathBuf>),
}

impl Location {
    /// As `--config` names it, or where this environment has it searched.
    pub(super) fn new(named: Option<&PathBuf>, env: impl Fn(&str) -> Option<OsString>) -> Location {
        if let Some(path) = named {
            return Location::Named(path.clone());
        }
        // The specification wants a relative path ignored; an empty one is relative.
        let dir = |name| env(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        let user = dir("XDG_CONFIG_HOME").or_else(|| Some(dir("HOME")?.join(".config")));
        let dirs = user.into_iter().chain([PathBuf::from("/etc")]);
        Location::Searched(dirs.map(|dir| dir.join(NAME)).collect())
    }

    /// The file, if there is one.
    pub(super) fn read(&self) -> Result<Option<File>, Vec<ConfigError>> {
        let paths = match self {
            Location::Named(path) => return File::read(path).map(Some),
            Location::Searched(paths) => paths,
        };
        let is_there = |path: &&PathBuf| match fs::metadata(path) {
            // What is only out of sight is there: reading it says why.
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ),
            Ok(_) => true,
        };
        let path = paths.iter().find(is_there);
        path.map(|path| File::read(path)).transpose()
    }
}

/// What a file says.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: Arc<Path>,
    /// The bits of its permissions (inode(7)).
    pub(super) mode: u32,
    /// In the order of the file, no two with the same key.
    pub(super) entries: Vec<Entry>,
}

/// One key at the top level, and its value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Of the key, from 1.
    pub(super) line: usize,
    value: Value,
}

#[derive(Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    /// Never empty.
    List(Vec<String>),
    Other(&'static str),
}

impl Entry {
    /// The value of a setting that is a list, as the text that a flag would have for it.
    pub(super) fn found_as_list(&self) -> Found {
        match &self.value {
            Value::List(items) => Found::Text(OsString::from(items.join(","))),
            _ => self.found(),
        }
    }

    /// The same of any other setting.
    pub(super) fn found(&self) -> Found {
        match &self.value {
            Value::Text(text) => Found::Text(OsString::from(text)),
            Value::List(_) => Found::Kind("an array"),
            Value::Other(kind) => Found::Kind(kind),
        }
    }
}

impl File {
    fn read(path: &Path) -> Result<File, Vec<ConfigError>> {
        let path: Arc<Path> = Arc::from(path);
        let (bytes, mode) = match read_bytes(&path) {
            Ok(read) => read,
            Err(source) => return Err(vec![ConfigError::Unreadable { path, source }]),
        };
        if bytes.len() > FILE_BYTES_MAX {
            return Err(vec![ConfigError::TooLong { path }]);
        }
        let entries = parse(&path, &bytes)?;
        Ok(File {
            path,
            mode,
            entries,
        })
    }

    /// The entry with this key.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// The place of an entry.
    pub(super) fn source(&self, entry: &Entry) -> Source {
        Source::File {
            path: Arc::clone(&self.path),
            line: entry.line,
        }
    }
}

/// At most one byte more than a file may have, and the file's permissions.
fn read_bytes(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    // A pipe would keep the start waiting for its writer (O_NONBLOCK), and is refused. A device is let through
    // for /dev/null.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if !(kind.is_file() || kind.is_char_device()) {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok((bytes, metadata.permissions().mode() & 0o7777))
}

/// The entries of a document, in its order.
fn parse(path: &Arc<Path>, bytes: &[u8]) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let places = Places::new(path, bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        vec![ConfigError::NotUtf8 {
            byte: bytes[at],
            at: places.position(at),
        }]
    })?;
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(not_toml(&places, &errors));
    }
    let mut entries: Vec<(usize, Entry)> = table
        .get_ref()
        .iter()
        .map(|(key, value)| {
            let at = key.span().start;
            let entry = Entry {
                key: key.get_ref().to_string(),
                line: places.line(at),
                value: Value::from_toml(value.get_ref()),
            };
            (at, entry)
        })
        .collect();
    // The table has them by key.
    entries.sort_by_key(|(at, _)| *at);
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The first error of each line: the others follow from it.
fn not_toml(places: &Places<'_>, errors: &[Error]) -> Vec<ConfigError> {
    let start = |error: &Error| error.span().map_or(0, |span| span.start);
    let mut errors: Vec<(usize, &Error)> =
        errors.iter().map(|error| (start(error), error)).collect();
    errors.sort_by_key(|(at, _)| *at);
    errors.dedup_by_key(|(at, _)| places.line(*at));
    let settings = settings();
    let problems = errors.into_iter().map(|(at, error)| {
        let line = places.line_text(at);
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        let name = line.trim_ascii_start();
        let name = name.split(|byte| !is_name(byte)).next().unwrap_or(name);
        let setting = settings
            .iter()
            .find(|setting| setting.key.as_bytes() == name);
        ConfigError::NotToml {
            key: setting.map(|setting| setting.key),
            message: error.message().to_owned(),
            at: places.position(at),
        }
    });
    problems.collect()
}

/// Lines of a file by the offset of a byte in it, `0 <= at <= bytes.len()`.
struct Places<'a> {
    path: &'a Arc<Path>,
    bytes: &'a [u8],
    /// Where each line break is.
    breaks: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(path: &'a Arc<Path>, bytes: &'a [u8]) -> Places<'a> {
        Places {
            path,
            bytes,
            breaks: memchr::memchr_iter(b'\n', bytes).collect(),
        }
    }

    /// From 1. A line break belongs to the line that it ends.
    fn line(&self, at: usize) -> usize {
        1 + self.breaks.partition_point(|end| *end < at)
    }

    fn line_start(&self, line: usize) -> usize {
        match line {
            1 => 0,
            _ => self.breaks[line - 2] + 1,
        }
    }

    fn line_text(&self, at: usize) -> &'a [u8] {
        let line = self.line(at);
        let end = self.breaks.get(line - 1).copied();
        &self.bytes[self.line_start(line)..end.unwrap_or(self.bytes.len())]
    }

    fn position(&self, at: usize) -> Position {
        let line = self.line(at);
        let before = &self.bytes[self.line_start(line)..at];
        Position {
            path: Arc::clone(self.path),
            line,
            column: 1 + String::from_utf8_lossy(before).chars().count(),
        }
    }
}

impl Value {
    fn from_toml(value: &DeValue<'_>) -> Value {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(integer) => Value::Text(decimal(integer)),
            DeValue::Boolean(boolean) => Value::Text(boolean.to_string()),
            DeValue::Float(_) => Value::Other("a float"),
            DeValue::Datetime(_) => Value::Other("a date or time"),
            DeValue::Table(_) => Value::Other("a table"),
            DeValue::Array(items) if items.is_empty() => Value::Other("an empty array"),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                });
                let items: Option<Vec<String>> = items.collect();
                items.map_or(Value::Other("an array of other than strings"), Value::List)
            }
        }
    }
}

/// In the digits that the environment would have. What is beyond 64 bits is beyond every range.
fn decimal(integer: &DeInteger<'_>) -> String {
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_or_else(|_| integer.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn parsed(bytes: &[u8]) -> Result<Vec<Entry>, String> {
        let path = Arc::from(Path::new("F"));
        parse(&path, bytes).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ConfigError::to_string).collect();
            lines.join("\n")
        })
    }

    #[test]
    fn entries() {
        /// One line an entry: its line, its key, and what it is to a list and to any other setting.
        #[track_caller]
        fn check(text: &str, expected: &str) {
            let mut found = String::new();
            for entry in parsed(text.as_bytes()).unwrap() {
                let (list, one) = (entry.found_as_list(), entry.found());
                writeln!(found, "{} {}: {list}; {one}", entry.line, entry.key).unwrap();
            }
            assert_eq!(found.trim_end(), expected);
        }
        check("", "");
        check("# nothing\n\n", "");
        check("\u{feff}port = 1", r#"1 port: "1"; "1""#);
        check(
            "b = 1\r\na = 'x y' # why\r\n",
            "1 b: \"1\"; \"1\"\n2 a: \"x y\"; \"x y\"",
        );
        check(r#"a = "\u00e9\n""#, r#"1 a: "é\n"; "é\n""#);
        check(r#"a = """#, r#"1 a: ""; """#);
        check(r#"'a b' = true"#, r#"1 a b: "true"; "true""#);
        check("a = -7", r#"1 a: "-7"; "-7""#);
        check("a = +1_000", r#"1 a: "1000"; "1000""#);
        check("a = 0x1F", r#"1 a: "31"; "31""#);
        check("a = 0o640", r#"1 a: "416"; "416""#);
        let beyond = "99999999999999999999";
        check(
            &format!("a = {beyond}"),
            &format!("1 a: {beyond:?}; {beyond:?}"),
        );
        check("a = 1.5", "1 a: a float; a float");
        check("a = nan", "1 a: a float; a float");
        check("a = 2026-02-27", "1 a: a date or time; a date or time");
        check("a = 05:14:34", "1 a: a date or time; a date or time");
        check("a = { b = 1 }", "1 a: a table; a table");
        check("\n[a]\nb = 1\nc = 2", "2 a: a table; a table");
        check("a.b = 1\na.c = 2", "1 a: a table; a table");
        check(
            "[[a]]",
            "1 a: an array of other than strings; an array of other than strings",
        );
        check("a = []", "1 a: an empty array; an empty array");
        check(
            "a = [\n  'x',\n  \"y\", # why\n]\nb = ['z']",
            "1 a: \"x,y\"; an array\n5 b: \"z\"; an array",
        );
        check(
            "a = [1]",
            "1 a: an array of other than strings; an array of other than strings",
        );
    }

    #[test]
    fn what_is_not_toml() {
        #[track_caller]
        fn check(bytes: &[u8], expected: &str) {
            assert_eq!(parsed(bytes).unwrap_err(), expected);
        }
        check(
            b"port = 1\nport = 2\n",
            "port: not TOML: duplicate key (from F:2:1)",
        );
        check(
            b"\n  flush_bytes = 10MiB",
            "flush_bytes: not TOML: string values must be quoted, expected literal string (from F:2:17)",
        );
        check(
            b"admin_token = \"s3cret\n",
            "admin_token: not TOML: invalid basic string, expected `\"` (from F:1:22)",
        );
        check(
            "# caf\u{e9}\n'caf\u{e9}' 1".as_bytes(),
            "not TOML: key with no value, expected `=` (from F:2:8)",
        );
        check(
            b"{\"port\": 1}",
            "not TOML: invalid key-value pair, expected key (from F:1:1)",
        );
        // Each line that is wrong, once.
        check(
            b"host = a\ndebug = true\nport = yes no\n[x\n",
            "host: not TOML: string values must be quoted, expected literal string (from F:1:8)\n\
             port: not TOML: string values must be quoted, expected literal string (from F:3:8)\n\
             not TOML: unclosed table, expected `]` (from F:4:3)",
        );
        check(
            b"port: 80\n",
            "port: not TOML: invalid unquoted key, expected letters, numbers, `-`, `_` (from F:1:5)",
        );
        check(
            b"# caf\xe9\n",
            "expected UTF-8 text, found byte 0xe9 (from F:1:6)",
        );
        check(
            b"port = 1\n\xc3\xa9 = \xff",
            "expected UTF-8 text, found byte 0xff (from F:2:5)",
        );
    }

    /// As deep, as wide and as wrong as a file can be, it is read in a moment and on a small stack.
    #[test]
    fn the_worst_of_files() {
        for (text, problems) in [
            ("a = ".to_owned() + &"[".repeat(FILE_BYTES_MAX - 4), 1),
            (
                "a".to_owned() + &".a".repeat(FILE_BYTES_MAX / 2 - 3) + "=1",
                1,
            ),
            ("a={".repeat(FILE_BYTES_MAX / 3), 1),
            ("[a]\n".repeat(FILE_BYTES_MAX / 4), FILE_BYTES_MAX / 4 - 1),
        ] {
            let found = parsed(text.as_bytes()).unwrap_err();
            assert_eq!(found.lines().count(), problems, "{}", &text[..10]);
        }
    }

    #[test]
    fn where_it_is_looked_for() {
        #[track_caller]
        fn check(env: &[(&str, &str)], expected: &[&str]) {
            let location = Location::new(None, |name| {
                let (_, value) = env.iter().find(|(key, _)| *key == name)?;
                Some(OsString::from(value))
            });
            let paths = expected.iter().map(PathBuf::from).collect();
            assert_eq!(location, Location::Searched(paths));
        }
        let etc = "/etc/netwatch-server/config.toml";
        let home = ("HOME", "/home/u");
        check(&[], &[etc]);
        check(
            &[("XDG_CONFIG_HOME", "/x")],
            &["/x/netwatch-server/config.toml", etc],
        );
        check(
            &[home],
            &["/home/u/.config/netwatch-server/config.toml", etc],
        );
        check(
            &[home, ("XDG_CONFIG_HOME", "/x")],
            &["/x/netwatch-server/config.toml", etc],
        );
        for nowhere in ["", "x", "./x"] {
            check(
                &[home, ("XDG_CONFIG_HOME", nowhere)],
                &["/home/u/.config/netwatch-server/config.toml", etc],
            );
            check(&[("HOME", nowhere)], &[etc]);
        }
        let named = Location::new(Some(&PathBuf::from("f")), |_| Some(OsString::from("/x")));
        assert_eq!(named, Location::Named(PathBuf::from("f")));
    }

    #[test]
    fn the_first_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("one"), "a = 1").unwrap();
        fs::write(path("two"), "b = 1").unwrap();
        fs::create_dir(path("dir")).unwrap();
        std::os::unix::fs::symlink("loop", path("loop")).unwrap();
        let read = |names: &[&str]| {
            let paths = names.iter().map(|name| path(name)).collect();
            Location::Searched(paths).read()
        };
        let found = |names: &[&str]| read(names).unwrap().map(|file| file.path);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&["none", "one/below"]), None);
        for names in [
            &["one", "two"][..],
            &["none", "one", "two"],
            &["one/below", "one"],
        ] {
            let file = read(names).unwrap().unwrap();
            assert_eq!(*file.path, *path("one"));
            // They are not merged.
            assert_eq!(file.entries.len(), 1);
            assert!(file.entry("a").is_some() && file.entry("b").is_none());
        }
        // One that is there is not passed over.
        for (name, why) in [
            ("dir", "it is not a file"),
            ("loop", "Too many levels of symbolic links (os error 40)"),
        ] {
            let problems = read(&[name, "one"]).unwrap_err();
            let [
                ConfigError::Unreadable {
                    path: found,
                    source,
                },
            ] = &problems[..]
            else {
                panic!("{problems:?}");
            };
            assert_eq!((&**found, &*source.to_string()), (&*path(name), why));
        }
    }
}
