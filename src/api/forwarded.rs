//! The address that a request comes from, where proxies stand in front of the server.
//!
//! Each proxy appends the address that it was asked by, so a list is read from its end, and only as far as
//! trusted proxies wrote it; what is left of that is whatever the client likes to claim:
//!
//! ```text
//! X-Forwarded-For: 198.51.100.7, 203.0.113.9, 10.0.0.2        peer 10.0.0.1
//!                  claimed       ▲ the client  trusted             trusted
//! ```
//!
//! An element that is no address ends the walk: the client is then the last address that a trusted proxy
//! vouched for. That may be a proxy's own, and is never one that a client made up.
//!
//! A proxy that writes one of the two fields usually passes the other on as the client sent it. So where
//! both are there they must agree, or neither is believed.
//!
//! IPv6 addresses that stand for IPv4 ones (`::ffff:192.0.2.1`) are IPv4 throughout.
//!
//! Source: RFC 7239 §4 to §7; `X-Forwarded-For` has no standard.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::http::head::Head;

/// Networks that may be listed: each is compared with each address.
pub const NETWORKS_MAX: usize = 64;

/// Where the proxies are whose fields are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// `networks.len() <= NETWORKS_MAX`; empty: no field is read.
    networks: Vec<Cidr>,
}

/// A network as `10.0.0.0/8`; a single address has all bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cidr {
    /// Not IPv4 in IPv6; the bits behind `prefix_bits` are zero.
    address: IpAddr,
    /// At most 32 or 128.
    prefix_bits: u32,
}

impl TrustedProxies {
    /// Whether a proxy at this address is believed.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(address))
    }
}

impl FromStr for TrustedProxies {
    type Err = ();

    fn from_str(text: &str) -> Result<TrustedProxies, ()> {
        if text == "none" {
            return Ok(TrustedProxies::default());
        }
        let networks = text.split(',').map(|one| one.trim_ascii().parse());
        // One more than may be listed is enough to know.
        let networks: Vec<Cidr> = networks.take(NETWORKS_MAX + 1).collect::<Result<_, ()>>()?;
        let is_good = networks.len() <= NETWORKS_MAX;
        is_good.then_some(TrustedProxies { networks }).ok_or(())
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.networks.is_empty() {
            return f.write_str("none");
        }
        for (index, network) in self.networks.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{network}")?;
        }
        Ok(())
    }
}

impl Cidr {
    fn contains(self, address: IpAddr) -> bool {
        let behind = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = u32::from(own) ^ u32::from(other);
                differing.checked_shr(32 - self.prefix_bits) == Some(0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = u128::from(own) ^ u128::from(other);
                differing.checked_shr(128 - self.prefix_bits) == Some(0)
            }
            _ => return false,
        };
        // A shift by all bits is none that the machine has: such a prefix is empty, and everything matches.
        behind || self.prefix_bits == 0
    }
}

impl FromStr for Cidr {
    type Err = ();

    fn from_str(text: &str) -> Result<Cidr, ()> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().map_err(drop)?;
        let written_bits = address_bits(written);
        let prefix_bits = match prefix {
            None => written_bits,
            // By hand: `parse` would also take a leading `+`.
            Some(digits) if !digits.bytes().all(|byte| byte.is_ascii_digit()) => return Err(()),
            Some(digits) => digits.parse().map_err(drop)?,
        };
        if prefix_bits > written_bits {
            return Err(());
        }
        // A network that is wider than the IPv4 addresses in IPv6 is one of IPv6.
        let (address, prefix_bits) = match written.to_canonical() {
            IpAddr::V4(inner) if written.is_ipv6() && prefix_bits >= 96 => {
                (IpAddr::V4(inner), prefix_bits - 96)
            }
            _ => (written, prefix_bits),
        };
        // `10.0.0.1/8` is a slip: of the address, or of the prefix?
        let host_bits = match address {
            IpAddr::V4(address) => u32::from(address).checked_shl(prefix_bits) != Some(0),
            IpAddr::V6(address) => u128::from(address).checked_shl(prefix_bits) != Some(0),
        };
        if host_bits && prefix_bits < address_bits(address) {
            return Err(());
        }
        Ok(Cidr {
            address,
            prefix_bits,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            prefix_bits,
        } = self;
        match *prefix_bits == address_bits(*address) {
            true => write!(f, "{address}"),
            false => write!(f, "{address}/{prefix_bits}"),
        }
    }
}

