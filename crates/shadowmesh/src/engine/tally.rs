//! What happened to sessions, counted for metrics.

use shadowmesh_net::NetEvent;

use crate::admin::report::SessionCounts;

impl SessionCounts {
    /// Counts what an event says.
    pub(super) fn count(&mut self, event: &NetEvent) {
        match event {
            NetEvent::Handshaken { resumed: true, .. } => self.handshakes_resumed += 1,
            NetEvent::Handshaken { .. } => self.handshakes_full += 1,
            NetEvent::PeerUp { .. } => self.up += 1,
            NetEvent::PeerDown { reason, .. } => *self.down.entry(reason.name()).or_default() += 1,
            NetEvent::Rekeyed { .. } => self.rekeys += 1,
            NetEvent::PathChanged { .. } => self.path_changes += 1,
            NetEvent::PlaneChanged { .. } => self.plane_changes += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_net::DownReason;
    use shadowmesh_wire::PeerId;
    use std::time::Duration;

    #[test]
    fn each_event_is_counted_as_what_it_is() {
        let peer = PeerId::from_bytes([1; 32]);
        let mut counts = SessionCounts::default();
        for resumed in [true, false, false] {
            counts.count(&NetEvent::Handshaken {
                peer,
                took: Duration::ZERO,
                resumed,
                early_data: false,
            });
        }
        for reason in [DownReason::Silent, DownReason::Silent, DownReason::Reset] {
            counts.count(&NetEvent::PeerDown { peer, reason });
        }
        counts.count(&NetEvent::Rekeyed { peer, epoch: 1 });
        counts.count(&NetEvent::WantStream { peer });
        let expected = SessionCounts {
            handshakes_full: 2,
            handshakes_resumed: 1,
            down: [("silent", 2), ("reset", 1)].into(),
            rekeys: 1,
            ..SessionCounts::default()
        };
        assert_eq!(counts, expected);
    }
}
