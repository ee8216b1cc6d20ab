//! Composition root: binds, builds the rooms, connects the two flows at `topology::publish`, and ends everything.
//!
//! ```text
//! this thread: control plane (watchers, control tasks, signals)      threads 1..n: data-plane workers
//! one more thread: the admin endpoint
//! ```
//! What begins it is in `begin`, what ends it in `ending`, what changes it while it runs in `reload` and `entries`; what it shows of itself
//! in `front`, what its service manager hears of it in `manager`; how it follows another process in `takeover`, and how it is followed
//! in `upgrade`, by the program in `program`.
//!
//! The control plane has a runtime of its own, so that a saturated data plane never delays a failover.

mod begin;
mod ending;
mod entries;
mod front;
mod known;
mod manager;
mod program;
mod readers;
mod reload;
mod report;
mod settings;
mod signals;
mod takeover;
mod upgrade;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::entries::{Entries, Shared};
use self::front::Front;
use self::program::Program;
use self::reload::Reloader;
use self::report::Progress;
use self::signals::{Asked, Signals};
use self::takeover::{Followed, Following, Predecessor};
use self::upgrade::Estate;
use crate::admin::reload::Reloads;
use crate::admin::{self, Histograms, Panel, Upgrades, Vitals};
use crate::config::{Flags, Loaded};
use crate::exit::Exit;
use crate::listener::{BindError, Bound, Passed};
use crate::net::clock::At;
use crate::telemetry::{self, Lines};
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

/// Serves until a signal ends it. SIGTERM or SIGINT ends in order, a second one at once; SIGHUP reads the configuration anew,
/// under the same flags; SIGUSR1 writes the state to the log, SIGUSR2 starts an upgrade. Gives [`Exit::Ok`], or [`Exit::Cut`].
///
/// # Errors
/// When serving cannot begin, or a worker was lost.
pub fn run(flags: &Flags, loaded: Loaded, log: telemetry::Handle) -> Result<Exit, ExitError> {
    let passed = Passed::from_env();
    let program = Program::of_this_process();
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
    let sessions_max = begin::note_open_files();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ExitError::runtime("cannot start the control plane", &e))?;
    let mut following = match Predecessor::of_this_process()? {
        Some(predecessor) => Some(runtime.block_on(Following::greet(predecessor, config))?),
        None => None,
    };
    let mut inherited = following
        .as_mut()
        .map(Following::listeners)
        .unwrap_or_default();
    // Binding comes first: nobody is asked anything by a process that cannot serve.
    let bound = Listeners {
        entries: begin::bind(config, &mut inherited, passed)?,
        admin: begin::bind_admin(&config.admin, &mut inherited)?,
        sessions_max,
        unclaimed: inherited.unclaimed(),
    };
    let serving = serve((flags, loaded), bound, log, program, following);
    let outcome = runtime.block_on(serving);
    // A name that is being looked up holds a thread that cannot be ended; nobody waits for it.
    runtime.shutdown_background();
    outcome
}

/// Where this process listens, and how many sessions it has files for.
struct Listeners {
    /// One list for each entry.
    entries: Vec<Vec<Bound>>,
    admin: Vec<Bound>,
    sessions_max: Option<u64>,
    /// What the process before listened on, and no `listen` names any more.
    unclaimed: Vec<Bound>,
}

/// What a task of an upgrade has come to.
enum Upgraded {
    /// This process has taken the place of another.
    Followed(Result<Followed, ExitError>),
    /// Another has been tried in the place of this one.
    Given(Outcome),
}

