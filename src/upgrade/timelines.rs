//! Both sides of an upgrade against each other, with a crash or a standstill of either at every step: nobody accepts beside the
//! other, nobody writes for a session beside the other, and no more is lost than what was with the one that crashed.

use std::collections::VecDeque;
use std::time::Duration;

use super::new::{self, Taker};
use super::old::{self, Failure, Giver};
use crate::net::clock::Moment;

const SESSIONS: usize = 5;
/// Sessions of one message.
const AT_ONCE: usize = 2;
/// More than any way through takes.
const STEPS: usize = 2000;
const HAND_FOR: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Crash(Side, usize),
    /// It does nothing any more, and is not dead.
    Freeze(Side, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
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
enum State {
    Runs,
    Frozen,
    Dead,
}

/// A whole upgrade: what either does, and what is on its way.
struct World {
    now: Moment,
    step: usize,
    fault: Fault,
    same_form: bool,
    /// The new process refuses so many batches.
    refuses: usize,
    /// Sessions that are not quiet until so many steps have passed.
    busy_until: usize,
    giver: Giver,
    taker: Taker,
    old: State,
    new: State,
    to_old: VecDeque<Word>,
    to_new: VecDeque<Word>,
    link_cut: bool,
    old_accepts: bool,
    new_accepts: bool,
    has_listeners: bool,
    old_writes: [bool; SESSIONS],
    new_writes: [bool; SESSIONS],
    on_the_way: Vec<usize>,
    told_dead: bool,
    introduced: bool,
}

impl World {
    fn new(fault: Fault, same_form: bool) -> Self {
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
            told_dead: false,
            introduced: false,
        };
        world.take(actions);
        world
    }

    /// One thing has happened: the fault may, and nothing may be wrong.
    fn turn(&mut self) {
        match self.fault {
            Fault::Crash(side, at) if at == self.step => self.die(side),
            Fault::Freeze(Side::Old, at) if at == self.step && self.old == State::Runs => {
                self.old = State::Frozen;
            }
            Fault::Freeze(Side::New, at) if at == self.step && self.new == State::Runs => {
                self.new = State::Frozen;
            }
            _ => {}
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

    fn die(&mut self, side: Side) {
        match side {
            Side::Old => self.old = State::Dead,
            Side::New => self.new = State::Dead,
        }
        self.link_cut = true;
    }

    fn tell_old(&mut self, input: old::Input) {
        let actions = self.giver.on(self.now, input);
        for action in actions {
            if self.old != State::Runs {
                return;
            }
            self.turn();
            if self.old == State::Runs {
                self.give(action);
            }
        }
    }

    fn give(&mut self, action: old::Action) {
        use old::{Action as A, Input};
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
            A::Send => self.to_new.push_back(Word::Sessions),
            A::Forget => self.on_the_way.clear(),
            A::TakeBack => {
                for n in self.on_the_way.drain(..) {
                    self.old_writes[n] = true;
                }
            }
            A::Introduce => self.introduced = true,
            A::Done => self.to_new.push_back(Word::Done),
            A::Abort(_) => self.to_new.push_back(Word::Abort),
            A::Kill => {
                self.die(Side::New);
                self.turn();
                self.tell_old(Input::Dead);
            }
            A::Resume => self.old_accepts = true,
        }
    }

    fn tell_new(&mut self, input: new::Input) {
        let actions = self.taker.on(self.now, input);
        self.take(actions);
        if let Some(new::Outcome::Ends(_)) = self.taker.outcome() {
            self.die(Side::New);
        }
    }

    fn take(&mut self, actions: Vec<new::Action>) {
        use new::{Action as A, Input};
        for action in actions {
            if self.new != State::Runs {
                return;
            }
            self.turn();
            if self.new != State::Runs {
                return;
            }
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
                    for n in &self.on_the_way {
                        self.new_writes[*n] = true;
                    }
                    self.turn();
                    self.to_old.push_back(Word::Adopted);
                }
                A::Part => self.link_cut = true,
            }
        }
    }

    /// Lets something happen; false when nothing more can.
    fn advance(&mut self) -> bool {
        self.turn();
        if self.old == State::Runs
            && self.giver.outcome().is_none()
            && let Some(word) = self.to_old.pop_front()
        {
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
        if self.new == State::Runs
            && self.taker.outcome().is_none()
            && let Some(word) = self.to_new.pop_front()
        {
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
        if self.link_cut && self.old == State::Runs && self.giver.outcome().is_none() {
            self.tell_old(old::Input::Gone(Failure::Ended));
            return true;
        }
        if self.new == State::Runs && self.taker.outcome().is_none() {
            if self.taker.is_orphaned() && self.old == State::Dead && !self.told_dead {
                self.told_dead = true;
                self.tell_new(new::Input::Dead);
                return true;
            }
            if self.link_cut && !self.taker.is_orphaned() {
                self.tell_new(new::Input::Gone);
                return true;
            }
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
            return false;
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

    fn play(mut self) -> Self {
        while self.advance() {
            assert!(self.step < STEPS, "no end: {:?}", self.fault);
        }
        self
    }

    fn served_by_old(&self) -> usize {
        count(&self.old_writes)
    }

    fn served_by_new(&self) -> usize {
        count(&self.new_writes)
    }
}

fn count(writes: &[bool]) -> usize {
    writes.iter().filter(|writes| **writes).count()
}

#[test]
fn without_a_fault_everything_is_handed() {
    let world = World::new(Fault::None, true).play();
    assert_eq!(world.giver.outcome(), Some(old::Outcome::Handed));
    assert_eq!(world.taker.outcome(), Some(new::Outcome::Serves));
    assert_eq!(
        (world.served_by_old(), world.served_by_new()),
        (0, SESSIONS)
    );
    assert!(world.new_accepts && !world.old_accepts && world.introduced);
}

#[test]
fn another_form_of_sessions_leaves_them_to_drain() {
    let world = World::new(Fault::None, false).play();
    assert_eq!(world.giver.outcome(), Some(old::Outcome::Handed));
    assert_eq!(
        (world.served_by_old(), world.served_by_new()),
        (SESSIONS, 0)
    );
    assert!(world.new_accepts && !world.old_accepts && world.introduced);
}

#[test]
fn those_that_are_busy_or_refused_are_asked_again() {
    for (refuses, busy_until) in [(3, 0), (0, 60), (2, 60)] {
        let mut world = World::new(Fault::None, true);
        world.refuses = refuses;
        world.busy_until = busy_until;
        let world = world.play();
        assert_eq!(
            (world.served_by_old(), world.served_by_new()),
            (0, SESSIONS)
        );
    }
}

#[test]
fn those_that_are_never_quiet_are_left() {
    let mut world = World::new(Fault::None, true);
    world.busy_until = usize::MAX;
    let world = world.play();
    assert_eq!(world.giver.outcome(), Some(old::Outcome::Handed));
    assert_eq!((world.served_by_old(), world.served_by_new()), (3, 2));
}

#[test]
fn whoever_crashes_and_whenever_only_its_own_is_lost() {
    let whole = World::new(Fault::None, true).play().step;
    assert!(whole > 20, "{whole} steps");
    for at in 0..whole {
        for same_form in [true, false] {
            let world = World::new(Fault::Crash(Side::New, at), same_form).play();
            let what = format!("new crashed at {at}: {:?}", world.giver.outcome());
            // What it had is lost; all else is where it was.
            assert_eq!(
                world.served_by_old() + world.served_by_new(),
                SESSIONS,
                "{what}"
            );
            if world.giver.outcome() != Some(old::Outcome::Handed) {
                assert!(world.old_accepts, "{what}");
            }

            let world = World::new(Fault::Crash(Side::Old, at), same_form).play();
            let what = format!("old crashed at {at}: {:?}", world.taker.outcome());
            let serves = world.taker.outcome() == Some(new::Outcome::Serves);
            assert_eq!(world.new_accepts, serves, "{what}");
            assert_eq!(serves, world.has_listeners, "{what}");
        }
    }
}

#[test]
fn whoever_stands_still_is_not_waited_for() {
    let whole = World::new(Fault::None, true).play().step;
    for at in 0..whole {
        let world = World::new(Fault::Freeze(Side::New, at), true).play();
        let what = format!("new froze at {at}: {:?}", world.giver.outcome());
        match world.giver.outcome() {
            Some(old::Outcome::Failed(_)) => {
                assert!(world.old_accepts && world.new == State::Dead, "{what}");
                assert_eq!(
                    world.served_by_old() + world.served_by_new(),
                    SESSIONS,
                    "{what}"
                );
            }
            outcome => assert_eq!(outcome, Some(old::Outcome::Handed), "{what}"),
        }

        let world = World::new(Fault::Freeze(Side::Old, at), true).play();
        let what = format!("old froze at {at}: {:?}", world.taker.outcome());
        // It ends, or goes on with what it was given: it never acts on its own.
        assert_eq!(world.new_accepts, world.new == State::Runs, "{what}");
    }
}

#[test]
fn no_hold_and_no_end_begins_an_upgrade() {
    for (input, failure) in [
        (old::Input::Held, Failure::Held),
        (old::Input::Ending, Failure::Ending),
    ] {
        let now = Moment::default();
        let mut giver = Giver::new(now, HAND_FOR);
        let hello = giver.on(now, old::Input::Hello { same_form: true });
        assert_eq!(hello, [old::Action::Offer]);
        let actions = giver.on(now, input);
        assert_eq!(actions, [old::Action::Abort(failure), old::Action::Kill]);
        assert_eq!(giver.on(now, old::Input::Dead), []);
        assert_eq!(giver.outcome(), Some(old::Outcome::Failed(failure)));
    }
}

#[test]
fn masters_that_differ_are_waited_for_and_in_vain_no_longer_than_that() {
    use old::{Action as A, Input as I, READY_LIMIT};
    let start = Moment::default();
    let mut giver = Giver::new(start, HAND_FOR);
    let _ = giver.on(start, I::Hello { same_form: true });
    assert_eq!(giver.on(start, I::Ready { agrees: false }), []);
    assert_eq!(giver.on(start, I::Turn), []);
    let late = start + READY_LIMIT;
    let actions = giver.on(late, I::Turn);
    assert_eq!(actions, [A::Abort(Failure::Disagrees), A::Kill]);

    let mut giver = Giver::new(start, HAND_FOR);
    let _ = giver.on(start, I::Hello { same_form: true });
    assert_eq!(giver.on(start, I::Ready { agrees: false }), []);
    assert_eq!(giver.on(start, I::Ready { agrees: true }), [A::Pause]);
    // What was said before that was heard.
    assert_eq!(giver.on(start, I::Ready { agrees: false }), []);
    assert_eq!(giver.on(start, I::Paused), [A::Go]);
}

/// Nobody is asked twice, and what is on its way arrives.
#[test]
fn a_process_that_is_told_to_end_in_the_middle_finishes_soon() {
    use old::{Action as A, Input as I};
    let now = Moment::default();
    let opened = || {
        let mut giver = Giver::new(now, HAND_FOR);
        let _ = giver.on(now, I::Hello { same_form: true });
        let _ = giver.on(now, I::Ready { agrees: true });
        let _ = giver.on(now, I::Paused);
        giver
    };
    let mut before = opened();
    assert_eq!(before.on(now, I::Ending), []);
    assert_eq!(before.on(now, I::Opened), [A::Ask]);
    assert_eq!(
        before.on(now, I::Asked { left: 3 }),
        [A::Introduce, A::Done]
    );

    let mut between = opened();
    assert_eq!(between.on(now, I::Opened), [A::Ask]);
    assert_eq!(between.on(now, I::Taken), [A::Send]);
    assert_eq!(between.on(now, I::Ending), []);
    assert_eq!(between.on(now, I::Adopted), [A::Forget, A::Ask]);
    assert_eq!(
        between.on(now, I::Asked { left: 3 }),
        [A::Introduce, A::Done]
    );

    let mut resting = opened();
    assert_eq!(resting.on(now, I::Opened), [A::Ask]);
    assert_eq!(resting.on(now, I::Asked { left: 3 }), []);
    assert_eq!(resting.on(now, I::Ending), [A::Introduce, A::Done]);
    assert_eq!(resting.outcome(), Some(old::Outcome::Handed));
}
