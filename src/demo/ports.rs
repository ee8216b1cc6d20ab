//! Free loopback ports for servers that must be told their port.
//!
//! Outside the range the kernel hands out to clients, so that no outgoing connection takes one while its
//! server is down for a moment. Two processes may still choose the same: the server that loses says so in
//! its log, and the topology starts again elsewhere.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below Linux' default `ip_local_port_range` (32768-60999).
const RANGE: std::ops::Range<u16> = 10_000..32_000;

static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port of 127.0.0.1 that nobody listens on; no one else in this process gets it until it is dropped.
#[derive(Debug)]
pub(super) struct Port(u16);

impl Port {
    /// `None` when the whole range is taken.
    pub(super) fn reserve() -> Option<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = taken.get_or_insert_default();
        let start = fastrand::u16(RANGE);
        let port = (start..RANGE.end)
            .chain(RANGE.start..start)
            .find(|port| !taken.contains(port) && is_free(*port))?;
        taken.insert(port);
        Some(Self(port))
    }

    pub(super) fn addr(&self) -> SocketAddr {
        loopback(self.0)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = taken.as_mut() {
            taken.remove(&self.0);
        }
    }
}

/// 127.0.0.1 at `port`.
pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether `port` of 127.0.0.1 could be listened on a moment ago.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}
