//! Who may have a place: over all entries, from one source, by user; and who gives one up that never asked for anything.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::admin::{admin_of, page};
use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::Plan;
use crate::harness::reload::{ready, reload};
use crate::harness::stream::{SOON, connect, echoed, read_to_end, reset};
use crate::harness::{holds_for, wait_until};
use crate::{counted, file, is_closed};

const SESSIONS: &str = "switchmaster_sessions_total";

fn stage() -> (FakeMaster, FakeSentinel) {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    (master, sentinel)
}

#[test]
fn one_source_has_so_many_and_no_more() {
    let (_master, sentinel) = stage();
    let text = file(&sentinel, "move", "max_connections_per_source = 2", "");
    let proxy = ready(&text);
    let mut inside = [connect(proxy.addr()), connect(proxy.addr())];
    for client in &mut inside {
        assert_eq!(echoed(client, b"in"), b"in");
    }
    assert_eq!(read_to_end(&mut connect(proxy.addr())), b"");
    let line = proxy.event("client_refused", SOON);
    assert_eq!(line.text("reason"), "max_connections_per_source");
    assert!(
        line.text("message").contains("127.0.0.1"),
        "{}",
        line.fields
    );
    let page = page(admin_of(&proxy), "/metrics");
    assert_eq!(counted(&page, SESSIONS, "source_full"), 1.0);
    // A place that is given up is the next one's.
    inside.into_iter().for_each(reset);
    wait_until("a place to come free", SOON, || {
        let mut client = connect(proxy.addr());
        let served = client.write_all(b"next").is_ok() && client.read_exact(&mut [0; 4]).is_ok();
        reset(client);
        served
    });
    // Another limit is in force at once.
    proxy.rewrite(&text.replace("= 2", "= 4"));
    assert_eq!(reload(&proxy).0, 200);
    wait_until("four of them", SOON, || {
        let mut four: Vec<_> = (0..4).map(|_| connect(proxy.addr())).collect();
        let served = |client: &mut TcpStream| {
            client.write_all(b"x").is_ok() && client.read_exact(&mut [0]).is_ok()
        };
        let all = four.iter_mut().all(served);
        four.into_iter().for_each(reset);
        all
    });
}

#[test]
fn an_entry_listens_on_several_addresses_of_either_kind() {
    let (_master, sentinel) = stage();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.sock");
    let listen = format!("\"127.0.0.1:0\", \"[::1]:0\", \"unix:{}\"", path.display());
    let text = file(&sentinel, "move", "max_connections_per_source = 1", "");
    let proxy = ready(&text.replace("\"127.0.0.1:0\"", &listen));
    let of_kind = |is_v6: bool| {
        let listening = proxy.event_where(0, "listening", SOON, |fields| {
            let addr = fields["addr"]
                .as_str()
                .and_then(|addr| addr.parse::<SocketAddr>().ok());
            addr.is_some_and(|addr| addr.is_ipv6() == is_v6)
        });
        listening
            .text("addr")
            .parse::<SocketAddr>()
            .expect("just parsed")
    };
    // Each is a source of its own, and a user of this machine is none.
    let mut clients = [false, true].map(|is_v6| connect(of_kind(is_v6)));
    for client in &mut clients {
        assert_eq!(echoed(client, b"in"), b"in");
    }
    for is_v6 in [false, true] {
        assert_eq!(read_to_end(&mut connect(of_kind(is_v6))), b"");
    }
    for _ in 0..2 {
        let mut local = UnixStream::connect(&path).expect("it listens");
        local.write_all(b"in").expect("written");
        local.read_exact(&mut [0; 2]).expect("echoed");
    }
}

#[test]
fn all_entries_together_have_so_many_and_no_more() {
    let (_master, sentinel) = stage();
    let second = "[[proxy]]\nname = \"second\"\nlisten = [\"127.0.0.1:0\"]\n";
    let text = file(&sentinel, "move", second, "[limits]\nmax_connections = 2\n");
    let proxy = ready(&text);
    let mut inside = [
        connect(proxy.addr_of("main")),
        connect(proxy.addr_of("second")),
    ];
    for client in &mut inside {
        assert_eq!(echoed(client, b"in"), b"in");
    }
    for entry in ["main", "second"] {
        assert_eq!(read_to_end(&mut connect(proxy.addr_of(entry))), b"");
        let line = proxy.event_where(0, "client_refused", SOON, |fields| fields["proxy"] == entry);
        assert_eq!(line.text("reason"), "max_connections_in_all");
    }
    proxy.rewrite(&text.replace("max_connections = 2", "max_connections = 0"));
    assert_eq!(reload(&proxy).0, 200);
    assert_eq!(echoed(&mut connect(proxy.addr_of("main")), b"in"), b"in");
}

