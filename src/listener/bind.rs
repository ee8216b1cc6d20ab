//! From an address to a listening socket, or to an error that says what to do.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Access, AtFlags, Gid, Mode, OFlags, access, chownat, open};
use rustix::io::Errno;
use rustix::process::{getegid, getgroups};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::accept::Listening;
use super::holder::{self, Holder};
use super::neighbours::{clear_away, in_turn, is_taken};
use super::passed::Passed;
use super::{Config, Group};
use crate::net::addr::ListenAddr;
use crate::net::socket::prepare_client_leg;

/// Connections the kernel keeps until they are accepted; `net.core.somaxconn` caps it.
const BACKLOG: i32 = 4096;

/// A socket that listens. Dropping the last of its doubles closes it, and removes the file of a unix socket.
#[derive(Debug)]
pub struct Bound {
    id: SocketId,
    addr: ListenAddr,
    /// As it was written in the configuration.
    asked: ListenAddr,
    socket: Socket,
    file: Option<Arc<SocketFile>>,
}

/// Which listening socket of this process; the same for its doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(u64);

/// The device and the inode of a file: which it is, whatever its path.
pub type FileId = (u64, u64);

impl SocketId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Bound {
    /// A socket that somebody else made, and whose file, if it has one, is theirs.
    pub(super) fn passed(addr: ListenAddr, asked: &ListenAddr, socket: Socket) -> Self {
        Self {
            id: SocketId::next(),
            addr,
            asked: asked.clone(),
            socket,
            file: None,
        }
    }

    /// A socket of the process that this one follows. The `file` that process made for it is ours from [`Self::own_file`] on; what stands
    /// at its path instead by now is not.
    ///
    /// # Errors
    /// When it is no listening socket.
    pub(super) fn inherited(
        asked: &ListenAddr,
        file: Option<FileId>,
        socket: OwnedFd,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if !socket.is_listener()? {
            return Err(Errno::INVAL.into());
        }
        let addr = socket.local_addr()?;
        let addr = match (addr.as_socket(), addr.as_pathname()) {
            (Some(addr), _) => ListenAddr::Tcp(addr),
            (None, path) => ListenAddr::Unix(path.unwrap_or_else(|| Path::new("@")).to_path_buf()),
        };
        let file = match &addr {
            ListenAddr::Unix(path) if file.is_some() => {
                let there = SocketFile::others(path)?;
                (file == Some(there.id())).then(|| Arc::new(there))
            }
            _ => None,
        };
        Ok(Self {
            id: SocketId::next(),
            addr,
            asked: asked.clone(),
            socket,
            file,
        })
    }

    /// What systemd passed once may be open to others than another configuration names.
    ///
    /// # Errors
    /// When it is.
    pub fn check_guarded(&self, is_guarded: bool) -> Result<(), BindError> {
        match (&self.asked, &self.addr) {
            (ListenAddr::Systemd(name), ListenAddr::Tcp(addr))
                if !is_guarded && !self.addr.is_local() =>
            {
                Err(BindError::OpenToAll {
                    name: name.clone(),
                    addr: *addr,
                })
            }
            _ => Ok(()),
        }
    }

    /// As it was written in the configuration.
    pub const fn asked(&self) -> &ListenAddr {
        &self.asked
    }

    /// The file that this program made for it, if it did.
    pub fn file(&self) -> Option<FileId> {
        self.file.as_ref().map(|file| file.id())
    }

    /// Gives that file, which was made by another configuration perhaps, the group and the permissions of this one.
    ///
    /// # Errors
    /// When the kernel forbids it, or another file has taken its place.
    pub fn dress(&self, config: &Config) -> Result<(), DressError> {
        self.file.as_ref().map_or(Ok(()), |file| file.dress(config))
    }

    /// Whether that file is removed with the socket.
    pub fn own_file(&self, own: bool) {
        if let Some(file) = &self.file {
            file.ours.store(own, Ordering::Relaxed);
        }
    }

    /// The real address: where port 0 was asked for, the port the kernel chose.
    pub const fn addr(&self) -> &ListenAddr {
        &self.addr
    }

    /// See [`SocketId`].
    pub const fn id(&self) -> SocketId {
        self.id
    }