fn address_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address that this request of the connection from `peer` comes from.
pub fn client(head: &Head<'_>, peer: IpAddr, proxies: &TrustedProxies) -> IpAddr {
    let peer = peer.to_canonical();
    if !proxies.contains(peer) {
        return peer;
    }
    let forwarded = walk(head, "forwarded", forwarded_for, peer, proxies);
    let x_forwarded_for = walk(head, "x-forwarded-for", node, peer, proxies);
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one != other => peer,
        (one, other) => one.or(other).unwrap_or(peer),
    }
}

/// The client as the fields of this name tell; `None`: there are none.
fn walk(
    head: &Head<'_>,
    name: &str,
    address_of: fn(&[u8]) -> Option<IpAddr>,
    peer: IpAddr,
    proxies: &TrustedProxies,
) -> Option<IpAddr> {
    let mut lines = head.fields(name).rev().peekable();
    lines.peek()?;
    let mut vouched_for = peer;
    for line in lines {
        let mut rest = Some(line);
        while let Some(list) = rest {
            let element;
            (rest, element) = split_last(list, b',');
            let element = element.trim_ascii();
            // Empty elements are none (RFC 9110 §5.6.1).
            if element.is_empty() {
                continue;
            }
            let Some(address) = address_of(element) else {
                return Some(vouched_for);
            };
            vouched_for = address;
            if !proxies.contains(address) {
                return Some(vouched_for);
            }
        }
    }
    Some(vouched_for)
}

/// Splits a list at its last separator outside a quoted string.
///
/// Quotes are paired from the end, which a trusted proxy wrote: one that a client leaves open on the left
/// swallows nothing.
fn split_last(list: &[u8], separator: u8) -> (Option<&[u8]>, &[u8]) {
    let mut is_quoted = false;
    for (at, &byte) in list.iter().enumerate().rev() {
        if byte == b'"' {
            let backslashes = list[..at].iter().rev().take_while(|&&byte| byte == b'\\');
            let is_escaped = backslashes.count() % 2 == 1;
            is_quoted ^= !(is_quoted && is_escaped);
        } else if byte == separator && !is_quoted {
            return (Some(&list[..at]), &list[at + 1..]);
        }
    }
    (None, list)
}

/// The address in `for=192.0.2.1;proto=https`. `None`: it is hidden, missing, there twice, or malformed.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut rest = Some(element);
    while let Some(list) = rest {
        let pair;
        (rest, pair) = split_last(list, b';');
        let pair = pair.trim_ascii();
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&pair[..equals], &pair[equals + 1..]);
        if name.eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                return None;
            }
            let unquoted = value
                .strip_prefix(b"\"")
                .map(|value| value.strip_suffix(b"\""));
            found = Some(node(unquoted.unwrap_or(Some(value))?)?);
        }
    }
    found
}

/// The address in `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let (address, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        (IpAddr::V6(address.parse().ok()?), port)
    } else if let Ok(address) = text.parse() {
        (address, "")
    } else {
        let (address, port) = text.split_at(text.find(':')?);
        (IpAddr::V4(address.parse().ok()?), port)
    };
    is_port(port).then(|| address.to_canonical())
}

