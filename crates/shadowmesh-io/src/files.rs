//! Files that may be believed: opened without following anybody's links, in directories that nobody else
//! can change, and owned by root or by ourselves.
//!
//! A program that runs as root does what its files say: it loads the keys in them, and takes away the
//! routes that they name. So whoever could write one of them, put another in its place, or lead its name
//! elsewhere would command root. Three rules keep that from happening, and hold for everybody, root or
//! not:
//!
//! - Every directory on the way belongs to root or to us, and neither its group nor others may write it. In
//!   a directory with the sticky bit, such as `/tmp`, others may write, because what is ours in there
//!   they can neither rename nor remove.
//! - A file belongs to root or to us, and neither its group nor others may write it.
//! - What is checked is what was opened. A [`Directory`] is an open descriptor and finds its files
//!   from there, so nothing can be exchanged between the check and the use.
//!
//! A configuration may be also of the user who called `sudo`, and may command root: [`open_config`].
//!
//! A link on the way to a directory is followed when it is root's or ours itself: many systems keep their
//! state behind one. Inside a [`Directory`] no link is followed at all.
//!
//! In a user namespace the owners from outside it all look alike (user_namespaces(7), "unmapped user
//! IDs"); they cannot be told apart and are believed, as the directories above a container's own must
//! be.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// As Linux does (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where a directory is only passed through, no right to list it is needed.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY;

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system says no.
    #[error("cannot {doing} {}: {error}", path.display())]
    Io {
        /// what was tried
        doing: &'static str,
        /// on what
        path: PathBuf,
        /// why not
        error: io::Error,
    },
    /// It is neither root's nor ours.
    #[error("{} belongs to user {owner}, who could change it under us", path.display())]
    Foreign {
        /// what
        path: PathBuf,
        /// the number of its owner
        owner: u32,
        /// a directory, which may be somebody's home
        is_directory: bool,
    },
    /// Its group or everybody may write it.
    #[error("{} can be written by others (mode {mode:04o})", path.display())]
    WritableByOthers {
        /// what
        path: PathBuf,
        /// its permission bits
        mode: u32,
    },
    /// A link, a pipe, a device or a directory stands where a file should.
    #[error("{} is {what}, and must be a plain file", path.display())]
    NotPlain {
        /// what
        path: PathBuf,
        /// what it is
        what: &'static str,
    },
}

impl FileError {
    /// What the user can do about it.
    pub fn next_step(&self) -> String {
        match self {
            Self::Io { path, error, .. } => match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    format!("run as root, or as the user who owns {}", path.display())
                }
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    format!("make room on the file system of {}", path.display())
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    format!("make the file system of {} writable", path.display())
                }
                _ => format!("check {}", path.display()),
            },
            // Not chown: it may be somebody's home.
            Self::Foreign {
                is_directory: true, ..
            } => "copy the file to /etc/shadowmesh/, as root, and name it there (or run as the user who \
                  owns the directory)"
                .into(),
            Self::Foreign { path, .. } => format!(
                "if you trust what is in it: chown {} {} (or run as the user who owns it)",
                own_uid(),
                path.display()
            ),
            Self::WritableByOthers { path, .. } => {
                format!("chmod go-w {}", path.display())
            }
            Self::NotPlain { path, .. } => {
                format!("put the file itself at {}", path.display())
            }
        }
    }

    /// Whether there is nothing of that name.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

/// An open directory that only root and we can change.
#[derive(Debug)]
pub struct Directory {
    /// Open for reading, so that it can be listed, synced and locked.
    file: File,
    path: PathBuf,
}

