//! Sessions that let go, and are served again: by this pool as by another one, as it is the same for both.

use super::words::*;
use super::*;
use crate::session::luggage::Packet;
use crate::topology::publish;

fn rig(upstream: &TcpListener, moves: bool) -> Rig {
    let options = Options {
        moves,
        workers: Some(2),
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, upstream);
    rig
}

fn hands(rig: &Rig) -> Reins {
    rig.pool.as_ref().expect("running").reins()
}

fn asked(client: &mut TcpStream, master: &mut TcpStream, request: &[u8]) {
    client.write_all(request).expect("write");
    assert_eq!(read(master, request.len()), request);
}

fn answered(master: &mut TcpStream, client: &mut TcpStream, reply: &[u8]) {
    master.write_all(reply).expect("write");
    assert_eq!(read(client, reply.len()), reply);
}

/// A client and its upstream, on which one request was answered.
fn joined(rig: &Rig, upstream: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = rig.connect();
    let mut master = accept(upstream);
    asked(&mut client, &mut master, PING);
    answered(&mut master, &mut client, PONG);
    (client, master)
}

/// Everybody who lets go in one round.
fn round(hands: &Reins) -> Vec<Packet> {
    in_time(async {
        let (mut round, mut all) = (Round::default(), Vec::new());
        while let Some((entry, packets)) = hands.let_go(&mut round, &[0]).await {
            assert_eq!(entry, 0);
            all.extend(packets);
        }
        all
    })
}

/// The same, until so many have.
fn let_go(hands: &Reins, count: usize) -> Vec<Packet> {
    let mut all = Vec::new();
    wait_until("sessions to let go", || {
        all.extend(round(hands));
        all.len() >= count
    });
    assert_eq!(all.len(), count);
    all
}

fn seat(hands: &Reins, packets: Vec<Packet>) {
    assert!(in_time(hands.seat(0, packets)));
}

#[test]
fn nobody_serves_who_has_let_go_and_who_is_seated_goes_on_where_it_was() {
    for moves in [true, false] {
        let upstream = upstream();
        let rig = rig(&upstream, moves);
        let hands = hands(&rig);
        let (mut idle, mut idles) = joined(&rig, &upstream);
        let (mut asking, mut askeds) = joined(&rig, &upstream);
        asked(&mut asking, &mut askeds, PING);
        let (mut transacting, mut transacteds) = joined(&rig, &upstream);
        asked(&mut transacting, &mut transacteds, MULTI);
        answered(&mut transacteds, &mut transacting, OK);

        let packets = let_go(&hands, 3);
        assert_eq!(rig.closed_by(CloseReason::HandedOver), 3);
        assert_eq!(hands.sessions(0), 0);
        askeds.write_all(PONG).expect("write");
        assert_silent(&mut asking);
        idle.write_all(PING).expect("write");
        assert_silent(&mut idles);

        seat(&hands, packets);
        assert_eq!(read(&mut asking, PONG.len()), PONG);
        assert_eq!(read(&mut idles, PING.len()), PING);
        answered(&mut idles, &mut idle, PONG);
        asked(&mut transacting, &mut transacteds, PING);
        answered(&mut transacteds, &mut transacting, QUEUED);
        assert_eq!(hands.sessions(0), 3);
        assert_eq!(rig.counters().sessions.adopted, 3);
        // It can be done again.
        drop(let_go(&hands, 3));
        assert_eq!(read_to_end(&mut idle), b"");
    }
}

/// Who leads to a master that was left meanwhile is given up or cut, as by any switch, and nobody says before that that it has been left.
#[test]
fn a_master_that_changed_meanwhile_is_not_written_to() {
    // One that comes back at the same address is another master, too.
    for returns in [false, true] {
        changes_meanwhile(returns);
    }
}

fn changes_meanwhile(returns: bool) {
    let (old, other) = (upstream(), upstream());
    let new = if returns { &old } else { &other };
    let mut rig = rig(&old, true);
    let hands = hands(&rig);
    let (mut idle, mut idles) = joined(&rig, &old);
    let (mut asking, mut askeds) = joined(&rig, &old);
    asked(&mut asking, &mut askeds, PING);
    let packets = let_go(&hands, 2);
    rig.serve(2, &other);
    if returns {
        rig.serve(3, &old);
    }
    let generation = if returns { 3 } else { 2 };
    idle.write_all(PING).expect("write");
    std::thread::sleep(WATCH);
    let acknowledged = rig.publisher.is_acknowledged(Generation(generation));
    assert!(!acknowledged, "with upstreams of an older one on their way");
    seat(&hands, packets);
    rig.wait_acknowledged(generation);
    let mut master = accept(new);
    // The replay of nothing but the question who it is, perhaps; then the request.
    let mut heard = Vec::new();
    while !heard.ends_with(PING) {
        heard.extend(read(&mut master, 1));
        if heard.ends_with(b"ROLE\r\n") {
            master
                .write_all(b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")
                .expect("write");
        }
    }
    answered(&mut master, &mut idle, PONG);
    for stream in [&mut idles, &mut askeds] {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"", "a byte to the master that was left");
    }
    assert_eq!(read_to_end(&mut asking), b"");
    rig.wait_closed(CloseReason::Switched, 1);
}

