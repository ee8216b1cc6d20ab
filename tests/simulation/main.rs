//! The control plane without real time: the real steward against a model of Sentinels and nodes, under a clock that
//! steps from event to event and faults drawn from a seed. What has to hold at every step is in `checker`, what can
//! happen in `schedule.rs`.
//!
//! Each run plays other schedules, from a first seed that it prints, and some that failed once.
//!
//! `SIM_SEED=n` plays one schedule and shows it (`SIM_RUNS` from there on); `SIM_RUNS=n` plays so many from a fresh first
//! seed. A schedule that fails is repeated with as few of its faults as still fail, and shown as a timeline.

#![allow(
    missing_docs,
    reason = "a test program has no public interface; its items are documented where that helps"
)]

mod checker;
mod cluster;
mod heard;
mod names;
mod plant;
mod proxy;
mod schedule;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use switchmaster::topology::rules::Confirm;

use self::checker::{Property, Violation};
use self::plant::Plant;
use self::schedule::Schedule;
use self::world::{Outcome, World};

/// First seeds are drawn below this: few digits to type again.
const SEEDS: u64 = 1_000_000_000;
/// Schedules that failed once, for a fault of the steward or of the checker.
const FAILED_ONCE: [u64; 14] = [
    1411,
    3724,
    100_164,
    127_703,
    202_646,
    882_723,
    884_566,
    70_008_111,
    415_929_138,
    716_073_846,
    567_560_095,
    567_571_977,
    915_067_768,
    915_079_438,
];
/// Schedules played by default: a few seconds in the dev profile.
const RUNS: u64 = 3000;
/// Schedules within which a planted defect has to be seen.
const RUNS_TO_SEE: u64 = 2000;

#[test]
fn every_schedule_holds() {
    let seed = variable("SIM_SEED");
    let first = seed.unwrap_or_else(|| fastrand::u64(..SEEDS));
    let runs = variable("SIM_RUNS").unwrap_or_else(|| if seed.is_some() { 1 } else { RUNS });
    eprintln!("schedules: {runs} from SIM_SEED={first}");
    let began = switchmaster::net::clock::now();
    let threads = std::thread::available_parallelism()
        .map_or(1, |n| n.get() as u64)
        .min(runs);
    let parts: Vec<Tally> = std::thread::scope(|scope| {
        let part = |t: u64| {
            scope.spawn(move || {
                play_all((first + t..first + runs).step_by(usize::try_from(threads).expect("few")))
            })
        };
        let parts: Vec<_> = (0..threads).map(part).collect();
        parts
            .into_iter()
            .map(|p| p.join().expect("no panic in a run"))
            .collect()
    });
    let mut tally = Tally::default();
    parts.into_iter().for_each(|part| tally.add(part));
    let took = switchmaster::net::clock::now().since(began);
    eprintln!("{}", tally.summary(runs, took));
    tally.assert_none_failed();
    assert!(
        runs < 100 || tally.settled * 10 > runs * 8,
        "too few runs came to an end that says something"
    );
}

#[test]
fn schedules_that_failed_once_hold() {
    play_all(FAILED_ONCE.into_iter()).assert_none_failed();
    for seed in FAILED_ONCE {
        for schedule in [Schedule::plain(seed), Schedule::unpaused(seed)] {
            let outcome = World::run(&schedule, Plant::Nothing, false);
            assert_eq!(outcome.violation, None, "SIM_SEED={seed}, {schedule:?}");
        }
    }
}

#[test]
fn planted_defects_are_seen() {
    let planted = [
        (Plant::ForgetsEpochs, Property::Floor, "nobody names it"),
        (Plant::LyingProbe, Property::Verified, "opened"),
        (Plant::NoFence, Property::OneGeneration, ""),
        (Plant::NoFence, Property::Named, ""),
        (Plant::Sleepwalks, Property::Standstill, "before"),
        (Plant::TakesOldAnswers, Property::Standstill, "before"),
        (Plant::DeafProbe, Property::Converges, "by a majority since"),
        (Plant::HearsOneVoice, Property::Converges, "not alone"),
        (Plant::HastyRelease, Property::Floor, "the floor fell"),
        (Plant::HearsNoWithdrawal, Property::Floor, "nobody names it"),
        (Plant::BelievesReplicas, Property::Verified, "a replica"),
        (Plant::TakesRefusals, Property::Verified, "Refused"),
        (Plant::LyingSuccessor, Property::Provisional, "promoted"),
        (Plant::NeverGoesBack, Property::Provisional, "not gone back"),
        (Plant::LeakyPause, Property::Paused, "open during a pause"),
    ];
    for (plant, property, what) in planted {
        let seen = (0..RUNS_TO_SEE).find(|seed| {
            let outcome = World::run(&Schedule::draw(*seed), plant, false);
            let seen = |v: Violation| v.property == property && v.what.contains(what);
            outcome.violation.is_some_and(seen)
        });
        eprintln!("{plant:?}, {property:?}: {seen:?}");
        assert!(
            seen.is_some(),
            "{plant:?} was never seen as {property:?}: {what}"
        );
    }
}

