//! Written words into checked values, with errors that say what is valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use shadowmesh_io::tun::{NAME_LEN_MAX, QUEUES_MAX};
use shadowmesh_io::web::{UrlError, WebUrl};
use shadowmesh_net::{DataPlane, REKEY_INTERVAL_MAX, REKEY_INTERVAL_MIN};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::traffic_class::OuterDscp;
use shadowmesh_wire::way::Way;

use super::layers::Item;
use super::origin::Problem;
use super::schema::{Key, Section};
use super::{CipherChoice, DeviceMode, Offload, OverlayAddress, ProxyChoice, Queues, WebUse};

/// The range of `mtu`: what IPv6 demands (RFC 8200 §5) to what a jumbo frame carries.
pub const MTU: RangeInclusive<u16> = 1280..=9000;
/// As a DNS label (RFC 1035 §2.3.4), because names will be looked up one day.
const PEER_NAME_LEN_MAX: usize = 63;

/// A key with the section it stands in: what an error about its value names.
#[derive(Clone, Copy)]
pub struct Place {
    /// section
    pub section: &'static Section,
    /// key
    pub key: &'static Key,
}

impl Place {
    /// `item` is wrong because of `why`.
    pub fn wrong(&self, item: &Item, why: impl std::fmt::Display) -> Problem {
        let what = format!("wrong value `{}` for `{}`: {why}", item.text, self.name());
        Problem::new(&item.origin, what).note(format!("expected {}", self.key.expects))
    }

    /// The same without repeating what was written, which may be a secret.
    pub fn wrong_unsaid(&self, item: &Item, why: impl std::fmt::Display) -> Problem {
        let what = format!("wrong value for `{}`: {why}", self.name());
        Problem::new(&item.origin.blotted(), what).note(format!("expected {}", self.key.expects))
    }

    /// `section.key`
    pub fn name(&self) -> String {
        format!("{}.{}", self.section.name, self.key.name)
    }
}

/// `192.0.2.7:4433`, `[2001:db8::7]:4433`
pub fn socket_address(place: Place, item: &Item) -> Result<SocketAddr, Problem> {
    if let Ok(address) = item.text.parse::<SocketAddr>() {
        if Way::of(address).is_udp() {
            return Ok(address);
        }
        return Err(place.wrong(
            item,
            "100::/64 is for discarding only (RFC 6666): nobody is there",
        ));
    }
    let why = if let Some((ip, port)) = ipv6_without_brackets(&item.text) {
        format!("an IPv6 address with a port needs brackets; write [{ip}]:{port}")
    } else if item.text.parse::<Ipv6Addr>().is_ok() {
        format!("no port; write [{}]:4433", item.text)
    } else if item.text.parse::<IpAddr>().is_ok() {
        format!("no port; write {}:4433", item.text)
    } else if item.text.chars().any(|c| c.is_ascii_alphabetic()) && !item.text.contains('[') {
        "not an IP address with port (host names are not looked up)".into()
    } else {
        "not an IP address with port".into()
    };
    Err(place.wrong(item, why))
}

/// `2001:db8::7:4433`, which is an IPv6 address too, but hardly meant as one: ports have four digits
/// or five, and what remains is whole without them.
fn ipv6_without_brackets(text: &str) -> Option<(Ipv6Addr, u16)> {
    let (ip, port) = text.rsplit_once(':')?;
    let port = Some(port).filter(|port| port.len() >= 4)?.parse().ok()?;
    Some((ip.parse().ok()?, port))
}

/// `10.100.1.5/16`; without a length the address stands alone.
pub fn overlay_address(place: Place, item: &Item) -> Result<OverlayAddress, Problem> {
    let (ip, length) = match item.text.split_once('/') {
        Some((ip, length)) => (ip, Some(length)),
        None => (item.text.as_str(), None),
    };
    let ip: IpAddr = ip
        .parse()
        .map_err(|_| place.wrong(item, "not an IP address"))?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(place.wrong(item, "not an address one machine can have"));
    }
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let prefix_len = match length {
        None => longest,
        Some(length) => match length.parse::<u8>() {
            Ok(length) if (1..=longest).contains(&length) => length,
            _ => {
                let why = format!("the length after the slash must be 1 to {longest}");
                return Err(place.wrong(item, why));
            }
        },
    };
    Ok(OverlayAddress { ip, prefix_len })
}

/// `10.100.1.6/32`; without a length one address is meant.
pub fn prefix(place: Place, item: &Item) -> Result<IpPrefix, Problem> {
    let text = match item.text.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => format!("{ip}/32"),
        Ok(IpAddr::V6(ip)) => format!("{ip}/128"),
        Err(_) => item.text.clone(),
    };
    text.parse().map_err(|error| place.wrong(item, error))
}

/// `sm1…`
pub fn peer_id(place: Place, item: &Item) -> Result<PeerId, Problem> {
    item.text.parse().map_err(|error| place.wrong(item, error))
}

