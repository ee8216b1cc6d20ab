//! Does what the stage of a session says: waits, dials, relays, takes leave.

use std::future::poll_fn;
use std::ops::ControlFlow::{Break, Continue};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::{Instant, sleep, sleep_until};

use super::afloat::{fail_fast, linger, poll_paid};
use super::claim::Claim;
use super::close::{CloseReason, Fault};
use super::farewell::farewell;
use super::handing::Brought;
use super::house::{House, Seat};
use super::introduce::introduce;
use super::places::DialSlot;
use super::relay::{Carried, Relay};
use super::tracker::{Rules, Tracker};
use super::watch::{Blind, Watch};
use super::{Ending, Event, Life, OnSwitch, Stage};
use crate::net::backoff::Backoff;
use crate::net::clock::now;
use crate::net::socket::{read_closed, reset_on_close};
use crate::net::stream::Stream;
use crate::topology::Generation;
use crate::upstream::{self, DialError, dial};

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
pub(crate) fn run(seat: Seat, client: Stream) -> impl Future<Output = ()> {
    match seat.house.config().on_switch {
        OnSwitch::Close => Either::Left(serve(seat, Carried::new(client, Blind))),
        OnSwitch::Move => {
            let tracker = Tracker::new(rules(&seat.house));
            Either::Right(serve(seat, Carried::new(client, tracker)))
        }
    }
}

/// What trackers of this house have to know.
pub(super) fn rules(house: &House) -> Rules {
    let config = house.config();
    Rules {
        login: house.login().is_some(),
        replay_auth: config.replay_auth,
        pubsub: config.pubsub == OnSwitch::Move,
        resend_reads: config.resend_reads,
    }
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps room for what it was called with beside what it makes of it: half as much memory again for \
              each idle session"
)]
pub(super) fn serve<W: Watch>(mut seat: Seat, mut carried: Carried<W>) -> impl Future<Output = ()> {
    async move {
        seat.sit().await;
        if seat.brought.is_some() && !carried.fresh {
            // With no request begun, or it would not have been handed over: it has asked for something.
            seat.has_asked();
        }
        let mut life = Life::new(now(), W::MOVES);
        seat.begin(&mut life);
        let reason = loop {
            if seat.return_to_lobby(&life) {
                match life.stage {
                    // There is time to answer before it is tried again, even if the lane that failed is there still.
                    Stage::Failing => look(&mut seat, &mut life, Event::Looked),
                    _ => observe(&mut seat, &mut life, Event::Looked),
                };
            }
            // What is off the hot path is larger than the relay: in boxes, so that an idle session does not pay for it.
            match life.stage {
                Stage::Waiting | Stage::Dialing(_) | Stage::Live(_) => {
                    if let Some(connected) =
                        Box::pin(connect(&mut seat, &mut life, &mut carried)).await
                    {
                        live(&mut seat, &mut life, connected, &mut carried).await;
                    }
                }
                Stage::Detached => Box::pin(linger(&mut seat, &mut life, &mut carried)).await,
                Stage::Failing => Box::pin(fail_fast(&mut seat, &mut life, &mut carried)).await,
                Stage::Closing(reason) => break reason,
            }
        };
        if reason == CloseReason::HandedOver {
            seat.leave(carried);
            return;
        }
        seat.close(reason);
        if reason != CloseReason::ClientReset {
            let Carried { client, owed, .. } = carried;
            seat.turned_away(reason, &client);
            Box::pin(farewell(&mut seat, client, owed)).await;
        }
    }
}

/// Looks at the published state and moves on.
pub(super) fn observe(seat: &mut Seat, life: &mut Life, event: Event) -> Stage {
    seat.seek(life.stage, event);
    look(seat, life, event)
}

/// The same, in the house where it is.
fn look(seat: &mut Seat, life: &mut Life, event: Event) -> Stage {
    let outlook = seat.house.outlook(&seat.house.state());
    let stage = life.on(event, &outlook, now());
    seat.note_upstream(matches!(stage, Stage::Dialing(_) | Stage::Live(_)));
    stage
}

/// A connection to a master that was open when it was made.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) upstream: Stream,
    pub(super) claim: Claim,
}

