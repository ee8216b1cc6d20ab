//! Replicas that are there and must not be read from.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::chaos::ChaosRelay;
use crate::harness::name_server::NameServer;
use crate::harness::topology::{FOLLOW, Topology, port_of};
use crate::harness::{holds_for, wait_until};
use crate::load::{Load, age};
use crate::reader::{client, joined, left, left_within, others, plan, ready};

/// 3 s without an answer, and a Sentinel's word is no sooner.
const SILENCE: Duration = Duration::from_secs(10);

#[test]
fn a_frozen_replica_is_left_and_comes_back() {
    let servers = Topology::start();
    let replicas = others(&servers, servers.master().addr());
    let proxy = ready(plan(&servers), 2);
    let mut clients: Vec<(Conn, u16)> = (0..10).map(|_| client(&proxy)).collect();
    let mark = proxy.mark();
    servers.node(replicas[0]).freeze().expect("frozen");
    let reason = left_within(&proxy, mark, replicas[0], SILENCE);
    assert!(["silent", "down"].contains(&&*reason), "{reason}");
    for (conn, _) in &mut clients {
        assert_eq!(port_of(conn), Some(replicas[1].port()));
    }
    servers.node(replicas[0]).thaw().expect("thawed");
    joined(&proxy, mark, 1);
}

#[test]
fn a_replica_that_was_made_a_master_or_follows_somebody_else_is_left() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let replicas = others(&servers, master);
    let proxy = ready(plan(&servers), 2);
    let (host, port) = (master.ip().to_string(), master.port().to_string());
    for (order, reason) in [
        (["REPLICAOF", "NO", "ONE"], "promoted"),
        (["REPLICAOF", "127.0.0.1", "1"], "other_master"),
    ] {
        let mark = proxy.mark();
        let answer = servers.direct(replicas[0]).call(&order).expect("an answer");
        assert!(!answer.is_error(), "{answer:?}");
        assert_eq!(left(&proxy, mark, replicas[0]), reason);
        for _ in 0..10 {
            assert_eq!(client(&proxy).1, replicas[1].port());
        }
        let mut node = servers.direct(replicas[0]);
        node.call(&["REPLICAOF", &host, &port]).expect("an answer");
        joined(&proxy, mark, 1);
    }
}

#[test]
fn replicas_without_their_master_are_left_while_that_goes_on() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let replicas = others(&servers, master);
    let proxy = ready(plan(&servers), 2);
    let mut conn = servers.direct(master);
    let mut call = |words: &[&str]| {
        let answer = conn.call(words).expect("an answer");
        assert!(!answer.is_error(), "{answer:?}");
    };
    let mark = proxy.mark();
    call(&["ACL", "SETUSER", "default", "-psync", "-sync"]);
    call(&["CLIENT", "KILL", "TYPE", "replica"]);
    for addr in &replicas {
        assert_eq!(left(&proxy, mark, *addr), "link_down");
    }
    proxy.event_after(mark, "hold_begin", FOLLOW);
    // Not SYNC as well: one whose PSYNC was refused just before would fall back to it, which tells no offsets.
    call(&["ACL", "SETUSER", "default", "+psync"]);
    joined(&proxy, mark, 2);
    proxy.event_after(mark, "hold_end", FOLLOW);
    assert_ne!(client(&proxy).1, master.port());
}