impl Directory {
    /// Opens the directory and checks it, and every one on the way to it.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Walk::to(path, false)?.finish(path)
    }

    /// As [`open`](Self::open); makes what is missing: the directory itself with mode 0700, those
    /// above it with 0755.
    pub fn open_or_make(path: &Path) -> Result<Self, FileError> {
        Walk::to(path, true)?.finish(path)
    }

    /// A directory in this one. Its name is no link.
    pub fn open_inside(&self, name: &str) -> Result<Self, FileError> {
        let path = self.path.join(name);
        let io = |errno| io_error("open directory", &path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(&self.file, name, flags, Mode::empty()).map_err(io)?;
        let stat = fs::fstat(&file).map_err(io)?;
        check_owner(&stat, &path)?;
        check_mode(&stat, &path)?;
        Ok(Self {
            file: file.into(),
            path,
        })
    }

    /// As [`open_inside`](Self::open_inside), with mode 0700 when it is made.
    pub fn make_inside(&self, name: &str) -> Result<Self, FileError> {
        match fs::mkdirat(&self.file, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => self.open_inside(name),
            Err(errno) => Err(io_error("create directory", &self.path.join(name), errno)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Another descriptor of the same directory, for a lock on it that ends with the descriptor.
    pub fn reopen(&self) -> Result<File, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::openat(&self.file, ".", flags, Mode::empty());
        match opened {
            Ok(file) => Ok(file.into()),
            Err(errno) => Err(io_error("open directory", &self.path, errno)),
        }
    }

    /// Its permission bits now.
    pub fn mode(&self) -> io::Result<u32> {
        Ok(mode_of(&fs::fstat(&self.file)?))
    }

    /// Opens a file for reading: a plain one, root's or ours, that others cannot write.
    pub fn open_file(&self, name: &str) -> Result<File, FileError> {
        let (file, stat) = self.open_as(name, OFlags::RDONLY)?;
        check_mode(&stat, &self.path.join(name))?;
        Ok(file)
    }

    /// As [`open_file`](Self::open_file), and all of it, up to `max` bytes.
    pub fn read(&self, name: &str, max: u64) -> Result<Vec<u8>, FileError> {
        let mut bytes = Vec::new();
        let read = self.open_file(name)?.take(max).read_to_end(&mut bytes);
        match read {
            Ok(_) => Ok(bytes),
            Err(error) => Err(FileError::Io {
                doing: "read",
                path: self.path.join(name),
                error,
            }),
        }
    }

    /// Opens a file for reading and writing, making it with mode 0600 when there is none.
    pub fn open_or_make_file(&self, name: &str) -> Result<File, FileError> {
        let (file, stat) = self.open_as(name, OFlags::RDWR | OFlags::CREATE)?;
        check_mode(&stat, &self.path.join(name))?;
        Ok(file)
    }

    /// As [`open_file`](Self::open_file), and the permission bits, which are the caller's to judge.
    pub fn open_secret(&self, name: &str) -> Result<(File, u32), FileError> {
        let (file, stat) = self.open_as(name, OFlags::RDONLY)?;
        let mode = mode_of(&stat);
        Ok((file, mode))
    }

    fn open_as(&self, name: &str, access: OFlags) -> Result<(File, Stat), FileError> {
        let path = self.path.join(name);
        let opened = open_plain(&self.file, OsStr::new(name), access);
        let file = opened.map_err(|errno| match errno {
            Errno::LOOP => not_plain(&path, "a link"),
            errno => io_error("open", &path, errno),
        })?;
        let stat = fs::fstat(&file).map_err(|errno| io_error("open", &path, errno))?;
        check_plain(&stat, &path)?;
        check_owner(&stat, &path)?;
        Ok((file.into(), stat))
    }

    /// A new file of mode 0600 with these bytes, on disk. What could not be written whole is taken
    /// away again.
    pub fn write_new(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = fs::openat(&self.file, name, flags | OFlags::CLOEXEC, mode)?;
        let mut file = File::from(file);
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.inspect_err(|_| drop(self.remove(name)))
    }

    /// Renames a file, over another if there is one.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.file, from, &self.file, to)?)
    }

    /// A second name for a file; fails with `AlreadyExists` where there is one of that name.
    pub fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(fs::linkat(&self.file, from, &self.file, to, flags)?)
    }

    /// Removes a file, or a link and not what it leads to.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.file, name, AtFlags::empty())?)
    }

    /// The names in it become lasting.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// The plain files that are root's or ours, with the time of their last change (seconds since
    /// 1970). Whatever else is in there is nobody's business here.
    pub fn files(&self) -> io::Result<Vec<(String, i64)>> {
        let mut found = Vec::new();
        for entry in fs::Dir::read_from(&self.file)? {
            let Ok(name) = entry?.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            let Ok(stat) = fs::statat(&self.file, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let is_plain = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_plain && is_trusted(stat.st_uid) {
                found.push((name, stat.st_mtime));
            }
        }
        Ok(found)
    }
}

/// Opens a file that the user named, for reading: root's or ours, in directories of root's or ours. Links
/// on the way, the last one too, are followed when they are root's or ours: certificates are kept
/// behind such.
pub fn open_named(path: &Path) -> Result<File, FileError> {
    open_by(Walk::start(path)?, path).map(|(file, _)| file)
}

