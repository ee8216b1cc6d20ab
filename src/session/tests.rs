//! The transitions, and what a panic leaves behind. Bytes over real sockets are tested with the pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::UnixStream;

use super::house::ROUSED_AT_ONCE;
use super::*;
use crate::net::clock::now;
use crate::net::rarely::logged;
use crate::net::stream::Stream;
use crate::topology::publish::{Publisher, channel};
use crate::topology::{ForReaders, MasterAddr};
use crate::upstream::DialError;

pub(super) const G1: Generation = Generation(1);
pub(super) const G2: Generation = Generation(2);
pub(super) const HOLD: Duration = Duration::from_secs(10);

pub(super) fn at(seconds: u64) -> Moment {
    Moment::from_nanos(0) + Duration::from_secs(seconds)
}

pub(super) fn open(generation: Generation) -> Outlook {
    Outlook {
        generation,
        open: true,
        held_since: None,
        paused: false,
        hold_max: HOLD,
        ending: Ending::No,
    }
}

pub(super) fn held(generation: Generation, since: u64) -> Outlook {
    Outlook {
        open: false,
        held_since: Some(at(since)),
        ..open(generation)
    }
}

pub(super) fn life(stage: Stage) -> Life {
    Life {
        stage,
        ..Life::new(at(0), false)
    }
}

pub(super) fn house_of() -> (Publisher, Rc<House>) {
    let (publisher, reader, mut subscriptions) = channel(State::initial(HOLD), 1);
    let house = House::new(
        "main".into(),
        Config::default(),
        reader,
        subscriptions.remove(0),
        Arc::default(),
        Arc::default(),
        new_buffer(),
    );
    (publisher, house)
}

pub(super) fn house() -> Rc<House> {
    house_of().1
}

pub(super) fn serving(generation: Generation) -> State {
    State {
        generation,
        phase: Phase::Serving,
        master: Some(MasterAddr::for_test(([127, 0, 0, 1], 1).into())),
        verified_at: Some(([127, 0, 0, 1], 1).into()),
        hold_max: HOLD,
        readers: ForReaders::default(),
    }
}

#[test]
fn every_transition() {
    use CloseReason as R;
    use Event as E;
    use Stage::{Closing, Dialing, Live, Waiting};

    let draining = Outlook {
        ending: Ending::Draining,
        ..open(G1)
    };
    let ending = Outlook {
        ending: Ending::Now,
        ..open(G1)
    };
    let nobody = Outlook {
        open: false,
        ..open(Generation(0))
    };
    for (stage, event, outlook, second, next) in [
        (Waiting, E::Looked, open(G1), 0, Dialing(G1)),
        (Waiting, E::Looked, nobody, 9, Waiting),
        (Waiting, E::Looked, nobody, 10, Closing(R::NoMaster)),
        (Waiting, E::Looked, held(G1, 5), 9, Waiting),
        (Waiting, E::Looked, held(G1, 5), 10, Closing(R::HeldTooLong)),
        (
            Waiting,
            E::ClientLeft,
            open(G1),
            1,
            Closing(R::ClientLeftWaiting),
        ),
        (
            Waiting,
            E::WaitRefused,
            nobody,
            0,
            Closing(R::TooManyWaiting),
        ),
        (Waiting, E::Looked, ending, 0, Closing(R::Shutdown)),
        (Dialing(G1), E::Looked, open(G1), 1, Dialing(G1)),
        (Dialing(G1), E::Dialled, open(G1), 1, Live(G1)),
        (Dialing(G1), E::Dialled, open(G2), 1, Dialing(G2)),
        (Dialing(G1), E::Looked, open(G2), 1, Dialing(G2)),
        (Dialing(G1), E::Dialled, held(G1, 1), 1, Waiting),
        (Dialing(G1), E::DialFailed, open(G1), 1, Dialing(G1)),
        (Dialing(G1), E::DialFailed, open(G2), 1, Dialing(G2)),
        (Dialing(G1), E::InLine, open(G1), 1, Dialing(G1)),
        (Dialing(G1), E::InLine, open(G2), 1, Dialing(G2)),
        (
            Dialing(G1),
            E::LineTooLong,
            open(G1),
            1,
            Closing(R::DialFailed),
        ),
        (Dialing(G1), E::LineTooLong, held(G1, 1), 1, Waiting),
        (
            Dialing(G1),
            E::ClientLeft,
            open(G1),
            1,
            Closing(R::ClientLeftWaiting),
        ),
        (Dialing(G1), E::Dialled, ending, 1, Closing(R::Shutdown)),
        (Live(G1), E::Looked, open(G1), 99, Live(G1)),
        (Live(G1), E::Looked, held(G1, 95), 99, Live(G1)),
        (
            Live(G1),
            E::Looked,
            held(G1, 89),
            99,
            Closing(R::HeldTooLong),
        ),
        (Live(G1), E::Looked, open(G2), 99, Closing(R::Switched)),
        (Live(G1), E::Looked, held(G2, 99), 99, Closing(R::Switched)),
        // Without an upstream nothing is under way.
        (Waiting, E::Looked, draining, 0, Closing(R::Shutdown)),
        (Dialing(G1), E::Looked, draining, 1, Closing(R::Shutdown)),
        (Dialing(G1), E::Dialled, draining, 1, Closing(R::Shutdown)),
        // With one, the relay says when it has finished.
        (Live(G1), E::Looked, draining, 99, Live(G1)),
        (
            Live(G1),
            E::Ended(R::Shutdown),
            draining,
            99,
            Closing(R::Shutdown),
        ),
        (
            Live(G1),
            E::Looked,
            Outlook {
                ending: Ending::Draining,
                ..held(G1, 95)
            },
            99,
            Live(G1),
        ),
        (
            Live(G1),
            E::Looked,
            Outlook {
                ending: Ending::Draining,
                ..open(G2)
            },
            99,
            Closing(R::Switched),
        ),
        (Live(G1), E::Looked, ending, 99, Closing(R::ShutdownForced)),
        (Live(G1), E::LookedMovable, ending, 99, Closing(R::Shutdown)),
        (
            Closing(R::Shutdown),
            E::Looked,
            ending,
            99,
            Closing(R::Shutdown),
        ),
        (
            Live(G1),
            E::Ended(R::ClientClosed),
            open(G1),
            99,
            Closing(R::ClientClosed),
        ),
        (
            Closing(R::Switched),
            E::Ended(R::ClientClosed),
            ending,
            99,
            Closing(R::Switched),
        ),
    ] {
        let got = life(stage).on(event, &outlook, at(second));
        assert_eq!(got, next, "{stage:?} {event:?} {outlook:?} at {second} s");
    }
}

