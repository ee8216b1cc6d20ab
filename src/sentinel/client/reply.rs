//! What the redis crate hands over, read into our own words. Whatever a peer sends is either understood or refused with a
//! reason; none of it is trusted.

use std::fmt::Display;
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};

use super::RawEvent;
use crate::net::addr::{Host, HostPort, NodeAddr, SentinelAddr};
use crate::sentinel::Peer;
use crate::topology::Epoch;
use crate::topology::observation::{Listed, NoView, ReplicaSeen, RoleDetail, RunId, View};

/// Longest event looked at; longer ones are no events of Sentinel.
pub(super) const MAX_EVENT_BYTES: usize = 4096;
/// The flag of a master that a quorum calls down.
const OBJECTIVELY_DOWN: &str = "o_down";
/// The flag of a master to which the Sentinel has no connection.
const DISCONNECTED: &str = "disconnected";
/// The flag of an instance that does not answer this Sentinel.
const SUBJECTIVELY_DOWN: &str = "s_down";
/// How ROLE calls a replica's connection to its master when it is in order.
const CONNECTED: &str = "connected";
/// Most replicas of a master that are shown to people.
const MAX_SHOWN: usize = 64;
/// Longest text of a peer in one log line.
const MAX_PRINTED: usize = 200;

pub(super) fn pushed_event(push: &PushInfo) -> Option<RawEvent> {
    match (&push.kind, push.data.as_slice()) {
        (PushKind::Message, [Value::BulkString(channel), Value::BulkString(payload)]) => {
            raw_event(channel, payload)
        }
        _ => None,
    }
}

pub(super) fn raw_event(channel: &[u8], payload: &[u8]) -> Option<RawEvent> {
    if channel.len() + payload.len() > MAX_EVENT_BYTES {
        return None;
    }
    let read = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    Some(RawEvent {
        channel: read(channel)?,
        payload: read(payload)?,
    })
}

pub(super) fn read_view(details: &Value, address: &Value) -> Result<View, NoView> {
    let absurd = |why: &str| NoView::Absurd(why.to_owned());
    let field = |name: &str| field(details, name);
    let Value::Array(parts) = address else {
        return Err(absurd("the master's address is no list"));
    };
    let [host, port] = parts.as_slice() else {
        return Err(absurd("the master's address is not host and port"));
    };
    let (Some(host), Some(port)) = (text(host), text(port)) else {
        return Err(absurd("the master's address is no text"));
    };
    let number = |name: &str| field(name).and_then(|t| t.parse::<u64>().ok());
    let epoch = number("config-epoch").ok_or_else(|| absurd("there is no config-epoch"))?;
    let master = node_addr(&host, &port).map_err(NoView::Absurd)?;
    // In the middle of a failover the leader names the promoted replica, while its other fields still describe the
    // master that is left.
    let described =
        field("ip").as_deref() == Some(&*host) && field("port").as_deref() == Some(&*port);
    let flags = field("flags").unwrap_or_default();
    let flagged = |flag: &str| described && flags.split(',').any(|set| set == flag);
    // As Sentinel itself counts (`sentinelCheckSubjectivelyDown`): since the PING that has no answer yet, or, where it
    // has no connection to send one over, since the last answer.
    let since = |name: &str| number(name).filter(|millis| described && *millis > 0);
    let unanswered = since("last-ping-sent")
        .or_else(|| since("last-ok-ping-reply").filter(|_| flagged(DISCONNECTED)));
    Ok(View {
        master,
        epoch: Epoch(epoch),
        down_after: number("down-after-milliseconds").map(Duration::from_millis),
        quorum: number("quorum"),
        objectively_down: flagged(OBJECTIVELY_DOWN),
        unanswered: unanswered.map_or(Duration::ZERO, Duration::from_millis),
    })
}

/// The replicas in a master's answer to ROLE, for people.
pub(super) fn read_replicas(role: &[Value]) -> Vec<ReplicaSeen> {
    attached(role).take(MAX_SHOWN).collect()
}

