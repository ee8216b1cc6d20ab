//! Looks at this host, and changes nothing. Blocks for a moment: not for a runtime's thread.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, geteuid, getrlimit};

use super::facts::{Door, DoorOf, Host, Running};
use crate::admin::status::Status;
use crate::config::Loaded;
use crate::listener;
use crate::net::addr::ListenAddr;
use crate::status::fetch;

/// Longest wait for one answer of a proxy that runs here.
const ANSWER_LIMIT: Duration = Duration::from_millis(400);
/// Where Linux says which ports connections come from.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

pub(super) fn look(loaded: &Loaded) -> Host {
    let config = &loaded.config;
    let clients = config
        .proxies
        .iter()
        .flat_map(|proxy| &proxy.listener.listen);
    let admin = &config.admin;
    let admin_door = if admin.is_required() {
        DoorOf::AdminRequired
    } else {
        DoorOf::Admin
    };
    let doors = clients
        .map(|addr| (addr, DoorOf::Clients))
        .chain(admin.listener.listen.iter().map(|addr| (addr, admin_door)))
        .map(|(addr, of)| Door {
            addr: addr.clone(),
            of,
            bind: listener::could_bind(addr),
        })
        .collect();
    Host {
        warnings: loaded.warnings.clone(),
        sentinels: config.sentinel.addresses.len(),
        proxies: config.proxies.len(),
        open_files: getrlimit(Resource::Nofile).maximum,
        port_range: fs::read_to_string(PORT_RANGE)
            .ok()
            .and_then(|text| port_range(&text)),
        doors,
        running: admin.listener.listen.first().and_then(running),
        only_roots: only_roots(loaded),
        certificates: config.certificates(),
        now: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    }
}

/// Whoever looks as another user than root has been told already what that one cannot read.
fn only_roots(loaded: &Loaded) -> Vec<(&'static str, PathBuf)> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let mut files = loaded.secret_files();
    files.retain(|(_, path)| {
        let found = fs::metadata(path);
        found.is_ok_and(|found| is_only_roots((found.uid(), found.gid()), found.mode()))
    });
    files
}

/// Of a file of root's, its group is root's, too, or may not read it.
fn is_only_roots((uid, gid): (u32, u32), mode: u32) -> bool {
    let group_reads = gid != 0 && mode & 0o040 != 0;
    uid == 0 && !group_reads && mode & 0o004 == 0
}

/// Where this proxy would be talking to itself.
pub(super) fn own_addresses(loaded: &Loaded, named: &[SocketAddr]) -> Vec<SocketAddr> {
    let listens = loaded
        .config
        .proxies
        .iter()
        .flat_map(|p| &p.listener.listen);
    let mut own = Vec::new();
    for listen in listens {
        let ListenAddr::Tcp(listen) = listen else {
            continue;
        };
        own.push(*listen);
        if listen.ip().is_unspecified() {
            let local = named
                .iter()
                .filter(|addr| addr.port() == listen.port() && is_local(addr));
            own.extend(local);
        }
    }
    own
}

/// An address of this host is one that can be bound.
fn is_local(addr: &SocketAddr) -> bool {
    UdpSocket::bind((addr.ip(), 0)).is_ok()
}

/// The proxy that runs here, as far as its admin endpoint tells.
fn running(endpoint: &ListenAddr) -> Option<Running> {
    let answer = fetch::get(endpoint, "/status", ANSWER_LIMIT).ok()?;
    let status: Status = serde_json::from_str(&answer.text).ok()?;
    let live = fetch::get(endpoint, "/livez", ANSWER_LIMIT);
    let proxies = status.proxies.iter();
    Some(Running {
        pid: status.pid,
        listen: proxies.clone().flat_map(|p| p.listen.clone()).collect(),
        headlines: proxies.map(|p| p.headline.clone()).collect(),
        live: live.is_ok_and(|answer| answer.is_good()),
    })
}

fn port_range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some((first, last)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_secret_a_file_is() {
        for (owner, mode, is_roots) in [
            ((0, 0), 0o100_600, true),
            ((0, 0), 0o100_640, true),
            ((0, 103), 0o100_600, true),
            ((0, 103), 0o100_640, false),
            ((0, 0), 0o100_644, false),
            ((998, 0), 0o100_600, false),
        ] {
            assert_eq!(is_only_roots(owner, mode), is_roots, "{owner:?} {mode:o}");
        }
    }

    #[test]
    fn the_port_range_is_read_as_the_kernel_writes_it() {
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        assert_eq!(port_range("a b"), None);
        assert_eq!(port_range(""), None);
    }
}
