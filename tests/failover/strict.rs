//! Stricter than the default: rows 10 and 22 with `when_sentinels_are_lost = "stop"`, and `fence_at_odown`.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Conn;

use crate::harness::chaos::ChaosRelay;
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::history::Writers;
use crate::harness::network::Network;
use crate::harness::proxy::{Event, Plan, Proxy};
use crate::harness::split::{Side, Split};
use crate::harness::stream::{assert_silent, connect, echoed, read_to_end};
use crate::harness::topology::{
    FAILOVER, FOLLOW, Topology, idle_client, loses_upstream, master_named, serves,
};
use crate::harness::{wait_for, wait_until};

const PACE: Duration = Duration::from_millis(1);
/// Longest wait of held clients in these tests.
const HOLD_MAX: Duration = Duration::from_secs(3);
/// A Sentinel that was cut off is dead after 3 s and dialled again every 2 s at least.
const HEAL: Duration = Duration::from_secs(6);
/// Long enough for a lease to have ended, and for a hold to be seen as one.
const A_WHILE: Duration = Duration::from_secs(2);

fn strict(sentinels: &[SocketAddr]) -> Plan {
    Plan::following(sentinels)
        .env("SWITCHMASTER_FAILOVER_WHEN_SENTINELS_ARE_LOST", "stop")
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "3s")
}

/// A majority has to vouch before the first byte: `ready` is not yet that.
fn serving(plan: Plan) -> Proxy {
    let proxy = Proxy::ready(plan);
    drop(idle_client(&proxy));
    proxy
}

fn stops(proxy: &Proxy, mark: usize) -> Event {
    proxy.event_where(mark, "hold_begin", FOLLOW, |f| f["cause"] == "unconfirmed")
}

#[test]
fn row_10_all_sentinels_down_and_stop() {
    let servers = Topology::start();
    let proxy = serving(strict(&servers.sentinels()));
    let master = servers.master().addr();
    let mut kept = idle_client(&proxy);
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();

    for sentinel in servers.cluster().sentinels() {
        sentinel.kill().expect("SIGKILL");
    }
    let stopped = stops(&proxy, mark);
    loses_upstream(&mut kept, HOLD_MAX + FOLLOW);
    // A newcomer waits as long at most, and is then told: by an error, or by a closed connection.
    let mut newcomer = Conn::connect(proxy.addr(), HOLD_MAX + FOLLOW).expect("the proxy listens");
    let told = newcomer.call(&["PING"]);
    assert!(told.map_or(true, |told| told.is_error()), "nobody vouches");
    let history = writers.stop();
    let mut node = servers.direct(master);
    history.assert_none_after(stopped.written(), &mut node);
    history.assert_at_most_once(&mut node);
    assert!(history.lost(&mut node).is_empty());

    for sentinel in servers.cluster().sentinels() {
        sentinel.restart().expect("it has its configuration");
    }
    proxy.event_after(stopped.index, "hold_end", HEAL);
    serves(&proxy, master, FOLLOW);
    assert!(proxy.events(mark, "switched").is_empty());
}

#[test]
fn row_22_stop_ends_writing_before_the_other_side_fails_over() {
    use Side::{Far, Near};
    let Some(network) = Network::make() else {
        return;
    };
    let servers = Split::start(network, [Near, Far, Far], [Near, Far, Far]);
    let proxy = serving(strict(&servers.sentinel_addrs()));
    let old = servers.nodes[0].addr;
    let writers = Writers::start(proxy.addr(), 2, PACE);
    let mark = proxy.mark();

    servers.network.cut_all();
    let mut other_side = servers.sentinels[1].connect().expect("the Sentinel runs");
    let new = wait_for("the other side to fail over", FAILOVER, || {
        master_named(&mut other_side, "mymaster").filter(|named| *named != old)
    });
    let named = SystemTime::now();
    let stopped = stops(&proxy, mark);
    assert!(
        stopped.written() < named,
        "the lease is shorter than down-after"
    );

    servers.network.heal_all();
    let switched = proxy.event_after(mark, "switched", HEAL);
    assert_eq!(switched.text("to"), new.to_string(), "{}", switched.fields);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    // Before it is demoted (8 s at least after the healing) its data is read.
    history.assert_none_after(stopped.written(), &mut servers.direct(old));
    let mut node = servers.direct(new);
    history.assert_at_most_once(&mut node);
    history.assert_lost_only_before(stopped.written(), &mut node);
}

