//! What the facts say of the network around this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::Finding;
use super::facts::{Facts, UdpAnswer, observations, relay_name};
use super::host;
use crate::admin::report::{
    AddressKind, DeviceReport, DoctorReport, NodeReport, PathKind, PathReport, PeerState,
};
use crate::cli::addresses::is_public;
use crate::cli::output::{age, duration, micros, rtt, short_id};

/// What our own longest frame takes with the default `mtu`: paths that carry it never cut anything.
const PATH_MTU_FULL: usize = 1478;

/// What a NAT in front of this machine does, as far as others tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Nobody has told.
    Unknown,
    /// There is none: others see an address of this host.
    Open(SocketAddr),
    /// One of them tells; the kind takes two.
    Behind(SocketAddr),
    /// Everybody sees the same.
    Same(SocketAddr),
    /// Everybody sees another port.
    Ports(IpAddr),
    /// Different addresses.
    Addresses,
}

impl Mapping {
    /// By what is seen of us over IPv4, where NATs are; else over IPv6.
    pub fn of(report: &DoctorReport) -> Self {
        let all: Vec<SocketAddr> = observations(report).into_iter().map(|(_, at)| at).collect();
        let v4 = |at: &&SocketAddr| at.is_ipv4();
        let mut seen: Vec<SocketAddr> = all.iter().filter(v4).copied().collect();
        if seen.is_empty() {
            seen = all;
        }
        let Some(first) = seen.first().copied() else {
            return Self::Unknown;
        };
        let own = report.node.candidates.iter();
        let mut own = own.filter(|own| own.kind == AddressKind::Host);
        let ips: BTreeSet<IpAddr> = seen.iter().map(SocketAddr::ip).collect();
        let ports: BTreeSet<u16> = seen.iter().map(SocketAddr::port).collect();
        if own.any(|own| own.address.ip() == first.ip()) {
            Self::Open(first)
        } else if seen.len() == 1 {
            Self::Behind(first)
        } else if ips.len() > 1 {
            Self::Addresses
        } else if ports.len() > 1 {
            Self::Ports(first.ip())
        } else {
            Self::Same(first)
        }
    }
}

/// All of them, from the inside out.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    if let Some(report) = &facts.node
        && report.node.only_relays()
    {
        let mut found = vec![relaying(&report.node), public_address(&report.node)];
        found.extend(announced(facts, report));
        found.extend(notices(report));
        found.extend(clock(facts));
        return found;
    }
    let mut found = vec![node(facts)];
    found.extend(host::findings(&facts.host));
    found.extend(facts.node.iter().flat_map(callers));
    found.extend([udp(facts), ipv6(facts)]);
    if let Some(report) = &facts.node {
        found.extend(device(&report.node.device));
        let mapping = Mapping::of(report);
        found.push(address(&mapping));
        found.extend(port_mapping(facts, report, &mapping));
        found.extend(hairpin(facts));
        found.extend(announced(facts, report));
        found.extend(notices(report));
        found.extend(relays(facts, report));
        found.extend(path_mtu(report));
    }
    let has_relay = facts
        .node
        .as_ref()
        .is_some_and(|report| !report.node.relays.is_empty());
    if facts.config.relay.uses.is_empty() && !has_relay {
        let says = "none: two machines behind NATs that let nobody in do not reach each other";
        let next =
            "run `shadowmesh relay` on a machine that everybody reaches, and add what it prints";
        found.push(Finding::note("relays", says).next(next));
    }
    found.extend(web(facts));
    found.extend(clock(facts));
    found
}

fn node(facts: &Facts) -> Finding {
    match &facts.node {
        Some(report) => Finding::ok(
            "node",
            format!(
                "runs for {}, {} of {} peers connected",
                duration(Duration::from_millis(report.node.uptime_ms)),
                report.node.peers_up,
                report.node.peers_total
            ),
        ),
        None if facts.node_is_locked => Finding::note(
            "node",
            "one is running, and this user may not ask it; what only it knows is left out",
        )
        .next("ask as the user who runs it (sudo shadowmesh doctor)"),
        None => Finding::bad(
            "node",
            format!(
                "none is running with state directory {}; what only it knows is left out",
                facts.config.node.state_dir.display()
            ),
        )
        .next(match !host::findings(&facts.host).is_empty() {
            true => "mend what stands below, start it (`sudo shadowmesh up`), and ask again",
            false => "start it (`sudo shadowmesh up`), give it some seconds, and ask again",
        }),
    }
}

