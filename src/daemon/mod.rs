//! Composition root: binds, builds the rooms, connects the two flows at `topology::publish`, and ends everything.
//!
//! ```text
//! this thread: control plane (watchers, control tasks, signals)      threads 1..n: data-plane workers
//! one more thread: the admin endpoint
//! ```
//! What begins it is in `begin`, what ends it in `ending`, what its service manager hears of it in `manager`; how it follows another
//! process in `takeover`, and how it is followed in `upgrade`.
//!
//! The control plane has a runtime of its own, so that a saturated data plane never delays a failover.

mod begin;
mod ending;
mod manager;
mod report;
mod signals;
mod takeover;
mod upgrade;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::begin::Started;
use self::manager::Manager;
use self::report::Progress;
use self::signals::{Asked, Signals};
use self::takeover::{Followed, Following, Predecessor};
use self::upgrade::{Estate, Program};
use crate::admin::{self, Panel, Upgrades, Vitals};
use crate::config::Config;
use crate::exit::Exit;
use crate::listener::{self, BindError, Bound, Passed};
use crate::net::clock::At;
use crate::telemetry::{self, Lines};
use crate::topology::publish::Reader;
use crate::upgrade::old::{Failure, Outcome};

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

/// Longest wait for an upgrade that is under way when this process is told to end.
const UPGRADE_END_LIMIT: Duration = Duration::from_secs(10);
/// Longest wait for the admin endpoint's thread, which ends last.
const ADMIN_END_LIMIT: Duration = Duration::from_millis(500);

/// Serves until a signal ends it. SIGTERM or SIGINT ends in order, a second one at once; SIGUSR1 writes the state to
/// the log, SIGUSR2 starts an upgrade. SIGHUP is ignored, so that a closed terminal ends nobody's sessions. Gives [`Exit::Ok`], or [`Exit::Cut`].
///
/// # Errors
/// When serving cannot begin, or a worker was lost.
pub fn run(config: Config, log: telemetry::Handle) -> Result<Exit, ExitError> {
    let mut passed = Passed::from_env();
    let program = Program::of_this_process();
    let proxies: Vec<_> = config.proxies.iter().map(|p| &*p.master).collect();
    info!(
        event = "starting",
        version = env!("CARGO_PKG_VERSION"),
        sentinels = %join(&config.sentinel.addresses),
        masters = %join(&proxies),
        workers = config.workers.count(),
        "switchmaster {} starts", env!("CARGO_PKG_VERSION")
    );
    let sessions_max = begin::note_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ExitError::runtime("cannot start the control plane", &e))?;
    let mut following = match Predecessor::of_this_process() {
        Some(predecessor) => Some(runtime.block_on(Following::greet(predecessor, &config))?),
        None => None,
    };
    let mut inherited = following
        .as_mut()
        .map(Following::listeners)
        .unwrap_or_default();
    // Binding comes first: nobody is asked anything by a process that cannot serve.
    let bound = config
        .proxies
        .iter()
        .map(|proxy| {
            let inherit = |asked: &str| inherited.take(Some(&proxy.name), asked);
            listener::bind_or_inherit(&proxy.listener, &mut passed, inherit)
        })
        .collect::<Result<Vec<_>, _>>()?;
    for name in passed.left() {
        warn!(
            event = "socket_unused",
            name,
            "systemd passed a socket that no `listen` names: write \"systemd:{name}\" where it belongs"
        );
    }
    let admin = begin::bind_admin(&config.admin, &mut inherited)?;
    // What no `listen` names any more is closed with the process that has it.
    drop(inherited);
    let serving = serve(config, bound, admin, sessions_max, log, program, following);
    let outcome = runtime.block_on(serving);
    // A name that is being looked up holds a thread that cannot be ended; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// What a task of an upgrade has come to.
enum Upgraded {
    /// This process has taken the place of another.
    Followed(Result<Followed, ExitError>),
    /// Another has been tried in the place of this one.
    Given(Outcome),
}

