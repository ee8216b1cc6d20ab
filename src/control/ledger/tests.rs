//! Outages as they are told and counted, on a clock that the test moves.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::net::addr::{HostPort, NodeAddr};
use crate::topology::observation::{Asked, View};
use crate::topology::{Epoch, Generation, HoldCause};

const FIRST: u16 = 7001;
const SECOND: u16 = 7002;

struct Told {
    ledger: Ledger,
    at: Moment,
    pulse: Pulse,
}

fn addr(port: u16) -> MasterAddr {
    MasterAddr::for_test(SocketAddr::from(([10, 0, 0, 1], port)))
}

fn state(generation: u64, port: u16, phase: Phase) -> State {
    State {
        generation: Generation(generation),
        phase,
        master: Some(addr(port)),
        verified_at: Some(SocketAddr::from(([10, 0, 0, 1], port))),
        hold_max: Duration::from_secs(15),
    }
}

fn swap(from: Option<u16>, to: u16, generation: u64) -> Swap {
    Swap {
        from: from.map(addr),
        to: addr(to),
        generation: Generation(generation),
        epoch: Epoch(generation),
        trigger: "+switch-master",
        detect: Duration::ZERO,
        verify: Duration::ZERO,
        provisional: false,
    }
}

impl Told {
    fn new() -> Self {
        let at = At::for_test(Moment::from_nanos(1_000_000_000));
        Self {
            ledger: Ledger::new(
                at,
                "main",
                "mymaster",
                State::initial(Duration::from_secs(15)),
            ),
            at: at.moment,
            pulse: Pulse::default(),
        }
    }

    /// Serving, and clients at work.
    fn serving() -> Self {
        let mut told = Self::new();
        told.publish(10, state(1, FIRST, Phase::Serving));
        told.tell(Tale::Ready(swap(None, FIRST, 1)));
        told.reply(5);
        told.pass(2000);
        told.reply(0);
        told
    }

    fn at(&self) -> At {
        At::for_test(self.at)
    }

    fn pass(&mut self, millis: u64) {
        self.at = self.at + Duration::from_millis(millis);
        self.ledger.turn(self.at(), self.pulse);
    }

    fn reply(&mut self, millis: u64) {
        self.at = self.at + Duration::from_millis(millis);
        self.pulse.bytes_down += 5;
        self.ledger.turn(self.at(), self.pulse);
    }

    fn publish(&mut self, millis: u64, state: State) {
        self.at = self.at + Duration::from_millis(millis);
        self.ledger.published(self.at(), &state, self.pulse);
    }

    fn hold(&mut self, millis: u64, generation: u64, port: u16, cause: HoldCause) {
        let since = self.at + Duration::from_millis(millis);
        let phase = Phase::Held {
            cause,
            since,
            sealed: false,
        };
        self.publish(millis, state(generation, port, phase));
    }

    fn tell(&mut self, tale: Tale) {
        self.ledger.told(self.at(), &tale);
    }

    fn candidate(&mut self, millis: u64) {
        self.at = self.at + Duration::from_millis(millis);
        let candidate = crate::topology::decide::Candidate {
            addr: addr(SECOND),
            epoch: Epoch(2),
            support: 1,
            voters: 3,
            asked: Asked::ByPoll,
            since: self.at,
        };
        self.tell(Tale::Candidate(candidate));
    }

    fn account(&self) -> Account {
        self.ledger.account(self.at())
    }
}

fn close_to(seconds: f64, wanted: f64) -> bool {
    (seconds - wanted).abs() < 1e-6
}

#[test]
fn the_start_is_a_time_without_service_and_no_switch() {
    let told = Told::serving();
    let account = told.account();
    let [start] = account.outages.as_slice() else {
        panic!("{:?}", account.outages);
    };
    assert_eq!(start.causes, ["starting"]);
    assert_eq!(start.to.as_deref(), Some("10.0.0.1:7001"));
    assert!(
        close_to(account.unavailable_seconds, 0.010),
        "{}",
        account.unavailable_seconds
    );
    assert_eq!(told.ledger.totals().switches.values().sum::<u64>(), 0);
    assert_eq!(account.phase, "serving");
}

