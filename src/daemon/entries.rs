//! The `[[proxy]]` entries that run: each is started the same way, at the start of the process and by a reload, and each can go.
//!
//! ```text
//! Running:  listeners and houses (worker::Reins) <- State - control task <- Observations - Sentinels (discovery::Changes)
//! ```

use std::io;
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::known::Known;
use super::readers::{self, Readers};
use super::settings::{leases, own_addresses, settings};
use super::takeover::Following;
use super::{ExitError, report};
use crate::admin::{self, Histograms, Roster};
use crate::config::{Config, Proxy};
use crate::control::ledger::{Book, Ledger, Pulse};
use crate::control::steward::Heritage;
use crate::control::{self, PulseReader, Settings};
use crate::listener::Bound;
use crate::net::address_map::AddressMap;
use crate::net::clock::At;
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::sentinel::discovery::{self, Asker, Change, Changes};
use crate::sentinel::watcher::Subscriber;
use crate::topology::State;
use crate::topology::observation::Observation;
use crate::topology::publish::{self, Publisher, Reader, Subscription};
use crate::topology::rules::Rules;
use crate::worker::{self, Counting, Pool, Reins, Stuck};

/// Longest wait for those who follow the Sentinels to take a change; they do little else.
const CHANGE_LIMIT: Duration = Duration::from_secs(2);
/// Entries whose sessions have all ended, waiting to be taken off the books.
const MAX_LEFT: usize = 16;

/// A listener that is about to be served: what is held of it, and what the workers get. What is held is its double: the socket can
/// be handed to another entry, or another process, without a moment in which nobody listens.
#[derive(Debug)]
pub(super) struct WayIn {
    pub(super) held: Bound,
    pub(super) served: Bound,
}

impl WayIn {
    pub(super) fn new(held: Bound) -> io::Result<Self> {
        let served = held.double()?;
        Ok(Self { held, served })
    }
}

/// One entry that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) number: usize,
    name: String,
    master: String,
    leases: bool,
    pub(super) held: Vec<Bound>,
    settings: watch::Sender<Settings>,
    observations: mpsc::Sender<Observation>,
    /// Of an entry that leads to replicas: what is seen of those.
    replicas: Option<mpsc::Sender<Observation>>,
    look: Arc<admin::Entry>,
    end: CancellationToken,
}

impl Running {
    /// Entries are known by name and master: their places change.
    pub(super) fn is_of(&self, proxy: &Proxy) -> bool {
        self.name == proxy.name
            && self.master == proxy.master
            && self.replicas.is_some() == proxy.leads_to_replicas
    }
}

/// What is needed beside the configuration to start one.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    resolver: Resolver,
    reserve: Reserve,
    histograms: Histograms,
    /// What is recorded is kept until somebody looks.
    watched: bool,
    tasks: TaskTracker,
    end: CancellationToken,
}

/// All entries that run, and those that are on their way out.
pub(super) struct Entries {
    shared: Shared,
    address_map: Arc<AddressMap>,
    reins: Reins,
    asker: Asker,
    changes: Changes,
    pub(super) roster: Roster,
    pub(super) running: Vec<Running>,
    leaving: Vec<Running>,
    left: (mpsc::Sender<usize>, mpsc::Receiver<usize>),
    /// None ends before it is told to; without it nobody extends the fence word and nothing is forwarded.
    controls: JoinSet<usize>,
    next: usize,
}

/// The ends of one entry's channels that somebody has to be given.
struct Loose {
    name: Arc<str>,
    reader: Reader,
    publisher: Publisher,
    subscriptions: Vec<Subscription>,
    seen: mpsc::Sender<Observation>,
    observations: mpsc::Receiver<Observation>,
    readers: Option<Readers>,
}

impl Loose {
    fn new(proxy: &Proxy, rules: &Rules, workers: usize) -> Self {
        let initial = State::initial(rules.hold_max.resolve(None));
        // Of replicas, their task hears of the master, and the workers hear of its replicas.
        let listeners = if proxy.leads_to_replicas { 1 } else { workers };
        let (publisher, reader, mut subscriptions) = publish::channel(initial.clone(), listeners);
        let readers = proxy
            .leads_to_replicas
            .then(|| subscriptions.pop())
            .flatten();
        let readers = readers.map(|changed| Readers::new(&initial, changed, workers));
        let (seen, observations) = mpsc::channel(control::MAX_OBSERVATIONS);
        Self {
            name: proxy.name.as_str().into(),
            reader,
            publisher,
            subscriptions,
            seen,
            observations,
            readers,
        }
    }

    fn subscribers(&self, proxy: &Proxy, rules: &Rules) -> Vec<Subscriber> {
        let of_replicas = self.readers.as_ref().map(|readers| &readers.seen);
        subscribers(&proxy.master, leases(rules), &self.seen, of_replicas)
    }

