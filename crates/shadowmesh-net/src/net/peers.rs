//! What the parent wants of [`Net`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::Rng;
use shadowmesh_crypto::PeerBook;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;

use super::{Net, NetError};
use crate::config::{ADDRESSES_MAX, PeerConfig};
use crate::control::{Cids, Close, ConnKey, Owner};
use crate::event::{DownReason, canonical};
use crate::pacing::Pacing;
use crate::peer::{Peer, Retry, Role};
use crate::plane::DataPlane;
use crate::timers::Timer;

/// How long frames of a removed peer are told from frames of strangers. It goes on sending until
/// it finds the session dead, which takes it half a minute at most.
const REMEMBER_REMOVED: Duration = Duration::from_secs(60);
/// Limit: indices of removed peers that are remembered.
const REMOVED_MAX: usize = 256;

/// Receiver indices of removed peers.
#[derive(Debug, Default)]
pub(super) struct Removed(VecDeque<(Instant, u64, PeerId)>);

impl Removed {
    fn add(&mut self, index: u64, peer: PeerId, cids: &Cids, now: Instant) {
        if self.0.len() >= REMOVED_MAX
            && let Some((_, oldest, peer)) = self.0.pop_front()
        {
            cids.release(oldest, Owner::Removed(peer));
        }
        cids.set_owner(index, Owner::Removed(peer));
        self.0.push_back((now + REMEMBER_REMOVED, index, peer));
    }

    /// Forgets what is old enough, and says when to do so next.
    pub(super) fn forget(&mut self, cids: &Cids, now: Instant) -> Option<Instant> {
        while let Some(&(until, index, peer)) = self.0.front() {
            if until > now {
                return Some(until);
            }
            cids.release(index, Owner::Removed(peer));
            self.0.pop_front();
        }
        None
    }
}

impl Net {
    /// Adds a peer, or changes the addresses of one that is there. Nothing is sent before [`Net::keep`] or
    /// [`Net::connect`], unless it is a relay we use.
    pub fn add_peer(&mut self, mut config: PeerConfig, now: Instant) {
        if config.id == self.peer_id() {
            return;
        }
        for address in &mut config.addresses {
            *address = canonical(*address);
        }
        self.roster.add(config.id, config.known_key.clone());
        let (id, relay) = (config.id, config.relay);
        let config_wants_quic = config.data_plane == DataPlane::Quic;
        self.end_client(&id);
        self.callers.forget(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.role = Role::Member;
            peer.addresses = config.addresses;
            peer.addresses.truncate(ADDRESSES_MAX);
            peer.data_plane = config.data_plane;
            if peer.retry.kept && peer.primary.is_none() {
                // It may be at the new addresses.
                self.timers.set(Timer::Connect(id), now);
            }
        } else {
            self.peers.insert(id, Peer::new(config));
        }
        if config_wants_quic {
            self.used_quic.insert(id);
        }
        if relay {
            self.relays.add(id);
            self.timers.set(Timer::Relays, now);
        }
        // With a session it may be a peer or a relay only from now on.
        self.output.published.stale(id);
    }

    /// Nothing of this peer is of use any more.
    pub(super) fn forget_peer(&mut self, id: &PeerId) {
        self.peers.remove(id);
        self.observers.remove(id);
        self.used_quic.remove(id);
        self.output.published.stale(*id);
    }

