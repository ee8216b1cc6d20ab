//! Upstreams that are to be given up although their master is as good as before: reconnect, and pause.

use std::sync::mpsc;

use super::words::*;
use super::*;
use crate::topology::publish::Upstreams;

const ECHO: &[u8] = b"*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n";
const ECHOED: &[u8] = b"$1\r\nx\r\n";

fn serving(upstream: &TcpListener, moves: bool, hold_max: Duration) -> Rig {
    let options = Options {
        moves,
        ..Options::default()
    };
    let mut rig = Rig::with(hold_max, options);
    rig.serve(1, upstream);
    rig
}

/// A client and its upstream, on which one request was answered.
fn joined(rig: &Rig, upstream: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = rig.connect();
    let mut master = accept(upstream);
    exchange(&mut client, &mut master, ECHO, ECHOED);
    (client, master)
}

fn ends(stream: &mut TcpStream) {
    // A reset is an end as well.
    let mut rest = Vec::new();
    if stream.read_to_end(&mut rest).is_ok() {
        assert_eq!(rest, b"");
    }
}

fn is_not_dialled(upstream: &TcpListener) {
    upstream.set_nonblocking(true).expect("nonblocking");
    std::thread::sleep(WATCH);
    assert!(upstream.accept().is_err(), "dialled for nobody");
}

/// Waits until there are so many upstreams, and so many of before.
fn wait_upstreams(rig: &Rig, edition: u64, open: u64, old: u64) {
    let expected = Some(Upstreams { open, old });
    wait_until("upstreams to be given up", || {
        rig.publisher.upstreams(edition) == expected
    });
}

#[test]
fn an_idle_session_takes_another_upstream_when_its_client_speaks() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    exchange(&mut client, &mut old, SELECT, OK);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 0, 0);
    ends(&mut old);
    is_not_dialled(&upstream);
    client.write_all(PING).expect("write");
    let mut new = accept(&upstream);
    let replay = [SELECT, ROLE].concat();
    assert_eq!(read(&mut new, replay.len()), replay);
    new.write_all(&[OK, MASTER].concat()).expect("write");
    assert_eq!(read(&mut new, PING.len()), PING);
    says(&mut new, &mut client, PONG);
    wait_upstreams(&rig, edition, 1, 0);
    assert_eq!(rig.counters().sessions.moved, 1);
    // A new one is not given up again.
    exchange(&mut client, &mut new, ECHO, ECHOED);
}

#[test]
fn what_is_under_way_is_ended_first_and_what_comes_then_goes_elsewhere() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    says(&mut client, &mut old, PING);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 1, 1);
    client.write_all(ECHO).expect("write");
    assert_silent(&mut old);
    says(&mut old, &mut client, PONG);
    ends(&mut old);
    let mut new = accept(&upstream);
    assert_eq!(read(&mut new, ECHO.len()), ECHO);
    says(&mut new, &mut client, ECHOED);
    wait_upstreams(&rig, edition, 1, 0);
}

#[test]
fn the_rest_of_a_request_follows_its_beginning_however_late_it_comes() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    let (head, tail) = ECHO.split_at(9);
    says(&mut client, &mut old, head);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 1, 1);
    assert_silent(&mut old);
    // In two pieces, and behind the last the next request, which is none of the old upstream's.
    says(&mut client, &mut old, &tail[..4]);
    let rest = [&tail[4..], PING].concat();
    client.write_all(&rest).expect("write");
    assert_eq!(read(&mut old, tail.len() - 4), &tail[4..]);
    assert_silent(&mut old);
    says(&mut old, &mut client, ECHOED);
    ends(&mut old);
    let mut new = accept(&upstream);
    assert_eq!(read(&mut new, PING.len()), PING);
    says(&mut new, &mut client, PONG);
}

#[test]
fn a_transaction_goes_on_to_its_end() {
    // Begun before it is asked for, or while: then its answer tells that more has to follow it.
    for begun in [true, false] {
        let upstream = upstream();
        let mut rig = moving(&upstream);
        let (mut client, mut old) = joined(&rig, &upstream);
        says(&mut client, &mut old, MULTI);
        if begun {
            says(&mut old, &mut client, OK);
        }
        let edition = rig.publisher.renew();
        wait_upstreams(&rig, edition, 1, 1);
        if begun {
            says(&mut client, &mut old, ECHO);
        } else {
            client.write_all(ECHO).expect("write");
            assert_silent(&mut old);
            says(&mut old, &mut client, OK);
            assert_eq!(read(&mut old, ECHO.len()), ECHO);
        }
        says(&mut old, &mut client, QUEUED);
        exchange(&mut client, &mut old, EXEC, b"*1\r\n$1\r\nx\r\n");
        ends(&mut old);
        wait_upstreams(&rig, edition, 0, 0);
        client.write_all(PING).expect("write");
        let mut new = accept(&upstream);
        assert_eq!(read(&mut new, PING.len()), PING);
        says(&mut new, &mut client, PONG);
    }
}

