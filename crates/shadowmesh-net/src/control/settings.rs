//! How QUIC is set up, and why so.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::CubicConfig;
use quinn_proto::{
    Endpoint, EndpointConfig, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    ValidationTokenConfig, VarInt,
};
use shadowmesh_crypto::{Identity, TlsConfigs};

use super::cids::Cids;
use super::datagrams::{RECEIVE_BUFFER, SEND_BUFFER};
use super::tokens::{TokenTime, UsedTokens};

/// QUIC version 1 (RFC 9000), the only one spoken.
pub(crate) const QUIC_VERSION: u32 = 1;

/// Datagram size of control connections: fits every path that carries IPv6.
const CONTROL_MTU: u16 = 1200;

/// Must exceed both post-quantum flights together. With quinn's default of ten datagrams a lost
/// Initial that holds half a ServerHello deadlocks the handshake: the server's window is full of
/// handshake packets that the client cannot acknowledge yet.
const INITIAL_WINDOW: u64 = 76_800;

/// Assumed before the first measurement; the first retransmission comes after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Flow control. A control message is at most 16 KiB.
const WINDOW: u32 = 64 * 1024;

/// Address tokens handed to a peer after each handshake: one to use, one spare.
const TOKENS_SENT: u32 = 2;

pub(super) fn transport() -> TransportConfig {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        // Silence is judged by the session, over sealed frames and control together; before there
        // is a session, the handshake deadline bounds the connection.
        .max_idle_timeout(None)
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .initial_mtu(CONTROL_MTU)
        .min_mtu(CONTROL_MTU)
        .mtu_discovery_config(None)
        // PROTOCOL SM-QD-1
        .datagram_receive_buffer_size(Some(RECEIVE_BUFFER))
        .datagram_send_buffer_size(SEND_BUFFER)
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

/// What a DATAGRAM frame costs in a packet beside its content, at most: first byte, id, packet number,
/// tag, frame type and length.
const DATAGRAM_OVERHEAD: u16 = 1 + 8 + 4 + 16 + 9;
/// A path of Ethernet's 1500 bytes over IPv4: always searched up to here, because an acknowledgement
/// in the same packet saves one of its own.
const ETHERNET_PAYLOAD: u16 = 1472;

/// Late by more than this, a packet counts as lost. Some 64 KB of them, as GRO and several queues may
/// turn about, and half a round trip.
const REORDER_PACKETS: u32 = 64;
const REORDER_ROUND_TRIPS: f32 = 1.5;

/// For connections that carry packets: searches for the path's MTU until packets of our device fit.
/// `known`: what another connection on the same path has found, so that one that renews its keys does
/// not begin anew. A search that fails falls back to [`CONTROL_MTU`] by itself.
pub(super) fn data_transport(device_mtu: u16, known: Option<u16>) -> TransportConfig {
    let mut search = MtuDiscoveryConfig::default();
    search
        .upper_bound(ETHERNET_PAYLOAD.max(device_mtu.saturating_add(1 + DATAGRAM_OVERHEAD)))
        // Every byte may be the one that lets a packet pass whole; a step more is one small packet.
        .minimum_change(2);
    let mut transport = transport();
    transport
        // Packets that overtake each other are no losses, and nothing waits for a real one to be found,
        // because DATAGRAM frames are not sent again. The defaults (3 packets, 9/8 of a round trip) let
        // a path that reorders starve its packets.
        .packet_threshold(REORDER_PACKETS)
        .time_threshold(REORDER_ROUND_TRIPS)
        .initial_mtu(known.unwrap_or(CONTROL_MTU).max(CONTROL_MTU))
        .mtu_discovery_config(Some(search));
    transport
}

pub(super) fn server(
    identity: &Identity,
    tls: &TlsConfigs,
    transport: Arc<TransportConfig>,
    time: Arc<TokenTime>,
) -> ServerConfig {
    let mut tokens = ValidationTokenConfig::default();
    tokens
        .log(Arc::new(UsedTokens::default()))
        .sent(TOKENS_SENT);
    let mut server = ServerConfig::new(tls.server(), identity.token_key());
    server
        .transport_config(transport)
        .validation_token_config(tokens)
        .time_source(time)
        // Addresses are translated before QUIC sees them; it never has to follow a move itself.
        .migration(false)
        // Those that wait to be judged, never more than the gate's burst and what it regains.
        .max_incoming(16)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(1024 * 1024);
    server
}

pub(super) fn endpoint(
    identity: &Identity,
    cids: Cids,
    server: ServerConfig,
    seed: [u8; 32],
) -> Endpoint {
    let mut config = EndpointConfig::new(identity.reset_key());
    config
        .cid_generator(move || Box::new(cids.clone()))
        .supported_versions(vec![QUIC_VERSION])
        // A cleared fixed bit would not look like a short header to the data plane.
        .grease_quic_bit(false)
        // What our sockets take: a peer with jumbo frames may use them.
        .max_udp_payload_size(u16::MAX - 8)
        .expect("above the 1200 that QUIC demands")
        // Resets are limited for each source, before QUIC is asked (net/datagram.rs).
        .min_reset_interval(Duration::ZERO);
    // Whether the path's MTU is searched for is each connection's own setting.
    Endpoint::new(Arc::new(config), Some(Arc::new(server)), true, Some(seed))
}