/// The stand-in for the row in network namespaces, where nobody is root.
#[test]
fn row_22_stop_on_a_minority_side_behind_relays() {
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinels: Vec<FakeSentinel> = (0..3)
        .map(|number| FakeSentinel::start(Protocol::Resp3, View::of(old.addr()).by(number, 3)))
        .collect();
    let paths: Vec<ChaosRelay> = sentinels.iter().map(|s| ChaosRelay::to(s.addr())).collect();
    let addrs: Vec<SocketAddr> = paths.iter().map(ChaosRelay::addr).collect();
    let proxy = serving_echo(strict(&addrs));
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"before"), b"before");
    let mark = proxy.mark();
    for path in &paths[1..] {
        path.black_hole(true);
    }
    stops(&proxy, mark);
    let bytes = old.bytes();
    kept.write_all(b"held").expect("written");
    assert_silent(&mut kept, A_WHILE);
    assert_eq!(old.bytes(), bytes, "nothing passes without a majority");

    for sentinel in &sentinels[1..] {
        sentinel.switch_master(new.addr());
    }
    for path in &paths {
        path.black_hole(false);
    }
    proxy.event_after(mark, "switched", HEAL);
    assert_eq!(read_to_end(&mut kept), b"", "cut");
    assert_eq!(old.bytes(), bytes);
    assert_eq!(echoed(&mut connect(proxy.addr()), b"new"), b"new");
}

#[test]
fn a_quorum_that_calls_the_master_down_fences_it_where_asked_to() {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let plan =
        Plan::following(&[sentinel.addr()]).env("SWITCHMASTER_FAILOVER_FENCE_AT_ODOWN", "true");
    let proxy = Proxy::ready(plan);
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"before"), b"before");
    let mark = proxy.mark();

    let payload = format!(
        "master mymaster {} {} #quorum 2/2",
        master.addr().ip(),
        master.addr().port()
    );
    let call = |flags: &str, event: &str| {
        sentinel.update(|view| view.flags = flags.to_owned());
        sentinel.publish(event, &payload);
    };
    call("master,s_down,o_down", "+odown");
    let held = proxy.event_after(mark, "hold_begin", FOLLOW);
    assert_eq!(held.text("cause"), "objectively_down");
    let bytes = master.bytes();
    kept.write_all(b"held").expect("written");
    assert_silent(&mut kept, A_WHILE);
    assert_eq!(master.bytes(), bytes, "it would have answered");

    call("master", "-odown");
    proxy.event_after(held.index, "hold_end", FOLLOW);
    let mut reply = [0; 4];
    std::io::Read::read_exact(&mut kept, &mut reply).expect("the held bytes come back");
    assert_eq!(&reply, b"held");
}

#[test]
fn announced_addresses_are_mapped_to_reachable_ones() {
    let (first, second) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let peer_id = "c".repeat(40);
    let announced = |host: &str| Some((host.to_owned(), "6379".to_owned()));
    let sentinel = FakeSentinel::start(
        Protocol::Resp3,
        View {
            announced: announced("192.0.2.1"),
            sentinels: vec![(([192, 0, 2, 9], 26379).into(), peer_id.clone())],
            others: 1,
            ..View::of(first.addr())
        },
    );
    let peer = FakeSentinel::start(
        Protocol::Resp3,
        View {
            announced: announced("192.0.2.1"),
            sentinel_id: peer_id,
            others: 1,
            ..View::of(first.addr())
        },
    );
    let map = format!(
        "192.0.2.1:6379={},192.0.2.2:6379={},192.0.2.9:26379={}",
        first.addr(),
        second.addr(),
        peer.addr()
    );
    let plan = Plan::following(&[sentinel.addr()]).env("SWITCHMASTER_ADDRESS_MAP", map);
    let proxy = Proxy::ready(plan);
    assert_eq!(
        proxy.event("ready", FOLLOW).text("master"),
        first.addr().to_string()
    );
    proxy.event_where(0, "sentinel_up", FOLLOW, |f| {
        f["sentinel"] == peer.addr().to_string()
    });
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"one"), b"one");
    let mark = proxy.mark();

    // The announced successor is asked where it is reached, too: clients wait although nothing was switched yet.
    sentinel.publish(
        "+selected-slave",
        "slave 192.0.2.2:6379 192.0.2.2 6379 @ mymaster 192.0.2.1 6379",
    );
    proxy.event_where(mark, "hold_begin", FOLLOW, |f| f["cause"] == "announced");
    wait_until("the successor to be asked for its role", FOLLOW, || {
        second.most_controls() > 0
    });
    for sentinel in [&sentinel, &peer] {
        sentinel.update(|view| {
            view.announced = announced("192.0.2.2");
            view.epoch += 1;
        });
        sentinel.publish("+switch-master", "mymaster 192.0.2.1 6379 192.0.2.2 6379");
    }
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), second.addr().to_string());
    assert_eq!(echoed(&mut connect(proxy.addr()), b"two"), b"two");
}

fn serving_echo(plan: Plan) -> Proxy {
    let proxy = Proxy::ready(plan);
    assert_eq!(echoed(&mut connect(proxy.addr()), b"x"), b"x");
    proxy
}
