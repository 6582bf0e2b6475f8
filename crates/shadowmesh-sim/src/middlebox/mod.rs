//! NATs and firewalls by their behaviour (RFC 4787), not by their brand.
//!
//! A [`Middlebox`] is pure: a packet's addresses and the world's time go in, the rewritten address or
//! a [`Refusal`] comes out, and all chance is drawn from the generator it is handed. It knows no
//! other box; the [world](crate::world) puts boxes into chains and moves datagrams through them.
//!
//! - *Mapping*: one outside endpoint for an inside one, or one for each remote address, or for each
//!   remote endpoint. Two inside endpoints never share an outside one.
//! - *Filtering*: whose datagrams come in through a mapping, in the same three degrees.
//! - *Ports* are preserved, consecutive or random. Parity is kept by nobody (RFC 4787, REQ-4, asks
//!   for it only where RTP pairs matter).
//! - *Hairpinning*, if on, shows the outside address of the sender (RFC 4787, REQ-9a) and filters
//!   like anything from outside.
//! - *Memory*: mappings and permissions to answer end when nothing refreshed them for a lifetime, or
//!   all at once when the box is rebooted.
//! - IPv6 is never translated; a stateful firewall looks at it, with the same table and the same
//!   degrees of filtering. The rule for UDP ("all", "none", "listed remotes") holds for both.
//!
//! Left out on purpose: pools of several outside addresses, fragments, ICMP errors, and TCP, which goes out
//! through any of them (`world/streams.rs`).

mod profile;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

pub use profile::{
    BoxProfile, Dependence, Firewall, Listed, Memory, Nat, NatKind, PortAllocation, Refresh,
    UdpRule,
};
use table::{Rules, Table};

/// Why a box let a datagram go no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The rule for UDP.
    Blocked,
    /// From outside to an endpoint that nobody inside has.
    NoMapping,
    /// From outside, from somebody who may not answer.
    Filtered,
    /// From inside to the box's own outside address, which it does not turn round.
    NoHairpin,
    /// No outside port, or no room in a table, is left.
    TableFull,
    /// The cable is out.
    Down,
}

/// A box in use.
#[derive(Debug)]
pub struct Middlebox {
    profile: BoxProfile,
    outside: Ipv4Addr,
    table: Table,
    up: bool,
    reboots: u64,
    refusals: BTreeMap<Refusal, u64>,
}

impl Middlebox {
    /// A box with that address outside (which it uses only if it translates) and empty tables.
    pub fn new(profile: BoxProfile, outside: Ipv4Addr, rng: &mut StdRng) -> Self {
        Self {
            profile,
            outside,
            table: Table::starting_after(rng.random()),
            up: true,
            reboots: 0,
            refusals: BTreeMap::new(),
        }
    }

    /// What it does.
    pub fn profile(&self) -> &BoxProfile {
        &self.profile
    }

    /// Its address outside.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// How many datagrams it refused for that reason.
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refusals.get(&why).copied().unwrap_or(0)
    }

    /// How many mappings are alive.
    pub fn mappings(&self, now: Duration) -> usize {
        let memory = |outside| {
            self.rules(outside)
                .map_or_else(Memory::default, |r| r.memory)
        };
        self.table.alive(memory, now)
    }

    /// Loses all mappings. Sequential ports go on from anywhere.
    pub fn reboot(&mut self, rng: &mut StdRng) {
        self.table = Table::starting_after(rng.random());
        self.reboots += 1;
    }

    /// How often it was rebooted.
    pub fn reboots(&self) -> u64 {
        self.reboots
    }

    /// Reboots with another address outside.
    pub fn renumber(&mut self, outside: Ipv4Addr, rng: &mut StdRng) {
        self.outside = outside;
        self.reboot(rng);
    }

    /// Plugs its cable in or out.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Whether its cable is in.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// A datagram goes out: the source address it has outside.
    ///
    /// # Errors
    /// When it goes no further.
    pub fn outbound(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        now: Duration,
        rng: &mut StdRng,
    ) -> Result<SocketAddr, Refusal> {
        let judged = self.judge_outbound(source, destination, now, rng);
        self.count(judged)
    }

    /// A datagram comes in from `remote` for `destination`: the inside address it is for.
    ///
    /// # Errors
    /// When it goes no further.
    pub fn inbound(
        &mut self,
        remote: SocketAddr,
        destination: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Refusal> {
        let judged = self.judge_inbound(remote, destination, now);
        self.count(judged)
    }

    /// Which inside endpoint `destination` leads to now, whoever writes to it.
    pub fn leads_to(&self, destination: SocketAddr, now: Duration) -> Option<SocketAddr> {
        match self.rules(destination) {
            Some(rules) if rules.nat.is_some() => self.table.peek(rules.memory, destination, now),
            _ => Some(destination),
        }
    }

    fn judge_outbound(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        now: Duration,
        rng: &mut StdRng,
    ) -> Result<SocketAddr, Refusal> {
        self.pass_rule(destination)?;
        let Self { profile, table, .. } = self;
        let Some(rules) = rules(profile, self.outside, source) else {
            return Ok(source);
        };
        if let Some((nat, outside)) = rules.nat
            && destination.ip() == outside
            && !nat.hairpin
        {
            return Err(Refusal::NoHairpin);
        }
        table.outbound(rules, source, destination, now, rng)
    }

    fn judge_inbound(
        &mut self,
        remote: SocketAddr,
        destination: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Refusal> {
        self.pass_rule(remote)?;
        let Self { profile, table, .. } = self;
        match rules(profile, self.outside, destination) {
            None => Ok(destination),
            Some(rules) => {
                let judged = table.inbound(rules, remote, destination, now);
                // Without translation the address is somebody's even if nothing went out.
                judged.map_err(|why| {
                    if rules.nat.is_some() {
                        why
                    } else {
                        Refusal::Filtered
                    }
                })
            }
        }
    }

    fn pass_rule(&self, remote: SocketAddr) -> Result<(), Refusal> {
        if !self.up {
            return Err(Refusal::Down);
        }
        if !self.profile.udp.passes(remote) {
            return Err(Refusal::Blocked);
        }
        Ok(())
    }

    fn rules(&self, ours: SocketAddr) -> Option<Rules<'_>> {
        rules(&self.profile, self.outside, ours)
    }

    fn count(&mut self, judged: Result<SocketAddr, Refusal>) -> Result<SocketAddr, Refusal> {
        if let Err(why) = judged {
            *self.refusals.entry(why).or_default() += 1;
        }
        judged
    }
}

/// The rules for a datagram of which this is the address on our side; `None`: it just passes.
fn rules(profile: &BoxProfile, outside: Ipv4Addr, ours: SocketAddr) -> Option<Rules<'_>> {
    match (&profile.nat, profile.firewall) {
        (Some(nat), _) if profile.translates(ours.ip()) => Some(Rules {
            mapping: nat.mapping,
            filtering: nat.filtering,
            memory: nat.memory,
            nat: Some((nat, IpAddr::V4(outside))),
        }),
        (_, Some(firewall)) => Some(Rules {
            mapping: Dependence::EndpointIndependent,
            filtering: firewall.filtering,
            memory: firewall.memory,
            nat: None,
        }),
        (_, None) => None,
    }
}