#[test]
fn every_transition_of_a_session_that_moves() {
    use CloseReason as R;
    use Event as E;
    use Stage::{Closing, Detached, Dialing, Failing, Live, Waiting};

    let draining = Outlook {
        ending: Ending::Draining,
        ..open(G1)
    };
    let ending = Outlook {
        ending: Ending::Now,
        ..open(G1)
    };
    let nobody = Outlook {
        open: false,
        ..open(Generation(0))
    };
    let impatient = |outlook| Outlook {
        hold_max: Duration::ZERO,
        ..outlook
    };
    for (stage, event, outlook, second, next) in [
        // What need not be closed is not.
        (Live(G1), E::Looked, open(G2), 1, Closing(R::Switched)),
        (Live(G1), E::LookedMovable, open(G1), 1, Live(G1)),
        (Live(G1), E::LookedMovable, held(G1, 1), 1, Live(G1)),
        (Live(G1), E::LookedMovable, open(G2), 1, Detached),
        (Live(G1), E::LookedMovable, held(G2, 1), 1, Detached),
        (Live(G1), E::LookedMovable, held(G1, 1), 11, Detached),
        (
            Live(G1),
            E::Looked,
            held(G1, 1),
            11,
            Closing(R::HeldTooLong),
        ),
        (Live(G1), E::Parted, open(G1), 1, Detached),
        (Live(G1), E::Parted, held(G2, 1), 1, Detached),
        (Live(G1), E::Parted, ending, 1, Closing(R::Shutdown)),
        // What would go on without its upstream ends instead.
        (Live(G1), E::Parted, draining, 1, Closing(R::Shutdown)),
        (Live(G1), E::DialFailed, draining, 1, Closing(R::Shutdown)),
        (
            Live(G1),
            E::LookedMovable,
            Outlook {
                ending: Ending::Draining,
                ..open(G2)
            },
            1,
            Closing(R::Shutdown),
        ),
        (Live(G1), E::LookedMovable, draining, 1, Live(G1)),
        (Detached, E::Looked, draining, 99, Closing(R::Shutdown)),
        (Detached, E::Spoke, draining, 99, Closing(R::Shutdown)),
        (Failing, E::Looked, draining, 99, Closing(R::Shutdown)),
        (Live(G1), E::DialFailed, open(G1), 1, Dialing(G1)),
        (Live(G1), E::DialFailed, open(G2), 1, Detached),
        (Live(G1), E::DialFailed, held(G1, 1), 1, Detached),
        // "0s" closes instead of holding, and still moves where nobody has to wait.
        (
            Live(G1),
            E::LookedMovable,
            impatient(held(G1, 1)),
            1,
            Closing(R::HeldTooLong),
        ),
        (Live(G1), E::LookedMovable, impatient(open(G2)), 1, Detached),
        (
            Detached,
            E::Spoke,
            impatient(held(G1, 1)),
            1,
            Closing(R::HeldTooLong),
        ),
        // Idle ones wait for their clients, however long.
        (Detached, E::Looked, held(G1, 1), 99, Detached),
        (Detached, E::Looked, open(G2), 99, Detached),
        (
            Detached,
            E::ClientLeft,
            open(G2),
            99,
            Closing(R::ClientClosed),
        ),
        (Detached, E::Looked, ending, 99, Closing(R::Shutdown)),
        (Detached, E::Spoke, open(G2), 99, Dialing(G2)),
        (Detached, E::Spoke, held(G2, 95), 99, Waiting),
        (Detached, E::SpokeBefore, open(G2), 99, Dialing(G2)),
        // Where others have waited in vain, nobody begins to wait.
        (Detached, E::Spoke, held(G2, 89), 99, Failing),
        (Waiting, E::Looked, held(G1, 5), 14, Waiting),
        (Waiting, E::Looked, held(G1, 5), 15, Failing),
        (Waiting, E::Looked, nobody, 10, Failing),
        (
            Waiting,
            E::ClientLeft,
            nobody,
            1,
            Closing(R::ClientLeftWaiting),
        ),
        (Dialing(G1), E::LineTooLong, open(G1), 1, Failing),
        (
            Dialing(G1),
            E::Ended(R::ReplayRefused),
            open(G1),
            1,
            Closing(R::ReplayRefused),
        ),
        (Failing, E::Looked, held(G1, 1), 99, Failing),
        (Failing, E::Looked, open(G2), 99, Dialing(G2)),
        (
            Failing,
            E::ClientLeft,
            held(G1, 1),
            99,
            Closing(R::ClientLeftWaiting),
        ),
        (Failing, E::Looked, ending, 99, Closing(R::Shutdown)),
    ] {
        let mut life = Life {
            stage,
            ..Life::new(at(0), true)
        };
        let got = life.on(event, &outlook, at(second));
        assert_eq!(got, next, "{stage:?} {event:?} {outlook:?} at {second} s");
    }
}

