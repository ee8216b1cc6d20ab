//! Dials an address that was decided on, within a deadline: resolve, connect, set options.
//!
//! Makes no choice of its own: it is handed a [`MasterAddr`], and what it returns has been sent no byte.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::net::addr::{Host, HostPort};
use crate::net::socket;
use crate::net::stream::Stream;
use crate::topology::MasterAddr;

/// Longest wait for a name to be resolved.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
/// Most addresses of one name that are tried.
const ADDRESS_LIMIT: usize = 8;

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
    /// The resolver said no.
    #[error("the name cannot be resolved: {0}")]
    Resolve(#[source] io::Error),
    /// The resolver said nothing.
    #[error(
        "the name was not resolved within {}",
        humantime::format_duration(RESOLVE_LIMIT)
    )]
    ResolveTimeout,
    /// The resolver knows the name but no address of it.
    #[error("the name has no address")]
    NoAddress,
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
            Self::Resolve(_) => "resolve",
            Self::ResolveTimeout => "resolve_timeout",
            Self::NoAddress => "no_address",
            Self::Timeout(_) => "timeout",
            Self::Refused => "refused",
            Self::OutOfFiles => "out_of_files",
            Self::Connect(_) => "connect",
        }
    }
}

/// Connects to a decided master; the addresses of a name are tried in the resolver's order. Dropping the
/// future gives the attempt up.
///
/// # Errors
/// The last address' error, see [`DialError`].
pub async fn dial(master: &MasterAddr, options: Options) -> Result<Stream, DialError> {
    let target = master.host_port();
    let mut last = DialError::NoAddress;
    for addr in resolve(target).await?.into_iter().take(ADDRESS_LIMIT) {
        match connect(addr, options).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn resolve(target: &HostPort) -> Result<Vec<SocketAddr>, DialError> {
    match &target.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, target.port)]),
        Host::Name(name) => {
            match timeout(RESOLVE_LIMIT, lookup_host((name.as_str(), target.port))).await {
                Ok(Ok(found)) => Ok(found.collect()),
                Ok(Err(error)) => Err(DialError::Resolve(error)),
                Err(_) => Err(DialError::ResolveTimeout),
            }
        }
    }
}

async fn connect(addr: SocketAddr, options: Options) -> Result<Stream, DialError> {
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
