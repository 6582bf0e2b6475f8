//! Where we and a peer may be reached, told to each other before both probe at the same time.
//!
//! Told end to end on the control stream, over whatever way that has, usually a relay. What a peer names
//! is limited and checked, and gets a bounded number of small probes: it cannot make us flood others.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::Rng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::{
    CANDIDATES_MAX, CandidateAddress, CandidateKind, Candidates, ControlMessage, Mapping,
};
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::way::Way;

use super::Net;
use crate::control::ConnKey;
use crate::drops::DropReason;
use crate::event::{AddressKind, canonical};
use crate::paths::{BirthdaySide, Origin, Path, Tier, Word, acceptable, agreed, aim, our_mapping};
use crate::peer::Role;

/// Limit: observers whose word counts. More know no more.
// PROTOCOL SM-PA-6
const OBSERVATIONS_MAX: usize = 8;

impl Net {
    /// Who sees us where, by UDP: members and relays of ours. Who only uses us as a relay is not asked.
    pub(super) fn observations(&self) -> impl Iterator<Item = (PeerId, SocketAddr)> + '_ {
        self.observers.iter().filter_map(|id| {
            let peer = self.peers.get(id)?;
            let asked = (peer.role != Role::Client).then_some(peer.primary?)?;
            let connection = self.control.connections.get(&asked)?;
            let direct = Way::of(connection.paths.current().remote).is_udp();
            let observed = connection.paths.observed.filter(|_| direct)?;
            Some((*id, observed))
        })
    }

    /// The same, and what relays say from their second ports.
    // PROTOCOL SM-RL-10
    fn words(&self) -> impl Iterator<Item = Word> + '_ {
        self.observations().flat_map(|(by, first)| {
            let primary = self.peers.get(&by).and_then(|peer| peer.primary);
            let connection = primary.and_then(|key| self.control.connections.get(&key));
            let second = connection.and_then(|connection| connection.paths.second.word());
            let said = [Some(first), second].into_iter().flatten();
            said.map(move |address| Word { by, address })
        })
    }

    /// How we are translated, as far as is known.
    pub(super) fn our_mapping(&self) -> Mapping {
        self.our_candidates(0).mapping
    }

    /// Where peers should look for us.
    // PROTOCOL SM-PA-6
    fn our_candidates(&self, round: u32) -> Candidates {
        let own = |kind: AddressKind| {
            let all = self.own_addresses.iter();
            all.filter(move |own| own.kind == kind)
                .map(|own| own.address)
        };
        // Who is in our own network sees us as we are, which says nothing of the way out.
        let tells = |address: &SocketAddr| {
            let host = own(AddressKind::Host).any(|own| own == *address);
            let tunnel = own(AddressKind::Tunnel).any(|own| own == *address);
            !tunnel && (!host || Tier::of(*address) == Tier::Direct)
        };
        let words = self.words();
        let words = words.filter(|word| tells(&word.address));
        let words: Vec<Word> = words.take(OBSERVATIONS_MAX).collect();
        let words = agreed(&words);
        let (mapping, predicted) = our_mapping(&words);
        let mut observed: Vec<SocketAddr> = words.iter().map(|word| word.address).collect();
        observed.sort_unstable();
        observed.dedup();
        let named = |kind, address| CandidateAddress { address, kind };
        let mut addresses: Vec<CandidateAddress> = Vec::new();
        // What was announced counts as mapped: nobody sees it, and it leads to us.
        let announced = own(AddressKind::Announced).map(|a| named(CandidateKind::Mapped, a));
        let observed = observed.into_iter();
        let all = announced
            .chain(observed.map(|address| named(CandidateKind::Observed, address)))
            .chain(own(AddressKind::Mapped).map(|a| named(CandidateKind::Mapped, a)))
            .chain(own(AddressKind::Host).map(|a| named(CandidateKind::Host, a)))
            .chain(
                predicted
                    .into_iter()
                    .map(|a| named(CandidateKind::Predicted, a)),
            )
            // Last: where there is no room for all, what leads through another VPN is missed least.
            .chain(own(AddressKind::Tunnel).map(|a| named(CandidateKind::Tunnel, a)));
        for candidate in all {
            if !addresses
                .iter()
                .any(|known| known.address == candidate.address)
            {
                addresses.push(candidate);
            }
        }
        addresses.truncate(CANDIDATES_MAX);
        Candidates {
            round,
            mapping,
            addresses,
        }
    }

    /// Whether looking for a better way than the session has may be worth anything.
    pub(super) fn wants_search(&self, key: ConnKey) -> bool {
        let tier = self.control.connections.get(&key).map(|c| c.paths.tier());
        // With a relay there is nothing to find: we were told where it is.
        self.is_of_member(key)
            && tier.is_some_and(|tier| {
                !tier.is_direct() || tier != Tier::Local && !self.own_addresses.is_empty()
            })
    }

    /// Whether this is the session of a member: only members search with each other. Relays and their
    /// clients are not told where we are.
    // PROTOCOL SM-PA-6
    pub(super) fn is_of_member(&self, key: ConnKey) -> bool {
        let id = self.control.connections.get(&key).and_then(|c| c.peer);
        id.is_some_and(|id| self.is_member(&id))
    }

    pub(super) fn is_member(&self, id: &PeerId) -> bool {
        let peer = self.peers.get(id);
        peer.is_some_and(|peer| peer.role == Role::Member)
    }

    /// Asks the peer of a session, if that is a member, to search with us, and begins with what is known.
    // PROTOCOL SM-PA-6
    pub(super) fn search(&mut self, key: ConnKey, now: Instant) {
        if !self.is_of_member(key) {
            return;
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.paths.round = connection.paths.round.saturating_add(1);
        let round = connection.paths.round;
        let ours = self.our_candidates(round);
        let said = ours.mapping;
        self.send_message(key, &ControlMessage::Candidates(ours), now);
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.paths.said = said;
            connection.paths.begin_search(now);
        }
    }

    /// The peer says where it may be reached. One that begins a search is answered, and both sides
    /// probe.
    // PROTOCOL SM-PA-6
    // PROTOCOL SM-PA-7
    pub(super) fn on_candidates(&mut self, key: ConnKey, theirs: Candidates, now: Instant) {
        // Where two connections crossed, it may have been said on the one that lost.
        let peer = self.control.connections.get(&key).and_then(|c| c.peer);
        let primary = peer.and_then(|peer| self.peers.get(&peer)?.primary);
        let Some(key) = primary else { return };
        // Between a relay and its client nobody looks for other ways, and a client is not told ours.
        if !self.is_of_member(key) {
            return;
        }
        let mut ways = Vec::new();
        for candidate in &theirs.addresses {
            let address = canonical(candidate.address);
            if self.accepts(address) {
                let origin = match candidate.kind {
                    CandidateKind::Predicted => Origin::Predicted,
                    _ => Origin::Told,
                };
                ways.push((Path::to(address), origin));
            }
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let paths = &mut connection.paths;
        if !paths.admit_round(now) || theirs.round < paths.round {
            return;
        }
        let asked = theirs.round > paths.round;
        paths.round = theirs.round;
        let (round, mapping) = (theirs.round, theirs.mapping);
        let seen = theirs.addresses.iter();
        let seen = seen.filter(|candidate| candidate.kind == CandidateKind::Observed);
        let seen: Vec<SocketAddr> = seen.map(|candidate| canonical(candidate.address)).collect();
        let said = paths.said;
        paths.told(theirs.clone(), &ways);
        if asked && self.waits_for_word(key, now) {
            return;
        }
        let ours = self.our_candidates(round);
        let side = aim(&seen).filter(|at| ways.iter().any(|(path, _)| path.remote == *at));
        // Both go by what they told each other, or one would guess alone.
        let said = if asked { ours.mapping } else { said };
        let side = side.and_then(|at| birthday(said, mapping, at));
        let side = side.filter(|side| self.may_play(*side, now));
        if asked {
            self.send_message(key, &ControlMessage::Candidates(ours), now);
        }
        let seed = self.rng.random();
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.paths.said = said;
            connection.paths.begin_search(now);
            if let Some(side) = side {
                connection.paths.play(side, seed, now);
            }
        }
        self.drive_paths(key, now);
    }

    /// Whether a game may be begun. Half of one would be in vain, and the peer would open its ports for it.
    // PROTOCOL SM-PA-9
    fn may_play(&mut self, side: BirthdaySide, now: Instant) -> bool {
        let (BirthdaySide::Guesses(at) | BirthdaySide::Sockets(at)) = side;
        let may = self.spending.has_game(at, now);
        if !may {
            self.drops.count(DropReason::GuessLimit);
        }
        may
    }

    /// A peer or a relay says where it sees us. A second word from it, or from somebody else, can show how
    /// we are translated. A client of ours has no part in this. What a relay says once more counts only where
    /// nothing is known, and seldom: it could change its mind with each message, and all peers are looked at
    /// then.
    // PROTOCOL SM-RL-5
    // PROTOCOL SM-PA-6
    pub(super) fn on_observed(&mut self, key: ConnKey, address: SocketAddr, now: Instant) {
        let accepted = self.accepts(address);
        if let Some(connection) = self.control.connections.get_mut(&key)
            && let Some(id) = connection.peer
            && let Some(peer) = self.peers.get(&id)
            && peer.role != Role::Client
            && accepted
        {
            let paths = &mut connection.paths;
            let before = paths.observed;
            if before != Some(address) {
                paths.second.begin_anew();
            }
            let counts = before != Some(address)
                && self.relays.contains(&id)
                && paths.admit_word(now)
                && (before.is_none() || self.our_mapping() == Mapping::Unknown);
            if let Some(connection) = self.control.connections.get_mut(&key) {
                connection.paths.observed = Some(address);
            }
            self.observers.insert(id);
            if counts {
                self.on_word(now);
            }
            self.ask_second(key, false, now);
        }
    }

    /// Whether to wait with a search: how we are translated is not known, and a relay that has not said
    /// yet where it sees us is about to. Once in a session, and not for long. Whoever searches before both
    /// sides know has nothing to aim at, and what it sends uses up the ports of a translation that counts.
    // PROTOCOL SM-PA-6
    pub(super) fn waits_for_word(&mut self, key: ConnKey, now: Instant) -> bool {
        let is_silent = |relay: PeerId| self.is_silent(&relay);
        let is_due = self.our_mapping() == Mapping::Unknown && self.relays.ids().any(is_silent);
        let connection = self.control.connections.get_mut(&key);
        is_due && connection.is_some_and(|connection| connection.paths.wait_for_word(now))
    }

    /// Whether a relay is about to say where it sees us, or to say it from its second port.
    // PROTOCOL SM-PA-6
    pub(super) fn is_silent(&self, relay: &PeerId) -> bool {
        let Some(peer) = self.peers.get(relay) else {
            return false;
        };
        let session = peer
            .primary
            .and_then(|key| self.control.connections.get(&key));
        match session {
            Some(session) => {
                let paths = &session.paths;
                let has_word = paths.observed.is_some() && !paths.second.is_awaited();
                !has_word && Way::of(paths.current().remote).is_udp()
            }
            None => peer.calls.is_under_way(),
        }
    }

    /// Another relay said where it sees us. If that tells how we are translated, those who were told that
    /// nobody knows, or nothing yet, search with us now.
    // PROTOCOL SM-PA-6
    pub(super) fn on_word(&mut self, now: Instant) {
        if self.our_mapping() == Mapping::Unknown {
            return;
        }
        let is_untold = |key: &ConnKey| {
            let connection = self.control.connections.get(key);
            connection.is_some_and(|connection| {
                let paths = &connection.paths;
                paths.said == Mapping::Unknown && !paths.tier().is_direct()
            })
        };
        let sessions = self.peers.values().filter_map(|peer| peer.primary);
        let keys: Vec<ConnKey> = sessions.filter(is_untold).collect();
        for key in keys {
            if self.wants_search(key) {
                self.search(key, now);
                self.drive_paths(key, now);
            }
        }
    }

    /// Whether an address that a peer names may be one: of ours, or a way to it.
    // PROTOCOL SM-PA-6
    pub(super) fn accepts(&self, address: SocketAddr) -> bool {
        let mut own = self.own_addresses.iter();
        let loopback = own.any(|own| own.address.ip().is_loopback());
        acceptable(address, loopback) && !self.in_overlay(address)
    }

    /// Whether a datagram to or from there would travel inside the tunnel, or would have to: then no way may
    /// lead there, or a session would carry itself. What is configured alone decides, and what the host
    /// reaches without the tunnel is none of it: the derived range is nothing special where it is not used.
    // PROTOCOL SM-PA-6
    pub(super) fn in_overlay(&self, address: SocketAddr) -> bool {
        let ip = address.ip();
        let overlay = &self.overlay;
        let we_are_in = |prefix: &IpPrefix| {
            let mut own = self.own_addresses.iter();
            own.any(|own| own.kind != AddressKind::Mapped && prefix.contains(own.address.ip()))
        };
        overlay.is_own(ip)
            || !overlay.apart
                && overlay
                    .peers
                    .iter()
                    .any(|prefix| overlay.holds(prefix, ip) && !we_are_in(prefix))
    }

    /// Whether a datagram came through the tunnel: it was sent to an address that is only there, or, where
    /// the host does not keep the two apart, from one.
    // PROTOCOL SM-PA-6
    pub(super) fn came_inside(&self, remote: SocketAddr, local_ip: Option<IpAddr>) -> bool {
        local_ip.is_some_and(|ip| self.overlay.is_own(ip))
            || !self.overlay.apart && self.in_overlay(remote)
    }

    /// What we know of ourselves changed: those who do not reach us straight may do so now.
    pub(super) fn search_for_all(&mut self, now: Instant) {
        for (_, key) in self.sessions() {
            if self.wants_search(key) {
                self.search(key, now);
                self.drive_paths(key, now);
            }
        }
    }
}

/// Who guesses at what, when both sides have said how they are translated.
// PROTOCOL SM-PA-8
fn birthday(ours: Mapping, theirs: Mapping, at: SocketAddr) -> Option<BirthdaySide> {
    match (ours, theirs) {
        (Mapping::Random, Mapping::Stable) => Some(BirthdaySide::Sockets(at)),
        (Mapping::Stable, Mapping::Random) => Some(BirthdaySide::Guesses(at)),
        _ => None,
    }
}
