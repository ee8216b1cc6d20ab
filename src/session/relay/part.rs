//! How a session and its upstream part: when the client need not notice, and what is left of either.

use std::ops::ControlFlow::{self, Break, Continue};
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::super::House;
use super::super::close::CloseReason;
use super::{Flow, Relay, Unproven};
use crate::net::clock::now;
use crate::net::stream::Stream;
use crate::session::tracker::Retire;
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

    /// The client has asked the master to close.
    pub(in crate::session) fn is_leaving(&self) -> bool {
        self.carried.watch.is_leaving()
    }

    /// Why its requests and replies are followed no longer.
    pub(in crate::session) fn retired(&self) -> Option<Retire> {
        self.carried.watch.retired()
    }

    /// Replies that have just been read may be undone; before that so many requests were unanswered.
    pub(super) fn doubt_replies(&mut self, unanswered: Option<u32>) {
        let replies = match (unanswered, self.carried.watch.unanswered()) {
            (Some(before), Some(after)) => before.saturating_sub(after),
            // Not followed one by one.
            _ => 1,
        };
        let earlier = self
            .unproven
            .as_ref()
            .map_or(0, |unproven| unproven.replies);
        self.unproven = Some(Box::new(Unproven {
            read: now(),
            replies: earlier.saturating_add(replies),
        }));
    }

    /// Requests that this upstream was sent, in part or as a whole, and whose replies the client does not get if it is given up now.
    /// One that is not followed request by request has one if its client had the last word.
    pub(in crate::session) fn unheard(&self) -> u64 {
        let watch = &self.carried.watch;
        let unanswered = match watch.unanswered() {
            Some(unanswered) => u64::from(unanswered) + u64::from(watch.has_begun()),
            None => u64::from(self.spoke),
        };
        let unproven = self
            .unproven
            .as_ref()
            .map_or(0, |unproven| unproven.replies);
        unanswered + u64::from(unproven)
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

    /// To be called when the upstream is lost, or given up, and the session goes on. `Break`: its client has closed since it
    /// was kept waiting, and what it said must not run any more.
    pub(in crate::session) fn part(&mut self, house: &House) -> ControlFlow<CloseReason> {
        let freely = self.parts_freely(house);
        if let Some(mut unsent) = self.carried.watch.take_back() {
            unsent.extend_from_slice(&self.carried.unsent);
            self.carried.unsent = BytesMut::from(&unsent[..]);
        }
        let client = &mut self.carried.client;
        // What was withheld is for the most part not even read.
        self.carried.kept_waiting =
            !freely && (!self.carried.unsent.is_empty() || (self.withheld && !client.is_quiet()));
        if self.carried.kept_waiting && client.has_left() {
            return Break(CloseReason::ClientLeftWaiting);
        }
        Continue(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::clock::now;
    use crate::session::relay::Carried;
    use crate::session::tests::{G1, G2, HOLD, house_of, serving};
    use crate::session::tracker::{Rules, Tracker};
    use crate::session::watch::Blind;
    use crate::topology::publish::Reader;
    use std::future::poll_fn;

    const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

    fn tracker() -> Tracker {
        Tracker::new(Rules {
            login: false,
            replay_auth: true,
            pubsub: false,
            resend_reads: false,
        })
    }

    /// A client says this, its master answers that; what is unheard then.
    async fn unheard<W: Watch>(watch: W, said: &[u8], answered: &[u8]) -> u64 {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        publisher.extend(now() + HOLD);
        let (client, mut application) = UnixStream::pair().expect("pair");
        let (upstream, mut master) = UnixStream::pair().expect("pair");
        let mut carried = Carried::new(Stream::Unix(client), watch);
        let pass = Reader::pass(&serving(G1));
        let mut relay = Relay::new(&mut carried, Stream::Unix(upstream), pass);
        application.write_all(said).await.expect("write");
        let mut heard = vec![0; said.len()];
        let relayed = async {
            master.read_exact(&mut heard).await.expect("relayed");
            master.write_all(answered).await.expect("write");
            let mut reply = vec![0; answered.len()];
            application.read_exact(&mut reply).await.expect("relayed");
        };
        tokio::select! {
            reason = poll_fn(|cx| relay.poll(cx, &house)) => panic!("{reason}"),
            () = relayed => {}
        }
        assert_eq!(house.tally.passed_bytes.read(), 0);
        relay.unheard()
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_is_unheard() {
        let two = [PING, PING].concat();
        let begun = [PING, b"*1\r\n$4\r\nPI"].concat();
        for (said, answered, followed, else_) in [
            (PING, &b"+PONG\r\n"[..], 0, 0),
            (PING, b"", 1, 1),
            (&two, b"+PONG\r\n", 1, 0),
            (&two, b"", 2, 1),
            (&begun, b"+PONG\r\n", 1, 0),
            (&[], b"", 0, 0),
        ] {
            let what = String::from_utf8_lossy(said);
            assert_eq!(unheard(tracker(), said, answered).await, followed, "{what}");
            // The last word is all that is known.
            assert_eq!(unheard(Blind, said, answered).await, else_, "{what}");
        }
    }

    #[tokio::test]
    async fn a_write_that_was_overtaken_by_a_swap_shows() {
        let (mut publisher, house) = house_of();
        publisher.publish(serving(G1));
        publisher.extend(now() + HOLD);
        let (client, _application) = UnixStream::pair().expect("pair");
        let (upstream, _master) = UnixStream::pair().expect("pair");
        let mut carried = Carried::new(Stream::Unix(client), tracker());
        let relay = Relay::new(
            &mut carried,
            Stream::Unix(upstream),
            Reader::pass(&serving(G1)),
        );
        relay.wrote(14, &house);
        assert_eq!(house.tally.passed_bytes.read(), 0);
        // Between the look at the fence and the end of the write, as another thread may do it.
        publisher.publish(serving(G2));
        relay.wrote(5, &house);
        let counted = (house.tally.bytes_up.read(), house.tally.passed_bytes.read());
        assert_eq!(counted, (19, 5));
    }
}
