//! The portable device, on top of `tun-rs`: one IP packet for each read and write, one queue.
//!
//! The engine sees the same device either way: a read begins with a virtio-net header that says
//! "nothing is left to do", and the header of a write, which can say nothing else, is left out. On
//! Linux this is what `device.offload = "off"` chooses, so that it runs in tests; elsewhere it is the
//! only device. `tun-rs` makes and finds the device; waiting and, on Linux, MTU and state are ours.
//!
//! A node that only relays has none: a device of nothing, from which no packet ever comes and in which
//! every packet vanishes. So there is one engine, and none of its parts asks whether there is a device.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::sys;

/// What stands before every packet of the other device.
const HEADER_LEN: usize = 10;

/// One device, nonblocking.
pub(super) enum Plain {
    /// Of `tun-rs`.
    Device(SyncDevice),
    /// None. The socket has no address and no other end, so that it never becomes readable.
    Nothing(UnixDatagram),
}

impl Plain {
    /// Makes the device `name`, or one with a name of the system's choice. On Linux it has neither
    /// MTU nor state yet.
    pub(super) fn create(name: Option<&str>, mtu: u32) -> io::Result<Self> {
        let builder = DeviceBuilder::new();
        let builder = match name {
            Some(name) => builder.name(name),
            None => builder,
        };
        #[cfg(target_os = "linux")]
        let builder = {
            // Set over netlink, in the order that keeps link-local addresses away.
            let _ = mtu;
            builder.enable(false)
        };
        #[cfg(not(target_os = "linux"))]
        let builder = builder
            .mtu(u16::try_from(mtu).unwrap_or(u16::MAX))
            .enable(true);
        let device = builder.build_sync()?;
        device.set_nonblocking(true)?;
        Ok(Self::Device(device))
    }

    /// No device.
    pub(super) fn nothing() -> io::Result<Self> {
        UnixDatagram::unbound().map(Self::Nothing)
    }

    /// The device's name, as the system gave it.
    pub(super) fn name(&self) -> io::Result<String> {
        match self {
            Self::Device(device) => device.name(),
            Self::Nothing(_) => Ok(super::NOTHING.to_owned()),
        }
    }

    /// The device's index.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn index(&self) -> io::Result<u32> {
        match self {
            Self::Device(device) => device.if_index(),
            Self::Nothing(_) => Ok(0),
        }
    }

    /// Reads an empty header and one packet.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self::Device(device) = self else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let (header, packet) = buffer
            .split_at_mut_checked(HEADER_LEN)
            .ok_or(io::ErrorKind::InvalidInput)?;
        header.fill(0);
        Ok(HEADER_LEN + sys::retry(|| device.recv(packet))?)
    }

    /// Writes one packet, whose header must be empty.
    pub(super) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self::Device(device) = self else {
            return Ok(slices.iter().map(|slice| slice.len()).sum());
        };
        let written = match slices {
            [header, packet] if **header == [0; HEADER_LEN] => sys::retry(|| device.send(packet))?,
            [header, pieces @ ..] if **header == [0; HEADER_LEN] => {
                let packet: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .collect();
                sys::retry(|| device.send(&packet))?
            }
            // Something is left to do, and nobody here who would.
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(HEADER_LEN + written)
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Device(device) => device.as_fd(),
            Self::Nothing(socket) => socket.as_fd(),
        }
    }
}
