//! What is under way when the master changes: rows 27, 30 to 33, 35 and 36. In both modes unless a test says otherwise.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value, WireError};

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::connect;
use crate::harness::topology::{
    FOLLOW, Topology, blocked_clients, follows, idle_client, is_closed, port_of,
};
use crate::harness::{raise_descriptor_limit, wait_for, wait_until};

/// How long a client waits that asks in the middle of an outage.
const OUTAGE: Duration = Duration::from_secs(60);
/// Goal: 50 ms after the upstream's end.
const CUT: Duration = Duration::from_millis(500);
const LARGE: usize = 64 * 1024 * 1024;

#[test]
fn row_27_500_blocked_clients_at_a_swap() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut blocked: Vec<Conn> = (0..500).map(|_| idle_client(&proxy)).collect();
    for (number, conn) in blocked.iter_mut().enumerate() {
        let key = format!("nothing:{number}");
        let command = match number % 2 {
            0 => vec!["BLPOP", &key, "0"],
            _ => vec!["XREAD", "BLOCK", "0", "STREAMS", &key, "$"],
        };
        conn.send(&command).expect("sent");
    }
    let old = servers.master().addr();
    wait_until("all of them to block", FOLLOW, || {
        blocked_clients(&mut servers.direct(old)) == 500
    });
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    assert!(switched.number("cut") >= 500.0, "{}", switched.fields);
    for conn in &mut blocked {
        is_closed(conn, FOLLOW);
    }
    wait_until("nobody to be blocked on the old node", FOLLOW, || {
        blocked_clients(&mut servers.direct(old)) == 0
    });
}

#[test]
fn row_30_exec_in_flight_at_a_kill() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let mut conn = idle_client(&proxy);
    for command in [&["MULTI"][..], &["RPUSH", "row30", "once"]] {
        assert!(!conn.call(command).expect("answered").is_error());
    }
    // Stopped first, so that the kill finds it unanswered.
    servers.node(old).freeze().expect("SIGSTOP");
    conn.send(&["EXEC"]).expect("sent");
    let mark = proxy.mark();
    servers.node(old).kill().expect("SIGKILL");
    is_closed(&mut conn, FOLLOW);
    let switch = servers.switched_from(old);
    follows(&proxy, mark, switch);
    let length = servers.direct(switch.new).call(&["LLEN", "row30"]);
    let length = length.expect("the new master answers");
    assert!(matches!(length, Value::Int(0 | 1)), "{length:?}");
}

#[test]
fn row_31_a_deep_pipeline_at_a_kill_ends_in_an_exact_prefix() {
    const DEPTH: i64 = 10_000;
    let servers = Topology::start();
    let proxy = servers.proxy();
    let old = servers.master().addr();
    let mut conn = idle_client(&proxy);
    conn.set_timeout(OUTAGE);
    // So much work for each that the kill comes in the middle.
    let script = "for i = 1, 3000 do end return redis.call('INCR', KEYS[1])";
    let killing = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(60));
            servers.node(old).kill().expect("SIGKILL");
        });
        for _ in 0..DEPTH {
            if conn.send(&["EVAL", script, "1", "row31"]).is_err() {
                break;
            }
        }
        let mut expected = 1;
        loop {
            match conn.read() {
                Ok(Value::Int(n)) => assert_eq!(n, expected, "a gap or a repetition"),
                Ok(other) => panic!("{other:?}"),
                Err(WireError::Timeout(limit)) => panic!("still open after {limit:?}"),
                Err(_) => return expected - 1,
            }
            expected += 1;
        }
    });
    println!("{killing} of {DEPTH} were answered");
    assert!(killing < DEPTH, "the kill came too late to show anything");
}

