//! `pubsub = "move"`: subscribers outlive the switch (row 28). They hear messages and nothing else: no confirmation that they
//! did not ask for, no message twice, none out of order. What is published while there is no master is nobody's.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{connect, read_to_end};
use crate::harness::topology::{FOLLOW, Topology, follows, idle_client, is_closed};
use crate::harness::{holds_for, wait_until};

/// How long a test waits for what needs no failover.
const ANSWER: Duration = Duration::from_secs(10);
const PACE: Duration = Duration::from_millis(1);
/// One more than is kept of a session.
const TOO_MANY: usize = 1025;

fn moving(servers: &Topology) -> Proxy {
    let plan = Plan::moving(&servers.sentinels());
    Proxy::ready(plan.env("SWITCHMASTER_FAILOVER_PUBSUB", "move"))
}

fn words(value: &Value) -> Vec<String> {
    let text = |item: &Value| match item {
        Value::Int(n) => n.to_string(),
        other => other.text().unwrap_or_default(),
    };
    value.items().iter().map(text).collect()
}

/// Sends a command that is confirmed with so many values.
fn subscribe(conn: &mut Conn, command: &[&str], confirmations: usize) {
    conn.send(command).expect("sent");
    for _ in 0..confirmations {
        let confirmed = words(&conn.read().expect("confirmed"));
        assert_eq!(confirmed[0], command[0].to_lowercase());
    }
}

/// A client that speaks RESP3 has said this and heard so many bytes that end like that.
fn says_three(client: &mut TcpStream, command: &str, end: &str) -> String {
    client.write_all(command.as_bytes()).expect("written");
    hears_three(client, end)
}

fn hears_three(client: &mut TcpStream, end: &str) -> String {
    use std::io::Read;
    let mut heard = Vec::new();
    let mut byte = [0];
    while !heard.ends_with(end.as_bytes()) {
        let n = client.read(&mut byte).expect("something is said");
        assert!(n > 0, "closed behind {}", heard.escape_ascii());
        heard.extend(byte);
    }
    String::from_utf8(heard).expect("text")
}

/// How many subscribers each of these channels has at this node.
fn subscribers(node: &mut Conn, kind: &str, channels: &[&str]) -> Vec<String> {
    let asked = [&["PUBSUB", kind], channels].concat();
    let told = words(&node.call(&asked).expect("the node answers"));
    told.into_iter().skip(1).step_by(2).collect()
}

fn publish(node: &mut Conn, command: &str, channel: &str, message: &str) {
    let told = node.call(&[command, channel, message]).expect("published");
    assert!(matches!(told, Value::Int(1..)), "{channel}: {told:?}");
}

