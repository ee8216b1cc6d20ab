//! What goes along with a session: whatever its client has told its server, and what is open between the two.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value, WireError};

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::Plan;
use crate::harness::stream::{connect, echoed, free_address, read_to_end};
use crate::harness::topology::{FOLLOW, Topology, blocked_clients, follows, port_of};
use crate::harness::{wait_for, wait_until};
use crate::lineage::{Lineage, call, client, ping};

const SOON: Duration = Duration::from_secs(20);

fn ok() -> Value {
    Value::Simple("OK".to_owned())
}

fn queued() -> Value {
    Value::Simple("QUEUED".to_owned())
}

/// What a client speaks is looked at once, by whichever process hears its first words.
#[test]
fn first_words_are_looked_at_once() {
    const HTTP: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    for mode in ["move", "close"] {
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let plan = Plan::following(&[sentinel.addr()]).env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode);
        let mut lineage = Lineage::begin(plan);
        let (mut spoken, mut silent) = (connect(lineage.addr), connect(lineage.addr));
        assert_eq!(echoed(&mut spoken, b"spoken\r\n"), b"spoken\r\n");
        let finished = lineage.upgrade();
        assert_eq!(finished.number("left"), 0.0, "{mode}: {}", finished.fields);
        let before = master.bytes();
        silent.write_all(HTTP).expect("written");
        assert_eq!(read_to_end(&mut silent), b"", "{mode}");
        assert_eq!(master.bytes(), before, "{mode}");
        assert_eq!(echoed(&mut spoken, HTTP), HTTP, "{mode}");
    }
}

/// The proxy's own login is on the connection that goes along, and is said again by the process that has it, on the next.
#[test]
fn what_the_proxy_logged_in_goes_along() {
    const PASSWORD: &str = "a-password-of-nodes";
    for mode in ["move", "close"] {
        let servers =
            Topology::start_with(|options| options.requirepass = Some(PASSWORD.to_owned()));
        let plan = Plan::following(&servers.sentinels())
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode)
            .env("SWITCHMASTER_PROXY_PROBE_PASSWORD", PASSWORD)
            .env("SWITCHMASTER_PROXY_LOGIN_PASSWORD", PASSWORD);
        let mut lineage = Lineage::begin(plan);
        let mut kept = client(lineage.addr);
        assert_eq!(call(&mut kept, &["SET", "kept", mode]), ok());
        let finished = lineage.upgrade();
        assert_eq!(finished.number("handed"), 1.0, "{}", finished.fields);
        assert_eq!(call(&mut kept, &["SET", "kept", mode]), ok());
        assert_eq!(
            call(&mut client(lineage.addr), &["PING"]).text().as_deref(),
            Some("PONG")
        );
        if mode == "move" {
            let mark = lineage.proxy.mark();
            let switch = servers.fail_over(0);
            follows(&lineage.proxy, mark, switch);
            assert_eq!(
                call(&mut kept, &["GET", "kept"]).text().as_deref(),
                Some(mode)
            );
        }
    }
}