    /// A second descriptor of the same socket: clients wait in one line, and it listens, and keeps its file, until both are
    /// dropped.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn double(&self) -> io::Result<Self> {
        Ok(Self {
            id: self.id,
            addr: self.addr.clone(),
            asked: self.asked.clone(),
            socket: self.socket.try_clone()?,
            file: self.file.clone(),
        })
    }

    /// Registers with the runtime of this thread.
    pub(super) fn listen(self) -> io::Result<Listening> {
        match self.addr {
            ListenAddr::Unix(_) => {
                UnixListener::from_std(self.socket.into()).map(|socket| Listening::Unix {
                    socket,
                    _file: self.file,
                })
            }
            ListenAddr::Tcp(_) | ListenAddr::Systemd(_) => {
                TcpListener::from_std(self.socket.into()).map(Listening::Tcp)
            }
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error(
        "{addr} is taken{}: stop what listens there, or choose another address for `listen`",
        by(.holder.as_ref())
    )]
    PortTaken {
        /// What was asked for.
        addr: SocketAddr,
        /// Who has it, where that can be known.
        holder: Option<Holder>,
    },
    /// Something answers on the unix socket.
    #[error("unix:{} is in use: stop what listens there, or choose another path for `listen`", .0.display())]
    SocketTaken(PathBuf),
    /// There is a file, and it is no socket.
    #[error("unix:{} is a file that is no socket: remove it, or choose another path for `listen`", .0.display())]
    NotASocket(PathBuf),
    /// The kernel forbids it.
    #[error(
        "no permission to listen on {0}: use a port above 1023, grant CAP_NET_BIND_SERVICE, or make the folder writable"
    )]
    Permission(ListenAddr),
    /// A part of the file system that cannot be written to, or not by this process.
    #[error(
        "{addr}: the folder is on a read-only file system, or the unit makes it so (ProtectSystem=strict): choose a path below \
         /run/switchmaster, or add ReadWritePaths={} to the unit",
        .folder.display()
    )]
    ReadOnly {
        /// What was asked for.
        addr: ListenAddr,
        /// Where its file would be.
        folder: PathBuf,
    },
    /// The file of a unix socket was not given to `socket_group`.
    #[error("{addr}: {source}")]
    Group {
        /// What was asked for.
        addr: ListenAddr,
        /// Why.
        source: NotGiven,
    },
    /// The address belongs to no interface of this host.
    #[error("{0} is no address of this host: choose one that `ip address` shows, or 127.0.0.1")]
    NotLocal(SocketAddr),
    /// No socket of this name was passed.
    #[error(
        "systemd:{name}: no socket of this name was passed{}: start the socket unit (FileDescriptorName={name}), \
         or write an address instead",
        and_was(.passed)
    )]
    NotPassed {
        /// What was asked for.
        name: String,
        /// The names that were passed.
        passed: Vec<String>,
    },
    /// What was passed is of no use.
    #[error(
        "systemd:{name}: what was passed is {what}: it takes ListenStream= with an IP address or a path, and Accept=no"
    )]
    NotListening {
        /// What was asked for.
        name: String,
        /// What it is.
        what: String,
    },
    /// A socket that was passed can be reached from other machines.
    #[error(
        "systemd:{name}: {addr} can be reached from other machines, and `allow_from` does not say from which: Redis \
         trusts this proxy, so everybody who reaches it reaches Redis. Add allow_from to the [[proxy]] entry"
    )]
    OpenToAll {
        /// What was asked for.
        name: String,
        /// Where it listens.
        addr: SocketAddr,
    },
    /// The kernel's words for what else went wrong.
    #[error("cannot listen on {addr}: {source}")]
    Socket {
        /// What was asked for.
        addr: ListenAddr,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Why a file was not given to a group, which the kernel does for the group's members alone.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// This process is none.
    #[error(
        "may not give the file to the group {0} (`socket_group`): switchmaster's user has to be in it. In the unit \
         ([Service]): SupplementaryGroups={0}"
    )]
    NotAMember(String),
    /// It is.
    #[error(
        "may not give the file to the group {0} (`socket_group`), although this process is in it: a filter of system calls \
         forbids fchownat. In the unit ([Service]), behind the other filters: SystemCallFilter=fchownat"
    )]
    Filtered(String),
}

