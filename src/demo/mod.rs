//! A local topology of real servers, the proxy in front, traffic through it.

pub mod cluster;
mod cluster_config;
pub mod guard;
pub mod instance;
mod ports;
pub mod server;
mod settle;
pub mod wait;
pub mod wire;

use std::path::PathBuf;

/// What the demo does to the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// `SENTINEL FAILOVER`.
    Planned,
    /// SIGKILL to the master.
    Kill,
    /// SIGSTOP to the master; thawed after the failover, to show that it is not written to.
    Freeze,
}

/// What the operator asked for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Events to run one after the other without a terminal; `None` = interactive where there is a terminal.
    pub script: Option<Vec<Event>>,
    /// The server to start; `None` = look for one.
    pub server_bin: Option<PathBuf>,
    /// Port of the proxy on 127.0.0.1; `None` = 6379, or the next free one.
    pub port: Option<u16>,
}

/// Runs the demo; returns the exit code.
pub fn run(_options: &Options) -> u8 {
    1
}

/// Children that die with this process.
pub mod guard {
    use std::ffi::{OsStr, OsString};
    use std::io;

    /// Becomes `program`; returns why that failed.
    pub fn exec(_arg0: &OsStr, _program: &OsStr, _args: &[OsString]) -> io::Error {
        io::ErrorKind::Unsupported.into()
    }
}
