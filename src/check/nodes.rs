//! What is to be said of the master and its replicas. Pure.

use super::facts::{Node, Nodes, SentinelFacts, is_loopback, is_remote, views};
use super::finding::{Code, Finding, Level, redis_cli, tls_client};
use crate::net::addr::HostPort;
use crate::net::address_map::AddressMap;
use crate::net::tls::Connector;
use crate::sentinel::client::ClientError;
use crate::topology::observation::{ReplicaSeen, RoleReport};
use crate::topology::rules::Verify;

/// A replica that is so far behind loses much if it is promoted: a quarter of what a master keeps for a replica before it
/// cuts it off (64mb, the soft `client-output-buffer-limit`). Replicas acknowledge once a second, so a busy master is
/// always some megabytes ahead.
const FAR_BEHIND: u64 = 16 * 1024 * 1024;

/// `index` is the master's among those that the Sentinels were asked about.
pub(super) fn judge(
    nodes: &Nodes,
    sentinels: &[SentinelFacts],
    index: usize,
    map: &AddressMap,
) -> Vec<Finding> {
    let Some(master) = &nodes.master else {
        return vec![
            Finding::warn(
                Code::MasterNotLookedAt,
                format!("master of proxy \"{}\"", nodes.proxy),
                "no Sentinel says where it is, so neither it nor its replicas were asked",
            )
            .hint("see what is said of the Sentinels"),
        ];
    };
    let mut findings = Vec::new();
    let remote = views(sentinels, index).find(|(sentinel, view)| {
        let peer = sentinel
            .told
            .as_ref()
            .is_ok_and(|told| is_remote(told.peer));
        peer && view.master.0 == master.announced
    });
    let remote = remote.map(|(sentinel, _)| &sentinel.addr);
    findings.extend(of_master(master, remote, nodes, map));
    findings.extend(of_login(master, nodes));
    if !matches!(&master.told, Ok(told) if told.role == RoleReport::Master) {
        return findings;
    }
    findings.extend(of_replicas(nodes, remote, map));
    findings.extend(min_replicas(nodes, master));
    findings
}

fn of_master(
    master: &Node,
    remote: Option<&HostPort>,
    nodes: &Nodes,
    map: &AddressMap,
) -> Vec<Finding> {
    let subject = subject("master", master);
    if master.is_us {
        // Said where the Sentinel is looked at that names us.
        return Vec::new();
    }
    let mut findings = Vec::new();
    if let Some(sentinel) = remote.filter(|_| is_loopback(&master.reached)) {
        findings.push(
            Finding::fail(
                Code::MasterAddressLoopback,
                &subject,
                format!(
                    "Sentinel {sentinel} is another machine and announces a loopback address, which is this machine here"
                ),
            )
            .hint(format!(
                "monitor the master at an address that all machines reach, or say here where it is:\n{}",
                mapping(&master.announced)
            )),
        );
    }
    let told = match &master.told {
        Ok(told) => told,
        Err(error) => {
            findings.push(unreachable(
                Code::MasterUnreachable,
                subject,
                master,
                error,
                nodes,
                map,
            ));
            return findings;
        }
    };
    findings.push(match &told.role {
        RoleReport::Master => Finding::ok(
            Code::MasterOk,
            &subject,
            format!("says of itself that it is a master{}", way(master)),
        ),
        RoleReport::Replica => Finding::fail(
            Code::MasterIsReplica,
            &subject,
            "says of itself that it is a replica, so clients wait",
        )
        .hint(redis_cli(tls(nodes), &master.reached, &["ROLE"])),
        RoleReport::Loading => Finding::fail(
            Code::MasterLoading,
            &subject,
            "is loading its data, so clients wait",
        )
        .hint(redis_cli(
            tls(nodes),
            &master.reached,
            &["INFO", "persistence"],
        )),
        other => role_hidden(Code::MasterUnreachable, &subject, master, other, nodes),
    });
    findings.extend(login_ignored(subject, master));
    findings
}

/// Whether clients' connections could be logged in. What that user may do beyond is the application's business, so that a role which
/// it may not ask for is no fault.
fn of_login(master: &Node, nodes: &Nodes) -> Option<Finding> {
    let login = nodes.login.as_ref()?;
    let subject = subject("master", master);
    let user = login.user.as_deref().unwrap_or("default");
    let told = match &login.told {
        Ok(told) => told,
        Err(error) => {
            let message =
                format!("the login of [proxy.login], user \"{user}\", could not be tried: {error}");
            let ping = redis_cli(tls(nodes), &master.reached, &["PING"]);
            return Some(Finding::warn(Code::ClientLoginFailed, subject, message).hint(ping));
        }
    };
    let Some(why) = &told.refused_login else {
        return Some(Finding::ok(
            Code::ClientLoginOk,
            subject,
            format!("logs clients in as user \"{user}\" ([proxy.login])"),
        ));
    };
    let finding = Finding::fail(
        Code::ClientLoginFailed,
        subject,
        format!("refuses user \"{user}\" of [proxy.login], so every client is closed: {why}"),
    );
    Some(finding.hint(format!(
        "{}\nand if that is refused, too, as a user who may: {}",
        redis_cli(
            tls(nodes),
            &master.reached,
            &["--user", user, "--askpass", "PING"]
        ),
        redis_cli(tls(nodes), &master.reached, &["ACL", "GETUSER", user]),
    )))
}

