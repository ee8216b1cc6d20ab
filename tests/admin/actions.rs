//! Actions: a pause and a reconnect on real servers under load.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use switchmaster::demo::wire::{self, Conn};

use crate::harness::history::{Outcome, Writers};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{
    FOLLOW, Topology, blocked_clients, idle_client, master_named, port_of,
};
use crate::harness::{holds_for, wait_for, wait_until};
use crate::{PATIENCE, admin_of, ask, bytes_down, get, series, status, watched};

pub(crate) const TOKEN: &str = "a-token-of-this-test";
const PACE: Duration = Duration::from_millis(1);
/// How long it is watched that nothing happens.
const WATCH: Duration = Duration::from_millis(300);

pub(crate) fn acting(plan: Plan) -> Proxy {
    let plan = plan
        .env("SWITCHMASTER_ADMIN_ACTIONS", "true")
        .env("SWITCHMASTER_ADMIN_TOKEN", TOKEN)
        // Nobody is to be refused before a test has looked.
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "60s");
    watched(plan)
}

pub(crate) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// What somebody with the token is answered.
pub(crate) fn post(admin: SocketAddr, path: &str, body: &str) -> (u16, String) {
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let (code, _, body) = ask(admin, &request("POST", path, &bearer, body));
    (code, body)
}

