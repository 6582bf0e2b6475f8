//! Safe wrappers around the few system calls that `std` and `socket2` do not offer.
//!
//! They take borrowed descriptors and typed values, so their callers need no `unsafe`. Everything
//! here answers with the plain `errno`; the callers add what it means.

#![cfg_attr(
    not(target_os = "linux"),
    allow(dead_code, reason = "most callers are on Linux")
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Turns the `-1 and errno` convention into a `Result`.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Repeats `call` while a signal interrupts it.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A plain value that the kernel may fill or read byte by byte.
///
/// # Safety
/// Implementers are `repr(C)` (or integers), valid for every bit pattern, and contain no pointers.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers are valid for every bit pattern.
unsafe impl Plain for libc::c_int {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u32; N] {}

/// `setsockopt` with a plain value.
pub(crate) fn set_option<T: Plain>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which outlives the call; the kernel only
    // reads it. The descriptor is open because it is borrowed.
    check(unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    })
    .map(drop)
}

/// `getsockopt` with a plain value; `start` is what remains where the kernel writes less.
pub(crate) fn get_option<T: Plain>(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    start: T,
) -> io::Result<T> {
    let mut value = start;
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `value`, which outlives the call; `T: Plain` is
    // valid whatever bytes the kernel writes. The descriptor is open because it is borrowed.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

#[cfg(target_os = "linux")]
pub(crate) use linux::*;

/// Elsewhere nobody tells.
#[cfg(not(target_os = "linux"))]
pub(crate) fn clock_watch() -> io::Result<std::os::fd::OwnedFd> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn rearm_clock_watch(_timer: &std::os::fd::OwnedFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn time_asleep() -> io::Result<std::time::Duration> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::time::Duration;

    /// `socket(2)`, close-on-exec always.
    pub(crate) fn socket(
        domain: libc::c_int,
        kind: libc::c_int,
        protocol: libc::c_int,
    ) -> io::Result<OwnedFd> {
        // SAFETY: no pointers are involved; a non-negative result is a fresh descriptor that
        // nobody else owns.
        unsafe {
            let fd = check(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?;
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }

    /// A socket address structure of some family.
    ///
    /// # Safety
    /// Implementers are `repr(C)` socket addresses that start with their `sa_family_t`.
    pub(crate) unsafe trait SocketAddress: Copy {}
    // SAFETY: all of these are socket addresses of the C library.
    unsafe impl SocketAddress for libc::sockaddr_ll {}
    // SAFETY: as above.
    unsafe impl SocketAddress for libc::sockaddr_nl {}
    // SAFETY: as above.
    unsafe impl SocketAddress for libc::sockaddr_in {}

    /// An address of `family` with every other field zero.
    pub(crate) fn zeroed_address<A: SocketAddress>(family: libc::c_int) -> A {
        // SAFETY: socket addresses are plain integers and arrays, valid when zero, and begin with
        // the family (`SocketAddress`), so writing it stays inside the value.
        unsafe {
            let mut address: A = std::mem::zeroed();
            (&raw mut address)
                .cast::<libc::sa_family_t>()
                .write(family as libc::sa_family_t);
            address
        }
    }

    /// `bind(2)`.
    pub(crate) fn bind<A: SocketAddress>(socket: &impl AsFd, address: &A) -> io::Result<()> {
        // SAFETY: pointer and length describe `address`; the kernel only reads it.
        check(unsafe {
            libc::bind(
                socket.as_fd().as_raw_fd(),
                (&raw const *address).cast(),
                size_of::<A>() as libc::socklen_t,
            )
        })
        .map(drop)
    }

    /// `sendto(2)`.
    pub(crate) fn send_to<A: SocketAddress>(
        socket: &impl AsFd,
        bytes: &[u8],
        address: &A,
    ) -> io::Result<usize> {
        retry(|| {
            // SAFETY: both pointers come with the lengths of the live values they point to; the
            // kernel only reads them.
            let sent = unsafe {
                libc::sendto(
                    socket.as_fd().as_raw_fd(),
                    bytes.as_ptr().cast(),
                    bytes.len(),
                    0,
                    (&raw const *address).cast(),
                    size_of::<A>() as libc::socklen_t,
                )
            };
            usize::try_from(sent).map_err(|_| io::Error::last_os_error())
        })
    }

    /// `recvfrom(2)`; the sender's address is left zero where the kernel gives none.
    pub(crate) fn receive_from<A: SocketAddress>(
        socket: &impl AsFd,
        buffer: &mut [u8],
        flags: libc::c_int,
    ) -> io::Result<(usize, A)> {
        retry(|| {
            let mut address: A = zeroed_address(0);
            let mut length = size_of::<A>() as libc::socklen_t;
            // SAFETY: both pointers come with the lengths of live, exclusively borrowed values;
            // `A` is plain, so whatever the kernel writes is valid.
            let received = unsafe {
                libc::recvfrom(
                    socket.as_fd().as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    flags,
                    (&raw mut address).cast(),
                    &raw mut length,
                )
            };
            let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
            Ok((received, address))
        })
    }

    /// `SO_RCVTIMEO`: how long a blocking receive waits before it answers `WouldBlock`.
    pub(crate) fn set_receive_timeout(socket: &impl AsFd, timeout: Duration) -> io::Result<()> {
        let value = libc::timeval {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_usec: timeout.subsec_micros() as libc::suseconds_t,
        };
        set_option(socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, value)
    }

    /// A timer that never comes, and that the kernel ends when the clock jumps or the machine wakes.
    pub(crate) fn clock_watch() -> io::Result<OwnedFd> {
        // SAFETY: no pointers; a non-negative result is a fresh descriptor that nobody else owns.
        let timer = unsafe {
            let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
            OwnedFd::from_raw_fd(check(libc::timerfd_create(libc::CLOCK_REALTIME, flags))?)
        };
        rearm_clock_watch(&timer)?;
        Ok(timer)
    }

    /// Sets the timer of [`clock_watch`] anew; it is not readable then.
    pub(crate) fn rearm_clock_watch(timer: &OwnedFd) -> io::Result<()> {
        let far = libc::timespec {
            tv_sec: libc::time_t::MAX / 4,
            tv_nsec: 0,
        };
        let never = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: far,
        };
        let mut expirations = 0u64;
        // SAFETY: both pointers describe live values for the length of the calls; the descriptor is
        // open because it is borrowed. The read takes note of an ended timer, and its result (nothing
        // there, or ECANCELED) says nothing new.
        unsafe {
            libc::read(timer.as_raw_fd(), (&raw mut expirations).cast(), 8);
            let flags = libc::TFD_TIMER_ABSTIME | libc::TFD_TIMER_CANCEL_ON_SET;
            check(libc::timerfd_settime(
                timer.as_raw_fd(),
                flags,
                &raw const never,
                std::ptr::null_mut(),
            ))
            .map(drop)
        }
    }

    /// How long this machine has slept since it was started.
    pub(crate) fn time_asleep() -> io::Result<Duration> {
        let read = |clock| {
            let mut now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: the pointer describes a live, exclusively borrowed value.
            check(unsafe { libc::clock_gettime(clock, &raw mut now) })?;
            Ok::<_, io::Error>(Duration::new(now.tv_sec as u64, now.tv_nsec as u32))
        };
        let awake = read(libc::CLOCK_MONOTONIC)?;
        Ok(read(libc::CLOCK_BOOTTIME)?.saturating_sub(awake))
    }

    // SAFETY: two integers, valid for every bit pattern.
    unsafe impl Plain for libc::tpacket_stats {}
    // SAFETY: three integers, valid for every bit pattern.
    unsafe impl Plain for libc::ip_mreqn {}
    // SAFETY: as above.
    unsafe impl Plain for libc::timeval {}
}
