//! What people want to know about a node and its peers.

use std::net::IpAddr;
use std::time::Instant;

use shadowmesh_net::{DropReason, OwnAddress, PeerStatus, RefusedCaller};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;

use super::Node;
use crate::config::NodePeer;

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Who we are.
    pub id: PeerId,
    /// Our overlay addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The peers in the order of the configuration.
    pub peers: Vec<NodePeerStatus>,
    /// The relays we use, in the order of the configuration; those that are peers are in both lists.
    pub relays: Vec<PeerStatus>,
    /// Where we can be reached, as far as the host knows.
    pub own_addresses: Vec<OwnAddress>,
    /// What we do as a relay: clients that are no peers, and datagrams and bytes passed on.
    pub relaying: (usize, u64, u64),
    /// Packets and datagrams dropped since the start, by reason; reasons never met are left out.
    pub drops: Vec<(DropReason, u64)>,
    /// Who called and is no peer of ours, the latest first.
    pub refused_callers: Vec<RefusedCaller>,
}

/// A peer at one moment: what was configured, and how it goes.
#[derive(Clone, Debug)]
pub struct NodePeerStatus {
    /// Name, id and allowed_ips, the derived ones filled in.
    pub config: NodePeer,
    /// How it is reached.
    pub net: Option<PeerStatus>,
}

impl Node {
    /// Everything at once.
    pub fn status(&self, now: Instant) -> NodeStatus {
        // In order of PeerId.
        let all = self.net.status(now);
        let status_of = |id: &PeerId| {
            let at = all.binary_search_by_key(id, |status| status.peer).ok()?;
            Some(all[at].clone())
        };
        let relays = self.relays.iter();
        let relays = relays.filter_map(|relay| status_of(&relay.id)).collect();
        let peers = self.members.peers().iter().map(|peer| NodePeerStatus {
            config: peer.clone(),
            net: status_of(&peer.id),
        });
        NodeStatus {
            id: self.net.peer_id(),
            addresses: self.members.own_addresses().to_vec(),
            peers: peers.collect(),
            relays,
            own_addresses: self.net.own_addresses().to_vec(),
            relaying: self.net.relay_totals(),
            drops: self.net.drops().nonzero().collect(),
            refused_callers: self.net.refused_callers().to_vec(),
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

    /// The prefixes that lead into the mesh and what their owners are called, for the host's routes.
    pub fn routes(&self) -> impl Iterator<Item = (IpPrefix, String)> {
        let prefixes = |peer: &NodePeer| -> Vec<(IpPrefix, String)> {
            let allowed = peer.allowed_ips.iter();
            allowed.map(|prefix| (*prefix, peer.label())).collect()
        };
        self.members.peers().iter().flat_map(prefixes)
    }
}
