//! `/dev/net/tun`.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::plain::Plain;
use super::{NAME_LEN_MAX, NOTHING, Offloads, QUEUES_MAX, TunError, TunOptions, check_mtu};
use crate::netlink::{Handle, NetlinkError, Refusal};
use crate::sys;

const DRIVER: &str = "/dev/net/tun";

/// The first free number replaces `%d`.
const DEFAULT_NAME: &str = "shadow%d";

/// Length of the virtio-net header without `num_buffers`.
const VNET_HDR_LEN: libc::c_int = 10;

/// Checksum and TCP segmentation. Not `TUN_F_TSO_ECN`: without it the kernel segments the few
/// packets that carry CWR itself, and every super-packet we see has one header for all segments.
const OFFLOAD_TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;

/// UDP segmentation; the kernel takes both or neither.
const OFFLOAD_UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// A TUN device of ours, up, nonblocking; gone when dropped.
pub struct Tun {
    /// At least one.
    queues: Vec<TunQueue>,
    /// The detached queue that takes the writes, where there are several to read; else the only one
    /// takes them.
    writer: Option<File>,
    name: String,
    index: u32,
    offloads: Offloads,
}

/// A reading end of the device. Everything of one flow comes from one queue, in order.
pub struct TunQueue(Queue);

enum Queue {
    /// `/dev/net/tun` with the virtio-net header.
    Offload(File),
    /// Without.
    Plain(Plain),
}

impl Tun {
    /// Makes the device, sets its MTU and brings it up. With one queue an existing persistent device
    /// of that name that nobody holds is taken over.
    pub fn open(options: &TunOptions<'_>) -> Result<Self, TunError> {
        check_mtu(options.mtu)?;
        if let Some(name) = options.name {
            check_name(name)?;
        }
        match (options.offload, options.queues) {
            (false, _) => Self::open_plain(options),
            (true, ..=1) => Self::open_single(options),
            (true, queues) => Self::open_multiple(options, queues.min(QUEUES_MAX)),
        }
    }

    /// No device: nothing comes from it, and what is written is gone. Needs no rights.
    pub fn nothing() -> Result<Self, TunError> {
        let nothing = Plain::nothing().map_err(|source| TunError::Io {
            action: "open a socket",
            source,
        })?;
        Ok(Self {
            queues: vec![TunQueue(Queue::Plain(nothing))],
            writer: None,
            name: NOTHING.into(),
            index: 0,
            offloads: Offloads::NONE,
        })
    }

    fn open_single(options: &TunOptions<'_>) -> Result<Self, TunError> {
        let file = open_driver(DRIVER)?;
        let name = attach(&file, options.name, 0)?;
        let offloads = set_offloads(&file)?;
        let index = configure(&name, options.mtu)?;
        Ok(Self {
            queues: vec![TunQueue(Queue::Offload(file))],
            writer: None,
            name,
            index,
            offloads,
        })
    }

    fn open_multiple(options: &TunOptions<'_>, queues: usize) -> Result<Self, TunError> {
        // The writer makes the device, so that its number is 0: the kernel notes on every packet
        // which queue it came in by, and warns about numbers above those attached.
        let writer = open_driver(DRIVER)?;
        // Without EXCL, a device of this kind that another program has would simply get more queues,
        // and the two programs would share out its packets.
        let name = attach(
            &writer,
            options.name,
            libc::IFF_MULTI_QUEUE | libc::IFF_TUN_EXCL,
        )?;
        let mut offloads = set_offloads(&writer)?;
        let mut files = Vec::with_capacity(queues);
        for _ in 0..queues {
            let file = open_driver(DRIVER)?;
            attach(&file, Some(&name), libc::IFF_MULTI_QUEUE)?;
            offloads = set_offloads(&file)?;
            files.push(TunQueue(Queue::Offload(file)));
        }
        detach(&writer).map_err(|source| TunError::Io {
            action: "set one queue of the TUN device aside",
            source,
        })?;
        let index = configure(&name, options.mtu)?;
        Ok(Self {
            queues: files,
            writer: Some(writer),
            name,
            index,
            offloads,
        })
    }

    fn open_plain(options: &TunOptions<'_>) -> Result<Self, TunError> {
        let wanted = options.name;
        // tun-rs would try to make the driver's node where there is none.
        open_driver(DRIVER)?;
        let device = Plain::create(Some(wanted.unwrap_or(DEFAULT_NAME)), options.mtu)
            .map_err(|source| explain_attach(source, wanted))?;
        let name = device
            .name()
            .map_err(|source| explain_attach(source, wanted))?;
        let index = configure(&name, options.mtu)?;
        Ok(Self {
            queues: vec![TunQueue(Queue::Plain(device))],
            writer: None,
            name,
            index,
            offloads: Offloads::NONE,
        })
    }

