//! Whether every thread and loop of the process turns, whatever the state of Redis: what `/livez` and a service manager's watchdog are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    upgrades: Upgrades,
}

/// Upgrades that came to nothing, by reason. There is at most one at a time, and it takes a while: nothing here is in a hurry.
#[derive(Clone, Debug, Default)]
pub struct Upgrades {
    failed: Arc<Mutex<BTreeMap<&'static str, u64>>>,
    under_way: Arc<AtomicBool>,
}

impl Upgrades {
    /// None yet, for any of these reasons.
    pub fn new(reasons: impl IntoIterator<Item = &'static str>) -> Self {
        let zero = reasons.into_iter().map(|reason| (reason, 0));
        Self {
            failed: Arc::new(Mutex::new(zero.collect())),
            under_way: Arc::default(),
        }
    }

    /// One is under way, or waits to be begun; or none any more.
    pub fn note_under_way(&self, is: bool) {
        self.under_way.store(is, Ordering::Release);
    }

    /// One more.
    pub fn failed(&self, reason: &'static str) {
        *self.locked().entry(reason).or_default() += 1;
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vitals {
    /// Of these control tasks and workers, until `draining` and after.
    pub fn new(
        roster: Roster,
        hearts: Hearts,
        draining: CancellationToken,
        upgrades: Upgrades,
    ) -> Self {
        Self {
            roster,
            hearts,
            draining,
            upgrades,
        }
    }

    /// Upgrades that came to nothing.
    /// While one is under way, what is ordered here would not be known there.
    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrades.under_way.load(Ordering::Acquire)
    }

    pub(super) fn failed_upgrades(&self) -> Vec<(&'static str, u64)> {
        let failed = self.upgrades.locked();
        failed
            .iter()
            .map(|(reason, count)| (*reason, *count))
            .collect()
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
