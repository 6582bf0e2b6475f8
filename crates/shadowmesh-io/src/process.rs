//! Ending another program the way a service manager does; the standard library can only kill.

use std::io;
use std::process::Child;

use crate::sys;

/// Sends SIGTERM to a program we started.
pub fn terminate(child: &Child) -> io::Result<()> {
    let pid = child.id() as libc::pid_t;
    // SAFETY: no pointers. The number is that of a child nobody has waited for (that takes
    // `&mut Child`, whose last act would be to forget it), so it names no other program.
    sys::check(unsafe { libc::kill(pid, libc::SIGTERM) }).map(drop)
}
