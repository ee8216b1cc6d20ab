//! Asks Sentinels, masters and replicas, all at once where one answer does not depend on another, each within
//! [`PEER_LIMIT`].

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::facts::{Login, Node, NodeTold, Nodes, SentinelFacts, believed, views};
use super::host;
use crate::config::{Config, Loaded, Proxy};
use crate::net::addr::{HostPort, NodeAddr};
use crate::net::address_map::AddressMap;
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::net::tls::Connector;
use crate::sentinel::Credentials;
use crate::sentinel::client::inspect::{LIST_REPLICAS, Testimony};
use crate::sentinel::client::{ClientError, Dial, RoleLink, SentinelLink};
use crate::sentinel::event::CHANNELS;
use crate::topology::observation::{ReplicaSeen, RoleReport};

/// Longest with one peer, from dialling to its last answer. There are five rounds at most: Sentinels that are named,
/// those that they report, masters (with `[proxy.login]` once more), replicas.
const PEER_LIMIT: Duration = Duration::from_millis(1200);
/// Longest wait for a connection, whatever is configured: the doctor is in a hurry.
const CONNECT_LIMIT: Duration = Duration::from_millis(600);
/// Most Sentinels asked beyond those that are named.
const MAX_REPORTED: usize = 64;

/// What they said.
#[derive(Debug)]
pub(super) struct Answers {
    /// The masters asked about, each once.
    pub(super) masters: Vec<String>,
    pub(super) sentinels: Vec<SentinelFacts>,
    /// One for each `[[proxy]]` entry.
    pub(super) nodes: Vec<Nodes>,
    /// Where this proxy listens.
    pub(super) own: Vec<SocketAddr>,
}

pub(super) async fn ask(loaded: &Loaded) -> Answers {
    let config = &loaded.config;
    let masters = masters(config);
    let (resolver, tasks) = (Resolver::default(), TaskTracker::new());
    let dial = |limit: Duration, credentials: &Credentials, tls: &Option<Connector>| Dial {
        connect_timeout: limit.min(CONNECT_LIMIT),
        credentials: credentials.clone(),
        tls: tls.clone(),
        resolver: resolver.clone(),
        reserve: Reserve::default(),
        tasks: tasks.clone(),
    };
    let settings = &config.sentinel;
    let to_sentinels = dial(
        settings.connect_timeout,
        &settings.credentials,
        &settings.tls,
    );
    let questions = Questions {
        listed: masters_read_from(config),
        masters: masters.clone(),
    };
    let named = settings.addresses.iter().map(|addr| addr.0.clone());
    let mut sentinels = ask_sentinels(named.collect(), true, &to_sentinels, &questions).await;
    if settings.discover {
        let reported = reported(&sentinels, &settings.address_map);
        sentinels.extend(ask_sentinels(reported, false, &to_sentinels, &questions).await);
    }
    let map = &settings.address_map;
    let named: Vec<SocketAddr> = (0..masters.len())
        .filter_map(|index| map.reach(believed(&sentinels, index)?.0).socket_addr())
        .collect();
    let own = host::own_addresses(loaded, &named);
    let mut asking = JoinSet::new();
    for (order, proxy) in config.proxies.iter().enumerate() {
        // Each name is in the list that was made from these entries.
        let index = masters.iter().position(|name| *name == proxy.master);
        let index = index.unwrap_or_default();
        let nodes = Nodes {
            proxy: proxy.name.clone(),
            probe_user: proxy.probe.username.clone(),
            has_login: proxy.probe.password.is_some(),
            tls: proxy.upstream_tls.clone(),
            verify: config.rules.verify,
            master: None,
            login: None,
            min_replicas: None,
            replicas: Vec::new(),
            replicas_known: replicas_known(&sentinels, index),
        };
        let task = EntryTask {
            announced: believed(&sentinels, index).map(|(addr, _)| addr),
            dial: dial(
                proxy.session.connect_timeout,
                &proxy.probe,
                &proxy.upstream_tls,
            ),
            login: proxy.login.as_ref().map(|login| {
                let login = Credentials {
                    username: login.username.clone(),
                    password: Some(login.password.clone()),
                };
                dial(proxy.session.connect_timeout, &login, &proxy.upstream_tls)
            }),
            map: map.clone(),
            own: own.clone(),
        };
        asking.spawn(async move { (order, task.ask(nodes).await) });
    }
    Answers {
        masters,
        nodes: in_order(asking).await,
        sentinels,
        own,
    }
}

