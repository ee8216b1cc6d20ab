//! More clients than there are descriptors for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::{raise_descriptor_limit, wait_until};
use crate::{SOON, connect, echoed, read_to_end};

/// What the proxy may open, and more clients than that.
const OPEN_FILES: u32 = 300;
const FLOOD: usize = 400;

#[test]
fn a_flood_of_clients_leaves_the_descriptors_a_failover_needs() {
    raise_descriptor_limit();
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    // A hold that is longer than the test waits: nobody's end sets descriptors free.
    let proxy = Proxy::ready(
        Plan::following(&[sentinel.addr()])
            .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "60s")
            .open_files(OPEN_FILES),
    );
    let mut first = connect(proxy.addr());
    assert_eq!(echoed(&mut first, b"before"), b"before");
    let mut flood: Vec<TcpStream> = (0..FLOOD).map(|_| connect(proxy.addr())).collect();
    let refused = proxy.event("client_refused", SOON);
    assert_eq!(refused.text("reason"), "open_files");
    assert!(refused.text("message").contains("LimitNOFILE"));
    let last = flood.last_mut().expect("a flood");
    assert_eq!(
        read_to_end(last),
        b"",
        "refused, and those before it sorted"
    );
    assert_eq!(proxy.events(0, "accept_failed").len(), 0);
    assert_eq!(echoed(&mut first, b"during"), b"during");

    sentinel.switch_master(new.addr());
    let switched = proxy.event("switched", SOON);
    assert_eq!(switched.text("to"), new.addr().to_string());
    assert_eq!(read_to_end(&mut first), b"", "cut");
    for client in &mut flood {
        assert_eq!(read_to_end(client), b"", "cut, or refused before");
    }
    drop(flood);
    wait_until("places to come free", SOON, || is_served(proxy.addr()));
}

fn is_served(by: SocketAddr) -> bool {
    let mut client = connect(by);
    let mut back = [0; 5];
    // A refused client may find its connection reset under its hands.
    client.write_all(b"after").is_ok() && client.read_exact(&mut back).is_ok() && &back == b"after"
}
