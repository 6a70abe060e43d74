//! A report as `JSON.stringify` writes it, checked in one pass over its bytes and read on the way.
//!
//! Owns the schema for such a report, and what readers are told of it ([`Sink`]). Left to others: the
//! tokens (`compact`); every other report, and what to say of it ([`super`], with simd-json).
//!
//! ```text
//! report ──read──▶ Some: it is a report, and the sink knows what it holds
//!            └───▶ None: not for this pass to judge ──▶ simd-json ──▶ it is a report, or why not
//! ```
//!
//! - What this accepts, simd-json and the walk over its nodes accept, with the same values; numbers are
//!   the same f64, bit for bit. It refuses nothing. `fuzz/fuzz_targets/fast.rs` compares the two.
//! - Members may stand in any order and beside unknown ones, and hold all that the schema lets them hold.
//! - Most of a report is samples. One with its members in the order of the page is compared with what
//!   stands between its values, and no name is looked for; all others take the loop behind that.
//! - Nothing is allocated, and what no sink reads is not worked out.

use super::CLIENT_ID_BYTES_MAX;
use super::compact::{Number, Place, Scan};

/// The objects and arrays around what a member of a report, a host and a sample holds.
const REPORT_DEPTH: usize = 1;
const HOST_DEPTH: usize = 3;
const SAMPLE_DEPTH: usize = 5;

