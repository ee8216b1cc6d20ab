//! The hot path: bytes between a client and the upstream of one generation, both directions on their own.
//!
//! Knows no RESP and no Redis (what has to, looks on through [`Watch`]); takes no lock, allocates nothing and logs nothing for bytes that flow. Reads go
//! into the worker's one buffer and are written from it at once; only what the peer does not take is copied
//! aside, and that direction reads no more until it is gone. So a slow reader costs at most one buffer each way,
//! and is never cut for being slow.

mod carried;
mod drain;
mod finish;
mod hand;
mod meet;
mod part;
mod retire;
mod sealed;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::task::yield_now;
use tokio::time::{Sleep, sleep};

pub(super) use carried::Carried;

use super::Ending;
use super::close::CloseReason;
use super::house::House;
use super::tracker::Sight;
use super::watch::Watch;
use crate::net::clock::Moment;
use crate::net::stream::Stream;
use crate::topology::publish::{Leave, Pass};

/// Reads of one direction before the other sessions of the worker have their turn: 256 KiB.
const ROUNDS_PER_POLL: usize = 8;
/// How often it is looked whether a reply that was read during an announced promotion came before it.
const PROOF_EVERY: Duration = Duration::from_millis(5);
/// Most bytes of such replies that are kept back; then the upstream is not read any more.
const UNPROVEN_MAX: usize = 32 * 1024;
/// After the upstream has closed: longest silence of a client before its direction is given up, too.
const SILENCE_AFTER_UPSTREAM_END: Duration = Duration::from_secs(1);

/// How far one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    /// The source is read.
    Open,
    /// The source has said nothing yet that tells what it speaks; see [`meet`]. Upward only.
    Fresh,
    /// The source is read to the end of what it has begun; see [`drain`]. Upward only, as the next.
    Finishing,
    /// The source has begun something that is not finished: from there on it is not heard, whatever it says, as all of that
    /// means what it means only behind what was dropped.
    Deaf,
    /// The source has ended; its end is passed on behind the last byte.
    Ending,
    /// The end was passed on.
    Ended,
    /// The destination takes no more bytes; the source is not read any more. Upward only: a client that
    /// takes no more ends the session.
    Broken,
}

impl Flow {
    /// Neither end has ended.
    const fn is_open(self) -> bool {
        matches!(
            self,
            Self::Open | Self::Fresh | Self::Finishing | Self::Deaf
        )
    }

    /// Everything is heard, and nothing was asked to end.
    const fn is_free(self) -> bool {
        matches!(self, Self::Open | Self::Fresh)
    }
}

/// Two streams joined. `pass` is what the fence is asked with before each upstream write.
#[derive(Debug)]
pub(super) struct Relay<'a, W> {
    carried: &'a mut Carried<W>,
    upstream: Stream,
    pass: Pass,
    up: Flow,
    down: Flow,
    /// The fence said "not now", or `retires` does; only a look at a ring of the bell takes this back.
    withheld: bool,
    /// The upstream is to be given up at the next quiet moment, see [`retire`].
    retires: bool,
    /// One of the two has TLS on it, and may keep back what was written to it.
    sealed: bool,
    /// Somebody paused the proxy, when the bell rang last.
    paused: bool,
    /// The upstream takes no more, and its last replies are still read: what the client says meanwhile is kept for the next.
    keeps: bool,
    /// The master was doubted since the last ring of the bell.
    doubted: bool,
    /// The upstream has said something.
    heard: bool,
    /// Why this session will have ended once both directions have.
    reason: Option<CloseReason>,
    /// What is owed was read while a promotion was announced: handed over once that turns out to have been before the
    /// promotion, and never otherwise. In a box, so that a session that knows none does not pay for it.
    unproven: Option<Box<Unproven>>,
    proof: Option<Pin<Box<Sleep>>>,
    /// The client sent something since the upstream last did, or since the silence was last measured.
    spoke: bool,
    silence: Option<Pin<Box<Sleep>>>,
    /// Since the client takes none of what it is owed.
    stall: Option<Box<drain::Stall>>,
}

/// Replies that may be undone.
#[derive(Debug)]
struct Unproven {
    /// When the last of them was read.
    read: Moment,
    /// How many, as far as that is known.
    replies: u32,
}

