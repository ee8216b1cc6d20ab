//! The admin endpoint: one page, one JSON and one list of metrics for those who look after the proxy. Read-only, unless
//! actions are allowed.
//!
//! ```text
//! control tasks --Book--\
//! workers --Counters-----+--> Panel --> GET / (page)  /status (JSON)  /metrics  /livez  /readyz  /events
//! log --Recent-----------/
//! control tasks <--Order---- POST /proxies/NAME/pause, resume, reconnect
//! log <--Filter------------- POST /log
//! the process <--Asked------ POST /reload
//! ```
//!
//! On a thread of its own: however many ask, no failover and no client waits for it. Whoever asks is bounded in number, size and time.

mod actions;
mod http;
mod metrics;
mod page;
pub mod reload;
mod roster;
mod samples;
pub mod status;
pub mod table;
mod vitals;

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use secrecy::SecretString;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actions::Refusals;
use self::http::serve;
pub use self::metrics::Histograms;
use self::reload::{Reload, Reloads};
pub use self::roster::{Certificate, Entry, Roster};
use self::samples::{Sample, Samples};
use self::status::{ProxyStatus, Status};
pub use self::vitals::{STUCK_AFTER, Upgrades, Vitals};
use crate::control::ledger::{Account, Totals};
use crate::listener::{self, Bound};
use crate::net::addr::ListenAddr;
use crate::net::clock::{At, now};
use crate::telemetry;
use crate::worker::Counters;

/// Longest wait for the endpoint's connections at the end; they only have sockets to drop.
const END_LIMIT: Duration = Duration::from_millis(200);

/// Runs the endpoint on a thread of its own until `end`. What this returns completes when it has ended.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn thread(
    bound: Vec<Bound>,
    config: watch::Receiver<Config>,
    panel: Panel,
    end: CancellationToken,
) -> io::Result<oneshot::Receiver<()>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (ended, ending) = oneshot::channel();
    std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                let tasks = TaskTracker::new();
                let panel = Arc::new(panel);
                tasks.spawn(Arc::clone(&panel).watch(end.clone()));
                serve(bound, config, panel, &tasks, &end);
                end.cancelled().await;
                tasks.close();
                let _ = timeout(END_LIMIT, tasks.wait()).await;
            });
            drop(runtime);
            // Nobody listens any more where the process ended at once.
            let _ = ended.send(());
        })?;
    Ok(ending)
}

/// Where the endpoint listens unless told otherwise.
pub const DEFAULT_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8479);
/// Connections at once; a browser holds six, Prometheus one.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// How often the sparklines get a point and the histograms are tidied.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// Behind every headline while a reload has been refused.
const OLD_CONFIGURATION: &str =
    " The last reload failed (reload_failed in the log): an older configuration is in force.";

/// The `[admin]` section.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where; nowhere when empty.
    pub listener: listener::Config,
    /// Whether those may act who are entitled to.
    pub actions: bool,
    /// What entitles over TCP.
    pub token: Option<SecretString>,
}

impl Config {
    /// An address that somebody chose: the process does not start without it. The usual one may be another proxy's on this host.
    pub fn is_required(&self) -> bool {
        self.listener.listen != [ListenAddr::Tcp(DEFAULT_LISTEN.into())]
    }
}

/// All that can be looked at.
pub struct Panel {
    started: At,
    roster: Roster,
    histograms: Histograms,
    log: telemetry::Handle,
    refusals: Refusals,
    vitals: Vitals,
    reload: Reload,
    reloads: Reloads,
}

impl fmt::Debug for Panel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panel")
            .field("roster", &self.roster)
            .finish_non_exhaustive()
    }
}

impl Panel {
    /// Looks at these entries.
    pub fn new(
        started: At,
        roster: Roster,
        histograms: Histograms,
        log: telemetry::Handle,
        vitals: Vitals,
        (reload, reloads): (Reload, Reloads),
    ) -> Self {
        Self {
            started,
            roster,
            histograms,
            log,
            refusals: Refusals::default(),
            vitals,
            reload,
            reloads,
        }
    }

    /// Takes a sample each second until `end`.
    pub async fn watch(self: Arc<Self>, end: CancellationToken) {
        let mut tick = interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while end.run_until_cancelled(tick.tick()).await.is_some() {
            self.look(At::now(), true);
            self.log.filter.expire(now());
        }
    }

    /// The entries as they are, the new outages taken into the histograms.
    fn look(&self, at: At, sample: bool) -> Vec<(Arc<Entry>, Account, Totals, Counters)> {
        let entries = self.roster.entries();
        let mut looks = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let counters = entry.counting.read();
            let (account, totals) = entry
                .book
                .with(|ledger| (ledger.account(at), ledger.totals().clone()));
            entry.with_seen(|seen| {
                if sample {
                    let sample = Sample::of(at.moment, &account, &counters.sessions);
                    seen.samples.push(sample);
                }
                // Of more than the ledger remembers the oldest are not recorded.
                let over: Vec<_> = account.outages.iter().filter(|o| o.is_over()).collect();
                let forgotten = account.outages_total - over.len() as u64;
                seen.recorded = seen.recorded.max(forgotten);
                let new = usize::try_from(seen.recorded - forgotten).unwrap_or(usize::MAX);
                for outage in over.into_iter().skip(new).take_while(|o| o.is_told()) {
                    self.histograms.record(&account.proxy, outage);
                    seen.recorded += 1;
                }
            });
            looks.push((Arc::clone(entry), account, totals, counters));
        }
        self.histograms.upkeep();
        looks
    }

    /// The whole story, as `/status` gives it.
    pub fn status(&self) -> Status {
        let at = At::now();
        let draining = self.vitals.is_draining();
        let refused = !self.reloads.read().last_succeeded;
        let proxies: Vec<_> = self
            .look(at, false)
            .into_iter()
            .map(|(entry, account, _, counters)| {
                let mut proxy = ProxyStatus::new(account, &entry.listen.load(), &counters);
                if draining {
                    proxy.headline.insert_str(0, "Draining, no new clients. ");
                }
                if refused {
                    proxy.headline.push_str(OLD_CONFIGURATION);
                }
                proxy
            })
            .collect();
        Status {
            draining,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now_at: at.unix_of(at.moment),
            started_at: self.started.unix_of(self.started.moment),
            uptime_seconds: at.moment.since(self.started.moment).as_secs_f64(),
            log_lines_dropped: self.log.lines.dropped(),
            proxies,
        }
    }

    /// What Prometheus is told.
    fn metrics(&self) -> String {
        let seen = self.look(At::now(), false);
        let dropped = self.log.lines.dropped();
        let process = metrics::Process {
            lines_dropped: dropped,
            refusals: &self.refusals,
            vitals: &self.vitals,
            reloads: self.reloads.read(),
            certificates: &self.roster.certificates(),
        };
        metrics::render(&seen, &self.histograms, &process)
    }

    /// The sparklines of an entry.
    fn samples(&self, entry: &str) -> Samples {
        let entry = self.roster.find(entry);
        entry.map_or_else(Samples::default, |entry| {
            entry.with_seen(|seen| seen.samples.clone())
        })
    }
}
