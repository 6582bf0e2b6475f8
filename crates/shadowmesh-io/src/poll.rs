//! Waiting for several descriptors at once, and being woken from another thread.
//!
//! A data thread watches two or three descriptors (its socket, the device, its [`Waker`]), so
//! `poll(2)` is the right tool: nothing to register, nothing to forget to deregister. [`wait`]
//! works on a slice the caller keeps, and does not allocate.
//!
//! A [`Waker`] is an event counter: a wake-up that comes before the wait is not lost, and from the first
//! one on no wait that watches it sleeps again, until the sleeper clears it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys;

/// One descriptor, what to wait for, and what was found.
#[repr(transparent)]
pub struct Watch<'fd> {
    raw: libc::pollfd,
    descriptor: PhantomData<BorrowedFd<'fd>>,
}

impl<'fd> Watch<'fd> {
    /// Waits until `fd` has something to read (or failed).
    pub fn readable(fd: &'fd impl AsFd) -> Self {
        Self::new(fd, libc::POLLIN)
    }

    /// Waits until `fd` takes something to write (or failed).
    pub fn writable(fd: &'fd impl AsFd) -> Self {
        Self::new(fd, libc::POLLOUT)
    }

    fn new(fd: &'fd impl AsFd, events: libc::c_short) -> Self {
        let raw = libc::pollfd {
            fd: fd.as_fd().as_raw_fd(),
            events,
            revents: 0,
        };
        Self {
            raw,
            descriptor: PhantomData,
        }
    }

    /// Whether the last [`wait`] found what was waited for, or an error that the next read or
    /// write will report.
    pub fn is_ready(&self) -> bool {
        self.raw.revents != 0
    }

    /// The caller has taken what was found.
    pub fn forget(&mut self) {
        self.raw.revents = 0;
    }

    /// Whether [`wait`] looks at it at all; it does at first.
    pub fn set_active(&mut self, active: bool) {
        // A negative number is passed over. The complement, and not the negative, which 0 has not.
        if active != (self.raw.fd >= 0) {
            self.raw.fd = !self.raw.fd;
            self.raw.revents = 0;
        }
    }
}

/// Waits until one of `watches` is ready, at most `timeout` (`None`: for ever), and returns how
/// many are ready; 0 means the time is over. A signal does not end the wait early by more than
/// the caller's next turn: it counts as 0 ready.
pub fn wait(watches: &mut [Watch<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    match poll_raw(watches, timeout) {
        Ok(ready) => Ok(ready),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            watches.iter_mut().for_each(|watch| watch.raw.revents = 0);
            Ok(0)
        }
        Err(error) => Err(error),
    }
}

/// `ppoll` takes nanoseconds; `poll` would round a 300 us timer to 0 (spinning) or 1 ms (late).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn poll_raw(watches: &mut [Watch<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout
        .as_ref()
        .map_or(std::ptr::null(), |timeout| &raw const *timeout);
    // SAFETY: `Watch` is a transparent `pollfd`, so the slice is an array of them, exclusively
    // borrowed for the call; `timeout` is null or points to a live value; a null mask is allowed.
    // The descriptors are open because each `Watch` borrows its own.
    let ready = sys::check(unsafe {
        libc::ppoll(
            watches.as_mut_ptr().cast(),
            watches.len() as libc::nfds_t,
            timeout,
            std::ptr::null(),
        )
    })?;
    Ok(ready as usize)
}

/// Elsewhere milliseconds have to do, rounded up so that a timer never fires early and spins.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn poll_raw(watches: &mut [Watch<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map_or(-1, |timeout| {
        libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
    });
    // SAFETY: `Watch` is a transparent `pollfd`, so the slice is an array of them, exclusively
    // borrowed for the call. The descriptors are open because each `Watch` borrows its own.
    let ready = sys::check(unsafe {
        libc::poll(
            watches.as_mut_ptr().cast(),
            watches.len() as libc::nfds_t,
            timeout,
        )
    })?;
    Ok(ready as usize)
}

/// Ends another thread's [`wait`]. Share it by reference or `Arc`.
pub struct Waker {
    /// What the sleeper watches: an event counter on Linux, the read end of a pipe elsewhere.
    receive: OwnedFd,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    send: std::io::PipeWriter,
}

