//! What only few sessions have to do in a poll, apart from the way of those that have not.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, Relay};
use crate::session::watch::Watch;
use crate::topology::publish::Leave;

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
        let kept_back = self.upstream.kept_back();
        if kept_back == 0 || self.up == Flow::Broken || self.keeps {
            return Continue(());
        }
        // Requests that count as sent, and so are nobody else's. Whether this master still gets them is for the fence to say, as of any:
        // a kernel that was given them would have been rid of them while this process stood still.
        match house.gate().leave(self.pass) {
            Leave::Open | Leave::Draining => {
                if matches!(self.upstream.poll_flush(cx), Poll::Ready(Err(_))) {
                    self.upstream_refused(house);
                }
                // See `wrote`; how many of them had gone before is not known.
                if house.gate().has_passed(self.pass) {
                    house.tally.passed_bytes.add(kept_back as u64);
                }
                Continue(())
            }
            // The bell rings when that changes.
            Leave::Held => Continue(()),
            Leave::Passed => Break(CloseReason::Switched),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::net::UnixStream;

    use super::*;
    use crate::net::clock::now;
    use crate::net::stream::Stream;
    use crate::net::tls::tests::pair;
    use crate::session::relay::Carried;
    use crate::session::tests::{G1, G2, HOLD, house_of, serving};
    use crate::session::tracker::{Rules, Tracker};
    use crate::topology::publish::Reader;

    const REQUEST: &[u8] = b"*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n";
    /// Turns in which what may not happen would have.
    const TURNS: usize = 50;

    fn tracker() -> Tracker {
        Tracker::new(Rules {
            login: false,
            replay_auth: true,
            pubsub: false,
            resend_reads: true,
        })
    }

    fn turn(relay: &mut Relay<'_, Tracker>, house: &House) -> Poll<CloseReason> {
        relay.poll(&mut Context::from_waker(Waker::noop()), house)
    }

    /// All that has come.
    fn heard(master: &mut Stream, buffer: &mut [u8]) -> u64 {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut heard = 0;
        while let Poll::Ready(n) = master.poll_read(cx, buffer) {
            heard += n.expect("read") as u64;
        }
        heard
    }

    /// A master stops reading, the fence is closed, the master goes on: what was taken for it and has not gone out stays here, and is
    /// nobody else's, either.
    #[tokio::test]
    async fn what_tls_keeps_back_stays_behind_the_fence() {
        for switched in [false, true] {
            let (mut publisher, house) = house_of();
            publisher.publish(serving(G1));
            publisher.extend(now() + HOLD);
            let (client, application) = UnixStream::pair().expect("pair");
            let (upstream, mut master) = pair().await;
            let mut carried = Carried::new(Stream::Unix(client), tracker());
            let pass = Reader::pass(&serving(G1));
            let mut relay = Relay::new(&mut carried, upstream, pass);
            // Until nobody takes any more.
            let (mut said, mut idle) = (0, 0);
            while idle < TURNS {
                idle += 1;
                while let Ok(n) = application.try_write(REQUEST) {
                    assert_eq!(n, REQUEST.len());
                    (said, idle) = (said + n as u64, 0);
                }
                assert!(turn(&mut relay, &house).is_pending());
                tokio::task::yield_now().await;
            }
            let taken = house.tally.bytes_up.read();
            let mut buffer = vec![0; 64 * 1024];

            publisher.extend(now());
            let before = heard(&mut master, &mut buffer);
            assert!(before < taken, "{before} of {taken}: nothing was kept back");
            for _ in 0..TURNS {
                assert!(turn(&mut relay, &house).is_pending());
                assert_eq!(heard(&mut master, &mut buffer), 0);
                tokio::task::yield_now().await;
            }
            if switched {
                publisher.publish(serving(G2));
                let over = turn(&mut relay, &house);
                assert_eq!(over, Poll::Ready(CloseReason::Switched));
                assert!(!relay.can_go_on(), "it may have been executed");
                assert!(relay.unheard() * REQUEST.len() as u64 >= taken);
                drop(relay);
                assert_eq!(heard(&mut master, &mut buffer), 0);
                // Not a byte of it is for the next.
                let unsent = carried.unsent.len() as u64;
                assert_eq!(
                    taken + unsent + heard(&mut carried.client, &mut buffer),
                    said
                );
            } else {
                publisher.extend(now() + HOLD);
                relay.look(&house, false);
                let mut after = before;
                poll_fn(|cx| {
                    assert!(relay.poll(cx, &house).is_pending());
                    after += heard(&mut master, &mut buffer);
                    if after >= taken {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
            }
            assert_eq!(house.tally.passed_bytes.read(), 0);
        }
    }

    /// Row 37 with TLS: whoever has given up in a hold has, however that was said.
    #[tokio::test]
    async fn a_client_that_says_farewell_in_a_hold_is_not_served_behind_it() {
        for gives_up in [false, true] {
            let (mut publisher, house) = house_of();
            publisher.publish(serving(G1));
            publisher.extend(now() + HOLD);
            let (mut application, client) = pair().await;
            let (upstream, master) = UnixStream::pair().expect("pair");
            let mut carried = Carried::new(client, tracker());
            let pass = Reader::pass(&serving(G1));
            let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
            publisher.extend(now());
            poll_fn(|cx| application.poll_write(cx, REQUEST))
                .await
                .expect("taken");
            for _ in 0..TURNS {
                assert!(turn(&mut relay, &house).is_pending());
                tokio::task::yield_now().await;
            }
            if gives_up {
                poll_fn(|cx| application.poll_farewell(cx))
                    .await
                    .expect("said");
            }
            publisher.extend(now() + HOLD);
            relay.look(&house, false);
            let mut heard = [0; 64];
            let mut executed = 0;
            for _ in 0..TURNS {
                let _ = turn(&mut relay, &house);
                executed += master.try_read(&mut heard).unwrap_or(0);
                tokio::task::yield_now().await;
            }
            assert_eq!(executed, if gives_up { 0 } else { REQUEST.len() });
        }
    }
}
