//! What the engine sets on the host: the device's addresses, and the routes into the mesh.
//!
//! Everything is written to the [`Journal`] first, so that exactly what was set can be taken away:
//! by [`Host::undo`] at the end, or after a `kill -9` by the next start. Nothing that was there
//! before is ever changed or removed.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use shadowmesh_io::netlink::{Handle, NetlinkError, Refusal};
use shadowmesh_io::tun::Tun;
use shadowmesh_wire::prefix::IpPrefix;
use thiserror::Error;

use super::journal::{Journal, World};

/// Why the host could not be set up.
#[derive(Debug, Error)]
pub enum HostError {
    /// The kernel refused an address or a route; the text says which.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The journal, without which nothing is set.
    #[error("cannot keep the journal of host settings in {}: {source}", .state_dir.display())]
    Journal {
        /// Where it should be.
        state_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn journal_error(state_dir: &Path) -> impl FnOnce(io::Error) -> HostError {
    let state_dir = state_dir.to_owned();
    move |source| HostError::Journal { state_dir, source }
}

/// Addresses and routes of a running node.
pub struct Host {
    netlink: Handle,
    journal: Journal,
    state_dir: PathBuf,
}

impl Host {
    // PROTOCOL SM-DV-2
    /// Gives the device its addresses and leads `routes` to it.
    pub fn configure(
        device: &Tun,
        addresses: &[(IpAddr, u8)],
        routes: impl Iterator<Item = IpPrefix>,
        state_dir: &Path,
    ) -> Result<Self, HostError> {
        let mut addresses = addresses.to_vec();
        let mut routes = needed_routes(&addresses, routes);
        if !switch_on_ipv6(device.name()) {
            tracing::warn!(
                "this machine has no IPv6 for the device; the overlay has IPv4 only here"
            );
            addresses.retain(|(address, _)| address.is_ipv4());
            routes.retain(|(address, _)| address.is_ipv4());
        }
        let journal = Journal {
            world: World::current().map_err(journal_error(state_dir))?,
            device_index: device.index(),
            device_name: device.name().into(),
            addresses,
            routes,
        };
        let netlink = Handle::new()?;
        journal.save(state_dir).map_err(journal_error(state_dir))?;
        let state_dir = state_dir.to_owned();
        // From here on a failure undoes what came before it, by dropping `host`.
        let host = Self {
            netlink,
            journal,
            state_dir,
        };
        host.set_addresses()?;
        host.set_routes()?;
        Ok(host)
    }

    fn set_addresses(&self) -> Result<(), HostError> {
        for (address, len) in &self.journal.addresses {
            let added = self
                .netlink
                .add_address(self.journal.device_index, *address, *len);
            tolerate_existing(added)?;
        }
        Ok(())
    }

    fn set_routes(&self) -> Result<(), HostError> {
        for route in self.journal.routes() {
            let added = self.netlink.add_route(&route);
            if is_there_already(&added) {
                tracing::warn!(
                    "this machine has a route for some of allowed_ips already, and it is left as it \
                     is: packets go where it leads"
                );
            }
            tolerate_existing(added)?;
        }
        Ok(())
    }

    // PROTOCOL SM-DV-2
    /// Takes away what was set, and the journal with it. Also happens on drop.
    pub fn undo(&mut self) {
        take_away(&self.netlink, &self.journal);
        if let Err(error) = Journal::remove(&self.state_dir) {
            tracing::warn!(%error, "could not remove the journal of host settings");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.undo();
    }
}

// PROTOCOL SM-DV-2
/// Takes away what a killed run of this node left on the host. Call it before the device is made.
pub fn clean_leftovers(state_dir: &Path) -> Result<(), HostError> {
    let Some(journal) = Journal::load(state_dir) else {
        return Ok(());
    };
    let world = World::current().map_err(journal_error(state_dir))?;
    if journal.world == world {
        let netlink = Handle::new()?;
        if is_same_device(&netlink, &journal) {
            tracing::info!(device = %journal.device_name, "cleaning up after a run that was killed");
            take_away(&netlink, &journal);
        }
    }
    Journal::remove(state_dir).map_err(journal_error(state_dir))
}

/// A device of that name made since then has another index, and is not ours to touch.
fn is_same_device(netlink: &Handle, journal: &Journal) -> bool {
    netlink
        .link_by_name(&journal.device_name)
        .is_ok_and(|link| link.index == journal.device_index)
}

/// Many containers start every device with IPv6 switched off. This one is ours, carries only overlay
/// addresses and takes its settings along when it goes, so it is switched on for it alone. False where
/// not even that is allowed, or where the kernel has no IPv6 at all: a node that then refused to start
/// would help nobody.
fn switch_on_ipv6(device: &str) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == "0" => true,
        Ok(_) => fs::write(&path, "0").is_ok(),
        Err(_) => false,
    }
}

/// Errors are expected here and mean the same as success: it is already gone.
fn take_away(netlink: &Handle, journal: &Journal) {
    for route in journal.routes() {
        if let Err(error) = netlink.del_route(&route) {
            tracing::debug!(%error, "a route was already gone");
        }
    }
    for (address, len) in &journal.addresses {
        if let Err(error) = netlink.del_address(journal.device_index, *address, *len) {
            tracing::debug!(%error, "an address was already gone");
        }
    }
}

/// What is there already needs no setting: two peers may share a network, and a persistent device may
/// have been prepared by the administrator.
fn tolerate_existing(result: Result<(), NetlinkError>) -> Result<(), HostError> {
    if is_there_already(&result) {
        tracing::debug!(?result, "already set");
        return Ok(());
    }
    Ok(result?)
}

fn is_there_already(result: &Result<(), NetlinkError>) -> bool {
    matches!(result, Err(error) if error.refusal() == Some(Refusal::Exists))
}

/// An address comes with a route to its own network; prefixes inside one need no other.
fn needed_routes(
    addresses: &[(IpAddr, u8)],
    routes: impl Iterator<Item = IpPrefix>,
) -> Vec<(IpAddr, u8)> {
    let connected: Vec<IpPrefix> = addresses
        .iter()
        .map(|(address, len)| IpPrefix::containing(*address, *len))
        .collect();
    let covered = |route: &IpPrefix| {
        connected
            .iter()
            .any(|network| network.len() <= route.len() && network.contains(route.addr()))
    };
    routes
        .filter(|route| !covered(route))
        .map(|route| (route.addr(), route.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_prefixes_outside_our_own_networks_need_a_route() {
        let addresses = [
            ("10.100.1.5".parse().unwrap(), 16),
            ("fd00::5".parse().unwrap(), 64),
        ];
        let routes = [
            "10.100.7.7/32",
            "192.168.9.0/24",
            "10.0.0.0/8",
            "fd00::9/128",
        ];
        let routes = routes.map(|text| text.parse::<IpPrefix>().unwrap());
        let needed = needed_routes(&addresses, routes.into_iter());
        let expected = [
            ("192.168.9.0".parse().unwrap(), 24),
            ("10.0.0.0".parse().unwrap(), 8),
        ];
        assert_eq!(needed, expected);
    }
}
