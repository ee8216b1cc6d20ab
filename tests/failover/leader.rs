//! The leader of a planned failover is late, is reset, or crashes in the middle: rows 6, 12, 14 and 15.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::history::{History, Outcome, Writers};
use crate::harness::holds_for;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{
    FAILOVER, FOLLOW, Switch, Topology, follows, idle_client, loses_upstream, serves,
};
use crate::harness::wait_until;

const PACE: Duration = Duration::from_millis(1);
const PASSWORD: &str = "node secret";
/// The old master stays a writable master for about 10 s.
const TWO_MASTERS: Duration = Duration::from_secs(8);

#[test]
fn row_06_the_leaders_switch_master_is_late() {
    let servers = with_a_replica_that_cannot_follow();
    let leader = servers.sentinels()[0];
    let everybody = Proxy::ready(with_probe(Plan::following(&servers.sentinels())));
    let only_leader = Proxy::ready(with_probe(
        Plan::following(&[leader]).env("SWITCHMASTER_SENTINEL_DISCOVER", "false"),
    ));
    let mut events = Conn::connect(leader, FAILOVER).expect("the Sentinel runs");
    events
        .call(&["SUBSCRIBE", "+switch-master"])
        .expect("subscribed");
    let marks = (everybody.mark(), only_leader.mark());

    let switch = servers.fail_over(0);
    follows(&everybody, marks.0, switch);
    follows(&only_leader, marks.1, switch);
    assert!(
        !events.readable(Duration::ZERO).expect("the leader runs"),
        "the leader has spoken already, so this proved nothing"
    );
    let late = events.read().expect("in the end it does say so");
    assert_eq!(late.items()[1].text().as_deref(), Some("+switch-master"));
    assert_eq!(everybody.events(marks.0, "switched").len(), 1);
    assert_eq!(only_leader.events(marks.1, "switched").len(), 1);
}

#[test]
fn row_12_the_leader_is_reset_before_it_is_done() {
    let servers = with_a_replica_that_cannot_follow();
    let proxy = Proxy::ready(with_probe(Plan::following(&servers.sentinels())));
    let writers = Writers::start_as(proxy.addr(), 2, PACE, Some(PASSWORD));
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);

    let sentinel = &servers.cluster().sentinels()[0];
    let mut leader = sentinel.connect().expect("the Sentinel runs");
    wait_until("the others to have followed", FOLLOW, || {
        servers.cluster().master_addr().ok() == Some(switch.new)
    });
    let reset = leader.call(&["SENTINEL", "RESET", "mymaster"]);
    assert_eq!(reset.expect("the Sentinel answers"), Value::Int(1));
    let told = leader
        .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"])
        .expect("the Sentinel answers");
    assert_eq!(
        told.items()[1].text(),
        Some(switch.old.port().to_string()),
        "the leader was not caught in the middle, so this proves nothing"
    );

    holds_for("the majority's master", TWO_MASTERS, || {
        proxy.sockets_to(switch.old) == 0
    });
    assert!(proxy.events(switched.index + 1, "switched").is_empty());
    let late = Proxy::ready(with_probe(Plan::following(&servers.sentinels())));
    assert_eq!(
        late.event("ready", FOLLOW).text("master"),
        switch.new.to_string(),
        "a proxy that starts now"
    );
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    history.assert_at_most_once(&mut servers.direct(switch.new));
    history.assert_lost_only_before(switched.written(), &mut servers.direct(switch.new));
}

