//! Both sides of an upgrade against each other, with a crash or a standstill of either at every step, for good or for so many steps:
//! nobody accepts beside the other, nobody writes for a session beside the other, and no more is lost than what was with the one that crashed.

mod world;

use super::new;
use super::old::{self, Failure, Giver};
use crate::net::clock::Moment;
use world::{Fault, HAND_FOR, SESSIONS, Side, State, World};

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
            world.assert_nothing_is_lost(&what);
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
                world.assert_nothing_is_lost(&what);
            }
            outcome => assert_eq!(outcome, Some(old::Outcome::Handed), "{what}"),
        }

        let world = World::new(Fault::Freeze(Side::Old, at), true).play();
        let what = format!("old froze at {at}: {:?}", world.taker.outcome());
        // It ends, or goes on with what it was given: it never acts on its own.
        assert_eq!(world.new_accepts, world.new == State::Runs, "{what}");
    }
}

/// Whoever goes on after the other has given it up, or has not noticed anything: no session is served by both.
#[test]
fn whoever_stands_still_and_goes_on_serves_nothing_that_is_another_s() {
    let whole = World::new(Fault::None, true).play().step;
    let (mut failed, mut handed) = (0, 0);
    for at in 0..whole {
        for steps in 1..24 {
            for (side, late, new_first) in [Side::Old, Side::New]
                .into_iter()
                .flat_map(|side| [(side, false), (side, true)])
                .flat_map(|(side, late)| [(side, late, false), (side, late, true)])
            {
                let mut world = World::new(Fault::Stall(side, at, steps), true);
                (world.late, world.new_first) = (late, new_first);
                let world = world.play();
                let what = format!("{side:?} stood from {at} for {steps}, {late}, {new_first}");
                world.assert_nothing_is_lost(&what);
                match world.giver.outcome() {
                    Some(old::Outcome::Handed) => handed += 1,
                    Some(old::Outcome::Failed(_)) => {
                        failed += 1;
                        assert!(world.old_accepts && world.new == State::Dead, "{what}");
                    }
                    None => panic!("{what}: no end"),
                }
            }
        }
    }
    assert!(
        failed > 100 && handed > 100,
        "{failed} failed, {handed} handed"
    );
}

/// No limit is over for who could not be heard, or could not speak.
#[test]
fn a_standstill_of_the_old_one_or_of_both_takes_nothing_from_the_new_one() {
    let whole = World::new(Fault::None, true).play().step;
    let mut given = 0;
    for at in 0..whole {
        for steps in 1..24 {
            for fault in [
                Fault::Stall(Side::Old, at, steps),
                Fault::StallBoth(at, steps),
            ] {
                for (late, new_first) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let mut world = World::new(fault, true);
                    (world.late, world.new_first) = (late, new_first);
                    let world = world.play();
                    let what = format!("{fault:?}, {late}, {new_first}");
                    world.assert_nothing_is_lost(&what);
                    world.assert_what_was_given_lives(&what);
                    given += usize::from(world.given.contains(&true));
                }
            }
        }
    }
    assert!(given > 100, "{given}");
}

/// Who cannot keep its limits for ever is given up at last.
#[test]
fn standstills_are_not_excused_for_ever() {
    use old::{ANSWER_LIMIT, Action as A, Input as I};
    let mut now = Moment::default();
    let mut giver = Giver::new(now, HAND_FOR);
    let _ = giver.on(now, I::Hello { same_form: true });
    let _ = giver.on(now, I::Ready { agrees: true });
    for _ in 0..old::STANDSTILLS_MAX {
        now = now + ANSWER_LIMIT;
        assert_eq!(giver.on(now, I::StoodStill), []);
        assert_eq!(giver.on(now, I::Turn), []);
    }
    now = now + ANSWER_LIMIT;
    assert_eq!(giver.on(now, I::StoodStill), []);
    assert_eq!(giver.on(now, I::Turn), [A::Kill { at_once: true }]);
}

/// It takes what it has with it, and the old one accepts again.
#[test]
fn a_new_process_that_is_told_to_end_ends_until_it_serves() {
    use new::{Input as I, Outcome, Taker};
    let now = Moment::default();
    let before = [
        &[][..],
        &[I::Offer],
        &[I::Offer, I::Known],
        &[I::Offer, I::Known, I::Go],
    ];
    for inputs in before {
        let (mut taker, _) = Taker::new(now);
        for input in inputs {
            let _ = taker.on(now, *input);
        }
        assert_eq!(taker.on(now, I::Ending), [new::Action::Part], "{inputs:?}");
        assert!(matches!(taker.outcome(), Some(Outcome::Ends(_))));
    }
}

/// What was said before the end counts, whenever it is read.
#[test]
fn what_a_dead_process_had_taken_over_is_never_served_again() {
    use old::{Action as A, Input as I};
    for (adopted, action) in [(true, A::Forget), (false, A::TakeBack)] {
        let start = Moment::default();
        let mut giver = Giver::new(start, HAND_FOR);
        let _ = giver.on(start, I::Hello { same_form: true });
        let _ = giver.on(start, I::Ready { agrees: true });
        let _ = giver.on(start, I::Paused);
        let _ = giver.on(start, I::Opened);
        assert_eq!(giver.on(start, I::Taken), [A::Send]);
        let late = start + old::ANSWER_LIMIT;
        assert_eq!(giver.on(late, I::Turn), [A::Kill { at_once: true }]);
        assert_eq!(giver.on(late, I::Dead { adopted }), [action, A::Resume]);
    }
}

/// Where nothing waits for it.
const KILL: old::Action = old::Action::Kill { at_once: false };

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
        assert_eq!(actions, [old::Action::Abort(failure), KILL]);
        assert_eq!(giver.on(now, old::Input::Dead { adopted: false }), []);
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
    assert_eq!(actions, [A::Abort(Failure::Disagrees), KILL]);

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
