//! How a relay ends when the proxy does: what was begun is finished, nothing new is begun.
//!
//! With a tracker, `on_switch = "move"`, a session ends behind the reply to the last request that was begun, and what its client says
//! after that is not heard: it was not executed. A transaction is one thing: it is heard to its end. A blocked command is a request
//! like any other, as what it is about to be given would be lost; a subscriber has no request, and ends between two
//! messages. Without (close mode, or a tracker that has retired) nobody knows of requests: such a session goes on until there is a
//! moment of silence behind the master's last word.

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Sleep, sleep};

use super::super::close::CloseReason;
use super::super::{Ending, House};
use super::{Flow, Relay, took};
use crate::session::watch::{Rest, Watch};

/// Where requests cannot be told apart: as long as neither side has said anything, and the master was last to.
const IDLE_MOMENT: Duration = Duration::from_millis(500);
/// Longest that a client takes nothing of what TLS has kept back for it, once there is no upstream and nothing else for it.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(30);

/// A client takes none of what there is for it, as far as the runtime has heard.
#[derive(Debug)]
pub(super) struct Stall {
    /// When it is asked whether it did.
    end: Pin<Box<Sleep>>,
    /// It did, and what it made room for is being filled.
    moves: bool,
}

impl<W: Watch> Relay<'_, W> {
    /// Drops what was not begun. To be called when the proxy has begun to end; again is no harm.
    pub(super) fn begin_to_drain(&mut self) {
        if !self.up.is_free() {
            return;
        }
        if self.up == Flow::Fresh {
            // It has not begun anything.
            self.up = Flow::Deaf;
            self.carried.unsent = BytesMut::new();
            return;
        }
        self.up = Flow::Finishing;
        let unsent = &mut self.carried.unsent;
        let finished = self.carried.watch.finishes(unsent);
        if finished < unsent.len() {
            self.up = Flow::Deaf;
            unsent.truncate(finished);
        }
        if unsent.is_empty() {
            *unsent = BytesMut::new();
        }
    }

    /// How much of what the client said now is still heard.
    #[cold]
    pub(super) fn still_takes(&mut self, said: &[u8]) -> usize {
        let takes = if self.up == Flow::Deaf {
            0
        } else {
            self.carried.watch.finishes(said)
        };
        if takes < said.len() {
            self.up = Flow::Deaf;
        }
        if takes > 0 {
            self.silence = None;
        }
        takes
    }

    /// Ready when everything that was begun is over.
    #[cold]
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        match self.rest() {
            Rest::Settled => Poll::Ready(self.reason_to_rest()),
            Rest::Busy => Poll::Pending,
            Rest::Unknown if self.spoke => Poll::Pending,
            Rest::Unknown => {
                let moment = || Box::pin(sleep(IDLE_MOMENT));
                let silence = self.silence.get_or_insert_with(moment);
                silence.as_mut().poll(cx).map(|()| self.reason_to_rest())
            }
        }
    }

    /// True when the client would miss nothing if this upstream were left now; with a proxy that ends, if the session ended.
    pub(in crate::session) fn can_leave(&mut self, cx: &mut Context<'_>, house: &House) -> bool {
        match house.ending() {
            Ending::No => self.can_go_on(),
            Ending::Draining => self.can_part(),
            Ending::Now => {
                // What has arrived is the client's. Whether more could be moved is of no interest any more.
                let _ = self.pump_down(cx, house);
                match self.rest() {
                    Rest::Settled => true,
                    Rest::Busy => false,
                    Rest::Unknown => !self.spoke,
                }
            }
        }
    }

    /// A client that has ended before had its own reason.
    fn reason_to_rest(&self) -> CloseReason {
        self.reason.unwrap_or(CloseReason::Shutdown)
    }

    /// Ends a session whose client takes nothing for too long, where that is limited: always behind the upstream's end.
    #[cold]
    pub(super) fn poll_stall(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason> {
        let set = house.config().write_stall_timeout;
        let is_last = self.down != Flow::Open && self.carried.owed.is_empty();
        let (limit, reason) = match (set.is_zero(), is_last) {
            (false, _) => (set, CloseReason::WriteStalled),
            (true, true) => (LAST_WORDS_LIMIT, self.reason()),
            (true, false) => {
                self.stall = None;
                return Continue(());
            }
        };
        let begin = || Stall {
            end: Box::pin(sleep(limit)),
            moves: false,
        };
        loop {
            let stall = self.stall.get_or_insert_with(|| Box::new(begin()));
            if !stall.moves && stall.end.as_mut().poll(cx).is_pending() {
                return Continue(());
            }
            // The kernel tells of room only once there is much: it is asked about a client that takes less, but takes it all the time.
            match self.carried.client.press(&self.carried.owed) {
                Ok(Some(taken)) => {
                    house.tally.bytes_down.add(taken as u64);
                    took(&mut self.carried.owed, taken);
                    // There may be more room, which is filled first: the next time is measured from where there is none.
                    stall.moves = true;
                    cx.waker().wake_by_ref();
                    return Continue(());
                }
                Ok(None) if stall.moves => **stall = begin(),
                Ok(None) => return Break(reason),
                Err(_) => return Break(CloseReason::ClientReset),
            }
        }
    }

    fn rest(&self) -> Rest {
        // A client that has said its last word may wait for answers, and begins nothing.
        let is_heard = self.up.is_open() && self.reason.is_none();
        let is_silent = self.up == Flow::Ended;
        let is_whole = (is_heard || is_silent) && self.down == Flow::Open;
        let is_paid = self.unproven.is_none()
            && self.carried.owed.is_empty()
            && self.carried.unsent.is_empty();
        if is_whole && is_paid {
            self.carried.watch.rest(is_silent || self.up == Flow::Deaf)
        } else {
            Rest::Busy
        }
    }
}
