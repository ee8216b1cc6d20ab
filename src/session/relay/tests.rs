//! One relay alone.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::io::ErrorKind;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, timeout};

use super::*;
use crate::net::clock::now;
use crate::net::tls;
use crate::session::Config;
use crate::session::tests::{G1, G2, HOLD, house_of, serving};
use crate::session::tracker::{Rules, Tracker};
use crate::session::watch::Blind;
use crate::topology::publish::Reader;

#[tokio::test]
async fn what_was_read_in_the_instant_of_a_swap_is_kept_for_the_next_master() {
    const REQUEST: &[u8] = b"*1\r\n$4\r\nPING\r\n";
    let (mut publisher, house) = house_of();
    publisher.publish(serving(G1));
    publisher.extend(now() + HOLD);
    let (client, mut application) = UnixStream::pair().expect("pair");
    let (upstream, _master) = UnixStream::pair().expect("pair");
    let rules = Rules {
        login: false,
        replay_auth: true,
        pubsub: false,
        resend_reads: false,
    };
    let mut carried = Carried::new(Stream::Unix(client), Tracker::new(rules));
    let pass = Reader::pass(&serving(G1));
    let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
    application.write_all(REQUEST).await.expect("write");
    // Behind the look at the fence with which each turn begins, as another thread may do it.
    publisher.publish(serving(G2));
    let over = poll_fn(|cx| match relay.read_client(cx, &house) {
        Continue(Poll::Pending) => Poll::Pending,
        over => Poll::Ready(over),
    })
    .await;
    assert_eq!(over, Break(CloseReason::Switched));
    assert!(relay.can_part());
    assert_eq!(carried.unsent, REQUEST);
}

/// On a runtime like a worker's: one session always has more to move, and there is news for another one.
#[test]
fn a_session_that_goes_on_gives_way_to_news_that_the_runtime_has_not_asked_for() {
    let worker = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let turns = Rc::new(Cell::new(0));
    let counted = Rc::clone(&turns);
    worker.block_on(async move {
        let (small, news) = UnixStream::pair().expect("pair");
        tokio::task::spawn_local(poll_fn(move |cx| {
            if counted.replace(counted.get() + 1) == 0 {
                assert_eq!(news.try_write(b"x").expect("room"), 1);
            }
            give_way(cx);
            Poll::<()>::Pending
        }));
        small.readable().await.expect("a socket");
    });
    assert!((1..=2).contains(&turns.get()), "{} turns", turns.get());
}

/// A process that stood still may find a reply before it finds out who is master now.
#[tokio::test]
async fn a_reply_that_is_read_behind_a_standstill_waits_for_the_control_plane() {
    const REPLY: &[u8] = b"+OK\r\n";
    for switched in [false, true] {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        publisher.extend(now() + HOLD);
        let (client, mut application) = UnixStream::pair().expect("pair");
        let (upstream, mut master) = UnixStream::pair().expect("pair");
        let mut carried = Carried::new(Stream::Unix(client), Blind);
        let pass = Reader::pass(&serving(G1));
        let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
        publisher.awake(now());
        master.write_all(REPLY).await.expect("write");
        let read = |relay: &mut Relay<'_, Blind>| !relay.carried.owed.is_empty();
        poll_fn(|cx| match relay.poll(cx, &house) {
            Poll::Pending if read(&mut relay) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
            Poll::Ready(reason) => panic!("{reason}"),
        })
        .await;
        let mut heard = [0; REPLY.len()];
        let nothing = application.try_read(&mut heard).expect_err("held back");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        if switched {
            publisher.publish(serving(G2));
        }
        publisher.awake(now() + HOLD);
        let over = poll_fn(|cx| match relay.poll(cx, &house) {
            Poll::Pending if relay.carried.owed.is_empty() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
            Poll::Ready(reason) => Poll::Ready(Some(reason)),
        })
        .await;
        if switched {
            assert_eq!(over, Some(CloseReason::Switched));
            assert_eq!(relay.unheard(), 1);
            assert!(application.try_read(&mut heard).is_err());
        } else {
            assert_eq!(over, None);
            application.read_exact(&mut heard).await.expect("handed");
            assert_eq!(heard, REPLY);
        }
    }
}

