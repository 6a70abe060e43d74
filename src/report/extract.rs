//! What a stored line says: a line → its client, hosts and samples, for whoever reads.
//!
//! A line was checked when it was taken, but files of the Go server are looser and files can be edited: what is
//! not as the schema has it is taken for not there, and only what is no JSON object at all is no report. Of a
//! member that stands twice the last one counts. Numbers are taken as f64.
//!
//! Lines as browsers write them are read in one pass ([`super::fast`]), the others by simd-json.
//!
//! Memory: that of a [`Validator`](super::Validator), and 48 bytes a sample.

use std::mem;

use simd_json::{Buffers, Node, StaticNode, Tape};

pub use super::fast::Sample;
use super::fast::{self, Sink};
use super::{DEPTH_MAX, KEPT_BYTES_MAX, STAMP_LEN, received_at};

/// A host of a report.
#[derive(Clone, Copy, Debug, PartialEq)]
struct HostSpan<'l> {
    name: Option<&'l str>,
    url: Option<&'l str>,
    /// Where its samples end; they begin where those of the host before end.
    samples_end: usize,
}

/// A host of a report, with its samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host<'r, 'l> {
    /// Its name.
    pub name: Option<&'l str>,
    /// What was asked.
    pub url: Option<&'l str>,
    /// In the order of the report.
    pub samples: &'r [Sample<'l>],
}

/// What a line says.
#[derive(Debug, Default)]
pub struct Reading<'l> {
    /// Who has posted it.
    pub client: Option<&'l str>,
    hosts: Vec<HostSpan<'l>>,
    samples: Vec<Sample<'l>>,
}

impl<'l> Reading<'l> {
    /// The hosts, in the order of the report.
    pub fn hosts<'r>(&'r self) -> impl Iterator<Item = Host<'r, 'l>> {
        let mut begin = 0;
        self.hosts.iter().map(move |host| {
            let samples = &self.samples[begin..host.samples_end];
            begin = host.samples_end;
            Host {
                name: host.name,
                url: host.url,
                samples,
            }
        })
    }

    fn clear(&mut self) {
        self.client = None;
        self.hosts.clear();
        self.samples.clear();
    }

    /// With nothing in it, for another line; its room is kept.
    fn recycle<'other>(self) -> Reading<'other> {
        Reading {
            client: None,
            hosts: emptied(self.hosts),
            samples: emptied(self.samples),
        }
    }
}

impl<'l> Sink<'l> for Reading<'l> {
    fn client(&mut self, id: &'l str) {
        self.client = Some(id);
    }

    fn geo(&mut self, _: &'l [u8]) {}

    fn sample(&mut self, sample: Sample<'l>) {
        self.samples.push(sample);
    }

    fn host(&mut self, fast::Host { name, url }: fast::Host<'l>) {
        self.hosts.push(HostSpan {
            name,
            url,
            samples_end: self.samples.len(),
        });
    }
}

/// Without its items, and with its allocation where the types are of one layout.
fn emptied<A, B>(mut items: Vec<A>) -> Vec<B> {
    items.clear();
    let none = |_| unreachable!("it has been emptied");
    items.into_iter().map(none).collect()
}

/// Reads lines, one after the other, in buffers that it keeps.
pub struct Extractor {
    /// The line and simd-json's padding, which the parse rewrites.
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    /// Empty between lines; kept for its room.
    room: Reading<'static>,
}

impl Default for Extractor {
    fn default() -> Extractor {
        Extractor {
            scratch: Vec::new(),
            buffers: Buffers::with_max_depth(0, DEPTH_MAX),
            tape: Tape(Vec::new()),
            room: Reading::default(),
        }
    }
}