/// Whether the device is as it was set, and what of it the host's own networks leave.
fn device(device: &DeviceReport) -> Vec<Finding> {
    const ABOUT: &str = "device";
    let mut found = Vec::new();
    if let Some(problem) = &device.problem {
        let next = "find the program that changes it (NetworkManager, systemd-networkd, firewalld and such \
                    can be told to leave it alone); a restart of the node sets everything again";
        found.push(Finding::bad(ABOUT, problem).next(next));
    }
    for clash in device.clashes.iter().filter(|clash| clash.is_loss) {
        let says = &clash.says;
        let finding = match device.addresses.is_empty() {
            true => Finding::bad(ABOUT, says),
            false => Finding::note(ABOUT, says),
        };
        found.push(finding.next(&clash.next));
    }
    if found.is_empty() && !device.name.is_empty() {
        let has = format!("{} has {}", device.name, device.addresses.join(", "));
        found.push(Finding::ok(ABOUT, has));
    }
    found
}

/// Who was refused here: half of a pair that does not meet is seen on this side only.
fn callers(report: &DoctorReport) -> Vec<Finding> {
    let callers = report.node.refused_callers.iter().take(1).map(|caller| {
        let says = format!(
            "{} called {} ago from {} and was refused: no [[peer]] here has its PeerId",
            short_id(&caller.id),
            age(caller.age_ms),
            caller.address
        );
        Finding::note("callers", says)
            .next("if it is one of your machines, add this here, and start this node again:")
            .block(format!("[[peer]]\nid = \"{}\"", caller.id))
    });
    callers.collect()
}

fn relaying(node: &NodeReport) -> Finding {
    let clients = node.relaying.unwrap_or_default().clients;
    let time = duration(Duration::from_millis(node.uptime_ms));
    Finding::ok(
        "relay",
        format!("runs for {time} and has {clients} clients"),
    )
}

/// Whether others can reach a relay: it has nobody to ask.
fn public_address(node: &NodeReport) -> Finding {
    let mut own = node.candidates.iter().map(|known| known.address);
    match own.find(|address| is_public(address.ip())) {
        Some(public) => Finding::ok("address", format!("{public} is public")),
        None => Finding::note("address", "none of this machine's own is public")
            .next("let the router pass its UDP port on to it, and write the router's address in [[relay.use]]"),
    }
}

fn udp(facts: &Facts) -> Finding {
    let answered = facts.udp.iter().filter_map(|q| Some((q, q.took?)));
    let by_session = facts.node.iter().flat_map(|report| {
        let peers = report.peers.iter().filter_map(|peer| peer.path.as_ref());
        let relays = report.node.relays.iter();
        peers.chain(relays.filter_map(|relay| relay.path.as_ref()))
    });
    let mut by_session = by_session.filter(|path| path.kind == PathKind::Direct);
    if let Some((first, _)) = answered.min_by_key(|(_, took)| *took) {
        let says = format!(
            "passes: a node answers at {}, the address of {}",
            first.address, first.whom
        );
        return Finding::ok("UDP", says);
    }
    if let Some(remote) = by_session.find_map(|path| path.remote) {
        return Finding::ok(
            "UDP",
            format!("passes: the session with {remote} is direct"),
        );
    }
    let asked: Vec<&UdpAnswer> = facts.udp.iter().filter(|answer| !answer.is_guess).collect();
    if asked.is_empty() {
        let says = "unknown: neither a peer nor a relay has an address that could be asked";
        let next = "give a [[peer]] its address, or add a [[relay.use]]";
        return Finding::note("UDP", says).next(next);
    }
    let none = format!(
        "none of {} addresses of peers and relays answers",
        asked.len()
    );
    let web_passes = facts.web.iter().any(|web| web.opened.is_ok());
    if !facts.ways_out.iter().any(|way| way.route) {
        return Finding::bad("UDP", format!("{none}: this machine has no way out at all"))
            .next("bring its network up: there is no default route");
    }
    if web_passes {
        return Finding::bad(
            "UDP",
            format!("{none}, but TCP passes: this network blocks UDP"),
        )
        .next("nothing, if `[web] use` is \"auto\": streams carry everything, somewhat slower");
    }
    // Somebody said why: then it stands with the peer, and UDP itself may well pass.
    if asked
        .iter()
        .any(|answer| answer.is_closed || answer.is_unreachable)
    {
        return Finding::note("UDP", none).next("what is known of each stands with it below");
    }
    let asked: Vec<String> = asked
        .iter()
        .map(|answer| answer.address.to_string())
        .collect();
    Finding::bad("UDP", none).next(format!(
        "are they running, and does the firewall there let UDP in at {}? where UDP is blocked here, a relay with \
         `web` helps",
        asked.join(", ")
    ))
}

