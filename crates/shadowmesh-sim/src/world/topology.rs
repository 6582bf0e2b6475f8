//! Who is where: realms of addresses, the boxes between them, and the way of a datagram through.
//!
//! A *realm* is a network in which addresses mean something: the internet, or what is inside a box.
//! Boxes form a tree. A datagram climbs from its sender's realm, rewritten by each box, until a realm
//! knows its destination, crosses the link there, and *only on arrival* descends through the boxes at
//! the other end: a mapping that is made while it is on its way counts, as in hole punching.
//!
//! Where a box does not translate, the addresses inside it are announced outside too.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rand::rngs::StdRng;

use crate::ledger::HostId;
use crate::middlebox::{BoxProfile, Middlebox, Refusal};

/// A middlebox of a world, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxId(pub usize);

/// A network with addresses of its own: that inside a box, or (`None`) the internet.
pub(super) type Realm = Option<BoxId>;

/// What an address leads to in a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Host(HostId),
    Box(BoxId),
}

/// A datagram at the end of its sender's boxes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure {
    /// Where its destination is known.
    pub(super) realm: Realm,
    /// Its source address there.
    pub(super) source: SocketAddr,
}

/// Where a datagram gets to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// To this endpoint of this host.
    Reaches(HostId, SocketAddr),
    /// A box refused it.
    Refused(BoxId, Refusal),
    /// Nobody has that address.
    Nobody,
}

#[derive(Debug, Default)]
pub(super) struct Topology {
    boxes: Vec<(Middlebox, Realm)>,
    ways: BTreeMap<(Realm, IpAddr), Way>,
    /// On which side of a partition something in the internet is; 0 where nothing is said.
    sides: BTreeMap<Way, usize>,
    /// Addresses given in each realm that gives IPv4 addresses of its own, and IPv6 addresses (under
    /// `true`), which are the internet's everywhere.
    given: BTreeMap<(bool, Realm), u16>,
}

impl Topology {
    pub(super) fn add_box(
        &mut self,
        profile: BoxProfile,
        behind: Realm,
        rng: &mut StdRng,
    ) -> BoxId {
        let id = BoxId(self.boxes.len());
        let outside = self.free_ipv4(behind);
        self.boxes
            .push((Middlebox::new(profile, outside, rng), behind));
        self.announce(behind, outside.into(), Way::Box(id));
        id
    }

    /// The boxes between a realm and the internet, each with the number of its restarts: a connection that
    /// went through them lasts while this is the same. `None`: a cable is out.
    pub(super) fn passage(&self, mut realm: Realm) -> Option<Vec<(BoxId, u64)>> {
        let mut passage = Vec::new();
        while let Some(id) = realm {
            let (middlebox, behind) = &self.boxes[id.0];
            if !middlebox.is_up() {
                return None;
            }
            passage.push((id, middlebox.reboots()));
            realm = *behind;
        }
        Some(passage)
    }

    pub(super) fn middlebox(&self, id: BoxId) -> &Middlebox {
        &self.boxes[id.0].0
    }

    pub(super) fn middlebox_mut(&mut self, id: BoxId) -> &mut Middlebox {
        &mut self.boxes[id.0].0
    }

    pub(super) fn renumber(&mut self, id: BoxId, rng: &mut StdRng) {
        let behind = self.boxes[id.0].1;
        let outside = self.free_ipv4(behind);
        let old = self.middlebox(id).outside();
        self.withdraw(behind, old.into());
        self.announce(behind, outside.into(), Way::Box(id));
        self.middlebox_mut(id).renumber(outside, rng);
    }

    /// An IPv4 address that nobody has: of the network that the nearest translating box, or the
    /// internet, gives out.
    pub(super) fn free_ipv4(&mut self, realm: Realm) -> Ipv4Addr {
        let giver = self.giver(realm);
        let number = self.next_number(false, giver);
        match giver.and_then(|id| self.middlebox(id).profile().nat.as_ref()) {
            Some(nat) => {
                // The router itself is .1.
                let host = u8::try_from(number + 1).expect("a box has fewer than 255 inside hosts");
                let [a, b, c, _] = nat.inside.octets();
                Ipv4Addr::new(a, b, c, host)
            }
            // The other half of the benchmark space (RFC 2544); hosts begin in the first.
            None => {
                let [high, low] = number.to_be_bytes();
                Ipv4Addr::new(198, 19, high, low)
            }
        }
    }