/// `tun`
pub fn device_mode(place: Place, item: &Item) -> Result<DeviceMode, Problem> {
    match item.text.as_str() {
        "tun" => Ok(DeviceMode::Tun),
        _ => Err(place
            .wrong(item, "no such mode")
            .did_you_mean(&item.text, ["tun"])),
    }
}

/// What carries packets.
pub fn data_plane(place: Place, item: &Item) -> Result<DataPlane, Problem> {
    match item.text.as_str() {
        "auto" => Ok(DataPlane::Auto),
        "sealed" => Ok(DataPlane::Sealed),
        "quic" => Ok(DataPlane::Quic),
        _ => Err(place
            .wrong(item, "no such data plane")
            .did_you_mean(&item.text, ["auto", "sealed", "quic"])),
    }
}

/// `copy`, `hide`
pub fn outer_dscp(place: Place, item: &Item) -> Result<OuterDscp, Problem> {
    match item.text.as_str() {
        "copy" => Ok(OuterDscp::Copy),
        "hide" => Ok(OuterDscp::Hide),
        other => Err(place
            .wrong(item, "no such choice")
            .did_you_mean(other, ["copy", "hide"])),
    }
}

/// `auto`, `aes-256-gcm`, `chacha20-poly1305`
pub fn cipher(place: Place, item: &Item) -> Result<CipherChoice, Problem> {
    match item.text.as_str() {
        "auto" => Ok(CipherChoice::Auto),
        "aes-256-gcm" => Ok(CipherChoice::Aes256Gcm),
        "chacha20-poly1305" => Ok(CipherChoice::ChaCha20Poly1305),
        other => {
            let known = ["auto", "aes-256-gcm", "chacha20-poly1305"];
            Err(place
                .wrong(item, "no such cipher")
                .did_you_mean(other, known))
        }
    }
}

/// 1280 to 9000
pub fn mtu(place: Place, item: &Item) -> Result<u16, Problem> {
    match item.text.parse::<u16>() {
        Ok(mtu) if MTU.contains(&mtu) => Ok(mtu),
        Ok(_) => Err(place.wrong(item, "out of range")),
        Err(_) => Err(place.wrong(item, "not a number in range")),
    }
}

/// `auto`, 1 to 16
pub fn queues(place: Place, item: &Item) -> Result<Queues, Problem> {
    match (item.text.as_str(), item.text.parse::<usize>()) {
        ("auto", _) => Ok(Queues::Auto),
        (_, Ok(queues)) if (1..=QUEUES_MAX).contains(&queues) => Ok(Queues::Number(queues)),
        (_, Ok(_)) => Err(place.wrong(item, "out of range")),
        (_, Err(_)) => Err(place.wrong(item, "not a number in range")),
    }
}

/// `auto`, `off`
pub fn offload(place: Place, item: &Item) -> Result<Offload, Problem> {
    match item.text.as_str() {
        "auto" => Ok(Offload::Auto),
        "off" => Ok(Offload::Off),
        other => Err(place
            .wrong(item, "no such choice")
            .did_you_mean(other, ["auto", "off"])),
    }
}

/// 10 s to 60 min
// PROTOCOL SM-EP-4
pub fn rekey_interval(place: Place, item: &Item) -> Result<Duration, Problem> {
    let interval = parse_duration(&item.text).map_err(|why| place.wrong(item, why))?;
    if !(REKEY_INTERVAL_MIN..=REKEY_INTERVAL_MAX).contains(&interval) {
        return Err(place.wrong(item, "out of range"));
    }
    Ok(interval)
}

/// 1 s to 60 min: more often would be a flood towards peers that cannot answer.
pub fn retry_interval(place: Place, item: &Item) -> Result<Duration, Problem> {
    duration_within(
        place,
        item,
        Duration::from_secs(1)..=Duration::from_secs(3600),
    )
}

/// 1 s to 10 min
pub fn health_check_interval(place: Place, item: &Item) -> Result<Duration, Problem> {
    duration_within(
        place,
        item,
        Duration::from_secs(1)..=Duration::from_secs(600),
    )
}

/// 500 ms to 60 s: a round trip around the world takes half a second at worst.
pub fn connect_timeout(place: Place, item: &Item) -> Result<Duration, Problem> {
    duration_within(
        place,
        item,
        Duration::from_millis(500)..=Duration::from_secs(60),
    )
}

fn duration_within(
    place: Place,
    item: &Item,
    range: RangeInclusive<Duration>,
) -> Result<Duration, Problem> {
    let duration = parse_duration(&item.text).map_err(|why| place.wrong(item, why))?;
    if !range.contains(&duration) {
        return Err(place.wrong(item, "out of range"));
    }
    Ok(duration)
}

/// `true`, `false`
pub fn switch(place: Place, item: &Item) -> Result<bool, Problem> {
    item.text
        .parse()
        .map_err(|_| place.wrong(item, "neither of the two"))
}

/// 1 to 10000
pub fn clients_max(place: Place, item: &Item) -> Result<usize, Problem> {
    number_within(place, item, 1..=10_000)
}

/// 1 to 100000
pub fn client_mbit(place: Place, item: &Item) -> Result<u64, Problem> {
    number_within(place, item, 1..=100_000)
}

