//! How soon the calling thread gets a core, and how exactly it wakes from a sleep.
//!
//! Under load every core has work, and a thread that wakes waits for its turn: up to 4 ms with the
//! kernel's defaults, which is long against what a packet may wait. What to ask for is the caller's
//! decision; a refusal is an answer and no failure.

use std::io;
use std::time::Duration;

/// The calling thread's niceness, from -20 (the largest share of a core, and the soonest) to 19. Below
/// the present value only with `CAP_SYS_NICE` or within `RLIMIT_NICE`.
#[cfg(target_os = "linux")]
pub fn set_nice(nice: i32) -> io::Result<()> {
    const CALLING_THREAD: libc::id_t = 0;
    // SAFETY: no pointers. On Linux, unlike POSIX, this changes one thread and not the process.
    crate::sys::check(unsafe { libc::setpriority(libc::PRIO_PROCESS, CALLING_THREAD, nice) })
        .map(drop)
}

/// Elsewhere it would change the whole process.
#[cfg(not(target_os = "linux"))]
pub fn set_nice(_nice: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How late a sleep of the calling thread may end; the kernel's default is 50 us.
#[cfg(target_os = "linux")]
pub fn set_timer_slack(slack: Duration) -> io::Result<()> {
    // 0 would mean the default.
    let slack_ns = slack.as_nanos().max(1) as libc::c_ulong;
    // SAFETY: PR_SET_TIMERSLACK takes its one argument by value.
    crate::sys::check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, slack_ns) }).map(drop)
}

/// Elsewhere there is no such thing.
#[cfg(not(target_os = "linux"))]
pub fn set_timer_slack(_slack: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn nice_of(stat: &str) -> i32 {
        let text = std::fs::read_to_string(stat).unwrap();
        // The name, in parentheses, may hold spaces; niceness is field 19, the 17th behind it.
        let (_, rest) = text.rsplit_once(") ").unwrap();
        rest.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn niceness_is_that_of_one_thread_and_not_of_the_process() {
        let before = nice_of("/proc/thread-self/stat");
        let other = std::thread::spawn(|| {
            set_nice(19).unwrap();
            nice_of("/proc/thread-self/stat")
        });
        assert_eq!(other.join().unwrap(), 19);
        assert_eq!(nice_of("/proc/thread-self/stat"), before);
    }

    #[test]
    fn a_timer_slack_is_taken() {
        let other = std::thread::spawn(|| {
            set_timer_slack(Duration::from_micros(1)).unwrap();
            // SAFETY: no pointers.
            unsafe { libc::prctl(libc::PR_GET_TIMERSLACK) }
        });
        assert_eq!(other.join().unwrap(), 1000);
    }
}