#[test]
fn the_silent_make_room_where_places_are_few_and_only_there() {
    for mode in ["move", "close"] {
        let (_master, sentinel) = stage();
        let limits = "[limits]\nfirst_request_timeout = \"200ms\"\n";
        let proxy = ready(&file(&sentinel, mode, "max_connections = 12", limits));
        let silent: Vec<_> = (0..6).map(|_| connect(proxy.addr())).collect();
        let mut asked: Vec<TcpStream> = (0..3).map(|_| connect(proxy.addr())).collect();
        for client in &mut asked {
            assert_eq!(echoed(client, b"asked\r\n"), b"asked\r\n");
        }
        // Nine of twelve: there is room for everybody.
        holds_for("patience with the silent", Duration::from_secs(3), || {
            !silent.iter().any(is_closed)
        });
        asked.push(connect(proxy.addr()));
        let last = asked.last_mut().expect("just pushed");
        assert_eq!(echoed(last, b"asked\r\n"), b"asked\r\n");
        wait_until("the silent to make room", SOON, || {
            silent.iter().all(is_closed)
        });
        for client in &mut asked {
            assert_eq!(echoed(client, b"still\r\n"), b"still\r\n", "{mode}");
        }
        let line = proxy.event("client_refused", SOON);
        assert_eq!(line.text("reason"), "no_request");
        let admin = admin_of(&proxy);
        let closed = "switchmaster_sessions_closed_total";
        wait_until("them to be counted", SOON, || {
            counted(&page(admin, "/metrics"), closed, "no_request") == 6.0
        });
    }
}

#[test]
fn who_takes_no_replies_is_closed_where_that_is_limited() {
    for (limit, closed) in [("300ms", true), ("0s", false)] {
        let master = FakeMaster::start(Bytes::Source(64 << 20));
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let limits = format!("[limits]\nwrite_stall_timeout = \"{limit}\"\n");
        let proxy = ready(&file(&sentinel, "move", "", &limits));
        let mut client = connect(proxy.addr());
        client.write_all(b"x").expect("written");
        let admin = admin_of(&proxy);
        let stalled = || {
            counted(
                &page(admin, "/metrics"),
                "switchmaster_sessions_closed_total",
                "write_stalled",
            )
        };
        if closed {
            wait_until("the stalled to be closed", SOON, || stalled() == 1.0);
            assert_eq!(
                proxy.event("client_refused", SOON).text("reason"),
                "write_stalled"
            );
        } else {
            holds_for("patience", Duration::from_secs(2), || stalled() == 0.0);
        }
    }
}

#[test]
fn a_unix_socket_has_its_permissions_and_knows_its_users() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("main.sock");
    let own = rustix::process::geteuid().as_raw();
    for (uids, mode, served) in [
        (format!("[{own}]"), "0600", true),
        (format!("[{}]", own + 1), "0666", false),
        ("[]".to_owned(), "0660", true),
    ] {
        let (master, sentinel) = stage();
        let entry = format!(
            "allowed_uids = {uids}\nsocket_mode = \"{mode}\"\nsocket_group = \"{}\"\n",
            rustix::process::getegid().as_raw()
        );
        let text = file(&sentinel, "move", &entry, "")
            .replace("127.0.0.1:0", &format!("unix:{}", path.display()));
        let proxy = ready(&text);
        let socket = std::fs::metadata(&path).expect("a socket");
        assert_eq!(
            format!("{:04o}", socket.permissions().mode() & 0o7777),
            mode
        );
        assert_eq!(socket.gid(), rustix::process::getegid().as_raw());
        let mut client = UnixStream::connect(&path).expect("it listens");
        client.set_read_timeout(Some(SOON)).expect("a socket");
        let mut back = Vec::new();
        if served {
            client.write_all(b"local").expect("written");
            let mut five = [0; 5];
            client.read_exact(&mut five).expect("echoed");
            // Other permissions are given at once.
            proxy.rewrite(&text.replace(&format!("\"{mode}\""), "\"0640\""));
            assert_eq!(reload(&proxy).0, 200);
            let socket = std::fs::metadata(&path).expect("a socket");
            assert_eq!(socket.permissions().mode() & 0o7777, 0o640);
        } else {
            // It may be closed with something unread.
            drop(client.write_all(b"local"));
            drop(client.read_to_end(&mut back));
            assert_eq!(back, b"");
            let line = proxy.event("client_refused", SOON);
            assert_eq!(line.text("reason"), "uid_not_allowed");
            assert!(
                line.text("message").contains(&format!("uid {own}")),
                "{}",
                line.fields
            );
            assert_eq!(master.bytes(), 0);
        }
        assert_eq!(proxy.terminate(SOON).code(), Some(0));
        assert!(!path.exists());
    }
}

/// Whoever is told to make room while it waits is told again.
#[test]
fn without_a_master_the_silent_make_room_all_the_same() {
    let (master, sentinel) = stage();
    master.set_role(Role::Loading);
    let proxy = Plan::moving(&[sentinel.addr()])
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "100ms")
        .env("SWITCHMASTER_FAILOVER_VERIFY", "role")
        .env("SWITCHMASTER_PROXY_MAX_CONNECTIONS", "4")
        .env("SWITCHMASTER_LIMITS_FIRST_REQUEST_TIMEOUT", "200ms")
        .start();
    let silent: Vec<_> = (0..3).map(|_| connect(proxy.addr())).collect();
    let mut asks = connect(proxy.addr());
    asks.write_all(b"GET key\r\n").expect("written");
    let mut answer = [0; 8];
    asks.read_exact(&mut answer).expect("answered by the proxy");
    assert_eq!(&answer, b"-LOADING");
    wait_until("the silent to make room", SOON, || {
        silent.iter().all(is_closed)
    });
    assert_eq!(
        proxy.event("client_refused", SOON).text("reason"),
        "no_request"
    );
    assert!(!is_closed(&asks), "it has asked");
}
