//! Writes the inputs that fuzzing begins with: `seed CORPUS` makes a directory of files for each target.
//!
//! What the first bytes of an input mean is said by its target, in `fuzz_targets`.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, GzBuilder};
use zstd::stream::raw::CParameter;

// The generator of tests and benches; what seeds do not use of it is no fault here.
#[allow(dead_code)]
#[path = "../../tests/support/reports.rs"]
mod reports;

use reports::Generator;

const CLIENT: &str = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let corpus = std::env::args_os().nth(1).ok_or("usage: seed CORPUS")?;
    let corpus = Path::new(&corpus);
    write(corpus, "head", heads())?;
    write(corpus, "chunked", chunked())?;
    write(corpus, "report", bodies())?;
    write(corpus, "fast", usual_reports())?;
    write(corpus, "batch", batches())?;
    write(corpus, "coding", codings()?)?;
    Ok(())
}

/// A file for each input, named by its number.
fn write(corpus: &Path, target: &str, inputs: Vec<Vec<u8>>) -> Done {
    let directory = corpus.join(target);
    fs::create_dir_all(&directory)?;
    for (number, input) in inputs.iter().enumerate() {
        fs::write(directory.join(format!("seed-{number:03}")), input)?;
    }
    println!("{target}: {} seeds", inputs.len());
    Ok(())
}

/// Each behind each of the controls.
fn controlled(controls: &[&[u8]], inputs: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for input in inputs {
        all.extend(
            controls
                .iter()
                .map(|control| [control, &input[..]].concat()),
        );
    }
    all
}

fn heads() -> Vec<Vec<u8>> {
    let browser = "POST /api/v1/reports HTTP/1.1\r\nHost: localhost:8080\r\nConnection: keep-alive\r\n\
        Content-Length: 13311\r\nsec-ch-ua-platform: \"Linux\"\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\r\nContent-Type: text/plain\r\n\
        Accept: */*\r\nOrigin: https://netwatch.example\r\nReferer: https://netwatch.example/\r\n\
        Accept-Encoding: gzip, deflate, br, zstd\r\nCookie: a=b; c=d\r\n\r\n";
    let texts = [
        browser,
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\n\r\nGET http://a:80?b HTTP/1.1\r\nhost:\ta \r\nconnection: close, upgrade\r\n\r\nnext",
        "OPTIONS * HTTP/1.1\r\nhost: [::1]:8080\r\nconnection: keep-alive,,Close\r\n\r\n",
        "OPTIONS /api/v1/reports HTTP/1.1\r\nhost: a\r\norigin: https://b\r\n\
         access-control-request-method: POST\r\naccess-control-request-private-network: true\r\n\r\n",
        "HEAD /.well-known/healthcheck.json?a=%20 HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551615\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n b: c\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
    ];
    let mut inputs: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
    // At the limits of line, fields and head.
    inputs.push(format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(8192 - 14)).into_bytes());
    let fields = "a: b\r\n".repeat(63);
    inputs.push(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n").into_bytes());
    for len in [16_384, 16_385] {
        let value = "b".repeat(len - 32);
        inputs.push(format!("GET / HTTP/1.1\r\nhost: a\r\na: {value}\r\n\r\n").into_bytes());
    }
    controlled(&[b"\x00", b"\x07"], inputs)
}

fn chunked() -> Vec<Vec<u8>> {
    let texts = [
        "0\r\n\r\n",
        "3\r\nabc\r\n0\r\n\r\nPOST / HTTP/1.1\r\n",
        "A;a=\"b\"\r\n0123456789\r\n000\r\n\r\n",
        "3\r\nabc\r\n2\r\nde\r\n0;c\r\na: b\r\nc:\td\r\n\r\n",
        "0064\r\n\r\n0\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc",
        "1 ;a\r\na\r\n0\n\n",
    ];
    let mut inputs: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
    // At the limits of extensions, overhead and trailers.
    let extended = format!("1;{}\r\na\r\n", "b".repeat(127)).repeat(8);
    inputs.push(format!("{extended}0\r\n\r\n").into_bytes());
    inputs.push(format!("{}0\r\n\r\n", "1\r\na\r\n".repeat(4095)).into_bytes());
    inputs.push(format!("0\r\n{}\r\n", "a: b\r\n".repeat(64)).into_bytes());
    inputs.push(format!("0\r\na: {}\r\n\r\n", "b".repeat(16 * 1024 - 7)).into_bytes());
    let report = Generator::new(1, 1).next_report(CLIENT);
    let mut chunks = Vec::new();
    for chunk in report.chunks(700) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    inputs.push([&chunks[..], b"0\r\n\r\n"].concat());
    controlled(&[b"\x00\x00", b"\x03\x07", b"\x05\x15"], inputs)
}

