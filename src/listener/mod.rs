//! Binds, accepts, refuses who is not allowed, deals.
//!
//! ```text
//! bind() -> Bound --serve()--> admitted? --> deal(Accepted)   (whoever carries it decides where it goes)
//! ```
//!
//! Never reads from a connection, and no error of `accept(2)` ends it.

mod accept;
mod bind;
mod holder;
mod inherited;
mod passed;
#[cfg(test)]
mod tests;

use ipnet::IpNet;

use crate::net::addr::ListenAddr;
use crate::net::tls::Acceptor;

pub(crate) use accept::{Accepted, Ceiling, Door, Entrance, Ticket, serve};
pub use bind::{BindError, Bound, SocketId, bind, bind_one, could_bind};
pub use holder::Holder;
pub use inherited::Inherited;
pub use passed::Passed;

/// The part of a `[[proxy]]` entry that concerns accepting.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listen: Vec<ListenAddr>,
    /// Who may connect to a TCP listener, beside this host itself on a loopback listener; empty on loopback = everyone local.
    pub allow_from: Vec<IpNet>,
    /// Most sessions at once, 0 = as many as the descriptor limit allows.
    pub max_connections: usize,
    /// How clients are met; `None` is without TLS.
    pub tls: Option<Acceptor>,
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

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp(([127, 0, 0, 1], 6379).into())],
            allow_from: Vec::new(),
            max_connections: 0,
            tls: None,
        }
    }
}
