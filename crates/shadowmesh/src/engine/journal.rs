//! What the engine has set on the host, on disk before it is set.
//!
//! A clean exit takes everything away again. A killed process cannot, so the next start reads the
//! journal of the last one and does it then. Usually the kernel was faster: a TUN device goes with
//! its process and takes its addresses and routes along. It stays when somebody made the device
//! persistent, and then only the journal knows which addresses on it were ours. Rules and what leads
//! nowhere hang on no device and stay always.
//!
//! Never trust an old journal blindly: after a reboot, in another namespace, or when the device was
//! made anew, the same words mean somebody else's property.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shadowmesh_io::files::Directory;

use super::routing::Marks;
use crate::keeper;
use crate::state::JOURNAL as FILE_NAME;

/// A route takes some 100 bytes, and there are at most some thousands.
const LEN_MAX: u64 = 4 << 20;

/// Everything one run of the engine sets on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Which boot, and which network namespace within it.
    pub world: World,
    /// Index of the device; the kernel never gives one twice within a namespace and boot.
    pub device_index: u32,
    /// Name of the device.
    pub device_name: String,
    /// Addresses with their prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Prefixes that lead to the device, by network address and length.
    pub routes: Vec<(IpAddr, u8)>,
    /// Routing tables that are ours; none: the routes are in the main one.
    #[serde(default)]
    pub tables: Vec<u32>,
    /// UDP ports of ours for which there may be rules.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// Where device indexes mean something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    boot_id: String,
    namespace: u64,
}

impl World {
    /// The world of the calling thread.
    pub fn current() -> io::Result<Self> {
        Ok(Self {
            boot_id: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .into(),
            namespace: fs::metadata("/proc/thread-self/ns/net")?.ino(),
        })
    }
}

impl Journal {
    /// By what the routes and rules are known.
    pub fn marks(&self) -> Marks<'_> {
        Marks {
            tables: &self.tables,
            ports: &self.ports,
            prefixes: &self.routes,
            device: self.device_index,
        }
    }

    /// What the last run left in `state_dir`, if it ended without cleaning up. A journal that is
    /// unreadable, or that somebody else could have written, is reported and then treated as none: it
    /// must not keep the node from starting.
    // PROTOCOL SM-ID-4
    pub fn load(state_dir: &Path) -> Option<Self> {
        let read = Directory::open(state_dir).and_then(|open| open.read(FILE_NAME, LEN_MAX));
        let text = match read {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return None,
            Err(error) => {
                tracing::warn!(%error, "the journal of the last run is ignored");
                return None;
            }
        };
        match serde_json::from_slice(&text) {
            Ok(journal) => Some(journal),
            Err(error) => {
                tracing::warn!(%error, "the journal of the last run is unreadable and ignored");
                None
            }
        }
    }

    /// Writes the journal so that it is complete or absent, whatever happens meanwhile; where there is no
    /// room, as soon as there is. Nothing waits for it: a node on a full disk is better than none.
    // PROTOCOL SM-ST-1
    pub fn save(&self, state_dir: &Path) -> io::Result<()> {
        keeper::keep(state_dir, FILE_NAME, serde_json::to_vec_pretty(self)?);
        Ok(())
    }

    /// Nothing of ours is left on the host. A journal that cannot be removed says of which boot and network
    /// namespace it is, and means nothing in any other; in its own the next start finds nothing to take away.
    pub fn remove(state_dir: &Path) -> io::Result<()> {
        if let Err(error) = keeper::forget(state_dir, FILE_NAME) {
            tracing::debug!(%error, "the journal of host settings stays");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal {
            world: World::current().unwrap(),
            device_index: 7,
            device_name: "shadow0".into(),
            addresses: vec![("10.100.1.5".parse().unwrap(), 16)],
            routes: vec![("fd00::".parse().unwrap(), 64)],
            tables: vec![8300, 8301],
            ports: vec![4433],
        }
    }

    #[test]
    fn a_saved_journal_is_read_back_and_a_removed_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        journal().save(directory.path()).unwrap();
        assert_eq!(Journal::load(directory.path()), Some(journal()));
        Journal::remove(directory.path()).unwrap();
        Journal::remove(directory.path()).expect("removing twice is no error");
        assert_eq!(Journal::load(directory.path()), None);
    }

    #[test]
    fn a_damaged_journal_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), b"{\"world\":").unwrap();
        assert_eq!(Journal::load(directory.path()), None);
    }

    #[test]
    // PROTOCOL SM-ID-4
    fn a_journal_that_somebody_else_prepared_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        journal().save(directory.path()).unwrap();
        let path = directory.path().join(FILE_NAME);
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            return; // only root can give anything away
        }
        assert_eq!(Journal::load(directory.path()), None);
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        assert_eq!(Journal::load(directory.path()), Some(journal()));
        let elsewhere = directory.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(Journal::load(directory.path()), None);
    }
}
