//! The file that holds the node's private keys.
//!
//! It is made on first use, whole or not at all, with mode 0600. A file that others can read is
//! refused rather than repaired: its keys may already be known, and only the owner can judge that.

use std::io::{self, Read};
use std::path::PathBuf;

use shadowmesh_crypto::{Identity, IdentityFileError};
use shadowmesh_io::files::{Directory, FileError};

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
    /// It is no plain file, or somebody else's.
    #[error("identity file {0}")]
    File(FileError),
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
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(
                    "make room on the file system of {}; nothing was left there",
                    path.display()
                ),
                _ => format!("check that {} can be read and written", path.display()),
            },
            IdentityError::File(error) => error.next_step(),
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
pub fn load(directory: &Directory) -> Result<Option<Identity>, IdentityError> {
    let path = directory.path().join(FILE_NAME);
    // PROTOCOL SM-ID-4
    let (file, mode) = match directory.open_secret(FILE_NAME) {
        Ok(opened) => opened,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(FileError::Io { path, error, .. }) => {
            return Err(IdentityError::Io {
                doing: "read",
                path,
                error,
            });
        }
        Err(error) => return Err(IdentityError::File(error)),
    };
    if mode & 0o077 != 0 {
        return Err(IdentityError::OpenToOthers { path, mode });
    }
    // Reserved in one go, so that no reallocation leaves keys behind in freed memory.
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX as usize + 1));
    let read = file.take(FILE_LEN_MAX).read_to_end(&mut bytes);
    if let Err(error) = read {
        return Err(IdentityError::Io {
            doing: "read",
            path,
            error,
        });
    }
    Identity::from_file_bytes(&bytes)
        .map(Some)
        .map_err(|error| IdentityError::Unusable { path, error })
}

/// Reads the identity, making it first when there is none.
// PROTOCOL SM-ID-3
pub fn load_or_create(directory: &Directory) -> Result<Identity, IdentityError> {
    if let Some(identity) = load(directory)? {
        return Ok(identity);
    }
    let identity = Identity::generate();
    match disk::create(directory, FILE_NAME, &identity.to_file_bytes()) {
        Ok(()) => Ok(identity),
        // Another program made one in between: that is the identity, ours was never seen.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            load(directory)?.ok_or_else(|| not_created(directory, error))
        }
        Err(error) => Err(not_created(directory, error)),
    }
}

fn not_created(directory: &Directory, error: io::Error) -> IdentityError {
    IdentityError::Io {
        doing: "create",
        path: directory.path().join(FILE_NAME),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn fresh() -> (tempfile::TempDir, Directory) {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(keep.path()).unwrap();
        (keep, directory)
    }

    #[test]
    // PROTOCOL SM-ID-3
    fn the_identity_is_made_once_and_kept_private() {
        let (keep, directory) = fresh();
        let path = keep.path().join(FILE_NAME);
        assert!(load(&directory).unwrap().is_none());
        let made = load_or_create(&directory).unwrap().peer_id();
        assert_eq!(load_or_create(&directory).unwrap().peer_id(), made);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    // PROTOCOL SM-ID-3
    fn a_file_others_can_read_is_refused_with_the_command_that_mends_it() {
        let (keep, directory) = fresh();
        let path = keep.path().join(FILE_NAME);
        load_or_create(&directory).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load_or_create(&directory).unwrap_err();
            assert!(
                matches!(error, IdentityError::OpenToOthers { .. }),
                "{mode:o}: {error}"
            );
            assert!(error.next_step().contains("chmod 600"));
        }
    }

    #[test]
    fn a_link_is_refused_wherever_it_leads() {
        let (keep, directory) = fresh();
        let path = keep.path().join(FILE_NAME);
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let error = load_or_create(&directory).unwrap_err();
        assert!(matches!(error, IdentityError::File(_)), "{error}");
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let (keep, directory) = fresh();
        let path = keep.path().join(FILE_NAME);
        disk::create(&directory, FILE_NAME, b"not an identity").unwrap();
        assert!(matches!(
            load_or_create(&directory),
            Err(IdentityError::Unusable { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"not an identity");
    }

    #[test]
    // PROTOCOL SM-ID-4
    fn an_identity_of_somebody_else_is_refused_and_left_alone() {
        let (keep, directory) = fresh();
        let path = keep.path().join(FILE_NAME);
        load_or_create(&directory).unwrap();
        let before = fs::read(&path).unwrap();
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            return; // only root can give anything away
        }
        let error = load_or_create(&directory).unwrap_err();
        assert!(error.to_string().contains("user 4711"), "{error}");
        assert!(error.next_step().contains("chown 0"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
