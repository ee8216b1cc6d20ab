//! `on_switch = "move"`: sessions outlive the switch. What a client has told its server is told again, what is not certain is
//! closed, and nothing is answered that was not executed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::history::{Outcome, Writers};
use crate::harness::load::Load;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{connect, read_to_end};
use crate::harness::topology::{
    FAILOVER, FOLLOW, Topology, follows, idle_client, is_closed, port_of,
};
use crate::harness::{holds_for, wait_for, wait_until};

const PACE: Duration = Duration::from_millis(1);
/// Idle connections of a pool.
const POOL: usize = 200;
/// Connections of each `redis-benchmark`.
const LOAD_CONNECTIONS: usize = 20;
/// Goal: 50 ms after the upstream's end.
const CUT: Duration = Duration::from_millis(500);
/// How long a client waits that asks in the middle of an outage.
const OUTAGE: Duration = Duration::from_secs(60);

fn moving(servers: &Topology) -> Proxy {
    Proxy::ready(Plan::moving(&servers.sentinels()))
}

fn ok() -> Value {
    Value::Simple("OK".to_owned())
}

fn call(conn: &mut Conn, args: &[&str]) -> Value {
    conn.call(args)
        .unwrap_or_else(|e| panic!("{args:?} on a connection that should live: {e}"))
}

#[test]
fn row_05_move_planned_failover_with_steady_writers() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut pool: Vec<Conn> = (0..POOL).map(|_| idle_client(&proxy)).collect();
    let writers = Writers::start(proxy.addr(), 10, PACE);
    let mark = proxy.mark();

    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    assert_eq!(switched.number("cut"), 0.0, "{}", switched.fields);
    assert!(
        switched.number("kept") >= POOL as f64,
        "{}",
        switched.fields
    );
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    let mut old = servers.direct(switch.old);
    history.assert_none_after(switched.written(), &mut old);
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    assert_eq!(history.lost(&mut new).len(), 0);
    assert_eq!(
        history.count(|o| *o != Outcome::Ok),
        0,
        "neither an error nor an unknown outcome"
    );
    assert!(history.reconnects.iter().all(|n| *n == 0), "no disconnect");
    for client in &mut pool {
        assert_eq!(port_of(client), Some(switch.new.port()));
    }
    assert_eq!(proxy.sockets_to(switch.old), 0);
}

#[test]
fn row_01_move_a_kill_leaves_idle_connections_alone_and_row_02_closes_the_unanswered() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let old = servers.master().addr();
    let mut pool: Vec<Conn> = (0..POOL).map(|_| idle_client(&proxy)).collect();
    let mut blocked = idle_client(&proxy);
    blocked.send(&["BLPOP", "nothing", "0"]).expect("sent");
    let writers = Writers::start(proxy.addr(), 10, PACE);
    let mark = proxy.mark();

    let killed = SystemTime::now();
    servers.node(old).kill().expect("SIGKILL");
    is_closed(&mut blocked, CUT);
    // Asked in the middle of the outage: held, then served.
    let mut asking = pool.pop().expect("a pool");
    asking.set_timeout(OUTAGE);
    asking.send(&["PING"]).expect("sent");
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);
    let pong = asking.read().expect("held, then answered");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    history.assert_lost_only_before(killed, &mut new);
    assert_eq!(
        history.count(|o| matches!(o, Outcome::Refused(_))),
        0,
        "no invented errors"
    );
    // Each disconnect had an unanswered write for its reason, and no more than that write was lost to sight.
    let unanswered = history.count(|o| *o == Outcome::Unknown);
    assert_eq!(history.reconnects.iter().sum::<usize>(), unanswered);
    for client in &mut pool {
        assert_eq!(port_of(client), Some(switch.new.port()), "idle and kept");
    }
}

