//! How much of what clients say is kept while there is no upstream to say it to, over all sessions of the process.
//!
//! A session without an upstream reads its client, as that is how it learns that a master is needed. In an outage all of them
//! do, and each keeps what it has read until there is a master, or nobody waits any more. What is kept so has a share of
//! [`HOLD_BUDGET`]; where there is none left, a client is not read until there is: what it sends stays with the kernels. A
//! share is given back as soon as there is an upstream. With one, nothing of this is looked at: a direction is not read while
//! what was read of it has not been taken.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::house::House;

/// Most bytes that are kept, over all entries and workers.
const HOLD_BUDGET: usize = 64 * 1024 * 1024;
/// Most that one session keeps: what one read of the worker's buffer gives.
pub(crate) const SHARE: usize = 32 * 1024;

/// What there is of it; shared by all sessions of the process. Touched by those only that have no upstream.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self::of(HOLD_BUDGET)
    }
}

impl Budget {
    pub(crate) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / SHARE).max(1))))
    }
}

/// The right to keep [`SHARE`] bytes; dropping it lets the next one read.
#[derive(Debug)]
pub(super) struct Share {
    _permit: OwnedSemaphorePermit,
    house: Rc<House>,
}

impl Share {
    fn new(permit: OwnedSemaphorePermit, house: &Rc<House>) -> Self {
        house.tally.kept.add(SHARE as u64);
        Self {
            _permit: permit,
            house: Rc::clone(house),
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.house.tally.kept.sub(SHARE as u64);
    }
}

/// A place in the line for a share, if one has to be waited for. Dropping it leaves the line.
#[derive(Default)]
pub(super) struct Line(Option<Pin<Box<dyn Future<Output = Share>>>>);

impl Line {
    /// Ready with a share.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, house: &Rc<House>) -> Poll<Share> {
        if self.0.is_none() {
            // Nobody is passed who is in line: a semaphore keeps what comes free for them.
            let free = Arc::clone(&house.common.budget.0).try_acquire_owned();
            if let Ok(permit) = free {
                return Poll::Ready(Share::new(permit, house));
            }
        }
        let stand = || Box::pin(stand_in_line(Rc::clone(house))) as Pin<Box<_>>;
        let share = self.0.get_or_insert_with(stand).as_mut().poll(cx);
        if share.is_ready() {
            self.0 = None;
        }
        share
    }
}

async fn stand_in_line(house: Rc<House>) -> Share {
    let _unread = Unread::new(&house);
    let permit = Arc::clone(&house.common.budget.0).acquire_owned().await;
    match permit {
        Ok(permit) => Share::new(permit, &house),
        Err(_) => unreachable!("the budget is never closed"),
    }
}

/// Counts a session whose client is not read.
struct Unread(Rc<House>);

impl Unread {
    fn new(house: &Rc<House>) -> Self {
        house.tally.unread.add(1);
        Self(Rc::clone(house))
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.0.tally.unread.sub(1);
    }
}
