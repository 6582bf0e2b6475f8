//! The one place where control and the data threads meet: the current snapshot.
//!
//! A data thread takes the snapshot once for each batch and gives it back before it blocks. That is
//! a promise to the session layer, not a detail: a snapshot holds the keys of its moment, so a thread
//! that slept on an old one would keep keys alive that were to be wiped.
//!
//! This file is compiled a second time against a model checker (`model`): it must take its
//! primitives from `super::sync`.

use super::sync::{Arc, Mutex, PoisonError};

use shadowmesh_vpn::Snapshot;

/// Holds the current snapshot. (The model checker puts something simpler in its place.)
pub struct SnapshotCell<T = Snapshot> {
    /// A lock for each batch costs nothing measurable beside the system call that filled the batch,
    /// and unlike a lock-free cell it drops the old snapshot at once.
    current: Mutex<Arc<T>>,
}

impl<T> SnapshotCell<T> {
    /// A cell that starts with `snapshot`.
    pub fn new(snapshot: Arc<T>) -> Self {
        Self {
            current: Mutex::new(snapshot),
        }
    }

    /// The current snapshot. Drop it before blocking. HOT PATH, once for each batch.
    pub fn load(&self) -> Arc<T> {
        // An `Arc` is replaced or not; a panic elsewhere cannot leave it half written.
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes a new snapshot. Threads in the middle of a batch finish it with the old one.
    pub fn store(&self, snapshot: Arc<T>) {
        let old = std::mem::replace(
            &mut *self.current.lock().unwrap_or_else(PoisonError::into_inner),
            snapshot,
        );
        // Outside the lock: the last owner wipes keys here.
        drop(old);
    }
}
