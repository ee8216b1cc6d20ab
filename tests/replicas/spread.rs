//! Which replica a client is led to, and what becomes of it when that is lost.

use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::harness::proxy::Proxy;
use crate::harness::topology::{FOLLOW, Topology, is_closed, port_of};
use crate::harness::{wait_for, wait_until};
use crate::reader::{client, count, joined, left, others, plan, ready};

const CLIENTS: usize = 300;
/// Sessions are evened out at a bounded rate.
const EVENED: Duration = Duration::from_secs(20);

fn all(proxy: &Proxy, clients: usize) -> Vec<(Conn, u16)> {
    (0..clients).map(|_| client(proxy)).collect()
}

#[test]
fn clients_are_spread_evenly_and_none_is_led_to_the_master() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let proxy = ready(plan(&servers).env("SWITCHMASTER_LIMITS_WORKERS", "2"), 2);
    let clients = all(&proxy, CLIENTS);
    let counted = count(clients.iter().map(|(_, port)| *port));
    assert!(!counted.contains_key(&master.port()), "{counted:?}");
    assert_eq!(counted.len(), 2, "{counted:?}");
    for sessions in counted.values() {
        assert!(
            sessions.abs_diff(CLIENTS / 2) <= CLIENTS / 20,
            "{counted:?}"
        );
    }
    // A write is refused by the replica itself, and nothing is changed by that.
    let (mut conn, port) = clients.into_iter().next().expect("300 of them");
    for _ in 0..20 {
        let refused = conn.call(&["SET", "a", "b"]).expect("an answer");
        assert!(format!("{refused:?}").contains("READONLY"), "{refused:?}");
    }
    assert_eq!(port_of(&mut conn), Some(port));
    assert!(
        proxy.events(0, "replica_left").is_empty(),
        "{}",
        proxy.output()
    );
    assert!(
        proxy.events(0, "hold_begin").is_empty(),
        "{}",
        proxy.output()
    );
}

#[test]
fn a_killed_replica_is_left_and_its_idle_clients_go_on_with_another() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let replicas = others(&servers, master);
    let proxy = ready(plan(&servers), 2);
    let mut clients = all(&proxy, 60);
    let mark = proxy.mark();
    servers.node(replicas[0]).kill().expect("killed");
    assert_eq!(left(&proxy, mark, replicas[0]), "unreachable");
    for (conn, _) in &mut clients {
        assert_eq!(port_of(conn), Some(replicas[1].port()), "carried over");
    }
    assert_eq!(proxy.sockets_to(replicas[0]), 0);
    // When it is back, clients that have nothing under way drift there.
    servers
        .node(replicas[0])
        .restart_as_replica_of(master)
        .expect("restarted");
    joined(&proxy, mark, 1);
    wait_until("an even spread", EVENED, || {
        let counted = count(clients.iter_mut().filter_map(|(conn, _)| port_of(conn)));
        let of = |n: usize| {
            counted
                .get(&replicas[n].port())
                .copied()
                .unwrap_or_default()
        };
        of(0).abs_diff(of(1)) <= 6
    });
}

#[test]
fn clients_of_a_lost_replica_are_closed_where_sessions_do_not_move() {
    let servers = Topology::start();
    let replicas = others(&servers, servers.master().addr());
    let proxy = ready(
        plan(&servers).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "close"),
        2,
    );
    let mut clients = all(&proxy, 20);
    let mark = proxy.mark();
    servers.node(replicas[0]).kill().expect("killed");
    left(&proxy, mark, replicas[0]);
    for (conn, port) in &mut clients {
        if *port == replicas[0].port() {
            is_closed(conn, FOLLOW);
        } else {
            assert_eq!(port_of(conn), Some(*port), "not concerned");
        }
    }
    for _ in 0..5 {
        assert_eq!(client(&proxy).1, replicas[1].port());
    }
}

#[test]
fn without_a_replica_clients_wait_or_are_led_to_the_master() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let replicas = others(&servers, master);
    let refusing = ready(
        plan(&servers).env("SWITCHMASTER_FAILOVER_HOLD_MAX", "1s"),
        2,
    );
    let falling = ready(
        plan(&servers).env("SWITCHMASTER_PROXY_FALLBACK", "master"),
        2,
    );
    let (mut refused, _) = client(&refusing);
    let (mut fallen, _) = client(&falling);
    let mark = falling.mark();
    for addr in &replicas {
        servers.node(*addr).kill().expect("killed");
    }
    falling.event_after(mark, "fallback_begin", FOLLOW);
    refusing.event("hold_begin", FOLLOW);
    assert_eq!(
        port_of(&mut fallen),
        Some(master.port()),
        "an idle client is moved"
    );
    assert_eq!(
        client(&falling).1,
        master.port(),
        "and a new one is led there"
    );
    let answer = refused.call(&["GET", "a"]).expect("an answer");
    assert!(format!("{answer:?}").contains("LOADING"), "{answer:?}");
    let mark = falling.mark();
    for addr in &replicas {
        servers
            .node(*addr)
            .restart_as_replica_of(master)
            .expect("restarted");
    }
    joined(&falling, mark, 2);
    falling.event_after(mark, "fallback_end", FOLLOW);
    assert_ne!(client(&falling).1, master.port());
    wait_until("its client to go back", EVENED, || {
        port_of(&mut fallen).is_some_and(|port| port != master.port())
    });
    refusing.event("hold_end", Duration::from_secs(30));
    let served = wait_for("the client that was refused to be served", FOLLOW, || {
        port_of(&mut refused)
    });
    assert_ne!(served, master.port());
}

#[test]
fn a_replica_without_room_is_shut_to_newcomers_and_keeps_those_it_has() {
    let servers = Topology::start();
    let replicas = others(&servers, servers.master().addr());
    let proxy = ready(plan(&servers), 2);
    let mut clients = all(&proxy, 20);
    let mut full = servers.node(replicas[0]).connect().expect("it runs");
    let mut room_for = |clients: &str| {
        let answer = full.call(&["CONFIG", "SET", "maxclients", clients]);
        assert!(answer.as_ref().is_ok_and(|a| !a.is_error()), "{answer:?}");
    };
    let mark = proxy.mark();
    room_for("1");
    // Those that it turned away have gone nowhere, so that the next would be led to it, too.
    let mut newcomers = Vec::new();
    wait_until("it to be noticed", FOLLOW, || {
        let mut conn = Conn::connect(proxy.addr(), FOLLOW).expect("the proxy listens");
        drop(conn.call(&["GET", "a"]));
        newcomers.push(conn);
        !proxy.events(mark, "replica_shut").is_empty()
    });
    for _ in 0..20 {
        let (conn, port) = client(&proxy);
        assert_eq!(port, replicas[1].port());
        newcomers.push(conn);
    }
    for (conn, port) in &mut clients {
        assert_eq!(port_of(conn), Some(*port), "it serves those it has");
    }
    assert!(proxy.events(mark, "replica_left").is_empty());
    room_for("10000");
    proxy.event_after(mark, "replica_opened", FOLLOW);
    wait_until("the one with the fewest to be chosen", FOLLOW, || {
        client(&proxy).1 == replicas[0].port()
    });
}
