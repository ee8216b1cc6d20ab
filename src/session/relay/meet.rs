//! The first bytes of a client: not one of them is written before it is known that it speaks Redis' protocol
//! ([`crate::session::sniff`]). Behind that nothing of this is looked at any more.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use super::super::House;
use super::super::close::CloseReason;
use super::{Carried, Flow, Relay};
use crate::session::watch::Watch;

impl<W: Watch> Relay<'_, W> {
    /// The first bytes of a client have come. How many of them may be written: all, or none yet, and then they are kept.
    #[cold]
    pub(super) fn meet(&mut self, said: &[u8]) -> ControlFlow<CloseReason, usize> {
        if self.carried.meets(said)? {
            self.up = Flow::Open;
            return Continue(said.len());
        }
        self.carried.unsent.extend_from_slice(said);
        Continue(0)
    }

    /// What there is of a client's first words is kept back until more of them say what it speaks.
    #[cold]
    pub(super) fn hear_out(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason, Poll<()>> {
        if self.carried.meets_unsent()? {
            self.up = Flow::Open;
            self.spoke = true;
            return Continue(Poll::Ready(()));
        }
        let mut buffer = house.buffer.borrow_mut();
        match self.carried.client.poll_read(cx, &mut buffer) {
            Poll::Pending => Continue(Poll::Pending),
            Poll::Ready(Err(_)) => Break(CloseReason::ClientReset),
            // What it said was no complete request, and will never be one.
            Poll::Ready(Ok(0)) => Break(CloseReason::ClientClosed),
            Poll::Ready(Ok(n)) => {
                self.carried.unsent.extend_from_slice(&buffer[..n]);
                Continue(Poll::Ready(()))
            }
        }
    }

    /// Its client has asked this upstream for something, as far as that is known: half a request is nothing.
    pub(in crate::session) fn has_asked(&self) -> bool {
        let asks = match self.carried.watch.unanswered() {
            Some(unanswered) => unanswered > 0,
            // Not followed request by request.
            None => !self.carried.fresh,
        };
        asks || self.heard
    }

    /// What it has of its client.
    pub(in crate::session) const fn carried(&self) -> &Carried<W> {
        self.carried
    }

    /// Its upstream has said something: its client has asked for it.
    pub(in crate::session) const fn has_heard(&self) -> bool {
        self.heard
    }
}
