//! What becomes of a session whose upstream ends or whose master is swapped, on real sockets.

use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::relay::Carried;
use super::tests::{G1, G2, HOLD, at, house_of, life, serving};
use super::watch::Blind;
use super::*;
use crate::net::clock::now;
use crate::net::stream::Stream;

#[tokio::test]
async fn an_upstream_that_ends_before_it_says_anything_is_a_dial_that_failed() {
    const REQUEST: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let (mut publisher, house) = house_of();
    publisher.publish(serving(G1));
    publisher.extend(now() + HOLD);
    let (client, _application) = UnixStream::pair().expect("pair");
    let rules = tracker::Rules {
        login: false,
        replay_auth: true,
        pubsub: false,
        resend_reads: false,
    };
    let tracker = tracker::Tracker::new(rules);
    let mut carried = Carried::new(Stream::Unix(client), tracker);
    carried.unsent.extend_from_slice(REQUEST);
    let mut seat = Seat::new(&house);
    seat.sit().await;
    let mut life = Life {
        stage: Stage::Live(G1),
        ..Life::new(at(0), true)
    };
    let (upstream, master) = UnixStream::pair().expect("pair");
    drop(master);
    let connected = run::Connected {
        upstream: Stream::Unix(upstream),
        claim: house.claim(G1),
    };
    run::live(&mut seat, &mut life, connected, &mut carried).await;
    // Not at once, as it would be without a failure; and not for ever.
    assert_eq!(life.stage, Stage::Dialing(G1));
    assert!(life.first_failure.is_some() && life.kept_waiting);
    assert_eq!(carried.unsent, REQUEST);
}

/// A master that is lost with a read unanswered, while the client's next request is already there: the read goes first again.
#[tokio::test]
async fn a_read_that_is_sent_again_keeps_its_place_before_what_follows() {
    const READ: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n";
    const WRITE: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nb\r\n$1\r\nc\r\n";
    let (mut publisher, house) = house_of();
    publisher.publish(serving(G1));
    publisher.extend(now() + HOLD);
    let (client, mut application) = UnixStream::pair().expect("pair");
    let tracker = tracker::Tracker::new(tracker::Rules {
        login: false,
        replay_auth: true,
        pubsub: false,
        resend_reads: true,
    });
    let mut carried = Carried::new(Stream::Unix(client), tracker);
    let mut seat = Seat::new(&house);
    seat.sit().await;
    let mut life = Life {
        stage: Stage::Live(G1),
        ..Life::new(at(0), true)
    };
    let (upstream, mut master) = UnixStream::pair().expect("pair");
    let connected = run::Connected {
        upstream: Stream::Unix(upstream),
        claim: house.claim(G1),
    };
    let talk = async {
        application.write_all(READ).await.expect("it reads");
        let mut read = [0; READ.len()];
        master.read_exact(&mut read).await.expect("it is sent");
        // Both are seen by the same look.
        assert_eq!(application.try_write(WRITE).expect("room"), WRITE.len());
        drop(master);
        application
    };
    let (_application, ()) = tokio::join!(
        talk,
        run::live(&mut seat, &mut life, connected, &mut carried)
    );
    assert_eq!(life.stage, Stage::Detached);
    assert_eq!(carried.unsent, [READ, WRITE].concat());
}

/// Writes until the relay, which runs beside it, takes no more.
async fn fill_the_way(master: &UnixStream) {
    /// Turns in a row without progress, after which the way is full: the relay has a turn in each.
    const IDLE_TURNS: usize = 100;
    /// More than the buffers of two unix sockets.
    const WAY_LIMIT: usize = 16 * 1024 * 1024;

    let (mut idle, mut sent) = (0, 0);
    while idle < IDLE_TURNS {
        match master.try_write(&[b'x'; 8192]) {
            Ok(n) => {
                idle = 0;
                sent += n;
                assert!(sent < WAY_LIMIT, "the relay holds what nobody reads");
            }
            Err(_) => idle += 1,
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_read_before_a_swap_is_paid_after_it() {
    let (mut publisher, house) = house_of();
    publisher.publish(serving(G1));
    publisher.extend(now() + HOLD);
    let (client, mut application) = UnixStream::pair().expect("pair");
    let (upstream, master) = UnixStream::pair().expect("pair");
    let mut seat = Seat::new(&house);
    seat.sit().await;
    let connected = run::Connected {
        upstream: Stream::Unix(upstream),
        claim: house.claim(G1),
    };
    let mut carried = Carried::new(Stream::Unix(client), Blind);
    let mut life = life(Stage::Live(G1));
    let swap = async {
        fill_the_way(&master).await;
        publisher.publish(serving(G2));
        Rc::clone(&house).attend().await;
    };
    tokio::select! {
        () = run::live(&mut seat, &mut life, connected, &mut carried) => {}
        () = swap => unreachable!("a bell is attended for ever"),
    };
    let Carried { client, owed, .. } = carried;
    assert!(publisher.is_acknowledged(G2));
    assert_eq!(life.stage, Stage::Closing(CloseReason::Switched));
    assert!((1..=32 * 1024).contains(&owed.len()), "{}", owed.len());

    let due = house.tally.bytes_down.read() + owed.len() as u64;
    let mut got = Vec::new();
    let (_, read) = tokio::join!(farewell::farewell(&mut seat, client, owed), async {
        application.read_to_end(&mut got).await
    },);
    read.expect("the end and no reset");
    assert_eq!(got.len() as u64, due);
}
