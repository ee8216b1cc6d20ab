//! What only few sessions have to do in a poll, apart from the way of those that have not.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, Relay};
use crate::session::watch::Watch;

impl<W: Watch> Relay<'_, W> {
    /// Gives up what is to be given up, and sees to what TLS keeps back.
    #[cold]
    pub(super) fn attend(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason> {
        if self.retires {
            self.retire(cx, house)?;
        }
        if self.sealed {
            self.flush(cx, house)?;
        }
        Continue(())
    }

    /// Sees to it that what was written goes out, also where that is all there is to wait for.
    fn flush(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        if let Poll::Ready(Err(_)) = self.carried.client.poll_flush(cx) {
            return Break(CloseReason::ClientReset);
        }
        let takes = self.up != Flow::Broken && !self.keeps;
        if takes && matches!(self.upstream.poll_flush(cx), Poll::Ready(Err(_))) {
            self.upstream_refused(house);
        }
        Continue(())
    }
}