async fn serve(
    config: Config,
    bound: Vec<Vec<Bound>>,
    admin: Vec<Bound>,
    sessions_max: Option<u64>,
    log: telemetry::Handle,
    program: io::Result<Program>,
    following: Option<Following>,
) -> Result<Exit, ExitError> {
    let started = At::now();
    let mut signals = Signals::new().map_err(|e| ExitError::runtime("cannot take signals", &e))?;
    let tasks = TaskTracker::new();
    let end = CancellationToken::new();
    let draining = CancellationToken::new();
    let watched = !admin.is_empty();
    let Started {
        mut pool,
        known,
        mut controls,
        entries,
        histograms,
    } = begin::start(
        &config,
        bound,
        sessions_max,
        watched,
        &tasks,
        &end,
        following.as_ref(),
    )?;
    tasks.spawn(report_dropped_lines(log.lines.clone(), end.clone()));
    let tallies = pool.tallies();
    let hands = pool.hands();
    let readers: Vec<Reader> = known.iter().map(|known| known.reader.clone()).collect();
    let books = entries.iter().map(|entry| entry.book.clone()).collect();
    let upgrades = Upgrades::new(Failure::ALL.map(Failure::label));
    let vitals = Vitals::new(books, pool.hearts(), draining.clone(), upgrades.clone());
    let manager = Arc::new(Manager::from_env());
    let progress = Progress {
        tallies: tallies.clone(),
        readers: readers.clone(),
        draining: draining.clone(),
    };
    let panel = Panel::new(
        started,
        entries,
        tallies.clone(),
        histograms,
        log,
        vitals.clone(),
    );
    let mut front = Front {
        admin_config: config.admin.clone(),
        admin,
        admin_end: CancellationToken::new(),
        admin_thread: None,
        panel: Some(panel),
        attending: Some((vitals, progress)),
        manager: Arc::clone(&manager),
    };
    // At most one: a process follows before it can be followed.
    let mut upgrade: JoinSet<Upgraded> = JoinSet::new();
    let ending = CancellationToken::new();
    match following {
        None => {
            front.open()?;
            manager.ready().await;
            front.attend(&tasks, &end);
        }
        Some(following) => {
            let (known, hands) = (known.clone(), hands.clone());
            let follow = async move { following.follow(&known, &hands).await };
            upgrade.spawn(follow.map(Upgraded::Followed));
        }
    }
    let status = || report::status(&tallies.read(), &readers);

    let mut given_up = pin!(given_up(&ending));
    let mut handed = false;
    let outcome = loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::End if upgrade.is_empty() => break Ok(config.shutdown_grace),
                // It comes to an end, one way or the other, and then this process does.
                Asked::End => ending.cancel(),
                Asked::Status => status(),
                Asked::Hangup => info!(
                    event = "hangup_ignored",
                    "SIGHUP is ignored: for a changed configuration send SIGUSR2 (an upgrade, which closes no session), or restart"
                ),
                Asked::Upgrade => match (&program, upgrade::obstacle(&known)) {
                    _ if !upgrade.is_empty() => refuse_upgrade("under_way"),
                    (Err(_), _) => refuse_upgrade("program_unknown"),
                    (_, Some(why)) => refuse_upgrade(why),
                    (Ok(program), None) => {
                        let estate = Estate {
                            program: program.clone(),
                            entries: known.clone(),
                            hands: hands.clone(),
                            admin: front.copies(),
                            manager: Arc::clone(&manager),
                            grace: config.shutdown_grace,
                            ending: ending.clone(),
                        };
                        upgrade.spawn(upgrade::hand_over(estate).map(Upgraded::Given));
                    }
                },
            },
            Some(upgraded) = upgrade.join_next() => match upgraded {
                Ok(Upgraded::Followed(Ok(followed))) => {
                    for (proxy, bound) in config.proxies.iter().zip(hands.doors().unwrap_or_default()) {
                        report::listening(proxy, &bound);
                    }
                    hands.own_files(true);
                    front.own_files(true);
                    // No reason to end what serves by now.
                    if let Err(error) = front.open() {
                        warn!(event = "admin_off", "no status page and no metrics: {error}");
                    }
                    manager.followed().await;
                    front.attend(&tasks, &end);
                    followed.tell();
                    if ending.is_cancelled() {
                        break Ok(config.shutdown_grace);
                    }
                }
                Ok(Upgraded::Followed(Err(error))) => break Err(error),
                Ok(Upgraded::Given(Outcome::Handed)) => {
                    handed = true;
                    break Ok(config.shutdown_grace);
                }
                Ok(Upgraded::Given(Outcome::Failed(failure))) => {
                    upgrades.failed(failure.label());
                    if ending.is_cancelled() {
                        break Ok(config.shutdown_grace);
                    }
                }
                Err(_) => {
                    let message = "an upgrade was lost to a defect, and nobody knows who serves".to_owned();
                    break Err(ExitError { exit: Exit::Runtime, message });
                }
            },
            // Whoever has been told to end and waits for an upgrade does not wait for ever.
            () = &mut given_up => break Ok(config.shutdown_grace),
            Some(_) = controls.join_next() => {
                error!(event = "control_lost", "a control task has ended by a defect; the process ends, to be restarted whole");
                break Err(ExitError { exit: Exit::Runtime, message: "a control task was lost".to_owned() });
            }
            departed = pool.departed() => {
                let worker = departed.map_or(0, |d| d.worker);
                error!(event = "worker_lost", worker, "a worker thread has ended; the process ends, to be restarted whole");
                let message = "a worker thread was lost".to_owned();
                break Err(ExitError { exit: Exit::Runtime, message });
            }
        }
    };
    draining.cancel();
    if handed {
        // They are the other process's.
        hands.own_files(false);
        front.own_files(false);
        front.close().await;
    }
    // A process that is broken does not go on for anybody's sake: without its control task nothing can be forwarded.
    let grace = *outcome.as_ref().unwrap_or(&Duration::ZERO);
    manager.stopping(grace).await;
    let cut = ending::end(pool, &mut signals, grace, &tallies, status).await;
    end.cancel();
    tasks.close();
    // Whoever has not ended by then only holds sockets that the end of the process closes.
    let _ = timeout(CONTROL_END_LIMIT, tasks.wait()).await;
    // Last, so that it can be asked how the end goes.
    front.close().await;
    outcome.map(|_| if cut == 0 { Exit::Ok } else { Exit::Cut })
}

