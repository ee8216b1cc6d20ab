//! The scripted Sentinel names another master.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::{holds_for, pattern, wait_until};
use crate::{SOON, Stage, assert_silent, connect, echoed, read_to_end};

/// A process that was not run for so long must confirm what it believes.
const STANDSTILL: Duration = Duration::from_secs(1);
#[test]
fn nothing_reaches_the_old_master_after_switched() {
    let stage = Stage::set(Bytes::Sink);
    let next = FakeMaster::start(Bytes::Echo);
    let flood = stage.client();
    let flooding = thread::spawn(move || pattern::write(&flood, u64::MAX).expect_err("it ends"));
    wait_until("the flood to arrive", SOON, || {
        stage.master.records().first().is_some_and(|r| r.bytes > 0)
    });
    stage.sentinel.switch_master(next.addr());
    let switched = stage.proxy.event("switched", SOON);
    assert!(switched.number("cut") >= 1.0, "{}", switched.fields);
    flooding.join().expect("the client is cut, too");

    wait_until("the old end to see its end", SOON, || {
        stage.master.records()[0].ended
    });
    let taken = stage.master.records();
    let mut newcomer = stage.client();
    assert_eq!(echoed(&mut newcomer, b"after"), b"after");
    holds_for("silence at the old master", Duration::from_secs(1), || {
        let records = stage.master.records();
        records.len() == taken.len() && records[0].bytes == taken[0].bytes
    });
}

/// An announcement that waits for the answers of other questions comes when the successor is a master already.
#[test]
fn an_announcement_does_not_wait_for_an_answer() {
    /// A machine that stands still for a question's deadline proves nothing; one that never does otherwise does.
    const ATTEMPTS: usize = 5;
    for protocol in [Protocol::Resp2Only, Protocol::Resp3] {
        let in_time = || {
            let (master, successor) = (
                FakeMaster::start(Bytes::Echo),
                FakeMaster::start(Bytes::Echo),
            );
            successor.set_role(Role::Replica);
            let sentinel = FakeSentinel::start(protocol, View::of(master.addr()));
            let plan = Plan::following(&[sentinel.addr()]).args(["--log", "debug"]);
            let proxy = Proxy::ready(plan);
            wait_until("a subscription", SOON, || sentinel.subscribers() == 1);
            sentinel.withhold_answers(true);
            let mark = proxy.mark();
            wait_until("a question", SOON, || sentinel.withheld() > 0);
            sentinel.announce(successor.addr());
            let hold = proxy.event_after(mark, "hold_begin", SOON);
            assert_eq!(hold.text("cause"), "announced");
            let late = proxy.events(mark, "sentinel_slow");
            late.iter().all(|slow| slow.written() > hold.written())
        };
        assert!((0..ATTEMPTS).any(|_| in_time()), "{protocol:?}");
    }
}

#[test]
fn a_switch_is_not_missed_while_the_subscription_is_down() {
    for protocol in [Protocol::Resp2Only, Protocol::Resp3] {
        let (old, new) = (
            FakeMaster::start(Bytes::Sink),
            FakeMaster::start(Bytes::Echo),
        );
        let sentinel = FakeSentinel::start(protocol, View::of(old.addr()));
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
        wait_until("a subscription", SOON, || sentinel.subscribers() == 1);
        sentinel.drop_subscribers();
        sentinel.switch_master(new.addr());
        proxy.event("switched", SOON);
        wait_until("a subscription again", SOON, || sentinel.subscribers() == 1);
        // And the way back, which the new subscription may tell.
        let mark = proxy.mark();
        sentinel.switch_master(old.addr());
        let back = proxy.event_after(mark, "switched", SOON);
        assert_eq!(back.text("to"), old.addr().to_string());
        assert_eq!(back.number("epoch"), 3.0, "{}", back.fields);
    }
}

#[test]
fn a_new_master_is_not_adopted_before_it_says_so_nor_the_old_one_kept() {
    for (role, time) in [
        (Role::Replica, 500),
        (Role::Loading, 500),
        (Role::Mute, 1500),
    ] {
        let stage = Stage::set(Bytes::Echo);
        let next = FakeMaster::start(Bytes::Echo);
        next.set_role(role);
        let mut idle = stage.client();
        assert_eq!(echoed(&mut idle, b"one"), b"one");
        stage.sentinel.switch_master(next.addr());
        let hold = stage.proxy.event("hold_begin", SOON);
        // Fenced when the decision fell: neither node gets a byte, whatever the old one believes of itself.
        let mut newcomer = stage.client();
        newcomer.write_all(b"two").expect("written");
        assert_silent(&mut newcomer, Duration::from_millis(time));
        assert_eq!(
            stage.master.records().iter().map(|r| r.bytes).sum::<u64>(),
            3
        );
        assert!(next.records().is_empty(), "not a byte before its ROLE");
        assert!(stage.proxy.events(0, "switched").is_empty());

        next.set_role(Role::Master);
        let switched = stage.proxy.event("switched", SOON);
        assert!(switched.index > hold.index);
        newcomer.set_read_timeout(Some(SOON)).expect("a socket");
        let mut back = [0; 3];
        newcomer.read_exact(&mut back).expect("held, then served");
        assert_eq!(&back, b"two");
        assert_eq!(read_to_end(&mut idle), b"", "cut");
    }
}

#[test]
fn after_a_standstill_no_byte_is_written_before_every_sentinel_was_heard() {
    let (old, new) = (
        FakeMaster::start(Bytes::Sink),
        FakeMaster::start(Bytes::Sink),
    );
    let sentinels: Vec<FakeSentinel> = ["1", "2", "3"]
        .iter()
        .map(|digit| {
            let view = View {
                sentinel_id: digit.repeat(40),
                others: 2,
                quorum: 2,
                ..View::of(old.addr())
            };
            FakeSentinel::start(Protocol::Resp3, view)
        })
        .collect();
    let addrs: Vec<SocketAddr> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::ready(Plan::following(&addrs));
    let mut kept = connect(proxy.addr());
    kept.write_all(b"before").expect("written");
    wait_until("the first bytes to arrive", SOON, || {
        old.records().first().is_some_and(|r| r.bytes == 6)
    });
    wait_until("all Sentinels to be heard", SOON, || {
        proxy.events(0, "sentinel_up").len() == 3
    });

    proxy.freeze();
    // In the sleep the leader promotes another node, which the two that answer at once do not know yet. Both nodes
    // say that they are masters, as they do for some seconds.
    sentinels[2].update(|view| {
        view.addr = new.addr();
        view.epoch += 1;
    });
    sentinels[2].answer_after(Duration::from_millis(200));
    kept.write_all(b"in the sleep")
        .expect("taken by the kernel");
    thread::sleep(STANDSTILL);
    proxy.thaw();

    proxy.event("switched", SOON);
    assert_eq!(read_to_end(&mut kept), b"", "cut");
    assert_eq!(
        old.records()[0].bytes,
        6,
        "written to the master of before the sleep"
    );
}