/// What a report holds, as it is passed over: each method is called in the order of the text.
///
/// A report that turns out to be unusual has been told in part: what a sink has heard counts once
/// [`read`] has returned `Some`.
pub trait Sink<'b> {
    /// Whether anything is read at all. If not, no method is called, and no value worked out.
    const READS: bool = true;

    /// The `clientId`, 1 to [`CLIENT_ID_BYTES_MAX`] bytes.
    fn client(&mut self, id: &'b str);

    /// What `geo` holds, if it is there, as the client spelled it: JSON of any type.
    fn geo(&mut self, json: &'b [u8]);

    /// A sample of the host that is told next.
    fn sample(&mut self, sample: Sample<'b>);

    /// A host, after its samples: its name may stand behind them.
    fn host(&mut self, host: Host<'b>);
}

/// A host of a report, its samples aside. `None`: `null`, or not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Host<'b> {
    /// Not empty by necessity, nor the only one of this name.
    pub name: Option<&'b str>,
    /// Any text.
    pub url: Option<&'b str>,
}

/// A sample of a host. `None`: `null`, or not there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'b> {
    /// When it was taken, by the client's clock: milliseconds since 1970 as a rule, any number at worst.
    pub t: Option<f64>,
    /// In milliseconds; any number at worst.
    pub latency: Option<f64>,
    /// Why there is no latency, as a rule.
    pub error: Option<&'b str>,
}

/// Reads nothing: the report is checked, and no more.
impl<'b> Sink<'b> for () {
    const READS: bool = false;

    fn client(&mut self, _: &'b str) {}

    fn geo(&mut self, _: &'b [u8]) {}

    fn sample(&mut self, _: Sample<'b>) {}

    fn host(&mut self, _: Host<'b>) {}
}

/// Reads a report from its `{` to its `}`. `None`: it may be one or not, and is not for this pass to judge.
#[must_use]
pub fn read<'b, S: Sink<'b>>(report: &'b [u8], sink: &mut S) -> Option<()> {
    read_members(report.strip_prefix(b"{")?, sink)
}

/// Reads a report from behind its `{`, of which a line has another one. `None`: as of [`read`].
#[must_use]
pub fn read_members<'b, S: Sink<'b>>(members: &'b [u8], sink: &mut S) -> Option<()> {
    let scan = Scan { rest: members }.report(sink)?;
    scan.rest.is_empty().then_some(())
}

/// The known members of a sample.
#[derive(Default)]
struct Places<'b> {
    t: Place<Number<'b>>,
    latency: Place<Number<'b>>,
    error: Place<&'b [u8]>,
}

impl<'b> Scan<'b> {
    fn report<S: Sink<'b>>(self, sink: &mut S) -> Option<Self> {
        let (mut client, mut timestamp, mut hosts, mut geo) = (None, None, None, None);
        let scan = self.items(b'}', |scan| {
            let (name, scan) = scan.name()?;
            match name {
                b"clientId" => {
                    let (id, scan) = scan.string()?;
                    if !(1..=CLIENT_ID_BYTES_MAX).contains(&id.len()) {
                        return None;
                    }
                    if S::READS {
                        sink.client(str::from_utf8(id).ok()?);
                    }
                    scan.fill(&mut client, ())
                }
                b"timestamp" => {
                    let (_, scan) = scan.string()?;
                    scan.fill(&mut timestamp, ())
                }
                b"hosts" => scan
                    .byte(b'[')?
                    .items(b']', |scan| scan.host(sink))?
                    .fill(&mut hosts, ()),
                b"geo" => {
                    let after = scan.value(REPORT_DEPTH)?;
                    if S::READS {
                        sink.geo(&scan.rest[..scan.rest.len() - after.rest.len()]);
                    }
                    after.fill(&mut geo, ())
                }
                b"receivedAt" => None,
                _ => scan.value(REPORT_DEPTH),
            }
        })?;
        client.and(timestamp).and(hosts).map(|()| scan)
    }

    fn host<S: Sink<'b>>(self, sink: &mut S) -> Option<Self> {
        let (mut name, mut url, mut status, mut history) = (None, None, None, None);
        let scan = self.byte(b'{')?.items(b'}', |scan| {
            let (member, scan) = scan.name()?;
            match member {
                b"name" => scan.text_or_null(&mut name),
                b"url" => scan.text_or_null(&mut url),
                b"status" => scan.text_or_null(&mut status),
                b"history" => match scan.literal(b"null") {
                    Some(scan) => scan.fill(&mut history, ()),
                    None => scan.history(sink)?.fill(&mut history, ()),
                },
                _ => scan.value(HOST_DEPTH),
            }
        })?;
        if S::READS {
            let (name, url) = (text_of(name)?, text_of(url)?);
            sink.host(Host { name, url });
        }
        Some(scan)
    }

    fn history<S: Sink<'b>>(self, sink: &mut S) -> Option<Self> {
        self.byte(b'[')?.items(b']', |scan| {
            let mut places = Places::default();
            match scan.usual_sample::<S>(&mut places) {
                Some(scan) => places.tell(sink).map(|()| scan),
                None => scan.sample(sink),
            }
        })
    }

    /// A sample as the page sends it.
    #[inline(always)]
    fn usual_sample<S: Sink<'b>>(self, places: &mut Places<'b>) -> Option<Self> {
        self.literal(b"{\"t\":")?
            .number_or_null::<S>(&mut places.t)?
            .literal(b",\"latency\":")?
            .number_or_null::<S>(&mut places.latency)?
            .literal(b",\"error\":")?
            .text_or_null(&mut places.error)?
            .byte(b'}')
    }

    /// A sample with any members in any order.
    #[inline(never)]
    fn sample<S: Sink<'b>>(self, sink: &mut S) -> Option<Self> {
        let mut places = Places::default();
        let scan = self.byte(b'{')?.items(b'}', |scan| {
            let (name, scan) = scan.name()?;
            match name {
                b"t" => scan.number_or_null::<S>(&mut places.t),
                b"latency" => scan.number_or_null::<S>(&mut places.latency),
                b"error" => scan.text_or_null(&mut places.error),
                _ => scan.value(SAMPLE_DEPTH),
            }
        })?;
        places.tell(sink).map(|()| scan)
    }
}

impl<'b> Places<'b> {
    #[inline(always)]
    fn tell<S: Sink<'b>>(self, sink: &mut S) -> Option<()> {
        if S::READS {
            sink.sample(Sample {
                t: value_of(self.t)?,
                latency: value_of(self.latency)?,
                error: text_of(self.error)?,
            });
        }
        Some(())
    }
}

/// `None`: simd-json has to work it out.
#[inline(always)]
fn value_of(place: Place<Number<'_>>) -> Option<Option<f64>> {
    match place.flatten() {
        Some(number) => number.value().map(Some),
        None => Some(None),
    }
}

/// `None`: no UTF-8, which [`Scan::string`] has ruled out.
#[inline(always)]
fn text_of(place: Place<&[u8]>) -> Option<Option<&str>> {
    place.flatten().map(str::from_utf8).transpose().ok()
}

#[cfg(test)]
#[path = "../../tests/support/told.rs"]
mod told;

