//! Two entries for one master, and what a reload makes of them.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::harness::proxy::Plan;
use crate::harness::stream::{connect, read_to_end};
use crate::harness::topology::{FOLLOW, Topology, is_closed, port_of};
use crate::harness::wait_for;
use crate::reader::{client, joined, plan, ready};

fn file(sentinels: &[SocketAddr], of_reads: &str) -> String {
    let sentinels: Vec<String> = sentinels.iter().map(|s| format!("\"{s}\"")).collect();
    format!(
        "[sentinel]\naddresses = [{}]\n\
         [[proxy]]\nname = \"main\"\nlisten = [\"127.0.0.1:0\"]\n\
         [[proxy]]\nname = \"reads\"\nlisten = [\"127.0.0.1:0\"]\n{of_reads}\n",
        sentinels.join(", ")
    )
}

#[test]
fn one_entry_leads_to_the_master_the_other_to_replicas_until_a_reload_says_otherwise() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let sentinels = servers.sentinels();
    let plan = Plan::bare(["run", "--log-format", "json"])
        .env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move")
        .config(file(&sentinels, "role = \"replica\""));
    let proxy = plan.start();
    joined(&proxy, 0, 2);
    for (name, whom) in [
        ("main", "reach the master"),
        ("reads", "reach replicas of the master"),
    ] {
        let listening = proxy.event_where(0, "listening", FOLLOW, |f| f["proxy"] == name);
        assert!(
            listening.text("message").contains(whom),
            "{}",
            listening.fields
        );
    }
    let ask = |addr| {
        let mut conn = Conn::connect(addr, FOLLOW).expect("the proxy listens");
        let port = port_of(&mut conn).expect("a node answers");
        (conn, port)
    };
    assert_eq!(ask(proxy.addr_of("main")).1, master.port());
    let (mut reader, port) = ask(proxy.addr_of("reads"));
    assert_ne!(port, master.port());

    // Another limit is for those that are there, too.
    let mark = proxy.mark();
    proxy.rewrite(&file(
        &sentinels,
        "role = \"replica\"\nmax_lag = \"3s\"\nfallback = \"master\"",
    ));
    proxy.hang_up();
    proxy.event_after(mark, "reloaded", FOLLOW);
    assert_eq!(port_of(&mut reader), Some(port), "not concerned");

    // An entry that leads elsewhere is another entry.
    let mark = proxy.mark();
    proxy.rewrite(&file(&sentinels, "role = \"master\""));
    proxy.hang_up();
    proxy.event_after(mark, "proxy_leaving", FOLLOW);
    is_closed(&mut reader, FOLLOW);
    proxy.event_after(mark, "proxy_removed", Duration::from_secs(20));
    let listening = proxy.event_where(mark, "listening", FOLLOW, |of| of["proxy"] == "reads");
    let addr = listening.text("addr").parse().expect("an address");
    assert_eq!(ask(addr).1, master.port());
}

#[test]
fn sentinels_that_may_not_list_replicas_say_what_they_need() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let permit = |rule: &str| {
        for sentinel in servers.cluster().sentinels() {
            let mut conn = sentinel.connect().expect("it runs");
            let answer = conn.call(&["ACL", "SETUSER", "default", rule]);
            assert!(answer.as_ref().is_ok_and(|a| !a.is_error()), "{answer:?}");
        }
    };
    permit("-sentinel|replicas");
    let proxy = plan(&servers)
        .env("SWITCHMASTER_PROXY_FALLBACK", "master")
        .start();
    let told = proxy.event("sentinel_lists_no_replicas", FOLLOW);
    let words = told.text("message");
    assert!(words.contains("+sentinel|replicas"), "{words}");
    let served = wait_for("a node to answer", FOLLOW, || {
        let mut conn = Conn::connect(proxy.addr(), FOLLOW).ok()?;
        port_of(&mut conn)
    });
    assert_eq!(served, master.port());
    permit("+sentinel|replicas");
    joined(&proxy, 0, 2);
    assert_ne!(client(&proxy).1, master.port());
}

/// Who may have a place, and what a client may speak, is asked wherever it is led.
#[test]
fn what_is_asked_of_clients_is_asked_of_readers() {
    let servers = Topology::start();
    let limited = plan(&servers)
        .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("SWITCHMASTER_PROXY_MAX_CONNECTIONS", "8")
        .env("SWITCHMASTER_LIMITS_FIRST_REQUEST_TIMEOUT", "200ms");
    let proxy = ready(limited, 2);
    let mut browser = connect(proxy.addr());
    browser.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("taken");
    assert_eq!(read_to_end(&mut browser), b"");
    drop(browser);
    // One in each lane at the least, and both kinds in both.
    let mut silent: Vec<_> = (0..3).map(|_| connect(proxy.addr())).collect();
    let mut asked: Vec<_> = (0..4).map(|_| client(&proxy)).collect();
    for silent in &mut silent {
        assert_eq!(read_to_end(silent), b"");
    }
    let line = proxy.event_where(0, "client_refused", FOLLOW, |of| {
        of["reason"] == "no_request"
    });
    assert_eq!(line.text("proxy"), "main");
    for (conn, port) in &mut asked {
        assert_eq!(port_of(conn), Some(*port));
    }
}
