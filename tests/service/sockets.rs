//! Socket activation: the listening sockets come from `systemd-socket-activate`, as they do from systemd itself.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{SOON, connect, echoed, free_address};
use crate::harness::wait_for;
use crate::{AT_ONCE, code};

/// A proxy with these listeners, started by the first who comes to what systemd listens on.
fn activated(sentinel: &FakeSentinel, systemd: &[&str], listen: &str) -> Plan {
    Plan::bare([
        "run",
        "--sentinel",
        &sentinel.addr().to_string(),
        "--log-format",
        "json",
    ])
    .args(listen.split(',').flat_map(|listen| ["--listen", listen]))
    .activated(systemd)
}

fn stage() -> (FakeMaster, FakeSentinel) {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    (master, sentinel)
}

/// Knocks until somebody listens there, and keeps the connection.
fn knock(addr: std::net::SocketAddr) -> std::net::TcpStream {
    wait_for("systemd to listen", SOON, || {
        std::net::TcpStream::connect(addr).ok()
    })
}

#[test]
fn sockets_go_to_the_entries_that_name_them() {
    let (master, sentinel) = stage();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("main.sock");
    let (first, second) = (free_address(), free_address());
    let [first_text, second_text] = [first, second].map(|addr| addr.to_string());
    let file_text = file.to_str().expect("text");
    let names = ["-l", &first_text, "-l", file_text, "-l", &second_text];
    let systemd = [&names[..], &["--fdname=main:main:other"]].concat();
    let config = format!(
        "[sentinel]\naddresses = [\"{}\"]\n[[proxy]]\nname = \"a\"\nlisten = [\"systemd:main\", \"127.0.0.1:0\"]\n\
         [[proxy]]\nname = \"b\"\nlisten = [\"systemd:other\"]\n",
        sentinel.addr()
    );
    let plan = Plan::bare(["run", "--log-format", "json"]).activated(&systemd);
    let mut proxy = plan.config(config).start();
    let mut client = knock(first);
    assert_eq!(echoed(&mut client, b"was there first"), b"was there first");
    let addrs: Vec<String> = proxy
        .events(0, "listening")
        .iter()
        .map(|event| format!("{} {}", event.text("proxy"), event.text("addr")))
        .collect();
    for expected in [
        format!("a {first}"),
        format!("a unix:{}", file.display()),
        format!("b {second}"),
    ] {
        assert!(addrs.contains(&expected), "{expected} in {addrs:?}");
    }
    let mut other = connect(second);
    assert_eq!(echoed(&mut other, b"second"), b"second");
    let mut local = UnixStream::connect(&file).expect("it listens");
    local.write_all(b"unix").expect("written");
    local.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 4];
    std::io::Read::read_exact(&mut local, &mut back).expect("echoed");
    assert_eq!(&back, b"unix");
    // Its end is the end of all sessions.
    drop((client, other, local, master));
    proxy.ask_to_end();
    assert_eq!(code(proxy.exit(AT_ONCE)), 0);
    // It was not ours.
    assert!(
        Path::new(&file).exists(),
        "the file of a socket that was passed"
    );
}

#[test]
fn a_socket_that_is_not_there_or_of_no_use_is_told() {
    let (_master, sentinel) = stage();
    let addr = free_address();
    let text = addr.to_string();
    for (systemd, listen, problem) in [
        (
            vec!["-l", &text, "--fdname=other"],
            "systemd:main",
            "(but other)",
        ),
        (
            vec!["-l", &text],
            "127.0.0.1:0,systemd:main",
            "no socket of this name was passed",
        ),
        (
            vec!["-d", "-l", &text, "--fdname=main"],
            "systemd:main",
            "no stream socket",
        ),
    ] {
        let mut proxy = activated(&sentinel, &systemd, listen).start();
        // What starts it; whether it is heard is of no interest.
        let knocking = wait_for("systemd to listen", SOON, || {
            if systemd.contains(&"-d") {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
                socket.send_to(b"x", addr).expect("sent");
                (!proxy.is_running() || proxy.output().contains("systemd:main")).then_some(None)
            } else {
                std::net::TcpStream::connect(addr).ok().map(Some)
            }
        });
        assert_eq!(code(proxy.exit(SOON)), 78, "{systemd:?}");
        assert!(proxy.output().contains(problem), "{}", proxy.output());
        drop(knocking);
    }
}

