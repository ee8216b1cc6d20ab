//! The soak's checker on histories with planted violations, one and more for each invariant; and that a seed is
//! a schedule. The soak itself is `scripts/soak`.

#[allow(dead_code, reason = "the run uses more of it than this does")]
#[path = "soak/checker.rs"]
mod checker;
#[allow(dead_code, reason = "the run uses more of it than this does")]
#[path = "soak/history.rs"]
mod history;
#[allow(dead_code, reason = "the run uses more of it than this does")]
#[path = "soak/schedule.rs"]
mod schedule;

use std::collections::HashSet;
use std::net::SocketAddr;

use checker::{Demands, Findings, check};
use history::{
    Declared, Digest, Evidence, Executed, Micros, Op, Outcome, Reply, Request, Resources, Round,
};
use schedule::{Fault, Schedule};

const SECOND: Micros = 1_000_000;
const DEMANDS: Demands = Demands {
    rss_cap_kib: 1000,
    announced_hold: true,
};

/// A run in which nothing went wrong: three writes, the second across a planned failover from node 1 to 2.
fn good() -> Evidence {
    Evidence {
        ops: vec![
            push(1, 10, 1, acked(1)),
            push(2, 20, 1, Outcome::Unknown),
            push(3, 120, 2, acked(3)),
        ],
        executed: vec![by(1, 1), by(1, 2), by(2, 3)],
        declared: vec![declared(1, 1), declared(100, 2)],
        given_up: Vec::new(),
        rounds: vec![round(15, 110, true, false)],
        present: vec![1, 2, 3],
        resources: Resources {
            fds_before: 10,
            fds_after: 10,
            rss_peak_kib: 900,
            late_ms: 0,
        },
        stuck: Vec::new(),
    }
}

fn node(number: u8) -> SocketAddr {
    ([127, 0, 0, number], 6379).into()
}

fn push(token: u64, second: Micros, session: u32, outcome: Outcome) -> Op {
    asked(Request::Push(token), second, session, outcome)
}

fn asked(request: Request, second: Micros, session: u32, outcome: Outcome) -> Op {
    Op {
        client: 1,
        session,
        began: second * SECOND,
        ended: second * SECOND + SECOND / 2,
        request,
        outcome,
    }
}

fn acked(length: i64) -> Outcome {
    Outcome::Replied(Reply::Int(length))
}

fn error(text: &str) -> Outcome {
    Outcome::Replied(Reply::Error(text.into()))
}

fn by(number: u8, token: u64) -> Executed {
    Executed {
        node: node(number),
        token,
    }
}

fn declared(second: Micros, to: u8) -> Declared {
    Declared {
        at: second * SECOND,
        to: node(to),
    }
}

fn round(from: Micros, to: Micros, clean_planned: bool, disturbs_replication: bool) -> Round {
    Round {
        kind: "a fault",
        what: "a fault".to_owned(),
        from: from * SECOND,
        to: to * SECOND,
        clean_planned,
        disturbs_replication,
    }
}

/// The invariants that the good run breaks once this was done to it.
fn broken(plant: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    found(plant)
        .violations
        .iter()
        .map(|violation| violation.invariant)
        .collect()
}

fn found(plant: impl FnOnce(&mut Evidence)) -> Findings {
    let mut evidence = good();
    plant(&mut evidence);
    check(&evidence, DEMANDS)
}

#[test]
fn a_good_run_breaks_nothing() {
    assert_eq!(broken(|_| {}), [""; 0]);
    assert_eq!(
        broken(|e| e.present.retain(|token| *token != 2)),
        [""; 0],
        "what was not acknowledged may be lost"
    );
}

#[test]
fn i1_a_write_twice_on_the_master() {
    assert_eq!(broken(|e| e.present.push(2)), ["I1"]);
}

#[test]
fn i1_a_write_sent_again_to_the_next_master() {
    assert_eq!(broken(|e| e.executed.push(by(2, 2))), ["I1", "I3"]);
}

