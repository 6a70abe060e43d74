//! The kinds of values that settings take: how each is read, spelled, and described in a refusal.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{ADDRESSES_MAX, Host, Source};
use crate::api::cors::{ORIGINS_MAX, Origins};
use crate::api::forwarded::{NETWORKS_MAX, TrustedProxies};
use crate::limit::{REQUESTS_MAX, Rate};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

pub(super) const DAY_SECS: u64 = 86_400;

/// The values that a setting may take, and how they are spelled.
pub(super) trait Domain {
    type Value;

    /// Whether values are kept out of messages.
    const IS_SECRET: bool = false;

    /// Whether a file may have an array of strings for it, joined with commas.
    const IS_LIST: bool = false;

    /// `None`: not a value, or out of range.
    fn parse(&self, text: &str, source: &Source) -> Option<Self::Value>;

    /// The one spelling among those that [`Domain::parse`] takes for the same value.
    fn spell(&self, value: &Self::Value) -> String;

    /// What is accepted, to stand after `expected`.
    fn range(&self) -> String;
}

pub(super) struct Integers<T>(pub(super) RangeInclusive<T>);

impl<T: FromStr + PartialOrd + fmt::Display> Domain for Integers<T> {
    type Value = T;

    fn parse(&self, text: &str, _: &Source) -> Option<T> {
        text.parse().ok().filter(|value| self.0.contains(value))
    }

    fn spell(&self, value: &T) -> String {
        value.to_string()
    }

    fn range(&self) -> String {
        format!("{} to {}", self.0.start(), self.0.end())
    }
}

/// A word, read as `None`, beside the values of another domain.
pub(super) struct Or<D>(pub(super) &'static str, pub(super) D);

impl<D: Domain> Domain for Or<D> {
    type Value = Option<D::Value>;
    const IS_SECRET: bool = D::IS_SECRET;
    const IS_LIST: bool = D::IS_LIST;

    fn parse(&self, text: &str, source: &Source) -> Option<Self::Value> {
        if text == self.0 {
            return Some(None);
        }
        self.1.parse(text, source).map(Some)
    }

    fn spell(&self, value: &Self::Value) -> String {
        match value {
            None => String::from(self.0),
            Some(value) => self.1.spell(value),
        }
    }

    fn range(&self) -> String {
        format!("{} or {}", self.0, self.1.range())
    }
}

/// Sizes in bytes.
pub(super) struct Sizes(pub(super) RangeInclusive<u64>);

/// The binary ones first, and the largest of them: that is the order in which a size is spelled.
pub(super) const SIZE_UNITS: [(&str, u64); 10] = [
    ("TiB", TIB),
    ("GiB", GIB),
    ("MiB", MIB),
    ("KiB", KIB),
    ("", 1),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Domain for Sizes {
    type Value = u64;

    fn parse(&self, text: &str, _: &Source) -> Option<u64> {
        parse_with_unit(text, &SIZE_UNITS).filter(|size| self.0.contains(size))
    }

    fn spell(&self, size: &u64) -> String {
        // Zero is a multiple of every unit, and needs none.
        spell_with_unit(*size, if *size == 0 { &[("", 1)] } else { &SIZE_UNITS })
    }

    fn range(&self) -> String {
        format!(
            "{} to {}",
            self.spell(self.0.start()),
            self.spell(self.0.end())
        )
    }
}

/// Times in whole seconds.
pub(super) struct Times(pub(super) RangeInclusive<u64>);

pub(super) const TIME_UNITS: [(&str, u64); 5] =
    [("d", DAY_SECS), ("h", 3600), ("m", 60), ("s", 1), ("", 1)];

impl Times {
    fn spell_secs(secs: u64) -> String {
        // A minute is "60s", as people say it.
        spell_with_unit(secs, if secs <= 60 { &[("s", 1)] } else { &TIME_UNITS })
    }
}

impl Domain for Times {
    type Value = Duration;

    fn parse(&self, text: &str, _: &Source) -> Option<Duration> {
        let secs = secs(text)?;
        self.0.contains(&secs).then(|| Duration::from_secs(secs))
    }

    fn spell(&self, time: &Duration) -> String {
        Self::spell_secs(time.as_secs())
    }

    fn range(&self) -> String {
        let [start, end] = [self.0.start(), self.0.end()].map(|secs| Self::spell_secs(*secs));
        format!("{start} to {end}")
    }
}

/// Reads a time as settings spell it, in seconds.
pub fn secs(text: &str) -> Option<u64> {
    parse_with_unit(text, &TIME_UNITS)
}

/// Reads digits and one of the units.
pub(super) fn parse_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits_len = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, name) = text.split_at(digits_len);
    let (_, unit) = units.iter().find(|unit| unit.0 == name)?;
    digits.parse::<u64>().ok()?.checked_mul(*unit)
}

