//! `on_switch = "move"` byte by byte: what a new master hears, what an old one must not, and who may have an upstream next.

use super::words::*;
use super::*;

/// A client whose request its master has, and has not answered.
fn asking(rig: &Rig, upstream: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = rig.connect();
    let mut master = accept(upstream);
    client.write_all(PING).expect("write");
    assert_eq!(read(&mut master, PING.len()), PING);
    (client, master)
}

fn is_not_dialled(upstream: &TcpListener) {
    upstream.set_nonblocking(true).expect("nonblocking");
    std::thread::sleep(WATCH);
    assert!(upstream.accept().is_err(), "dialled for nobody");
}

fn ends(stream: &mut TcpStream) {
    // A reset is an end as well.
    let mut rest = Vec::new();
    if stream.read_to_end(&mut rest).is_ok() {
        assert_eq!(rest, b"");
    }
}

#[test]
fn an_idle_session_is_moved_when_its_client_speaks_and_its_database_with_it() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let mut client = rig.connect();
    let mut old = accept(&first);
    exchange(&mut client, &mut old, SELECT, OK);
    rig.serve(2, &second);
    rig.wait_acknowledged(2);
    ends(&mut old);
    is_not_dialled(&second);

    client.write_all(PING).expect("write");
    let mut new = accept(&second);
    let replay = [SELECT, ROLE].concat();
    assert_eq!(read(&mut new, replay.len()), replay);
    // Not a byte of the client's before the replay is answered.
    assert_silent(&mut new);
    new.write_all(&[OK, MASTER].concat()).expect("write");
    assert_eq!(read(&mut new, PING.len()), PING);
    new.write_all(PONG).expect("write");
    assert_eq!(read(&mut client, PONG.len()), PONG);
    assert_eq!(rig.counters().sessions.moved, 1);
    assert_eq!(rig.counters().sessions.active(), 1);
}

#[test]
fn an_unanswered_request_ends_with_its_master() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let (mut client, _old) = asking(&rig, &first);
    rig.serve(2, &second);
    assert_eq!(read_to_end(&mut client), b"");
    rig.wait_closed(CloseReason::Switched, 1);
    is_not_dialled(&second);
}

#[test]
fn a_node_that_is_no_master_any_more_gets_no_byte_of_the_client() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let mut client = rig.connect();
    let mut old = accept(&first);
    exchange(&mut client, &mut old, SELECT, OK);
    rig.serve(2, &second);
    client.write_all(PING).expect("write");
    let mut new = accept(&second);
    let replay = [SELECT, ROLE].concat();
    assert_eq!(read(&mut new, replay.len()), replay);
    new.write_all(b"+OK\r\n*5\r\n$5\r\nslave\r\n$1\r\na\r\n:1\r\n$9\r\nconnected\r\n:0\r\n")
        .expect("write");
    ends(&mut new);
    // It is tried again, and served once it is one.
    let mut again = accept(&second);
    assert_eq!(read(&mut again, replay.len()), replay);
    again.write_all(&[OK, MASTER].concat()).expect("write");
    assert_eq!(read(&mut again, PING.len()), PING);
    assert_eq!(rig.counters().sessions.replay_failures, 1);
}

#[test]
fn half_a_request_whose_rest_is_here_is_finished_while_a_switch_is_only_announced() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let mut client = rig.connect();
    let mut old = accept(&first);
    let (head, tail) = PING.split_at(6);
    client.write_all(head).expect("write");
    assert_eq!(read(&mut old, head.len()), head);
    // The rest, and another request, are read while nothing may be written.
    rig.publisher.extend(now() - Duration::from_nanos(1));
    client.write_all(&[tail, PING].concat()).expect("write");
    assert_silent(&mut old);
    rig.announce();
    rig.publisher.extend(now() + LONG);
    assert_eq!(read(&mut old, tail.len()), tail);
    assert_silent(&mut old);
    old.write_all(PONG).expect("write");
    let soon = Some(Duration::from_millis(10));
    client.set_read_timeout(soon).expect("timeout");
    wait_until("proof", || {
        rig.publisher.prove(now());
        client.peek(&mut [0; 8]).is_ok_and(|n| n == PONG.len())
    });
    client.set_read_timeout(Some(PATIENCE)).expect("timeout");
    assert_eq!(read(&mut client, PONG.len()), PONG);
    rig.serve(2, &second);
    let mut new = accept(&second);
    assert_eq!(read(&mut new, PING.len()), PING, "never seen by the old");
    new.write_all(PONG).expect("write");
    assert_eq!(read(&mut client, PONG.len()), PONG);
    assert_eq!(rig.counters().sessions.active(), 1);
}

