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

pub(crate) use accept::{Accepted, Ceiling, Door, Entrance, Ticket, serve};
pub use bind::{BindError, Bound, SocketId, bind_one, could_bind};
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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::Tcp(([127, 0, 0, 1], 6379).into())],
            allow_from: Vec::new(),
            max_connections: 0,
        }
    }
}
