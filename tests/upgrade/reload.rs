//! Upgrades and reloads of one lineage: each finds what the other has left.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpStream;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use crate::UPGRADE;
use crate::harness::admin::admin_of;
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::reload::{
    TOKEN, file, other, plan, post_as, quoted, ready, reload, stage, taken_over,
};
use crate::harness::stream::{SOON, connect, echoed, free_address, read_to_end};
use crate::harness::{wait_for, wait_until};
use crate::lineage::{Lineage, signal};

const ANY: &str = "\"127.0.0.1:0\"";

/// What a reload has added is handed over like everything else, and the new process is reloaded as the old one was.
#[test]
fn what_a_reload_added_goes_along_and_the_new_process_can_be_reloaded() {
    let (_master, sentinel) = stage();
    let second = other(&sentinel);
    let (added, of_b, of_c) = (free_address(), free_address(), free_address());
    let proxy = ready(&file(sentinel.addr(), &[("a", "mymaster", ANY)]));
    let at = proxy.addr_of("a");
    let mut lineage = Lineage::of(proxy, at);
    let mark = lineage.proxy.mark();
    let both = format!("{ANY}, {}", quoted(added));
    let two = [("a", "mymaster", &*both), ("b", "other", &*quoted(of_b))];
    taken_over(&lineage.proxy, &file(sentinel.addr(), &two));
    lineage
        .proxy
        .event_where(mark, "ready", SOON, |fields| fields["proxy"] == "b");
    let mut clients = [connect(at), connect(added), connect(of_b)];
    for client in &mut clients {
        assert_eq!(echoed(client, b"before"), b"before");
    }

    let old = lineage.pid();
    let finished = lineage.upgrade();
    assert_eq!(finished.number("handed"), 3.0, "{}", finished.fields);
    assert_eq!(finished.number("left"), 0.0, "{}", finished.fields);
    lineage.wait_for_end(old);
    for client in &mut clients {
        assert_eq!(echoed(client, b"lives on"), b"lives on");
    }
    assert_eq!(second.records().len(), 1, "on the connection it had");
    for addr in [at, added, of_b] {
        assert_eq!(echoed(&mut connect(addr), b"new"), b"new");
    }

    // The new process: one proxy comes, another and a listener go.
    let mark = lineage.proxy.mark();
    let three = [("a", "mymaster", ANY), ("c", "other", &*quoted(of_c))];
    taken_over(&lineage.proxy, &file(sentinel.addr(), &three));
    let [by_port, by_added, by_b] = &mut clients;
    assert_eq!(read_to_end(by_b), b"", "its proxy is gone");
    for addr in [added, of_b] {
        assert!(TcpStream::connect(addr).is_err(), "somebody listens there");
    }
    lineage
        .proxy
        .event_where(mark, "ready", SOON, |fields| fields["proxy"] == "c");
    let mut by_c = connect(of_c);
    for client in [&mut *by_port, &mut *by_added, &mut by_c] {
        assert_eq!(echoed(client, b"served"), b"served");
    }
    lineage.proxy.event_after(mark, "proxy_removed", SOON);

    // And the next one has what this reload has left.
    let finished = lineage.upgrade();
    assert_eq!(finished.number("handed"), 3.0, "{}", finished.fields);
    for client in [by_port, by_added, &mut by_c] {
        assert_eq!(echoed(client, b"lives on"), b"lives on");
    }
    assert!(TcpStream::connect(added).is_err(), "somebody listens there");
}

/// The file of an entry that follows a master which answers nothing, with a limit to change.
fn limited(sentinel: &FakeSentinel, most: usize) -> String {
    let text = file(sentinel.addr(), &[("a", "mymaster", ANY)]);
    let text = text.replace("\"5s\"", "\"60s\"");
    format!("{text}max_connections = {most}\n")
}

