//! Half a node: QUIC and an identity, and none of our rules above that.
//!
//! A peer that keeps to the handshake, because else it has no session, and to nothing else: it writes what
//! it likes on its control stream, in sealed frames and in DATAGRAM frames, and what it has to send lies
//! with whoever plays the network, who may hold it back, turn it about or lose it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::congestion::CubicConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, ConnectionId, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, Side, StreamId, TransportConfig,
};
use shadowmesh_crypto::{
    Cipher, FirstContact, HandshakeCounters, Identity, KeyChain, PeerBook, PublicIdentity, Sealer,
    TlsConfigs, server_name,
};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::{ControlMessage, Decoder, Hello};
use shadowmesh_wire::sealed::{HEADER_LEN, ReceiverIndex, TAG_LEN};

/// Limit: calls of one hostile peer. Those before are forgotten as if it had crashed.
const CALLS_MAX: usize = 8;
/// Bytes of its messages that it sends before the first is acknowledged.
const WINDOW: u64 = 1 << 20;

/// Somebody who calls one node.
pub struct Hostile {
    identity: Arc<Identity>,
    tls: TlsConfigs,
    endpoint: Endpoint,
    /// Where it sends from.
    pub address: SocketAddr,
    victim: (PeerId, SocketAddr),
    /// By the number of the connection. Limit: [`CALLS_MAX`].
    calls: BTreeMap<usize, Call>,
    called: u64,
}

/// One of its connections.
struct Call {
    quic: Connection,
    stream: Option<StreamId>,
    decoder: Decoder,
    index: ReceiverIndex,
    /// What the other side said in its Hello.
    theirs: Option<ReceiverIndex>,
    sealer: Option<Arc<Sealer>>,
    is_connected: bool,
    is_lost: bool,
}

/// It takes everybody.
#[derive(Debug)]
struct Anybody;

impl PeerBook for Anybody {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }

    fn public_identity(&self, _: &PeerId) -> Option<Arc<PublicIdentity>> {
        None
    }

    fn learned(&self, _: Arc<PublicIdentity>) {}
}

impl Hostile {
    /// Somebody at `address` who will call `victim`.
    pub fn new(identity: Arc<Identity>, address: SocketAddr, victim: (PeerId, SocketAddr)) -> Self {
        let tls = TlsConfigs::new(
            identity.clone(),
            Arc::new(Anybody),
            Arc::new(HandshakeCounters::default()),
        );
        let config = Arc::new(EndpointConfig::new(identity.reset_key()));
        Self {
            endpoint: Endpoint::new(config, None, true, Some([7; 32])),
            identity,
            tls,
            address,
            victim,
            calls: BTreeMap::new(),
            called: 0,
        }
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// The first packet of another call; the number it goes by. `None`: QUIC takes no more.
    pub fn call(&mut self, now: Instant) -> Option<usize> {
        while self.calls.len() >= CALLS_MAX {
            self.calls.pop_first();
        }
        self.called += 1;
        let dcid = FirstContact::new_dcid(&self.victim.0, self.called.to_be_bytes());
        let mut congestion = CubicConfig::default();
        congestion.initial_window(WINDOW);
        let mut transport = TransportConfig::default();
        transport
            .initial_mtu(1200)
            .max_idle_timeout(None)
            .mtu_discovery_config(None)
            .congestion_controller_factory(Arc::new(congestion));
        let mut config = ClientConfig::new(self.tls.client(self.victim.0, false));
        config
            .version(1)
            .transport_config(Arc::new(transport))
            .initial_dst_cid_provider(Arc::new(move || ConnectionId::new(&dcid)));
        let name = server_name(&self.victim.0);
        let connected = self.endpoint.connect(now, config, self.victim.1, &name);
        let (handle, quic) = connected.ok()?;
        let call = Call {
            quic,
            stream: None,
            decoder: Decoder::default(),
            index: ReceiverIndex(self.called),
            theirs: None,
            sealer: None,
            is_connected: false,
            is_lost: false,
        };
        self.calls.insert(handle.0, call);
        Some(handle.0)
    }

    /// Its calls, the oldest first.
    pub fn calls(&self) -> impl Iterator<Item = usize> + '_ {
        self.calls.keys().copied()
    }

    /// Whether the handshake of a call is over, and the connection not.
    pub fn is_connected(&self, call: usize) -> bool {
        let call = self.calls.get(&call);
        call.is_some_and(|call| call.is_connected && !call.is_lost)
    }

    /// Where the victim receives by the session of a call, once it has said so.
    pub fn index(&self, call: usize) -> Option<ReceiverIndex> {
        self.calls.get(&call)?.theirs
    }

