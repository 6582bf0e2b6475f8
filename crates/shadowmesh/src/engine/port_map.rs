//! Keeping a port of the router, so that peers can call us from outside.
//!
//! A thread of its own, because asking a router takes seconds. It asks when it is told that the
//! network changed, renews at half of the time it was given, and gives the port back at the end. Where
//! there is no router, or it gives nothing, nobody is bothered: it is asked again later, less and less
//! often, and the node goes on without.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::netlink::Handle;
use shadowmesh_io::port_map::Mapping;
use shadowmesh_io::underlay;

/// The time that is asked for: what RFC 6886 recommends, §3.3.
const LIFETIME: Duration = Duration::from_secs(7200);
/// A mapping is renewed at half of its time, but not more often than this.
const RENEWAL_MIN: Duration = Duration::from_secs(1);
/// After a refusal the router is asked again, after twice as long each time, up to the second.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(1800);
/// Nobody waits longer than this for a port to be given back.
const REMOVAL_MAX: Duration = Duration::from_secs(1);
/// Any address outside: the way there leads through the router. Nothing is sent to it (RFC 5737).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The running thread.
pub struct PortMap {
    wishes: mpsc::Sender<Wish>,
    ended: mpsc::Receiver<()>,
}

enum Wish {
    Again,
    End,
}

impl PortMap {
    /// Starts the thread for the UDP port at which we listen; `tell` hears of each mapping, and that
    /// there is none any more.
    pub fn start(
        port: u16,
        tell: impl FnMut(Option<SocketAddrV4>) + Send + 'static,
    ) -> io::Result<Self> {
        let (wishes, asked) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        let keeper = Keeper {
            port,
            tell,
            held: None,
            refusals: 0,
        };
        thread::Builder::new()
            .name("port-map".into())
            .spawn(move || {
                keeper.run(&asked);
                drop(ending);
            })?;
        Ok(Self { wishes, ended })
    }

    /// The network is another: the router may be too.
    pub fn network_changed(&self) {
        // The thread ends with us only.
        let _ = self.wishes.send(Wish::Again);
    }
}

impl Drop for PortMap {
    fn drop(&mut self) {
        let _ = self.wishes.send(Wish::End);
        // It may be waiting for a router that does not answer; then the process ends without it.
        let _ = self.ended.recv_timeout(REMOVAL_MAX);
    }
}

/// What the thread works with.
struct Keeper<T> {
    port: u16,
    tell: T,
    held: Option<Held>,
    refusals: u32,
}

struct Held {
    mapping: Mapping,
    router: Router,
    until: Instant,
}

/// The router and our address towards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Router {
    router: Ipv4Addr,
    own: Ipv4Addr,
}

