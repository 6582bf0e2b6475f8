//! Who takes part and what is whose: our own overlay addresses, the peers, and the prefixes each of
//! them owns. Checked as a whole at every change, so that a node never runs with a table in which
//! the owner of an address is a matter of order.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::overlay::{derived, derived_ipv4};
use shadowmesh_wire::prefix::IpPrefix;

use crate::config::{ConfigError, NodePeer};
use crate::route_table::{RouteTable, SamePrefix};

/// The members of the mesh as this node sees them.
#[derive(Clone, Debug)]
pub struct Members {
    own_id: PeerId,
    own: Vec<(IpAddr, u8)>,
    /// The same by version, without lengths: what is looked at for each packet.
    own_v4: Vec<Ipv4Addr>,
    own_v6: Vec<Ipv6Addr>,
    peers: Vec<NodePeer>,
    /// Values are indices into `peers`.
    numbers: BTreeMap<PeerId, usize>,
    /// Values are indices into `peers`.
    routes: RouteTable<u32>,
}

impl Members {
    /// Checks `addresses` and `peers` against each other and fills in what is derived.
    pub fn new(
        own_id: PeerId,
        addresses: &[(IpAddr, u8)],
        peers: Vec<NodePeer>,
    ) -> Result<Self, ConfigError> {
        let own = own_addresses(&own_id, addresses)?;
        let (mut own_v4, mut own_v6) = (Vec::new(), Vec::new());
        for (address, _) in &own {
            match address {
                IpAddr::V4(v4) => own_v4.push(*v4),
                IpAddr::V6(v6) => own_v6.push(*v6),
            }
        }
        let mut members = Self {
            own_id,
            own,
            own_v4,
            own_v6,
            peers: Vec::new(),
            numbers: BTreeMap::new(),
            routes: RouteTable::default(),
        };
        for peer in peers {
            members.check_id(&peer)?;
            members.numbers.insert(peer.id, members.peers.len());
            members.peers.push(with_allowed_ips(peer));
        }
        members.check_own_addresses()?;
        members.routes = members.build_routes()?;
        Ok(members)
    }

    /// The same members and one more.
    pub fn with(&self, peer: NodePeer) -> Result<Self, ConfigError> {
        let mut peers = self.peers.clone();
        peers.push(peer);
        Self::new(self.own_id, &self.own, peers)
    }

    /// The same members without one of them.
    pub fn without(&self, id: &PeerId) -> Self {
        let peers = self.peers.iter().filter(|p| p.id != *id).cloned().collect();
        Self::new(self.own_id, &self.own, peers)
            .expect("a part of a set without conflicts has none")
    }

    /// Our own overlay addresses with their prefix lengths.
    pub fn own_addresses(&self) -> &[(IpAddr, u8)] {
        &self.own
    }

    /// Is `address` exactly one of ours? HOT PATH.
    pub fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => self.own_v4.contains(&v4),
            IpAddr::V6(v6) => self.own_v6.contains(&v6),
        }
    }

    /// The networks of our own addresses.
    pub(crate) fn own_networks(&self) -> Vec<IpPrefix> {
        let own = self.own.iter();
        own.map(|&(address, len)| IpPrefix::containing(address, len))
            .collect()
    }

    /// The networks that peers lead to, without those as wide as the internet or a large part of it, in
    /// which the peers themselves are found too.
    pub(crate) fn peers_networks(&self) -> Vec<IpPrefix> {
        let all = self.peers.iter().flat_map(|peer| &peer.allowed_ips);
        all.filter(|prefix| {
            let len_min = if prefix.addr().is_ipv4() { 8 } else { 16 };
            prefix.len() >= len_min
        })
        .copied()
        .collect()
    }

    /// The peers in the order they were given, allowed_ips filled in.
    pub fn peers(&self) -> &[NodePeer] {
        &self.peers
    }

    /// The peer of that id.
    pub fn peer(&self, id: &PeerId) -> Option<&NodePeer> {
        Some(&self.peers[self.number(id)?])
    }

    /// Its index into [`peers`](Self::peers).
    pub(crate) fn number(&self, id: &PeerId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    /// Whose `address` is, as an index into [`peers`](Self::peers). HOT PATH.
    pub fn owner(&self, address: IpAddr) -> Option<usize> {
        self.routes.get(address).map(|index| index as usize)
    }

    fn check_id(&self, peer: &NodePeer) -> Result<(), ConfigError> {
        if peer.id == self.own_id {
            return Err(ConfigError::SelfAsPeer(peer.id));
        }
        if self.peer(&peer.id).is_some() {
            return Err(ConfigError::DuplicatePeer(peer.id));
        }
        Ok(())
    }

    fn check_own_addresses(&self) -> Result<(), ConfigError> {
        for peer in &self.peers {
            // A wider prefix around our own address (a default route, say) is no claim to it.
            if let Some(host) = peer
                .allowed_ips
                .iter()
                .find(|p| is_host(p) && self.is_own(p.addr()))
            {
                return Err(ConfigError::OwnAddress {
                    address: host.addr(),
                    peer: peer.label(),
                });
            }
        }
        Ok(())
    }

    fn build_routes(&self) -> Result<RouteTable<u32>, ConfigError> {
        let routes = self.peers.iter().zip(0u32..);
        let routes = routes
            .flat_map(|(peer, index)| peer.allowed_ips.iter().map(move |prefix| (*prefix, index)));
        RouteTable::new(routes).map_err(|same| self.explain(same))
    }

    /// Says in the user's terms why two peers claim one prefix.
    fn explain(&self, same: SamePrefix<u32>) -> ConfigError {
        let [first, second] = same.owners.map(|index| &self.peers[index as usize]);
        let derived = IpAddr::from(derived_ipv4(&first.id));
        let both_derive = derived == IpAddr::from(derived_ipv4(&second.id));
        let (prefix, first, second) = (same.prefix, first.label(), second.label());
        // PROTOCOL SM-OV-1
        if both_derive && is_host(&prefix) && prefix.addr() == derived {
            return ConfigError::DerivedCollision {
                address: derived,
                first,
                second,
            };
        }
        ConfigError::SamePrefix {
            prefix,
            first,
            second,
        }
    }
}

