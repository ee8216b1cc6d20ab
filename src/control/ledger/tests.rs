//! Outages as they are told and counted, on a clock that the test moves.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::net::addr::{HostPort, NodeAddr};
use crate::topology::observation::{Asked, Unasked, View};
use crate::topology::{Epoch, ForReaders, Generation, HoldCause};

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
        readers: ForReaders::default(),
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
        said: Said::Down(Unasked {
            reason: "auth",
            words: "login failed: WRONGPASS".to_owned(),
        }),
    };
    told.ledger.observed(told.at(), &down);
    let account = told.account();
    assert!(account.sentinels.iter().all(|s| s.agrees.is_none()));
    assert!(!account.quorum_ok);
    assert_eq!(account.sentinels[1].up, Some(false));
    assert_eq!(account.sentinels[1].reason.as_deref(), Some("auth"));
    let trouble = account.sentinels[1].trouble.as_deref();
    assert_eq!(trouble, Some("login failed: WRONGPASS"));
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
    told.tell(Tale::Switched(swap(Some(SECOND), FIRST, 3)));
    let mut counted = vec![told.account().unavailable_seconds];
    told.publish(50, state(3, FIRST, Phase::Serving));
    counted.push(told.account().unavailable_seconds);
    told.reply(1);
    counted.push(told.account().unavailable_seconds);
    assert!(counted[0] > 0.0 && counted.is_sorted(), "{counted:?}");
    let back = told.account().outages.pop().expect("there was one");
    assert_eq!(back.outcome, "switched");
    assert_eq!(back.to.as_deref(), Some("10.0.0.1:7001"));
    assert_eq!(told.ledger.totals().holds["switched"], 2);
}

#[test]
fn what_was_lost_from_a_second_before_an_outage_on_is_told_with_it() {
    let mut told = Told::serving();
    // Long ago, and nobody's outage.
    told.pulse.lost = 3;
    told.pulse.unknown = 2;
    for _ in 0..25 {
        told.pass(100);
    }
    // The master dies; the sessions notice before the control task does.
    told.pulse.lost = 10;
    told.pulse.unknown = 6;
    told.pass(300);
    told.hold(100, 1, FIRST, HoldCause::MasterUnreachable);
    told.pulse.waiting = 4;
    told.pass(900);
    told.candidate(0);
    told.publish(30, state(2, SECOND, Phase::Serving));
    let swapped = swap(Some(FIRST), SECOND, 2);
    told.tell(Tale::Switched(swapped.clone()));
    told.pulse.lost = 11;
    told.pass(1);
    assert!(told.ledger.over(told.at()).is_none(), "a reply is awaited");
    let left = Some(Left { cut: 1, kept: 2 });
    let harm = told.ledger.fenced(Duration::from_millis(1), &swapped, left);
    assert_eq!((harm.held, harm.lost, harm.unknown), (4, 8, 4));
    assert_eq!(harm.paused, Duration::from_millis(930));
    told.reply(4);
    let over = told.ledger.over(told.at()).expect("all is known");
    assert_eq!((over.lost, over.unknown, over.cut), (8, 4, Some(1)));
    assert!(close_to(over.seconds, 0.935), "{over:?}");
    assert!(told.ledger.over(told.at()).is_none(), "told once");
}

#[test]
fn an_outage_is_told_when_its_fence_is_known_and_the_start_never() {
    let mut told = Told::serving();
    assert!(told.ledger.over(told.at()).is_none(), "the start");
    told.pass(5000);
    told.hold(0, 1, FIRST, HoldCause::Switching);
    told.publish(20, state(2, SECOND, Phase::Serving));
    let swapped = swap(Some(FIRST), SECOND, 2);
    told.tell(Tale::Switched(swapped.clone()));
    assert!(told.ledger.over(told.at()).is_none(), "not fenced yet");
    // Nobody waited, so it was over before its sessions were closed.
    told.pulse.lost = 5;
    told.pass(1);
    let left = Some(Left { cut: 5, kept: 0 });
    told.ledger.fenced(Duration::from_millis(1), &swapped, left);
    let over = told.ledger.over(told.at()).expect("all is known");
    assert_eq!((over.lost, over.cut), (5, Some(5)));
    // A hold of the same master has no fence.
    told.pass(5000);
    told.hold(0, 2, SECOND, HoldCause::MasterUnreachable);
    told.publish(20, state(2, SECOND, Phase::Serving));
    assert_eq!(
        told.ledger.over(told.at()).expect("over").outcome,
        "resumed"
    );
    // One whose fence is never known is told after a while.
    told.hold(10, 2, SECOND, HoldCause::Switching);
    told.publish(20, state(3, FIRST, Phase::Serving));
    assert!(told.ledger.over(told.at()).is_none());
    told.pass(5000);
    assert_eq!(
        told.ledger.over(told.at()).expect("over").fence_seconds,
        None
    );
}