#[test]
fn what_a_session_has_told_is_told_again() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut plain = idle_client(&proxy);
    assert_eq!(call(&mut plain, &["SELECT", "5"]), ok());
    assert_eq!(call(&mut plain, &["CLIENT", "SETNAME", "worker-7"]), ok());
    assert_eq!(call(&mut plain, &["SET", "row", "five"]), ok());
    assert_eq!(call(&mut plain, &["CLIENT", "NO-EVICT", "on"]), ok());
    let mut three = connect(proxy.addr());
    assert!(answered(&mut three, "HELLO 3 SETNAME three\r\n").starts_with('%'));
    assert_eq!(answered(&mut three, "HSET map a 1\r\n"), ":1\r\n");
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);

    assert_eq!(port_of(&mut plain), Some(switch.new.port()), "moved");
    assert_eq!(
        call(&mut plain, &["GET", "row"]).text().as_deref(),
        Some("five"),
        "still database 5"
    );
    assert_eq!(
        call(&mut plain, &["CLIENT", "GETNAME"]).text().as_deref(),
        Some("worker-7")
    );
    let map = answered(&mut three, "HGETALL map\r\n");
    assert_eq!(map, "%1\r\n$1\r\na\r\n$1\r\n1\r\n", "still RESP3");
    let name = answered(&mut three, "CLIENT GETNAME\r\n");
    assert_eq!(name, "$5\r\nthree\r\n");
}

#[test]
fn row_28_29_39_what_cannot_be_told_again_is_closed() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut closed: Vec<(&str, Conn)> = Vec::new();
    for (what, commands) in [
        ("MULTI", &[&["MULTI"][..], &["SET", "multi", "1"]][..]),
        ("WATCH", &[&["WATCH", "key"][..]]),
        ("SUBSCRIBE", &[&["SUBSCRIBE", "news"][..]]),
        ("PSUBSCRIBE", &[&["PSUBSCRIBE", "n*"][..]]),
        ("MONITOR", &[&["MONITOR"][..]]),
        ("CLIENT ID", &[&["CLIENT", "ID"][..]]),
        ("BLPOP", &[&["BLPOP", "nothing", "0"][..]]),
    ] {
        let mut conn = idle_client(&proxy);
        for command in commands {
            conn.send(command).expect("sent");
            if what != "BLPOP" {
                let reply = conn.read().expect("answered");
                assert!(!reply.is_error(), "{what}: {reply:?}");
            }
        }
        closed.push((what, conn));
    }
    let mut tracked = connect(proxy.addr());
    assert!(answered(&mut tracked, "HELLO 3\r\n").starts_with('%'));
    assert_eq!(answered(&mut tracked, "CLIENT TRACKING ON\r\n"), "+OK\r\n");
    let mut kept = idle_client(&proxy);
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    for (what, conn) in &mut closed {
        println!("{what}");
        is_closed_behind_replies(conn, FOLLOW);
    }
    assert_eq!(read_to_end(&mut tracked), b"", "CLIENT TRACKING");
    assert_eq!(switched.number("cut"), closed.len() as f64 + 1.0);
    assert_eq!(port_of(&mut kept), Some(switch.new.port()));
    let multi = call(&mut kept, &["EXISTS", "multi"]);
    assert_eq!(multi, Value::Int(0), "nothing of it was executed");
}

/// Writes an inline command and gives what came back first, which a small reply is as a whole.
fn answered(client: &mut TcpStream, command: &str) -> String {
    client.write_all(command.as_bytes()).expect("written");
    let mut reply = vec![0; 4096];
    let n = client.read(&mut reply).expect("answered");
    String::from_utf8_lossy(&reply[..n]).into_owned()
}

/// A monitor has lines on the way.
fn is_closed_behind_replies(conn: &mut Conn, within: Duration) {
    conn.set_timeout(within);
    wait_until("the connection to be closed", within, || {
        match conn.read() {
            Ok(_) => false,
            Err(switchmaster::demo::wire::WireError::Timeout(limit)) => {
                panic!("the connection is still open after {limit:?}")
            }
            Err(_) => true,
        }
    });
}

