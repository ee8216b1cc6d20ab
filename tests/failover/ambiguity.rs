//! Sentinels that name different masters at one epoch: rows 12 and 13, scripted. Row 12 on real ones is in `leader`.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{assert_silent, connect, echoed, read_to_end};
use crate::harness::topology::FOLLOW;
use crate::harness::{holds_for, wait_until};

/// Some rounds of polls, and more than one of the master's own checks.
const ROUNDS: Duration = Duration::from_secs(6);

#[test]
fn row_12_equal_epochs_and_two_masters_the_majority_counts() {
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinels = sentinels(&old, 3);
    let proxy = Proxy::ready(Plan::following(&addrs(&sentinels)));
    for sentinel in &sentinels {
        sentinel.switch_master(new.addr());
    }
    let switched = proxy.event("switched", FOLLOW);
    let (bytes, mark) = (old.bytes(), proxy.mark());

    // What a leader tells that was reset in the middle: the old address with the new epoch. Both nodes say master.
    sentinels[0].update(|view| view.addr = old.addr());
    sentinels[0].publish("+reset-master", "master mymaster 127.0.0.1 1");
    let mut kept = connect(proxy.addr());
    holds_for("traffic to the majority's master", ROUNDS, || {
        echoed(&mut kept, b"x") == b"x" && proxy.sockets_to(old.addr()) == 0
    });
    assert!(proxy.events(mark, "switched").is_empty());
    assert!(proxy.events(mark, "hold_begin").is_empty());
    assert_eq!(old.bytes(), bytes, "not a byte to the minority's address");

    // A proxy that starts now has no past to help it.
    let late = Proxy::ready(Plan::following(&addrs(&sentinels)));
    assert_eq!(
        late.event("ready", FOLLOW).text("master"),
        new.addr().to_string()
    );
    assert_eq!(echoed(&mut connect(late.addr()), b"late"), b"late");
    assert_eq!(old.bytes(), bytes);
    drop(late);

    for sentinel in &sentinels {
        sentinel.update(|view| (view.addr, view.epoch) = (old.addr(), 3));
    }
    let back = proxy.event_after(switched.index + 1, "switched", FOLLOW);
    assert_eq!(back.text("to"), old.addr().to_string(), "a real way back");
    assert_eq!(read_to_end(&mut kept), b"", "cut");
}

#[test]
fn row_13_two_sentinels_disagree_at_one_epoch() {
    let (master, other) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinels = sentinels(&master, 2);
    let proxy = Proxy::ready(
        Plan::following(&addrs(&sentinels)).env("SWITCHMASTER_FAILOVER_HOLD_MAX", "2s"),
    );
    let mut kept = connect(proxy.addr());
    let mark = proxy.mark();
    sentinels[1].update(|view| view.addr = other.addr());
    sentinels[1].publish("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2");
    proxy.event_after(mark, "ambiguous", FOLLOW);
    holds_for("traffic to the master in force", ROUNDS, || {
        echoed(&mut kept, b"x") == b"x"
    });
    assert!(proxy.events(mark, "switched").is_empty());
    assert!(proxy.events(mark, "hold_begin").is_empty());

    // The master in force steps down: nobody else was decided on, so clients wait, and not for ever.
    master.set_role(Role::Replica);
    proxy.event_after(mark, "hold_begin", ROUNDS + FOLLOW);
    assert_eq!(read_to_end(&mut kept), b"", "`hold_max` has passed");
    let mut newcomer = connect(proxy.addr());
    assert_silent(&mut newcomer, Duration::from_millis(500));
    assert!(other.records().is_empty(), "not a byte on a guess");
    assert!(proxy.events(mark, "switched").is_empty());

    sentinels[0].update(|view| view.addr = other.addr());
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), other.addr().to_string());
    proxy.event_after(mark, "ambiguous_end", FOLLOW);
    wait_until("a client to be served", FOLLOW, || {
        echoed(&mut connect(proxy.addr()), b"y") == b"y"
    });
}

fn sentinels(master: &FakeMaster, count: usize) -> Vec<FakeSentinel> {
    (0..count)
        .map(|number| {
            let view = View::of(master.addr()).by(number, count);
            FakeSentinel::start(Protocol::Resp3, view)
        })
        .collect()
}

fn addrs(sentinels: &[FakeSentinel]) -> Vec<SocketAddr> {
    sentinels.iter().map(FakeSentinel::addr).collect()
}