    fn for_workers(&mut self, proxy: &Proxy, bound: Vec<Bound>, shared: &Shared) -> worker::Entry {
        let (reader, subscriptions, lanes) =
            match self.readers.as_mut().and_then(Readers::take_ends) {
                Some((lobby, subscriptions, lanes)) => (lobby, subscriptions, Some(lanes)),
                None => (
                    self.reader.clone(),
                    std::mem::take(&mut self.subscriptions),
                    None,
                ),
            };
        worker::Entry {
            name: Arc::clone(&self.name),
            listener: proxy.listener.clone(),
            bound,
            session: proxy.session,
            login: proxy.login.clone(),
            upstream_tls: proxy.upstream_tls.clone(),
            reader,
            subscriptions,
            dials: if shared.watched {
                shared.histograms.dials(&proxy.name)
            } else {
                metrics::Histogram::noop()
            },
            lanes,
        }
    }
}

impl Shared {
    pub(super) fn new(
        histograms: Histograms,
        watched: bool,
        tasks: &TaskTracker,
        end: &CancellationToken,
    ) -> Self {
        Self {
            resolver: Resolver::default(),
            reserve: Reserve::fill(),
            histograms,
            watched,
            tasks: tasks.clone(),
            end: end.clone(),
        }
    }
}

impl Entries {
    /// Starts both flows. Nobody comes in yet where another process is to be followed.
    pub(super) fn start(
        config: &Config,
        held: Vec<Vec<Bound>>,
        sessions_max: Option<u64>,
        shared: Shared,
        following: Option<&Following>,
    ) -> Result<(Self, Pool), ExitError> {
        let workers = config.workers.count();
        let (mut loose, mut for_workers, mut subscribers) = (Vec::new(), Vec::new(), Vec::new());
        for (proxy, held) in config.proxies.iter().zip(&held) {
            let mut ends = Loose::new(proxy, &config.rules, workers);
            subscribers.extend(ends.subscribers(proxy, &config.rules));
            let bound = match following {
                Some(_) => Vec::new(),
                None => {
                    report::listening(proxy, held);
                    doubles(held).map_err(|e| ExitError::runtime("cannot keep a listener", &e))?
                }
            };
            for_workers.push(ends.for_workers(proxy, bound, &shared));
            loose.push(ends);
        }
        let pool = Pool::start(for_workers, workers, sessions_max, &shared.reserve)
            .map_err(|e| ExitError::runtime("cannot start the data plane", &e))?;
        let (asker, changes) = discovery::follow(
            &config.sentinel,
            subscribers,
            &shared.resolver,
            &shared.reserve,
            &shared.tasks,
            &shared.end,
        );
        let mut this = Self {
            address_map: Arc::new(config.sentinel.address_map.clone()),
            shared,
            reins: pool.reins(),
            asker,
            changes,
            roster: Roster::default(),
            running: Vec::new(),
            leaving: Vec::new(),
            left: mpsc::channel(MAX_LEFT),
            controls: JoinSet::new(),
            next: 0,
        };
        let counted = pool.tallies().each();
        for (((proxy, ends), held), counting) in
            config.proxies.iter().zip(loose).zip(held).zip(counted)
        {
            let heritage = following.map_or_else(Heritage::default, |following| {
                following.heritage(&proxy.name, &proxy.master)
            });
            let number = this.take_number();
            let new = (held, heritage);
            let running = this.control(proxy, &config.rules, ends, new, (number, counting));
            this.running.push(running);
        }
        this.settle(config);
        Ok((this, pool))
    }