#[test]
fn row_28_move_subscribers_are_subscribed_again() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut channels = idle_client(&proxy);
    subscribe(&mut channels, &["SUBSCRIBE", "news", "alerts", "jobs"], 3);
    subscribe(&mut channels, &["UNSUBSCRIBE", "alerts"], 1);
    let mut patterns = idle_client(&proxy);
    assert!(
        !patterns
            .call(&["SELECT", "3"])
            .expect("answered")
            .is_error()
    );
    subscribe(&mut patterns, &["PSUBSCRIBE", "n*", "[ab]lerts"], 2);
    let mut former = idle_client(&proxy);
    subscribe(&mut former, &["SUBSCRIBE", "news", "jobs"], 2);
    subscribe(&mut former, &["UNSUBSCRIBE"], 2);
    let mut three = connect(proxy.addr());
    let hello = says_three(&mut three, "HELLO 3\r\nECHO hello\r\n", "$5\r\nhello\r\n");
    assert!(hello.starts_with('%'), "{hello}");
    says_three(&mut three, "SUBSCRIBE news\r\n", ":1\r\n");
    says_three(&mut three, "SSUBSCRIBE shard\r\n", ":1\r\n");
    // These cannot be told again, or not for certain.
    let mut too_many = idle_client(&proxy);
    let many: Vec<String> = (0..TOO_MANY).map(|n| format!("many:{n}")).collect();
    let many: Vec<&str> = ["SUBSCRIBE"]
        .into_iter()
        .chain(many.iter().map(String::as_str))
        .collect();
    subscribe(&mut too_many, &many, TOO_MANY);
    let mut cache = idle_client(&proxy);
    subscribe(&mut cache, &["SUBSCRIBE", "__redis__:invalidate"], 1);
    let mut under_way = idle_client(&proxy);
    subscribe(&mut under_way, &["SUBSCRIBE", "news"], 1);
    under_way.send(&["PSUBSCRIBE"]).expect("sent");
    assert!(under_way.read().expect("refused").is_error());

    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&proxy, mark, switch);
    is_closed(&mut too_many, FOLLOW);
    is_closed(&mut cache, FOLLOW);
    assert_eq!(switched.number("cut"), 2.0, "{}", switched.fields);
    // Nobody has said a word since.
    let mut new = servers.direct(switch.new);
    let all = ["news", "alerts", "jobs"];
    wait_until("all to be subscribed at the new master", FOLLOW, || {
        subscribers(&mut new, "NUMSUB", &all) == ["3", "0", "1"]
            && subscribers(&mut new, "SHARDNUMSUB", &["shard"]) == ["1"]
            && new.call(&["PUBSUB", "NUMPAT"]).ok() == Some(Value::Int(2))
    });
    let mut old = servers.direct(switch.old);
    assert_eq!(subscribers(&mut old, "NUMSUB", &all), ["0", "0", "0"]);

    publish(&mut new, "PUBLISH", "news", "one");
    publish(&mut new, "PUBLISH", "alerts", "two");
    publish(&mut new, "PUBLISH", "jobs", "three");
    publish(&mut new, "SPUBLISH", "shard", "four");
    let hears = |conn: &mut Conn, expected: &[&[&str]]| {
        for message in expected {
            assert_eq!(words(&conn.read().expect("a message")), *message);
        }
        let pong = conn.call(&["PING", "p"]).expect("answered");
        assert_eq!(words(&pong), ["pong", "p"], "subscribed, and nothing more");
    };
    hears(
        &mut channels,
        &[&["message", "news", "one"], &["message", "jobs", "three"]],
    );
    hears(
        &mut patterns,
        &[
            &["pmessage", "n*", "news", "one"],
            &["pmessage", "[ab]lerts", "alerts", "two"],
        ],
    );
    hears(&mut under_way, &[&["message", "news", "one"]]);
    let end = "$4\r\nfour\r\n";
    assert_eq!(
        hears_three(&mut three, end),
        ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\none\r\n>3\r\n$8\r\nsmessage\r\n$5\r\nshard\r\n$4\r\nfour\r\n"
    );
    // It goes on as a subscriber does, and as any other where the protocol allows it.
    assert_eq!(says_three(&mut three, "SET k v\r\n", "\r\n"), "+OK\r\n");
    let ended = says_three(&mut three, "UNSUBSCRIBE news\r\n", ":0\r\n");
    assert!(ended.starts_with(">3\r\n$11\r\nunsubscribe\r\n"), "{ended}");
    subscribe(&mut patterns, &["PUNSUBSCRIBE"], 2);
    let db = patterns.call(&["CLIENT", "INFO"]).expect("answered").text();
    assert!(db.is_some_and(|info| info.contains(" db=3 ")));
    let pong = former.call(&["PING"]).expect("answered");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
}

#[test]
fn row_28_close_is_the_default_and_nobody_stays_on_the_old_node() {
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let mut closed = idle_client(&proxy);
    subscribe(&mut closed, &["SUBSCRIBE", "news"], 1);
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    is_closed(&mut closed, FOLLOW);
    let mut old = servers.direct(switch.old);
    assert_eq!(subscribers(&mut old, "NUMSUB", &["news"]), ["0"]);
}