#[test]
fn i1_a_refused_write_that_was_executed() {
    let refused = |e: &mut Evidence| e.ops[1].outcome = error("READONLY You can't write");
    assert_eq!(broken(refused), ["I1"]);
    assert_eq!(broken(|e| e.ops[1].outcome = Outcome::NotSent), ["I1"]);
}

#[test]
fn i1_a_write_from_nowhere() {
    assert_eq!(broken(|e| e.present.push(77)), ["I1"]);
}

#[test]
fn i2_another_reply_than_the_one_to_this_request() {
    let (sent, got) = (Digest { len: 5, hash: 1 }, Digest { len: 5, hash: 2 });
    let echo = |reply| asked(Request::Echo(sent), 121, 2, Outcome::Replied(reply));
    assert_eq!(
        broken(|e| e.ops.push(echo(Reply::Bulk(sent)))),
        [""; 0],
        "its own"
    );
    for reply in [
        Reply::Bulk(got),
        Reply::Int(4),
        Reply::Nil,
        Reply::Other("*0".into()),
    ] {
        assert_eq!(broken(|e| e.ops.push(echo(reply))), ["I2"]);
    }
}

#[test]
fn i2_a_reply_behind_a_missing_one() {
    assert_eq!(broken(|e| e.ops[2].session = 1), ["I2"]);
}

#[test]
fn i2_a_connection_that_sees_an_older_list() {
    let older = |e: &mut Evidence| {
        e.ops.push(push(4, 130, 2, acked(3)));
        e.present.push(4);
    };
    assert_eq!(broken(older), ["I2"]);
}

#[test]
fn i2_messages_repeated_or_out_of_order() {
    let heard = |number| {
        let message = Outcome::Replied(Reply::Message(number));
        asked(Request::Receive, 130, 9, message)
    };
    let all = |numbers: &[u64]| {
        let ops: Vec<Op> = numbers.iter().copied().map(heard).collect();
        broken(|e| e.ops.extend(ops))
    };
    assert_eq!(all(&[1, 2, 5]), [""; 0]);
    assert_eq!(all(&[1, 2, 2]), ["I2"]);
    assert_eq!(all(&[1, 3, 2]), ["I2"]);
}

#[test]
fn i2_a_list_that_shrinks_without_a_switch() {
    // The good run's master changes at 100 s; what Redis lost in that may be missing behind it.
    let pushed = |token, at, length| asked(Request::Push(token), at, 9, acked(length));
    let shrinks = |first, second| {
        broken(|e| {
            e.ops.extend([pushed(50, first, 7), pushed(51, second, 5)]);
            e.present.extend([50, 51]);
        })
    };
    assert_eq!(shrinks(98, 130), [""; 0]);
    assert_eq!(shrinks(130, 131), ["I2"]);
    assert_eq!(shrinks(20, 21), ["I2"], "long before");
}

#[test]
fn i2_another_clients_element_is_popped() {
    let pop = |token| {
        let popped = Outcome::Replied(Reply::Popped(token));
        asked(Request::Pop, 131, 9, popped)
    };
    let enqueue = asked(Request::Enqueue(8), 130, 9, acked(1));
    let with = |token| broken(|e| e.ops.extend([enqueue.clone(), pop(token)]));
    assert_eq!(with(8), [""; 0]);
    assert_eq!(with(1), ["I2"]);
}

#[test]
fn i3_a_write_after_the_switch_on_the_old_master() {
    assert_eq!(broken(|e| e.executed[2] = by(1, 3)), ["I3"]);
    assert_eq!(broken(|e| e.executed[2] = by(3, 3)), ["I3"], "or any other");
}

#[test]
fn i3_allows_the_write_that_is_under_way_and_the_log_that_is_late() {
    let across = |began, node| {
        broken(|e| {
            e.ops[2].began = began * SECOND;
            e.executed[2] = by(node, 3);
        })
    };
    assert_eq!(across(99, 1), [""; 0]);
    assert_eq!(across(99, 2), [""; 0]);
    assert_eq!(across(101, 1), ["I3"]);
}

