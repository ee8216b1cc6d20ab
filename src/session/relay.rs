//! The hot path: bytes between a client and the upstream of one generation, both directions on their own.
//!
//! Knows no RESP and no Redis; takes no lock, allocates nothing and logs nothing for bytes that flow. Reads go
//! into the worker's one buffer and are written from it at once; only what the peer does not take is copied
//! aside, and that direction reads no more until it is gone. So a slow reader costs at most one buffer each way,
//! and is never cut for being slow.

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Sleep, sleep};

use super::close::CloseReason;
use super::house::House;
use crate::net::socket::read_closed;
use crate::net::stream::Stream;
use crate::topology::publish::{Leave, Pass};

/// Reads of one direction before the other sessions of the worker have their turn: 256 KiB.
const ROUNDS_PER_POLL: usize = 8;
/// After the upstream has closed: longest silence of a client before its direction is given up, too.
const SILENCE_AFTER_UPSTREAM_END: Duration = Duration::from_secs(1);

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The source is read.
    Open,
    /// The source has ended; its end is passed on behind the last byte.
    Ending,
    /// The end was passed on.
    Ended,
    /// The destination takes no more bytes; the source is not read any more. Upward only: a client that
    /// takes no more ends the session.
    Broken,
}

/// One direction: how far it is, and the bytes its destination has not yet taken.
#[derive(Debug)]
struct Leg {
    flow: Flow,
    spill: BytesMut,
}

impl Leg {
    fn new() -> Self {
        Self {
            flow: Flow::Open,
            spill: BytesMut::new(),
        }
    }

    fn took(&mut self, n: usize) {
        self.spill.advance(n);
        if self.spill.is_empty() {
            // Gives the memory back: an idle session owns no buffer.
            self.spill = BytesMut::new();
        }
    }
}

/// Two streams joined. `pass` is what the fence is asked with before each upstream write.
#[derive(Debug)]
pub(super) struct Relay {
    client: Stream,
    upstream: Stream,
    pass: Pass,
    up: Leg,
    down: Leg,
    /// The fence said "not now"; only a look at a ring of the bell takes this back.
    withheld: bool,
    /// Why this session will have ended once both directions have.
    reason: Option<CloseReason>,
    /// The client sent something since the silence was last measured.
    spoke: bool,
    silence: Option<Pin<Box<Sleep>>>,
}

/// What is left when a relay is over.
#[derive(Debug)]
pub(super) struct Remains {
    pub(super) client: Stream,
    pub(super) upstream: Stream,
    /// Replies that were read and not yet taken by the client.
    pub(super) owed: BytesMut,
}

impl Relay {
    pub(super) fn new(client: Stream, upstream: Stream, pass: Pass) -> Self {
        Self {
            client,
            upstream,
            pass,
            up: Leg::new(),
            down: Leg::new(),
            withheld: false,
            reason: None,
            spoke: false,
            silence: None,
        }
    }

    pub(super) fn into_remains(self) -> Remains {
        Remains {
            client: self.client,
            upstream: self.upstream,
            owed: self.down.spill,
        }
    }

    /// To be called when the bell rang: begins or ends withholding.
    ///
    /// A client that closed while its bytes were withheld has given up on them: they are dropped, the upstream
    /// sees the end of the stream, and replies to what was sent before still flow.
    pub(super) fn look(&mut self, house: &House) {
        match house.gate().leave(self.pass) {
            Leave::Held => self.withheld = true,
            Leave::Open if self.withheld => {
                self.withheld = false;
                if self.up.flow == Flow::Open && read_closed(&self.client) {
                    self.up.spill = BytesMut::new();
                    self.up.flow = Flow::Ending;
                    self.reason.get_or_insert(CloseReason::ClientLeftWaiting);
                }
            }
            // A passed generation ends the next poll.
            Leave::Open | Leave::Passed => {}
        }
    }

