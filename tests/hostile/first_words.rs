//! Row 43: what does not speak Redis' protocol is closed with a reason, and the master does not see a byte of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::admin::{admin_of, page};
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::reload::{ready, reload};
use crate::harness::stream::{SOON, connect, echoed};
use crate::harness::topology::Topology;
use crate::harness::wait_until;
use crate::{counted, file};

/// What it is called, and how it begins.
const FOREIGN: [(&str, &[u8]); 10] = [
    ("http", b"GET / HTTP/1.1\r\nHost: localhost:6379\r\n\r\n"),
    ("http", b"GET /livez HTTP/1.0\r\n\r\n"),
    ("http", b"OPTIONS * HTTP/1.1\r\nOrigin: http://localhost\r\n\r\n"),
    ("http", b"POST / HTTP/1.1\r\nContent-Length: 21\r\n\r\n*1\r\n$8\r\nFLUSHALL\r\n"),
    ("http", b"CONNECT localhost:6379 HTTP/1.1\r\n\r\n"),
    ("http", b"Host: localhost\r\nFLUSHALL\r\n"),
    ("tls", b"\x16\x03\x01\x00\xee\x01\x00\x00\xea\x03\x03\x00\x01\x02\x03"),
    ("proxy_header", b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 6379\r\n*1\r\n$4\r\nPING\r\n"),
    ("proxy_header", b"PROXY UNKNOWN\r\nFLUSHALL\r\n"),
    (
        "proxy_header",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\x9c\x40\x18\xeb*1\r\n$4\r\nPING\r\n",
    ),
];
/// Between two pieces, so that each comes by itself.
const BETWEEN: Duration = Duration::from_millis(2);

#[test]
fn row_43_another_protocol_never_reaches_the_master() {
    for mode in ["move", "close"] {
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = ready(&file(&sentinel, mode, "", ""));
        let mut kept = connect(proxy.addr());
        assert_eq!(echoed(&mut kept, b"honest"), b"honest");
        let admin = admin_of(&proxy);
        for in_pieces in [false, true] {
            for (_, said) in FOREIGN {
                let heard = speak(connect(proxy.addr()), said, in_pieces);
                assert_eq!(heard, b"", "{}", said.escape_ascii());
            }
        }
        for reason in ["http", "tls", "proxy_header"] {
            let each = FOREIGN.iter().filter(|(its, _)| *its == reason).count();
            let label = format!("reason=\"{reason}\"");
            let closed = "switchmaster_sessions_closed_total";
            wait_until("all of them to be counted", SOON, || {
                counted(&page(admin, "/metrics"), closed, &label) == 2.0 * each as f64
            });
            let line = proxy.event_where(0, "client_refused", SOON, |fields| {
                fields["reason"] == reason
            });
            assert!(
                line.text("message").contains("127.0.0.1"),
                "{}",
                line.fields
            );
        }
        let lines = proxy.events(0, "client_refused").len();
        assert!(lines < FOREIGN.len() * 2, "{lines} lines");
        assert_eq!(
            master.bytes(),
            "honest".len() as u64,
            "{mode}: the master saw more"
        );
        assert_eq!(echoed(&mut kept, b"as before"), b"as before");
    }
}

#[test]
fn what_only_looks_like_it_is_served() {
    for mode in ["move", "close"] {
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = ready(&file(&sentinel, mode, "", ""));
        for said in [
            &b"GET /a/path\r\n"[..],
            b"GET http://localhost/\r\n",
            b"SET proto HTTP/1.1\r\n",
            b"HGET key field\r\n",
            b"hget key field\r\n",
            b"POSTPONED\r\n",
            b"\r\nPING\r\n",
            b"PROXIMITY\r\n",
        ] {
            let mut client = connect(proxy.addr());
            for piece in said.chunks(1) {
                client.write_all(piece).expect("written");
                std::thread::sleep(BETWEEN);
            }
            let mut back = vec![0; said.len()];
            client.read_exact(&mut back).expect("echoed");
            assert_eq!(back, said, "{mode}");
            // Only the first words are looked at.
            assert_eq!(
                echoed(&mut client, b"GET / HTTP/1.1\r\n"),
                b"GET / HTTP/1.1\r\n"
            );
        }
    }
}

/// Without a master requests are answered here: not these.
#[test]
fn while_there_is_no_master_it_is_closed_all_the_same() {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Plan::moving(&[sentinel.addr()])
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "100ms")
        .env("SWITCHMASTER_FAILOVER_VERIFY", "role");
    master.set_role(crate::harness::fake_master::Role::Loading);
    let proxy: Proxy = proxy.start();
    let mut asks = connect(proxy.addr());
    asks.write_all(b"GET /path\r\n").expect("written");
    let mut answer = [0; 8];
    asks.read_exact(&mut answer).expect("answered by the proxy");
    assert_eq!(&answer, b"-LOADING");
    for in_pieces in [false, true] {
        let said = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(speak(connect(proxy.addr()), said, in_pieces), b"");
    }
    let line = proxy.event("client_refused", SOON);
    assert_eq!(line.text("reason"), "http");
}

/// A session that has been let in, and not spoken, is another process's problem: looked at there.
#[test]
fn a_reload_changes_nothing_of_it() {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let text = file(&sentinel, "move", "max_connections = 50", "");
    let proxy = ready(&text);
    let silent = connect(proxy.addr());
    proxy.rewrite(&text.replace("= 50", "= 51"));
    assert_eq!(reload(&proxy).0, 200);
    assert_eq!(speak(silent, b"GET / HTTP/1.1\r\n\r\n", false), b"");
    assert_eq!(master.bytes(), 0);
}

#[test]
fn a_real_server_is_left_alone() {
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut master = servers.direct(servers.master().addr());
    master.call(&["CONFIG", "RESETSTAT"]).expect("an answer");
    for (_, said) in FOREIGN {
        assert_eq!(speak(connect(proxy.addr()), said, false), b"");
    }
    let stats = master.call(&["INFO", "commandstats"]).expect("an answer");
    let stats = stats.text().expect("text");
    for word in ["get", "post", "host:", "flushall", "options"] {
        assert!(!stats.contains(&format!("cmdstat_{word}:")), "{stats}");
    }
    let log = servers.master().log_tail();
    assert!(!log.contains("SECURITY ATTACK"), "{log}");
    assert_eq!(crate::pings(proxy.addr(), 3).len(), 3);
}

/// Says it, and gives what comes back until the end.
fn speak(mut client: TcpStream, said: &[u8], in_pieces: bool) -> Vec<u8> {
    let size = if in_pieces { 1 } else { said.len() };
    for piece in said.chunks(size) {
        // It may be closed before all is said.
        if client.write_all(piece).is_err() {
            break;
        }
        if in_pieces {
            std::thread::sleep(BETWEEN);
        }
    }
    let mut heard = Vec::new();
    match client.read_to_end(&mut heard) {
        Ok(_) => heard,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => heard,
        Err(error) => panic!("not closed: {error}"),
    }
}
