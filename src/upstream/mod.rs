//! Dials the address that proved to be the master, within a deadline: connect, set options.
//!
//! Makes no choice of its own and resolves no name: a name may have other addresses, which proved nothing. What it
//! returns has been sent no byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::socket;
use crate::net::stream::Stream;

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
    /// The kernel's words for what else went wrong (no route, no free port, reset at once).
    #[error("{0}")]
    Connect(#[source] io::Error),
}

impl DialError {
    /// One word for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Refused => "refused",
            Self::OutOfFiles => "out_of_files",
            Self::Connect(_) => "connect",
        }
    }
}

/// Connects to a verified address. Dropping the future gives the attempt up.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(addr: SocketAddr, options: Options) -> Result<Stream, DialError> {
    let stream = timeout(options.connect_timeout, TcpStream::connect(addr))
        .await
        .map_err(|_| DialError::Timeout(options.connect_timeout))?
        .map_err(classify)?;
    socket::prepare_upstream_leg(&stream, options.user_timeout).map_err(classify)?;
    Ok(Stream::Tcp(stream))
}

fn classify(error: io::Error) -> DialError {
    const EMFILE: i32 = rustix::io::Errno::MFILE.raw_os_error();
    const ENFILE: i32 = rustix::io::Errno::NFILE.raw_os_error();
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => DialError::OutOfFiles,
        _ if error.kind() == io::ErrorKind::ConnectionRefused => DialError::Refused,
        _ => DialError::Connect(error),
    }
}
