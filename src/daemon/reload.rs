//! Reads the configuration anew and takes over what is different, without ending a session that need not end.
//!
//! ```text
//! asked (SIGHUP, POST /reload) -> prepare: read, compare, bind   (a thread of its own: a slow disk delays nobody)
//!                              -> carry out: the difference alone (this thread; each step has a limit)
//! ```
//! All or nothing: whatever is wrong is found before the first step, and the old configuration stays in force.

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::entries::{Entries, Running, WayIn};
use super::manager::Manager;
use super::report;
use crate::admin::reload::{Asked, Fault, Outcome, Reloads};
use crate::admin::{self, Upgrades};
use crate::config::difference::{Difference, Effect};
use crate::config::{self, Flags, Loaded};
use crate::listener::{BindError, Bound, Passed, bind_one};
use crate::net::addr::ListenAddr;
use crate::telemetry;
use crate::worker::Stuck;

/// Longest until the files are read and the new listeners bound; a disk that hangs is the only reason.
const PREPARE_LIMIT: Duration = Duration::from_secs(10);
/// Those who wait while another reload is under way: their turn is one for all, and comes after it.
const MAX_WAITING: usize = 16;
/// Longest list of changes in one log line, in characters.
const MAX_WORDS: usize = 2000;

/// Who asked, and where they wait for the answer.
#[derive(Debug)]
struct Asker {
    by: String,
    answer: Option<oneshot::Sender<Outcome>>,
}

/// What is needed to go over to another configuration.
struct Prepared {
    new: Loaded,
    difference: Difference,
    opened: Vec<Opened>,
}

/// A listener that an entry is to get: its place in the new configuration, how it was written, and the sockets.
struct Opened {
    entry: usize,
    written: ListenAddr,
    /// `None`: another entry has it now.
    bound: Option<Vec<Bound>>,
}

/// Why the old configuration stays in force.
struct Unfit {
    /// The new one is in order by itself.
    refused: bool,
    error: config::Error,
}

type Preparing = JoinHandle<Result<Prepared, Unfit>>;

/// See the head of this file.
pub(super) struct Reloader {
    flags: Flags,
    pub(super) current: Arc<Loaded>,
    /// What runs is not what was read last: some of it could not be taken over.
    torn: bool,
    reloads: Reloads,
    log: telemetry::Handle,
    admin: watch::Sender<admin::Config>,
    manager: Arc<Manager>,
    under_way: Option<(Preparing, Vec<Asker>, Instant)>,
    waiting: Vec<Asker>,
    /// An upgrade is under way: what it hands over stays as it is.
    upgrading: bool,
    upgrades: Upgrades,
}

/// What came of the preparation.
pub(super) struct Ready {
    outcome: Result<Box<Prepared>, Refusal>,
    askers: Vec<Asker>,
}

/// Why nothing is changed.
struct Refusal {
    refused: bool,
    problems: Vec<Fault>,
}

impl Reloader {
    pub(super) fn new(
        flags: Flags,
        loaded: Loaded,
        reloads: Reloads,
        log: telemetry::Handle,
        admin: watch::Sender<admin::Config>,
        manager: Arc<Manager>,
        upgrades: Upgrades,
    ) -> Self {
        Self {
            flags,
            current: Arc::new(loaded),
            torn: false,
            reloads,
            log,
            admin,
            manager,
            under_way: None,
            waiting: Vec::new(),
            upgrading: false,
            upgrades,
        }
    }

    /// Those who ask while an upgrade is under way, or waits for the reload that is, are refused; and so are those who order something
    /// of one entry.
    pub(super) fn upgrading(&mut self, upgrading: bool) {
        self.upgrades.note_under_way(upgrading);
        self.upgrading = upgrading;
    }

    /// A reload is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Somebody who can ask the endpoint wants a reload.
    pub(super) async fn asked(&mut self, asked: Asked) {
        let Asked { by, answer } = asked;
        let answer = Some(answer);
        self.ask(Asker { by, answer }).await;
    }

