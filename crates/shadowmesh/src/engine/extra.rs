//! Further UDP sockets, opened to be seen at many ports of a NAT at once.
//!
//! A search for a way through a symmetric NAT sends from as many local ports as it can. They are opened
//! when they are first sent from, numbered as the node names them, and all but those that lead
//! somewhere are closed when the search is over. What comes in by them is read by one receiver of their
//! own, and judged like anything else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use shadowmesh_io::poll::Waker;
use shadowmesh_io::udp::UdpLink;

/// Limit: sockets at once, in both IP versions together: those of a search, eight for calls that do not get through
/// from where we listen, and the second port of a relay.
pub const EXTRA_MAX: usize = 256 + 2 * 8 + 1;

/// The sockets of now.
pub struct ExtraLinks {
    current: RwLock<Arc<ExtraSet>>,
}

/// The sockets from one change to the next.
pub struct ExtraSet {
    links: Vec<ExtraLink>,
    /// Woken when there is another set.
    replaced: Waker,
}

/// A socket and its number.
#[derive(Clone)]
struct ExtraLink {
    number: u16,
    link: Arc<UdpLink>,
}

impl ExtraLinks {
    /// None.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            current: RwLock::new(Arc::new(ExtraSet::new(Vec::new())?)),
        })
    }

    /// The sockets of now.
    pub fn current(&self) -> Arc<ExtraSet> {
        // Nothing is half done where somebody panicked.
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// The socket of that number for a remote address. HOT PATH for a peer that is reached by one.
    pub fn find(&self, number: u16, remote: SocketAddr) -> Option<Arc<UdpLink>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.find(number, remote).cloned()
    }

    /// As [`find`](Self::find), and opened at `local` if there is none. Only control does that.
    pub fn open(&self, number: u16, remote: SocketAddr, local: IpAddr) -> io::Result<Arc<UdpLink>> {
        match self.find(number, remote) {
            Some(link) => Ok(link),
            None => self.open_at(number, SocketAddr::new(local, 0)),
        }
    }

    /// Opens one at that address; port 0 is any.
    pub fn open_at(&self, number: u16, local: SocketAddr) -> io::Result<Arc<UdpLink>> {
        let mut links = self.current().links.clone();
        if links.len() >= EXTRA_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let link = Arc::new(UdpLink::bind(local)?);
        links.push(ExtraLink {
            number,
            link: Arc::clone(&link),
        });
        self.replace(links)?;
        Ok(link)
    }

    /// Closes all but these.
    pub fn close_all_but(&self, keep: &[u16]) -> io::Result<()> {
        let mut links = self.current().links.clone();
        let before = links.len();
        links.retain(|link| keep.contains(&link.number));
        match links.len() == before {
            true => Ok(()),
            false => self.replace(links),
        }
    }

    fn replace(&self, links: Vec<ExtraLink>) -> io::Result<()> {
        let next = Arc::new(ExtraSet::new(links)?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, next).replaced.wake();
        Ok(())
    }
}

impl ExtraSet {
    fn new(links: Vec<ExtraLink>) -> io::Result<Self> {
        Ok(Self {
            links,
            replaced: Waker::new()?,
        })
    }

    /// The sockets.
    pub fn links(&self) -> impl Iterator<Item = &UdpLink> {
        self.links.iter().map(|extra| &*extra.link)
    }

    /// Their numbers, in the same order.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.links.iter().map(|extra| extra.number)
    }

    /// Readable when this set is none any more.
    pub fn replaced(&self) -> &Waker {
        &self.replaced
    }

    fn find(&self, number: u16, remote: SocketAddr) -> Option<&Arc<UdpLink>> {
        let fits = |extra: &&ExtraLink| {
            extra.number == number && extra.link.local_addr().is_ipv4() == remote.is_ipv4()
        };
        self.links.iter().find(fits).map(|extra| &extra.link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_io::poll::{self, Watch};
    use std::net::Ipv4Addr;
    use std::time::Duration;

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn remote() -> SocketAddr {
        SocketAddr::new(LOCAL, 9)
    }

    fn is_replaced(set: &ExtraSet) -> bool {
        let mut watches = [Watch::readable(set.replaced())];
        poll::wait(&mut watches, Some(Duration::ZERO)).unwrap() == 1
    }

    #[test]
    fn a_socket_is_opened_once_and_found_by_its_number_and_ip_version() {
        let extra = ExtraLinks::new().unwrap();
        assert!(extra.find(3, remote()).is_none());
        let opened = extra.open(3, remote(), LOCAL).unwrap();
        let again = extra.open(3, remote(), LOCAL).unwrap();
        assert_eq!(opened.local_addr(), again.local_addr());
        assert!(extra.find(3, remote()).is_some());
        assert!(extra.find(4, remote()).is_none());
        assert!(extra.find(3, "[::1]:9".parse().unwrap()).is_none());
    }

    #[test]
    fn there_are_never_more_than_the_limit_and_all_but_one_are_closed_again() {
        let extra = ExtraLinks::new().unwrap();
        let first = extra.current();
        for number in 1..=EXTRA_MAX as u16 {
            extra.open(number, remote(), LOCAL).unwrap();
        }
        assert!(extra.open(999, remote(), LOCAL).is_err());
        assert!(is_replaced(&first) && !is_replaced(&extra.current()));
        let full = extra.current();
        let lost = extra.find(1, remote()).unwrap().local_addr();
        extra.close_all_but(&[7]).unwrap();
        assert!(is_replaced(&full));
        drop(full);
        assert!(extra.find(7, remote()).is_some());
        assert_eq!(extra.current().numbers().collect::<Vec<_>>(), [7]);
        UdpLink::bind(lost).expect("its port is free again");
        let kept = extra.current();
        extra.close_all_but(&[7]).unwrap();
        assert!(!is_replaced(&kept), "nothing changed");
        extra.close_all_but(&[]).unwrap();
        assert_eq!(extra.current().links().count(), 0);
    }
}
