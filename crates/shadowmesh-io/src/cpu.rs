//! What the work costs: CPU time of this thread, this process and the machine, and memory.
//!
//! Gbit per CPU-second holds to 10 % where Gbit/s moves by 40 % on a busy machine, so every
//! measurement takes these readings before and after. Readings are plain values, and `since` is the
//! difference of two. Times of this process come from `getrusage` and are exact to the scheduler's
//! bookkeeping; those of the machine come from `/proc` in ticks of 10 ms.

use std::io;
use std::time::Duration;

use crate::sys;

/// CPU time spent, split as the kernel splits it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In the program.
    pub user: Duration,
    /// In the kernel on the program's behalf.
    pub system: Duration,
}

impl CpuTime {
    /// Both together.
    pub fn total(&self) -> Duration {
        self.user + self.system
    }

    /// What was spent since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// CPU time of all CPUs together since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineCpu {
    /// Running anything: programs, kernel, interrupts (softirq is where veth and loopback work).
    pub busy: Duration,
    /// Idle, or waiting for a disk.
    pub idle: Duration,
    /// Taken by the hypervisor for other machines; neither busy nor idle.
    pub stolen: Duration,
}

impl MachineCpu {
    /// What passed since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(earlier.busy),
            idle: self.idle.saturating_sub(earlier.idle),
            stolen: self.stolen.saturating_sub(earlier.stolen),
        }
    }
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most it ever was.
    pub resident_max: u64,
}

/// CPU time of this process, all threads.
pub fn process() -> io::Result<CpuTime> {
    usage(libc::RUSAGE_SELF)
}

/// CPU time of the calling thread.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub fn thread() -> io::Result<CpuTime> {
    usage(libc::RUSAGE_THREAD)
}

/// CPU time of the calling thread; this platform does not say.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub fn thread() -> io::Result<CpuTime> {
    Err(unsupported("the CPU time of a thread"))
}

/// CPU time of the calling thread to the nanosecond, for work too short for [`thread`]: where the
/// kernel accounts by ticks, `getrusage` of a running thread lags behind by up to a tick.
#[cfg(unix)]
pub fn thread_exact() -> io::Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a live value, which the call fills.
    sys::check(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) })?;
    // Both fields count up from zero and nanoseconds stay below a milliard.
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// CPU time of the whole machine. Linux only.
pub fn machine() -> io::Result<MachineCpu> {
    let text = read_proc("/proc/stat")?;
    parse_machine_stat(&text, ticks_per_second()).ok_or_else(|| malformed("stat"))
}

/// Memory of this process. Linux only.
pub fn memory() -> io::Result<Memory> {
    parse_status(&read_proc("/proc/self/status")?).ok_or_else(|| malformed("status"))
}

/// Memory of another process. Linux only.
pub fn memory_of(pid: u32) -> io::Result<Memory> {
    parse_status(&read_proc(&format!("/proc/{pid}/status"))?).ok_or_else(|| malformed("status"))
}

fn usage(whose: libc::c_int) -> io::Result<CpuTime> {
    // SAFETY: `rusage` is plain integers, valid when zero; getrusage fills the live value it is
    // given.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        sys::check(libc::getrusage(whose, &raw mut usage))?;
        usage
    };
    Ok(CpuTime {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
    })
}

fn duration(time: libc::timeval) -> Duration {
    // Both fields count up from zero and microseconds stay below a million.
    Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
}

fn ticks_per_second() -> u64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks)
        .ok()
        .filter(|&ticks| ticks > 0)
        .unwrap_or(100)
}

fn ticks(count: u64, per_second: u64) -> Duration {
    Duration::from_secs(count / per_second)
        + Duration::from_nanos(count % per_second * 1_000_000_000 / per_second)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn read_proc(path: &str) -> io::Result<String> {
    std::fs::read_to_string(path)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn read_proc(_path: &str) -> io::Result<String> {
    Err(unsupported("usage of the machine"))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unsupported(what: &str) -> io::Error {
    let text = format!("{what} is not available on this platform");
    io::Error::new(io::ErrorKind::Unsupported, text)
}

fn malformed(file: &str) -> io::Error {
    let text = format!("the kernel's {file} file in /proc has an unknown form");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// The first line of `/proc/stat` (proc(5)): user nice system idle iowait irq softirq steal, then
/// guest times that are part of user and nice already.
fn parse_machine_stat(text: &str, per_second: u64) -> Option<MachineCpu> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let [user, nice, system, idle, waiting, irq, softirq, stolen, ..] = fields[..] else {
        return None;
    };
    Some(MachineCpu {
        busy: ticks(user + nice + system + irq + softirq, per_second),
        idle: ticks(idle + waiting, per_second),
        stolen: ticks(stolen, per_second),
    })
}

fn parse_status(text: &str) -> Option<Memory> {
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let resident = kilobytes("VmRSS:")? * 1024;
    Some(Memory {
        resident,
        resident_max: kilobytes("VmHWM:")? * 1024,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn spin(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::black_box(0u64.wrapping_mul(start.elapsed().as_nanos() as u64));
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_shows_in_the_time_of_the_thread_the_process_and_the_machine() {
        let before = (thread().unwrap(), process().unwrap(), machine().unwrap());
        // Until it shows, not for a fixed time: on a busy machine the thread may wait for a CPU.
        let start = Instant::now();
        let done = Duration::from_millis(100);
        while thread().unwrap().since(&before.0).total() < done {
            spin(Duration::from_millis(5));
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "no CPU time was counted"
            );
        }
        assert!(process().unwrap().since(&before.1).total() >= done);
        let busy = machine().unwrap().since(&before.2).busy;
        assert!(busy >= Duration::from_millis(50), "{busy:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_grows_by_what_is_touched() {
        let before = memory().unwrap();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = memory().unwrap();
        assert!(
            after.resident >= before.resident + (24 << 20),
            "{before:?} {after:?}"
        );
        assert!(after.resident_max >= after.resident);
        drop(block);
    }

    #[test]
    fn stolen_time_is_neither_busy_nor_idle() {
        let text = "cpu  100 20 30 400 50 6 7 80 9 0\ncpu0 1 2 3\n";
        let cpu = parse_machine_stat(text, 100).unwrap();
        assert_eq!(cpu.busy, Duration::from_millis(1_630));
        assert_eq!(cpu.idle, Duration::from_millis(4_500));
        assert_eq!(cpu.stolen, Duration::from_millis(800));
        assert_eq!(parse_machine_stat("cpu  1 2 3", 100), None);
    }
}