#[test]
fn a_client_that_gave_up_while_held_is_not_moved() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let mut client = rig.connect();
    let mut old = accept(&first);
    exchange(&mut client, &mut old, PING, PONG);
    rig.hold();
    drop(old);
    client.write_all(PING).expect("write");
    wait_until("the client to wait", || {
        rig.counters().sessions.waiting == 1
    });
    drop(client);
    rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
    rig.serve(2, &second);
    is_not_dialled(&second);
}

#[test]
fn a_client_that_gave_up_while_its_request_was_withheld_is_not_moved() {
    let (first, second) = (upstream(), upstream());
    for read_before in [false, true] {
        let mut rig = moving(&first);
        let mut client = rig.connect();
        let mut old = accept(&first);
        exchange(&mut client, &mut old, PING, PONG);
        if read_before {
            // Without a ring of the bell: it is read, and then the fence is asked.
            rig.publisher.extend(now() - Duration::from_nanos(1));
        } else {
            rig.hold();
        }
        assert_silent(&mut old);
        client.write_all(PING).expect("write");
        assert_silent(&mut old);
        drop(client);
        rig.serve(2, &second);
        rig.publisher.extend(now() + LONG);
        rig.wait_closed(CloseReason::ClientLeftWaiting, 1);
        is_not_dialled(&second);
        ends(&mut old);
    }
}

#[test]
fn an_upstream_that_was_left_as_it_was_found_serves_the_next_client() {
    let master = upstream();
    let rig = moving(&master);
    let mut first = rig.connect();
    let mut only = accept(&master);
    exchange(&mut first, &mut only, PING, PONG);
    drop(first);
    rig.wait_closed(CloseReason::ClientClosed, 1);
    let mut second = rig.connect();
    exchange(&mut second, &mut only, PING, PONG);
    is_not_dialled(&master);
    // This one leaves something behind.
    exchange(&mut second, &mut only, SELECT, OK);
    drop(second);
    ends(&mut only);
    let mut third = rig.connect();
    let mut new = accept(&master);
    exchange(&mut third, &mut new, PING, PONG);
}

#[test]
fn an_upstream_whose_client_began_a_transaction_by_another_name_is_nobodys() {
    // Redis and Valkey compare names up to a NUL, where the hash of the whole happens to lead to it.
    const BEGIN: &[u8] = b"*1\r\n$8\r\nMULTI\x0065\r\n";
    let master = upstream();
    let rig = moving(&master);
    let mut first = rig.connect();
    let mut begun = accept(&master);
    exchange(&mut first, &mut begun, BEGIN, OK);
    drop(first);
    ends(&mut begun);
    let mut next = rig.connect();
    let mut new = accept(&master);
    exchange(&mut next, &mut new, PING, PONG);
}

#[test]
fn a_spare_upstream_is_dropped_when_nobody_wants_it_and_at_a_switch() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    for swap in [false, true] {
        let mut client = rig.connect();
        let mut master = accept(&first);
        exchange(&mut client, &mut master, PING, PONG);
        drop(client);
        if swap {
            rig.serve(2, &second);
            rig.wait_acknowledged(2);
        }
        ends(&mut master);
    }
    let mut client = rig.connect();
    let mut master = accept(&second);
    exchange(&mut client, &mut master, PING, PONG);
}

