//! How many sessions each lane of a replica entry has, and whether more may come: what workers and the control task tell each other
//! where sessions get and leave upstreams. Never looked at on the way of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::publish::{Reader, Subscription};
use crate::net::clock::Moment;

/// So long nobody new is led to a lane where a session could not get an upstream, or lost it at once, as long as there is another
/// lane: who fails is not counted, so that the lane would have the fewest sessions and draw everybody. The control task tries it
/// meanwhile, and says sooner what it is worth.
pub const SHUNNED: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Standing {
    sessions: AtomicU64,
    accepts: AtomicBool,
    /// So many are asked to look for another lane.
    asked: AtomicU64,
    /// See [`SHUNNED`].
    shunned_until: AtomicU64,
    /// It is to be tried as clients would.
    suspected: AtomicBool,
}

#[derive(Debug)]
struct Shared {
    lanes: Box<[Standing]>,
    /// Sessions that have left a lane because they were asked to, and have not come to another yet.
    roaming: AtomicU64,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

impl Board {
    /// For so many lanes; none accepts.
    pub fn new(lanes: usize) -> Self {
        Self(Arc::new(Shared {
            lanes: (0..lanes).map(|_| Standing::default()).collect(),
            roaming: AtomicU64::new(0),
        }))
    }

    /// Sessions of each lane, those that are dialling among them.
    pub fn loads(&self) -> Vec<u64> {
        let sessions = |lane: &Standing| lane.sessions.load(Ordering::Relaxed);
        self.0.lanes.iter().map(sessions).collect()
    }

    /// New sessions may come to this lane, or may not.
    pub fn accept(&self, lane: usize, accepts: bool) {
        let lane = &self.0.lanes[lane];
        lane.accepts.store(accepts, Ordering::Release);
        lane.asked.store(0, Ordering::Relaxed);
    }

    /// Another node is there, of which nothing bad is known.
    pub fn trust(&self, lane: usize) {
        let lane = &self.0.lanes[lane];
        lane.shunned_until.store(0, Ordering::Relaxed);
        lane.suspected.store(false, Ordering::Relaxed);
    }

    /// Whether they may.
    pub fn accepts(&self, lane: usize) -> bool {
        self.0.lanes[lane].accepts.load(Ordering::Acquire)
    }

    /// The lane with the fewest sessions of those that accept and are `good`; of equals any, and one that is shunned only for want
    /// of others.
    pub fn least_loaded(&self, now: Moment, good: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.0.lanes.len();
        let first = fastrand::usize(..count);
        let lanes = (0..count).map(|n| (first + n) % count);
        lanes
            .filter(|lane| self.accepts(*lane) && good(*lane))
            .min_by_key(|lane| {
                let lane = &self.0.lanes[*lane];
                let shunned = lane.shunned_until.load(Ordering::Relaxed) > now.as_nanos();
                (shunned, lane.sessions.load(Ordering::Relaxed))
            })
    }

    /// A session of this lane could not get an upstream, or lost it at once.
    pub fn shun(&self, lane: usize, now: Moment) {
        let lane = &self.0.lanes[lane];
        let until = (now + SHUNNED).as_nanos();
        lane.shunned_until.fetch_max(until, Ordering::Relaxed);
        lane.suspected.store(true, Ordering::Relaxed);
    }

    /// It may have been so.
    pub fn suspect(&self, lane: usize) {
        self.0.lanes[lane].suspected.store(true, Ordering::Relaxed);
    }

    /// Whether that has happened since this was asked last.
    pub fn is_suspected(&self, lane: usize) -> bool {
        self.0.lanes[lane].suspected.swap(false, Ordering::Relaxed)
    }

    /// A session has come.
    pub fn enter(&self, lane: usize) {
        self.0.lanes[lane].sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// It has gone.
    pub fn leave(&self, lane: usize) {
        self.0.lanes[lane].sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// A session that was asked to leave has, and is nowhere; or it is somewhere again, or over.
    pub fn roam(&self, begins: bool) {
        if begins {
            self.0.roaming.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.roaming.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many such there are.
    pub fn roaming(&self) -> u64 {
        self.0.roaming.load(Ordering::Relaxed)
    }

    /// So many sessions are to look for another lane, and no more of those that were asked before.
    pub fn ask_to_leave(&self, lane: usize, sessions: u64) {
        self.0.lanes[lane].asked.store(sessions, Ordering::Relaxed);
    }

    /// Whether any are.
    pub fn asks_to_leave(&self, lane: usize) -> bool {
        self.0.lanes[lane].asked.load(Ordering::Relaxed) > 0
    }

    /// A session that could leave asks whether it is one of them.
    pub fn is_asked_to_leave(&self, lane: usize) -> bool {
        let asked = &self.0.lanes[lane].asked;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_where_nobody_got_an_upstream_is_the_last_choice_for_a_while() {
        let board = Board::new(3);
        let at = Moment::from_nanos(1_000_000_000_000);
        board.accept(0, true);
        board.accept(1, true);
        (0..9).for_each(|_| board.enter(0));
        assert_eq!(board.least_loaded(at, |_| true), Some(1));
        assert!(!board.is_suspected(1));
        board.shun(1, at);
        assert!(board.is_suspected(1) && !board.is_suspected(1), "told once");
        let almost = at + (SHUNNED - Duration::from_nanos(1));
        assert_eq!(board.least_loaded(almost, |_| true), Some(0));
        assert_eq!(board.least_loaded(almost, |lane| lane != 0), Some(1));
        assert_eq!(board.least_loaded(at + SHUNNED, |_| true), Some(1));
        board.trust(1);
        assert_eq!(board.least_loaded(at, |_| true), Some(1));
    }
}