impl Extractor {
    /// What `told` makes of what `line` says; `None` if that is no JSON object.
    pub fn read<T>(&mut self, line: &[u8], told: impl FnOnce(&Reading<'_>) -> T) -> Option<T> {
        if self.scratch.capacity() > KEPT_BYTES_MAX {
            *self = Extractor::default();
        }
        let room = mem::take(&mut self.room);
        let reading = self.reading(line, room.recycle())?;
        let told = told(&reading);
        self.room = reading.recycle();
        Some(told)
    }

    fn reading<'s>(&'s mut self, line: &'s [u8], mut reading: Reading<'s>) -> Option<Reading<'s>> {
        let read = match received_at(line) {
            Some(_) => fast::read_members(&line[STAMP_LEN..], &mut reading),
            None => fast::read(line, &mut reading),
        };
        if read.is_some() {
            return Some(reading);
        }
        reading.clear();
        self.read_unusual(line, reading)
    }

    fn read_unusual<'s>(&'s mut self, line: &'s [u8], reading: Reading<'s>) -> Option<Reading<'s>> {
        if self.scratch.capacity() > KEPT_BYTES_MAX {
            *self = Extractor::default();
        }
        self.scratch.clear();
        self.scratch.reserve(line.len() + simd_json::INPUT_PADDING);
        self.scratch.extend_from_slice(line);
        self.scratch
            .resize(line.len() + simd_json::INPUT_PADDING, 0);
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.scratch,
            line.len(),
            &mut self.buffers,
            &mut tape,
        );
        let read = parsed.ok().and_then(|()| {
            let mut walk = Walk {
                nodes: &tape.0,
                at: 0,
            };
            walk.report(reading)
        });
        self.tape = tape.reset();
        read
    }
}

/// The client of a line that has it behind our stamp, as the page writes its reports, spelled without escapes;
/// without parsing the line.
pub fn leading_client(line: &[u8]) -> Option<&str> {
    let members = line.get(STAMP_LEN..)?;
    let id = members.strip_prefix(b"\"clientId\":\"")?;
    received_at(line)?;
    let len = memchr::memchr2(b'"', b'\\', id)?;
    match id[len] {
        b'"' => str::from_utf8(&id[..len]).ok(),
        _ => None,
    }
}

/// The nodes of a parsed line; see [`super::Walk`] for what simd-json promises of them.
struct Walk<'t, 's> {
    nodes: &'t [Node<'s>],
    /// `0 <= at <= nodes.len()`
    at: usize,
}

