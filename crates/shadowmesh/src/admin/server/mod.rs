//! The node's side of the admin socket.
//!
//! One task for each connection, at most `CONNECTIONS_MAX`; each reads one request, sends
//! [`Command`]s to the engine and writes the answers (`connection`), which for `ping` are many
//! (`ping`). A connection that hangs up ends its task at the next write, so nothing is left behind by
//! an impatient user.

mod connection;
mod ping;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_io::files::Directory;
use tokio::io::BufReader;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::Command;
use crate::config::Config;
use connection::Connection;

/// Verbs served at once; the socket is private, so this only bounds accidents.
const CONNECTIONS_MAX: usize = 32;
/// How long a stopping node lets verbs read their last answer.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The bound socket; the file goes away with it.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
    config: Arc<Config>,
    commands: mpsc::Sender<Command>,
}

impl AdminServer {
    /// Binds the socket in the state directory, over one left by a dead node: the caller holds the
    /// lock of the directory. Must run inside a tokio runtime.
    pub fn bind(
        state_dir: &Path,
        config: Arc<Config>,
        commands: mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        let first = match Self::bind_in(state_dir) {
            Ok(bound) => Ok(bound),
            Err(error) => Self::bind_elsewhere(state_dir).ok_or(error),
        };
        let (listener, path) = first?;
        Ok(Self {
            listener,
            path,
            config,
            commands,
        })
    }

    fn bind_in(state_dir: &Path) -> io::Result<(UnixListener, PathBuf)> {
        let path = super::socket_path(state_dir);
        // Between bind and chmod anyone who may enter the directory could connect; so it is bound
        // inside a private directory and moved out when its mode is right.
        let private = state_dir.join(format!(".admin.{}", std::process::id()));
        let _ = fs::remove_dir_all(&private);
        DirBuilder::new().mode(0o700).create(&private)?;
        let bound = bind_private(&private.join("s"), &path);
        let _ = fs::remove_dir_all(&private);
        Ok((bound?, path))
    }

    /// Where the state directory has no room for a socket. The directory is private, so nobody else can
    /// connect before the socket is, too.
    fn bind_elsewhere(state_dir: &Path) -> Option<(UnixListener, PathBuf)> {
        super::other_socket_paths(state_dir)
            .into_iter()
            .find_map(|path| {
                let directory = Directory::open_or_make(path.parent()?).ok()?;
                if directory.mode().ok()? & 0o077 != 0 {
                    return None;
                }
                // A dead node's: the caller holds the lock of the state directory.
                let _ = fs::remove_file(&path);
                let listener = UnixListener::bind(&path).ok()?;
                fs::set_permissions(&path, Permissions::from_mode(0o600)).ok()?;
                Some((listener, path))
            })
    }

    /// Serves until told to stop; answers under way are still given.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await.expect("never closed");
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = Connection {
                stream: BufReader::new(stream),
                config: self.config.clone(),
                commands: self.commands.clone(),
            };
            tokio::spawn(async move {
                if let Err(error) = connection.serve().await {
                    tracing::debug!(%error, "admin connection ended early");
                }
                drop(place);
            });
        }
        let all = places.acquire_many(CONNECTIONS_MAX as u32);
        let _ = timeout(LAST_ANSWER_TIMEOUT, all).await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind_private(private: &Path, public: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(private)?;
    fs::set_permissions(private, Permissions::from_mode(0o600))?;
    fs::rename(private, public)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
