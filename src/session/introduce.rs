//! Telling a new upstream who it is for, before its client has it: the proxy's own login, and what its client told the one before.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::close::CloseReason;
use super::house::{House, Seat};
use super::journal::Journal;
use super::login::Login;
use super::replay::{Answer, Failure, Replay};
use super::run::{Connected, observe, while_dialing};
use super::tracker::Tracker;
use super::{Event, Life};
use crate::topology::publish::Leave;

/// Longest time a new upstream takes to hear and answer a replay.
const REPLAY_LIMIT: Duration = Duration::from_secs(1);

/// Makes a new upstream like the one before, if there was one, or just logs it in; and gives what it said already that is the
/// client's. `None`: the stage says what now.
pub(super) async fn introduce(
    seat: &mut Seat,
    life: &mut Life,
    mut tracker: Option<&mut Tracker>,
    login: Option<Arc<Login>>,
    connected: &mut Connected,
) -> Option<Vec<u8>> {
    let mut heard = Vec::new();
    let generation = connected.claim.generation();
    let nothing = Journal::default();
    let journal = tracker
        .as_ref()
        .map_or(&nothing, |tracker| tracker.journal());
    if let Some(replay) = Replay::new(journal, login.as_ref().map(|login| login.words())) {
        // The replay is a write like any other.
        if seat.house.gate().leave(connected.claim.pass()) != Leave::Open {
            observe(seat, life, Event::Looked);
            return None;
        }
        let house = Rc::clone(&seat.house);
        let telling = timeout(REPLAY_LIMIT, tell(&replay, connected, &house));
        let failed = match while_dialing(seat, life, generation, telling).await? {
            Ok(Ok((Answer::Done, messages))) => {
                heard = messages;
                None
            }
            Ok(Ok((Answer::Failed(why), _))) => Some((why.label(), Some(why))),
            Ok(Ok((Answer::NotYet, _)) | Err(_)) => Some(("closed", None)),
            Err(_) => Some(("timeout", None)),
        };
        if let Some((label, why)) = failed {
            let again = why.is_none_or(Failure::is_transient);
            let event = if why.is_some_and(Failure::is_of_login) {
                seat.house.login_refused(label);
                Event::Ended(CloseReason::LoginRefused)
            } else {
                seat.house.replay_failed(label, again);
                if again {
                    Event::DialFailed
                } else {
                    Event::Ended(CloseReason::ReplayRefused)
                }
            };
            observe(seat, life, event);
            return None;
        }
    }
    if life.served
        && let Some(tracker) = &mut tracker
    {
        tracker.moved();
    }
    Some(heard)
}

/// Writes a replay and hears what is said to it, and behind it.
async fn tell(
    replay: &Replay,
    connected: &mut Connected,
    house: &House,
) -> io::Result<(Answer, Vec<u8>)> {
    let Connected { upstream, claim } = connected;
    // Behind a wait things may have changed. The bell rings when that does again.
    let may_write = || house.gate().leave(claim.pass()) == Leave::Open;
    let mut rest = replay.request();
    while !rest.is_empty() {
        let write = poll_fn(|cx| {
            if may_write() {
                upstream.poll_write(cx, rest)
            } else {
                Poll::Pending
            }
        });
        let n = write.await?;
        rest = &rest[n..];
        if house.gate().has_passed(claim.pass()) {
            house.tally.passed_bytes.add(n as u64);
        }
    }
    let mut check = replay.check().of_replica(house.is_of_replica());
    loop {
        let answer = poll_fn(|cx| {
            if upstream.kept_back() > 0 && may_write() {
                // What is wrong with it is heard below.
                let _ = upstream.poll_flush(cx);
            }
            let mut buffer = house.buffer.borrow_mut();
            upstream
                .poll_read(cx, &mut buffer)
                .map_ok(|n| (n, check.take(&buffer[..n])))
        });
        match answer.await? {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (_, Answer::NotYet) => {}
            (_, answer) => return Ok((answer, check.into_heard())),
        }
    }
}