/// Nothing, or a colon and a port (RFC 7239 §6), which may be obfuscated.
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else {
        return text.is_empty();
    };
    let is_obfuscated = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match port.strip_prefix('_') {
        Some(name) => !name.is_empty() && name.bytes().all(is_obfuscated),
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;

    #[test]
    fn settings() {
        #[track_caller]
        fn check(text: &str, expected: Option<&str>) {
            let proxies = text.parse::<TrustedProxies>().ok();
            let spelled = proxies.as_ref().map(TrustedProxies::to_string);
            assert_eq!(spelled.as_deref(), expected, "{text}");
            if let Some(spelled) = spelled {
                assert_eq!(spelled.parse().ok(), proxies);
            }
        }
        check("none", Some("none"));
        check("::1", Some("::1"));
        check("127.0.0.1/32", Some("127.0.0.1"));
        check(
            "10.0.0.0/8, fd00::/8,192.0.2.1",
            Some("10.0.0.0/8,fd00::/8,192.0.2.1"),
        );
        check("0.0.0.0/0,::/0", Some("0.0.0.0/0,::/0"));
        check("255.255.255.254/31", Some("255.255.255.254/31"));
        check("::ffff:10.0.0.0/104", Some("10.0.0.0/8"));
        check("::ffff:0:0/96", Some("0.0.0.0/0"));
        check("::ffff:192.0.2.1", Some("192.0.2.1"));
        check("::ffff:0:0/95", None);
        for bad in [
            "",
            "any",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.1/8",
            "128.0.0.0/0",
            "10.0.0.0/8,",
            "10.0.0/8",
            "fd00::1/8",
            "fd00::/129",
            "[::1]",
            "10.0.0.1:80",
            "none,none",
        ] {
            check(bad, None);
        }
        check(
            &["::1"; NETWORKS_MAX].join(","),
            Some(&["::1"; 64].join(",")),
        );
        check(&["::1"; NETWORKS_MAX + 1].join(","), None);
    }

    #[test]
    fn members() {
        #[track_caller]
        fn check(proxies: &str, address: &str, expected: bool) {
            let proxies: TrustedProxies = proxies.parse().unwrap();
            let address = address.parse().unwrap();
            assert_eq!(proxies.contains(address), expected);
        }
        check("none", "127.0.0.1", false);
        check("10.0.0.0/8", "10.255.255.255", true);
        check("10.0.0.0/8", "11.0.0.0", false);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("10.0.0.0/8", "::10.1.2.3", false);
        check("192.0.2.1", "192.0.2.1", true);
        check("192.0.2.1", "192.0.2.0", false);
        check("0.0.0.0/0", "203.0.113.9", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("::/0", "192.0.2.1", false);
        check("::1,fd00::/8", "fdff::1", true);
        check("::1,fd00::/8", "fe00::", false);
    }

    const PROXIES: &str = "10.0.0.0/8,fd00::/8";

    #[track_caller]
    fn check_from(peer: &str, lines: &str, expected: &str) {
        let bytes = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        let head = head::parse(bytes.as_bytes()).unwrap();
        let peer = peer.parse().unwrap();
        let address = client(&head, peer, &PROXIES.parse().unwrap());
        assert_eq!(address.to_string(), expected, "{lines}");
    }

    #[test]
    fn peers() {
        let lines = "X-Forwarded-For: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n";
        check_from("203.0.113.9", lines, "203.0.113.9");
        check_from("::ffff:203.0.113.9", lines, "203.0.113.9");
        check_from("10.0.0.1", lines, "192.0.2.1");
        check_from("::ffff:10.0.0.1", lines, "192.0.2.1");
        check_from("fd00::1", lines, "192.0.2.1");
        check_from("10.0.0.1", "", "10.0.0.1");
    }

    #[test]
    fn x_forwarded_for() {
        #[track_caller]
        fn check(values: &[&str], expected: &str) {
            let line = |value: &&str| format!("X-Forwarded-For: {value}\r\n");
            let lines: String = values.iter().map(line).collect();
            check_from("10.0.0.1", &lines, expected);
        }
        check(&["192.0.2.1"], "192.0.2.1");
        check(&["198.51.100.7, 192.0.2.1"], "192.0.2.1");
        check(&["198.51.100.7,192.0.2.1 ,\t10.0.0.2"], "192.0.2.1");
        check(&["198.51.100.7", "192.0.2.1", "10.0.0.2"], "192.0.2.1");
        check(&["198.51.100.7, 192.0.2.1", "", "10.0.0.2,,"], "192.0.2.1");
        check(&["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check(&["192.0.2.1:80"], "192.0.2.1");
        check(&["2001:db8::1"], "2001:db8::1");
        check(&["[2001:db8::1]"], "2001:db8::1");
        check(&["[2001:db8::1]:65535"], "2001:db8::1");
        check(&["::ffff:192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1");
        // The last one vouched for.
        check(&[""], "10.0.0.1");
        check(&["192.0.2.1, unknown"], "10.0.0.1");
        check(&["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2");
        check(&["192.0.2.1", "unknown", "10.0.0.2"], "10.0.0.2");
        for bad in [
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:123456",
            "192.0.2.1:8a",
            "192.0.2.1:_",
            "[192.0.2.1]",
            "[2001:db8::1",
            "[2001:db8::1]80",
            "2001:db8::1]",
            "fe80::1%1",
            "\"192.0.2.1\"",
            "192.0.2.1;a",
            "192.0.2.1 192.0.2.2",
            "\u{fc}",
        ] {
            check(&[bad], "10.0.0.1");
        }
    }

    #[test]
    fn forwarded() {
        #[track_caller]
        fn check(values: &[&str], expected: &str) {
            let line = |value: &&str| format!("Forwarded: {value}\r\n");
            let lines: String = values.iter().map(line).collect();
            check_from("10.0.0.1", &lines, expected);
        }
        check(&["for=192.0.2.1"], "192.0.2.1");
        check(&["For=\"192.0.2.1:4711\""], "192.0.2.1");
        check(&["for=\"192.0.2.1:_port-1\""], "192.0.2.1");
        check(&["proto=https; FOR=\"[2001:db8::1]\";by=_a"], "2001:db8::1");
        check(&["for=\"[2001:db8::1]:4711\""], "2001:db8::1");
        check(&["for=198.51.100.7, for=192.0.2.1"], "192.0.2.1");
        check(&["for=192.0.2.1, for=\"[fd00::2]\";by=a;;"], "192.0.2.1");
        check(&["for=192.0.2.1", "for=10.0.0.2,"], "192.0.2.1");
        check(&["for=192.0.2.1;by=\"a,b;for=\\\"c\\\\\""], "192.0.2.1");
        // The last one vouched for.
        check(&["for=192.0.2.1, for=unknown"], "10.0.0.1");
        check(&["for=192.0.2.1, for=_hidden, for=10.0.0.2"], "10.0.0.2");
        check(&["for=192.0.2.1, proto=https, for=10.0.0.2"], "10.0.0.2");
        for bad in [
            "",
            "192.0.2.1",
            "for=",
            "for",
            "for = 192.0.2.1",
            "for=\"192.0.2.1",
            "for=192.0.2.1\"",
            "for=\"192.0.2.\\1\"",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1;for=192.0.2.1",
            "for=192.0.2.1;by",
            "for=\"\"",
            "for=\"",
        ] {
            check(&[bad], "10.0.0.1");
        }
        // What a client leaves open ends before what the proxy appends.
        for open in ["for=\"", "for=1.1.1.1;by=\"", "for=1.1.1.1;by=\"\\"] {
            check(&[&format!("{open}, for=192.0.2.1")], "192.0.2.1");
            let appended = "for=\"[2001:db8::1]\";by=\"[fd00::1]\"";
            check(&[&format!("{open}, {appended}")], "2001:db8::1");
            check(&[&format!("{open}, for=10.0.0.2")], "10.0.0.2");
        }
    }

    #[test]
    fn both_fields() {
        let check = |x_forwarded_for: &str, expected| {
            let forwarded = "Forwarded: for=192.0.2.1\r\n";
            let other = format!("X-Forwarded-For: {x_forwarded_for}\r\n");
            check_from("10.0.0.1", &format!("{forwarded}{other}"), expected);
            check_from("10.0.0.1", &format!("{other}{forwarded}"), expected);
        };
        check("198.51.100.7, 192.0.2.1", "192.0.2.1");
        check("198.51.100.7", "10.0.0.1");
        check("unknown", "10.0.0.1");
    }
}
