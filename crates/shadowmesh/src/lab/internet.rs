//! A small internet with two relays, and pairs of nodes on it behind NATs of the kernel's own making.
//!
//! ```text
//!             r1   r2                  two relays, by UDP and by WebSocket
//!              │    │
//!  n1 ─ box ─ internet ─ box ─ n2      any number of boxes on each side, none too
//! ```
//!
//! The two of a pair name each other as peers without an address; they know the relays, and nothing else.
//! All homes have the same inside network, as homes have.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::lab::{NatBox, NatBoxConfig, plug_in};
use shadowmesh_io::netns::Netns;

use super::config::RelaySettings;
use super::node::LabNode;
use super::relayed::{CLIENT_MBIT, address};
use super::web::{self, TAKES_STREAMS};
use super::wiring::CABLE;
use super::{LabError, PORT, wait_until};
use crate::admin::report::{PathKind, PathReport};

/// Where the node is inside the innermost box, for boxes that lead datagrams there.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
/// The network of [`INSIDE`].
const HOME: [u8; 3] = [192, 168, 1];
/// The networks of the relays (RFC 5737).
const RELAYS: [[u8; 3]; 2] = [[198, 51, 100], [203, 0, 113]];
/// How long a node may take from its start until it answers verbs.
const START_MAX: Duration = Duration::from_secs(10);
/// Each site has a /24 of 198.19.0.0/16 (RFC 2544).
const SITES_MAX: u8 = 250;
/// Between two pings of a pair that meets.
const PING_INTERVAL: Duration = Duration::from_millis(10);
/// Pings between two looks at whether there were enough.
const PINGS: u32 = 20;
/// Pings go on for so long after both sides went straight.
const AFTERWARDS: Duration = Duration::from_millis(300);

/// The internet and its relays.
pub struct Internet {
    netns: Netns,
    /// Two of them.
    pub relays: Vec<LabNode>,
    program: PathBuf,
    directory: PathBuf,
    sites: u8,
}

impl Internet {
    /// Builds it, nothing running yet; as [`Lab::build`](super::Lab::build).
    pub fn build(program: &Path, directory: &Path) -> Result<Self, LabError> {
        let netns = Netns::new()?;
        netns.set_sysctl("net.ipv4.ip_forward", "1")?;
        let mut relays = Vec::new();
        for (network, number) in RELAYS.into_iter().zip(1..) {
            let home = Netns::new()?;
            plug_in((&netns, &format!("relay{number}")), (&home, CABLE), network)?;
            let name = format!("r{number}");
            let mut relay = web::node(program, directory, &name, home, address(network, 2))?;
            relay.settings.relays_at_mbit = Some(CLIENT_MBIT);
            relay.settings.more = TAKES_STREAMS.into();
            relay.configure(&[])?;
            relays.push(relay);
        }
        Ok(Self {
            netns,
            relays,
            program: program.to_owned(),
            directory: directory.to_owned(),
            sites: 0,
        })
    }

    /// Starts the relays and waits until they take streams.
    pub fn start_relays(&mut self) -> Result<(), LabError> {
        self.relays.iter_mut().try_for_each(LabNode::start)?;
        self.relays.iter().try_for_each(web::await_listener)
    }

    /// Two nodes, each behind these boxes, the outermost first; configured, and not running yet.
    pub fn pair(&mut self, sites: [&[NatBoxConfig]; 2]) -> Result<Pair, LabError> {
        let [first, second] = sites;
        let (n1, first) = self.site("n1", first)?;
        let (n2, second) = self.site("n2", second)?;
        let pair = Pair {
            nodes: [n1, n2],
            boxes: [first, second],
        };
        pair.configure()?;
        Ok(pair)
    }

