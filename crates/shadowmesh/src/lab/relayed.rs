//! Two nodes that have no cable between them, and relays that both reach.
//!
//! ```text
//!  n1 ─── r1 ─── n2          apart: one cable from each node to each relay, and nobody forwards
//!   └──── r2 ────┘
//!
//!  n1 ─ box ─ internet ─ box ─ n2        behind NAT: the kernel's, and the relays in the middle
//! ```
//!
//! The two name each other as peers without an address. They know relays, and nothing else.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use shadowmesh_io::lab::{NatBox, NatBoxConfig};
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;

use super::config::RelaySettings;
use super::node::LabNode;
use super::{Lab, LabError, PORT, wiring};

/// Prefix length of every cable.
const PREFIX_LEN: u8 = 24;
/// The loopback device is always the first of a namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Rate of a client where the test is about something else, Mbit/s: more than any machine relays.
const CLIENT_MBIT: u64 = 100_000;

/// A laboratory of two nodes, `n1` and `n2`, and behind them in the list of nodes the relays.
pub struct RelayedLab {
    lab: Lab,
    /// The boxes of `n1` and `n2`, where they are behind NAT.
    pub boxes: Vec<NatBox>,
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
                    (node, &port(b'r', relay)),
                    (&netns, &port(b'n', number)),
                    network,
                )?;
                ways[usize::from(number) - 1].push((address(network, 1), PORT).into());
            }
            homes.push((netns, address([198, 18, 10 * relay + 1], 1)));
        }
        let [n1, n2] = spaces;
        let switch = Netns::new()?;
        let places = [
            (n1, address([198, 18, 11], 2)),
            (n2, address([198, 18, 12], 2)),
        ];
        Self::with_nodes(
            program,
            directory,
            switch,
            places.into_iter().chain(homes),
            ways,
        )
    }

    /// Builds the nodes behind boxes of the given kinds, and one relay in the internet between them.
    pub fn behind_nat(
        program: &Path,
        directory: &Path,
        kinds: [&NatBoxConfig; 2],
    ) -> Result<Self, LabError> {
        let internet = Netns::new()?;
        let public = Ipv4Addr::new(203, 0, 113, 1);
        internet.run(|| Handle::new()?.add_address(LOOPBACK_INDEX, public.into(), 32))?;
        let (mut boxes, mut places) = (Vec::new(), Vec::new());
        for (kind, number) in kinds.into_iter().zip(1..) {
            let nat_box = NatBox::new(kind, &internet, [198, 19, number])?;
            let netns = Netns::new()?;
            nat_box.attach(&netns, inside(number))?;
            places.push((netns, address(inside(number), 2)));
            boxes.push(nat_box);
        }
        places.push((internet.try_clone()?, public));
        let ways = [vec![(public, PORT).into()], vec![(public, PORT).into()]];
        let lab = Self::with_nodes(program, directory, internet, places, ways)?;
        Ok(Self { boxes, ..lab })
    }

    fn with_nodes(
        program: &Path,
        directory: &Path,
        switch: Netns,
        places: impl IntoIterator<Item = (Netns, Ipv4Addr)>,
        ways: [Vec<SocketAddr>; 2],
    ) -> Result<Self, LabError> {
        let names = ["n1".to_owned(), "n2".to_owned()];
        let names = names
            .into_iter()
            .chain((1..).map(|number| format!("r{number}")));
        let mut nodes = Vec::new();
        for (name, (netns, underlay)) in names.zip(places) {
            let home = directory.join(&name);
            let addresses = (underlay, Ipv6Addr::UNSPECIFIED);
            nodes.push(LabNode::new(name, netns, program, home, addresses)?);
        }
        for relay in &mut nodes[2..] {
            relay.settings.relays_at_mbit = Some(CLIENT_MBIT);
        }
        Ok(Self {
            lab: Lab { switch, nodes },
            boxes: Vec::new(),
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

/// Where the box of that number has its host.
pub fn inside(number: u8) -> [u8; 3] {
    [192, 168, 10 * number]
}

/// A host of a network.
pub fn address([a, b, c]: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, host)
}

/// What the end of a cable to the node of that letter and number is called.
pub fn port(letter: u8, number: u8) -> String {
    format!("to_{}{number}", char::from(letter))
}

/// A cable between two namespaces: .2 of the network here, .1 there.
fn lay_cable(
    (here, here_name): (&Netns, &str),
    (there, there_name): (&Netns, &str),
    network: [u8; 3],
) -> Result<(), LabError> {
    here.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        netlink.create_veth(here_name, there_name)?;
        let far = netlink.link_by_name(there_name)?.index;
        Ok(netlink.move_to_netns(far, there)?)
    })?;
    let ends = [(here, here_name, 2), (there, there_name, 1)];
    for (netns, name, host) in ends {
        netns.run(|| -> Result<(), LabError> {
            let netlink = Handle::new()?;
            let index = netlink.link_by_name(name)?.index;
            netlink.disable_link_local(index)?;
            netlink.add_address(index, address(network, host).into(), PREFIX_LEN)?;
            Ok(netlink.set_up(index)?)
        })?;
    }
    for (netns, name, _) in ends {
        netns.run(|| wiring::await_carrier(name))?;
    }
    Ok(())
}