impl NotGiven {
    fn to(group: &Group) -> Self {
        let gid = Gid::from_raw(group.gid);
        // Where that cannot be known it is most likely so.
        let is_member = getegid() == gid || getgroups().is_ok_and(|all| all.contains(&gid));
        let name = group.name.clone();
        if is_member {
            Self::Filtered(name)
        } else {
            Self::NotAMember(name)
        }
    }
}

/// Why the file of a socket has not the group and the permissions that it is to have.
#[derive(Debug, thiserror::Error)]
pub enum DressError {
    /// The group.
    #[error(transparent)]
    Group(#[from] NotGiven),
    /// The kernel's words for what else went wrong.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for DressError {
    fn from(errno: Errno) -> Self {
        Self::Io(errno.into())
    }
}

impl BindError {
    /// The exit code of a program that ends for this (`sysexits.h`: EX_CANTCREAT, EX_NOPERM, EX_CONFIG).
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::PortTaken { .. } | Self::SocketTaken(_) | Self::NotASocket(_) => 73,
            Self::Permission(_) | Self::ReadOnly { .. } => 77,
            // Who is in a group is settled before the start: trying again is of no use.
            Self::Group { .. }
            | Self::NotPassed { .. }
            | Self::NotListening { .. }
            | Self::OpenToAll { .. } => 78,
            Self::NotLocal(_) | Self::Socket { .. } => 1,
        }
    }
}

/// Binds one listener of an entry, which is several sockets where systemd passes them.
///
/// # Errors
/// See [`BindError`].
pub fn bind_one(
    addr: &ListenAddr,
    config: &Config,
    passed: &mut Passed,
) -> Result<Vec<Bound>, BindError> {
    match addr {
        ListenAddr::Tcp(at) => Ok(vec![bind_tcp(*at)?]),
        ListenAddr::Unix(path) => Ok(vec![in_turn(path, || bind_unix(path, config))?]),
        ListenAddr::Systemd(name) => passed.take(name, config.is_guarded()),
    }
}

/// Whether this address could be listened on now. Changes nothing: no client is accepted, no file made or removed.
///
/// # Errors
/// See [`BindError`].
pub fn could_bind(addr: &ListenAddr) -> Result<(), BindError> {
    match addr {
        ListenAddr::Tcp(at) => {
            let binding = || {
                let socket = Socket::new(Domain::for_address(*at), Type::STREAM, None)?;
                // As the listener does it; a socket that listens there is in the way all the same (socket(7)).
                socket.set_reuse_address(true)?;
                socket.bind(&(*at).into())
            };
            binding().map_err(|source| tcp_error(*at, source))
        }
        ListenAddr::Unix(path) => could_bind_unix(path),
        // Whoever passes it has it already.
        ListenAddr::Systemd(_) => Ok(()),
    }
}

fn could_bind_unix(path: &Path) -> Result<(), BindError> {
    let addr = || ListenAddr::Unix(path.to_path_buf());
    if let Ok(found) = fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(BindError::NotASocket(path.to_path_buf()));
        }
        match is_taken(path) {
            // It would be replaced.
            Ok(false) => {}
            Ok(true) => return Err(BindError::SocketTaken(path.to_path_buf())),
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(BindError::Permission(addr()));
            }
            Err(source) => {
                return Err(BindError::Socket {
                    addr: addr(),
                    source,
                });
            }
        }
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ACCESS | Errno::PERM) => Err(BindError::Permission(addr())),
        Err(Errno::ROFS) => Err(read_only(path)),
        Err(e) => Err(BindError::Socket {
            addr: addr(),
            source: e.into(),
        }),
    }
}

fn bind_tcp(at: SocketAddr) -> Result<Bound, BindError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
        // A restart must not wait for the last connections of the process before it.
        socket.set_reuse_address(true)?;
        prepare_client_leg(&socket)?;
        socket.bind(&at.into())?;
        socket.listen(BACKLOG)?;
        let addr = socket.local_addr()?.as_socket().unwrap_or(at);
        Ok((socket, addr))
    };
    match listen() {
        Ok((socket, addr)) => Ok(Bound {
            id: SocketId::next(),
            addr: ListenAddr::Tcp(addr),
            asked: ListenAddr::Tcp(at),
            socket,
            file: None,
        }),
        Err(source) => Err(tcp_error(at, source)),
    }
}

fn tcp_error(addr: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken {
            addr,
            holder: holder::of_port(addr.port()),
        },
        io::ErrorKind::PermissionDenied => BindError::Permission(ListenAddr::Tcp(addr)),
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal(addr),
        _ => BindError::Socket {
            addr: ListenAddr::Tcp(addr),
            source,
        },
    }
}