    fn site(
        &mut self,
        name: &str,
        boxes: &[NatBoxConfig],
    ) -> Result<(LabNode, Vec<NatBox>), LabError> {
        // Never the number of a site that is gone: the kernel takes its devices away when it has time.
        self.sites += 1;
        let number = self.sites;
        assert!(number <= SITES_MAX, "at most {SITES_MAX} sites");
        let mut made: Vec<NatBox> = Vec::new();
        for (config, depth) in boxes.iter().zip(63..) {
            made.push(match made.last() {
                None => NatBox::new(config, &self.netns, [198, 19, number])?,
                // RFC 6598: between a provider and its customers.
                Some(outer) => outer.nest(config, [100, depth, number])?,
            });
        }
        let host = Netns::new()?;
        let at = match made.last() {
            None => {
                let network = [198, 19, number];
                let device = format!("open{number}");
                plug_in((&self.netns, &device), (&host, CABLE), network)?;
                address(network, 2)
            }
            Some(innermost) => {
                innermost.attach(&host, HOME)?;
                INSIDE
            }
        };
        let home = self.directory.join(format!("site{number}"));
        let mut node = web::node(&self.program, &home, name, host, at)?;
        let relays = self.relays.iter().map(|relay| RelaySettings {
            id: relay.id,
            addresses: vec![(relay.underlay_v4, PORT).into()],
            web: Some(format!("https://{}", relay.underlay_v4)),
        });
        node.settings.relays = relays.collect();
        Ok((node, made))
    }
}

/// Two nodes and what stands before each of them.
pub struct Pair {
    /// `n1` and `n2`.
    pub nodes: [LabNode; 2],
    /// Their boxes, the outermost first.
    pub boxes: [Vec<NatBox>; 2],
}

/// How two nodes met, in time from when both answered verbs and the first ping was sent.
#[derive(Debug, Clone, Default)]
pub struct Meeting {
    /// Until a ping was answered, so that packets had gone through in both directions.
    pub connected: Option<Duration>,
    /// Until both sides said that they send straight to each other.
    pub direct: Option<Duration>,
    /// Pings that were not answered after the first that was.
    pub lost: u32,
    /// The ways at the end.
    pub ways: [Option<PathReport>; 2],
}

impl Pair {
    /// Writes the configurations anew, with what the settings of the nodes say now.
    pub fn configure(&self) -> Result<(), LabError> {
        let [first, second] = &self.nodes;
        first.configure(&[second.as_unreachable_peer()])?;
        Ok(second.configure(&[first.as_unreachable_peer()])?)
    }

    /// Starts both and waits until they answer verbs.
    pub fn start(&mut self) -> Result<(), LabError> {
        self.nodes.iter_mut().try_for_each(LabNode::start)?;
        for node in &self.nodes {
            if !wait_until(START_MAX, || node.answers()) {
                return Err(LabError::NotRunning);
            }
        }
        Ok(())
    }

    /// The ways that the two have to each other.
    pub fn ways(&self) -> [Option<PathReport>; 2] {
        let [first, second] = &self.nodes;
        [first.path_to(&second.id), second.path_to(&first.id)]
    }

    /// Whether both say that they send straight to each other.
    pub fn is_direct(&self) -> bool {
        let direct =
            |way: &Option<PathReport>| way.as_ref().is_some_and(|w| w.kind == PathKind::Direct);
        self.ways().iter().all(direct)
    }

    /// Pings from the first to the second until one is answered, and then goes on with one each 10 ms
    /// until both send straight or `direct_max` is over.
    pub fn meet(&self, connected_max: Duration, direct_max: Duration) -> Meeting {
        let [first, second] = &self.nodes;
        // No box forwards IPv6: only the tunnel does.
        let target = second.overlay_v6().into();
        let began = Instant::now();
        let connected = first.ping_until_answered(target, connected_max);
        if connected.is_none() {
            return Meeting {
                ways: self.ways(),
                ..Meeting::default()
            };
        }
        let enough = AtomicBool::new(false);
        let (direct, lost) = thread::scope(|scope| {
            let pings = scope.spawn(|| ping_until(first, target, &enough));
            let left = direct_max.saturating_sub(began.elapsed());
            let direct = wait_until(left, || self.is_direct()).then(|| began.elapsed());
            thread::sleep(AFTERWARDS);
            enough.store(true, Ordering::Relaxed);
            (direct, pings.join().expect("pinging does not panic"))
        });
        Meeting {
            connected,
            direct,
            lost,
            ways: self.ways(),
        }
    }
}

/// Pings that were lost until there were enough of them.
fn ping_until(from: &LabNode, target: IpAddr, enough: &AtomicBool) -> u32 {
    let mut lost = 0;
    while !enough.load(Ordering::Relaxed) {
        let answered = from.ping(target, PINGS, PING_INTERVAL);
        lost += PINGS - answered.map_or(0, |report| report.received.min(PINGS));
    }
    lost
}
