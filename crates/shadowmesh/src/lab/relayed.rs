//! Two nodes that have no cable between them, and relays that both reach.
//!
//! ```text
//!  n1 ─── r1 ─── n2          one cable from each node to each relay, and nobody forwards
//!   └──── r2 ────┘
//! ```
//!
//! The two name each other as peers without an address. They know relays, and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use shadowmesh_io::lab::lay_cable;
use shadowmesh_io::netns::Netns;

use super::config::RelaySettings;
use super::node::LabNode;
use super::{Lab, LabError, PORT};

/// Rate of a client where the test is about something else, Mbit/s: more than any machine relays.
pub(super) const CLIENT_MBIT: u64 = 100_000;

/// A laboratory of two nodes, `n1` and `n2`, and behind them in the list of nodes the relays.
pub struct RelayedLab {
    lab: Lab,
    /// What each of the two calls each relay.
    ways: [Vec<SocketAddr>; 2],
}

impl RelayedLab {
    /// Builds the nodes with a cable from each to each of `relays` relays. Nothing runs yet.
    pub fn apart(program: &Path, directory: &Path, relays: u8) -> Result<Self, LabError> {
        let spaces = [Netns::new()?, Netns::new()?];
        let mut homes = Vec::new();
        let mut ways = [Vec::new(), Vec::new()];
        for relay in 1..=relays {
            let netns = Netns::new()?;
            for (node, number) in spaces.iter().zip(1..) {
                let network = [198, 18, 10 * relay + number];
                lay_cable(
                    (&netns, &port(b'n', number)),
                    (node, &port(b'r', relay)),
                    network,
                )?;
                ways[usize::from(number) - 1].push((address(network, 1), PORT).into());
            }
            homes.push((netns, address([198, 18, 10 * relay + 1], 1)));
        }
        let [n1, n2] = spaces;
        let places = [
            (n1, address([198, 18, 11], 2)),
            (n2, address([198, 18, 12], 2)),
        ];
        let names = ["n1".to_owned(), "n2".to_owned()];
        let relay_names = (1..).map(|number| format!("r{number}"));
        let names = names.into_iter().chain(relay_names);
        let mut nodes = Vec::new();
        for (name, (netns, underlay)) in names.zip(places.into_iter().chain(homes)) {
            let home = directory.join(&name);
            let addresses = (underlay, Ipv6Addr::UNSPECIFIED);
            nodes.push(LabNode::new(name, netns, program, home, addresses)?);
        }
        for relay in &mut nodes[2..] {
            relay.settings.relays_at_mbit = Some(CLIENT_MBIT);
        }
        let switch = Netns::new()?;
        Ok(Self {
            lab: Lab { switch, nodes },
            ways,
        })
    }

    /// The relays.
    pub fn relays(&mut self) -> &mut [LabNode] {
        &mut self.lab.nodes[2..]
    }

    /// Configures the two with each other and all relays, and the relays with nobody.
    pub fn configure(&mut self) -> Result<(), LabError> {
        let relays: Vec<_> = self.lab.nodes[2..].iter().map(|relay| relay.id).collect();
        for (node, ways) in self.lab.nodes.iter_mut().zip(&self.ways) {
            let used = relays.iter().zip(ways).map(|(id, way)| RelaySettings {
                id: *id,
                addresses: vec![*way],
                web: None,
            });
            node.settings.relays = used.collect();
        }
        for (number, node) in self.lab.nodes.iter().enumerate() {
            let other = (number < 2).then(|| self.lab.nodes[1 - number].as_unreachable_peer());
            node.configure(other.as_slice())?;
        }
        Ok(())
    }
}

impl Deref for RelayedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for RelayedLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

/// A host of a network.
pub(super) fn address([a, b, c]: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, host)
}

/// What the end of a cable to the node of that letter and number is called.
fn port(letter: u8, number: u8) -> String {
    format!("to_{}{number}", char::from(letter))
}