/// Writes the value in the first of the units that divides it.
pub(super) fn spell_with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let dividing = units.iter().find(|unit| value.is_multiple_of(unit.1));
    let (name, unit) = dividing.unwrap_or(&("", 1));
    format!("{}{name}", value / unit)
}

/// One word of a list.
pub(super) struct Words<T: 'static>(pub(super) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Domain for Words<T> {
    type Value = T;

    fn parse(&self, text: &str, _: &Source) -> Option<T> {
        let entry = self.0.iter().find(|entry| entry.0 == text)?;
        Some(entry.1)
    }

    fn spell(&self, value: &T) -> String {
        let entry = self.0.iter().find(|entry| entry.1 == *value);
        String::from(entry.expect("every value of the type has a word").0)
    }

    fn range(&self) -> String {
        let words: Vec<&str> = self.0.iter().map(|entry| entry.0).collect();
        match words.as_slice() {
            [first @ .., last] if !first.is_empty() => format!("{} or {last}", first.join(", ")),
            words => words.concat(),
        }
    }
}

/// The words of Go's `strconv.ParseBool`, because the Go server reads DEBUG with them.
pub(super) struct Bools;

impl Domain for Bools {
    type Value = bool;

    fn parse(&self, text: &str, _: &Source) -> Option<bool> {
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        }
    }

    fn spell(&self, value: &bool) -> String {
        value.to_string()
    }

    fn range(&self) -> String {
        String::from("true or false")
    }
}

/// One IP address with a port.
pub(super) struct SocketAddresses;

impl Domain for SocketAddresses {
    type Value = SocketAddr;

    fn parse(&self, text: &str, _: &Source) -> Option<SocketAddr> {
        text.parse().ok()
    }

    fn spell(&self, address: &SocketAddr) -> String {
        address.to_string()
    }

    fn range(&self) -> String {
        String::from("an IP address with a port")
    }
}

/// A value that is shown to nobody: not in messages, not by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What stands for it.
    pub const MASK: &'static str = "***";

    /// Of this value.
    pub fn new(value: &str) -> Secret {
        Secret(String::from(value))
    }

    /// The value itself, to compare with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

const TOKEN_CHARS: RangeInclusive<usize> = 16..=256;
const CREDENTIAL_CHARS: RangeInclusive<usize> = 1..=256;

/// Bearer tokens (RFC 6750 §2.1), long enough not to be guessed.
pub(super) struct Tokens;

impl Domain for Tokens {
    type Value = Secret;
    const IS_SECRET: bool = true;

    fn parse(&self, text: &str, _: &Source) -> Option<Secret> {
        let stem = text.trim_end_matches('=');
        let is_taken = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let is_token = !stem.is_empty() && stem.bytes().all(is_taken);
        (is_token && TOKEN_CHARS.contains(&text.len())).then(|| Secret::new(text))
    }

    fn spell(&self, _: &Secret) -> String {
        String::from(Secret::MASK)
    }

    fn range(&self) -> String {
        let (least, most) = (TOKEN_CHARS.start(), TOKEN_CHARS.end());
        format!("{least} to {most} characters of a token68")
    }
}

