//! Sessions that leave for the process that follows this one, and sessions that come from the one before it; the same, when an
//! upgrade comes to nothing, for those that come back.
//!
//! A session is asked when its seat is woken, as it is for a swap: nothing of this is looked at on the way of a request. It leaves
//! when all its bytes are with the kernel and what is known of it can be said ([`Watch::packed`]); else it stays and is asked again.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use futures_util::future::Either;
use tokio::task::yield_now;

use super::close::CloseReason;
use super::house::{House, Seat};
use super::luggage::Packet;
use super::relay::Carried;
use super::run::{Connected, observe, rules, serve};
use super::tracker::Tracker;
use super::watch::{Blind, Watch};
use super::{Event, Life, Stage};
use crate::net::clock::now;
use crate::net::stream::Stream;
use crate::topology::publish::Reader;
use crate::topology::{Generation, State};

/// Most sessions that leave in one go: a message takes no more, and nobody serves them until it is answered.
pub(crate) const LEAVING_AT_ONCE: usize = 64;
/// Turns of the worker in which those that were asked may answer. Who does not is asked again in the next round.
const TURNS: usize = 8;

/// Sessions that have let go and are not gone.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    open: Cell<bool>,
    packets: RefCell<Vec<Packet>>,
}

/// A session that another process has let go of; it is this one's from the first poll on.
#[derive(Debug)]
pub(crate) struct Arrival {
    upstream: Stream,
    /// Where the master was verified that it leads to.
    at: SocketAddr,
}

impl House {
    /// True while sessions are to leave, and there is room for one more.
    pub(super) fn lets_go(&self) -> bool {
        self.outbox.open.get() && self.outbox.packets.borrow().len() < LEAVING_AT_ONCE
    }

    /// Asks sessions from this seat on to leave, and gives those that did; `next` is `None` behind the last.
    pub(crate) async fn let_go(&self, next: &mut Option<usize>) -> Vec<Packet> {
        let Some(from) = next else {
            return Vec::new();
        };
        self.outbox.open.set(true);
        let more = self.ask(from, LEAVING_AT_ONCE);
        for _ in 0..TURNS {
            yield_now().await;
        }
        self.outbox.open.set(false);
        if !more {
            *next = None;
        }
        self.outbox.packets.take()
    }
}

impl Seat {
    /// The session leaves: nobody here reads or writes its sockets any more.
    pub(super) fn leave<W: Watch>(&mut self, carried: Carried<W>, upstream: Option<Stream>) {
        let tracked = carried.watch.packed();
        let client = carried.client.unregister();
        let upstream = upstream.map(Stream::unregister).transpose();
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
        });
    }

    /// Where a session begins: with nothing, or where it was when it left.
    pub(super) fn begin(&mut self, life: &mut Life, came: bool) {
        match &self.arrival {
            Some(arrival) => {
                life.served = true;
                life.stage = Stage::Live(Self::reign(arrival, &self.house.state()).0);
                self.note_upstream(true);
            }
            None if came => {
                life.served = true;
                life.stage = Stage::Detached;
                observe(self, life, Event::Looked);
            }
            None => {
                observe(self, life, Event::Looked);
            }
        }
    }

    /// The upstream that this session came with.
    pub(super) fn arrived(&mut self) -> Option<Connected> {
        let arrival = self.arrival.take()?;
        let (generation, pass) = Self::reign(&arrival, &self.house.state());
        Some(Connected {
            upstream: arrival.upstream,
            pass,
            claim: self.house.claim(generation),
        })
    }
}
