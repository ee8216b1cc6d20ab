//! Numbers that must move when what they count happens to real processes, and no further.

use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value as Reply};

use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::history::{Outcome, Writers};
use super::harness::proxy::{Plan, Proxy};
use super::harness::topology::{
    FOLLOW, Topology, blocked_clients, follows, idle_client, is_closed,
};
use super::harness::wait_until;
use super::{PATIENCE, admin_of, get, over, status, watched};

/// One write at a time each, so at most one of each can be lost.
const WRITERS: usize = 16;

/// The sum of the series of this name with these labels.
fn sum(proxy: &Proxy, name: &str, labels: &[&str]) -> f64 {
    let (_, exposition) = get(admin_of(proxy), "/metrics");
    let name = format!("switchmaster_{name}{{");
    let lines = exposition.lines().filter(|line| line.starts_with(&name));
    let wanted = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    let values = wanted.map(|line| {
        let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        value.expect("a number")
    });
    values.sum()
}

fn moves(proxy: &Proxy, name: &str, labels: &[&str]) {
    wait_until(&format!("{name} {labels:?} to move"), PATIENCE, || {
        sum(proxy, name, labels) > 0.0
    });
}

fn client(proxy: &Proxy) -> Conn {
    Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens")
}

/// A client whose request has reached the master and is not answered.
fn blocked(proxy: &Proxy, commands: &[&[&str]]) -> Conn {
    let mut conn = client(proxy);
    for command in commands {
        conn.send(command).expect("sent");
    }
    conn
}

#[test]
fn what_a_crash_cost_is_told_alike_by_metrics_log_and_status() {
    let servers = Topology::start();
    let proxy = watched(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let old = servers.settle();

    // Nothing has happened yet.
    for name in [
        "requests_unknown_total",
        "sessions_retired_total",
        "old_generation_bytes_total",
        "dial_failures_total",
    ] {
        assert_eq!(sum(&proxy, name, &["proxy=\"main\""]), 0.0, "{name}");
    }

    let blocking: &[&str] = &["BLPOP", "nothing", "0"];
    let mut one = blocked(&proxy, &[blocking]);
    let mut two = blocked(&proxy, &[blocking, &["INCR", "behind-it"]]);
    let gone = blocked(&proxy, &[blocking]);
    let mut subscriber = client(&proxy);
    subscriber.call(&["SUBSCRIBE", "news"]).expect("confirmed");
    let mut idle = idle_client(&proxy);
    let mut direct = servers.direct(old);
    wait_until("three clients to be blocked", PATIENCE, || {
        blocked_clients(&mut direct) == 3
    });
    // A client that leaves by itself knows what it did.
    drop(gone);
    wait_until("it to have left", PATIENCE, || {
        blocked_clients(&mut direct) == 2
    });
    drop(direct);

    // Nor is anybody lost who asked the master to close.
    let mut quitting = client(&proxy);
    quitting.call(&["QUIT"]).expect("an answer");
    is_closed(&mut quitting, PATIENCE);
    wait_until("it to be counted", PATIENCE, || {
        sum(&proxy, "sessions_closed_total", &["upstream_closed"]) == 1.0
    });

    let mark = proxy.mark();
    servers.node(old).kill().expect("it dies");
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);
    for conn in [&mut one, &mut two, &mut subscriber] {
        is_closed(conn, PATIENCE);
    }
    let pong = idle.call(&["PING"]).expect("it was moved");
    assert_eq!(pong, Reply::Simple("PONG".to_owned()));

    assert_eq!(sum(&proxy, "requests_unknown_total", &[]), 3.0);
    let retired = |reason: &str| sum(&proxy, "sessions_retired_total", &[reason]);
    assert_eq!(retired("reason=\"subscribed\""), 1.0);
    assert_eq!(sum(&proxy, "sessions_retired_total", &[]), 1.0);
    assert_eq!(sum(&proxy, "old_generation_bytes_total", &[]), 0.0);
    let outage = over(admin, 2);
    let told = proxy.event_after(mark, "outage_over", FOLLOW);
    for fields in [&switched.fields, &told.fields, &outage] {
        assert_eq!(fields["unknown"], 3, "{fields}");
        assert_eq!(fields["lost"], 3, "{fields}");
        assert_eq!(fields["to"], switch.new.to_string(), "{fields}");
        assert_eq!(fields["trigger"], outage["trigger"], "{fields}");
    }
    assert_eq!(told.fields["held"], outage["most_waiting"]);
    for (logged, listed) in [
        ("unavailable_ms", &outage["seconds"]),
        ("detect_ms", &outage["phases"]["detect"]),
        ("verify_ms", &outage["phases"]["verify"]),
        ("fence_ms", &outage["fence_seconds"]),
    ] {
        let seconds = listed.as_f64().expect("a number");
        let differ = (told.number(logged) - seconds * 1e3).abs();
        assert!(differ < 0.01, "{logged}: {} and {outage}", told.fields);
    }
    assert_eq!(proxy.events(mark, "outage_over").len(), 1);
    let sessions = &status(admin)["proxies"][0]["sessions"];
    assert_eq!(sessions["requests_unknown"], 3);
    for (name, label) in [
        ("holds_total", "outcome=\"switched\""),
        ("hold_seconds_count", ""),
        ("fence_seconds_count", ""),
        ("switch_duration_seconds_count", "phase=\"detect\""),
        ("sentinel_events_total", "event=\"+switch-master\""),
        ("sessions_moved_total", ""),
        ("dial_duration_seconds_count", ""),
    ] {
        moves(&proxy, name, &[label]);
    }
}