#[test]
fn a_seed_plays_the_same_twice() {
    for seed in 0..20 {
        let [one, two] = [0, 1].map(|_| World::run(&Schedule::draw(seed), Plant::Nothing, true));
        assert_eq!(one.trace, two.trace, "seed {seed}");
    }
}

#[derive(Default)]
struct Tally {
    steps: u64,
    simulated: u64,
    generations: u64,
    settled: u64,
    failed: BTreeMap<Property, u64>,
    /// The first of each property.
    failures: BTreeMap<Property, (u64, Violation)>,
}

impl Tally {
    fn take(&mut self, seed: u64, outcome: Outcome) {
        self.steps += outcome.steps;
        self.simulated += outcome.simulated;
        self.generations += outcome.generations;
        self.settled += u64::from(outcome.settled);
        if let Some(violation) = outcome.violation {
            *self.failed.entry(violation.property).or_default() += 1;
            self.failures
                .entry(violation.property)
                .or_insert((seed, violation));
        }
    }

    fn add(&mut self, other: Self) {
        self.steps += other.steps;
        self.simulated += other.simulated;
        self.generations += other.generations;
        self.settled += other.settled;
        for (property, count) in other.failed {
            *self.failed.entry(property).or_default() += count;
        }
        for (property, failure) in other.failures {
            self.failures.entry(property).or_insert(failure);
        }
    }

    fn assert_none_failed(&self) {
        let explained = self.failures.values().map(|(seed, v)| explain(*seed, v));
        let failures: Vec<String> = explained.collect();
        assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    }

    fn summary(&self, runs: u64, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        format!(
            "{runs} schedules in {seconds:.1} s ({:.0} a second); {} steps, {} s simulated, {} generations, {} settled; failed: {:?}",
            runs as f64 / seconds,
            self.steps,
            self.simulated / 1000,
            self.generations,
            self.settled,
            self.failed,
        )
    }
}

fn play_all(seeds: impl Iterator<Item = u64>) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        tally.take(
            seed,
            World::run(&Schedule::draw(seed), Plant::Nothing, false),
        );
    }
    tally
}

/// The same failure with as few faults, in as plain a world as can be.
fn shrink(mut schedule: Schedule, property: Property) -> Schedule {
    let fails = |s: &Schedule| {
        World::run(s, Plant::Nothing, false)
            .violation
            .is_some_and(|v| v.property == property)
    };
    let plainer: [fn(&mut Schedule); 7] = [
        |s| s.setup.confirm = Confirm::Sentinel,
        |s| s.setup.proxies = 1,
        |s| s.setup.alias = false,
        |s| s.setup.lost = 0,
        |s| s.setup.delay = 2,
        |s| s.setup.gossip = 100,
        |s| s.setup.sentinels = 3,
    ];
    loop {
        let before = schedule.faults.len();
        for number in (0..schedule.faults.len()).rev() {
            let mut fewer = schedule.clone();
            fewer.faults.remove(number);
            if fails(&fewer) {
                schedule = fewer;
            }
        }
        for simplify in plainer {
            let mut simple = schedule.clone();
            simplify(&mut simple);
            if fails(&simple) {
                schedule = simple;
            }
        }
        if schedule.faults.len() == before {
            return schedule;
        }
    }
}

fn explain(seed: u64, violation: &Violation) -> String {
    let schedule = shrink(Schedule::draw(seed), violation.property);
    let outcome = World::run(&schedule, Plant::Nothing, true);
    let shown = outcome.violation.as_ref().unwrap_or(violation);
    let faults: Vec<String> = schedule
        .faults
        .iter()
        .map(|(at, f)| format!("  {at} {f}"))
        .collect();
    format!(
        "SIM_SEED={seed}: {:?} at {}: {}\n{:?}\ncalm at {}, faults:\n{}\n{}",
        shown.property,
        shown.at,
        shown.what,
        schedule.setup,
        schedule.calm,
        faults.join("\n"),
        outcome.trace,
    )
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}
