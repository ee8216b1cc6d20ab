//! Clients that leave while they wait, or that do not read: rows 37 and 38. And the end of the program under load:
//! row 44.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, WireError};

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{assert_silent, connect, echoed};
use crate::harness::topology::{FOLLOW, Topology, idle_client};
use crate::harness::{holds_for, wait_until};

/// The master is asked for its role every 5 s.
const ONE_ROUND: Duration = Duration::from_secs(6);

#[test]
fn row_37_newcomers_that_leave_while_held_are_never_heard() {
    let (old, next) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    next.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    sentinel.switch_master(next.addr());
    proxy.event("hold_begin", FOLLOW);

    let mut stays = connect(proxy.addr());
    stays.write_all(b"stays").expect("written");
    for leave in [Shutdown::Both, Shutdown::Write] {
        let mut leaves = connect(proxy.addr());
        leaves.write_all(b"leaves").expect("written");
        assert_silent(&mut leaves, Duration::from_millis(300));
        leaves.shutdown(leave).expect("a socket");
    }
    next.set_role(Role::Master);
    proxy.event("switched", FOLLOW);
    let mut back = [0; 5];
    stays.read_exact(&mut back).expect("held, then served");
    assert_eq!(&back, b"stays");
    holds_for("nothing of those who left", Duration::from_secs(2), || {
        next.bytes() == 5
    });
}

#[test]
fn row_37_a_kept_client_that_leaves_while_held_is_not_heard() {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let (mut stays, mut leaves) = (connect(proxy.addr()), connect(proxy.addr()));
    for client in [&mut stays, &mut leaves] {
        assert_eq!(echoed(client, b"one"), b"one");
    }
    let mark = proxy.mark();
    master.set_role(Role::Replica);
    proxy.event_after(mark, "hold_begin", ONE_ROUND + FOLLOW);
    for client in [&mut stays, &mut leaves] {
        client.write_all(b"two").expect("written");
    }
    assert_silent(&mut leaves, Duration::from_millis(300));
    drop(leaves);
    master.set_role(Role::Master);
    proxy.event_after(mark, "hold_end", FOLLOW);
    let mut back = [0; 3];
    stays.read_exact(&mut back).expect("held, then served");
    assert_eq!(&back, b"two");
    holds_for(
        "nothing of the one who left",
        Duration::from_secs(2),
        || master.bytes() == 9,
    );
}

#[test]
fn row_38_a_client_that_does_not_read_is_kept_and_cut_at_a_switch() {
    const REPLY: u64 = 64 * 1024 * 1024;
    /// Far below the reply: what a session and its sockets may cost a process.
    const BOUND_KIB: u64 = 4 * 1024;
    let old = FakeMaster::start(Bytes::Source(REPLY));
    let next = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let before = proxy.rss_kib();
    let mut slow = connect(proxy.addr());
    slow.write_all(b"go").expect("written");
    wait_until("the reply to begin", FOLLOW, || {
        proxy.sockets_to(old.addr()) == 2
    });
    holds_for("little memory, and no end", Duration::from_secs(3), || {
        proxy.rss_kib() <= before + BOUND_KIB && proxy.sockets_to(old.addr()) >= 2
    });
    let mut other = connect(proxy.addr());
    other.write_all(b"go").expect("written");
    other.read_exact(&mut [0; 1024]).expect("served meanwhile");

    sentinel.switch_master(next.addr());
    let switched = proxy.event("switched", FOLLOW);
    assert!(switched.number("cut") >= 2.0, "{}", switched.fields);
    assert!(
        switched.number("fence_ms") <= 500.0,
        "who does not read holds up nobody: {}",
        switched.fields
    );
    wait_until("no socket to the old master", FOLLOW, || {
        proxy.sockets_to(old.addr()) == 0
    });
    assert_eq!(echoed(&mut connect(proxy.addr()), b"next"), b"next");
    assert!(proxy.rss_kib() <= before + BOUND_KIB);
    let mut rest = Vec::new();
    // A reset ends it as well as an end of the stream.
    drop(slow.read_to_end(&mut rest));
    assert!((rest.len() as u64) < REPLY, "the reply was completed");
}

#[test]
fn row_44_sigterm_under_load() {
    const END: Duration = Duration::from_secs(15);
    let servers = Topology::start();
    let plan = Plan::following(&servers.sentinels());
    let proxy = Proxy::ready(plan.env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "2s"));
    let addr = proxy.addr();
    let mut idle = idle_client(&proxy);
    let mut blocked = idle_client(&proxy);
    blocked.send(&["BLPOP", "nothing", "0"]).expect("sent");
    let writers = Writers::start(addr, 8, Duration::ZERO);
    let status = proxy.terminate(END);
    // The blocked one had to be cut.
    assert_eq!(status.code(), Some(75), "{status}");
    for client in [&mut idle, &mut blocked] {
        client.set_timeout(FOLLOW);
        assert!(matches!(
            client.read(),
            Err(WireError::Closed | WireError::Io(_))
        ));
    }
    assert!(
        Conn::connect(addr, FOLLOW).is_err(),
        "nobody listens any more"
    );
    let history = writers.stop();
    let mut master = servers.direct(servers.master().addr());
    history.assert_at_most_once(&mut master);
    assert_eq!(
        history.lost(&mut master).len(),
        0,
        "nothing acknowledged is missing"
    );
    assert_eq!(history.count(|o| matches!(o, Outcome::Refused(_))), 0);
    assert!(history.count(|o| *o == Outcome::Unknown) <= 8);
}
