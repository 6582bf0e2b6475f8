//! What the parent is to hear, in the order in which it happened.
//!
//! Most of it is state: a session is up or down, a peer is reached another way. Of that the last word
//! is all that counts, so there is one place for each peer and kind, which a newer word takes from an
//! older one: it cannot be crowded out, and the bound is the number of peers. What is no state (messages
//! for the parent, answers that it asked for) may be lost: each peer has a few places of its own, so
//! that none fills those of another.
//!
//! What the data plane goes by is not told here at all. Whether that changed is a comparison of two
//! values ([`Net::forwarding`](crate::Net::forwarding)).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use shadowmesh_wire::PeerId;

use crate::event::NetEvent;

/// Limit: messages and answers of one peer that the parent has not fetched yet. It fetches after each
/// input, of which a session may bring [`MESSAGES_BURST`](crate::session::MESSAGES_BURST).
const MESSAGES_MAX: usize = 64;
/// Limit: streams of which it was heard that they carry a session. The next probe says it again.
const STREAMS_MAX: usize = 256;

/// What the parent has not fetched yet.
#[derive(Debug, Default)]
pub(super) struct News {
    /// By number, in the order in which they happened. Limits: one for each peer and kind of state,
    /// [`MESSAGES_MAX`] for each peer, [`STREAMS_MAX`], and one.
    waiting: BTreeMap<u64, NetEvent>,
    next: u64,
    /// Where the last word on each state stands in `waiting`.
    states: BTreeMap<State, u64>,
    /// How many messages of each peer wait. Limit: one for each peer.
    messages: BTreeMap<PeerId, usize>,
    streams: usize,
}

/// Something of which only the last word counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Peer(PeerId, Kind),
    Stream(SocketAddr),
    Sockets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Handshaken,
    Up,
    Down,
    Epoch,
    Path,
    Plane,
    Key,
    Stream,
    Copied,
}

/// What an event is.
enum Sort {
    State(State),
    Message(PeerId),
}

impl News {
    /// Takes in what happened. False: it is none of the state, and too much of its peer waits.
    // PROTOCOL SM-OV-6
    #[must_use]
    pub(super) fn push(&mut self, event: NetEvent) -> bool {
        match sort(&event) {
            Sort::State(state) => {
                if let Some(earlier) = self.states.remove(&state) {
                    self.take(earlier);
                }
                let is_stream = matches!(state, State::Stream(_));
                if is_stream && self.streams >= STREAMS_MAX {
                    return false;
                }
                self.streams += usize::from(is_stream);
                self.states.insert(state, self.next);
            }
            Sort::Message(peer) => {
                let waiting = self.messages.entry(peer).or_default();
                if *waiting >= MESSAGES_MAX {
                    return false;
                }
                *waiting += 1;
            }
        }
        self.waiting.insert(self.next, event);
        self.next += 1;
        true
    }

    /// The next thing to know.
    pub(super) fn pop(&mut self) -> Option<NetEvent> {
        let (&number, event) = self.waiting.first_key_value()?;
        if let Sort::State(state) = sort(event) {
            self.states.remove(&state);
        }
        self.take(number)
    }

    fn take(&mut self, number: u64) -> Option<NetEvent> {
        let event = self.waiting.remove(&number)?;
        match sort(&event) {
            Sort::State(State::Stream(_)) => self.streams -= 1,
            Sort::State(_) => {}
            Sort::Message(peer) => {
                if let Some(waiting) = self.messages.get_mut(&peer) {
                    *waiting -= 1;
                    if *waiting == 0 {
                        self.messages.remove(&peer);
                    }
                }
            }
        }
        Some(event)
    }
}

fn sort(event: &NetEvent) -> Sort {
    let of = |peer: &PeerId, kind| Sort::State(State::Peer(*peer, kind));
    match event {
        NetEvent::Handshaken { peer, .. } => of(peer, Kind::Handshaken),
        NetEvent::PeerUp { peer, .. } => of(peer, Kind::Up),
        NetEvent::PeerDown { peer, .. } => of(peer, Kind::Down),
        NetEvent::Rekeyed { peer, .. } => of(peer, Kind::Epoch),
        NetEvent::PathChanged { peer, .. } => of(peer, Kind::Path),
        NetEvent::PlaneChanged { peer, .. } => of(peer, Kind::Plane),
        NetEvent::LearnedKey(key) => of(&key.peer_id(), Kind::Key),
        NetEvent::WantStream { peer } => of(peer, Kind::Stream),
        NetEvent::IdentityCopied { peer, .. } => of(peer, Kind::Copied),
        NetEvent::StreamCarries { address } => Sort::State(State::Stream(*address)),
        NetEvent::SocketsDone { .. } => Sort::State(State::Sockets),
        NetEvent::PingReply { peer, .. } | NetEvent::Control { peer, .. } => Sort::Message(*peer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::DownReason;
    use shadowmesh_wire::control::ControlMessage;

    fn id(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn message(n: u8) -> NetEvent {
        let message = ControlMessage::BenchReply { port: 0 };
        NetEvent::Control {
            peer: id(n),
            message,
        }
    }

    fn down(n: u8, reason: DownReason) -> NetEvent {
        NetEvent::PeerDown {
            peer: id(n),
            reason,
        }
    }

    // PROTOCOL SM-OV-6
    #[test]
    fn who_fills_its_places_takes_none_of_another_and_none_of_the_state() {
        let mut news = News::default();
        let taken = (0..100_000).filter(|_| news.push(message(1))).count();
        assert_eq!(taken, MESSAGES_MAX);
        assert!(news.push(message(2)));
        assert!(news.push(down(1, DownReason::Silent)));
        let all = std::iter::from_fn(|| news.pop()).count();
        assert_eq!(all, MESSAGES_MAX + 2);
        assert!(news.push(message(1)), "there is room again");
        assert_eq!(news.messages.len(), 1);
    }

    // PROTOCOL SM-OV-6
    #[test]
    fn of_a_state_that_changes_again_and_again_the_last_word_is_told_in_its_turn() {
        let mut news = News::default();
        for n in 0..10_000 {
            let keep = vec![n];
            assert!(news.push(NetEvent::SocketsDone { keep }));
            assert!(news.push(down(1, DownReason::Silent)));
        }
        assert!(news.push(down(2, DownReason::Silent)));
        assert!(news.push(down(1, DownReason::Reset)));
        let told: Vec<NetEvent> = std::iter::from_fn(|| news.pop()).collect();
        assert!(matches!(&told[0], NetEvent::SocketsDone { keep } if keep == &[9_999]));
        assert!(matches!(told[1], NetEvent::PeerDown { peer, .. } if peer == id(2)));
        let last = matches!(told[2], NetEvent::PeerDown { peer, reason: DownReason::Reset } if peer == id(1));
        assert!(last && told.len() == 3);
        assert!(news.states.is_empty() && news.waiting.is_empty());
    }

    #[test]
    fn streams_that_carry_have_a_limit() {
        let mut news = News::default();
        let carries = |n: u16| NetEvent::StreamCarries {
            address: ([192, 0, 2, 1], n).into(),
        };
        let taken = (0..1000).filter(|n| news.push(carries(*n))).count();
        assert_eq!(taken, STREAMS_MAX);
        assert!(news.push(carries(0)), "said again");
        while news.pop().is_some() {}
        assert_eq!(news.streams, 0);
    }
}
