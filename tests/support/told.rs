//! What a report tells a sink, by simd-json's nodes: to compare the one-pass parser with.
//!
//! Whoever takes this in with `#[path]` has `Host`, `Sample` and `Sink` in scope, of `report::fast`.

use simd_json::{Node, StaticNode};

use super::{Host, Sample, Sink};

/// One call of a sink. Numbers are the bits of the f64, and `geo` is what simd-json makes of it.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Client(String),
    Geo(String),
    Sample {
        t: Option<u64>,
        latency: Option<u64>,
        error: Option<String>,
    },
    Host {
        name: Option<String>,
        url: Option<String>,
    },
}

/// A sink that writes down all that it is told.
#[derive(Default)]
pub(crate) struct Heard(pub(crate) Vec<Told>);

impl<'b> Sink<'b> for Heard {
    fn client(&mut self, id: &'b str) {
        self.0.push(Told::Client(id.to_owned()));
    }

    fn geo(&mut self, json: &'b [u8]) {
        let mut text = json.to_vec();
        let tape = simd_json::to_tape(&mut text).expect("a value is JSON");
        self.0.push(Told::Geo(format!("{:?}", tape.0)));
    }

    fn sample(&mut self, sample: Sample<'b>) {
        self.0.push(Told::Sample {
            t: sample.t.map(f64::to_bits),
            latency: sample.latency.map(f64::to_bits),
            error: sample.error.map(str::to_owned),
        });
    }

    fn host(&mut self, host: Host<'b>) {
        self.0.push(Told::Host {
            name: host.name.map(str::to_owned),
            url: host.url.map(str::to_owned),
        });
    }
}

/// What `report` should tell, which simd-json and the schema accept.
pub(crate) fn by_simd_json(report: &[u8]) -> Vec<Told> {
    let mut text = report.to_vec();
    let tape = simd_json::to_tape(&mut text).expect("a report is JSON");
    let mut told = Vec::new();
    for [name, value] in members(&tape.0) {
        match name[0] {
            Node::String("clientId") => told.extend(text_of(Some(value)).map(Told::Client)),
            Node::String("geo") => told.push(Told::Geo(format!("{value:?}"))),
            Node::String("hosts") => values(value).for_each(|host| tell_host(host, &mut told)),
            _ => (),
        }
    }
    told
}

fn tell_host(host: &[Node<'_>], told: &mut Vec<Told>) {
    for sample in member(host, "history").into_iter().flat_map(values) {
        told.push(Told::Sample {
            t: bits_of(member(sample, "t")),
            latency: bits_of(member(sample, "latency")),
            error: text_of(member(sample, "error")),
        });
    }
    told.push(Told::Host {
        name: text_of(member(host, "name")),
        url: text_of(member(host, "url")),
    });
}

fn bits_of(value: Option<&[Node<'_>]>) -> Option<u64> {
    let number = match value?[0] {
        Node::Static(StaticNode::U64(number)) => number as f64,
        Node::Static(StaticNode::I64(number)) => number as f64,
        Node::Static(StaticNode::F64(number)) => number,
        _ => return None,
    };
    Some(number.to_bits())
}

fn text_of(value: Option<&[Node<'_>]>) -> Option<String> {
    match value?[0] {
        Node::String(text) => Some(text.to_owned()),
        _ => None,
    }
}

fn member<'n, 't>(object: &'n [Node<'t>], name: &str) -> Option<&'n [Node<'t>]> {
    let mut found = members(object).filter(|[found, _]| found[0] == Node::String(name));
    found.next().map(|[_, value]| value)
}

/// The names and values of an object.
fn members<'n, 't>(object: &'n [Node<'t>]) -> impl Iterator<Item = [&'n [Node<'t>]; 2]> {
    let mut rest = values(object);
    std::iter::from_fn(move || Some([rest.next()?, rest.next()?]))
}

/// The values right in a container, with their own nodes; an object's names are among them.
fn values<'n, 't>(container: &'n [Node<'t>]) -> impl Iterator<Item = &'n [Node<'t>]> {
    let mut rest = &container[1..];
    std::iter::from_fn(move || {
        let len = match rest.first()? {
            Node::Object { count, .. } | Node::Array { count, .. } => 1 + count,
            _ => 1,
        };
        let (value, next) = rest.split_at(len);
        rest = next;
        Some(value)
    })
}