/// The masters' names, each once, in the order of the entries.
fn masters(config: &Config) -> Vec<String> {
    let mut masters: Vec<String> = Vec::new();
    for Proxy { master, .. } in &config.proxies {
        if !masters.contains(master) {
            masters.push(master.clone());
        }
    }
    masters
}

/// Those whose replicas clients are led to.
fn masters_read_from(config: &Config) -> Vec<String> {
    let proxies = config.proxies.iter();
    let read_from = proxies.filter(|proxy| proxy.leads_to_replicas);
    let masters: BTreeSet<_> = read_from.map(|proxy| proxy.master.clone()).collect();
    masters.into_iter().collect()
}

/// What every Sentinel is asked.
#[derive(Clone)]
struct Questions {
    masters: Vec<String>,
    /// Those of them whose replicas it has to list.
    listed: Vec<String>,
}

async fn ask_sentinels(
    addresses: Vec<HostPort>,
    listed: bool,
    dial: &Dial,
    questions: &Questions,
) -> Vec<SentinelFacts> {
    let mut asking = JoinSet::new();
    for (order, addr) in addresses.into_iter().enumerate() {
        let (dial, questions) = (dial.clone(), questions.clone());
        asking.spawn(async move {
            let told = in_time(testimony(&addr, &dial, &questions)).await;
            let facts = SentinelFacts { addr, listed, told };
            (order, facts)
        });
    }
    in_order(asking).await
}

async fn testimony(
    addr: &HostPort,
    dial: &Dial,
    questions: &Questions,
) -> Result<Testimony, ClientError> {
    let mut link = SentinelLink::open(addr, dial, CHANNELS).await?;
    let masters: Vec<&str> = questions.masters.iter().map(String::as_str).collect();
    let mut told = link.testify(&masters).await?;
    for master in &questions.listed {
        if !link.may_list_replicas(master).await? {
            told.refused.push(LIST_REPLICAS);
            break;
        }
    }
    Ok(told)
}

/// Sentinels that others know and nobody named.
fn reported(sentinels: &[SentinelFacts], map: &AddressMap) -> Vec<HostPort> {
    let told = || sentinels.iter().filter_map(|s| s.told.as_ref().ok());
    let ids: BTreeSet<_> = told().filter_map(|told| told.run_id.clone()).collect();
    let mut asked: BTreeSet<HostPort> = sentinels.iter().map(|s| s.addr.clone()).collect();
    // A name that was dialled is the same as the address behind it.
    asked.extend(told().map(|told| HostPort::from(told.peer)));
    let peers = told()
        .flat_map(|told| &told.masters)
        .filter_map(|master| master.peers.as_ref())
        .flatten()
        .filter(|peer| peer.run_id.as_ref().is_none_or(|id| !ids.contains(id)))
        .map(|peer| map.reach(peer.addr.0.clone()));
    let mut reported = Vec::new();
    for addr in peers {
        if reported.len() < MAX_REPORTED && asked.insert(addr.clone()) {
            reported.push(addr);
        }
    }
    reported
}

fn replicas_known(sentinels: &[SentinelFacts], index: usize) -> Option<u64> {
    views(sentinels, index)
        .filter_map(|(s, _)| s.told.as_ref().ok()?.masters.get(index)?.replicas)
        .max()
}

/// What is needed to ask the servers of one entry.
struct EntryTask {
    announced: Option<HostPort>,
    dial: Dial,
    /// With the login that clients' connections are given.
    login: Option<Dial>,
    map: AddressMap,
    own: Vec<SocketAddr>,
}

