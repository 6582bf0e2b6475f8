//! The programs that are measured. Each is a file: how it is found, configured, started and named.
//!
//! Every one gets a [`Stage`] of its own and must leave nothing behind: its files lie in the stage's
//! directory, its devices in the stage's namespaces, its processes end with the [`Tunnel`].

mod easytier;
mod fastd;
mod nebula;
mod openvpn;
mod process;
mod quincy;
mod shadowmesh;
mod tinc;
mod tools;
mod veth;
mod vpncloud;
mod wireguard;
mod yggdrasil;

use ::shadowmesh::lab::wiring;
use shadowmesh_io::lab::Echo;
use shadowmesh_io::netlink::{Handle, ROUTE_PROTOCOL, Route, RouteKind, TABLE_MAIN};
use shadowmesh_io::netns::Netns;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use self::shadowmesh::program;
pub use process::Process;

/// How long a contender may take from its start to its first answer.
const REACH_MAX: Duration = Duration::from_secs(15);

/// Where a contender stands in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// No tunnel at all: what there is to lose.
    Bare,
    /// Ours.
    Ours,
    /// A program of others.
    Peer,
}

/// One row of the comparison.
pub trait Contender: Sync {
    /// For `--only` and the tables.
    fn name(&self) -> &'static str;
    /// Where it stands.
    fn rank(&self) -> Rank {
        Rank::Peer
    }
    /// Cipher, MTU and whatever else decides its figures.
    fn setup(&self) -> &'static str;
    /// Its version; or what is missing.
    fn find(&self) -> Result<String, String>;
    /// Starts both ends; need not wait until they meet.
    fn start(&self, stage: &Stage) -> Result<Tunnel, String>;
}

/// They would drop to the user of the terminal, and end where there is no terminal.
const RUST_WIREGUARD: &[&str] = &["--foreground", "--disable-drop-privileges"];

/// All of them, in the order of the tables.
pub const ALL: &[&dyn Contender] = &[
    &veth::Veth { offloads: true },
    &veth::Veth { offloads: false },
    &shadowmesh::AES,
    &shadowmesh::CHACHA,
    &shadowmesh::QUIC,
    &wireguard::WireGuard {
        program: "wireguard-go",
        arguments: &["--foreground"],
        letter: 'g',
        tells_version: true,
    },
    &quincy::Quincy,
    &wireguard::WireGuard {
        program: "gotatun",
        arguments: RUST_WIREGUARD,
        letter: 't',
        tells_version: false,
    },
    &wireguard::WireGuard {
        program: "boringtun-cli",
        arguments: RUST_WIREGUARD,
        letter: 'b',
        tells_version: false,
    },
    &nebula::Nebula,
    &tinc::Tinc,
    &openvpn::OpenVpn,
    &fastd::Fastd,
    &vpncloud::VpnCloud,
    &easytier::EasyTier,
    &yggdrasil::Yggdrasil,
];

/// Two namespaces joined by a cable, and a directory for files.
pub struct Stage {
    /// The two machines; traffic goes from the first to the second.
    pub ends: [Netns; 2],
    directory: tempfile::TempDir,
}

impl Stage {
    /// An empty one.
    pub fn build() -> Result<Self, String> {
        Ok(Self {
            ends: wiring::make_pair().map_err(tools::text)?,
            directory: tempfile::tempdir().map_err(tools::text)?,
        })
    }

    /// A directory of this end's own.
    pub fn directory(&self, end: usize) -> Result<PathBuf, String> {
        let path = self.directory.path().join(format!("end{end}"));
        std::fs::create_dir_all(&path).map_err(tools::text)?;
        Ok(path)
    }

    /// A directory of both ends.
    pub fn shared(&self) -> &Path {
        self.directory.path()
    }

    /// A failure with the last words of both ends' programs, which may say why.
    pub fn explain(&self, why: String) -> String {
        let ends = [0, 1].map(|end| self.directory.path().join(format!("end{end}")));
        let said = ends.map(|end| process::last_line(&end.join(process::LOG)));
        let said: Vec<&str> = said.iter().map(String::as_str).collect();
        let said = said.join(" / ");
        if said.trim_matches([' ', '/']).is_empty() {
            why
        } else {
            format!("{why} ({said})")
        }
    }