/// Opens the configuration file: as [`open_named`], and what belongs to the caller of `sudo` is believed as
/// well; then its number is told. `/dev/stdin`, `/dev/fd/N` and `/proc/self/fd/N` are what was handed
/// to this program open, so no name could lead elsewhere.
// PROTOCOL SM-ID-4
pub fn open_config(path: &Path) -> Result<(File, Option<u32>), FileError> {
    if is_descriptor(path) {
        let opened = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let file = opened.map_err(|errno| io_error("open", path, errno))?;
        return Ok((file.into(), None));
    }
    open_config_as(path, caller_of_sudo())
}

fn open_config_as(path: &Path, caller: Option<u32>) -> Result<(File, Option<u32>), FileError> {
    let mut walk = Walk::start(path)?;
    walk.caller = caller;
    open_by(walk, path)
}

fn is_descriptor(path: &Path) -> bool {
    let path = path.to_str().unwrap_or_default();
    let in_folder = |folder| path.strip_prefix(folder).map(str::parse::<u16>);
    let is_in = |folder| matches!(in_folder(folder), Some(Ok(_)));
    path == "/dev/stdin" || is_in("/dev/fd/") || is_in("/proc/self/fd/")
}

/// Who became root by `sudo`.
fn caller_of_sudo() -> Option<u32> {
    let caller = std::env::var("SUDO_UID").ok()?;
    let is_decimal = !caller.is_empty() && caller.bytes().all(|byte| byte.is_ascii_digit());
    (own_uid() == 0 && is_decimal).then(|| caller.parse().ok())?
}

fn open_by(mut walk: Walk, path: &Path) -> Result<(File, Option<u32>), FileError> {
    loop {
        let Some(name) = walk.pending.pop_back() else {
            return Err(not_plain(path, "a directory"));
        };
        walk.through(false)?;
        let full = walk.path.join(&name);
        let file = match open_plain(&walk.at, &name, OFlags::RDONLY) {
            Ok(file) => file,
            Err(Errno::LOOP | Errno::MLINK) => {
                walk.follow(&name)?;
                continue;
            }
            Err(errno) => return Err(io_error("open", path, errno)),
        };
        let stat = fs::fstat(&file).map_err(|errno| io_error("open", &full, errno))?;
        // Nobody keeps anything in /dev/null.
        let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        walk.check_owner(&stat, &full)?;
        if !is_device {
            check_plain(&stat, &full)?;
            check_mode_of_named(&stat, &full)?;
        }
        return Ok((file.into(), walk.caller.filter(|_| walk.is_callers)));
    }
}

/// `O_NONBLOCK`, or opening a pipe would wait for somebody who writes; it means nothing for a plain file.
fn open_plain(at: &impl AsFd, name: &OsStr, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    fs::openat(at, name, access | flags, Mode::RUSR | Mode::WUSR)
}

/// A way through directories, each checked when it is entered.
struct Walk {
    at: OwnedFd,
    path: PathBuf,
    /// What is still to be entered, in order.
    pending: VecDeque<OsString>,
    links: usize,
    /// Believed besides root and ourselves.
    caller: Option<u32>,
    /// Something on the way was the caller's.
    is_callers: bool,
}

impl Walk {
    fn start(path: &Path) -> Result<Self, FileError> {
        let absolute = std::path::absolute(path).map_err(|error| FileError::Io {
            doing: "find",
            path: path.into(),
            error,
        })?;
        let mut walk = Self {
            at: root()?,
            path: "/".into(),
            pending: VecDeque::new(),
            links: 0,
            caller: None,
            is_callers: false,
        };
        walk.prepend(&absolute);
        Ok(walk)
    }

    fn to(path: &Path, make: bool) -> Result<Self, FileError> {
        let mut walk = Self::start(path)?;
        walk.through(make)?;
        Ok(walk)
    }