    /// SIGHUP. Several before the next reload begins are one.
    pub(super) async fn signalled(&mut self) {
        if self.waiting.iter().all(|asker| asker.answer.is_some()) {
            let by = "SIGHUP".to_owned();
            self.ask(Asker { by, answer: None }).await;
        }
    }

    async fn ask(&mut self, asker: Asker) {
        if self.upgrading {
            self.manager.reloading().await;
            self.conclude(&Refusal::upgrading().outcome(), vec![asker])
                .await;
            return;
        }
        // Beyond that the asker hears that there is no answer.
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(asker);
        }
        self.begin().await;
    }

    /// Begins to prepare, unless that is under way: what is read then may be older than what somebody has just written.
    async fn begin(&mut self) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        self.manager.reloading().await;
        let (flags, old) = (self.flags.clone(), Arc::clone(&self.current));
        let preparing = spawn_blocking(move || prepare(&flags, &old));
        let askers = std::mem::take(&mut self.waiting);
        self.under_way = Some((preparing, askers, Instant::now() + PREPARE_LIMIT));
    }

    /// Waits until something is prepared; for ever where nothing was asked for. Cancel-safe.
    pub(super) async fn prepared(&mut self) -> Ready {
        let Some((preparing, _, until)) = &mut self.under_way else {
            return pending().await;
        };
        let outcome = tokio::select! {
            prepared = preparing => prepared.map_err(|_| Refusal::of_process("reading the configuration met a defect")),
            () = sleep_until(*until) => Err(Refusal::of_process("the configuration could not be read in time: is the disk slow?")),
        };
        let outcome = match outcome {
            Ok(Ok(prepared)) => Ok(Box::new(prepared)),
            Ok(Err(unfit)) => Err(Refusal::from(unfit)),
            Err(refusal) => Err(refusal),
        };
        let askers = self.under_way.take().map_or_else(Vec::new, |(_, a, _)| a);
        Ready { outcome, askers }
    }

    /// Takes the difference over, and tells everybody what came of it.
    pub(super) async fn carry_out(&mut self, ready: Ready, entries: &mut Entries) {
        let Ready { outcome, askers } = ready;
        let outcome = match outcome {
            Ok(prepared) => {
                let by = names(&askers);
                self.take_over(*prepared, entries, &by).await
            }
            Err(refusal) => refusal.outcome(),
        };
        self.conclude(&outcome, askers).await;
        self.begin().await;
    }

    /// Tells everybody what came of it.
    async fn conclude(&self, outcome: &Outcome, askers: Vec<Asker>) {
        // Whoever reads the line finds it counted.
        self.reloads.note(outcome, SystemTime::now());
        tell(outcome, &names(&askers));
        for answer in askers.into_iter().filter_map(|asker| asker.answer) {
            // Whoever asked may have given up.
            let _ = answer.send(outcome.clone());
        }
        self.manager.ready().await;
    }

    async fn take_over(&mut self, new: Prepared, entries: &mut Entries, by: &str) -> Outcome {
        let Prepared {
            new,
            difference,
            opened,
        } = new;
        let opened = match sockets(opened, &difference, &new, entries) {
            Ok(opened) => opened,
            Err(unfit) => return Refusal::from(unfit).outcome(),
        };
        if self.torn {
            return Refusal::of_process(
                "an earlier reload could be taken over in part only, and nothing is changed on top of that; restart (systemctl restart \
                 switchmaster)",
            )
            .outcome();
        }
        let warnings = new.warnings.clone();
        for warning in &warnings {
            warn!(event = "config_warning", "{warning}");
        }
        if difference.is_nothing() {
            // Their order is not what anybody is served by.
            entries.arrange(&new.config);
            self.current = Arc::new(new);
            return Outcome::Unchanged { warnings };
        }
        if difference.has(Effect::Log)
            && let Err(error) = self.log.filter.configure(&new.config.log.level, by)
        {
            // It was looked at when it was read.
            warn!(event = "config_warning", "log.level: {error}");
        }
        if difference.has(Effect::Admin) {
            self.admin.send_replace(new.config.admin.clone());
        }
        let changed = apply(&new, &difference, opened, entries).await;
        self.torn = changed.is_err();
        self.current = Arc::new(new);
        match changed {
            Ok(()) => Outcome::Reloaded {
                changed: difference.words().to_vec(),
                warnings,
            },
            Err(stuck) => Refusal::of_process(&format!(
                "{stuck}: only a part of the change is in force; restart (systemctl restart switchmaster)"
            ))
            .outcome(),
        }
    }
}

