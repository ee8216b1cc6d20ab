//! Entries and listeners come and go.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::View;
use crate::harness::stream::{SOON, connect, echoed, free_address, read_to_end, reset};
use crate::harness::{wait_for, wait_until};
use crate::{admin_of, file, get, other, quoted, ready, reload, stage, taken_over};

/// Between two clients that only look whether somebody listens.
const PACE: Duration = Duration::from_millis(1);

/// A client, once the entry that listens there has a master.
fn served_at(at: std::net::SocketAddr) -> TcpStream {
    wait_for("the entry to be served", SOON, || {
        let mut stream = TcpStream::connect(at).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        (echoed(&mut stream, b"served") == b"served").then_some(stream)
    })
}

#[test]
fn a_proxy_is_added_and_removed() {
    added_and_removed("");
}

#[test]
fn a_proxy_is_added_to_several_workers_and_removed_from_them() {
    added_and_removed("workers = 3\n");
}

fn added_and_removed(limits: &str) {
    let (_master, sentinel) = stage();
    let second = other(&sentinel);
    let at = free_address();
    let one = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
    let two = file(
        sentinel.addr(),
        &[
            ("a", "mymaster", "\"127.0.0.1:0\""),
            ("b", "other", &quoted(at)),
        ],
    );
    let limited = |text: String| text.replace("[limits]\n", &format!("[limits]\n{limits}"));
    let (one, two) = (limited(one), limited(two));
    let proxy = ready(&one);
    let mut client = connect(proxy.addr_of("a"));
    assert_eq!(echoed(&mut client, b"before"), b"before");

    let mark = proxy.mark();
    let answer = taken_over(&proxy, &two);
    assert_eq!(
        answer["changed"],
        serde_json::json!(["proxy \"b\" (master \"other\") added"])
    );
    let master = proxy.event_where(mark, "ready", SOON, |fields| fields["proxy"] == "b");
    assert_eq!(master.text("master"), second.addr().to_string());
    let mut newcomer = connect(at);
    assert_eq!(echoed(&mut newcomer, b"served"), b"served");
    assert_eq!(echoed(&mut client, b"still"), b"still");
    let status: Value = serde_json::from_str(&get(admin_of(&proxy), "/status")).expect("JSON");
    assert_eq!(status["proxies"][1]["proxy"], "b");
    assert_eq!(
        status["proxies"][1]["listen"],
        serde_json::json!([at.to_string()])
    );
    assert!(
        get(admin_of(&proxy), "/metrics").contains("switchmaster_sessions_active{proxy=\"b\"} 1")
    );

    let mark = proxy.mark();
    taken_over(&proxy, &one);
    // A session that nobody looks into ends when it has nothing under way, or when its time is up.
    assert_eq!(read_to_end(&mut newcomer), b"");
    proxy.event_after(mark, "proxy_removed", SOON);
    assert!(TcpStream::connect(at).is_err(), "nobody listens there");
    assert_eq!(echoed(&mut client, b"still"), b"still");
    assert!(
        !get(admin_of(&proxy), "/metrics").contains("switchmaster_sessions_active{proxy=\"b\"}")
    );
    // And it can come again.
    taken_over(&proxy, &two);
    let mut again = served_at(at);
    assert_eq!(echoed(&mut again, b"served"), b"served");
}

#[test]
fn a_listener_is_added_and_removed_and_its_sessions_go_on() {
    let (_master, sentinel) = stage();
    let (first, second) = (free_address(), free_address());
    let with = |listen: &str| file(sentinel.addr(), &[("a", "mymaster", listen)]);
    let proxy = ready(&with(&quoted(first)));
    let mut early = connect(first);
    assert_eq!(echoed(&mut early, b"served"), b"served");

    taken_over(
        &proxy,
        &with(&format!("{}, {}", quoted(first), quoted(second))),
    );
    let mut late = connect(second);
    assert_eq!(echoed(&mut late, b"served"), b"served");

    taken_over(&proxy, &with(&quoted(second)));
    assert!(TcpStream::connect(first).is_err(), "nobody listens there");
    for client in [&mut early, &mut late] {
        assert_eq!(echoed(client, b"goes on"), b"goes on");
    }
    assert_eq!(proxy.events(0, "session_closed").len(), 0);
}