/// Publishes numbers through the proxy, on any connection, until it is stopped.
struct Publisher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Publisher {
    fn start(proxy: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut number = 0;
            while !stopped.load(Ordering::Relaxed) {
                let Ok(mut conn) = Conn::connect(proxy, ANSWER) else {
                    continue;
                };
                while !stopped.load(Ordering::Relaxed) {
                    number += 1;
                    // One whose outcome is unknown is not published again.
                    if conn
                        .call(&["PUBLISH", "numbers", &number.to_string()])
                        .is_err()
                    {
                        break;
                    }
                    thread::sleep(PACE);
                }
            }
            number
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

/// Hears numbers until one is at least this; gives all of them.
fn numbers_to(conn: &mut Conn, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last().is_none_or(|number| *number < last) {
        let message = words(&conn.read().expect("a message"));
        let [word, channel, number] = &message[..] else {
            panic!("{message:?}")
        };
        assert_eq!((word.as_str(), channel.as_str()), ("message", "numbers"));
        numbers.push(number.parse().expect("a number"));
    }
    numbers
}

#[test]
fn row_28_move_busy_subscribers_hear_each_message_once_and_in_order() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut listeners: Vec<Conn> = (0..20).map(|_| idle_client(&proxy)).collect();
    for listener in &mut listeners {
        subscribe(listener, &["SUBSCRIBE", "numbers"], 1);
    }
    let publisher = Publisher::start(proxy.addr());
    let mark = proxy.mark();
    let planned = servers.fail_over(0);
    let switched = follows(&proxy, mark, planned);
    assert_eq!(switched.number("cut"), 0.0, "{}", switched.fields);
    servers.ready_again(planned);
    let old = servers.master().addr();
    servers.node(old).kill().expect("SIGKILL");
    let crash = servers.switched_from(old);
    follows(&proxy, switched.index + 1, crash);
    let mut new = servers.direct(crash.new);
    wait_until("all to be subscribed at the new master", ANSWER, || {
        subscribers(&mut new, "NUMSUB", &["numbers"]) == ["20"]
    });
    // Some more, behind which comes one that all must hear.
    thread::sleep(100 * PACE);
    let last = publisher.stop() + 1;
    publish(&mut new, "PUBLISH", "numbers", &last.to_string());
    for listener in &mut listeners {
        let heard = numbers_to(listener, last);
        assert!(heard.is_sorted_by(|a, b| a < b), "twice, or out of order");
        assert_eq!(heard.last(), Some(&last));
    }
}

/// Kills the connections with this name, and gives how many there were. Sentinels are subscribers, too.
fn kill(admin: &mut Conn, name: &str) -> usize {
    let clients = admin.call(&["CLIENT", "LIST"]).expect("answered");
    let clients = clients.text().unwrap_or_default();
    let named = clients.lines().filter(|line| {
        let mut fields = line.split(' ');
        fields.any(|field| field.strip_prefix("name=") == Some(name))
    });
    let ids = named.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
    ids.filter(|id| {
        let killed = admin.call(&["CLIENT", "KILL", "ID", id]);
        killed.is_ok_and(|killed| killed == Value::Int(1))
    })
    .count()
}

#[test]
fn a_killed_subscriber_is_subscribed_again_and_not_in_a_loop() {
    let servers = Topology::start();
    let proxy = moving(&servers);
    let mut listener = idle_client(&proxy);
    let named = listener.call(&["CLIENT", "SETNAME", "listener"]);
    assert!(!named.expect("answered").is_error());
    subscribe(&mut listener, &["SUBSCRIBE", "news"], 1);
    let mut three = connect(proxy.addr());
    let hello = "HELLO 3 SETNAME listener\r\nECHO x\r\n";
    says_three(&mut three, hello, "$1\r\nx\r\n");
    says_three(&mut three, "SUBSCRIBE news\r\n", ":1\r\n");
    says_three(&mut three, "CLIENT ID\r\n", "\r\n");
    let master = servers.master().addr();
    let mut admin = servers.direct(master);
    assert_eq!(kill(&mut admin, "listener"), 2);
    assert_eq!(read_to_end(&mut three), b"", "it had asked for its id");
    wait_until("it to be subscribed again", ANSWER, || {
        subscribers(&mut admin, "NUMSUB", &["news"]) == ["1"]
    });
    publish(&mut admin, "PUBLISH", "news", "one");
    let message = words(&listener.read().expect("a message"));
    assert_eq!(message, ["message", "news", "one"]);
    // A master that throws it out each time.
    let mut kills = 0;
    holds_for("the connection", Duration::from_secs(2), || {
        kills += kill(&mut admin, "listener");
        !listener.readable(Duration::from_millis(10)).unwrap_or(true)
    });
    assert!((1..=6).contains(&kills), "{kills} times in two seconds");
    // A client that leaves meanwhile is let go.
    drop(listener);
    wait_until("its upstream to be gone", ANSWER, || {
        subscribers(&mut admin, "NUMSUB", &["news"]) == ["0"]
    });
}
