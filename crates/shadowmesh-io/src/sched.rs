//! How soon the calling thread gets a core, which, and how exactly it wakes from a sleep.
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

/// The cores a thread may run on.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy)]
pub struct Cores(libc::cpu_set_t);

#[cfg(target_os = "linux")]
impl Cores {
    /// Those of the calling thread.
    pub fn of_thread() -> io::Result<Self> {
        // SAFETY: a `cpu_set_t` is an array of integers.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: 0 is the calling thread; the kernel writes at most the given size into `set`, which is
        // exclusively ours.
        crate::sys::check(unsafe {
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set)
        })?;
        Ok(Self(set))
    }

    /// One of them alone; the first is 0.
    pub fn nth(&self, number: usize) -> Option<Self> {
        let core = self.iter().nth(number)?;
        // SAFETY: a `cpu_set_t` is an array of integers.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `core` is below CPU_SETSIZE, the number of bits of a set.
        unsafe { libc::CPU_SET(core, &mut set) };
        Some(Self(set))
    }

    /// Restricts the calling thread to them.
    pub fn apply(&self) -> io::Result<()> {
        // SAFETY: 0 is the calling thread; the kernel reads the given size from a live set.
        crate::sys::check(unsafe {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0)
        })
        .map(drop)
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..libc::CPU_SETSIZE as usize).filter(|&core| {
            // SAFETY: `core` is below CPU_SETSIZE, the number of bits of a set.
            unsafe { libc::CPU_ISSET(core, &self.0) }
        })
    }
}

/// The cores a thread may run on; this platform does not say.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy)]
pub struct Cores(());

#[cfg(not(target_os = "linux"))]
impl Cores {
    /// Those of the calling thread.
    pub fn of_thread() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// One of them alone; the first is 0.
    pub fn nth(&self, _number: usize) -> Option<Self> {
        None
    }

    /// Their numbers.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        std::iter::empty()
    }

    /// Restricts the calling thread to them.
    pub fn apply(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
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
    fn a_thread_stays_on_the_first_core_until_it_is_given_all_again() {
        let other = std::thread::spawn(|| {
            let all = Cores::of_thread().unwrap();
            all.nth(0).unwrap().apply().unwrap();
            let one = Cores::of_thread().unwrap().iter().count();
            all.apply().unwrap();
            let after = Cores::of_thread().unwrap();
            (all.iter().count(), one, after.iter().count())
        });
        let (before, restricted, after) = other.join().unwrap();
        assert_eq!((restricted, after), (1, before));
    }

    #[test]
    fn each_core_can_be_had_alone_and_none_behind_the_last() {
        let all = Cores::of_thread().unwrap();
        let alone = |number| Some(all.nth(number)?.iter().collect::<Vec<_>>());
        for (number, core) in all.iter().enumerate() {
            assert_eq!(alone(number), Some(vec![core]));
        }
        assert_eq!(alone(all.iter().count()), None);
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