fn bodies() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"clientId":"a","timestamp":"b","hosts":[]}"#,
        r#"{"clientId":"a","timestamp":"b","geo":{"a":[1,"é",null]},"hosts":[{}]}"#,
        r#"{"clientId":"\u0061\ud83d\ude00","timestamp":"","hosts":[{"name":"a","url":null,"history":null}]}"#,
        r#"{"hosts":[{"history":[{"t":1772169274000,"latency":41.5,"error":null},{"t":-1e3,"latency":null}]}],
            "timestamp":"b","clientId":"a","x":1,"x":2}"#,
        r#"{"clientId":"a","timestamp":"b","hosts":[{"status":"online","history":[{"error":"timeout"}]}]}"#,
        r#" {"receivedAt":"2026-02-27T05:14:34.123Z","clientId":"a","timestamp":"b","hosts":[]} "#,
        r#"{"clientId":"a","clientId":"b","timestamp":"c","hosts":[{"name":1}]}"#,
        r#"{"a":[true,false,null,-0,1e999,99999999999999999999,"\b\f\n\r\t\/\\\"\udc00"]}"#,
    ];
    let mut inputs: Vec<Vec<u8>> = texts.map(|text| text.as_bytes().to_vec()).into();
    for depth in [62, 63, 64, 130] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let text = format!(r#"{{"clientId":"a","timestamp":"b","hosts":[],"geo":{open}{close}}}"#);
        inputs.push(text.into_bytes());
    }
    // Each member twice, and with what it must not be.
    let report = r#"{"clientId":"a","timestamp":"b","geo":0,"hosts":[{"name":"a","url":"b","status":"c","history":[
        {"t":1,"latency":2,"error":"d"}]}]}"#;
    for name in [
        "clientId",
        "timestamp",
        "geo",
        "hosts",
        "name",
        "url",
        "status",
        "history",
        "t",
        "latency",
        "error",
    ] {
        let name = format!("\"{name}\":");
        for before in ["null,", "true,"] {
            inputs.push(
                report
                    .replace(&name, &format!("{name}{before}{name}"))
                    .into_bytes(),
            );
        }
        inputs.push(
            report
                .replace(&name, &format!("{name}true,\"x\":"))
                .into_bytes(),
        );
    }
    for len in [128, 129] {
        let id = "a".repeat(len);
        inputs.push(format!(r#"{{"clientId":"{id}","timestamp":"","hosts":[]}}"#).into_bytes());
    }
    for samples in [0, 1, 3] {
        inputs.push(Generator::new(7, samples).next_report(CLIENT));
    }
    inputs
}

/// All bodies are good beginnings as well: most of them are left to simd-json, some for one byte.
fn usual_reports() -> Vec<Vec<u8>> {
    let mut inputs = bodies();
    for number in [
        "0",
        "-0",
        "1772150987398",
        "999999999999999999",
        "-0.0",
        "12.75",
        "9007199254740.993",
        "122.30000000074506",
        "0.0000000000000000001",
    ] {
        let members = [
            format!(r#""t":{number},"latency":{number},"error":null"#),
            format!(r#""error":"a","x":[{number}],"latency":{number},"t":null"#),
        ];
        for members in members {
            let host = format!(r#"{{"history":[{{{members}}}],"name":"é","url":null}}"#);
            let text = format!(r#"{{"clientId":"a","hosts":[{host}],"geo":{{}},"timestamp":""}}"#);
            inputs.push(text.into_bytes());
        }
    }
    inputs
}

fn batches() -> Vec<Vec<u8>> {
    let reports: Vec<String> = (0..3)
        .map(|seed| Generator::new(seed, 0).next_report(CLIENT))
        .map(|report| String::from_utf8_lossy(&report).into_owned())
        .collect();
    let texts = [
        "[]".to_owned(),
        " [ 1 , {\"a\":[2,{}]},\"],[\\\"\\\\\" ]\r\n".to_owned(),
        "[nul,{\"a\":1],2]".to_owned(),
        "{}\n\n \t{\"a\":\"\\n\"}\r\n[1,\n".to_owned(),
        format!("[{}]", reports.join(",\n")),
        reports.join("\n"),
    ];
    // As one, lines and array, without a filling.
    let controls: [&[u8]; 3] = [b"\x3f\0\0\0\0", b"\x7f\0\0\0\0", b"\xbf\0\0\0\0"];
    let mut inputs = controlled(&controls, texts.map(String::into_bytes));
    // Blanks, open strings and too many items, of which one call sees all but the last bytes.
    inputs.push(b"\x80\x0c\0\x04\0[{\"a\":[1,2],\"b\":3}]".to_vec());
    inputs.push(b"\x85\x05\0\x05\0[{\"a,]\":\"\\\"\"},2]".to_vec());
    inputs.push(b"\x87\x01\0\0\0[1]".to_vec());
    inputs.push(b"\x48\0\0\0\0{}".to_vec());
    inputs
}

fn codings() -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut texts: Vec<Vec<u8>> = vec![Vec::new(), b"{}".to_vec(), vec![b'a'; 30_000]];
    texts.extend([0, 20].map(|samples| Generator::new(3, samples).next_report(CLIENT)));

    let (mut gzip, mut deflate, mut zstd) = (Vec::new(), Vec::new(), Vec::new());
    for text in &texts {
        for level in [0, 6] {
            let level = Compression::new(level);
            let mut encoder = GzEncoder::new(Vec::new(), level);
            encoder.write_all(text)?;
            gzip.push(encoder.finish()?);
            let mut encoder = ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(text)?;
            deflate.push(encoder.finish()?);
            let mut encoder = DeflateEncoder::new(Vec::new(), level);
            encoder.write_all(text)?;
            deflate.push(encoder.finish()?);
        }
        for (level, window_log, has_checksum) in [(1, 17, true), (19, 10, false)] {
            let mut encoder = zstd::Encoder::new(Vec::new(), level)?;
            encoder.set_parameter(CParameter::WindowLog(window_log))?;
            encoder.include_checksum(has_checksum)?;
            encoder.set_pledged_src_size(has_checksum.then_some(text.len() as u64))?;
            encoder.write_all(text)?;
            zstd.push(encoder.finish()?);
        }
    }
    let mut encoder = GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra(vec![1, 2, 3])
        .write(Vec::new(), Compression::fast());
    encoder.write_all(b"{}")?;
    let named = encoder.finish()?;
    gzip.push([&named[..], &gzip[0]].concat());
    // Two frames with a skippable one between them.
    zstd.push([&zstd[2][..], b"\x50\x2a\x4d\x18\x03\0\0\0abc", &zstd[3]].concat());
    // A content size of 5000 that a window of 1 KiB cannot hold, and one repeated byte.
    zstd.push(b"\x28\xb5\x2f\xfd\x40\x00\x88\x12\x43\x9c\x00a".to_vec());
    // A dictionary whose number spells the beginning of a frame.
    zstd.push(b"\x28\xb5\x2f\xfd\x23\x28\xb5\x2f\xfd\x20\x01\x09\0\0a".to_vec());

    let mut inputs = controlled(&[b"\x00\x00\x00", b"\x10\x07\x01"], gzip);
    inputs.extend(controlled(&[b"\x01\x00\x00", b"\x11\x07\x01"], deflate));
    inputs.extend(controlled(&[b"\x02\x00\x00", b"\x12\x07\x01"], zstd));
    inputs.push(b"\x03\x00\x00{}".to_vec());
    Ok(inputs)
}
