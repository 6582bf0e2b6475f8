//! What a middlebox remembers: which inside endpoint uses which outside one, and who may answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::Refusal;
use super::profile::{Dependence, Memory, Nat, PortAllocation, Refresh, Scope};

/// Remotes that may answer through one mapping; a table entry each, as in a real box.
const PERMITS_MAX: usize = 4096;
/// Mappings of a firewall, which has no ports that run out.
const FLOWS_MAX: usize = 65_536;

/// An inside endpoint, and the remote as far as the mapping depends on it.
type Key = (SocketAddr, Scope);

#[derive(Debug, Default)]
pub(super) struct Table {
    /// Limit: one for each outside endpoint, so the ports of a NAT, [`FLOWS_MAX`] of a firewall.
    mappings: BTreeMap<Key, Mapping>,
    /// The other direction; always as long as `mappings`. A firewall, which maps every endpoint to
    /// itself, maps independently of the remote, so outside endpoints are unique there too.
    by_outside: BTreeMap<SocketAddr, Key>,
    /// The last port given by sequential allocation.
    last_port: u16,
}

#[derive(Debug)]
struct Mapping {
    outside: SocketAddr,
    refreshed: Duration,
    /// Who may answer, and when that was last refreshed. Limit: [`PERMITS_MAX`].
    permits: BTreeMap<Scope, Duration>,
}

/// The rules a packet is judged by: those of a NAT or those of a firewall.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    pub(super) mapping: Dependence,
    pub(super) filtering: Dependence,
    pub(super) memory: Memory,
    /// The NAT and its outside address; without, addresses stay as they are.
    pub(super) nat: Option<(&'a Nat, IpAddr)>,
}

impl Table {
    /// An empty table that gives its first sequential port after `last_port`.
    pub(super) fn starting_after(last_port: u16) -> Self {
        Self {
            last_port,
            ..Self::default()
        }
    }

    /// How many mappings are alive.
    pub(super) fn alive(&self, memory: impl Fn(SocketAddr) -> Memory, now: Duration) -> usize {
        let alive = |mapping: &&Mapping| is_fresh(mapping.refreshed, memory(mapping.outside), now);
        self.mappings.values().filter(alive).count()
    }

    /// A packet goes out: the address it has outside.
    pub(super) fn outbound(
        &mut self,
        rules: Rules<'_>,
        inside: SocketAddr,
        remote: SocketAddr,
        now: Duration,
        rng: &mut StdRng,
    ) -> Result<SocketAddr, Refusal> {
        let key = (inside, rules.mapping.scope(remote));
        let fresh = |mapping: &Mapping| is_fresh(mapping.refreshed, rules.memory, now);
        if !self.mappings.get(&key).is_some_and(fresh) {
            self.forget(&key);
            let outside = match rules.nat {
                Some((nat, ip)) => {
                    let port = self.free_port(nat, ip, inside.port(), rules.memory, now, rng);
                    SocketAddr::new(ip, port.ok_or(Refusal::TableFull)?)
                }
                None => self.room_for_flow(inside, rules.memory, now)?,
            };
            let mapping = Mapping {
                outside,
                refreshed: now,
                permits: BTreeMap::new(),
            };
            self.by_outside.insert(outside, key);
            self.mappings.insert(key, mapping);
        }
        let mapping = self.mappings.get_mut(&key).expect("found or made above");
        mapping.refreshed = now;
        mapping.permit(rules.filtering.scope(remote), rules.memory, now)?;
        Ok(mapping.outside)
    }

    /// A packet of `remote` comes in: the inside endpoint it is for.
    pub(super) fn inbound(
        &mut self,
        rules: Rules<'_>,
        remote: SocketAddr,
        outside: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Refusal> {
        let inside = self
            .peek(rules.memory, outside, now)
            .ok_or(Refusal::NoMapping)?;
        let mapping = (self.by_outside.get(&outside))
            .and_then(|key| self.mappings.get_mut(key))
            .expect("seen a moment ago");
        let scope = rules.filtering.scope(remote);
        let permit = mapping.permits.get_mut(&scope);
        let permit = permit
            .filter(|refreshed| is_fresh(**refreshed, rules.memory, now))
            .ok_or(Refusal::Filtered)?;
        if rules.memory.refresh == Refresh::BothWays {
            *permit = now;
            mapping.refreshed = now;
        }
        Ok(inside)
    }

    /// The inside endpoint behind an outside one, whoever asks.
    pub(super) fn peek(
        &self,
        memory: Memory,
        outside: SocketAddr,
        now: Duration,
    ) -> Option<SocketAddr> {
        let key = self.by_outside.get(&outside)?;
        is_fresh(self.mappings[key].refreshed, memory, now).then_some(key.0)
    }

    fn free_port(
        &mut self,
        nat: &Nat,
        ip: IpAddr,
        inside: u16,
        memory: Memory,
        now: Duration,
        rng: &mut StdRng,
    ) -> Option<u16> {
        let first = match nat.allocation {
            PortAllocation::Preserving => inside,
            PortAllocation::Sequential => self.last_port.wrapping_add(1),
            PortAllocation::Random => rng.random_range(nat.ports.clone()),
        };
        let port = round(&nat.ports, first).find(|port| {
            let outside = SocketAddr::new(ip, *port);
            let taken = self.peek(memory, outside, now).is_some();
            if !taken && let Some(key) = self.by_outside.get(&outside).copied() {
                self.forget(&key);
            }
            !taken
        })?;
        if nat.allocation == PortAllocation::Sequential {
            self.last_port = port;
        }
        Some(port)
    }

    fn room_for_flow(
        &mut self,
        inside: SocketAddr,
        memory: Memory,
        now: Duration,
    ) -> Result<SocketAddr, Refusal> {
        if self.mappings.len() >= FLOWS_MAX {
            self.mappings
                .retain(|_, mapping| is_fresh(mapping.refreshed, memory, now));
            let mappings = &self.mappings;
            self.by_outside.retain(|_, key| mappings.contains_key(key));
        }
        if self.mappings.len() >= FLOWS_MAX {
            return Err(Refusal::TableFull);
        }
        Ok(inside)
    }

    fn forget(&mut self, key: &Key) {
        if let Some(mapping) = self.mappings.remove(key) {
            self.by_outside.remove(&mapping.outside);
        }
    }
}

impl Mapping {
    fn permit(&mut self, scope: Scope, memory: Memory, now: Duration) -> Result<(), Refusal> {
        if self.permits.len() >= PERMITS_MAX && !self.permits.contains_key(&scope) {
            self.permits
                .retain(|_, refreshed| is_fresh(*refreshed, memory, now));
            if self.permits.len() >= PERMITS_MAX {
                return Err(Refusal::TableFull);
            }
        }
        self.permits.insert(scope, now);
        Ok(())
    }
}

fn is_fresh(refreshed: Duration, memory: Memory, now: Duration) -> bool {
    now < refreshed + memory.lifetime
}

/// All ports of the range once, from `first` (or, if it is outside, from the range's start) upwards
/// and round.
fn round(ports: &RangeInclusive<u16>, first: u16) -> impl Iterator<Item = u16> + use<> {
    let (start, end) = (*ports.start(), *ports.end());
    let first = if ports.contains(&first) { first } else { start };
    (first..=end).chain(start..first)
}