/// The variables of a parent are not for its child.
#[test]
fn what_was_passed_to_another_process_is_not_taken() {
    let (_master, sentinel) = stage();
    let mut proxy = Plan::following(&[sentinel.addr()])
        .args(["--listen", "systemd:main"])
        .env("LISTEN_FDS", "1")
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDNAMES", "main")
        .start();
    assert_eq!(code(proxy.exit(SOON)), 78);
    assert!(
        proxy.output().contains("nor any other"),
        "{}",
        proxy.output()
    );
}

/// A socket on all addresses needs `allow_from`, whoever made it.
#[test]
fn a_socket_that_others_can_reach_needs_to_know_whom_it_lets_in() {
    let (_master, sentinel) = stage();
    let port = free_address().port();
    let systemd = [format!("-l0.0.0.0:{port}"), "--fdname=main".to_owned()];
    let systemd: Vec<&str> = systemd.iter().map(String::as_str).collect();
    let mut proxy = activated(&sentinel, &systemd, "systemd:main").start();
    drop(knock(([127, 0, 0, 1], port).into()));
    assert_eq!(code(proxy.exit(SOON)), 78);
    assert!(proxy.output().contains("allow_from"), "{}", proxy.output());
}

#[test]
fn a_socket_that_nobody_names_is_told() {
    let (_master, sentinel) = stage();
    let addr = free_address();
    let text = addr.to_string();
    let systemd = ["-l", &text, "--fdname=spare"];
    let proxy: Proxy = activated(&sentinel, &systemd, "127.0.0.1:0").start();
    drop(knock(addr));
    let unused = proxy.event("socket_unused", SOON);
    assert_eq!(unused.text("name"), "spare");
    proxy.event("ready", SOON);
    assert_eq!(code(proxy.terminate(AT_ONCE + Duration::from_secs(1))), 0);
}

/// What systemd passed once can change hands at a reload; what it did not pass needs a restart.
#[test]
fn sockets_of_systemd_change_hands_at_a_reload() {
    let (_master, sentinel) = stage();
    let addr = free_address();
    let text = addr.to_string();
    let systemd = ["-l", &text, "--fdname=main"];
    let of = |name: &str, listen: &str| {
        format!(
            "[sentinel]\naddresses = [\"{}\"]\n[[proxy]]\nname = \"{name}\"\nlisten = [{listen}]\n",
            sentinel.addr()
        )
    };
    let plan = Plan::bare(["run", "--log-format", "json"]).activated(&systemd);
    let proxy = plan.config(of("a", "\"systemd:main\"")).start();
    let mut client = knock(addr);
    assert_eq!(echoed(&mut client, b"first"), b"first");

    let mark = proxy.mark();
    proxy.rewrite(&of("b", "\"systemd:main\", \"systemd:other\""));
    proxy.hang_up();
    let failed = proxy.event_after(mark, "reload_failed", SOON);
    let what = failed.text("what");
    assert!(what.contains("systemd:other needs a restart"), "{what}");
    assert_eq!(echoed(&mut client, b"goes on"), b"goes on");

    proxy.rewrite(&of("b", "\"systemd:main\""));
    proxy.hang_up();
    proxy.event_after(mark, "reloaded", SOON);
    let mut client = connect(addr);
    assert_eq!(echoed(&mut client, b"second"), b"second");
    let listening = proxy.event_after(mark, "listening", SOON);
    assert_eq!(
        (listening.text("proxy"), listening.text("addr")),
        ("b", &*text)
    );
}
