//! Who is at the other end of a Unix socket.

use std::io;
use std::os::unix::net::UnixStream;

/// The user whose program listens at the other end, as the kernel noted it when that program bound the
/// socket. `None` where the platform does not say.
pub fn peer_uid(stream: &UnixStream) -> io::Result<Option<u32>> {
    #[cfg(target_os = "linux")]
    {
        let peer = rustix::net::sockopt::socket_peercred(stream)?;
        Ok(Some(peer.uid.as_raw()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::own_uid;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_other_end_of_our_own_pair_is_ours() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_uid(&one).unwrap(), Some(own_uid()));
    }
}
