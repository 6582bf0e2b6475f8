//! The real addresses of a connection.
//!
//! QUIC and the sealed frames of one peer take the same way, and only this module knows which. At
//! first that is where the peer was found; until the handshake is complete, all its known addresses
//! are tried at once. Later an authentic probe from another address makes that address a candidate:
//! it is challenged with a probe of ours, and takes over when the answer comes back from it. So a
//! peer that changes its network keeps its session, and an attacker who passes a probe on from
//! elsewhere gets one small probe.
//!
//! Relays and streams are addresses too, see [`shadowmesh_wire::way`].

mod mtu;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_wire::sealed::OVERHEAD;

pub(crate) use mtu::{MtuSearch, View};

/// After this a challenge that was not answered may be followed by another, so a sender with many
/// addresses gets at most one probe in this time.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);

/// One way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    /// The local address it used, where we were told.
    pub(crate) local_ip: Option<IpAddr>,
    /// The local port it uses: 0 is where we listen.
    pub(crate) socket: u16,
}

impl Path {
    /// To an address, from wherever the operating system thinks right.
    pub(crate) fn to(remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            socket: 0,
        }
    }
}

/// The ways of one connection.
#[derive(Debug)]
pub(crate) struct Paths {
    current: Path,
    /// Further addresses that get every datagram until one is proven. Limit: set by the caller.
    tried: Vec<Path>,
    challenge: Option<Challenge>,
    /// How long datagrams may be; from the moment that there is a session to send probes in.
    pub(crate) mtu: Option<MtuSearch>,
    /// Our own address as the peer sees it.
    pub(crate) observed: Option<SocketAddr>,
}

#[derive(Debug)]
struct Challenge {
    token: u64,
    path: Path,
    sent_at: Instant,
}

impl Paths {
    /// Starts at `first` and tries `others` beside it.
    pub(crate) fn new(first: Path, others: &[SocketAddr]) -> Self {
        Self {
            current: first,
            tried: others.iter().map(|&remote| Path::to(remote)).collect(),
            challenge: None,
            mtu: None,
            observed: None,
        }
    }

    pub(crate) fn current(&self) -> Path {
        self.current
    }

    /// Where a datagram goes now: one way, or all that are tried.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Path> + '_ {
        std::iter::once(self.current).chain(self.tried.iter().copied())
    }

    /// The peer is authenticated at `path`: the others are not needed. Returns it if it is another
    /// than the current one.
    // PROTOCOL SM-PA-1
    pub(crate) fn proven(&mut self, path: Path) -> Option<Path> {
        if self.tried.is_empty() {
            return None;
        }
        self.tried.clear();
        (path.remote != self.current.remote).then_some(path)
    }

    /// Tries another address too. Only while they are tried.
    pub(crate) fn also_try(&mut self, path: Path) {
        if self.targets().all(|known| known.remote != path.remote) {
            self.tried.push(path);
        }
    }

    /// An address that was tried leads nowhere. What to use in the place of the current one if that was
    /// it; `Err`: there is nothing else.
    pub(crate) fn give_up(&mut self, remote: SocketAddr) -> Result<Option<Path>, ()> {
        self.tried.retain(|path| path.remote != remote);
        if self.current.remote != remote {
            return Ok(None);
        }
        if self.tried.is_empty() {
            return Err(());
        }
        Ok(Some(self.tried.remove(0)))
    }

    /// The largest inner packet that fits one frame now, and, once that is settled and less than the
    /// device takes, what inner senders are to be told.
    pub(crate) fn inner_len(&self, device_mtu: u16) -> (usize, Option<usize>) {
        let base = MtuSearch::base(self.current.remote);
        let datagram = self.mtu.as_ref().map_or(base, MtuSearch::datagram_len_max);
        let inner = datagram - OVERHEAD;
        let settled = self.mtu.as_ref().is_some_and(MtuSearch::is_settled);
        (
            inner,
            (settled && inner < usize::from(device_mtu)).then_some(inner),
        )
    }

    /// The largest IP packet known to pass, once that is settled.
    pub(crate) fn path_mtu(&self) -> Option<usize> {
        let search = self.mtu.as_ref().filter(|search| search.is_settled())?;
        Some(search.ip_len_max())
    }

    pub(crate) fn move_to(&mut self, path: Path) {
        self.current = path;
        self.challenge = None;
        self.mtu = None;
    }

    /// An authentic probe came from `path`. True: send it a probe request with `token`.
    // PROTOCOL SM-PA-2
    pub(crate) fn challenge(&mut self, path: Path, token: u64, now: Instant) -> bool {
        let waiting = self
            .challenge
            .as_ref()
            .is_some_and(|challenge| now < challenge.sent_at + CHALLENGE_INTERVAL);
        if path.remote == self.current.remote || waiting {
            return false;
        }
        self.challenge = Some(Challenge {
            token,
            path,
            sent_at: now,
        });
        true
    }

    /// A probe reply with `token` came from `path`. True: that proves the path challenged.
    pub(crate) fn is_proof(&self, token: u64, path: Path) -> bool {
        self.challenge
            .as_ref()
            .is_some_and(|c| c.token == token && c.path.remote == path.remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    fn path(port: u16) -> Path {
        Path::to(([192, 0, 2, 1], port).into())
    }

    #[test]
    fn all_addresses_are_tried_until_one_is_proven() {
        let mut paths = Paths::new(path(1), &[path(2).remote, path(3).remote]);
        assert_eq!(paths.targets().count(), 3);
        assert_eq!(paths.proven(path(3)), Some(path(3)));
        paths.move_to(path(3));
        assert_eq!(paths.targets().collect::<Vec<_>>(), [path(3)]);
        assert_eq!(paths.proven(path(2)), None);
    }

    #[test]
    fn a_path_is_proven_only_by_the_token_it_was_sent_and_from_itself() {
        let now = start();
        let mut paths = Paths::new(path(1), &[]);
        assert!(!paths.challenge(path(1), 5, now));
        assert!(paths.challenge(path(2), 6, now));
        assert!(!paths.challenge(path(3), 7, now));
        assert!(!paths.is_proof(6, path(3)));
        assert!(!paths.is_proof(7, path(2)));
        assert!(paths.is_proof(6, path(2)));
        assert!(paths.challenge(path(3), 8, now + CHALLENGE_INTERVAL));
        assert!(!paths.is_proof(6, path(2)));
    }
}
