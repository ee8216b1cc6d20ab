//! Masters that are restarted, replicas that know nothing of it, Sentinels that are reset, replaced, or lie.

use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::net::addr::SentinelAddr;
use crate::topology::observation::{Listed, Said};

const MAX_LAG: Duration = Duration::from_secs(2);

fn at(millis: u64) -> Moment {
    Moment::from_nanos(1_000_000_000_000 + millis * 1_000_000)
}

fn socket(n: u16) -> SocketAddr {
    ([10, 0, 0, 1], n).into()
}

fn node(n: u16) -> NodeAddr {
    NodeAddr(HostPort::from(socket(n)))
}

const fn when(now: Moment) -> When {
    When {
        asked: now,
        heard: now,
    }
}

fn roll(agree: Agree) -> Roll {
    let choice = Choice {
        max_lag: MAX_LAG,
        fallback: Fallback::Refuse,
    };
    let mut roll = Roll::new(choice, agree, Vec::new());
    roll.head(Some(Head {
        addr: HostPort::from(socket(1)),
        at: socket(1),
        generation: Generation(1),
    }));
    roll
}

fn by(n: u16, said: Said) -> Observation {
    let addr = SocketAddr::from(([10, 0, 0, 9], n));
    Observation {
        sentinel: SentinelAddr(HostPort::from(addr)),
        said,
    }
}

/// Sentinel `n` lists these, and those that it calls down.
fn lists(roll: &mut Roll, n: u16, now: Moment, up: &[NodeAddr], down: &[NodeAddr]) {
    let listed = |down| {
        move |addr: &NodeAddr| Listed {
            addr: addr.clone(),
            down,
        }
    };
    let all = up
        .iter()
        .map(listed(false))
        .chain(down.iter().map(listed(true)));
    let said = Said::Replicas {
        listed: all.collect(),
        asked_at: now,
    };
    roll.observe(by(n, said));
}

/// The master lists these, each with its socket, and all of them have what it has.
fn in_step(roll: &mut Roll, now: Moment, offset: u64, nodes: &[(NodeAddr, SocketAddr)]) {
    let attached: Vec<_> = nodes
        .iter()
        .map(|(addr, at)| (addr.0.clone(), vec![*at]))
        .collect();
    roll.written(when(now), offset, &attached);
    for (addr, at) in nodes {
        roll.said(addr, when(now), *at, Report::Follows(Some(offset)));
    }
}

fn fit(roll: &Roll, now: Moment, is_in: bool) -> Vec<NodeAddr> {
    let verdicts = roll.verdicts(|_| is_in, now).into_iter();
    verdicts
        .filter_map(|(addr, fit)| fit.ok().map(|_| addr))
        .collect()
}

#[test]
fn sentinels_that_are_replaced_are_heard_until_others_have_listed() {
    let mut roll = roll(Agree::Any);
    lists(&mut roll, 1, at(0), &[node(2)], &[]);
    in_step(&mut roll, at(10), 5, &[(node(2), socket(2))]);
    roll.observe(by(2, Said::Followed(None)));
    roll.observe(by(1, Said::Forgotten));
    assert_eq!(fit(&roll, at(20), true), [node(2)]);
    assert_eq!(fit(&roll, at(20), false), [node(2)]);
    lists(&mut roll, 2, at(30), &[node(3)], &[]);
    let why = roll.verdict(&node(2), false, at(40)).err();
    assert_eq!(why, Some(Unfit::Unlisted));
}

#[test]
fn a_majority_has_to_list_where_a_majority_has_to_agree() {
    for (agree, asked) in [(Agree::Any, 2), (Agree::Majority, 1)] {
        let mut roll = roll(agree);
        (1..=3).for_each(|n| roll.observe(by(n, Said::Followed(None))));
        lists(&mut roll, 1, at(0), &[node(2)], &[]);
        lists(&mut roll, 2, at(0), &[node(2)], &[]);
        lists(&mut roll, 3, at(0), &[node(2), node(66)], &[]);
        assert_eq!(roll.nodes().count(), asked, "{agree:?}");
        // It may say what it likes: the master does not know it.
        roll.written(when(at(10)), 5, &[]);
        roll.said(
            &node(66),
            when(at(20)),
            socket(66),
            Report::Follows(Some(999_999)),
        );
        let why = roll.verdict(&node(66), false, at(20)).err();
        assert!(
            matches!(why, Some(Unfit::Unattached | Unfit::Unlisted)),
            "{why:?}"
        );
    }
}