#[test]
fn a_spare_upstream_that_its_master_closed_is_nobodys() {
    let master = upstream();
    let rig = moving(&master);
    let mut client = rig.connect();
    let mut closing = accept(&master);
    exchange(&mut client, &mut closing, PING, PONG);
    drop(client);
    rig.wait_closed(CloseReason::ClientClosed, 1);
    drop(closing);
    let mut client = rig.connect();
    let mut new = accept(&master);
    exchange(&mut client, &mut new, PING, PONG);
}

#[test]
fn one_that_closes_with_a_reply_on_its_way_leaves_no_spare() {
    let master = upstream();
    let rig = moving(&master);
    let mut client = rig.connect();
    let mut first = accept(&master);
    client.write_all(PING).expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(read(&mut first, PING.len()), PING);
    assert_eq!(read_to_end(&mut first), b"", "its end is passed on");
    first.write_all(PONG).expect("write");
    drop(first);
    assert_eq!(read_to_end(&mut client), PONG);
    let mut next = rig.connect();
    let mut second = accept(&master);
    exchange(&mut next, &mut second, PING, PONG);
}

#[test]
fn a_reply_read_while_a_promotion_is_announced_waits_for_proof_that_it_came_before() {
    let (first, second) = (upstream(), upstream());
    let mut rig = moving(&first);
    let (mut told, mut one) = asking(&rig, &first);
    let (mut untold, mut other) = asking(&rig, &first);
    rig.announce();
    one.write_all(PONG).expect("write");
    assert_silent(&mut told);
    // The successor was asked after that and still was a replica.
    rig.publisher.prove(now());
    assert_eq!(read(&mut told, PONG.len()), PONG);
    // Of this one nobody can say so any more.
    other.write_all(PONG).expect("write");
    assert_silent(&mut untold);
    rig.serve(2, &second);
    assert_eq!(read_to_end(&mut untold), b"", "and not a reply");
    rig.wait_closed(CloseReason::Switched, 1);
    let mut new = {
        told.write_all(PING).expect("write");
        accept(&second)
    };
    assert_eq!(read(&mut new, PING.len()), PING);
}

#[test]
fn a_reply_read_while_a_promotion_is_announced_is_handed_over_when_it_comes_to_nothing() {
    let first = upstream();
    let mut rig = moving(&first);
    let (mut client, mut master) = asking(&rig, &first);
    rig.announce();
    master.write_all(PONG).expect("write");
    assert_silent(&mut client);
    rig.release();
    assert_eq!(read(&mut client, PONG.len()), PONG);
    exchange(&mut client, &mut master, PING, PONG);
}

#[test]
fn the_middle_of_a_reply_needs_no_proof() {
    let first = upstream();
    let mut rig = moving(&first);
    let (mut client, mut master) = asking(&rig, &first);
    rig.announce();
    master.write_all(b"$10\r\nhello").expect("write");
    assert_eq!(read(&mut client, 10), b"$10\r\nhello");
    master.write_all(b"world\r\n").expect("write");
    assert_silent(&mut client);
    rig.publisher.prove(now());
    assert_eq!(read(&mut client, 7), b"world\r\n");
}

#[test]
fn a_reply_waits_on_when_the_process_stood_still_during_an_announcement() {
    for swap in [false, true] {
        let (first, second) = (upstream(), upstream());
        let mut rig = moving(&first);
        let (mut before, mut one) = asking(&rig, &first);
        let (mut after, mut other) = asking(&rig, &first);
        rig.announce();
        one.write_all(PONG).expect("write");
        assert_silent(&mut before);
        // While nobody looked, the successor may have become the master.
        rig.hold_for(HoldCause::Resumed);
        other.write_all(PONG).expect("write");
        assert_silent(&mut before);
        assert_silent(&mut after);
        if swap {
            rig.serve(2, &second);
            rig.wait_closed(CloseReason::Switched, 2);
            assert_eq!(read_to_end(&mut before), b"");
            assert_eq!(read_to_end(&mut after), b"");
        } else {
            rig.release();
            assert_eq!(read(&mut before, PONG.len()), PONG);
            assert_eq!(read(&mut after, PONG.len()), PONG);
        }
    }
}
