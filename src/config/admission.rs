//! What an entry says of who may connect, where, and how many.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::Proxy;
use super::problem::{Problem, Source};
use super::resolve::MAX_NETWORKS;
use super::schema::Key;
use super::text::{group, listen_addr, network, socket_mode};
use super::value::{Listed, Values};
use crate::listener::{self, OVERFLOW_UID};
use crate::net::addr::ListenAddr;

/// Most addresses one entry listens on.
const MAX_LISTENERS: usize = 64;
/// Most users that one entry names.
const MAX_UIDS: usize = 1024;
/// Bounds of the count.
pub(super) const MAX_CONNECTIONS: RangeInclusive<usize> = 0..=10_000_000;

/// What an entry says of it, and `max_anywhere`, which `[limits]` says of all; `is_guarded` when clients have to prove who they are.
pub(super) fn listener(
    values: &mut Values<'_>,
    max_anywhere: usize,
    is_guarded: bool,
) -> listener::Config {
    let default = listener::Config::default();
    let (allow_from, is_open) = match values.list(Key::AllowFrom, MAX_NETWORKS, network) {
        Listed::Values(networks) => {
            let networks: Vec<_> = networks.into_iter().map(|(network, _)| network).collect();
            let is_open = !networks.is_empty();
            (networks, is_open)
        }
        Listed::Unwritten => (default.allow_from, false),
        // What was meant is unknown, so nothing can be said of what is missing.
        Listed::Refused => (Vec::new(), true),
    };
    let listen = match values.list(Key::Listen, MAX_LISTENERS, listen_addr) {
        Listed::Values(listed) if listed.is_empty() => {
            values.refuse(
                Key::Listen,
                "the list is empty",
                "write at least one address: [\"127.0.0.1:6379\"]",
            );
            Vec::new()
        }
        Listed::Values(listed) => {
            let remote = listed.iter().find(|(addr, _)| !addr.is_local());
            if let Some((ListenAddr::Tcp(addr), source)) = remote
                && !is_open
                && !is_guarded
            {
                values.push(needs_allow_from(*addr, source));
            }
            listed.into_iter().map(|(addr, _)| addr).collect()
        }
        Listed::Unwritten => default.listen,
        Listed::Refused => Vec::new(),
    };
    let proxy_protocol_from = match values.list(Key::ProxyProtocolFrom, MAX_NETWORKS, network) {
        Listed::Values(networks) => networks.into_iter().map(|(network, _)| network).collect(),
        Listed::Unwritten | Listed::Refused => default.proxy_protocol_from,
    };
    let allowed_uids = match values.numbers(Key::AllowedUids, MAX_UIDS, 0..=u32::MAX as usize) {
        Listed::Values(uids) => uids
            .into_iter()
            .filter_map(|(uid, source)| {
                let uid = u32::try_from(uid).ok()?;
                if uid == OVERFLOW_UID {
                    values.push(nobody(&source));
                }
                Some(uid)
            })
            .collect(),
        Listed::Unwritten | Listed::Refused => default.allowed_uids,
    };
    listener::Config {
        listen,
        allow_from,
        max_connections: values.count(
            Key::MaxConnections,
            MAX_CONNECTIONS,
            default.max_connections,
        ),
        max_per_source: values.count(Key::MaxPerSource, MAX_CONNECTIONS, default.max_per_source),
        max_anywhere,
        proxy_protocol_from,
        allowed_uids,
        socket_mode: values
            .parsed(Key::SocketMode, socket_mode)
            .unwrap_or(default.socket_mode),
        socket_group: values.parsed(Key::SocketGroup, group),
        tls: None,
    }
}

/// Whoever reaches a loopback listener through a balancer comes from somewhere else.
pub(super) fn lets_nobody_in(proxy: &Proxy) -> Option<String> {
    let nobody = !proxy.listener.proxy_protocol_from.is_empty() && !proxy.listener.is_guarded();
    nobody.then(|| {
        format!(
            "proxy.proxy_protocol_from of \"{}\": no client that a balancer names is let in, as `allow_from` names none; add their \
             networks, for example: allow_from = [\"10.0.0.0/8\"]",
            proxy.name
        )
    })
}

fn needs_allow_from(addr: SocketAddr, source: &Source) -> Problem {
    // The nearest network that could be meant, so that the line can be pasted as it is.
    let network = match addr.ip() {
        ip if ip.is_unspecified() => "10.0.0.0/8".to_owned(),
        IpAddr::V4(ip) => format!("{}/24", ipnet::Ipv4Net::new_assert(ip, 24).network()),
        IpAddr::V6(ip) => format!("{}/64", ipnet::Ipv6Net::new_assert(ip, 64).network()),
    };
    Problem::at(
        source,
        format!(
            "proxy.listen: {addr} can be reached from other machines, and `allow_from` does not say from which"
        ),
        format!(
            "Redis trusts this proxy, so everybody who reaches it reaches Redis. Add to the [[proxy]] entry:\n\
             allow_from = [\"{network}\"]\n\
             or set {}={network}\n\
             or demand certificates of clients: client_ca_file in [proxy.client_tls]",
            Key::AllowFrom.env()
        ),
    )
}

/// This one may be anybody.
fn nobody(source: &Source) -> Problem {
    Problem::at(
        source,
        format!(
            "proxy.allowed_uids: {OVERFLOW_UID} is no user: the kernel says it of all whom it does not know here"
        ),
        "name the users that may connect; a client in another user namespace has none",
    )
}
