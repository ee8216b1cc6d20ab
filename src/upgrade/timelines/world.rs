//! Two processes, the link between them, and what goes wrong.

use std::collections::VecDeque;
use std::time::Duration;

use crate::net::clock::Moment;
use crate::upgrade::new::{self, Taker};
use crate::upgrade::old::{self, Failure, Giver};

pub(super) const SESSIONS: usize = 5;
/// Sessions of one message.
pub(super) const AT_ONCE: usize = 2;
/// More than any way through takes.
pub(super) const STEPS: usize = 2000;
pub(super) const HAND_FOR: Duration = Duration::from_secs(10);
/// Longer than any limit.
pub(super) const LATE: Duration = Duration::from_secs(100);
/// Steps in which who was told to end may go on, where it is not killed at once.
pub(super) const GRACE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Old,
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Crash(Side, usize),
    /// It does nothing any more, and is not dead.
    Freeze(Side, usize),
    /// It does nothing for so many steps, and then goes on where it was.
    Stall(Side, usize, usize),
    /// The machine does.
    StallBoth(usize, usize),
}

/// What a side is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step<A> {
    Do(A),
    /// New: serve what it has said to be its own.
    Serve(Vec<usize>),
    /// Old: kill the other, wait for its end, and read what it had said.
    Reap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Hello,
    Offer,
    Ready,
    Go,
    Opened,
    Sessions,
    Adopted,
    Refused,
    Done,
    Abort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs,
    Frozen,
    Dead,
}

/// A whole upgrade: what either does, and what is on its way.
pub(super) struct World {
    pub(super) now: Moment,
    pub(super) step: usize,
    pub(super) fault: Fault,
    pub(super) same_form: bool,
    /// The new process refuses so many batches.
    pub(super) refuses: usize,
    /// Sessions that are not quiet until so many steps have passed.
    pub(super) busy_until: usize,
    pub(super) giver: Giver,
    pub(super) taker: Taker,
    pub(super) old: State,
    pub(super) new: State,
    pub(super) to_old: VecDeque<Word>,
    pub(super) to_new: VecDeque<Word>,
    pub(super) link_cut: bool,
    pub(super) old_accepts: bool,
    pub(super) new_accepts: bool,
    pub(super) has_listeners: bool,
    pub(super) old_writes: [bool; SESSIONS],
    pub(super) new_writes: [bool; SESSIONS],
    pub(super) on_the_way: Vec<usize>,
    /// What the last message held.
    pub(super) batch: Vec<usize>,
    /// Forgotten by the old process: the new one's to serve, or to lose.
    pub(super) given: [bool; SESSIONS],
    pub(super) old_todo: VecDeque<Step<old::Action>>,
    pub(super) new_todo: VecDeque<Step<new::Action>>,
    /// Who is to end is waited for until then.
    pub(super) reap_at: usize,
    /// The new process is quicker than the old one where both have something to do.
    pub(super) new_first: bool,
    /// Much time has passed for who stood still, and that is what it notices first.
    pub(super) late: bool,
    /// The old process has yet to notice that.
    pub(super) stood: bool,
    pub(super) told_dead: bool,
    pub(super) introduced: bool,
}

impl World {
    pub(super) fn new(fault: Fault, same_form: bool) -> Self {
        let now = Moment::default() + Duration::from_secs(1000);
        let (taker, actions) = Taker::new(now);
        let mut world = Self {
            now,
            step: 0,
            fault,
            same_form,
            refuses: 0,
            busy_until: 0,
            giver: Giver::new(now, HAND_FOR),
            taker,
            old: State::Runs,
            new: State::Runs,
            to_old: VecDeque::new(),
            to_new: VecDeque::new(),
            link_cut: false,
            old_accepts: true,
            new_accepts: false,
            has_listeners: false,
            old_writes: [true; SESSIONS],
            new_writes: [false; SESSIONS],
            on_the_way: Vec::new(),
            batch: Vec::new(),
            given: [false; SESSIONS],
            old_todo: VecDeque::new(),
            new_todo: VecDeque::new(),
            reap_at: 0,
            new_first: false,
            late: false,
            stood: false,
            told_dead: false,
            introduced: false,
        };
        world.take(actions);
        world
    }

    /// One thing has happened: the fault may, and nothing may be wrong.
    pub(super) fn turn(&mut self) {
        match self.fault {
            Fault::Crash(side, at) if at == self.step => self.die(side),
            Fault::Freeze(side, at) | Fault::Stall(side, at, _) if at == self.step => {
                self.stand(side, State::Runs, State::Frozen);
            }
            Fault::StallBoth(at, _) if at == self.step => {
                self.stand(Side::Old, State::Runs, State::Frozen);
                self.stand(Side::New, State::Runs, State::Frozen);
            }
            _ => {}
        }
        for side in [Side::Old, Side::New] {
            self.go_on(side);
        }
        self.step += 1;
        let lives = |state| state != State::Dead;
        let both = lives(self.old) && self.old_accepts && lives(self.new) && self.new_accepts;
        assert!(!both, "two accept at step {}: {:?}", self.step, self.fault);
        for n in 0..SESSIONS {
            let both =
                lives(self.old) && self.old_writes[n] && lives(self.new) && self.new_writes[n];
            assert!(
                !both,
                "two write for {n} at step {}: {:?}",
                self.step, self.fault
            );
        }
    }