impl<'s> Walk<'_, 's> {
    fn report(&mut self, mut reading: Reading<'s>) -> Option<Reading<'s>> {
        let Node::Object { len, .. } = *self.next() else {
            return None;
        };
        for _ in 0..len {
            match self.key() {
                "clientId" => reading.client = self.text(),
                "hosts" => {
                    reading.hosts.clear();
                    reading.samples.clear();
                    for _ in 0..self.items() {
                        self.host(&mut reading);
                    }
                }
                _ => self.skip(),
            }
        }
        Some(reading)
    }

    fn host(&mut self, reading: &mut Reading<'s>) {
        let begin = reading.samples.len();
        let (mut name, mut url) = (None, None);
        for _ in 0..self.members() {
            match self.key() {
                "name" => name = self.text(),
                "url" => url = self.text(),
                "history" => {
                    reading.samples.truncate(begin);
                    for _ in 0..self.items() {
                        self.sample(reading);
                    }
                }
                _ => self.skip(),
            }
        }
        reading.hosts.push(HostSpan {
            name,
            url,
            samples_end: reading.samples.len(),
        });
    }

    fn sample(&mut self, reading: &mut Reading<'s>) {
        let mut sample = Sample {
            t: None,
            latency: None,
            error: None,
        };
        for _ in 0..self.members() {
            match self.key() {
                "t" => sample.t = self.number(),
                "latency" => sample.latency = self.number(),
                "error" => sample.error = self.text(),
                _ => self.skip(),
            }
        }
        reading.samples.push(sample);
    }

    /// Enters an object and returns how many members it has: none, if it is something else.
    fn members(&mut self) -> usize {
        match self.nodes[self.at] {
            Node::Object { len, .. } => {
                self.at += 1;
                len
            }
            _ => {
                self.skip();
                0
            }
        }
    }

    /// Enters an array and returns how many items it has: none, if it is something else.
    fn items(&mut self) -> usize {
        match self.nodes[self.at] {
            Node::Array { len, .. } => {
                self.at += 1;
                len
            }
            _ => {
                self.skip();
                0
            }
        }
    }

    fn text(&mut self) -> Option<&'s str> {
        match self.nodes[self.at] {
            Node::String(text) => {
                self.at += 1;
                Some(text)
            }
            _ => {
                self.skip();
                None
            }
        }
    }

    fn number(&mut self) -> Option<f64> {
        let number = match self.nodes[self.at] {
            Node::Static(StaticNode::U64(number)) => Some(number as f64),
            Node::Static(StaticNode::I64(number)) => Some(number as f64),
            Node::Static(StaticNode::F64(number)) => Some(number),
            _ => None,
        };
        self.skip();
        number
    }

    fn key(&mut self) -> &'s str {
        match *self.next() {
            Node::String(key) => key,
            ref node => unreachable!("a key is a string, found {node:?}"),
        }
    }

    fn skip(&mut self) {
        if let Node::Object { count, .. } | Node::Array { count, .. } = *self.next() {
            self.at += count;
        }
    }

    fn next(&mut self) -> &Node<'s> {
        let node = &self.nodes[self.at];
        self.at += 1;
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that a line says, in words.
    fn told(line: &str) -> Option<String> {
        let mut extractor = Extractor::default();
        let told = |reading: &Reading<'_>| told_of(reading);
        let first = extractor.read(line.as_bytes(), told);
        // In the room of the first.
        assert_eq!(extractor.read(line.as_bytes(), told), first);
        first
    }

    fn told_of(reading: &Reading<'_>) -> String {
        let mut text = reading.client.unwrap_or("-").to_owned();
        for host in reading.hosts() {
            text += &format!(" [{} {}", host.name.unwrap_or("-"), host.url.unwrap_or("-"));
            for Sample { t, latency, error } in host.samples {
                let [t, latency] =
                    [t, latency].map(|n| n.map_or("-".to_owned(), |n| n.to_string()));
                text += &format!(" ({t} {latency} {})", error.unwrap_or("-"));
            }
            text += "]";
        }
        text
    }

    #[test]
    fn leading_clients() {
        #[track_caller]
        fn check(members: &str, expected: Option<&str>) {
            let line = format!(r#"{{"receivedAt":"2026-02-27T05:14:34.123Z",{members}}}"#);
            assert_eq!(leading_client(line.as_bytes()), expected);
        }
        check(r#""clientId":"a-b","hosts":[]"#, Some("a-b"));
        check(r#""clientId":"","hosts":[]"#, Some(""));
        check(r#""clientId":"a\u0062""#, None);
        check(r#" "clientId":"a""#, None);
        check(r#""geo":{"clientId":"no"},"clientId":"a""#, None);
        assert_eq!(leading_client(br#"{"clientId":"a"}"#), None);
        assert_eq!(leading_client(b""), None);
    }

    #[test]
    fn lines() {
        #[track_caller]
        fn check(line: &str, expected: Option<&str>) {
            assert_eq!(told(line).as_deref(), expected);
        }
        check(
            r#"{"receivedAt":"2026-02-27T05:14:34.123Z","clientId":"a","geo":{"hosts":[{"name":"no"}]},"hosts":[
               {"history":[{"t":1,"latency":2.5,"error":null},{"error":"timeout","latency":null,"t":-3}],
                "name":"G\u0069t","url":"u"},
               {"name":null},{"history":[{}]}]}"#,
            Some("a [Git u (1 2.5 -) (-3 - timeout)] [- -] [- - (- - -)]"),
        );
        // As only another server would have taken it.
        check("{}", Some("-"));
        check(r#"{"clientId":1,"hosts":{"name":"a"}}"#, Some("-"));
        check(
            r#"{"hosts":[1,[{}],{"name":{},"history":[[],{"t":"1","latency":[1,{}],"error":2}]}]}"#,
            Some("- [- -] [- -] [- - (- - -) (- - -)]"),
        );
        check(
            r#"{"hosts":[{"name":"no"}],"hosts":[{"name":"a","name":"b","history":[{}],"history":[{"t":1,"t":2}]}]}"#,
            Some("- [b - (2 - -)]"),
        );
        // The same report, as a browser writes it and with a blank in it.
        let usual = concat!(
            r#"{"clientId":"a","geo":null,"hosts":[{"history":[{"t":1,"latency":2,"error":null}],"name":"b","#,
            r#""status":"c","url":"d"}],"timestamp":"e"}"#
        );
        let expected = Some("a [b d (1 2 -)]");
        check(usual, expected);
        check(&usual.replace("\"a\",", "\"a\", "), expected);
        let stamp = r#"{"receivedAt":"2026-02-27T05:14:34.123Z","#;
        check(&usual.replacen('{', stamp, 1), expected);
        check("[]", None);
        check(r#"{"clientId":"a""#, None);
        check("", None);
    }
}
