//! What the process that is followed does, and when: (state, input, now) -> actions. Pure.
//!
//! ```text
//! Starting --Hello--> Preparing --Ready--> Pausing --Paused--> Opening --Opened--> Handing <--> Awaiting --> Over(Handed)
//!     \___________________\____________________\_________________\_________________/______________/
//!                          gone, silent or of another mind: killed, and Dead --> Over(Failed): as if nothing had been
//! ```
//!
//! Until the new process has opened its doors, nothing has happened that cannot be taken back; and what is taken back (the
//! doors, sessions on their way) is so only when the new process is known to be dead, since one that is merely slow may still act.

use std::time::Duration;

use crate::net::clock::Moment;

/// Longest until the new process speaks.
pub const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Longest until it knows its masters: it has to find Sentinels and hear all of them.
pub const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longest until it accepts, or serves the sessions it was sent: clients wait meanwhile.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Most standstills of this process (a machine suspended, a container frozen) after which the other gets its whole time again: in
/// such a time it could not be heard, and may not have run either.
pub const STANDSTILLS_MAX: u32 = 8;
/// Shortest and longest pause before those that were not quiet are asked again.
pub const AGAIN_FLOOR: Duration = Duration::from_millis(5);
/// See [`AGAIN_FLOOR`].
pub const AGAIN_CAP: Duration = Duration::from_millis(250);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The new process is there; whether sessions have the same form in both.
    Hello {
        /// They have.
        same_form: bool,
    },
    /// It has verified its masters; whether they are ours.
    Ready {
        /// They are.
        agrees: bool,
    },
    /// A master is held, or will be.
    Held,
    /// We accept no more.
    Paused,
    /// The new process accepts.
    Opened,
    /// Some sessions were let go of.
    Taken,
    /// Every session was asked once; so many are left.
    Asked {
        /// Sessions of ours.
        left: u64,
    },
    /// What the new process was sent last is its own: it serves them from now on.
    Adopted,
    /// It does not.
    Refused,
    /// It cannot go on, or says what it must not; or the link is broken.
    Gone(Failure),
    /// It has ended, for certain.
    Dead {
        /// It had said, and we had not read, that it serves what it was sent last.
        adopted: bool,
    },
    /// We are to end.
    Ending,
    /// We did nothing for a while, and did not mean to.
    StoodStill,
    /// Time has passed.
    Turn,
}

/// What is to be done, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send the listeners, and what we believe.
    Offer,
    /// Stop accepting.
    Pause,
    /// Tell the new process to accept.
    Go,
    /// Ask sessions to let go. To be answered with [`Input::Taken`] or [`Input::Asked`].
    Ask,
    /// Send the sessions that let go.
    Send,
    /// The new process serves them: close our copies.
    Forget,
    /// Serve them again.
    TakeBack,
    /// From now on it is the main process of the service.
    Introduce,
    /// Tell the new process that nothing more will come.
    Done,
    /// Tell it to end.
    Abort(Failure),
    /// End it, wait until it has, and read what it had said.
    Kill {
        /// Not even as long as it takes to say why.
        at_once: bool,
    },
    /// Accept again.
    Resume,
}

/// Why an upgrade came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be started at all.
    NotStarted,
    /// The new process ended: its configuration, its Sentinels, its defect.
    Ended,
    /// It said nothing for too long.
    Silent,
    /// It said something else than was agreed on.
    Confused,
    /// It believes in another master.
    Disagrees,
    /// A hold began.
    Held,
    /// This process is told to end.
    Ending,
}

