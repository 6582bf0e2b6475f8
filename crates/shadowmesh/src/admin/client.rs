//! The verb's side of the admin socket: blocking, one request, answers as an iterator.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shadowmesh_io::{files, local};

use super::protocol::{Request, Response};

/// A node answers what it knows in milliseconds; one that is stopped in a debugger, or hangs, never does.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Why the node did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no node is running with state directory {}", state_dir.display())]
    NotRunning {
        /// where it would be
        state_dir: PathBuf,
    },
    /// The socket belongs to somebody else.
    #[error("not allowed to talk to the node in {}", state_dir.display())]
    NotAllowed {
        /// where it is
        state_dir: PathBuf,
    },
    /// Whoever answers there is not whom the directory belongs to.
    #[error("in {} a program of user {uid} answers, and not the node", state_dir.display())]
    Foreign {
        /// where
        state_dir: PathBuf,
        /// who
        uid: u32,
    },
    /// The connection broke: the node went down meanwhile, most likely.
    #[error("lost the connection to the node: {0}")]
    Broken(#[from] io::Error),
    /// What came is not an answer.
    #[error("the node answers something this version does not understand: {0}")]
    NotUnderstood(serde_json::Error),
}

/// Sends one request to the node of that state directory.
pub fn request(
    state_dir: &Path,
    request: &Request,
) -> Result<impl Iterator<Item = Result<Response, ClientError>> + use<>, ClientError> {
    let mut stream = connect(state_dir).map_err(|error| connect_error(state_dir, error))?;
    check_answerer(&stream, state_dir)?;
    let mut line = serde_json::to_vec(request).expect("requests are plain data");
    line.push(b'\n');
    stream.write_all(&line)?;
    if is_answered_at_once(request) {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
    }
    Ok(BufReader::new(stream)
        .lines()
        .map(|line| serde_json::from_str(&line?).map_err(ClientError::NotUnderstood)))
}

/// To the socket in the state directory, or where it is when there was no room for one.
fn connect(state_dir: &Path) -> io::Result<UnixStream> {
    let first = match UnixStream::connect(super::socket_path(state_dir)) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let others = super::other_socket_paths(state_dir);
    let mut others = others
        .iter()
        .filter_map(|path| UnixStream::connect(path).ok());
    others.next().ok_or(first)
}

/// The node of a directory runs as root, as ourselves, or as the directory's owner, whom the user named
/// with it.
// PROTOCOL SM-ID-4
fn check_answerer(stream: &UnixStream, state_dir: &Path) -> Result<(), ClientError> {
    let Some(uid) = local::peer_uid(stream)? else {
        return Ok(());
    };
    let owner = std::fs::metadata(state_dir).map(|metadata| metadata.uid());
    match files::is_trusted(uid) || owner.is_ok_and(|owner| owner == uid) {
        true => Ok(()),
        false => Err(ClientError::Foreign {
            state_dir: state_dir.into(),
            uid,
        }),
    }
}

/// The others take as long as a peer, a measurement or the end of everything takes.
fn is_answered_at_once(request: &Request) -> bool {
    match request {
        Request::Status | Request::Peers | Request::Doctor | Request::Retry => true,
        Request::Ping { .. } | Request::BenchPrepare { .. } | Request::Down => false,
    }
}

fn connect_error(state_dir: &Path, error: io::Error) -> ClientError {
    let state_dir = state_dir.to_path_buf();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { state_dir }
        }
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { state_dir },
        _ => ClientError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_hangs_keeps_nobody_waiting_for_what_is_answered_at_once() {
        let at_once = [
            Request::Status,
            Request::Peers,
            Request::Doctor,
            Request::Retry,
        ];
        assert!(at_once.iter().all(is_answered_at_once));
        let ping = Request::Ping {
            peer: "vps".into(),
            count: 3,
            interval_ms: 10,
            timeout_ms: 60_000,
        };
        assert!(!is_answered_at_once(&ping) && !is_answered_at_once(&Request::Down));
    }
}
