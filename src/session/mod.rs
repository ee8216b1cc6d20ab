//! The life of one client connection through the proxy.
//!
//! ```text
//!            no master, or held                      max_held, client left
//!           +------------------- Waiting ------------------------------------+
//!           |                    ^     |  \___ hold_max ___> Failing ___      |
//!  client --+       held, swapped|     | open                  |        \    v
//!           |                    |     v  <------ open --------+         \
//!           +------------------> Dialing(g) --------------------------> Closing(reason) --> end
//!            open             ^  |   ^ | connected, replayed               ^
//!                      spoke /   +---+ v                                   |
//!           Detached -------+    retry Live(g) ----------------------------+
//!              ^                        |       swap, hold_max, end of a stream
//!              +------------------------+
//!                 the same, where the client need not notice
//!
//!  Live(g):   client --recv--> [worker's one buffer] --fence--> upstream of generation g
//!             client <--------- [worker's one buffer] <--recv-- upstream of generation g
//!             what a peer does not take at once is spilled, bounded, and that direction stops reading
//! ```
//!
//! A proxy that ends (`Ending`) lets each session finish what it has begun: one with an upstream at the next boundary, by
//! the relay's account (`relay::drain`), every other one at once.
//!
//! Every transition is in `Life::on`, which is pure; `run` does what the stage says, `relay` moves the bytes,
//! `farewell` closes in order. Generation and hold are *levels*: whoever looks late sees the same.
//!
//! Never looks into a byte (but a client's first ones, [`sniff`]), never chooses a master, never resends but a read
//! (`resend_reads`), never invents a reply. Bytes reach an upstream only past the fence ([`crate::topology::publish::Gate`]), and a client only if the upstream sent them.

pub mod close;
pub mod journal;
pub mod login;
pub mod luggage;
pub mod replay;
pub mod sniff;
pub mod tally;
pub mod tracker;

mod afloat;
mod budget;
mod buffer;
mod claim;
mod crowd;
#[cfg(test)]
mod ending_tests;
mod farewell;
mod handing;
mod house;
mod introduce;
mod lanes;
#[cfg(test)]
mod live_tests;
mod places;
mod relay;
mod run;
mod spare;
mod subscriptions;
mod tell;
#[cfg(test)]
mod tests;
mod watch;

use std::time::Duration;

use crate::net::clock::Moment;
use crate::topology::{Generation, Phase, State};

pub(crate) use budget::Budget;
#[cfg(test)]
pub(crate) use budget::SHARE;
pub(crate) use buffer::{Buffer, new_buffer};
use close::CloseReason;
pub(crate) use handing::adopt;
#[cfg(test)]
pub(crate) use house::DIALS_AT_ONCE;
pub(crate) use house::{Common, House, Seat};
pub(crate) use lanes::Lanes;
pub use login::Login;
pub(crate) use run::run;

/// What becomes of a session when its master changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSwitch {
    /// It is closed, so that the client connects again.
    Close,
    /// It is carried over if the client need not notice, else closed.
    #[default]
    Move,
}

/// The part of a `[[proxy]]` entry and of `[failover]` that concerns sessions.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// See [`OnSwitch`].
    pub on_switch: OnSwitch,
    /// A client's own credentials are kept in memory, to be replayed when it is moved.
    pub replay_auth: bool,
    /// What becomes of a session that is subscribed to something (`on_switch = "move"`).
    pub pubsub: OnSwitch,
    /// A read whose reply was lost with its master is sent to the next one (`on_switch = "move"`).
    pub resend_reads: bool,
    /// An upstream that a client left as it found it serves the next client (`on_switch = "move"`).
    pub spare_upstreams: bool,
    /// Longest wait for a TCP connection to the master.
    pub connect_timeout: Duration,
    /// `TCP_USER_TIMEOUT` of the upstream leg: unacknowledged bytes older than this end the session.
    pub upstream_user_timeout: Duration,
    /// Most clients of one worker set that wait for a master at once (per proxy entry).
    pub max_held: usize,
    /// A client that has not asked for anything for so long is closed when places become few; 0 = never.
    pub first_request_timeout: Duration,
    /// A client that takes none of its replies for so long is closed; 0 = never.
    pub write_stall_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            on_switch: OnSwitch::default(),
            replay_auth: true,
            pubsub: OnSwitch::Close,
            resend_reads: false,
            spare_upstreams: true,
            connect_timeout: Duration::from_millis(500),
            upstream_user_timeout: Duration::from_secs(30),
            max_held: 10_000,
            first_request_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::ZERO,
        }
    }
}

