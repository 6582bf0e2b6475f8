//! Who sent which packet, and where and how often it came out: what an observer on the devices sees.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// A host of a world, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub usize);

/// The account of every numbered packet of a world.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// By number, from `first` on.
    entries: VecDeque<Entry>,
    /// How many were forgotten.
    first: u64,
    /// Of these, how many had come out.
    forgotten_out: usize,
    /// Packets that came out twice, or at the wrong host.
    wrong: BTreeSet<u64>,
    /// What was wrong with packets that are forgotten.
    wrong_before: Vec<String>,
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
    /// The network dropped a datagram that carried it, or a part of it: a link, a box, or because nobody
    /// was there.
    pub dropped: bool,
}

impl Ledger {
    /// Books a packet that is about to be sent and gives it its number.
    pub fn book(&mut self, from: HostId, to: HostId, now: Duration) -> u64 {
        let number = self.next_number();
        self.entries.push_back(Entry {
            from,
            to,
            sent: now,
            delivered: Vec::new(),
            dropped: false,
        });
        number
    }

    /// Notes that a packet reached the device of `at`; `None` is a packet without a number.
    pub(crate) fn deliver(&mut self, number: Option<u64>, at: HostId, now: Duration) {
        let Some((number, entry)) = number.and_then(|n| Some((n, self.find(n)?))) else {
            self.strangers += 1;
            return;
        };
        entry.delivered.push((at, now));
        if entry.delivered.len() > 1 || at != entry.to {
            self.wrong.insert(number);
        }
    }

    /// Notes that the network dropped a datagram with this packet.
    pub(crate) fn note_drop(&mut self, number: u64) {
        if let Some(entry) = self.find(number) {
            entry.dropped = true;
        }
    }

    /// Whether a packet is for this host.
    pub fn is_for(&self, number: u64, host: HostId) -> bool {
        let at = number.checked_sub(self.first);
        let entry = at.and_then(|at| self.entries.get(usize::try_from(at).ok()?));
        entry.is_some_and(|entry| entry.to == host)
    }

    fn find(&mut self, number: u64) -> Option<&mut Entry> {
        let at = number.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(at).ok()?)
    }

    /// Notes that the device of `at` was told that this packet was too big. Who did not send it has no
    /// business with the message.
    pub(crate) fn tell(&mut self, number: u64, at: HostId) {
        match self.find(number) {
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
        self.entries.iter()
    }

    /// The accounts from that number on.
    pub fn entries_from(&self, number: u64) -> impl Iterator<Item = &Entry> {
        let at = number.saturating_sub(self.first) as usize;
        self.entries.range(at.min(self.entries.len())..)
    }

    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Forgets packets about which everything was asked, but not what was wrong with them. One that comes out
    /// after that is a packet that nobody sent.
    pub fn forget_before(&mut self, number: u64) {
        self.wrong_before.extend(self.violations_of_packets());
        self.wrong.clear();
        while self.first < number {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.forgotten_out += usize::from(!entry.delivered.is_empty());
            self.first += 1;
        }
    }

    /// One packet's account.
    pub fn entry(&self, number: u64) -> &Entry {
        let at = number.checked_sub(self.first).expect("it is not forgotten");
        &self.entries[at as usize]
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

    /// How many of these packets never arrived although the network dropped no datagram of theirs.
    pub fn lost_by_nodes<'a>(&self, numbers: impl IntoIterator<Item = &'a u64>) -> usize {
        let lost = |entry: &Entry| entry.delivered.is_empty() && !entry.dropped;
        let numbers = numbers.into_iter();
        numbers.filter(|n| lost(self.entry(**n))).count()
    }

    /// Everything that must never happen, whatever the network does: a packet that came out twice,
    /// came out at the wrong host, or was never sent. Empty when all is well.
    pub fn violations(&self) -> Vec<String> {
        let mut found = self.wrong_before.clone();
        found.extend(self.violations_of_packets());
        if self.strangers > 0 {
            found.push(format!(
                "{} packets came out that nobody sent",
                self.strangers
            ));
        }
        found
    }

    fn violations_of_packets(&self) -> Vec<String> {
        let mut found = Vec::new();
        for number in &self.wrong {
            let entry = self.entry(*number);
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
        found
    }

    /// When the first packet sent at or after `since` came out at its host.
    pub fn first_delivery(&self, from: HostId, to: HostId, since: Duration) -> Option<Duration> {
        let later = self
            .entries
            .iter()
            .skip(self.entries.partition_point(|e| e.sent < since))
            .filter(|e| e.from == from && e.to == to);
        later
            .filter_map(|e| e.delivered.first().map(|(_, at)| *at))
            .min()
    }

    /// How many packets were sent and how many came out at least once.
    pub fn totals(&self) -> (usize, usize) {
        let out = self
            .entries
            .iter()
            .filter(|e| !e.delivered.is_empty())
            .count();
        (self.next_number() as usize, self.forgotten_out + out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    #[test]
    fn what_the_network_dropped_is_told_from_what_nodes_lost() {
        let mut ledger = Ledger::default();
        let numbers: Vec<u64> = (0..4).map(|_| ledger.book(A, B, Duration::ZERO)).collect();
        ledger.deliver(Some(numbers[0]), B, Duration::ZERO);
        ledger.note_drop(numbers[1]);
        ledger.note_drop(numbers[2]);
        // One copy was dropped, another came.
        ledger.deliver(Some(numbers[2]), B, Duration::ZERO);
        assert_eq!(
            (ledger.lost(&numbers), ledger.lost_by_nodes(&numbers)),
            (2, 1)
        );
        assert_eq!(ledger.violations(), Vec::<String>::new());
    }

    #[test]
    fn packets_that_are_forgotten_still_count_and_are_still_wrong() {
        let mut ledger = Ledger::default();
        let first = ledger.book(A, B, Duration::ZERO);
        let second = ledger.book(A, B, Duration::ZERO);
        for _ in 0..2 {
            ledger.deliver(Some(first), B, Duration::ZERO);
        }
        ledger.forget_before(second);
        assert_eq!(ledger.totals(), (2, 1));
        assert_eq!(ledger.violations().len(), 1);
        assert_eq!(ledger.entries_from(second).count(), 1);
        // Nobody can say any more whether it is a second time.
        ledger.deliver(Some(first), B, Duration::ZERO);
        assert_eq!(ledger.violations().len(), 2);
        ledger.deliver(Some(second), A, Duration::ZERO);
        assert_eq!(ledger.violations().len(), 3);
    }
}