impl Waker {
    /// A waker that nobody has woken yet.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn new() -> io::Result<Self> {
        use std::os::fd::FromRawFd;
        // SAFETY: no pointers; a non-negative result is a fresh descriptor that nobody else owns.
        let receive = unsafe {
            let fd = sys::check(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK))?;
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { receive })
    }

    /// A waker that nobody has woken yet.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub fn new() -> io::Result<Self> {
        let (receive, send) = std::io::pipe()?;
        set_nonblocking(&receive)?;
        set_nonblocking(&send)?;
        Ok(Self {
            receive: receive.into(),
            send,
        })
    }

    /// Wakes whoever waits, now or at any later [`wait`]. Never blocks: when the counter (or pipe)
    /// is full, a wake-up is pending anyway.
    pub fn wake(&self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let fd = self.receive.as_raw_fd();
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let fd = self.send.as_raw_fd();
        let one = 1u64.to_ne_bytes();
        // SAFETY: pointer and length describe `one`; the descriptor is ours and open.
        let _ = unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) };
    }

    /// Forgets every wake-up so far: the sleeper has seen them.
    pub fn clear(&self) {
        let fd = self.receive.as_raw_fd();
        let mut count = [0; size_of::<u64>()];
        // An event counter is empty after one read, a pipe after as many as it takes.
        // SAFETY: pointer and length describe `count`, exclusively ours; the descriptor is ours and open.
        while unsafe { libc::read(fd, count.as_mut_ptr().cast(), count.len()) } > 0 {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receive.as_fd()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no pointers; the descriptor is open because it is borrowed.
    unsafe {
        let flags = sys::check(libc::fcntl(fd, libc::F_GETFL))?;
        sys::check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_wake_up_before_the_wait_is_not_lost_and_stays() {
        let waker = Waker::new().unwrap();
        let mut watches = [Watch::readable(&waker)];
        assert_eq!(wait(&mut watches, Some(Duration::ZERO)).unwrap(), 0);
        assert!(!watches[0].is_ready());
        waker.wake();
        waker.wake();
        for _ in 0..2 {
            assert_eq!(wait(&mut watches, Some(Duration::from_secs(5))).unwrap(), 1);
            assert!(watches[0].is_ready());
        }
    }

    #[test]
    fn a_cleared_waker_sleeps_until_the_next_wake_up() {
        let waker = Waker::new().unwrap();
        waker.clear();
        let mut watches = [Watch::readable(&waker)];
        for _ in 0..3 {
            waker.wake();
            waker.wake();
            assert_eq!(wait(&mut watches, Some(Duration::ZERO)).unwrap(), 1);
            waker.clear();
            assert_eq!(wait(&mut watches, Some(Duration::ZERO)).unwrap(), 0);
        }
    }

    #[test]
    fn what_is_not_active_is_passed_over() {
        let (one, other) = (Waker::new().unwrap(), Waker::new().unwrap());
        let mut watches = [Watch::readable(&one), Watch::readable(&other)];
        one.wake();
        for (active, ready) in [(true, 1), (false, 0), (false, 0), (true, 1), (true, 1)] {
            watches[0].set_active(active);
            assert_eq!(wait(&mut watches, Some(Duration::ZERO)).unwrap(), ready);
            assert_eq!(watches[0].is_ready(), active);
        }
        watches[0].set_active(false);
        assert!(!watches[0].is_ready(), "what was found is forgotten");
    }

    #[test]
    fn another_thread_ends_the_wait_of_the_descriptor_it_woke() {
        let (quiet, busy) = (Waker::new().unwrap(), Waker::new().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                busy.wake();
            });
            let mut watches = [Watch::readable(&quiet), Watch::readable(&busy)];
            assert_eq!(wait(&mut watches, None).unwrap(), 1);
            assert!(!watches[0].is_ready() && watches[1].is_ready());
        });
    }

    #[test]
    fn a_timeout_below_a_millisecond_neither_spins_nor_waits_a_millisecond_too_long() {
        let waker = Waker::new().unwrap();
        let start = Instant::now();
        let timeout = Duration::from_micros(300);
        assert_eq!(
            wait(&mut [Watch::readable(&waker)], Some(timeout)).unwrap(),
            0
        );
        assert!(start.elapsed() >= timeout);
    }

    #[test]
    fn a_hung_up_pipe_ends_the_wait() {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(writer);
        let mut watches = [Watch::readable(&reader)];
        assert_eq!(wait(&mut watches, Some(Duration::from_secs(5))).unwrap(), 1);
        assert!(watches[0].is_ready());
    }
}
