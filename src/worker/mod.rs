//! The data-plane threads: one current-thread runtime each, one task a session, apart from the control plane.
//!
//! ```text
//!               +--> worker 0 (no hop)     each worker: one House per proxy entry,
//! listener ---- deal --> worker 1 (queue)               one 32 KiB buffer, one bell per House
//! (on worker 0)  +--> worker n (queue)
//! ```
//!
//! `Reins` change what runs: entries and listeners come and go, and sessions leave for another process or come from one (`hands`).
//! Each worker is told on its own thread (`floor`).
//!
//! A worker shares no lock with another; what it counts is written by it alone. A session that panics ends
//! alone; a worker that ends is reported by [`Pool::departed`].

mod dealer;
pub mod files;
mod floor;
mod hands;
mod handshakes;
mod heart;
mod reins;
#[cfg(test)]
mod tests;
mod thread;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::listener::{self, Bound, Ceiling, Door};
use crate::net::reserve::Reserve;
use crate::net::tls::{Connector, Refused};
use crate::session::tally::{Sum, Tally};
use crate::session::{self, Budget, Common, Login};
use crate::topology::board::LaneEnds;
use crate::topology::publish::{Reader, Subscription};

use dealer::Dealer;
pub use hands::Round;
use heart::Heart;
pub use heart::Hearts;
use reins::Rein;
pub use reins::{Reins, Stuck};
use thread::{Doorway, Front, Plan, Room, RoomLanes};

/// Longest a worker takes to end its sessions when they are cut.
pub(crate) const SESSIONS_END_LIMIT: Duration = Duration::from_secs(1);
/// Longest [`Pool::shutdown`] waits for the threads; beyond [`SESSIONS_END_LIMIT`] only a stuck one needs it.
const THREADS_END_LIMIT: Duration = Duration::from_secs(2);
/// Longest until the listeners are closed; only a stuck worker needs it.
const DOORS_CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// How many data-plane threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// One: it carries more requests than one Redis can answer.
    #[default]
    Auto,
    /// So many.
    Fixed(NonZeroUsize),
}

impl Workers {
    /// Most threads that can be asked for.
    pub const MAX: usize = 64;

    /// The number of threads to start.
    pub const fn count(self) -> usize {
        match self {
            Self::Auto => 1,
            Self::Fixed(n) => n.get(),
        }
    }
}

/// One proxy entry, ready to be served.
#[derive(Debug)]
pub struct Entry {
    /// Its name, in every log line.
    pub name: Arc<str>,
    /// Accepting.
    pub listener: listener::Config,
    /// Its listening sockets.
    pub bound: Vec<Bound>,
    /// Sessions.
    pub session: session::Config,
    /// What their upstreams are logged in with.
    pub login: Option<Arc<Login>>,
    /// How masters are met; `None` is without TLS.
    pub upstream_tls: Option<Connector>,
    /// Where the published state is read.
    pub reader: Reader,
    /// One for each worker.
    pub subscriptions: Vec<Subscription>,
    /// Where it is recorded how long dials took, in seconds.
    pub dials: metrics::Histogram,
    /// The lanes of an entry that leads to replicas; `reader` is then of its lobby.
    pub lanes: Option<LaneEnds>,
}

/// What the workers counted of one proxy entry.
#[derive(Clone, Debug)]
pub struct Counters {
    /// The entry's name.
    pub name: Arc<str>,
    /// Its sessions.
    pub sessions: Sum,
    /// Failed calls of `accept(2)`.
    pub accept_errors: u64,
    /// Connections closed because neither `allow_from` nor `allowed_uids` names the peer.
    pub refused_not_allowed: u64,
    /// Connections closed because of `max_connections` or the most sessions there may be, or because no worker could take them.
    pub refused_full: u64,
    /// Connections closed because of `max_connections_per_source`.
    pub refused_source: u64,
    /// Connections closed for what TLS has against them, in the order of [`Refused::ALL`](crate::net::tls::Refused).
    pub refused_tls: [u64; Refused::ALL.len()],
}

impl Counters {
    /// Connections closed at the door, for whatever reason.
    pub const fn refused(&self) -> u64 {
        self.refused_not_allowed + self.refused_full + self.refused_source
    }
}

/// The running data plane.
#[derive(Debug)]
pub struct Pool {
    threads: Vec<std::thread::JoinHandle<()>>,
    departed: mpsc::Receiver<Departed>,
    stops: Stops,
    reins: Reins,
    hearts: Hearts,
}

