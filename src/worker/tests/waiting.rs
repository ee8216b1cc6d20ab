//! Clients that come while there is no master to serve them.

use super::busy::{Busy, deaf, slow_to_connect};
use super::*;

fn waiting(rig: &Rig) -> u64 {
    rig.counters().sessions.waiting
}

#[test]
fn a_client_without_a_master_is_served_when_there_is_one() {
    let upstream = upstream();
    let mut rig = Rig::new(LONG);
    let mut client = rig.connect();
    client.write_all(b"early").expect("write");
    wait_until("waiting", || waiting(&rig) == 1);
    rig.serve(1, &upstream);
    let mut master = accept(&upstream);
    assert_eq!(read(&mut master, 5), b"early");
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn a_client_that_comes_during_a_hold_is_served_after_it() {
    let upstream = upstream();
    let mut rig = Rig::serving(&upstream);
    rig.wait_acknowledged(1);
    rig.hold();
    let mut client = rig.connect();
    client.write_all(b"early").expect("write");
    wait_until("waiting", || waiting(&rig) == 1);
    rig.release();
    assert_eq!(read(&mut accept(&upstream), 5), b"early");
}

#[test]
fn waiting_ends_at_hold_max() {
    let rig = Rig::new(Duration::from_millis(200));
    let begin = now();
    let mut client = rig.connect();
    client.write_all(b"unheard").expect("write");
    assert_eq!(read_to_end(&mut client), b"");
    assert!(now().since(begin) >= Duration::from_millis(190));
    drop(client);
    rig.wait_closed(CloseReason::NoMaster, 1);
}

#[test]
fn with_hold_max_zero_nobody_waits() {
    let rig = Rig::new(Duration::ZERO);
    let mut client = rig.connect();
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    rig.wait_closed(CloseReason::NoMaster, 1);
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let rig = Rig::new(LONG);
    let silent = rig.connect();
    let mut talker = rig.connect();
    talker.write_all(b"unheard").expect("write");
    wait_until("waiting", || waiting(&rig) == 2);
    drop(silent);
    wait_until("one left", || waiting(&rig) == 1);
    drop(talker);
    rig.wait_closed(CloseReason::ClientLeftWaiting, 2);
    assert_eq!(waiting(&rig), 0);
}

#[test]
fn the_bytes_of_a_client_that_left_are_never_sent() {
    let upstream = upstream();
    let mut rig = Rig::new(LONG);
    let mut client = rig.connect();
    client.write_all(b"doomed").expect("write");
    wait_until("waiting", || waiting(&rig) == 1);
    client.shutdown(Shutdown::Write).expect("shutdown");
    rig.serve(1, &upstream);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
    assert_eq!(rig.counters().sessions.bytes_up, 0);
}

#[test]
fn no_more_than_max_held_wait() {
    let session = session::Config {
        max_held: 1,
        ..session::Config::default()
    };
    let options = Options {
        session,
        ..Options::default()
    };
    let rig = Rig::with(LONG, options);
    let mut first = rig.connect();
    wait_until("waiting", || waiting(&rig) == 1);
    let mut second = rig.connect();
    assert_eq!(read_to_end(&mut second), b"");
    drop(second);
    rig.wait_closed(CloseReason::TooManyWaiting, 1);
    assert_silent(&mut first);
    assert_eq!(waiting(&rig), 1);
}

#[test]
fn a_master_that_refuses_is_tried_until_hold_max() {
    let gone = deaf();
    let mut rig = Rig::new(Duration::from_millis(300));
    rig.serve(1, &gone);
    let mut client = rig.connect();
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    rig.wait_closed(CloseReason::DialFailed, 1);
    let failures = rig.counters().sessions.dial_failures();
    assert!((2..=7).contains(&failures), "{failures} dials in 300 ms");
    in_time(rig.publisher.doubted());
}

#[test]
fn a_client_between_two_dials_goes_to_the_successor() {
    let gone = deaf();
    let successor = upstream();
    let mut rig = Rig::new(LONG);
    rig.serve(1, &gone);
    let mut client = rig.connect();
    client.write_all(b"patient").expect("write");
    wait_until("tried", || rig.counters().sessions.dial_failures() > 0);
    rig.serve(2, &successor);
    rig.wait_acknowledged(2);
    assert_eq!(read(&mut accept(&successor), 7), b"patient");
}

#[test]
fn a_client_that_left_during_a_later_dial_is_not_served() {
    let gone = deaf();
    let mut rig = Rig::with(LONG, slow_to_connect());
    rig.serve(1, &gone);
    let mut client = rig.connect();
    client.write_all(b"doomed").expect("write");
    wait_until("tried", || rig.counters().sessions.dial_failures() > 0);
    let busy = Busy::new();
    rig.serve_at(2, busy.addr());
    wait_until("dialling", || busy.dials() == 1);
    drop(client);
    let mut master = busy.make_room();
    assert_eq!(read_to_end(&mut master), b"", "not a byte of it");
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
    assert_eq!(rig.counters().sessions.bytes_up, 0);
}

#[test]
fn a_client_that_left_during_the_dial_after_a_hold_is_not_served() {
    let busy = Busy::new();
    let mut rig = Rig::with(LONG, slow_to_connect());
    let mut client = rig.connect();
    client.write_all(b"doomed").expect("write");
    wait_until("waiting", || waiting(&rig) == 1);
    rig.serve_at(1, busy.addr());
    wait_until("dialling", || busy.dials() == 1);
    drop(client);
    assert_eq!(read_to_end(&mut busy.make_room()), b"");
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
}

#[test]
fn a_client_that_ends_its_request_during_its_first_dial_is_served() {
    let busy = Busy::new();
    let mut rig = Rig::with(LONG, slow_to_connect());
    rig.serve_at(1, busy.addr());
    rig.wait_acknowledged(1);
    let mut client = rig.connect();
    client.write_all(b"ping").expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    wait_until("dialling", || busy.dials() == 1);
    let mut master = busy.make_room();
    assert_eq!(read_to_end(&mut master), b"ping");
    master.write_all(b"pong").expect("write");
    drop(master);
    assert_eq!(read_to_end(&mut client), b"pong");
}
