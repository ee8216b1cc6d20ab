//! What there is a limited number of for the sessions of one proxy entry: places to wait for a master in, and to dial it from.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedSemaphorePermit;

use super::house::House;

impl House {
    /// A place among the clients that wait for a master; `None` when there are `max_held` already.
    pub(super) fn wait(self: &Rc<Self>) -> Option<WaitingPlace> {
        let waiting = self.common.waiting.fetch_add(1, Ordering::Relaxed);
        let place = WaitingPlace(Rc::clone(self));
        self.tally.waiting.add(1);
        (waiting < self.config().max_held).then_some(place)
    }

    /// One of [`DIALS_AT_ONCE`](super::house::DIALS_AT_ONCE) places, if one is free and nobody is in line for it.
    pub(super) fn free_dial_slot(&self) -> Option<DialSlot> {
        Arc::clone(&self.common.dial_slots)
            .try_acquire_owned()
            .ok()
            .map(|permit| DialSlot { _permit: permit })
    }

    /// The same, waiting in line for it. Dropping the future leaves the line.
    pub(super) fn dial_slot(&self) -> impl Future<Output = DialSlot> + use<> {
        let slots = Arc::clone(&self.common.dial_slots);
        async move {
            match slots.acquire_owned().await {
                Ok(permit) => DialSlot { _permit: permit },
                Err(_) => unreachable!("the slots are never closed"),
            }
        }
    }
}

/// One of `max_held` places.
#[derive(Debug)]
pub(super) struct WaitingPlace(Rc<House>);

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.common.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.tally.waiting.sub(1);
    }
}

/// The right to dial; dropping it lets the next one dial.
#[derive(Debug)]
pub(super) struct DialSlot {
    _permit: OwnedSemaphorePermit,
}
