//! Many queues in one piece of memory: however the backlog moves between flows, the queue never takes
//! more than it took at its start.

/// No entry.
const NONE: u32 = u32::MAX;

/// Room for a fixed number of entries, chained into queues.
#[derive(Debug)]
pub(super) struct Slab<E> {
    slots: Vec<Slot<E>>,
    /// Free slots, chained. Last freed, first used: it is the one still in the cache.
    free: u32,
}

#[derive(Debug)]
struct Slot<E> {
    entry: Option<E>,
    next: u32,
}

/// The two ends of one queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct SlabQueue {
    head: u32,
    tail: u32,
}

impl Default for SlabQueue {
    fn default() -> Self {
        Self {
            head: NONE,
            tail: NONE,
        }
    }
}

impl<E> Slab<E> {
    /// Room for `len` entries.
    pub(super) fn new(len: usize) -> Self {
        let slot = |next| Slot { entry: None, next };
        let len = u32::try_from(len).expect("a limit of items that a queue can have");
        let mut slots: Vec<_> = (1..=len).map(slot).collect();
        slots[len as usize - 1].next = NONE;
        Self { slots, free: 0 }
    }

    /// Adds to the end of a queue. The caller keeps to the number of entries. HOT PATH.
    pub(super) fn push_back(&mut self, queue: &mut SlabQueue, entry: E) {
        let at = self.free;
        assert_ne!(at, NONE, "the caller counts entries");
        let slot = &mut self.slots[at as usize];
        self.free = slot.next;
        *slot = Slot {
            entry: Some(entry),
            next: NONE,
        };
        match queue.tail {
            NONE => queue.head = at,
            tail => self.slots[tail as usize].next = at,
        }
        queue.tail = at;
    }

    /// Takes from the front of a queue. HOT PATH.
    pub(super) fn pop_front(&mut self, queue: &mut SlabQueue) -> Option<E> {
        let at = queue.head;
        if at == NONE {
            return None;
        }
        let slot = &mut self.slots[at as usize];
        let entry = slot.entry.take();
        queue.head = slot.next;
        slot.next = self.free;
        self.free = at;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        entry
    }
}
