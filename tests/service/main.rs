//! The process as a service: how it ends when it is told to, and what it and its service manager say to each other.

#[path = "../harness/mod.rs"]
mod harness;

mod ending;
mod notify;
mod sockets;
mod units;
mod watchdog;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use harness::stream::{SOON, connect};

/// Exit code of an end in which sessions were cut.
pub(crate) const CUT: i32 = 75;
/// Longest end that waits for nobody; a multiple of the second for which a client's last words are read.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(8);

/// The exit code; a signal's end is none.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
}

/// What the admin endpoint answers: code and body.
pub(crate) fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = connect(admin);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or(0), body.to_owned())
}

/// Where a proxy's admin endpoint is.
pub(crate) fn admin_of(proxy: &harness::proxy::Proxy) -> SocketAddr {
    let event = proxy.event("admin_listening", SOON);
    event.text("addr").parse().expect("an address")
}
