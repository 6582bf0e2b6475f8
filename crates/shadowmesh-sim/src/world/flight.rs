//! A datagram's way from a host to another: out through boxes, over a link, in through boxes.

use std::net::SocketAddr;

use shadowmesh_wire::sealed;

use super::topology::{BoxId, Departure, Fate, Realm};
use super::{Happening, Passing, World};
use crate::ledger::HostId;
use crate::link::{Arrival, Link};
use crate::trace::TraceEvent;

/// The receiver in the trace of a datagram that, when it was sent, led to nobody.
const STRAY: usize = usize::MAX;

/// A datagram on a link.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    from: HostId,
    /// The network whose link it crosses, where both addresses mean something.
    realm: Realm,
    remote: SocketAddr,
    destination: SocketAddr,
    data: Vec<u8>,
    /// A link that is too short for it would cut it, and the receiver put it together.
    may_fragment: bool,
    /// The numbered packet that it carries, or a part of which.
    cargo: Option<u64>,
}

impl World {
    /// Through the boxes at the sender's end and onto the link.
    pub(super) fn dispatch(
        &mut self,
        from: HostId,
        (source, destination): (SocketAddr, SocketAddr),
        data: Vec<u8>,
        may_fragment: bool,
    ) {
        let cargo = self.cargo;
        let departed = self.depart(from, source, destination, data.len());
        let Some(Departure { realm, source }) = departed else {
            return self.lose(cargo);
        };
        let to = match self.topology.leads_to(realm, destination, self.now) {
            Some((host, endpoint)) if self.host(host).has(endpoint) => Some(host),
            // To a socket that is not there any more.
            Some(_) => return self.lose(cargo),
            None => None,
        };
        let seen_to = to.map_or(STRAY, |to| to.0);
        self.trace
            .add(TraceEvent::Sent, self.now, from.0, seen_to, data.len());
        let flight = Flight {
            from,
            realm,
            remote: source,
            destination,
            data,
            may_fragment,
            cargo,
        };
        match self.pass_tap(to, flight) {
            Some(flight) => {
                self.hosts[from.0].sent_bytes += flight.data.len();
                self.carry(to, flight);
            }
            None => self.lose(cargo),
        }
    }

    /// The network dropped a datagram with that packet.
    pub(super) fn lose(&mut self, cargo: Option<u64>) {
        if let Some(number) = cargo {
            self.ledger.note_drop(number);
        }
    }

    fn depart(
        &mut self,
        from: HostId,
        source: SocketAddr,
        destination: SocketAddr,
        len: usize,
    ) -> Option<Departure> {
        let host = &self.hosts[from.0];
        if !host.plugged {
            return None;
        }
        let departed =
            self.topology
                .depart(host.behind, source, destination, self.now, &mut self.rng);
        match departed {
            Ok(departure) => {
                let cut = departure.realm.is_none() && self.is_cut_off(from, destination.ip());
                (!cut).then_some(departure)
            }
            Err(Fate::Refused(id, _)) => {
                self.note_refusal(from, id, len);
                None
            }
            // A datagram to an address nobody has is gone, as on the internet.
            Err(Fate::Nobody | Fate::Reaches(..)) => None,
        }
    }

    fn pass_tap(&mut self, to: Option<HostId>, mut flight: Flight) -> Option<Flight> {
        if let (Some(to), Some(tap)) = (to, self.tap.as_mut()) {
            let mut passing = Passing {
                at: self.now,
                from: flight.from,
                to,
                remote: flight.remote,
                data: flight.data,
            };
            if !tap(&mut passing) {
                return None;
            }
            (flight.remote, flight.data) = (passing.remote, passing.data);
        }
        Some(flight)
    }

    fn carry(&mut self, to: Option<HostId>, flight: Flight) {
        let new = || Link::new(self.default_link);
        let link = match to {
            Some(to) => self.links.entry((flight.from, to)).or_insert_with(new),
            None => self.strays.entry(flight.from).or_insert_with(new),
        };
        let mut len = flight.data.len();
        if flight.may_fragment {
            len = len.min(link.profile.mtu);
        }
        let (first, second) = link.send(len, self.now, &mut self.rng);
        if let Some(arrival) = second {
            self.schedule_landing(flight.clone(), arrival);
        }
        match first {
            Some(arrival) => self.schedule_landing(flight, arrival),
            None => self.lose(flight.cargo),
        }
    }

    fn schedule_landing(&mut self, mut flight: Flight, arrival: Arrival) {
        if let Some(bit) = arrival.flipped_bit {
            flip(&mut flight.data, bit);
        }
        self.schedule(arrival.at, Happening::Landing(flight));
    }

    /// Through the boxes at the receiver's end, as they are now.
    pub(super) fn land(&mut self, flight: Flight) {
        let Flight { from, remote, .. } = flight;
        let fate = self
            .topology
            .arrive(flight.realm, remote, flight.destination, self.now);
        match fate {
            // Who has moved meanwhile is not reached.
            Fate::Reaches(to, endpoint) if self.host(to).has(endpoint) => {
                let cargo = flight.cargo;
                self.arrive(to, Some(from), (remote, endpoint), (flight.data, cargo));
                return;
            }
            Fate::Refused(id, _) => self.note_refusal(from, id, flight.data.len()),
            Fate::Reaches(..) | Fate::Nobody => {}
        }
        self.lose(flight.cargo);
    }

    fn note_refusal(&mut self, from: HostId, id: BoxId, len: usize) {
        self.trace
            .add(TraceEvent::Refused, self.now, from.0, id.0, len);
    }
}

/// Bytes at the front of a long header that mean the same in every run: type and version.
const LONG_HEADER_PLAIN: usize = 5;
/// Bytes of the authentication tag that ends a packet.
const TAG_LEN: usize = 16;

/// Flips a bit of a datagram that is under way. In the middle of a long header packet lies the sample
/// of its header protection; what a receiver reads out of a header whose sample is wrong depends on the
/// ciphertext, which no seed decides. There a bit of the tag is flipped instead.
fn flip(datagram: &mut [u8], bit: usize) {
    let len = datagram.len();
    let byte = match bit / 8 {
        at if at < LONG_HEADER_PLAIN || len < TAG_LEN || !sealed::is_long_header(datagram) => at,
        at => len - TAG_LEN + at % TAG_LEN,
    };
    datagram[byte] ^= 1 << (bit % 8);
}