    /// No number is given twice.
    const fn take_number(&mut self) -> usize {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Starts the control task of an entry that the workers serve by this number already.
    fn control(
        &mut self,
        proxy: &Proxy,
        rules: &Rules,
        ends: Loose,
        (held, heritage): (Vec<Bound>, Heritage),
        (number, counting): (usize, Counting),
    ) -> Running {
        let initial = (*ends.publisher.state()).clone();
        let book = Book::new(Ledger::new(At::now(), &ends.name, &proxy.master, initial));
        let (orders, ordered) = control::orders::channel();
        let own = own_addresses(&held);
        let (settings, set) = watch::channel(settings(proxy, rules, own, &[], &self.address_map));
        let counted = counting.clone();
        let pulse = move || {
            let sum = counted.sum();
            Pulse {
                bytes_down: sum.bytes_down,
                waiting: sum.waiting,
                lost: sum.lost(),
                unknown: sum.unknown,
            }
        };
        let end = self.shared.end.child_token();
        let replicas = ends.readers.as_ref().map(|readers| readers.seen.clone());
        if let Some(readers) = ends.readers {
            let means = (self.shared.resolver.clone(), self.shared.reserve.clone());
            let (set, asker) = (set.clone(), self.asker.clone());
            let entry = readers.into_entry(
                &ends.name,
                set,
                means,
                asker,
                ends.reader.clone(),
                book.clone(),
            );
            let (tasks, ending) = (self.shared.tasks.clone(), end.clone());
            self.controls.spawn(async move {
                control::replicas::run(entry, tasks, ending).await;
                number
            });
        }
        let entry = control::Entry {
            name: ends.name,
            master: proxy.master.clone(),
            settings: set,
            resolver: self.shared.resolver.clone(),
            reserve: self.shared.reserve.clone(),
            observations: ends.observations,
            asker: self.asker.clone(),
            orders: ordered,
            publisher: ends.publisher,
            book: book.clone(),
            pulse: PulseReader(Box::new(pulse)),
            heritage,
        };
        let (tasks, ending) = (self.shared.tasks.clone(), end.clone());
        self.controls.spawn(async move {
            control::run(entry, tasks, ending).await;
            number
        });
        let listen = shown(&held);
        let look = admin::Entry::new(number, book, listen, orders, counting, ends.reader);
        Running {
            number,
            name: proxy.name.clone(),
            master: proxy.master.clone(),
            leases: leases(rules),
            held,
            settings,
            observations: ends.seen,
            replicas,
            look: Arc::new(look),
            end,
        }
    }

    /// Begins to serve an entry. Nobody tells it of its master before [`Self::follow`], and nobody comes in before [`Self::open`].
    pub(super) async fn add(&mut self, proxy: &Proxy, rules: &Rules) -> Result<Running, Stuck> {
        let number = self.take_number();
        let mut ends = Loose::new(proxy, rules, self.reins.workers());
        let for_workers = ends.for_workers(proxy, Vec::new(), &self.shared);
        let counting = self.reins.add(number, for_workers).await?;
        let new = (Vec::new(), Heritage::default());
        Ok(self.control(proxy, rules, ends, new, (number, counting)))
    }

    /// How the sessions of an entry are made from now on, and who may connect.
    pub(super) async fn change(&self, number: usize, proxy: &Proxy) -> Result<(), Stuck> {
        let (session, login) = (proxy.session, proxy.login.clone());
        let (listener, upstream_tls) = (&proxy.listener, proxy.upstream_tls.clone());
        self.reins
            .change(number, session, login, listener, upstream_tls)
            .await
    }

    /// Lets clients in here, too.
    pub(super) async fn open(&self, running: &mut Running, way: WayIn) -> Result<(), Stuck> {
        running.held.push(way.held);
        self.reins.open(running.number, way.served).await
    }

    /// Lets nobody in there any more.
    pub(super) async fn close(&self, number: usize, held: Bound) -> Result<(), Stuck> {
        self.reins.close(number, held.id()).await
    }

    /// The entry that runs for this one of the configuration.
    pub(super) fn of(&self, proxy: &Proxy) -> Option<&Running> {
        self.running.iter().find(|running| running.is_of(proxy))
    }

    /// Shows the entries in the order of this configuration.
    pub(super) fn arrange(&mut self, config: &Config) {
        let place = |running: &Running| config.proxies.iter().position(|p| running.is_of(p));
        self.running.sort_by_key(place);
        self.roster.set_certificates(config.certificates());
        self.show();
    }

    /// Puts what control tasks go by into force, and shows the entries as they are now.
    pub(super) fn settle(&mut self, config: &Config) {
        self.address_map = Arc::new(config.sentinel.address_map.clone());
        let all = self.running.iter().chain(&self.leaving);
        let all: Vec<_> = all
            .flat_map(|running| own_addresses(&running.held))
            .collect();
        for running in &mut self.running {
            let Some(proxy) = config.proxies.iter().find(|proxy| running.is_of(proxy)) else {
                continue;
            };
            running.leases = leases(&config.rules);
            running.settings.send_replace(settings(
                proxy,
                &config.rules,
                own_addresses(&running.held),
                &all,
                &self.address_map,
            ));
            running.look.listen.store(Arc::new(shown(&running.held)));
        }
        self.arrange(config);
    }

    fn show(&self) {
        let entries = self.running.iter().map(|running| Arc::clone(&running.look));
        self.roster.set(entries.collect());
    }

    /// Tells those who follow the Sentinels whom they follow them for. An entry on its way out hears of its master to its end.
    pub(super) async fn follow(&self, config: &Config) {
        let all = self.running.iter().chain(&self.leaving);
        let subscribers = all.flat_map(|running| {
            let of_replicas = running.replicas.as_ref();
            subscribers(
                &running.master,
                running.leases,
                &running.observations,
                of_replicas,
            )
        });
        let change = Change {
            config: config.sentinel.clone(),
            subscribers: subscribers.collect(),
        };
        if !matches!(
            timeout(CHANGE_LIMIT, self.changes.send(change)).await,
            Ok(Ok(()))
        ) {
            warn!(
                event = "sentinels_unchanged",
                "those who follow the Sentinels did not take the change: restart"
            );
        }
    }

    /// Ends an entry whose listeners are closed: its sessions have so long for what they have begun.
    pub(super) fn leave(&mut self, running: Running, grace: Duration) {
        let number = running.number;
        let sessions = running.look.counting.sum().active();
        info!(
            event = "proxy_leaving", proxy = %running.look.name(), sessions,
            "no new clients here; {sessions} sessions have {} s for what they have begun", grace.as_secs_f64()
        );
        self.leaving.push(running);
        let (reins, left) = (self.reins.clone(), self.left.0.clone());
        self.shared.tasks.spawn(async move {
            reins.leave(number, grace).await;
            // Nobody waits any more where the process ends.
            let _ = left.send(number).await;
        });
    }

    /// Waits for what happens by itself: an entry is gone, or (an error) a control task was lost. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<usize, Lost> {
        loop {
            tokio::select! {
                Some(number) = self.left.1.recv() => return Ok(number),
                Some(ended) = self.controls.join_next() => self.expected(&ended)?,
            }
        }
    }