fn names(askers: &[Asker]) -> String {
    let by = askers.iter().map(|asker| asker.by.as_str());
    by.collect::<Vec<_>>().join(", ")
}

/// Reads, compares and binds.
fn prepare(flags: &Flags, old: &Loaded) -> Result<Prepared, Unfit> {
    let invalid = |error| Unfit {
        refused: false,
        error,
    };
    let refused = |error| Unfit {
        refused: true,
        error,
    };
    let new = config::load(flags, std::env::vars_os()).map_err(invalid)?;
    let difference = Difference::between(old, &new).map_err(refused)?;
    let mut opened = Vec::new();
    for (entry, written) in difference.opened(&new) {
        let listener = &new.config.proxies[entry].listener;
        let bound = if difference.is_held(old, written) {
            None
        } else {
            let bound = bind_one(written, listener, &mut Passed::nothing());
            Some(bound.map_err(|error| refused(new.cannot_bind(entry, &error)))?)
        };
        opened.push(Opened {
            entry,
            written: written.clone(),
            bound,
        });
    }
    Ok(Prepared {
        new,
        difference,
        opened,
    })
}

/// The sockets of every listener that is to be opened, those that change hands doubled; each with the place of its entry.
fn sockets(
    opened: Vec<Opened>,
    difference: &Difference,
    new: &Loaded,
    entries: &Entries,
) -> Result<Vec<(usize, WayIn)>, Unfit> {
    let refused = |entry, error: &BindError| Unfit {
        refused: true,
        error: new.cannot_bind(entry, error),
    };
    let guarded = |entry: usize, held: &Bound| {
        let is_guarded = new.config.proxies[entry].listener.is_guarded();
        let checked = held.check_guarded(is_guarded);
        checked.map_err(|error| refused(entry, &error))
    };
    for kept in &difference.kept {
        let running = entries.of(&new.config.proxies[kept.new]);
        for held in running.iter().flat_map(|running| &running.held) {
            guarded(kept.new, held)?;
        }
    }
    let mut all = Vec::new();
    for Opened {
        entry,
        written,
        bound,
    } in opened
    {
        let no_descriptor = |source| {
            let addr = written.clone();
            refused(entry, &BindError::Socket { addr, source })
        };
        let sockets = match bound {
            Some(bound) => bound,
            None => {
                let now = entries.running.iter().flat_map(|running| &running.held);
                let same = now.filter(|held| *held.asked() == written);
                let doubles: io::Result<Vec<_>> = same.map(Bound::double).collect();
                doubles.map_err(no_descriptor)?
            }
        };
        for bound in sockets {
            guarded(entry, &bound)?;
            all.push((entry, WayIn::new(bound).map_err(no_descriptor)?));
        }
    }
    Ok(all)
}

