//! `[relay]`, `[[relay.use]]`, `[paths]` and `[metrics]`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use shadowmesh_net::RelayAllow;
use shadowmesh_wire::PeerId;

use super::{Reader, origin_of, place, section};
use crate::config::connect::{MetricsConfig, PathsConfig, RelayConfig, RelayUse};
use crate::config::layers::{Entry, Fields, Layers};
use crate::config::origin::{Origin, Problem};
use crate::config::{PeerConfig, schema, value};

/// Default of `relay.clients_max`.
pub const CLIENTS_MAX_DEFAULT: usize = 1000;
/// Default of `relay.client_mbit`.
pub const CLIENT_MBIT_DEFAULT: u64 = 1000;
/// Default of `paths.retry_interval`.
pub const RETRY_INTERVAL_DEFAULT: Duration = Duration::from_secs(60);
/// Default of `paths.health_check_interval`.
pub const HEALTH_CHECK_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// Default of `paths.connect_timeout`.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Limit: relays in the file. Two are kept warm; more are there for when these fail.
const RELAYS_MAX: usize = 16;

impl Reader<'_> {
    pub(super) fn relay(
        &mut self,
        layers: &Layers,
        listen: &[SocketAddr],
        peers: &[PeerConfig],
    ) -> RelayConfig {
        let fields = section(layers, &schema::RELAY);
        let clients_max = self
            .one(&schema::RELAY, &fields, "clients_max", value::clients_max)
            .unwrap_or(CLIENTS_MAX_DEFAULT);
        RelayConfig {
            enabled: self
                .one(&schema::RELAY, &fields, "enabled", value::switch)
                .unwrap_or(false),
            allow: self.relay_allow(&fields),
            clients_max,
            clients_per_source: self
                .one(
                    &schema::RELAY,
                    &fields,
                    "clients_per_source",
                    value::clients_max,
                )
                .unwrap_or(shadowmesh_net::RelayConfig::share_of_source(clients_max)),
            client_mbit: self
                .one(&schema::RELAY, &fields, "client_mbit", value::client_mbit)
                .unwrap_or(CLIENT_MBIT_DEFAULT),
            uses: self.relay_uses(layers, listen, peers),
        }
    }

    /// `"any"`, or PeerIds. An empty list leaves the members of the network.
    fn relay_allow(&mut self, fields: &Fields) -> RelayAllow {
        match fields.get("allow") {
            None => RelayAllow::Any,
            Some(setting) if matches!(&setting.items[..], [item] if item.text == "any") => {
                RelayAllow::Any
            }
            Some(_) => {
                let ids = self.list(&schema::RELAY, fields, "allow", value::peer_id);
                RelayAllow::Listed(ids.into_iter().collect::<BTreeSet<PeerId>>())
            }
        }
    }

    fn relay_uses(
        &mut self,
        layers: &Layers,
        listen: &[SocketAddr],
        peers: &[PeerConfig],
    ) -> Vec<RelayUse> {
        let mut uses = Vec::new();
        let mut seen: BTreeMap<PeerId, Origin> = BTreeMap::new();
        if let Some(raw) = layers.relays.get(RELAYS_MAX) {
            let what = format!("more than {RELAYS_MAX} relays");
            let note = "two are kept warm at a time; the others only stand in for these";
            self.problems
                .push(Problem::new(&raw.origin, what).note(note));
        }
        for raw in &layers.relays {
            let Some(relay) = self.relay_use(raw) else {
                continue;
            };
            if let Some(first) = seen.insert(relay.id, raw.origin.clone()) {
                let what = format!("relay {} stands twice", relay.id);
                self.problems.push(
                    Problem::new(&origin_of(raw, "id"), what).note(format!("first at {first}")),
                );
            }
            let written = place(&schema::RELAY_USE, "addresses");
            self.reachable_family(written, raw, &relay.addresses, listen);
            let as_peer = peers.iter().find(|peer| peer.id == relay.id);
            let peer_says =
                as_peer.is_some_and(|peer| !peer.address.is_empty() || peer.web.is_some());
            // Written wrong is told where it is wrong.
            let says = ["addresses", "web"].iter().any(|key| {
                let written = raw.fields.get(key);
                written.is_some_and(|setting| !setting.items.is_empty())
            });
            if !says && !peer_says {
                let what = "nothing says where this relay is";
                let note =
                    "give it `addresses`, `web`, or both: `shadowmesh relay` prints them there";
                self.problems
                    .push(Problem::new(&raw.origin, what).note(note));
            }
            uses.push(relay);
        }
        uses
    }

    fn relay_use(&mut self, raw: &Entry) -> Option<RelayUse> {
        let (section, fields) = (&schema::RELAY_USE, &raw.fields);
        if !fields.contains_key("id") {
            let expects = place(section, "id").key.expects;
            let problem = Problem::new(&raw.origin, "this relay has no `id`");
            self.problems
                .push(problem.note(format!("expected {expects}")));
        }
        let id = self.one(section, fields, "id", value::peer_id);
        let addresses = self.list(section, fields, "addresses", value::socket_address);
        let web = self.one(section, fields, "web", value::web_address);
        Some(RelayUse {
            id: id?,
            addresses,
            web,
        })
    }

    pub(super) fn paths(&mut self, layers: &Layers) -> PathsConfig {
        let all = &schema::PATHS;
        let fields = section(layers, all);
        PathsConfig {
            retry_interval: self
                .one(all, &fields, "retry_interval", value::retry_interval)
                .unwrap_or(RETRY_INTERVAL_DEFAULT),
            health_check_interval: self
                .one(
                    all,
                    &fields,
                    "health_check_interval",
                    value::health_check_interval,
                )
                .unwrap_or(HEALTH_CHECK_INTERVAL_DEFAULT),
            connect_timeout: self
                .one(all, &fields, "connect_timeout", value::connect_timeout)
                .unwrap_or(CONNECT_TIMEOUT_DEFAULT),
            port_mapping: self
                .one(all, &fields, "port_mapping", value::switch)
                .unwrap_or(true),
            lan_discovery: self
                .one(all, &fields, "lan_discovery", value::switch)
                .unwrap_or(true),
        }
    }

    pub(super) fn metrics(&mut self, layers: &Layers) -> MetricsConfig {
        let fields = section(layers, &schema::METRICS);
        let listen = self.one(&schema::METRICS, &fields, "listen", value::metrics_listen);
        MetricsConfig {
            listen: listen.flatten(),
        }
    }
}
