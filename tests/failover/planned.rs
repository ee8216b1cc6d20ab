//! The master moves because somebody wants it to: with writers, with the proxy asleep, and by the back door.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::now;

use crate::harness::history::{Outcome, Writers};
use crate::harness::planned::{WRITERS, planned_failover, without_hold};
use crate::harness::proxy::{Plan, Proxy, sessions_move};
use crate::harness::secure::papers;
use crate::harness::topology::{
    FOLLOW, Topology, blocked_clients, follows, idle_client, is_closed, loses_upstream, port_of,
    serves,
};
use crate::harness::{holds_for, wait_for, wait_until};

const PACE: Duration = Duration::from_millis(1);

#[test]
fn row_05_planned_failover_with_steady_writers() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mark = proxy.mark();

    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();

    // Still a writable master for some seconds: its data shows who wrote to it until when.
    let mut old = servers.direct(switch.old);
    history.assert_none_after(switched.written(), &mut old);
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    // Clients were held before the promotion, so nothing acknowledged is missing.
    history.assert_nothing_lost(&mut new);
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "no invented errors"
    );
    assert!(
        history.reconnects.iter().all(|n| *n <= 1),
        "one reconnect a writer at most: {:?}",
        history.reconnects
    );
}

#[test]
fn row_05_each_of_five_planned_failovers_loses_nothing() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    for round in 0..5 {
        let run = planned_failover(&servers, &proxy, round % 3);
        println!("round {round}: {run:?}");
        assert!(run.acknowledged > WRITERS, "{run:?}");
        assert_eq!((run.lost, run.refused), (0, 0), "round {round}: {run:?}");
        servers.ready_again(run.switch);
    }
    drop(proxy);

    // The same without the hold, to show that a loss would have been seen.
    let run = planned_failover(&servers, &without_hold(&servers), 2);
    println!("without the hold: {run:?}");
    assert!(run.lost > 0, "{run:?}");
}

#[test]
fn two_failovers_with_two_workers() {
    let servers = Topology::start();
    let proxy =
        Proxy::ready(Plan::following(&servers.sentinels()).env("SWITCHMASTER_LIMITS_WORKERS", "2"));
    for sentinel in [0, 1] {
        // More clients than workers, so that each worker has some to cut.
        let mut clients: Vec<Conn> = (0..8).map(|_| idle_client(&proxy)).collect();
        let mark = proxy.mark();
        let switch = servers.fail_over(sentinel);
        let switched = follows(&proxy, mark, switch);
        for client in &mut clients {
            loses_upstream(client, FOLLOW);
        }
        let concerned = switched.number("cut") + switched.number("kept");
        assert!(concerned >= 8.0, "{}", switched.fields);
        serves(&proxy, switch.new, FOLLOW);
        servers.ready_again(switch);
    }
}

#[test]
fn row_41_proxy_frozen_across_a_failover() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let addr = proxy.addr();
    let mut kept = idle_client(&proxy);
    let mark = proxy.mark();

    proxy.freeze();
    let switch = servers.fail_over(0);
    // The kernel takes both in for the sleeping proxy.
    kept.send(&["SET", "row41", "kept"]).expect("sent");
    let come = || {
        let mut newcomer = Conn::connect(addr, FOLLOW).expect("in the listener's queue");
        newcomer.send(&["SET", "row41", "newcomer"]).expect("sent");
        newcomer
    };
    // With TLS nobody gets a word out before the proxy has had its own.
    let came = papers().is_none().then(come);
    proxy.thaw();
    let mut newcomer = came.unwrap_or_else(come);

    if sessions_move() {
        // Withheld since before the switch, and for the new master as good as new.
        kept.set_timeout(FOLLOW);
        let moved = kept.read().expect("moved");
        assert_eq!(moved, Value::Simple("OK".to_owned()));
    } else {
        is_closed(&mut kept, FOLLOW);
    }
    let served = newcomer.read().expect("served by the verified master");
    assert_eq!(served, Value::Simple("OK".to_owned()));
    follows(&proxy, mark, switch);
    let mut old = servers.direct(switch.old);
    holds_for(
        "the old master never sees what was sent in the sleep",
        Duration::from_secs(2),
        || {
            let seen = old.call(&["GET", "row41"]).expect("still a master");
            seen != Value::Bulk(b"kept".to_vec())
        },
    );
    let mut new = servers.direct(switch.new);
    let seen = new.call(&["GET", "row41"]).expect("the new master answers");
    // Two sessions have no order between them.
    let moved = sessions_move() && seen == Value::Bulk(b"kept".to_vec());
    assert!(moved || seen == Value::Bulk(b"newcomer".to_vec()));
}