impl<T: FnMut(Option<SocketAddrV4>)> Keeper<T> {
    fn run(mut self, wishes: &mpsc::Receiver<Wish>) {
        loop {
            let wait = self.keep(Instant::now());
            match wishes.recv_timeout(wait) {
                Ok(Wish::Again) => {
                    self.refusals = 0;
                    // Several changes are one.
                    while let Ok(wish) = wishes.try_recv() {
                        if matches!(wish, Wish::End) {
                            return self.end();
                        }
                    }
                    self.look_around();
                }
                Ok(Wish::End) | Err(RecvTimeoutError::Disconnected) => return self.end(),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Asks for a mapping or renews the one there is; returns when to do so again.
    fn keep(&mut self, now: Instant) -> Duration {
        let done = match self.held.take() {
            Some(held) => self.renew(held, now),
            None => self.ask(now),
        };
        match done {
            Some(held) => {
                self.refusals = 0;
                let wait = held.until.saturating_duration_since(Instant::now()) / 2;
                self.held = Some(held);
                wait.max(RENEWAL_MIN)
            }
            None => {
                let doubled = RETRY * 2u32.saturating_pow(self.refusals);
                self.refusals = self.refusals.saturating_add(1).min(16);
                doubled.min(RETRY_MAX)
            }
        }
    }

    fn ask(&mut self, now: Instant) -> Option<Held> {
        let router = Router::of_this_host()?;
        let own = SocketAddrV4::new(router.own, self.port);
        match Mapping::ask(router.router, own, LIFETIME) {
            Ok(mapping) => {
                tracing::debug!(
                    external = %mapping.external(),
                    protocol = mapping.protocol(),
                    lifetime = ?mapping.lifetime(),
                    "the router leads a port to us"
                );
                (self.tell)(Some(mapping.external()));
                let until = now + mapping.lifetime();
                Some(Held {
                    mapping,
                    router,
                    until,
                })
            }
            Err(error) => {
                tracing::debug!(%error, "no port of the router");
                None
            }
        }
    }

    fn renew(&mut self, mut held: Held, now: Instant) -> Option<Held> {
        let before = held.mapping.external();
        match held.mapping.renew() {
            Ok(()) => {
                if held.mapping.external() != before {
                    (self.tell)(Some(held.mapping.external()));
                }
                held.until = now + held.mapping.lifetime();
                Some(held)
            }
            // There is time to try again.
            Err(error) if Instant::now() + RENEWAL_MIN < held.until => {
                tracing::debug!(%error, "the router did not renew our port");
                Some(held)
            }
            Err(error) => {
                tracing::debug!(%error, "the router's port is lost");
                (self.tell)(None);
                None
            }
        }
    }

    /// After a change of network: what another router holds is worth nothing. Where it is the same, it
    /// is asked at once, because it may have been started anew.
    fn look_around(&mut self) {
        let moved = |held: &Held| Router::of_this_host() != Some(held.router);
        if self.held.as_ref().is_some_and(moved) {
            self.held = None;
            (self.tell)(None);
        }
    }

    fn end(self) {
        let Some(held) = self.held else {
            return;
        };
        match held.mapping.remove() {
            Ok(()) => tracing::debug!("the router's port is given back"),
            Err(error) => tracing::debug!(%error, "the router's port was not given back"),
        }
    }
}

impl Router {
    /// Whom packets for the outside go to, unless this host is outside itself.
    fn of_this_host() -> Option<Self> {
        let gateway = Handle::new().and_then(|netlink| netlink.gateway_towards(OUTSIDE.into()));
        let IpAddr::V4(router) = gateway.ok()?? else {
            return None;
        };
        let own = source_towards(router)?;
        is_inside(own).then_some(Self { router, own })
    }
}

/// Our address towards another.
fn source_towards(router: Ipv4Addr) -> Option<Ipv4Addr> {
    match underlay::source_towards((router, 9).into())? {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    }
}

/// Whether an address is behind a NAT: private (RFC 1918), or shared by a provider (RFC 6598).
fn is_inside(own: Ipv4Addr) -> bool {
    let [a, b, ..] = own.octets();
    own.is_private() || (a == 100 && b & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_io::lab::privileged;
    use shadowmesh_io::netlink::Route;
    use shadowmesh_io::netns::Netns;
    use std::net::UdpSocket;

    #[test]
    fn only_a_host_behind_a_nat_asks_for_a_port() {
        for inside in [
            "10.1.2.3",
            "192.168.1.9",
            "172.31.0.1",
            "100.64.0.1",
            "100.127.9.9",
        ] {
            assert!(is_inside(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["203.0.113.9", "100.128.0.1", "100.63.0.1", "172.32.0.1"] {
            assert!(!is_inside(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn a_router_that_refuses_is_asked_less_and_less_often() {
        let mut keeper = Keeper {
            port: 0,
            tell: |_| unreachable!("there is nothing to tell"),
            held: None,
            refusals: 0,
        };
        // Port 0 is refused before anybody is asked, and a host outside asks nobody.
        let waits: Vec<Duration> = (0..8).map(|_| keeper.keep(Instant::now())).collect();
        assert_eq!(waits[..3], [RETRY, 2 * RETRY, 4 * RETRY]);
        assert_eq!(waits[7], RETRY_MAX);
    }

    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 2);
    const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 5, 1);
    const PATIENCE: Duration = Duration::from_secs(5);

    /// A host and its router, joined by a cable.
    fn behind_router() -> [Netns; 2] {
        let ends = [Netns::new().unwrap(), Netns::new().unwrap()];
        ends[0].run(|| {
            let netlink = Handle::new().unwrap();
            netlink.create_veth("uplink", "lan").unwrap();
            let far = netlink.link_by_name("lan").unwrap().index;
            netlink.move_to_netns(far, &ends[1]).unwrap();
        });
        for (netns, name, address) in [(&ends[1], "lan", ROUTER), (&ends[0], "uplink", HOST)] {
            netns.run(|| {
                let netlink = Handle::new().unwrap();
                let index = netlink.link_by_name(name).unwrap().index;
                netlink.add_address(index, address.into(), 24).unwrap();
                netlink.set_up(index).unwrap();
            });
        }
        ends[0].run(|| {
            let netlink = Handle::new().unwrap();
            let index = netlink.link_by_name("uplink").unwrap().index;
            netlink.wait_for_carrier(index, PATIENCE).unwrap();
            let everywhere = Route::via(Ipv4Addr::UNSPECIFIED.into(), 0, ROUTER.into());
            netlink.add_route(&everywhere).unwrap();
        });
        ends
    }

    /// A router that speaks NAT-PMP (RFC 6886 §3.3) and gives a port for two seconds; the times that it
    /// was asked for.
    fn speak_nat_pmp(router: &Netns) -> mpsc::Receiver<u32> {
        let socket = router.run(|| UdpSocket::bind((ROUTER, 5351)).unwrap());
        let (asked, heard) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 1100];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                let mut answer = match buffer[..len] {
                    [0, 0] => vec![0, 0x80, 0, 0, 0, 0, 0, 1, 203, 0, 113, 9],
                    [0, 1, _, _, high, low, ..] => {
                        let lifetime = u32::from_be_bytes(buffer[8..12].try_into().unwrap());
                        let _ = asked.send(lifetime);
                        vec![0, 0x81, 0, 0, 0, 0, 0, 1, high, low]
                    }
                    // Of PCP it knows that it is not NAT-PMP.
                    _ => vec![0, 0x80, 0, 1, 0, 0, 0, 1],
                };
                if answer.len() == 10 {
                    let is_end = buffer[8..12] == [0; 4];
                    let port = if is_end { 0u16 } else { 40_433 };
                    answer.extend(port.to_be_bytes());
                    answer.extend(if is_end { 0u32 } else { 2 }.to_be_bytes());
                }
                socket.send_to(&answer, from).unwrap();
            }
        });
        heard
    }

    #[test]
    fn a_port_is_told_renewed_before_its_end_and_given_back_in_namespaces() {
        let name = "engine::port_map::tests::a_port_is_told_renewed_before_its_end_and_given_back_in_namespaces";
        privileged(name, || {
            let [host, router] = behind_router();
            let heard = speak_nat_pmp(&router);
            let (told, news) = mpsc::channel();
            let tell = move |external| {
                let _ = told.send(external);
            };
            let port_map = host.run(|| PortMap::start(4433, tell).unwrap());
            let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 9), 40_433);
            assert_eq!(news.recv_timeout(PATIENCE), Ok(Some(external)));
            assert_eq!(heard.recv_timeout(PATIENCE), Ok(LIFETIME.as_secs() as u32));
            let first = Instant::now();
            assert_eq!(
                heard.recv_timeout(PATIENCE),
                Ok(2),
                "renewed as it was given"
            );
            assert!(first.elapsed() < Duration::from_secs(2), "before its end");
            drop(port_map);
            let last = heard.try_iter().last();
            assert_eq!(last, Some(0), "given back before the end is reached");
            assert!(
                news.try_iter().next().is_none(),
                "nothing else was to be told"
            );
        });
    }
}
