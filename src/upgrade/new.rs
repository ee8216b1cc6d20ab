//! What the process that follows does, and when: (state, input, now) -> actions. Pure.
//!
//! ```text
//! Greeting --Offer--> Preparing --Known--> Waiting --Go--> Receiving --Done--> Over(Serves)
//!     |                   |________________/ |                  |___ old one gone: serves what it has
//!     |                   | old one gone     | Abort, silence
//!     v                   v                  v
//! Over(Ends)     Orphaned --it is dead--> opens its doors, Over(Serves)
//! ```

use std::time::Duration;

use super::old::{HELLO_LIMIT, READY_LIMIT};
use crate::net::clock::Moment;

/// Longest until the old process says Go: it may have to agree with us first, for as long as it waits, and to stop accepting.
pub const GO_LIMIT: Duration = Duration::from_secs(40);
/// Longest until a process that has closed its end of the link is known to be dead. One that lives on serves its clients.
pub const DEATH_LIMIT: Duration = Duration::from_secs(2);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// All listeners have arrived, and what the old process believes.
    Offer,
    /// Every master is verified and in force.
    Known,
    /// The old process accepts no more.
    Go,
    /// Sessions arrived.
    Sessions,
    /// Nothing more will come.
    Done,
    /// It is not to be.
    Abort,
    /// The link is broken.
    Gone,
    /// The old process has ended, for certain.
    Dead,
    /// It said what it must not.
    Confused,
    /// We are told to end.
    Ending,
    /// Time has passed.
    Turn,
}

/// What is to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Say that we are there.
    Hello,
    /// Begin to ask Sentinels.
    Prepare,
    /// Say that we could serve.
    Ready,
    /// Accept.
    Open,
    /// Say that we do.
    Opened,
    /// Say that the sessions that arrived are ours, and then, if that was said, serve them; or refuse them, and say that.
    Adopt,
    /// Close the link.
    Part,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// We serve.
    Serves,
    /// The old process goes on without us, for this reason.
    Ends(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Preparing,
    Waiting,
    Receiving,
    Orphaned,
    Over(Outcome),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Taker {
    stage: Stage,
    until: Moment,
}

impl Taker {
    /// We were started to follow somebody.
    pub fn new(now: Moment) -> (Self, Vec<Action>) {
        let taker = Self {
            stage: Stage::Greeting,
            until: now + HELLO_LIMIT,
        };
        (taker, vec![Action::Hello])
    }

    /// How it went, when it is over.
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// We accept, and sessions that arrive are ours.
    pub const fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Receiving | Stage::Over(Outcome::Serves))
    }

    /// It is for us to say that the masters are known, or still are.
    pub const fn is_preparing(&self) -> bool {
        matches!(self.stage, Stage::Preparing | Stage::Waiting)
    }

    /// The link is broken: is the old process dead?
    pub const fn is_orphaned(&self) -> bool {
        matches!(self.stage, Stage::Orphaned)
    }

    /// When [`Input::Turn`] is due; there is none while we receive, as an old process that is slow does no harm.
    pub const fn next_turn(&self) -> Option<Moment> {
        match self.stage {
            Stage::Receiving | Stage::Over(_) => None,
            _ => Some(self.until),
        }
    }

    /// The only place where the stage changes.
    #[must_use]
    pub fn on(&mut self, now: Moment, input: Input) -> Vec<Action> {
        match (self.stage, input) {
            (Stage::Over(_), _) => Vec::new(),
            // Nothing it could still say counts for more than what it has handed over.
            (Stage::Receiving, Input::Sessions) => vec![Action::Adopt],
            (Stage::Receiving, Input::Done | Input::Gone | Input::Dead) => {
                self.end(Outcome::Serves, vec![Action::Part])
            }
            (Stage::Receiving, Input::Turn) => Vec::new(),
            // The old one accepts again, and keeps what it still has.
            (_, Input::Ending) => self.ends("this process was told to end"),
            // The old one takes a link that is closed for our end, and ends us before it goes on.
            (Stage::Receiving, _) => self.end(Outcome::Serves, vec![Action::Part]),
            (Stage::Orphaned, Input::Dead) => self.end(Outcome::Serves, vec![Action::Open]),
            (Stage::Orphaned, Input::Turn) if now >= self.until => {
                self.ends("the old process closed the link and did not end")
            }
            (Stage::Orphaned, _) => Vec::new(),
            (Stage::Greeting, Input::Gone | Input::Dead) => {
                self.ends("the old process ended before it had handed over anything")
            }
            (_, Input::Gone | Input::Dead) => {
                self.stage = Stage::Orphaned;
                self.until = now + DEATH_LIMIT;
                Vec::new()
            }
            (_, Input::Abort) => self.ends("the old process goes on"),
            (Stage::Greeting, Input::Offer) => {
                self.wait(Stage::Preparing, now + READY_LIMIT, Action::Prepare)
            }
            (Stage::Preparing, Input::Known) => {
                self.wait(Stage::Waiting, now + GO_LIMIT, Action::Ready)
            }
            (Stage::Waiting, Input::Go) => {
                self.stage = Stage::Receiving;
                vec![Action::Open, Action::Opened]
            }
            // The old one may not have agreed the first time.
            (Stage::Waiting, Input::Known) => vec![Action::Ready],
            (_, Input::Turn) if now < self.until => Vec::new(),
            (Stage::Preparing, Input::Turn) => self.ends("no master was verified in time"),
            (_, Input::Turn) => self.ends("the old process said nothing for too long"),
            _ => self.ends("the old process said something else than was agreed on"),
        }
    }

    fn wait(&mut self, stage: Stage, until: Moment, action: Action) -> Vec<Action> {
        self.stage = stage;
        self.until = until;
        vec![action]
    }

    fn end(&mut self, outcome: Outcome, actions: Vec<Action>) -> Vec<Action> {
        self.stage = Stage::Over(outcome);
        actions
    }

    fn ends(&mut self, why: &'static str) -> Vec<Action> {
        self.end(Outcome::Ends(why), vec![Action::Part])
    }
}
