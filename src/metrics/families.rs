//! The table of all metrics: name, type, labels, help. What `/metrics` shows is looked up here, and
//! `docs/operations.md` lists the same.

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// How often values have lain between bounds.
    Histogram,
    /// Always 1; the labels say something.
    Info,
}

/// The metrics of one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// As its samples have it; those of a histogram with a suffix.
    pub name: &'static str,
    /// What kind.
    pub kind: Kind,
    /// The labels that its samples may have.
    pub labels: &'static [&'static str],
    /// One sentence, without a final stop.
    pub help: &'static str,
}

impl Family {
    /// The name without the suffix that its kind has in OpenMetrics.
    pub fn stem(&self) -> &'static str {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.name.strip_suffix(suffix).unwrap_or(self.name)
    }

    /// The one of this name.
    ///
    /// # Panics
    ///
    /// There is none.
    pub fn named(name: &str) -> &'static Family {
        let found = FAMILIES.iter().find(|family| family.name == name);
        found.unwrap_or_else(|| panic!("{name} is not in the table"))
    }
}

macro_rules! families {
    ($($kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// All of them, in the order of `/metrics`.
        pub const FAMILIES: &[Family] = &[$(Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        }),*];
    };
}

families! {
    Counter "netwatch_reports_received_total" []
        "Reports that were read whole, or refused before that";
    Counter "netwatch_reports_total" ["outcome", "code"]
        "Reports that were answered, by what became of them: stored, or refused with a code";
    Counter "netwatch_requests_total" ["route", "code"]
        "Requests that were answered, by route and code";
    Counter "netwatch_received_bytes_total" ["core"]
        "Bytes read from the connections of clients";
    Counter "netwatch_checked_reports_total" ["core", "way"]
        "Reports that were checked, in one pass as browsers write them or by the parser for all others";
    Counter "netwatch_stored_lines_total" ["core"]
        "Lines that were committed";
    Counter "netwatch_stored_bytes_total" ["core", "form"]
        "Bytes of the lines that were committed, raw and as compressed into files";
    Gauge "netwatch_buffer_bytes" ["core"]
        "Bytes of lines that are not committed yet";
    Gauge "netwatch_waiting_reports" ["core"]
        "Reports that are not committed yet";
    Counter "netwatch_commits_total" ["core", "outcome"]
        "Commits that ended, by outcome";
    Histogram "netwatch_commit_bytes" []
        "Bytes of lines in one commit, before compression";
    Histogram "netwatch_sync_seconds" []
        "Time that one fdatasync of a file of segments took";
    Histogram "netwatch_ack_seconds" []
        "Time from the last byte of a report until its answer with 200 is ready to be sent";
    Histogram "netwatch_core_lag_seconds" []
        "How late a core came to its tick, which is due every 0.25 seconds, or 0.5 without connections";
    Counter "netwatch_flushes_total" ["core", "reason"]
        "Segments that were ended, by reason";
    Counter "netwatch_sealed_segments_total" ["core"]
        "Segments that were sealed by the cores";
    Gauge "netwatch_segments" ["state"]
        "Segments that are present as files, by state";
    Gauge "netwatch_segments_bytes" ["state"]
        "Bytes of the segments that are present as files, by state";
    Gauge "netwatch_open_connections" ["core"]
        "Connections of clients that are open";
    Gauge "netwatch_connections_max" ["core"]
        "Connections of clients that may be open at most";
    Counter "netwatch_connections_total" ["core"]
        "Connections that were accepted";
    Counter "netwatch_refused_connections_total" ["core"]
        "Connections that were closed at once because their address had as many as it may";
    Counter "netwatch_accept_errors_total" ["core"]
        "Errors of accepting a connection";
    Counter "netwatch_recovered_segments_total" ["outcome"]
        "Segments left open by a crash or an error, by what recovery did with them";
    Counter "netwatch_recovered_bytes_total" ["outcome"]
        "Bytes of files that recovery kept, or cut off";
    Counter "netwatch_recovered_lines_total" []
        "Lines that recovery kept";
    Counter "netwatch_removed_segments_total" ["reason"]
        "Sealed segments that retention removed, by reason";
    Counter "netwatch_removed_bytes_total" ["reason"]
        "Bytes of the sealed segments that retention removed, by reason";
    Counter "netwatch_sidecars_total" ["outcome"]
        "Sidecars of sealed segments that were made, or could not be, by outcome";
    Gauge "netwatch_unindexed_segments" []
        "Sealed segments whose sidecar is still to be looked at or made";
    Counter "netwatch_queries_total" ["route", "outcome"]
        "Requests for what is stored that were taken, by route and outcome";
    Gauge "netwatch_running_queries" []
        "Requests for what is stored that are being answered";
    Gauge "netwatch_disk_free_bytes" []
        "Free bytes of the file system that holds the segments";
    Gauge "netwatch_disk_size_bytes" []
        "Size of the file system that holds the segments";
    Gauge "netwatch_disk_reserve_bytes" []
        "Free bytes below which reports are refused, the setting MIN_FREE_BYTES";
    Gauge "netwatch_accepting" ["core"]
        "Whether a core takes reports, 1, or refuses them, 0";
    Info "netwatch_driver_info" ["driver"]
        "How the server does input and output, io_uring or epoll";
    Info "netwatch_build_info" ["version"]
        "The version that runs";
    Gauge "netwatch_config_reload_success" []
        "Whether the settings were read without error the last time, 1, or not, 0";
    Counter "netwatch_config_reloads_total" ["outcome"]
        "Times that settings were read again on SIGHUP, by outcome";
    Counter "process_cpu_seconds_total" []
        "CPU time that the process has taken, user and system";
    Gauge "process_resident_memory_bytes" []
        "Memory of the process that is resident";
    Gauge "process_virtual_memory_bytes" []
        "Memory that the process has mapped";
    Gauge "process_open_fds" []
        "File descriptors that are open";
    Gauge "process_max_fds" []
        "File descriptors that may be open at most";
    Gauge "process_threads" []
        "Threads of the process";
    Gauge "process_start_time_seconds" []
        "When the process started, in seconds since the epoch";
}
