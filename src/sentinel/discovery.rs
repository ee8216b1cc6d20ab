//! Which Sentinels are followed: those the operator named, and (`discover = true`) those that they report. Each is a
//! voter. Discovered ones are kept in memory only.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::client::Dial;
use super::watcher::{Found, Heard, Subscriber, Watcher};
use super::{Config, Peer};
use crate::net::addr::SentinelAddr;
use crate::net::address_map::AddressMap;
use crate::net::clock::{Moment, now};
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::telemetry::Often;
use crate::topology::observation::{Observation, RunId, Said};

/// Most Sentinels followed: more are a mistake or an attack.
const MAX_SENTINELS: usize = 64;
/// Reports waiting to be looked at.
const MAX_REPORTS: usize = 64;
/// A discovered Sentinel that nobody has reported and that has not answered for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Lines of one name that are written at once; then one a second.
const TOLD_AT_ONCE: u32 = 20;
/// Changes waiting to be taken over; they are made one at a time.
const MAX_CHANGES: usize = 4;
/// Longest wait for a Sentinel to answer over its new link before the next one gets a new link, too.
const RENEW_LIMIT: Duration = Duration::from_secs(2);
/// Longest that a Sentinel which is named no more is heard on, while most of those that are named have not answered yet.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);
/// At a change, a discovered Sentinel that nobody has reported for so long is forgotten: each is reported every 30 s.
const SILENT_AFTER: Duration = Duration::from_secs(90);
/// How often that is looked at.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);

/// Tells every watcher to ask now.
#[derive(Clone, Debug)]
pub struct Asker(Arc<watch::Sender<u64>>);