impl EntryTask {
    async fn ask(self, mut nodes: Nodes) -> Nodes {
        let Some(announced) = self.announced.clone() else {
            return nodes;
        };
        let (reached, is_us) = self.reach(&announced);
        if is_us {
            nodes.master = Some(Node::us(announced, reached));
            return nodes;
        }
        let asked = in_time(ask_master(&reached, &self.dial)).await;
        let told = asked.map(|(told, replicas, min_replicas)| {
            nodes.min_replicas = min_replicas;
            (told, replicas)
        });
        let (told, replicas) = match told {
            Ok((told, replicas)) => (Ok(told), replicas),
            Err(error) => (Err(error), Vec::new()),
        };
        if let Some(dial) = self.login.as_ref().filter(|_| told.is_ok()) {
            nodes.login = Some(Login {
                user: dial.credentials.username.clone(),
                told: in_time(ask_replica(&reached, dial)).await,
            });
        }
        nodes.master = Some(Node {
            announced,
            reached,
            is_us,
            told,
        });
        let mut asking = JoinSet::new();
        for (order, seen) in replicas.into_iter().enumerate() {
            let NodeAddr(announced) = seen.addr.clone();
            let (reached, is_us) = self.reach(&announced);
            let dial = self.dial.clone();
            asking.spawn(async move {
                let node = if is_us {
                    Node::us(announced, reached)
                } else {
                    let told = in_time(ask_replica(&reached, &dial)).await;
                    Node {
                        announced,
                        reached,
                        is_us,
                        told,
                    }
                };
                (order, (seen, node))
            });
        }
        nodes.replicas = in_order(asking).await;
        nodes
    }

    fn reach(&self, announced: &HostPort) -> (HostPort, bool) {
        let reached = self.map.reach(announced.clone());
        let addr = reached.socket_addr();
        let is_us = addr.is_some_and(|addr| self.own.contains(&addr));
        (reached, is_us)
    }
}

impl Node {
    /// Nobody was asked: it is this proxy.
    fn us(announced: HostPort, reached: HostPort) -> Self {
        Self {
            announced,
            reached,
            is_us: true,
            told: Err(ClientError::Io("that is this proxy itself".to_owned())),
        }
    }
}

type Master = (NodeTold, Vec<ReplicaSeen>, Option<Result<u64, ClientError>>);

async fn ask_master(addr: &HostPort, dial: &Dial) -> Result<Master, ClientError> {
    let mut link = RoleLink::open(addr, dial).await?;
    let told = told(&mut link).await;
    let replicas = link.replicas();
    let min_replicas = match told.role {
        RoleReport::Master => Some(link.min_replicas().await),
        _ => None,
    };
    Ok((told, replicas, min_replicas))
}

async fn ask_replica(addr: &HostPort, dial: &Dial) -> Result<NodeTold, ClientError> {
    let mut link = RoleLink::open(addr, dial).await?;
    Ok(told(&mut link).await)
}

async fn told(link: &mut RoleLink) -> NodeTold {
    NodeTold {
        role: link.role().await,
        refused_login: link.refused_login().map(str::to_owned),
    }
}

async fn in_time<T>(
    asking: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let late = |_| ClientError::Timeout {
        doing: "asking",
        limit: PEER_LIMIT,
    };
    timeout(PEER_LIMIT, asking).await.map_err(late)?
}

/// All that was asked, in the order it was asked in.
async fn in_order<T: 'static>(mut asking: JoinSet<(usize, T)>) -> Vec<T> {
    let mut answers = Vec::with_capacity(asking.len());
    while let Some(answer) = asking.join_next().await {
        // A task that panicked has said so; its peer is missing from the list.
        answers.extend(answer.ok());
    }
    answers.sort_by_key(|(order, _)| *order);
    answers.into_iter().map(|(_, answer)| answer).collect()
}
