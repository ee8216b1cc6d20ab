//! Does what the stage of a session says: waits, dials, relays, takes leave.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep, sleep_until};

use super::close::CloseReason;
use super::farewell::farewell;
use super::house::{Claim, DialSlot, Seat};
use super::relay::{Relay, Remains};
use super::{Event, Life, Stage};
use crate::net::backoff::Backoff;
use crate::net::clock::now;
use crate::net::socket::{read_closed, reset_on_close};
use crate::net::stream::Stream;
use crate::topology::Generation;
use crate::topology::publish::{Pass, Reader};
use crate::upstream::{self, dial};

/// Shortest and longest wait between two dials of one session.
const REDIAL_FLOOR: Duration = Duration::from_millis(50);
const REDIAL_CAP: Duration = Duration::from_millis(500);
/// How often a waiting client that has sent something is asked whether it is still there; one that has not is
/// noticed at once.
const LEFT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a newcomer is in line to dial before its end is taken for giving up, rather than for the end of a
/// request (`printf | nc -N`) that is to be served.
const IN_LINE_GRACE: Duration = Duration::from_secs(1);

/// The whole life of one client; never takes longer to end than [`farewell`]'s limits.
pub(crate) async fn run(mut seat: Seat, client: Stream) {
    seat.sit().await;
    let mut life = Life::new(now());
    observe(&seat, &mut life, Event::Looked);
    // Off the hot path and larger than the relay: in a box, so that an idle session does not pay for it.
    let connected = Box::pin(connect(&mut seat, &mut life, &client)).await;
    let (client, owed) = match connected {
        Ok(Connected {
            upstream,
            pass,
            claim,
        }) => {
            let relay = Relay::new(client, upstream, pass);
            live(&mut seat, &mut life, claim, relay).await
        }
        Err(reason) => {
            seat.close(reason);
            (client, BytesMut::new())
        }
    };
    if life.stage != Stage::Closing(CloseReason::ClientReset) {
        Box::pin(farewell(&mut seat, client, owed)).await;
    }
}

/// Looks at the published state and moves on.
fn observe(seat: &Seat, life: &mut Life, event: Event) -> Stage {
    let outlook = seat.house.outlook(&seat.house.state());
    life.on(event, &outlook, now())
}

/// A connection to a master that was open when it was made.
#[derive(Debug)]
struct Connected {
    upstream: Stream,
    pass: Pass,
    claim: Claim,
}

/// From arrival to a connection to the master that is published when it is ready.
async fn connect(
    seat: &mut Seat,
    life: &mut Life,
    client: &Stream,
) -> Result<Connected, CloseReason> {
    let mut backoff = Backoff::new(REDIAL_FLOOR, REDIAL_CAP);
    let mut last = None;
    loop {
        match life.stage {
            Stage::Waiting => wait(seat, life, client).await,
            Stage::Dialing(generation) => {
                if last.replace(generation) != Some(generation) {
                    backoff.reset();
                }
                if let Some(connected) = try_dial(seat, life, client, generation).await {
                    return Ok(connected);
                }
                if life.stage == Stage::Dialing(generation) {
                    pause(seat, life, client, backoff.next(fastrand::f64())).await;
                }
            }
            Stage::Closing(reason) => return Err(reason),
            Stage::Live(_) => unreachable!("only a dial makes a session live, and it has returned"),
        }
    }
}

/// Until there is an open master, or the client has waited long enough or left.
async fn wait(seat: &mut Seat, life: &mut Life, client: &Stream) {
    let Some(_place) = seat.house.wait() else {
        observe(seat, life, Event::WaitRefused);
        return;
    };
    while life.stage == Stage::Waiting {
        let state = seat.house.state();
        let left = life.patience(&seat.house.outlook(&state), now());
        let event = tokio::select! {
            biased;
            () = seat.turned() => Event::Looked,
            () = departure(client) => Event::ClientLeft,
            () = sleep(left) => Event::Looked,
        };
        let stage = observe(seat, life, event);
        if matches!(stage, Stage::Dialing(_)) && read_closed(client) {
            observe(seat, life, Event::ClientLeft);
        }
    }
}