    /// An IPv6 address that nobody has. Documentation space (RFC 3849).
    pub(super) fn free_ipv6(&mut self) -> Ipv6Addr {
        let number = self.next_number(true, None);
        Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 1)
    }

    fn next_number(&mut self, ipv6: bool, giver: Realm) -> u16 {
        let given = self.given.entry((ipv6, giver)).or_default();
        *given = given.checked_add(1).expect("fewer than 65535 addresses");
        *given
    }

    fn giver(&self, mut realm: Realm) -> Realm {
        while let Some(id) = realm {
            let (middlebox, behind) = &self.boxes[id.0];
            if middlebox.profile().nat.is_some() {
                return realm;
            }
            realm = *behind;
        }
        None
    }

    /// Makes an address known in a realm, and outside of it as far as boxes do not translate it.
    pub(super) fn announce(&mut self, realm: Realm, ip: IpAddr, way: Way) {
        self.ways.insert((realm, ip), way);
        if let Some((id, behind)) = self.shown_outside(realm, ip) {
            self.announce(behind, ip, Way::Box(id));
        }
    }

    pub(super) fn withdraw(&mut self, realm: Realm, ip: IpAddr) {
        self.ways.remove(&(realm, ip));
        if let Some((_, behind)) = self.shown_outside(realm, ip) {
            self.withdraw(behind, ip);
        }
    }

    fn shown_outside(&self, realm: Realm, ip: IpAddr) -> Option<(BoxId, Realm)> {
        let id = realm?;
        let (middlebox, behind) = &self.boxes[id.0];
        (!middlebox.profile().translates(ip)).then_some((id, *behind))
    }

    /// Whether an address of `realm` means the same in the internet.
    pub(super) fn is_public(&self, realm: Realm, ip: IpAddr) -> bool {
        match self.shown_outside(realm, ip) {
            Some((_, behind)) => self.is_public(behind, ip),
            None => realm.is_none(),
        }
    }

    /// From a host in `realm` outwards. On the way, mappings are made.
    pub(super) fn depart(
        &mut self,
        mut realm: Realm,
        mut source: SocketAddr,
        destination: SocketAddr,
        now: Duration,
        rng: &mut StdRng,
    ) -> Result<Departure, Fate> {
        loop {
            if self.ways.contains_key(&(realm, destination.ip())) {
                return Ok(Departure { realm, source });
            }
            let Some(id) = realm else {
                return Err(Fate::Nobody);
            };
            let (middlebox, behind) = &mut self.boxes[id.0];
            source = middlebox
                .outbound(source, destination, now, rng)
                .map_err(|why| Fate::Refused(id, why))?;
            realm = *behind;
        }
    }

    /// Inwards to a host. On the way, mappings may be refreshed.
    pub(super) fn arrive(
        &mut self,
        mut realm: Realm,
        source: SocketAddr,
        mut destination: SocketAddr,
        now: Duration,
    ) -> Fate {
        loop {
            match self.way(realm, destination.ip()) {
                None => return Fate::Nobody,
                Some(Way::Host(host)) => return Fate::Reaches(host, destination),
                Some(Way::Box(id)) => {
                    let inside = self.middlebox_mut(id).inbound(source, destination, now);
                    match inside {
                        Ok(inside) => destination = inside,
                        Err(why) => return Fate::Refused(id, why),
                    }
                    realm = Some(id);
                }
            }
        }
    }

    /// Where an address leads to at this moment, whoever asks and whatever is filtered.
    pub(super) fn leads_to(
        &self,
        mut realm: Realm,
        mut destination: SocketAddr,
        now: Duration,
    ) -> Option<(HostId, SocketAddr)> {
        loop {
            match self.way(realm, destination.ip())? {
                Way::Host(host) => return Some((host, destination)),
                Way::Box(id) => {
                    destination = self.middlebox(id).leads_to(destination, now)?;
                    realm = Some(id);
                }
            }
        }
    }

    /// What an address leads to in a realm, one step far.
    pub(super) fn way(&self, realm: Realm, ip: IpAddr) -> Option<Way> {
        self.ways.get(&(realm, ip)).copied()
    }

    /// What stands in the internet for everything in `realm`; a host there stands for itself.
    pub(super) fn front(&self, host: HostId, mut realm: Realm) -> Way {
        let mut front = Way::Host(host);
        while let Some(id) = realm {
            front = Way::Box(id);
            realm = self.boxes[id.0].1;
        }
        front
    }

    /// Puts something in the internet on a side of a partition.
    pub(super) fn put_on_side(&mut self, front: Way, side: usize) {
        self.sides.insert(front, side);
    }

    pub(super) fn heal(&mut self) {
        self.sides.clear();
    }

    pub(super) fn is_cut(&self, a: Way, b: Way) -> bool {
        let side = |way| self.sides.get(&way).copied().unwrap_or(0);
        side(a) != side(b)
    }
}
