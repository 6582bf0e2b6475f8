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
//! One directory belongs to one running node. The lock is the kernel's (`flock`), so it is gone with the
//! process that held it, however that ended. It is on a file that nobody else can open; where that cannot
//! be made, on the directory itself, which needs nothing written.
//!
//! Nothing in here is read, and nothing taken away, before the directory, those above it and the file are
//! found to be root's or our own ([`shadowmesh_io::files`]): whoever could write them could make a node
//! that runs as root take other keys, or take away routes that are not its own.

use std::collections::BTreeSet;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_crypto::PublicIdentity;
use shadowmesh_io::files::{Directory, FileError};
use shadowmesh_wire::PeerId;

use crate::{disk, identity_file, keeper};

/// Locked by the running node, and holds its process id for people. Mode 0600: whoever could open it could
/// lock it, and keep the node from starting.
const LOCK: &str = "lock";
/// The journal of what was set on the host (`engine::journal`).
pub const JOURNAL: &str = "host.json";
/// Longer than a verb that looks whether a node runs holds the lock.
const LOOK: Duration = Duration::from_millis(50);
/// The real file has some 2,700 bytes; what is longer than this is something else.
const KEY_LEN_MAX: u64 = 16 << 10;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system says no, or somebody else may change it.
    #[error("cannot use the state directory: {0}")]
    File(#[from] FileError),
    /// It cannot be locked.
    #[error("cannot lock state directory {}: {error}", path.display())]
    Lock {
        /// the directory
        path: PathBuf,
        /// why not
        error: io::Error,
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
            StateError::File(FileError::Io { error, .. })
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                "run as root, or choose a directory of your own with --state-dir".into()
            }
            StateError::File(error @ FileError::WritableByOthers { path, .. }) => format!(
                "{}; for the state directory itself chmod 700 {} (or choose another with --state-dir)",
                error.next_step(),
                path.display()
            ),
            StateError::File(FileError::Foreign { .. }) => {
                "choose a directory of your own, below none of other users, with --state-dir".into()
            }
            StateError::File(error) => {
                format!("{} (or choose another with --state-dir)", error.next_step())
            }
            StateError::Lock { .. } => "choose a --state-dir on another file system".into(),
            StateError::InUse { path, .. } => format!(
                "stop it with `shadowmesh down --state-dir {}`, or give this node its own --state-dir",
                path.display()
            ),
        }
    }
}

/// A state directory that exists, is private enough, and stays open.
#[derive(Clone, Debug)]
pub struct StateDir {
    directory: Arc<Directory>,
}

/// Proof that no other node runs with the directory; it ends when this is dropped.
#[derive(Debug)]
pub struct StateLock {
    _directory: File,
    _file: Option<File>,
}

impl StateDir {
    /// Opens the directory, making it with mode 0700 when there is none.
    // PROTOCOL SM-ID-4
    pub fn open(path: &Path) -> Result<Self, StateError> {
        Ok(Self {
            directory: Arc::new(Directory::open_or_make(path)?),
        })
    }