fn is_credential(text: &str) -> bool {
    CREDENTIAL_CHARS.contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// User names of basic authentication, which end at the first colon (RFC 7617 §2).
pub(super) struct UserNames;

impl Domain for UserNames {
    type Value = String;

    fn parse(&self, text: &str, _: &Source) -> Option<String> {
        (is_credential(text) && !text.contains(':')).then(|| String::from(text))
    }

    fn spell(&self, name: &String) -> String {
        name.clone()
    }

    fn range(&self) -> String {
        let (least, most) = (CREDENTIAL_CHARS.start(), CREDENTIAL_CHARS.end());
        format!("{least} to {most} printable characters, no colon")
    }
}

/// Passwords of basic authentication (RFC 7617 §2).
pub(super) struct Passwords;

impl Domain for Passwords {
    type Value = Secret;
    const IS_SECRET: bool = true;

    fn parse(&self, text: &str, _: &Source) -> Option<Secret> {
        is_credential(text).then(|| Secret::new(text))
    }

    fn spell(&self, _: &Secret) -> String {
        String::from(Secret::MASK)
    }

    fn range(&self) -> String {
        let (least, most) = (CREDENTIAL_CHARS.start(), CREDENTIAL_CHARS.end());
        format!("{least} to {most} printable characters")
    }
}

pub(super) struct Paths;

impl Domain for Paths {
    type Value = PathBuf;

    fn parse(&self, text: &str, _: &Source) -> Option<PathBuf> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn spell(&self, path: &PathBuf) -> String {
        path.display().to_string()
    }

    fn range(&self) -> String {
        String::from("a path")
    }
}

/// IP addresses with commas between, blanks around them skipped. An address twice is refused: with
/// SO_REUSEPORT both sockets would bind, and share the connections.
pub(super) struct Addresses;

impl Domain for Addresses {
    type Value = Host;
    const IS_LIST: bool = true;

    fn parse(&self, text: &str, source: &Source) -> Option<Host> {
        let mut addresses = Vec::new();
        for address in text.split(',') {
            let address = address.trim_ascii().parse().ok()?;
            if addresses.contains(&address) || addresses.len() == ADDRESSES_MAX {
                return None;
            }
            addresses.push(address);
        }
        Some(Host {
            addresses,
            source: source.clone(),
        })
    }

    fn spell(&self, host: &Host) -> String {
        let addresses: Vec<String> = host.addresses.iter().map(IpAddr::to_string).collect();
        addresses.join(",")
    }

    fn range(&self) -> String {
        format!("up to {ADDRESSES_MAX} different IP addresses with commas between")
    }
}

/// `any`, or origins with commas between.
pub(super) struct OriginLists;

impl Domain for OriginLists {
    type Value = Origins;
    const IS_LIST: bool = true;

    fn parse(&self, text: &str, _: &Source) -> Option<Origins> {
        text.parse().ok()
    }

    fn spell(&self, origins: &Origins) -> String {
        origins.to_string()
    }

    fn range(&self) -> String {
        format!("any or up to {ORIGINS_MAX} origins")
    }
}

/// Requests a second, minute or hour.
pub(super) struct Rates;

impl Domain for Rates {
    type Value = Rate;

    fn parse(&self, text: &str, _: &Source) -> Option<Rate> {
        text.parse().ok()
    }

    fn spell(&self, rate: &Rate) -> String {
        rate.to_string()
    }

    fn range(&self) -> String {
        format!("1 to {REQUESTS_MAX} with /s, /m or /h")
    }
}

/// `none`, or networks with commas between.
pub(super) struct NetworkLists;

impl Domain for NetworkLists {
    type Value = TrustedProxies;
    const IS_LIST: bool = true;

    fn parse(&self, text: &str, _: &Source) -> Option<TrustedProxies> {
        text.parse().ok()
    }

    fn spell(&self, proxies: &TrustedProxies) -> String {
        proxies.to_string()
    }

    fn range(&self) -> String {
        format!("none or up to {NETWORKS_MAX} networks")
    }
}