// PROTOCOL SM-OV-1
// PROTOCOL SM-OV-2
/// The configured addresses, and the derived one of each IP version that has none. So a static IPv4
/// address, the usual cure for a collision, leaves the IPv6 address where peers expect it.
fn own_addresses(
    id: &PeerId,
    configured: &[(IpAddr, u8)],
) -> Result<Vec<(IpAddr, u8)>, ConfigError> {
    let mut own = configured.to_vec();
    for &(address, len) in &own {
        check_usable(address, len)?;
    }
    for (address, len) in derived(id) {
        if !own.iter().any(|(a, _)| a.is_ipv4() == address.is_ipv4()) {
            own.push((address, len));
        }
    }
    Ok(own)
}

fn check_usable(address: IpAddr, len: u8) -> Result<(), ConfigError> {
    let why = if address.is_unspecified() {
        "it is the unspecified address"
    } else if address.is_loopback() {
        "it is a loopback address"
    } else if address.is_multicast() || address == IpAddr::from([255; 4]) {
        "it is a multicast or broadcast address"
    } else if len > IpPrefix::host(address).len() {
        "the prefix length is more than the address has bits"
    } else {
        return Ok(());
    };
    Err(ConfigError::UnusableAddress { address, len, why })
}

fn with_allowed_ips(mut peer: NodePeer) -> NodePeer {
    if peer.allowed_ips.is_empty() {
        peer.allowed_ips = derived(&peer.id)
            .map(|(address, _)| IpPrefix::host(address))
            .into();
    }
    peer
}