#[test]
fn the_dead_do_not_push_out_the_living() {
    let mut roll = roll(Agree::Any);
    let dead: Vec<_> = (100..160).map(node).collect();
    let living = [node(1000), node(1001)];
    lists(&mut roll, 1, at(0), &living, &dead);
    assert!(living.iter().all(|of| roll.nodes().any(|addr| addr == of)));
    assert_eq!((roll.nodes().count(), roll.left_out()), (MAX_ASKED, 30));
    // Before the Sentinel knows that they are dead, too.
    let mut roll = self::roll(Agree::Any);
    let all: Vec<_> = dead.iter().chain(&living).cloned().collect();
    for turn in 0..3 {
        lists(&mut roll, 1, at(turn * 1000), &all, &[]);
        let asked: Vec<_> = roll.nodes().cloned().collect();
        for addr in asked {
            if living.contains(&addr) {
                let at = addr.0.socket_addr().expect("an address");
                roll.said(
                    &addr,
                    when(self::at(turn * 1000)),
                    at,
                    Report::Follows(Some(1)),
                );
            } else {
                roll.gone(&addr);
            }
        }
    }
    lists(&mut roll, 1, at(3000), &all, &[]);
    assert!(living.iter().all(|of| roll.nodes().any(|addr| addr == of)));
}

#[test]
fn names_and_ipv6_are_nodes_as_others_and_one_node_is_one_member() {
    let named = |host: &str| NodeAddr(HostPort::parse(host, None).expect("an address"));
    let (name, six) = (named("replica-a.internal:2"), named("[fd00::3]:6379"));
    let six_at = six.0.socket_addr().expect("an address");
    let mut roll = roll(Agree::Any);
    lists(
        &mut roll,
        1,
        at(0),
        &[name.clone(), node(2), six.clone()],
        &[],
    );
    // The master knows it by name, Sentinel by name and by address: it is the same process.
    let both = [(name.clone(), socket(2)), (six.clone(), six_at)];
    in_step(&mut roll, at(10), 5, &both);
    roll.said(&node(2), when(at(10)), socket(2), Report::Follows(Some(5)));
    assert_eq!(fit(&roll, at(20), false).len(), 2);
    let verdicts = roll.verdicts(|addr| *addr == name, at(20));
    assert!(verdicts[&name].is_ok() && verdicts[&six].is_ok());
    assert_eq!(verdicts[&node(2)], Err(Unfit::SameNode));
    let verdicts = roll.verdicts(|addr| *addr == node(2), at(20));
    assert_eq!(verdicts[&name], Err(Unfit::SameNode), "who is in stays in");
}

#[test]
fn a_master_that_was_left_and_is_back_is_another() {
    let mut roll = roll(Agree::Any);
    lists(&mut roll, 1, at(0), &[node(2)], &[]);
    in_step(&mut roll, at(10), 5, &[(node(2), socket(2))]);
    assert_eq!(fit(&roll, at(20), true), [node(2)]);
    roll.head(Some(Head {
        addr: HostPort::from(socket(1)),
        at: socket(1),
        generation: Generation(3),
    }));
    assert_eq!(
        roll.verdict(&node(2), true, at(20)).err(),
        Some(Unfit::OtherMaster)
    );
}

proptest! {
    /// However often the master is restarted, with whatever it still has, and however half open the replica's connection is:
    /// whoever is fit lacks nothing that the master in force wrote longer ago than `max_lag`.
    #[test]
    fn nobody_who_is_fit_lacks_what_is_older_than_max_lag(
        steps in prop::collection::vec((1_u64..400, 0_u8..12, 0_u64..60), 1..300),
    ) {
        let mut roll = roll(Agree::Any);
        lists(&mut roll, 1, at(0), &[node(2)], &[]);
        let attached = [(HostPort::from(socket(2)), vec![socket(2)])];
        // The process, its offset, and when it had which.
        let (mut process, mut offset, mut wrote) = (0, 100, Vec::new());
        // The replica's: of which process, and how much; and whether bytes arrive.
        let (mut of, mut has, mut flows) = (0, 100, true);
        let mut now = 0;
        let mut is_in = false;
        for (pause, what, much) in steps {
            now += pause;
            match what {
                0..=2 => {
                    offset += much;
                    wrote.push((now, offset));
                }
                // Restarted with more or less of what it had; the replica hears of it or not.
                3 => {
                    process += 1;
                    offset = offset.saturating_sub(much * 2);
                    wrote.clear();
                    roll.parted();
                    flows = false;
                }
                4 => flows = false,
                5 | 6 if of == process => flows = true,
                5 | 6 => (of, has, flows) = (process, offset, true),
                7 => roll.parted(),
                _ => {}
            }
            if flows && of == process {
                has = offset;
            }
            if what % 2 == 0 {
                let listed = if of == process { &attached[..] } else { &[] };
                roll.written(when(at(now)), offset, listed);
            }
            if what % 3 == 0 {
                roll.said(&node(2), when(at(now)), socket(2), Report::Follows(Some(has)));
            }
            let verdict = roll.verdict(&node(2), is_in, at(now));
            is_in = verdict.is_ok();
            if let Ok((age, _)) = verdict {
                let oldest = wrote.iter().find(|(_, written)| of != process || *written > has);
                if let Some((since, _)) = oldest {
                    let lacks = Duration::from_millis(now - since);
                    prop_assert!(lacks <= age && age <= MAX_LAG, "{lacks:?} of {age:?}");
                }
            }
        }
    }
}
