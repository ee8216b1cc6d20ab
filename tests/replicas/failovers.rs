//! Reads under load through failovers, with a detector: which node has answered, was it read from at that time, and how old is what
//! it said?

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Conn;

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FOLLOW, Topology, follows, port_of};
use crate::harness::{wait_for, wait_until};
use crate::load::{Load, Read, age};
use crate::reader::{client, count, others, plan, ready};

/// One exchange of the load.
const ASK: Duration = Duration::from_secs(8);
const FAILOVERS: usize = 5;
/// Clients that come behind the last failover.
const IDLE: usize = 300;
const MAX_LAG: Duration = Duration::from_secs(8);
/// Between what is done and its line in the log, and between two clocks that are read one after the other.
const SLACK: Duration = Duration::from_millis(100);
/// Sessions are evened out at a bounded rate.
const EVENED: Duration = Duration::from_secs(30);

/// The times in which each node was read from, by the program's own word.
fn memberships(proxy: &Proxy) -> BTreeMap<u16, Vec<(SystemTime, Option<SystemTime>)>> {
    let port = |addr: &str| addr.rsplit(':').next().and_then(|port| port.parse().ok());
    let mut events = proxy.events(0, "replica_joined");
    events.extend(proxy.events(0, "replica_left"));
    events.sort_by_key(|event| event.index);
    let mut all: BTreeMap<u16, Vec<(SystemTime, Option<SystemTime>)>> = BTreeMap::new();
    for event in events {
        let of: &mut Vec<_> = all
            .entry(port(event.text("addr")).expect("a port"))
            .or_default();
        if event.name() == "replica_joined" {
            of.push((event.written(), None));
        } else {
            of.last_mut().expect("it had joined").1 = Some(event.written());
        }
    }
    all
}

#[test]
fn five_failovers_under_load_and_no_read_from_a_node_that_left_or_is_stale() {
    let servers = Topology::start_with(|options| options.replicas = 3);
    let writing = Proxy::ready(Plan::moving(&servers.sentinels()));
    let lag = humantime::format_duration(MAX_LAG).to_string();
    let proxy = ready(plan(&servers).env("SWITCHMASTER_PROXY_MAX_LAG", lag), 3);
    let load = Load::start(writing.addr(), proxy.addr());
    for round in 0..FAILOVERS {
        let (mark, of_readers) = (writing.mark(), proxy.mark());
        let is_crash = round % 2 == 1;
        let switch = if is_crash {
            let old = servers.master().addr();
            servers.node(old).kill().expect("killed");
            servers.switched_from(old)
        } else {
            servers.fail_over(round % 3)
        };
        follows(&writing, mark, switch);
        proxy.event_after(of_readers, "switched", FOLLOW);
        if is_crash {
            servers.bring_back(switch);
        } else {
            servers.ready_again(switch);
        }
        wait_until("all replicas to be read from again", EVENED, || {
            let now = memberships(&proxy);
            let open = now.values().flatten().filter(|(_, left)| left.is_none());
            open.count() == 3
        });
    }
    let master = servers.settle();
    let (written, reads) = load.end();
    let mut idle: Vec<(Conn, u16)> = (0..IDLE).map(|_| client(&proxy)).collect();
    let spread = wait_for("a spread within a tenth of even", EVENED, || {
        let counted = count(idle.iter_mut().filter_map(|(conn, _)| port_of(conn)));
        let even = |n: &usize| n.abs_diff(IDLE / 3) <= IDLE / 30;
        (counted.len() == 3 && counted.values().all(even)).then_some(counted)
    });
    let members = memberships(&proxy);

    let is_member = |read: &Read| {
        members.get(&read.port).is_some_and(|times| {
            times.iter().any(|(joined, left)| {
                read.heard + SLACK >= *joined && left.is_none_or(|left| read.sent <= left + SLACK)
            })
        })
    };
    let strangers = reads.iter().filter(|read| !is_member(read)).count();
    let ages = reads.iter().filter_map(|read| age(read, &written));
    let oldest = ages.max().unwrap_or_default();
    let by_node = count(reads.iter().map(|read| read.port));
    drop(idle);
    let reconnects = proxy.closed(0);
    println!(
        "{} reads in {FAILOVERS} failovers, {} writes; by node {by_node:?}, the master is {master}; oldest value {oldest:?}; from \
         nodes that had left: {strangers}; sessions ended {reconnects:?}; {IDLE} clients behind that: {spread:?}",
        reads.len(),
        written.len()
    );
    assert!(reads.len() > 1000, "there was no load");
    assert_eq!(strangers, 0, "{members:?}");
    assert!(oldest <= MAX_LAG + SLACK, "{oldest:?}");
    // A Sentinel is connected to none of its replicas in the moment after a failover: they are not down for that.
    let left = proxy.events(0, "replica_left");
    let down: Vec<_> = left.iter().filter(|e| e.text("reason") == "down").collect();
    assert!(down.is_empty(), "{down:?}");
    let listed = others(&servers, master);
    assert_eq!(listed.len(), 3);
}

#[test]
fn reads_go_on_while_the_master_is_dead() {
    let servers = Topology::start();
    let master = servers.master().addr();
    let proxy = ready(plan(&servers), 2);
    let mut clients: Vec<(Conn, u16)> = (0..10).map(|_| client(&proxy)).collect();
    let mark = proxy.mark();
    servers.node(master).kill().expect("killed");
    // Sentinel needs 1.5 s to call it down.
    let until = SystemTime::now() + Duration::from_secs(1);
    while SystemTime::now() < until {
        for (conn, port) in &mut clients {
            let answered = port_of(conn);
            assert_eq!(answered, Some(*port), "as if nothing had happened");
        }
    }
    assert!(
        proxy.events(mark, "replica_left").is_empty(),
        "{}",
        proxy.output()
    );
    let switch = servers.switched_from(master);
    let other = others(&servers, switch.new)
        .into_iter()
        .find(|addr| *addr != master);
    let other = other.expect("one of two");
    // The promoted one is left, and the other one is read from again when it follows that.
    wait_until(
        "all clients to read from the replica that is left",
        Duration::from_secs(30),
        || {
            clients.iter_mut().all(|(conn, _)| {
                let port = port_of(conn);
                if port.is_none() {
                    *conn = Conn::connect(proxy.addr(), ASK).expect("the proxy listens");
                }
                port == Some(other.port())
            })
        },
    );
}
