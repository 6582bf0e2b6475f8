//! Files that are whole or absent: written beside their place, synced, then moved there.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shadowmesh_io::files::Directory;

/// Replaces a file by one of mode 0600 with these bytes. After a crash at any moment there is
/// either the old file or the new one.
pub fn replace(directory: &Directory, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = write_beside(directory, name, bytes)?;
    directory
        .rename(&beside, name)
        .inspect_err(|_| drop(directory.remove(&beside)))?;
    directory.sync()
}

/// Like [`replace`], but fails with `AlreadyExists` instead of replacing: of two programs that
/// create the same file at once, one wins and the other learns of it.
pub fn create(directory: &Directory, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = write_beside(directory, name, bytes)?;
    // rename(2) would silently replace; link(2) is its twin that does not.
    let linked = directory.link(&beside, name);
    directory.remove(&beside)?;
    linked?;
    directory.sync()
}

/// A file is written beside its place within milliseconds; what is older was left by a program that
/// was killed.
const LEFTOVER_AGE: Duration = Duration::from_secs(60);

/// Takes away what [`replace`] and [`create`] left unfinished in a directory of the files that `is_written`
/// says by name are ours: they hold keys. Files of any other name or of other users stay, and so do those
/// that somebody may still be writing.
pub fn remove_leftovers(directory: &Directory, is_written: impl Fn(&str) -> bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs() as i64;
    // What cannot be listed or removed does no harm where it is.
    for (name, changed) in directory.files().unwrap_or_default() {
        let age = now.saturating_sub(changed);
        if age >= LEFTOVER_AGE.as_secs() as i64 && written_beside(&name).is_some_and(&is_written) {
            let _ = directory.remove(&name);
        }
    }
}

/// NAME of `.NAME.PID`, as [`write_beside`] calls it.
fn written_beside(name: &str) -> Option<&str> {
    let (name, pid) = name.strip_prefix('.')?.rsplit_once('.')?;
    pid.parse::<u32>().is_ok().then_some(name)
}

fn write_beside(directory: &Directory, name: &str, bytes: &[u8]) -> io::Result<String> {
    let beside = format!(".{name}.{}", std::process::id());
    // Ours by its process id, so only a dead namesake can have left it.
    let _ = directory.remove(&beside);
    directory.write_new(&beside, bytes)?;
    Ok(beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    fn fresh() -> (tempfile::TempDir, Directory) {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(keep.path()).unwrap();
        (keep, directory)
    }

    #[test]
    fn a_replaced_file_is_whole_private_and_alone() {
        let (keep, directory) = fresh();
        let path = keep.path().join("a");
        replace(&directory, "a", b"one").unwrap();
        replace(&directory, "a", b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_killed_program_left_is_removed_once_it_is_old_and_nothing_else_is() {
        let (keep, directory) = fresh();
        let old = std::time::SystemTime::now() - 2 * LEFTOVER_AGE;
        let file = |name: &str, is_old: bool| {
            let path = keep.path().join(name);
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
            file(".libfoo.so.1", true),
            file(".vimrc.2", true),
        ];
        remove_leftovers(&directory, |name| name == "identity");
        assert!(!leftover.exists());
        assert!(others.iter().all(|path| path.exists()));
    }

    #[test]
    fn creating_never_replaces() {
        let (keep, directory) = fresh();
        let path = keep.path().join("a");
        create(&directory, "a", b"one").unwrap();
        assert_eq!(
            create(&directory, "a", b"two").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(keep.path()).unwrap().count(), 1);
    }
}