#[cfg(test)]
mod tests {
    use super::super::reports::{Generator, Random};
    use super::super::tests::mutate;
    use super::super::{DEPTH_MAX, ReportError, Validator};
    use super::told::{Heard, Told, by_simd_json};
    use super::*;

    /// Reads `report` in every way, and compares what is accepted with simd-json.
    #[track_caller]
    fn check(report: impl AsRef<[u8]>, expected: Option<()>) {
        let report = report.as_ref();
        let found = check_against_simd_json(&mut Validator::new(), report);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(report));
    }

    #[track_caller]
    fn check_against_simd_json(validator: &mut Validator, report: &[u8]) -> Option<()> {
        let shown = String::from_utf8_lossy(report);
        let found = read(report, &mut ());
        if let [b'{', members @ ..] = report {
            assert_eq!(read_members(members, &mut ()), found, "{shown}");
        }
        let mut heard = Heard::default();
        assert_eq!(read(report, &mut heard), found, "{shown}");
        if found.is_some() {
            assert_eq!(validator.check_parts(b"", report), Ok(()), "{shown}");
            assert_eq!(heard.0, by_simd_json(report), "{shown}");
        }
        found
    }

    /// A report with these members beside an id and a time.
    fn root(members: &str) -> String {
        format!(r#"{{"clientId":"a","timestamp":"t",{members}}}"#)
    }

    fn host(members: &str) -> String {
        root(&format!(r#""hosts":[{{}},{{{members}}}]"#))
    }

    fn sample(members: &str) -> String {
        host(&format!(r#""history":[{{}},{{{members}}},{{}}]"#))
    }

    fn geo(value: &str) -> String {
        root(&format!(r#""hosts":[],"geo":{value}"#))
    }

    #[test]
    fn usual_reports() {
        for text in [
            r#"{"clientId":"a","timestamp":"t","hosts":[]}"#,
            r#"{"hosts":[{}],"timestamp":"","clientId":"é"}"#,
        ] {
            check(text, Some(()));
        }
        for members in [
            r#""hosts":[],"geo":null"#,
            r#""x":1,"hosts":[],"x":[],"":{},"clientid":2"#,
            r#""hosts":[{},{}],"t":1,"t":2,"name":3,"name":4"#,
        ] {
            check(root(members), Some(()));
        }
        for members in [
            r#""name":"東京","url":"","status":"online""#,
            r#""history":null,"name":null,"url":null,"status":null"#,
            r#""history":[],"x":{"name":1,"name":2},"receivedAt":0"#,
        ] {
            check(host(members), Some(()));
        }
        for members in [
            r#""t":1772150987398,"latency":122,"error":null"#,
            r#""t":1772150987398,"latency":null,"error":"timeout""#,
            r#""t":null,"latency":0.5,"error":"höher""#,
            r#""error":null,"latency":122,"t":1772150987398"#,
            r#""t":1,"latency":2,"error":null,"x":[{"t":"t"}]"#,
            r#""t":1,"latency":2"#,
            r#""x":"","latency":-2"#,
        ] {
            check(sample(members), Some(()));
        }
        for samples in [0, 1, 3, 20] {
            let mut generator = Generator::new(11, samples);
            (0..20).for_each(|_| check(generator.next_report("client"), Some(())));
        }
    }

    #[test]
    fn what_is_not_usual_is_left_to_simd_json() {
        check("", None);
        check("{}", None);
        check("[]", None);
        check(geo("1") + " ", None);
        check(geo("1") + "}", None);
        // Members that are missing, stand twice or are not the client's.
        check(r#"{"timestamp":"","hosts":[]}"#, None);
        check(r#"{"clientId":"a","hosts":[]}"#, None);
        check(r#"{"clientId":"a","timestamp":""}"#, None);
        check(root(r#""hosts":[],"receivedAt":"t""#), None);
        for member in [
            r#""clientId":"b""#,
            r#""timestamp":"t""#,
            r#""hosts":[]"#,
            r#""geo":0"#,
        ] {
            check(root(&format!(r#""hosts":[],"geo":0,{member}"#)), None);
        }
        for member in [
            r#""name":null"#,
            r#""url":"a""#,
            r#""status":"""#,
            r#""history":[]"#,
            r#""history":null"#,
        ] {
            check(host(&format!("{member},{member}")), None);
        }
        for member in [r#""t":1"#, r#""latency":null"#, r#""error":"a""#] {
            check(sample(&format!("{member},{member}")), None);
            check(
                sample(&format!(r#""t":1,"latency":2,"error":null,{member}"#)),
                None,
            );
        }
        // Values of another type.
        for value in ["null", "1", "[]", "{}", "true", "\"\""] {
            let members = r#""timestamp":"","hosts":[]"#;
            check(format!(r#"{{"clientId":{value},{members}}}"#), None);
        }
        for value in ["null", "0", "{}", "\"\"", "[null]", "[[]]"] {
            check(root(&format!(r#""hosts":{value}"#)), None);
        }
        for value in ["true", "0", "{}", "[]"] {
            check(host(&format!(r#""name":{value}"#)), None);
            check(sample(&format!(r#""error":{value}"#)), None);
            check(
                sample(&format!(r#""t":1,"latency":1,"error":{value}"#)),
                None,
            );
        }
        for value in ["true", "\"1\"", "{}", "[]"] {
            check(sample(&format!(r#""t":{value}"#)), None);
            check(
                host(&format!(r#""history":{value}"#)),
                value.eq("[]").then_some(()),
            );
        }
        // Whitespace, and what no JSON has.
        for text in [
            r#" "x":1,"hosts":[]"#,
            r#""x" :1,"hosts":[]"#,
            r#""x": 1,"hosts":[]"#,
            r#""x":1 ,"hosts":[]"#,
            r#""hosts":[ ]"#,
            r#""hosts":[{} ]"#,
            r#""hosts":[],"#,
            r#""hosts":[,]"#,
            r#""hosts":[{},]"#,
            r#""hosts":[{}{}]"#,
            r#""hosts":[{"name"}]"#,
            r#""hosts":[{"name":}]"#,
            r#""hosts":[{name:"a"}]"#,
            r#""hosts":[}"#,
            r#""hosts":[{]"#,
        ] {
            check(root(text), None);
        }
    }

    #[test]
    fn client_ids() {
        let client = |id: String| format!(r#"{{"clientId":"{id}","timestamp":"","hosts":[]}}"#);
        check(client(String::new()), None);
        for len in 1..=CLIENT_ID_BYTES_MAX {
            check(client("a".repeat(len)), Some(()));
        }
        check(client("a".repeat(CLIENT_ID_BYTES_MAX + 1)), None);
        check(client("é".repeat(64)), Some(()));
        check(client("é".repeat(64) + "a"), None);
    }

    #[test]
    fn strings() {
        // Each byte at each place in a word, and at the end of the text.
        for before in 0..9 {
            let before = "x".repeat(before);
            for byte in 0..=127u8 {
                let is_plain = byte >= 0x20 && !b"\"\\".contains(&byte);
                let text = format!("\"{before}{}yz\"", char::from(byte));
                check(geo(&text), is_plain.then_some(()));
                check(
                    sample(&format!(r#""error":{text}"#)),
                    is_plain.then_some(()),
                );
                let text = format!(r#"{{"hosts":[],"clientId":"a","timestamp":{text}}}"#);
                check(text, is_plain.then_some(()));
            }
            for (text, expected) in [
                (&b"\xc3\xa9"[..], Some(())),
                (b"\xf0\x9f\x98\x80", Some(())),
                (b"\xef\xbf\xbf", Some(())),
                (b"\x7f", Some(())),
                (b"\xc3", None),
                (b"\xa9", None),
                (b"\xc0\xaf", None),
                (b"\xed\xa0\x80", None),
                (b"\xf4\x90\x80\x80", None),
                (b"\xff", None),
            ] {
                let parts = [before.as_bytes(), text].concat();
                let [begin, end] = [r#"{"clientId":"a","hosts":[],"timestamp":""#, "\"}"];
                check(
                    [begin.as_bytes(), &parts, end.as_bytes()].concat(),
                    expected,
                );
                let [begin, end] = [r#"{"clientId":"a","timestamp":"","hosts":[],""#, "\":0}"];
                check(
                    [begin.as_bytes(), &parts, end.as_bytes()].concat(),
                    expected,
                );
            }
        }
    }

    #[test]
    fn depth() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let deepest = |around: usize, in_place: &dyn Fn(&str) -> String| {
            check(in_place(&nested(DEPTH_MAX - around)), Some(()));
            check(in_place(&nested(DEPTH_MAX - around + 1)), None);
            check(
                in_place(&format!(r#"{{"a":{}}}"#, nested(DEPTH_MAX - around - 1))),
                Some(()),
            );
            check(
                in_place(&format!(r#"{{"a":{}}}"#, nested(DEPTH_MAX - around))),
                None,
            );
            check(in_place(&"[".repeat(100_000)), None);
        };
        deepest(1, &|value| geo(value));
        deepest(1, &|value| root(&format!(r#""x":{value},"hosts":[]"#)));
        deepest(3, &|value| host(&format!(r#""x":{value}"#)));
        deepest(5, &|value| sample(&format!(r#""x":{value}"#)));
        // What is accepted here is not too deep for simd-json, as `check` has seen; this is the other half.
        let mut validator = Validator::new();
        let text = sample(&format!(r#""x":{}"#, nested(DEPTH_MAX - 4)));
        let found = validator.check_parts(b"", text.as_bytes());
        assert_eq!(found, Err(ReportError::TooDeep));
    }

    #[test]
    fn values() {
        for value in [
            "true",
            "false",
            "null",
            "\"\"",
            "0",
            "-1.5",
            "[]",
            "{}",
            r#"[1,"a",[],{"b":[null]}]"#,
            r#"{"":0,"":1,"geo":{"city":"São Paulo","loc":"-23.55,-46.633"}}"#,
        ] {
            check(geo(value), Some(()));
            check(sample(&format!(r#""x":{value}"#)), Some(()));
        }
        for value in [
            "tru",
            "nul",
            "falsee",
            "True",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1,}",
            "[1",
            "[1}",
            "{\"a\":1]",
            "'a'",
            "\"a",
            "\"\\u0061\"",
            "{\"\\n\":1}",
            "[ 1]",
            "[1 ]",
            "{\"a\": 1}",
            "1 2",
            "",
            "-",
            "NaN",
        ] {
            check(geo(value), None);
        }
    }

    /// Checks the number `text` wherever one can stand, the end of the report included.
    #[track_caller]
    fn check_number(text: &str, expected: Option<()>) {
        check(
            sample(&format!(r#""t":{text},"latency":{text},"error":null"#)),
            expected,
        );
        check(sample(&format!(r#""latency":{text},"t":{text}"#)), expected);
        check(geo(text), expected);
        check(geo(&format!("[{text},{text}]")), expected);
        let report = sample(&format!(r#""latency":{text}"#));
        let mut heard = Heard::default();
        if read(report.as_bytes(), &mut heard).is_some() {
            let value: f64 = text.parse().expect("it is a number");
            // An integer has one zero.
            let value = if text == "-0" { 0.0 } else { value };
            let heard = heard.0.contains(&Told::Sample {
                t: None,
                latency: Some(value.to_bits()),
                error: None,
            });
            assert!(heard, "{text}");
        }
    }

    #[test]
    fn numbers() {
        for text in [
            "0",
            "-0",
            "1",
            "-1",
            "122",
            "12345678",
            "123456789",
            "1772150987398",
            "9007199254740991",
            "9007199254740993",
            "-9007199254740993",
            "999999999999999999",
            "-999999999999999999",
            "0.0",
            "-0.0",
            "0.1",
            "-0.1",
            "1.5",
            "12.75",
            "122.30000000074506",
            "0.30000000000000004",
            "9007199254740.991",
            "9007199254740.993",
            "90071992547409.93",
            "1.7976931348623157",
            "123456789012345678.123456789012345678",
            "0.00000001",
            "0.000000000000000001",
            "0.0000000000000000001",
            "0.00000000000000000000000000001",
            "99999999.99999999",
            "999999999.999999999",
            "1772150987398.125",
            "12345678.12345678",
            "0.12345678901234567890123456789012345678901234567890",
        ] {
            check_number(text, Some(()));
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-01",
            "00",
            "1.",
            ".5",
            "-.5",
            "1.e5",
            "1..5",
            "1.5.5",
            "--1",
            "1-",
            "0x10",
            "1e5",
            "1E5",
            "1e-7",
            "1.5e300",
            "1e400",
            "1_000",
            "1a",
            "Infinity",
            "NaN",
            "1 ",
            "1000000000000000000",
            "18446744073709551616",
            "-1000000000000000000",
            "\u{661}",
        ] {
            check_number(text, None);
        }
        // Each byte that is no digit, at each place in a word.
        for before in 1..18 {
            let before = "1".repeat(before);
            for byte in (0..=127u8).filter(|byte| !byte.is_ascii_digit()) {
                let text = format!("{before}{}1", char::from(byte));
                // A comma parts two numbers.
                let expected = (byte == b'.').then_some(());
                check(sample(&format!(r#""t":{text}"#)), expected);
            }
        }
    }

    #[test]
    fn random_numbers() {
        let mut random = Random::new(5);
        for _ in 0..20_000 {
            let mut digits = |most: u64| -> String {
                let len = 1 + random.below(most);
                (0..len)
                    .map(|_| char::from(b'0' + random.below(10) as u8))
                    .collect()
            };
            let (integer, fraction) = (digits(18), digits(20));
            let integer = match integer.trim_start_matches('0') {
                "" => "0",
                trimmed => trimmed,
            };
            check_number(&format!("{integer}.{fraction}"), Some(()));
            check_number(&format!("-{integer}.{fraction}"), Some(()));
            check_number(&format!("-{integer}"), Some(()));
        }
    }

    #[test]
    fn sinks_are_told_in_the_order_of_the_text() {
        let text = r#"{"hosts":[{"name":"a","history":[{"t":1,"latency":2.5,"error":null},{"error":"x"}],"url":"b"},
            {"url":null}],"clientId":"c","geo":[1],"timestamp":""}"#;
        let mut heard = Heard::default();
        let text = text.replace("\n            ", "");
        assert_eq!(read(text.as_bytes(), &mut heard), Some(()));
        let bits = |value: f64| Some(value.to_bits());
        let some = |text: &str| Some(text.to_owned());
        let (t, latency) = (bits(1.0), bits(2.5));
        let expected = [
            Told::Sample {
                t,
                latency,
                error: None,
            },
            Told::Sample {
                t: None,
                latency: None,
                error: some("x"),
            },
            Told::Host {
                name: some("a"),
                url: some("b"),
            },
            Told::Host {
                name: None,
                url: None,
            },
            Told::Client("c".to_owned()),
        ];
        let (geo, rest) = heard.0.split_last().expect("it is told");
        assert_eq!(rest, expected);
        assert!(
            matches!(geo, Told::Geo(nodes) if nodes.contains("U64(1)")),
            "{geo:?}"
        );
    }

    #[test]
    fn agrees_with_simd_json() {
        let mut random = Random::new(9);
        let mut validator = Validator::new();
        let (mut usual, mut unusual) = (0, 0);
        for round in 0..2_500u64 {
            let mut body = Generator::new(round, (round % 3) as usize).next_report("a");
            assert_eq!(check_against_simd_json(&mut validator, &body), Some(()));
            for _ in 0..3 {
                mutate(&mut random, &mut body);
                match check_against_simd_json(&mut validator, &body) {
                    Some(()) => usual += 1,
                    None => unusual += 1,
                }
            }
        }
        // The mutations reach what they are for.
        assert!(usual.min(unusual) > 500, "{usual} {unusual}");
    }

    #[test]
    fn a_report_cut_short_is_not_usual() {
        let body = sample(r#""t":-1.5,"x":[true,false,null,"aé"],"latency":17,"y":{}"#);
        check(&body, Some(()));
        (0..body.len()).for_each(|end| check(&body.as_bytes()[..end], None));
    }

    #[test]
    fn reading_allocates_nothing() {
        /// Adds up.
        struct Sum(f64);

        impl<'b> Sink<'b> for Sum {
            fn client(&mut self, id: &'b str) {
                self.0 += id.len() as f64;
            }

            fn geo(&mut self, json: &'b [u8]) {
                self.0 += json.len() as f64;
            }

            fn sample(&mut self, sample: Sample<'b>) {
                self.0 += sample.t.unwrap_or(0.0) + sample.latency.unwrap_or(0.0);
            }

            fn host(&mut self, host: Host<'b>) {
                self.0 += host.name.map_or(0, str::len) as f64;
            }
        }

        let body = Generator::new(1, 20).next_report("a");
        let counted = allocation_counter::measure(|| {
            let mut sum = Sum(0.0);
            assert_eq!(read(&body, &mut sum), Some(()));
            assert!(sum.0 > 0.0);
        });
        assert_eq!(counted.count_total, 0);
    }
}
