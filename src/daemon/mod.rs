//! Composition root: binds, builds the rooms, connects the two flows at `topology::publish`, and ends everything.
//!
//! ```text
//! this thread: control plane (watchers, control tasks, signals)      threads 1..n: data-plane workers
//! one more thread: the admin endpoint
//! ```
//! What ends the process is in `ending`, what changes it while it runs in `reload` and `entries`, what its service manager hears
//! of it in `manager`.
//!
//! The control plane has a runtime of its own, so that a saturated data plane never delays a failover.

mod ending;
mod entries;
mod manager;
mod reload;
mod report;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::entries::{Entries, Held, Shared};
use self::manager::Manager;
use self::reload::Reloader;
use self::report::Progress;
use self::signals::{Asked, Signals};
use crate::admin::reload::Reloads;
use crate::admin::{self, Histograms, Panel, Vitals};
use crate::config::{Flags, Loaded};
use crate::exit::Exit;
use crate::listener::{self, BindError, Bound, Passed};
use crate::net::addr::ListenAddr;
use crate::net::clock::At;
use crate::net::socket;
use crate::telemetry::{self, Lines};
use crate::worker::files::{FEW_SESSIONS, sessions_of};

/// Longest wait for the control plane's tasks at the end; they only have sockets to drop.
const CONTROL_END_LIMIT: Duration = Duration::from_millis(500);
/// How often dropped log lines are looked at.
const LINES_EVERY: Duration = Duration::from_secs(1);

/// Why the process ends before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitError {
    /// What the process exits with.
    pub exit: Exit,
    /// What happened and what to do, for people.
    pub message: String,
}

impl ExitError {
    fn runtime(what: &str, e: &dyn std::fmt::Display) -> Self {
        Self {
            exit: Exit::Runtime,
            message: format!("{what}: {e}"),
        }
    }
}

impl From<BindError> for ExitError {
    fn from(e: BindError) -> Self {
        let exit = match e.exit_code() {
            73 => Exit::PortTaken,
            77 => Exit::Permission,
            78 => Exit::Config,
            _ => Exit::Runtime,
        };
        Self {
            exit,
            message: e.to_string(),
        }
    }
}

/// Longest wait for the admin endpoint's thread, which ends last.
const ADMIN_END_LIMIT: Duration = Duration::from_millis(500);

/// Serves until a signal ends it. SIGTERM or SIGINT ends in order, a second one at once; SIGHUP reads the configuration anew,
/// under the same flags; SIGUSR1 writes the state to the log. Gives [`Exit::Ok`], or [`Exit::Cut`].
///
/// # Errors
/// When serving cannot begin, or a worker was lost.
pub fn run(flags: &Flags, loaded: Loaded, log: telemetry::Handle) -> Result<Exit, ExitError> {
    let mut passed = Passed::from_env();
    let config = &loaded.config;
    let proxies: Vec<_> = config.proxies.iter().map(|p| &*p.master).collect();
    info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        sentinels = %join(&config.sentinel.addresses),
        masters = %join(&proxies),
        workers = config.workers.count(),
        "switchmaster {} starts", env!("CARGO_PKG_VERSION")
    );
    let sessions_max = note_open_files();
    // Binding comes first: nobody is asked anything by a process that cannot serve.
    let bound = config
        .proxies
        .iter()
        .map(|proxy| bind(&proxy.listener, &mut passed))
        .collect::<Result<Vec<_>, _>>()?;
    for name in passed.left() {
        warn!(
            event = "socket_unused",
            name,
            "systemd passed a socket that no `listen` names: write \"systemd:{name}\" where it belongs"
        );
    }
    let admin = bind_admin(&config.admin)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ExitError::runtime("cannot start the control plane", &e))?;
    let outcome = runtime.block_on(serve(flags, loaded, bound, (admin, sessions_max), log));
    // A name that is being looked up holds a thread that cannot be ended; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

