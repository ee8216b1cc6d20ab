//! One candidate being verified: how often it was asked and when it is asked again. Pure.

use std::time::Duration;

use crate::net::clock::Moment;
use crate::topology::MasterAddr;
use crate::topology::decide::Candidate;
use crate::topology::observation::RoleReport;

/// Waits between tries to verify a candidate; the last repeats.
const VERIFY_AGAIN: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(250),
];

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) candidate: Candidate,
    pub(super) decided_at: Moment,
    tries: usize,
    /// `None` while a dial is under way.
    next: Option<Moment>,
    told: Option<&'static str>,
    /// What came of the last dial.
    last: Option<RoleReport>,
}

impl Trial {
    /// The first dial is under way.
    pub(super) const fn new(decided_at: Moment, candidate: Candidate) -> Self {
        Self {
            candidate,
            decided_at,
            tries: 0,
            next: None,
            told: None,
            last: None,
        }
    }

    /// When the next dial is due, unless one is under way.
    pub(super) const fn next(&self) -> Option<Moment> {
        self.next
    }

    /// Who is asked, and why that one is not accepted, once it was asked.
    pub(super) fn rejected(&self) -> Option<(MasterAddr, RoleReport)> {
        Some((self.candidate.addr.clone(), self.last.clone()?))
    }

    /// The same candidate with the voices it has now. More of them may be what was missing: it is asked at once.
    pub(super) fn renew(&mut self, now: Moment, candidate: Candidate) {
        let gained = candidate.has_majority() && !self.candidate.has_majority();
        self.candidate = candidate;
        if gained && self.next.is_some() {
            self.next = Some(now);
        }
    }

    /// True when a dial is due; it is then under way.
    pub(super) fn begin_dial(&mut self, now: Moment) -> bool {
        let due = self.next.is_some_and(|next| now >= next);
        if due {
            self.next = None;
        }
        due
    }

    /// A dial did not convince. True when that is news.
    pub(super) fn failed(&mut self, now: Moment, report: &RoleReport) -> bool {
        self.next = Some(now + VERIFY_AGAIN[self.tries.min(VERIFY_AGAIN.len() - 1)]);
        self.tries += 1;
        self.last = Some(report.clone());
        self.told.replace(report.label()) != Some(report.label())
    }
}
