//! Subscriptions that are followed (`pubsub = "move"`).

use super::tests::{Case, ERR, OK, RULES, array};
use super::*;
use crate::session::replay::{Answer, Failure, Replay, Step};
use crate::session::subscriptions::{NAMES_MAX, SUBSCRIPTIONS_MAX};

const NOTED: &str = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$9\r\nsubscribe\r\n";
const PUSHED: &str = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";
const ROLE: &str = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";

fn tracker() -> Tracker {
    Tracker::new(Rules {
        pubsub: true,
        ..RULES
    })
}

/// `>subscribe a 1` as a server writes it; no name = a null.
fn said(line: &str) -> String {
    let (kind, line) = line.split_at(1);
    let words: Vec<&str> = line.split(' ').collect();
    let (name, count) = match words[1..] {
        [count] if kind == "*" => ("$-1\r\n".to_owned(), count),
        [count] => ("_\r\n".to_owned(), count),
        [name, count] => (format!("${}\r\n{name}\r\n", name.len()), count),
        _ => panic!("{line}"),
    };
    let word = words[0];
    format!("{kind}3\r\n${}\r\n{word}\r\n{name}:{count}\r\n", word.len())
}

fn all_said(lines: &[&str]) -> String {
    lines.iter().map(|line| said(line)).collect()
}

#[test]
fn the_confirmations_count_and_not_the_requests() {
    for kind in ["*", ">"] {
        let mut t = tracker();
        if kind == ">" {
            t.says("HELLO 3", "%0\r\n");
        }
        let mut says = |command: &str, lines: &[&str], left: &str| {
            t.client_bytes(&array(command));
            let replies: Vec<String> = lines.iter().map(|l| said(&format!("{kind}{l}"))).collect();
            for reply in &replies {
                assert_eq!(t.movable(), Err(WhyNot::InFlight(1)), "{command}");
                let _ = t.master_bytes(reply.as_bytes());
            }
            assert_eq!(t.movable(), Ok(()), "{command}");
            assert_eq!(t.replayed().split_once("ROLE").map_or("", |r| r.1), left);
        };
        says(
            "SUBSCRIBE b a",
            &["subscribe b 1", "subscribe a 2"],
            " ; SUBSCRIBE a b",
        );
        says(
            "PSUBSCRIBE a*",
            &["psubscribe a* 3"],
            " ; SUBSCRIBE a b ; PSUBSCRIBE a*",
        );
        says(
            "ssubscribe a a",
            &["ssubscribe a 1", "ssubscribe a 1"],
            " ; SUBSCRIBE a b ; PSUBSCRIBE a* ; SSUBSCRIBE a",
        );
        says(
            "UNSUBSCRIBE a z",
            &["unsubscribe a 2", "unsubscribe z 2"],
            " ; SUBSCRIBE b ; PSUBSCRIBE a* ; SSUBSCRIBE a",
        );
        says(
            "SUBSCRIBE c",
            &["subscribe c 3"],
            " ; SUBSCRIBE b c ; PSUBSCRIBE a* ; SSUBSCRIBE a",
        );
        says(
            "UNSUBSCRIBE",
            &["unsubscribe b 2", "unsubscribe c 1"],
            " ; PSUBSCRIBE a* ; SSUBSCRIBE a",
        );
        says("PUNSUBSCRIBE", &["punsubscribe a* 0"], " ; SSUBSCRIBE a");
        says("SUNSUBSCRIBE", &["sunsubscribe a 0"], "");
        says("SUNSUBSCRIBE", &["sunsubscribe 0"], "");
        assert!(t.head.is_none(), "nothing to listen for");
        t.says("PING", "+PONG\r\n").says("LRANGE l 0 1", NOTED);
        assert_eq!(t.movable(), Ok(()));
    }
}

