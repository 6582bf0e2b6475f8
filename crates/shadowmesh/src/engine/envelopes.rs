//! What a way over a relay adds to a datagram. HOT PATH.
//!
//! ```text
//! 0              13      14      22                              n-16
//! relay's header type 4  label   the peer's datagram, sealed     relay's tag
//! ```
//!
//! The peer's frame is written and sealed where it will lie, and the relay's frame closed around it:
//! no byte is moved.

use shadowmesh_net::{DropReason, Outbound, Via};
use shadowmesh_wire::envelope::{self, ENVELOPE_OVERHEAD, LABEL_LEN};
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN};

/// Where the peer's datagram begins.
pub const FRONT: usize = HEADER_LEN + 1 + LABEL_LEN;

/// The envelopes for a number of datagrams; nothing where the way is direct.
pub struct Envelopes<'o> {
    via: Option<&'o Via>,
    /// The next of the counters that were set aside.
    counter: u64,
    /// What was closed, to be counted at the end.
    frames: u64,
    bytes: u64,
}

impl<'o> Envelopes<'o> {
    /// Sets aside the relay's counters for `count` datagrams.
    pub fn reserve(to: &'o Outbound, count: u64) -> Result<Self, DropReason> {
        let via = to.via.as_ref();
        let counter = match via {
            Some(Via { relay, .. }) => relay.sealer.reserve(count),
            None => Some(0),
        };
        Ok(Self {
            via,
            counter: counter.ok_or(DropReason::SealExhausted)?,
            frames: 0,
            bytes: 0,
        })
    }

    /// Bytes that every datagram grows by.
    #[inline]
    pub fn overhead(&self) -> usize {
        self.via.map_or(0, |_| ENVELOPE_OVERHEAD)
    }

    /// Where in a slot the peer's datagram is to be written.
    #[inline]
    pub fn front(&self) -> usize {
        self.via.map_or(0, |_| FRONT)
    }

    /// The peer's datagram stands there, `len` bytes long; returns the length of what is sent. To be called
    /// as often as was reserved, at most.
    // PROTOCOL SM-RL-1
    #[inline]
    pub fn close(&mut self, slot: &mut [u8], len: usize) -> usize {
        let Some(via) = self.via else {
            return len;
        };
        let end = FRONT + len + TAG_LEN;
        slot[HEADER_LEN..FRONT].copy_from_slice(&envelope::encode(via.label));
        via.relay.sealer.seal(self.counter, &mut slot[..end]);
        self.counter += 1;
        self.frames += 1;
        self.bytes += (LABEL_LEN + len) as u64;
        end
    }
}

