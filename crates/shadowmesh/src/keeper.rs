//! Files of the state directory that are good to have, and no reason to stop when they cannot be written.
//!
//! A file system that is full or read-only keeps no node from running: nothing but the identity is
//! needed, and that is only read. So what cannot be written now is kept in memory, said once
//! ([`notices`]), and tried again until there is room. What a crash in between costs is said, too.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use shadowmesh_io::files::Directory;

use crate::{disk, notices};

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(10);
/// Limit: files that wait for room; each has some 3 KB. A key that does not fit is learned again.
const PENDING_MAX: usize = 4096;
/// What is told of it.
const TOPIC: &str = "state directory";

struct Pending {
    /// By directory and name. Limit: [`PENDING_MAX`].
    files: BTreeMap<(PathBuf, String), Vec<u8>>,
    /// A thread tries again.
    is_tried: bool,
}

/// One for the program. Held while a file is written, so that none is written after it was forgotten.
static PENDING: Mutex<Pending> = Mutex::new(Pending {
    files: BTreeMap::new(),
    is_tried: false,
});

/// Writes a file, now or as soon as there is room. The directory is made when there is none.
pub fn keep(directory: &Path, name: &str, bytes: Vec<u8>) {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (directory.to_owned(), name.to_owned());
    pending.files.remove(&key);
    let Err(error) = write(directory, name, &bytes) else {
        return;
    };
    if pending.files.len() < PENDING_MAX {
        pending.files.insert(key, bytes);
    }
    tell(&pending, &error);
    if !pending.is_tried {
        let builder = thread::Builder::new().name("keeper".into());
        pending.is_tried = builder.spawn(try_again).is_ok();
    }
}

/// Removes a file, also where it only waits to be written.
pub fn forget(directory: &Path, name: &str) -> io::Result<()> {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    pending
        .files
        .remove(&(directory.to_owned(), name.to_owned()));
    if pending.files.is_empty() {
        notices::clear(TOPIC);
    }
    let opened = Directory::open(directory).map_err(io::Error::other)?;
    match opened.remove(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn try_again() {
    loop {
        thread::sleep(RETRY);
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        if try_once(&mut pending) {
            pending.is_tried = false;
            return;
        }
    }
}

/// Whether nothing is left to write.
fn try_once(pending: &mut Pending) -> bool {
    let mut last = None;
    pending.files.retain(|(directory, name), bytes| {
        let written = write(directory, name, bytes);
        written.map_err(|error| last = Some(error)).is_err()
    });
    match last {
        Some(error) => tell(pending, &error),
        None => notices::clear(TOPIC),
    }
    pending.files.is_empty()
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let directory = Directory::open_or_make(directory).map_err(io::Error::other)?;
    disk::replace(&directory, name, bytes)
}

fn tell(pending: &Pending, error: &io::Error) {
    let keys = pending.files.keys();
    let keys = keys.filter(|(_, name)| name.ends_with(".key")).count();
    let mut lost = Vec::new();
    if keys < pending.files.len() {
        lost.push(
            "after a crash rules, and addresses on a lasting device, stay on the host".to_owned(),
        );
    }
    if keys > 0 {
        lost.push(format!(
            "after a restart the first handshakes with {keys} peers are longer"
        ));
    }
    notices::set(
        TOPIC,
        format!(
            "the state directory cannot be written ({error}): the node runs, but until there is room, {}",
            lost.join(", and ")
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> bool {
        let all = notices::all();
        all.iter().any(|text| text.contains("cannot be written"))
    }

    /// The error stands for every reason not to write: no room, no right, a read-only file system.
    #[test]
    // PROTOCOL SM-ST-1
    fn what_cannot_be_written_is_kept_and_written_when_it_can() {
        let keep_dir = tempfile::tempdir().unwrap();
        let (directory, name) = (keep_dir.path().join("keys"), "one.key");
        // A directory of that name: no file can take its place.
        std::fs::create_dir_all(directory.join(name)).unwrap();
        keep(&directory, name, b"x".to_vec());
        assert!(told());
        let again = || try_once(&mut PENDING.lock().unwrap());
        assert!(!again());
        std::fs::remove_dir(directory.join(name)).unwrap();
        assert!(again() && !told());
        assert_eq!(std::fs::read(directory.join(name)).unwrap(), b"x");

        std::fs::create_dir_all(directory.join("two.key")).unwrap();
        keep(&directory, "two.key", b"x".to_vec());
        let _ = forget(&directory, "two.key");
        std::fs::remove_dir(directory.join("two.key")).unwrap();
        assert!(again() && !told());
        assert!(!directory.join("two.key").exists(), "it was forgotten");
    }
}