#[test]
fn the_phases_of_a_switch_add_up_to_what_clients_waited() {
    let mut told = Told::serving();
    told.hold(100, 1, FIRST, HoldCause::Announced);
    told.pass(600);
    // The candidate is told after the state that it causes is published.
    told.hold(100, 1, FIRST, HoldCause::Switching);
    told.candidate(0);
    told.publish(30, state(2, SECOND, Phase::Serving));
    told.tell(Tale::HoldEnd {
        cause: HoldCause::Switching,
        lasted: Duration::from_millis(730),
        switched: true,
    });
    let swapped = swap(Some(FIRST), SECOND, 2);
    told.tell(Tale::Switched(swapped.clone()));
    assert!(told.ledger.awaits_reply());
    told.pass(4);
    told.reply(6);
    assert!(!told.ledger.awaits_reply());
    told.ledger.fenced(
        Duration::from_millis(2),
        &swapped,
        Some(Left { cut: 1, kept: 9 }),
    );
    let account = told.account();
    let outage = account.outages.last().expect("there was one");
    assert_eq!(outage.causes, ["announced", "switching"]);
    assert_eq!((outage.outcome.as_str(), outage.over), ("switched", true));
    assert_eq!(
        (outage.from.as_deref(), outage.to.as_deref()),
        (Some("10.0.0.1:7001"), Some("10.0.0.1:7002"))
    );
    let Phases {
        detect: Some(detect),
        verify: Some(verify),
        first_byte: Some(first),
    } = outage.phases
    else {
        panic!("{outage:?}");
    };
    assert!(
        close_to(detect, 0.700) && close_to(verify, 0.030) && close_to(first, 0.010),
        "{outage:?}"
    );
    assert!(
        close_to(detect + verify + first, outage.seconds),
        "{outage:?}"
    );
    assert!(close_to(
        account.unavailable_seconds,
        0.010 + outage.seconds
    ));
    assert_eq!((outage.cut, outage.kept), (Some(1), Some(9)));
    assert_eq!(told.ledger.totals().switches["+switch-master"], 1);
    assert_eq!(told.ledger.totals().holds["switched"], 1);
}

#[test]
fn without_clients_at_work_it_ends_where_they_could_go_on() {
    let mut told = Told::serving();
    told.pass(5000);
    told.hold(0, 1, FIRST, HoldCause::MasterUnreachable);
    told.publish(500, state(1, FIRST, Phase::Serving));
    assert!(!told.ledger.awaits_reply());
    told.reply(400);
    let outage = told.account().outages.pop().expect("there was one");
    assert!(close_to(outage.seconds, 0.5), "{outage:?}");
    assert_eq!(
        (outage.outcome.as_str(), outage.phases.first_byte),
        ("resumed", None)
    );
    // One client that waits is enough.
    told.pass(5000);
    told.hold(0, 1, FIRST, HoldCause::MasterUnreachable);
    told.pulse.waiting = 3;
    told.publish(500, state(1, FIRST, Phase::Serving));
    told.pulse.waiting = 0;
    told.reply(7);
    let outage = told.account().outages.pop().expect("there was one");
    assert!(close_to(outage.seconds, 0.507), "{outage:?}");
    assert_eq!(outage.most_waiting, 3);
}

#[test]
fn nobody_asks_after_it_so_it_is_over_all_the_same() {
    let mut told = Told::serving();
    told.hold(10, 1, FIRST, HoldCause::MasterUnreachable);
    told.publish(200, state(1, FIRST, Phase::Serving));
    told.pass(999);
    assert!(told.ledger.awaits_reply());
    told.pass(1);
    assert!(!told.ledger.awaits_reply());
    let outage = told.account().outages.pop().expect("there was one");
    assert!(close_to(outage.seconds, 0.2), "{outage:?}");
}

#[test]
fn time_counts_while_it_lasts_and_a_new_hold_ends_the_wait_for_a_reply() {
    let mut told = Told::serving();
    told.hold(10, 1, FIRST, HoldCause::MasterUnreachable);
    told.pass(3000);
    let account = told.account();
    assert!(
        close_to(account.unavailable_seconds, 3.010),
        "{}",
        account.unavailable_seconds
    );
    let outage = account.outages.last().expect("it lasts");
    assert_eq!((outage.outcome.as_str(), outage.over), ("lasting", false));
    assert!(close_to(outage.seconds, 3.0));
    assert!(close_to(account.hold.expect("held").seconds, 3.0));
    told.publish(0, state(1, FIRST, Phase::Serving));
    told.hold(20, 1, FIRST, HoldCause::MasterUnreachable);
    assert_eq!(told.account().outages.len(), 3);
}

#[test]
fn only_so_many_are_remembered_and_none_is_forgotten_in_the_sums() {
    let mut told = Told::serving();
    for _ in 0..OUTAGES_KEPT + 5 {
        told.hold(10, 1, FIRST, HoldCause::MasterUnreachable);
        told.publish(10, state(1, FIRST, Phase::Serving));
        told.reply(0);
    }
    let account = told.account();
    assert_eq!(account.outages.len(), OUTAGES_KEPT);
    assert_eq!(account.outages_total, OUTAGES_KEPT as u64 + 6);
    assert!(close_to(
        account.unavailable_seconds,
        0.010 + 0.010 * (OUTAGES_KEPT as f64 + 5.0)
    ));
}

