//! The two text formats of `/metrics`, and which one a client takes.
//!
//! OpenMetrics 1.0 is what the encoder writes. The Prometheus text format 0.0.4 is made of it: it has no
//! units, no end mark and no type `info`, and its counters carry their suffix in `# HELP` and `# TYPE` as well.

use crate::http::accept::weighted;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus text 0.0.4.
    Text,
}

impl Format {
    /// The one that the `Accept` fields of a request prefer (RFC 9110 §12.5.1); text, if they do not say.
    pub fn accepted<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Format {
        let (mut open_metrics, mut text) = (0, 0);
        for (media, weight) in weighted(fields) {
            if media.eq_ignore_ascii_case("application/openmetrics-text") {
                open_metrics = weight.max(open_metrics);
            } else if ["text/plain", "text/*", "*/*"]
                .iter()
                .any(|known| media.eq_ignore_ascii_case(known))
            {
                text = weight.max(text);
            }
        }
        match open_metrics > 0 && open_metrics >= text {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    /// What it is called in `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Metrics in this format, from OpenMetrics.
    pub(super) fn write(self, open_metrics: String) -> String {
        match self {
            Format::OpenMetrics => open_metrics,
            Format::Text => text(&open_metrics),
        }
    }
}

fn text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(named) = line.strip_prefix("# HELP ") {
            help = named.split_once(' ');
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|named| named.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                kind => ("", kind),
            };
            let (_, help) = help.take().unwrap_or_default();
            let head = format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
            text.push_str(&head);
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_take() {
        #[track_caller]
        fn check(fields: &[&str], expected: Format) {
            let fields = fields.iter().map(|field| field.as_bytes());
            assert_eq!(Format::accepted(fields), expected);
        }
        check(&[], Format::Text);
        check(&["*/*"], Format::Text);
        check(&["text/plain"], Format::Text);
        check(&["application/openmetrics-text"], Format::OpenMetrics);
        check(
            &["Application/OpenMetrics-Text; version=0.0.1"],
            Format::OpenMetrics,
        );
        // As Prometheus 2 asks.
        let asked = "application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        check(&[asked], Format::OpenMetrics);
        check(
            &["text/plain;q=0.5", "application/openmetrics-text;q=0.4"],
            Format::Text,
        );
        check(
            &["text/plain;q=0.4", "application/openmetrics-text ; Q=0.40"],
            Format::OpenMetrics,
        );
        check(&["application/openmetrics-text;q=0"], Format::Text);
        check(
            &["application/openmetrics-text;q=0.000, text/plain;q=0.001"],
            Format::Text,
        );
        check(&["application/json"], Format::Text);
    }

    #[test]
    fn open_metrics_becomes_text() {
        let open_metrics = "# HELP a Some a\n# TYPE a counter\na_total{b=\"c\"} 1\n\
            # HELP d_bytes Some d\n# TYPE d_bytes gauge\n# UNIT d_bytes bytes\nd_bytes 2\n\
            # HELP e Some e\n# TYPE e info\ne_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_total Some a\n# TYPE a_total counter\na_total{b=\"c\"} 1\n\
            # HELP d_bytes Some d\n# TYPE d_bytes gauge\nd_bytes 2\n\
            # HELP e_info Some e\n# TYPE e_info gauge\ne_info{v=\"1\"} 1\n";
        assert_eq!(text(open_metrics), expected);
    }
}
