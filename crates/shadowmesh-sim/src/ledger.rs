//! Who sent which packet, and where and how often it came out: what an observer on the devices sees.

use std::collections::BTreeMap;
use std::time::Duration;

/// A host of a world, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// The account of every numbered packet of a world.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<u64, Entry>,
    strangers: u64,
    notices: u64,
}

/// One packet.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The host whose device it came from.
    pub from: HostId,
    /// The host whose device it is for.
    pub to: HostId,
    /// World time at which it was handed to the node.
    pub sent: Duration,
    /// Every delivery to a device: where and when.
    pub delivered: Vec<(HostId, Duration)>,
}

impl Ledger {
    /// Books a packet that is about to be sent and gives it its number.
    pub fn book(&mut self, from: HostId, to: HostId, now: Duration) -> u64 {
        let number = self.entries.len() as u64;
        self.entries.insert(
            number,
            Entry {
                from,
                to,
                sent: now,
                delivered: Vec::new(),
            },
        );
        number
    }

    /// Notes that a packet reached the device of `at`; `None` is a packet without a number.
    pub(crate) fn deliver(&mut self, number: Option<u64>, at: HostId, now: Duration) {
        match number.and_then(|n| self.entries.get_mut(&n)) {
            Some(entry) => entry.delivered.push((at, now)),
            None => self.strangers += 1,
        }
    }

    /// Notes that the device of `at` was told that this packet was too big. Who did not send it has no
    /// business with the message.
    pub(crate) fn tell(&mut self, number: u64, at: HostId) {
        match self.entries.get(&number) {
            Some(entry) if entry.from == at => self.notices += 1,
            _ => self.strangers += 1,
        }
    }

    /// How often a sender was told that its packet was too big.
    pub fn notices(&self) -> u64 {
        self.notices
    }

    /// Every packet's account, in the order sent.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One packet's account.
    pub fn entry(&self, number: u64) -> &Entry {
        &self.entries[&number]
    }

    /// Was this packet delivered exactly once, and to the right host?
    pub fn arrived(&self, number: u64) -> bool {
        let entry = self.entry(number);
        matches!(entry.delivered[..], [(at, _)] if at == entry.to)
    }

    /// How many of these packets never arrived.
    pub fn lost<'a>(&self, numbers: impl IntoIterator<Item = &'a u64>) -> usize {
        numbers
            .into_iter()
            .filter(|n| self.entry(**n).delivered.is_empty())
            .count()
    }

    /// Everything that must never happen, whatever the network does: a packet that came out twice,
    /// came out at the wrong host, or was never sent. Empty when all is well.
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (number, entry) in &self.entries {
            if entry.delivered.len() > 1 {
                found.push(format!(
                    "packet {number} was delivered {} times",
                    entry.delivered.len()
                ));
            }
            if let Some((at, _)) = entry.delivered.iter().find(|(at, _)| *at != entry.to) {
                found.push(format!(
                    "packet {number} for {:?} came out at {at:?}",
                    entry.to
                ));
            }
        }
        if self.strangers > 0 {
            found.push(format!(
                "{} packets came out that nobody sent",
                self.strangers
            ));
        }
        found
    }

    /// When the first packet sent at or after `since` came out at its host.
    pub fn first_delivery(&self, from: HostId, to: HostId, since: Duration) -> Option<Duration> {
        let later = self
            .entries
            .values()
            .filter(|e| e.from == from && e.to == to && e.sent >= since);
        later
            .filter_map(|e| e.delivered.first().map(|(_, at)| *at))
            .min()
    }

    /// How many packets were sent and how many came out at least once.
    pub fn totals(&self) -> (usize, usize) {
        let out = self
            .entries
            .values()
            .filter(|e| !e.delivered.is_empty())
            .count();
        (self.entries.len(), out)
    }
}