#[test]
fn a_client_of_a_node_whose_connections_are_killed_stays_there() {
    let servers = Topology::start();
    let replicas = others(&servers, servers.master().addr());
    let proxy = ready(plan(&servers), 2);
    let (mut conn, port) = client(&proxy);
    let mark = proxy.mark();
    for addr in &replicas {
        let mut node = servers.direct(*addr);
        // This one, too.
        let _ = node.call(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    let after = port_of(&mut conn).expect("carried over");
    assert!(
        replicas.iter().any(|addr| addr.port() == after),
        "{port} and then {after}"
    );
    assert!(
        proxy.events(mark, "replica_left").is_empty(),
        "{}",
        proxy.output()
    );
}

#[test]
fn a_proxy_that_stood_still_reads_from_nobody_it_has_not_asked_since() {
    let servers = Topology::start();
    let replicas = others(&servers, servers.master().addr());
    let proxy = ready(plan(&servers), 2);
    let mut clients: Vec<(Conn, u16)> = (0..10).map(|_| client(&proxy)).collect();
    let mark = proxy.mark();
    proxy.freeze();
    // Longer than a replica may be silent.
    std::thread::sleep(Duration::from_secs(4));
    let answer = servers
        .direct(replicas[0])
        .call(&["REPLICAOF", "NO", "ONE"]);
    assert!(answer.is_ok_and(|answer| !answer.is_error()));
    proxy.thaw();
    for (conn, _) in &mut clients {
        assert_eq!(port_of(conn), Some(replicas[1].port()));
    }
    proxy.event_after(mark, "stood_still", FOLLOW);
    assert_eq!(left(&proxy, mark, replicas[0]), "promoted");
}

/// The replica's link to its master is up all the time; nothing comes over it any more.
#[test]
fn a_replica_that_falls_behind_is_left_before_what_it_has_is_too_old() {
    const MAX_LAG: Duration = Duration::from_secs(2);
    let servers = Topology::start();
    let master = servers.master().addr();
    let replicas = others(&servers, master);
    let relay = ChaosRelay::to(master);
    let port = relay.addr().port().to_string();
    let answer = servers
        .direct(replicas[0])
        .call(&["REPLICAOF", "127.0.0.1", &port]);
    assert!(answer.is_ok_and(|answer| !answer.is_error()));
    let plan = plan(&servers)
        .env(
            "SWITCHMASTER_ADDRESS_MAP",
            format!("{}={master}", relay.addr()),
        )
        .env("SWITCHMASTER_PROXY_MAX_LAG", "2s");
    let proxy = ready(plan, 2);
    let load = Load::start(master, proxy.addr());
    // Without a number it would have nothing that could be old.
    let mut behind = servers.direct(replicas[0]);
    wait_until("the first number to arrive", FOLLOW, || {
        let number = behind.call(&["GET", "number"]);
        number.is_ok_and(|number| number.text().is_some())
    });
    let mark = proxy.mark();
    relay.black_hole(true);
    assert_eq!(left_within(&proxy, mark, replicas[0], SILENCE), "lagging");
    for _ in 0..10 {
        assert_eq!(client(&proxy).1, replicas[1].port());
    }
    relay.black_hole(false);
    joined(&proxy, mark, 1);
    let (written, reads) = load.end();
    let of_it = reads.iter().filter(|read| read.port == replicas[0].port());
    let oldest = of_it
        .filter_map(|read| age(read, &written))
        .max()
        .unwrap_or_default();
    println!(
        "{} reads; the oldest value of the replica that fell behind was {oldest:?} old",
        reads.len()
    );
    assert!(oldest > MAX_LAG / 4, "it did not fall behind: {oldest:?}");
    assert!(oldest <= MAX_LAG + Duration::from_millis(250), "{oldest:?}");
}

/// The master tells of its replicas by names (`replica-announce-ip`), and the resolver goes silent.
#[test]
fn a_silent_resolver_makes_no_replica_look_older() {
    const MAX_LAG: &str = "2s";
    /// Each name in an answer would cost a second of it, again and again.
    const ROUNDS: Duration = Duration::from_secs(6);
    const SILENT: Duration = Duration::from_secs(60);
    let names = NameServer::start();
    let conf = tempfile::NamedTempFile::new().expect("a temporary file");
    names.write_resolv_conf(conf.path());
    let servers = Topology::start();
    let master = servers.master().addr();
    for replica in others(&servers, master) {
        let name = format!("replica-{}.switchmaster.test", replica.port());
        let set = ["CONFIG", "SET", "replica-announce-ip", &name];
        let answer = servers.direct(replica).call(&set).expect("an answer");
        assert!(!answer.is_error(), "{answer:?}");
    }
    let mut conn = servers.direct(master);
    conn.call(&["CLIENT", "KILL", "TYPE", "replica"])
        .expect("an answer");
    wait_until("the master to tell of them by name", SILENCE, || {
        let role = conn.call(&["ROLE"]).expect("an answer");
        let replicas = role.items().last().map(Value::items);
        let named = |of: &Value| {
            let host = of.items().first().and_then(Value::text);
            host.is_some_and(|host| host.ends_with(".switchmaster.test"))
        };
        replicas.is_some_and(|all| all.len() == 2 && all.iter().all(named))
    });
    let plan = plan(&servers).env("SWITCHMASTER_PROXY_MAX_LAG", MAX_LAG);
    let proxy = ready(plan.in_place_of("/etc/resolv.conf", conf.path()), 2);
    let (mark, asked) = (proxy.mark(), names.asked());
    assert!(asked > 0, "no name was looked up");
    names.answer_after(SILENT);
    holds_for("two replicas to be read from", ROUNDS, || {
        proxy.events(mark, "replica_left").is_empty()
    });
    assert!(names.asked() > asked, "nobody was asked again");
}
