//! Many whole control planes in one process, each as `daemon` builds one for an app host's proxy: its own discovery, its
//! own watchers and links, its own steward and control connection.
//!
//! They share threads, because a thousand threads on a few cores would measure the scheduler. A data plane without
//! sessions stands behind each: it acknowledges what is published and notes when.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchmaster::control::ledger::{Book, Ledger, Pulse};
use switchmaster::control::{self, PulseReader};
use switchmaster::net::addr::{HostPort, SentinelAddr};
use switchmaster::net::clock::{At, Moment, now};
use switchmaster::net::reserve::Reserve;
use switchmaster::net::resolver::Resolver;
use switchmaster::sentinel::watcher::Subscriber;
use switchmaster::sentinel::{Config, Credentials, discovery};
use switchmaster::session;
use switchmaster::topology::publish::{self, Left, Subscription};
use switchmaster::topology::rules::Rules;
use switchmaster::topology::{Phase, State};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest wait for the tasks at the end; they only have sockets to drop.
const END_LIMIT: Duration = Duration::from_secs(2);

/// Ends with its value.
#[derive(Debug)]
pub(crate) struct Fleet {
    served: Vec<Arc<Served>>,
    end: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

/// The master that one proxy serves, and since when.
#[derive(Debug, Default)]
struct Served(Mutex<Option<(SocketAddr, Moment)>>);

/// What one control plane is started with.
#[derive(Clone, Debug)]
struct Plan {
    sentinels: Config,
    master: String,
    spread: Duration,
}

impl Fleet {
    /// Starts so many control planes on so many threads, each at a random moment of `spread`.
    pub(crate) fn start(
        watchers: usize,
        threads: usize,
        spread: Duration,
        sentinels: &[SocketAddr],
        master: &str,
    ) -> Self {
        let addresses = sentinels
            .iter()
            .map(|addr| SentinelAddr(HostPort::from(*addr)));
        let plan = Plan {
            sentinels: Config {
                addresses: addresses.collect(),
                ..Config::default()
            },
            master: master.to_owned(),
            spread,
        };
        let served: Vec<Arc<Served>> = (0..watchers).map(|_| Arc::default()).collect();
        let end = CancellationToken::new();
        let share = watchers.div_ceil(threads);
        let threads = served
            .chunks(share)
            .map(|crew| {
                let (crew, plan, end) = (crew.to_vec(), plan.clone(), end.clone());
                thread::spawn(move || run(crew, &plan, &end))
            })
            .collect();
        Self {
            served,
            end,
            threads,
        }
    }

    /// Since when each of those has served its master that serve one of which this holds.
    pub(crate) fn serving_since(&self, holds: impl Fn(SocketAddr) -> bool) -> Vec<Moment> {
        let served = self.served.iter().filter_map(|served| *served.locked());
        served
            .filter(|(addr, _)| holds(*addr))
            .map(|(_, since)| since)
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.end.cancel();
        for thread in self.threads.drain(..) {
            // Its panic was printed when it happened.
            drop(thread.join());
        }
    }
}

impl Served {
    fn locked(&self) -> MutexGuard<'_, Option<(SocketAddr, Moment)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's share of the fleet.
fn run(crew: Vec<Arc<Served>>, plan: &Plan, end: &CancellationToken) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let tasks = TaskTracker::new();
        for served in crew {
            tasks.spawn(plane(plan.clone(), served, tasks.clone(), end.clone()));
        }
        end.cancelled().await;
        tasks.close();
        // Whoever has not ended by then only holds sockets that the end of the runtime closes.
        let _ = timeout(END_LIMIT, tasks.wait()).await;
    });
}

/// One proxy's control plane, put together as `daemon` does it.
async fn plane(plan: Plan, served: Arc<Served>, tasks: TaskTracker, end: CancellationToken) {
    sleep(plan.spread.mul_f64(fastrand::f64())).await;
    let rules = Rules::default();
    let initial = State::initial(rules.hold_max.resolve(None));
    let (publisher, _reader, subscriptions) = publish::channel(initial.clone(), 1);
    let (seen, observations) = mpsc::channel(control::MAX_OBSERVATIONS);
    let subscriber = Subscriber {
        master: plan.master.clone(),
        leases: false,
        replicas: false,
        observations: seen,
    };
    let (resolver, reserve) = (Resolver::default(), Reserve::default());
    let (asker, _changes) = discovery::follow(
        &plan.sentinels,
        vec![subscriber],
        &resolver,
        &reserve,
        &tasks,
        &end,
    );
    let ledger = Ledger::new(At::now(), "fleet", &plan.master, initial);
    let (_settings, settings) = watch::channel(control::Settings {
        reading: None,
        rules,
        probe: Credentials::default(),
        tls: None,
        connect_timeout: session::Config::default().connect_timeout,
        own: Vec::new(),
    });
    let entry = control::Entry {
        name: "fleet".into(),
        master: plan.master,
        settings,
        resolver,
        reserve,
        observations,
        asker,
        orders: control::orders::channel().1,
        book: Book::new(ledger),
        pulse: PulseReader(Box::new(Pulse::default)),
        publisher,
        heritage: control::steward::Heritage::default(),
    };
    tasks.spawn(control::run(entry, tasks.clone(), end.clone()));
    let subscription = subscriptions.into_iter().next().expect("for one worker");
    end.run_until_cancelled(attend(&subscription, &served))
        .await;
}

/// A worker without sessions.
async fn attend(subscription: &Subscription, served: &Served) {
    loop {
        subscription.changed().await;
        let state = subscription.state();
        if let (Phase::Serving, Some(addr)) = (&state.phase, state.verified_at) {
            let mut served = served.locked();
            if served.is_none_or(|(known, _)| known != addr) {
                *served = Some((addr, now()));
            }
        }
        subscription.acknowledge(state.generation, Left::default());
    }
}
