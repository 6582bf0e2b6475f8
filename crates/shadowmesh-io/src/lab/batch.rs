//! Receiving many datagrams with one system call (`recvmmsg(2)`), keeping only how each begins.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys;

/// Datagrams of one call.
const BATCH_LEN: usize = 256;
/// What is kept of each; the kernel drops the rest without copying it.
const HEAD_LEN: usize = 16;

/// Room for one batch.
pub(super) struct ReceiveBatch {
    heads: Box<[[u8; HEAD_LEN]; BATCH_LEN]>,
    lengths: [usize; BATCH_LEN],
    received: usize,
}

impl ReceiveBatch {
    pub(super) fn new() -> Self {
        Self {
            heads: Box::new([[0; HEAD_LEN]; BATCH_LEN]),
            lengths: [0; BATCH_LEN],
            received: 0,
        }
    }

    /// Takes what is there, at most a batch, and says how many it took; 0 means nothing was there.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let mut parts = self.heads.each_mut().map(|head| libc::iovec {
            iov_base: head.as_mut_ptr().cast(),
            iov_len: HEAD_LEN,
        });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: `mmsghdr` is plain integers and pointers, valid when zero.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        let result = sys::retry(|| {
            // SAFETY: `messages` is a live array of the length given; each entry points to one
            // `iovec` of `parts`, each of those to `HEAD_LEN` bytes of `self.heads`, and all of
            // them outlive the call and are borrowed by nobody else. The timeout may be null.
            sys::check(unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    messages.as_mut_ptr(),
                    BATCH_LEN as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    std::ptr::null_mut(),
                )
            })
        });
        self.received = match result {
            Ok(received) => received as usize,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        for (length, message) in self.lengths.iter_mut().zip(&messages[..self.received]) {
            *length = message.msg_len as usize;
        }
        Ok(self.received)
    }

    /// The first bytes of each datagram of the last batch that is at least that long.
    pub(super) fn heads(&self) -> impl Iterator<Item = &[u8; HEAD_LEN]> {
        let all = self.heads.iter().zip(&self.lengths).take(self.received);
        all.filter(|(_, length)| **length >= HEAD_LEN)
            .map(|(head, _)| head)
    }
}
