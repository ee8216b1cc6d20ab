//! Whether every thread and loop of the process turns, whatever the state of Redis: what `/livez` and a service manager's watchdog are told.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Roster;
use crate::net::clock::At;
use crate::worker::Hearts;

/// What has not turned for so long is stuck; control tasks turn each 100 ms, workers note it each 250 ms.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Reads what each control task and each worker writes down as it turns.
#[derive(Clone, Debug)]
pub struct Vitals {
    roster: Roster,
    hearts: Hearts,
    /// Cancelled when the process has begun to end.
    draining: CancellationToken,
}

impl Vitals {
    /// Of these control tasks and workers, until `draining` and after.
    pub fn new(roster: Roster, hearts: Hearts, draining: CancellationToken) -> Self {
        Self {
            roster,
            hearts,
            draining,
        }
    }

    /// The process was told to end, and sessions finish what they have begun.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// The longest time for which any of them has not turned.
    pub fn idle(&self, at: At) -> Duration {
        self.each(at)
            .map(|(_, idle)| idle)
            .max()
            .unwrap_or_default()
    }

    /// Those that are stuck.
    pub(super) fn stuck(&self, at: At) -> Vec<String> {
        self.each(at)
            .filter(|(_, idle)| *idle >= STUCK_AFTER)
            .map(|(name, _)| name)
            .collect()
    }

    fn each(&self, at: At) -> impl Iterator<Item = (String, Duration)> {
        let entries = self.roster.entries();
        let tasks = entries.iter().map(|entry| {
            let (proxy, idle) = entry.book.with(|ledger| ledger.idle(at));
            (format!("the control task of {proxy}"), idle)
        });
        let tasks: Vec<_> = tasks.collect();
        let workers = self.hearts.idle(at.moment).enumerate();
        tasks
            .into_iter()
            .chain(workers.map(|(n, idle)| (format!("worker {n}"), idle)))
    }
}