    /// The directory where the walk ended, to be used by the name the user gave it.
    fn finish(self, path: &Path) -> Result<Directory, FileError> {
        let io = |errno| io_error("open directory", path, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let file = fs::openat(&self.at, ".", flags, Mode::empty()).map_err(io)?;
        check_mode(&fs::fstat(&file).map_err(io)?, path)?;
        Ok(Directory {
            file: file.into(),
            path: path.into(),
        })
    }

    /// Puts a path in front of what is pending.
    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.pending.push_front(name.into()),
                Component::ParentDir => self.pending.push_front("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
    }

    fn check_owner(&mut self, stat: &Stat, path: &Path) -> Result<(), FileError> {
        if !is_trusted(stat.st_uid) && self.caller == Some(stat.st_uid) {
            self.is_callers = true;
            return Ok(());
        }
        check_owner(stat, path)
    }

    fn through(&mut self, make: bool) -> Result<(), FileError> {
        while let Some(name) = self.pending.pop_front() {
            let path = match name == ".." {
                true => self.path.parent().unwrap_or(Path::new("/")).to_owned(),
                false => self.path.join(&name),
            };
            let flags = PASS | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let at = match fs::openat(&self.at, &name, flags, Mode::empty()) {
                Ok(at) => at,
                Err(Errno::NOENT) if make => {
                    self.make(&name, &path)?;
                    self.pending.push_front(name);
                    continue;
                }
                // Linux says NOTDIR of a link when a directory is asked for, others say LOOP.
                Err(Errno::LOOP | Errno::NOTDIR | Errno::MLINK) => {
                    self.follow(&name)?;
                    continue;
                }
                Err(errno) => return Err(io_error("open directory", &path, errno)),
            };
            let stat = fs::fstat(&at).map_err(|errno| io_error("open directory", &path, errno))?;
            self.check_owner(&stat, &path)?;
            // Whatever is entered from here is checked in turn, so the sticky bit is enough.
            if stat.st_mode & Mode::SVTX.bits() == 0 {
                check_mode_of_named(&stat, &path)?;
            }
            (self.at, self.path) = (at, path);
        }
        Ok(())
    }

    fn make(&self, name: &OsStr, path: &Path) -> Result<(), FileError> {
        let mode = match self.pending.is_empty() {
            true => Mode::RWXU,
            false => Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH,
        };
        match fs::mkdirat(&self.at, name, mode) {
            // Made by another program in between is as good.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(io_error("create directory", path, errno)),
        }
    }

    /// Goes on where a link leads, if it is root's or ours.
    fn follow(&mut self, name: &OsStr) -> Result<(), FileError> {
        let path = self.path.join(name);
        let io = |errno| io_error("open directory", &path, errno);
        let stat = fs::statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(io(Errno::NOTDIR));
        }
        self.check_owner(&stat, &path)?;
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(io(Errno::LOOP));
        }
        let target = fs::readlinkat(&self.at, name, Vec::new()).map_err(io)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.at = root()?;
            self.path = "/".into();
        }
        self.prepend(&target);
        Ok(())
    }
}

fn root() -> Result<OwnedFd, FileError> {
    let flags = PASS | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = Path::new("/");
    let io = |errno| io_error("open directory", path, errno);
    let at = fs::open(path, flags, Mode::empty()).map_err(io)?;
    let stat = fs::fstat(&at).map_err(io)?;
    check_owner(&stat, path)?;
    check_mode_of_named(&stat, path)?;
    Ok(at)
}

fn check_owner(stat: &Stat, path: &Path) -> Result<(), FileError> {
    match is_trusted(stat.st_uid) {
        true => Ok(()),
        false => Err(FileError::Foreign {
            path: path.into(),
            owner: stat.st_uid,
            is_directory: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
        }),
    }
}

/// Of what this program makes itself: nobody else writes it.
fn check_mode(stat: &Stat, path: &Path) -> Result<(), FileError> {
    check_bits(stat, path, 0o022)
}

/// Of what the user made: a group that is the user's own, as many systems give everybody one and a
/// mask of 002 with it, is nobody else. Root's files have no such excuse.
fn check_mode_of_named(stat: &Stat, path: &Path) -> Result<(), FileError> {
    let own_group = own_uid() != 0 && stat.st_gid == rustix::process::getegid().as_raw();
    check_bits(stat, path, if own_group { 0o002 } else { 0o022 })
}

fn check_bits(stat: &Stat, path: &Path, forbidden: u32) -> Result<(), FileError> {
    let mode = mode_of(stat);
    match mode & forbidden {
        0 => Ok(()),
        _ => Err(FileError::WritableByOthers {
            path: path.into(),
            mode,
        }),
    }
}