fn bind_unix(path: &Path, config: &Config) -> Result<Bound, BindError> {
    let fail = |source| unix_error(path, source);
    remove_stale(path, fail)?;
    let listen = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = SocketFile::new(path)?;
        // Before listening: nobody connects while the mode is still the umask's.
        file.dress(config)?;
        socket.listen(BACKLOG)?;
        Ok((socket, file))
    };
    let addr = ListenAddr::Unix(path.to_path_buf());
    let (socket, file) = listen().map_err(|error| match error {
        DressError::Group(source) => BindError::Group {
            addr: addr.clone(),
            source,
        },
        DressError::Io(source) => fail(source),
    })?;
    Ok(Bound {
        id: SocketId::next(),
        asked: addr.clone(),
        addr,
        socket,
        file: Some(Arc::new(file)),
    })
}

pub(super) fn unix_error(path: &Path, source: io::Error) -> BindError {
    let addr = ListenAddr::Unix(path.to_path_buf());
    match source.kind() {
        io::ErrorKind::PermissionDenied => BindError::Permission(addr),
        io::ErrorKind::AddrInUse => BindError::SocketTaken(path.to_path_buf()),
        io::ErrorKind::ReadOnlyFilesystem => read_only(path),
        _ => BindError::Socket { addr, source },
    }
}

fn read_only(path: &Path) -> BindError {
    BindError::ReadOnly {
        addr: ListenAddr::Unix(path.to_path_buf()),
        folder: path.parent().unwrap_or(path).to_path_buf(),
    }
}

/// Removes a socket file nobody answers on: what a killed process leaves behind.
fn remove_stale(path: &Path, fail: impl Fn(io::Error) -> BindError) -> Result<(), BindError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        // Missing, or not to be looked at: binding says which.
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_path_buf()));
    }
    match is_taken(path) {
        Ok(false) => clear_away(path).map_err(fail),
        Ok(true) => Err(BindError::SocketTaken(path.to_path_buf())),
        Err(error) => Err(fail(error)),
    }
}

/// The file of a unix socket, removed with it, unless somebody else has put theirs in its place, or it is left to another process.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    ours: AtomicBool,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let made = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_path_buf(),
            device: made.dev(),
            inode: made.ino(),
            ours: AtomicBool::new(true),
        })
    }

    /// Gives it its group and its permissions: the group first, which may be given by its members alone. It, and not what stands at
    /// its path by now: whoever may rename in that folder must not have any file of ours opened to others.
    fn dress(&self, config: &Config) -> Result<(), DressError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(open(&self.path, flags, Mode::empty())?);
        let found = file.metadata()?;
        let is_ours = found.dev() == self.device && found.ino() == self.inode;
        if !is_ours || !found.file_type().is_socket() {
            return Err(io::Error::other("another file has taken its place").into());
        }
        if let Some(group) = &config.socket_group {
            let gid = Some(Gid::from_raw(group.gid));
            match chownat(&file, "", None, gid, AtFlags::EMPTY_PATH) {
                Err(Errno::PERM) => return Err(NotGiven::to(group).into()),
                done => done?,
            }
        }
        // fchmod(2) takes no descriptor of this kind. Its link leads to the file itself, wherever that is by now (proc(5)).
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mode = fs::Permissions::from_mode(config.socket_mode);
        match fs::set_permissions(link, mode.clone()) {
            // No /proc: by its path, which has just led to it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(fs::set_permissions(&self.path, mode)?)
            }
            done => Ok(done?),
        }
    }

    const fn id(&self) -> FileId {
        (self.device, self.inode)
    }

    /// Still another process's.
    fn others(path: &Path) -> io::Result<Self> {
        let file = Self::new(path)?;
        file.ours.store(false, Ordering::Relaxed);
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = || {
            fs::symlink_metadata(&self.path)
                .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode)
        };
        if self.ours.load(Ordering::Relaxed) && same() {
            // Nobody is left to tell; the next start replaces a stale file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn and_was(passed: &[String]) -> String {
    if passed.is_empty() {
        ", nor any other".to_owned()
    } else {
        format!(" (but {})", passed.join(", "))
    }
}

fn by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| format!(" by {holder}"))
}
