//! Who is a member, and whose full key we hold: what the TLS verifiers ask.
//!
//! Shared between `Net`, which writes it, and the verifiers inside the QUIC connections, which only
//! ever ask on the same thread; the mutex is for the compiler and never waited for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use shadowmesh_crypto::{PeerBook, PublicIdentity};
use shadowmesh_wire::PeerId;

/// The members and their keys.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Others may call too, to have datagrams relayed; who of them stays is decided when they have shown
    /// who they are (`net::relaying`), so that they can be told why not.
    open: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Limit: one for each configured peer.
    members: BTreeMap<PeerId, Option<Arc<PublicIdentity>>>,
    /// Keys learned and not yet reported. Limit: one for each member, since a known key is not
    /// learned again.
    learned: Vec<Arc<PublicIdentity>>,
    /// Who was asked for last and is no member, until it is taken. Limit: one.
    refused: Option<PeerId>,
}

impl Roster {
    /// An empty one. `open`: strangers may show who they are.
    pub(crate) fn new(open: bool) -> Self {
        Self {
            open,
            inner: Mutex::default(),
        }
    }

    /// Whether this is a member, and not somebody who may only call.
    pub(crate) fn lists(&self, id: &PeerId) -> bool {
        self.lock().members.contains_key(id)
    }

    /// Adds a member. A key it was added with before stays if none is given now.
    pub(crate) fn add(&self, id: PeerId, key: Option<Arc<PublicIdentity>>) {
        let key = key.filter(|key| key.peer_id() == id);
        let mut inner = self.lock();
        let entry = inner.members.entry(id).or_default();
        if key.is_some() {
            *entry = key;
        }
    }

    /// Takes a member out, with its key.
    pub(crate) fn remove(&self, id: &PeerId) {
        self.lock().members.remove(id);
    }

    /// Keys learned since the last call.
    pub(crate) fn take_learned(&self) -> Vec<Arc<PublicIdentity>> {
        std::mem::take(&mut self.lock().learned)
    }

    /// Who was refused since the last call: by its own word only, because members are looked up first.
    pub(crate) fn take_refused(&self) -> Option<PeerId> {
        self.lock().refused.take()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder of this lock panics")
    }
}

impl PeerBook for Roster {
    // PROTOCOL SM-RL-5
    fn is_member(&self, id: &PeerId) -> bool {
        let mut inner = self.lock();
        let admits = self.open || inner.members.contains_key(id);
        inner.refused = (!admits).then_some(*id);
        admits
    }

    fn public_identity(&self, id: &PeerId) -> Option<Arc<PublicIdentity>> {
        self.lock().members.get(id).cloned().flatten()
    }

    fn learned(&self, key: Arc<PublicIdentity>) {
        let mut inner = self.lock();
        if let Some(entry @ None) = inner.members.get_mut(&key.peer_id()) {
            *entry = Some(key.clone());
            inner.learned.push(key);
        }
    }
}
