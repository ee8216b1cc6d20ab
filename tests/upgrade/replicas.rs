//! Sessions that are led to replicas: which replica is not agreed on between two processes, so they drain in the old one.

use std::time::Duration;

use crate::harness::proxy::Plan;
use crate::harness::topology::{Topology, is_closed, port_of};
use crate::harness::wait_for;
use crate::lineage::{Lineage, client};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn sessions_that_are_led_to_replicas_drain_and_new_ones_are_served() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let plan = Plan::moving(&servers.sentinels())
        .env("SWITCHMASTER_PROXY_ROLE", "replica")
        .env("SWITCHMASTER_LIMITS_SHUTDOWN_GRACE", "1s");
    let mut lineage = Lineage::begin(plan);
    let mut old = client(lineage.addr);
    let port = wait_for("a replica to answer", SOON, || port_of(&mut old));
    assert_ne!(port, master.port());
    let finished = lineage.upgrade();
    assert_eq!(finished.number("handed"), 0.0, "{}", finished.fields);
    is_closed(&mut old, SOON);
    let mut new = client(lineage.addr);
    let port = wait_for("a replica to answer", SOON, || port_of(&mut new));
    assert_ne!(port, master.port());
}
