//! The portable device, on top of `tun-rs`: one IP packet for each read and write, one queue.
//!
//! The engine sees the same device either way: a read begins with a virtio-net header that says
//! "nothing is left to do", and the header of a write, which can say nothing else, is left out. On
//! Linux this is what `device.offload = "off"` chooses, so that it runs in tests; elsewhere it is the
//! only device. `tun-rs` makes and finds the device; waiting and, on Linux, MTU and state are ours.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::sys;

/// What stands before every packet of the other device.
const HEADER_LEN: usize = 10;

/// One device of `tun-rs`, nonblocking.
pub(super) struct Plain(SyncDevice);

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
        Ok(Self(device))
    }

    /// The device's name, as the system gave it.
    pub(super) fn name(&self) -> io::Result<String> {
        self.0.name()
    }

    /// The device's index.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn index(&self) -> io::Result<u32> {
        self.0.if_index()
    }

    /// Reads an empty header and one packet.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let (header, packet) = buffer
            .split_at_mut_checked(HEADER_LEN)
            .ok_or(io::ErrorKind::InvalidInput)?;
        header.fill(0);
        Ok(HEADER_LEN + sys::retry(|| self.0.recv(packet))?)
    }

    /// Writes one packet, whose header must be empty.
    pub(super) fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match slices {
            [header, packet] if **header == [0; HEADER_LEN] => sys::retry(|| self.0.send(packet))?,
            [header, pieces @ ..] if **header == [0; HEADER_LEN] => {
                let packet: Vec<u8> = pieces
                    .iter()
                    .flat_map(|piece| piece.iter().copied())
                    .collect();
                sys::retry(|| self.0.send(&packet))?
            }
            // Something is left to do, and nobody here who would.
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(HEADER_LEN + written)
    }
}

impl AsFd for Plain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
