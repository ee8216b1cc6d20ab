//! One time in which clients could not be served, in phases. Pure.
//!
//! ```text
//! began ---- detect ---- decided -- verify -- served -- first reply -- replied
//!   clients wait            ROLE is asked       clients go on
//! ```

use std::time::Duration;

use super::{Harm, Pulse};
use crate::control::action::Swap;
use crate::net::clock::Moment;
use crate::topology::publish::Left;
use crate::topology::{Generation, HoldCause, MasterAddr};

/// The cause of the first outage, before any master was verified.
pub(super) const STARTING: &str = "starting";
/// Somebody wanted it.
const PAUSED: &str = HoldCause::Paused.label();
/// Causes remembered of one outage; a hold that goes on for ever changes between few.
const MAX_CAUSES: usize = 8;

/// How an outage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Lasting,
    /// Another master was adopted.
    Switched,
    /// The same master serves again.
    Resumed,
}

impl Outcome {
    /// Every outcome that is an end.
    pub const ENDS: [Self; 2] = [Self::Switched, Self::Resumed];

    /// The word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Lasting => "lasting",
            Self::Switched => "switched",
            Self::Resumed => "resumed",
        }
    }
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) began: Moment,
    pub(super) causes: Vec<&'static str>,
    pub(super) from: Option<MasterAddr>,
    pub(super) decided: Option<Moment>,
    pub(super) served: Option<Moment>,
    pub(super) replied: Option<Moment>,
    pub(super) swap: Option<Swap>,
    pub(super) fence: Option<Duration>,
    pub(super) left: Option<Left>,
    pub(super) most_waiting: u64,
    /// Sessions, and requests, that were lost to it.
    pub(super) lost: u64,
    pub(super) unknown: u64,
    /// What had been counted before it.
    counted: Pulse,
    /// The generation that was in force; one that is taken back is another by then.
    before: Generation,
    /// The one that ended it.
    after: Option<Generation>,
    outcome: Outcome,
    busy: bool,
}

impl Outage {
    pub(super) fn new(
        began: Moment,
        cause: &'static str,
        from: Option<MasterAddr>,
        before: Generation,
        busy: bool,
    ) -> Self {
        Self {
            began,
            causes: vec![cause],
            from,
            decided: None,
            served: None,
            replied: None,
            swap: None,
            fence: None,
            left: None,
            most_waiting: 0,
            lost: 0,
            unknown: 0,
            counted: Pulse::default(),
            before,
            after: None,
            outcome: Outcome::Lasting,
            busy,
        }
    }

    pub(super) fn changes_cause(&mut self, cause: &'static str) {
        if self.causes.last() != Some(&cause) && self.causes.len() < MAX_CAUSES {
            self.causes.push(cause);
        }
    }

    /// The workers had counted this before it.
    pub(super) const fn counts_from(&mut self, pulse: Pulse) {
        self.counted = pulse;
    }

    /// They have counted this by now.
    pub(super) fn saw(&mut self, pulse: Pulse) {
        self.most_waiting = self.most_waiting.max(pulse.waiting);
        self.lost = pulse.lost.saturating_sub(self.counted.lost);
        self.unknown = pulse.unknown.saturating_sub(self.counted.unknown);
    }

    /// Clients may go on.
    pub(super) fn served(&mut self, at: Moment, now: Generation, decided: Option<Moment>) {
        self.served = Some(at);
        self.after = Some(now);
        self.decided = decided.map(|decided| decided.max(self.began));
        self.outcome = if now != self.before {
            Outcome::Switched
        } else {
            Outcome::Resumed
        };
    }

    /// It was before the first master.
    pub(super) fn is_start(&self) -> bool {
        self.causes.first() == Some(&STARTING)
    }

    /// This generation ended it, or was published (fenced, of a master that is gone back to) while it lasts.
    pub(super) fn is_of(&self, generation: Generation) -> bool {
        match self.after {
            Some(after) => after == generation && self.outcome == Outcome::Switched,
            None => generation != self.before,
        }
    }

    /// For a part of it nobody was to be served.
    pub(super) fn was_paused(&self) -> bool {
        self.causes.contains(&PAUSED)
    }

    pub(super) fn switched(&mut self, swap: &Swap) {
        self.swap = Some(swap.clone());
    }

    pub(super) const fn replied(&mut self, at: Moment) {
        self.replied = Some(at);
    }

    /// More than once in a pause with several switches in it: each has closed or kept sessions of its own.
    pub(super) fn fenced(&mut self, fence: Duration, left: Option<Left>) {
        self.fence = Some(fence);
        if let Some(left) = left {
            let before = self.left.unwrap_or_default();
            self.left = Some(Left {
                cut: before.cut + left.cut,
                kept: before.kept + left.kept,
            });
        }
    }

    /// What it has cost so far.
    pub(super) fn harm(&self) -> Harm {
        Harm {
            paused: self
                .served
                .map_or(Duration::ZERO, |end| end.since(self.began)),
            held: self.most_waiting,
            lost: self.lost,
            unknown: self.unknown,
        }
    }

    pub(super) const fn is_lasting(&self) -> bool {
        self.served.is_none()
    }

    pub(super) const fn served_at(&self) -> Option<Moment> {
        self.served
    }

    /// Clients were at work when it began.
    pub(super) const fn was_busy(&self) -> bool {
        self.busy
    }

    pub(super) const fn outcome(&self) -> Outcome {
        self.outcome
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.swap.as_ref().map(|swap| swap.generation)
    }

    /// From its beginning to the first reply, or to where clients could go on when nobody asked. Nothing while it lasts.
    pub(super) fn length(&self) -> Duration {
        self.replied
            .or(self.served)
            .map_or(Duration::ZERO, |end| end.since(self.began))
    }

    /// From the beginning to the decision.
    pub(super) fn detect(&self) -> Option<Duration> {
        self.decided.map(|decided| decided.since(self.began))
    }

    /// From the decision to where clients could go on.
    pub(super) fn verify(&self) -> Option<Duration> {
        let (served, decided) = (self.served?, self.decided?);
        Some(served.since(decided))
    }

    /// From there to the first reply.
    pub(super) fn first_reply(&self) -> Option<Duration> {
        let (replied, served) = (self.replied?, self.served?);
        Some(replied.since(served))
    }
}
