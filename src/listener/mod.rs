//! Binds, accepts, refuses who is not allowed, deals.
//!
//! ```text
//! bind() -> Bound --serve()--> admitted? --> deal(Accepted)   (whoever carries it decides where it goes)
//! ```
//!
//! Never reads from a connection, but for the header of a balancer (`proxy_protocol_from`), and no error of `accept(2)` ends it.

mod accept;
mod bind;
pub mod conveyed;
mod header;
mod holder;
mod inherited;
mod neighbours;
mod passed;
mod places;
mod refusal;
mod sources;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use ipnet::IpNet;

use crate::net::addr::ListenAddr;
use crate::net::tls::Acceptor;

pub(crate) use accept::{Accepted, Door, Entrance, Greeting, serve};
pub use bind::{BindError, Bound, DressError, FileId, NotGiven, SocketId, bind_one, could_bind};
pub use holder::Holder;
pub use inherited::Inherited;
pub use passed::Passed;
pub(crate) use places::{Ceiling, Ticket};

/// The part of a `[[proxy]]` entry that concerns accepting.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<ListenAddr>,
    /// Who may connect to a TCP listener, and nobody else; empty = this host itself, on loopback.
    pub allow_from: Vec<IpNet>,
    /// Most sessions at once, 0 = as many as the descriptor limit allows.
    pub max_connections: usize,
    /// Most of them from one address, or one IPv6 network of 64 bits; 0 = as many as come.
    pub max_per_source: usize,
    /// Most sessions over all entries, 0 = as many as the descriptor limit allows.
    pub max_anywhere: usize,
    /// Balancers that convey their clients' addresses, and from which nothing else is taken.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Who may connect to a unix socket, by the kernel's word; empty = whoever may open the file.
    pub allowed_uids: Vec<u32>,
    /// Permissions of the files of unix sockets.
    pub socket_mode: u32,
    /// Their group, where it is not that of the process.
    pub socket_group: Option<Group>,
    /// How clients are met; `None` is without TLS.
    pub tls: Option<Acceptor>,
}

/// A group of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// As it was written.
    pub name: String,
    /// What the kernel knows.
    pub gid: u32,
}

impl Config {
    /// It is known who may connect from other machines: by their addresses, or as they have to prove who they are.
    pub fn is_guarded(&self) -> bool {
        !self.allow_from.is_empty() || self.demands_certificates()
    }

    fn demands_certificates(&self) -> bool {
        self.tls
            .as_ref()
            .is_some_and(Acceptor::demands_certificates)
    }
}

/// What a user is called whom the kernel cannot name here: one of another user namespace (user_namespaces(7)); unless this machine
/// was told otherwise.
pub const OVERFLOW_UID: u32 = 65534;
/// Where it is told (proc(5)); not to be seen with `ProcSubset=pid`, and then it is what it always is.
const OVERFLOW_UID_FILE: &str = "/proc/sys/kernel/overflowuid";
/// Owner and group may connect to a unix socket.
pub const DEFAULT_SOCKET_MODE: u32 = 0o660;

/// What such a user is called on this machine. Looked up once: it has to hold before the first client comes.
pub(crate) fn overflow_uid() -> u32 {
    static UID: OnceLock<u32> = OnceLock::new();
    let read = || std::fs::read_to_string(OVERFLOW_UID_FILE).ok();
    *UID.get_or_init(|| {
        read()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(OVERFLOW_UID)
    })
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp(([127, 0, 0, 1], 6379).into())],
            allow_from: Vec::new(),
            max_connections: 0,
            max_per_source: 0,
            max_anywhere: 0,
            proxy_protocol_from: Vec::new(),
            allowed_uids: Vec::new(),
            socket_mode: DEFAULT_SOCKET_MODE,
            socket_group: None,
            tls: None,
        }
    }
}
