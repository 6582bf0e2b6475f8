//! Many datagrams with one system call: sending numbered ones (`sendmmsg(2)`), and receiving them
//! (`recvmmsg(2)`), keeping only how each begins.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys;

/// Datagrams of one receiving call.
const BATCH_LEN: usize = 256;
/// Datagrams of one sending call: what media servers hand over at once, and short
/// enough to look at the clock in between.
pub(super) const SEND_BATCH_LEN: usize = 16;
/// What is kept of each; the kernel drops the rest without copying it.
pub(super) const HEAD_LEN: usize = 16;

/// Datagrams of one length that differ in a number.
pub(super) struct SendBatch {
    payloads: Vec<Vec<u8>>,
    number_at: usize,
}

impl SendBatch {
    /// Copies of `payload`, whose eight bytes at `number_at` take each datagram's number.
    pub(super) fn new(payload: &[u8], number_at: usize) -> Self {
        assert!(number_at + 8 <= payload.len(), "no room for the number");
        Self {
            payloads: vec![payload.to_vec(); SEND_BATCH_LEN],
            number_at,
        }
    }

    /// Sends `count` (at most [`SEND_BATCH_LEN`]) datagrams with the numbers from `first` on over a
    /// connected socket, and says how many the kernel took; at the next it answered with an error
    /// that is returned only if it took none.
    pub(super) fn send(
        &mut self,
        socket: &impl AsFd,
        first: u64,
        count: usize,
    ) -> io::Result<usize> {
        let count = count.min(SEND_BATCH_LEN);
        for (number, payload) in (first..).zip(&mut self.payloads[..count]) {
            payload[self.number_at..self.number_at + 8].copy_from_slice(&number.to_be_bytes());
        }
        let mut parts = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; SEND_BATCH_LEN];
        for (part, payload) in parts.iter_mut().zip(&mut self.payloads[..count]) {
            part.iov_base = payload.as_mut_ptr().cast();
            part.iov_len = payload.len();
        }
        let mut messages = parts.each_mut().map(message);
        let sent = sys::retry(|| {
            // SAFETY: `messages` is a live array of at least `count` entries; each of these points
            // to one `iovec` of `parts`, and that to a live payload of its length. All outlive the
            // call; the kernel only reads the payloads and writes `msg_len`.
            sys::check(unsafe {
                libc::sendmmsg(
                    socket.as_fd().as_raw_fd(),
                    messages.as_mut_ptr(),
                    count as libc::c_uint,
                    0,
                )
            })
        })?;
        Ok(sent as usize)
    }
}

/// A message of one part, without an address.
fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is plain integers and pointers, valid when zero.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// Room for one batch of received datagrams.
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
        let mut messages = parts.each_mut().map(message);
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