/// From the need for a master to a connection to the one that is published when it is ready. `None`: the stage says
/// what now.
async fn connect<W: Watch>(
    seat: &mut Seat,
    life: &mut Life,
    carried: &mut Carried<W>,
) -> Option<Connected> {
    if let Some(connected) = seat.arrived() {
        return Some(connected);
    }
    let mut backoff = Backoff::new(REDIAL_FLOOR, REDIAL_CAP);
    let mut last = None;
    if life.first_failure.is_some() {
        let wait = backoff.next(fastrand::f64());
        pause(seat, life, carried, wait).await;
    }
    loop {
        match life.stage {
            Stage::Waiting => wait(seat, life, carried).await,
            Stage::Dialing(_) if life.first_failure.is_some() && seat.seek_elsewhere() => {
                look(seat, life, Event::Looked);
                if let Stage::Dialing(generation) = life.stage {
                    // Its wait is over, wherever it goes.
                    last = Some(generation);
                    if let Some(connected) = try_dial(seat, life, carried, generation).await {
                        return Some(connected);
                    }
                    if life.stage == Stage::Dialing(generation) {
                        let wait = backoff.next(fastrand::f64());
                        pause(seat, life, carried, wait).await;
                    }
                }
            }
            Stage::Dialing(generation) => {
                if last.replace(generation) != Some(generation) {
                    backoff.reset();
                }
                if let Some(connected) = try_dial(seat, life, carried, generation).await {
                    return Some(connected);
                }
                if life.stage == Stage::Dialing(generation) {
                    let wait = backoff.next(fastrand::f64());
                    pause(seat, life, carried, wait).await;
                }
            }
            Stage::Closing(_) | Stage::Failing | Stage::Detached => return None,
            Stage::Live(_) => unreachable!("only a dial makes a session live, and it has returned"),
        }
    }
}

/// Until there is an open master, or the client has waited long enough or left.
async fn wait<W: Watch>(seat: &mut Seat, life: &mut Life, carried: &mut Carried<W>) {
    let Some(_place) = seat.house.wait() else {
        observe(seat, life, Event::WaitRefused);
        return;
    };
    let house = Rc::clone(&seat.house);
    while life.stage == Stage::Waiting {
        let state = seat.house.state();
        let left = life.patience(&seat.house.outlook(&state), now());
        let event = tokio::select! {
            biased;
            () = seat.turned() => {
                if seat.makes_room(false, carried) {
                    Event::Ended(CloseReason::NoRequest)
                } else {
                    Event::Looked
                }
            }
            () = paid_departure(carried, &house) => Event::ClientLeft,
            () = sleep(left) => Event::Looked,
        };
        let stage = observe(seat, life, event);
        if matches!(stage, Stage::Dialing(_)) && carried.client.has_left() {
            observe(seat, life, Event::ClientLeft);
        }
    }
}

/// Tries once. `None`: the stage says what now.
async fn try_dial<W: Watch>(
    seat: &mut Seat,
    life: &mut Life,
    carried: &mut Carried<W>,
    generation: Generation,
) -> Option<Connected> {
    let state = seat.house.state();
    // A swap since the stage was chosen: look again.
    if state.generation != generation {
        observe(seat, life, Event::Looked);
        return None;
    }
    let (upstream, claim, is_spare) = match seat.house.take_spare(generation) {
        Some((upstream, claim)) => (upstream, claim, true),
        None => {
            let (upstream, claim) = dial_new(seat, life, &carried.client, generation).await?;
            (upstream, claim, false)
        }
    };
    // Behind the dial: an upstream that began before a change of the login is known for that.
    let login = seat.house.login();
    if login.is_some()
        && let Some(tracker) = carried.watch.tracker()
    {
        tracker.logged_in();
    }
    // From here on in the order in which they have to be dropped.
    let mut connected = Connected { upstream, claim };
    let moves = life.served && W::MOVES;
    let mut heard = Vec::new();
    if moves || (login.is_some() && !is_spare) {
        // In a box, so that a first dial does not pay for it.
        let tracker = carried.watch.tracker();
        let introduced = Box::pin(introduce(seat, life, tracker, login, &mut connected)).await;
        let Some(introduced) = introduced else {
            // What is left of a replay must not reach a master that was passed meanwhile. Fails only on a descriptor that
            // is no socket.
            let _ = reset_on_close(&connected.upstream);
            return None;
        };
        heard = introduced;
    }
    // On a first dial an end behind a request is in order (`printf | nc -N`); a client that was kept waiting and has
    // ended gave up, and what it sent must not run any more.
    let left = life.kept_waiting && carried.client.has_left();
    let event = if left {
        Event::ClientLeft
    } else {
        Event::Dialled
    };
    let stage = observe(seat, life, event);
    if stage != Stage::Live(generation) {
        return None;
    }
    if moves {
        seat.house.tally.moved.add(1);
    }
    if !heard.is_empty() {
        // Messages: they say nothing of who is master.
        let _ = carried.watch.received(&heard);
        carried.owed.extend_from_slice(&heard);
    }
    Some(connected)
}