#[test]
fn row_32_a_swap_in_the_middle_of_a_large_request() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut client = connect(proxy.addr());
    let head = format!("*3\r\n$3\r\nSET\r\n$5\r\nrow32\r\n${LARGE}\r\n");
    client.write_all(head.as_bytes()).expect("written");
    client
        .write_all(&vec![b'x'; LARGE / 2])
        .expect("the master reads on");
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    assert_eq!(ended(&mut client), b"", "no reply to half a request");
    let exists = servers.direct(switch.new).call(&["EXISTS", "row32"]);
    assert_eq!(exists.expect("the new master answers"), Value::Int(0));
}

#[test]
fn row_33_a_swap_in_the_middle_of_a_large_reply() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut direct = servers.direct(servers.master().addr());
    let fill = format!("return redis.call('SET', 'row33', string.rep('x', {LARGE}))");
    let stored = direct.call(&["EVAL", &fill, "0"]).expect("stored");
    assert!(!stored.is_error(), "{stored:?}");
    servers.settle();
    let mut client = connect(proxy.addr());
    client.write_all(b"GET row33\r\n").expect("written");
    let mut begun = vec![0; 1024 * 1024];
    client.read_exact(&mut begun).expect("the reply begins");
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    begun.extend(ended(&mut client));
    let head = format!("${LARGE}\r\n");
    assert!(begun.starts_with(head.as_bytes()));
    let body = &begun[head.len()..];
    assert!(body.len() < LARGE, "the swap came in the middle");
    assert!(body.iter().all(|b| *b == b'x'), "not one padded byte");
}

/// What comes until the end of the connection, which a reset is as well.
fn ended(client: &mut TcpStream) -> Vec<u8> {
    client.set_read_timeout(Some(FOLLOW)).expect("a socket");
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection does not end: {e}"),
    }
    rest
}

#[test]
fn row_35_a_new_master_that_is_full_is_tried_again_until_it_has_room() {
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let mut client = idle_client(&proxy);
    let selected = client.call(&["SELECT", "3"]).expect("answered");
    assert!(!selected.is_error());
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    let mut admin = servers.direct(switch.new);
    let clients = |admin: &mut Conn| {
        let list = admin.call(&["CLIENT", "LIST"]).expect("answered");
        list.text().unwrap_or_default().lines().count()
    };
    let full = clients(&mut admin).to_string();
    let limited = admin.call(&["CONFIG", "SET", "maxclients", &full]);
    assert!(!limited.expect("answered").is_error());
    client.set_timeout(OUTAGE);
    client.send(&["PING"]).expect("sent");
    let failed = proxy.event_after(mark, "replay_failed", FOLLOW);
    assert_eq!(failed.text("reason"), "too_many_clients");
    thread::sleep(Duration::from_secs(2));
    // Backed off between 50 and 500 ms, and told once a second.
    assert!(proxy.events(mark, "replay_failed").len() <= 5, "no loop");
    let room = admin.call(&["CONFIG", "SET", "maxclients", "10000"]);
    assert!(!room.expect("answered").is_error());
    let pong = client.read().expect("served when there is room");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
    assert_eq!(port_of(&mut client), Some(switch.new.port()));
    let keys = client.call(&["CLIENT", "INFO"]).expect("answered");
    assert!(keys.text().is_some_and(|info| info.contains("db=3")));
}

#[test]
fn row_36_idle_connections_at_a_swap_are_no_herd() {
    const CLIENTS: usize = 2000;
    raise_descriptor_limit();
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let mut idle: Vec<Conn> = (0..CLIENTS).map(|_| idle_client(&proxy)).collect();
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    assert_eq!(switched.number("kept"), CLIENTS as f64);
    assert!(
        proxy.sockets_to(switch.new) <= 2,
        "nobody has asked for anything yet"
    );
    // All at once, and each is served.
    for conn in &mut idle {
        conn.set_timeout(OUTAGE);
        conn.send(&["PING"]).expect("sent");
    }
    for conn in &mut idle {
        let pong = conn.read().expect("moved");
        assert_eq!(pong, Value::Simple("PONG".to_owned()));
    }
    wait_for("one upstream each", CUT, || {
        (proxy.sockets_to(switch.new) >= CLIENTS).then_some(())
    });
}