/// Clients that come meanwhile do not get their descriptors.
#[test]
fn there_is_room_for_sessions_that_are_expected() {
    let upstream = upstream();
    let options = Options {
        workers: Some(2),
        sessions_max: Some(2),
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &upstream);
    let hands = hands(&rig);
    let mut one = joined(&rig, &upstream);
    let packets = let_go(&hands, 1);
    hands.expect(1);
    let _two = joined(&rig, &upstream);
    assert_eq!(read_to_end(&mut rig.connect()), b"", "a place that is kept");
    seat(&hands, packets);
    asked(&mut one.0, &mut one.1, PING);
    drop(one);
    rig.wait_closed(CloseReason::ClientClosed, 1);
    // Nobody else is expected.
    let _three = joined(&rig, &upstream);
}

/// Nobody serves it any more, so that nothing is waited for.
#[test]
fn what_is_forgotten_holds_up_no_switch() {
    let (old, new) = (upstream(), upstream());
    let mut rig = rig(&old, true);
    let hands = hands(&rig);
    let _joined = joined(&rig, &old);
    let packets = let_go(&hands, 1);
    rig.serve(2, &new);
    drop(packets);
    rig.wait_acknowledged(2);
}

#[test]
fn an_upstream_that_is_to_be_given_up_is_not_handed_on() {
    let upstream = upstream();
    let mut rig = rig(&upstream, true);
    let hands = hands(&rig);
    let (mut client, mut master) = joined(&rig, &upstream);
    asked(&mut client, &mut master, MULTI);
    answered(&mut master, &mut client, OK);
    let edition = rig.publisher.renew();
    let old = |open| Some(publish::Upstreams { open, old: open });
    wait_until("it to be old", || {
        rig.publisher.upstreams(edition) == old(1)
    });
    assert_eq!(round(&hands).len(), 0);
    assert_eq!(rig.publisher.upstreams(edition), old(1));
    // What was let go of before comes back as old as it has become.
    let other = joined(&rig, &upstream);
    let packets = let_go(&hands, 1);
    let edition = rig.publisher.renew();
    wait_until("both to be old", || {
        rig.publisher.upstreams(edition) == old(2)
    });
    seat(&hands, packets);
    wait_until("one to be given up", || {
        rig.publisher.upstreams(edition) == old(1)
    });
    drop(other);
}

#[test]
fn who_is_in_the_middle_of_something_or_held_stays() {
    let upstream = upstream();
    let mut rig = rig(&upstream, true);
    let hands = hands(&rig);
    let (mut client, mut master) = joined(&rig, &upstream);
    let (head, tail) = PING.split_at(9);
    asked(&mut client, &mut master, head);
    assert_eq!(round(&hands).len(), 0);
    asked(&mut client, &mut master, tail);
    let (head, tail) = PONG.split_at(3);
    answered(&mut master, &mut client, head);
    assert_eq!(round(&hands).len(), 0);
    answered(&mut master, &mut client, tail);
    rig.hold();
    assert_eq!(round(&hands).len(), 0);
    rig.release();
    let packets = let_go(&hands, 1);
    seat(&hands, packets);
    asked(&mut client, &mut master, PING);
    answered(&mut master, &mut client, PONG);
}

#[test]
fn bytes_that_only_this_process_has_keep_a_session_here() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let upstream = upstream();
    let rig = rig(&upstream, false);
    let hands = hands(&rig);
    let (client, mut master) = joined(&rig, &upstream);
    let mut writing = client.try_clone().expect("a socket");
    let writer = std::thread::spawn(move || writing.write_all(&vec![b'x'; LENGTH]));
    // As much as the kernel takes of it, and one buffer here.
    wait_until("the pipe to be full", || {
        let before = rig.counters().sessions.bytes_up;
        std::thread::sleep(WATCH);
        let after = rig.counters().sessions.bytes_up;
        after > 100_000 && before == after
    });
    assert_eq!(round(&hands).len(), 0);
    assert!(read(&mut master, LENGTH).iter().all(|byte| *byte == b'x'));
    writer.join().expect("no panic").expect("written");
    let packets = let_go(&hands, 1);
    seat(&hands, packets);
    let mut client = client;
    answered(&mut master, &mut client, PONG);
}

#[test]
fn while_the_doors_are_closed_clients_wait_in_the_kernel() {
    let upstream = upstream();
    let options = Options {
        workers: Some(2),
        keeps: true,
        ..Options::default()
    };
    let mut rig = Rig::with(LONG, options);
    rig.serve(1, &upstream);
    let hands = hands(&rig);
    let (id, double) = (rig.kept[0].id(), || rig.kept[0].double().expect("files"));
    let (mut before, mut masters) = joined(&rig, &upstream);
    assert_eq!(in_time(hands.close(0, id)), Ok(()));
    let mut client = rig.connect();
    client.write_all(PING).expect("write");
    asked(&mut before, &mut masters, PING);
    answered(&mut masters, &mut before, PONG);
    assert_eq!(rig.counters().sessions.opened, 1, "nobody was accepted");
    // Twice is once: after one close it is closed.
    assert_eq!(in_time(hands.open(0, double())), Ok(()));
    assert_eq!(in_time(hands.open(0, double())), Ok(()));
    let mut master = accept(&upstream);
    assert_eq!(read(&mut master, PING.len()), PING);
    answered(&mut master, &mut client, PONG);
    assert_eq!(in_time(hands.close(0, id)), Ok(()));
    let mut late = rig.connect();
    late.write_all(PING).expect("write");
    assert_silent(&mut late);
    assert_eq!(rig.counters().sessions.opened, 2, "nobody was accepted");
    // With the last double it is closed for good.
    rig.kept.clear();
    assert!(TcpStream::connect(rig.addr).is_err());
}