/// The replicas in a master's answer to ROLE: `["master", offset, [[host, port, offset], ...]]`. What makes no sense is left out.
/// All of them: one that is missing here is not read from, and the length of the whole answer is bounded.
fn attached(role: &[Value]) -> impl Iterator<Item = ReplicaSeen> {
    let (offset, replicas) = match role {
        [_, offset, Value::Array(replicas)] => (Some(offset), replicas.as_slice()),
        _ => (None, &[][..]),
    };
    let number = |value: &Value| text(value)?.parse::<u64>().ok();
    let master = offset.and_then(number).unwrap_or_default();
    let read = move |replica: &Value| {
        let Value::Array(parts) = replica else {
            return None;
        };
        let [host, port, acknowledged] = parts.as_slice() else {
            return None;
        };
        Some(ReplicaSeen {
            addr: node_addr(&text(host)?, &text(port)?).ok()?,
            lag: master.saturating_sub(number(acknowledged)?),
        })
    };
    replicas.iter().filter_map(read)
}

/// What an answer to ROLE tells of replication: `["master", offset, ...]`, `["slave", host, port, state, offset]`.
pub(super) fn read_detail(parts: &[Value]) -> Option<RoleDetail> {
    match parts {
        [role, offset, ..] if text(role).as_deref() == Some("master") => {
            let attached = attached(parts).map(|of| of.addr);
            Some(RoleDetail::Master(
                text(offset)?.parse().ok()?,
                attached.collect(),
            ))
        }
        [_, host, port, state, offset] => {
            let master = node_addr(&text(host)?, &text(port)?).ok()?;
            // -1 while there is no connection.
            let offset = text(offset)?.parse().ok();
            let connected = text(state)? == CONNECTED;
            Some(RoleDetail::ReplicaOf(master, offset.filter(|_| connected)))
        }
        _ => None,
    }
}

/// A replica that a Sentinel lists, and whether it has a connection to it; `None` when one cannot dial it.
///
/// Not to have one is not to call it down: with each failover a Sentinel makes all it knows of replicas anew, and is connected to none
/// of them until its next turn. What the replica says itself is worth more than that.
pub(super) fn read_listed(value: &Value) -> Option<(Listed, bool)> {
    let (host, port) = (field(value, "ip")?, field(value, "port")?);
    let flags = field(value, "flags").unwrap_or_default();
    let flagged = |of: &str| flags.split(',').any(|flag| flag == of);
    let listed = Listed {
        addr: node_addr(&host, &port).ok()?,
        down: flagged(SUBJECTIVELY_DOWN) || flagged(OBJECTIVELY_DOWN),
    };
    Some((listed, !flagged(DISCONNECTED)))
}

pub(super) fn read_peer(value: &Value) -> Option<Peer> {
    let (host, port) = (field(value, "ip")?, field(value, "port")?);
    let addr = node_addr(&host, &port).ok()?;
    let run_id = field(value, "runid").and_then(|t| RunId::parse(&t));
    Some(Peer {
        addr: SentinelAddr(addr.0),
        run_id,
    })
}

/// An address a Sentinel gave, if one can dial it.
fn node_addr(host: &str, port: &str) -> Result<NodeAddr, String> {
    let bad = |e: &dyn Display| printable(&format!("{host} port {port}: {e}"));
    let host_name = Host::parse(host).map_err(|e| bad(&e))?;
    if host_name.is_unspecified() {
        return Err(bad(&"not an address one can connect to"));
    }
    let port_number = port.parse().map_err(|e| bad(&e))?;
    HostPort::new(host_name, port_number)
        .map(NodeAddr)
        .map_err(|e| bad(&e))
}

/// A field of a reply that is a map in RESP3 and a flat list in RESP2.
fn field(value: &Value, name: &str) -> Option<String> {
    let matches = |key: &Value| text(key).as_deref() == Some(name);
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .find(|(k, _)| matches(k))
            .and_then(|(_, v)| text(v)),
        Value::Array(list) => list
            .chunks_exact(2)
            .find(|pair| matches(&pair[0]))
            .and_then(|pair| text(&pair[1])),
        _ => None,
    }
}

/// A number among the fields of a reply.
pub(super) fn count(value: &Value, name: &str) -> Option<u64> {
    field(value, name)?.parse().ok()
}

pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(s) => Some(s.clone()),
        Value::Int(i) => Some(i.to_string()),
        // INFO in RESP3.
        Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// An error without what it repeats of the question: servers do that with commands they do not know, and the question may have
/// been a login.
pub(super) fn without_arguments(error: &str) -> &str {
    error
        .find("with args beginning with")
        .map_or(error, |repeated| {
            error[..repeated].trim_end_matches([',', ' '])
        })
}

/// What a peer sent, made fit for a log line: short, and without control characters.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().take(MAX_PRINTED).map(shown).collect()
}
