//! What keeps a node from starting on this machine: looked at while none runs, and without any rights.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::Finding;
use crate::cli::addresses::host_addresses;
use crate::config::Config;

const TUN: &str = "/dev/net/tun";
/// `CAP_NET_ADMIN` of capabilities(7).
const NET_ADMIN: u32 = 12;

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// What is at `/dev/net/tun`.
    pub tun: TunFile,
    /// Whether this process may make network devices.
    pub may_make_devices: bool,
    /// Every `node.listen` that cannot be bound, and why.
    pub listen: Vec<(SocketAddr, Unbindable)>,
    /// Addresses of this machine.
    pub addresses: Vec<IpAddr>,
}

/// What is at `/dev/net/tun`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunFile {
    /// A device that can be opened.
    #[default]
    Usable,
    /// Nothing.
    Missing,
    /// A file, and no device.
    Plain,
    /// A device that we may not open.
    Forbidden,
}

/// Why an address cannot be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbindable {
    /// A program has that port.
    Taken,
    /// This machine does not have that address.
    NotOurs,
    /// The port is for root.
    Forbidden,
}

impl HostFacts {
    /// What can be wrong while a node runs: it waits for an address that the machine does not have.
    pub fn beside_a_node(config: &Config) -> Self {
        let refused = |address: &SocketAddr| {
            let error = UdpSocket::bind((address.ip(), 0)).err()?;
            let is_strange = error.kind() == ErrorKind::AddrNotAvailable;
            is_strange.then_some((*address, Unbindable::NotOurs))
        };
        Self {
            tun: TunFile::Usable,
            may_make_devices: true,
            listen: config.node.listen.iter().filter_map(refused).collect(),
            addresses: host_addresses(),
        }
    }

    /// What would keep one from starting. Binds each address for a moment and gives it back.
    pub fn gather(config: &Config) -> Self {
        let refused = |address: &SocketAddr| {
            let error = UdpSocket::bind(address).err()?;
            let why = match error.kind() {
                ErrorKind::AddrInUse => Unbindable::Taken,
                ErrorKind::AddrNotAvailable => Unbindable::NotOurs,
                ErrorKind::PermissionDenied => Unbindable::Forbidden,
                _ => return None,
            };
            Some((*address, why))
        };
        Self {
            tun: tun_file(Path::new(TUN)),
            may_make_devices: may_make_devices(),
            listen: config.node.listen.iter().filter_map(refused).collect(),
            addresses: host_addresses(),
        }
    }
}

fn tun_file(path: &Path) -> TunFile {
    let Ok(file) = fs::metadata(path) else {
        return TunFile::Missing;
    };
    if !file.file_type().is_char_device() {
        return TunFile::Plain;
    }
    match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => TunFile::Forbidden,
        Err(_) => TunFile::Missing,
        Ok(_) => TunFile::Usable,
    }
}

fn may_make_devices() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // Where the system does not say, the start will.
    bits.is_none_or(|bits| bits & 1 << NET_ADMIN != 0)
}

/// What to do about it, the surest obstacle first.
pub fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    for (address, why) in &facts.listen {
        found.push(listen(*address, *why, &facts.addresses));
    }
    let tun = match facts.tun {
        TunFile::Usable => None,
        TunFile::Missing => Some((
            "/dev/net/tun does not exist",
            "load the driver (modprobe tun), or in a container pass the device in (--device /dev/net/tun)",
        )),
        TunFile::Plain => Some((
            "/dev/net/tun is a plain file and no device",
            "remove it and make the device: rm /dev/net/tun && mknod /dev/net/tun c 10 200; in a container pass \
             the device in (--device /dev/net/tun)",
        )),
        TunFile::Forbidden => Some((
            "/dev/net/tun may not be opened by this user",
            "run as root (sudo shadowmesh up), or open it to everybody (chmod 666 /dev/net/tun)",
        )),
    };
    if let Some((says, next)) =
        tun.filter(|_| facts.may_make_devices || facts.tun != TunFile::Forbidden)
    {
        found.push(Finding::bad("device", says).next(next));
    }
    if !facts.may_make_devices {
        let says = "this user may not make network devices, which `up` needs; `relay` does not";
        let next = "run as root (sudo shadowmesh up), or give the program the right (setcap cap_net_admin+ep)";
        found.push(Finding::bad("rights", says).next(next));
    }
    found
}

fn listen(address: SocketAddr, why: Unbindable, own: &[IpAddr]) -> Finding {
    match why {
        Unbindable::Taken => Finding::bad(
            "listen",
            format!("another program has UDP {address}: a second node or relay, perhaps"),
        )
        .next(
            "use the one that runs (name its --state-dir; to relay beside it: `enabled = true` in its [relay]), stop \
             it (`shadowmesh down` with its --state-dir), or choose another port in node.listen",
        ),
        Unbindable::NotOurs => {
            let same = own.iter().filter(|ip| ip.is_ipv4() == address.is_ipv4());
            let own: Vec<String> = same.map(ToString::to_string).collect();
            let any = if address.is_ipv4() { "0.0.0.0" } else { "[::]" };
            let has = match own.is_empty() {
                true => String::new(),
                false => format!(" (it has {})", own.join(", ")),
            };
            Finding::bad("listen", format!("{} is no address of this machine{has}", address.ip())).next(
                format!("write one that is, or \"{any}:{}\" for all, in node.listen", address.port()),
            )
        }
        Unbindable::Forbidden => Finding::bad("listen", format!("UDP {address} is for root only"))
            .next("choose a port of 1024 or more in node.listen, or run as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_in_the_place_of_the_device_is_told_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tun");
        assert_eq!(tun_file(&path), TunFile::Missing);
        fs::write(&path, "").unwrap();
        assert_eq!(tun_file(&path), TunFile::Plain);
    }

    #[test]
    fn each_obstacle_has_its_own_remedy() {
        let all = |change: &dyn Fn(&mut HostFacts)| {
            let mut facts = HostFacts {
                may_make_devices: true,
                addresses: vec!["192.0.2.1".parse().unwrap()],
                ..HostFacts::default()
            };
            change(&mut facts);
            findings(&facts)
        };
        assert_eq!(all(&|_| ()), []);
        let at: SocketAddr = "203.0.113.5:4433".parse().unwrap();
        let next = |found: Vec<Finding>| found[0].next.clone().unwrap();
        let taken = next(all(&|facts| facts.listen = vec![(at, Unbindable::Taken)]));
        assert!(
            taken.contains("[relay]") && taken.contains("shadowmesh down"),
            "{taken}"
        );
        let foreign = all(&|facts| facts.listen = vec![(at, Unbindable::NotOurs)]);
        assert!(foreign[0].says.contains("it has 192.0.2.1"), "{foreign:?}");
        let foreign = next(foreign);
        assert!(
            foreign.contains("0.0.0.0:4433") && !foreign.contains("stop"),
            "{foreign}"
        );
        assert!(next(all(&|facts| facts.tun = TunFile::Plain)).contains("mknod"));
        assert!(next(all(&|facts| facts.tun = TunFile::Missing)).contains("modprobe"));
        assert!(next(all(&|facts| facts.tun = TunFile::Forbidden)).contains("sudo"));
        assert!(next(all(&|facts| facts.may_make_devices = false)).contains("sudo"));
    }
}
