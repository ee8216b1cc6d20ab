//! Counters of one proxy entry on one worker: written by that worker alone, read by anybody.

use super::close::{CloseReason, Fault};
use super::tracker::Retire;
use crate::net::counter::Counter;
use crate::upstream::DialError;

/// What one worker counts of one proxy entry.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: Counter,
    pub(crate) waiting: Counter,
    pub(crate) kept: Counter,
    pub(crate) unread: Counter,
    pub(crate) bytes_up: Counter,
    pub(crate) bytes_down: Counter,
    pub(crate) dial_failures: [Counter; DialError::LABELS.len()],
    pub(crate) replay_failures: Counter,
    pub(crate) moved: Counter,
    pub(crate) adopted: Counter,
    pub(crate) refused: Counter,
    pub(crate) unknown: Counter,
    pub(crate) passed_bytes: Counter,
    pub(crate) quit: Counter,
    pub(crate) retired: [Counter; Retire::LABELS.len()],
    pub(crate) closed: [Counter; CloseReason::ALL.len()],
}

/// Counted sessions of one proxy entry, summed over its workers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Sessions ever begun.
    pub opened: u64,
    /// Of the active ones, those that wait for a master.
    pub waiting: u64,
    /// Bytes of memory that are set aside for what clients without an upstream have said.
    pub kept: u64,
    /// Sessions whose clients are not read for want of such memory.
    pub unread: u64,
    /// Bytes written to masters.
    pub bytes_up: u64,
    /// Bytes written to clients.
    pub bytes_down: u64,
    /// Connections to a master that failed, by [`DialError::index`].
    pub failed_dials: [u64; DialError::LABELS.len()],
    /// Replays that a new master refused or did not answer.
    pub replay_failures: u64,
    /// Times that a session was carried over to a new upstream.
    pub moved: u64,
    /// Sessions taken over from another process, or taken back.
    pub adopted: u64,
    /// Requests answered with an error for want of a master; none of them was executed.
    pub refused: u64,
    /// Requests that a master was sent, and whose replies were lost when their connection was closed.
    pub unknown: u64,
    /// Bytes that went to a master in the instant in which its generation passed.
    pub passed_bytes: u64,
    /// Sessions that their master closed because their clients had asked it to (QUIT), as far as that is known.
    pub quit: u64,
    /// Sessions that ended and could not be carried over any more, by [`Retire::index`].
    pub retired: [u64; Retire::LABELS.len()],
    /// Ended sessions by [`CloseReason::index`].
    pub closed: [u64; CloseReason::ALL.len()],
}

impl Sum {
    /// Sessions that are open now.
    pub fn active(&self) -> u64 {
        self.opened.saturating_sub(self.closed.iter().sum())
    }

    /// Connections to a master that failed.
    pub fn dial_failures(&self) -> u64 {
        self.failed_dials.iter().sum()
    }

    /// Those of them for which this host had no port left.
    pub const fn no_port(&self) -> u64 {
        self.failed_dials[DialError::NoPort.index()]
    }

    /// All of them, with the word of each reason there is.
    pub fn dial_failures_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DialError::LABELS.into_iter().zip(self.failed_dials)
    }

    /// Sessions that could not be carried over any more, with the word of each reason there is.
    pub fn retired_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Retire::LABELS.into_iter().zip(self.retired)
    }

    /// Sessions that ended for want of their master, and not because anybody asked for it.
    pub fn lost(&self) -> u64 {
        let lost =
            |reason: &CloseReason| matches!(reason.fault(), Fault::Upstream | Fault::Failover);
        let lost = CloseReason::ALL.into_iter().filter(lost);
        let lost: u64 = lost.map(|reason| self.closed_by(reason)).sum();
        lost.saturating_sub(self.quit)
    }

    /// Sessions that ended for this reason.
    pub const fn closed_by(&self, reason: CloseReason) -> u64 {
        self.closed[reason.index()]
    }

    pub(crate) fn add(&mut self, tally: &Tally) {
        // Ends are read before beginnings, so that a session counted between the two is not missing.
        for (sum, counter) in self.closed.iter_mut().zip(&tally.closed) {
            *sum += counter.read();
        }
        self.opened += tally.opened.read();
        self.waiting += tally.waiting.read();
        self.kept += tally.kept.read();
        self.unread += tally.unread.read();
        self.bytes_up += tally.bytes_up.read();
        self.bytes_down += tally.bytes_down.read();
        self.replay_failures += tally.replay_failures.read();
        self.moved += tally.moved.read();
        self.adopted += tally.adopted.read();
        self.refused += tally.refused.read();
        self.unknown += tally.unknown.read();
        self.passed_bytes += tally.passed_bytes.read();
        self.quit += tally.quit.read();
        for (sum, counter) in self.failed_dials.iter_mut().zip(&tally.dial_failures) {
            *sum += counter.read();
        }
        for (sum, counter) in self.retired.iter_mut().zip(&tally.retired) {
            *sum += counter.read();
        }
    }
}