    /// Adds a relay that is nothing else to us; its session may be given up when nearer ones answer.
    /// Relays are called without being asked for.
    pub fn add_relay(&mut self, config: PeerConfig, now: Instant) {
        let id = config.id;
        self.add_peer(
            PeerConfig {
                relay: true,
                ..config
            },
            now,
        );
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.role = Role::Transit;
        }
    }

    /// Removes a peer: its session ends now, its handshakes fail from now on, resumed ones too.
    // PROTOCOL SM-HS-5
    pub fn remove_peer(&mut self, id: &PeerId, now: Instant) {
        if !self.peers.contains_key(id) {
            return;
        }
        self.roster.remove(id);
        self.control.forget(id);
        // All of them, also one that waits for Hello and is nobody's session yet.
        for key in self.control.of_peer(id) {
            self.remember_removed(key, *id, now);
            self.close(key, Close::NotMember, DownReason::Removed, now);
        }
        self.timers.stop(Timer::Connect(*id));
        self.timers.stop(Timer::Stream(*id));
        self.call_over(id, now);
        self.forget_relay(id);
        self.end_client(id);
        self.forget_peer(id);
        self.settle(now);
    }

    fn remember_removed(&mut self, key: ConnKey, id: PeerId, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        if let (Some(index), Some(_)) = (connection.index, connection.session()) {
            self.removed.add(index.0, id, &self.control.cids, now);
            if self.timers.get(Timer::Forget).is_none() {
                self.timers.set(Timer::Forget, now + REMEMBER_REMOVED);
            }
        }
    }

    /// Somebody wants to send to this peer. May be called as often as one likes.
    pub fn connect(&mut self, id: &PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if peer.primary.is_some() {
            return peer.retry.want(now);
        }
        peer.want(now);
        let has_idle = peer.calls.has_idle();
        self.want_relays(now);
        if has_idle {
            self.call_by_idle_ways(*id, now);
            self.settle(now);
        } else if self.pacing.waits(id) {
            self.call_in_turn(*id, now);
            self.settle(now);
        } else {
            self.set_call_timer(*id);
        }
    }

    /// From now on this peer is called, and called again whenever there is no session with it, as long as it is a
    /// peer: at once, and after longer and longer waits while it does not answer. Unlike [`connect`](Self::connect)
    /// this does not say that anybody waits for it.
    // PROTOCOL SM-PA-4
    pub fn keep(&mut self, id: &PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        peer.retry.kept = true;
        if peer.primary.is_none() && !peer.calls.is_wanted() {
            self.call(*id, now);
            self.settle(now);
        }
    }

    /// Sends a sealed probe; the answer comes as [`NetEvent::PingReply`] with this token.
    ///
    /// [`NetEvent::PingReply`]: crate::NetEvent::PingReply
    ///
    /// # Errors
    /// When the peer is unknown or has no session.
    pub fn ping(&mut self, id: &PeerId, now: Instant) -> Result<u64, NetError> {
        let key = self.primary(id)?;
        let token = self.rng.random();
        self.send_probe(key, token, true, now);
        Ok(token)
    }

    /// Sends a control message that is the parent's business.
    ///
    /// # Errors
    /// When the peer is unknown or has no session, or the message is too long.
    pub fn send_control(
        &mut self,
        id: &PeerId,
        message: &ControlMessage,
        now: Instant,
    ) -> Result<(), NetError> {
        let key = self.primary(id)?;
        let connection = self
            .control
            .connections
            .get_mut(&key)
            .ok_or(NetError::NoSession)?;
        connection
            .stream
            .send(message, &mut connection.quic)
            .map_err(|_| NetError::NotTaken)?;
        self.control.touched.insert(key);
        self.settle(now);
        Ok(())
    }

    /// Says goodbye to everybody. What [`Net::poll_transmit`] then returns is the last to be sent.
    pub fn shutdown(&mut self, now: Instant) {
        for (id, peer) in &mut self.peers {
            peer.retry = Retry::default();
            self.timers.stop(Timer::Connect(*id));
        }
        self.pacing = Pacing::new(now);
        self.timers.stop(Timer::Calls);
        self.forget_waiting();
        let keys: Vec<ConnKey> = self.control.connections.keys().copied().collect();
        for key in keys {
            self.close(key, Close::Leaving, DownReason::Shutdown, now);
        }
        self.timers.stop(Timer::Relays);
        self.settle(now);
    }

    /// The full public key of a peer, if we hold it.
    pub fn public_identity(
        &self,
        id: &PeerId,
    ) -> Option<std::sync::Arc<shadowmesh_crypto::PublicIdentity>> {
        self.roster.public_identity(id)
    }

    fn primary(&self, id: &PeerId) -> Result<ConnKey, NetError> {
        self.peers
            .get(id)
            .ok_or(NetError::UnknownPeer)?
            .primary
            .ok_or(NetError::NoSession)
    }
}
