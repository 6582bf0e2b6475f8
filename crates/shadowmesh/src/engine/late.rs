//! Addresses to listen on that the host does not have yet, or that somebody else has.
//!
//! The sockets are bound ahead of their addresses where that is possible ([`shadowmesh_io::late`]), so all
//! that is left is to look whether they are there by now: for people, and for the sockets to be sent
//! from. A device that is plugged in, DHCP, or a tunnel may take any time, so there is no end to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_io::late;
use shadowmesh_io::web::Waiting;
use tokio::time;

use super::links::Links;
use crate::notices;

/// Between two looks while something is missing: who plugs in a cable does not want to wait.
const MISSING: Duration = Duration::from_secs(1);
/// While nothing is.
const CALM: Duration = Duration::from_secs(10);

/// What is looked at.
pub struct Listening {
    /// UDP.
    pub links: Arc<Links>,
    /// TCP addresses that are bound, for streams and metrics.
    pub tcp: Vec<SocketAddr>,
    /// TCP addresses that could not be bound.
    pub waiting: Option<Waiting>,
}

/// Looks for ever.
// PROTOCOL SM-ST-2
pub async fn watch(listening: Listening) {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let missing: BTreeMap<String, String> = listening.missing().into_iter().collect();
        for topic in told.keys().filter(|topic| !missing.contains_key(*topic)) {
            notices::clear(topic);
        }
        for (topic, text) in &missing {
            notices::set(topic, text.clone());
        }
        told = missing;
        time::sleep(if told.is_empty() { CALM } else { MISSING }).await;
    }
}

impl Listening {
    /// By topic, with the words for it.
    fn missing(&self) -> Vec<(String, String)> {
        let absent = |what: &str, address: SocketAddr| {
            let text = format!(
                "waiting for {}: no interface of this machine has it yet, so nothing comes to {what} {address}",
                address.ip()
            );
            (format!("listen {what} {address}"), text)
        };
        let udp = self.links.absent().into_iter();
        let mut missing: Vec<_> = udp.map(|address| absent("UDP", address)).collect();
        let is_absent =
            |address: &&SocketAddr| !address.ip().is_unspecified() && !late::is_here(address.ip());
        let tcp = self.tcp.iter().filter(is_absent);
        missing.extend(tcp.map(|address| absent("TCP", *address)));
        let waiting = self.waiting.iter().flat_map(Waiting::all);
        missing.extend(waiting.map(|(address, error)| {
            let text = format!(
                "cannot listen on TCP {address} ({error}): tried again every few seconds; choose another \
                 web.listen, or stop the program that uses this port; below 1024 it takes root or \
                 CAP_NET_BIND_SERVICE"
            );
            (format!("listen TCP {address}"), text)
        }));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-ST-2
    #[test]
    fn an_address_that_is_not_there_yet_is_waited_for_and_nothing_is_sent_from_it() {
        // RFC 5737: nobody has it.
        let bind = ["192.0.2.77:0", "127.0.0.1:0"].map(|address| address.parse().unwrap());
        let links = Arc::new(Links::bind(&bind, true).unwrap());
        let listening = Listening {
            links: Arc::clone(&links),
            tcp: vec![bind[1]],
            waiting: None,
        };
        let missing = listening.missing();
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(
            missing[0].1.contains("waiting for 192.0.2.77"),
            "{missing:?}"
        );
        let only = Links::bind(&bind[..1], true).unwrap();
        assert_eq!(only.absent().len(), 1);
    }
}