    /// The device's name, as the kernel gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's index in its namespace, for [`crate::netlink`].
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What the kernel granted.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// What is to be read, each by a thread of its own.
    pub fn queues(&self) -> &[TunQueue] {
        &self.queues
    }

    /// Writes one packet, gathered from slices that together are a virtio-net header and an IP
    /// packet. Any thread may. `WouldBlock` when the kernel's queue is full, `InvalidInput` when
    /// header and packet do not fit together, an `EIO` error when the device is down. HOT PATH.
    pub fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.writer, &self.queues[0].0) {
            (Some(file), _) | (None, Queue::Offload(file)) => {
                let mut file = file;
                sys::retry(|| file.write_vectored(slices))
            }
            (None, Queue::Plain(device)) => device.write_vectored(slices),
        }
    }
}

impl TunQueue {
    /// Reads one virtio-net header and IP packet; `WouldBlock` when none waits. The buffer should
    /// hold [`READ_LEN_MAX`](super::READ_LEN_MAX) bytes: the kernel cuts what does not fit.
    /// HOT PATH.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Queue::Offload(file) => {
                let mut file = file;
                sys::retry(|| file.read(buffer))
            }
            Queue::Plain(device) => device.read(buffer),
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Queue::Offload(file) => file.as_fd(),
            Queue::Plain(device) => device.as_fd(),
        }
    }
}

/// The kernel's rules (`dev_valid_name`), and no `%`, which it would take for a pattern.
fn check_name(name: &str) -> Result<(), TunError> {
    let bad = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b':' | b'%' | 0);
    let usable = (1..=NAME_LEN_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.bytes().any(bad);
    if usable {
        Ok(())
    } else {
        Err(TunError::Name(name.to_owned()))
    }
}

fn open_driver(path: &str) -> Result<File, TunError> {
    const ACTION: &str = "open /dev/net/tun";
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
            Some(libc::EACCES | libc::EPERM) => TunError::Permission { action: ACTION },
            Some(libc::EISDIR) => TunError::NoDevice,
            _ => TunError::Io {
                action: ACTION,
                source,
            },
        })
}

/// Binds the open file to a device, new or persistent, and returns the device's name. Never asks
/// for a persistent one (TUNSETPERSIST): the kernel removes it with the process, however that ends.
// PROTOCOL SM-DV-2
fn attach(file: &File, wanted: Option<&str>, more_flags: libc::c_int) -> Result<String, TunError> {
    let mut request = interface_request(wanted.unwrap_or(DEFAULT_NAME));
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | more_flags;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is live and exclusively ours; the
    // descriptor is open because `file` is borrowed.
    let result =
        sys::check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) });
    match (result, wanted) {
        (Ok(_), _) => Ok(name_of(&request)),
        (Err(error), Some(name))
            if more_flags & libc::IFF_TUN_EXCL != 0
                && error.raw_os_error() == Some(libc::EBUSY) =>
        {
            Err(TunError::Exists { name: name.into() })
        }
        (Err(error), _) => Err(explain_attach(error, wanted)),
    }
}

/// What a refusal of TUNSETIFF means.
fn explain_attach(source: io::Error, wanted: Option<&str>) -> TunError {
    const ACTION: &str = "make the TUN device";
    match (source.raw_os_error(), wanted) {
        // Only a device of this driver knows the request.
        (Some(libc::ENOTTY), _) => TunError::NoDevice,
        (Some(libc::EPERM | libc::EACCES), _) => TunError::Permission { action: ACTION },
        (Some(libc::EBUSY), Some(name)) => TunError::Busy {
            name: name.to_owned(),
        },
        (Some(libc::EINVAL | libc::EEXIST), Some(name)) => TunError::OtherKind {
            name: name.to_owned(),
        },
        (Some(libc::ENFILE | libc::EBUSY | libc::EEXIST), None) => TunError::NoFreeName,
        _ => TunError::Io {
            action: ACTION,
            source,
        },
    }
}

/// Takes a queue out of those that the kernel fills. It can still be written through.
fn detach(file: &File) -> io::Result<()> {
    let mut request = interface_request("");
    request.ifr_ifru.ifru_flags = libc::IFF_DETACH_QUEUE as libc::c_short;
    // SAFETY: TUNSETQUEUE reads one `ifreq`, which is live; the descriptor is open because `file`
    // is borrowed.
    sys::check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETQUEUE, &raw mut request) })
        .map(drop)
}

