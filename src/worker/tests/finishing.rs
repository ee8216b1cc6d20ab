//! What is finished at a master that is about to be left, and what is not.

use super::words::*;
use super::*;

const WATCH_K: &[u8] = b"*2\r\n$5\r\nWATCH\r\n$1\r\nk\r\n";
const INCR: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n";
const EXECUTED: &[u8] = b"*1\r\n:1\r\n";

/// A session that has said this so far, and was answered OK.
fn having_said(master: &TcpListener, said: &[&[u8]]) -> (Rig, TcpStream, TcpStream) {
    let rig = moving(master);
    let mut client = rig.connect();
    let mut old = accept(master);
    for words in said {
        exchange(&mut client, &mut old, words, OK);
    }
    (rig, client, old)
}

/// It ends, in whatever way, and nothing more is heard.
fn ends_unheard(old: &mut TcpStream) {
    match old.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0),
        Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn a_transaction_is_finished_when_a_switch_is_announced_and_nothing_behind_it_is_begun() {
    let (first, second) = (upstream(), upstream());
    let (mut rig, mut client, mut old) = having_said(&first, &[WATCH_K]);
    says(&mut client, &mut old, MULTI);
    // As if it had been this very moment, however long this test takes.
    rig.hold_since(HoldCause::Announced, now() + LONG);
    // What is queued is acknowledged to nobody: no proof is waited for.
    says(&mut old, &mut client, OK);
    // A request in two parts.
    let (head, tail) = INCR.split_at(7);
    client.write_all(head).expect("write");
    assert_silent(&mut old);
    client.write_all(tail).expect("write");
    assert_eq!(read(&mut old, INCR.len()), INCR);
    says(&mut old, &mut client, QUEUED);
    client.write_all(&[EXEC, PING].concat()).expect("write");
    assert_eq!(read(&mut old, EXEC.len()), EXEC);
    old.write_all(EXECUTED).expect("write");
    assert_silent(&mut client);
    rig.publisher.prove(now());
    assert_eq!(read(&mut client, EXECUTED.len()), EXECUTED);
    assert_silent(&mut old);
    rig.serve(2, &second);
    let mut new = accept(&second);
    assert_eq!(read(&mut new, PING.len()), PING);
    says(&mut new, &mut client, PONG);
    assert_eq!(rig.counters().sessions.active(), 1);
}

/// It executes what comes behind such a MULTI, and says so.
#[test]
fn what_comes_behind_a_multi_that_is_refused_is_proven_as_any_reply() {
    const REFUSED: &[u8] = b"-NOPERM this user has no permissions to run the 'multi' command\r\n";
    const DONE: &[u8] = b":1\r\n";
    for (said, replies) in [
        (&[MULTI, INCR][..], &[&[REFUSED, DONE].concat()[..]][..]),
        (&[MULTI, INCR], &[REFUSED, DONE]),
        (&[MULTI, INCR, MULTI], &[&[REFUSED, DONE, OK].concat()]),
    ] {
        let first = upstream();
        let (mut rig, mut client, mut old) = having_said(&first, &[]);
        says(&mut client, &mut old, &said.concat());
        rig.hold_since(HoldCause::Announced, now() + LONG);
        for reply in replies {
            old.write_all(reply).expect("write");
            assert_silent(&mut client);
        }
        rig.publisher.prove(now());
        let all = replies.concat();
        assert_eq!(read(&mut client, all.len()), all);
    }
}

#[test]
fn what_is_read_behind_watch_is_proven_as_any_reply() {
    let first = upstream();
    let (mut rig, mut client, mut old) = having_said(&first, &[WATCH_K]);
    rig.hold_since(HoldCause::Announced, now() + LONG);
    says(&mut client, &mut old, PING);
    old.write_all(PONG).expect("write");
    assert_silent(&mut client);
    rig.publisher.prove(now());
    assert_eq!(read(&mut client, PONG.len()), PONG);
    says(&mut client, &mut old, MULTI);
    says(&mut old, &mut client, OK);
}

#[test]
fn a_transaction_whose_client_takes_its_time_is_cut_and_never_executed() {
    let (first, second) = (upstream(), upstream());
    let (mut rig, mut client, mut old) = having_said(&first, &[MULTI]);
    rig.hold_since(HoldCause::Announced, now() - Duration::from_secs(1));
    client.write_all(&[INCR, EXEC].concat()).expect("write");
    assert_silent(&mut old);
    rig.serve(2, &second);
    ends_unheard(&mut old);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::Switched, 1);
}

#[test]
fn a_client_that_leaves_within_its_transaction_is_let_go() {
    let (first, second) = (upstream(), upstream());
    let (mut rig, client, mut old) = having_said(&first, &[MULTI]);
    rig.hold_since(HoldCause::Announced, now() + LONG);
    drop(client);
    assert_silent(&mut old);
    rig.serve(2, &second);
    ends_unheard(&mut old);
    wait_until("gone", || rig.counters().sessions.active() == 0);
}
