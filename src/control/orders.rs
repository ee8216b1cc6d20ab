//! What operators ask of one proxy entry (pause, resume, reconnect), and what came of it. The steward decides; this waits for the
//! sessions to let go of their upstreams, within a limit, and answers.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{Control, tales};
use crate::net::clock::{Moment, now};
use crate::topology::publish::Upstreams;
use crate::topology::{Phase, State};

/// Orders that wait to be looked at, and as many that wait for sessions; whoever comes then is turned away.
pub const MAX_ORDERS: usize = 8;
/// Longest wait for the sessions to let go of their upstreams before it is answered how many have not.
pub const LET_GO_LIMIT: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const LET_GO_LOOK: Duration = Duration::from_millis(5);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Hold clients, for so long or until they are resumed.
    Pause(Option<Duration>),
    /// End that.
    Resume,
    /// Have every session take another upstream.
    Reconnect,
}

/// One order.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub what: What,
    /// Who asks: a uid, or the token.
    pub by: String,
    /// Where it is told what came of it.
    pub answer: oneshot::Sender<Result<Done, Refused>>,
}

/// Why an order is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// See [`NobodyIsHeld`](super::steward::NobodyIsHeld).
    #[error("failover.hold_max is 0s: clients would be closed instead of held")]
    NobodyIsHeld,
    /// [`MAX_ORDERS`] wait for sessions already.
    #[error("too many orders at once: ask again when those before have been answered")]
    Busy,
}

/// What came of an order. Field names are public interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// `serving`, `paused`, `held` (by something else) or `no_master`, when it was asked for.
    pub before: &'static str,
    /// The same when it was answered.
    pub after: &'static str,
    /// Connections of sessions to the master when it was asked for; `None` for resume.
    pub upstreams: Option<u64>,
    /// Of those, the ones that were not given up in time: something is under way on them. They are given up when it has ended.
    pub upstreams_left: Option<u64>,
    /// For how long a client waits at the most before it is answered with an error.
    pub hold_max_seconds: f64,
    /// How long it took.
    pub seconds: f64,
}

/// An order that waits for sessions.
#[derive(Debug)]
pub(super) struct Pending {
    pauses: bool,
    edition: u64,
    since: Moment,
    before: &'static str,
    /// How many upstreams there were.
    upstreams: Option<u64>,
    answer: oneshot::Sender<Result<Done, Refused>>,
}

/// Where orders are given.
pub type Orders = mpsc::Sender<Order>;

/// The two ends of the line of orders for one entry.
pub fn channel() -> (Orders, mpsc::Receiver<Order>) {
    mpsc::channel(MAX_ORDERS)
}

impl Control {
    /// Has an order carried out.
    pub(super) fn order(&mut self, order: Order) {
        let Order { what, by, answer } = order;
        let at = now();
        let before = self.word();
        let accepted = match what {
            // What waits for nobody is never turned away.
            What::Pause(_) | What::Reconnect if self.ordered.len() >= MAX_ORDERS => {
                Err(Refused::Busy)
            }
            What::Pause(limit) => {
                let paused = self.steward.pause(at, limit, &by);
                paused.map_err(|_| Refused::NobodyIsHeld)
            }
            What::Resume => {
                self.steward.resume(at, &by);
                Ok(())
            }
            What::Reconnect => {
                self.steward.reconnect(&by);
                Ok(())
            }
        };
        // The connections that there are before any is given up.
        let upstreams = self.upstreams_now();
        self.act();
        // Whoever asked may not wait any more, which changes nothing.
        match accepted {
            Err(refused) => drop(answer.send(Err(refused))),
            Ok(()) if what == What::Resume => {
                drop(answer.send(Ok(self.done(at, before, None))));
            }
            Ok(()) => self.ordered.push(Pending {
                pauses: matches!(what, What::Pause(_)),
                edition: self.edition,
                since: at,
                before,
                upstreams,
                answer,
            }),
        }
    }

    /// How soon it has to be looked again whether sessions have let go.
    pub(super) fn next_look(&self) -> Duration {
        if self.ordered.is_empty() {
            Duration::MAX
        } else {
            LET_GO_LOOK
        }
    }

    /// Answers the orders that sessions have followed, or whose time is up.
    pub(super) fn answer_orders(&mut self) {
        let at = now();
        let ordered = std::mem::take(&mut self.ordered);
        for pending in ordered {
            let seen = self.entry.publisher.upstreams(pending.edition);
            let let_go = seen.is_some_and(|upstreams| upstreams.old == 0);
            let late = at.since(pending.since) >= LET_GO_LIMIT;
            let over = pending.pauses && !self.steward.is_paused();
            if !(let_go || late || over) {
                self.ordered.push(pending);
                continue;
            }
            let left = seen.map(|upstreams| upstreams.old);
            let counted = pending.upstreams.zip(left);
            tales::let_go(
                &self.entry,
                pending.upstreams,
                left,
                at.since(pending.since),
            );
            let done = self.done(pending.since, pending.before, counted);
            drop(pending.answer.send(Ok(done)));
        }
    }

    /// `counted`: upstreams when it was asked for, and those that are left of them.
    fn done(&self, since: Moment, before: &'static str, counted: Option<(u64, u64)>) -> Done {
        Done {
            before,
            after: self.word(),
            upstreams: counted.map(|(all, _)| all),
            upstreams_left: counted.map(|(_, left)| left),
            hold_max_seconds: self.steward.state().hold_max.as_secs_f64(),
            seconds: now().since(since).as_secs_f64(),
        }
    }

    fn upstreams_now(&self) -> Option<u64> {
        let seen = self.entry.publisher.upstreams(self.edition);
        seen.map(|Upstreams { open, .. }| open)
    }

    fn word(&self) -> &'static str {
        word(self.steward.state())
    }
}

/// How an entry is, in a word for operators.
const fn word(state: &State) -> &'static str {
    match state.phase {
        Phase::NoMaster => "no_master",
        Phase::Held { .. } if state.is_paused() => "paused",
        Phase::Held { .. } => "held",
        Phase::Serving => "serving",
    }
}
