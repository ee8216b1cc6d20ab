//! A failover is announced, and comes or does not come: row 16, the aborted half of row 21, and the two limits of the
//! announced hold. Scripted; real announcements are in `planned`, `leader` and `repeated`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{SOON, assert_silent, connect, echoed, read_to_end};
use crate::harness::topology::FOLLOW;
use crate::harness::{holds_for, wait_until};

/// `announced_hold_max`
const ANNOUNCED_HOLD_MAX: Duration = Duration::from_secs(3);

/// A master, who is to succeed it, and a client that was served.
struct Stage {
    old: FakeMaster,
    next: FakeMaster,
    sentinel: FakeSentinel,
    proxy: Proxy,
    client: TcpStream,
    mark: usize,
}

impl Stage {
    fn set() -> Self {
        Self::set_with("sentinel")
    }

    fn set_with(confirm: &str) -> Self {
        let (old, next) = (
            FakeMaster::start(Bytes::Echo),
            FakeMaster::start(Bytes::Echo),
        );
        next.set_role(Role::Replica);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
        let plan = Plan::following(&[sentinel.addr()]);
        let proxy = Proxy::ready(plan.env("SWITCHMASTER_FAILOVER_CONFIRM", confirm));
        wait_until("a subscription", FOLLOW, || sentinel.subscribers() == 1);
        let mut client = connect(proxy.addr());
        assert_eq!(echoed(&mut client, b"one"), b"one");
        let mark = proxy.mark();
        Self {
            old,
            next,
            sentinel,
            proxy,
            client,
            mark,
        }
    }

    /// The client's next bytes are held from the announcement on.
    fn announce(&mut self) {
        self.sentinel.announce(self.next.addr());
        let hold = self.proxy.event_after(self.mark, "hold_begin", FOLLOW);
        assert_eq!(hold.text("cause"), "announced", "{}", hold.fields);
        self.client.write_all(b"two").expect("written");
        assert_silent(&mut self.client, Duration::from_millis(300));
        assert_eq!(self.old.bytes(), 3, "nothing after the announcement");
    }

    /// They go to the old master after all: once.
    fn assert_resumed(&mut self) {
        let end = self
            .proxy
            .event_after(self.mark, "hold_end", ANNOUNCED_HOLD_MAX + FOLLOW);
        assert_eq!(end.text("outcome"), "resumed", "{}", end.fields);
        self.client.set_read_timeout(Some(SOON)).expect("a socket");
        let mut back = [0; 3];
        self.client.read_exact(&mut back).expect("the same session");
        assert_eq!(&back, b"two");
        assert_eq!(self.old.bytes(), 6);
        assert!(self.next.records().is_empty());
        assert!(self.proxy.events(self.mark, "switched").is_empty());
    }
}

#[test]
fn row_16_a_failover_that_is_given_up_lets_clients_go_on() {
    let mut stage = Stage::set();
    stage.announce();
    stage.sentinel.abort();
    stage.assert_resumed();
}

#[test]
fn a_successor_that_stays_a_replica_is_waited_for_3_s() {
    let mut stage = Stage::set();
    stage.announce();
    stage.assert_resumed();
    let over = stage.proxy.event("announcement_over", FOLLOW);
    assert_eq!(over.text("reason"), "not_promoted", "{}", over.fields);
}

#[test]
fn a_promoted_successor_is_waited_for_longer_and_gets_the_bytes() {
    let mut stage = Stage::set();
    stage.announce();
    stage.next.set_role(Role::Master);
    // Both say master, no Sentinel has confirmed, and what the old one executed now would be lost.
    holds_for(
        "the hold",
        ANNOUNCED_HOLD_MAX + Duration::from_secs(1),
        || stage.old.bytes() == 3 && stage.proxy.events(stage.mark, "hold_end").is_empty(),
    );
    let mut newcomer = connect(stage.proxy.addr());
    newcomer.write_all(b"new").expect("written");
    assert_silent(&mut newcomer, Duration::from_millis(300));
    stage.sentinel.switch_master(stage.next.addr());
    stage.proxy.event_after(stage.mark, "switched", FOLLOW);
    newcomer.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 3];
    newcomer.read_exact(&mut back).expect("held, then served");
    assert_eq!(read_to_end(&mut stage.client), b"", "cut, and not a reply");
    assert_eq!((stage.old.bytes(), stage.next.bytes()), (3, 3));
}

