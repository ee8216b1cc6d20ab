//! Upgrades that succeed: nobody is disconnected, nothing is lost.

use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Conn;

use crate::UPGRADE;
use crate::harness::history::{Outcome, Writers};
use crate::harness::load::Load;
use crate::harness::proxy::Plan;
use crate::harness::raise_descriptor_limit;
use crate::harness::topology::Topology;
use crate::lineage::{Lineage, call, client, ping};

const UPGRADES: usize = 5;
const BENCHMARK_CONNECTIONS: usize = 50;
/// Of the benchmark that is to end by itself; the other goes on until it is ended.
const BENCHMARK_REQUESTS: usize = 100_000;
const IDLE: usize = 1000;
const PACE: Duration = Duration::from_millis(1);

#[test]
fn five_upgrades_under_load_disturb_nobody() {
    raise_descriptor_limit();
    let servers = Topology::start();
    let mut lineage = Lineage::begin(Plan::moving(&servers.sentinels()));
    let mut idle: Vec<Conn> = (0..IDLE).map(|_| client(lineage.addr)).collect();
    // The connection to the master is the same all the time, too.
    let mut known = client(lineage.addr);
    let id = call(&mut known, &["CLIENT", "ID"]);
    let writers = Writers::start(lineage.addr, 4, PACE);
    let mut endless = Load::endless(lineage.addr.port(), BENCHMARK_CONNECTIONS, 1);
    let bounded = Load::once(
        lineage.addr.port(),
        BENCHMARK_CONNECTIONS,
        1,
        BENCHMARK_REQUESTS,
    );
    for n in 0..UPGRADES {
        let old = lineage.pid();
        let finished = lineage.upgrade();
        assert!(
            finished.number("handed") >= IDLE as f64,
            "{n}: {}",
            finished.fields
        );
        assert_eq!(finished.number("left"), 0.0, "{n}: {}", finished.fields);
        lineage.wait_for_end(old);
        writers.all_acknowledged_after(SystemTime::now(), UPGRADE);
    }
    for conn in &mut idle {
        ping(conn);
    }
    assert_eq!(call(&mut known, &["CLIENT", "ID"]), id);
    endless.assert_undisturbed();
    bounded.finish().expect("no error and no reconnect");
    let history = writers.stop();
    assert_eq!(
        history.count(|o| *o != Outcome::Ok),
        0,
        "every write was acknowledged"
    );
    assert!(history.reconnects.iter().all(|n| *n == 0), "no disconnect");
    let mut master = servers.direct(servers.master().addr());
    assert_eq!(history.lost(&mut master).len(), 0);
    history.assert_at_most_once(&mut master);
    // Whoever comes now is served, too.
    ping(&mut client(lineage.addr));
}