impl<'a, W: Watch> Relay<'a, W> {
    pub(super) fn new(carried: &'a mut Carried<W>, upstream: Stream, pass: Pass) -> Self {
        let up = if carried.fresh {
            Flow::Fresh
        } else {
            Flow::Open
        };
        let sealed = carried.client.is_tls() || upstream.is_tls();
        Self {
            carried,
            upstream,
            pass,
            up,
            down: Flow::Open,
            withheld: false,
            retires: false,
            sealed,
            paused: false,
            keeps: false,
            doubted: false,
            heard: false,
            reason: None,
            unproven: None,
            proof: None,
            spoke: false,
            silence: None,
            stall: None,
        }
    }

    /// To be called when the bell rang: begins or ends withholding.
    ///
    /// A client that closed while its bytes were withheld by a hold or a pause has given up on them: they are dropped, the
    /// upstream sees the end of the stream, and replies to what was sent before still flow.
    pub(super) fn look(&mut self, house: &House, old: bool) {
        self.doubted = false;
        let was_paused = std::mem::replace(&mut self.paused, house.is_paused());
        let was_held = !self.retires || was_paused;
        if house.ending() != Ending::No {
            self.begin_to_drain();
        }
        match house.gate().leave(self.pass) {
            Leave::Held | Leave::Draining => self.withheld = true,
            Leave::Open if self.withheld => {
                self.withheld = false;
                if was_held && self.up.is_open() && self.carried.client.has_left() {
                    self.carried.unsent = BytesMut::new();
                    self.up = Flow::Ending;
                    self.reason.get_or_insert(CloseReason::ClientLeftWaiting);
                }
            }
            // A passed generation ends the next poll.
            Leave::Open | Leave::Passed => {}
        }
        self.begin_to_retire(old);
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
        // One branch for what hardly any session has.
        if (self.retires | self.sealed)
            && let Break(reason) = self.attend(cx, house)
        {
            return Poll::Ready(reason);
        }
        match (self.down, self.up) {
            (Flow::Open, Flow::Finishing | Flow::Deaf) => self.poll_rest(cx),
            (Flow::Open, Flow::Ended) if house.ending() != Ending::No => self.poll_rest(cx),
            (
                Flow::Open
                | Flow::Fresh
                | Flow::Finishing
                | Flow::Deaf
                | Flow::Ending
                | Flow::Broken,
                _,
            ) => Poll::Pending,
            (Flow::Ended, Flow::Ended | Flow::Broken) => Poll::Ready(self.reason()),
            (Flow::Ended, _) if self.keeps => Poll::Ready(self.reason()),
            (Flow::Ended, _) => self.poll_silence(cx),
        }
    }

