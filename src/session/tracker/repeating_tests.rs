//! Reads that may be sent again (`resend_reads`).

use super::tests::{OK, RULES, array};
use super::*;

fn tracker() -> Tracker {
    Tracker::new(Rules {
        resend_reads: true,
        ..RULES
    })
}

#[test]
fn the_list_is_in_order() {
    assert!(READS.is_sorted());
    assert!(
        READS
            .iter()
            .all(|name| Command::named(name.as_bytes()).is_none())
    );
}

#[test]
fn one_whole_read_alone_in_flight_may_be_sent_again() {
    let long = format!("GET {}", "x".repeat(1100));
    let cases: &[(bool, &[&str])] = &[
        (true, &["GET k"]),
        (true, &["zrevrangebyscore z 1 0"]),
        (false, &["SET k v"]),
        (false, &["GETDEL k"]),
        (false, &["EVAL_RO x 0"]),
        (false, &["SCAN 0"]),
        (false, &["RANDOMKEY"]),
        (false, &["XREAD BLOCK 0 STREAMS s 0"]),
        (false, &["GET a", "GET b"]),
        (false, &["SET a b", "GET b"]),
        (false, &["SELECT 1"]),
        (false, &[&long]),
    ];
    for (expected, commands) in cases {
        // Written each by itself, and together.
        let mut t = tracker();
        for command in *commands {
            t.client_bytes(&array(command));
        }
        assert_eq!(t.is_repeatable(), *expected, "{commands:?}");
        let mut t = tracker();
        let together: Vec<u8> = commands.iter().flat_map(|c| array(c)).collect();
        t.client_bytes(&together);
        // An attempt at a write that takes nothing changes nothing.
        t.client_bytes(b"");
        assert_eq!(t.is_repeatable(), *expected, "{commands:?}");
        assert!(t.movable().is_err());
        // Of a tracker that is not to.
        let mut t = Tracker::new(RULES);
        t.client_bytes(&together);
        assert!(!t.is_repeatable());
    }
    // In two pieces, inline, or behind what has nothing to do with it.
    let get = array("GET k");
    let mut t = tracker();
    t.client_bytes(&get[..5]);
    t.client_bytes(&get[5..]);
    assert!(!t.is_repeatable());
    t = tracker();
    t.client_bytes(b"GET k\r\n");
    assert!(!t.is_repeatable());
    t = tracker();
    t.client_bytes(b"\r\n");
    t.client_bytes(&get);
    assert!(t.is_repeatable());
}

#[test]
fn nothing_of_its_reply_was_heard_and_nothing_else_stands_against_it() {
    let get = array("GET k");
    let repeatable_behind = |dialogue: &[(&str, &str)]| {
        let mut t = tracker();
        for (command, reply) in dialogue {
            t.says(command, reply);
        }
        t.client_bytes(&get);
        t.is_repeatable()
    };
    assert!(repeatable_behind(&[("SELECT 1", OK), ("SET a b", OK)]));
    assert!(repeatable_behind(&[("MULTI", OK), ("DISCARD", OK)]));
    assert!(!repeatable_behind(&[("MULTI", OK)]));
    assert!(!repeatable_behind(&[("WATCH k", OK)]));
    assert!(!repeatable_behind(&[("CLIENT ID", ":1\r\n")]));
    assert!(!repeatable_behind(&[("CLIENT TRACKING ON", OK)]));
    assert!(!repeatable_behind(&[("CLIENT REPLY OFF", "")]));
    assert!(!repeatable_behind(&[("QUIT", OK)]));
    let mut t = tracker();
    t.client_bytes(&get);
    let _ = t.master_bytes(b"$5\r\nva");
    assert!(!t.is_repeatable(), "half of it was heard");
    let _ = t.master_bytes(b"lue\r\n");
    assert!(!t.is_repeatable(), "it is answered");
    assert_eq!(t.movable(), Ok(()));
}

#[test]
fn it_is_sent_again_once() {
    let get = array("GET k");
    let mut t = tracker();
    t.client_bytes(&get);
    assert_eq!(t.take_back(), get);
    assert_eq!((t.movable(), t.is_repeating()), (Ok(()), true));
    assert!(!t.is_repeatable(), "nothing is in flight");
    t.moved();
    t.client_bytes(&get);
    assert!(!t.is_repeating());
    assert!(!t.is_repeatable(), "it was sent again");
    let _ = t.master_bytes(b"$-1\r\n");
    t.client_bytes(&get);
    assert!(t.is_repeatable(), "another one");
}

#[test]
fn no_debug_shows_a_read() {
    let mut t = tracker();
    t.client_bytes(&array("GET s3cret"));
    assert!(t.is_repeatable());
    let shown = format!("{t:?}");
    for secret in ["s3c", "115, 51"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
