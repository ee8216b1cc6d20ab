//! Builds the rooms and connects the two flows.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::ExitError;
use super::report;
use super::takeover::Following;
use super::upgrade::Known;
use crate::admin::{self, Histograms};
use crate::config::Config;
use crate::control::ledger::{Book, Ledger, Pulse};
use crate::control::steward::Heritage;
use crate::control::{self, PulseReader};
use crate::listener::{self, Bound, Inherited, Passed};
use crate::net::addr::{HostPort, ListenAddr};
use crate::net::clock::At;
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::net::socket;
use crate::sentinel::discovery;
use crate::sentinel::watcher::Subscriber;
use crate::topology::State;
use crate::topology::publish;
use crate::topology::rules::SentinelsLost;
use crate::worker::files::{FEW_SESSIONS, sessions_of};
use crate::worker::{self, Pool};

/// What runs.
pub(super) struct Started {
    pub(super) pool: Pool,
    pub(super) known: Vec<Known>,
    /// None ends before it is told to; without it nobody extends the fence word and nothing is forwarded.
    pub(super) controls: JoinSet<()>,
    pub(super) entries: Vec<admin::Entry>,
    pub(super) histograms: Histograms,
}

/// Starts both flows.
pub(super) fn start(
    config: &Config,
    bound: Vec<Vec<Bound>>,
    sessions_max: Option<u64>,
    watched: bool,
    tasks: &TaskTracker,
    end: &CancellationToken,
    following: Option<&Following>,
) -> Result<Started, ExitError> {
    let workers = config.workers.count();
    let mut subscribers = Vec::new();
    let mut entries = Vec::new();
    let mut plans = Vec::new();
    let mut known = Vec::new();
    let mut looked_at = Vec::new();
    let mut listens: Vec<Vec<String>> = Vec::new();
    let histograms = Histograms::default();
    for (proxy, bound) in config.proxies.iter().zip(bound) {
        let name: Arc<str> = proxy.name.as_str().into();
        let initial = State::initial(config.rules.hold_max.resolve(None));
        let (publisher, reader, subscriptions) = publish::channel(initial, workers);
        let (seen, observations) = mpsc::channel(control::MAX_OBSERVATIONS);
        subscribers.push(Subscriber {
            master: proxy.master.clone(),
            leases: config.rules.when_sentinels_are_lost == SentinelsLost::Stop,
            observations: seen,
        });
        plans.push((
            proxy,
            Arc::clone(&name),
            own_addresses(&bound),
            observations,
            publisher,
            reader.clone(),
        ));
        listens.push(bound.iter().map(|b| b.addr().to_string()).collect());
        if following.is_none() {
            report::listening(proxy, &bound);
        }
        entries.push(worker::Entry {
            name,
            listener: proxy.listener.clone(),
            bound,
            session: proxy.session.clone(),
            reader,
            subscriptions,
            // What is recorded is kept until somebody looks.
            dials: if watched {
                histograms.dials(&proxy.name)
            } else {
                metrics::Histogram::noop()
            },
        });
    }
    let reserve = Reserve::fill();
    let pool = match following {
        None => Pool::start(entries, workers, sessions_max, &reserve),
        // The doors are another process's still.
        Some(_) => Pool::start_closed(entries, workers, sessions_max, &reserve),
    };
    let pool = pool.map_err(|e| ExitError::runtime("cannot start the data plane", &e))?;
    let resolver = Resolver::default();
    let asker = discovery::follow(
        &config.sentinel,
        subscribers,
        &resolver,
        &reserve,
        tasks,
        end,
    );
    let mut controls = JoinSet::new();
    for (n, (proxy, name, own, observations, publisher, reader)) in plans.into_iter().enumerate() {
        let ledger = Ledger::new(
            At::now(),
            &name,
            &proxy.master,
            (*publisher.state()).clone(),
        );
        let book = Book::new(ledger);
        known.push(Known {
            name: Arc::clone(&name),
            master: proxy.master.clone(),
            reader,
            book: book.clone(),
        });
        let heritage = following.map_or_else(Heritage::default, |following| {
            following.heritage(&proxy.name, &proxy.master)
        });
        let (orders, ordered) = control::orders::channel();
        looked_at.push(admin::Entry {
            book: book.clone(),
            orders,
            listen: std::mem::take(&mut listens[n]),
        });
        let tallies = pool.tallies();
        let pulse = move || {
            let sum = tallies.of(n);
            Pulse {
                bytes_down: sum.bytes_down,
                waiting: sum.waiting,
                lost: sum.lost(),
                unknown: sum.unknown,
            }
        };
        let entry = control::Entry {
            name,
            master: proxy.master.clone(),
            rules: config.rules,
            probe: proxy.probe.clone(),
            connect_timeout: proxy.session.connect_timeout,
            resolver: resolver.clone(),
            reserve: reserve.clone(),
            own,
            observations,
            asker: asker.clone(),
            orders: ordered,
            publisher,
            book,
            pulse: PulseReader(Box::new(pulse)),
            heritage,
        };
        controls.spawn(control::run(entry, tasks.clone(), end.clone()));
    }
    Ok(Started {
        pool,
        known,
        controls,
        entries: looked_at,
        histograms,
    })
}

/// Binds the admin endpoint. A port that is taken ends a process whose operator asked for it; where nobody did, it goes without:
/// another proxy on this host has it.
pub(super) fn bind_admin(
    config: &admin::Config,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, ExitError> {
    let inherit = |asked: &str| inherited.take(None, asked);
    match listener::bind_or_inherit(&config.listener, &mut Passed::nothing(), inherit) {
        Ok(bound) => {
            for bound in &bound {
                let addr = bound.addr();
                let url = match addr {
                    ListenAddr::Tcp(addr) => format!("http://{addr}/"),
                    ListenAddr::Unix(_) | ListenAddr::Systemd(_) => addr.to_string(),
                };
                info!(event = "admin_listening", addr = %addr, "status page and metrics: {url}");
            }
            Ok(bound)
        }
        Err(error) if config.is_required() => Err(error.into()),
        Err(error) => {
            warn!(
                event = "admin_off",
                "no status page and no metrics: {error}. Set admin.listen to another address, or to \"off\""
            );
            Ok(Vec::new())
        }
    }
}

/// The addresses at which we would be talking to ourselves.
fn own_addresses(bound: &[Bound]) -> Vec<HostPort> {
    bound
        .iter()
        .filter_map(|b| match b.addr() {
            ListenAddr::Tcp(addr) => Some(HostPort::from(*addr)),
            ListenAddr::Unix(_) | ListenAddr::Systemd(_) => None,
        })
        .collect()
}

/// Raises the limit of open files and gives the number of sessions it allows. `None` is as many as come.
pub(super) fn note_open_files() -> Option<u64> {
    let limit = socket::raise_open_files().unwrap_or_else(|e| {
        warn!(
            event = "few_open_files",
            "cannot raise the limit of open files: {e}"
        );
        socket::open_files()
    })?;
    let sessions = sessions_of(limit);
    if sessions < FEW_SESSIONS {
        warn!(
            event = "few_open_files",
            limit,
            sessions,
            "the limit of open files allows {sessions} sessions: raise it (LimitNOFILE= in the unit, or ulimit -n)"
        );
    }
    Some(sessions)
}