#[test]
fn a_sentinel_that_disagrees_for_longer_than_a_failover_takes_is_told_with_its_end() {
    let mut told = Told::serving();
    let sentinel = SentinelAddr(HostPort::parse("10.0.0.9:26379", None).expect("an address"));
    let says = |told: &mut Told, said: Said| {
        let observation = Observation {
            sentinel: sentinel.clone(),
            said,
        };
        let at = told.at();
        told.ledger.observed(at, &observation);
    };
    let names = |told: &mut Told, port: u16| {
        let at = told.at;
        let view = View {
            master: NodeAddr(addr(port).host_port().clone()),
            epoch: Epoch(7),
            down_after: None,
            quorum: None,
            objectively_down: false,
            unanswered: Duration::ZERO,
        };
        says(
            told,
            Said::View {
                view: Ok(view),
                asked: Asked::ByPoll,
                asked_at: at,
                since: at,
            },
        );
    };
    let mut lines = Vec::new();
    says(&mut told, Said::Up(None));
    // A failover's two seconds; then it stays so, and goes to and fro; then it falls silent.
    for (seconds, port) in [
        (2, SECOND),
        (2, FIRST),
        (10, SECOND),
        (2, FIRST),
        (10, SECOND),
        (2, FIRST),
    ] {
        for _ in 0..seconds * 2 {
            names(&mut told, port);
            told.pass(500);
            lines.extend(told.ledger.disagreements(told.at()));
        }
    }
    let [begin, end] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!((begin.over, end.over), (false, true));
    assert_eq!(begin.names, "10.0.0.1:7002");
    assert_eq!(
        (begin.epoch, begin.sentinel.as_str()),
        (7, "10.0.0.9:26379")
    );
    assert!(begin.lasted >= Duration::from_secs(3) && end.lasted >= Duration::from_secs(9));
    // After a minute it is news again, and silence is an end.
    told.pass(60_000);
    for _ in 0..10 {
        names(&mut told, SECOND);
        told.pass(500);
        lines.extend(told.ledger.disagreements(told.at()));
    }
    told.pass(30_000);
    lines.extend(told.ledger.disagreements(told.at()));
    let over: Vec<_> = lines.iter().map(|line| line.over).collect();
    assert_eq!(over, [false, true, false, true]);
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
    // And back, in the same pause.
    told.hold(100, 3, FIRST, HoldCause::Paused);
    let back = swap(Some(SECOND), FIRST, 3);
    told.tell(Tale::Switched(back.clone()));
    let left = Left { cut: 0, kept: 3 };
    told.ledger
        .fenced(Duration::from_millis(2), &back, Some(left));
    told.tell(Tale::Resumed {
        by: None,
        lasted: Duration::from_secs(5),
    });
    told.publish(3700, state(3, FIRST, Phase::Serving));
    told.pass(2000);
    let account = told.account();
    assert!(account.pause.is_none());
    let outage = account.outages.last().expect("it is over");
    assert_eq!(outage.causes, ["paused", "switching", "paused"]);
    assert_eq!(outage.outcome, "switched");
    assert_eq!(outage.to, Some(addr(FIRST).to_string()));
    assert_eq!((outage.cut, outage.kept), (Some(1), Some(5)));
    assert_eq!(outage.phases, Phases::default());
    assert_eq!(outage.seconds, 5.0);
}