fn check_plain(stat: &Stat, path: &Path) -> Result<(), FileError> {
    let what = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => "a directory",
        FileType::Fifo => "a pipe",
        FileType::Symlink => "a link",
        _ => "no file",
    };
    Err(not_plain(path, what))
}

fn not_plain(path: &Path, what: &'static str) -> FileError {
    FileError::NotPlain {
        path: path.into(),
        what,
    }
}

fn io_error(doing: &'static str, path: &Path, errno: Errno) -> FileError {
    FileError::Io {
        doing,
        path: path.into(),
        error: errno.into(),
    }
}

fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// The user this process acts as.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether a user may be believed: root, ourselves, or one from outside this user namespace, whom nobody
/// in here can tell from root.
pub fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == own_uid() || is_from_outside(uid)
}

/// The number that stands for all users from outside, where it is no user's in here.
fn is_from_outside(uid: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let overflow: Option<u32> = read("/proc/sys/kernel/overflowuid").trim().parse().ok();
    overflow == Some(uid) && !covers(&read("/proc/self/uid_map"), uid)
}

/// Whether a map of user numbers (user_namespaces(7): inside, outside, count) has this one inside. One that
/// cannot be read has all of them.
fn covers(map: &str, uid: u32) -> bool {
    let mut lines = map.lines().peekable();
    if lines.peek().is_none() {
        return true;
    }
    lines.any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                (inside..inside.saturating_add(count)).contains(&u64::from(uid))
            }
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Only root can give something away; elsewhere there is nothing to see.
    fn give_away(path: &Path) -> bool {
        own_uid() == 0 && std::os::unix::fs::lchown(path, Some(4711), None).is_ok()
    }

    #[test]
    fn a_directory_is_made_private_and_found_again_through_a_link_of_ours() {
        let keep = tempfile::tempdir().unwrap();
        let made = Directory::open_or_make(&keep.path().join("a/b")).unwrap();
        assert_eq!(made.mode().unwrap(), 0o700);
        symlink("a/b", keep.path().join("link")).unwrap();
        symlink(keep.path().join("./a/../a"), keep.path().join("a/far")).unwrap();
        made.write_new("file", b"x").unwrap();
        for way in ["link", "a/far/b", "a/b/../b"] {
            let directory = Directory::open(&keep.path().join(way)).unwrap();
            assert_eq!(directory.read("file", 10).unwrap(), b"x", "{way}");
        }
        symlink("round", keep.path().join("round")).unwrap();
        let error = Directory::open(&keep.path().join("round")).unwrap_err();
        assert!(matches!(error, FileError::Io { .. }), "{error}");
    }

    #[test]
    fn a_directory_that_others_could_exchange_or_write_is_refused() {
        let keep = tempfile::tempdir().unwrap();
        let path = keep.path().join("a/b");
        Directory::open_or_make(&path).unwrap();
        for (which, mode) in [("a/b", 0o770), ("a/b", 0o707), ("a", 0o757)] {
            set_mode(&keep.path().join(which), mode);
            let error = Directory::open(&path).unwrap_err();
            assert!(
                matches!(error, FileError::WritableByOthers { .. }),
                "{error}"
            );
            assert!(error.next_step().contains("chmod go-w"), "{error}");
            set_mode(&keep.path().join(which), 0o700);
        }
        // As /tmp is.
        set_mode(&keep.path().join("a"), 0o1777);
        Directory::open(&path).unwrap();
        for which in ["a/b", "a"] {
            if give_away(&keep.path().join(which)) {
                let error = Directory::open(&path).unwrap_err();
                assert!(matches!(error, FileError::Foreign { owner: 4711, .. }));
                assert!(error.next_step().contains("/etc/shadowmesh/"), "{error}");
                chown(keep.path().join(which), Some(0), None).unwrap();
            }
        }
    }

    #[test]
    fn a_link_of_somebody_else_is_not_followed() {
        let keep = tempfile::tempdir().unwrap();
        Directory::open_or_make(&keep.path().join("a")).unwrap();
        let link = keep.path().join("link");
        symlink("a", &link).unwrap();
        if give_away(&link) {
            let error = Directory::open(&link).unwrap_err();
            assert!(matches!(error, FileError::Foreign { .. }), "{error}");
        }
    }

    #[test]
    fn inside_a_directory_no_link_is_followed_and_nothing_but_a_plain_file_read() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(keep.path()).unwrap();
        directory.write_new("file", b"x").unwrap();
        symlink("file", keep.path().join("link")).unwrap();
        symlink(".", keep.path().join("inside")).unwrap();
        let pipe = keep.path().join("pipe");
        fs::mknodat(fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in ["link", "pipe", "inside"] {
            let error = directory.read(name, 10).unwrap_err();
            assert!(
                matches!(error, FileError::NotPlain { .. }),
                "{name}: {error}"
            );
        }
        assert!(directory.open_inside("inside").is_err());
        let names: Vec<String> = directory
            .files()
            .unwrap()
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(names, ["file"]);
        assert!(directory.read("none", 10).unwrap_err().is_not_found());
    }

    #[test]
    fn a_file_of_somebody_else_or_one_that_others_write_is_refused() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Directory::open(keep.path()).unwrap();
        directory.write_new("file", b"x").unwrap();
        let path = keep.path().join("file");
        for mode in [0o606, 0o622, 0o666] {
            set_mode(&path, mode);
            assert!(directory.read("file", 10).is_err(), "{mode:o}");
            assert!(open_named(&path).is_err(), "{mode:o}");
        }
        set_mode(&path, 0o644);
        assert!(open_named(&path).is_ok() && directory.open_file("file").is_ok());
        if give_away(&path) {
            for error in [
                open_named(&path).unwrap_err(),
                directory.open_file("file").unwrap_err(),
            ] {
                assert!(
                    matches!(error, FileError::Foreign { owner: 4711, .. }),
                    "{error}"
                );
            }
            assert!(directory.files().unwrap().is_empty());
        }
    }

    #[test]
    fn a_named_file_may_be_behind_links_and_in_no_directory_of_somebody_else() {
        let keep = tempfile::tempdir().unwrap();
        let live = Directory::open_or_make(&keep.path().join("archive")).unwrap();
        live.write_new("key1.pem", b"x").unwrap();
        Directory::open_or_make(&keep.path().join("live")).unwrap();
        let link = keep.path().join("live/key.pem");
        symlink("../archive/key1.pem", &link).unwrap();
        let mut text = String::new();
        open_named(&link)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x");
        assert!(open_named(Path::new("/dev/null")).is_ok());
        assert!(open_named(keep.path()).is_err());
        if give_away(&keep.path().join("archive")) {
            let error = open_named(&link).unwrap_err();
            assert!(matches!(error, FileError::Foreign { .. }), "{error}");
        }
    }

    #[test]
    // PROTOCOL SM-ID-4
    fn a_configuration_of_the_caller_of_sudo_is_believed_and_nothing_else_of_that_user() {
        let keep = tempfile::tempdir().unwrap();
        let home = Directory::open_or_make(&keep.path().join("home")).unwrap();
        home.write_new("x.toml", b"x").unwrap();
        let path = keep.path().join("home/x.toml");
        assert_eq!(open_config_as(&path, Some(4711)).unwrap().1, None);
        if !give_away(&path) || !give_away(&keep.path().join("home")) {
            return;
        }
        assert_eq!(open_config_as(&path, Some(4711)).unwrap().1, Some(4711));
        for caller in [None, Some(4712)] {
            let error = open_config_as(&path, caller).unwrap_err();
            assert!(matches!(error, FileError::Foreign { .. }), "{error}");
            assert!(error.next_step().contains("/etc/shadowmesh/"), "{error}");
        }
        assert!(open_named(&path).is_err());
        assert!(Directory::open(&keep.path().join("home")).is_err());
        set_mode(&path, 0o666);
        assert!(open_config_as(&path, Some(4711)).is_err());
    }

    #[test]
    fn descriptors_handed_over_are_told_by_their_names() {
        let is = |path: &&str| is_descriptor(Path::new(path));
        assert!(
            ["/dev/stdin", "/dev/fd/63", "/proc/self/fd/0"]
                .iter()
                .all(is)
        );
        assert!(!["/dev/fd/", "/dev/fd/1/x", "/proc/1/fd/0"].iter().any(is));
    }

    #[test]
    fn users_from_outside_a_namespace_are_told_by_its_map() {
        let whole = "         0          0 4294967295\n";
        assert!(covers(whole, 65534) && covers("", 65534));
        assert!(!covers("         0       1000          1\n", 65534));
        assert!(covers("0 1000 1\n65534 100 1\n", 65534));
    }
}
