//! Counted places: over all entries, and in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::net::reserve::Reserve;

/// How many connections there may be over all entries. Sessions that took the last descriptor would leave none to
/// ask a new master for its role with.
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    pub(super) inside: Arc<AtomicUsize>,
    pub(super) most: usize,
    /// Places that are kept for sessions of the process that this one follows.
    pub(super) coming: Arc<AtomicUsize>,
    /// Comes first: while some of it is lent, what comes free is not for clients.
    pub(super) reserve: Reserve,
}

impl Ceiling {
    /// `None` is as many as come.
    pub(crate) fn new(most: Option<u64>, reserve: &Reserve) -> Self {
        Self {
            inside: Arc::default(),
            most: most.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX)
            }),
            coming: Arc::default(),
            reserve: reserve.clone(),
        }
    }

    /// Keeps so many places for those who are let in without a question.
    pub(crate) fn expect(&self, sessions: u64) {
        let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
        self.coming.store(sessions, Ordering::Relaxed);
    }
}

/// One of the connections inside; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Ticket {
    inside: Arc<AtomicUsize>,
    pub(super) number: usize,
}

impl Ticket {
    /// Enters where so many are counted.
    pub(crate) fn new(inside: &Arc<AtomicUsize>) -> Self {
        Self {
            inside: Arc::clone(inside),
            number: inside.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}
