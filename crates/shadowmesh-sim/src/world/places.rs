//! Putting hosts and boxes somewhere, moving them, and cutting them off.

use std::net::{IpAddr, SocketAddr};

use super::topology::{BoxId, Realm, Way};
use super::{HostId, World};
use crate::middlebox::{BoxProfile, Middlebox, NatKind};

impl World {
    /// Adds a middlebox at the internet, or behind another box.
    pub fn add_box(&mut self, profile: BoxProfile, behind: Option<BoxId>) -> BoxId {
        self.topology.add_box(profile, behind, &mut self.rng)
    }

    /// Adds the boxes of a kind at the internet; the innermost, if the kind has any.
    pub fn add_nat(&mut self, kind: NatKind) -> Option<BoxId> {
        let boxes = kind.boxes().into_iter();
        boxes.fold(None, |behind, profile| Some(self.add_box(profile, behind)))
    }

    /// A box, to look at.
    pub fn middlebox(&self, id: BoxId) -> &Middlebox {
        self.topology.middlebox(id)
    }

    /// Moves a host behind a box, or (`None`) into the internet, with new addresses there. Running
    /// or not: nobody is told.
    pub fn put_behind(&mut self, host: HostId, behind: Option<BoxId>) {
        self.leave(host);
        let ip = self.topology.free_ipv4(behind).into();
        let ip_v6 = self.hosts[host.0]
            .address_v6
            .map(|_| self.topology.free_ipv6());
        let host_state = &mut self.hosts[host.0];
        host_state.behind = behind;
        host_state.address.set_ip(ip);
        if let (Some(address), Some(ip)) = (&mut host_state.address_v6, ip_v6) {
            address.set_ip(ip.into());
        }
        self.settle_in(host);
    }

    /// Gives a host other addresses where it is. Nobody is told.
    pub fn readdress(&mut self, host: HostId) {
        self.put_behind(host, self.host(host).behind());
    }

    /// Gives a host an IPv6 address beside its IPv4 one, with the same port.
    pub fn give_ipv6(&mut self, host: HostId) {
        self.leave(host);
        let ip = IpAddr::from(self.topology.free_ipv6());
        let port = self.host(host).address.port();
        self.hosts[host.0].address_v6 = Some(SocketAddr::new(ip, port));
        self.settle_in(host);
    }

    /// Gives a host another port, as when its program opens a new socket. Nobody is told.
    pub fn move_host(&mut self, id: HostId) {
        let host = &mut self.hosts[id.0];
        for address in std::iter::once(&mut host.address).chain(&mut host.address_v6) {
            address.set_port(address.port() + 1);
        }
    }

    /// Plugs a host's cable in or out. What is on its way when it is out is lost.
    pub fn plug(&mut self, host: HostId, plugged: bool) {
        self.hosts[host.0].plugged = plugged;
    }

    /// Plugs a box's cable in or out, so all that is behind it.
    pub fn plug_box(&mut self, id: BoxId, plugged: bool) {
        self.topology.middlebox_mut(id).set_up(plugged);
    }

    /// Restarts a box: all its mappings are lost.
    pub fn reboot_box(&mut self, id: BoxId) {
        self.topology.middlebox_mut(id).reboot(&mut self.rng);
    }

    /// Restarts a box that then has another address outside, as after a lost line.
    pub fn renumber_box(&mut self, id: BoxId) {
        self.topology.renumber(id, &mut self.rng);
    }

    /// Cuts the internet: what these hosts send (and all that share their outermost box) reaches only
    /// each other. What is on a link already arrives; networks behind one box stay whole. Each call
    /// cuts off one more part.
    pub fn cut_off(&mut self, hosts: &[HostId]) {
        self.partitions += 1;
        for &host in hosts {
            let front = self.topology.front(host, self.host(host).behind);
            self.topology.put_on_side(front, self.partitions);
        }
    }

    /// Makes the internet whole again.
    pub fn rejoin(&mut self) {
        self.topology.heal();
    }

    /// Opens a further socket at a host, for [`send_bare_from`](Self::send_bare_from).
    pub fn open_port(&mut self, host: HostId, port: u16) {
        self.hosts[host.0].further_ports.insert(port);
    }

    /// A datagram from a host's socket that its node knows nothing of. What reaches a host without a
    /// node is kept in [`Host::bare`](super::Host::bare), so bare sockets can try out a network.
    pub fn send_bare(&mut self, from: HostId, destination: SocketAddr, data: &[u8]) {
        let source = self.host(from).source_for(destination);
        let source = source.expect("the host has an address of that IP version");
        self.dispatch(from, (source, destination), data.to_vec(), false);
    }

    /// The same from one of the host's [further sockets](Self::open_port).
    pub fn send_bare_from(
        &mut self,
        from: HostId,
        port: u16,
        destination: SocketAddr,
        data: &[u8],
    ) {
        let source = self.host(from).source_for(destination);
        let mut source = source.expect("the host has an address of that IP version");
        source.set_port(port);
        self.dispatch(from, (source, destination), data.to_vec(), false);
    }

    /// The addresses of a host that mean the same everywhere.
    pub(super) fn public_addresses(&self, host: HostId) -> Vec<SocketAddr> {
        let host = self.host(host);
        host.addresses()
            .filter(|address| self.topology.is_public(host.behind, address.ip()))
            .collect()
    }

    /// The addresses under which `who` could look for `whom`: all of them in the same network.
    pub(super) fn addresses_for(&self, who: HostId, whom: HostId) -> Vec<SocketAddr> {
        if self.host(who).behind == self.host(whom).behind {
            self.host(whom).addresses().collect()
        } else {
            self.public_addresses(whom)
        }
    }

    pub(super) fn is_cut_off(&self, from: HostId, destination: IpAddr) -> bool {
        let there = self.topology.way(None, destination);
        let here = self.topology.front(from, self.host(from).behind);
        there.is_some_and(|there| self.topology.is_cut(here, there))
    }

    fn leave(&mut self, host: HostId) {
        self.for_each_address(host, |world, realm, ip| world.topology.withdraw(realm, ip));
    }

    fn settle_in(&mut self, host: HostId) {
        self.for_each_address(host, |world, realm, ip| {
            world.topology.announce(realm, ip, Way::Host(host));
        });
    }

    fn for_each_address(&mut self, host: HostId, act: impl Fn(&mut Self, Realm, IpAddr)) {
        let addresses: Vec<_> = self.host(host).addresses().collect();
        let realm = self.host(host).behind;
        for address in addresses {
            act(self, realm, address.ip());
        }
    }
}