async fn serve(
    (flags, loaded): (&Flags, Loaded),
    bound: Listeners,
    log: telemetry::Handle,
    program: io::Result<Program>,
    following: Option<Following>,
) -> Result<Exit, ExitError> {
    let started = At::now();
    let mut signals = Signals::new().map_err(|e| ExitError::runtime("cannot take signals", &e))?;
    let tasks = TaskTracker::new();
    let end = CancellationToken::new();
    let draining = CancellationToken::new();
    let histograms = Histograms::default();
    let shared = Shared::new(histograms.clone(), !bound.admin.is_empty(), &tasks, &end);
    let (mut entries, mut pool) = Entries::start(
        &loaded.config,
        bound.entries,
        bound.sessions_max,
        shared,
        following.as_ref(),
    )?;
    tasks.spawn(report_dropped_lines(log.lines.clone(), end.clone()));
    let tallies = pool.tallies();
    let roster = entries.roster.clone();
    let upgrades = Upgrades::new(Failure::ALL.map(Failure::label));
    let vitals = Vitals::new(
        roster.clone(),
        pool.hearts(),
        draining.clone(),
        upgrades.clone(),
    );
    let (admin_config, configured) = watch::channel(loaded.config.admin.clone());
    let (reload, mut reload_asked) = admin::reload::channel();
    let reloads = Reloads::default();
    let panel = Panel::new(
        started,
        roster.clone(),
        histograms,
        log.clone(),
        vitals.clone(),
        (reload, reloads.clone()),
    );
    let mut unclaimed = bound.unclaimed;
    let progress = Progress {
        roster: roster.clone(),
        draining: draining.clone(),
    };
    let mut front = Front::new((bound.admin, configured), panel, (vitals, progress));
    let manager = Arc::clone(&front.manager);
    let mut reloader = Reloader::new(
        flags.clone(),
        loaded,
        reloads,
        log,
        admin_config,
        Arc::clone(&manager),
        upgrades.clone(),
    );
    // At most one: a process follows before it can be followed.
    let mut upgrade: JoinSet<Upgraded> = JoinSet::new();
    // One is to be begun behind the reload that is under way.
    let mut upgrade_waits = false;
    let ending = CancellationToken::new();
    match following {
        None => {
            front.open()?;
            manager.ready().await;
            front.attend(&tasks, &end);
        }
        Some(following) => {
            reloader.upgrading(true);
            let (known, reins) = (entries.known(), entries.reins());
            let known = known.map_err(|e| ExitError::runtime("cannot keep a listener", &e))?;
            let ending = ending.clone();
            let follow = async move { following.follow(&known, &reins, &ending).await };
            upgrade.spawn(follow.map(Upgraded::Followed));
        }
    }
    let status = || report::status(&roster);

    let mut given_up = pin!(given_up(&ending));
    let mut handed = false;
    let outcome = loop {
        if upgrade_waits && !reloader.is_under_way() {
            upgrade_waits = false;
            match estate(&program, &entries, &front, &reloader, &ending) {
                Ok(estate) => {
                    upgrade.spawn(upgrade::hand_over(estate).map(Upgraded::Given));
                }
                Err(why) => {
                    reloader.upgrading(false);
                    refuse_upgrade(why);
                }
            }
        }
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::End if upgrade.is_empty() => break Ok(reloader.current.config.shutdown_grace),
                // A second one: at once.
                Asked::End if ending.is_cancelled() => break Ok(Duration::ZERO),
                // It comes to an end, one way or the other, and then this process does.
                Asked::End => ending.cancel(),
                Asked::Status => status(),
                Asked::Hangup => reloader.signalled().await,
                Asked::Upgrade if upgrade_waits || !upgrade.is_empty() => refuse_upgrade("under_way"),
                Asked::Upgrade => {
                    reloader.upgrading(true);
                    upgrade_waits = true;
                    if reloader.is_under_way() {
                        info!(event = "upgrade_waits", "a reload is under way: the upgrade begins behind it");
                    }
                }
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
            Some(upgraded) = upgrade.join_next() => {
                reloader.upgrading(false);
                match upgraded {
                    Ok(Upgraded::Followed(Ok(followed))) => {
                        entries.tell_listening(&reloader.current.config);
                        entries.own_files(true);
                        front.own_files(true);
                        // Nobody listens there any more, and the files are nobody else's.
                        for bound in unclaimed.drain(..) {
                            bound.own_file(true);
                        }
                        // No reason to end what serves by now.
                        if let Err(error) = front.open() {
                            warn!(event = "admin_off", "no status page and no metrics: {error}");
                        }
                        manager.followed().await;
                        front.attend(&tasks, &end);
                        followed.tell();
                    }
                    Ok(Upgraded::Followed(Err(error))) => break Err(error),
                    Ok(Upgraded::Given(Outcome::Handed)) => {
                        handed = true;
                        break Ok(reloader.current.config.shutdown_grace);
                    }
                    Ok(Upgraded::Given(Outcome::Failed(failure))) => upgrades.failed(failure.label()),
                    Err(_) => {
                        let message = "an upgrade was lost to a defect, and nobody knows who serves".to_owned();
                        break Err(ExitError { exit: Exit::Runtime, message });
                    }
                }
                if ending.is_cancelled() {
                    break Ok(reloader.current.config.shutdown_grace);
                }
            }
            // Whoever has been told to end and waits for an upgrade does not wait for ever.
            () = &mut given_up => break Ok(reloader.current.config.shutdown_grace),
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
    if handed {
        // They are the other process's.
        entries.own_files(false);
        front.own_files(false);
    }
    entries.let_go();
    draining.cancel();
    if handed {
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

/// All that there is to hand over now, which no reload changes meanwhile; or why no upgrade is begun.
fn estate(
    program: &io::Result<Program>,
    entries: &Entries,
    front: &Front,
    reloader: &Reloader,
    ending: &CancellationToken,
) -> Result<Estate, &'static str> {
    let program = program.as_ref().map_err(|_| "program_unknown")?;
    let no_files = |_| "no_descriptors";
    let known = entries.known().map_err(no_files)?;
    if let Some(why) = upgrade::obstacle(program, &known) {
        return Err(why);
    }
    Ok(Estate {
        program: program.clone(),
        entries: known,
        reins: entries.reins(),
        admin: front.doubles().map_err(no_files)?,
        manager: Arc::clone(&front.manager),
        grace: reloader.current.config.shutdown_grace,
        ending: ending.clone(),
    })
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
