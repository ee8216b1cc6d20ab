//! Counting sockets in proc(5)'s `/proc/net/tcp`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

/// A state as the table writes it (the kernel's `tcp_states.h`).
pub(crate) const ESTABLISHED: &str = "01";
/// The peer has closed, and this side has not noticed yet.
pub(crate) const CLOSE_WAIT: &str = "08";
/// Closed by this side first, and remembered for a while.
pub(crate) const TIME_WAIT: &str = "06";

/// An address as the table writes it: in hexadecimal, as the machine stores it.
pub(crate) fn written(addr: SocketAddr) -> String {
    let SocketAddr::V4(addr) = addr else {
        panic!("tests count IPv4 connections");
    };
    let ip = u32::from_ne_bytes(addr.ip().octets());
    format!("{ip:08X}:{:04X}", addr.port())
}

/// Sockets of `table` in this state from an address (of whatever port) to this one.
pub(crate) fn between(table: &str, from: Ipv4Addr, to: SocketAddr, state: &str) -> usize {
    let from = format!("{:08X}:", u32::from_ne_bytes(from.octets()));
    let to = written(to);
    count(table, state, |local, remote| {
        local.starts_with(&from) && remote == to
    })
}

/// Sockets of `table` in this state whose own end is `local`.
pub(crate) fn at(table: &str, local: SocketAddr, state: &str) -> usize {
    let at = written(local);
    count(table, state, |local, _| local == at)
}

fn count(table: &str, state: &str, is_one: impl Fn(&str, &str) -> bool) -> usize {
    let all = table
        .lines()
        .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>())
        .filter(|f| f.len() == 4 && f[3] == state && is_one(f[1], f[2]));
    // Read piece by piece while others open and close connections, the table may name one twice.
    let ends: BTreeSet<_> = all.map(|f| (f[1], f[2])).collect();
    ends.len()
}
