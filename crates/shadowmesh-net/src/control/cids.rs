//! The table of all ids under which datagrams reach us.
//!
//! QUIC connection ids and the receiver indices of sessions are drawn from one source into one
//! table, so that one lookup says what a datagram is, and an observer sees one kind of id.
//! quinn draws its ids through [`ConnectionIdGenerator`], which does not say for whom; so fresh ids
//! are collected here and claimed right after the call that made them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_wire::PeerId;

use super::ConnKey;

/// Bytes of every id: those of a receiver index.
pub(crate) const CID_LEN: usize = 8;

/// Whom an id leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A QUIC connection.
    Connection(ConnKey),
    /// The session of a connection.
    Session(ConnKey),
    /// The session of a peer that was removed: dropped and counted, never answered.
    Removed(PeerId),
}

/// Shared handle of the table.
#[derive(Debug, Clone)]
pub(crate) struct Cids(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    rng: StdRng,
    /// Limit: [`CIDS_PER_CONNECTION`] and one index for each connection, and the removed ones
    /// (bounded by `Net`).
    ///
    /// [`CIDS_PER_CONNECTION`]: super::connection::CIDS_PER_CONNECTION
    owners: BTreeMap<u64, Owner>,
    /// Drawn by the endpoint and not claimed yet. Limit: what one call of the endpoint draws.
    fresh: Vec<u64>,
}

impl Cids {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(Table {
            rng: StdRng::from_seed(seed),
            owners: BTreeMap::new(),
            fresh: Vec::new(),
        })))
    }

    /// Draws an id that nobody has, for `owner`.
    pub(crate) fn draw(&self, owner: Owner) -> u64 {
        let mut table = self.lock();
        let id = table.draw();
        table.owners.insert(id, owner);
        id
    }

    /// Gives the ids drawn since the last claim to a connection.
    pub(crate) fn claim_fresh(&self, key: ConnKey) -> Vec<u64> {
        let mut table = self.lock();
        let fresh = std::mem::take(&mut table.fresh);
        for &id in &fresh {
            table.owners.insert(id, Owner::Connection(key));
        }
        fresh
    }

    /// Forgets ids drawn for an answer that keeps no state, such as a Retry.
    pub(crate) fn discard_fresh(&self) {
        self.lock().fresh.clear();
    }

    pub(crate) fn owner(&self, id: u64) -> Option<Owner> {
        self.lock().owners.get(&id).copied()
    }

    pub(crate) fn set_owner(&self, id: u64, owner: Owner) {
        self.lock().owners.insert(id, owner);
    }

    /// Takes an id out if it still leads to `owner`.
    pub(crate) fn release(&self, id: u64, owner: Owner) {
        let mut table = self.lock();
        if table.owners.get(&id) == Some(&owner) {
            table.owners.remove(&id);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().owners.len()
    }

    #[cfg(test)]
    pub(crate) fn of_connections(&self) -> Vec<u64> {
        let table = self.lock();
        let ids = table.owners.iter();
        ids.filter(|(_, owner)| matches!(owner, Owner::Connection(_)))
            .map(|(&id, _)| id)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Table {
    fn draw(&mut self) -> u64 {
        loop {
            let id = self.rng.random();
            if !self.owners.contains_key(&id) && !self.fresh.contains(&id) {
                return id;
            }
        }
    }
}

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut table = self.lock();
        let id = table.draw();
        table.fresh.push(id);
        ConnectionId::new(&id.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
