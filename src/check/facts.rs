//! What was seen, not yet judged. Gathered by [`super::host`] and [`super::ask`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::admin::Certificate;
use crate::listener::BindError;
use crate::net::addr::{HostPort, ListenAddr};
use crate::net::tls::Connector;
use crate::sentinel::client::ClientError;
use crate::sentinel::client::inspect::Testimony;
use crate::topology::Epoch;
use crate::topology::observation::{ReplicaSeen, RoleReport};
use crate::topology::rules::Verify;

/// This host.
#[derive(Debug)]
pub(super) struct Host {
    /// What the configuration warns of.
    pub(super) warnings: Vec<String>,
    /// Sentinels named.
    pub(super) sentinels: usize,
    /// `[[proxy]]` entries.
    pub(super) proxies: usize,
    /// The hard limit of open files; the proxy raises its soft one to that. `None` is no limit.
    pub(super) open_files: Option<u64>,
    /// The first and the last port that a connection to a master may come from; `None` is not known.
    pub(super) port_range: Option<(u16, u16)>,
    /// Where is to be listened.
    pub(super) doors: Vec<Door>,
    /// The proxy that answers at the admin endpoint.
    pub(super) running: Option<Running>,
    /// Files of secrets that root reads and the service's user does not, each with what it holds. Only root can see that.
    pub(super) only_roots: Vec<(&'static str, PathBuf)>,
    /// Certificates of our own.
    pub(super) certificates: Vec<Certificate>,
    /// Since the Unix epoch.
    pub(super) now: Duration,
}

/// An address to listen on.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) addr: ListenAddr,
    pub(super) of: DoorOf,
    /// Whether it could be bound now.
    pub(super) bind: Result<(), BindError>,
}

/// Whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DoorOf {
    Clients,
    /// The admin endpoint, written down by the operator: the process does not start without it.
    AdminRequired,
    /// The admin endpoint at its default address: the process goes without.
    Admin,
}

/// A proxy that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    /// Where its clients connect.
    pub(super) listen: Vec<String>,
    /// What it says of each of its entries.
    pub(super) headlines: Vec<String>,
    /// Its control loop turns (`/livez`).
    pub(super) live: bool,
}

/// A Sentinel that was asked.
#[derive(Clone, Debug)]
pub(super) struct SentinelFacts {
    /// Where it was dialled.
    pub(super) addr: HostPort,
    /// The operator named it; else others reported it.
    pub(super) listed: bool,
    pub(super) told: Result<Testimony, ClientError>,
}

/// One `[[proxy]]` entry's servers.
#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// The entry's name.
    pub(super) proxy: String,
    /// The user of the probe login; `None` is the default user.
    pub(super) probe_user: Option<String>,
    /// A probe login is configured.
    pub(super) has_login: bool,
    /// How its servers are met; `None` is without TLS.
    pub(super) tls: Option<Connector>,
    pub(super) verify: Verify,
    /// The master that is believed in; `None` where no Sentinel names one.
    pub(super) master: Option<Node>,
    /// What it makes of the login of `[proxy.login]`; `None` where there is none, or it was not asked.
    pub(super) login: Option<Login>,
    /// Its `min-replicas-to-write`; `None` where it was not asked.
    pub(super) min_replicas: Option<Result<u64, ClientError>>,
    /// The replicas that it tells of, and their lag.
    pub(super) replicas: Vec<(ReplicaSeen, Node)>,
    /// How many replicas the Sentinels know.
    pub(super) replicas_known: Option<u64>,
}

/// A login for clients' connections that was tried.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The user; `None` is the default user.
    pub(super) user: Option<String>,
    /// What was told to somebody who had logged in with it, if that went well.
    pub(super) told: Result<NodeTold, ClientError>,
}

/// A data node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its address in the Sentinels' (or its master's) words.
    pub(super) announced: HostPort,
    /// Where that is reached from here (`[address_map]`).
    pub(super) reached: HostPort,
    /// That is one of our own listeners, so it was not dialled.
    pub(super) is_us: bool,
    pub(super) told: Result<NodeTold, ClientError>,
}

/// What a data node told.
#[derive(Clone, Debug)]
pub(super) struct NodeTold {
    pub(super) role: RoleReport,
    /// Its words, where it refused the configured login and was then asked without one.
    pub(super) refused_login: Option<String>,
}

/// The master to believe in: the highest config-epoch, and among equals the most Sentinels.
pub(super) fn believed(sentinels: &[SentinelFacts], master: usize) -> Option<(HostPort, Epoch)> {
    let mut claims: Vec<(Epoch, HostPort, usize)> = Vec::new();
    for view in views(sentinels, master) {
        let claim = (view.1.epoch, view.1.master.0.clone());
        match claims
            .iter_mut()
            .find(|c| (c.0, &c.1) == (claim.0, &claim.1))
        {
            Some(claim) => claim.2 += 1,
            None => claims.push((claim.0, claim.1, 1)),
        }
    }
    let best = claims
        .into_iter()
        .max_by_key(|(epoch, _, votes)| (*epoch, *votes))?;
    Some((best.1, best.0))
}

/// Who has a view of this master, and which.
pub(super) fn views(
    sentinels: &[SentinelFacts],
    master: usize,
) -> impl Iterator<Item = (&SentinelFacts, &crate::topology::observation::View)> {
    sentinels.iter().filter_map(move |sentinel| {
        let told = sentinel.told.as_ref().ok()?.masters.get(master)?;
        match &told.view {
            Some(Ok(view)) => Some((sentinel, view)),
            _ => None,
        }
    })
}

/// Loopback as far as that shows without looking a name up.
pub(super) fn is_loopback(addr: &HostPort) -> bool {
    match &addr.host {
        crate::net::addr::Host::Ip(ip) => ip.is_loopback(),
        crate::net::addr::Host::Name(name) => name == "localhost",
    }
}

/// A Sentinel of another machine.
pub(super) fn is_remote(peer: SocketAddr) -> bool {
    !peer.ip().to_canonical().is_loopback()
}