#[test]
fn i4_an_error_that_redis_does_not_give() {
    let told = |text: &str| {
        let ping = asked(Request::Pop, 130, 9, error(text));
        broken(|e| e.ops.push(ping))
    };
    assert_eq!(
        told("LOADING Redis is loading the dataset in memory"),
        [""; 0]
    );
    assert_eq!(
        told("LOADING main: no verified master for 3 ms, command not executed"),
        ["I4"]
    );
    assert_eq!(told("ERR no master"), ["I4"]);
}

#[test]
fn i5_a_write_lost_by_a_planned_failover() {
    let lost = |e: &mut Evidence| e.present.retain(|token| *token != 1);
    assert_eq!(broken(lost), ["I5"]);

    let mut evidence = good();
    lost(&mut evidence);
    let demands = Demands {
        announced_hold: false,
        ..DEMANDS
    };
    let findings = check(&evidence, demands);
    assert!(findings.violations.is_empty(), "counted, not demanded");
    assert_eq!(findings.planned_losses, 1);
}

#[test]
fn i5_does_not_ask_for_a_hold_shortly_after_one_in_vain() {
    let lost = |given_up: u64| {
        broken(|e| {
            e.present.retain(|token| *token != 1);
            e.rounds = vec![round(90, 110, true, false)];
            e.given_up = vec![given_up * SECOND];
        })
    };
    assert_eq!(lost(70), [""; 0]);
    assert_eq!(lost(50), ["I5"], "long ago");
    assert_eq!(lost(95), ["I5"], "only later");
}

#[test]
fn i5_does_not_ask_for_what_a_crash_took() {
    let crash = found(|e| {
        e.present.retain(|token| *token != 1);
        e.rounds = vec![round(15, 110, false, true)];
    });
    assert!(crash.violations.is_empty());
    assert_eq!(crash.losses["a fault"].writes, 1);
    assert_eq!(crash.losses["a fault"].oldest, 89 * SECOND + SECOND / 2);

    let disturbed = broken(|e| {
        e.present.retain(|token| *token != 1);
        e.rounds = vec![round(12, 14, false, true), round(15, 110, true, false)];
    });
    assert_eq!(
        disturbed, [""; 0],
        "a replica was frozen since it was acknowledged"
    );
}

#[test]
fn i6_a_descriptor_left() {
    assert_eq!(broken(|e| e.resources.fds_after = 11), ["I6"]);
    assert_eq!(broken(|e| e.resources.fds_after = 9), [""; 0]);
}

#[test]
fn i7_too_much_memory() {
    assert_eq!(broken(|e| e.resources.rss_peak_kib = 1001), ["I7"]);
}

#[test]
fn l_healed_and_not_served() {
    assert_eq!(
        broken(|e| e.stuck.push("nobody is served".to_owned())),
        ["L"]
    );
}

#[test]
fn many_violations_are_counted_not_spelled_out() {
    let many = found(|e| e.present.extend(1000..2000));
    assert_eq!(many.violations.len(), 11);
    assert!(many.violations[10].what.contains("990 more"));
}

#[test]
fn a_seed_is_a_schedule() {
    let steps = |seed| Schedule::of(seed).take(60).collect::<Vec<_>>();
    assert_eq!(steps(1), steps(1));
    assert_ne!(steps(1), steps(2));
    // A run of a minute or two sees most of the faults.
    for seed in 0..20 {
        let kinds: HashSet<&str> = steps(seed)[..15].iter().map(|s| s.fault.kind()).collect();
        assert!(kinds.len() >= 12, "seed {seed}: {kinds:?}");
        assert!(kinds.contains("kill master") && kinds.contains("REMOVE + MONITOR"));
    }
    let all: HashSet<&str> = (0..20)
        .flat_map(steps)
        .map(|step| step.fault.kind())
        .collect();
    assert_eq!(all.len(), 16, "{all:?}");
}

#[test]
fn only_failovers_have_something_beside_them() {
    for step in Schedule::of(3).take(500) {
        let fails_over = matches!(
            step.fault,
            Fault::Planned { .. } | Fault::KillMaster | Fault::FreezeMaster { .. }
        );
        assert!(fails_over || step.side.is_none(), "{step}");
    }
}