#[test]
fn messages_are_nobodys_replies() {
    // In pieces of any size.
    for size in 1..40 {
        let mut t = tracker();
        let feed = |t: &mut Tracker, bytes: String| {
            for piece in bytes.as_bytes().chunks(size) {
                let _ = t.master_bytes(piece);
            }
        };
        t.client_bytes(&array("GET k"));
        t.client_bytes(&array("SUBSCRIBE a b"));
        t.client_bytes(&array("PING"));
        let pong = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        let confirmed = all_said(&["*subscribe a 1", "*subscribe b 2"]);
        feed(&mut t, format!("{NOTED}{confirmed}{NOTED}"));
        assert_eq!(t.movable(), Err(WhyNot::InFlight(1)));
        feed(&mut t, format!("{NOTED}{pong}{NOTED}"));
        assert_eq!(t.movable(), Ok(()));
        feed(&mut t, NOTED[..20].to_owned());
        assert_eq!(t.movable(), Err(WhyNot::MidReply));
        feed(&mut t, NOTED[20..].to_owned());
        assert_eq!(t.movable(), Ok(()));
        let mut t = tracker();
        t.says("HELLO 3", "%0\r\n");
        t.client_bytes(&array("SUBSCRIBE a"));
        t.client_bytes(&array("LRANGE l 0 1"));
        feed(
            &mut t,
            format!("{PUSHED}{}{PUSHED}", said(">subscribe a 1")),
        );
        assert_eq!(t.movable(), Err(WhyNot::InFlight(1)));
        feed(&mut t, format!("{NOTED}{PUSHED}"));
        assert_eq!(t.movable(), Ok(()));
    }
}

#[test]
fn what_is_not_understood_is_not_moved() {
    use Retire::*;
    let (one, two) = (said("*subscribe a 1"), said("*subscribe b 2"));
    let queued = "+QUEUED\r\n";
    let invalidations = said("*subscribe __redis__:invalidate 1");
    let subscribe = "SUBSCRIBE a";
    let miscounted = said("*subscribe a 2");
    let (pushed, ended) = (said(">subscribe a 1"), said("*unsubscribe a 0"));
    let long = "n".repeat(2000);
    let long = (
        format!("SUBSCRIBE {long}"),
        said(&format!("*subscribe {long} 1")),
    );
    let half = format!("{one}{ERR}");
    let cases: &[Case<'_, Option<Retire>>] = &[
        Case(&[(subscribe, &one)], None),
        Case(&[(subscribe, ERR)], None),
        Case(&[("SUBSCRIBE", ERR)], None),
        Case(&[("SUBSCRIBE", &one)], Some(Subscribed)),
        Case(&[("SUBSCRIBE a b", &half)], Some(Unasked)),
        Case(&[(subscribe, OK)], Some(Subscribed)),
        Case(&[(subscribe, NOTED)], Some(Subscribed)),
        Case(&[(subscribe, &two)], Some(Subscribed)),
        Case(&[(subscribe, &miscounted)], Some(Subscribed)),
        Case(&[("PSUBSCRIBE a", &one)], Some(Subscribed)),
        Case(&[("MULTI", OK), (subscribe, queued)], Some(Subscribed)),
        Case(&[(subscribe, &one), ("PING", &ended)], Some(Unasked)),
        Case(&[(subscribe, &one), ("PING", &two)], Some(Unasked)),
        Case(&[("SUBSCRIBE x", &invalidations)], Some(Tracking)),
        Case(&[(&long.0, &long.1)], Some(TooLong)),
        Case(&[("HELLO 3", "%0\r\n"), (subscribe, &pushed)], None),
        Case(
            &[("HELLO 3", "%0\r\n"), (subscribe, &one)],
            Some(Subscribed),
        ),
        Case(&[(subscribe, &one), ("RESET", "+RESET\r\n")], None),
        Case(&[(subscribe, &one), ("MONITOR", "")], Some(Monitoring)),
    ];
    for Case(dialogue, expected) in cases {
        let mut t = tracker();
        for (command, reply) in *dialogue {
            t.says(command, reply);
        }
        assert_eq!(t.retired(), *expected, "{dialogue:?}");
        assert_eq!(t.movable().is_err(), expected.is_some(), "{dialogue:?}");
        if expected.is_some() {
            assert!(t.head.is_none() && t.journal.is_empty());
        }
    }
    let mut t = tracker();
    t.says(subscribe, &one).says("RESET", "+RESET\r\n");
    assert_eq!(t.replayed(), "");
    // Of RESP2 again: an array is a reply.
    t.says("LRANGE l 0 1", NOTED);
    assert_eq!(t.movable(), Ok(()));
}

