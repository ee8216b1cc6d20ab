//! What a process that stood still (or has just begun) has to wait for before it decides. Pure.

use std::time::Duration;

use super::{Steward, WAITING_FIRST};
use crate::control::action::{Action, Tale};
use crate::net::clock::Moment;

/// Longest wait for the other Sentinels after the first has answered, at start and after standing still: the first to
/// answer may be the one that was cut off from the others.
const SETTLE: Duration = Duration::from_secs(1);
/// The same while none has answered after standing still: by then a dead link is known to be dead and was redialled.
const SETTLE_SILENT: Duration = Duration::from_secs(3);

impl Steward {
    /// Nothing that was believed counts before it was confirmed.
    pub(super) fn stood_still(&mut self, now: Moment, gap: Duration) {
        self.beliefs.distrust_until(now);
        self.bequest = None;
        self.settling = Some((now, None));
        self.holds.resumed = self.master.is_some();
        if self.trial.take().is_some() {
            self.actions.push_back(Action::StopProbe);
        }
        if let Some(announced) = &mut self.announced {
            announced.stood_still(now);
        }
        self.next_waiting = now + WAITING_FIRST;
        self.tell(Tale::StoodStill(gap));
        self.actions.push_back(Action::AskAll);
    }

    /// Enough Sentinels have answered to decide by them.
    pub(super) fn is_settled(&mut self, now: Moment) -> bool {
        let Some((since, first)) = self.settling else {
            return true;
        };
        let standstill = self.master.is_some();
        let waited = match first {
            Some(first) => now.since(first) >= SETTLE || self.beliefs.is_settled(now, !standstill),
            None => standstill && now.since(since) >= SETTLE_SILENT,
        };
        if waited {
            self.settling = None;
        }
        waited
    }
}
