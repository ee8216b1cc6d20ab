//! Clients that speak something else, say nothing, say too much, or come in thousands: nothing of it reaches the master that should
//! not, memory is bounded, and honest clients are served meanwhile. What it cost is printed.

#[path = "../harness/mod.rs"]
mod harness;

mod balancer;
mod crowds;
mod first_words;
mod garbage;
mod places;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use harness::fake_sentinel::FakeSentinel;
use harness::stream::SOON;
use switchmaster::net::clock::now;

/// One entry in front of a scripted Sentinel, in this mode, with more keys of its own and of other tables.
pub(crate) fn file(sentinel: &FakeSentinel, mode: &str, entry: &str, more: &str) -> String {
    format!(
        "[sentinel]\naddresses = [\"{}\"]\n[failover]\non_switch = \"{mode}\"\n{more}\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n{entry}\n",
        sentinel.addr()
    )
}

/// The value of a counter, all its labels but for these summed up.
pub(crate) fn counted(page: &str, name: &str, label: &str) -> f64 {
    let of_name = |line: &&str| line.starts_with(name) && line.contains(label);
    let lines = page.lines().filter(of_name);
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Closed by the other side, with or without a reset.
pub(crate) fn is_closed(client: &TcpStream) -> bool {
    client.set_nonblocking(true).expect("a socket");
    let closed = match client.peek(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    };
    client.set_nonblocking(false).expect("a socket");
    closed
}

/// Honest clients: each connects, pings and leaves; how long each took, in ascending order.
pub(crate) fn pings(to: SocketAddr, count: usize) -> Vec<Duration> {
    let mut took: Vec<_> = (0..count)
        .map(|_| {
            let begun = now();
            let mut conn = switchmaster::demo::wire::Conn::connect(to, SOON).expect("it listens");
            let pong = conn.call(&["PING"]).expect("an answer");
            assert_eq!(pong.text().as_deref(), Some("PONG"));
            now().since(begun)
        })
        .collect();
    took.sort();
    took
}

/// What a bench would show, past the test runner, which shows no output of tests that pass; nothing is asserted of it.
pub(crate) fn tell(what: &str, peak_kib: u64, honest: &[Duration]) {
    let at = |of_1000: usize| {
        let index = honest.len() * of_1000 / 1000;
        let index = index.min(honest.len().saturating_sub(1));
        honest.get(index).copied().unwrap_or_default()
    };
    let told = writeln!(
        std::io::stderr(),
        "{what}: peak memory {peak_kib} KiB; {} honest clients meanwhile: median {:?}, p99 {:?}, longest {:?}",
        honest.len(),
        at(500),
        at(990),
        at(1000)
    );
    // A run whose stderr is gone is a run all the same.
    drop(told);
}

/// VmHWM of a process.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("proc(5): a number of kB")
}