pub(crate) fn act(admin: SocketAddr, action: &str) -> Value {
    let (code, body) = post(admin, &format!("/proxies/main/{action}"), "");
    assert_eq!(code, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    println!("{action}: {answer}");
    answer
}

/// Sessions that wait to be served.
fn waiting(admin: SocketAddr) -> Value {
    status(admin)["proxies"][0]["sessions"]["waiting"].clone()
}

/// The ids of the master's clients that have this name.
fn ids(master: &mut Conn, name: &str) -> Vec<u64> {
    let list = master
        .call(&["CLIENT", "LIST"])
        .expect("the master answers");
    let list = list.text().expect("a text");
    let named = list
        .lines()
        .filter(|line| line.contains(&format!(" name={name} ")));
    let id = |line: &str| line.strip_prefix("id=")?.split(' ').next()?.parse().ok();
    named.filter_map(id).collect()
}

fn simple(text: &str) -> wire::Value {
    wire::Value::Simple(text.to_owned())
}

/// It has asked for something, and is not answered.
fn waits(client: &mut Conn) -> bool {
    matches!(client.readable(WATCH), Ok(false))
}

fn named(proxy: &Proxy, name: &str) -> Conn {
    let mut conn = idle_client(proxy);
    let set = conn.call(&["CLIENT", "SETNAME", name]);
    assert_eq!(set.expect("it is served"), simple("OK"));
    conn
}

#[test]
fn a_pause_holds_everybody_and_loses_nothing() {
    let servers = Topology::start();
    let proxy = acting(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let master = servers.master().addr();
    let writers = Writers::start(proxy.addr(), 8, PACE);
    let mut idle = named(&proxy, "idle");
    for _ in 0..3 {
        let mark = proxy.mark();
        let paused = act(admin, "pause");
        assert_eq!(paused["before"], "serving");
        assert_eq!(paused["after"], "paused");
        assert_eq!(paused["upstreams_left"], 0);
        assert!(paused["upstreams"].as_u64() >= Some(1), "{paused}");
        // One is the proxy's own, which goes on asking the master for its role.
        wait_until("the sessions' sockets to be gone", PATIENCE, || {
            proxy.sockets_to(master) == 1
        });
        let event = proxy.event_after(mark, "paused", PATIENCE);
        assert_eq!(event.text("by"), "token");
        let begin = proxy.event_after(mark, "hold_begin", PATIENCE);
        assert_eq!(begin.text("cause"), "paused");

        // Each has asked for the next by then, so it has noted the answer to the last.
        wait_until("all writers to wait", PATIENCE, || waiting(admin) == 8);
        let acknowledged = writers.so_far().count(|o| *o == Outcome::Ok);
        holds_for("nobody to be served", WATCH, || {
            writers.so_far().count(|o| *o == Outcome::Ok) == acknowledged
        });
        let (code, words) = get(admin, "/readyz");
        assert_eq!(code, 503);
        assert!(
            words.starts_with("main: paused: Paused by token for "),
            "{words}"
        );
        assert_eq!(get(admin, "/livez").0, 200);
        let told = status(admin);
        let told = &told["proxies"][0];
        assert_eq!(told["hold"]["cause"], "paused", "{told}");
        assert_eq!(told["pause"]["by"], "token", "{told}");
        assert_eq!(told["pause"]["left_seconds"], Value::Null, "{told}");
        let (_, metrics) = get(admin, "/metrics");
        let is_paused = "switchmaster_paused{proxy=\"main\"}";
        assert_eq!(series(&metrics, is_paused), Some(1.0), "{metrics}");
        let up = "switchmaster_master_up{proxy=\"main\"}";
        assert_eq!(series(&metrics, up), Some(0.0), "{metrics}");
        let (_, page) = get(admin, "/");
        assert!(page.contains("Paused by token"), "{page}");
        // Another pause changes nothing, a new client waits, too.
        assert_eq!(act(admin, "pause")["before"], "paused");
        let mut newcomer = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
        newcomer.send(&["PING"]).expect("a socket");
        assert!(waits(&mut newcomer));

        let resumed = act(admin, "resume");
        assert_eq!(
            (&resumed["before"], &resumed["after"]),
            (&"paused".into(), &"serving".into())
        );
        assert_eq!(newcomer.read().expect("it is served"), simple("PONG"));
        let event = proxy.event_after(mark, "resumed", PATIENCE);
        assert_eq!(event.text("by"), "token");
        writers.all_acknowledged_after(SystemTime::now(), FOLLOW);
        assert_eq!(get(admin, "/readyz").0, 200);
    }
    assert_eq!(act(admin, "resume")["before"], "serving");
    let name = idle.call(&["CLIENT", "GETNAME"]).expect("it is served");
    assert_eq!(name.text().as_deref(), Some("idle"));
    let history = writers.stop();
    assert_eq!(history.count(|o| *o != Outcome::Ok), 0, "no error at all");
    assert_eq!(history.reconnects.iter().sum::<usize>(), 0);
    let mut direct = servers.direct(master);
    history.assert_at_most_once(&mut direct);
    history.assert_nothing_lost(&mut direct);
}

#[test]
fn a_pause_with_a_length_ends_by_itself_and_one_without_hold_is_refused() {
    let servers = Topology::start();
    let proxy = acting(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mark = proxy.mark();
    act(admin, "pause?for=700ms");
    let left = &status(admin)["proxies"][0]["pause"]["left_seconds"];
    assert!(left.as_f64().is_some_and(|left| left <= 0.7), "{left}");
    let mut client = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    let pong = client.call(&["PING"]).expect("served when it has ended");
    assert_eq!(pong, simple("PONG"));
    let resumed = proxy.event_after(mark, "resumed", PATIENCE);
    assert_eq!(resumed.text("by"), "time");
    assert!(resumed.number("paused_ms") >= 700.0, "{}", resumed.fields);

    let closing = Plan::moving(&servers.sentinels())
        .env("SWITCHMASTER_ADMIN_ACTIONS", "true")
        .env("SWITCHMASTER_ADMIN_TOKEN", TOKEN)
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "0s");
    let closing = watched(closing);
    let admin = admin_of(&closing);
    closing.event("ready", PATIENCE);
    let (code, why) = post(admin, "/proxies/main/pause", "");
    assert_eq!(code, 409, "{why}");
    assert!(why.contains("hold_max"), "{why}");
    assert_eq!(get(admin, "/readyz").0, 200);
}

#[test]
fn a_reconnect_gives_everybody_who_can_another_connection_and_counts_the_others() {
    let servers = Topology::start();
    let proxy = acting(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mut direct = servers.direct(servers.master().addr());
    let writers = Writers::start(proxy.addr(), 8, PACE);
    let mut idle = named(&proxy, "idle");
    let before = ids(&mut direct, "idle");
    for _ in 0..5 {
        let done = act(admin, "reconnect");
        assert_eq!(done["after"], "serving", "nobody is held for it");
        assert_eq!(done["upstreams_left"], 0);
        let told = proxy.event_where(0, "let_go", PATIENCE, |fields| {
            fields["upstreams"] == done["upstreams"]
        });
        assert_eq!(told.fields["left"], 0);
        writers.all_acknowledged_after(SystemTime::now(), FOLLOW);
    }
    assert_eq!(
        ids(&mut direct, "idle"),
        [0; 0],
        "it has none until it speaks"
    );
    idle.call(&["PING"]).expect("it is served");
    let after = ids(&mut direct, "idle");
    assert_eq!(after.len(), 1);
    assert_ne!(before, after, "another connection");

    // A transaction, a blocked client and a subscriber keep theirs, and nobody else waits for them.
    let mut transaction = named(&proxy, "transaction");
    transaction.call(&["MULTI"]).expect("it is served");
    let mut blocked = named(&proxy, "blocked");
    blocked.send(&["BLPOP", "nothing", "0"]).expect("a socket");
    wait_until("it to be blocked", PATIENCE, || {
        blocked_clients(&mut direct) == 1
    });
    let mut subscriber = named(&proxy, "subscriber");
    subscriber
        .call(&["SUBSCRIBE", "news"])
        .expect("it is served");
    let bound = ["transaction", "blocked", "subscriber"];
    let kept: Vec<_> = bound.iter().map(|name| ids(&mut direct, name)).collect();
    let done = act(admin, "reconnect");
    assert_eq!(done["upstreams_left"], 3);
    assert!(done["seconds"].as_f64() >= Some(5.0), "{done}");
    let still: Vec<_> = bound.iter().map(|name| ids(&mut direct, name)).collect();
    assert_eq!(kept, still);
    // The transaction is whole; behind its end it lets go.
    transaction.call(&["INCR", "counted"]).expect("queued");
    let done = transaction.call(&["EXEC"]).expect("it is served");
    assert_eq!(done.items(), [wire::Value::Int(1)]);
    direct.call(&["RPUSH", "nothing", "x"]).expect("a push");
    assert!(blocked.read().is_ok_and(|popped| popped.items().len() == 2));
    for (name, conn) in [("transaction", &mut transaction), ("blocked", &mut blocked)] {
        wait_until("it to let go", PATIENCE, || {
            ids(&mut direct, name).is_empty()
        });
        let own = conn.call(&["CLIENT", "GETNAME"]).expect("it is served");
        assert_eq!(own.text().as_deref(), Some(name));
    }
    direct.call(&["PUBLISH", "news", "x"]).expect("published");
    assert!(subscriber.read().is_ok_and(|news| news.items().len() == 3));

    let history = writers.stop();
    assert_eq!(history.count(|o| *o != Outcome::Ok), 0, "no error at all");
    assert_eq!(history.reconnects.iter().sum::<usize>(), 0);
    history.assert_at_most_once(&mut direct);
    history.assert_nothing_lost(&mut direct);
}

/// Sends request on request without waiting for an answer, every so many with a value that no buffer holds; gives how many.
fn stream_of_requests(proxy: SocketAddr, stop: &AtomicBool) -> u64 {
    let mut stream = TcpStream::connect(proxy).expect("the proxy listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
    let (ended, end) = std::sync::mpsc::sync_channel(1);
    thread::scope(|scope| {
        let reading = scope.spawn(move || {
            let (mut line, mut read) = (String::new(), 0);
            let mut last = None;
            while last != Some(read) {
                line.clear();
                answers.read_line(&mut line).expect("an answer");
                read += 1;
                // Each is one more than the one before: none was lost, repeated or overtaken.
                assert_eq!(line, format!(":{read}\r\n"));
                last = last.or_else(|| end.try_recv().ok());
            }
            read
        });
        let incr = b"*2\r\n$4\r\nINCR\r\n$6\r\nstream\r\n";
        let large = "x".repeat(150_000);
        // Answers with a number, too: the script's, which counts the value in.
        let script = "return redis.call('INCR','stream')";
        let large = format!(
            "*4\r\n$4\r\nEVAL\r\n${}\r\n{script}\r\n$1\r\n0\r\n${}\r\n{large}\r\n",
            script.len(),
            large.len()
        );
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            // Not further ahead than a client may be.
            for _ in 0..200 {
                stream.write_all(incr).expect("taken");
            }
            stream.write_all(large.as_bytes()).expect("taken");
            count += 201;
        }
        // The last answer is waited for with one request more.
        ended.send(count + 1).expect("somebody reads");
        stream.write_all(incr).expect("taken");
        reading.join().expect("no panic")
    })
}

#[test]
fn a_stream_of_requests_is_neither_torn_nor_repeated() {
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_LIMITS_WORKERS", "2");
    let proxy = acting(plan);
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let stop = AtomicBool::new(false);
    let count = thread::scope(|scope| {
        let streaming = scope.spawn(|| stream_of_requests(proxy.addr(), &stop));
        for round in 0..20 {
            let done = act(admin, if round % 4 == 3 { "pause" } else { "reconnect" });
            assert_eq!(done["upstreams_left"], 0, "{done}");
            act(admin, "resume");
            let before = bytes_down(admin);
            wait_until("it to flow again", PATIENCE, || {
                streaming.is_finished() || bytes_down(admin) > before
            });
        }
        stop.store(true, Ordering::Relaxed);
        streaming.join().expect("no panic")
    });
    let mut direct = servers.direct(servers.master().addr());
    let counted = direct.call(&["GET", "stream"]).expect("the master answers");
    assert_eq!(counted.text(), Some(count.to_string()));
    let moved = status(admin)["proxies"][0]["sessions"]["moved"].clone();
    assert!(moved.as_u64() >= Some(10), "{moved}");
}

#[test]
fn a_subscriber_that_is_moved_at_a_switch_is_so_at_a_reconnect() {
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_FAILOVER_PUBSUB", "move");
    let proxy = acting(plan);
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mut direct = servers.direct(servers.master().addr());
    let mut subscriber = named(&proxy, "subscriber");
    subscriber
        .call(&["SUBSCRIBE", "news"])
        .expect("it is served");
    for _ in 0..2 {
        let before = ids(&mut direct, "subscriber");
        assert_eq!(act(admin, "reconnect")["upstreams_left"], 0);
        wait_until("it to be subscribed again", PATIENCE, || {
            let now = ids(&mut direct, "subscriber");
            let heard = direct.call(&["PUBLISH", "news", "x"]).expect("published");
            !now.is_empty() && now != before && heard == wire::Value::Int(1)
        });
        assert!(subscriber.read().is_ok_and(|news| news.items().len() == 3));
    }
}

#[test]
fn sessions_that_are_never_moved_go_on_through_a_pause() {
    let servers = Topology::start();
    let plan =
        Plan::following(&servers.sentinels()).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "close");
    let proxy = acting(plan);
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let mut before = idle_client(&proxy);
    let paused = act(admin, "pause");
    assert_eq!(
        (&paused["upstreams"], &paused["upstreams_left"]),
        (&1.into(), &1.into())
    );
    before.call(&["PING"]).expect("it is served");
    let mut newcomer = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    newcomer.send(&["PING"]).expect("a socket");
    assert!(waits(&mut newcomer));
    act(admin, "resume");
    assert_eq!(newcomer.read().expect("it is served"), simple("PONG"));
    before.call(&["PING"]).expect("it is served");
}

#[test]
fn a_failover_during_a_pause_is_followed_and_served_when_it_ends() {
    let servers = Topology::start();
    let proxy = acting(Plan::moving(&servers.sentinels()));
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let writers = Writers::start(proxy.addr(), 4, PACE);
    let mark = proxy.mark();
    act(admin, "pause");
    let switch = servers.fail_over(0);
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), switch.new.to_string());
    wait_until("the pause alone to hold", PATIENCE, || {
        status(admin)["proxies"][0]["hold"]["cause"] == "paused"
    });
    let told = status(admin);
    let told = &told["proxies"][0];
    assert_eq!(told["master"]["addr"], switch.new.to_string(), "{told}");
    assert_eq!(told["master"]["generation"], 2, "{told}");
    wait_until("all writers to wait", PATIENCE, || waiting(admin) == 4);
    let acknowledged = writers.so_far().count(|o| *o == Outcome::Ok);
    holds_for("nobody to be served", WATCH, || {
        writers.so_far().count(|o| *o == Outcome::Ok) == acknowledged
    });
    assert_eq!(proxy.sockets_to(switch.old), 0);
    assert_eq!(act(admin, "resume")["after"], "serving");
    writers.all_acknowledged_after(SystemTime::now(), FOLLOW);
    let mut client = idle_client(&proxy);
    assert_eq!(port_of(&mut client), Some(switch.new.port()));
    let history = writers.stop();
    assert_eq!(history.count(|o| *o != Outcome::Ok), 0, "no error at all");
    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    history.assert_nothing_lost(&mut new);
    // The story of the pause has the switch in it.
    let outage = wait_for("the pause to be told", PATIENCE, || {
        let told = status(admin);
        let outages = told["proxies"][0]["outages"].as_array()?.clone();
        outages.into_iter().rfind(|outage| outage["over"] == true)
    });
    assert_eq!(outage["outcome"], "switched", "{outage}");
    assert_eq!(outage["to"], switch.new.to_string(), "{outage}");
    assert_eq!(outage["causes"][0], "paused", "{outage}");
    let mut sentinel = Conn::connect(servers.sentinels()[0], PATIENCE).expect("it listens");
    assert_eq!(master_named(&mut sentinel, "mymaster"), Some(switch.new));
}
