//! How a session and its upstream part: when the client need not notice, and what is left of either.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, Relay};
use crate::net::socket::{is_quiet, read_closed};
use crate::net::stream::Stream;
use crate::session::watch::Watch;

impl<W: Watch> Relay<'_, W> {
    /// The upstream, and whether it is as good as new.
    pub(in crate::session) fn into_upstream(self) -> (Stream, bool) {
        if self.unproven.is_some() {
            // What it says may never have been: nobody hears it, and the session ends without it.
            self.carried.owed = BytesMut::new();
        }
        let spotless = self.can_part() && self.carried.watch.is_spotless();
        (self.upstream, spotless)
    }

    /// True when the client would not miss this upstream: nothing is under way between them, and both ways are open.
    pub(in crate::session) fn can_part(&self) -> bool {
        self.is_whole() && self.carried.watch.is_movable()
    }

    /// Both ways are open, and nothing that was read is in doubt.
    pub(super) fn is_whole(&self) -> bool {
        W::MOVES
            && self.up.is_open()
            && self.down == Flow::Open
            && self.reason.is_none()
            && self.unproven.is_none()
    }

    /// True when this upstream has never said anything, and has not taken what its client waits to hear of: if it ends, it was no
    /// better than one that could not be dialled.
    pub(in crate::session) fn is_stillborn(&self) -> bool {
        self.can_part() && !self.heard && !self.carried.unsent.is_empty()
    }

    /// The same, or its only request can be sent to the next one.
    pub(in crate::session) fn can_go_on(&self) -> bool {
        self.can_part() || (self.is_whole() && self.carried.watch.is_repeatable())
    }

    /// True when nothing unread is left of the upstream that a client would miss. What is read here is heard by nobody: only for
    /// one that is left. With nothing in flight a subscriber can only have messages there, which nobody was promised; and a request
    /// that is sent again will have another reply.
    pub(in crate::session) fn is_read_out(&mut self, cx: &mut Context<'_>, house: &House) -> bool {
        if self.carried.watch.listens() || self.carried.watch.is_repeatable() {
            return true;
        }
        let mut buffer = house.buffer.borrow_mut();
        match self.upstream.poll_read(cx, &mut buffer) {
            Poll::Pending | Poll::Ready(Ok(0) | Err(_)) => true,
            Poll::Ready(Ok(_)) => false,
        }
    }

    /// To be called when the upstream is lost and the session goes on. `Break`: its client has closed since it was kept
    /// waiting, and what it said must not run any more.
    pub(in crate::session) fn part(&mut self) -> ControlFlow<CloseReason> {
        if let Some(mut unsent) = self.carried.watch.take_back() {
            unsent.extend_from_slice(&self.carried.unsent);
            self.carried.unsent = BytesMut::from(&unsent[..]);
        }
        let client = &self.carried.client;
        // What was withheld is for the most part not even read.
        self.carried.kept_waiting =
            !self.carried.unsent.is_empty() || (self.withheld && !is_quiet(client));
        if self.carried.kept_waiting && read_closed(client) {
            return Break(CloseReason::ClientLeftWaiting);
        }
        Continue(())
    }
}
