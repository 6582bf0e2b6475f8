//! Files that are whole or absent: written beside their place, synced, then moved there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Replaces `path` by a file of mode 0600 with these bytes. After a crash at any moment there is
/// either the old file or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, bytes)?;
    fs::rename(&beside, path).inspect_err(|_| drop(fs::remove_file(&beside)))?;
    sync_directory_of(path)
}

/// Like [`replace`], but fails with `AlreadyExists` instead of replacing: of two programs that
/// create the same file at once, one wins and the other learns of it.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = write_beside(path, bytes)?;
    // rename(2) would silently replace; link(2) is its twin that does not.
    let linked = fs::hard_link(&beside, path);
    fs::remove_file(&beside)?;
    linked?;
    sync_directory_of(path)
}

/// A file is written beside its place within milliseconds; what is older was left by a program that
/// was killed.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// Takes away what [`replace`] and [`create`] left unfinished in a directory: they hold keys. Files
/// of any other name stay, and so do those that somebody may still be writing.
pub fn remove_leftovers(directory: &Path) {
    // What cannot be listed or removed does no harm where it is.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_old = entry.metadata().is_ok_and(|metadata| {
            let age = metadata
                .modified()
                .map(|at| at.elapsed().unwrap_or_default());
            metadata.is_file() && age.is_ok_and(|age| age >= LEFTOVER_AGE)
        });
        if is_old && is_ours_beside(&entry.file_name().to_string_lossy()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// `.NAME.PID`, as [`write_beside`] names it.
fn is_ours_beside(name: &str) -> bool {
    let parts = name
        .strip_prefix('.')
        .and_then(|rest| rest.rsplit_once('.'));
    parts.is_some_and(|(name, pid)| !name.is_empty() && pid.parse::<u32>().is_ok())
}

fn write_beside(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // Ours by its process id, so only a dead namesake can have left it.
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    Ok(beside)
}

/// The name is on disk only when the directory is.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replaced_file_is_whole_private_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_program_left_is_removed_once_it_is_old_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - 2 * LEFTOVER_AGE;
        let file = |name: &str, is_old: bool| {
            let path = directory.path().join(name);
            let file = File::create(&path).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
            path
        };
        let leftover = file(".identity.4711", true);
        let others = [
            file(".identity.4712", false),
            file("identity", true),
            file("identity.4711", true),
            file(".identity.bak", true),
            file(".4711", true),
        ];
        remove_leftovers(directory.path());
        assert!(!leftover.exists());
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn creating_never_replaces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        create(&path, b"one").unwrap();
        assert_eq!(
            create(&path, b"two").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