#[test]
fn row_14_the_leader_crashes_after_the_promotion() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();
    crashes(&servers, "crash-after-promotion");

    // Two nodes say master, and those who could tell them apart have not been told. One generation at a time all along.
    let nodes: Vec<_> = servers.cluster().nodes().iter().map(|n| n.addr()).collect();
    holds_for("one master at a time", Duration::from_secs(4), || {
        // Two writers, and one connection of the control plane to whom it asks for its role.
        let reached = nodes.iter().filter(|a| proxy.sockets_to(**a) > 1).count();
        reached <= 1
    });
    servers.cluster().sentinels()[0]
        .restart()
        .expect("it has its configuration");
    let master = servers.settle();
    wait_until("the proxy to serve the Sentinels' master", FOLLOW, || {
        proxy.sockets_to(master) > 0
    });
    serves(&proxy, master, FOLLOW);
    let switches = proxy.events(mark, "switched");
    let fence = switches.last().map(|event| event.written());
    if let Some(last) = switches.last() {
        assert_eq!(last.text("to"), master.to_string(), "{switches:?}");
        assert_eq!(switches.len(), 1, "no way back and forth: {switches:?}");
        writers.all_acknowledged_after(last.written(), FOLLOW);
    } else {
        assert_eq!(master, old, "nobody told of a switch");
    }
    let history = writers.stop();
    let mut node = servers.direct(master);
    history.assert_at_most_once(&mut node);
    match fence {
        Some(fence) => drop(history.assert_lost_only_before(fence, &mut node)),
        None => assert_eq!(history.lost(&mut node).len(), 0),
    }
    assert_no_invented_errors(&history);
    // And the next failover is like any other.
    if master != old {
        servers.ready_again(Switch { old, new: master });
    }
    is_followed_from(&servers, &proxy, 1);
}

#[test]
fn row_15_the_leader_crashes_after_its_election() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let master = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();
    crashes(&servers, "crash-after-election");

    let crashed = std::time::SystemTime::now();
    // Whatever was held because of what it announced is let go: nobody else goes on with that failover.
    writers.all_acknowledged_after(crashed, FOLLOW * 2);
    holds_for("the same master", Duration::from_secs(2), || {
        proxy.events(mark, "switched").is_empty()
    });
    let history = writers.stop();
    assert_eq!(history.reconnects, [0, 0], "nobody was cut");
    assert_eq!(history.lost(&mut servers.direct(master)).len(), 0);
    assert_no_invented_errors(&history);
    is_followed_from(&servers, &proxy, 1);
}

/// The failover that this Sentinel leads, and that it does not survive.
fn crashes(servers: &Topology, when: &str) {
    let leader = &servers.cluster().sentinels()[0];
    let mut conn = leader.connect().expect("the Sentinel runs");
    let armed = conn.call(&["SENTINEL", "SIMULATE-FAILURE", when]);
    assert_eq!(
        armed.expect("the Sentinel answers"),
        Value::Simple("OK".to_owned())
    );
    servers
        .cluster()
        .trigger_failover(0)
        .unwrap_or_else(|e| panic!("{e}"));
    wait_until("the leader to crash", FAILOVER, || !leader.is_running());
}

fn is_followed_from(servers: &Topology, proxy: &Proxy, sentinel: usize) {
    let mut idle = idle_client(proxy);
    let mark = proxy.mark();
    let switch: Switch = servers.fail_over(sentinel);
    follows(proxy, mark, switch);
    loses_upstream(&mut idle, FOLLOW);
    serves(proxy, switch.new, FOLLOW);
}

/// The last node has the wrong password for the next master: a failover is over only when `failover-timeout` (10 s)
/// has passed, as with a replica that has much data to copy.
fn with_a_replica_that_cannot_follow() -> Topology {
    let servers = Topology::start_with(|options| {
        options.requirepass = Some(PASSWORD.to_owned());
        // Only the other one can be promoted.
        options.replicas = 2;
    });
    let slow = servers
        .cluster()
        .nodes()
        .last()
        .expect("three nodes")
        .addr();
    let mut conn = servers.direct(slow);
    for (key, value) in [("replica-priority", "0"), ("masterauth", "wrong")] {
        let set = conn.call(&["CONFIG", "SET", key, value]);
        assert_eq!(
            set.expect("the node answers"),
            Value::Simple("OK".to_owned())
        );
    }
    // Sentinel reads priorities with INFO, every 10 s.
    wait_until("the leader to know the priority", FAILOVER, || {
        servers.cluster().sentinels().iter().all(|sentinel| {
            let replicas = sentinel
                .connect()
                .and_then(|mut c| c.call(&["SENTINEL", "REPLICAS", "mymaster"]));
            replicas.is_ok_and(|replicas| {
                replicas.items().iter().any(|r| {
                    r.field("port") == Some(slow.port().to_string())
                        && r.field("slave-priority").as_deref() == Some("0")
                })
            })
        })
    });
    servers
}

fn with_probe(plan: Plan) -> Plan {
    plan.env("SWITCHMASTER_PROXY_PROBE_PASSWORD", PASSWORD)
}

fn assert_no_invented_errors(history: &History) {
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "no invented errors"
    );
}