#[test]
fn row_21_five_failovers_given_up_hold_clients_once() {
    let mut stage = Stage::set();
    stage.announce();
    stage.sentinel.abort();
    stage.assert_resumed();
    let mark = stage.proxy.mark();
    for _ in 0..4 {
        stage.sentinel.announce(stage.next.addr());
        holds_for("traffic", Duration::from_secs(1), || {
            echoed(&mut stage.client, b"x") == b"x"
        });
        stage.sentinel.abort();
    }
    // A machine that stands still is another cause.
    let holds = stage.proxy.events(mark, "hold_begin");
    assert!(holds.iter().all(|hold| hold.text("cause") != "announced"));

    // One that comes is followed all the same.
    stage.sentinel.announce(stage.next.addr());
    stage.next.set_role(Role::Master);
    stage.sentinel.switch_master(stage.next.addr());
    stage.proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(read_to_end(&mut stage.client), b"", "cut");
}

#[test]
fn a_successors_own_word_is_enough_for_3_s() {
    let mut stage = Stage::set_with("role");
    stage.announce();
    stage.next.set_role(Role::Master);
    let used = stage.proxy.event_after(stage.mark, "switched", FOLLOW);
    assert_eq!(used.text("to"), stage.next.addr().to_string());
    assert_eq!(used.fields["provisional"], true, "{}", used.fields);
    let mut client = connect(stage.proxy.addr());
    assert_eq!(echoed(&mut client, b"new"), b"new");
    assert_eq!((stage.old.bytes(), stage.next.bytes()), (3, 3));

    // Nobody confirms it.
    let mark = used.index + 1;
    let limit = ANNOUNCED_HOLD_MAX + FOLLOW;
    let back = stage.proxy.event_after(mark, "switched", limit);
    assert_eq!(back.text("to"), stage.old.addr().to_string());
    assert_eq!(back.text("trigger"), "not_confirmed", "{}", back.fields);
    assert_eq!(back.fields["provisional"], false, "{}", back.fields);
    assert_eq!(read_to_end(&mut client), b"", "cut");
    let mut client = connect(stage.proxy.addr());
    assert_eq!(echoed(&mut client, b"back"), b"back");
    holds_for("the old master", Duration::from_secs(1), || {
        stage.next.bytes() == 3 && echoed(&mut client, b"x") == b"x"
    });

    // It is named after all, by a newer epoch.
    stage.sentinel.switch_master(stage.next.addr());
    let again = stage.proxy.event_after(back.index + 1, "switched", FOLLOW);
    assert_eq!(again.text("to"), stage.next.addr().to_string());
    assert_eq!(again.fields["provisional"], false, "{}", again.fields);
}

#[test]
fn a_successor_that_is_named_in_time_stays() {
    let mut stage = Stage::set_with("role");
    stage.announce();
    stage.next.set_role(Role::Master);
    stage.proxy.event_after(stage.mark, "switched", FOLLOW);
    let mut client = connect(stage.proxy.addr());
    assert_eq!(echoed(&mut client, b"new"), b"new");
    stage.sentinel.switch_master(stage.next.addr());
    let proxy = &stage.proxy;
    proxy.event_after(stage.mark, "provisional_confirmed", FOLLOW);
    holds_for(
        "the same session",
        ANNOUNCED_HOLD_MAX + Duration::from_secs(1),
        || echoed(&mut client, b"x") == b"x",
    );
    assert_eq!(proxy.events(stage.mark, "switched").len(), 1);
    assert_eq!(stage.old.bytes(), 3);
}

#[test]
fn a_failover_that_is_given_up_after_the_promotion_is_undone_at_once() {
    let mut stage = Stage::set_with("role");
    stage.announce();
    stage.next.set_role(Role::Master);
    let used = stage.proxy.event_after(stage.mark, "switched", FOLLOW);
    let mut client = connect(stage.proxy.addr());
    assert_eq!(echoed(&mut client, b"new"), b"new");
    stage.sentinel.abort();
    let back = stage.proxy.event_after(used.index + 1, "switched", FOLLOW);
    assert_eq!(back.text("trigger"), "aborted", "{}", back.fields);
    assert_eq!(read_to_end(&mut client), b"", "cut");
    let mut client = connect(stage.proxy.addr());
    assert_eq!(echoed(&mut client, b"back"), b"back");
    assert_eq!(stage.next.bytes(), 3);
}