#[test]
fn a_reload_while_an_upgrade_is_under_way_is_refused() {
    let master = FakeMaster::start(Bytes::Sink);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let plan = plan(&limited(&sentinel, 5)).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move");
    let proxy = plan.start();
    proxy.event("ready", SOON);
    let at = proxy.addr();
    let mut lineage = Lineage::of(proxy, at);
    // In the middle of a request: it is asked again and again, and the upgrade is not over before it is.
    let mut unfinished = connect(at);
    unfinished.write_all(b"pi").expect("room");
    wait_until("the beginning to be relayed", SOON, || master.bytes() > 0);
    let mark = lineage.proxy.mark();
    let old = lineage.pid();
    let new = lineage.start();
    lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);

    lineage.proxy.rewrite(&limited(&sentinel, 7));
    let (code, answer) = reload(&lineage.proxy);
    assert_eq!(code, 409, "{answer}");
    assert_eq!(answer["outcome"], "failed");
    assert_eq!(answer["problems"][0]["what"], "an upgrade is under way");
    // What is ordered of an entry would not be known to the new process; the end of it is harmless.
    let order = |what| {
        post_as(
            admin_of(&lineage.proxy),
            &format!("/proxies/a/{what}"),
            "",
            TOKEN,
        )
    };
    for what in ["pause", "reconnect"] {
        let (code, why) = order(what);
        assert_eq!(code, 409, "{what}: {why}");
        assert!(why.contains("an upgrade is under way"), "{what}: {why}");
    }
    assert_eq!(order("resume").0, 200);
    // Whichever of the two is asked.
    for (pid, refused) in [(old, 2), (new, 3)] {
        signal(pid, Signal::HUP);
        wait_until("a word on it", SOON, || {
            lineage.proxy.events(mark, "reload_failed").len() == refused
        });
    }
    // In flight now, and on its way.
    unfinished.write_all(b"NG\r\n").expect("room");
    let finished = lineage.proxy.event_after(mark, "upgrade_finished", UPGRADE);
    assert_eq!(finished.number("handed"), 1.0, "{}", finished.fields);
    lineage.proxy.event_after(mark, "took_over", UPGRADE);
    let (code, why) = post_as(admin_of(&lineage.proxy), "/proxies/a/reconnect", "", TOKEN);
    assert_eq!(code, 200, "{why}");
    // It has read the file before it was changed.
    let (code, answer) = reload(&lineage.proxy);
    assert_eq!(
        (code, &answer["outcome"]),
        (200, &"reloaded".into()),
        "{answer}"
    );
}

/// The disk takes its time: what is to be handed over is known behind the reload.
#[test]
fn an_upgrade_waits_for_the_reload_that_is_under_way() {
    let (_master, sentinel) = stage();
    let text = |listen: &str| file(sentinel.addr(), &[("a", "mymaster", listen)]);
    let proxy = ready(&text(ANY));
    let at = proxy.addr_of("a");
    let mut lineage = Lineage::of(proxy, at);
    let mut client = connect(at);
    assert_eq!(echoed(&mut client, b"before"), b"before");
    let added = free_address();
    let changed = text(&format!("{ANY}, {}", quoted(added)));

    let path = lineage.proxy.config_path().to_path_buf();
    fs::remove_file(&path).expect("it is there");
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("a pipe");
    let mark = lineage.proxy.mark();
    lineage.proxy.hang_up();
    // Opens when it is read from.
    let mut slow = OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a reader");
    lineage.proxy.rewrite(&changed);
    lineage.ask();
    lineage.proxy.event_after(mark, "upgrade_waits", SOON);
    assert!(lineage.proxy.events(mark, "upgrade_started").is_empty());
    slow.write_all(changed.as_bytes()).expect("a reader");
    drop(slow);
    let reloaded = lineage.proxy.event_after(mark, "reloaded", SOON);
    let started = lineage.proxy.event_after(mark, "upgrade_started", UPGRADE);
    assert!(started.written() >= reloaded.written());
    let pid = u32::try_from(started.fields["pid"].as_u64().expect("a number"));
    lineage.add(pid.expect("a process"));
    lineage.proxy.event_after(mark, "took_over", UPGRADE);
    assert_eq!(echoed(&mut client, b"lives on"), b"lives on");
    assert_eq!(echoed(&mut connect(added), b"added"), b"added");
}

/// The file that the new process reads gives an address to another entry than the old one has it for.
#[test]
fn an_address_goes_to_the_entry_that_the_new_process_has_it_for() {
    let (_master, sentinel) = stage();
    let at = free_address();
    let named = |name: &str| file(sentinel.addr(), &[(name, "mymaster", &quoted(at))]);
    let mut lineage = Lineage::of(ready(&named("a")), at);
    let mut client = connect(at);
    assert_eq!(echoed(&mut client, b"before"), b"before");
    lineage.proxy.rewrite(&named("b"));
    let finished = lineage.upgrade();
    assert_eq!(finished.number("handed"), 0.0, "{}", finished.fields);
    assert_eq!(read_to_end(&mut client), b"", "its entry is gone");
    let mut new = wait_for("the entry to be served", SOON, || {
        let mut stream = TcpStream::connect(at).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        (echoed(&mut stream, b"served") == b"served").then_some(stream)
    });
    assert_eq!(echoed(&mut new, b"there"), b"there");
}
