//! Sentinels that are alone, mute, frozen, gone, or stuck in the past: rows 7 to 11.

use std::net::SocketAddr;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::chaos::ChaosRelay;
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{
    FOLLOW, Switch, Topology, follows, idle_client, loses_upstream, port_of, serves,
};
use crate::harness::{holds_for, wait_until};

/// A silent Sentinel is given up after 3 s; twice that on a loaded machine.
const SILENCE: Duration = Duration::from_secs(6);

#[test]
fn row_07_only_the_leader_is_reachable() {
    let servers = Topology::start();
    let proxy = alone_with(servers.sentinels()[0]);
    let mut idle = idle_client(&proxy);
    let mark = proxy.mark();
    // The Sentinel that is asked for a failover leads it, and says `+switch-master` last of all.
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    loses_upstream(&mut idle, FOLLOW);
    serves(&proxy, switch.new, FOLLOW);
}

#[test]
fn row_08_black_hole_on_a_one_link_sentinel() {
    let servers = Topology::start();
    let sentinel = servers.sentinels()[0];
    let relay = ChaosRelay::to(sentinel);
    let proxy = alone_with(relay.addr());
    let mut idle = idle_client(&proxy);
    let mark = proxy.mark();

    relay.black_hole(true);
    let switch = servers.fail_over(0);
    let down = proxy.event_after(mark, "sentinel_down", SILENCE);
    assert_eq!(down.text("sentinel"), relay.addr().to_string());
    assert!(
        proxy.events(mark, "switched").is_empty(),
        "nobody can have said so"
    );
    assert_eq!(
        idle.call(&["PING"]).expect("served"),
        Value::Simple("PONG".to_owned())
    );

    relay.black_hole(false);
    let switched = follows(&proxy, mark, switch);
    assert!(switched.index > down.index);
    loses_upstream(&mut idle, FOLLOW);
    serves(&proxy, switch.new, FOLLOW);
}

#[test]
fn row_08_black_hole_on_the_subscription_of_two_links() {
    let (first, second) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp2Only, View::of(first.addr()));
    let proxy = alone_with(sentinel.addr());
    wait_until("a subscription", FOLLOW, || sentinel.subscribers() == 1);
    let mark = proxy.mark();

    sentinel.mute_subscribers(true);
    sentinel.update(|view| {
        view.addr = second.addr();
        view.epoch += 1;
    });
    let switch = Switch {
        old: first.addr(),
        new: second.addr(),
    };
    let switched = follows(&proxy, mark, switch);
    assert_eq!(switched.number("epoch"), 2.0, "{}", switched.fields);
}

#[test]
fn row_09_one_sentinel_frozen() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut kept = idle_client(&proxy);
    let frozen = &servers.cluster().sentinels()[2];
    wait_for_up(&proxy, 0, frozen.addr());
    let mark = proxy.mark();

    frozen.freeze().expect("SIGSTOP");
    let down = proxy.event_where(mark, "sentinel_down", SILENCE, |fields| {
        fields["sentinel"] == frozen.addr().to_string()
    });
    holds_for(
        "traffic on a kept connection",
        Duration::from_secs(1),
        || pings(&mut kept),
    );
    frozen.thaw().expect("SIGCONT");
    wait_for_up(&proxy, down.index, frozen.addr());
    assert!(pings(&mut kept));
    assert_undisturbed(&proxy, mark);
}

#[test]
fn row_10_all_sentinels_down() {
    /// Long enough for every view to be stale and every redial to have failed many times.
    const DARK: Duration = Duration::from_secs(60);
    let servers = Topology::start();
    let proxy = servers.proxy();
    let master = servers.master().addr();
    let mut kept = idle_client(&proxy);
    let mark = proxy.mark();

    for sentinel in servers.cluster().sentinels() {
        sentinel.kill().expect("SIGKILL");
    }
    holds_for("traffic on a kept connection", DARK, || pings(&mut kept));
    serves(&proxy, master, FOLLOW);
    for sentinel in servers.sentinels() {
        proxy.event_where(mark, "sentinel_down", FOLLOW, |fields| {
            fields["sentinel"] == sentinel.to_string()
        });
    }
    assert_undisturbed(&proxy, mark);

    let back = proxy.mark();
    for sentinel in servers.cluster().sentinels() {
        sentinel.restart().expect("it has its configuration");
        wait_for_up(&proxy, back, sentinel.addr());
    }
    assert!(pings(&mut kept));
    let switch = servers.fail_over(0);
    follows(&proxy, back, switch);
    loses_upstream(&mut kept, FOLLOW);
}

#[test]
fn row_11_sentinel_left_behind_by_a_failover() {
    let servers = Topology::start();
    let old = servers.master().addr();
    let stuck = FakeSentinel::start(
        Protocol::Resp3,
        View {
            epoch: config_epoch(&servers),
            others: 3,
            quorum: 2,
            sentinel_id: "5".repeat(40),
            ..View::of(old)
        },
    );
    let mut sentinels = servers.sentinels();
    sentinels.push(stuck.addr());
    let proxy = Proxy::ready(Plan::following(&sentinels));
    wait_for_up(&proxy, 0, stuck.addr());
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);

    let mut kept = idle_client(&proxy);
    for sentinel in servers.cluster().sentinels() {
        sentinel.freeze().expect("SIGSTOP");
    }
    // The old master still says `master` for some seconds: only the epoch speaks against it.
    let after = switched.index + 1;
    holds_for(
        "the new master while only the past is told",
        Duration::from_secs(10),
        || {
            stuck.publish(
                "+switch-master",
                &format!(
                    "mymaster {} {} {} {}",
                    switch.new.ip(),
                    switch.new.port(),
                    old.ip(),
                    old.port()
                ),
            );
            pings(&mut kept)
        },
    );
    assert_undisturbed(&proxy, after);
    serves(&proxy, switch.new, FOLLOW);
    servers.thaw_all();
}

/// A proxy that knows this Sentinel and looks for no other.
fn alone_with(sentinel: SocketAddr) -> Proxy {
    Proxy::ready(Plan::following(&[sentinel]).env("SWITCHMASTER_SENTINEL_DISCOVER", "false"))
}

fn wait_for_up(proxy: &Proxy, from: usize, sentinel: SocketAddr) {
    let addr = sentinel.to_string();
    wait_until(&format!("Sentinel {addr} to be up"), SILENCE, || {
        proxy
            .events(from, "sentinel_up")
            .iter()
            .any(|event| event.text("sentinel") == addr)
    });
}

fn pings(conn: &mut Conn) -> bool {
    matches!(conn.call(&["PING"]), Ok(Value::Simple(pong)) if pong == "PONG")
        && port_of(conn).is_some()
}

fn assert_undisturbed(proxy: &Proxy, from: usize) {
    for name in ["switched", "hold_begin", "role_rejected"] {
        let events = proxy.events(from, name);
        assert!(events.is_empty(), "clients were disturbed: {events:?}");
    }
}

fn config_epoch(servers: &Topology) -> u64 {
    let mut conn = servers.cluster().sentinels()[0]
        .connect()
        .expect("the Sentinel runs");
    conn.call(&["SENTINEL", "MASTER", "mymaster"])
        .expect("the Sentinel answers")
        .field("config-epoch")
        .and_then(|epoch| epoch.parse().ok())
        .expect("a number")
}