/// What a master said while the proxy slept may be of one that had been replaced by then: nobody is told that it counts.
#[test]
fn row_41_a_reply_that_arrived_in_the_sleep_is_nobodys() {
    const BLOCKED: &str = "3";
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut kept = idle_client(&proxy);
    let old = servers.master().addr();
    let blocked = |count| blocked_clients(&mut servers.direct(old)) == count;
    kept.send(&["BLPOP", "row41", BLOCKED]).expect("sent");
    wait_until("the old master to have it", FOLLOW, || blocked(1));
    proxy.freeze();
    let switch = servers.fail_over(0);
    assert_eq!(switch.old, old);
    wait_until("the old master to have answered", FOLLOW, || blocked(0));
    let mark = proxy.mark();
    proxy.thaw();
    is_closed(&mut kept, FOLLOW);
    follows(&proxy, mark, switch);
}

#[test]
fn sentinel_remove_and_monitor_moves_the_master_and_resets_the_epoch() {
    /// The epoch's floor is released 1 s after every voter said `-monitor`/`+monitor`, else after 10 s.
    const RELEASE: Duration = Duration::from_secs(15);
    /// A Sentinel has its configuration on the disk before it answers these.
    const SAVED: Duration = Duration::from_secs(20);
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mark = proxy.mark();
    let first = servers.fail_over(0);
    let floor = follows(&proxy, mark, first).number("epoch");
    let old = servers.settle();
    let new = servers
        .cluster()
        .nodes()
        .iter()
        .map(|node| node.addr())
        .find(|addr| *addr != old && *addr != first.old)
        .expect("three nodes");

    let mark = proxy.mark();
    let (ip, port) = (new.ip().to_string(), new.port().to_string());
    ok(&mut servers.direct(new), &["REPLICAOF", "NO", "ONE"]);
    let sentinels = || {
        let running = servers.cluster().sentinels().iter();
        running.map(|sentinel| {
            let mut conn = sentinel.connect().expect("the Sentinel runs");
            conn.set_timeout(SAVED);
            conn
        })
    };
    // First all of them: one that is told anew while another still has the higher epoch takes that one's word.
    for mut conn in sentinels() {
        ok(&mut conn, &["SENTINEL", "REMOVE", "mymaster"]);
    }
    for mut conn in sentinels() {
        ok(
            &mut conn,
            &["SENTINEL", "MONITOR", "mymaster", &ip, &port, "2"],
        );
        ok(
            &mut conn,
            &[
                "SENTINEL",
                "SET",
                "mymaster",
                "down-after-milliseconds",
                "1500",
            ],
        );
    }
    ok(&mut servers.direct(old), &["REPLICAOF", &ip, &port]);

    let moved = now();
    let switched = proxy.event_after(mark, "switched", RELEASE);
    println!("followed {:?} after the last MONITOR", now().since(moved));
    assert_eq!(switched.text("from"), old.to_string());
    assert_eq!(switched.text("to"), new.to_string());
    assert!(switched.number("epoch") < floor, "{}", switched.fields);
    serves(&proxy, new, FOLLOW);
}

#[test]
fn failover_happens_although_stderr_is_full() {
    /// pipe(7): the capacity of a pipe nobody changed, less than a page that may stay unused.
    const FULL: u64 = 60 * 1024;
    let servers = Topology::start();
    let proxy = Proxy::ready(
        Plan::following(&servers.sentinels())
            .args(["--log", "debug"])
            .stop_reading_after("ready"),
    );
    wait_for("the unread pipe to fill", Duration::from_secs(60), || {
        drop(idle_client(&proxy));
        (proxy.unread_stderr() >= FULL).then_some(())
    });
    let mut kept = idle_client(&proxy);

    let switch = servers.fail_over(0);
    loses_upstream(&mut kept, FOLLOW);
    let mut conn = Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens");
    assert_eq!(port_of(&mut conn), Some(switch.new.port()));
    assert!(proxy.unread_stderr() >= FULL, "nobody has read it since");
}

fn ok(conn: &mut Conn, command: &[&str]) {
    let reply = conn.call(command).expect("the server is asked directly");
    assert_eq!(reply, Value::Simple("OK".to_owned()), "{command:?}");
}
