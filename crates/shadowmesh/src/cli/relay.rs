//! `shadowmesh relay`: a relay for others and nothing else. The node is the one of `up`, without a device.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use shadowmesh_net::RelayAllow;
use shadowmesh_wire::PeerId;

use super::addresses::{host_addresses, is_public};
use super::args::{Global, RelayArgs};
use super::failure::Failure;
use super::up::{Role, run_node};
use super::{load, output};
use crate::config::RelayConfig;
use crate::engine::Started;

pub fn run(global: &Global, args: &RelayArgs) -> Result<(), Failure> {
    let mut loaded = load(global, &args.as_up())?;
    loaded.for_bare_relay();
    run_node(global, loaded, Role::Relay)
}

/// What `relay` prints when it runs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RelayReport {
    /// `up`
    event: &'static str,
    /// PeerId of the relay.
    id: String,
    /// UDP addresses really bound.
    listen: Vec<SocketAddr>,
    /// TCP addresses for WebSocket.
    web_listen: Vec<SocketAddr>,
    /// Where its users reach it.
    addresses: Vec<SocketAddr>,
    /// Whether one of these is public.
    public: bool,
    /// The block for the files of its users.
    relay_use: String,
}

/// The relay is up: said on standard output, with what its users must write.
// PROTOCOL SM-PA-15
pub fn tell_ready(
    as_json: bool,
    id: &PeerId,
    started: &Started,
    relay: &RelayConfig,
    announce: &[SocketAddr],
) {
    let addresses = match announce {
        [] => reachable_at(&started.listen, &host_addresses()),
        announced => announced.to_vec(),
    };
    let public = addresses.iter().any(|address| is_public(address.ip()));
    let web = reachable_at(&started.web_listen, &host_addresses());
    if as_json {
        output::json_line(&RelayReport {
            event: "up",
            id: id.to_string(),
            listen: started.listen.clone(),
            web_listen: started.web_listen.clone(),
            relay_use: block(id, &addresses, web.first()),
            addresses,
            public,
        });
        return;
    }
    let listen: Vec<String> = started.listen.iter().map(ToString::to_string).collect();
    let whom = match &relay.allow {
        RelayAllow::Any => "anybody".to_owned(),
        RelayAllow::Listed(ids) => format!("the {} listed", ids.len()),
    };
    output::line(format!("relay: {id}"));
    output::line(format!("    listening on {}", listen.join(", ")));
    output::line(format!(
        "    for {whom}; at most {} clients, {} of one address, {} Mbit/s each",
        relay.clients_max, relay.clients_per_source, relay.client_mbit
    ));
    output::line("    stop with Ctrl-C or `shadowmesh down`; for the files of its users:\n");
    output::line(block(id, &addresses, web.first()));
    if !public {
        output::line(
            "# This machine has no public address of its own: write the one that others reach it at, \
             and let\n# the router pass the port on to it.",
        );
    }
}

/// What a user's file says.
fn block(id: &PeerId, addresses: &[SocketAddr], web: Option<&SocketAddr>) -> String {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    let addresses = addresses.join(", ");
    let mut block = format!("[[relay.use]]\nid = \"{id}\"\naddresses = [{addresses}]");
    match web {
        // The port of HTTPS, which goes without saying (RFC 9110 §4.2.2).
        Some(web) if web.port() == 443 && web.is_ipv4() => {
            block += &format!("\nweb = \"https://{}\"", web.ip());
        }
        Some(web) => block += &format!("\nweb = \"https://{web}\""),
        None => {}
    }
    block
}

/// Where others may reach it: what it listens on, an unspecified address standing for all of the host
/// that are of its kind. Public addresses alone, where there are any.
fn reachable_at(listen: &[SocketAddr], host: &[IpAddr]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in listen {
        let host = host.iter().filter(|ip| ip.is_ipv4() == address.is_ipv4());
        let ips: Vec<IpAddr> = match address.ip().is_unspecified() {
            true => host.copied().collect(),
            false => vec![address.ip()],
        };
        let all = ips
            .into_iter()
            .map(|ip| SocketAddr::new(ip, address.port()));
        found.extend(all);
    }
    if found.iter().any(|address| is_public(address.ip())) {
        found.retain(|address| is_public(address.ip()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn users_are_told_the_public_addresses_of_what_it_listens_on() {
        let host: Vec<IpAddr> = ["192.168.1.5", "203.0.113.5", "2001:db8::5", "fd00::5"]
            .map(|ip| ip.parse().unwrap())
            .into();
        let any = [at("0.0.0.0:4433"), at("[::]:4434")];
        assert_eq!(
            reachable_at(&any, &host),
            [at("203.0.113.5:4433"), at("[2001:db8::5]:4434")]
        );
        assert_eq!(
            reachable_at(&[at("192.168.1.5:1")], &host),
            [at("192.168.1.5:1")]
        );
        assert_eq!(reachable_at(&any, &host[..1]), [at("192.168.1.5:4433")]);
    }

    #[test]
    fn the_block_it_prints_is_a_configuration_as_it_stands() {
        let id = PeerId::from_bytes([7; 32]);
        let addresses = [at("203.0.113.5:4433"), at("[2001:db8::5]:4433")];
        let text = block(&id, &addresses, Some(&at("203.0.113.5:443")));
        let config = crate::config::parse(std::path::Path::new("t.toml"), &text).unwrap();
        assert_eq!(config.relay.uses[0].id, id);
        assert_eq!(config.relay.uses[0].addresses.len(), 2);
        let web = config.relay.uses[0].web.as_ref().unwrap();
        assert_eq!(web.to_string(), "https://203.0.113.5");
        assert!(block(&id, &addresses, Some(&at("[::1]:8443"))).ends_with("https://[::1]:8443\""));
    }
}