/// A connection that was made for this session. `None`: the stage says what now.
async fn dial_new(
    seat: &mut Seat,
    life: &mut Life,
    client: &Stream,
    generation: Generation,
) -> Option<(Stream, Claim)> {
    let _slot = match seat.house.free_dial_slot() {
        Some(slot) => slot,
        // In a box, so that a dial that finds a slot does not pay for the line.
        None => Box::pin(stand_in_line(seat, life, client)).await?,
    };
    let state = seat.house.state();
    let (Some(master), Some(addr), true) = (
        state.master.as_ref(),
        state.verified_at,
        state.generation == generation,
    ) else {
        observe(seat, life, Event::Looked);
        return None;
    };
    if seat.house.has_no_port(generation) {
        observe(seat, life, Event::DialFailed);
        return None;
    }
    if !seat.house.may_open_a_file() {
        let error = DialError::OutOfFiles;
        seat.house.dial_failed(master, generation, &error);
        observe(seat, life, Event::DialFailed);
        return None;
    }
    let claim = seat.house.claim(generation);
    let options = upstream::Options {
        connect_timeout: seat.house.config().connect_timeout,
        user_timeout: seat.house.config().upstream_user_timeout,
    };
    let tls = seat.house.upstream_tls();
    let tls = tls.as_deref().map(|tls| (tls, &master.host_port().host));
    let dialing = dial(addr, options, tls);
    match while_dialing(seat, life, generation, dialing).await? {
        Ok(upstream) => {
            seat.house.dialled(&claim);
            Some((upstream, claim))
        }
        Err(error) => {
            seat.house.dial_failed(master, generation, &error);
            observe(seat, life, Event::DialFailed);
            None
        }
    }
}