/// What workers are told, and tell, at the end.
#[derive(Clone, Debug, Default)]
struct Stops {
    /// Nothing new is begun, what was begun is finished.
    drain: CancellationToken,
    /// No listener is left, and whoever was accepted is seated.
    closed: CancellationToken,
    /// What is left is cut.
    now: CancellationToken,
}

/// Reads what the workers count, from any thread and after their end.
#[derive(Clone, Debug, Default)]
pub struct Tallies(Arc<ArcSwap<Vec<Counting>>>);

impl Tallies {
    /// What was counted until now, in the order in which the entries came.
    pub fn read(&self) -> Vec<Counters> {
        self.each().iter().map(Counting::read).collect()
    }

    /// The same, to be read again and again.
    pub fn each(&self) -> Vec<Counting> {
        self.0.load().to_vec()
    }

    /// Those of the entry with this number.
    pub fn find(&self, number: usize) -> Option<Counting> {
        self.0.load().iter().find(|c| c.0.number == number).cloned()
    }

    fn add(&self, counted: Counted) -> Counting {
        let counting = Counting(Arc::new(counted));
        self.0.rcu(|all| {
            let mut all = Vec::clone(all);
            all.push(counting.clone());
            all
        });
        counting
    }

    fn forget(&self, number: usize) {
        self.0.rcu(|all| {
            let kept = all.iter().filter(|c| c.0.number != number);
            kept.cloned().collect::<Vec<_>>()
        });
    }
}

/// Reads what the workers count of one entry.
#[derive(Clone, Debug)]
pub struct Counting(Arc<Counted>);

impl Counting {
    /// What was counted until now.
    pub fn read(&self) -> Counters {
        let Counted { door, .. } = &*self.0;
        Counters {
            name: Arc::clone(&self.0.name),
            sessions: self.sum(),
            accept_errors: door.accept_errors.read(),
            refused_not_allowed: door.not_allowed.read(),
            refused_full: door.full.read(),
            refused_source: door.source_full.read(),
            refused_tls: door.tls_refusals(),
        }
    }

    /// Its sessions alone.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for tally in &self.0.tallies {
            sum.add(tally);
        }
        sum
    }
}

/// What a pool reads the counters of one entry from.
#[derive(Debug)]
struct Counted {
    number: usize,
    name: Arc<str>,
    door: Arc<Door>,
    common: Arc<Common>,
    tallies: Vec<Arc<Tally>>,
}

/// What the workers need to serve an entry, a room each; and its listeners, for worker 0.
fn furnish(
    number: usize,
    entry: Entry,
    ceiling: &Ceiling,
    (reserve, budget): (&Reserve, &Budget),
) -> (Counted, Vec<Room>, Vec<Bound>) {
    let name = Arc::clone(&entry.name);
    let door = Arc::new(Door::new(name, &entry.listener, ceiling.clone()));
    let common = Arc::new(Common::new(entry.dials, reserve.clone(), budget.clone()));
    common.meet_masters(entry.upstream_tls);
    let mut tallies = Vec::with_capacity(entry.subscriptions.len());
    let mut rooms = Vec::with_capacity(entry.subscriptions.len());
    let mut lanes = entry.lanes;
    for subscription in entry.subscriptions {
        let tally = Arc::new(Tally::default());
        tallies.push(Arc::clone(&tally));
        rooms.push(Room {
            name: Arc::clone(&entry.name),
            config: entry.session,
            login: entry.login.clone(),
            reader: entry.reader.clone(),
            subscription,
            tally,
            common: Arc::clone(&common),
            door: Arc::clone(&door),
            lanes: lanes.as_mut().map(RoomLanes::of_next),
        });
    }
    let counted = Counted {
        number,
        name: entry.name,
        door,
        common,
        tallies,
    };
    (counted, rooms, entry.bound)
}

/// A worker thread that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed {
    /// Its number, from 0.
    pub worker: usize,
    /// It ended by a panic, which has been written to standard error.
    pub panicked: bool,
}

impl Pool {
    /// Starts `workers` threads and serves the entries, with at most `sessions_max` sessions over all of them
    /// (`None`: as many as come). A session takes two descriptors, and none while some of the `reserve` are lent.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made, or an entry has not one subscription for each worker.
    pub fn start(
        entries: Vec<Entry>,
        workers: usize,
        sessions_max: Option<u64>,
        reserve: &Reserve,
    ) -> io::Result<Self> {
        Self::start_within(entries, workers, sessions_max, reserve, Budget::default())
    }