    /// Moves what can be moved; ready when the session is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, house: &House) -> Poll<CloseReason> {
        if house.gate().leave_to_read(self.pass) == Leave::Passed {
            return Poll::Ready(CloseReason::Switched);
        }
        if let Break(reason) = self.pump_up(cx, house) {
            return Poll::Ready(reason);
        }
        if let Break(reason) = self.pump_down(cx, house) {
            return Poll::Ready(reason);
        }
        match (self.down.flow, self.up.flow) {
            (Flow::Open | Flow::Ending | Flow::Broken, _) => Poll::Pending,
            (Flow::Ended, Flow::Ended | Flow::Broken) => Poll::Ready(self.reason()),
            (Flow::Ended, Flow::Open | Flow::Ending) => self.poll_silence(cx),
        }
    }

    fn pump_up(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        for _ in 0..ROUNDS_PER_POLL {
            if self.withheld {
                return Continue(());
            }
            if !self.up.spill.is_empty() {
                if !self.may_write(house)? {
                    return Continue(());
                }
                match self.upstream.poll_write(cx, &self.up.spill) {
                    Poll::Ready(Ok(n)) => {
                        house.tally.bytes_up.add(n as u64);
                        self.up.took(n);
                        continue;
                    }
                    Poll::Ready(Err(_)) => self.upstream_refused(house),
                    Poll::Pending => return Continue(()),
                }
            }
            match self.up.flow {
                Flow::Open => {
                    if self.read_client(cx, house)?.is_pending() {
                        return Continue(());
                    }
                }
                Flow::Ending => {
                    // The end is a message, too: it lets a master run what came before it.
                    if !self.may_write(house)? {
                        return Continue(());
                    }
                    match self.upstream.poll_shutdown(cx) {
                        Poll::Ready(Ok(())) => self.up.flow = Flow::Ended,
                        Poll::Ready(Err(_)) => self.upstream_refused(house),
                        Poll::Pending => return Continue(()),
                    }
                }
                Flow::Ended | Flow::Broken => return Continue(()),
            }
        }
        cx.waker().wake_by_ref();
        Continue(())
    }

    #[inline]
    fn read_client(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason, Poll<()>> {
        let mut buffer = house.buffer.borrow_mut();
        match self.client.poll_read(cx, &mut buffer) {
            Poll::Pending => return Continue(Poll::Pending),
            Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
            Poll::Ready(Ok(0)) => {
                self.up.flow = Flow::Ending;
                self.reason.get_or_insert(CloseReason::ClientClosed);
            }
            Poll::Ready(Ok(n)) => {
                self.spoke = true;
                let sent = if self.may_write(house)? {
                    match self.upstream.poll_write(cx, &buffer[..n]) {
                        Poll::Ready(Ok(sent)) => sent,
                        Poll::Pending => 0,
                        Poll::Ready(Err(_)) => {
                            self.upstream_refused(house);
                            return Continue(Poll::Ready(()));
                        }
                    }
                } else {
                    0
                };
                house.tally.bytes_up.add(sent as u64);
                if sent < n {
                    self.up.spill.extend_from_slice(&buffer[sent..n]);
                }
            }
        }
        Continue(Poll::Ready(()))
    }

    fn pump_down(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        for _ in 0..ROUNDS_PER_POLL {
            if !self.down.spill.is_empty() {
                match self.client.poll_write(cx, &self.down.spill) {
                    Poll::Ready(Ok(n)) => {
                        house.tally.bytes_down.add(n as u64);
                        self.down.took(n);
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                    Poll::Pending => return Continue(()),
                }
            }
            match self.down.flow {
                Flow::Open => {
                    if self.read_upstream(cx, house)?.is_pending() {
                        return Continue(());
                    }
                }
                Flow::Ending => match self.client.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.down.flow = Flow::Ended,
                    Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                    Poll::Pending => return Continue(()),
                },
                Flow::Ended | Flow::Broken => return Continue(()),
            }
        }
        cx.waker().wake_by_ref();
        Continue(())
    }

    #[inline]
    fn read_upstream(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason, Poll<()>> {
        // A reply of a generation whose successor is a master must not be read: its write may be undone by the
        // successor, and handing it over would call it acknowledged.
        match house.gate().leave_to_read(self.pass) {
            Leave::Open => {}
            // The bell rings when that changes.
            Leave::Held => return Continue(Poll::Pending),
            Leave::Passed => return Break(CloseReason::Switched),
        }
        let mut buffer = house.buffer.borrow_mut();
        match self.upstream.poll_read(cx, &mut buffer) {
            Poll::Pending => return Continue(Poll::Pending),
            Poll::Ready(Err(_)) => {
                house.doubt();
                return Break(self.reason.unwrap_or(CloseReason::UpstreamReset));
            }
            Poll::Ready(Ok(0)) => {
                self.down.flow = Flow::Ending;
                if self.reason.is_none() {
                    // Unasked for: the answer to a client's own end is an end and no reason to doubt.
                    self.reason = Some(CloseReason::UpstreamClosed);
                    house.doubt();
                }
            }
            Poll::Ready(Ok(n)) => {
                let sent = match self.client.poll_write(cx, &buffer[..n]) {
                    Poll::Ready(Ok(sent)) => sent,
                    Poll::Pending => 0,
                    Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                };
                house.tally.bytes_down.add(sent as u64);
                if sent < n {
                    self.down.spill.extend_from_slice(&buffer[sent..n]);
                }
            }
        }
        Continue(Poll::Ready(()))
    }

    /// Asks the fence.
    #[inline]
    fn may_write(&mut self, house: &House) -> ControlFlow<CloseReason, bool> {
        match house.gate().leave(self.pass) {
            Leave::Open => Continue(true),
            Leave::Held => {
                self.withheld = true;
                Continue(false)
            }
            Leave::Passed => Break(CloseReason::Switched),
        }
    }

    /// The upstream takes no more. What it has already replied is real and is still read, to its end.
    fn upstream_refused(&mut self, house: &House) {
        self.up.flow = Flow::Broken;
        self.up.spill = BytesMut::new();
        self.reason.get_or_insert(CloseReason::UpstreamReset);
        house.doubt();
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        if std::mem::take(&mut self.spoke) {
            self.silence = None;
        }
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(sleep(SILENCE_AFTER_UPSTREAM_END)));
        silence.as_mut().poll(cx).map(|()| self.reason())
    }

    fn reason(&self) -> CloseReason {
        self.reason.unwrap_or(CloseReason::UpstreamClosed)
    }
}