impl Failure {
    /// Each once.
    pub const ALL: [Self; 7] = [
        Self::NotStarted,
        Self::Ended,
        Self::Silent,
        Self::Confused,
        Self::Disagrees,
        Self::Held,
        Self::Ending,
    ];

    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Confused => "confused",
            Self::Disagrees => "disagrees",
            Self::Held => "held",
            Self::Ending => "ending",
        }
    }
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new process serves; what is left here drains.
    Handed,
    /// It does not, and we go on.
    Failed(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Starting,
    Preparing,
    Pausing,
    Opening,
    /// Sessions are asked.
    Handing,
    /// Nobody was quiet: they are asked again then.
    Resting(Moment),
    /// Sessions are on their way.
    Awaiting,
    Dying(Failure),
    Over(Outcome),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Giver {
    stage: Stage,
    /// What is waited for must come before this.
    until: Moment,
    /// So long after what there was to do for it was done.
    limit: Duration,
    standstills: u32,
    /// Sessions are handed until then.
    hand_until: Moment,
    hand_for: Duration,
    same_form: bool,
    /// Sessions are with neither, and may be with the new one.
    under_way: bool,
    /// We do not accept.
    closed: bool,
    /// The other masters were not ours.
    disagrees: bool,
    pause: Duration,
}

impl Giver {
    /// The new process was started. Sessions that are not quiet are asked again for `hand_for`.
    pub fn new(now: Moment, hand_for: Duration) -> Self {
        Self {
            stage: Stage::Starting,
            until: now + HELLO_LIMIT,
            limit: HELLO_LIMIT,
            standstills: 0,
            hand_until: now,
            hand_for,
            same_form: false,
            under_way: false,
            closed: false,
            disagrees: false,
            pause: AGAIN_FLOOR,
        }
    }

    /// How it went, when it is over.
    pub const fn outcome(&self) -> Option<Outcome> {
        match self.stage {
            Stage::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// When [`Input::Turn`] is due.
    pub const fn next_turn(&self) -> Moment {
        match self.stage {
            Stage::Resting(until) => until,
            // Nothing is waited for.
            Stage::Handing => self.hand_until,
            _ => self.until,
        }
    }

    /// All that was to be done is done: what is waited for has its time from now on, however long that took.
    pub fn acted(&mut self, now: Moment) {
        self.until = now + self.limit;
    }

    /// The only place where the stage changes.
    #[must_use]
    pub fn on(&mut self, now: Moment, input: Input) -> Vec<Action> {
        match (self.stage, input) {
            (Stage::Over(_), _) => Vec::new(),
            (Stage::Dying(failure), Input::Dead { adopted }) => self.recover(failure, adopted),
            (Stage::Dying(_), _) => Vec::new(),
            (_, Input::Gone(failure)) => self.kill(failure, None),
            (_, Input::Dead { .. }) => self.kill(Failure::Ended, None),
            (Stage::Starting | Stage::Preparing, Input::Held) => self.abort(Failure::Held),
            (Stage::Starting | Stage::Preparing, Input::Ending) => self.abort(Failure::Ending),
            // From here on it is quicker to finish: a hold is the new one's matter as much as ours, and so is the end.
            (Stage::Handing | Stage::Resting(_), Input::Ending) => self.finish(),
            (_, Input::Ending) => {
                self.hand_for = Duration::ZERO;
                self.hand_until = now;
                Vec::new()
            }
            (_, Input::Held) => Vec::new(),
            (Stage::Starting, Input::Hello { same_form }) => {
                self.same_form = same_form;
                self.await_within(Stage::Preparing, now, READY_LIMIT, vec![Action::Offer])
            }
            // It says so again when it has heard more.
            (Stage::Preparing, Input::Ready { agrees: false }) => {
                self.disagrees = true;
                Vec::new()
            }
            (Stage::Preparing, Input::Ready { agrees: true }) => {
                self.closed = true;
                self.await_within(Stage::Pausing, now, ANSWER_LIMIT, vec![Action::Pause])
            }
            (Stage::Pausing, Input::Paused) => {
                self.await_within(Stage::Opening, now, ANSWER_LIMIT, vec![Action::Go])
            }
            (Stage::Opening, Input::Opened) if self.same_form => {
                self.hand_until = now + self.hand_for;
                self.go(Stage::Handing, vec![Action::Ask])
            }
            (Stage::Opening, Input::Opened) => self.finish(),
            (Stage::Handing, Input::Taken) => {
                self.under_way = true;
                self.await_within(Stage::Awaiting, now, ANSWER_LIMIT, vec![Action::Send])
            }
            (Stage::Handing, Input::Asked { left }) => self.asked(now, left),
            (Stage::Awaiting, Input::Adopted) => {
                self.under_way = false;
                self.pause = AGAIN_FLOOR;
                self.go(Stage::Handing, vec![Action::Forget, Action::Ask])
            }
            (Stage::Awaiting, Input::Refused) => {
                self.under_way = false;
                let mut actions = vec![Action::TakeBack];
                actions.extend(self.rest(now));
                actions
            }
            (Stage::Resting(until), Input::Turn) if now >= until => {
                self.go(Stage::Handing, vec![Action::Ask])
            }
            (_, Input::StoodStill) => {
                if self.standstills < STANDSTILLS_MAX {
                    self.standstills += 1;
                    self.acted(now);
                }
                Vec::new()
            }
            // Asking takes no time worth a limit; whoever asks answers.
            (Stage::Handing | Stage::Resting(_), Input::Turn) => Vec::new(),
            (_, Input::Turn) if now < self.until => Vec::new(),
            (Stage::Preparing, Input::Turn) if self.disagrees => self.abort(Failure::Disagrees),
            (Stage::Starting | Stage::Preparing, Input::Turn) => self.abort(Failure::Silent),
            (_, Input::Turn) => self.kill(Failure::Silent, None),
            // Said again before it had heard us.
            (_, Input::Ready { .. }) if self.stage != Stage::Starting => Vec::new(),
            _ => self.kill(Failure::Confused, None),
        }
    }

    /// Everybody was asked once.
    fn asked(&mut self, now: Moment, left: u64) -> Vec<Action> {
        if left == 0 || now >= self.hand_until {
            return self.finish();
        }
        self.rest(now)
    }

    /// Until it is worth asking again.
    fn rest(&mut self, now: Moment) -> Vec<Action> {
        if now >= self.hand_until {
            return self.finish();
        }
        let until = (now + self.pause).min(self.hand_until);
        self.pause = (self.pause * 2).min(AGAIN_CAP);
        self.go(Stage::Resting(until), Vec::new())
    }

    fn finish(&mut self) -> Vec<Action> {
        self.stage = Stage::Over(Outcome::Handed);
        // In this order: whoever is done is the main process already.
        vec![Action::Introduce, Action::Done]
    }

    fn abort(&mut self, failure: Failure) -> Vec<Action> {
        self.kill(failure, Some(Action::Abort(failure)))
    }

    fn kill(&mut self, failure: Failure, first: Option<Action>) -> Vec<Action> {
        self.stage = Stage::Dying(failure);
        // Clients wait, and one that is slow must not go on with what we are about to take back. One that ends by itself says why.
        let at_once = (self.under_way || self.closed) && failure != Failure::Ended;
        let kill = Action::Kill { at_once };
        first.into_iter().chain([kill]).collect()
    }

    /// The new process is dead: whatever it had been given without having said so is ours. It says so before it serves them; what it
    /// may have served is never served again.
    fn recover(&mut self, failure: Failure, adopted: bool) -> Vec<Action> {
        self.stage = Stage::Over(Outcome::Failed(failure));
        let mut actions = Vec::new();
        if std::mem::take(&mut self.under_way) {
            actions.push(if adopted {
                Action::Forget
            } else {
                Action::TakeBack
            });
        }
        if std::mem::take(&mut self.closed) {
            actions.push(Action::Resume);
        }
        actions
    }

    fn go(&mut self, stage: Stage, actions: Vec<Action>) -> Vec<Action> {
        self.stage = stage;
        actions
    }

    fn await_within(
        &mut self,
        stage: Stage,
        now: Moment,
        limit: Duration,
        actions: Vec<Action>,
    ) -> Vec<Action> {
        self.limit = limit;
        self.until = now + limit;
        self.go(stage, actions)
    }
}
