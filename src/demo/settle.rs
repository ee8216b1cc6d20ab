//! Whether a topology is at rest: what every Sentinel and node says, held against each other.
//! Asks only; changes nothing.

use std::net::{IpAddr, SocketAddr};

use super::cluster::{Cluster, ask};
use super::instance::{Instance, info_field};
use super::wire::Value;

/// The master when no failover is in progress, all running Sentinels name the same running one, and all other
/// running nodes are its connected replicas, also in the Sentinels' eyes; else what is missing.
pub(super) fn settled(cluster: &Cluster) -> Result<SocketAddr, String> {
    let mut named = None;
    for sentinel in running(cluster.sentinels()) {
        let addr = master_of(cluster, sentinel)?;
        if named.is_some_and(|other| other != addr) {
            return Err(format!(
                "{} names {addr} as master, another does not",
                sentinel.name()
            ));
        }
        named = Some(addr);
    }
    let master = named.ok_or("no Sentinel is running")?;
    for node in running(cluster.nodes()) {
        role_fits(node, master)?;
    }
    let Some(node) = cluster.node_at(master).filter(|node| node.is_running()) else {
        return Err(format!("the Sentinels' master {master} is not running"));
    };
    streams_to_all(node)?;
    for sentinel in running(cluster.sentinels()) {
        let replicas = query(sentinel, &["SENTINEL", "REPLICAS", cluster.master_name()])?;
        for node in running(cluster.nodes()).filter(|node| node.addr() != master) {
            known_as(sentinel, &replicas, node, "slave")?;
        }
    }
    Ok(master)
}

/// Whether every Sentinel knows `replicas` replicas and all other Sentinels, and could reach its quorum.
pub(super) fn complete(cluster: &Cluster, replicas: usize) -> Result<(), String> {
    let name = cluster.master_name();
    for sentinel in cluster.sentinels() {
        let view = query(sentinel, &["SENTINEL", "MASTER", name])?;
        if view.field("num-slaves") != Some(replicas.to_string()) {
            return Err(format!("{} does not know all replicas", sentinel.name()));
        }
        let others = query(sentinel, &["SENTINEL", "SENTINELS", name])?;
        for other in cluster
            .sentinels()
            .iter()
            .filter(|other| other.addr() != sentinel.addr())
        {
            known_as(sentinel, &others, other, "sentinel")?;
        }
        query(sentinel, &["SENTINEL", "CKQUORUM", name])?;
    }
    Ok(())
}

/// Whether a replica is connected to its master.
pub(super) fn link_up(replica: &Instance) -> Result<(), String> {
    let info = query(replica, &["INFO", "replication"])?
        .text()
        .unwrap_or_default();
    match info_field(&info, "master_link_status") {
        Some(status) if status == "up" => Ok(()),
        status => Err(format!(
            "its link is {}",
            status.as_deref().unwrap_or("none")
        )),
    }
}

/// Whether every replica of this master has acknowledged something since its synchronization. Before that the master
/// sends it nothing ("Waiting for REPLCONF ACK from slave to enable streaming"): promoted now, it would miss it all.
fn streams_to_all(master: &Instance) -> Result<(), String> {
    let info = query(master, &["INFO", "replication"])?
        .text()
        .unwrap_or_default();
    let mut replicas = info.lines().filter(|line| line.starts_with("slave"));
    match replicas.find(|line| line.contains(",offset=0,")) {
        Some(line) => Err(format!("a replica has acknowledged nothing yet ({line})")),
        None => Ok(()),
    }
}

/// The address in an answer of `SENTINEL GET-MASTER-ADDR-BY-NAME`.
pub(super) fn addr_in(reply: &Value) -> Option<SocketAddr> {
    let [ip, port] = reply.items() else {
        return None;
    };
    let ip: IpAddr = ip.text()?.parse().ok()?;
    Some((ip, port.text()?.parse().ok()?).into())
}

fn master_of(cluster: &Cluster, sentinel: &Instance) -> Result<SocketAddr, String> {
    let name = cluster.master_name();
    let view = query(sentinel, &["SENTINEL", "MASTER", name])?;
    match view.field("flags") {
        Some(flags) if flags == "master" => {}
        flags => {
            return Err(format!(
                "{} sees a master that is {}",
                sentinel.name(),
                flags.unwrap_or_default()
            ));
        }
    }
    let addr = query(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name])?;
    addr_in(&addr).ok_or_else(|| format!("{} names no master", sentinel.name()))
}

fn role_fits(node: &Instance, master: SocketAddr) -> Result<(), String> {
    let role = query(node, &["ROLE"])?;
    let said: Vec<_> = role
        .items()
        .iter()
        .take(4)
        .map(|v| v.text().unwrap_or_default())
        .collect();
    let fits = if node.addr() == master {
        said.first().is_some_and(|role| role == "master")
    } else {
        said == [
            "slave",
            &master.ip().to_string(),
            &master.port().to_string(),
            "connected",
        ]
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{} says it is {}", node.name(), said.join(" ")))
    }
}

fn known_as(sentinel: &Instance, list: &Value, who: &Instance, flags: &str) -> Result<(), String> {
    let port = Some(who.addr().port().to_string());
    let entry = list
        .items()
        .iter()
        .find(|entry| entry.field("port") == port);
    match entry.and_then(|entry| entry.field("flags")) {
        Some(seen) if seen == flags => Ok(()),
        Some(seen) => Err(format!("{} sees {} as {seen}", sentinel.name(), who.name())),
        None => Err(format!("{} does not know {}", sentinel.name(), who.name())),
    }
}

fn running(instances: &[Instance]) -> impl Iterator<Item = &Instance> {
    instances.iter().filter(|instance| instance.is_running())
}

fn query(instance: &Instance, command: &[&str]) -> Result<Value, String> {
    ask(instance, command).map_err(|e| e.to_string())
}