#[test]
fn a_master_that_cannot_be_dialled_is_tried_on_while_requests_fail() {
    let mut life = Life {
        stage: Stage::Dialing(G1),
        ..Life::new(at(0), true)
    };
    assert_eq!(
        life.on(Event::DialFailed, &open(G1), at(1)),
        Stage::Dialing(G1)
    );
    assert_eq!(
        life.on(Event::DialFailed, &open(G1), at(11)),
        Stage::Failing
    );
    assert_eq!(
        life.on(Event::Looked, &open(G1), at(12)),
        Stage::Dialing(G1)
    );
    assert_eq!(
        life.on(Event::DialFailed, &open(G1), at(12)),
        Stage::Failing
    );
    assert_eq!(
        life.on(Event::Looked, &open(G1), at(13)),
        Stage::Dialing(G1)
    );
    assert_eq!(life.on(Event::Dialled, &open(G1), at(13)), Stage::Live(G1));
    // Served: the next failure is the first again.
    life.on(Event::Parted, &open(G1), at(20));
    life.on(Event::Spoke, &open(G1), at(20));
    assert_eq!(
        life.on(Event::DialFailed, &open(G1), at(21)),
        Stage::Dialing(G1)
    );
}

#[test]
fn a_master_that_takes_connections_and_ends_them_is_tried_for_hold_max() {
    let mut life = Life {
        stage: Stage::Dialing(G1),
        ..Life::new(at(0), true)
    };
    for second in 1..11 {
        let stage = life.on(Event::Dialled, &open(G1), at(second));
        assert_eq!(stage, Stage::Live(G1), "at {second} s");
        let stage = life.on(Event::DialFailed, &open(G1), at(second));
        assert_eq!(stage, Stage::Dialing(G1), "at {second} s");
    }
    life.on(Event::Dialled, &open(G1), at(11));
    let stage = life.on(Event::DialFailed, &open(G1), at(11));
    assert_eq!(stage, Stage::Failing);
}

#[test]
fn dials_fail_for_hold_max_since_the_first() {
    let mut life = life(Stage::Dialing(G1));
    for second in 20..30 {
        let stage = life.on(Event::DialFailed, &open(G1), at(second));
        assert_eq!(stage, Stage::Dialing(G1), "at {second} s");
    }
    let stage = life.on(Event::DialFailed, &open(G1), at(30));
    assert_eq!(stage, Stage::Closing(CloseReason::DialFailed));
}