/// Fixes the header's layout and asks for the offloads, UDP only where the kernel knows it.
fn set_offloads(file: &File) -> Result<Offloads, TunError> {
    let explain = |source| TunError::Io {
        action: "set up the TUN device's offload",
        source,
    };
    set_integer(file, libc::TUNSETVNETHDRSZ, VNET_HDR_LEN).map_err(explain)?;
    set_integer(file, libc::TUNSETVNETLE, 1).map_err(explain)?;
    if set_offload_flags(file, OFFLOAD_TCP | OFFLOAD_UDP).is_ok() {
        return Ok(Offloads {
            tcp: true,
            udp: true,
        });
    }
    set_offload_flags(file, OFFLOAD_TCP).map_err(explain)?;
    Ok(Offloads {
        tcp: true,
        udp: false,
    })
}

/// An ioctl that takes a pointer to an integer.
fn set_integer(file: &File, request: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ and TUNSETVNETLE, the only callers' requests, read one `int` through
    // the pointer, which is live; the descriptor is open because `file` is borrowed.
    sys::check(unsafe { libc::ioctl(file.as_raw_fd(), request, &raw const value) }).map(drop)
}

fn set_offload_flags(file: &File, flags: libc::c_uint) -> io::Result<()> {
    let flags = libc::c_ulong::from(flags);
    // SAFETY: TUNSETOFFLOAD takes its flags by value, no pointer; the descriptor is open because
    // `file` is borrowed.
    sys::check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, flags) }).map(drop)
}

/// Sets the MTU, brings the device up and returns its index.
fn configure(name: &str, mtu: u32) -> Result<u32, TunError> {
    let explain = |action| {
        move |error: NetlinkError| match error.refusal() {
            Some(Refusal::Permission) => TunError::Permission { action },
            Some(Refusal::Invalid) => TunError::Mtu { mtu },
            _ => TunError::Io {
                action,
                source: io::Error::other(error),
            },
        }
    };
    let handle = Handle::new().map_err(explain("set up the TUN device"))?;
    let link = handle
        .link_by_name(name)
        .map_err(explain("find the TUN device"))?;
    handle
        .set_mtu(link.index, mtu)
        .map_err(explain("set the MTU of the TUN device"))?;
    // Before it is up, else the address is there already. A kernel without IPv6 has nothing to
    // turn off.
    let _ = handle.disable_link_local(link.index);
    handle
        .set_up(link.index)
        .map_err(explain("bring up the TUN device"))?;
    Ok(link.index)
}

/// An otherwise empty request for the device `name`, which has been checked to fit.
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: `ifreq` is plain integers and arrays; the pointers inside its union are null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request
        .ifr_name
        .iter_mut()
        .zip(name.bytes().take(NAME_LEN_MAX))
    {
        *to = from as libc::c_char;
    }
    request
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes = request
        .ifr_name
        .iter()
        .map(|&byte| byte as u8)
        .take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_a_device_is_refused_before_anything_is_opened() {
        for name in [
            "",
            "a name",
            "a/b",
            ".",
            "..",
            "sixteen-letters-",
            "shadow%d",
            "a:1",
        ] {
            let error = Tun::create(Some(name), 1420).err().expect(name);
            assert!(matches!(error, TunError::Name(_)), "{name:?}: {error}");
        }
    }

    #[test]
    fn nothing_comes_from_a_device_of_nothing_and_it_takes_everything() {
        let nothing = Tun::nothing().expect("it needs no rights");
        let mut buffer = [0; super::super::READ_LEN_MAX];
        let error = nothing.read(&mut buffer).expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let slices = [IoSlice::new(&[0; 10]), IoSlice::new(&[0; 1000])];
        assert_eq!(nothing.write_vectored(&slices).expect("it is gone"), 1010);
        assert_eq!(nothing.queues().len(), 1);
        let mut waiting = libc::pollfd {
            fd: nothing.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one live `pollfd`, and a count of one.
        let ready = unsafe { libc::poll(&raw mut waiting, 1, 0) };
        assert_eq!((ready, waiting.revents), (0, 0), "it would wake its sender");
    }

    #[test]
    fn an_mtu_no_device_can_have_is_refused() {
        for mtu in [0, 67, 65_536] {
            let error = Tun::create(Some("shadow0"), mtu)
                .err()
                .expect("impossible MTU");
            assert!(matches!(error, TunError::Mtu { .. }), "{error}");
        }
    }

    #[test]
    fn a_machine_without_the_driver_is_told_how_to_get_it() {
        for missing in ["/dev/net/no-such-file", "/dev/no-such-folder/tun"] {
            let error = open_driver(missing).expect_err(missing);
            assert!(matches!(error, TunError::NoDriver), "{error:?}");
            assert!(error.to_string().contains("modprobe tun"), "{error}");
        }
    }
}