/// Does the prefix hold one address only?
fn is_host(prefix: &IpPrefix) -> bool {
    *prefix == IpPrefix::host(prefix.addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_wire::overlay::derived_ipv6;

    fn id(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn peer(n: u8, allowed_ips: &[&str]) -> NodePeer {
        NodePeer {
            allowed_ips: allowed_ips.iter().map(|p| p.parse().unwrap()).collect(),
            ..NodePeer::new(id(n))
        }
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn members(peers: Vec<NodePeer>) -> Result<Members, ConfigError> {
        Members::new(id(1), &[], peers)
    }

    /// Another id with the same derived IPv4 address: that depends on bytes 7 and 15 only.
    fn twin(n: u8) -> PeerId {
        let mut bytes = [n; 32];
        bytes[0] ^= 1;
        PeerId::from_bytes(bytes)
    }

    // PROTOCOL SM-OV-1
    // PROTOCOL SM-OV-2
    #[test]
    fn without_configured_addresses_both_derived_ones_are_used() {
        let m = members(vec![peer(2, &[])]).unwrap();
        assert_eq!(
            m.own_addresses(),
            [
                (derived_ipv4(&id(1)).into(), 16),
                (derived_ipv6(&id(1)).into(), 48)
            ]
        );
        assert_eq!(m.owner(derived_ipv4(&id(2)).into()), Some(0));
        assert_eq!(m.owner(derived_ipv6(&id(2)).into()), Some(0));
        assert_eq!(m.owner(address("10.100.200.200")), None);
    }

    #[test]
    fn a_static_ipv4_address_leaves_the_derived_ipv6_one() {
        let m = Members::new(id(1), &[(address("10.9.0.1"), 24)], vec![]).unwrap();
        assert!(m.is_own(address("10.9.0.1")) && m.is_own(derived_ipv6(&id(1)).into()));
        assert!(!m.is_own(derived_ipv4(&id(1)).into()) && !m.is_own(address("10.9.0.2")));
    }

    #[test]
    fn one_prefix_in_two_peers_is_refused_by_name() {
        let named = NodePeer {
            name: Some("vps".into()),
            ..peer(2, &["10.7.0.0/16"])
        };
        let error = members(vec![named, peer(3, &["10.0.0.0/8", "10.7.0.0/16"])]).unwrap_err();
        let prefix = "10.7.0.0/16".parse().unwrap();
        assert_eq!(
            error,
            ConfigError::SamePrefix {
                prefix,
                first: "vps".into(),
                second: id(3).to_string()
            }
        );
    }

    #[test]
    fn a_prefix_inside_another_peers_prefix_is_fine() {
        let m = members(vec![peer(2, &["10.0.0.0/8"]), peer(3, &["10.7.0.0/16"])]).unwrap();
        assert_eq!(m.owner(address("10.7.1.1")), Some(1));
        assert_eq!(m.owner(address("10.8.1.1")), Some(0));
    }

    // PROTOCOL SM-OV-1
    #[test]
    fn two_ids_that_derive_one_ipv4_address_are_reported_as_such() {
        let error = members(vec![peer(2, &[]), NodePeer::new(twin(2))]).unwrap_err();
        assert!(
            matches!(error, ConfigError::DerivedCollision { address, .. } if address == IpAddr::from(derived_ipv4(&id(2))))
        );
        let settled = NodePeer {
            id: twin(2),
            ..peer(2, &["10.100.77.1/32"])
        };
        assert!(members(vec![peer(2, &[]), settled]).is_ok());
    }

    // PROTOCOL SM-OV-1
    #[test]
    fn a_peer_with_our_own_address_is_refused_unless_it_is_a_wider_prefix() {
        let error = members(vec![NodePeer::new(twin(1))]).unwrap_err();
        assert!(
            matches!(error, ConfigError::OwnAddress { address, .. } if address == IpAddr::from(derived_ipv4(&id(1))))
        );
        assert!(members(vec![peer(2, &["0.0.0.0/0"])]).is_ok());
    }

    #[test]
    fn ourselves_a_peer_twice_and_unusable_addresses_are_refused() {
        assert_eq!(
            members(vec![peer(1, &[])]).unwrap_err(),
            ConfigError::SelfAsPeer(id(1))
        );
        let twice = vec![peer(2, &[]), peer(2, &["10.0.0.0/8"])];
        assert_eq!(
            members(twice).unwrap_err(),
            ConfigError::DuplicatePeer(id(2))
        );
        for (text, len) in [
            ("0.0.0.0", 8),
            ("127.0.0.1", 8),
            ("224.0.0.1", 8),
            ("10.0.0.1", 33),
            ("ff02::1", 64),
        ] {
            assert!(
                Members::new(id(1), &[(address(text), len)], vec![]).is_err(),
                "{text}/{len}"
            );
        }
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn what_the_tunnel_leads_to_is_known_but_for_default_routes() {
        let wide = ["0.0.0.0/0", "0.0.0.0/1", "::/0", "2000::/3"];
        let routed = ["10.0.0.0/8", "192.168.7.0/24", "2001:db8::/32"];
        let allowed = [&wide[..], &routed].concat();
        let m = Members::new(id(1), &[(address("10.9.0.1"), 24)], vec![peer(2, &allowed)]).unwrap();
        let routed: Vec<IpPrefix> = routed.iter().map(|p| p.parse().unwrap()).collect();
        assert_eq!(m.peers_networks(), routed);
        assert_eq!(m.own_networks()[0], "10.9.0.0/24".parse().unwrap());
        assert_eq!(m.own_networks().len(), 2);
        assert_eq!(m.without(&id(2)).peers_networks(), []);
    }

    #[test]
    fn a_removed_peer_owns_nothing() {
        let m = members(vec![peer(2, &["10.0.0.0/8"]), peer(3, &["10.7.0.0/16"])])
            .unwrap()
            .without(&id(3));
        assert_eq!(m.owner(address("10.7.1.1")), Some(0));
        assert!(m.peer(&id(3)).is_none());
        assert_eq!(
            m.with(peer(3, &["10.7.0.0/16"]))
                .unwrap()
                .owner(address("10.7.1.1")),
            Some(1)
        );
    }
}
