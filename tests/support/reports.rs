//! Made-up reports that look like real ones, for tests, benches and examples.
//!
//! A report has 13 hosts with as many samples each as the generator is told: about 2 KB at 1, 13 KB
//! at 20, 62 KB at 100. The bytes are compact JSON, as `JSON.stringify` in a browser writes them.
//! About one sample in a hundred is an error. A client keeps its place in the world; one in five
//! has none. The same seed and calls give the same bytes on every machine.
//!
//! Needs `std` alone, so that every target can take it in with `#[path]`.

/// The hosts that the page measures, with their addresses.
const HOSTS: [(&str, &str); 13] = [
    ("datavi.be", "https://datavi.be"),
    ("Anthropic API", "https://api.anthropic.com"),
    ("OpenAI API", "https://api.openai.com"),
    ("AWS Console", "https://console.aws.amazon.com"),
    ("GCP Console", "https://console.cloud.google.com"),
    ("Azure", "https://portal.azure.com"),
    ("Cloudflare", "https://www.cloudflare.com"),
    ("DigitalOcean", "https://www.digitalocean.com"),
    ("Fastly CDN", "https://www.fastly.com"),
    ("Akamai", "https://www.akamai.com"),
    ("GitHub", "https://github.com"),
    ("Local CPE", "http://192.168.100.1"),
    ("Local Gateway", "http://192.168.1.1"),
];

/// City, country, provider, time zone and coordinates, with the AS numbers that RFC 5398 reserves.
const PLACES: [[&str; 5]; 6] = [
    [
        "Zürich",
        "CH",
        "AS64496 Beispiel Netz",
        "Europe/Zurich",
        "47.367,8.55",
    ],
    [
        "Chiang Mai",
        "TH",
        "AS64497 Example Fiber",
        "Asia/Bangkok",
        "18.79,98.984",
    ],
    [
        "São Paulo",
        "BR",
        "AS64498 Exemplo Banda Larga",
        "America/Sao_Paulo",
        "-23.55,-46.633",
    ],
    [
        "Kraków",
        "PL",
        "AS64499 Przykład Internet",
        "Europe/Warsaw",
        "50.061,19.937",
    ],
    [
        "東京",
        "JP",
        "AS64500 Example Hikari",
        "Asia/Tokyo",
        "35.69,139.692",
    ],
    [
        "Portland",
        "US",
        "AS64501 Example Cable",
        "America/Los_Angeles",
        "45.523,-122.676",
    ],
];

/// The networks that RFC 5737 reserves for examples.
const NETWORKS: [&str; 3] = ["192.0.2.", "198.51.100.", "203.0.113."];

/// 2026-02-27T00:00:00Z: a midnight, so that the time of day is what comes on top of it.
const DAY_START_MS: u64 = 1_772_150_400_000;
const HOUR_MS: u64 = 3_600_000;
/// From one sample of a host to its next.
const TICK_MS: u64 = 3_000;

/// A stream of reports that depends on nothing but its seed and how it is called.
pub(crate) struct Generator {
    seed: u64,
    samples: usize,
    random: Random,
}

impl Generator {
    /// Reports with `samples` samples a host, at most 20,000, which is most of a day.
    pub(crate) fn new(seed: u64, samples: usize) -> Generator {
        assert!(
            samples <= 20_000,
            "the samples of a report lie within one day"
        );
        Generator {
            seed,
            samples,
            random: Random::new(seed),
        }
    }

    /// The next report, from the client `client_id`.
    pub(crate) fn next_report(&mut self, client_id: &str) -> Vec<u8> {
        let mut json = String::with_capacity(1024 + HOSTS.len() * (128 + 52 * self.samples));
        let start_ms = DAY_START_MS + self.random.below(HOUR_MS);
        json.push_str("{\"clientId\":");
        push_string(&mut json, client_id);
        json.push_str(",\"geo\":");
        self.push_geo(&mut json, client_id);
        json.push_str(",\"hosts\":[");
        for (index, (name, url)) in HOSTS.into_iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str("{\"history\":[");
            let is_up = self.push_history(&mut json, name, start_ms);
            json.push_str("],\"name\":");
            push_string(&mut json, name);
            let status = if is_up { "online" } else { "offline" };
            json.push_str(&format!(",\"status\":\"{status}\",\"url\":\"{url}\"}}"));
        }
        json.push_str("],\"timestamp\":\"");
        push_time(&mut json, start_ms + self.samples as u64 * TICK_MS);
        json.push_str("\"}");
        json.into_bytes()
    }

    /// Where the client is: drawn from its name and not from the stream, so that it stays.
    fn push_geo(&self, json: &mut String, client_id: &str) {
        let mixed = client_id.bytes().fold(self.seed, |mixed, byte| {
            Random::new(mixed ^ u64::from(byte)).next_u64()
        });
        let mut random = Random::new(mixed);
        if random.below(5) == 0 {
            json.push_str("null");
            return;
        }
        let [city, country, org, zone, loc] = *random.pick(&PLACES);
        let network = random.pick(&NETWORKS);
        let host = 1 + random.below(254);
        json.push_str(&format!(
            "{{\"ip\":\"{network}{host}\",\"city\":\"{city}\",\"country\":\"{country}\",\
             \"org\":\"{org}\",\"timezone\":\"{zone}\",\"loc\":\"{loc}\"}}"
        ));
    }

    /// Writes the samples of one host and tells whether its last one went well.
    fn push_history(&mut self, json: &mut String, name: &str, start_ms: u64) -> bool {
        let random = &mut self.random;
        let usual_ms = match name.starts_with("Local") {
            true => 2.0 + 10.0 * random.fraction(),
            false => 12.0 + 208.0 * random.fraction(),
        };
        let mut is_up = true;
        for sample in 0..self.samples {
            if sample > 0 {
                json.push(',');
            }
            // The page's timer fires a little late.
            let t = start_ms + sample as u64 * TICK_MS + random.below(40);
            is_up = random.below(100) > 0;
            if is_up {
                // Three uniform draws are close enough to a bell curve: deviation 0.15 of the mean.
                let bell = random.fraction() + random.fraction() + random.fraction() - 1.5;
                let latency = (usual_ms * (1.0 + 0.3 * bell)).max(1.0) as u64;
                json.push_str(&format!(
                    "{{\"t\":{t},\"latency\":{latency},\"error\":null}}"
                ));
            } else {
                let error = random.pick(&["timeout", "unreachable"]);
                json.push_str(&format!(
                    "{{\"t\":{t},\"latency\":null,\"error\":\"{error}\"}}"
                ));
            }
        }
        is_up
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, quick, and not for secrets.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    /// Every seed is as good as any other.
    pub(crate) fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..end`, for an `end` that is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// One of `choices`, which are not empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// A number in `0.0..1.0`.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A JSON string, escaped as by `JSON.stringify`, the short forms of control characters aside.
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..='\x1f' => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => json.push(c),
        }
    }
    json.push('"');
}

/// `2026-02-27T05:14:34.123Z`; every time here lies on that one day.
fn push_time(json: &mut String, time_ms: u64) {
    let of_day = time_ms - DAY_START_MS;
    let (hour, minute) = (of_day / HOUR_MS, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
    json.push_str(&format!(
        "2026-02-27T{hour:02}:{minute:02}:{second:02}.{ms:03}Z"
    ));
}
