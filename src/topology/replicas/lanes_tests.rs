//! Where lanes lead when what is known of replicas is not all there is to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::tests::{HOLD_MAX, at, choice, lefts, look, node, paused, serving, socket};
use super::*;
use crate::topology::{HoldCause, Phase, State};

fn lanes(fallback: Fallback) -> Lanes {
    Lanes::new(choice(fallback), &State::initial(HOLD_MAX))
}

fn opened(moves: &[Move], lane: usize, expected: bool) -> bool {
    moves.contains(&Move::Accept(lane, expected))
}

#[test]
fn a_pause_holds_whatever_else_holds_the_master() {
    let mut lanes = lanes(Fallback::Refuse);
    let mut master = serving(1, 1);
    look(&mut lanes, 0, &master, &[(2, None)], &[]);
    master.phase = Phase::Held {
        cause: HoldCause::MasterUnreachable,
        since: at(10),
        sealed: false,
    };
    look(&mut lanes, 10, &master, &[(2, None)], &[]);
    assert!(lanes.is_open(), "a master's crash alone keeps nobody");
    let mut both = paused(&master, 20);
    both.phase = master.phase.clone();
    look(&mut lanes, 20, &both, &[(2, None)], &[]);
    assert!(!lanes.is_open());
    assert!(matches!(
        lanes.phase(),
        Phase::Held {
            cause: HoldCause::Paused,
            ..
        }
    ));
    look(&mut lanes, 30, &master, &[(2, None)], &[]);
    assert!(lanes.is_open());
}

#[test]
fn a_replica_that_is_about_to_be_promoted_is_left_and_may_come_back() {
    let mut lanes = lanes(Fallback::Refuse);
    let master = serving(1, 1);
    let all = [(2, None), (3, None)];
    look(&mut lanes, 0, &master, &all, &[]);
    let mut announced = master.clone();
    announced.readers.successor = Some(node(2));
    let moves = look(&mut lanes, 10, &announced, &all, &[]);
    assert!(opened(&moves, 0, false) && lanes.is_open(), "{moves:?}");
    let moves = look(&mut lanes, 110, &announced, &all, &[]);
    assert_eq!(lefts(&moves), [Unfit::Promoted]);
    let moves = look(&mut lanes, 120, &announced, &all, &[]);
    assert_eq!(moves, [], "nor does it come back while that lasts");
    let moves = look(&mut lanes, 130, &master, &all, &[]);
    assert!(moves.contains(&Move::Joined(0, node(2))), "{moves:?}");
}

#[test]
fn one_that_takes_no_new_connections_keeps_those_it_has() {
    let mut lanes = lanes(Fallback::Master);
    let master = serving(1, 1);
    let replicas: BTreeMap<_, _> = (2..4).map(|n| (node(n), Ok(socket(n)))).collect();
    let mut loads = vec![0; Lanes::COUNT];
    loads[..2].copy_from_slice(&[90, 10]);
    let mut look = |millis, shut: &[u16]| {
        let shut: BTreeSet<_> = shut.iter().copied().map(node).collect();
        let world = World {
            master: &master,
            replicas: &replicas,
            shut: &shut,
            loads: &loads,
        };
        let moves = lanes.look(at(millis), &world);
        let told = (
            lanes.is_open(),
            lanes.falls_back(),
            lanes.too_many(&loads, 0),
        );
        (moves, told)
    };
    look(0, &[]);
    let (moves, told) = look(10, &[2]);
    assert!(opened(&moves, 0, false), "{moves:?}");
    let held = |m: &Move| matches!(m, Move::Publish(0, _) | Move::Left(..));
    assert!(!moves.iter().any(held), "{moves:?}");
    assert_eq!(told, (true, false, vec![]), "they stay where they are");
    let (_, (is_open, falls_back, _)) = look(20, &[2, 3]);
    assert!(is_open && falls_back, "new ones are led to the master");
    let (moves, (_, falls_back, _)) = look(30, &[3]);
    assert!(opened(&moves, 0, true) && !falls_back, "{moves:?}");
}

