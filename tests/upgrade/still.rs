//! Somebody stands still in the middle of an upgrade, and may go on after the other has given it up.

use std::time::Duration;

use rustix::process::Signal;

use crate::UPGRADE;
use crate::crash::Middle;
use crate::harness::topology::{Topology, is_closed};
use crate::harness::wait_until;
use crate::lineage::{client, ping, runs, signal};

const SOON: Duration = Duration::from_secs(20);

/// The session that was on its way is served by the old process again, and by no other.
#[test]
fn a_new_process_that_stands_still_is_killed_and_what_was_on_its_way_comes_back() {
    let servers = Topology::start();
    let mut middle = Middle::of(&servers);
    signal(middle.new, Signal::STOP);
    // In flight now, so that it is sent to the one that does not look.
    middle.unfinished.finish();
    let proxy = &middle.lineage.proxy;
    let failed = proxy.event_after(middle.mark, "upgrade_failed", SOON);
    assert_eq!(failed.text("reason"), "silent", "{}", failed.fields);
    assert!(!runs(middle.new));
    for conn in &mut middle.idle {
        is_closed(conn, SOON);
    }
    ping(&mut client(middle.lineage.addr));
    middle.lineage.forget_last();
    middle.lineage.upgrade();
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
    // Longer than it would wait for an answer.
    let begun = std::time::Instant::now();
    wait_until("a long time", SOON, || {
        begun.elapsed() > Duration::from_secs(6)
    });
    signal(old, Signal::CONT);
    middle.unfinished.finish();
    let proxy = &middle.lineage.proxy;
    proxy.event_after(middle.mark, "took_over", UPGRADE);
    for conn in &mut middle.idle {
        ping(conn);
    }
    middle.lineage.wait_for_end(old);
}
