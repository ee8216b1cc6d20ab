//! What a client may still finish at a master while it is announced that this master will be left: the request that it has the
//! beginning of, and, for a moment, a transaction. Either would keep the session from being carried over, and cost its client an error
//! in a failover that was planned.
//!
//! A library that sends MULTI, its commands and EXEC one by one, each behind the last one's reply, is within a transaction for a good
//! part of its time. The master queues the commands, which acknowledges nothing, so that these replies need no proof; what EXEC
//! answers is proven as any reply is (`prove`), and so nothing is called done that the successor has not.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, ROUNDS_PER_POLL, Relay, give_way};
use crate::net::clock::now;
use crate::session::watch::Watch;
use crate::topology::publish::Leave;

/// How long behind the announcement a transaction may go on. Sentinel promotes a replica in the turn of its timer behind that of
/// `+selected-slave`, 52 to 100 ms later (`CONFIG_DEFAULT_HZ` and `sentinelTimer`): what EXEC writes in the first half of that has the
/// second to get to the replica.
const TRANSACTION_GRACE: Duration = Duration::from_millis(25);
/// Most bytes of one request of a transaction that are waited for.
const REQUEST_MAX: usize = 16 * 1024;

impl<W: Watch> Relay<'_, W> {
    /// A request that the master has the beginning of is finished if its rest is here already, a transaction if its client goes on
    /// with it.
    pub(super) fn finish_request(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason> {
        for _ in 0..ROUNDS_PER_POLL {
            if house.gate().leave(self.pass) != Leave::Draining {
                return Continue(());
            }
            let goes_on = self.goes_on_with_transaction(house);
            let watch = &self.carried.watch;
            let end = if goes_on {
                watch.next_request(&self.carried.unsent)
            } else {
                watch.rest_of_request(&self.carried.unsent)
            };
            match end {
                Some(end) => match self.upstream.poll_write(cx, &self.carried.unsent[..end]) {
                    Poll::Ready(Ok(n)) => self.sent_spilled(n, house),
                    Poll::Ready(Err(_)) => {
                        self.upstream_refused(house);
                        return Continue(());
                    }
                    Poll::Pending => return Continue(()),
                },
                None if goes_on && self.carried.unsent.len() < REQUEST_MAX => {
                    if self.hear_more(cx, house)?.is_pending() {
                        return Continue(());
                    }
                }
                None => return Continue(()),
            }
        }
        give_way(cx);
        Continue(())
    }

    #[cold]
    fn goes_on_with_transaction(&self, house: &House) -> bool {
        self.up == Flow::Open
            && !self.keeps
            && self.carried.watch.has_transaction()
            && house
                .held_since()
                .is_some_and(|since| now() < since + TRANSACTION_GRACE)
    }

    /// Takes what the client says, and writes none of it.
    fn hear_more(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason, Poll<()>> {
        let mut buffer = house.buffer.borrow_mut();
        match self.carried.client.poll_read(cx, &mut buffer) {
            Poll::Pending => Continue(Poll::Pending),
            Poll::Ready(Err(_)) => Break(CloseReason::ClientReset),
            Poll::Ready(Ok(0)) => {
                self.up = Flow::Ending;
                self.reason.get_or_insert(CloseReason::ClientClosed);
                Continue(Poll::Pending)
            }
            Poll::Ready(Ok(n)) => {
                self.spoke = true;
                self.carried.unsent.extend_from_slice(&buffer[..n]);
                Continue(Poll::Ready(()))
            }
        }
    }
}