/// How far the proxy is with its own end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It serves.
    #[default]
    No,
    /// Nothing new is begun. What was begun is finished, and behind it each session ends.
    Draining,
    /// What is left is cut.
    Now,
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
    /// There is no upstream, and the client has not asked for anything since.
    Detached,
    /// There was no master for `hold_max`: requests that certainly were not executed are answered with an error.
    Failing,
    /// The upstream is gone; the client gets what is owed, then the end.
    Closing(CloseReason),
}

/// What happened to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The bell rang, a wait is over, or the session has just begun: look at the outlook again.
    Looked,
    /// The same, of a session that need not be closed for the loss of its upstream.
    LookedMovable,
    /// The upstream is lost, or given up because somebody asked for it, and the client need not notice.
    Parted,
    /// A client without an upstream wants something.
    Spoke,
    /// It has wanted it since before its upstream was lost, and may have given up meanwhile.
    SpokeBefore,
    /// `max_held` clients are waiting already.
    WaitRefused,
    /// The client closed before it was served.
    ClientLeft,
    /// The dial succeeded.
    Dialled,
    /// The dial failed, or what it led to ended before it said anything.
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
    /// It is held because somebody wants it so: who has a master keeps it.
    paused: bool,
    hold_max: Duration,
    ending: Ending,
}

impl Outlook {
    fn new(state: &State, gate_open: bool, ending: Ending) -> Self {
        Self {
            generation: state.generation,
            open: gate_open && state.phase == Phase::Serving,
            held_since: match state.phase {
                Phase::Held { since, .. } => Some(since),
                Phase::NoMaster | Phase::Serving => None,
            },
            paused: state.is_paused(),
            hold_max: state.hold_max,
            ending,
        }
    }
}

/// A session's stage and the moments its limits count from: plain data.
#[derive(Clone, Debug)]
struct Life {
    stage: Stage,
    /// It can outlive its upstream (`on_switch = "move"`).
    moves: bool,
    /// Since when it is without a master that it needs; of a live one, since when it has its upstream.
    since: Moment,
    first_failure: Option<Moment>,
    /// It was not served at once, so its client may have given up since.
    kept_waiting: bool,
    /// It has had an upstream before.
    served: bool,
}

impl Life {
    const fn new(arrived: Moment, moves: bool) -> Self {
        Self {
            stage: Stage::Waiting,
            moves,
            since: arrived,
            first_failure: None,
            kept_waiting: false,
            served: false,
        }
    }

    /// The only place a session changes its stage.
    fn on(&mut self, event: Event, outlook: &Outlook, now: Moment) -> Stage {
        let passed = |generation| !outlook.open || outlook.generation != generation;
        self.stage = match (self.stage, event) {
            (Stage::Closing(reason), _) | (_, Event::Ended(reason)) => Stage::Closing(reason),
            (Stage::Live(_), Event::Looked) if outlook.ending == Ending::Now => {
                Stage::Closing(CloseReason::ShutdownForced)
            }
            _ if outlook.ending == Ending::Now => Stage::Closing(CloseReason::Shutdown),
            // Without an upstream nothing is under way: whatever its client asked for was not executed.
            (Stage::Live(g), _) => self.serve(g, event, outlook, now),
            _ if outlook.ending == Ending::Draining => Stage::Closing(CloseReason::Shutdown),
            (Stage::Detached, Event::ClientLeft) => Stage::Closing(CloseReason::ClientClosed),
            (_, Event::ClientLeft) => Stage::Closing(CloseReason::ClientLeftWaiting),
            (_, Event::WaitRefused) => Stage::Closing(CloseReason::TooManyWaiting),
            (Stage::Waiting, _) => self.wait(outlook, now),
            (Stage::Dialing(g), _) if passed(g) => self.wait(outlook, now),
            (Stage::Dialing(g), Event::Dialled) => {
                // What failed before counts until it is heard of: an upstream may end as soon as it is there.
                self.served = true;
                if self.first_failure.is_none() {
                    self.since = now;
                }
                Stage::Live(g)
            }
            (Stage::Dialing(g), Event::DialFailed) => self.dial_failed(g, outlook, now),
            (Stage::Dialing(_), Event::LineTooLong) => self.fail(outlook, CloseReason::DialFailed),
            (Stage::Dialing(g), _) => Stage::Dialing(g),
            (Stage::Detached, Event::Spoke | Event::SpokeBefore) => {
                self.since = now;
                self.first_failure = None;
                self.kept_waiting = event == Event::SpokeBefore;
                self.wait(outlook, now)
            }
            (Stage::Detached, _) => Stage::Detached,
            (Stage::Failing, _) if outlook.open => Stage::Dialing(outlook.generation),
            (Stage::Failing, _) => Stage::Failing,
        };
        self.kept_waiting |=
            self.stage == Stage::Waiting || matches!(event, Event::DialFailed | Event::InLine);
        self.stage
    }

