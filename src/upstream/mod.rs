//! Dials the address that proved to be the master, within a deadline: connect, set options, shake hands where there is TLS.
//!
//! Makes no choice of its own and resolves no name: a name may have other addresses, which proved nothing. What it
//! returns has been sent no byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::addr::Host;
use crate::net::socket;
use crate::net::stream::Stream;
use crate::net::tls::{Connector, TlsError};

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Longest wait for one address to accept.
    pub connect_timeout: Duration,
    /// `TCP_USER_TIMEOUT` of the connection.
    pub user_timeout: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing answered in time: host down, packets dropped, or its accept queue is full.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// This process has no descriptor left.
    #[error("too many open files: raise LimitNOFILE")]
    OutOfFiles,
    /// Every port of this host is in use or in TIME_WAIT towards this one address; one comes free sooner or later.
    #[error(
        "no free local port towards it: widen net.ipv4.ip_local_port_range or set net.ipv4.tcp_tw_reuse (docs/connections.md)"
    )]
    NoPort,
    /// It answers, and there is no TLS with it.
    #[error("{0}")]
    Tls(TlsError),
    /// The kernel's words for what else went wrong (no route, reset at once).
    #[error("{0}")]
    Connect(#[source] io::Error),
}

impl DialError {
    /// The words there are for logs and metrics; public interface.
    pub const LABELS: [&'static str; 6] = [
        "timeout",
        "refused",
        "out_of_files",
        "no_port",
        "connect",
        "tls",
    ];

    /// The place of its word among [`LABELS`](Self::LABELS), and of what is counted by it.
    pub const fn index(&self) -> usize {
        match self {
            Self::Timeout(_) => 0,
            Self::Refused => 1,
            Self::OutOfFiles => 2,
            Self::NoPort => 3,
            Self::Connect(_) => 4,
            Self::Tls(_) => 5,
        }
    }

    /// One word for logs and metrics.
    pub const fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// True when nothing was sent to the master, so that nothing can be concluded about it.
    pub const fn is_our_own(&self) -> bool {
        matches!(self, Self::OutOfFiles | Self::NoPort)
    }
}

/// Connects to a verified address, with TLS as the host that it is of. Dropping the future gives the attempt up.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    addr: SocketAddr,
    options: Options,
    tls: Option<(&Connector, &Host)>,
) -> Result<Stream, DialError> {
    let stream = timeout(options.connect_timeout, TcpStream::connect(addr))
        .await
        .map_err(|_| DialError::Timeout(options.connect_timeout))?
        .map_err(classify)?;
    socket::prepare_upstream_leg(&stream, options.user_timeout).map_err(classify)?;
    let stream = Stream::Tcp(stream);
    match tls {
        Some((connector, host)) => connector.connect(stream, host).await.map_err(refused),
        None => Ok(stream),
    }
}

fn refused(error: TlsError) -> DialError {
    if error.is_silent() {
        DialError::Connect(io::Error::other(error))
    } else {
        DialError::Tls(error)
    }
}

fn classify(error: io::Error) -> DialError {
    const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
    const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => DialError::OutOfFiles,
        _ => match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Refused,
            // connect(2) without a bound address: the kernel looks for a port that is free towards this destination.
            io::ErrorKind::AddrNotAvailable => DialError::NoPort,
            _ => DialError::Connect(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_a_failed_dial_is_called_and_whose_fault_it_is() {
        for (errno, label, is_our_own) in [
            (Errno::ADDRNOTAVAIL, "no_port", true),
            (Errno::MFILE, "out_of_files", true),
            (Errno::NFILE, "out_of_files", true),
            (Errno::CONNREFUSED, "refused", false),
            (Errno::HOSTUNREACH, "connect", false),
        ] {
            let error = classify(errno.into());
            assert_eq!((error.label(), error.is_our_own()), (label, is_our_own));
        }
    }
}