#[test]
fn row_40_wait_after_a_move_is_never_answered() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut moved = idle_client(&proxy);
    assert_eq!(call(&mut moved, &["SET", "a", "1"]), ok());
    let before = call(&mut moved, &["WAIT", "1", "1000"]);
    assert!(matches!(before, Value::Int(1..)), "{before:?}");
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    assert_eq!(call(&mut moved, &["SET", "a", "2"]), ok());
    // In a pipeline: what comes before it is answered.
    for command in [&["GET", "a"][..], &["WAIT", "0", "0"], &["SET", "a", "3"]] {
        moved.send(command).expect("sent");
    }
    assert_eq!(moved.read().expect("answered").text().as_deref(), Some("2"));
    is_closed(&mut moved, FOLLOW);
    let mut other = idle_client(&proxy);
    assert_eq!(call(&mut other, &["GET", "a"]).text().as_deref(), Some("2"));
    let fresh = call(&mut other, &["WAIT", "0", "0"]);
    assert!(matches!(fresh, Value::Int(_)), "a fresh session may ask");
}

#[test]
fn without_a_master_requests_are_refused_truthfully_and_sessions_live() {
    let servers = Topology::start();
    let proxy = Proxy::ready(
        Plan::moving(&servers.sentinels()).env("SWITCHMASTER_FAILOVER_HOLD_MAX", "2s"),
    );
    let master = servers.master().addr();
    let mut kept = idle_client(&proxy);
    let mut transaction = idle_client(&proxy);
    let mut idle = idle_client(&proxy);
    for sentinel in servers.cluster().sentinels() {
        sentinel.kill().expect("SIGKILL");
    }
    servers.node(master).kill().expect("SIGKILL");
    // What is sent to a master before its end is seen may have been executed, so its session is closed.
    proxy.event("hold_begin", FOLLOW);
    wait_for("the end of every upstream to be seen", FOLLOW, || {
        (proxy.sockets_kept_to(master) == 0).then_some(())
    });
    kept.set_timeout(OUTAGE);
    // Held for hold_max, then told.
    let refused = call(&mut kept, &["SET", "refused", "1"]);
    let Value::Error(text) = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        text.starts_with("LOADING switchmaster: no verified master for"),
        "{text}"
    );
    assert!(text.ends_with("command not executed"), "{text}");
    // From now on at once, each request of a pipeline in its order, and newcomers too.
    for n in 0..3 {
        kept.send(&["SET", "refused", &n.to_string()])
            .expect("sent");
    }
    for _ in 0..3 {
        assert!(kept.read().expect("answered").is_error());
    }
    let mut newcomer = Conn::connect(proxy.addr(), OUTAGE).expect("the proxy listens");
    assert!(call(&mut newcomer, &["GET", "x"]).is_error());
    // Refusing a MULTI and running what follows would break it apart.
    transaction.send(&["MULTI"]).expect("sent");
    is_closed(&mut transaction, OUTAGE);

    servers.node(master).restart().expect("it has its data");
    for sentinel in servers.cluster().sentinels() {
        sentinel.restart().expect("it has its configuration");
    }
    wait_for("the master to be served again", FAILOVER, || {
        (!call(&mut kept, &["PING"]).is_error()).then_some(())
    });
    assert_eq!(call(&mut kept, &["EXISTS", "refused"]), Value::Int(0));
    idle.set_timeout(OUTAGE);
    assert_eq!(call(&mut idle, &["SET", "idle", "1"]), ok());
    assert_eq!(call(&mut newcomer, &["SET", "new", "1"]), ok());
    assert!(proxy.events(0, "switched").is_empty());
}

#[test]
fn a_killed_client_connection_is_made_again_unseen() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut idle = idle_client(&proxy);
    assert_eq!(call(&mut idle, &["SELECT", "3"]), ok());
    assert_eq!(call(&mut idle, &["SET", "k", "v"]), ok());
    let mut admin = servers.direct(servers.master().addr());
    let killed = call(&mut admin, &["CLIENT", "KILL", "TYPE", "normal"]);
    assert!(matches!(killed, Value::Int(1..)), "{killed:?}");
    holds_for("an open connection", Duration::from_millis(300), || {
        !idle.readable(Duration::from_millis(10)).unwrap_or(true)
    });
    assert_eq!(call(&mut idle, &["GET", "k"]).text().as_deref(), Some("v"));
}

