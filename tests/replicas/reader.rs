//! Clients of a replica listener, and what tells which node has answered them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use switchmaster::demo::wire::Conn;

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FOLLOW, Topology, port_of};
use crate::harness::wait_for;

/// One exchange.
const ASK: Duration = Duration::from_secs(5);

/// Follows all Sentinels; clients are led to replicas.
pub(crate) fn plan(servers: &Topology) -> Plan {
    Plan::moving(&servers.sentinels()).env("SWITCHMASTER_PROXY_ROLE", "replica")
}

/// The same, and so many replicas are read from.
pub(crate) fn ready(plan: Plan, replicas: usize) -> Proxy {
    let proxy = Proxy::ready(plan);
    joined(&proxy, 0, replicas);
    proxy
}

/// So many replicas have joined since.
pub(crate) fn joined(proxy: &Proxy, mark: usize, replicas: usize) {
    let what = format!("{replicas} replicas to be read from");
    wait_for(&what, Duration::from_secs(30), || {
        (proxy.events(mark, "replica_joined").len() >= replicas).then_some(())
    });
}

/// A client, and the port of the node that answers it.
pub(crate) fn client(proxy: &Proxy) -> (Conn, u16) {
    let mut conn = Conn::connect(proxy.addr(), ASK).expect("the proxy listens");
    let port = port_of(&mut conn).expect("a node answers");
    (conn, port)
}

/// How many of these are answered by which node.
pub(crate) fn count(ports: impl IntoIterator<Item = u16>) -> BTreeMap<u16, usize> {
    let mut counted = BTreeMap::new();
    for port in ports {
        *counted.entry(port).or_default() += 1;
    }
    counted
}

/// The replicas of this master.
pub(crate) fn others(servers: &Topology, master: SocketAddr) -> Vec<SocketAddr> {
    let nodes = servers.cluster().nodes().iter().map(|node| node.addr());
    nodes.filter(|addr| *addr != master).collect()
}

/// Waits for the line that says that this node is not read from any more, and gives the reason.
pub(crate) fn left(proxy: &Proxy, mark: usize, addr: SocketAddr) -> String {
    left_within(proxy, mark, addr, FOLLOW)
}

/// The same with more patience.
pub(crate) fn left_within(
    proxy: &Proxy,
    mark: usize,
    addr: SocketAddr,
    within: Duration,
) -> String {
    wait_for(&format!("{addr} to be left"), within, || {
        let events = proxy.events(mark, "replica_left");
        let of = events
            .into_iter()
            .find(|e| e.text("addr") == addr.to_string());
        of.map(|event| event.text("reason").to_owned())
    })
}
