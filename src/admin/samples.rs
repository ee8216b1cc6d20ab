//! The last minutes as points, for the sparklines of the page. Pure.

use std::collections::VecDeque;

use crate::control::ledger::Account;
use crate::net::clock::Moment;
use crate::session::tally::Sum;

/// Points kept, one a second: five minutes.
pub(super) const KEPT: usize = 300;

/// What was so at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    at: Moment,
    bytes: u64,
    sessions: u64,
    unavailable: f64,
}

impl Sample {
    pub(super) fn of(at: Moment, account: &Account, sum: &Sum) -> Self {
        Self {
            at,
            bytes: sum.bytes_up + sum.bytes_down,
            sessions: sum.active(),
            unavailable: account.unavailable_seconds,
        }
    }
}

/// The points, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(VecDeque<Sample>);

impl Samples {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// Bytes a second between neighbours, both directions.
    pub(super) fn throughput(&self) -> Vec<f64> {
        self.steps(|before, after| after.bytes.saturating_sub(before.bytes) as f64)
    }

    /// The share of time in which clients could not be served, between neighbours.
    pub(super) fn unavailable(&self) -> Vec<f64> {
        let shares = self.steps(|before, after| (after.unavailable - before.unavailable).max(0.0));
        shares.into_iter().map(|share| share.min(1.0)).collect()
    }

    pub(super) fn sessions(&self) -> Vec<f64> {
        self.0.iter().map(|sample| sample.sessions as f64).collect()
    }

    fn steps(&self, amount: impl Fn(&Sample, &Sample) -> f64) -> Vec<f64> {
        let pairs = self.0.iter().zip(self.0.iter().skip(1));
        pairs
            .map(|(before, after)| {
                amount(before, after) / after.at.since(before.at).as_secs_f64().max(1e-3)
            })
            .collect()
    }
}
