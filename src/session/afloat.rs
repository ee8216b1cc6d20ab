//! Sessions without an upstream (`on_switch = "move"`): idle ones that wait for their clients to speak, subscribers that
//! do not wait for that, and those that had no
//! master for too long and are answered by the proxy itself.

use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Instant, sleep, sleep_until};

use super::budget::{Line, SHARE};
use super::close::CloseReason;
use super::house::{House, Seat};
use super::relay::Carried;
use super::run::observe;
use super::watch::Watch;
use super::{Event, Life, Stage};
use crate::net::clock::now;
use crate::resp::Request;
use crate::topology::Phase;

/// Longest request that is answered in a master's place. Longer ones are not collected.
const REQUEST_MAX: usize = 16 * 1024;
/// Bytes of answers that the client has not taken; then it gets no more, and is not read.
const ANSWERS_MAX: usize = 16 * 1024;
/// A subscriber whose upstream lived shorter than this is without one for as long: a master that closes each connection at
/// once is not asked for the next in a loop.
const SUBSCRIBER_REST: Duration = Duration::from_millis(500);
/// A read that is sent again is so after this: it has one chance, which is not to be spent on a master that is just ending.
const REPEAT_REST: Duration = Duration::from_millis(250);
/// How often a master that is published and cannot be dialled is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Until the client speaks or leaves, or at once when it listens. What it is owed from before is paid meanwhile.
pub(super) async fn linger<W: Watch>(seat: &mut Seat, life: &mut Life, carried: &mut Carried<W>) {
    let spoke = if std::mem::take(&mut carried.kept_waiting) {
        Event::SpokeBefore
    } else {
        Event::Spoke
    };
    let repeats = carried.watch.is_repeating();
    let pause = if repeats {
        REPEAT_REST
    } else {
        SUBSCRIBER_REST.saturating_sub(now().since(life.since))
    };
    let rest = sleep(pause);
    tokio::pin!(rest);
    let mut line = Line::default();
    while life.stage == Stage::Detached {
        let event = poll_fn(|cx| {
            if seat.has_turned() {
                if seat.makes_room(false, carried) {
                    return Poll::Ready(Event::Ended(CloseReason::NoRequest));
                }
                // What waits, or is owed, is not for another process.
                let idle = spoke == Event::Spoke && !repeats;
                if idle && seat.house.lets_go() && is_empty(carried) {
                    return Poll::Ready(Event::Ended(CloseReason::HandedOver));
                }
                return Poll::Ready(Event::Looked);
            }
            if !carried.unsent.is_empty() && !repeats {
                return Poll::Ready(spoke);
            }
            if let Break(reason) = pay(carried, cx, &seat.house) {
                return Poll::Ready(Event::Ended(reason));
            }
            if (repeats || carried.watch.listens())
                && (pause.is_zero() || rest.as_mut().poll(cx).is_ready())
            {
                return Poll::Ready(spoke);
            }
            if repeats {
                // What its client says meanwhile, or that it has left, is looked at behind the pause.
                return Poll::Pending;
            }
            match listen(carried, cx, &seat.house, &mut line) {
                Poll::Ready(Heard::Something) => Poll::Ready(spoke),
                Poll::Ready(Heard::End) => Poll::Ready(Event::ClientLeft),
                Poll::Ready(Heard::Reset) => Poll::Ready(Event::Ended(CloseReason::ClientReset)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        observe(seat, life, event);
    }
}

/// Until there is a master to try. Each complete request of the ordinary kind is answered with an error that says that
/// it was not executed; one that changes the session is not, as those behind it would then mean something else.
pub(super) async fn fail_fast<W: Watch>(
    seat: &mut Seat,
    life: &mut Life,
    carried: &mut Carried<W>,
) {
    let hold_max = seat.house.state().hold_max;
    // A published master that could not be dialled is tried again after a while; a new one at once.
    let retry = sleep_until(Instant::now() + RETRY);
    let patience = sleep_until(Instant::now() + hold_max);
    tokio::pin!(retry, patience);
    let mut line = Line::default();
    while life.stage == Stage::Failing {
        let event = poll_fn(|cx| {
            let has_turned = seat.has_turned();
            if has_turned && seat.makes_room(false, carried) {
                return Poll::Ready(Event::Ended(CloseReason::NoRequest));
            }
            if has_turned || retry.as_mut().poll(cx).is_ready() {
                retry.as_mut().reset(Instant::now() + RETRY);
                return Poll::Ready(Event::Looked);
            }
            loop {
                let all = match answer(carried, without_master(seat, life), &seat.house) {
                    Break(reason) => return Poll::Ready(Event::Ended(reason)),
                    Continue(all) => all,
                };
                if !carried.owed.is_empty() {
                    seat.has_asked();
                }
                if let Break(reason) = pay(carried, cx, &seat.house) {
                    return Poll::Ready(Event::Ended(reason));
                }
                if !carried.owed.is_empty() {
                    return Poll::Pending;
                }
                if !all {
                    continue;
                }
                if carried.unsent.is_empty() {
                    carried.share = None;
                    patience.as_mut().reset(Instant::now() + hold_max);
                } else if carried.unsent.len() > REQUEST_MAX
                    || patience.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Event::Ended(CloseReason::HeldTooLong));
                }
                match listen(carried, cx, &seat.house, &mut line) {
                    Poll::Ready(Heard::Something) => {}
                    Poll::Ready(Heard::End) => return Poll::Ready(Event::ClientLeft),
                    Poll::Ready(Heard::Reset) => {
                        return Poll::Ready(Event::Ended(CloseReason::ClientReset));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await;
        observe(seat, life, event);
    }
}

/// For how long there has been none, whenever this client came.
fn without_master(seat: &Seat, life: &Life) -> Duration {
    let held = match seat.house.state().phase {
        Phase::Held { since, .. } => now().since(since),
        Phase::NoMaster | Phase::Serving => Duration::ZERO,
    };
    held.max(now().since(life.since))
}

/// Answers what can be answered truthfully. False when there is more of that than answers are kept.
fn answer<W: Watch>(
    carried: &mut Carried<W>,
    waited: Duration,
    house: &House,
) -> ControlFlow<CloseReason, bool> {
    if carried.fresh && !carried.unsent.is_empty() && !carried.meets_unsent()? {
        return Continue(true);
    }
    let Some(tracker) = carried.watch.tracker() else {
        return Break(CloseReason::HeldTooLong);
    };
    // Its last master may have executed it: that it was not could be a lie.
    if tracker.is_repeating() {
        return Break(CloseReason::HeldTooLong);
    }
    let why = if house.is_paused() {
        "paused"
    } else if house.leads_to_replicas() {
        "no usable replica"
    } else {
        "no verified master"
    };
    let mut done = 0;
    let mut verdict = Continue(true);
    for request in tracker.ahead(&carried.unsent) {
        if carried.owed.len() >= ANSWERS_MAX {
            verdict = Continue(false);
            break;
        }
        match request.map(|unsent| (unsent.request, unsent.end)) {
            Ok((Request::Silent, end)) => done = end,
            Ok((Request::Ordinary, end)) => {
                done = end;
                house.tally.refused.add(1);
                let error = format!(
                    "-LOADING switchmaster: {why} for {} ms, command not executed\r\n",
                    waited.as_millis()
                );
                carried.owed.extend_from_slice(error.as_bytes());
            }
            Ok((Request::Command(_), _)) | Err(_) => {
                verdict = Break(CloseReason::HeldTooLong);
                break;
            }
        }
    }
    carried.unsent.advance(done);
    if carried.unsent.is_empty() {
        carried.unsent = BytesMut::new();
    }
    verdict
}

/// All that there is of it can be told.
fn is_empty<W: Watch>(carried: &Carried<W>) -> bool {
    !carried.client.is_tls()
        && carried.unsent.is_empty()
        && carried.owed.is_empty()
        && carried.watch.can_be_told()
}

/// Hands over what the client is owed, as far as it takes it.
fn pay<W>(
    carried: &mut Carried<W>,
    cx: &mut Context<'_>,
    house: &House,
) -> ControlFlow<CloseReason> {
    match poll_paid(carried, cx, house) {
        Poll::Ready(Err(_)) => Break(CloseReason::ClientReset),
        Poll::Ready(Ok(())) | Poll::Pending => Continue(()),
    }
}

/// Ready when the client has taken all that it is owed, and that is with the kernel; or takes nothing any more.
pub(super) fn poll_paid<W>(
    carried: &mut Carried<W>,
    cx: &mut Context<'_>,
    house: &House,
) -> Poll<io::Result<()>> {
    while !carried.owed.is_empty() {
        let n = ready!(carried.client.poll_write(cx, &carried.owed))?;
        house.tally.bytes_down.add(n as u64);
        carried.owed.advance(n);
    }
    carried.owed = BytesMut::new();
    carried.client.poll_flush(cx)
}

/// What came from a client.
enum Heard {
    Something,
    End,
    Reset,
}

/// Reads a client, as far as there is room to keep what it says.
fn listen<W>(
    carried: &mut Carried<W>,
    cx: &mut Context<'_>,
    house: &Rc<House>,
    line: &mut Line,
) -> Poll<Heard> {
    let share = match carried.share.take() {
        Some(share) => share,
        None => Box::new(ready!(line.poll(cx, house))),
    };
    let mut buffer = house.buffer.borrow_mut();
    let most = SHARE.saturating_sub(carried.unsent.len());
    let most = most.clamp(1, buffer.len());
    let read = carried.client.poll_read(cx, &mut buffer[..most]);
    if let Poll::Ready(Ok(n)) = read {
        carried.unsent.extend_from_slice(&buffer[..n]);
    }
    // Whoever says nothing needs none.
    if !carried.unsent.is_empty() {
        carried.share = Some(share);
    }
    read.map(|read| match read {
        Ok(0) => Heard::End,
        Ok(_) => Heard::Something,
        Err(_) => Heard::Reset,
    })
}