    /// A datagram of the victim.
    pub fn take(&mut self, datagram: &[u8], now: Instant) {
        let mut answer = Vec::new();
        let data = BytesMut::from(datagram);
        let from = self.victim.1;
        let event = self
            .endpoint
            .handle(now, from, None, None, data, &mut answer);
        if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
            && let Some(call) = self.calls.get_mut(&handle.0)
        {
            call.quic.handle_event(event);
        }
        self.listen(now);
    }

    /// Lets QUIC do what is due, and reads what the victim says.
    pub fn listen(&mut self, now: Instant) {
        for call in self.calls.values_mut() {
            if call.quic.poll_timeout().is_some_and(|due| due <= now) {
                call.quic.handle_timeout(now);
            }
            call.listen();
        }
    }

    /// What the connection of a call has to send now.
    pub fn transmits(&mut self, call: usize, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let Some(known) = self.calls.get_mut(&call) else {
            return out;
        };
        loop {
            let mut buffer = Vec::new();
            match known.quic.poll_transmit(now, 1, &mut buffer) {
                Some(transmit) => out.push(buffer[..transmit.size].to_vec()),
                None => break,
            }
        }
        while let Some(event) = known.quic.poll_endpoint_events() {
            let reply = self.endpoint.handle_event(ConnectionHandle(call), event);
            if let Some(reply) = reply {
                known.quic.handle_event(reply);
            }
        }
        out
    }

    /// The Hello of a call, as bytes of the control stream.
    pub fn hello(&self, call: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let Some(call) = self.calls.get(&call) else {
            return out;
        };
        let hello = Hello {
            version: 1,
            boot: 77,
            index: call.index,
            reset_token: [1; 16],
            // AES wins whatever the other side says of the second.
            cipher_speeds: [1, 0],
            mtu: 1420,
            holds_your_key: false,
            data_plane: Some(1),
            beside: None,
            call: None,
        };
        let encoded = ControlMessage::Hello(hello).encode(&mut out);
        encoded.expect("a Hello is shorter than a message may be");
        out
    }

    /// Writes bytes on the control stream; how many QUIC took.
    pub fn say(&mut self, call: usize, mut bytes: &[u8]) -> usize {
        let Some(call) = self.calls.get_mut(&call) else {
            return 0;
        };
        if call.stream.is_none() {
            call.stream = call.quic.streams().open(Dir::Bi);
        }
        let mut said = 0;
        while let Some(id) = call.stream
            && !bytes.is_empty()
            && let Ok(taken) = call.quic.send_stream(id).write(bytes)
        {
            said += taken;
            bytes = &bytes[taken..];
        }
        said
    }

    /// Puts an inner frame into a DATAGRAM frame of QUIC.
    pub fn say_openly(&mut self, call: usize, inner: &[u8]) {
        if let Some(call) = self.calls.get_mut(&call) {
            // What does not fit is not said.
            let _ = call
                .quic
                .datagrams()
                .send(Bytes::copy_from_slice(inner), true);
        }
    }

    /// A sealed frame with this inside (type byte first, so it is not empty), once there is a session.
    pub fn seal(&mut self, call: usize, inner: &[u8]) -> Option<Vec<u8>> {
        inner.first()?;
        let sealer = self.calls.get(&call)?.sealer.clone()?;
        let mut datagram = [&[0; HEADER_LEN], inner, &[0; TAG_LEN]].concat();
        sealer.seal(sealer.reserve(1)?, &mut datagram);
        Some(datagram)
    }
}

impl Call {
    fn listen(&mut self) {
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { .. } => self.is_lost = true,
                _ => {}
            }
        }
        let Some(id) = self.stream else { return };
        loop {
            let mut stream = self.quic.recv_stream(id);
            let Ok(mut chunks) = stream.read(true) else {
                return;
            };
            let chunk = chunks.next(16 * 1024);
            let _ = chunks.finalize();
            let Ok(Some(chunk)) = chunk else { return };
            self.decoder.push(&chunk.bytes);
            while let Ok(Some(message)) = self.decoder.next_message() {
                if let ControlMessage::Hello(hello) = message {
                    self.has_session(hello.index);
                }
            }
        }
    }

    fn has_session(&mut self, theirs: ReceiverIndex) {
        self.theirs = Some(theirs);
        let chain = KeyChain::export(
            self.quic.crypto_session(),
            Side::Client,
            Cipher::Aes256Gcm,
            self.index,
            theirs,
        );
        self.sealer = chain.ok().map(|chain| chain.sealer());
    }
}
