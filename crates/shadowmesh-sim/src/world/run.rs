//! The run loop: what happens next, and what follows from it.

use std::cmp::Reverse;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shadowmesh_net::{NetEvent, Received, Transmit};
use shadowmesh_wire::way::Way;

use super::{Happening, Scheduled, World};
use crate::ledger::HostId;
use crate::packet;
use crate::trace::TraceEvent;

/// How many wake-ups at one instant are a machine that turns in circles.
const WAKES_AT_ONE_INSTANT_MAX: u32 = 1_000;

impl World {
    /// The next happening up to `end`; false if there is none.
    pub(super) fn step(&mut self, end: Duration) -> bool {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at > end) {
            return false;
        }
        let Some(Reverse(next)) = self.queue.pop() else {
            return false;
        };
        if next.at > self.now {
            self.wakes_at_this_instant = 0;
        }
        self.now = next.at;
        match next.what {
            Happening::Injection { to, remote, data } => {
                let local = self.host(to).address;
                self.arrive(to, None, (remote, local), (data, None));
            }
            Happening::Landing(flight) => self.land(flight),
            Happening::Opening(opening) => self.open(opening),
            Happening::Message(message) => self.arrive_by_stream(message),
            Happening::StreamTick(number) => self.tick_stream(number),
            Happening::StreamEnd { host, boot, number } => self.hear_end(host, boot, number),
            Happening::Wake { host, boot } if self.is_due(host, boot) => self.wake(host),
            Happening::Lie { relay, envelope } => self.lie(relay, &envelope),
            // Of a former life, or replaced by an earlier one.
            Happening::Wake { .. } => {}
        }
        true
    }

    pub(super) fn arrive(
        &mut self,
        to: HostId,
        from: Option<HostId>,
        (remote, local): (SocketAddr, SocketAddr),
        (data, cargo): (Vec<u8>, Option<u64>),
    ) {
        let source = from.map_or(usize::MAX, |f| f.0);
        self.trace
            .add(TraceEvent::Arrived, self.now, source, to.0, data.len());
        let host = &mut self.hosts[to.0];
        if host.is_up() && host.is_nodes(local) {
            let received = Received {
                socket: host.socket_at(local).unwrap_or(0),
                ..Received::from_remote(remote)
            };
            self.hand_in(to, received, data, cargo);
        } else {
            host.keep_bare(self.now, (remote, local), data);
            self.lose(cargo);
        }
    }

    /// Gives a datagram to a host that runs. What its node sends while it handles it carries the same packet,
    /// unless the packet is for this host: then the node is a relay.
    pub(super) fn hand_in(
        &mut self,
        to: HostId,
        received: Received,
        data: Vec<u8>,
        cargo: Option<u64>,
    ) {
        if self.liars.contains_key(&to) {
            return self.arrive_at_liar(to, received, data);
        }
        self.cargo = cargo.filter(|number| !self.ledger.is_for(*number, to));
        let data = BytesMut::from(Bytes::from(data));
        self.with_node(to, |node, now| node.handle_datagram(received, data, now));
        self.cargo = None;
    }

    fn is_due(&self, id: HostId, boot: u64) -> bool {
        let host = self.host(id);
        host.boots == boot && host.wake_at == Some(self.now)
    }

    pub(super) fn wake(&mut self, id: HostId) {
        self.hosts[id.0].wake_at = None;
        if !self.host(id).is_up() {
            return;
        }
        self.wakes_at_this_instant += 1;
        if self.wakes_at_this_instant > WAKES_AT_ONE_INSTANT_MAX {
            let clock = self.clock_of(id);
            let timeout = self.hosts[id.0]
                .node
                .as_mut()
                .and_then(|n| n.poll_timeout());
            let why = timeout.map(|(at, why)| (why, clock.saturating_duration_since(at)));
            panic!(
                "seed {}: {id:?} wants to be woken again and again at {:?}; the timer and how long \
                 it is overdue: {why:?}",
                self.seed, self.now
            );
        }
        self.with_node(id, |node, now| node.handle_timeout(now));
    }

    /// Takes everything a node has to give and notes when it wants to be woken.
    pub(super) fn drain(&mut self, id: HostId) {
        let clock = self.clock_of(id);
        let mut waiting = 0;
        loop {
            let Some(node) = self.hosts[id.0].node.as_mut() else {
                return;
            };
            if let Some(transmit) = node.poll_transmit() {
                waiting += 1;
                self.waiting_max = self.waiting_max.max(waiting);
                self.transmit(id, transmit);
            } else if let Some(packet) = node.poll_device() {
                self.trace
                    .add(TraceEvent::Delivered, self.now, id.0, id.0, packet.len());
                match packet::too_big(&packet) {
                    Some(number) => self.ledger.tell(number, id),
                    None => self.ledger.deliver(packet::number(&packet), id, self.now),
                }
            } else if let Some(event) = node.poll_event() {
                if let NetEvent::WantStream { peer } = &event {
                    self.want_stream(id, peer);
                }
                self.hosts[id.0].note(event, self.now);
            } else {
                let at = node
                    .poll_timeout()
                    .map(|(at, _)| self.now + at.saturating_duration_since(clock));
                return self.schedule_wake(id, at);
            }
        }
    }

    fn schedule_wake(&mut self, id: HostId, at: Option<Duration>) {
        let host = &mut self.hosts[id.0];
        let Some(at) = at else { return };
        // An earlier wake-up that is already set will come by here again; a later one is replaced.
        if host.wake_at.is_none_or(|set| at < set) {
            host.wake_at = Some(at);
            let boot = host.boots;
            self.schedule(at, Happening::Wake { host: id, boot });
        }
    }

    fn transmit(&mut self, from: HostId, transmit: Transmit) {
        let Transmit {
            remote,
            socket,
            may_fragment,
            segment_size,
            contents,
            ..
        } = transmit;
        let whole = contents.len().max(1);
        let segment = segment_size.unwrap_or(whole).clamp(1, whole);
        if segment < whole {
            for data in contents.chunks(segment) {
                self.send_datagram(from, socket, remote, data.to_vec(), may_fragment);
            }
        } else {
            self.send_datagram(from, socket, remote, contents, may_fragment);
        }
    }

    fn send_datagram(
        &mut self,
        from: HostId,
        socket: u16,
        remote: SocketAddr,
        data: Vec<u8>,
        may_fragment: bool,
    ) {
        if let Way::Stream(number) = Way::of(remote) {
            return self.send_on_stream(from, number, data);
        }
        if let Some(source) = self.host(from).source_for(remote) {
            let source = self.hosts[from.0].socket_address(source, socket);
            self.dispatch(from, (source, remote), data, may_fragment);
        }
    }

    pub(super) fn schedule(&mut self, at: Duration, what: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled {
            at,
            order: self.scheduled,
            what,
        }));
    }
}
