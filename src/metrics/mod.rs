//! What is counted and measured, and how `/metrics` shows it.
//!
//! ```text
//! core ──▶ core::CoreMetrics ──┐
//! salvage ─▶ Tally ────────────┼──▶ render, at a scrape ──▶ OpenMetrics, or text 0.0.4
//! health, process, settings ───┘      names and help from `families`
//! ```
//!
//! Who works writes numbers that nobody else writes; a scrape reads and adds them up, on the thread of
//! whoever asks. What is about one core has its index as a label; what has a label of many values, and what
//! has buckets, is added up over the cores.

pub mod core;
pub mod families;
mod format;
mod process;
pub mod queries;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use self::core::{BYTES_BOUNDS, CoreMetrics, Counter, Gauge, Histogram, NANOS_BOUNDS};
use self::families::{Family, Kind};
pub use self::format::Format;
use self::queries::Queries;
use crate::api::reject::{self, CODES};
use crate::health::{Health, Verdict};
use crate::housekeeping::Figures;
use crate::live::LiveSettings;
use crate::retention;
use crate::route::Label;
use crate::rt::Driver;
use crate::salvage::Tally;
use crate::shard::Reason;
use crate::time::{Now, Timestamp};

/// Where the numbers come from.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Of each core, by index.
    pub cores: Vec<Arc<CoreMetrics>>,
    /// Of all cores.
    pub health: Arc<Health>,
    /// Of all cores.
    pub driver: Driver,
    /// What recovery has done.
    pub recovery: Arc<Tally>,
    /// What is in the data directory.
    pub figures: Arc<Figures>,
    /// Questions about what is stored.
    pub queries: Arc<Queries>,
    /// How often settings were read again.
    pub reloads: Arc<Reloads>,
    /// The settings in effect.
    pub live: Arc<LiveSettings>,
    /// Reads both clocks.
    pub clock: fn() -> Now,
    /// When the process started.
    pub started: Timestamp,
}

/// How often settings were read again while running. Written by the main thread.
#[derive(Debug, Default)]
pub struct Reloads {
    /// They were taken.
    pub applied: Counter,
    /// They were refused, and nothing changed.
    pub refused: Counter,
    /// Whether the last ones were refused: 1.
    pub is_refused: Gauge,
}

/// All metrics, for whoever asks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// With these inputs.
    pub fn new(inputs: Inputs) -> Metrics {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(inputs));
        Metrics { registry }
    }

    /// As they are now.
    pub fn render(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        format.write(text)
    }
}

/// The samples of one family, as they are written.
struct Samples<'a> {
    encoder: MetricEncoder<'a>,
    family: &'static Family,
}

type Labels<'l> = [(&'static str, &'l str)];

