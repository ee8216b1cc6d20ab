//! Clients are held because an operator wants it: PgBouncer's PAUSE. Pure.
//!
//! It is no doubt of the master: sessions give their upstreams up when they have nothing under way, new requests wait, and the Sentinels
//! are followed as ever. A switch meanwhile is adopted, and served once the pause has ended. Other holds come and go beside it, each
//! with a limit (`hold_max`) of its own.

use std::time::Duration;

use super::Steward;
use crate::control::action::{Action, Tale};
use crate::net::clock::Moment;
use crate::topology::HoldCause;

/// See the head of this file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    since: Moment,
    /// When it ends by itself, if it does.
    until: Option<Moment>,
}

impl Pause {
    /// When it ends by itself, if it does.
    pub(super) const fn until(&self) -> Option<Moment> {
        self.until
    }
}

/// Nobody would be held: `hold_max` is zero, and clients would be closed instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NobodyIsHeld;

impl Steward {
    /// Begins a pause, or gives the one that lasts another end. Without a limit it lasts until [`resume`](Self::resume).
    ///
    /// # Errors
    /// When it would close clients instead of holding them.
    pub fn pause(
        &mut self,
        now: Moment,
        limit: Option<Duration>,
        by: &str,
    ) -> Result<(), NobodyIsHeld> {
        if self.hold_max().is_zero() {
            return Err(NobodyIsHeld);
        }
        let since = self.pause.map_or(now, |pause| pause.since);
        let until = limit.map(|limit| now + limit);
        self.pause = Some(Pause { since, until });
        self.tell(Tale::Paused {
            by: by.to_owned(),
            limit,
        });
        self.settle_publication(now);
        // What is published comes first: who gives an upstream up now must not take another.
        self.actions.push_back(Action::Renew);
        Ok(())
    }

    /// Ends a pause, and nothing else. False when there is none.
    pub fn resume(&mut self, now: Moment, by: &str) -> bool {
        self.end_pause(now, Some(by.to_owned()))
    }

    /// Has every session take another upstream, as soon as it can.
    pub fn reconnect(&mut self, by: &str) {
        self.tell(Tale::Reconnecting { by: by.to_owned() });
        self.actions.push_back(Action::Renew);
    }

    /// True while a pause lasts, whatever else holds clients.
    pub const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    pub(super) fn expire_pause(&mut self, now: Moment) {
        let until = self.pause.as_ref().and_then(Pause::until);
        if until.is_some_and(|until| now >= until) {
            self.end_pause(now, None);
        }
    }

    fn end_pause(&mut self, now: Moment, by: Option<String>) -> bool {
        let Some(pause) = self.pause.take() else {
            return false;
        };
        let lasted = now.since(pause.since);
        self.tell(Tale::Resumed { by, lasted });
        self.settle_publication(now);
        true
    }

    /// Why clients are held, and since when their limit counts. Of a pause that is since its beginning, whatever else held them
    /// meanwhile; a doubt of the master counts from its own: who goes on during a pause has not waited.
    pub(super) fn held_now(&self, now: Moment) -> Option<(HoldCause, Moment)> {
        let doubted = self.holds.cause().map(|cause| {
            let before = self.held.filter(|held| held.cause != HoldCause::Paused);
            (cause, before.map_or(now, |held| held.since))
        });
        doubted.or_else(|| self.pause.map(|pause| (HoldCause::Paused, pause.since)))
    }

    /// The same for those who read from replicas. What is wrong with the master alone does not keep them; what says that nobody knows, or
    /// that an operator wants it, does, whatever else holds the master's own clients meanwhile.
    pub(super) fn readers_held(&self, now: Moment) -> Option<(HoldCause, Moment)> {
        let doubted = if self.holds.resumed {
            Some(HoldCause::Resumed)
        } else if self.holds.unconfirmed {
            Some(HoldCause::Unconfirmed)
        } else {
            None
        };
        let doubted = doubted.map(|cause| {
            let before = self.published.readers.held;
            let before = before.filter(|(cause, _)| *cause != HoldCause::Paused);
            (cause, before.map_or(now, |(_, since)| since))
        });
        doubted.or_else(|| self.pause.map(|pause| (HoldCause::Paused, pause.since)))
    }
}
