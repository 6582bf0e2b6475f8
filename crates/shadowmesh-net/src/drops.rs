//! Why something was thrown away, and how often.
//!
//! One list for the whole product: whichever part drops a datagram, a sealed frame or an IP packet
//! names the reason from here, so that `status` shows a single table and no drop goes uncounted.
//! Counting is one relaxed atomic add; the counters are shared by every thread.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why something was dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// Stable lower-case name, for `--json` and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }
        }
    };
}

drop_reasons! {
    // From the underlay, before anything is authenticated.
    /// Neither a QUIC version 1 long header nor a short header of sufficient length.
    MalformedDatagram = "malformed_datagram",
    /// A first Initial whose destination id does not carry the tag of our PeerId.
    FirstContactTag = "first_contact_tag",
    /// A first packet answered by Retry, or ignored because there were too many of its kind.
    HandshakeGate = "handshake_gate",
    /// One source address started too many handshakes.
    HandshakeSource = "handshake_source",
    /// The table of unfinished handshakes is full.
    HandshakeTable = "handshake_table",
    /// A packet of a handshake that came by another way than the handshake takes.
    HandshakeWay = "handshake_way",
    /// A handshake that failed: not a member, a wrong pin, a bad signature.
    HandshakeFailed = "handshake_failed",
    /// A completed handshake of somebody who is not (or no longer) a member.
    NotMember = "not_member",
    /// A datagram whose id belongs to nobody; one with a short header is answered by a stateless reset.
    UnknownIndex = "unknown_index",
    /// Counted beside `UnknownIndex`: too soon after the last reset to be answered.
    ResetLimit = "reset_limit",
    /// A sealed frame of a session whose peer was removed.
    RemovedPeer = "removed_peer",
    /// A sealed frame that came before its session, when too many such waited or the session did not
    /// come; whose session ended on the way to the control thread; or that was judged a second time in vain.
    StaleSnapshot = "stale_snapshot",

    // To addresses that have never answered.
    /// A first packet or a probe beyond what an address that never answered is sent, or all such together.
    UnansweredLimit = "unanswered_limit",
    /// A guess at a port beyond the same limits, or a game of guesses that was not begun for them.
    GuessLimit = "guess_limit",

    // Sealed frames.
    /// Authentication failed: forged, corrupted or sealed under other keys.
    SealForged = "seal_forged",
    /// Authentic, but its counter was seen before.
    SealReplayed = "seal_replayed",
    /// Authentic, but older than the replay window.
    SealTooOld = "seal_too_old",
    /// Its key phase names an epoch that is not open.
    SealNoEpoch = "seal_no_epoch",
    /// Shorter than a sealed frame can be.
    SealTooShort = "seal_too_short",
    /// All counters of the session are used up.
    SealExhausted = "seal_exhausted",
    /// The inner type byte is unknown or not in use.
    InnerUnknown = "inner_unknown",
    /// The inner content does not parse.
    InnerMalformed = "inner_malformed",
    /// An inner frame or a control message of which its sender has no use, by what it is to us: a packet of a
    /// relay, or of a client for whom we only relay.
    RoleRefused = "role_refused",

    // Control messages.
    /// Of a kind that this version does not know.
    MessageUnknown = "message_unknown",
    /// For the program above, and more than one session may bring.
    MessageRate = "message_rate",
    /// A message or an answer for the program above, which did not fetch those before it.
    EventBacklog = "event_backlog",

    /// A fragment that contradicts its header, overlaps another, or is of nothing we take; its whole
    /// packet goes with it.
    FragmentInvalid = "fragment_invalid",
    /// A packet in fragments whose rest did not come in time. Counted once for each packet.
    FragmentExpired = "fragment_expired",
    /// A packet in fragments that made room for newer ones. Counted once for each packet.
    FragmentOverflow = "fragment_overflow",

    // Relays.
    /// For a peer over a relay with which there is no session, or which is itself reached over one.
    NoRelay = "no_relay",
    /// What claims to be passed on by a relay, and came from a peer that is none of ours; or inside what
    /// a relay passed on.
    RelayNotOurs = "relay_not_ours",
    /// To be passed on, and we relay nothing for its sender.
    RelayNotServed = "relay_not_served",
    /// To be passed on, and nobody with that label has a session here.
    RelayUnknown = "relay_unknown",
    /// To be passed on, and more than its sender or its receiver may have relayed.
    RelayRate = "relay_rate",
    /// To be passed on, and too long for the path to its receiver.
    RelayTooLong = "relay_too_long",

    // What may flow.
    /// Not a well-formed IP packet.
    MalformedIpPacket = "malformed_ip_packet",
    /// The inner source address is not the peer's own.
    SpoofedSource = "spoofed_source",
    /// The inner destination is not ours, and we do not forward.
    NotForUs = "not_for_us",
    /// An IP packet from the device whose source is not ours.
    ForeignSource = "foreign_source",
    /// An IP packet from the device to our own address, which the host should have kept.
    OwnAddress = "own_address",
    /// An IP packet to a multicast, broadcast or link-local address: no peer owns these.
    NotUnicast = "not_unicast",
    /// No peer owns the destination address.
    NoRoute = "no_route",
    /// The owner of the destination has no session yet.
    NoSession = "no_session",
    /// The queue of packets waiting for a session is full.
    WaitingQueueFull = "waiting_queue_full",
    /// A packet waited too long for a session.
    WaitingExpired = "waiting_expired",
    /// Larger than fits a sealed frame.
    TooBig = "too_big",

    // The queue in front of the sealer.
    /// The flow's packets waited too long, and it had to be told (CoDel).
    QueueCodel = "queue_codel",
    /// The queue was full, and this flow took most of it.
    QueueFull = "queue_full",
    /// Marked by a queue of the underlay, but its transport does not understand marks (RFC 6040).
    EcnMarked = "ecn_marked",

    // The web server.
    /// A TCP connection that found no place: its source or site has all it may have, or there is none.
    WebPlace = "web_place",
    /// A TCP connection too many for TLS: its source, its site or all together begin so many handshakes.
    WebRate = "web_rate",
    /// A TLS handshake that failed, took too long, or was given up for somebody else's.
    WebHandshake = "web_handshake",

    // The engine.
    /// A datagram that the kernel dropped because the socket's buffer was full. Counted by the kernel;
    /// added where drops are shown.
    SocketOverflow = "socket_overflow",
    /// The control thread did not keep up with the receiver.
    ControlBacklog = "control_backlog",
    /// Packets that waited for their QUIC connection: the path takes less than comes from the device.
    QuicQueueFull = "quic_queue_full",
    /// The control thread did not keep up with the packets that go by QUIC.
    QuicBacklog = "quic_backlog",
    /// Our own queue of datagrams to send was full.
    TransmitBacklog = "transmit_backlog",
    /// The operating system refused to send a datagram.
    SendFailed = "send_failed",
    /// The device did not take a packet.
    DeviceFull = "device_full",
    /// A super-packet from the device that could not be split.
    BadOffload = "bad_offload",
}

/// One counter for each [`DropReason`]. Shared by all threads behind an `Arc`.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl DropCounters {
    /// Counts one drop. HOT PATH.
    // PROTOCOL SM-OV-5
    pub fn count(&self, reason: DropReason) {
        self.add(reason, 1);
    }

    /// Counts `n` drops of one reason at once. HOT PATH.
    pub fn add(&self, reason: DropReason, n: u64) {
        self.0[reason as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Drops so far for one reason.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// All reasons that occurred, with their counts.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|&reason| (reason, self.get(reason)))
            .filter(|&(_, n)| n > 0)
    }

    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.nonzero().map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_its_own_name() {
        let counters = DropCounters::default();
        for (n, &reason) in DropReason::ALL.iter().enumerate() {
            counters.add(reason, n as u64 + 1);
        }
        for (n, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(counters.get(reason), n as u64 + 1);
        }
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
