//! Why a connection is closed at the door, and what errors of `accept(2)` mean; each with its word and with what to do.

use std::io;

use rustix::io::Errno;

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAllowed,
    Full,
    OpenFiles,
    NoWorker,
    FullAnywhere,
    SourceFull,
    NotAUser,
    UnknownUser,
    NoHeader,
}

impl Refusal {
    /// Every refusal once, in order.
    pub(super) const ALL: [Self; 9] = [
        Self::NotAllowed,
        Self::Full,
        Self::OpenFiles,
        Self::NoWorker,
        Self::FullAnywhere,
        Self::SourceFull,
        Self::NotAUser,
        Self::UnknownUser,
        Self::NoHeader,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Full => "max_connections",
            Self::OpenFiles => "open_files",
            Self::NoWorker => "no_worker",
            Self::FullAnywhere => "max_connections_in_all",
            Self::SourceFull => "max_connections_per_source",
            Self::NotAUser => "uid_not_allowed",
            Self::UnknownUser => "uid_unknown",
            Self::NoHeader => "no_proxy_header",
        }
    }

    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::NotAllowed => "add its address to `allow_from` if it may connect",
            Self::Full => {
                "as many are open as may be: raise `max_connections` if there may be more (the admin endpoint has 64)"
            }
            Self::OpenFiles => {
                "there are as many sessions as the limit of open files allows, two files a session; raise LimitNOFILE in the unit (or `ulimit -n`)"
            }
            Self::NoWorker => "no worker took it; raise `[limits] workers` if this goes on",
            Self::FullAnywhere => {
                "as many are open over all entries as may be: raise `max_connections` in [limits] if there may be more"
            }
            Self::SourceFull => {
                "as many are open from there as may be: raise `max_connections_per_source` if there may be more"
            }
            Self::NotAUser => "add the user to `allowed_uids` if it may connect",
            Self::UnknownUser => {
                "the kernel does not say which user it is (uid 65534, or kernel.overflowuid: one of another user namespace, as in a container, or PrivateUsers= \
                 in the unit), so `allowed_uids` cannot let it in"
            }
            Self::NoHeader => {
                "it is in `proxy_protocol_from` and sent no header of the PROXY protocol within 5 s, or something else: let it send one, or remove it there"
            }
        }
    }
}

/// What an error of `accept(2)` means for the loop. None of them ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// This one connection is lost; the next may be fine.
    Connection,
    /// No descriptor left in this process.
    ProcessFiles,
    /// No descriptor or memory left on this machine.
    MachineResources,
    /// Anything that may last.
    Listener,
}

impl Trouble {
    /// Every trouble once, in order.
    pub(super) const ALL: [Self; 4] = [
        Self::Connection,
        Self::ProcessFiles,
        Self::MachineResources,
        Self::Listener,
    ];

    pub(super) fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Listener;
        };
        match errno {
            // accept(2): errors of the network already pending on the new socket are to be treated like EAGAIN.
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH => Self::Connection,
            Errno::MFILE => Self::ProcessFiles,
            Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::MachineResources,
            _ => Self::Listener,
        }
    }

    /// Trying again at once would burn a core for the same answer.
    pub(super) const fn pauses(self) -> bool {
        !matches!(self, Self::Connection)
    }

    pub(super) const fn advice(self) -> &'static str {
        match self {
            Self::Connection => "the client gave up before it was accepted; nothing to do",
            Self::ProcessFiles => {
                "every file descriptor is in use, two a session; raise LimitNOFILE in the unit (or `ulimit -n`)"
            }
            Self::MachineResources => {
                "the machine is out of file descriptors or socket memory; raise fs.file-max or free memory"
            }
            Self::Listener => "the listening socket fails; connections that are open go on",
        }
    }
}
