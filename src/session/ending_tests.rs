//! What a session still does when the proxy ends: every transition, and bytes over real sockets.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::relay::{Carried, Relay};
use super::tests::{G1, G2, HOLD, at, held, house_of, open, serving};
use super::tracker::{Rules, Tracker};
use super::watch::{Blind, Watch};
use super::*;
use crate::net::clock::now;
use crate::net::stream::Stream;
use crate::topology::publish::{Publisher, Reader};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";
/// Longest scene; a multiple of what any of them waits for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whatever it is doing and whatever happens: at the end no session gets a new upstream, or waits for anything.
#[test]
fn nothing_begins_at_the_end() {
    use CloseReason as R;
    use Event as E;
    use Stage::{Closing, Detached, Dialing, Failing, Live, Waiting};

    let events = [
        E::Looked,
        E::LookedMovable,
        E::Parted,
        E::Spoke,
        E::SpokeBefore,
        E::WaitRefused,
        E::ClientLeft,
        E::Dialled,
        E::DialFailed,
        E::InLine,
        E::LineTooLong,
        E::Ended(R::ClientClosed),
    ];
    let stages = [
        Waiting,
        Dialing(G1),
        Live(G1),
        Detached,
        Failing,
        Closing(R::Switched),
    ];
    for ending in [Ending::Draining, Ending::Now] {
        for outlook in [open(G1), open(G2), held(G1, 5), held(G1, 0), held(G2, 5)] {
            let outlook = Outlook { ending, ..outlook };
            for (stage, event, moves) in stages
                .into_iter()
                .flat_map(|stage| events.into_iter().map(move |event| (stage, event)))
                .flat_map(|(stage, event)| [(stage, event, false), (stage, event, true)])
            {
                let mut life = Life {
                    stage,
                    ..Life::new(at(0), moves)
                };
                let next = life.on(event, &outlook, at(10));
                let what = format!("{stage:?} {event:?} {outlook:?}: {next:?}");
                match next {
                    Closing(R::ShutdownForced) => {
                        assert_eq!((stage, event), (Live(G1), E::Looked), "{what}");
                        assert_eq!(ending, Ending::Now, "{what}");
                    }
                    Closing(_) => {}
                    // Still the same upstream.
                    _ => {
                        assert_eq!((stage, next), (Live(G1), Live(G1)), "{what}");
                        assert_eq!(ending, Ending::Draining, "{what}");
                    }
                }
            }
        }
    }
}

/// A live session with both its ends in the test's hands.
struct Scene {
    house: Rc<House>,
    application: UnixStream,
    master: UnixStream,
    _publisher: Publisher,
}

/// Where a session was left, and what its client was still owed.
type Left = (Stage, Vec<u8>);

impl Scene {
    /// Plays the session with `script`, which has to lead to its end.
    async fn play<W: Watch>(watch: W, script: impl AsyncFnOnce(&mut Self)) -> Left {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        publisher.extend(now() + HOLD);
        let (client, application) = UnixStream::pair().expect("pair");
        let (upstream, master) = UnixStream::pair().expect("pair");
        let mut carried = Carried::new(Stream::Unix(client), watch);
        let mut seat = Seat::new(&house);
        seat.sit().await;
        let mut life = Life {
            stage: Stage::Live(G1),
            ..Life::new(at(0), W::MOVES)
        };
        let connected = run::Connected {
            upstream: Stream::Unix(upstream),
            claim: house.claim(G1),
        };
        let mut scene = Self {
            house,
            application,
            master,
            _publisher: publisher,
        };
        let played = async {
            tokio::join!(
                script(&mut scene),
                run::live(&mut seat, &mut life, connected, &mut carried),
            )
        };
        let ((), ()) = tokio::time::timeout(PATIENCE, played)
            .await
            .expect("the session to end");
        (life.stage, carried.owed.to_vec())
    }

    /// The client says this, and it reaches the master.
    async fn ask(&mut self, request: &[u8]) {
        self.application.write_all(request).await.expect("room");
        self.asked(request).await;
    }