#[test]
fn subscriptions_are_bounded() {
    let names = |length: usize, count: usize| -> Vec<String> {
        (0..count).map(|n| format!("{n:0length$}")).collect()
    };
    for (fits, names) in [
        (true, names(8, SUBSCRIPTIONS_MAX)),
        (false, names(8, SUBSCRIPTIONS_MAX + 1)),
        (true, names(1000, NAMES_MAX / 1000)),
        (false, names(1000, NAMES_MAX / 1000 + 1)),
    ] {
        let mut t = tracker();
        t.client_bytes(&array(&format!("SUBSCRIBE {}", names.join(" "))));
        for (n, name) in names.iter().enumerate() {
            let _ = t.master_bytes(said(&format!("*subscribe {name} {}", n + 1)).as_bytes());
        }
        let expected = (!fits).then_some(Retire::TooLong);
        assert_eq!(t.retired(), expected, "{} names", names.len());
    }
}

#[test]
fn a_refusal_is_seen_among_messages() {
    let mut t = tracker();
    t.says("HELLO 3", "%0\r\n")
        .says("SUBSCRIBE a", &said(">subscribe a 1"));
    t.client_bytes(&array("SET k v"));
    let refused = format!("{PUSHED}-READONLY no\r\n{PUSHED}");
    assert_eq!(t.master_bytes(refused.as_bytes()), Sight::NotMaster);
    assert_eq!(t.movable(), Ok(()));
}

#[test]
fn a_replay_swallows_confirmations_and_nothing_else() {
    let confirmed = all_said(&["*subscribe a 1", "*subscribe b 2"]);
    let pattern = said("*psubscribe a* 3");
    let mut t = tracker();
    t.says(
        "SUBSCRIBE b a",
        &all_said(&["*subscribe b 1", "*subscribe a 2"]),
    );
    t.says("PSUBSCRIBE a*", &pattern);
    assert_eq!(t.replayed(), "; ROLE ; SUBSCRIBE a b ; PSUBSCRIBE a*");
    let noted = NOTED.to_owned();
    let half = &NOTED[..9];
    let done = |heard: &str| (Answer::Done, heard.to_owned());
    let failed = |why| (Answer::Failed(why), String::new());
    let slave = "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
    let cases: Vec<(String, (Answer, String))> = vec![
        (format!("{ROLE}{confirmed}{pattern}"), done("")),
        (
            format!("{ROLE}{confirmed}{NOTED}{pattern}{PUSHED}"),
            done(&format!("{noted}{PUSHED}")),
        ),
        (
            format!("{ROLE}{confirmed}{pattern}{NOTED}{half}"),
            done(&format!("{noted}{half}")),
        ),
        (
            format!("{slave}{confirmed}{pattern}"),
            failed(Failure::NotMaster),
        ),
        (
            format!("{ROLE}-NOPERM no\r\n"),
            failed(Failure::Denied(Step::Subscribe(
                crate::resp::feed::Feed::Channel,
            ))),
        ),
        (format!("{ROLE}{pattern}"), failed(Failure::Unasked)),
        (format!("{ROLE}{OK}"), failed(Failure::Unasked)),
        (
            format!("{ROLE}{confirmed}"),
            (Answer::NotYet, String::new()),
        ),
    ];
    for (bytes, expected) in cases {
        for size in [1, 7, bytes.len()] {
            let replay = Replay::new(t.journal(), None).expect("there is something");
            let mut check = replay.check();
            let mut last = Answer::NotYet;
            for piece in bytes.as_bytes().chunks(size) {
                last = check.take(piece);
            }
            let heard = String::from_utf8(check.into_heard()).expect("text");
            assert_eq!((last, heard), expected, "{bytes} by {size}");
        }
    }
    // RESP3: the same with pushes.
    let mut t = tracker();
    t.says("HELLO 3", "%0\r\n")
        .says("SUBSCRIBE a", &said(">subscribe a 1"));
    let replay = Replay::new(t.journal(), None).expect("there is something");
    let mut check = replay.check();
    let bytes = format!("%0\r\n{ROLE}{}{PUSHED}", said(">subscribe a 1"));
    assert_eq!(check.take(bytes.as_bytes()), Answer::Done);
    assert_eq!(check.into_heard(), PUSHED.as_bytes());
}

#[test]
fn no_debug_shows_a_channel() {
    let mut t = tracker();
    t.says("SUBSCRIBE s3cret", &said("*subscribe s3cret 1"));
    let _ = t.master_bytes(b"*3\r\n$7\r\nmessage\r\n$6\r\ns3cret\r\n");
    let replay = Replay::new(&t.journal, None).expect("there is something");
    let mut check = replay.check();
    let _ = check.take(format!("{ROLE}{}", &said("*subscribe s3cret 1")[..30]).as_bytes());
    let shown = format!("{t:?} {replay:?} {check:?}");
    for secret in ["s3c", "115, 51"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
