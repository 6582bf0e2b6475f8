//! The TUN device: where the operating system hands us IP packets and takes them back.
//!
//! Every read and write begins with a 10-byte virtio-net header (`shadowmesh-wire` parses it),
//! little endian on every machine. With it the kernel passes super-packets of up to 64 KB whose
//! segmentation and checksum are still to be done, and takes such super-packets from us. That
//! header was the difference between 1.6 and 9 Gbit/s in the prototype.
//!
//! A device may have several queues, each read by one thread. Which packet goes to which queue is the
//! kernel's choice, by a hash of addresses, protocol and ports that is the same for both directions of
//! a flow (`tun_automq_select_queue`): so a flow stays on one queue. But every packet written through a
//! queue moves its flow there (`tun_flow_update`), and receivers, who share out batches and not flows,
//! would move flows from queue to queue with every batch and reorder what goes out. Therefore all
//! writes go through one more queue that is detached: the kernel takes packets from it, learns nothing
//! by them, and sends none to it.
//!
//! The device is not persistent: when the [`Tun`] (the process) is gone, so are the device, its
//! addresses and its routes, even after `kill -9`. Addresses and routes are set through
//! [`crate::netlink`].
//!
//! Without offloads, and wherever there is no `/dev/net/tun`, the device is the one of `tun-rs`: the
//! same to its users, one packet at a time, several times slower.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

mod plain;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{Tun, TunQueue};

#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(not(target_os = "linux"))]
pub use portable::{Tun, TunQueue};

/// Longest device name: the kernel's `IFNAMSIZ` of 16 less the terminating zero.
pub const NAME_LEN_MAX: usize = 15;

/// Smallest buffer for [`TunQueue::read`]: the header and the largest IP packet.
pub const READ_LEN_MAX: usize = 10 + 65_535;

/// Most queues a device of ours has; the kernel would give 256.
pub const QUEUES_MAX: usize = 16;

/// What a device of nothing is called; no real one has a name with a space.
const NOTHING: &str = "no device";

/// What device is wanted.
#[derive(Debug, Clone, Copy)]
pub struct TunOptions<'a> {
    /// Its name; `None` takes the first free `shadowN`.
    pub name: Option<&'a str>,
    /// Largest IP packet.
    pub mtu: u32,
    /// Queues to read, 1 to [`QUEUES_MAX`]. With one the kernel's multi-queue flag is not set:
    /// then a lasting device that others made without it can be taken over.
    pub queues: usize,
    /// Whether super-packets are wanted; without, it is the portable device, which has one queue.
    pub offload: bool,
}

impl Tun {
    /// Makes a device with one queue and offloads.
    pub fn create(name: Option<&str>, mtu: u32) -> Result<Self, TunError> {
        Self::open(&TunOptions {
            name,
            mtu,
            queues: 1,
            offload: true,
        })
    }

    /// Reads from the first queue.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.queues()[0].read(buffer)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queues()[0].as_fd()
    }
}

/// Which offloads the kernel granted, as super-packets it may hand us and we may hand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6, and checksums left to the reader.
    pub tcp: bool,
    /// UDP over IPv4 and IPv6 (Linux 6.2 and later).
    pub udp: bool,
}

impl Offloads {
    /// One packet at a time.
    pub const NONE: Self = Self {
        tcp: false,
        udp: false,
    };
}

fn check_mtu(mtu: u32) -> Result<(), TunError> {
    if (68..=65_535).contains(&mtu) {
        Ok(())
    } else {
        Err(TunError::Mtu { mtu })
    }
}

/// Why there is no device. The text says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunError {
    /// The name cannot be a device name.
    #[error("device name {0:?} is not usable: 1 to 15 bytes, no '/', no spaces, not '.' or '..'")]
    Name(String),
    /// No TUN driver here.
    #[error(
        "/dev/net/tun does not exist: load the driver (modprobe tun), or in a container pass the \
         device in (--device /dev/net/tun)"
    )]
    NoDriver,
    /// Something else lies in the place of the driver.
    #[error(
        "/dev/net/tun is a plain file and no device: remove it and make the device (rm /dev/net/tun && mknod \
         /dev/net/tun c 10 200), or in a container pass the device in (--device /dev/net/tun)"
    )]
    NoDevice,
    /// The process may not make devices.
    #[error(
        "no permission to {action}: run as root, or give the program the capability \
         (setcap cap_net_admin+ep), or in a container add NET_ADMIN; without root /dev/net/tun \
         must also be open to you (chmod 666 /dev/net/tun)"
    )]
    Permission {
        /// What was refused.
        action: &'static str,
    },
    /// Another program holds the device of that name.
    #[error(
        "device {name} is in use by another program: stop that program, or choose another name \
         (device.name in the configuration, or leave it out for the first free one)"
    )]
    Busy {
        /// The name asked for.
        name: String,
    },
    /// The name belongs to a device of another kind, or one made with other flags.
    #[error(
        "the name {name} belongs to another kind of device: choose another name (device.name), \
         or remove that one (ip link delete {name})"
    )]
    OtherKind {
        /// The name asked for.
        name: String,
    },
    /// A device of that name exists, and one with several queues is never shared.
    #[error(
        "a device {name} exists already: stop the program that has it or remove it (ip link delete \
         {name}), choose another name (device.name), or set device.queues = 1"
    )]
    Exists {
        /// The name asked for.
        name: String,
    },
    /// Every `shadowN` is taken.
    #[error("no free device name left: give one (device.name in the configuration)")]
    NoFreeName,
    /// The MTU is not possible.
    #[error("MTU {mtu} is not possible for a TUN device: 68 to 65535, and at least 1280 for IPv6")]
    Mtu {
        /// The MTU asked for.
        mtu: u32,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
