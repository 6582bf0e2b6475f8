//! The device where there is no `/dev/net/tun`: [`Plain`] under the same names.
//!
//! Written against the documentation of `tun-rs` and never compiled: no other platform's toolchain was
//! at hand. Windows is not among those it is meant for: waiting there is not for descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::plain::Plain;
use super::{Offloads, TunError, TunOptions, check_mtu};

/// A TUN device of ours, up, nonblocking.
pub struct Tun {
    queue: TunQueue,
    name: String,
    index: u32,
}

/// The reading end of the device; there is one.
pub struct TunQueue(Plain);

impl Tun {
    /// No device: nothing comes from it, and what is written is gone. Needs no rights.
    pub fn nothing() -> Result<Self, TunError> {
        let queue = Plain::nothing().map_err(|source| TunError::Io {
            action: "open a socket",
            source,
        })?;
        Ok(Self {
            name: super::NOTHING.into(),
            index: 0,
            queue: TunQueue(queue),
        })
    }

    /// Makes the device. It has one queue and no offloads, whatever was asked for.
    pub fn open(options: &TunOptions<'_>) -> Result<Self, TunError> {
        check_mtu(options.mtu)?;
        let explain = |source| TunError::Io {
            action: "make the TUN device",
            source,
        };
        let device = Plain::create(options.name, options.mtu).map_err(explain)?;
        Ok(Self {
            name: device.name().map_err(explain)?,
            index: device.index().map_err(explain)?,
            queue: TunQueue(device),
        })
    }

    /// The device's name, as the system gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's index.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// None.
    pub fn offloads(&self) -> Offloads {
        Offloads::NONE
    }

    /// The one queue.
    pub fn queues(&self) -> &[TunQueue] {
        std::slice::from_ref(&self.queue)
    }

    /// Writes one packet behind an empty virtio-net header. HOT PATH.
    pub fn write_vectored(&self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.queue.0.write_vectored(slices)
    }
}

impl TunQueue {
    /// Reads an empty virtio-net header and one packet. HOT PATH.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