    /// What becomes of a session that has an upstream; not when what is left is cut.
    fn serve(&mut self, g: Generation, event: Event, outlook: &Outlook, now: Moment) -> Stage {
        let parted = match outlook.ending {
            Ending::No => Stage::Detached,
            Ending::Draining | Ending::Now => Stage::Closing(CloseReason::Shutdown),
        };
        let serves = outlook.open && outlook.generation == g;
        match (self.left(g, outlook, now), event) {
            (_, Event::ClientLeft) => Stage::Closing(CloseReason::ClientLeftWaiting),
            (_, Event::WaitRefused) => Stage::Closing(CloseReason::TooManyWaiting),
            (_, Event::DialFailed) if serves && outlook.ending == Ending::No => {
                self.dial_failed(g, outlook, now)
            }
            (_, Event::Parted | Event::DialFailed)
            | (Some(CloseReason::Switched), Event::LookedMovable) => parted,
            (None, _) => Stage::Live(g),
            (Some(_), Event::LookedMovable) if !outlook.hold_max.is_zero() => parted,
            (Some(reason), _) => Stage::Closing(reason),
        }
    }

    fn dial_failed(&mut self, generation: Generation, outlook: &Outlook, now: Moment) -> Stage {
        let first = *self.first_failure.get_or_insert(now);
        if now.since(first) >= outlook.hold_max {
            self.fail(outlook, CloseReason::DialFailed)
        } else {
            Stage::Dialing(generation)
        }
    }

    /// Why the upstream of this generation is given up, if so.
    fn left(&self, generation: Generation, outlook: &Outlook, now: Moment) -> Option<CloseReason> {
        if outlook.generation != generation {
            return Some(CloseReason::Switched);
        }
        let held = outlook.held_since.filter(|_| !outlook.paused)?;
        (now.since(held) >= outlook.hold_max).then_some(CloseReason::HeldTooLong)
    }

    fn wait(&self, outlook: &Outlook, now: Moment) -> Stage {
        if outlook.open {
            Stage::Dialing(outlook.generation)
        } else if self.patience(outlook, now) > Duration::ZERO {
            Stage::Waiting
        } else if outlook.generation == Generation(0) {
            self.fail(outlook, CloseReason::NoMaster)
        } else {
            self.fail(outlook, CloseReason::HeldTooLong)
        }
    }

    /// There was no master for too long.
    const fn fail(&self, outlook: &Outlook, reason: CloseReason) -> Stage {
        if self.moves && !outlook.hold_max.is_zero() {
            Stage::Failing
        } else {
            Stage::Closing(reason)
        }
    }

    /// How much longer this client waits for a master. Where it can be answered instead of closed, nobody waits who comes
    /// when others have waited in vain already.
    fn patience(&self, outlook: &Outlook, now: Moment) -> Duration {
        let since = outlook.held_since.filter(|_| self.moves);
        outlook
            .hold_max
            .saturating_sub(now.since(since.unwrap_or(self.since)))
    }
}
