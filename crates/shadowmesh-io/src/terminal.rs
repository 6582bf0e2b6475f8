//! How wide the terminal is that a program writes to.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys;

/// Columns of the terminal behind a descriptor; an error where it is none, `None` where it does not say.
pub fn columns(of: &impl AsFd) -> io::Result<Option<u16>> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one `winsize`, which is live and exclusively ours; the descriptor is
    // open because `of` is borrowed.
    sys::check(unsafe {
        libc::ioctl(of.as_fd().as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut size)
    })?;
    Ok(Some(size.ws_col).filter(|columns| *columns > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(columns(&file).is_err());
    }
}