/// Each of these is in the middle of something that only its own connection knows.
#[test]
fn what_is_open_on_a_connection_goes_on() {
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels())
        .env("SWITCHMASTER_FAILOVER_PUBSUB", "move")
        .env("SWITCHMASTER_LIMITS_WORKERS", "2");
    let mut lineage = Lineage::begin(plan);
    let mut direct = servers.direct(servers.master().addr());

    let mut transacting = client(lineage.addr);
    assert_eq!(call(&mut transacting, &["MULTI"]), ok());
    assert_eq!(call(&mut transacting, &["INCR", "transacted"]), queued());
    let mut watching = client(lineage.addr);
    assert_eq!(call(&mut watching, &["WATCH", "watched"]), ok());
    let mut blocked = client(lineage.addr);
    blocked.send(&["BLPOP", "list", "0"]).expect("sent");
    let mut subscribed = client(lineage.addr);
    call(&mut subscribed, &["SUBSCRIBE", "news"]);
    let mut monitoring = client(lineage.addr);
    assert_eq!(call(&mut monitoring, &["MONITOR"]), ok());
    let mut selected = client(lineage.addr);
    assert_eq!(call(&mut selected, &["SELECT", "3"]), ok());
    assert_eq!(call(&mut selected, &["CLIENT", "SETNAME", "me"]), ok());
    wait_until("a client to be blocked", SOON, || {
        blocked_clients(&mut direct) == 1
    });

    for round in 0..2 {
        let finished = lineage.upgrade();
        assert_eq!(
            finished.number("handed"),
            6.0,
            "{round}: {}",
            finished.fields
        );
        assert_eq!(finished.number("left"), 0.0, "{round}: {}", finished.fields);
    }
    // Somebody else changes what is watched: the transaction must not be executed.
    assert_eq!(call(&mut direct, &["SET", "watched", "changed"]), ok());
    assert_eq!(call(&mut watching, &["MULTI"]), ok());
    assert_eq!(call(&mut watching, &["SET", "never", "1"]), queued());
    assert!(call(&mut watching, &["EXEC"]).items().is_empty());
    assert!(!matches!(
        call(&mut direct, &["EXISTS", "never"]),
        Value::Int(1)
    ));
    assert_eq!(call(&mut transacting, &["EXEC"]).items().len(), 1);
    assert_eq!(
        call(&mut direct, &["RPUSH", "list", "element"]),
        Value::Int(1)
    );
    let popped = blocked.read().expect("its element");
    assert_eq!(popped.items()[1].text().as_deref(), Some("element"));
    assert_eq!(
        call(&mut direct, &["PUBLISH", "news", "hello"]),
        Value::Int(1)
    );
    let message = subscribed.read().expect("its message");
    assert_eq!(message.items()[2].text().as_deref(), Some("hello"));
    let line = monitoring.read().expect("a line");
    assert!(line.text().is_some(), "{line:?}");
    assert_eq!(call(&mut selected, &["SET", "key", "of-3"]), ok());

    // What a later switch has to tell the next master has come along.
    let mark = lineage.proxy.mark();
    let switch = servers.fail_over(0);
    follows_in(&lineage, mark, &switch.new.to_string());
    let value = call(&mut selected, &["GET", "key"]).text();
    assert_eq!(value.as_deref(), Some("of-3"));
    let name = call(&mut selected, &["CLIENT", "GETNAME"]).text();
    assert_eq!(name.as_deref(), Some("me"));
    assert_eq!(port_of(&mut blocked), Some(switch.new.port()));
    // One that nobody could follow is closed by a switch, in the new process as it would have been in the old.
    monitoring.set_timeout(FOLLOW);
    loop {
        match monitoring.read() {
            Ok(line) => assert!(line.text().is_some(), "{line:?}"),
            Err(WireError::Timeout(limit)) => panic!("still open after {limit:?}"),
            Err(_) => break,
        }
    }
}

fn follows_in(lineage: &Lineage, mark: usize, to: &str) {
    lineage
        .proxy
        .event_where(mark, "switched", FOLLOW + SOON, |fields| fields["to"] == to);
}

/// `on_switch = "close"`: nobody looks at the bytes, and they flow on.
#[test]
fn sessions_that_nobody_looks_into_go_along() {
    const REPLY: usize = 8 * 1024 * 1024;
    let servers = Topology::start();
    let plan = Plan::following(&servers.sentinels())
        .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "close")
        .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "60s");
    let mut lineage = Lineage::begin(plan);
    let mut idle = client(lineage.addr);
    let mut half = connect(lineage.addr);
    half.write_all(b"*1\r\n$4\r\nPI").expect("room");
    // A slow reader: what it has not taken is in the old process's memory, so it stays until it has.
    let value = "x".repeat(REPLY);
    assert_eq!(call(&mut idle, &["SET", "large", &value]), ok());
    let mut slow = connect(lineage.addr);
    slow.write_all(b"GET large\r\n").expect("room");
    let mut head = [0; 10];
    slow.read_exact(&mut head).expect("its beginning");
    assert_eq!(&head, b"$8388608\r\n");

    let old = lineage.pid();
    let mark = lineage.proxy.mark();
    lineage.start();
    lineage.proxy.event_after(mark, "upgrade_handing", SOON);
    ping(&mut idle);
    half.write_all(b"NG\r\n").expect("room");
    let mut pong = [0; 7];
    half.read_exact(&mut pong).expect("answered");
    assert_eq!(&pong, b"+PONG\r\n");
    let mut rest = vec![0; REPLY + 2];
    slow.read_exact(&mut rest).expect("all of it");
    assert!(rest[..REPLY].iter().all(|byte| *byte == b'x'));
    let finished = lineage.proxy.event_after(mark, "upgrade_finished", SOON);
    assert_eq!(finished.number("handed"), 3.0, "{}", finished.fields);
    lineage.wait_for_end(old);
    ping(&mut idle);
    slow.write_all(b"PING\r\n").expect("room");
    slow.read_exact(&mut pong).expect("answered");
    assert_eq!(&pong, b"+PONG\r\n");
}