impl Samples<'_> {
    fn add(&mut self, labels: &Labels<'_>, value: u64) -> fmt::Result {
        let known = self.family.labels;
        debug_assert!(labels.iter().all(|(name, _)| known.contains(name)));
        // An empty set of labels would still be written, as a pair of braces.
        match (self.family.kind, labels.is_empty()) {
            (Kind::Counter, true) => count(&mut self.encoder, value),
            (Kind::Counter, false) => count(&mut self.encoder.encode_family(&labels)?, value),
            (Kind::Info, _) => self.encoder.encode_info(&labels),
            (_, true) => self.encoder.encode_gauge(&value),
            (_, false) => self.encoder.encode_family(&labels)?.encode_gauge(&value),
        }
    }

    /// Adds the one sample of a family without labels.
    fn add_real(&mut self, value: f64) -> fmt::Result {
        match self.family.kind {
            Kind::Counter => self
                .encoder
                .encode_counter::<NoLabelSet, f64, u64>(&value, None),
            _ => self.encoder.encode_gauge(&value),
        }
    }

    fn add_times<'h>(
        &mut self,
        histograms: impl Iterator<Item = &'h Histogram<{ NANOS_BOUNDS.len() }>>,
    ) -> fmt::Result {
        self.add_histogram(histograms, NANOS_BOUNDS, 1e9)
    }

    /// Adds the values of all cores, in units of which `scale` make a base unit.
    fn add_histogram<'h, const N: usize>(
        &mut self,
        histograms: impl Iterator<Item = &'h Histogram<N>>,
        bounds: [u64; N],
        scale: f64,
    ) -> fmt::Result {
        let bounds = bounds.iter().map(|&bound| bound as f64 / scale);
        let mut buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .map(|bound| (bound, 0))
            .collect();
        let mut sum = 0;
        for histogram in histograms {
            sum += histogram.sum();
            for (bucket, count) in buckets.iter_mut().zip(histogram.counts()) {
                bucket.1 += count;
            }
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.encoder
            .encode_histogram::<NoLabelSet>(sum as f64 / scale, count, &buckets, None)
    }
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

/// Writes one family.
fn family(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    samples: impl FnOnce(&mut Samples<'_>) -> fmt::Result,
) -> fmt::Result {
    let family = Family::named(name);
    let kind = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let (stem, unit) = [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((family.stem().strip_suffix(suffix)?, Some(unit))))
        .unwrap_or((family.stem(), None));
    let encoder = out.encode_descriptor(stem, family.help, unit.as_ref(), kind)?;
    samples(&mut Samples { encoder, family })
}

impl Collector for Inputs {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut out;
        self.encode_requests(out)?;
        self.encode_commits(out)?;
        self.encode_segments(out)?;
        self.encode_connections(out)?;
        self.encode_recovery(out)?;
        self.encode_state(out)?;
        encode_process(out, self.started)
    }
}

impl Inputs {
    /// One sample for each core.
    fn per_core(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        value: impl Fn(&CoreMetrics) -> u64,
    ) -> fmt::Result {
        family(out, name, |samples| {
            (0u16..).zip(&self.cores).try_for_each(|(index, core)| {
                samples.add(&[("core", &index.to_string())], value(core))
            })
        })
    }

    /// A sample for each core and word.
    fn per_core_and<const N: usize>(
        &self,
        out: &mut DescriptorEncoder<'_>,
        name: &str,
        label: &'static str,
        values: impl Fn(&CoreMetrics) -> [(&'static str, u64); N],
    ) -> fmt::Result {
        family(out, name, |samples| {
            (0u16..).zip(&self.cores).try_for_each(|(index, core)| {
                values(core).into_iter().try_for_each(|(word, value)| {
                    samples.add(&[("core", &index.to_string()), (label, word)], value)
                })
            })
        })
    }

    fn sum(&self, value: impl Fn(&CoreMetrics) -> u64) -> u64 {
        self.cores.iter().map(|core| value(core)).sum()
    }

    fn encode_requests(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // What is received is read last: a report is counted there first, so the others never exceed it.
        let stored = self.sum(|core| core.stored.get());
        let refused = CODES.map(|code| self.sum(|core| core.refused.of(code).get()));
        let received = self.sum(|core| core.received.get());
        family(out, "netwatch_reports_received_total", |samples| {
            samples.add(&[], received)
        })?;
        family(out, "netwatch_reports_total", |samples| {
            samples.add(&[("outcome", "stored")], stored)?;
            let refused = CODES.into_iter().zip(refused);
            let mut refused = refused.filter(|(code, _)| reject::is_of_reports(code));
            refused.try_for_each(|(code, count)| {
                samples.add(&[("outcome", "refused"), ("code", code)], count)
            })
        })?;
        family(out, "netwatch_requests_total", |samples| {
            for label in Label::ALL {
                let route = ("route", label.name());
                if label != Label::None {
                    let ok = self.sum(|core| core.requests(label).ok.get());
                    samples.add(&[route, ("code", "ok")], ok)?;
                }
                for code in CODES {
                    let refused = self.sum(|core| core.requests(label).refused.of(code).get());
                    if refused > 0 {
                        samples.add(&[route, ("code", code)], refused)?;
                    }
                }
            }
            Ok(())
        })?;
        self.per_core(out, "netwatch_received_bytes_total", |core| {
            core.received_bytes.get()
        })?;
        self.per_core_and(out, "netwatch_checked_reports_total", "way", |core| {
            [
                ("usual", core.usual_reports.get()),
                ("unusual", core.unusual_reports.get()),
            ]
        })
    }

    fn encode_commits(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.per_core(out, "netwatch_stored_lines_total", |core| core.lines.get())?;
        self.per_core_and(out, "netwatch_stored_bytes_total", "form", |core| {
            [
                ("raw", core.raw_bytes.get()),
                ("compressed", core.compressed_bytes.get()),
            ]
        })?;
        self.per_core(out, "netwatch_buffer_bytes", |core| core.buffer_bytes.get())?;
        self.per_core(out, "netwatch_waiting_reports", |core| {
            core.waiting_reports.get()
        })?;
        self.per_core_and(out, "netwatch_commits_total", "outcome", |core| {
            [
                ("committed", core.committed.get()),
                ("failed", core.failed_commits.get()),
            ]
        })?;
        let cores = || self.cores.iter();
        family(out, "netwatch_commit_bytes", |samples| {
            let histograms = cores().map(|core| &core.commit_bytes);
            samples.add_histogram(histograms, BYTES_BOUNDS, 1.0)
        })?;
        family(out, "netwatch_sync_seconds", |samples| {
            samples.add_times(cores().map(|core| &core.sync))
        })?;
        family(out, "netwatch_ack_seconds", |samples| {
            samples.add_times(cores().map(|core| &core.ack))
        })?;
        family(out, "netwatch_core_lag_seconds", |samples| {
            samples.add_times(cores().map(|core| &core.lag))
        })
    }

    fn encode_segments(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.per_core_and(out, "netwatch_flushes_total", "reason", |core| {
            Reason::ALL.map(|reason| (reason.name(), core.flushes(reason).get()))
        })?;
        self.per_core(out, "netwatch_sealed_segments_total", |core| {
            core.sealed.get()
        })?;
        let figures = &self.figures;
        let states = [
            ("sealed", figures.sealed()),
            ("open", figures.open()),
            ("corrupt", figures.corrupt()),
        ];
        family(out, "netwatch_segments", |samples| {
            let mut states = states.iter();
            states.try_for_each(|(state, held)| samples.add(&[("state", state)], held.segments))
        })?;
        family(out, "netwatch_segments_bytes", |samples| {
            let mut states = states.iter();
            states.try_for_each(|(state, held)| samples.add(&[("state", state)], held.bytes))
        })
    }

    fn encode_connections(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.per_core(out, "netwatch_open_connections", |core| {
            core.open_connections.get()
        })?;
        self.per_core(out, "netwatch_connections_max", |core| {
            core.connections_max.get()
        })?;
        self.per_core(out, "netwatch_connections_total", |core| {
            core.connections.get()
        })?;
        self.per_core(out, "netwatch_refused_connections_total", |core| {
            core.refused_connections.get()
        })?;
        self.per_core(out, "netwatch_accept_errors_total", |core| {
            core.accept_errors.get()
        })
    }

    fn encode_recovery(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let tally = &self.recovery;
        family(out, "netwatch_recovered_segments_total", |samples| {
            for (outcome, count) in [
                ("sealed", &tally.sealed),
                ("removed", &tally.removed),
                ("set_aside", &tally.set_aside),
                ("left", &tally.left),
            ] {
                samples.add(&[("outcome", outcome)], count.get())?;
            }
            Ok(())
        })?;
        family(out, "netwatch_recovered_bytes_total", |samples| {
            samples.add(&[("outcome", "kept")], tally.kept_bytes.get())?;
            samples.add(&[("outcome", "cut")], tally.cut_bytes.get())
        })?;
        family(out, "netwatch_recovered_lines_total", |samples| {
            samples.add(&[], tally.lines.get())
        })
    }

    fn encode_state(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let figures = &self.figures;
        let reasons = retention::Reason::ALL;
        let removed = reasons.map(|reason| (reason.to_string(), figures.removed(reason)));
        family(out, "netwatch_removed_segments_total", |samples| {
            let mut removed = removed.iter();
            removed
                .try_for_each(|(reason, held)| samples.add(&[("reason", &**reason)], held.segments))
        })?;
        family(out, "netwatch_removed_bytes_total", |samples| {
            let mut removed = removed.iter();
            removed.try_for_each(|(reason, held)| samples.add(&[("reason", &**reason)], held.bytes))
        })?;
        family(out, "netwatch_sidecars_total", |samples| {
            samples.add(&[("outcome", "made")], figures.made_sidecars())?;
            samples.add(&[("outcome", "failed")], figures.failed_sidecars())
        })?;
        family(out, "netwatch_unindexed_segments", |samples| {
            samples.add(&[], figures.unindexed())
        })?;
        let queries = &self.queries;
        family(out, "netwatch_queries_total", |samples| {
            for route in queries::Route::ALL {
                for outcome in queries::Outcome::ALL {
                    let labels = [("route", route.name()), ("outcome", outcome.name())];
                    samples.add(&labels, queries.ended(route, outcome))?;
                }
            }
            Ok(())
        })?;
        family(out, "netwatch_running_queries", |samples| {
            samples.add(&[], queries.running())
        })?;
        let space = figures.space();
        family(out, "netwatch_disk_free_bytes", |samples| {
            samples.add(&[], space.free_bytes)
        })?;
        family(out, "netwatch_disk_size_bytes", |samples| {
            samples.add(&[], space.size_bytes)
        })?;
        family(out, "netwatch_disk_reserve_bytes", |samples| {
            samples.add(&[], self.live.load().free_bytes_min)
        })?;
        family(out, "netwatch_accepting", |samples| {
            let verdicts = self.health.verdicts((self.clock)().monotonic_ms);
            (0u16..).zip(verdicts).try_for_each(|(index, verdict)| {
                let accepts = u64::from(verdict == Verdict::Accepting);
                samples.add(&[("core", &index.to_string())], accepts)
            })
        })?;
        family(out, "netwatch_driver_info", |samples| {
            samples.add(&[("driver", &self.driver.to_string())], 1)
        })?;
        family(out, "netwatch_build_info", |samples| {
            samples.add(&[("version", env!("CARGO_PKG_VERSION"))], 1)
        })?;
        family(out, "netwatch_config_reload_success", |samples| {
            samples.add(&[], 1 - self.reloads.is_refused.get())
        })?;
        family(out, "netwatch_config_reloads_total", |samples| {
            samples.add(&[("outcome", "applied")], self.reloads.applied.get())?;
            samples.add(&[("outcome", "refused")], self.reloads.refused.get())
        })
    }
}

/// Where `/proc` hides them, these are left out.
fn encode_process(out: &mut DescriptorEncoder<'_>, started: Timestamp) -> fmt::Result {
    if let Ok(figures) = process::read() {
        family(out, "process_cpu_seconds_total", |samples| {
            samples.add_real(figures.cpu_seconds)
        })?;
        for (name, value) in [
            ("process_resident_memory_bytes", figures.resident_bytes),
            ("process_virtual_memory_bytes", figures.virtual_bytes),
            ("process_open_fds", figures.open_fds),
            ("process_max_fds", figures.max_fds),
            ("process_threads", figures.threads),
        ] {
            family(out, name, |samples| samples.add(&[], value))?;
        }
    }
    family(out, "process_start_time_seconds", |samples| {
        samples.add_real(started.ms() as f64 / 1000.0)
    })
}
