//! More clients at once than are dialled for at once.

use super::busy::{Busy, deaf, slow_to_connect};
use super::*;
use crate::session::DIALS_AT_ONCE;

/// So many clients of a master that accepts nothing: as many dials as there may be, the others in line.
fn crowd(clients: usize, workers: usize) -> (Rig, Busy, Vec<TcpStream>) {
    let busy = Busy::new();
    let options = Options {
        workers: Some(workers),
        ..slow_to_connect()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve_at(1, busy.addr());
    rig.wait_acknowledged(1);
    let clients = (0..clients).map(|_| rig.connect()).collect();
    wait_until("as many dials as there may be", || {
        busy.dials() == DIALS_AT_ONCE
    });
    (rig, busy, clients)
}

#[test]
fn no_more_than_so_many_dials_at_once_and_a_swap_ends_the_line() {
    const CLIENTS: usize = DIALS_AT_ONCE + 40;
    let (mut rig, busy, mut clients) = crowd(CLIENTS, 2);
    wait_until("all in", || {
        rig.counters().sessions.opened == CLIENTS as u64
    });
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        let dials = busy.dials();
        assert!(dials <= DIALS_AT_ONCE, "{dials}");
    }
    let successor = upstream();
    rig.serve(2, &successor);
    rig.wait_acknowledged(2);
    for client in &mut clients {
        client.write_all(b"x").expect("write");
    }
    for _ in 0..CLIENTS {
        assert_eq!(read(&mut accept(&successor), 1), b"x");
    }
    assert_eq!(rig.counters().sessions.dial_failures(), 0);
}

#[test]
fn a_hold_ends_the_line() {
    const CLIENTS: usize = DIALS_AT_ONCE + 1;
    let (mut rig, busy, _clients) = crowd(CLIENTS, 1);
    rig.hold();
    wait_until("all wait", || {
        rig.counters().sessions.waiting == CLIENTS as u64
    });
    assert_eq!(busy.dials(), 0);
}

#[test]
fn a_client_that_leaves_the_line_is_noticed() {
    let (rig, _busy, _dialling) = crowd(DIALS_AT_ONCE, 1);
    let mut in_line = rig.connect();
    in_line.write_all(b"doomed").expect("write");
    drop(in_line);
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
}

#[test]
fn who_dials_makes_room_for_the_next_in_line() {
    let gone = deaf();
    let options = Options {
        workers: Some(2),
        ..Options::default()
    };
    let mut rig = Rig::with(Duration::from_secs(1), options);
    rig.serve(1, &gone);
    const CLIENTS: usize = DIALS_AT_ONCE * 3;
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| rig.connect()).collect();
    for client in &mut clients {
        assert_eq!(read_to_end(client), b"");
    }
    assert!(rig.counters().sessions.dial_failures() >= CLIENTS as u64);
}
