//! Real partitions: rows 22, 23 and 24 over a link whose packets vanish. Root only; the stand-ins for everybody else
//! are in `unreachable` and always run.

use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::history::Writers;
use crate::harness::network::Network;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::split::{Side, Split};
use crate::harness::topology::{FAILOVER, FOLLOW, master_named};
use crate::harness::{holds_for, wait_for, wait_until};
use crate::unreachable::is_not_adopted;

const PACE: Duration = Duration::from_millis(1);
/// A Sentinel that was cut off is dead after 3 s and dialled again every 2 s at least.
const HEAL: Duration = Duration::from_secs(6);

#[test]
fn row_22_proxy_old_master_and_one_sentinel_are_cut_off_together() {
    use Side::{Far, Near};
    let Some(network) = Network::make() else {
        return;
    };
    let servers = Split::start(network, [Near, Far, Far], [Near, Far, Far]);
    let proxy = Proxy::ready(Plan::following(&servers.sentinel_addrs()));
    let old = servers.nodes[0].addr;
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();

    servers.network.cut_all();
    let mut other_side = servers.sentinels[1].connect().expect("the Sentinel runs");
    let new = wait_for("the other side to fail over", FAILOVER, || {
        master_named(&mut other_side, "mymaster").filter(|named| *named != old)
    });
    // Documented: with `when_sentinels_are_lost = "serve"` the cut-off side goes on, and Redis will forget it.
    let parted = SystemTime::now();
    writers.all_acknowledged_after(parted, FOLLOW);
    assert!(proxy.events(mark, "switched").is_empty());
    assert_eq!(proxy.sockets_to(new), 0);

    servers.network.heal_all();
    let switched = proxy.event_after(mark, "switched", HEAL);
    assert_eq!(switched.text("to"), new.to_string(), "{}", switched.fields);
    wait_until("no socket to the old master", FOLLOW, || {
        proxy.sockets_to(old) == 0
    });
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    // Before it is demoted (8 s at least after the healing) its data is read.
    history.assert_none_after(switched.written(), &mut servers.direct(old));
    let mut node = servers.direct(new);
    history.assert_at_most_once(&mut node);
    let lost = history.assert_lost_only_before(switched.written(), &mut node);
    assert!(lost > 0, "the other side cannot have what it never saw");
    assert_eq!(proxy.events(mark, "switched").len(), 1);
}

#[test]
fn row_23_only_the_path_from_proxy_to_master_is_cut() {
    let Some(network) = Network::make() else {
        return;
    };
    let servers = Split::start(network, [Side::Far; 3], [Side::Far; 3]);
    let proxy = Proxy::ready(Plan::following(&servers.sentinel_addrs()));
    let master = servers.nodes[0].addr;
    let std::net::IpAddr::V4(ip) = master.ip() else {
        panic!("the network has IPv4 addresses");
    };
    let mut kept = Conn::connect(proxy.addr(), HEAL).expect("the proxy listens");
    assert!(kept.call(&["PING"]).is_ok());
    let mark = proxy.mark();

    servers.network.cut(ip);
    let mut newcomer = Conn::connect(proxy.addr(), HEAL).expect("the proxy listens");
    newcomer.send(&["SET", "row23", "held"]).expect("sent");
    holds_for("a dial at a time, and no switch", HEAL, || {
        // The client's own, and at most one of the control plane.
        proxy.dials_to(master) <= 2 && proxy.events(mark, "switched").is_empty()
    });
    let failed = proxy.events(mark, "dial_failed").len();
    assert!((1..=7).contains(&failed), "{failed} lines in {HEAL:?}");

    servers.network.heal(ip);
    newcomer.set_timeout(FOLLOW);
    let reply = newcomer.read().expect("served after the healing");
    assert_eq!(reply, Value::Simple("OK".to_owned()));
    let stored = servers.direct(master).call(&["GET", "row23"]);
    assert_eq!(
        stored.expect("the master answers"),
        Value::Bulk(b"held".to_vec())
    );
    // TCP repeats what was lost on the way; the connection was never given up.
    kept.set_timeout(Duration::from_secs(15));
    assert!(kept.call(&["PING"]).is_ok());
    assert!(proxy.events(mark, "switched").is_empty(), "nobody moved");
}

#[test]
fn row_24_new_master_is_behind_a_dead_path() {
    let Some(network) = Network::make() else {
        return;
    };
    let far = network.far(0);
    network.cut(far);
    let nowhere = (far, 6379).into();
    drop(is_not_adopted(nowhere, |proxy| {
        proxy.dials_to(nowhere) <= 1
    }));
}
