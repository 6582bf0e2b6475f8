//! Where packets wait for their turn to be sealed: one queue for each flow, served in turn, each kept
//! short by CoDel (FQ-CoDel, RFC 8290 and RFC 8289).
//!
//! A tunnel has to queue somewhere, because a device offers more than a core can seal. In one line a
//! ping waits behind everything a bulk transfer has in flight. Here it waits for the packet in hand:
//!
//! - **Flows are served in turn** by deficit round robin, in bytes ([`QUANTUM`] for each turn), so
//!   that none gets more than its share however large its packets. A flow is what a keyed hash of its
//!   5-tuple says ([`FlowHasher`]); two flows may share a queue, by chance and never by design.
//! - **A flow that keeps nothing waiting goes first**: what arrives for an empty queue is served before
//!   the flows with a backlog, for one quantum. That is the whole of what makes pings, name lookups and
//!   calls quick; nobody has to mark or configure anything.
//! - **A flow whose packets wait too long is told so** ([`codel`]): by a mark where its transport
//!   understands marks (ECN), else by one lost packet. A super-packet loses its first segment only:
//!   the signal is the same, and forty-five times less has to be sent again.
//! - **There is an end to memory.** At the limit the flow that takes most of it loses its oldest item,
//!   so that a flood pushes out itself.
//!
//! The queue knows no time but what it is told, no packet but its size, and drops nothing in silence:
//! what it throws away is handed back with the reason.

mod codel;
mod flow_hash;
mod slab;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Instant;

use shadowmesh_net::DropReason;

use codel::Codel;
pub use codel::{INTERVAL, TARGET};
pub use flow_hash::FlowHasher;
use slab::{Slab, SlabQueue};

/// Queues, and so flows that can be told apart. RFC 8290 §5.2.2's default: a hundred flows at once
/// share one with probability below a tenth each.
pub const FLOWS: usize = 1024;

/// Bytes a flow may send in its turn. The largest packet of a path of 1500 bytes (RFC 8290 §5.2.1):
/// a super-packet of 64 KB then lets every other flow pass forty times before the next of its own.
pub const QUANTUM: i32 = 1514;

/// How much may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Items of all flows together.
    pub items: usize,
    /// Memory of all items together, in bytes.
    pub memory: usize,
}

/// What the queue has to know about an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Bytes of the packet, for fairness.
    pub bytes: u32,
    /// Bytes of the memory that holds it, for the limit.
    pub memory: u32,
    /// Packets it will be cut into; above 1 it is a super-packet.
    pub segments: u32,
    /// Whether its transport understands marks: the ECN field says ECT(0), ECT(1) or CE.
    pub ecn_capable: bool,
}

/// Whether the flow is to be told that its packets wait too long, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Nothing to say.
    None,
    /// Set the ECN field to CE.
    Mark,
    /// Leave out the first segment of this super-packet, and count it as dropped.
    LoseFirst,
}

/// The queues of all flows.
#[derive(Debug)]
pub struct FairQueue<T> {
    slab: Slab<Entry<T>>,
    /// [`FLOWS`] of them.
    flows: Box<[Flow]>,
    /// Flows that had nothing waiting when their packet came; each at most once, here or in `old`.
    new: VecDeque<u16>,
    /// Flows with a backlog, and those that just had one.
    old: VecDeque<u16>,
    limits: Limits,
    items: usize,
    memory: usize,
}

#[derive(Debug)]
struct Entry<T> {
    item: T,
    size: Size,
    since: Instant,
}

#[derive(Debug, Default)]
struct Flow {
    queue: SlabQueue,
    codel: Codel,
    /// Bytes the flow may still send in this turn.
    deficit: i32,
    items: u32,
    bytes: u32,
    memory: u32,
    listed: bool,
}

