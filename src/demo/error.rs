//! Why a demo ends before its time, and with which exit code.

use std::io;
use std::net::SocketAddr;

use super::cluster::ClusterError;
use super::server::ServerNotFound;
use super::wait::TimedOut;

/// Exit codes; the last two as in sysexits.h.
pub(super) const FAILED: u8 = 1;
const NO_SERVER: u8 = 69;
pub(super) const PORT_TAKEN: u8 = 73;

/// Why a demo ends before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    /// The operator wants to end: a key or a signal.
    #[error("interrupted")]
    Quit,
    /// No server on this machine.
    #[error(transparent)]
    Server(#[from] ServerNotFound),
    /// The topology does not do as it should.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Nothing to listen on.
    #[error("{0}")]
    Port(String),
    /// The system refuses.
    #[error("{what}: {source}")]
    Io {
        what: &'static str,
        source: io::Error,
    },
    /// A step did not come to its end.
    #[error(
        "{timeout}\nthe end of switchmaster's log:\n{proxy}\nthe end of a Sentinel's log:\n{sentinel}"
    )]
    Stuck {
        timeout: TimedOut,
        proxy: String,
        sentinel: String,
    },
    /// The proxy ended by itself.
    #[error("switchmaster ended by itself ({how}); the end of its log:\n{tail}")]
    ProxyEnded { how: String, tail: String },
    /// The final master could not be read.
    #[error("reading the acknowledged writes back from {master}: {why}")]
    ReadBack { master: SocketAddr, why: String },
}

impl DemoError {
    /// What the process ends with.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Server(_) => NO_SERVER,
            Self::Port(_) => PORT_TAKEN,
            Self::Quit
            | Self::Cluster(_)
            | Self::Io { .. }
            | Self::Stuck { .. }
            | Self::ProxyEnded { .. }
            | Self::ReadBack { .. } => FAILED,
        }
    }
}