async fn serve(
    flags: &Flags,
    loaded: Loaded,
    held: Vec<Vec<Held>>,
    (admin, sessions_max): (Vec<Bound>, Option<u64>),
    log: telemetry::Handle,
) -> Result<Exit, ExitError> {
    let started = At::now();
    let mut signals = Signals::new().map_err(|e| ExitError::runtime("cannot take signals", &e))?;
    let tasks = TaskTracker::new();
    let end = CancellationToken::new();
    let draining = CancellationToken::new();
    let histograms = Histograms::default();
    let shared = Shared::new(histograms.clone(), !admin.is_empty(), &tasks, &end);
    let (mut entries, mut pool) = Entries::start(&loaded.config, held, sessions_max, shared)?;
    tasks.spawn(report_dropped_lines(log.lines.clone(), end.clone()));
    let tallies = pool.tallies();
    let roster = entries.roster.clone();
    let vitals = Vitals::new(roster.clone(), pool.hearts(), draining.clone());
    let admin_end = CancellationToken::new();
    let (admin_config, configured) = watch::channel(loaded.config.admin.clone());
    let (reload, mut reload_asked) = admin::reload::channel();
    let reloads = Reloads::default();
    let admin_thread = if admin.is_empty() {
        None
    } else {
        let panel = Panel::new(
            started,
            roster.clone(),
            histograms,
            log.clone(),
            vitals.clone(),
            (reload, reloads.clone()),
        );
        let thread = admin::thread(admin, configured, panel, admin_end.clone())
            .map_err(|e| ExitError::runtime("cannot start the admin endpoint", &e))?;
        Some(thread)
    };
    let manager = Arc::new(Manager::from_env());
    manager.ready().await;
    let progress = Progress {
        roster: roster.clone(),
        draining: draining.clone(),
    };
    tasks.spawn(Arc::clone(&manager).attend(vitals, progress, end.clone()));
    let status = || report::status(&roster);
    let mut reloader = Reloader::new(
        flags.clone(),
        loaded,
        reloads,
        log,
        admin_config,
        Arc::clone(&manager),
    );

    let outcome = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::End => break Ok(reloader.current.config.shutdown_grace),
                Asked::Status => status(),
                Asked::Hangup => reloader.signalled().await,
            },
            Some(asked) = reload_asked.recv() => reloader.asked(asked).await,
            ready = reloader.prepared() => reloader.carry_out(ready, &mut entries).await,
            happened = entries.next() => match happened {
                Ok(gone) => entries.gone(gone, &reloader.current.config).await,
                Err(entries::Lost) => {
                    error!(event = "control_lost", "a control task has ended by a defect; the process ends, to be restarted whole");
                    break Err(ExitError { exit: Exit::Runtime, message: "a control task was lost".to_owned() });
                }
            },
            departed = pool.departed() => {
                let worker = departed.map_or(0, |d| d.worker);
                error!(event = "worker_lost", worker, "a worker thread has ended; the process ends, to be restarted whole");
                let message = "a worker thread was lost".to_owned();
                break Err(ExitError { exit: Exit::Runtime, message });
            }
        }
    };
    // Whoever has asked for a reload hears that there is none.
    drop((reload_asked, reloader));
    entries.let_go();
    draining.cancel();
    // A process that is broken does not go on for anybody's sake: without its control task nothing can be forwarded.
    let grace = *outcome.as_ref().unwrap_or(&Duration::ZERO);
    manager.stopping(grace).await;
    let cut = ending::end(pool, &mut signals, grace, &tallies, status).await;
    end.cancel();
    tasks.close();
    // Whoever has not ended by then only holds sockets that the end of the process closes.
    let _ = timeout(CONTROL_END_LIMIT, tasks.wait()).await;
    // Last, so that it can be asked how the end goes.
    admin_end.cancel();
    if let Some(thread) = admin_thread {
        // Told when it has ended, or dropped: both are its end.
        let _ = timeout(ADMIN_END_LIMIT, thread).await;
    }
    outcome.map(|_| if cut == 0 { Exit::Ok } else { Exit::Cut })
}

/// Binds the listeners of an entry; what is held of each is how it was written, too.
fn bind(config: &listener::Config, passed: &mut Passed) -> Result<Vec<Held>, BindError> {
    let mut all = Vec::with_capacity(config.listen.len());
    for written in &config.listen {
        let bound = listener::bind_one(written, !config.allow_from.is_empty(), passed)?;
        let held = |bound| Held {
            written: written.clone(),
            bound,
        };
        all.extend(bound.into_iter().map(held));
    }
    Ok(all)
}

/// Binds the admin endpoint. A port that is taken ends a process whose operator asked for it; where nobody did, it goes without:
/// another proxy on this host has it.
fn bind_admin(config: &admin::Config) -> Result<Vec<Bound>, ExitError> {
    match listener::bind(&config.listener, &mut Passed::nothing()) {
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

/// Raises the limit of open files and gives the number of sessions it allows. `None` is as many as come.
fn note_open_files() -> Option<u64> {
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

async fn report_dropped_lines(lines: Lines, end: CancellationToken) {
    let mut known = 0;
    let mut tick = interval(LINES_EVERY);
    while end.run_until_cancelled(tick.tick()).await.is_some() {
        let dropped = lines.dropped();
        if dropped > known {
            let count = dropped - known;
            known = dropped;
            warn!(
                event = "log_lines_dropped",
                count, "log lines were lost: whoever reads stderr is too slow"
            );
        }
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
