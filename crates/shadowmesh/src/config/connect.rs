//! What `[relay]`, `[paths]` and `[metrics]` say: how this node reaches its peers and lets itself be
//! watched.

use std::net::SocketAddr;
use std::time::Duration;

use shadowmesh_io::web::WebUrl;
use shadowmesh_net::{PathTimers, RelayAllow};
use shadowmesh_wire::PeerId;

/// `[relay]`: whom this node relays for, and which relays it uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// Whether this node relays for others.
    pub enabled: bool,
    /// For whom, beside the members of its own network.
    pub allow: RelayAllow,
    /// Limit: clients at once.
    pub clients_max: usize,
    /// Limit: of these, clients of one source address.
    pub clients_per_source: usize,
    /// Limit: Mbit/s of one client, each way.
    pub client_mbit: u64,
    /// Every `[[relay.use]]`, in the order written; ids are unique.
    pub uses: Vec<RelayUse>,
}

/// One `[[relay.use]]`: a relay this node may keep warm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayUse {
    /// Who it is.
    pub id: PeerId,
    /// Where it may be reached by UDP; empty only when there is `web`, or the relay is a peer that
    /// says it.
    pub addresses: Vec<SocketAddr>,
    /// Where it takes WebSocket over TLS, when it does.
    pub web: Option<WebUrl>,
}

/// Bytes a second in one Mbit/s.
const BYTES_PER_MBIT: u64 = 1_000_000 / 8;

impl RelayConfig {
    /// As `net` takes it.
    pub fn for_net(&self) -> shadowmesh_net::RelayConfig {
        shadowmesh_net::RelayConfig {
            enabled: self.enabled,
            allow: self.allow.clone(),
            clients_max: self.clients_max,
            clients_per_source: self.clients_per_source,
            client_rate: self.client_mbit * BYTES_PER_MBIT,
        }
    }
}

impl PathsConfig {
    /// As `net` takes it.
    pub fn timers(&self) -> PathTimers {
        PathTimers {
            retry: self.retry_interval,
            health: self.health_check_interval,
            connect: self.connect_timeout,
        }
    }
}

/// `[paths]`: how ways to peers are looked for and watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathsConfig {
    /// Between two attempts at a better path than the one in use.
    pub retry_interval: Duration,
    /// Between two checks of an idle path.
    pub health_check_interval: Duration,
    /// How long one attempt at a path may take.
    pub connect_timeout: Duration,
    /// Whether the router is asked for a port (UPnP-IGD, NAT-PMP, PCP).
    pub port_mapping: bool,
    /// Whether peers are looked for on the local network by multicast.
    pub lan_discovery: bool,
}

/// `[metrics]`: the Prometheus endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where it listens, TCP; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}
