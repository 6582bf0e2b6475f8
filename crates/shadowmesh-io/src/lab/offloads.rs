//! Turning a device's offloads off (`ethtool(8)`, by its ioctl), to see what a cable is worth when
//! every packet travels alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::sys;

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

// linux/ethtool.h
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_SGRO: u32 = 0x2c;

/// Segmentation (TSO, GSO) and merging on receive (GRO) of the device `name` in the namespace of the
/// calling thread: off, each packet alone.
pub fn disable_offloads(name: &str) -> io::Result<()> {
    let socket = sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    for command in [ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO] {
        let mut value = EthtoolValue { command, data: 0 };
        // SAFETY: plain integers, a union of plain values and a pointer: valid when zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if name.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: `request` is live and names a live `EthtoolValue`, which is what these commands
        // read; the name ends with a zero because it is shorter than its field.
        sys::check(unsafe {
            libc::ioctl(
                socket.as_fd().as_raw_fd(),
                libc::SIOCETHTOOL as _,
                &raw mut request,
            )
        })?;
    }
    Ok(())
}
