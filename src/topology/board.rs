//! How many sessions each lane of a replica entry has, and whether more may come: what workers and the control task tell each other
//! where sessions get and leave upstreams. Never looked at on the way of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::publish::{Reader, Subscription};

#[derive(Debug, Default)]
struct Standing {
    sessions: AtomicU64,
    accepts: AtomicBool,
    /// So many are asked to look for another lane.
    asked: AtomicU64,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Board(Arc<[Standing]>);

impl Board {
    /// For so many lanes; none accepts.
    pub fn new(lanes: usize) -> Self {
        Self((0..lanes).map(|_| Standing::default()).collect())
    }

    /// Sessions of each lane, those that are dialling among them.
    pub fn loads(&self) -> Vec<u64> {
        let sessions = |lane: &Standing| lane.sessions.load(Ordering::Relaxed);
        self.0.iter().map(sessions).collect()
    }

    /// New sessions may come to this lane, or may not.
    pub fn accept(&self, lane: usize, accepts: bool) {
        self.0[lane].accepts.store(accepts, Ordering::Release);
        self.0[lane].asked.store(0, Ordering::Relaxed);
    }

    /// Whether they may.
    pub fn accepts(&self, lane: usize) -> bool {
        self.0[lane].accepts.load(Ordering::Acquire)
    }

    /// The lane with the fewest sessions of those that accept and are `good`; of equals any.
    pub fn least_loaded(&self, good: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.0.len();
        let first = fastrand::usize(..count);
        let lanes = (0..count).map(|n| (first + n) % count);
        lanes
            .filter(|lane| self.accepts(*lane) && good(*lane))
            .min_by_key(|lane| self.0[*lane].sessions.load(Ordering::Relaxed))
    }

    /// A session has come.
    pub fn enter(&self, lane: usize) {
        self.0[lane].sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// It has gone.
    pub fn leave(&self, lane: usize) {
        self.0[lane].sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many sessions are to look for another lane, and no more of those that were asked before.
    pub fn ask_to_leave(&self, lane: usize, sessions: u64) {
        self.0[lane].asked.store(sessions, Ordering::Relaxed);
    }

    /// A session asks whether it is one of them.
    pub fn is_asked_to_leave(&self, lane: usize) -> bool {
        let asked = &self.0[lane].asked;
        asked
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
    }
}

/// The reading ends of the lanes of one entry, for its workers.
#[derive(Debug)]
pub struct LaneEnds {
    /// What they share.
    pub board: Board,
    /// Each lane's state, and a subscription to it for each worker.
    pub lanes: Vec<(Reader, Vec<Subscription>)>,
}