fn of_replicas(nodes: &Nodes, remote: Option<&HostPort>, map: &AddressMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (seen, replica) in &nodes.replicas {
        findings.extend(of_replica(seen, replica, remote, nodes, map));
    }
    let connected = nodes.replicas.len();
    let master = nodes.master.as_ref().map(|master| &master.reached);
    let ask = || {
        master.map_or_else(String::new, |at| {
            redis_cli(tls(nodes), at, &["INFO", "replication"])
        })
    };
    if connected == 0 {
        findings.push(
            Finding::fail(
                Code::NoReplicas,
                format!("replicas of proxy \"{}\"", nodes.proxy),
                "none is connected to the master: there is nobody to fail over to",
            )
            .hint(ask()),
        );
    } else if let Some(known) = nodes
        .replicas_known
        .filter(|known| *known > connected as u64)
    {
        findings.push(
            Finding::warn(
                Code::ReplicaMissing,
                format!("replicas of proxy \"{}\"", nodes.proxy),
                format!("the Sentinels know {known}, and {connected} are connected to the master"),
            )
            .hint(ask()),
        );
    }
    findings
}

fn of_replica(
    seen: &ReplicaSeen,
    replica: &Node,
    remote: Option<&HostPort>,
    nodes: &Nodes,
    map: &AddressMap,
) -> Vec<Finding> {
    let subject = subject("replica", replica);
    let mut findings = Vec::new();
    if let Some(sentinel) = remote.filter(|_| is_loopback(&replica.reached)) {
        findings.push(
            Finding::fail(
                Code::ReplicaAddressLoopback,
                &subject,
                format!(
                    "is announced at a loopback address, and Sentinel {sentinel} is another machine: a failover to \
                     it would lead nowhere"
                ),
            )
            .hint(format!(
                "in the replica's redis.conf: replica-announce-ip ADDRESS; or say here where it is:\n{}",
                mapping(&replica.announced)
            )),
        );
    }
    let told = match &replica.told {
        Ok(told) => told,
        Err(error) => {
            findings.push(unreachable(
                Code::ReplicaUnreachable,
                subject,
                replica,
                error,
                nodes,
                map,
            ));
            return findings;
        }
    };
    if seen.lag > FAR_BEHIND {
        findings.push(
            Finding::warn(
                Code::ReplicaBehind,
                &subject,
                format!("is {} bytes behind: a failover to it loses them", seen.lag),
            )
            .hint(redis_cli(
                tls(nodes),
                &replica.reached,
                &["INFO", "replication"],
            )),
        );
    }
    findings.push(match &told.role {
        RoleReport::Replica => Finding::ok(
            Code::ReplicaOk,
            &subject,
            format!("{} bytes behind, can be reached{}", seen.lag, way(replica)),
        ),
        RoleReport::Loading => Finding::warn(Code::ReplicaBehind, &subject, "is loading its data")
            .hint(redis_cli(
                tls(nodes),
                &replica.reached,
                &["INFO", "persistence"],
            )),
        RoleReport::Master => Finding::fail(
            Code::ReplicaIsMaster,
            &subject,
            "says of itself that it is a master, and the master calls it its replica",
        )
        .hint(redis_cli(tls(nodes), &replica.reached, &["ROLE"])),
        other => role_hidden(Code::ReplicaUnreachable, &subject, replica, other, nodes),
    });
    findings.extend(login_ignored(subject, replica));
    findings
}

fn subject(what: &str, node: &Node) -> String {
    format!("{what} {}", node.announced)
}

/// Where an address of `[address_map]` leads.
fn way(node: &Node) -> String {
    if node.announced == node.reached {
        String::new()
    } else {
        format!(" (at {})", node.reached)
    }
}

fn mapping(announced: &HostPort) -> String {
    format!(
        "[address_map]\n\"{announced}\" = \"REACHABLE_HOST:{}\"",
        announced.port
    )
}