    /// The same, and sessions keep no more than there is `budget` for.
    fn start_within(
        entries: Vec<Entry>,
        workers: usize,
        sessions_max: Option<u64>,
        reserve: &Reserve,
        budget: Budget,
    ) -> io::Result<Self> {
        if workers == 0 || entries.iter().any(|e| e.subscriptions.len() != workers) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "an entry needs one subscription for each of at least one workers",
            ));
        }
        let stops = Stops::default();
        let (dealer, inboxes) = Dealer::new(workers);
        let (report, departed) = mpsc::channel(workers);
        let mut pool = Self {
            threads: Vec::with_capacity(workers),
            departed,
            stops: stops.clone(),
            reins: Reins {
                workers: Vec::with_capacity(workers),
                ceiling: Ceiling::new(sessions_max, reserve),
                reserve: reserve.clone(),
                budget,
                tallies: Tallies::default(),
            },
            hearts: Hearts::default(),
        };
        let mut plans = Vec::with_capacity(workers);
        for (inbox, load) in inboxes.into_iter().zip(dealer.loads()) {
            let (orders, told) = mpsc::channel(floor::ORDERS);
            plans.push(Plan::new(inbox, told, Arc::clone(&load)));
            pool.reins.workers.push(Rein { orders, load });
        }
        let mut doorways = Vec::with_capacity(entries.len());
        for (number, entry) in entries.into_iter().enumerate() {
            let means = (&pool.reins.reserve, &pool.reins.budget);
            let (counted, rooms, bound) = furnish(number, entry, &pool.reins.ceiling, means);
            for (plan, room) in plans.iter_mut().zip(rooms) {
                plan.rooms.push(room);
            }
            doorways.push(Doorway {
                bound,
                door: Arc::clone(&counted.door),
            });
            pool.reins.tallies.add(counted);
        }
        // The acceptor shares worker 0's thread: a connection it keeps needs no hop.
        if let Some(first) = plans.first_mut() {
            first.front = Some(Front { dealer, doorways });
        }
        let mut hearts = Vec::with_capacity(workers);
        for (worker, plan) in plans.into_iter().enumerate() {
            let heart = Heart::default();
            hearts.push(heart.clone());
            let thread = thread::start(worker, plan, stops.clone(), report.clone(), heart);
            match thread {
                Ok(thread) => pool.threads.push(thread),
                Err(error) => {
                    stops.drain.cancel();
                    stops.now.cancel();
                    return Err(error);
                }
            }
        }
        pool.hearts = Hearts::new(hearts);
        Ok(pool)
    }

    /// Where to read what is counted.
    pub fn tallies(&self) -> Tallies {
        self.reins.tallies.clone()
    }

    /// How it is changed while it serves.
    pub fn reins(&self) -> Reins {
        self.reins.clone()
    }

    /// Whether the workers' threads turn.
    pub fn hearts(&self) -> Hearts {
        self.hearts.clone()
    }

    /// Waits for a worker to end, which none does before [`Pool::stop_accepting`] unless something broke: its
    /// sessions are lost then, and a process that goes on would serve with less than it was given. Cancel-safe.
    pub async fn departed(&mut self) -> Option<Departed> {
        self.departed.recv().await
    }

    /// Closes the listeners, and lets each session end when what it has begun is finished.
    pub async fn stop_accepting(&self) {
        self.stops.drain.cancel();
        // A worker that is stuck keeps its listeners until the end of the process.
        let _ = timeout(DOORS_CLOSE_LIMIT, self.stops.closed.cancelled()).await;
    }

    /// Until all sessions have ended, which they do behind [`Pool::stop_accepting`] alone.
    pub async fn drained(&mut self) {
        while self.departed.recv().await.is_some() {}
    }

    /// Stops accepting, cuts what sessions there are within a second, and joins the threads.
    pub async fn shutdown(mut self) {
        self.stops.drain.cancel();
        self.stops.now.cancel();
        let deadline = Instant::now() + THREADS_END_LIMIT;
        // Every thread holds one sender until it ends.
        while let Ok(Some(_)) = timeout_at(deadline, self.departed.recv()).await {}
        for thread in self.threads {
            if thread.is_finished() || Instant::now() < deadline {
                // A panic was reported by `departed` and by the panic hook.
                let _ = thread.join();
            } else {
                warn!(
                    event = "worker_stuck",
                    "a worker did not end in time; the process ends without it"
                );
            }
        }
    }
}