    /// As [`open`](Self::open); `None` when there is no such directory.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, StateError> {
        match Directory::open(path) {
            Ok(directory) => Ok(Some(Self {
                directory: Arc::new(directory),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory, open.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Takes the directory for this node alone. Nothing needs to be written for it: a full or read-only
    /// file system has locks, too.
    pub fn lock(&self) -> Result<StateLock, StateError> {
        let directory = self.directory.reopen()?;
        let is_old = self.directory.open_file(LOCK).is_ok();
        let file = match self.directory.open_or_make_file(LOCK) {
            Ok(file) => Some(file),
            // Locked all the same where it can be read.
            Err(_) => self.directory.open_file(LOCK).ok(),
        };
        if let Some(mut file) = file.as_ref() {
            self.lock_file(file)?;
            // For people, so no harm when there is no room.
            let _ = file.set_permissions(Permissions::from_mode(0o600));
            let _ = file.set_len(0);
            let _ = writeln!(file, "{}", std::process::id());
        }
        // Anybody who may list the directory may lock it, so that lock counts only where there is no file,
        // or where nobody else may and a node that found no room for the file may hold it.
        let alone = self.lock_file(&directory);
        let is_private = self.directory.mode().is_ok_and(|mode| mode & 0o044 == 0);
        if file.is_none() || (!is_old && is_private) {
            alone?;
        }
        Ok(StateLock {
            _directory: directory,
            _file: file,
        })
    }

    fn lock_file(&self, file: &File) -> Result<(), StateError> {
        let path = || self.path().to_owned();
        let mut locked = file.try_lock();
        if matches!(locked, Err(TryLockError::WouldBlock)) {
            // It may be a verb that only looks ([`is_in_use`]).
            std::thread::sleep(LOOK);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse {
                path: path(),
                pid: self.pid(),
            }),
            Err(TryLockError::Error(error)) => Err(StateError::Lock {
                path: path(),
                error,
            }),
        }
    }

    /// Of the node that wrote it down last.
    fn pid(&self) -> Option<u32> {
        let text = self.directory.read(LOCK, 32).ok()?;
        std::str::from_utf8(&text).ok()?.trim().parse().ok()
    }

    /// Takes out of the directory what a killed node left unfinished. Call it when the identity was read:
    /// in a directory without one nothing is ours.
    pub fn remove_leftovers(&self, _lock: &StateLock) {
        let is_ours = |name: &str| [identity_file::FILE_NAME, JOURNAL].contains(&name);
        disk::remove_leftovers(&self.directory, is_ours);
        if let Ok(keys) = self.directory.open_inside(KEYS) {
            disk::remove_leftovers(&keys, is_key_name);
        }
    }

    /// The cached full keys of those peers, and forgets the keys of everybody else: a removed peer
    /// leaves nothing behind. A damaged entry is forgotten too; the peer will show its key again.
    // PROTOCOL SM-HS-6
    pub fn peer_keys(&self, peers: &[PeerId]) -> Vec<Arc<PublicIdentity>> {
        let wanted: BTreeSet<String> = peers.iter().map(key_name).collect();
        let Ok(directory) = self.directory.open_inside(KEYS) else {
            return Vec::new();
        };
        let mut keys = Vec::new();
        for (name, _) in directory.files().unwrap_or_default() {
            let key = wanted
                .contains(&name)
                .then(|| read_key(&directory, &name))
                .flatten();
            match key {
                Some(key) => keys.push(key),
                None if is_key_name(&name) => drop(directory.remove(&name)),
                None => {}
            }
        }
        keys.sort_by_key(|key| key.peer_id());
        keys
    }

    /// Remembers the full key of a peer. Callers store only keys of configured peers, which bounds
    /// the cache. Where it cannot be written, it is as soon as it can.
    pub fn store_peer_key(&self, key: &PublicIdentity) {
        let directory = self.path().join(KEYS);
        keeper::keep(&directory, &key_name(&key.peer_id()), key.to_bytes());
    }
}

/// Whether a node runs with this directory, whoever it belongs to.
pub fn is_in_use(path: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
    let lock = path.join(LOCK);
    let is_file = std::fs::symlink_metadata(&lock).is_ok_and(|found| found.is_file());
    match is_file.then(|| File::open(lock)) {
        Some(Ok(file)) => locked(file),
        _ => File::open(path).is_ok_and(locked),
    }
}

const KEYS: &str = "keys";

fn key_name(peer: &PeerId) -> String {
    format!("{peer}.key")
}

/// Whether a file is called as those in `keys` are; what is called otherwise is not ours.
fn is_key_name(name: &str) -> bool {
    let peer = name.strip_suffix(".key");
    peer.is_some_and(|peer| peer.parse::<PeerId>().is_ok())
}

/// The key in the file, if it is the one its name says: the PeerId is the hash of the key, so a
/// forged file is found out.
fn read_key(directory: &Directory, name: &str) -> Option<Arc<PublicIdentity>> {
    let bytes = directory.read(name, KEY_LEN_MAX).ok()?;
    let key = PublicIdentity::from_bytes(&bytes).ok()?;
    (key_name(&key.peer_id()) == name).then(|| Arc::new(key))
}

fn with_pid(pid: Option<u32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_crypto::Identity;
    use std::fs;

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
        assert!(is_in_use(state.path()));
        drop(lock);
        assert!(!is_in_use(state.path()));
        state.lock().unwrap();
    }

    #[test]
    fn a_lock_that_anybody_may_take_on_an_open_directory_denies_no_start() {
        let (_keep, state) = fresh();
        fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        let stranger = File::open(state.path()).unwrap();
        stranger.lock_shared().unwrap();
        for _ in 0..2 {
            assert!(!is_in_use(state.path()));
            let lock = state.lock().unwrap();
            assert!(is_in_use(state.path()));
            assert!(matches!(state.lock(), Err(StateError::InUse { .. })));
            drop(lock);
        }
        let mode = fs::metadata(state.path().join(LOCK))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    // PROTOCOL SM-HS-6
    fn keys_of_peers_survive_a_restart_and_those_of_removed_peers_do_not() {
        let (_keep, state) = fresh();
        let [stays, goes] = [Identity::generate(), Identity::generate()];
        state.store_peer_key(stays.public());
        state.store_peer_key(goes.public());
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
        state.store_peer_key(peer.public());
        let path = state.path().join(KEYS).join(key_name(&peer.peer_id()));
        fs::write(&path, forger.public().to_bytes()).unwrap();
        assert!(state.peer_keys(&[peer.peer_id()]).is_empty());
        assert!(!path.exists());
    }

    #[test]
    // PROTOCOL SM-ID-4
    fn what_belongs_to_somebody_else_is_neither_read_nor_removed() {
        let (_keep, state) = fresh();
        let peer = Identity::generate();
        state.store_peer_key(peer.public());
        let keys = state.path().join(KEYS);
        let file = keys.join(key_name(&peer.peer_id()));
        if std::os::unix::fs::chown(&file, Some(4711), None).is_err() {
            return; // only root can give anything away
        }
        assert!(state.peer_keys(&[peer.peer_id()]).is_empty());
        assert!(file.exists());
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        std::os::unix::fs::chown(&keys, Some(4711), None).unwrap();
        assert!(state.peer_keys(&[]).is_empty());
        assert!(file.exists());
    }

    #[test]
    // PROTOCOL SM-ID-4
    fn taking_the_lock_removes_nothing_and_what_others_keep_there_stays() {
        let (_keep, state) = fresh();
        let peer = Identity::generate();
        state.store_peer_key(peer.public());
        let old = |name: &str| {
            let path = state.path().join(name);
            let file = File::create(&path).unwrap();
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            file.set_modified(old).unwrap();
            path
        };
        let leftover = old(".identity.4711");
        let of_a_key = old(&format!("keys/.{}.4711", key_name(&peer.peer_id())));
        let others = [
            ".libfoo.so.1",
            "keys/.identity.2",
            "keys/id_rsa",
            "keys/a.key",
        ]
        .map(old);
        let lock = state.lock().unwrap();
        assert!(leftover.exists());
        state.remove_leftovers(&lock);
        assert!(!leftover.exists() && !of_a_key.exists());
        state.peer_keys(&[]);
        assert!(others.iter().all(|path| path.exists()));
    }
}