    /// Whoever stood still until now.
    fn go_on(&mut self, side: Side) {
        let (at, steps, later) = match self.fault {
            Fault::Stall(who, at, steps) if who == side => (at, steps, LATE),
            // Once for both.
            Fault::StallBoth(at, steps) if side == Side::Old => (at, steps, LATE),
            Fault::StallBoth(at, steps) => (at, steps, Duration::ZERO),
            _ => return,
        };
        let goes_on = at + steps == self.step && self.stand(side, State::Frozen, State::Runs);
        if !goes_on || !self.late {
            return;
        }
        self.now = self.now + later;
        match side {
            // It reads before it looks at the clock.
            Side::Old => self.stood = true,
            Side::New => self.tell_new(new::Input::Turn),
        }
    }

    pub(super) fn die(&mut self, side: Side) {
        match side {
            Side::Old => self.old = State::Dead,
            Side::New => self.new = State::Dead,
        }
        self.link_cut = true;
    }

    pub(super) fn stand(&mut self, side: Side, from: State, to: State) -> bool {
        let state = match side {
            Side::Old => &mut self.old,
            Side::New => &mut self.new,
        };
        let does = *state == from;
        if does {
            *state = to;
        }
        does
    }

    pub(super) fn tell_old(&mut self, input: old::Input) {
        let actions = self.giver.on(self.now, input);
        self.old_todo.extend(actions.into_iter().map(Step::Do));
    }

    pub(super) fn give(&mut self, step: Step<old::Action>) {
        use old::{Action as A, Input};
        let Step::Do(action) = step else {
            self.die(Side::New);
            let adopted = self.to_old.contains(&Word::Adopted);
            self.to_old.clear();
            self.tell_old(Input::Dead { adopted });
            return;
        };
        match action {
            A::Offer => self.to_new.push_back(Word::Offer),
            A::Pause => {
                self.old_accepts = false;
                self.tell_old(Input::Paused);
            }
            A::Go => self.to_new.push_back(Word::Go),
            A::Ask => {
                let busy = self.step < self.busy_until;
                let quiet = (0..SESSIONS).filter(|n| self.old_writes[*n] && !(busy && n % 2 == 0));
                self.on_the_way = quiet.take(AT_ONCE).collect();
                for n in &self.on_the_way {
                    self.old_writes[*n] = false;
                }
                let left = self.old_writes.iter().filter(|writes| **writes).count();
                self.tell_old(if self.on_the_way.is_empty() {
                    Input::Asked { left: left as u64 }
                } else {
                    Input::Taken
                });
            }
            A::Send => {
                self.batch.clone_from(&self.on_the_way);
                self.to_new.push_back(Word::Sessions);
            }
            A::Forget => {
                for n in self.on_the_way.drain(..) {
                    self.given[n] = true;
                }
            }
            A::TakeBack => {
                for n in self.on_the_way.drain(..) {
                    self.old_writes[n] = true;
                }
            }
            A::Introduce => self.introduced = true,
            A::Done => self.to_new.push_back(Word::Done),
            A::Abort(_) => self.to_new.push_back(Word::Abort),
            A::Kill { at_once } => {
                self.reap_at = self.step + if at_once { 0 } else { GRACE };
                self.old_todo.push_back(Step::Reap);
            }
            A::Resume => self.old_accepts = true,
        }
    }

    pub(super) fn tell_new(&mut self, input: new::Input) {
        let actions = self.taker.on(self.now, input);
        self.take(actions);
        if let Some(new::Outcome::Ends(_)) = self.taker.outcome() {
            self.die(Side::New);
        }
    }

    pub(super) fn take(&mut self, actions: Vec<new::Action>) {
        self.new_todo.extend(actions.into_iter().map(Step::Do));
    }

    pub(super) fn serve(&mut self, step: Step<new::Action>) {
        use new::{Action as A, Input};
        let action = match step {
            Step::Do(action) => action,
            Step::Serve(batch) => {
                for n in batch {
                    self.new_writes[n] = true;
                }
                return;
            }
            Step::Reap => unreachable!("only the old process reaps"),
        };
        match action {
            A::Hello => self.to_old.push_back(Word::Hello),
            A::Prepare => {
                self.has_listeners = true;
                self.tell_new(Input::Known);
            }
            A::Ready => self.to_old.push_back(Word::Ready),
            A::Open => self.new_accepts = true,
            A::Opened => self.to_old.push_back(Word::Opened),
            A::Adopt if self.refuses > 0 => {
                self.refuses -= 1;
                self.to_old.push_back(Word::Refused);
            }
            A::Adopt => {
                if self.old != State::Dead {
                    self.to_old.push_back(Word::Adopted);
                }
                self.new_todo.push_front(Step::Serve(self.batch.clone()));
            }
            A::Part => self.link_cut = true,
        }
    }