#[test]
fn row_20_a_second_failover_while_sessions_are_moving() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut pool: Vec<Conn> = (0..POOL).map(|_| idle_client(&proxy)).collect();
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mark = proxy.mark();
    let first = servers.fail_over(0);
    let switched = follows(&proxy, mark, first);
    // Some move now, some after the second.
    for client in &mut pool[..POOL / 2] {
        assert_eq!(port_of(client), Some(first.new.port()));
    }
    servers.ready_again(first);
    let second = servers.fail_over(1);
    let again = follows(&proxy, switched.index + 1, second);
    assert_eq!(again.number("cut"), 0.0, "{}", again.fields);
    for client in &mut pool {
        assert_eq!(port_of(client), Some(second.new.port()));
    }
    writers.all_acknowledged_after(again.written(), FOLLOW);
    let history = writers.stop();
    let mut new = servers.direct(second.new);
    history.assert_at_most_once(&mut new);
    assert_eq!(history.count(|o| *o != Outcome::Ok), 0);
    assert!(history.reconnects.iter().all(|n| *n == 0));
    assert_eq!(history.lost(&mut new).len(), 0);
}

#[test]
fn row_34_another_password_on_the_new_master_closes_and_says_so() {
    let servers = Topology::start();
    for node in servers.cluster().nodes() {
        let mut admin = node.connect().expect("the node runs");
        let rules = ["ACL", "SETUSER", "app", "on", ">one", "+@all", "~*"];
        assert_eq!(call(&mut admin, &rules), ok());
    }
    let proxy = moving(&servers);
    let mut known = idle_client(&proxy);
    assert_eq!(call(&mut known, &["AUTH", "app", "one"]), ok());
    let mut changed = idle_client(&proxy);
    let old = servers.master().addr();
    // The replicas have another password for the second user.
    for node in servers.cluster().nodes() {
        let password = if node.addr() == old { ">two" } else { ">three" };
        let mut admin = node.connect().expect("the node runs");
        let rules = ["ACL", "SETUSER", "other", "on", password, "+@all", "~*"];
        assert_eq!(call(&mut admin, &rules), ok());
    }
    assert_eq!(call(&mut changed, &["AUTH", "other", "two"]), ok());
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    assert_eq!(
        call(&mut known, &["ACL", "WHOAMI"]).text().as_deref(),
        Some("app"),
        "logged in again"
    );
    changed.send(&["PING"]).expect("sent");
    is_closed(&mut changed, FOLLOW);
    let failed = proxy.event_after(mark, "replay_failed", FOLLOW);
    assert_eq!(failed.text("reason"), "denied");
    let lines = proxy.output();
    for secret in ["one", "two"] {
        assert!(
            !lines.contains(&format!("\"{secret}\"")) && !lines.contains(&format!(" {secret} ")),
            "a password in the log"
        );
    }
    assert_eq!(proxy.events(mark, "replay_failed").len(), 1, "no loop");
}

#[test]
fn redis_benchmark_does_not_notice_planned_failovers() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut loads =
        [1, 16].map(|depth| Load::endless(proxy.addr().port(), LOAD_CONNECTIONS, depth));
    for sentinel in [0, 1, 2] {
        let mark = proxy.mark();
        let switch = servers.fail_over(sentinel);
        let switched = follows(&proxy, mark, switch);
        assert_eq!(switched.number("cut"), 0.0, "{}", switched.fields);
        wait_until("the load to reach the new master", FOLLOW, || {
            proxy.sockets_to(switch.new) >= 2 * LOAD_CONNECTIONS
        });
        servers.ready_again(switch);
    }
    for load in &mut loads {
        load.assert_undisturbed();
    }
}