fn refuse_upgrade(reason: &'static str) {
    warn!(
        event = "upgrade_refused",
        reason, "no upgrade is begun now ({reason}): ask again later, or restart"
    );
}

/// Some time after this process was told to end.
async fn given_up(ending: &CancellationToken) {
    ending.cancelled().await;
    sleep(UPGRADE_END_LIMIT).await;
}

/// What this process shows of itself: the admin endpoint, and what its service manager hears. One that follows another shows it
/// when it has taken its place.
struct Front {
    admin_config: admin::Config,
    /// Copies of what the endpoint listens at.
    admin: Vec<Bound>,
    admin_end: CancellationToken,
    admin_thread: Option<oneshot::Receiver<()>>,
    panel: Option<Panel>,
    attending: Option<(Vitals, Progress)>,
    manager: Arc<Manager>,
}

impl Front {
    fn copies(&self) -> Vec<Bound> {
        let copies = self.admin.iter().map(Bound::try_clone);
        // Without descriptors nothing can be handed over, which is noticed there.
        copies.collect::<io::Result<_>>().unwrap_or_default()
    }

    /// Opens the admin endpoint, if there is to be one.
    fn open(&mut self) -> Result<(), ExitError> {
        let (false, Some(panel)) = (self.admin.is_empty(), self.panel.take()) else {
            return Ok(());
        };
        let config = self.admin_config.clone();
        let thread = admin::thread(self.copies(), config, panel, self.admin_end.clone())
            .map_err(|e| ExitError::runtime("cannot start the admin endpoint", &e))?;
        self.admin_thread = Some(thread);
        Ok(())
    }

    fn attend(&mut self, tasks: &TaskTracker, end: &CancellationToken) {
        if let Some((vitals, progress)) = self.attending.take() {
            let manager = Arc::clone(&self.manager);
            tasks.spawn(manager.attend(vitals, progress, end.clone()));
        }
    }

    fn own_files(&self, own: bool) {
        self.admin.iter().for_each(|bound| bound.own_file(own));
    }

    /// Closes the admin endpoint.
    async fn close(&mut self) {
        self.admin_end.cancel();
        self.admin.clear();
        if let Some(thread) = self.admin_thread.take() {
            // Told when it has ended, or dropped: both are its end.
            let _ = timeout(ADMIN_END_LIMIT, thread).await;
        }
    }
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
