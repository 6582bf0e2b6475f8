//! Stands in for the device where there is none yet: it cannot be built.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::{Offloads, TunError};

/// A TUN device; cannot exist on this platform yet.
pub struct Tun(Infallible);

impl Tun {
    /// Always [`TunError::Unsupported`] here.
    pub fn create(_name: Option<&str>, _mtu: u32) -> Result<Self, TunError> {
        Err(TunError::Unsupported)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    /// The device's index.
    pub fn index(&self) -> u32 {
        match self.0 {}
    }

    /// What the kernel granted.
    pub fn offloads(&self) -> Offloads {
        match self.0 {}
    }

    /// Reads header and packet.
    pub fn read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    /// Writes header and packet.
    pub fn write_vectored(&self, _slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self.0 {}
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}
