//! Failovers while clients come by the hundred each second, each with a connection of its own: the flood must not delay the
//! switch, and is served again behind it. How much it may take is `cargo bench --bench scale -- --flood`.

use std::time::Duration;

use crate::harness::flood::{Ask, Flood};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FOLLOW, Topology, follows, serves};
use crate::harness::wait_until;

/// Many for a machine that runs other tests beside; the bench offers ten times as many.
const PER_SECOND: u32 = 500;
/// Clients that may wait at once, as they do while there is no master.
const AT_MOST: usize = 2000;
/// Answered clients that make a flood.
const SOME: u64 = 300;
/// Until so many are answered, on a loaded machine.
const SERVED: Duration = Duration::from_secs(20);

#[test]
fn a_planned_failover_under_a_flood_of_connects() {
    under_a_flood(|servers| servers.fail_over(0));
}

#[test]
fn a_killed_master_under_a_flood_of_connects() {
    under_a_flood(|servers| {
        let old = servers.master().addr();
        servers.node(old).kill().expect("SIGKILL");
        servers.switched_from(old)
    });
}

fn under_a_flood(change: impl FnOnce(&Topology) -> crate::harness::topology::Switch) {
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let flood = Flood::start(Ask::ping(proxy.addr(), PER_SECOND, AT_MOST));
    wait_until("a flood", SERVED, || flood.answered() >= SOME);
    let mark = proxy.mark();

    let switch = change(&servers);
    // Within the time that a proxy has to which nobody connects.
    follows(&proxy, mark, switch);
    serves(&proxy, switch.new, FOLLOW);
    let answered = flood.answered();
    wait_until("the flood to be served again", SERVED, || {
        flood.answered() >= answered + SOME
    });
    assert_eq!(proxy.events(mark, "switched").len(), 1);
    let flooded = flood.stop();
    println!("errors: {:?}", flooded.errors);
    // Whoever had asked nothing yet was kept; the others are those under way in that one instant.
    assert!(
        flooded.failed() <= AT_MOST as u64 / 10,
        "{:?}",
        flooded.errors
    );
    let status = proxy.status();
    assert_eq!(status.number("accept_errors"), 0.0, "{}", status.fields);
    assert_eq!(status.number("refused"), 0.0, "{}", status.fields);
}
