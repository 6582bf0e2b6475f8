//! The connection to the kernel: a request, its answer, and what a refusal means.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::message::{self, Message, Request, attributes, messages, u32_at};
use super::{NetlinkError, Refusal};
use crate::sys;

pub(super) type Result<T> = std::result::Result<T, NetlinkError>;

/// The kernel answers before our send returns; a lost answer must still not hang the program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The kernel builds dumps in parts of at most 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
/// The message text in an extended error (`NLMSGERR_ATTR_MSG` of linux/netlink.h).
const ERROR_TEXT: u16 = 1;
/// The answer repeats only the header of the request (`NLM_F_CAPPED` of linux/netlink.h).
const FLAG_CAPPED: u16 = 0x100;
/// The dump raced with a change (`NLM_F_DUMP_INTR` of linux/netlink.h).
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;

/// The socket and the number of the last request on it.
pub(super) struct Connection {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    /// To one of the kernel's netlink families: `NETLINK_ROUTE`, `NETLINK_NETFILTER`.
    pub(super) fn open(family: libc::c_int) -> Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, family)?;
        sys::bind(&socket, &kernel())?;
        sys::set_receive_timeout(&socket, ANSWER_TIMEOUT)?;
        // Explanations in words came with Linux 4.12; without them the number has to do.
        let _ = sys::set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn execute(&mut self, operation: String, request: Request) -> Result<()> {
        self.send(request)?;
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                if message.sequence != self.sequence || message.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                return match parse_acknowledgement(&message) {
                    Some((0, _)) => Ok(()),
                    Some((number, detail)) => Err(refused(
                        operation,
                        io::Error::from_raw_os_error(number),
                        detail,
                    )),
                    None => Err(NetlinkError::Malformed { operation }),
                };
            }
        }
    }

    /// Sends requests of which the kernel takes all or none, between the two marks of a batch, and
    /// waits for all acknowledgements. Each request must ask for one; a refusal of the whole is
    /// answered to the first mark.
    pub(super) fn execute_batch(
        &mut self,
        begin: Request,
        steps: Vec<(String, Request)>,
        end: Request,
    ) -> Result<()> {
        let mut batch = begin.finish(self.next_sequence());
        let first = self.sequence;
        let mut unanswered = BTreeMap::new();
        for (operation, request) in steps {
            let sequence = self.next_sequence();
            unanswered.insert(sequence, operation);
            batch.extend(request.finish(sequence));
        }
        batch.extend(end.finish(self.next_sequence()));
        sys::send_to(&self.socket, &batch, &kernel())?;
        while !unanswered.is_empty() {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                let operation = if message.sequence == first {
                    "apply the batch".to_owned()
                } else if let Some(operation) = unanswered.remove(&message.sequence) {
                    operation
                } else {
                    continue;
                };
                let Some((number, detail)) = parse_acknowledgement(&message) else {
                    return Err(NetlinkError::Malformed { operation });
                };
                if number != 0 {
                    let source = io::Error::from_raw_os_error(number);
                    return Err(refused(operation, source, detail));
                }
            }
        }
        Ok(())
    }

    /// Asks for one thing.
    pub(super) fn ask<T>(
        &mut self,
        operation: String,
        request: Request,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        self.send(request)?;
        loop {
            let received = self.receive()?;
            let ours = |message: &Message<'_>| message.sequence == self.sequence;
            let Some(message) = messages(&self.buffer[..received]).find(ours) else {
                continue;
            };
            if message.kind != libc::NLMSG_ERROR as u16 {
                return Ok(parse(message.body));
            }
            return match parse_acknowledgement(&message) {
                Some((number, detail)) => {
                    let source = io::Error::from_raw_os_error(number);
                    Err(refused(operation, source, detail))
                }
                None => Err(NetlinkError::Malformed { operation }),
            };
        }
    }

    /// Asks for a list; `None` when it raced with a change and is not consistent.
    pub(super) fn dump<T>(
        &mut self,
        operation: &str,
        kind: u16,
        header: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.send(Request::new(kind, DUMP, header))?;
        let (mut found, mut consistent) = (Vec::new(), true);
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= message.flags & FLAG_DUMP_INTERRUPTED == 0;
                match libc::c_int::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(consistent.then_some(found)),
                    libc::NLMSG_ERROR => {
                        let (number, detail) =
                            parse_acknowledgement(&message).ok_or_else(|| {
                                NetlinkError::Malformed {
                                    operation: operation.into(),
                                }
                            })?;
                        let source = io::Error::from_raw_os_error(number);
                        return Err(refused(operation.to_owned(), source, detail));
                    }
                    _ => found.extend(parse(message.body)),
                }
            }
        }
    }

    fn send(&mut self, request: Request) -> Result<()> {
        let sequence = self.next_sequence();
        sys::send_to(&self.socket, &request.finish(sequence), &kernel())?;
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Receives the next datagram of the kernel; nobody else may answer.
    fn receive(&mut self) -> Result<usize> {
        loop {
            let (received, from): (usize, libc::sockaddr_nl) =
                sys::receive_from(&self.socket, &mut self.buffer, 0)?;
            if from.nl_pid == 0 {
                return Ok(received);
            }
        }
    }
}

/// Process 0 is the kernel; as our own address it means "choose one for me".
fn kernel() -> libc::sockaddr_nl {
    sys::zeroed_address(libc::AF_NETLINK)
}

/// Error number (0: done) and explanation.
fn parse_acknowledgement(message: &Message<'_>) -> Option<(i32, String)> {
    let number = (u32_at(message.body, 0)? as i32).wrapping_neg();
    // The request follows, whole or only its header, then the attributes.
    let request_len = if message.flags & FLAG_CAPPED != 0 {
        16
    } else {
        u32_at(message.body, 4)?
    };
    let rest = message
        .body
        .get(4 + (request_len as usize).next_multiple_of(4)..);
    let detail = attributes(rest.unwrap_or_default()).find(|(kind, _)| *kind == ERROR_TEXT);
    Some((
        number,
        detail
            .map(|(_, bytes)| message::text(bytes))
            .unwrap_or_default(),
    ))
}

/// The kernel's no, sorted for callers that go on.
pub(super) fn refused(operation: String, source: io::Error, detail: String) -> NetlinkError {
    let refusal = match source.raw_os_error().unwrap_or(0) {
        libc::EEXIST => Refusal::Exists,
        libc::ENODEV | libc::ENXIO => Refusal::NoSuchDevice,
        libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENOENT => Refusal::NotThere,
        libc::EPERM | libc::EACCES => Refusal::Permission,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => Refusal::Unreachable,
        libc::EBUSY | libc::EADDRINUSE => Refusal::Busy,
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => Refusal::NotSupported,
        libc::EINVAL | libc::ERANGE => Refusal::Invalid,
        _ => Refusal::Other,
    };
    NetlinkError::Refused {
        operation,
        refusal,
        detail,
        source,
    }
}
