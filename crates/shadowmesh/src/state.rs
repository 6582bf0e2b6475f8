//! The state directory: what a node keeps between runs.
//!
//! ```text
//! identity          private keys (identity_file)
//! lock              held by the running node, with its process id as text
//! admin.sock        where verbs reach the running node (admin)
//! keys/sm1….key     full public keys of peers, so that a restarted node may use the short certificate
//! host.json         what the node set on the host and must take away, even after kill -9 (engine::journal)
//! ```
//!
//! One directory belongs to one running node. The lock is the kernel's (`flock`), so it is gone with
//! the process that held it, however that ended.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use shadowmesh_crypto::PublicIdentity;
use shadowmesh_wire::PeerId;

use crate::disk;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system says no.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// what was tried
        doing: &'static str,
        /// on what
        path: PathBuf,
        /// why not
        error: io::Error,
    },
    /// Whoever can write the directory can replace the identity.
    #[error("state directory {} can be written by others (mode {mode:04o})", path.display())]
    WritableByOthers {
        /// the directory
        path: PathBuf,
        /// its permission bits
        mode: u32,
    },
    /// Another node runs with it.
    #[error("another node{} already runs with state directory {}", with_pid(*pid), path.display())]
    InUse {
        /// the directory
        path: PathBuf,
        /// the other node, when it could be read
        pid: Option<u32>,
    },
}

impl StateError {
    /// What the user can do about it.
    pub fn next_step(&self) -> String {
        match self {
            StateError::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                "run as root, or choose a directory of your own with --state-dir".into()
            }
            StateError::Io { path, .. } => {
                format!("check that {} can be created and written", path.display())
            }
            StateError::WritableByOthers { path, .. } => {
                format!(
                    "chmod 700 {} (or choose another with --state-dir)",
                    path.display()
                )
            }
            StateError::InUse { path, .. } => format!(
                "stop it with `shadowmesh down --state-dir {}`, or give this node its own --state-dir",
                path.display()
            ),
        }
    }
}

/// A state directory that exists and is private enough.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Proof that no other node runs with the directory; it ends when this is dropped.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateDir {
    /// Opens the directory, making it with mode 0700 when there is none.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |doing| {
            move |error| StateError::Io {
                doing,
                path: path.into(),
                error,
            }
        };
        if !path.exists() {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io("create state directory"))?;
            }
            let made = DirBuilder::new().mode(0o700).create(path);
            // Made by another program in between is as good.
            made.or_else(|error| if path.is_dir() { Ok(()) } else { Err(error) })
                .map_err(io("create state directory"))?;
        }
        let metadata = fs::metadata(path).map_err(io("open state directory"))?;
        if !metadata.is_dir() {
            return Err(io("open state directory")(
                io::ErrorKind::NotADirectory.into(),
            ));
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateError::WritableByOthers {
                path: path.into(),
                mode,
            });
        }
        Ok(Self { path: path.into() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the private keys are.
    pub fn identity_path(&self) -> PathBuf {
        self.path.join(crate::identity_file::FILE_NAME)
    }

    /// Takes the directory for this node alone, and out of it what a killed one left unfinished.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let path = self.path.join("lock");
        let io = |error| StateError::Io {
            doing: "lock",
            path: path.clone(),
            error,
        };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(io(error)),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.take(32).read_to_string(&mut text);
                return Err(StateError::InUse {
                    path: self.path.clone(),
                    pid: text.trim().parse().ok(),
                });
            }
        }
        file.set_len(0).map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        disk::remove_leftovers(&self.path);
        disk::remove_leftovers(&self.keys_dir());
        Ok(StateLock { _file: file })
    }

    /// The cached full keys of those peers, and forgets the keys of everybody else: a removed peer
    /// leaves nothing behind. A damaged entry is forgotten too; the peer will show its key again.
    // PROTOCOL SM-HS-6
    pub fn peer_keys(&self, peers: &[PeerId]) -> Vec<Arc<PublicIdentity>> {
        let wanted: BTreeSet<String> = peers.iter().map(key_name).collect();
        let Ok(entries) = fs::read_dir(self.keys_dir()) else {
            return Vec::new();
        };
        let mut keys = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let key = wanted
                .contains(&name)
                .then(|| read_key(&entry.path(), &name))
                .flatten();
            match key {
                Some(key) => keys.push(key),
                None => drop(fs::remove_file(entry.path())),
            }
        }
        keys.sort_by_key(|key| key.peer_id());
        keys
    }

    /// Remembers the full key of a peer. Callers store only keys of configured peers, which bounds
    /// the cache.
    pub fn store_peer_key(&self, key: &PublicIdentity) -> Result<(), StateError> {
        let directory = self.keys_dir();
        let path = directory.join(key_name(&key.peer_id()));
        let io = |error| StateError::Io {
            doing: "store peer key",
            path: path.clone(),
            error,
        };
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&directory)
            .map_err(io)?;
        disk::replace(&path, &key.to_bytes()).map_err(io)
    }

    fn keys_dir(&self) -> PathBuf {
        self.path.join("keys")
    }
}

fn key_name(peer: &PeerId) -> String {
    format!("{peer}.key")
}

/// The key in the file, if it is the one its name says: the PeerId is the hash of the key, so a
/// forged file is found out.
fn read_key(path: &Path, name: &str) -> Option<Arc<PublicIdentity>> {
    let key = PublicIdentity::from_bytes(&fs::read(path).ok()?).ok()?;
    (key_name(&key.peer_id()) == name).then(|| Arc::new(key))
}

fn with_pid(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_crypto::Identity;

    fn fresh() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(&directory.path().join("deep/state")).unwrap();
        (directory, state)
    }

    #[test]
    fn a_fresh_directory_is_private_and_one_others_write_is_refused() {
        let (_keep, state) = fresh();
        let mode = fs::metadata(state.path()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700);
        fs::set_permissions(state.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateDir::open(state.path()).unwrap_err();
        assert!(error.next_step().contains("chmod 700"), "{error}");
    }

    #[test]
    fn two_nodes_cannot_share_a_directory() {
        let (_keep, state) = fresh();
        let lock = state.lock().unwrap();
        match state.lock() {
            Err(StateError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(lock);
        state.lock().unwrap();
    }

    #[test]
    // PROTOCOL SM-HS-6
    fn keys_of_peers_survive_a_restart_and_those_of_removed_peers_do_not() {
        let (_keep, state) = fresh();
        let [stays, goes] = [Identity::generate(), Identity::generate()];
        state.store_peer_key(stays.public()).unwrap();
        state.store_peer_key(goes.public()).unwrap();
        let keys = state.peer_keys(&[stays.peer_id()]);
        assert_eq!(
            keys.iter().map(|key| key.peer_id()).collect::<Vec<_>>(),
            [stays.peer_id()]
        );
        assert!(state.peer_keys(&[goes.peer_id()]).is_empty());
    }

    #[test]
    fn a_key_under_another_peers_name_is_forgotten() {
        let (_keep, state) = fresh();
        let [peer, forger] = [Identity::generate(), Identity::generate()];
        state.store_peer_key(peer.public()).unwrap();
        let path = state.keys_dir().join(key_name(&peer.peer_id()));
        fs::write(&path, forger.public().to_bytes()).unwrap();
        assert!(state.peer_keys(&[peer.peer_id()]).is_empty());
        assert!(!path.exists());
    }
}