    /// A default route over the cable, for programs that look for one.
    pub fn add_default_route(&self, end: usize) -> Result<(), String> {
        self.ends[end].run(|| {
            let netlink = Handle::new().map_err(tools::text)?;
            let cable = netlink.link_by_name(wiring::CABLE).map_err(tools::text)?;
            let route = Route {
                destination: Ipv4Addr::UNSPECIFIED.into(),
                prefix_len: 0,
                index: Some(cable.index),
                via: Some(self.underlay(1 - end).into()),
                metric: None,
                table: TABLE_MAIN,
                protocol: ROUTE_PROTOCOL,
                kind: RouteKind::Unicast,
            };
            netlink.add_route(&route).map_err(tools::text)
        })
    }

    /// Address of an end on the cable.
    pub fn underlay(&self, end: usize) -> Ipv4Addr {
        wiring::underlay_v4(end)
    }
}

/// A running contender; its processes end when it is dropped.
pub struct Tunnel {
    /// Inner IPv4 addresses of the two ends.
    pub v4: Option<[IpAddr; 2]>,
    /// Inner IPv6 addresses, where the program carries IPv6.
    pub v6: Option<[IpAddr; 2]>,
    /// One or more for each end.
    pub processes: Vec<Process>,
}

impl Tunnel {
    /// With the inner addresses that most contenders get.
    pub fn new(processes: Vec<Process>) -> Self {
        Self {
            v4: Some([0, 1].map(inner_v4).map(IpAddr::V4)),
            v6: Some([0, 1].map(inner_v6).map(IpAddr::V6)),
            processes,
        }
    }

    /// The processes of both ends.
    pub fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Process::pid).collect()
    }

    /// Waits for the first answer through the tunnel. IPv6 alone may stay without one: then the row
    /// has no IPv6 figure.
    pub fn await_reachable(&mut self, stage: &Stage) -> Result<(), String> {
        let start = Instant::now();
        if let Some([_, far]) = self.v4 {
            self.await_answer(stage, far, REACH_MAX)?;
        }
        if let Some([_, far]) = self.v6 {
            let left = REACH_MAX.saturating_sub(start.elapsed());
            let answered = self.await_answer(stage, far, left.max(Duration::from_secs(3)));
            match (answered, self.v4) {
                (Ok(()), _) => {}
                (Err(_), Some(_)) => self.v6 = None,
                (Err(why), None) => return Err(why),
            }
        }
        Ok(())
    }

    fn await_answer(&mut self, stage: &Stage, far: IpAddr, limit: Duration) -> Result<(), String> {
        let echo = Echo {
            target: far,
            count: 1,
            interval: Duration::ZERO,
            timeout: Duration::from_millis(200),
            payload_len: 56,
        };
        let start = Instant::now();
        loop {
            let asked = Instant::now();
            if matches!(stage.ends[0].run(|| echo.run()), Ok(report) if report.received > 0) {
                return Ok(());
            }
            if let Some(dead) = self.processes.iter_mut().find_map(Process::ended) {
                return Err(dead);
            }
            if start.elapsed() > limit {
                return Err(format!("{far} did not answer"));
            }
            std::thread::sleep(Duration::from_millis(50).saturating_sub(asked.elapsed()));
        }
    }
}

/// Inner address of an end, in 10.99.0.0/24.
pub fn inner_v4(end: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, end as u8 + 1)
}

/// Inner IPv6 address of an end, in fd99::/64.
pub fn inner_v6(end: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, end as u16 + 1)
}

/// The row that everything is compared with.
pub fn start_ours(stage: &Stage) -> Result<Tunnel, String> {
    shadowmesh::AES.start(stage)
}

/// Prints every contender and whether it is there.
pub fn list() {
    for contender in ALL {
        let found = match contender.find() {
            Ok(version) => version,
            Err(missing) => format!("- {missing}"),
        };
        println!("{:<20} {found:<28} {}", contender.name(), contender.setup());
    }
    println!("\nMeasurements (--measure):\n");
    for measure in super::measures::ALL {
        println!("{:<20} {}", measure.name, measure.what);
    }
}
