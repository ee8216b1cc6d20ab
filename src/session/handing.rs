//! Sessions that leave for the process that follows this one, and sessions that come from the one before it; or come back, when an
//! upgrade comes to nothing.
//!
//! A session is asked when its seat is woken, as it is for a swap: nothing of this is looked at on the way of a request. It leaves
//! when all its bytes are with the kernel and what is known of it can be said; else it stays, and is asked again.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use futures_util::future::Either;
use tokio::task::yield_now;

use super::close::CloseReason;
use super::house::{House, Seat};
use super::luggage::{Packet, Upstream};
use super::relay::Carried;
use super::run::{Connected, observe, rules, serve};
use super::tracker::Tracker;
use super::watch::{Blind, Watch};
use super::{Event, Life, Stage};

/// Most sessions that leave in one go: nobody serves them until the other process does.
pub(crate) const LEAVING_AT_ONCE: usize = 64;
/// Turns of the worker in which those that were asked may answer. Who does not is asked again in the next round.
const TURNS: usize = 8;

/// Sessions that have let go and are not gone.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    open: Cell<bool>,
    packets: RefCell<Vec<Packet>>,
}

/// What a session comes with, or leaves with, beside its client: an upstream, if it has one.
#[derive(Debug)]
pub(super) struct Brought(Option<Connected>);

impl Brought {
    /// Nobody here reads or writes it any more.
    pub(super) const fn leaving(connected: Connected) -> Self {
        Self(Some(connected))
    }
}

/// Serves a session that nobody serves, from where it is. An upstream of a master that has passed is given up, or ends the session, as
/// by any switch. `None` when the kernel does not watch its sockets: it is closed.
pub(crate) fn adopt(house: &Rc<House>, packet: Packet) -> Option<impl Future<Output = ()> + use<>> {
    let mut seat = Seat::new(house).conveyed_from(packet.conveyed);
    house.tally.adopted.add(1);
    let client = packet.client.register();
    let arriving = |upstream: Upstream| {
        // Before the stay ends, so that there is no moment in which nobody knows of it.
        let claim = house.claim_again(upstream.origin);
        let upstream = upstream.socket.register()?;
        Ok::<_, io::Error>(Connected { upstream, claim })
    };
    let upstream = packet.upstream.map(arriving).transpose();
    let (Ok(client), Ok(upstream)) = (client, upstream) else {
        seat.close(CloseReason::NotWatched);
        return None;
    };
    seat.brought = Some(Box::new(Brought(upstream)));
    Some(match packet.tracked {
        None => Either::Left(serve(seat, Carried::met(client, Blind, packet.fresh))),
        Some(packed) => {
            let tracker = Tracker::unpack(packed, rules(house));
            Either::Right(serve(seat, Carried::met(client, tracker, packet.fresh)))
        }
    })
}

impl House {
    /// True while sessions are to leave, and there is room for one more.
    pub(super) fn lets_go(&self) -> bool {
        self.outbox.open.get() && self.outbox.packets.borrow().len() < LEAVING_AT_ONCE
    }

    /// Asks sessions from this seat on to leave, and gives those that did; false behind the last.
    pub(crate) async fn let_go(&self, next: &mut usize) -> (Vec<Packet>, bool) {
        self.outbox.open.set(true);
        let more = self.rouse_any(next, LEAVING_AT_ONCE);
        for _ in 0..TURNS {
            yield_now().await;
        }
        self.outbox.open.set(false);
        (self.outbox.packets.take(), more)
    }
}

impl Seat {
    /// Where a session begins: with nothing, or where it was when it left.
    pub(super) fn begin(&mut self, life: &mut Life) {
        let Some(brought) = &self.brought else {
            observe(self, life, Event::Looked);
            return;
        };
        life.served = true;
        if let Some(connected) = &brought.0 {
            // Whether that is still so is seen at its first poll.
            life.stage = Stage::Live(connected.claim.generation());
            self.note_upstream(true);
        } else {
            self.brought = None;
            life.stage = Stage::Detached;
            observe(self, life, Event::Looked);
        }
    }

    /// The upstream that it came with.
    pub(super) fn arrived(&mut self) -> Option<Connected> {
        self.brought.take()?.0
    }

    /// It leaves: nobody here reads or writes its sockets any more.
    pub(super) fn leave<W: Watch>(&mut self, carried: Carried<W>) {
        let (tracked, fresh) = (carried.watch.packed(), carried.fresh);
        let client = carried.client.unregister();
        let leaving = |Connected { upstream, claim }| {
            let origin = claim.origin();
            Ok::<_, io::Error>(Upstream {
                socket: upstream.unregister()?,
                origin,
                stay: claim.stays(),
            })
        };
        let upstream = self.brought.take().and_then(|brought| brought.0);
        let upstream = upstream.map(leaving).transpose();
        // Fails only when the runtime has forgotten the socket, and then nobody could have served it.
        let (Ok(client), Ok(upstream)) = (client, upstream) else {
            self.close(CloseReason::NotWatched);
            return;
        };
        self.close(CloseReason::HandedOver);
        self.house.outbox.packets.borrow_mut().push(Packet {
            client,
            upstream,
            tracked,
            fresh,
            conveyed: self.conveyed.as_deref().copied(),
        });
    }
}