    /// The master hears this next.
    async fn asked(&mut self, request: &[u8]) {
        let mut heard = vec![0; request.len()];
        self.master.read_exact(&mut heard).await.expect("it hears");
        assert_eq!(
            heard.escape_ascii().to_string(),
            request.escape_ascii().to_string()
        );
    }

    /// The master says this, and it reaches the client.
    async fn answer(&mut self, reply: &[u8]) {
        self.master.write_all(reply).await.expect("room");
        let mut heard = vec![0; reply.len()];
        self.application
            .read_exact(&mut heard)
            .await
            .expect("it hears");
        assert_eq!(
            heard.escape_ascii().to_string(),
            reply.escape_ascii().to_string()
        );
    }

    /// The client says something that is to reach nobody, and the session has a turn to hear it.
    async fn ask_in_vain(&mut self, request: &[u8]) {
        self.application.write_all(request).await.expect("room");
        self.turns().await;
    }

    /// The session has turns for all that it could do now.
    async fn turns(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn drain(&self) {
        self.house.end(Ending::Draining);
    }

    /// Nothing but the end comes to the master any more.
    async fn nothing_more(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        let _ = self.master.read_to_end(&mut rest).await;
        assert_eq!(rest.escape_ascii().to_string(), "");
    }
}

fn tracker() -> Tracker {
    Tracker::new(Rules {
        login: false,
        replay_auth: true,
        pubsub: true,
        resend_reads: false,
    })
}

fn in_order() -> Left {
    (Stage::Closing(CloseReason::Shutdown), Vec::new())
}

#[tokio::test]
async fn an_idle_session_ends_at_once() {
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(PING).await;
        scene.answer(PONG).await;
        scene.drain();
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn a_request_in_flight_is_answered_and_the_next_is_not_begun() {
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(PING).await;
        scene.drain();
        scene.ask_in_vain(PING).await;
        scene.answer(PONG).await;
        scene.nothing_more().await;
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn a_request_that_was_begun_is_finished_and_answered() {
    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4\r\nlong\r\n";
    let left = Scene::play(tracker(), async |scene| {
        let (head, tail) = SET.split_at(25);
        scene.ask(head).await;
        scene.drain();
        scene.turns().await;
        let (middle, end) = tail.split_at(3);
        scene.ask(middle).await;
        // The end, and a request behind it, in one piece.
        let piece = [end, PING].concat();
        scene.application.write_all(&piece).await.expect("room");
        scene.asked(end).await;
        scene.answer(b"+OK\r\n").await;
        scene.nothing_more().await;
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn a_transaction_goes_on_to_its_end() {
    const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
    const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";
    for (answered, pipelined) in [(true, false), (false, false), (true, true)] {
        let left = Scene::play(tracker(), async |scene| {
            scene.ask(MULTI).await;
            if answered {
                scene.answer(b"+OK\r\n").await;
            }
            scene.drain();
            scene.turns().await;
            if pipelined {
                scene.ask(&[PING, EXEC].concat()).await;
            } else {
                scene.ask(PING).await;
                scene.ask(EXEC).await;
            }
            if !answered {
                scene.answer(b"+OK\r\n").await;
            }
            scene.answer(b"+QUEUED\r\n").await;
            scene.answer(b"*1\r\n+PONG\r\n").await;
            scene.nothing_more().await;
        });
        assert_eq!(left.await, in_order(), "{answered} {pipelined}");
    }
}

/// What follows something that was dropped would mean something else.
#[tokio::test]
async fn a_client_that_was_not_heard_once_is_not_heard_again() {
    const WATCH: &[u8] = b"*2\r\n$5\r\nWATCH\r\n$1\r\na\r\n";
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(PING).await;
        scene.drain();
        scene.ask_in_vain(WATCH).await;
        scene.ask_in_vain(PING).await;
        scene.answer(PONG).await;
        scene.nothing_more().await;
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn a_subscriber_ends_between_two_messages() {
    const SUBSCRIBE: &[u8] = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n";
    const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(SUBSCRIBE).await;
        let confirmation = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        scene.answer(confirmation).await;
        let (head, tail) = MESSAGE.split_at(17);
        scene.answer(head).await;
        scene.drain();
        scene.turns().await;
        scene.answer(tail).await;
        scene.nothing_more().await;
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn a_slow_client_gets_all_it_is_owed_first() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(PING).await;
        let reply = [
            format!("${LENGTH}\r\n").as_bytes(),
            &vec![b'x'; LENGTH],
            b"\r\n",
        ]
        .concat();
        scene.drain();
        let Scene {
            application,
            master,
            ..
        } = scene;
        let mut got = vec![0; reply.len()];
        let (said, heard) = tokio::join!(master.write_all(&reply), async {
            // Long after the master has said all that it can.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            application.read_exact(&mut got).await
        });
        said.expect("room");
        heard.expect("all of it");
        assert!(got == reply, "another reply");
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn when_time_is_over_what_is_not_answered_is_cut() {
    let left = Scene::play(tracker(), async |scene| {
        scene.ask(&[PING, PING].concat()).await;
        scene.drain();
        scene.turns().await;
        scene.answer(PONG).await;
        scene.house.end(Ending::Now);
        scene.nothing_more().await;
    });
    let cut = Stage::Closing(CloseReason::ShutdownForced);
    assert_eq!(left.await, (cut, Vec::new()));
}

#[tokio::test]
async fn what_arrives_in_the_last_instant_is_the_clients() {
    for (asked, in_order) in [(1, true), (2, false)] {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        publisher.extend(now() + HOLD);
        let (client, mut application) = UnixStream::pair().expect("pair");
        let (upstream, mut master) = UnixStream::pair().expect("pair");
        let mut tracker = tracker();
        tracker.client_bytes(&PING.repeat(asked));
        let mut carried = Carried::new(Stream::Unix(client), tracker);
        let upstream = Stream::Unix(upstream);
        master.write_all(PONG).await.expect("room");
        upstream.readable().await.expect("the runtime knows");
        let mut relay = Relay::new(&mut carried, upstream, Reader::pass(&serving(G1)));
        house.end(Ending::Now);
        let can_leave = poll_fn(|cx| Poll::Ready(relay.can_leave(cx, &house))).await;
        assert_eq!(can_leave, in_order, "{asked} asked");
        let mut heard = vec![0; PONG.len()];
        application.read_exact(&mut heard).await.expect("it hears");
        assert_eq!(heard, PONG);
    }
}

/// Its requests are nobody's knowledge (close mode): silence behind the master's word is what there is to go by.
#[tokio::test(start_paused = true)]
async fn without_a_tracker_a_session_ends_in_a_moment_of_silence() {
    let left = Scene::play(Blind, async |scene| {
        scene.ask(PING).await;
        scene.drain();
        scene.turns().await;
        // However long: it is the master's turn.
        tokio::time::sleep(HOLD).await;
        scene.answer(PONG).await;
        // It goes on for as long as its client does.
        scene.turns().await;
        scene.ask(PING).await;
        scene.answer(PONG).await;
        scene.nothing_more().await;
    });
    assert_eq!(left.await, in_order());
}

#[tokio::test]
async fn without_a_tracker_who_waits_for_the_master_is_cut_when_time_is_over() {
    for (answered, reason) in [
        (false, CloseReason::ShutdownForced),
        (true, CloseReason::Shutdown),
    ] {
        let left = Scene::play(Blind, async |scene| {
            scene.ask(PING).await;
            if answered {
                scene.answer(PONG).await;
            }
            scene.drain();
            scene.turns().await;
            scene.house.end(Ending::Now);
        });
        assert_eq!(left.await, (Stage::Closing(reason), Vec::new()));
    }
}

/// A client that has ended may wait for its answers, and its master may not care.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_its_last_word_gets_its_answers_and_no_more_is_waited_for() {
    async fn script(scene: &mut Scene) {
        scene.ask(PING).await;
        scene.application.shutdown().await.expect("half-closed");
        scene.turns().await;
        scene.drain();
        scene.turns().await;
        tokio::time::sleep(HOLD).await;
        // The master goes on listening behind the client's end, and says nothing more.
        scene.answer(PONG).await;
    }
    let ended = (Stage::Closing(CloseReason::ClientClosed), Vec::new());
    assert_eq!(Scene::play(tracker(), script).await, ended);
    assert_eq!(Scene::play(Blind, script).await, ended);
}