#[test]
fn a_blocking_command_does_not_outlive_its_client() {
    // With another request behind it, and without. In a pause that one has waited in vain, and must not run any more.
    for (asks, paused) in [(false, false), (false, true), (true, false), (true, true)] {
        let upstream = upstream();
        let mut rig = moving(&upstream);
        let (mut client, mut old) = joined(&rig, &upstream);
        says(&mut client, &mut old, PING);
        if paused {
            rig.hold_for(HoldCause::Paused);
        }
        let edition = rig.publisher.renew();
        wait_upstreams(&rig, edition, 1, 1);
        if asks {
            client.write_all(ECHO).expect("write");
        }
        assert_silent(&mut old);
        drop(client);
        let runs = asks && !paused;
        let heard = read_to_end(&mut old);
        assert_eq!(heard, if runs { ECHO } else { b"" });
        drop(old);
        let reason = if asks && paused {
            CloseReason::ClientLeftWaiting
        } else {
            CloseReason::ClientClosed
        };
        rig.wait_closed(reason, 1);
        wait_upstreams(&rig, edition, 0, 0);
    }
}

#[test]
fn an_upstream_that_was_being_made_when_it_was_asked_for_is_given_up_too() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    exchange(&mut client, &mut old, SELECT, OK);
    let first = rig.publisher.renew();
    ends(&mut old);
    client.write_all(PING).expect("write");
    let mut between = accept(&upstream);
    let replay = [SELECT, ROLE].concat();
    assert_eq!(read(&mut between, replay.len()), replay);
    wait_upstreams(&rig, first, 1, 0);
    let second = rig.publisher.renew();
    wait_upstreams(&rig, second, 1, 1);
    between.write_all(&[OK, MASTER].concat()).expect("write");
    let mut new = accept(&upstream);
    ends(&mut between);
    assert_eq!(read(&mut new, replay.len()), replay);
    new.write_all(&[OK, MASTER].concat()).expect("write");
    assert_eq!(read(&mut new, PING.len()), PING);
    says(&mut new, &mut client, PONG);
    wait_upstreams(&rig, second, 1, 0);
}

#[test]
fn a_spare_of_before_is_nobodys() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (client, mut spare) = joined(&rig, &upstream);
    drop(client);
    rig.wait_closed(CloseReason::ClientClosed, 1);
    rig.publisher.renew();
    let mut client = rig.connect();
    client.write_all(PING).expect("write");
    let mut master = accept(&upstream);
    assert_eq!(read(&mut master, PING.len()), PING);
    ends(&mut spare);
}

#[test]
fn sessions_that_cannot_be_carried_over_stay_and_are_counted() {
    let upstream = upstream();
    let mut rig = serving(&upstream, false, LONG);
    let (mut client, mut old) = joined(&rig, &upstream);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 1, 1);
    exchange(&mut client, &mut old, ECHO, ECHOED);
    wait_upstreams(&rig, edition, 1, 1);
    // Until they end.
    drop((client, old));
    wait_upstreams(&rig, edition, 0, 0);
}

#[test]
fn a_pause_holds_those_who_could_be_carried_over_and_newcomers() {
    let (first, second) = (upstream(), upstream());
    // Longer than hold_max: who goes on is not closed for it.
    let mut rig = serving(&first, true, WATCH);
    let (mut idle, mut idles) = joined(&rig, &first);
    let (mut busy, mut busys) = joined(&rig, &first);
    exchange(&mut busy, &mut busys, MULTI, OK);
    rig.publisher.extend(now() + Duration::from_secs(3600));
    rig.hold_for(HoldCause::Paused);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 1, 1);
    ends(&mut idles);
    std::thread::sleep(WATCH * 2);
    exchange(&mut busy, &mut busys, ECHO, QUEUED);
    exchange(&mut busy, &mut busys, EXEC, b"*1\r\n$1\r\nx\r\n");
    ends(&mut busys);
    wait_upstreams(&rig, edition, 0, 0);
    // Who waited for hold_max is answered as in every hold.
    idle.write_all(PING).expect("write");
    let said = b"-LOADING switchmaster: paused for ";
    assert_eq!(read(&mut idle, said.len()), said);
    is_not_dialled(&first);
    drop(idle);
    // A switch meanwhile is followed when the pause is over.
    rig.serve(2, &second);
    busy.write_all(PING).expect("write");
    let mut new = accept(&second);
    assert_eq!(read(&mut new, PING.len()), PING);
    says(&mut new, &mut busy, PONG);
    is_not_dialled(&first);
}

