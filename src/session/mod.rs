//! The life of one client connection through the proxy.
//!
//! ```text
//!            no master, or held                      hold_max, max_held, client left
//!           +------------------- Waiting ------------------------------------+
//!           |                    ^     |                                     |
//!  client --+       held, swapped|     | open                                v
//!           |                    |     v         no answer for hold_max
//!           +------------------> Dialing(g) --------------------------> Closing(reason) --> end
//!            open                |   ^ | connected                           ^
//!                                +---+ v                                     |
//!                           retry      Live(g) ------------------------------+
//!                                               swap, hold_max, end of a stream
//!
//!  Live(g):   client --recv--> [worker's one buffer] --fence--> upstream of generation g
//!             client <--------- [worker's one buffer] <--recv-- upstream of generation g
//!             what a peer does not take at once is spilled, bounded, and that direction stops reading
//! ```
//!
//! Every transition is in `Life::on`, which is pure; `run` does what the stage says, `relay` moves the bytes,
//! `farewell` closes in order. Generation and hold are *levels*: whoever looks late sees the same.
//!
//! Never looks into a byte, never chooses a master, never resends, never invents a reply. Bytes reach an
//! upstream only past the fence ([`crate::topology::publish::Gate`]), and a client only if the upstream sent them.

pub mod close;
pub mod journal;
pub mod replay;
pub mod tally;
pub mod tracker;

mod farewell;
mod house;
mod relay;
mod run;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::net::clock::Moment;
use crate::topology::{Generation, Phase, State};

use close::CloseReason;
#[cfg(test)]
pub(crate) use house::DIALS_AT_ONCE;
pub(crate) use house::{Common, House, Seat, new_buffer};
pub(crate) use run::run;

/// The part of a `[[proxy]]` entry and of `[failover]` that concerns sessions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest wait for a TCP connection to the master.
    pub connect_timeout: Duration,
    /// `TCP_USER_TIMEOUT` of the upstream leg: unacknowledged bytes older than this end the session.
    pub upstream_user_timeout: Duration,
    /// Most clients of one worker set that wait for a master at once (per proxy entry).
    pub max_held: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            upstream_user_timeout: Duration::from_secs(30),
            max_held: 10_000,
        }
    }
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is no open master. Nothing is read from the client.
    Waiting,
    /// A connection to the master of this generation is being made, or about to be (in line, or after a pause).
    Dialing(Generation),
    /// Bytes flow to and from the master of this generation, or are withheld by the fence.
    Live(Generation),
    /// The upstream is gone; the client gets what is owed, then the end.
    Closing(CloseReason),
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The bell rang, a wait is over, or the session has just begun: look at the outlook again.
    Looked,
    /// `max_held` clients are waiting already.
    WaitRefused,
    /// The client closed before it was served.
    ClientLeft,
    /// The dial succeeded.
    Dialled,
    /// The dial failed.
    DialFailed,
    /// It has been in line to dial for so long that a client may have given up.
    InLine,
    /// It has been in line to dial for `hold_max`.
    LineTooLong,
    /// The relay is over.
    Ended(CloseReason),
}

/// The part of the published state that moves sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Outlook {
    generation: Generation,
    /// Verified, not held, and the fence word counts.
    open: bool,
    held_since: Option<Moment>,
    hold_max: Duration,
    /// The proxy is ending.
    ending: bool,
}

impl Outlook {
    fn new(state: &State, gate_open: bool, ending: bool) -> Self {
        Self {
            generation: state.generation,
            open: gate_open && state.phase == Phase::Serving,
            held_since: match state.phase {
                Phase::Held { since, .. } => Some(since),
                Phase::NoMaster | Phase::Serving => None,
            },
            hold_max: state.hold_max,
            ending,
        }
    }
}

/// A session's stage and the moments its limits count from: plain data.
#[derive(Clone, Debug)]
struct Life {
    stage: Stage,
    arrived: Moment,
    first_failure: Option<Moment>,
    /// It was not served on arrival, so its client may have given up since.
    kept_waiting: bool,
}

impl Life {
    const fn new(arrived: Moment) -> Self {
        Self {
            stage: Stage::Waiting,
            arrived,
            first_failure: None,
            kept_waiting: false,
        }
    }

    /// The only place a session changes its stage.
    fn on(&mut self, event: Event, outlook: &Outlook, now: Moment) -> Stage {
        let passed = |generation| !outlook.open || outlook.generation != generation;
        self.stage = match (self.stage, event) {
            (Stage::Closing(reason), _) | (_, Event::Ended(reason)) => Stage::Closing(reason),
            _ if outlook.ending => Stage::Closing(CloseReason::Shutdown),
            (_, Event::ClientLeft) => Stage::Closing(CloseReason::ClientLeftWaiting),
            (_, Event::WaitRefused) => Stage::Closing(CloseReason::TooManyWaiting),
            (Stage::Waiting, _) => self.wait(outlook, now),
            (Stage::Dialing(g), _) if passed(g) => self.wait(outlook, now),
            (Stage::Dialing(g), Event::Dialled) => Stage::Live(g),
            (Stage::Dialing(g), Event::DialFailed) => {
                let first = *self.first_failure.get_or_insert(now);
                if now.since(first) >= outlook.hold_max {
                    Stage::Closing(CloseReason::DialFailed)
                } else {
                    Stage::Dialing(g)
                }
            }
            (Stage::Dialing(_), Event::LineTooLong) => Stage::Closing(CloseReason::DialFailed),
            (Stage::Dialing(g), Event::Looked | Event::InLine) => Stage::Dialing(g),
            (Stage::Live(g), _) if outlook.generation != g => Stage::Closing(CloseReason::Switched),
            (Stage::Live(g), _) => match outlook.held_since {
                Some(since) if now.since(since) >= outlook.hold_max => {
                    Stage::Closing(CloseReason::HeldTooLong)
                }
                Some(_) | None => Stage::Live(g),
            },
        };
        self.kept_waiting |=
            self.stage == Stage::Waiting || matches!(event, Event::DialFailed | Event::InLine);
        self.stage
    }

    fn wait(&self, outlook: &Outlook, now: Moment) -> Stage {
        if outlook.open {
            Stage::Dialing(outlook.generation)
        } else if self.patience(outlook, now) > Duration::ZERO {
            Stage::Waiting
        } else if outlook.generation == Generation(0) {
            Stage::Closing(CloseReason::NoMaster)
        } else {
            Stage::Closing(CloseReason::HeldTooLong)
        }
    }

    /// How much longer this client waits for a master.
    fn patience(&self, outlook: &Outlook, now: Moment) -> Duration {
        outlook.hold_max.saturating_sub(now.since(self.arrived))
    }
}