/// A relay with so much for its client to read that there is no end of it, and a limit.
async fn stalled(
    client: Stream,
    limit: Duration,
    mut reader: impl AsyncFnMut() -> bool,
) -> Duration {
    static SOURCE: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let (mut publisher, house) = house_of();
    publisher.publish(serving(G1));
    publisher.extend(now() + HOLD);
    house.change(Config {
        write_stall_timeout: limit,
        ..house.config()
    });
    let (upstream, mut master) = UnixStream::pair().expect("pair");
    let mut carried = Carried::new(client, Blind);
    let pass = Reader::pass(&serving(G1));
    let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
    let relaying = poll_fn(|cx| {
        publisher.extend(now() + HOLD);
        relay.poll(cx, &house)
    });
    let saying = async { while master.write_all(&SOURCE).await.is_ok() {} };
    let reading = async {
        while reader().await {
            sleep(limit / 4).await;
        }
        // It takes no more, and is still there.
        pending::<()>().await;
    };
    let begun = Instant::now();
    tokio::select! {
        reason = relaying => assert_eq!(reason, CloseReason::WriteStalled),
        () = saying => panic!("the master is left"),
        () = reading => {}
    }
    begun.elapsed()
}

/// Where the kernel says nothing of room, as there is not much of it.
#[tokio::test(start_paused = true)]
async fn who_takes_replies_slowly_and_all_the_time_is_not_stalled() {
    const LIMIT: Duration = Duration::from_secs(2);
    const ROUNDS: u32 = 40;
    let (plain, application) = UnixStream::pair().expect("pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    // A kernel tells the other of room when a sixteenth of this is free, which otherwise are hundreds of KiB.
    let connecting = TcpSocket::new_v4().expect("a socket");
    connecting.set_recv_buffer_size(64 * 1024).expect("a size");
    let remote = connecting
        .connect(listener.local_addr().expect("bound"))
        .await;
    let (tcp, _) = listener.accept().await.expect("accepted");
    let (sealed, server) = tls::tests::pair().await;
    for (client, mut application) in [
        (Stream::Unix(plain), Stream::Unix(application)),
        (Stream::Tcp(tcp), Stream::Tcp(remote.expect("it listens"))),
        (server, sealed),
    ] {
        let mut rounds = 0;
        let mut buffer = vec![0; 40 * 1024];
        let lasted = stalled(client, LIMIT, async || {
            rounds += 1;
            let n = poll_fn(|cx| application.poll_read(cx, &mut buffer)).await;
            assert!(n.expect("not cut") > 0);
            rounds < ROUNDS
        })
        .await;
        assert_eq!(rounds, ROUNDS, "{application:?}");
        let slow = LIMIT / 4 * ROUNDS;
        assert!(lasted >= slow, "{lasted:?}");
        assert!(lasted < slow + 4 * LIMIT, "{lasted:?}");
    }
}

/// What TLS keeps back of the last reply is not waited for without end: nobody else would end this session.
#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_last_of_its_replies_keeps_its_place_for_a_time() {
    const SECOND: Duration = Duration::from_secs(1);
    for (limit, reason) in [
        (Duration::ZERO, CloseReason::UpstreamClosed),
        (SECOND, CloseReason::WriteStalled),
    ] {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        house.change(Config {
            write_stall_timeout: limit,
            ..house.config()
        });
        let (_application, client) = tls::tests::pair().await;
        let (upstream, mut master) = UnixStream::pair().expect("pair");
        let mut carried = Carried::new(client, Blind);
        let pass = Reader::pass(&serving(G1));
        let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
        master.write_all(&[b'x'; 20 * 1024]).await.expect("room");
        drop(master);
        let over = poll_fn(|cx| {
            publisher.extend(now() + HOLD);
            relay.poll(cx, &house)
        });
        let over = timeout(60 * SECOND, over).await;
        assert_eq!(over.expect("it ends"), reason);
        assert_eq!(carried.owed.len(), 0);
    }
}