/// Another name for an entry is another entry, on the same port: nobody who connects meanwhile is refused.
#[test]
fn an_address_changes_hands_without_a_moment_in_which_nobody_listens() {
    let (_master, sentinel) = stage();
    let at = free_address();
    let named = |name: &str| file(sentinel.addr(), &[(name, "mymaster", &quoted(at))]);
    let proxy = ready(&named("a"));
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let connecting = std::thread::spawn(move || {
        let (mut connected, mut refused) = (0, 0);
        while !ends.load(Ordering::Relaxed) {
            match TcpStream::connect(at) {
                Ok(client) => {
                    connected += 1;
                    reset(client);
                }
                Err(_) => refused += 1,
            }
            std::thread::sleep(PACE);
        }
        (connected, refused)
    });
    for name in ["b", "a", "b"] {
        taken_over(&proxy, &named(name));
    }
    over.store(true, Ordering::Relaxed);
    let (connected, refused) = connecting.join().expect("no panic");
    println!("{connected} connected while the address changed hands three times");
    assert!(connected > 0);
    assert_eq!(refused, 0);
    let mut client = served_at(at);
    assert_eq!(echoed(&mut client, b"served"), b"served");
}

#[test]
fn a_unix_socket_comes_and_goes_with_its_file() {
    let (_master, sentinel) = stage();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("redis.sock");
    let with = |listen: &str| file(sentinel.addr(), &[("a", "mymaster", listen)]);
    let (tcp, unix) = (
        "\"127.0.0.1:0\"".to_owned(),
        format!("\"unix:{}\"", path.display()),
    );
    let proxy = ready(&with(&tcp));
    taken_over(&proxy, &with(&format!("{tcp}, {unix}")));
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    taken_over(&proxy, &with(&tcp));
    wait_until("its file to be gone", SOON, || !path.exists());
}

#[test]
fn who_may_connect_is_another_from_the_next_connection_on() {
    let (_master, sentinel) = stage();
    let most = |n: usize| {
        let text = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
        format!("{text}max_connections = {n}\n")
    };
    let proxy = ready(&most(1));
    let mut first = connect(proxy.addr());
    assert_eq!(echoed(&mut first, b"served"), b"served");
    assert_eq!(read_to_end(&mut connect(proxy.addr())), b"", "one at most");
    taken_over(&proxy, &most(2));
    let mut second = connect(proxy.addr());
    assert_eq!(echoed(&mut second, b"served"), b"served");
    taken_over(&proxy, &most(1));
    assert_eq!(read_to_end(&mut connect(proxy.addr())), b"", "one at most");
    for client in [&mut first, &mut second] {
        assert_eq!(echoed(client, b"stays"), b"stays");
    }
}

/// Another master for an entry: its sessions end, for they are another master's.
#[test]
fn another_master_for_an_entry_is_another_entry() {
    let (_master, sentinel) = stage();
    let second = other(&sentinel);
    let at = free_address();
    let of = |master: &str| file(sentinel.addr(), &[("a", master, &quoted(at))]);
    let proxy = ready(&of("mymaster"));
    let mut old = connect(at);
    assert_eq!(echoed(&mut old, b"served"), b"served");
    taken_over(&proxy, &of("other"));
    assert_eq!(read_to_end(&mut old), b"");
    let mut new = connect(at);
    assert_eq!(echoed(&mut new, b"there"), b"there");
    assert!(!second.records().is_empty());
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    let (_master, sentinel) = stage();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("bound");
    let at = free_address();
    let with = |listen: &str, limit: usize| {
        let text = file(sentinel.addr(), &[("a", "mymaster", listen)]);
        format!("{text}max_connections = {limit}\n")
    };
    let proxy = ready(&with(&quoted(at), 7));
    let mut client = connect(at);
    assert_eq!(echoed(&mut client, b"served"), b"served");
    let next = free_address();
    proxy.rewrite(&with(&format!("{}, {}", quoted(next), quoted(addr)), 1));
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 409, "{answer}");
    assert_eq!(answer["outcome"], "failed");
    let what = answer["problems"][0]["what"].as_str().expect("a text");
    assert!(what.contains(&format!("{addr} is taken by ")), "{what}");
    assert_eq!(answer["problems"][0]["line"], 8);
    assert_eq!(echoed(&mut client, b"served"), b"served");
    // However often: nothing is left behind.
    let files = proxy.open_fds();
    for _ in 0..10 {
        assert_eq!(reload(&proxy).0, 409);
    }
    wait_until("as many files as before", SOON, || {
        proxy.open_fds() <= files
    });
    // The limit is the old one, and the other port was let go of.
    let mut second = connect(at);
    assert_eq!(echoed(&mut second, b"served"), b"served");
    assert!(TcpStream::connect(next).is_err());
    drop(taken);
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 200, "{answer}");
    let mut third = connect(addr);
    assert_eq!(read_to_end(&mut third), b"", "the limit is the new one");
    assert_eq!(echoed(&mut client, b"goes on"), b"goes on");
}