#[test]
fn who_was_held_by_a_pause_is_served_when_it_ends() {
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    rig.hold_for(HoldCause::Paused);
    rig.publisher.renew();
    ends(&mut old);
    client.write_all(PING).expect("write");
    let mut newcomer = rig.connect();
    newcomer.write_all(PING).expect("write");
    is_not_dialled(&upstream);
    wait_until("both to wait", || rig.counters().sessions.waiting == 2);
    rig.release();
    let mut masters = Vec::new();
    for _ in 0..2 {
        let mut new = accept(&upstream);
        assert_eq!(read(&mut new, PING.len()), PING);
        new.write_all(PONG).expect("write");
        masters.push(new);
    }
    assert_eq!(read(&mut client, PONG.len()), PONG);
    assert_eq!(read(&mut newcomer, PONG.len()), PONG);
}

/// A request of a thousand bytes, and its reply.
fn large() -> (Vec<u8>, Vec<u8>) {
    let reply = format!("$1000\r\n{}\r\n", "x".repeat(1000)).into_bytes();
    let request = [b"*2\r\n$4\r\nECHO\r\n".as_slice(), &reply].concat();
    (request, reply)
}

/// Answers large requests on this connection to its end, as a server does: it reads on while nobody takes its replies. Gives
/// their number.
fn answer_large(mut master: TcpStream) -> usize {
    const MANY: usize = 128 * 1024;
    let (request, reply) = large();
    let mut hand = master.try_clone().expect("a second hand");
    let (answers, asked) = mpsc::sync_channel(MANY);
    let answering =
        std::thread::spawn(
            move || {
                while asked.recv().is_ok() && hand.write_all(&reply).is_ok() {}
            },
        );
    let mut read = vec![0; request.len()];
    let mut count = 0;
    while master.read_exact(&mut read).is_ok() && answers.send(()).is_ok() {
        count += 1;
    }
    drop(answers);
    answering.join().expect("it writes");
    count
}

#[test]
fn a_client_that_says_everything_before_it_reads_is_not_stopped() {
    // Half of it is more than the buffers of all sockets on the way hold, there and back.
    const HALF: usize = 32 * 1024;
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (request, reply) = large();
    let mut client = rig.connect();
    client
        .set_write_timeout(Some(PATIENCE))
        .expect("a deadline");
    let old = accept(&upstream);
    std::thread::scope(|scope| {
        let old = scope.spawn(|| answer_large(old));
        for _ in 0..HALF {
            client.write_all(&request).expect("write");
        }
        let edition = rig.publisher.renew();
        for _ in 0..HALF {
            client.write_all(&request).expect("it is heard on");
        }
        let next = scope.spawn(|| answer_large(accept(&upstream)));
        for _ in 0..2 * HALF {
            assert_eq!(read(&mut client, reply.len()), reply);
        }
        // Where there was no quiet moment before, there is one now.
        wait_until("the old upstream to be given up", || {
            let upstreams = rig.publisher.upstreams(edition);
            upstreams.is_some_and(|upstreams| upstreams.old == 0)
        });
        client.write_all(&request).expect("write");
        assert_eq!(read(&mut client, reply.len()), reply);
        drop(client);
        let served = old.join().expect("it reads");
        let rest = next.join().expect("it reads");
        assert_eq!(served + rest, 2 * HALF + 1);
    });
}

#[test]
fn a_client_that_has_said_its_last_word_is_served_to_its_end_elsewhere() {
    // More than is read ahead.
    const MANY: usize = 60;
    let upstream = upstream();
    let mut rig = moving(&upstream);
    let (mut client, mut old) = joined(&rig, &upstream);
    let (mut other, mut its) = joined(&rig, &upstream);
    exchange(&mut other, &mut its, MULTI, OK);
    let (request, reply) = large();
    says(&mut client, &mut old, PING);
    let edition = rig.publisher.renew();
    wait_upstreams(&rig, edition, 2, 2);
    // Both were woken, in this order: when the second has answered, the first has looked, too. Had its client ended before that, it
    // would be served to its end where it is.
    exchange(&mut other, &mut its, ECHO, QUEUED);
    client.write_all(&request.repeat(MANY)).expect("write");
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_silent(&mut old);
    says(&mut old, &mut client, PONG);
    let mut served = 0;
    std::thread::scope(|scope| {
        let new = scope.spawn(|| answer_large(accept(&upstream)));
        for _ in 0..MANY {
            assert_eq!(read(&mut client, reply.len()), reply);
        }
        ends(&mut client);
        served = new.join().expect("it reads");
    });
    assert_eq!(served, MANY);
    ends(&mut old);
}
