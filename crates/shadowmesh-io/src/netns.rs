//! Network namespaces: several machines' worth of network stack on one machine.
//!
//! A [`Netns`] is a descriptor that keeps the namespace alive; when it is dropped and no process
//! or device is left inside, the kernel takes it away with all its devices. Nothing is mounted, so
//! nothing is left behind, even after `kill -9`.
//!
//! Work runs inside through a thread of its own that enters the namespace and ends after it,
//! so the namespace of the program's other threads never changes. Sockets, devices and
//! [`crate::netlink::Handle`]s opened there stay in the namespace wherever they are used later.
//!
//! Making namespaces needs `CAP_SYS_ADMIN`. Without it, a user namespace gives it: see
//! [`in_user_namespace`].
//!
//! Linux only; elsewhere the constructors answer an error of kind `Unsupported`.

use std::io;
use std::process::{Child, Command};

#[cfg(target_os = "linux")]
use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

#[cfg(target_os = "linux")]
use crate::{netlink, sys};

/// The loopback device is always the first of a namespace.
#[cfg(target_os = "linux")]
const LOOPBACK_INDEX: u32 = 1;

/// A network namespace.
pub struct Netns {
    #[cfg(target_os = "linux")]
    file: File,
    #[cfg(not(target_os = "linux"))]
    never: std::convert::Infallible,
}

#[cfg(target_os = "linux")]
impl Netns {
    /// A new namespace with nothing but its loopback device, which is up.
    pub fn new() -> io::Result<Self> {
        let made = on_own_thread(|| {
            // SAFETY: no pointers. Only the calling thread changes its namespace, and it is ours.
            sys::check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map_err(explain)?;
            netlink::Handle::new()
                .and_then(|handle| handle.set_up(LOOPBACK_INDEX))
                .map_err(io::Error::other)?;
            File::open("/proc/thread-self/ns/net")
        });
        Ok(Self { file: made? })
    }

    /// The namespace a process is in. Fails when we may not enter it.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let netns = Self {
            file: File::open(format!("/proc/{pid}/ns/net"))?,
        };
        on_own_thread(|| netns.enter())?;
        Ok(netns)
    }

    /// Another handle to the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
        })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. A panic in it goes on here.
    ///
    /// # Panics
    /// When the process has given up the privileges it made the namespace with.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_own_thread(|| {
            self.enter()
                .expect("a namespace we could make or enter before");
            work()
        })
    }

    /// Starts a program inside. (It is started by a thread that then ends, so
    /// `PR_SET_PDEATHSIG`, which looks at the parent thread, would end it at once.)
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())
    }

    /// Sets a network setting of this namespace by its dotted name, for example
    /// `net.ipv4.conf.all.rp_filter`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| std::fs::write(&path, value)).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot set {name} to {value}: {error}"),
            )
        })
    }

    /// Moves the calling thread inside; for a thread that ends there.
    fn enter(&self) -> io::Result<()> {
        // SAFETY: no pointers; the descriptor is ours and open.
        let result = unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) };
        sys::check(result).map(drop).map_err(explain)
    }
}

#[cfg(target_os = "linux")]
impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(not(target_os = "linux"))]
impl Netns {
    /// Always an `Unsupported` error here.
    pub fn new() -> io::Result<Self> {
        Err(unsupported())
    }

    /// Always an `Unsupported` error here.
    pub fn of_process(_pid: u32) -> io::Result<Self> {
        Err(unsupported())
    }

    /// Another handle to the same namespace.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self.never {}
    }

    /// Runs `work` inside.
    pub fn run<T: Send>(&self, _work: impl FnOnce() -> T + Send) -> T {
        match self.never {}
    }

    /// Starts a program inside.
    pub fn spawn(&self, _command: &mut Command) -> io::Result<Child> {
        match self.never {}
    }

    /// Sets a network setting.
    pub fn set_sysctl(&self, _name: &str, _value: &str) -> io::Result<()> {
        match self.never {}
    }
}

/// Makes `command` start in a user namespace of its own, as root there. If the machine refuses,
/// spawning the command fails with the refusal.
#[cfg(target_os = "linux")]
pub fn in_user_namespace(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    let maps = IdMaps::of_this_user();
    // SAFETY: between fork and exec the closure makes system calls only: unshare, and open, write
    // and close of constant short paths, which std passes from the stack; the texts were formatted
    // before the fork. Nothing allocates or takes a lock.
    unsafe { command.pre_exec(move || enter_user_namespace(&maps)) }
}

/// Leaves the command as it is: there are no user namespaces here.
#[cfg(not(target_os = "linux"))]
pub fn in_user_namespace(command: &mut Command) -> &mut Command {
    command
}

/// The lines that make the present user and group root inside.
#[cfg(target_os = "linux")]
struct IdMaps {
    user: String,
    group: String,
}

#[cfg(target_os = "linux")]
impl IdMaps {
    fn of_this_user() -> Self {
        // SAFETY: neither takes arguments nor can fail.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        Self {
            user: format!("0 {user} 1"),
            group: format!("0 {group} 1"),
        }
    }
}

#[cfg(target_os = "linux")]
fn enter_user_namespace(maps: &IdMaps) -> io::Result<()> {
    // SAFETY: no pointers.
    sys::check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    // A group map may be written without privileges only after setgroups is given up.
    write_existing("/proc/self/setgroups", "deny")?;
    write_existing("/proc/self/uid_map", &maps.user)?;
    write_existing("/proc/self/gid_map", &maps.group)
}

#[cfg(target_os = "linux")]
fn write_existing(path: &str, text: &str) -> io::Result<()> {
    use std::io::Write;
    File::options()
        .write(true)
        .open(path)?
        .write_all(text.as_bytes())
}

/// Runs `work` on a fresh thread and waits for it, passing on its panic.
#[cfg(target_os = "linux")]
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        scope
            .spawn(work)
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(target_os = "linux")]
fn explain(error: io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "needs root, or a user namespace",
        Some(libc::ENOSPC) => "the limit user.max_net_namespaces is reached",
        Some(libc::EINVAL) => "the kernel was built without network namespaces",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("network namespace: {error}: {hint}"))
}

#[cfg(not(target_os = "linux"))]
fn unsupported() -> io::Error {
    let text = "network namespaces exist on Linux only";
    io::Error::new(io::ErrorKind::Unsupported, text)
}
