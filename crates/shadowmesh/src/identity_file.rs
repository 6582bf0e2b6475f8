//! The file that holds the node's private keys.
//!
//! It is made on first use, whole or not at all, with mode 0600. A file that others can read is
//! refused rather than repaired: its keys may already be known, and only the owner can judge that.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shadowmesh_crypto::{Identity, IdentityFileError};

use crate::disk;

/// Name of the file in the state directory.
pub const FILE_NAME: &str = "identity";
/// The real file has some 250 bytes; what is longer than this is something else.
const FILE_LEN_MAX: u64 = 4 << 10;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Cannot be read or written.
    #[error("cannot {doing} identity file {}: {error}", path.display())]
    Io {
        /// "read" or "create"
        doing: &'static str,
        /// the file
        path: PathBuf,
        /// why
        error: io::Error,
    },
    /// Group or others may read or write it.
    #[error(
        "identity file {} is open to others (mode {mode:04o}), and it holds this node's private keys",
        path.display()
    )]
    OpenToOthers {
        /// the file
        path: PathBuf,
        /// its permission bits
        mode: u32,
    },
    /// Not an identity, or damaged.
    #[error("identity file {} is not usable: {error}", path.display())]
    Unusable {
        /// the file
        path: PathBuf,
        /// why
        error: IdentityFileError,
    },
}

impl IdentityError {
    /// What the user can do about it.
    pub fn next_step(&self) -> String {
        match self {
            IdentityError::Io { path, error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "run as the user who owns the state directory, or choose another with --state-dir".into()
                }
                _ => format!("check that {} can be read and written", path.display()),
            },
            IdentityError::OpenToOthers { path, .. } => {
                format!("if nobody else has read it: chmod 600 {}", path.display())
            }
            IdentityError::Unusable { path, .. } => format!(
                "restore {} from a backup, or move it away and the node makes a new identity \
                 (with another PeerId)",
                path.display()
            ),
        }
    }
}

/// Reads the identity; `None` when there is none yet.
// PROTOCOL SM-ID-3
pub fn load(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let io = |error| IdentityError::Io {
        doing: "read",
        path: path.into(),
        error,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::OpenToOthers {
            path: path.into(),
            mode,
        });
    }
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX as usize));
    file.take(FILE_LEN_MAX)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    Identity::from_file_bytes(&bytes)
        .map(Some)
        .map_err(|error| IdentityError::Unusable {
            path: path.into(),
            error,
        })
}

/// Reads the identity, making it first when there is none.
// PROTOCOL SM-ID-3
pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
    if let Some(identity) = load(path)? {
        return Ok(identity);
    }
    let identity = Identity::generate();
    match disk::create(path, &identity.to_file_bytes()) {
        Ok(()) => Ok(identity),
        // Another program made one in between: that is the identity, ours was never seen. If there
        // still is none, the name is taken by something else, such as a link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(path)?.ok_or_else(|| not_created(path, error))
        }
        Err(error) => Err(not_created(path, error)),
    }
}

fn not_created(path: &Path, error: io::Error) -> IdentityError {
    IdentityError::Io {
        doing: "create",
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    // PROTOCOL SM-ID-3
    fn the_identity_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        assert!(load(&path).unwrap().is_none());
        let made = load_or_create(&path).unwrap().peer_id();
        assert_eq!(load_or_create(&path).unwrap().peer_id(), made);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    // PROTOCOL SM-ID-3
    fn a_file_others_can_read_is_refused_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        load_or_create(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&path).unwrap_err();
            assert!(
                matches!(error, IdentityError::OpenToOthers { .. }),
                "{mode:o}: {error}"
            );
            assert!(error.next_step().contains("chmod 600"));
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_refused_and_not_tried_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(matches!(
            load_or_create(&path),
            Err(IdentityError::Io {
                doing: "create",
                ..
            })
        ));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        disk::create(&path, b"not an identity").unwrap();
        assert!(matches!(
            load_or_create(&path),
            Err(IdentityError::Unusable { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"not an identity");
    }
}