fn ipv6(facts: &Facts) -> Finding {
    let way = facts.ways_out[1];
    match (way.public, way.route) {
        (true, true) => Finding::ok(
            "IPv6",
            "a public address and a way out: no NAT stands between",
        ),
        (_, true) => Finding::note("IPv6", "a way out, but no public address"),
        (_, false) => Finding::note(
            "IPv6",
            "no way out; with IPv6 on both sides no NAT would matter",
        ),
    }
}

fn address(mapping: &Mapping) -> Finding {
    const ABOUT: &str = "NAT";
    match mapping {
        Mapping::Unknown => Finding::note(ABOUT, "unknown: no peer or relay is reached straight by UDP")
            .next("with a [[relay.use]] this node learns how it looks from outside"),
        Mapping::Open(at) => Finding::ok(ABOUT, format!("none: others see {at}, which is this machine's own")),
        Mapping::Behind(at) => Finding::note(
            ABOUT,
            format!("there is one: seen from outside as {at}; only one tells, so its kind is unknown"),
        )
        .next("a relay whose firewall lets the UDP port after its own in too would tell, or a second relay"),
        Mapping::Same(at) => Finding::ok(
            ABOUT,
            format!("a kind one: everybody sees {at}, so direct paths can be punched through"),
        ),
        Mapping::Ports(ip) => Finding::note(
            ABOUT,
            format!(
                "a symmetric one: {ip}, with another port for everybody; direct paths take luck, and to \
                 others of this kind more of it"
            ),
        )
        .next("forward UDP 4433 in the router, switch on UPnP or NAT-PMP there, or use IPv6"),
        Mapping::Addresses => Finding::note(
            ABOUT,
            "others see different addresses: several ways out, or a provider's NAT with many addresses",
        )
        .next("IPv6, or a relay near by"),
    }
}

fn port_mapping(facts: &Facts, report: &DoctorReport, mapping: &Mapping) -> Option<Finding> {
    const ABOUT: &str = "port mapping";
    let mapped = report.node.candidates.iter();
    if let Some(mapped) = mapped
        .into_iter()
        .find(|own| own.kind == AddressKind::Mapped)
    {
        return Some(Finding::ok(
            ABOUT,
            format!("the router leads {} here", mapped.address),
        ));
    }
    if matches!(mapping, Mapping::Open(_) | Mapping::Unknown) {
        return None;
    }
    Some(if facts.config.paths.port_mapping {
        Finding::note(
            ABOUT,
            "the router gives none (UPnP-IGD, NAT-PMP and PCP were tried)",
        )
        .next("switch one of them on in the router, or forward UDP 4433 to this machine")
    } else {
        Finding::note(ABOUT, "not asked for: paths.port_mapping is false")
            .next("set it to true, if the router may be asked")
    })
}

fn hairpin(facts: &Facts) -> Option<Finding> {
    const ABOUT: &str = "hairpin";
    match facts.hairpin? {
        true => Some(Finding::ok(
            ABOUT,
            "the router leads what is sent to our outside address back in",
        )),
        false => Some(Finding::note(
            ABOUT,
            "the router does not lead our outside address back in; machines behind it meet by LAN \
             discovery or their inner addresses",
        )),
    }
}

/// Each announced address, as far as somebody can tell. Nobody asks it from outside: what tells is who sees
/// us there, and whether the way back in from here is open.
// PROTOCOL SM-PA-15
fn announced(facts: &Facts, report: &DoctorReport) -> Vec<Finding> {
    const ABOUT: &str = "announced";
    let seen: BTreeSet<SocketAddr> = observations(report).into_iter().map(|(_, at)| at).collect();
    let judge = |announced: &SocketAddr| {
        let answers = |q: &&super::facts::UdpAnswer| q.address == *announced && q.took.is_some();
        if seen.contains(announced) {
            return Finding::ok(ABOUT, format!("{announced}: others see this node there"));
        }
        if facts.announced.iter().any(|q| answers(&q)) {
            return Finding::ok(
                ABOUT,
                format!("{announced}: a node answers there, asked from this machine"),
            );
        }
        let family = |at: &&SocketAddr| at.is_ipv4() == announced.is_ipv4();
        let mut others = seen.iter().filter(family);
        let elsewhere = others.find(|at| at.ip() != announced.ip());
        let next = "let the router pass that UDP port on to this machine, and look with `shadowmesh peers` \
                    on a peer outside whether it comes straight";
        match elsewhere {
            Some(at) => Finding::note(
                ABOUT,
                format!("{announced}: others see this node at {}; is the address still yours?", at.ip()),
            )
            .next("correct node.announce, if it is not"),
            None => Finding::note(
                ABOUT,
                format!("{announced}: nobody sees this node there, so nobody can tell whether it leads here"),
            )
            .next(next),
        }
    };
    facts.config.node.announce.iter().map(judge).collect()
}