impl<T> FairQueue<T> {
    /// An empty queue. All memory of its own is taken here.
    pub fn new(limits: Limits) -> Self {
        assert!(limits.items > 0, "a queue of nothing");
        Self {
            slab: Slab::new(limits.items),
            flows: (0..FLOWS).map(|_| Flow::default()).collect(),
            new: VecDeque::with_capacity(FLOWS),
            old: VecDeque::with_capacity(FLOWS),
            limits,
            items: 0,
            memory: 0,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Memory of all that waits, in bytes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// Puts an item behind those of its flow. What must go for it, perhaps the item itself when it
    /// alone is above the limit, is handed to `lost`. HOT PATH.
    pub fn push(
        &mut self,
        hash: u64,
        item: T,
        size: Size,
        now: Instant,
        lost: &mut impl FnMut(T, Size, DropReason),
    ) {
        while self.items > 0 && !self.has_room(size) {
            let fattest = self.fattest();
            self.lose_oldest(fattest, lost);
        }
        if !self.has_room(size) {
            return lost(item, size, DropReason::QueueFull);
        }
        let number = hash as usize % FLOWS;
        let flow = &mut self.flows[number];
        let entry = Entry {
            item,
            size,
            since: now,
        };
        self.slab.push_back(&mut flow.queue, entry);
        flow.items += 1;
        flow.bytes += size.bytes;
        flow.memory += size.memory;
        self.items += 1;
        self.memory += size.memory as usize;
        if !flow.listed {
            flow.listed = true;
            flow.deficit = QUANTUM;
            self.new.push_back(number as u16);
        }
    }

    /// Takes the item whose turn it is. Items that are lost on the way, to tell their flow, are handed
    /// to `lost`; the caller obeys the [`Signal`]. HOT PATH.
    pub fn pop(
        &mut self,
        now: Instant,
        lost: &mut impl FnMut(T, Size, DropReason),
    ) -> Option<(T, Size, Signal)> {
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let number = *list.front()?;
            let flow = &mut self.flows[usize::from(number)];
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM;
                list.pop_front();
                self.old.push_back(number);
                continue;
            }
            if let Some((entry, signal)) = self.pop_flow(number, now, lost) {
                let flow = &mut self.flows[usize::from(number)];
                flow.deficit -= entry.size.bytes as i32;
                return Some((entry.item, entry.size, signal));
            }
            // A new flow that ran empty waits out one round among the old (RFC 8290 §4.2), so that
            // one which sends its packets just so cannot keep being new.
            if is_new {
                self.new.pop_front();
                self.old.push_back(number);
            } else {
                self.old.pop_front();
                self.flows[usize::from(number)].listed = false;
            }
        }
    }

    /// The next item of a flow, as CoDel lets it through.
    fn pop_flow(
        &mut self,
        number: u16,
        now: Instant,
        lost: &mut impl FnMut(T, Size, DropReason),
    ) -> Option<(Entry<T>, Signal)> {
        loop {
            let Some(entry) = self.take_oldest(number) else {
                self.flows[usize::from(number)].codel.ran_empty();
                return None;
            };
            let flow = &mut self.flows[usize::from(number)];
            let waited = now.saturating_duration_since(entry.since);
            if !flow
                .codel
                .must_signal(waited, flow.bytes, entry.size.bytes, now)
            {
                return Some((entry, Signal::None));
            }
            if entry.size.ecn_capable {
                return Some((entry, Signal::Mark));
            }
            if entry.size.segments > 1 {
                return Some((entry, Signal::LoseFirst));
            }
            lost(entry.item, entry.size, DropReason::QueueCodel);
        }
    }

    fn has_room(&self, size: Size) -> bool {
        self.items < self.limits.items && self.memory + size.memory as usize <= self.limits.memory
    }

    /// The flow that takes most of the limit that was reached.
    fn fattest(&self) -> u16 {
        let of_items = self.items >= self.limits.items;
        let fatness = |flow: &Flow| if of_items { flow.items } else { flow.memory };
        let numbered = self.flows.iter().enumerate();
        let (number, _) = numbered
            .max_by_key(|(_, flow)| fatness(flow))
            .expect("there are flows");
        number as u16
    }

    fn lose_oldest(&mut self, number: u16, lost: &mut impl FnMut(T, Size, DropReason)) {
        if let Some(entry) = self.take_oldest(number) {
            lost(entry.item, entry.size, DropReason::QueueFull);
        }
    }

    fn take_oldest(&mut self, number: u16) -> Option<Entry<T>> {
        let flow = &mut self.flows[usize::from(number)];
        let entry = self.slab.pop_front(&mut flow.queue)?;
        flow.items -= 1;
        flow.bytes -= entry.size.bytes;
        flow.memory -= entry.size.memory;
        self.items -= 1;
        self.memory -= entry.size.memory as usize;
        Some(entry)
    }
}