#[test]
fn whoever_was_not_served_on_arrival_was_kept_waiting() {
    for (event, outlook, kept) in [
        (Event::Looked, open(G1), false),
        (Event::Looked, open(G2), false),
        (Event::Dialled, open(G1), false),
        (Event::InLine, open(G1), true),
        (Event::DialFailed, open(G1), true),
        (Event::Looked, held(G1, 1), true),
    ] {
        let mut life = life(Stage::Dialing(G1));
        life.on(event, &outlook, at(1));
        assert_eq!(life.kept_waiting, kept, "{event:?} {outlook:?}");
    }
    for (event, kept) in [(Event::Spoke, false), (Event::SpokeBefore, true)] {
        let mut life = life(Stage::Detached);
        life.on(event, &open(G2), at(1));
        assert_eq!(life.kept_waiting, kept, "{event:?}");
    }
}

#[test]
fn a_panic_ends_one_session_and_gives_back_what_it_had() {
    let house = house();
    let defect = catch_unwind(AssertUnwindSafe(|| {
        let seat = Seat::new(&house);
        let _claim = seat.house.claim(G1);
        let _place = seat.house.wait();
        let _slot = seat.house.free_dial_slot();
        panic!("a defect made for this test");
    }));
    assert!(defect.is_err());
    let mut sum = tally::Sum::default();
    sum.add(&house.tally);
    assert_eq!(sum.closed_by(CloseReason::Panicked), 1);
    assert_eq!((sum.active(), sum.waiting), (0, 0));
    let slots: Vec<_> = std::iter::from_fn(|| house.free_dial_slot()).collect();
    assert_eq!(slots.len(), DIALS_AT_ONCE);
}

#[test]
fn a_line_counts_what_happened_for_its_own_reason() {
    let house = house();
    let lines = logged(|| {
        for _ in 0..3 {
            Seat::new(&house).close(CloseReason::HeldTooLong);
        }
        Seat::new(&house).close(CloseReason::TooManyWaiting);
    });
    for reason in [CloseReason::HeldTooLong, CloseReason::TooManyWaiting] {
        let line = lines.lines().find(|line| line.contains(reason.label()));
        let line = line.unwrap_or_else(|| panic!("no {reason} in {lines}"));
        assert!(line.contains("count=1"), "{line}");
    }
}

#[tokio::test]
async fn an_idle_session_is_small() {
    /// Bytes of a session's task, sockets' own memory apart: ten thousand idle ones are to fit in 8 MB.
    const SESSION_LIMIT: usize = 768;

    let house = house();
    let (client, _peer) = UnixStream::pair().expect("pair");
    let session = run(Seat::new(&house), Stream::Unix(client));
    let size = size_of_val(&session);
    assert!(size <= SESSION_LIMIT, "{size} bytes");
}

#[test]
fn after_a_dial_without_a_port_nobody_dials_that_master_for_a_while() {
    let house = house();
    let state = serving(G1);
    let master = state.master.expect("it serves");
    house.dial_failed(&master, G1, &DialError::Refused);
    assert!(!house.has_no_port(G1), "a refusal says nothing of ports");
    house.dial_failed(&master, G1, &DialError::NoPort);
    assert!(house.has_no_port(G1));
    assert!(
        !house.has_no_port(G2),
        "towards another master all are free"
    );
    let deadline = now() + HOLD;
    while house.has_no_port(G1) {
        assert!(now() < deadline, "it is tried again");
        std::thread::yield_now();
    }
    let counted = |error: &DialError| house.tally.dial_failures[error.index()].read();
    assert_eq!(counted(&DialError::NoPort), 1);
    assert_eq!(counted(&DialError::Refused), 1);
}

/// Counts how often a task would have been woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_bell_wakes_a_crowd_some_at_a_time() {
    let (_publisher, house) = house_of();
    let woken = Arc::new(Woken::default());
    let waker = Arc::clone(&woken).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut crowd: Vec<Seat> = (0..ROUSED_AT_ONCE * 2 + 10)
        .map(|_| Seat::new(&house))
        .collect();
    for seat in &mut crowd {
        let mut sitting = std::pin::pin!(seat.sit());
        assert!(sitting.as_mut().poll(&mut cx).is_ready());
    }
    // Places in between that were left are no turn of anybody's.
    crowd.remove(3);
    // The last has an upstream to give up, and comes first.
    let last = crowd.pop().expect("a crowd");
    last.note_upstream(true);
    let mut attending = std::pin::pin!(Rc::clone(&house).attend());
    for expected in [
        ROUSED_AT_ONCE + 1,
        ROUSED_AT_ONCE * 2 + 1,
        ROUSED_AT_ONCE * 2 + 9,
    ] {
        let mut idle = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(attending.as_mut().poll(&mut idle).is_pending());
        assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), expected);
    }
    assert!(
        crowd.iter_mut().all(Seat::has_turned),
        "whoever was not woken yet knows, too"
    );
}
