//! Masters that take no connection: one whose queue of those it has not accepted is full, and one that refuses.

use std::collections::BTreeSet;
use std::fs;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use super::*;

/// State of a connection in `/proc/net/tcp` (the kernel's `tcp_states.h`).
const SYN_SENT: &str = "02";

/// Dials to it hang until [`Busy::make_room`]; the kernel tries a dropped SYN again after a second.
pub(super) struct Busy {
    listener: TcpListener,
    fillers: Vec<TcpStream>,
}

impl Busy {
    pub(super) fn new() -> Self {
        let listener = deaf();
        listen(&listener, 0).expect("listen");
        let addr = listener.local_addr().expect("addr");
        // A queue of length 0 takes one.
        let fillers = vec![TcpStream::connect(addr).expect("connect")];
        Self { listener, fillers }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("addr")
    }

    /// Connections that are being made to it.
    pub(super) fn dials(&self) -> usize {
        // proc(5): addresses in hexadecimal as the machine stores them.
        let ip = u32::from_ne_bytes([127, 0, 0, 1]);
        let remote = format!("{ip:08X}:{:04X}", self.addr().port());
        let table = fs::read_to_string("/proc/net/tcp").expect("Linux tells its sockets");
        let dials = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|columns| columns.len() > 3 && columns[2] == remote && columns[3] == SYN_SENT);
        // Read piece by piece while others open and close connections, the table may name one twice; its own address is its alone.
        dials
            .map(|columns| columns[1].to_owned())
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Takes what filled the queue, and gives the first connection that the proxy made.
    pub(super) fn make_room(&self) -> TcpStream {
        for _ in &self.fillers {
            accept(&self.listener);
        }
        accept(&self.listener)
    }
}

/// Owns a port and does not listen: dials are refused, nobody else is given the port, and no dial can be given it as
/// its own and so meet itself.
pub(super) fn deaf() -> TcpListener {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let descriptor = socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
    bind(&descriptor, &any).expect("bind");
    TcpListener::from(descriptor)
}

/// Dials outlast what a test does meanwhile.
pub(super) fn slow_to_connect() -> Options {
    Options {
        session: session::Config {
            connect_timeout: PATIENCE,
            ..session::Config::default()
        },
        ..Options::default()
    }
}
