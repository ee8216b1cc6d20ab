//! Who may be read from, and where lanes lead: single moments, and whatever may happen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::net::addr::SentinelAddr;
use crate::net::clock::Moment;
use crate::topology::observation::{Listed, Said};
use crate::topology::rules::Agree;
use crate::topology::{ForReaders, Generation, HoldCause, MasterAddr, Phase, State};

pub(super) const MAX_LAG: Duration = Duration::from_secs(10);
pub(super) const HOLD_MAX: Duration = Duration::from_secs(12);

pub(super) fn at(millis: u64) -> Moment {
    Moment::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

pub(super) fn node(n: u16) -> NodeAddr {
    NodeAddr(HostPort::from(socket(n)))
}

pub(super) fn socket(n: u16) -> SocketAddr {
    ([10, 0, 0, 1], n).into()
}

pub(super) fn choice(fallback: Fallback) -> Choice {
    Choice {
        max_lag: MAX_LAG,
        fallback,
    }
}

fn head(n: u16) -> Option<Head> {
    Some(Head {
        addr: HostPort::from(socket(n)),
        at: socket(n),
        generation: Generation(u64::from(n)),
    })
}

fn sentinel(n: u16) -> SentinelAddr {
    SentinelAddr(HostPort::from(SocketAddr::from(([10, 0, 0, 9], n))))
}

/// Three Sentinels that list these, each with those it calls down.
fn listed(roll: &mut Roll, asked_at: Moment, nodes: &[u16], down: [&[u16]; 3]) {
    for (n, down) in (1..).zip(down) {
        let list = nodes.iter().map(|of| Listed {
            addr: node(*of),
            down: down.contains(of),
        });
        roll.observe(Observation {
            sentinel: sentinel(n),
            said: Said::Replicas {
                listed: list.collect(),
                asked_at,
            },
        });
    }
}

const fn when(now: Moment) -> When {
    When {
        asked: now,
        heard: now,
    }
}

/// The master has written so much, and lists replica 2.
fn written(roll: &mut Roll, now: Moment, offset: u64) {
    let attached = [(HostPort::from(socket(2)), vec![socket(2)])];
    roll.written(when(now), offset, &attached);
}

/// Replica 2 says this.
fn said(roll: &mut Roll, now: Moment, report: Report) {
    roll.said(&node(2), when(now), socket(2), report);
}

/// Master 1, replica 2 in step with it, at this moment.
fn in_step(roll: &mut Roll, now: Moment, offset: u64) {
    written(roll, now, offset);
    said(roll, now, Report::Follows(Some(offset)));
}

fn roll() -> Roll {
    let mut roll = Roll::new(choice(Fallback::Refuse), Agree::Any, Vec::new());
    roll.head(head(1));
    listed(&mut roll, at(0), &[2], [&[], &[], &[]]);
    in_step(&mut roll, at(0), 100);
    roll
}

fn why(roll: &Roll, millis: u64) -> Option<Unfit> {
    roll.verdict(&node(2), true, at(millis)).err()
}

#[test]
fn a_replica_in_step_is_read_from_until_it_is_silent() {
    let roll = roll();
    let (age, until) = roll.verdict(&node(2), false, at(50)).expect("fit");
    assert_eq!((age, until), (Duration::from_millis(50), at(3000)));
    assert_eq!(why(&roll, 2999), None);
    assert_eq!(why(&roll, 3000), Some(Unfit::Silent));
}

#[test]
fn sentinels_count_while_they_are_fresh_and_their_loss_ends_nothing() {
    for (down, expected) in [
        ([&[2_u16][..], &[], &[]], None),
        ([&[2], &[2], &[]], Some(Unfit::Down)),
        ([&[2], &[2], &[2]], Some(Unfit::Down)),
    ] {
        let mut roll = roll();
        listed(&mut roll, at(100), &[2], down);
        assert_eq!(why(&roll, 200), expected, "{down:?}");
    }
    let mut roll = roll();
    // Reset, or removed: it is known again within 10 s, or it is gone.
    listed(&mut roll, at(11_000), &[3], [&[], &[], &[]]);
    in_step(&mut roll, at(22_000), 100);
    assert_eq!(why(&roll, 22_999), None);
    let anew = roll.verdict(&node(2), false, at(22_000)).err();
    assert_eq!(anew, Some(Unfit::Unlisted));
    assert_eq!(why(&roll, 23_000), Some(Unfit::Unlisted));
    // Lost since: the last word stands.
    let mut roll = self::roll();
    for millis in (1000..=20_000).step_by(1000) {
        in_step(&mut roll, at(millis), 100 + millis);
        assert_eq!(why(&roll, millis), None);
    }
}

#[test]
fn one_that_is_called_down_and_proves_itself_is_disputed() {
    let mut roll = roll();
    assert!(!roll.is_disputed(at(50)));
    listed(&mut roll, at(100), &[2], [&[2], &[2], &[]]);
    assert_eq!(why(&roll, 200), Some(Unfit::Down));
    assert!(roll.is_disputed(at(200)));
    // It says nothing any more: they are right.
    assert!(!roll.is_disputed(at(3000)));
}

#[test]
fn another_master_has_to_be_followed_before_anything_is_read() {
    let mut roll = roll();
    roll.head(head(3));
    assert_eq!(why(&roll, 10), Some(Unfit::OtherMaster));
    said(&mut roll, at(20), Report::Follows(Some(120)));
    assert_eq!(
        why(&roll, 30),
        Some(Unfit::Unproven),
        "of this master nothing is known"
    );
    written(&mut roll, at(40), 110);
    assert_eq!(
        why(&roll, 50),
        Some(Unfit::Unproven),
        "said before the master listed it"
    );
    said(&mut roll, at(60), Report::Follows(Some(120)));
    assert_eq!(why(&roll, 60), None);
    // It is promoted itself.
    roll.head(head(2));
    assert_eq!(why(&roll, 60), Some(Unfit::Promoted));
    roll.head(None);
    assert_eq!(why(&roll, 60), Some(Unfit::NoMaster));
}

#[test]
fn a_lost_link_counts_at_once_only_while_the_master_answers() {
    // The master is dead: there is nothing newer.
    let mut dead = roll();
    for millis in (1000..=12_000).step_by(1000) {
        said(&mut dead, at(millis), Report::Follows(None));
        let expected = (millis > 10_000).then_some(Unfit::Lagging);
        assert_eq!(why(&dead, millis), expected, "{millis}");
    }
    let mut alive = roll();
    said(&mut alive, at(1000), Report::Follows(None));
    assert_eq!(why(&alive, 1000), None);
    written(&mut alive, at(1001), 100);
    assert_eq!(why(&alive, 1002), Some(Unfit::LinkDown));
    in_step(&mut alive, at(2000), 100);
    assert_eq!(why(&alive, 2000), None);
}

#[test]
fn what_lags_leaves_and_comes_back_at_half_of_it() {
    let mut roll = roll();
    // It stays where it was while the master goes on.
    for millis in (1000..=11_000).step_by(1000) {
        written(&mut roll, at(millis), 100 + millis);
        said(&mut roll, at(millis), Report::Follows(Some(100)));
        let expected = (millis > 10_000).then_some(Unfit::Lagging);
        assert_eq!(why(&roll, millis), expected, "{millis}");
    }
    // It catches up: what the master had 6 s ago, and 4 s ago.
    said(&mut roll, at(11_000), Report::Follows(Some(5100)));
    assert_eq!(
        roll.verdict(&node(2), false, at(11_000)).err(),
        Some(Unfit::Lagging)
    );
    assert!(roll.verdict(&node(2), true, at(11_000)).is_ok());
    said(&mut roll, at(11_000), Report::Follows(Some(7100)));
    assert!(roll.verdict(&node(2), false, at(11_000)).is_ok());
}

#[test]
fn nothing_is_known_of_a_process_that_may_be_another_or_a_history_that_began_anew() {
    let mut roll = roll();
    roll.lost(&node(2));
    assert_eq!(why(&roll, 10), Some(Unfit::Unproven));
    roll.gone(&node(2));
    assert_eq!(why(&roll, 10), Some(Unfit::Unreachable));
    // Restarted, and still loading or about to ask for everything.
    said(&mut roll, at(20), Report::Loading);
    assert_eq!(why(&roll, 20), Some(Unfit::Loading));
    said(&mut roll, at(30), Report::Follows(None));
    assert_eq!(why(&roll, 30), Some(Unfit::Unproven));
    in_step(&mut roll, at(40), 100);
    assert_eq!(why(&roll, 40), None);
    // The master was restarted without its data: what the replica had of before proves nothing.
    roll.written(when(at(50)), 3, &[]);
    assert_eq!(why(&roll, 60), Some(Unfit::Unproven));
    // A replica that knows nothing of that yet says what it said before.
    let unattached = |roll: &mut Roll, millis: u64, offset| {
        roll.written(when(at(millis)), offset, &[]);
        said(roll, at(millis), Report::Follows(Some(100)));
        why(roll, millis)
    };
    for (millis, offset) in [(1000, 4), (2000, 90), (3000, 110), (4000, 200)] {
        let why = unattached(&mut roll, millis, offset);
        assert!(why.is_some(), "{millis}: {why:?}");
    }
}

#[test]
fn another_limit_is_in_force_at_once_and_forgets_nothing() {
    let mut roll = roll();
    written(&mut roll, at(4000), 200);
    said(&mut roll, at(4000), Report::Follows(Some(100)));
    assert_eq!(why(&roll, 4000), None);
    let strict = Choice {
        max_lag: Duration::from_secs(3),
        ..choice(Fallback::Refuse)
    };
    roll.change(strict, Agree::Any, Vec::new());
    assert_eq!(why(&roll, 4000), Some(Unfit::Lagging));
    roll.change(choice(Fallback::Refuse), Agree::Any, Vec::new());
    assert_eq!(why(&roll, 4000), None);
}

#[test]
fn our_own_listeners_are_never_read_from() {
    let mut roll = Roll::new(
        choice(Fallback::Refuse),
        Agree::Any,
        vec![HostPort::from(socket(2))],
    );
    roll.head(head(1));
    listed(&mut roll, at(0), &[2, 3], [&[], &[], &[]]);
    assert_eq!(roll.nodes().collect::<Vec<_>>(), [&node(3)]);
}

proptest! {
    /// However the master writes and is asked: an age is never less than the true one, and the memory is bounded.
    #[test]
    fn an_age_is_never_too_small(
        steps in prop::collection::vec((1_u64..3000, 0_u64..500), 1..200),
        back in 0_usize..200,
    ) {
        let mut progress = Progress::new(MAX_LAG);
        let (mut now, mut offset) = (0, 0);
        let mut truth = Vec::new();
        for (pause, more) in steps {
            now += pause;
            offset += more;
            truth.push((now, offset));
            prop_assert!(progress.note(at(now), offset).is_ok());
            prop_assert!(progress.len() <= 70);
        }
        let (_, had) = truth[truth.len().saturating_sub(1 + back)];
        if let Some(from) = progress.had(had) {
            // Up to that moment it certainly has everything: nothing beyond it was written by then.
            for (when, written) in &truth {
                prop_assert!(*written <= had || at(*when) > from);
            }
        }
    }

    /// Whatever happens to replicas and master: nothing is published for one that is not fit, generations are never used
    /// twice, and no lane leads to the master unless it is the master's.
    #[test]
    fn lanes_lead_only_to_those_that_are_fit(
        steps in prop::collection::vec((1_u64..700, 0_u16..8, 0_u8..14, 0_u64..3), 1..120),
        falls_back in any::<bool>(),
    ) {
        let fallback = if falls_back { Fallback::Master } else { Fallback::Refuse };
        let mut master = State { generation: Generation(1), ..serving(1, 100) };
        let mut lanes = Lanes::new(choice(fallback), &State::initial(HOLD_MAX));
        let mut replicas: BTreeMap<NodeAddr, Result<SocketAddr, Unfit>> = BTreeMap::new();
        let mut loads = vec![0; Lanes::COUNT];
        let mut states = vec![State::initial(HOLD_MAX); Lanes::COUNT];
        let mut last = 0;
        let mut now = 0;
        for (pause, n, what, load) in steps {
            now += pause;
            match what {
                0..=5 => drop(replicas.insert(node(n), Ok(socket(n)))),
                6..=10 => drop(replicas.insert(node(n), Err(Unfit::ALL[usize::from(what + 1)]))),
                11 => drop(replicas.remove(&node(n))),
                12 => master = serving(master.generation.0 + 1, 100 + n),
                _ => master = paused(&master, now),
            }
            loads[usize::from(n)] = load;
            loads[Lanes::MASTER] = load;
            let world = World { master: &master, replicas: &replicas, shut: &BTreeSet::new(), loads: &loads };
            for one in lanes.look(at(now), &world) {
                match one {
                    Move::Publish(lane, state) => {
                        if state.generation != states[lane].generation {
                            prop_assert!(state.generation.0 > last, "used twice");
                            last = state.generation.0;
                        }
                        states[lane] = state;
                    }
                    Move::Lobby(state) => prop_assert!(state.phase != Phase::Serving),
                    Move::Left(lane, ..) => prop_assert!(states[lane].master.is_none()),
                    Move::Joined(..) | Move::Accept(..) => {}
                }
            }
            let mut led = Vec::new();
            for (lane, state) in states.iter().enumerate().filter(|(_, s)| s.phase == Phase::Serving) {
                prop_assert_eq!(master.readers.held, None, "held with the master");
                let addr = state.master.as_ref().expect("it leads somewhere");
                if lane == Lanes::MASTER {
                    prop_assert_eq!(Some(addr), master.master.as_ref());
                    prop_assert!(falls_back);
                } else {
                    let of = NodeAddr(addr.host_port().clone());
                    prop_assert!(matches!(replicas.get(&of), Some(Ok(_))), "{of:?} is not fit");
                    prop_assert!(!led.contains(&of), "led to twice");
                    led.push(of);
                }
            }
            let fit = replicas.values().filter(|of| of.is_ok()).count();
            if master.readers.held.is_none() {
                prop_assert!(led.len() <= fit);
                prop_assert_eq!(lanes.is_open(), !led.is_empty() || lanes.falls_back());
            }
        }
    }
}

pub(super) fn serving(generation: u64, n: u16) -> State {
    State {
        generation: Generation(generation),
        phase: Phase::Serving,
        master: Some(MasterAddr::for_test(socket(n))),
        verified_at: Some(socket(n)),
        hold_max: HOLD_MAX,
        readers: ForReaders::default(),
    }
}

/// Paused, and whatever else.
pub(super) fn paused(master: &State, millis: u64) -> State {
    let mut state = master.clone();
    state.phase = Phase::Held {
        cause: HoldCause::Paused,
        since: at(millis),
        sealed: false,
    };
    state.readers.held = Some((HoldCause::Paused, at(millis)));
    state
}

/// Looks at these replicas once.
pub(super) fn look(
    lanes: &mut Lanes,
    millis: u64,
    master: &State,
    replicas: &[(u16, Option<Unfit>)],
    loads: &[u64],
) -> Vec<Move> {
    let verdict = |(n, unfit): &(u16, Option<Unfit>)| (node(*n), unfit.map_or(Ok(socket(*n)), Err));
    let replicas = replicas.iter().map(verdict).collect();
    let world = World {
        master,
        replicas: &replicas,
        shut: &BTreeSet::new(),
        loads,
    };
    lanes.look(at(millis), &world)
}

pub(super) fn lefts(moves: &[Move]) -> Vec<Unfit> {
    let left = |m: &Move| match m {
        Move::Left(_, _, why) => Some(*why),
        _ => None,
    };
    moves.iter().filter_map(left).collect()
}

#[test]
fn a_promoted_replica_may_end_what_it_was_asked_and_a_lost_one_may_not() {
    let master = serving(1, 1);
    let mut lanes = Lanes::new(choice(Fallback::Refuse), &State::initial(HOLD_MAX));
    look(
        &mut lanes,
        0,
        &master,
        &[(2, None), (3, None), (4, None)],
        &[],
    );
    let world = [
        (2, Some(Unfit::Promoted)),
        (3, Some(Unfit::Unreachable)),
        (4, Some(Unfit::Unproven)),
    ];
    let moves = look(&mut lanes, 10, &master, &world, &[]);
    assert_eq!(lefts(&moves), [Unfit::Unreachable]);
    let held = |m: &Move| matches!(m, Move::Publish(_, s) if s.phase != Phase::Serving && s.master.is_some());
    assert_eq!(moves.iter().filter(|m| held(m)).count(), 2, "{moves:?}");
    assert!(!lanes.is_open());
    // The one whose connection was lost has proved itself anew: it never left.
    let world = [(2, None), (3, None), (4, None)];
    let moves = look(&mut lanes, 60, &master, &world, &[]);
    assert!(lefts(&moves).is_empty(), "{moves:?}");
    assert!(lanes.is_open());
    let moves = look(&mut lanes, 111, &master, &world, &[]);
    assert_eq!(
        lefts(&moves),
        [Unfit::Promoted],
        "who was promoted comes back as another"
    );
    assert!(
        moves
            .iter()
            .any(|m| matches!(m, Move::Joined(_, addr) if *addr == node(2)))
    );
}

#[test]
fn the_master_is_read_from_for_want_of_replicas_and_emptied_when_they_are_back() {
    let master = serving(1, 1);
    let mut lanes = Lanes::new(choice(Fallback::Master), &State::initial(HOLD_MAX));
    look(&mut lanes, 0, &master, &[], &[]);
    look(&mut lanes, 999, &master, &[], &[]);
    assert!(!lanes.falls_back(), "its replicas may yet say something");
    look(&mut lanes, 1000, &master, &[], &[]);
    assert!(lanes.falls_back() && lanes.is_open());
    let mut loads = vec![0; Lanes::COUNT];
    loads[Lanes::MASTER] = 40;
    look(&mut lanes, 1010, &master, &[(2, None)], &loads);
    assert!(!lanes.falls_back() && lanes.is_open());
    assert_eq!(lanes.too_many(&loads, 0), [(Lanes::MASTER, 40)]);
    // Another master: whoever reads there is led to that one, or cut.
    let moves = look(&mut lanes, 1020, &serving(2, 5), &[(2, None)], &loads);
    assert!(
        moves.iter().any(
            |m| matches!(m, Move::Publish(Lanes::MASTER, s) if s.verified_at == Some(socket(5)))
        )
    );
    loads[Lanes::MASTER] = 0;
    let moves = look(&mut lanes, 1030, &serving(2, 5), &[(2, None)], &loads);
    assert!(
        moves
            .iter()
            .any(|m| matches!(m, Move::Publish(Lanes::MASTER, s) if s.master.is_none()))
    );
}

#[test]
fn sessions_are_evened_out_where_it_is_worth_it() {
    let master = serving(1, 1);
    let mut lanes = Lanes::new(choice(Fallback::Refuse), &State::initial(HOLD_MAX));
    look(
        &mut lanes,
        0,
        &master,
        &[(2, None), (3, None), (4, None)],
        &[],
    );
    let mut loads = vec![0; Lanes::COUNT];
    for (given, expected) in [
        ([100, 100, 100], vec![]),
        ([104, 98, 98], vec![]),
        ([300, 0, 0], vec![(0, 200)]),
        ([150, 150, 0], vec![(0, 50), (1, 50)]),
        ([1, 1, 0], vec![]),
        ([2, 1, 0], vec![(0, 1)]),
        ([5, 5, 0], vec![(0, 1), (1, 2)]),
        ([105, 105, 90], vec![(0, 5), (1, 5)]),
    ] {
        loads[..3].copy_from_slice(&given);
        assert_eq!(lanes.too_many(&loads, 0), expected, "{given:?}");
    }
}

#[test]
fn a_standstill_ends_nobodys_membership_and_opens_nothing() {
    let master = serving(1, 1);
    let mut lanes = Lanes::new(choice(Fallback::Refuse), &State::initial(HOLD_MAX));
    look(&mut lanes, 0, &master, &[(2, None)], &[]);
    let mut held = master.clone();
    held.readers.held = Some((HoldCause::Resumed, at(9000)));
    let moves = look(&mut lanes, 9000, &held, &[(2, Some(Unfit::Silent))], &[]);
    assert!(lefts(&moves).is_empty(), "{moves:?}");
    assert!(!lanes.is_open());
    let moves = look(&mut lanes, 9100, &master, &[(2, Some(Unfit::Silent))], &[]);
    assert_eq!(lefts(&moves), [Unfit::Silent]);
}
