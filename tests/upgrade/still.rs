//! Somebody stands still in the middle of an upgrade, and may go on after the other has given it up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::UPGRADE;
use crate::crash::{Middle, Unfinished};
use crate::harness::proxy::Plan;
use crate::harness::topology::{Topology, is_closed};
use crate::lineage::{Lineage, client, open_files, ping, runs, signal};

const SOON: Duration = Duration::from_secs(20);

/// The session that was on its way is served by the old process again, and by no other.
#[test]
fn a_new_process_that_stands_still_is_killed_and_what_was_on_its_way_comes_back() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    signal(middle.new, Signal::STOP);
    // Whole now, so that it is sent to the one that does not look.
    let mut stream = middle.unfinished.finish();
    let proxy = &middle.lineage.proxy;
    let failed = proxy.event_after(middle.mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "silent", "{}", failed.fields);
    assert!(!runs(middle.new));
    answers(&mut stream);
    for conn in &mut middle.idle {
        is_closed(conn, SOON);
    }
    ping(&mut client(middle.lineage.addr));
    middle.lineage.forget_last();
    middle.lineage.upgrade();
}

/// Descriptors that are lost on the way are copies: the sessions go back, those that are there go on, and later there is room.
#[test]
fn a_new_process_without_descriptors_refuses_and_goes_on() {
    const SESSIONS: usize = 12;
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "120s");
    let mut lineage = Lineage::begin(plan);
    let mut idle = client(lineage.addr);
    let unfinished: Vec<_> = (0..SESSIONS).map(|_| Unfinished::new(&lineage)).collect();
    let mark = lineage.proxy.mark();
    let new = lineage.start();
    lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);
    ping(&mut idle);
    let limit = |current: u64| {
        let pid = Pid::from_raw(new.cast_signed());
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit {
            current: Some(current),
            maximum,
        };
        prlimit(pid, Resource::Nofile, limit)
            .expect("a child's child")
            .current
    };
    // Room for three of them, and for one half of another.
    let before = limit(open_files(new) as u64 + 7).expect("a limit");
    let mut streams: Vec<_> = unfinished.into_iter().map(Unfinished::finish).collect();
    let proxy = &lineage.proxy;
    proxy.event_after(mark, "upgrade_refused_sessions", SOON);
    assert!(proxy.events(mark, "upgrade_failed").is_empty());
    limit(before);
    proxy.event_after(mark, "took_over", UPGRADE);
    ping(&mut idle);
    streams.iter_mut().for_each(answers);
}

/// A limit that ran out in a time in which nobody could speak, or could be heard, is no reason to end who serves.
#[test]
fn a_standstill_of_the_old_process_or_of_the_machine_closes_nobody() {
    const SESSIONS: usize = 800;
    let servers = Topology::start();
    let plan = Plan::moving(&servers.sentinels()).env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "120s");
    let mut lineage = Lineage::begin(plan);
    let mut idle: Vec<_> = (0..SESSIONS).map(|_| client(lineage.addr)).collect();
    for both in [false, true] {
        let mark = lineage.proxy.mark();
        let old = lineage.pid();
        let new = lineage.start();
        lineage.proxy.event_after(mark, "upgrade_handing", UPGRADE);
        let still = if both { vec![old, new] } else { vec![old] };
        for pid in &still {
            signal(*pid, Signal::STOP);
        }
        // Not for anything to have happened: longer than the old process would wait for an answer.
        std::thread::sleep(Duration::from_millis(5300));
        for pid in &still {
            signal(*pid, Signal::CONT);
        }
        lineage.proxy.event_after(mark, "took_over", SOON);
        idle.iter_mut().for_each(ping);
    }
}

/// An operator calls an upgrade off. Whoever accepted before does so again, with the sessions that it still has.
#[test]
fn a_new_process_that_is_told_to_end_leaves_the_service_to_the_old_one() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    signal(middle.new, Signal::TERM);
    let proxy = &middle.lineage.proxy;
    let failed = proxy.event_after(middle.mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "ended", "{}", failed.fields);
    assert!(
        failed.text("message").contains("told to end"),
        "{}",
        failed.fields
    );
    assert!(!runs(middle.new));
    ping(&mut client(middle.lineage.addr));
    answers(&mut middle.unfinished.finish());
    middle.lineage.forget_last();
    middle.lineage.upgrade();
}

fn answers(stream: &mut TcpStream) {
    stream.write_all(b"PING\r\n").expect("room");
    let mut pong = [0; 7];
    stream.read_exact(&mut pong).expect("it lives on");
    assert_eq!(&pong, b"+PONG\r\n");
}

/// Whatever it was told meanwhile it reads before it looks at the clock.
#[test]
fn an_old_process_that_stood_still_goes_on_where_it_was() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    let old = middle.lineage.proxy.pid();
    signal(old, Signal::STOP);
    for conn in &mut middle.idle {
        ping(conn);
    }
    // Not for anything to have happened: longer than it would wait for an answer.
    std::thread::sleep(Duration::from_secs(6));
    signal(old, Signal::CONT);
    middle.unfinished.finish();
    let proxy = &middle.lineage.proxy;
    proxy.event_after(middle.mark, "took_over", UPGRADE);
    for conn in &mut middle.idle {
        ping(conn);
    }
    middle.lineage.wait_for_end(old);
}
