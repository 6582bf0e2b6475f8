//! Somebody on the wire: judges every datagram of the underlay and searches it for what must stay
//! inside.

use super::quic::{self, Kind};
use memchr::memmem::Finder;
use serde_json::{Value, json};
use shadowmesh::lab::{LabNode, PORT};
use shadowmesh_io::lab::{Frame, FrameSink};
use std::collections::BTreeMap;

/// What was seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// UDP datagrams from or to a node.
    pub datagrams: u64,
    /// Those that parse as QUIC version 1 with a long header first.
    pub long: u64,
    /// Those that parse as a short header.
    pub short: u64,
    /// Those that parse as neither.
    pub malformed: u64,
    /// Secrets found, and in how many frames.
    pub leaks: BTreeMap<String, u64>,
}

impl Seen {
    /// Nothing leaked and everything parsed, and there was something to look at.
    pub fn is_clean(&self) -> bool {
        self.malformed == 0 && self.leaks.is_empty() && self.long > 0 && self.short > 0
    }

    /// For a person.
    pub fn figure(&self) -> String {
        let leaks: Vec<String> = self
            .leaks
            .iter()
            .map(|(what, n)| format!("{what} {n}x"))
            .collect();
        format!(
            "{} datagrams ({} long, {} short headers), {} not QUIC, in clear: {}",
            self.datagrams,
            self.long,
            self.short,
            self.malformed,
            if leaks.is_empty() {
                "nothing".to_owned()
            } else {
                leaks.join(", ")
            }
        )
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        json!({
            "datagrams": self.datagrams,
            "long": self.long,
            "short": self.short,
            "malformed": self.malformed,
            "leaks": self.leaks,
        })
    }
}

/// The judge.
pub struct Observer {
    secrets: Vec<(String, Finder<'static>)>,
    /// So far.
    pub seen: Seen,
}

impl Observer {
    /// Searches for `plaintext` and for names, ids and inner addresses of the nodes.
    pub fn new(nodes: &[LabNode], plaintext: &[u8]) -> Self {
        let mut secrets = vec![("plaintext".to_owned(), plaintext.to_vec())];
        for node in nodes {
            secrets.push((
                format!("name of {}", node.name),
                node.name.clone().into_bytes(),
            ));
            secrets.push((
                format!("text id of {}", node.name),
                node.id.to_string().into_bytes(),
            ));
            secrets.push((format!("id of {}", node.name), node.id.as_bytes().to_vec()));
            let address = node.overlay_v6().octets().to_vec();
            secrets.push((format!("inner IPv6 address of {}", node.name), address));
        }
        // Four bytes turn up in a gigabyte by chance; source and destination side by side, as in
        // an IPv4 header, do not.
        for from in nodes {
            for to in nodes.iter().filter(|to| to.id != from.id) {
                let pair = [from.overlay_v4().octets(), to.overlay_v4().octets()].concat();
                secrets.push((format!("inner IPv4 header from {}", from.name), pair));
            }
        }
        let finders = secrets.into_iter();
        let secrets = finders.map(|(name, bytes)| (name, Finder::new(&bytes).into_owned()));
        Self {
            secrets: secrets.collect(),
            seen: Seen::default(),
        }
    }
}

impl FrameSink for Observer {
    fn frame(&mut self, frame: &Frame<'_>) {
        for (name, finder) in &self.secrets {
            if finder.find(frame.bytes).is_some() {
                *self.seen.leaks.entry(name.clone()).or_default() += 1;
            }
        }
        for datagram in frame.udp_datagrams() {
            if datagram.source.port() != PORT && datagram.destination.port() != PORT {
                continue;
            }
            self.seen.datagrams += 1;
            match quic::parse(datagram.payload) {
                Some(Kind::Long) => self.seen.long += 1,
                Some(Kind::Short) => self.seen.short += 1,
                None => self.seen.malformed += 1,
            }
        }
    }
}