/// Changes what runs.
async fn apply(
    new: &Loaded,
    difference: &Difference,
    opened: Vec<(usize, WayIn)>,
    entries: &mut Entries,
) -> Result<(), Stuck> {
    let config = &new.config;
    let mut old = std::mem::take(&mut entries.running);
    // Who may come in, before there is another way in.
    let mut result = Ok(());
    let mut note = |done: Result<(), Stuck>| {
        if result.is_ok() {
            result = done;
        }
    };
    let mut next: Vec<Option<Running>> = config.proxies.iter().map(|_| None).collect();
    for kept in &difference.kept {
        let proxy = &config.proxies[kept.new];
        let Some(at) = old.iter().position(|running| running.is_of(proxy)) else {
            continue;
        };
        let mut running = old.remove(at);
        let made_otherwise = [Effect::Sessions, Effect::Admission, Effect::Upstream];
        if made_otherwise
            .into_iter()
            .any(|effect| difference.has(effect))
        {
            note(entries.change(running.number, proxy).await);
        }
        for held in &running.held {
            if let Err(error) = held.dress(&proxy.listener) {
                let addr = held.addr();
                warn!(
                    event = "config_warning",
                    "{addr} keeps the permissions that it had: {error}"
                );
            }
        }
        for written in &kept.closed {
            while let Some(at) = running.held.iter().position(|h| h.asked() == written) {
                let held = running.held.remove(at);
                note(entries.close(running.number, held).await);
                // Of several with port 0, one for each that is written.
                if !matches!(written, ListenAddr::Systemd(_)) {
                    break;
                }
            }
        }
        next[kept.new] = Some(running);
    }
    for mut running in old {
        for held in running.held.drain(..) {
            note(entries.close(running.number, held).await);
        }
        entries.leave(running, config.shutdown_grace);
    }
    for at in &difference.added {
        match entries.add(&config.proxies[*at], &config.rules).await {
            Ok(running) => next[*at] = Some(running),
            Err(stuck) => note(Err(stuck)),
        }
    }
    for (at, way) in opened {
        if let Some(running) = &mut next[at] {
            report::listening(&config.proxies[at], std::slice::from_ref(&way.held));
            note(entries.open(running, way).await);
        }
    }
    entries.running = next.into_iter().flatten().collect();
    entries.settle(config);
    let entry = difference.has(Effect::Entry);
    if entry || difference.has(Effect::Sentinels) || difference.has(Effect::Rules) {
        entries.follow(config).await;
    }
    result
}

impl Refusal {
    /// Nothing that was written is wrong.
    fn of_process(what: &str) -> Self {
        Self::with_help(what, "see the log for more, and reload again")
    }

    fn upgrading() -> Self {
        Self::with_help(
            "an upgrade is under way",
            "the new process reads the configuration as it starts; if it is older than the file, reload again behind took_over or \
             upgrade_failed",
        )
    }

    fn with_help(what: &str, help: &str) -> Self {
        let problems = vec![Fault {
            place: None,
            line: None,
            what: what.to_owned(),
            help: help.to_owned(),
        }];
        Self {
            refused: true,
            problems,
        }
    }

    fn outcome(self) -> Outcome {
        let Self { refused, problems } = self;
        Outcome::Failed { refused, problems }
    }
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        let problems = unfit.error.problems().iter().map(|problem| Fault {
            place: problem.place(),
            line: problem.line().map(|(_, line)| line),
            what: problem.what().to_owned(),
            help: problem.help().to_owned(),
        });
        Self {
            refused: unfit.refused,
            problems: problems.collect(),
        }
    }
}

/// One line, or one for each thing that is wrong.
fn tell(outcome: &Outcome, by: &str) {
    match outcome {
        Outcome::Reloaded { changed, .. } => {
            let mut words = changed.join("; ");
            if let Some((at, _)) = words.char_indices().nth(MAX_WORDS) {
                words.truncate(at);
                words.push_str("...");
            }
            let count = changed.len();
            info!(event = "reloaded", by, count, changed = %words, "the configuration is another now: {words}");
        }
        Outcome::Unchanged { .. } => {
            info!(
                event = "reload_unchanged",
                by, "what was read is what is run"
            );
        }
        Outcome::Failed { problems, .. } => {
            for Fault {
                place,
                line,
                what,
                help,
            } in problems
            {
                let at = place
                    .as_ref()
                    .map_or_else(String::new, |at| format!("{at}: "));
                let help = help.replace('\n', " ");
                warn!(
                    event = "reload_failed",
                    by, place, line, what, help, "the old configuration stays in force: {at}{what}"
                );
            }
        }
    }
}
