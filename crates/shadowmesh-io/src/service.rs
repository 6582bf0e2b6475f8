//! Telling a service manager how far we are, by the protocol of sd_notify(3): one datagram of
//! `NAME=VALUE` lines to a Unix socket that the manager named.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;

/// Sends `state`, such as `READY=1`, to the socket that `NOTIFY_SOCKET` names: a path, or after `@` a
/// name in Linux's abstract space. Waits for nothing.
pub fn notify(socket: &OsStr, state: &str) -> io::Result<()> {
    let ours = UnixDatagram::unbound()?;
    ours.set_nonblocking(true)?;
    send(&ours, socket, state)?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn send(ours: &UnixDatagram, socket: &OsStr, state: &str) -> io::Result<usize> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => ours.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?),
        None => ours.send_to(state.as_bytes(), socket),
    }
}

#[cfg(not(target_os = "linux"))]
fn send(ours: &UnixDatagram, socket: &OsStr, state: &str) -> io::Result<usize> {
    ours.send_to(state.as_bytes(), socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn a_manager_is_told_through_a_path() {
        let path = std::env::temp_dir().join(format!("notify-{}", std::process::id()));
        assert!(notify(path.as_os_str(), "READY=1").is_err());
        let manager = UnixDatagram::bind(&path).unwrap();
        notify(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&manager), "READY=1");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_manager_is_told_through_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("shadowmesh-notify-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        notify(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(received(&manager), "STOPPING=1");
    }
}