fn number_within<T: std::str::FromStr + PartialOrd>(
    place: Place,
    item: &Item,
    range: RangeInclusive<T>,
) -> Result<T, Problem> {
    match item.text.parse::<T>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(_) => Err(place.wrong(item, "out of range")),
        Err(_) => Err(place.wrong(item, "not a number in range")),
    }
}

/// `127.0.0.1:9464`; a port alone is one of this machine only; nothing is nowhere.
pub fn metrics_listen(place: Place, item: &Item) -> Result<Option<SocketAddr>, Problem> {
    if item.text.is_empty() {
        return Ok(None);
    }
    match item.text.trim_start_matches(':').parse::<u16>() {
        Ok(port) => Ok(Some((Ipv4Addr::LOCALHOST, port).into())),
        Err(_) => socket_address(place, item).map(Some),
    }
}

/// `203.0.113.5:4433`: where somebody can send a datagram to. A private one may be right, too: behind
/// the same provider, or in the same company.
pub fn announced(place: Place, item: &Item) -> Result<SocketAddr, Problem> {
    let address = socket_address(place, item)?;
    let ip = address.ip().to_canonical();
    let is_broadcast = ip == IpAddr::V4(Ipv4Addr::BROADCAST);
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        return Err(place.wrong(item, "no datagram can be sent there"));
    }
    if ip.is_loopback() {
        return Err(place.wrong(item, "that is every machine itself"));
    }
    Ok(SocketAddr::new(ip, address.port()))
}

/// `https://relay.example`, `https://192.0.2.7:8443`, `https://[2001:db8::7]`
pub fn web_address(place: Place, item: &Item) -> Result<WebUrl, Problem> {
    item.text.parse().map_err(|error| place.wrong(item, error))
}

/// `http://proxy:3128`, `none`, or nothing
pub fn web_proxy(place: Place, item: &Item) -> Result<ProxyChoice, Problem> {
    match item.text.as_str() {
        "" => Ok(ProxyChoice::Environment),
        "none" => Ok(ProxyChoice::Direct),
        url => url
            .parse()
            .map(ProxyChoice::Proxy)
            .map_err(|error: UrlError| place.wrong_unsaid(item, error)),
    }
}

/// `auto`, `always`, `never`
pub fn web_use(place: Place, item: &Item) -> Result<WebUse, Problem> {
    let all = [WebUse::Auto, WebUse::Always, WebUse::Never];
    let found = all.into_iter().find(|usage| usage.as_str() == item.text);
    found.ok_or_else(|| {
        place
            .wrong(item, "no such choice")
            .did_you_mean(&item.text, all.map(WebUse::as_str))
    })
}

/// A name the kernel takes for a device.
pub fn device_name(place: Place, item: &Item) -> Result<String, Problem> {
    name(place, item, NAME_LEN_MAX)
}

/// What people call a peer. It must not look like an address or id, or `ping` could not tell; nor be
/// the one word that `bench` takes for itself.
pub fn peer_name(place: Place, item: &Item) -> Result<String, Problem> {
    if item.text.parse::<IpAddr>().is_ok() || item.text.starts_with("sm1") {
        return Err(place.wrong(item, "looks like an address or a PeerId"));
    }
    if item.text == "handshake" {
        return Err(place.wrong(item, "`bench handshake` measures something else"));
    }
    name(place, item, PEER_NAME_LEN_MAX)
}

fn name(place: Place, item: &Item, len_max: usize) -> Result<String, Problem> {
    let fits = (1..=len_max).contains(&item.text.len());
    let plain = item
        .text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !fits {
        return Err(place.wrong(item, format!("must have 1 to {len_max} characters")));
    }
    if !plain || item.text == "." || item.text == ".." {
        return Err(place.wrong(item, "has characters that are not allowed"));
    }
    Ok(item.text.clone())
}

/// `90s`, `2m`, `1m30s`, `1h`, `250ms`: numbers with units, largest first by habit only.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("empty".into());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number
            .parse()
            .map_err(|_| "not a time such as 90s or 2m".to_string())?;
        let unit_ms = match unit.trim() {
            "ms" => 1,
            "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "" if number == 0 => return Err("no unit; write 0s".into()),
            "" => return Err(format!("no unit; write {number}s, {number}m or {number}h")),
            other => return Err(format!("unknown unit `{other}`; units are ms, s, m, h")),
        };
        let part = number.checked_mul(unit_ms).ok_or("too long")?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or("too long")?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("2m"), Ok(120.0));
        assert_eq!(seconds("1m30s"), Ok(90.0));
        assert_eq!(seconds("1h"), Ok(3600.0));
        assert_eq!(seconds("250ms"), Ok(0.25));
        assert_eq!(seconds("30"), Err("no unit; write 30s, 30m or 30h".into()));
        assert!(
            seconds("2 days")
                .unwrap_err()
                .contains("unknown unit `days`")
        );
        assert!(seconds("").is_err());
        assert!(seconds("m").is_err());
        assert!(seconds("99999999999999999999h").is_err());
        assert!(seconds("9999999999999999999h").is_err());
    }
}
