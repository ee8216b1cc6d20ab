//! More clients than there are descriptors for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::free_address;
use crate::harness::{holds_for, raise_descriptor_limit, wait_until};
use crate::{SOON, connect, echoed, read_to_end};

/// More clients than any proxy here may open files for.
const FLOOD: usize = 400;
/// How long an accept loop is watched that has nothing to accept with, and many more errors than one makes that pauses.
const WATCH: Duration = Duration::from_secs(2);
const SPINNING: f64 = 1000.0;

#[test]
fn a_flood_of_clients_leaves_the_descriptors_a_failover_needs() {
    is_followed_through_a_flood(300);
}

#[test]
fn so_it_does_where_there_are_hardly_any() {
    is_followed_through_a_flood(64);
}

fn is_followed_through_a_flood(open_files: u32) {
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
            .open_files(open_files),
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
    let status = proxy.status();
    assert!(status.number("refused") >= 1.0, "{}", status.fields);
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

/// A limit that others have lowered, or a machine that has no more: what no ceiling of sessions can foresee.
#[test]
fn without_a_descriptor_accepting_pauses_and_a_failover_is_followed() {
    const HELD: usize = 20;
    /// Clients that are let in and find no descriptor for their upstream, so that each that comes free has somebody waiting.
    const THIRSTY: u64 = 5;
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    // One is not there, and dialled again and again with a descriptor that was kept back.
    let proxy = Proxy::ready(
        Plan::following(&[sentinel.addr(), free_address()])
            .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "60s"),
    );
    let mut first = connect(proxy.addr());
    assert_eq!(echoed(&mut first, b"before"), b"before");
    let mut held: Vec<TcpStream> = (0..HELD).map(|_| connect(proxy.addr())).collect();
    for client in &mut held {
        assert_eq!(echoed(client, b"held"), b"held");
    }
    let links = sentinel.links();
    let mark = proxy.mark();

    let open = proxy.open_fds();
    proxy.limit_open_files(open as u64 + THIRSTY);
    let mut late: Vec<TcpStream> = (0..HELD).map(|_| connect(proxy.addr())).collect();
    for client in &mut late {
        client.write_all(b"late").expect("written");
    }
    let failed = proxy.event_after(mark, "accept_failed", SOON);
    assert!(failed.text("message").contains("LimitNOFILE"));
    let before = proxy.status().number("accept_errors");
    assert!(before >= 1.0);
    holds_for("service of who is inside", WATCH, || {
        assert_eq!(echoed(&mut first, b"during"), b"during");
        ["hold_begin", "switched", "sentinel_down"]
            .iter()
            .all(|event| proxy.events(mark, event).is_empty())
    });
    assert_eq!(
        sentinel.links(),
        links,
        "the control plane keeps what it has"
    );
    let during = proxy.status().number("accept_errors") - before;
    assert!(during < SPINNING, "{during} errors within {WATCH:?}");

    // Nobody gives a descriptor back before the switch: the new master is asked with one of those kept back.
    sentinel.switch_master(new.addr());
    let switched = proxy.event_after(mark, "switched", SOON);
    assert_eq!(switched.text("to"), new.addr().to_string());
    for client in held.iter_mut().chain([&mut first]) {
        assert_eq!(read_to_end(client), b"", "cut");
    }
    drop(held);
    for client in &mut late {
        let mut back = [0; 4];
        client.read_exact(&mut back).expect("served in the end");
        assert_eq!(&back, b"late");
    }
    drop(late);
    wait_until("places to come free", SOON, || is_served(proxy.addr()));
    proxy.ask_to_end();
    let stopped = proxy.event("stopped", SOON);
    assert!(
        stopped.number("accept_errors") >= before,
        "{}",
        stopped.fields
    );
}

fn is_served(by: SocketAddr) -> bool {
    let mut client = connect(by);
    let mut back = [0; 5];
    // A refused client may find its connection reset under its hands.
    client.write_all(b"after").is_ok() && client.read_exact(&mut back).is_ok() && &back == b"after"
}
