//! When people are told that something is not as it should be. Pure.

use std::time::Duration;

use super::trial::Trial;
use super::{Steward, WAITING_FIRST};
use crate::control::action::Tale;
use crate::net::clock::Moment;
use crate::topology::Phase;
use crate::topology::decide::{Verdict, Why};

/// How often it is said that there is still no master.
const WAITING_EVERY: Duration = Duration::from_secs(10);
/// Most silent Sentinels named in one line.
const MOST_NAMED: usize = 5;

impl Steward {
    pub(super) fn note_health(&mut self, now: Moment, verdict: &Verdict) {
        let lost = matches!(verdict, Verdict::Keep(Why::NoFreshView)) && self.master.is_some();
        if lost != self.lost {
            self.lost = lost;
            let census = self.beliefs.census(now, None);
            self.tell(if lost {
                Tale::SentinelsLost(census)
            } else {
                Tale::SentinelsBack
            });
        }
        let ambiguous = matches!(verdict, Verdict::Keep(Why::Ambiguous));
        if ambiguous != self.ambiguous {
            self.ambiguous = ambiguous;
            self.tell(Tale::Ambiguous(ambiguous));
        }
    }

    pub(super) fn tell_waiting(&mut self, now: Moment) {
        if self.published.phase == Phase::Serving {
            self.next_waiting = now + WAITING_FIRST;
        } else if now >= self.next_waiting {
            self.next_waiting = now + WAITING_EVERY;
            let census = self.beliefs.census(now, None);
            let silent = self.beliefs.silent(MOST_NAMED);
            let rejected = self.trial.as_ref().and_then(Trial::rejected);
            let held = self.held.map(|held| held.cause);
            self.tell(Tale::Waiting {
                census,
                silent,
                rejected,
                held,
            });
        }
    }
}
