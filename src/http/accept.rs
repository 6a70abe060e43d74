//! What a client takes, with weights: `Accept`, `Accept-Encoding` (RFC 9110 §12.4.2, §12.5).

/// Each item of a list field with its weight in thousandths; one without a weight that can be read has 1000.
pub fn weighted<'f>(
    fields: impl Iterator<Item = &'f [u8]>,
) -> impl Iterator<Item = (&'f str, u32)> {
    let fields = fields.map(|field| str::from_utf8(field).unwrap_or_default());
    fields.flat_map(|field| field.split(',')).map(|item| {
        let mut parts = item.split(';').map(str::trim_ascii);
        let name = parts.next().unwrap_or_default();
        (name, parts.find_map(weight).unwrap_or(1000))
    })
}

/// A weight in thousandths, if the parameter is one that can be read.
fn weight(parameter: &str) -> Option<u32> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_ascii().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, part) = value
        .trim_ascii()
        .split_once('.')
        .unwrap_or((value.trim_ascii(), ""));
    let thousandths: u32 = match part.is_empty() {
        true => 0,
        false => format!("{part:0<3}").parse().ok()?,
    };
    match (whole, thousandths) {
        ("0", 0..1000) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        #[track_caller]
        fn check(fields: &[&str], expected: &[(&str, u32)]) {
            let found = weighted(fields.iter().map(|field| field.as_bytes()));
            assert_eq!(found.collect::<Vec<_>>(), expected);
        }
        check(&[], &[]);
        check(&["zstd"], &[("zstd", 1000)]);
        check(
            &["gzip;q=0.5, zstd ; Q=0.25", "br;q=0"],
            &[("gzip", 500), ("zstd", 250), ("br", 0)],
        );
        check(&["a;q=x;level=1", "b;q=1.5"], &[("a", 1000), ("b", 1000)]);
    }
}
