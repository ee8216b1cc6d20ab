//! `resend_reads = true`: a read that lost its master while it was alone in flight, and of which nothing was heard, is asked of
//! the next. Everything else with an unanswered request is closed as ever, and nothing is answered that is not true.

use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FOLLOW, Topology, follows, idle_client, is_closed};
use crate::harness::wait_until;

/// How long a client waits that asks in the middle of an outage.
const OUTAGE: Duration = Duration::from_secs(60);

fn resending(servers: &Topology) -> Plan {
    let plan = Plan::moving(&servers.sentinels());
    plan.env("SWITCHMASTER_FAILOVER_RESEND_READS", "true")
}

fn ok(conn: &mut Conn, command: &[&str]) {
    let reply = conn.call(command).expect("answered");
    assert!(!reply.is_error(), "{command:?}: {reply:?}");
}

/// A client that has asked this of a master that does not answer.
fn asks(
    proxy: &Proxy,
    before: &[&[&str]],
    commands: &[&[&str]],
) -> (String, Conn, Vec<Vec<String>>) {
    let mut conn = idle_client(proxy);
    for command in before {
        ok(&mut conn, command);
    }
    conn.set_timeout(OUTAGE);
    let owned = |command: &&[&str]| command.iter().map(|word| (*word).to_owned()).collect();
    (
        format!("{commands:?}"),
        conn,
        commands.iter().map(owned).collect(),
    )
}

fn text(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

/// Everything that is asked of a master that has stopped answering: what is to be answered all the same, and what is not.
struct Asked {
    answered: Vec<(Value, Conn)>,
    closed: Vec<(String, Conn)>,
}

/// Bytes that were written to masters since there were so many.
fn are_sent(proxy: &Proxy, before: f64, bytes: usize) {
    wait_until("the requests to be sent", FOLLOW, || {
        proxy.bytes_up() >= before + bytes as f64
    });
}

/// As it is written: an array of bulk strings.
fn size_of_request(command: &[String]) -> usize {
    let header = |n: usize| format!("*{n}\r\n").len();
    let each = |word: &String| header(word.len()) + word.len() + 2;
    header(command.len()) + command.iter().map(each).sum::<usize>()
}

/// Stops the master, and asks.
fn ask(servers: &Topology, proxy: &Proxy) -> Asked {
    let mut writer = idle_client(proxy);
    ok(&mut writer, &["SET", "k", "v"]);
    ok(&mut writer, &["HSET", "h", "f", "w"]);
    ok(&mut writer, &["WAIT", "2", "10000"]);
    drop(writer);
    let answered = [
        (asks(proxy, &[], &[&["GET", "k"]]), text("v")),
        (asks(proxy, &[], &[&["hget", "h", "f"]]), text("w")),
        (
            asks(proxy, &[&["SELECT", "3"]], &[&["GET", "k"]]),
            Value::Nil,
        ),
    ];
    let large = "x".repeat(2000);
    let closed = [
        asks(proxy, &[], &[&["SET", "k", "lost"]]),
        asks(proxy, &[], &[&["GET", "k"], &["GET", "k"]]),
        asks(proxy, &[], &[&["GETDEL", "k"]]),
        asks(proxy, &[], &[&["EVAL_RO", "return 1", "0"]]),
        asks(proxy, &[], &[&["RANDOMKEY"]]),
        asks(proxy, &[], &[&["SCAN", "0"]]),
        asks(proxy, &[], &[&["GET", &large]]),
        asks(proxy, &[&["MULTI"]], &[&["GET", "k"]]),
        asks(proxy, &[&["WATCH", "k"]], &[&["GET", "k"]]),
        asks(proxy, &[&["CLIENT", "ID"]], &[&["GET", "k"]]),
    ];
    servers.master().freeze().expect("SIGSTOP");
    let before = proxy.bytes_up();
    let mut sent = 0;
    let mut send = |(what, mut conn, commands): (String, Conn, Vec<Vec<String>>)| {
        for command in commands {
            conn.send(&command).expect("sent");
            sent += size_of_request(&command);
        }
        (what, conn)
    };
    let asked = Asked {
        answered: answered
            .into_iter()
            .map(|(asked, value)| (value, send(asked).1))
            .collect(),
        closed: closed.into_iter().map(&mut send).collect(),
    };
    are_sent(proxy, before, sent);
    asked
}

fn are_as_they_should(asked: Asked) {
    for (what, mut conn) in asked.closed {
        println!("{what}");
        is_closed(&mut conn, FOLLOW);
    }
    for (expected, mut conn) in asked.answered {
        assert_eq!(conn.read().expect("answered by the new master"), expected);
        // And once: what comes next is the next one's.
        ok(&mut conn, &["SET", "after", "1"]);
        assert_eq!(conn.call(&["GET", "after"]).expect("answered"), text("1"));
    }
}

#[test]
fn a_read_outlives_the_crash_of_its_master() {
    let servers = Topology::start();
    let proxy = Proxy::ready(resending(&servers));
    let old = servers.master().addr();
    let asked = ask(&servers, &proxy);
    let mark = proxy.mark();
    servers.node(old).kill().expect("SIGKILL");
    let switch = servers.switched_from(old);
    follows(&proxy, mark, switch);
    are_as_they_should(asked);
}

#[test]
fn a_read_outlives_a_master_that_never_answers() {
    let servers = Topology::start();
    let proxy = Proxy::ready(resending(&servers));
    let old = servers.master().addr();
    let asked = ask(&servers, &proxy);
    let mark = proxy.mark();
    let switch = servers.switched_from(old);
    let switched = follows(&proxy, mark, switch);
    assert_eq!(switched.number("cut"), asked.closed.len() as f64);
    are_as_they_should(asked);
    servers.thaw_all();
}

#[test]
fn a_read_that_finds_no_master_is_closed_and_not_lied_to() {
    let servers = Topology::start();
    let plan = resending(&servers).env("SWITCHMASTER_FAILOVER_HOLD_MAX", "2s");
    let proxy = Proxy::ready(plan);
    let master = servers.master().addr();
    let mut idle = idle_client(&proxy);
    let (_, mut reader, _) = asks(&proxy, &[], &[]);
    for sentinel in servers.cluster().sentinels() {
        sentinel.kill().expect("SIGKILL");
    }
    servers.node(master).freeze().expect("SIGSTOP");
    let before = proxy.bytes_up();
    reader.send(&["GET", "k"]).expect("sent");
    are_sent(
        &proxy,
        before,
        size_of_request(&["GET".to_owned(), "k".to_owned()]),
    );
    servers.node(master).kill().expect("SIGKILL");
    wait_until("the proxy to see the end", FOLLOW, || {
        proxy.sockets_to(master) == 0
    });
    idle.set_timeout(OUTAGE);
    // This one is never sent.
    assert!(idle.call(&["GET", "k"]).expect("refused").is_error());
    is_closed(&mut reader, OUTAGE);
}
