//! When places become few: clients that have one and have never asked for anything give it up.
//!
//! A pool may open connections long before it uses them, so that being silent is no fault; with room for everybody nobody is
//! closed for it. It is when three quarters of the places are taken (`listener::Door::is_crowded`) that whoever came
//! long enough ago and has not got as far as one request makes room. Half a request a minute does not help: it is requests that count.

use std::time::Duration;

use super::house::{House, Seat};
use crate::net::clock::Moment;

/// Most that are looked at in one go: each costs the worker some tens of microseconds.
pub(super) const SUSPECTS_AT_ONCE: usize = 64;

impl House {
    /// Has sessions look at themselves that came before `now` less `first_request_timeout`, and never asked for anything as far as is
    /// known here. True when there may be more of them.
    pub(crate) fn suspect_the_silent(&self, now: Moment) -> bool {
        let limit = self.config().first_request_timeout;
        if limit == Duration::ZERO {
            return false;
        }
        let seats = self.seats.borrow();
        let mut suspects = 0;
        for (_, place) in &*seats {
            let has_waited = now.since(place.since) >= limit;
            if has_waited && !place.has_asked.get() && !place.suspect.replace(true) {
                place.waker.wake_by_ref();
                suspects += 1;
                if suspects == SUSPECTS_AT_ONCE {
                    break;
                }
            }
        }
        if suspects > 0 {
            self.ring();
        }
        suspects == SUSPECTS_AT_ONCE
    }
}

impl Seat {
    /// True once for each time that this session was asked whether its client ever spoke.
    pub(super) fn is_suspect(&self) -> bool {
        self.place(|place| place.suspect.replace(false))
            .unwrap_or(false)
    }

    /// It did: it is not asked again.
    pub(super) fn has_asked(&self) {
        self.place(|place| place.has_asked.set(true));
    }
}
