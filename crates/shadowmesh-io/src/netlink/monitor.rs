//! What the kernel says of its own accord: links, addresses and routes that come, go or change.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::NetlinkError;
use super::connection::Result;
use super::message::messages;
use super::record::parse_route;
use super::{Change, Route};
use crate::sys;

/// The kernel writes one message at a time here; one with many attributes has some kilobytes.
const BUFFER_BYTES: usize = 32 * 1024;

/// `RTNLGRP_IPV6_RULE` as a bit.
const RTMGRP_IPV6_RULE: libc::c_int = 1 << 18;
/// Groups of messages that are listened to (linux/rtnetlink.h).
const GROUPS: libc::c_int = libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_ROUTE
    | libc::RTMGRP_IPV4_RULE
    | RTMGRP_IPV6_RULE;

/// Changes of links, addresses and routes in one namespace. Readable when there is one; limit: the
/// kernel's buffer, beyond which it says that something was lost.
pub struct Monitor {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Listens in the calling thread's network namespace.
    pub fn new() -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK;
        let socket = sys::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE)?;
        let mut address: libc::sockaddr_nl = sys::zeroed_address(libc::AF_NETLINK);
        address.nl_groups = GROUPS as u32;
        sys::bind(&socket, &address)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// What has changed since the last call; empty when nothing has. Never blocks.
    pub fn take(&mut self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        loop {
            match sys::receive_from::<libc::sockaddr_nl>(&self.socket, &mut self.buffer, 0) {
                // Others may write here too; only the kernel is believed.
                Ok((_, from)) if from.nl_pid != 0 => {}
                Ok((received, _)) => {
                    let messages = messages(&self.buffer[..received]);
                    changes
                        .extend(messages.filter_map(|message| change(message.kind, message.body)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(changes),
                // ENOBUFS: more was said than the buffer held. What, is to be asked for.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    changes.push(Change::Lost);
                }
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn change(kind: u16, body: &[u8]) -> Option<Change> {
    let route = |make: fn(Route) -> Change| parse_route(body).map(make);
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Some(Change::Link),
        libc::RTM_NEWRULE | libc::RTM_DELRULE => Some(Change::Rule),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => Some(Change::Address),
        libc::RTM_NEWROUTE => route(Change::RouteAdded),
        libc::RTM_DELROUTE => route(Change::RouteRemoved),
        _ => None,
    }
}