fn unreachable(
    code: Code,
    subject: String,
    node: &Node,
    error: &ClientError,
    nodes: &Nodes,
    map: &AddressMap,
) -> Finding {
    if let ClientError::Tls(_) = error {
        let code = match code {
            Code::MasterUnreachable => Code::MasterTlsFailed,
            _ => Code::ReplicaTlsFailed,
        };
        let message = format!("answers, but not as it has to{}: {error}", way(node));
        return Finding::fail(code, subject, message).hint(tls_client(&node.reached));
    }
    let ping = redis_cli(tls(nodes), &node.reached, &["PING"]);
    if let ClientError::Ended(_) = error {
        let more = error.suspicion("[proxy.upstream_tls]");
        let message = format!("cannot be asked{}: {error}{more}", way(node));
        return Finding::fail(code, subject, message).hint(ping);
    }
    let message = format!("cannot be reached from here{}: {error}", way(node));
    let hint = if map.reach(node.announced.clone()) == node.announced {
        format!(
            "{ping}\nif it is announced in a network of its own (NAT, containers), say here where it is:\n{}",
            mapping(&node.announced)
        )
    } else {
        format!("{ping}\n[address_map] leads there: is its entry right?")
    };
    Finding::fail(code, subject, message).hint(hint)
}

/// The login was refused, and the node answers without one.
fn login_ignored(subject: String, node: &Node) -> Option<Finding> {
    let told = node.told.as_ref().ok()?;
    let why = told.refused_login.as_ref()?;
    matches!(told.role, RoleReport::Master | RoleReport::Replica).then(|| {
        Finding::warn(
            Code::ProbeLoginIgnored,
            subject,
            format!("refuses the login of [proxy.probe] and answers without one: {why}"),
        )
        .hint("set the password there as well, or remove it from [proxy.probe]")
    })
}

/// It is there, and does not say what it is.
fn role_hidden(
    unreachable: Code,
    subject: &str,
    node: &Node,
    report: &RoleReport,
    nodes: &Nodes,
) -> Finding {
    let user = nodes.probe_user.as_deref().unwrap_or("default");
    let grant = || {
        let line = redis_cli(
            tls(nodes),
            &node.reached,
            &["ACL", "SETUSER", user, "+role"],
        );
        format!("{line}\nand the same in its redis.conf or ACL file, so that it outlives a restart")
    };
    match report {
        RoleReport::Refused(why) if why.starts_with("NOPERM") || nodes.has_login => Finding::fail(
            Code::ProbeRightMissing,
            subject,
            format!("user \"{user}\" may not ask for its role: {why}"),
        )
        .hint(grant()),
        RoleReport::Refused(why) => {
            let level = match nodes.verify {
                Verify::Auto => Level::Warn,
                Verify::Role => Level::Fail,
            };
            Finding::new(
                level,
                Code::ProbeLoginNeeded,
                subject,
                format!(
                    "tells its role only to those who log in, and no login is configured: {why}"
                ),
            )
            .hint("[proxy.probe]\npassword_file = \"/etc/switchmaster/probe_password\"")
        }
        RoleReport::LoginFailed(why) => Finding::fail(
            Code::ProbeLoginRefused,
            subject,
            format!("refuses the password of user \"{user}\" in [proxy.probe]: {why}"),
        )
        .hint(redis_cli(
            tls(nodes),
            &node.reached,
            &["--user", user, "--askpass", "ROLE"],
        )),
        RoleReport::Failed(why) => Finding::fail(
            unreachable,
            subject,
            format!("cannot be asked: {why}"),
        )
        .hint(redis_cli(tls(nodes), &node.reached, &["PING"])),
        other => Finding::fail(Code::NotADataNode, subject, other.to_string()).hint(redis_cli(
            tls(nodes),
            &node.reached,
            &["INFO", "server"],
        )),
    }
}

/// How they are met.
const fn tls(nodes: &Nodes) -> Option<&Connector> {
    nodes.tls.as_ref()
}

fn min_replicas(nodes: &Nodes, master: &Node) -> Option<Finding> {
    let subject = subject("master", master);
    let at = &master.reached;
    Some(match nodes.min_replicas.as_ref()? {
        Ok(0) => Finding::warn(
            Code::MinReplicasUnset,
            subject,
            "min-replicas-to-write is 0: a master that is cut off from its replicas goes on taking writes, which are \
             lost at the failover",
        )
        .hint(format!(
            "{}\n{}\n{}\n(then it refuses writes while no replica has acknowledged for 10 s; set it on the replicas, too)",
            redis_cli(tls(nodes), at, &["CONFIG", "SET", "min-replicas-to-write", "1"]),
            redis_cli(tls(nodes), at, &["CONFIG", "SET", "min-replicas-max-lag", "10"]),
            redis_cli(tls(nodes), at, &["CONFIG", "REWRITE"])
        )),
        Ok(count) => Finding::ok(
            Code::MinReplicasSet,
            subject,
            format!("min-replicas-to-write is {count}"),
        ),
        Err(error) => Finding::warn(
            Code::MinReplicasNotLookedAt,
            subject,
            format!("whether min-replicas-to-write is set could not be looked at: {error}"),
        )
        .hint(format!(
            "as a user who may: {}",
            redis_cli(tls(nodes), at, &["CONFIG", "GET", "min-replicas-to-write"])
        )),
    })
}