impl Drop for Envelopes<'_> {
    fn drop(&mut self) {
        if let Some(via) = self.via {
            via.relay.traffic.sent(self.frames, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::BytesMut;
    use shadowmesh_crypto::Identity;
    use shadowmesh_net::{DataPlane, Net, NetConfig, PeerConfig, Received, Traffic};
    use shadowmesh_wire::PeerId;
    use shadowmesh_wire::inner::InnerType;
    use shadowmesh_wire::sealed::receiver_index;
    use shadowmesh_wire::way::Label;

    use super::*;

    const LABEL: Label = Label(0x0102_0304_0506_0708);

    /// Two nodes in one process with a session between them.
    fn pair() -> [Net; 2] {
        let mut now = Instant::now();
        let mut nets = [1u8, 2].map(|number| {
            let identity = Identity::from_seeds(&[number; 32], &[number; 32]);
            let config = NetConfig::new(Arc::new(identity), [number; 32], number.into());
            Net::new(config, now).unwrap()
        });
        let addresses = [1, 2].map(|host| ([192, 0, 2, host], 4433).into());
        let ids = [0, 1].map(|at| nets[at].peer_id());
        for at in 0..2 {
            let peer = PeerConfig {
                id: ids[1 - at],
                addresses: vec![addresses[1 - at]],
                known_key: None,
                data_plane: DataPlane::Sealed,
                relay: false,
            };
            nets[at].add_peer(peer, now);
        }
        nets[0].connect(&ids[1], now);
        for _ in 0..200 {
            now += Duration::from_millis(1);
            for at in 0..2 {
                while let Some(transmit) = nets[at].poll_transmit() {
                    let from = Received::from_remote(addresses[at]);
                    let data = BytesMut::from(&transmit.contents[..]);
                    nets[1 - at].handle_datagram(from, data, now);
                }
                nets[at].handle_timeout(now);
            }
        }
        nets
    }

    /// A relay, and how a client of it sends to it.
    fn relay() -> (Net, Arc<Outbound>) {
        let [client, relay] = pair();
        let forwarding = client.forwarding();
        let outbound = forwarding.outbound(&relay.peer_id());
        (relay, Arc::clone(outbound.expect("a session")))
    }

    /// The same peer over a relay, or straight.
    fn towards(relay: &Arc<Outbound>, over: bool) -> Outbound {
        Outbound {
            peer: PeerId::from_bytes([9; 32]),
            sealer: Arc::clone(&relay.sealer),
            remote: relay.remote,
            local_ip: None,
            socket: 0,
            via: over.then(|| Via {
                relay: Arc::clone(relay),
                label: LABEL,
            }),
            inner_len_max: relay.inner_len_max,
            inner_mtu: None,
            traffic: Arc::new(Traffic::default()),
            plane: relay.plane,
        }
    }

    // PROTOCOL SM-RL-1
    #[test]
    fn the_relay_opens_an_envelope_and_finds_label_and_datagram_as_they_were_written() {
        let (relay, outbound) = relay();
        let sent = outbound.traffic.totals();
        let to = towards(&outbound, true);
        let mut envelopes = Envelopes::reserve(&to, 3).unwrap();
        assert_eq!(envelopes.overhead(), ENVELOPE_OVERHEAD);
        for number in 0..3u8 {
            let datagram = vec![number; 100 + usize::from(number)];
            let mut slot = vec![0xee; 400];
            slot[envelopes.front()..][..datagram.len()].copy_from_slice(&datagram);
            let len = envelopes.close(&mut slot, datagram.len());
            assert_eq!(len, datagram.len() + ENVELOPE_OVERHEAD);
            assert_eq!(slot[len], 0xee, "nothing is written behind it");
            let forwarding = relay.forwarding();
            let index = receiver_index(&slot[..len]).expect("a sealed frame");
            let session = forwarding.inbound(index).expect("the client's session");
            let opened = session.opener.open(&mut slot[..len], 0);
            let opened = session.window.lock().accept(&opened.unwrap()).unwrap();
            let (kind, body) = slot[opened.inner].split_first().unwrap();
            assert_eq!(*kind, InnerType::RelayEnvelope as u8);
            assert_eq!(envelope::decode(body), Some((LABEL, &datagram[..])));
        }
        drop(envelopes);
        let counted = outbound.traffic.totals();
        assert_eq!(counted.sent_frames - sent.sent_frames, 3);
        let bytes = 3 * LABEL_LEN + 100 + 101 + 102;
        assert_eq!(counted.sent_bytes - sent.sent_bytes, bytes as u64);
    }

    #[test]
    fn a_straight_way_adds_nothing_and_counts_nothing() {
        let (_, outbound) = relay();
        let sent = outbound.traffic.totals();
        let to = towards(&outbound, false);
        let mut envelopes = Envelopes::reserve(&to, 1).unwrap();
        assert_eq!((envelopes.overhead(), envelopes.front()), (0, 0));
        let mut slot = vec![7; 100];
        assert_eq!(envelopes.close(&mut slot, 60), 60);
        assert_eq!(slot, [7; 100]);
        drop(envelopes);
        assert_eq!(outbound.traffic.totals(), sent);
        assert_eq!(to.traffic.totals().sent_frames, 0);
    }
}