#[test]
fn each_sentinel_has_an_opinion_of_its_own() {
    let mut told = Told::serving();
    let sentinel = |port| SentinelAddr(HostPort::from(SocketAddr::from(([10, 0, 0, 9], port))));
    let view = |port, epoch| Said::View {
        view: Ok(View {
            master: NodeAddr(HostPort::from(SocketAddr::from(([10, 0, 0, 1], port)))),
            epoch: Epoch(epoch),
            down_after: Some(Duration::from_secs(5)),
            quorum: Some(2),
            objectively_down: false,
            unanswered: Duration::ZERO,
        }),
        asked_at: told.at,
        asked: Asked::ByPoll,
        since: told.at,
    };
    let said = [view(FIRST, 1), view(SECOND, 2), view(FIRST, 1)];
    for (n, said) in (0..).zip(said) {
        let sentinel = sentinel(26379 + n);
        for said in [Said::Followed(None), Said::Up(None), said] {
            let observation = Observation {
                sentinel: sentinel.clone(),
                said,
            };
            told.ledger.observed(told.at(), &observation);
        }
    }
    let account = told.account();
    let agrees: Vec<_> = account.sentinels.iter().map(|s| s.agrees).collect();
    assert_eq!(agrees, [Some(true), Some(false), Some(true)]);
    assert!(account.quorum_ok);
    assert_eq!(account.agreeing, 2);
    // Two fall silent: an old answer is none, and one is no quorum.
    told.pass(4000);
    let down = Observation {
        sentinel: sentinel(26380),
        said: Said::Down,
    };
    told.ledger.observed(told.at(), &down);
    let account = told.account();
    assert!(account.sentinels.iter().all(|s| s.agrees.is_none()));
    assert!(!account.quorum_ok);
    assert_eq!(account.sentinels[1].up, Some(false));
}

#[test]
fn a_master_that_hides_its_role_is_said_to() {
    let mut told = Told::serving();
    told.tell(Tale::Unverified(addr(FIRST), "NOAUTH".to_owned()));
    assert!(!told.account().master.expect("one").verified);
    told.ledger.role_said(
        told.at(),
        &addr(FIRST),
        &RoleReport::Refused("NOAUTH".to_owned()),
    );
    assert!(!told.account().master.expect("one").verified);
    told.ledger
        .role_said(told.at(), &addr(FIRST), &RoleReport::Master);
    assert!(told.account().master.expect("one").verified);
    assert_eq!(told.ledger.totals().role_failures["refused"], 1);
    // Every word that is counted under was there before.
    let zero = Totals::zero();
    assert_eq!(
        zero.role_failures.len(),
        told.ledger.totals().role_failures.len()
    );
}

#[test]
fn a_master_that_was_left_and_is_gone_back_to_is_a_switch_and_an_epoch_is_what_was_confirmed() {
    let mut told = Told::serving();
    told.hold(10, 1, FIRST, HoldCause::Announced);
    told.publish(50, state(2, SECOND, Phase::Serving));
    told.tell(Tale::Switched(swap(Some(FIRST), SECOND, 2)));
    told.reply(1);
    told.tell(Tale::Confirmed {
        epoch: Epoch(9),
        after: Duration::from_secs(1),
    });
    assert_eq!(told.account().master.expect("one").epoch, 9);
    // Undone: a generation of its own is fenced before it is served.
    told.hold(10, 3, FIRST, HoldCause::Switching);
    told.publish(50, state(3, FIRST, Phase::Serving));
    told.tell(Tale::Switched(swap(Some(SECOND), FIRST, 3)));
    told.reply(1);
    let back = told.account().outages.pop().expect("there was one");
    assert_eq!(back.outcome, "switched");
    assert_eq!(back.to.as_deref(), Some("10.0.0.1:7001"));
    assert_eq!(told.ledger.totals().holds["switched"], 2);
}

#[test]
fn a_pause_is_an_outage_with_the_switch_in_it_and_without_its_phases() {
    let mut told = Told::serving();
    told.tell(Tale::Paused {
        by: "uid 0".to_owned(),
        limit: Some(Duration::from_secs(5)),
    });
    told.hold(0, 1, FIRST, HoldCause::Paused);
    told.pass(1000);
    let pause = told.account().pause.expect("it lasts");
    assert_eq!((pause.by.as_str(), pause.seconds), ("uid 0", 1.0));
    assert_eq!(pause.left_seconds, Some(4.0));
    told.hold(100, 1, FIRST, HoldCause::Switching);
    told.candidate(0);
    told.hold(100, 2, SECOND, HoldCause::Paused);
    let switch = swap(Some(FIRST), SECOND, 2);
    told.tell(Tale::Switched(switch.clone()));
    let left = Left { cut: 1, kept: 2 };
    told.ledger
        .fenced(Duration::from_millis(2), &switch, Some(left));
    told.tell(Tale::Resumed {
        by: None,
        lasted: Duration::from_secs(5),
    });
    told.publish(3800, state(2, SECOND, Phase::Serving));
    told.pass(2000);
    let account = told.account();
    assert!(account.pause.is_none());
    let outage = account.outages.last().expect("it is over");
    assert_eq!(outage.causes, ["paused", "switching", "paused"]);
    assert_eq!(outage.outcome, "switched");
    assert_eq!(outage.to, Some(addr(SECOND).to_string()));
    assert_eq!((outage.cut, outage.kept), (Some(1), Some(2)));
    assert_eq!(outage.phases, Phases::default());
    assert_eq!(outage.seconds, 5.0);
}