/// What is counted as unknown is what the clients did not get to know; and nothing goes to a master that was left.
#[test]
fn under_load_what_is_counted_is_what_clients_saw() {
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_LIMITS_WORKERS", "2");
    let proxy = watched(plan);
    proxy.event("ready", PATIENCE);
    for kill in [false, true] {
        let before = sum(&proxy, "requests_unknown_total", &[]);
        let writers = Writers::start(proxy.addr(), WRITERS, Duration::ZERO);
        let old = servers.settle();
        let mark = proxy.mark();
        let switch = if kill {
            servers.node(old).kill().expect("it dies");
            servers.switched_from(old)
        } else {
            servers.fail_over(0)
        };
        let switched = follows(&proxy, mark, switch);
        writers.all_acknowledged_after(switched.written(), FOLLOW);
        let unknown = writers.stop().count(|outcome| *outcome == Outcome::Unknown);
        let counted = sum(&proxy, "requests_unknown_total", &[]) - before;
        println!("kill: {kill}, {unknown} writes unknown to their clients, {counted} counted");
        assert_eq!(counted, unknown as f64, "kill: {kill}");
        assert_eq!(switched.fields["unknown"], unknown, "{}", switched.fields);
        assert_eq!(sum(&proxy, "old_generation_bytes_total", &[]), 0.0);
        if !kill {
            servers.ready_again(switch);
        }
    }
}

#[test]
fn sessions_that_are_not_followed_count_one_request_at_the_most() {
    let servers = Topology::start();
    let plan =
        Plan::following(&servers.sentinels()).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "close");
    let proxy = watched(plan);
    proxy.event("ready", PATIENCE);
    let blocking: &[&str] = &["BLPOP", "nothing", "0"];
    let mut busy = blocked(&proxy, &[blocking, &["INCR", "behind-it"]]);
    let mut idle = idle_client(&proxy);
    let mut direct = servers.direct(servers.settle());
    wait_until("a client to be blocked", PATIENCE, || {
        blocked_clients(&mut direct) == 1
    });
    let mark = proxy.mark();
    let switched = follows(&proxy, mark, servers.fail_over(0));
    is_closed(&mut busy, PATIENCE);
    is_closed(&mut idle, PATIENCE);
    assert_eq!(sum(&proxy, "requests_unknown_total", &[]), 1.0);
    assert_eq!(switched.fields["unknown"], 1, "{}", switched.fields);
    assert_eq!(switched.fields["cut"], 2, "{}", switched.fields);
    assert_eq!(sum(&proxy, "sessions_retired_total", &[]), 0.0);
    assert_eq!(sum(&proxy, "old_generation_bytes_total", &[]), 0.0);
}

#[test]
fn refusals_of_each_kind_have_a_series_of_their_own() {
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels())
        .env("SWITCHMASTER_PROXY_MAX_CONNECTIONS", "2")
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "500ms");
    let proxy = watched(plan);
    proxy.event("ready", PATIENCE);
    let first = idle_client(&proxy);
    let second = idle_client(&proxy);
    let mut third = client(&proxy);
    is_closed(&mut third, PATIENCE);
    moves(&proxy, "sessions_total", &["result=\"full\""]);
    drop((first, second));
    wait_until("they have left", PATIENCE, || {
        sum(&proxy, "sessions_active", &[]) == 0.0
    });

    // The master closes its door; who is inside, the Sentinels among them, notices nothing.
    let master = servers.settle();
    let mut direct = servers.direct(master);
    let port = |direct: &mut Conn, port: u16| {
        let done = direct.call(&["CONFIG", "SET", "port", &port.to_string()]);
        assert!(!done.expect("it answers").is_error());
    };
    // A connection that somebody left as it was would do as well.
    wait_until("no upstream to be kept", PATIENCE, || {
        proxy.sockets_to(master) <= 1
    });
    port(&mut direct, 0);
    let mut refused = client(&proxy);
    refused.send(&["PING"]).expect("sent");
    moves(&proxy, "dial_failures_total", &["reason=\"refused\""]);
    assert_eq!(
        sum(&proxy, "dial_failures_total", &[]),
        sum(&proxy, "dial_failures_total", &["reason=\"refused\""])
    );
    let answer = refused.read().expect("an answer after hold_max");
    assert!(answer.is_error(), "{answer:?}");
    moves(&proxy, "requests_refused_total", &[]);
    // None of them was sent.
    assert_eq!(sum(&proxy, "requests_unknown_total", &[]), 0.0);
    port(&mut direct, master.port());

    // The time is what it is about: longer than the fence word counts, which no look from outside can tell.
    proxy.freeze();
    thread::sleep(Duration::from_millis(1200));
    proxy.thaw();
    moves(&proxy, "standstills_total", &[]);

    // A Sentinel that takes a replica for the master.
    let nodes = servers.cluster().nodes().iter().map(|node| node.addr());
    let replica = { nodes }
        .find(|addr| *addr != master)
        .expect("two replicas");
    let fake = FakeSentinel::start(Protocol::Resp3, View::of(replica));
    let misled = watched(Plan::following(&[fake.addr()]));
    moves(
        &misled,
        "role_check_failures_total",
        &["reason=\"replica\""],
    );
    let mut waiting = client(&misled);
    waiting.send(&["PING"]).expect("sent");
    moves(&misled, "sessions_held", &[]);
    loses_nothing(&mut waiting);
}

/// A client that waits has heard nothing, not even its end.
fn loses_nothing(conn: &mut Conn) {
    let heard = conn.readable(Duration::from_millis(50));
    assert!(matches!(heard, Ok(false)), "{heard:?}");
}
