//! An upstream that is to be given up at its next quiet moment, because somebody asked for it (pause, reconnect): its master is as
//! good as before.
//!
//! A session that could be carried over begins no new request on it: what is under way is ended, and then they part. One that
//! has more than requests under way (a transaction, a subscription, what cannot be told to another connection) goes on as if nothing
//! had been asked, until it could be carried over, or to its end.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, ROUNDS_PER_POLL, Relay, give_way};
use crate::net::socket::read_closed;
use crate::session::watch::Watch;
use crate::topology::publish::Leave;

/// Most bytes of requests that are read while they have to wait for another upstream.
const READ_AHEAD_MAX: usize = 16 * 1024;

impl<W: Watch> Relay<'_, W> {
    /// Looks whether this upstream is `old`. A client that has closed will say no more, and is served to its end.
    pub(super) fn begin_to_retire(&mut self, old: bool) {
        self.retires = old && W::MOVES && self.up.is_free() && !read_closed(&self.carried.client);
        // From now on, not from behind what the next turn would write.
        self.withheld |= self.retires && !self.is_bound();
    }

    /// True when asking it to give its upstream up leads to that soon.
    pub(in crate::session) fn could_retire(&self) -> bool {
        W::MOVES && self.up.is_free() && !self.is_bound() && !read_closed(&self.carried.client)
    }

    /// True when they can part now: nothing is under way, and nothing has come from the upstream that was not read.
    pub(in crate::session) fn may_retire(&self) -> bool {
        self.retires && self.can_part() && self.upstream.is_quiet()
    }

    /// Withholds new requests where that leads to a quiet moment, and only there.
    #[cold]
    pub(super) fn retire(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason> {
        if house.gate().leave(self.pass) != Leave::Open {
            // The fence withholds all the same; what an announced failover may still finish is finished.
            return self.finish_request(cx, house);
        }
        if !self.is_bound() {
            self.withheld = true;
            self.finish_begun(cx, house)?;
        }
        if self.is_bound() && std::mem::take(&mut self.withheld) {
            return self.pump_up(cx, house);
        }
        Continue(())
    }

    /// No answer to what is under way would set it free, or its client takes none before all it has to say is heard.
    fn is_bound(&self) -> bool {
        let is_stuck = self.carried.unsent.len() >= READ_AHEAD_MAX && !self.carried.owed.is_empty();
        !self.is_whole() || self.carried.watch.is_bound() || is_stuck
    }

    /// They part now because somebody asked for it, and for that alone: its client was not held.
    pub(super) fn parts_freely(&self, house: &House) -> bool {
        self.may_retire() && !self.paused && house.gate().leave(self.pass) == Leave::Open
    }

    /// Gives the master the rest of the request that it has the beginning of, as it comes from the client. Behind that the
    /// client is heard on, for its end: what is under way may be a blocking command, which must not outlive it.
    fn finish_begun(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        if self.keeps {
            return Continue(());
        }
        for _ in 0..ROUNDS_PER_POLL {
            let unsent = self.carried.unsent.len();
            match self.carried.watch.rest_of_begun(&self.carried.unsent) {
                None if unsent >= READ_AHEAD_MAX => return Continue(()),
                rest if rest.is_none() || unsent == 0 => {
                    let mut buffer = house.buffer.borrow_mut();
                    match self.carried.client.poll_read(cx, &mut buffer) {
                        Poll::Pending => return Continue(()),
                        Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                        Poll::Ready(Ok(0)) => {
                            self.up = Flow::Ending;
                            let reason = if unsent > 0 && house.is_paused() {
                                // As in any hold: it has given up on what it had to wait with.
                                self.carried.unsent = BytesMut::new();
                                CloseReason::ClientLeftWaiting
                            } else {
                                // It is served to its end here, as it would have been.
                                CloseReason::ClientClosed
                            };
                            self.reason.get_or_insert(reason);
                            return Continue(());
                        }
                        Poll::Ready(Ok(n)) => {
                            self.spoke = true;
                            self.carried.unsent.extend_from_slice(&buffer[..n]);
                        }
                    }
                }
                None | Some(0) => {
                    self.refuse();
                    return Continue(());
                }
                Some(rest) => {
                    if !self.may_write(house)? {
                        return Continue(());
                    }
                    match self.upstream.poll_write(cx, &self.carried.unsent[..rest]) {
                        Poll::Ready(Ok(n)) => {
                            self.sent_spilled(n, house);
                        }
                        Poll::Ready(Err(_)) => {
                            self.upstream_refused(house);
                            return Continue(());
                        }
                        Poll::Pending => return Continue(()),
                    }
                }
            }
        }
        give_way(cx);
        Continue(())
    }
}
