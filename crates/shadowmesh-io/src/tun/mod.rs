//! The TUN device: where the operating system hands us IP packets and takes them back.
//!
//! Every read and write begins with a 10-byte virtio-net header (`shadowmesh-wire` parses it),
//! little endian on every machine. With it the kernel passes super-packets of up to 64 KB whose
//! segmentation and checksum are still to be done, and takes such super-packets from us. That
//! header was the difference between 1.6 and 9 Gbit/s in the prototype, so the device never runs
//! without it.
//!
//! The device is not persistent: when the [`Tun`] (the process) is gone, so are the device, its
//! addresses and its routes, even after `kill -9`. Addresses and routes are set through
//! [`crate::netlink`].
//!
//! Linux only so far. Elsewhere [`Tun::create`] answers [`TunError::Unsupported`]; a portable
//! device on top of `tun-rs`, without offload, is left to a later version.

use std::io;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::Tun;

#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub use unsupported::Tun;

/// Longest device name: the kernel's `IFNAMSIZ` of 16 less the terminating zero.
pub const NAME_LEN_MAX: usize = 15;

/// Smallest buffer for [`Tun::read`]: the header and the largest IP packet.
pub const READ_LEN_MAX: usize = 10 + 65_535;

/// Which offloads the kernel granted, as super-packets it may hand us and we may hand it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6, and checksums left to the reader.
    pub tcp: bool,
    /// UDP over IPv4 and IPv6 (Linux 6.2 and later).
    pub udp: bool,
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
    /// Every `shadowN` is taken.
    #[error("no free device name left: give one (device.name in the configuration)")]
    NoFreeName,
    /// The MTU is not possible.
    #[error("MTU {mtu} is not possible for a TUN device: 68 to 65535, and at least 1280 for IPv6")]
    Mtu {
        /// The MTU asked for.
        mtu: u32,
    },
    /// No TUN device on this platform yet.
    #[error("TUN devices are supported on Linux only so far")]
    Unsupported,
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
