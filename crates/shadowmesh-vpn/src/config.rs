//! What a node is told before it starts, and what can be wrong with it.
//!
//! Everything here is checked once, when the [`Members`](crate::members::Members) are put together;
//! after that no packet has to ask whether two peers claim the same address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use shadowmesh_crypto::PublicIdentity;
use shadowmesh_net::{DataPlane, NetConfig};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use thiserror::Error;

/// How a node is set up.
pub struct NodeConfig {
    /// Handed to `net` as it is.
    pub net: NetConfig,
    /// Our own overlay addresses with their prefix lengths. An IP version without an entry gets the
    /// address derived from our PeerId.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The peers known at the start.
    pub peers: Vec<NodePeer>,
    /// The relays to be used; they may be peers too.
    pub relays: Vec<NodeRelay>,
}

/// A relay as the configuration names it.
#[derive(Clone, Debug)]
pub struct NodeRelay {
    /// Who it is.
    pub id: PeerId,
    /// Where it may be reached; `net` alone looks at these.
    pub underlay: Vec<SocketAddr>,
    /// Its full public identity, if a former run has seen it.
    pub known_key: Option<Arc<PublicIdentity>>,
}

/// A peer as the configuration names it.
#[derive(Clone, Debug)]
pub struct NodePeer {
    /// Who it is.
    pub id: PeerId,
    /// What people call it.
    pub name: Option<String>,
    /// What is this peer's: it may send from these addresses and is sent packets to them. Empty
    /// means the two addresses derived from its PeerId.
    pub allowed_ips: Vec<IpPrefix>,
    /// Where it may be reached; `net` alone looks at these.
    pub underlay: Vec<SocketAddr>,
    /// Its full public identity, if a former run has seen it.
    pub known_key: Option<Arc<PublicIdentity>>,
    /// What is to carry its packets.
    pub data_plane: DataPlane,
}

impl NodePeer {
    /// A peer of which nothing but the id is known.
    pub fn new(id: PeerId) -> Self {
        Self {
            id,
            name: None,
            allowed_ips: Vec::new(),
            underlay: Vec::new(),
            known_key: None,
            data_plane: DataPlane::default(),
        }
    }

    /// The name if there is one, else the id: for messages to people.
    pub fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.id.to_string())
    }
}

/// Why a set of peers and addresses cannot work. Each message says what to change.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A setting of `net` is out of its range.
    #[error(transparent)]
    Net(#[from] shadowmesh_net::ConfigError),
    /// The node is its own peer.
    #[error("peer {0} is this node itself; remove it from the peers")]
    SelfAsPeer(PeerId),
    /// One id twice.
    #[error("peer {0} is listed twice")]
    DuplicatePeer(PeerId),
    /// Two peers would own the same addresses.
    #[error("peers {first} and {second} both have {prefix} in allowed_ips; give it to one of them")]
    SamePrefix {
        /// What both claim.
        prefix: IpPrefix,
        /// Label of the peer listed first.
        first: String,
        /// Label of the other.
        second: String,
    },
    /// Two PeerIds derive the same IPv4 address: expected by chance at a few hundred peers.
    #[error(
        "peers {first} and {second} derive the same address {address} from their ids; \
         set allowed_ips for one of them, and the same address in its own [device]"
    )]
    DerivedCollision {
        /// The address both derive.
        address: IpAddr,
        /// Label of the peer listed first.
        first: String,
        /// Label of the other.
        second: String,
    },
    /// A peer claims exactly an address of ours.
    #[error(
        "peer {peer} has {address}, which is this node's own address; \
         set another address in [device], or other allowed_ips for {peer}"
    )]
    OwnAddress {
        /// Our address.
        address: IpAddr,
        /// Label of the peer that claims it.
        peer: String,
    },
    /// An own address that no interface can have.
    #[error("{address}/{len} cannot be this node's address: {why}")]
    UnusableAddress {
        /// The address.
        address: IpAddr,
        /// Its prefix length.
        len: u8,
        /// What is wrong with it.
        why: &'static str,
    },
}