/// Tries once. `None`: the stage says what now.
async fn try_dial(
    seat: &mut Seat,
    life: &mut Life,
    client: &Stream,
    generation: Generation,
) -> Option<Connected> {
    let _slot = match seat.house.free_dial_slot() {
        Some(slot) => slot,
        // In a box, so that a dial that finds a slot does not pay for the line.
        None => Box::pin(stand_in_line(seat, life, client)).await?,
    };
    let state = seat.house.state();
    // A swap since the stage was chosen: look again.
    let (Some(master), Some(addr), true) = (
        state.master.as_ref(),
        state.verified_at,
        state.generation == generation,
    ) else {
        observe(seat, life, Event::Looked);
        return None;
    };
    let claim = seat.house.claim(generation);
    let options = upstream::Options {
        connect_timeout: seat.house.config.connect_timeout,
        user_timeout: seat.house.config.upstream_user_timeout,
    };
    let mut dialling = pin!(dial(addr, options));
    loop {
        tokio::select! {
            biased;
            () = seat.turned() => {
                if observe(seat, life, Event::Looked) != Stage::Dialing(generation) {
                    return None;
                }
            }
            dialled = &mut dialling => match dialled {
                Ok(upstream) => {
                    // On a first dial an end behind a request is in order (`printf | nc -N`); a client that was
                    // kept waiting and has ended gave up, and what it sent must not run any more.
                    let left = life.kept_waiting && read_closed(client);
                    let event = if left { Event::ClientLeft } else { Event::Dialled };
                    let stage = observe(seat, life, event);
                    return (stage == Stage::Live(generation)).then(|| Connected {
                        upstream,
                        pass: Reader::pass(&state),
                        claim,
                    });
                }
                Err(error) => {
                    seat.house.dial_failed(master, &error);
                    observe(seat, life, Event::DialFailed);
                    return None;
                }
            },
        }
    }
}

/// Until it is this session's turn to dial. `None`: the stage says what now.
async fn stand_in_line(seat: &mut Seat, life: &mut Life, client: &Stream) -> Option<DialSlot> {
    let stage = life.stage;
    let begun = Instant::now();
    let tried = life
        .first_failure
        .map_or(Duration::ZERO, |first| now().since(first));
    // Without any hold a line of some microseconds is still no reason to close: as long as a dial may take.
    let patience = seat
        .house
        .state()
        .hold_max
        .max(seat.house.config.connect_timeout);
    let end = begun + patience.saturating_sub(tried);
    let mut slot = pin!(seat.house.dial_slot());
    let mut grace = pin!(sleep_until(begun + IN_LINE_GRACE));
    let mut departed = pin!(departure(client));
    while life.stage == stage {
        let event = tokio::select! {
            biased;
            () = seat.turned() => Event::Looked,
            () = &mut departed, if life.kept_waiting => Event::ClientLeft,
            slot = &mut slot => return Some(slot),
            () = sleep_until(end) => Event::LineTooLong,
            () = &mut grace, if !life.kept_waiting => Event::InLine,
        };
        observe(seat, life, event);
    }
    None
}

/// Between two dials of the same generation.
async fn pause(seat: &mut Seat, life: &mut Life, client: &Stream, wait: Duration) {
    let stage = life.stage;
    let end = Instant::now() + wait;
    while life.stage == stage {
        let event = tokio::select! {
            biased;
            () = seat.turned() => Event::Looked,
            () = departure(client) => Event::ClientLeft,
            () = sleep_until(end) => return,
        };
        observe(seat, life, event);
    }
}

/// Relays until the session is over and the upstream is closed; gives the client and what it is owed.
pub(super) async fn live(
    seat: &mut Seat,
    life: &mut Life,
    claim: Claim,
    mut relay: Relay,
) -> (Stream, BytesMut) {
    let reason = poll_fn(|cx| {
        if seat.has_turned() {
            if let Stage::Closing(reason) = observe(seat, life, Event::Looked) {
                return Poll::Ready(reason);
            }
            relay.look(&seat.house);
        }
        relay.poll(cx, &seat.house)
    })
    .await;
    observe(seat, life, Event::Ended(reason));
    seat.close(reason);
    let Remains {
        client,
        upstream,
        owed,
    } = relay.into_remains();
    if reason == CloseReason::Switched {
        seat.cut();
    }
    if reason.resets_upstream() {
        // Fails only on a descriptor that is no socket.
        let _ = reset_on_close(&upstream);
    }
    drop(upstream);
    drop(claim);
    (client, owed)
}

/// Until the client has closed or half-closed.
async fn departure(client: &Stream) {
    loop {
        if client.readable().await.is_err() || read_closed(client) {
            return;
        }
        // Unread bytes make the client readable for good; they say nothing of what comes behind them.
        sleep(LEFT_CHECK_INTERVAL).await;
    }
}
