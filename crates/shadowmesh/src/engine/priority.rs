//! Who goes first when the machine has more to do than cores.
//!
//! A kernel does what the data threads do in its softirqs, before any program. As ordinary threads they
//! would share the cores evenly with those who send and receive through the tunnel, wait out the
//! others' turns of up to 4 ms, and leave the queues wherever they happen to wait last: in the far
//! socket and in the device, in one line. So they ask to go before programs, and the receiver before the
//! sender: later stages first, or work is spent on packets that a queue further on drops (Mogul and
//! Ramakrishnan, "Eliminating receive livelock", 1997). What then waits does so in the sender's fair
//! queue.
//!
//! Niceness and not a real-time class: a flood of garbage keeps a receiver busy, and at real-time
//! priority it would take the core from everything else on the machine. At -19 it would take nearly all
//! of it; so while hardly anything of what comes is a peer's, a receiver is an ordinary thread
//! ([`Standing`]). Without the privilege
//! (`CAP_SYS_NICE`) all works, and is a little slower to answer under load.

use std::time::Duration;

use shadowmesh_io::sched;

/// Weighs nine times an ordinary thread.
const NICE_SENDER: i32 = -10;
/// Weighs seven times a sender.
const NICE_RECEIVER: i32 = -19;
const NICE_ORDINARY: i32 = 0;
/// Datagrams after which a receiver looks what they were: some 20 ms of a flood.
const WINDOW: u32 = 4096;
/// A receiver goes first only while one datagram in so many is a peer's.
const PEERS_SHARE: u32 = 8;
/// After nothing came for so long, whatever it was is over.
const CALM: Duration = Duration::from_millis(100);
/// A sender's pauses are 50 us; the kernel's own slack would double them.
const TIMER_SLACK: Duration = Duration::from_micros(1);

/// For the calling thread, a sender; whether it was granted.
pub fn sender() -> bool {
    let _ = sched::set_timer_slack(TIMER_SLACK);
    ask(NICE_SENDER)
}

/// For the calling thread, a receiver; whether it was granted.
pub fn receiver() -> bool {
    ask(NICE_RECEIVER)
}

/// For the calling thread, which works for whoever comes: the thread that started it may have asked for more.
pub fn ordinary() {
    ask(NICE_ORDINARY);
}

/// For whom a receiver works, and so whether it deserves to go first. What a peer sends can be told
/// for certain only when it is sealed; datagrams of control connections count as a peer's by address.
#[derive(Debug, Default)]
pub struct Standing {
    peers: u32,
    all: u32,
    ordinary: bool,
}

impl Standing {
    /// A batch of so many datagrams was looked at, so many of them a peer's. HOT PATH, once for each batch.
    pub fn served(&mut self, peers: u32, all: u32) {
        if let Some(nice) = self.judge(peers, all) {
            ask(nice);
        }
    }

    /// Nothing has come for so long.
    pub fn waited(&mut self, for_how_long: Duration) {
        if let Some(nice) = self.calm(for_how_long) {
            ask(nice);
        }
    }

    /// Whether hardly anything of what comes is a peer's.
    pub fn is_ordinary(&self) -> bool {
        self.ordinary
    }

    fn judge(&mut self, peers: u32, all: u32) -> Option<i32> {
        self.peers += peers;
        self.all += all;
        if self.all < WINDOW {
            return None;
        }
        let ordinary = self.peers < self.all / PEERS_SHARE;
        (self.peers, self.all) = (0, 0);
        self.change(ordinary)
    }

    fn calm(&mut self, for_how_long: Duration) -> Option<i32> {
        if for_how_long < CALM {
            return None;
        }
        (self.peers, self.all) = (0, 0);
        self.change(false)
    }

    fn change(&mut self, ordinary: bool) -> Option<i32> {
        let before = std::mem::replace(&mut self.ordinary, ordinary);
        (before != ordinary).then_some(if ordinary {
            NICE_ORDINARY
        } else {
            NICE_RECEIVER
        })
    }
}

fn ask(nice: i32) -> bool {
    let asked = sched::set_nice(nice);
    if let Err(error) = &asked {
        tracing::debug!(%error, "a data thread keeps the priority of an ordinary one");
    }
    asked.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes that `batches` batches of 64 datagrams make, `peers` of each being a peer's.
    fn changes(standing: &mut Standing, batches: usize, peers: u32) -> Vec<i32> {
        let changes = (0..batches).filter_map(|_| standing.judge(peers, 64));
        changes.collect()
    }

    #[test]
    fn a_receiver_that_only_turns_strangers_away_is_an_ordinary_thread_until_peers_are_back() {
        let mut standing = Standing::default();
        assert!(changes(&mut standing, 1000, 64).is_empty());
        assert_eq!(changes(&mut standing, 1000, 1), [NICE_ORDINARY]);
        assert_eq!(changes(&mut standing, 1000, 20), [NICE_RECEIVER]);
    }

    #[test]
    fn when_the_flood_is_over_the_next_packet_is_served_first_again() {
        let mut standing = Standing::default();
        assert_eq!(changes(&mut standing, 1000, 0), [NICE_ORDINARY]);
        assert_eq!(standing.calm(CALM / 2), None);
        assert_eq!(standing.calm(CALM), Some(NICE_RECEIVER));
        assert_eq!(standing.calm(CALM), None);
    }
}