/// Does this unless the stage changes meanwhile.
pub(super) async fn while_dialing<T>(
    seat: &mut Seat,
    life: &mut Life,
    generation: Generation,
    doing: impl Future<Output = T>,
) -> Option<T> {
    let mut doing = pin!(doing);
    loop {
        tokio::select! {
            biased;
            () = seat.turned() => {
                if observe(seat, life, Event::Looked) != Stage::Dialing(generation) {
                    return None;
                }
            }
            done = &mut doing => return Some(done),
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
        .max(seat.house.config().connect_timeout);
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
async fn pause<W>(seat: &mut Seat, life: &mut Life, carried: &mut Carried<W>, wait: Duration) {
    let stage = life.stage;
    let end = Instant::now() + wait;
    let house = Rc::clone(&seat.house);
    while life.stage == stage {
        let event = tokio::select! {
            biased;
            () = seat.turned() => Event::Looked,
            () = paid_departure(carried, &house) => Event::ClientLeft,
            () = sleep_until(end) => return,
        };
        observe(seat, life, event);
    }
}

/// Relays until the upstream is closed; the stage says what now.
pub(super) async fn live<W: Watch>(
    seat: &mut Seat,
    life: &mut Life,
    connected: Connected,
    carried: &mut Carried<W>,
) {
    let Connected { upstream, claim } = connected;
    // What was kept for want of one is on its way.
    carried.share = None;
    let mut relay = Relay::new(carried, upstream, claim.pass());
    if claim.is_old() || seat.house.ending() != Ending::No {
        // The bell rang while it was made, or brought.
        relay.look(&seat.house, true);
    }
    let stage = poll_fn(|cx| {
        if seat.has_turned() {
            if seat.makes_room(relay.has_asked(), relay.carried()) {
                let mute = Event::Ended(CloseReason::NoRequest);
                return Poll::Ready(observe(seat, life, mute));
            }
            // One that is old is about to take another master, or an equal one.
            let lets_go = seat.house.lets_go() && !claim.is_old();
            if lets_go && relay.can_be_handed(&seat.house) {
                let handed = Event::Ended(CloseReason::HandedOver);
                return Poll::Ready(observe(seat, life, handed));
            }
            let movable = relay.can_leave(cx, &seat.house);
            let event = if movable {
                Event::LookedMovable
            } else {
                Event::Looked
            };
            let stage = observe(seat, life, event);
            if !matches!(stage, Stage::Live(_)) {
                return Poll::Ready(part_or_close(seat, life, &mut relay, cx, stage));
            }
            let retires = claim.is_old() || seat.is_to_leave(&relay);
            relay.look(&seat.house, retires);
        }
        let Poll::Ready(reason) = relay.poll(cx, &seat.house) else {
            if !relay.may_retire() {
                return Poll::Pending;
            }
            let stage = observe(seat, life, Event::Parted);
            return Poll::Ready(part_or_close(seat, life, &mut relay, cx, stage));
        };
        if !relay.is_leaving() && reason.is_of_upstream() && claim.is_young() {
            // Who is not looked into may have asked for its end (QUIT).
            seat.house.shun(W::MOVES || !relay.has_heard());
        }
        let parts = reason.may_part() && relay.can_leave(cx, &seat.house);
        let event = match (parts, relay.is_stillborn()) {
            (false, _) => Event::Ended(reason),
            (true, true) => Event::DialFailed,
            (true, false) => Event::Parted,
        };
        let stage = observe(seat, life, event);
        Poll::Ready(part_or_close(seat, life, &mut relay, cx, stage))
    })
    .await;
    if stage == Stage::Closing(CloseReason::HandedOver) {
        let (upstream, _) = relay.into_upstream();
        let leaving = Brought::leaving(Connected { upstream, claim });
        seat.brought = Some(Box::new(leaving));
        return;
    }
    if let Stage::Closing(reason) = stage {
        // A client that left by itself knows what it did.
        if reason.fault() != Fault::Client {
            seat.house.tally.unknown.add(relay.unheard());
        }
        if reason == CloseReason::UpstreamClosed && relay.is_leaving() {
            seat.house.tally.quit.add(1);
        }
        if let Some(why) = relay.retired() {
            seat.house.tally.retired[why.index()].add(1);
        }
    }
    if relay.has_heard() {
        seat.has_asked();
    }
    let may_keep = relay.can_part();
    let (upstream, spotless) = relay.into_upstream();
    let left = seat.house.state().generation != claim.generation();
    match stage {
        Stage::Detached if left => seat.kept(),
        Stage::Closing(CloseReason::Switched) => seat.cut(),
        _ => {}
    }
    let (upstream, claim) = match stage {
        Stage::Closing(CloseReason::ClientClosed) if spotless && !claim.is_old() => {
            match seat.house.keep_spare(upstream, claim) {
                None => return,
                Some(refused) => refused,
            }
        }
        _ => (upstream, claim),
    };
    let at_once = match stage {
        // Nothing is under way: an end in order would leave our port in TIME_WAIT for a minute (RFC 9293, 3.6.1).
        Stage::Closing(CloseReason::ClientClosed | CloseReason::Shutdown) => may_keep,
        Stage::Closing(reason) => reason.resets_upstream(),
        _ => true,
    };
    if at_once {
        // Fails only on a descriptor that is no socket.
        let _ = reset_on_close(&upstream);
    }
    drop(upstream);
    drop(claim);
}

/// A session that goes on without its upstream must have heard all that it said, and have a client.
fn part_or_close<W: Watch>(
    seat: &mut Seat,
    life: &mut Life,
    relay: &mut Relay<'_, W>,
    cx: &mut Context<'_>,
    stage: Stage,
) -> Stage {
    if stage != Stage::Detached {
        return stage;
    }
    if !relay.is_read_out(cx, &seat.house) {
        return observe(seat, life, Event::Ended(CloseReason::Switched));
    }
    match relay.part(&seat.house) {
        Continue(()) => stage,
        Break(reason) => observe(seat, life, Event::Ended(reason)),
    }
}

/// The same, once it has taken what it is owed from before: it has been acknowledged, and need not wait for a master.
async fn paid_departure<W>(carried: &mut Carried<W>, house: &House) {
    if poll_fn(|cx| poll_paid(carried, cx, house)).await.is_ok() {
        departure(&carried.client).await;
    }
}

/// Until the client has closed or half-closed.
pub(super) async fn departure(client: &Stream) {
    loop {
        if client.readable().await.is_err() || read_closed(client) {
            return;
        }
        // Unread bytes make the client readable for good; they say nothing of what comes behind them.
        sleep(LEFT_CHECK_INTERVAL).await;
    }
}