#[test]
fn nobody_falls_back_or_is_closed_for_one_that_may_prove_itself_anew() {
    let mut lanes = lanes(Fallback::Master);
    let mut master = serving(1, 1);
    master.hold_max = Duration::ZERO;
    look(&mut lanes, 0, &master, &[(2, None)], &[]);
    let lost = [(2, Some(Unfit::Unproven))];
    let moves = look(&mut lanes, 10, &master, &lost, &[]);
    assert!(!lanes.falls_back());
    let limit = |m: &Move| match m {
        Move::Publish(0, state) => Some(state.hold_max),
        _ => None,
    };
    let limits: Vec<_> = moves.iter().filter_map(limit).collect();
    assert_eq!(limits, [Unfit::Unproven.grace()]);
    // It has not: that is a loss.
    look(&mut lanes, 510, &master, &lost, &[]);
    assert!(lanes.falls_back());
}

#[test]
fn those_who_have_left_for_another_lane_are_reckoned_with() {
    let mut lanes = lanes(Fallback::Refuse);
    look(&mut lanes, 0, &serving(1, 1), &[(2, None), (3, None)], &[]);
    let mut loads = vec![0; Lanes::COUNT];
    for (given, roaming, expected) in [
        ([120, 0], 0, vec![(0, 60)]),
        ([60, 0], 60, vec![]),
        ([90, 0], 30, vec![(0, 30)]),
        ([60, 40], 20, vec![]),
    ] {
        loads[..2].copy_from_slice(&given);
        assert_eq!(lanes.too_many(&loads, roaming), expected, "{given:?}");
    }
}

/// Sessions of a lane at the most.
fn few_or_many() -> impl Strategy<Value = u64> {
    prop_oneof![Just(8), Just(300)]
}

proptest! {
    /// So many are asked at once at the most, those asked may take their time, and each goes to the lane with the fewest.
    #[test]
    fn evening_out_ends_and_ends_even(
        given in few_or_many().prop_flat_map(|most| prop::collection::vec(0..most, 1..=MAX_MEMBERS)),
        on_master in prop_oneof![Just(0), 0..300_u64],
        at_once in 1..100_u64,
        slow in 0..5_u64,
    ) {
        let mut lanes = lanes(Fallback::Master);
        let members: Vec<_> = (2..).take(given.len()).map(|n| (n, None)).collect();
        look(&mut lanes, 0, &serving(1, 1), &[], &[]);
        look(&mut lanes, 1000, &serving(1, 1), &[], &[]);
        let mut loads = vec![0; Lanes::COUNT];
        loads[..given.len()].copy_from_slice(&given);
        loads[Lanes::MASTER] = on_master;
        look(&mut lanes, 1010, &serving(1, 1), &members, &loads);
        let all: u64 = loads.iter().sum();
        let (mut roaming, mut moved, mut turns) = (0, 0, 0);
        loop {
            let asked = lanes.too_many(&loads, roaming);
            if asked.is_empty() && roaming == 0 {
                break;
            }
            turns += 1;
            prop_assert!(turns <= 20 + all / at_once * 8, "it has no end: {loads:?}");
            let mut left = at_once;
            for (lane, sessions) in asked {
                let sessions = sessions.min(left);
                left -= sessions;
                loads[lane] -= sessions;
                roaming += sessions;
                moved += sessions;
            }
            for _ in 0..roaming.div_ceil(slow + 1) {
                let fewest = (0..given.len()).min_by_key(|at| loads[*at]).expect("one lane");
                loads[fewest] += 1;
                roaming -= 1;
            }
        }
        prop_assert_eq!(loads[Lanes::MASTER], 0);
        prop_assert!(moved <= all, "{moved} moves of {all} sessions");
        let share = all as f64 / given.len() as f64;
        let off = |load: &u64| (*load as f64 - share).abs() > (share / 10.0).max(1.0);
        prop_assert!(!loads[..given.len()].iter().any(off), "{loads:?}");
    }
}
