//! What people want to know about a node and its peers, and how they name a peer.

use std::net::IpAddr;
use std::time::Instant;

use shadowmesh_net::{DropReason, PeerStatus};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use thiserror::Error;

use super::Node;
use crate::config::NodePeer;
use crate::members::Members;

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Who we are.
    pub id: PeerId,
    /// Our overlay addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The peers in the order of the configuration.
    pub peers: Vec<NodePeerStatus>,
    /// Packets and datagrams dropped since the start, by reason; reasons never met are left out.
    pub drops: Vec<(DropReason, u64)>,
}

/// A peer at one moment: what was configured, and how it goes.
#[derive(Clone, Debug)]
pub struct NodePeerStatus {
    /// Name, id and allowed_ips, the derived ones filled in.
    pub config: NodePeer,
    /// How it is reached.
    pub net: Option<PeerStatus>,
}

/// Why a text names no peer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// Nothing fits.
    #[error(
        "no peer is called {0:?}; give a name, an id, or an overlay address of a configured peer"
    )]
    Unknown(String),
    /// More than one peer has that name.
    #[error("more than one peer is called {0:?}; give the id")]
    Ambiguous(String),
}

impl Node {
    /// Everything at once.
    pub fn status(&self, now: Instant) -> NodeStatus {
        let mut by_peer = self.net.status(now);
        let peers = self.members.peers().iter().map(|peer| {
            let found = by_peer.iter().position(|status| status.peer == peer.id);
            NodePeerStatus {
                config: peer.clone(),
                net: found.map(|at| by_peer.swap_remove(at)),
            }
        });
        NodeStatus {
            id: self.net.peer_id(),
            addresses: self.members.own_addresses().to_vec(),
            peers: peers.collect(),
            drops: self.net.drops().nonzero().collect(),
        }
    }

    /// What was configured for one peer, derived allowed_ips filled in.
    pub fn peer(&self, id: &PeerId) -> Option<&NodePeer> {
        self.members.peer(id)
    }

    /// Our overlay addresses with their prefix lengths, for the device.
    pub fn addresses(&self) -> &[(IpAddr, u8)] {
        self.members.own_addresses()
    }

    /// The prefixes that lead into the mesh, for the host's routes.
    pub fn routes(&self) -> impl Iterator<Item = IpPrefix> {
        self.members
            .peers()
            .iter()
            .flat_map(|p| p.allowed_ips.iter().copied())
    }

    /// The peer somebody means by a name, an id, or an overlay address that is the peer's.
    pub fn resolve(&self, text: &str) -> Result<PeerId, ResolveError> {
        resolve(&self.members, text)
    }
}

fn resolve(members: &Members, text: &str) -> Result<PeerId, ResolveError> {
    let unknown = || ResolveError::Unknown(text.to_owned());
    let mut named = members
        .peers()
        .iter()
        .filter(|p| p.name.as_deref() == Some(text));
    match (named.next(), named.next()) {
        (Some(peer), None) => return Ok(peer.id),
        (Some(_), Some(_)) => return Err(ResolveError::Ambiguous(text.to_owned())),
        (None, _) => {}
    }
    if let Ok(address) = text.parse() {
        return members
            .owner(address)
            .map(|index| members.peers()[index].id)
            .ok_or_else(unknown);
    }
    let id = text.parse().map_err(|_| unknown())?;
    members.peer(&id).map(|p| p.id).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_found_by_name_id_and_address() {
        let id = |n| PeerId::from_bytes([n; 32]);
        let named = |n, name: &str| NodePeer {
            name: Some(name.into()),
            ..NodePeer::new(id(n))
        };
        let peers = vec![named(2, "vps"), named(3, "pi"), named(4, "pi")];
        let members = Members::new(id(1), &[], peers).unwrap();
        let address = members.peers()[1].allowed_ips[0].addr().to_string();
        assert_eq!(resolve(&members, "vps"), Ok(id(2)));
        assert_eq!(resolve(&members, &id(4).to_string()), Ok(id(4)));
        assert_eq!(resolve(&members, &address), Ok(id(3)));
        assert_eq!(
            resolve(&members, "pi"),
            Err(ResolveError::Ambiguous("pi".into()))
        );
        for nobody in ["nas", "192.0.2.1", &id(9).to_string()] {
            assert_eq!(
                resolve(&members, nobody),
                Err(ResolveError::Unknown(nobody.into()))
            );
        }
    }
}