fn notices(report: &DoctorReport) -> Vec<Finding> {
    let all = report.node.notices.iter();
    all.map(|notice| Finding::note("notice", notice.clone()))
        .collect()
}

fn relays(facts: &Facts, report: &DoctorReport) -> Vec<Finding> {
    let up = report.node.relays.iter();
    let any_up = up.clone().any(|relay| relay.state == PeerState::Up);
    up.map(|relay| {
        let about = relay_name(&relay.id, relay.name.as_deref());
        match (&relay.path, relay.state) {
            (Some(path), _) => Finding::ok(about, format!("connected, {}", way(path))),
            (None, PeerState::Idle) if any_up => {
                Finding::ok(about, "in reserve: others are in use")
            }
            (None, _) => {
                let why = relay.problem.as_deref().unwrap_or("no answer yet");
                let next = relay_advice(facts, &relay.id);
                match any_up {
                    true => Finding::note(about, format!("not connected: {why}")).next(next),
                    false => Finding::bad(about, format!("not connected: {why}")).next(next),
                }
            }
        }
    })
    .collect()
}

/// What to look at where a relay is not reached, with the addresses that the configuration has of it.
fn relay_advice(facts: &Facts, id: &str) -> String {
    let configured = facts.config.relay.uses.iter();
    let mut configured = configured.filter(|relay| relay.id.to_string() == id);
    let addresses = configured.next().map_or(&[][..], |relay| &relay.addresses);
    let asked = |address: &&SocketAddr| {
        facts
            .udp
            .iter()
            .any(|q| q.address == **address && q.took.is_some())
    };
    if let Some(answers) = addresses.iter().find(asked) {
        return format!(
            "a node answers at {answers}: is the `id` in this [[relay.use]] the one that it prints?"
        );
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!(
        "is it running, is its address right, and does its firewall let UDP in at {}?",
        addresses.join(", ")
    )
}

/// `direct 192.0.2.7:4433, 12.345 ms`
pub fn way(path: &PathReport) -> String {
    let text = crate::cli::peers::path_text(path);
    match path.rtt_us {
        Some(us) => format!("{text}, {}", rtt(us)),
        None => text,
    }
}

fn path_mtu(report: &DoctorReport) -> Option<Finding> {
    let known = report.peers.iter().filter_map(|peer| {
        let mtu = peer.path.as_ref()?.mtu?;
        Some((mtu, peer.name.clone().unwrap_or_else(|| peer.id.clone())))
    });
    let (mtu, whom) = known.min()?;
    Some(match mtu {
        PATH_MTU_FULL.. => Finding::ok("MTU", format!("every path carries {mtu} bytes or more")),
        _ => Finding::note(
            "MTU",
            format!(
                "the path to {whom} carries {mtu} bytes; longer packets go in pieces, nothing is lost"
            ),
        ),
    })
}

fn web(facts: &Facts) -> Vec<Finding> {
    let through = match &facts.proxy {
        Some(proxy) => format!(" through {proxy}"),
        None => String::new(),
    };
    let answers = facts.web.iter().map(|web| match &web.opened {
        Ok(took) => Finding::ok(
            "web",
            format!(
                "{} answers at {}{through} after {}",
                web.whom,
                web.url,
                rtt(micros(*took))
            ),
        ),
        Err(error) => Finding::note(
            "web",
            format!("{} at {}{through}: {error}", web.whom, web.url),
        )
        .next(
            "is [web] listen set there, and TCP let in? behind a company's proxy set HTTPS_PROXY",
        ),
    });
    let mut found: Vec<Finding> = answers.collect();
    if found.is_empty() {
        found.push(Finding::note(
            "web",
            "no peer or relay has `web`: where UDP is blocked nobody could be reached",
        ));
    }
    found
}

fn clock(facts: &Facts) -> Option<Finding> {
    let behind = facts.clock_behind?;
    let says = format!(
        "{} behind the time when this node's identity was written",
        duration(behind)
    );
    Some(
        Finding::bad("clock", says)
            .next("set it, by NTP best: certificates and tokens depend on it"),
    )
}