    fn pump_up(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        for _ in 0..ROUNDS_PER_POLL {
            if self.withheld {
                // `retire` comes behind both directions.
                return if self.retires {
                    Continue(())
                } else {
                    self.finish_request(cx, house)
                };
            }
            if self.keeps {
                return Continue(());
            }
            if !self.carried.unsent.is_empty() {
                if self.up == Flow::Fresh {
                    if self.hear_out(cx, house)?.is_pending() {
                        return Continue(());
                    }
                    continue;
                }
                if !self.may_write(house)? {
                    return Continue(());
                }
                let allowed = self.carried.watch.allowed(&self.carried.unsent);
                if allowed == 0 {
                    self.refuse();
                    continue;
                }
                match self
                    .upstream
                    .poll_write(cx, &self.carried.unsent[..allowed])
                {
                    Poll::Ready(Ok(n)) => {
                        self.sent_spilled(n, house);
                        continue;
                    }
                    Poll::Ready(Err(_)) => {
                        self.upstream_refused(house);
                        continue;
                    }
                    Poll::Pending => return Continue(()),
                }
            }
            match self.up {
                Flow::Open | Flow::Fresh | Flow::Finishing | Flow::Deaf => {
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
                        Poll::Ready(Ok(())) => self.up = Flow::Ended,
                        Poll::Ready(Err(_)) => self.upstream_refused(house),
                        Poll::Pending => return Continue(()),
                    }
                }
                Flow::Ended | Flow::Broken => return Continue(()),
            }
        }
        give_way(cx);
        Continue(())
    }

    #[inline]
    fn read_client(
        &mut self,
        cx: &mut Context<'_>,
        house: &House,
    ) -> ControlFlow<CloseReason, Poll<()>> {
        let mut buffer = house.buffer.borrow_mut();
        match self.carried.client.poll_read(cx, &mut buffer) {
            Poll::Pending => return Continue(Poll::Pending),
            Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
            // Nothing is under way, so nothing more will be said: the upstream need not hear of it.
            Poll::Ready(Ok(0)) if self.can_part() => return Break(CloseReason::ClientClosed),
            Poll::Ready(Ok(0)) => {
                self.up = Flow::Ending;
                self.reason.get_or_insert(CloseReason::ClientClosed);
            }
            Poll::Ready(Ok(n)) => {
                let n = match self.up {
                    Flow::Open => n,
                    Flow::Fresh => match self.meet(&buffer[..n])? {
                        0 => return Continue(Poll::Ready(())),
                        n => n,
                    },
                    _ => self.still_takes(&buffer[..n]),
                };
                self.spoke |= n > 0;
                let allowed = self.carried.watch.allowed(&buffer[..n]);
                let may_write = if allowed > 0 {
                    self.may_write(house)
                } else {
                    Continue(false)
                };
                let sent = if may_write == Continue(true) {
                    match self.upstream.poll_write(cx, &buffer[..allowed]) {
                        Poll::Ready(Ok(sent)) => sent,
                        Poll::Pending => 0,
                        Poll::Ready(Err(_)) => {
                            self.upstream_refused(house);
                            0
                        }
                    }
                } else {
                    0
                };
                self.wrote(sent, house);
                self.carried.watch.sent(&buffer[..sent]);
                if sent < n && self.up.is_open() {
                    self.carried.unsent.extend_from_slice(&buffer[sent..n]);
                }
                // Only now: a session that outlives this upstream must not lose what was read.
                may_write?;
            }
        }
        Continue(Poll::Ready(()))
    }

    fn sent_spilled(&mut self, n: usize, house: &House) {
        self.wrote(n, house);
        self.carried.watch.sent(&self.carried.unsent[..n]);
        took(&mut self.carried.unsent, n);
    }

    /// Counts what the upstream took. The look at the fence and the write are two steps: a thread that is stopped between them
    /// writes to a master that has been left meanwhile, which nothing can prevent, and which shows here.
    #[inline]
    fn wrote(&self, n: usize, house: &House) {
        house.tally.bytes_up.add(n as u64);
        if house.gate().has_passed(self.pass) {
            house.tally.passed_bytes.add(n as u64);
        }
    }

    /// The next request must not reach this master. What was sent before is answered; then the session ends.
    fn refuse(&mut self) {
        self.carried.unsent = BytesMut::new();
        self.up = Flow::Ending;
        self.reason = Some(CloseReason::WaitRefused);
    }

    fn pump_down(&mut self, cx: &mut Context<'_>, house: &House) -> ControlFlow<CloseReason> {
        for _ in 0..ROUNDS_PER_POLL {
            let proven = self.poll_proof(cx, house).is_ready();
            if !proven && self.carried.owed.len() >= UNPROVEN_MAX {
                return Continue(());
            }
            if proven && !self.carried.owed.is_empty() {
                match self.carried.client.poll_write(cx, &self.carried.owed) {
                    Poll::Ready(Ok(n)) => {
                        house.tally.bytes_down.add(n as u64);
                        took(&mut self.carried.owed, n);
                        self.stall = None;
                        continue;
                    }
                    Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                    Poll::Pending => return self.poll_stall(cx, house),
                }
            }
            match self.down {
                Flow::Open | Flow::Fresh | Flow::Finishing | Flow::Deaf => {
                    if self.read_upstream(cx, house)?.is_pending() {
                        return Continue(());
                    }
                }
                Flow::Ending if !proven => return Continue(()),
                Flow::Ending => match self.carried.client.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.down = Flow::Ended,
                    Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                    // What TLS has kept back goes out first.
                    Poll::Pending => return self.poll_stall(cx, house),
                },
                Flow::Ended | Flow::Broken => return Continue(()),
            }
        }
        give_way(cx);
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
        let drains = match house.gate().leave_to_read(self.pass) {
            Leave::Open => false,
            Leave::Draining => true,
            // The bell rings when that changes.
            Leave::Held => return Continue(Poll::Pending),
            Leave::Passed => return Break(CloseReason::Switched),
        };
        let unanswered = if drains {
            self.carried.watch.unanswered()
        } else {
            None
        };
        let only_queues = drains && self.carried.watch.only_queues();
        let mut buffer = house.buffer.borrow_mut();
        match self.upstream.poll_read(cx, &mut buffer) {
            Poll::Pending => return Continue(Poll::Pending),
            Poll::Ready(Err(_)) => {
                house.doubt();
                return Break(self.reason.unwrap_or(CloseReason::UpstreamReset));
            }
            Poll::Ready(Ok(0)) if self.can_go_on() => {
                house.doubt();
                return Break(CloseReason::UpstreamClosed);
            }
            Poll::Ready(Ok(0)) => {
                self.down = Flow::Ending;
                if self.reason.is_none() {
                    // Unasked for: the answer to a client's own end is an end and no reason to doubt.
                    self.reason = Some(CloseReason::UpstreamClosed);
                    house.doubt();
                }
            }
            Poll::Ready(Ok(n)) => {
                self.heard = true;
                self.spoke = false;
                if self.up != Flow::Open {
                    self.silence = None;
                }
                if self.carried.watch.received(&buffer[..n]) == Sight::NotMaster
                    && !std::mem::replace(&mut self.doubted, true)
                {
                    house.doubt();
                }
                // The middle of a reply acknowledges nothing.
                let ends_none =
                    unanswered.is_some() && unanswered == self.carried.watch.unanswered();
                // Asked when there is something: who is woken behind a standstill may be quicker than the control task.
                let queued = only_queues && self.carried.watch.is_queueing();
                if (drains && !ends_none && !queued) || house.gate().is_stale() {
                    self.doubt_replies(unanswered);
                }
                let sent = if self.unproven.is_some() {
                    0
                } else {
                    match self.carried.client.poll_write(cx, &buffer[..n]) {
                        Poll::Ready(Ok(sent)) => sent,
                        Poll::Pending => 0,
                        Poll::Ready(Err(_)) => return Break(CloseReason::ClientReset),
                    }
                };
                house.tally.bytes_down.add(sent as u64);
                if sent < n {
                    self.carried.owed.extend_from_slice(&buffer[sent..n]);
                }
            }
        }
        Continue(Poll::Ready(()))
    }

    /// Ready when what is owed may be handed over.
    #[inline]
    fn poll_proof(&mut self, cx: &mut Context<'_>, house: &House) -> Poll<()> {
        match self.unproven.as_ref().map(|unproven| unproven.read) {
            None => Poll::Ready(()),
            Some(read) => self.prove(read, cx, house),
        }
    }

    #[cold]
    fn prove(&mut self, read: Moment, cx: &mut Context<'_>, house: &House) -> Poll<()> {
        let leave = house.gate().leave_to_read(self.pass);
        // The hold ended, or nothing had happened in a standstill, and the master is the same.
        let goes_on = leave == Leave::Open && !house.gate().is_stale();
        if goes_on || house.gate().is_proven(read) {
            self.unproven = None;
            self.proof = None;
            return Poll::Ready(());
        }
        // Sealed, or stale: the bell rings when that changes.
        if leave == Leave::Draining {
            let look = || Box::pin(sleep(PROOF_EVERY));
            while self
                .proof
                .get_or_insert_with(look)
                .as_mut()
                .poll(cx)
                .is_ready()
            {
                self.proof = None;
            }
        }
        Poll::Pending
    }

    /// Asks the fence.
    #[inline]
    fn may_write(&mut self, house: &House) -> ControlFlow<CloseReason, bool> {
        match house.gate().leave(self.pass) {
            Leave::Open => Continue(true),
            Leave::Held | Leave::Draining => {
                self.withheld = true;
                Continue(false)
            }
            Leave::Passed => Break(CloseReason::Switched),
        }
    }

    /// The upstream takes no more. What it has already replied is real and is still read, to its end.
    fn upstream_refused(&mut self, house: &House) {
        house.doubt();
        if W::MOVES && self.up.is_open() {
            self.keeps = true;
            return;
        }
        self.up = Flow::Broken;
        self.carried.unsent = BytesMut::new();
        self.reason.get_or_insert(CloseReason::UpstreamReset);
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

/// Goes on after everybody else: also after those whose bytes have come since the runtime last asked the kernel. A plain wake
/// would put this session into the queue at once, and while that is not empty the runtime asks only every 61st turn.
fn give_way(cx: &mut Context<'_>) {
    // Polled once it has handed the waker over, and says so; there is nothing more in it to wait for.
    let _ = pin!(yield_now()).poll(cx);
}

fn took(spill: &mut BytesMut, n: usize) {
    spill.advance(n);
    if spill.is_empty() {
        // Gives the memory back: an idle session owns no buffer.
        *spill = BytesMut::new();
    }
}