/// The file of a unix socket is the new process's, which removes it at its end.
#[test]
fn unix_sockets_and_the_admin_endpoint_change_hands() {
    let servers = Topology::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.sock");
    let admin = folder.path().join("admin.sock");
    let sentinels: Vec<_> = servers
        .sentinels()
        .iter()
        .map(ToString::to_string)
        .collect();
    let proxy = format!(
        "[[proxy]]\nname = \"main\"\nmaster = \"mymaster\"\nlisten = [\"unix:{}\", \"127.0.0.1:0\"]\n",
        path.display()
    );
    let plan = Plan::bare(["run", "--log-format", "json"])
        .args(["--sentinel", &sentinels.join(",")])
        .config(&*proxy)
        .env(
            "SWITCHMASTER_ADMIN_LISTEN",
            format!("unix:{}", admin.display()),
        );
    let mut lineage = Lineage::begin(plan);
    let mut kept = UnixStream::connect(&path).expect("it listens");
    let asked = |stream: &mut UnixStream| {
        stream.write_all(b"PING\r\n").expect("room");
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).expect("answered");
        assert_eq!(&pong, b"+PONG\r\n");
    };
    asked(&mut kept);
    for _ in 0..2 {
        let old = lineage.pid();
        lineage.upgrade();
        lineage.wait_for_end(old);
        asked(&mut kept);
        asked(&mut UnixStream::connect(&path).expect("it still listens"));
        let mut page = String::new();
        let mut stream = UnixStream::connect(&admin).expect("it still listens");
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("room");
        stream.read_to_string(&mut page).expect("an answer");
        for line in [
            "HTTP/1.1 200",
            "switchmaster_sessions_adopted_total{proxy=\"main\"} 1\n",
            "switchmaster_upgrades_failed_total{reason=\"ended\"} 0\n",
        ] {
            assert!(page.contains(line), "{line} in {page}");
        }
    }
    // A path that the file names no more goes with the upgrade; whoever came in there stays.
    let gone = format!("\"unix:{}\", ", path.display());
    lineage.proxy.rewrite(&proxy.replace(&gone, ""));
    assert!(path.exists() && admin.exists());
    lineage.upgrade();
    assert!(!path.exists(), "a file that nobody has");
    asked(&mut kept);
    drop(kept);
    let last = lineage.pid();
    crate::lineage::signal(last, rustix::process::Signal::TERM);
    lineage.wait_for_end(last);
    assert!(!admin.exists(), "a file that nobody has");
}

/// A socket of systemd's is handed on: it passes it once, to the first process.
#[test]
fn sockets_from_systemd_change_hands() {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let addr = free_address();
    let plan = Plan::bare(["run", "--log-format", "json"])
        .args(["--sentinel", &sentinel.addr().to_string()])
        .args(["--listen", "systemd:main"])
        .activated(&["-l", &addr.to_string(), "--fdname=main"]);
    let proxy = plan.start();
    let mut kept = wait_for("systemd to listen", SOON, || TcpStream::connect(addr).ok());
    assert_eq!(echoed(&mut kept, b"was there first"), b"was there first");
    let mut lineage = Lineage::of(proxy, addr);
    for _ in 0..2 {
        let old = lineage.pid();
        lineage.upgrade();
        lineage.wait_for_end(old);
        assert_eq!(echoed(&mut kept, b"still"), b"still");
        assert_eq!(echoed(&mut connect(addr), b"and new"), b"and new");
    }
}

/// A Sentinel that is behind cannot turn the new process back, and its generations count on.
#[test]
fn the_epoch_and_the_generation_go_along() {
    let servers = Topology::start();
    let mut lineage = Lineage::begin(Plan::moving(&servers.sentinels()));
    let mut conn: Conn = client(lineage.addr);
    let mark = lineage.proxy.mark();
    let switch = servers.fail_over(0);
    let switched = follows(&lineage.proxy, mark, switch);
    let mark = lineage.proxy.mark();
    lineage.upgrade();
    let ready = lineage.proxy.event_after(mark, "ready", SOON);
    assert_eq!(
        ready.number("generation"),
        switched.number("generation"),
        "{}",
        ready.fields
    );
    assert_eq!(
        ready.number("epoch"),
        switched.number("epoch"),
        "{}",
        ready.fields
    );
    assert_eq!(port_of(&mut conn), Some(switch.new.port()));
}