/// Something is under way that does not end: the entry's time is the process' own.
#[test]
fn what_is_left_of_an_entry_after_its_time_is_cut() {
    let (_master, sentinel) = stage();
    let sink = FakeMaster::start(Bytes::Sink);
    sentinel.watch(View {
        master: "other".to_owned(),
        ..View::of(sink.addr())
    });
    let at = free_address();
    let short = |text: String| text.replace("\"5s\"", "\"1s\"");
    let one = short(file(
        sentinel.addr(),
        &[("a", "mymaster", "\"127.0.0.1:0\"")],
    ));
    let two = short(file(
        sentinel.addr(),
        &[
            ("a", "mymaster", "\"127.0.0.1:0\""),
            ("b", "other", &quoted(at)),
        ],
    ));
    let proxy = ready(&two);
    proxy.event_where(0, "ready", SOON, |fields| fields["proxy"] == "b");
    let mut client = connect(at);
    client.write_all(b"a question").expect("written");
    wait_until("it to be under way", SOON, || sink.bytes() > 0);
    let mark = proxy.mark();
    taken_over(&proxy, &one);
    let leaving = proxy.event_after(mark, "proxy_leaving", SOON);
    assert!(
        (leaving.number("sessions") - 1.0).abs() < 0.5,
        "{}",
        leaving.fields
    );
    assert_eq!(read_to_end(&mut client), b"");
    let removed = proxy.event_after(mark, "proxy_removed", SOON);
    let took = removed.written().duration_since(leaving.written());
    assert!(
        took.as_ref()
            .is_ok_and(|took| *took >= Duration::from_millis(900)),
        "{took:?}"
    );
    // The master is followed for the others as before.
    let mut other = connect(proxy.addr_of("a"));
    assert_eq!(echoed(&mut other, b"served"), b"served");
}

/// The end of the process while an entry is on its way out.
#[test]
fn a_process_that_ends_ends_what_was_leaving_too() {
    let (_master, sentinel) = stage();
    let second = other(&sentinel);
    let at = free_address();
    let one = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
    let two = file(
        sentinel.addr(),
        &[
            ("a", "mymaster", "\"127.0.0.1:0\""),
            ("b", "other", &quoted(at)),
        ],
    );
    let mut proxy = ready(&two);
    proxy.event_where(0, "ready", SOON, |fields| fields["proxy"] == "b");
    let mut client = connect(at);
    assert_eq!(echoed(&mut client, b"served"), b"served");
    taken_over(&proxy, &one);
    proxy.ask_to_end();
    assert_eq!(read_to_end(&mut client), b"");
    assert!(proxy.exit(SOON).code().is_some());
    drop(second);
}

#[test]
fn entries_that_change_places_in_the_file_stay_who_they_are() {
    let (first, sentinel) = stage();
    let second = other(&sentinel);
    let [a, b, c] = [free_address(), free_address(), free_address()];
    let entry = |name, master, at| (name, master, quoted(at));
    let of = |entries: &[(&'static str, &'static str, String)]| {
        let entries: Vec<_> = entries.iter().map(|(n, m, at)| (*n, *m, &**at)).collect();
        file(sentinel.addr(), &entries)
    };
    let proxy = ready(&of(&[entry("a", "mymaster", a), entry("b", "other", b)]));
    let mut of_b = connect(b);
    assert_eq!(echoed(&mut of_b, b"served"), b"served");
    proxy.rewrite(&of(&[entry("b", "other", b), entry("a", "mymaster", a)]));
    let (code, answer) = reload(&proxy);
    assert_eq!((code, &answer["outcome"]), (200, &Value::from("unchanged")));
    let status: Value = serde_json::from_str(&get(admin_of(&proxy), "/status")).expect("JSON");
    assert_eq!(status["proxies"][0]["proxy"], "b");
    // What is said of one is done to that one.
    taken_over(
        &proxy,
        &of(&[entry("b", "other", b), entry("a", "mymaster", c)]),
    );
    let (of_first, of_second) = (first.records().len(), second.records().len());
    let mut of_a = connect(c);
    assert_eq!(echoed(&mut of_a, b"served"), b"served");
    assert!(first.records().len() > of_first, "its own master");
    assert_eq!(second.records().len(), of_second);
    assert!(TcpStream::connect(a).is_err(), "its old port is closed");
    taken_over(&proxy, &of(&[entry("b", "other", b)]));
    assert_eq!(read_to_end(&mut of_a), b"");
    assert!(TcpStream::connect(c).is_err(), "it is gone");
    assert_eq!(echoed(&mut of_b, b"still"), b"still");
}
