//! Peers that lie, babble or say nothing: the proxy stays up, small, and with those that are honest. Scripted.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::rogue::{Manner, Rogue};
use crate::harness::stream::{connect, echoed};
use crate::harness::topology::FOLLOW;
use crate::harness::{holds_for, wait_until};

/// What a handful of links that misbehave may cost the process; a reply is read up to 64 KiB.
const MORE_KIB: u64 = 16 * 1024;
/// Some rounds of polls and redials.
const ROUNDS: Duration = Duration::from_secs(4);

#[test]
fn sentinels_without_manners_do_no_harm() {
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let honest = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let rogues: Vec<Rogue> = Manner::ALL.iter().copied().map(Rogue::start).collect();
    let mut sentinels: Vec<SocketAddr> = rogues.iter().map(Rogue::addr).collect();
    sentinels.push(honest.addr());
    let proxy = Proxy::ready(Plan::following(&sentinels));
    let before = proxy.rss_kib();
    let mut kept = connect(proxy.addr());

    holds_for("traffic and little memory", ROUNDS, || {
        echoed(&mut kept, b"x") == b"x" && proxy.rss_kib() <= before + MORE_KIB
    });
    for (rogue, manner) in rogues.iter().zip(Manner::ALL) {
        assert!(
            rogue.taken() >= 1,
            "a Sentinel that {manner:?} was never asked"
        );
        assert!(
            !is_up(&proxy, rogue.addr()),
            "a Sentinel that {manner:?} counts as one that answers"
        );
    }
    let mark = proxy.mark();
    honest.switch_master(new.addr());
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), new.addr().to_string());
    assert_eq!(echoed(&mut connect(proxy.addr()), b"y"), b"y");
    assert!(proxy.rss_kib() <= before + MORE_KIB);
}

#[test]
fn masters_without_manners_are_not_adopted() {
    // Several at a time: each costs deadlines.
    std::thread::scope(|scope| {
        for manners in Manner::ALL.chunks(4) {
            scope.spawn(|| are_not_adopted(manners));
        }
    });
}

fn are_not_adopted(manners: &[Manner]) {
    let first = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(first.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let before = proxy.rss_kib();
    let mark = proxy.mark();
    for manner in manners.iter().copied() {
        let rogue = Rogue::start(manner);
        sentinel.switch_master(rogue.addr());
        wait_until("the claimed master to be asked twice", FOLLOW * 2, || {
            rogue.taken() >= 2
        });
        assert!(
            proxy.events(mark, "switched").is_empty(),
            "adopted a master that {manner:?}"
        );
    }
    assert!(
        proxy.rss_kib() <= before + MORE_KIB,
        "{before} KiB became {}",
        proxy.rss_kib()
    );
    let last = FakeMaster::start(Bytes::Echo);
    sentinel.switch_master(last.addr());
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), last.addr().to_string());
    assert_eq!(echoed(&mut connect(proxy.addr()), b"z"), b"z");
}

#[test]
fn absurd_addresses_change_nothing() {
    let master = FakeMaster::start(Bytes::Echo);
    let other = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let mut kept = connect(proxy.addr());
    let mark = proxy.mark();
    let own = proxy.addr().port().to_string();
    let port = other.addr().port().to_string();
    let long = "a".repeat(5000);
    for (host, port) in [
        ("0.0.0.0", &*port),
        ("::", &*port),
        ("", &*port),
        ("?", &*port),
        ("256.1.1.1", &*port),
        ("-host", &*port),
        ("a host", &*port),
        ("host\u{1b}[2J", &*port),
        (&*long, &*port),
        ("127.0.0.1", "0"),
        ("127.0.0.1", "-1"),
        ("127.0.0.1", "65536"),
        ("127.0.0.1", ""),
        ("127.0.0.1", "redis"),
        // A proxy that took itself for the master would connect to itself until it has no descriptor left.
        ("127.0.0.1", &*own),
    ] {
        sentinel.update(|view| {
            view.announced = Some((host.to_owned(), port.to_owned()));
            view.epoch += 1;
        });
        sentinel.publish("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2");
        holds_for("traffic", Duration::from_millis(100), || {
            echoed(&mut kept, b"x") == b"x"
        });
    }
    for name in ["switched", "hold_begin"] {
        let events = proxy.events(mark, name);
        assert!(events.is_empty(), "{events:?}");
    }
    assert!(other.records().is_empty());

    sentinel.update(|view| {
        view.announced = None;
        view.master = "another".to_owned();
        view.addr = other.addr();
        view.epoch += 1;
    });
    holds_for(
        "traffic while the Sentinel knows another master only",
        ROUNDS,
        || echoed(&mut kept, b"x") == b"x",
    );
    sentinel.update(|view| view.master = "mymaster".to_owned());
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), other.addr().to_string());
}

#[test]
fn events_that_make_no_sense_are_only_hints() {
    let master = FakeMaster::start(Bytes::Echo);
    let other = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let mut kept = connect(proxy.addr());
    wait_until("a subscription", FOLLOW, || sentinel.subscribers() == 1);
    let mark = proxy.mark();
    let (ip, port) = (other.addr().ip(), other.addr().port());
    let lie = format!("mymaster 127.0.0.1 1 {ip} {port}");
    let foreign = format!("slave {ip}:{port} {ip} {port} @ another {ip} 1");
    let long = "x".repeat(100_000);
    for (channel, payload) in [
        ("+switch-master", &*lie),
        ("+promoted-slave", &*foreign),
        ("+selected-slave", &*foreign),
        ("+selected-slave", ""),
        ("+selected-slave", "slave"),
        ("+selected-slave", "slave x y z @ mymaster"),
        ("+selected-slave", "slave x 0.0.0.0 0 @ mymaster 0.0.0.0 0"),
        ("+switch-master", ""),
        ("+switch-master", "\u{0}\u{1b}"),
        ("+switch-master", &*long),
        ("-failover-abort-slave-timeout", "master"),
    ] {
        sentinel.publish(channel, payload);
        holds_for("traffic", Duration::from_millis(50), || {
            echoed(&mut kept, b"x") == b"x"
        });
    }
    assert!(proxy.events(mark, "switched").is_empty());
    assert!(proxy.events(mark, "hold_begin").is_empty());
    assert!(
        other.records().is_empty(),
        "what an event says is never true by itself"
    );
    sentinel.switch_master(other.addr());
    proxy.event_after(mark, "switched", FOLLOW);
}