impl Asker {
    /// Asks every Sentinel; doubts that come closely share a question.
    pub fn ask_all(&self) {
        self.0.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// What is followed from now on, and for whom.
#[derive(Clone, Debug)]
pub struct Change {
    /// The `[sentinel]` section.
    pub config: Config,
    /// All of them; those that are gone are missing.
    pub subscribers: Vec<Subscriber>,
}

/// Where changes are told.
pub type Changes = mpsc::Sender<Change>;

/// Starts to follow the Sentinels for these subscribers, until `end`.
pub fn follow(
    config: &Config,
    subscribers: Vec<Subscriber>,
    resolver: &Resolver,
    reserve: &Reserve,
    tasks: &TaskTracker,
    end: &CancellationToken,
) -> (Asker, Changes) {
    let (changes_to, changes) = mpsc::channel(MAX_CHANGES);
    let (ask, _) = watch::channel(0);
    let asker = Asker(Arc::new(ask));
    let (found, reports) = mpsc::channel(MAX_REPORTS);
    let flock = Flock {
        config: config.clone(),
        resolver: resolver.clone(),
        reserve: reserve.for_sentinels(),
        address_map: Arc::new(config.address_map.clone()),
        subscribers: subscribers.into(),
        tasks: tasks.clone(),
        end: end.clone(),
        asker: asker.clone(),
        found,
        followed: BTreeMap::new(),
        watchers: JoinSet::new(),
        told_full: false,
        often: Often::after(TOLD_AT_ONCE),
        to_renew: VecDeque::new(),
        renewing: None,
        leaving: None,
    };
    tasks.spawn(flock.run(reports, changes));
    (asker, changes_to)
}

struct Flock {
    config: Config,
    resolver: Resolver,
    reserve: Reserve,
    address_map: Arc<AddressMap>,
    subscribers: Arc<[Subscriber]>,
    tasks: TaskTracker,
    end: CancellationToken,
    asker: Asker,
    found: mpsc::Sender<Found>,
    followed: BTreeMap<SentinelAddr, Followed>,
    watchers: JoinSet<()>,
    told_full: bool,
    often: Often,
    /// Those that are to get a new link, one after the other.
    to_renew: VecDeque<SentinelAddr>,
    /// The one that is getting it.
    renewing: Option<Renewal>,
    /// Those that are named no more, and until when they are heard on at the latest.
    leaving: Option<(Vec<SentinelAddr>, Instant)>,
}

/// A Sentinel that gets a new link. It is heard over the old one until the new one is there: a failover may be announced just then.
struct Renewal {
    addr: SentinelAddr,
    /// Until when the new one is waited for.
    until: Instant,
    /// Ends the old one with this value.
    _old: DropGuard,
}

struct Followed {
    configured: bool,
    run_id: Option<RunId>,
    heard_of: Moment,
    answered: bool,
    end: CancellationToken,
    task: Id,
}

impl Flock {
    async fn run(
        mut self,
        mut reports: mpsc::Receiver<Found>,
        mut changes: mpsc::Receiver<Change>,
    ) {
        for addr in self.config.addresses.clone() {
            self.start(addr, None, true).await;
        }
        let mut forget = tokio::time::interval(FORGET_EVERY);
        loop {
            let late = self.renewing.as_ref().map(|renewal| renewal.until);
            let leave = self.leaving.as_ref().map(|(_, until)| *until);
            let report = tokio::select! {
                () = self.end.cancelled() => return,
                Some(change) = changes.recv() => {
                    self.change(change).await;
                    continue;
                }
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    self.renew_next();
                    continue;
                }
                () = sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => {
                    self.leave().await;
                    continue;
                }
                _ = forget.tick() => {
                    self.forget_silent().await;
                    continue;
                }
                Some(ended) = self.watchers.join_next_with_id() => {
                    self.watcher_ended(ended.map_or_else(|e| e.id(), |(id, ())| id));
                    continue;
                }
                report = reports.recv() => report,
            };
            match report {
                Some(Found {
                    by,
                    heard: Heard::Itself(run_id),
                }) => {
                    self.identify(&by, run_id).await;
                    if self.renewing.as_ref().is_some_and(|r| r.addr == by) {
                        self.renew_next();
                    }
                }
                Some(Found {
                    by,
                    heard: Heard::Others(peers),
                }) => self.take_report(&by, peers).await,
                Some(Found {
                    by,
                    heard: Heard::Masters,
                }) => {
                    if let Some(this) = self.followed.get_mut(&by) {
                        this.answered = true;
                    }
                    self.leave_if_followed().await;
                }
                None => return,
            }
        }
    }

    async fn start(&mut self, addr: SentinelAddr, run_id: Option<RunId>, configured: bool) {
        if self.followed.contains_key(&addr) {
            return;
        }
        if self.followed.len() >= MAX_SENTINELS {
            if !std::mem::replace(&mut self.told_full, true) {
                warn!(
                    event = "too_many_sentinels",
                    most = MAX_SENTINELS,
                    "no more Sentinels are followed; SENTINEL RESET removes dead ones"
                );
            }
            return;
        }
        let end = self.end.child_token();
        self.tell_all(&addr, Said::Followed(run_id.clone())).await;
        let task = self.watch(&addr, &end);
        let followed = Followed {
            configured,
            run_id,
            heard_of: now(),
            answered: false,
            end,
            task,
        };
        if !configured && self.often.allow("sentinel_discovered", "") {
            info!(event = "sentinel_discovered", sentinel = %addr, "another Sentinel is followed");
        }
        self.followed.insert(addr, followed);
    }

    fn watch(&mut self, addr: &SentinelAddr, end: &CancellationToken) -> Id {
        let watcher = Watcher {
            addr: addr.clone(),
            dial: Dial {
                connect_timeout: self.config.connect_timeout,
                credentials: self.config.credentials.clone(),
                tls: self.config.tls.clone(),
                resolver: self.resolver.clone(),
                reserve: self.reserve.clone(),
                tasks: self.tasks.clone(),
            },
            poll_interval: self.config.poll_interval,
            pace: self.config.poll_interval,
            address_map: Arc::clone(&self.address_map),
            subscribers: Arc::clone(&self.subscribers),
            ask: self.asker.0.subscribe(),
            found: self.found.clone(),
            list: Arc::default(),
            end: end.clone(),
        };
        self.watchers.spawn(watcher.run()).id()
    }

    /// A watcher that ends without having been told to has met a defect: the Sentinel is followed anew.
    fn watcher_ended(&mut self, id: Id) {
        let ended = self
            .followed
            .iter()
            .find(|(_, f)| f.task == id && !f.end.is_cancelled());
        let Some((addr, end)) = ended.map(|(addr, f)| (addr.clone(), f.end.clone())) else {
            return;
        };
        if self.often.allow("watcher_lost", &addr.to_string()) {
            error!(event = "watcher_lost", sentinel = %addr, "a defect ended the task that follows this Sentinel; it is started again");
        }
        let task = self.watch(&addr, &end);
        if let Some(followed) = self.followed.get_mut(&addr) {
            followed.task = task;
        }
    }
    /// A Sentinel has told its run id: one that was discovered under another address is then followed twice.
    async fn identify(&mut self, by: &SentinelAddr, run_id: Option<RunId>) {
        let Some(this) = self.followed.get_mut(by) else {
            return;
        };
        this.heard_of = now();
        let Some(run_id) = run_id else { return };
        this.run_id = Some(run_id.clone());
        let twin = self
            .followed
            .iter()
            .find(|(addr, f)| *addr != by && !f.configured && f.run_id.as_ref() == Some(&run_id));
        if let Some(twin) = twin.map(|(addr, _)| addr.clone()) {
            debug!(event = "sentinel_known", sentinel = %twin, same_as = %by, "the same Sentinel by another address");
            self.stop(&twin).await;
        }
    }

    async fn take_report(&mut self, by: &SentinelAddr, peers: Vec<Peer>) {
        if let Some(this) = self.followed.get_mut(by) {
            this.heard_of = now();
        }
        if !self.config.discover {
            return;
        }
        for Peer { addr, run_id } in peers {
            let known = self
                .followed
                .iter_mut()
                .find(|(a, f)| **a == addr || run_id.is_some() && f.run_id == run_id);
            if let Some((at, known)) = known {
                known.heard_of = now();
                // Named no more, and discovered at once: it would be missed until the next report.
                if let Some((gone, _)) = &mut self.leaving
                    && !gone.contains(by)
                    && gone.contains(at)
                {
                    known.configured = false;
                    gone.retain(|addr| addr != at);
                    self.to_renew.push_back(at.clone());
                }
            } else {
                self.start(addr, run_id, false).await;
            }
        }
        if self.renewing.is_none() {
            self.renew_next();
        }
    }

    /// Takes over what the operator has changed. Every link that has to be another is made anew, one after the other: meanwhile
    /// all the others watch, and the master in force stays in force.
    async fn change(&mut self, change: Change) {
        let Change {
            config,
            subscribers,
        } = change;
        let old = std::mem::replace(&mut self.config, config);
        let same_links = old.credentials == self.config.credentials
            && old.tls == self.config.tls
            && old.connect_timeout == self.config.connect_timeout
            && old.poll_interval == self.config.poll_interval
            && old.address_map == self.config.address_map
            && Subscriber::same(&self.subscribers, &subscribers);
        self.address_map = Arc::new(self.config.address_map.clone());
        self.subscribers = subscribers.into();
        self.told_full = false;
        let gone: Vec<_> = self
            .followed
            .iter()
            .filter(|(addr, f)| {
                let silent = now().since(f.heard_of) > SILENT_AFTER;
                !self.config.addresses.contains(addr)
                    && (f.configured || !self.config.discover || silent)
            })
            .map(|(addr, _)| addr.clone())
            .collect();
        // Whoever is new among the subscribers has to know who votes before it hears the first answer.
        let stays = self
            .followed
            .iter()
            .filter(|(addr, _)| !gone.contains(addr));
        for (addr, followed) in stays {
            let said = Said::Followed(followed.run_id.clone());
            self.tell_all(addr, said).await;
        }
        self.renewing = None;
        self.to_renew.clear();
        if !same_links {
            let stays = self.followed.keys().filter(|addr| !gone.contains(addr));
            self.to_renew.extend(stays.cloned());
        }
        let most = self.followed.len() + self.config.addresses.len();
        self.leaving = Some((gone, Instant::now() + LEAVE_LIMIT));
        if most > MAX_SENTINELS {
            self.leave().await;
        }
        for addr in self.config.addresses.clone() {
            if let Some(followed) = self.followed.get_mut(&addr) {
                followed.configured = true;
            } else {
                self.start(addr, None, true).await;
            }
        }
        self.leave_if_followed().await;
        self.renew_next();
    }

    /// Forgets those that are named no more once most of those that are have answered: until then nobody else would be heard.
    async fn leave_if_followed(&mut self) {
        let named = &self.config.addresses;
        let answered = |addr: &&SentinelAddr| self.followed.get(addr).is_some_and(|f| f.answered);
        if named.iter().filter(answered).count() * 2 > named.len() {
            self.leave().await;
        }
    }

    async fn leave(&mut self) {
        for addr in self
            .leaving
            .take()
            .map(|(gone, _)| gone)
            .unwrap_or_default()
        {
            info!(event = "sentinel_forgotten", sentinel = %addr, "no longer followed");
            self.stop(&addr).await;
        }
    }

    /// Makes the next link anew.
    fn renew_next(&mut self) {
        self.renewing = None;
        while let Some(addr) = self.to_renew.pop_front() {
            let Some(followed) = self.followed.get_mut(&addr) else {
                continue;
            };
            let end = self.end.child_token();
            let old = std::mem::replace(&mut followed.end, end.clone());
            let task = self.watch(&addr, &end);
            if let Some(followed) = self.followed.get_mut(&addr) {
                followed.task = task;
            }
            self.renewing = Some(Renewal {
                addr,
                until: Instant::now() + RENEW_LIMIT,
                _old: old.drop_guard(),
            });
            return;
        }
    }

    async fn forget_silent(&mut self) {
        let silent = |f: &Followed| !f.configured && now().since(f.heard_of) > FORGET_AFTER;
        let gone: Vec<_> = self
            .followed
            .iter()
            .filter(|(_, f)| silent(f))
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in gone {
            info!(event = "sentinel_forgotten", sentinel = %addr, "not heard of for a day");
            self.stop(&addr).await;
        }
    }

    async fn stop(&mut self, addr: &SentinelAddr) {
        if let Some(followed) = self.followed.remove(addr) {
            followed.end.cancel();
            self.tell_all(addr, Said::Forgotten).await;
        }
    }

    async fn tell_all(&self, addr: &SentinelAddr, said: Said) {
        for subscriber in self.subscribers.iter() {
            let observation = Observation {
                sentinel: addr.clone(),
                said: said.clone(),
            };
            let _ = subscriber.observations.send(observation).await;
        }
    }
}