    /// Something the old process does by itself, or hears; false when there is nothing.
    pub(super) fn advance_old(&mut self) -> bool {
        if self.old != State::Runs {
            return false;
        }
        if self.old_todo.front() == Some(&Step::Reap) && self.step < self.reap_at {
            return false;
        }
        if let Some(step) = self.old_todo.pop_front() {
            self.give(step);
            if self.old_todo.is_empty() {
                self.stood = false;
                self.giver.acted(self.now);
            }
            return true;
        }
        if self.giver.outcome().is_some() {
            return false;
        }
        if let Some(word) = self.to_old.pop_front() {
            use old::Input as I;
            let same_form = self.same_form;
            self.tell_old(match word {
                Word::Hello => I::Hello { same_form },
                Word::Ready => I::Ready { agrees: true },
                Word::Opened => I::Opened,
                Word::Adopted => I::Adopted,
                _ => I::Refused,
            });
            return true;
        }
        if std::mem::take(&mut self.stood) {
            self.tell_old(old::Input::StoodStill);
            return true;
        }
        if self.link_cut {
            self.tell_old(old::Input::Gone(Failure::Ended));
        }
        self.link_cut
    }

    /// The same of the new one.
    pub(super) fn advance_new(&mut self) -> bool {
        if self.new != State::Runs {
            return false;
        }
        if let Some(step) = self.new_todo.pop_front() {
            self.serve(step);
            return true;
        }
        if self.taker.outcome().is_some() {
            return false;
        }
        if let Some(word) = self.to_new.pop_front() {
            use new::Input as I;
            self.tell_new(match word {
                Word::Offer => I::Offer,
                Word::Go => I::Go,
                Word::Sessions => I::Sessions,
                Word::Done => I::Done,
                _ => I::Abort,
            });
            return true;
        }
        if self.taker.is_orphaned() && self.old == State::Dead && !self.told_dead {
            self.told_dead = true;
            self.tell_new(new::Input::Dead);
            return true;
        }
        if self.link_cut && !self.taker.is_orphaned() {
            self.tell_new(new::Input::Gone);
            return true;
        }
        false
    }

    /// Lets something happen; false when nothing more can.
    pub(super) fn advance(&mut self) -> bool {
        self.turn();
        let first = self.new_first && self.advance_new();
        let something = first || self.advance_old() || self.advance_new();
        if something {
            return true;
        }
        if self.old == State::Runs && !self.old_todo.is_empty() {
            // Waits for the end of the other, which does nothing more.
            self.reap_at = self.step;
            return true;
        }
        // Nothing is on its way: time passes.
        let mut due = Vec::new();
        if self.old == State::Runs && self.giver.outcome().is_none() {
            due.push(self.giver.next_turn());
        }
        if self.new == State::Runs && self.taker.outcome().is_none() {
            due.extend(self.taker.next_turn());
        }
        let Some(next) = due.into_iter().min() else {
            // Somebody may go on yet.
            return matches!(self.fault,
                Fault::Stall(_, at, steps) | Fault::StallBoth(at, steps) if self.step <= at + steps);
        };
        self.now = self.now.max(next);
        if self.old == State::Runs {
            self.tell_old(old::Input::Turn);
        }
        if self.new == State::Runs {
            self.tell_new(new::Input::Turn);
        }
        true
    }

    pub(super) fn play(mut self) -> Self {
        while self.advance() {
            assert!(self.step < STEPS, "no end: {:?}", self.fault);
        }
        self
    }

    /// Every session is with somebody, or went down with the new process, which had taken it over.
    pub(super) fn assert_nothing_is_lost(&self, what: &str) {
        for n in 0..SESSIONS {
            assert!(self.old_writes[n] || self.given[n], "{what}: {n} is lost");
            let lives = self.new == State::Runs;
            let served = self.old_writes[n] || self.new_writes[n];
            assert!(served || !lives, "{what}: nobody serves {n}");
        }
    }

    /// What the new process was given it serves.
    pub(super) fn assert_what_was_given_lives(&self, what: &str) {
        let lost = (0..SESSIONS).find(|n| self.given[*n] && !self.new_writes[*n]);
        let lives = self.new == State::Runs || !self.given.contains(&true);
        assert!(lost.is_none() && lives, "{what}: {lost:?} is lost");
    }

    pub(super) fn served_by_old(&self) -> usize {
        count(&self.old_writes)
    }

    pub(super) fn served_by_new(&self) -> usize {
        count(&self.new_writes)
    }
}

fn count(writes: &[bool]) -> usize {
    writes.iter().filter(|writes| **writes).count()
}
