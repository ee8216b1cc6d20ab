//! What an entry says of who may connect, where, and how many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

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

/// What an entry says that is hardly meant.
pub(super) fn doubts(proxy: &Proxy) -> impl Iterator<Item = String> {
    let listener = &proxy.listener;
    let all = [
        lets_nobody_in(proxy),
        shuts_this_host_out(&format!("proxy.allow_from of \"{}\"", proxy.name), listener),
        for_unix_sockets(proxy),
    ];
    all.into_iter().flatten()
}

/// Only this host reaches a loopback address, and it is not named. Balancers there come in for their clients.
pub(super) fn shuts_this_host_out(whose: &str, listener: &listener::Config) -> Option<String> {
    if listener.allow_from.is_empty() || listener.proxy_protocol_from.iter().any(is_of_this_host) {
        return None;
    }
    let is_shut = |addr: &&ListenAddr| match addr {
        ListenAddr::Tcp(at) => {
            let ip = at.ip().to_canonical();
            let same_kind = |net: &&IpNet| net.addr().is_ipv4() == ip.is_ipv4();
            let mut of_kind = listener.allow_from.iter().filter(same_kind);
            ip.is_loopback() && !of_kind.any(is_of_this_host)
        }
        ListenAddr::Unix(_) | ListenAddr::Systemd(_) => false,
    };
    let addr = listener.listen.iter().find(is_shut)?;
    Some(format!(
        "{whose} names no loopback address, and {addr} can be reached from this host alone: nobody can connect there. Add \
         \"127.0.0.0/8\" (\"::1\" for IPv6), or take allow_from out where every address is loopback"
    ))
}

fn is_of_this_host(net: &IpNet) -> bool {
    net.addr().is_loopback()
        || net.contains(&IpAddr::from(Ipv4Addr::LOCALHOST))
        || net.contains(&IpAddr::from(Ipv6Addr::LOCALHOST))
}

/// Keys for sockets that it does not have. What systemd passes may be one.
fn for_unix_sockets(proxy: &Proxy) -> Option<String> {
    let listener = &proxy.listener;
    let listens = |is_it: fn(&ListenAddr) -> bool| listener.listen.iter().any(is_it);
    let makes_a_file = listens(|addr| matches!(addr, ListenAddr::Unix(_)));
    let may_be_passed = listens(|addr| matches!(addr, ListenAddr::Systemd(_)));
    let default = listener::Config::default();
    let said = [
        (
            "allowed_uids",
            !listener.allowed_uids.is_empty() && !may_be_passed,
        ),
        ("socket_mode", listener.socket_mode != default.socket_mode),
        ("socket_group", listener.socket_group.is_some()),
    ];
    let said: Vec<_> = said
        .iter()
        .filter(|(_, said)| *said)
        .map(|(key, _)| *key)
        .collect();
    (!makes_a_file && !said.is_empty()).then(|| {
        let does = if said.len() == 1 { "does nothing: it is" } else { "do nothing: they are" };
        format!(
            "proxy.{} of \"{}\" {does} for unix sockets, and `listen` names none (\"unix:/run/switchmaster/redis.sock\")",
            said.join(" and proxy."),
            proxy.name
        )
    })
}

/// Whoever reaches a loopback listener through a balancer comes from somewhere else.
fn lets_nobody_in(proxy: &Proxy) -> Option<String> {
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