#[test]
fn a_master_at_an_ipv6_address() {
    let old = FakeMaster::start(Bytes::Echo);
    let new = FakeMaster::start_at((Ipv6Addr::LOCALHOST, 0).into(), Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    sentinel.switch_master(new.addr());
    let switched = proxy.event("switched", FOLLOW);
    assert_eq!(switched.text("to"), new.addr().to_string());
    assert_eq!(echoed(&mut connect(proxy.addr()), b"six"), b"six");
    assert_eq!(new.bytes(), 3);
}

#[test]
fn epochs_that_run_backwards_are_not_followed() {
    let master = FakeMaster::start(Bytes::Echo);
    let other = FakeMaster::start(Bytes::Echo);
    let view = View {
        epoch: 7,
        ..View::of(master.addr())
    };
    let sentinel = FakeSentinel::start(Protocol::Resp3, view);
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let mut kept = connect(proxy.addr());
    let mark = proxy.mark();
    for epoch in [6, 5, 0, 6] {
        // Both addresses, below what was adopted.
        sentinel.update(|view| (view.addr, view.epoch) = (master.addr(), epoch));
        sentinel.publish(
            "+config-update-from",
            "sentinel x 127.0.0.1 1 @ mymaster 127.0.0.1 2",
        );
        sentinel.update(|view| (view.addr, view.epoch) = (other.addr(), epoch));
        sentinel.publish(
            "+config-update-from",
            "sentinel x 127.0.0.1 1 @ mymaster 127.0.0.1 2",
        );
        holds_for("traffic to the master", Duration::from_secs(1), || {
            echoed(&mut kept, b"x") == b"x"
        });
    }
    assert!(proxy.events(mark, "switched").is_empty());
    assert!(proxy.events(mark, "hold_begin").is_empty());
    assert!(other.records().is_empty() && other.most_controls() == 0);

    sentinel.update(|view| (view.addr, view.epoch) = (other.addr(), 8));
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.number("epoch"), 8.0);
}

#[test]
fn a_lone_rogue_with_a_high_epoch_and_a_dead_address_is_set_aside() {
    let master = FakeMaster::start(Bytes::Echo);
    let next = FakeMaster::start(Bytes::Echo);
    let nowhere = crate::harness::stream::free_address();
    let sentinels = three(&master);
    let addrs: Vec<SocketAddr> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::ready(Plan::following(&addrs));
    let mark = proxy.mark();
    sentinels[2].update(|view| (view.addr, view.epoch) = (nowhere, 1_000_000));
    let aside = proxy.event_after(mark, "candidate_set_aside", FOLLOW * 3);
    assert_eq!(aside.text("addr"), nowhere.to_string());
    let mut client = connect(proxy.addr());
    assert_eq!(echoed(&mut client, b"served"), b"served");
    // Its epoch was not taken for a floor: the honest ones' next failover counts.
    for sentinel in &sentinels[..2] {
        sentinel.switch_master(next.addr());
    }
    let switched = proxy.event_after(aside.index, "switched", FOLLOW);
    assert_eq!(switched.text("to"), next.addr().to_string());
    assert_eq!(switched.number("epoch"), 2.0, "{}", switched.fields);
    assert_eq!(echoed(&mut connect(proxy.addr()), b"next"), b"next");
}

#[test]
fn a_lone_rogue_with_a_real_node_is_not_believed_where_a_majority_has_to_agree() {
    let master = FakeMaster::start(Bytes::Echo);
    let trap = FakeMaster::start(Bytes::Echo);
    let sentinels = three(&master);
    let addrs: Vec<SocketAddr> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy =
        Proxy::ready(Plan::following(&addrs).env("SWITCHMASTER_FAILOVER_AGREE", "majority"));
    let mut kept = connect(proxy.addr());
    let mark = proxy.mark();
    sentinels[0].update(|view| (view.addr, view.epoch) = (trap.addr(), 1_000_000));
    sentinels[0].publish("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 2");
    holds_for("traffic to the majority's master", ROUNDS, || {
        echoed(&mut kept, b"x") == b"x"
    });
    assert!(proxy.events(mark, "switched").is_empty());
    assert!(trap.records().is_empty(), "not a byte");
}

/// Three Sentinels that agree on this master.
fn three(master: &FakeMaster) -> Vec<FakeSentinel> {
    (0..3)
        .map(|number| FakeSentinel::start(Protocol::Resp3, View::of(master.addr()).by(number, 3)))
        .collect()
}

fn is_up(proxy: &Proxy, sentinel: SocketAddr) -> bool {
    let addr = sentinel.to_string();
    let last = |name| {
        let events = proxy.events(0, name);
        let of_it = events.iter().rev().find(|e| e.text("sentinel") == addr);
        of_it.map(|e| e.index)
    };
    last("sentinel_up") > last("sentinel_down")
}