    fn expected(&self, ended: &Result<usize, JoinError>) -> Result<(), Lost> {
        // One that was told to end is on no list any more.
        let known = |number: &usize| {
            let all = self.running.iter().chain(&self.leaving);
            all.map(|running| running.number).any(|n| n == *number)
        };
        match ended {
            Ok(number) if !known(number) => Ok(()),
            Ok(_) | Err(_) => Err(Lost),
        }
    }

    /// Takes an entry that has no sessions any more off the books.
    pub(super) async fn gone(&mut self, number: usize, config: &Config) {
        let place = self.leaving.iter().position(|r| r.number == number);
        let Some(running) = place.map(|place| self.leaving.swap_remove(place)) else {
            return;
        };
        running.end.cancel();
        let proxy = running.look.name();
        if let Err(stuck) = self.reins.forget(number).await {
            warn!(event = "proxy_removed", proxy, "it is gone, but {stuck}");
        } else {
            info!(event = "proxy_removed", proxy, "its last session has ended");
        }
        self.follow(config).await;
    }

    /// All that run now, for another process; those on their way out end here.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub(super) fn known(&self) -> io::Result<Vec<Known>> {
        let known = self.running.iter().map(|running| {
            Ok(Known {
                number: running.number,
                name: running.look.name(),
                master: running.master.clone(),
                replicas: running.replicas.is_some(),
                reader: running.look.reader.clone(),
                book: running.look.book.clone(),
                doors: doubles(&running.held)?,
            })
        });
        known.collect()
    }

    /// Changes the data plane while it serves.
    pub(super) fn reins(&self) -> Reins {
        self.reins.clone()
    }

    /// Tells where clients connect.
    pub(super) fn tell_listening(&self, config: &Config) {
        for (proxy, running) in config.proxies.iter().zip(&self.running) {
            report::listening(proxy, &running.held);
        }
    }

    /// From now on the files of unix sockets are removed at the end of this process, or not.
    pub(super) fn own_files(&self, own: bool) {
        let held = self.running.iter().flat_map(|running| &running.held);
        held.for_each(|bound| bound.own_file(own));
    }

    /// Closes what is held of the listeners, so that the workers' closing theirs is the end of them.
    pub(super) fn let_go(&mut self) {
        for running in &mut self.running {
            running.held.clear();
        }
    }
}

/// A control task has ended by a defect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost;

fn doubles(held: &[Bound]) -> io::Result<Vec<Bound>> {
    held.iter().map(Bound::double).collect()
}

/// Who wants to know what of this master.
fn subscribers(
    master: &str,
    leases: bool,
    seen: &mpsc::Sender<Observation>,
    of_replicas: Option<&mpsc::Sender<Observation>>,
) -> Vec<Subscriber> {
    let of_master = Subscriber {
        master: master.to_owned(),
        leases,
        replicas: false,
        observations: seen.clone(),
    };
    let of_replicas = of_replicas.map(|seen| readers::subscriber(master, seen));
    iter::once(of_master).chain(of_replicas).collect()
}

fn shown(held: &[Bound]) -> Vec<String> {
    let addrs = held.iter().map(|held| held.addr().to_string());
    addrs.collect()
}
