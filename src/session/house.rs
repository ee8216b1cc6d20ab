//! The sessions of one proxy entry on one worker, and what they share. Lives on that worker's thread.
//!
//! One bell rings for all of them ([`House::attend`]); each session is woken through its seat, looks at the
//! published state and gives up what it has of an older generation. When the last one has, the generation is
//! acknowledged: from then on nothing here can send a byte to the old master.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::{debug, error, warn};

use super::buffer::Buffer;
use super::claim::{Claim, Upstreams};
use super::close::CloseReason;
use super::handing::{Brought, Outbox};
use super::spare::{SPARE_KEPT, Spares};
use super::tally::Tally;
use super::{Config, Ending, Outlook};
use crate::net::clock::{Moment, now};
use crate::net::rarely::Rarely;
use crate::net::reserve::Reserve;
use crate::net::stream::Stream;
use crate::topology::publish::{Gate, Leave, Left, Reader, Subscription};
use crate::topology::{Generation, MasterAddr, Phase, State};
use crate::upstream::DialError;

/// Dials of one proxy entry at the same time, over all workers. After a swap thousands of clients come at once:
/// the new master's accept queue must not overflow, or dials meet retransmission timers instead of a queue.
pub(crate) const DIALS_AT_ONCE: usize = 64;

/// Nobody dials for so long when there was no port for a dial: the kernel looks through all of them each time, which takes
/// milliseconds of the worker's thread.
const NO_PORT_PAUSE: Duration = Duration::from_millis(50);

/// Sessions woken by one ring before all else on the worker has its turn. To give an upstream up costs tens of microseconds, so
/// thousands in a row would stop everybody else for a second.
pub(super) const ROUSED_AT_ONCE: usize = 64;

/// What the workers share of one proxy entry; touched off the hot path only.
#[derive(Debug)]
pub(crate) struct Common {
    waiting: AtomicUsize,
    dial_slots: Arc<Semaphore>,
    /// How long dials took that succeeded, in seconds.
    dial_seconds: metrics::Histogram,
    reserve: Reserve,
    replays: Rarely,
    /// One for each reason, as of those below: what is counted in a line happened for the reason it names.
    dials: [Rarely; DialError::LABELS.len()],
    closes: [Rarely; CloseReason::ALL.len()],
}

impl Default for Common {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            dial_slots: Arc::new(Semaphore::new(DIALS_AT_ONCE)),
            dial_seconds: metrics::Histogram::noop(),
            reserve: Reserve::default(),
            replays: Rarely::default(),
            dials: Default::default(),
            closes: Default::default(),
        }
    }
}

impl Common {
    /// Records how long dials take, and leaves the reserve what is its own.
    pub(crate) fn new(dial_seconds: metrics::Histogram, reserve: Reserve) -> Self {
        Self {
            dial_seconds,
            reserve,
            ..Self::default()
        }
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct House {
    config: Cell<Config>,
    pub(super) buffer: Buffer,
    pub(super) tally: Arc<Tally>,
    name: Arc<str>,
    reader: Reader,
    subscription: Subscription,
    common: Arc<Common>,
    seats: RefCell<Slab<Place>>,
    spares: RefCell<Spares>,
    /// The generation and the edition whose spares may be there.
    spares_of: Cell<(Generation, u64)>,
    spare_kept: Notify,
    pub(super) upstreams: RefCell<Upstreams>,
    /// The edition that every session has been told of.
    heard: Cell<u64>,
    /// There was no port for a dial to the master of this generation; until when nobody tries again.
    no_port: Cell<Option<(Generation, Moment)>>,
    /// Counts rings of the bell.
    turn: Cell<u64>,
    published: Cell<Generation>,
    acknowledged: Cell<Generation>,
    left: Cell<Left>,
    ending: Cell<Ending>,
    pub(super) outbox: Outbox,
}

impl House {
    pub(crate) fn new(
        name: Arc<str>,
        config: Config,
        reader: Reader,
        subscription: Subscription,
        tally: Arc<Tally>,
        common: Arc<Common>,
        buffer: Buffer,
    ) -> Rc<Self> {
        Rc::new(Self {
            config: Cell::new(config),
            buffer,
            tally,
            name,
            reader,
            subscription,
            common,
            seats: RefCell::default(),
            spares: RefCell::default(),
            spares_of: Cell::default(),
            spare_kept: Notify::new(),
            upstreams: RefCell::default(),
            heard: Cell::new(0),
            no_port: Cell::default(),
            turn: Cell::new(0),
            published: Cell::default(),
            acknowledged: Cell::default(),
            left: Cell::default(),
            ending: Cell::default(),
            outbox: Outbox::default(),
        })
    }

    /// Hears the bell for all sessions of the house; never ends.
    pub(crate) async fn attend(self: Rc<Self>) {
        loop {
            let state = self.subscription.state();
            self.published.set(state.generation);
            let edition = self.edition();
            let now_of = (state.generation, edition);
            let passed = self.spares_of.replace(now_of) != now_of;
            if passed || state.phase != Phase::Serving {
                self.drop_spares();
            }
            let begun = now();
            if self.rouse(&state).await {
                self.heard.set(edition);
            }
            self.upstreams_changed();
            tokio::select! {
                () = self.subscription.changed() => {}
                () = self.hold_over(&state, begun) => {}
                () = self.spares_grow_old() => {}
            }
        }
    }

    /// The one timer of a hold; in service there is none. Whoever was woken from `begun` on has seen an end before that.
    async fn hold_over(&self, state: &State, begun: Moment) {
        let end = match state.phase {
            Phase::Held { since, .. } => Some(since + state.hold_max),
            Phase::NoMaster | Phase::Serving => None,
        };
        match end.filter(|end| *end > begun) {
            Some(end) => tokio::time::sleep(end.since(now())).await,
            None => pending().await,
        }
    }

    /// Drops spare upstreams that nobody has wanted for a while; never ends.
    async fn spares_grow_old(&self) {
        loop {
            if self.spares.borrow().is_empty() {
                self.spare_kept.notified().await;
            }
            tokio::time::sleep(SPARE_KEPT).await;
            let expired = self.spares.borrow_mut().expired(now());
            // Only now, as the end of each may acknowledge a generation.
            drop(expired);
        }
    }

    fn drop_spares(&self) {
        let spares = self.spares.borrow_mut().all();
        drop(spares);
    }

    /// Keeps an upstream that is as good as new for the next client; gives it back when it cannot be kept.
    pub(super) fn keep_spare(&self, upstream: Stream, claim: Claim) -> Option<(Stream, Claim)> {
        if !self.config().spare_upstreams
            || self.ending.get() != Ending::No
            || self.gate().leave(claim.pass()) != Leave::Open
        {
            return Some((upstream, claim));
        }
        let refused = self
            .spares
            .borrow_mut()
            .keep(now(), claim.generation(), upstream, claim);
        if refused.is_none() {
            self.spare_kept.notify_one();
        }
        refused
    }

    /// An upstream of this generation that another client has left.
    pub(super) fn take_spare(&self, generation: Generation) -> Option<(Stream, Claim)> {
        // Those that turn out to be of no use are dropped after the list is free again.
        let mut useless = Vec::new();
        let spare = self.spares.borrow_mut().take(generation, &mut useless);
        drop(useless);
        spare
    }

    /// What sessions are made by; not on the way of a request.
    pub(super) fn config(&self) -> Config {
        self.config.get()
    }

    /// From now on sessions are made, dial and wait by this; what one was made by, it keeps.
    pub(crate) fn change(&self, config: Config) {
        self.config.set(config);
        if !config.spare_upstreams {
            self.drop_spares();
        }
    }

    /// Ends every session, in order or at once.
    pub(crate) fn end(&self, ending: Ending) {
        // What is being cut is not told to take its time: an entry that was removed ends before the process does.
        if self.ending.get() == Ending::Now {
            return;
        }
        self.ending.set(ending);
        self.drop_spares();
        self.turn.set(self.turn.get().wrapping_add(1));
        for with_upstream in [true, false] {
            self.rouse_some(&mut 0, usize::MAX, with_upstream);
        }
    }

    pub(super) fn ending(&self) -> Ending {
        self.ending.get()
    }

    pub(super) fn gate(&self) -> &Gate {
        self.reader.gate()
    }

    pub(super) fn doubt(&self) {
        self.reader.doubt();
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.reader.state()
    }

    /// Clients wait because an operator wants it.
    pub(super) fn is_paused(&self) -> bool {
        self.state().is_paused()
    }

    pub(super) fn outlook(&self, state: &State) -> Outlook {
        let open = self.gate().leave(Reader::pass(state)) == Leave::Open;
        Outlook::new(state, open, self.ending.get())
    }

    /// A place among the clients that wait for a master; `None` when there are `max_held` already.
    pub(super) fn wait(self: &Rc<Self>) -> Option<WaitingPlace> {
        let waiting = self.common.waiting.fetch_add(1, Ordering::Relaxed);
        let place = WaitingPlace(Rc::clone(self));
        self.tally.waiting.add(1);
        (waiting < self.config().max_held).then_some(place)
    }

    /// One of [`DIALS_AT_ONCE`] places, if one is free and nobody is in line for it.
    pub(super) fn free_dial_slot(&self) -> Option<DialSlot> {
        Arc::clone(&self.common.dial_slots)
            .try_acquire_owned()
            .ok()
            .map(|permit| DialSlot { _permit: permit })
    }

    /// The same, waiting in line for it. Dropping the future leaves the line.
    pub(super) fn dial_slot(&self) -> impl Future<Output = DialSlot> + use<> {
        let slots = Arc::clone(&self.common.dial_slots);
        async move {
            match slots.acquire_owned().await {
                Ok(permit) => DialSlot { _permit: permit },
                Err(_) => unreachable!("the slots are never closed"),
            }
        }
    }

    /// The dial that this claim was made for has succeeded.
    pub(super) fn dialled(&self, claim: &Claim) {
        let took = now().since(claim.since());
        self.common.dial_seconds.record(took.as_secs_f64());
    }

    /// False while the control plane misses descriptors that are its own.
    pub(super) fn may_open_a_file(&self) -> bool {
        self.common.reserve.restore()
    }

    /// True for a while after a dial of this generation has found no port: another one would not, either.
    pub(super) fn has_no_port(&self, generation: Generation) -> bool {
        self.no_port
            .get()
            .is_some_and(|(without, until)| without == generation && now() < until)
    }

    pub(super) fn dial_failed(
        &self,
        master: &MasterAddr,
        generation: Generation,
        error: &DialError,
    ) {
        self.tally.dial_failures[error.index()].add(1);
        if matches!(error, DialError::NoPort) {
            self.no_port.set(Some((generation, now() + NO_PORT_PAUSE)));
        }
        if !error.is_our_own() {
            self.doubt();
        }
        if let Some(count) = self.common.dials[error.index()].allow(now()) {
            warn!(
                event = "dial_failed",
                proxy = %self.name,
                addr = %master,
                reason = error.label(),
                count,
                "cannot connect to the master: {error}"
            );
        }
    }

    /// A new master did not take over what a session needs.
    pub(super) fn replay_failed(&self, reason: &'static str, again: bool) {
        self.doubt();
        self.tally.replay_failures.add(1);
        if let Some(count) = self.common.replays.allow(now()) {
            let then = if again {
                "it is tried again"
            } else {
                "the session is closed"
            };
            warn!(
                event = "replay_failed",
                proxy = %self.name,
                reason,
                count,
                "the new master did not take over a session: {then}"
            );
        }
    }

    /// Wakes every session, some at a time: between them all else on this worker has its turn. Whoever speaks before it is
    /// woken finds by itself that the bell has rung, and the fence closed before that. First those who have an upstream to give
    /// up: thousands may be waiting for a master, and the old one's end is not to wait for them. Ends when the bell has rung again for
    /// something newer than `state`: the next walk wakes everybody anew. False then.
    async fn rouse(&self, state: &Arc<State>) -> bool {
        self.turn.set(self.turn.get().wrapping_add(1));
        for with_upstream in [true, false] {
            let mut next = 0;
            while self.rouse_some(&mut next, ROUSED_AT_ONCE, with_upstream) {
                tokio::task::yield_now().await;
                if !Arc::ptr_eq(state, &self.subscription.state()) {
                    return false;
                }
            }
        }
        true
    }

    /// Wakes so many that have an upstream, or have none, from this seat on. False when there are no more.
    fn rouse_some(&self, next: &mut usize, most: usize, with_upstream: bool) -> bool {
        self.wake(next, most, |place| {
            place.has_upstream.get() == with_upstream
        })
    }

    fn wake(&self, next: &mut usize, most: usize, which: impl Fn(&Place) -> bool) -> bool {
        let seats = self.seats.borrow();
        let mut woken = 0;
        while *next < seats.capacity() {
            if let Some(place) = seats.get(*next)
                && which(place)
            {
                if woken == most {
                    return true;
                }
                place.waker.wake_by_ref();
                woken += 1;
            }
            *next += 1;
        }
        false
    }

    /// Wakes so many, whoever they are, from this seat on. False when there are no more.
    pub(super) fn rouse_any(&self, next: &mut usize, most: usize) -> bool {
        self.turn.set(self.turn.get().wrapping_add(1));
        self.wake(next, most, |_| true)
    }

    /// Of which edition an upstream is whose dial begins now.
    pub(super) fn edition(&self) -> u64 {
        self.reader.edition()
    }

    /// Tells of the upstreams that there are, and acknowledges a generation when none is older.
    pub(super) fn upstreams_changed(&self) {
        let count = self.upstreams.borrow().count(self.heard.get());
        self.subscription.report(self.heard.get(), count);
        let published = self.published.get();
        if published <= self.acknowledged.get() {
            return;
        }
        let oldest = self.upstreams.borrow().oldest();
        if oldest.is_none_or(|oldest| oldest >= published) {
            self.acknowledged.set(published);
            self.subscription.acknowledge(published, self.left.take());
        }
    }

    fn closed(&self, reason: CloseReason) {
        self.tally.closed[reason.index()].add(1);
        let (proxy, fault) = (&self.name, reason.fault());
        match reason.level() {
            tracing::Level::ERROR => {
                if let Some(count) = self.common.closes[reason.index()].allow(now()) {
                    error!(
                        event = "session_closed", %proxy, %reason, ?fault, count,
                        "a defect of the proxy ended a session; all others go on"
                    );
                }
            }
            tracing::Level::WARN => {
                if let Some(count) = self.common.closes[reason.index()].allow(now()) {
                    warn!(event = "session_closed", %proxy, %reason, ?fault, count, "closed clients");
                }
            }
            _ => debug!(event = "session_closed", %proxy, %reason, ?fault, "session closed"),
        }
    }
}

/// What the bell knows of a session.
#[derive(Debug)]
struct Place {
    waker: Waker,
    has_upstream: Cell<bool>,
}

/// One session's place in its house; dropping it is the end of the session, however that came about.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) house: Rc<House>,
    key: Option<usize>,
    turn: u64,
    reason: Option<CloseReason>,
    /// What it comes with, until its first poll; what it leaves with, from its last. In a box, as hardly any has it.
    pub(super) brought: Option<Box<Brought>>,
}

impl Seat {
    pub(crate) fn new(house: &Rc<House>) -> Self {
        house.tally.opened.add(1);
        Self {
            house: Rc::clone(house),
            key: None,
            turn: house.turn.get(),
            reason: None,
            brought: None,
        }
    }

    /// Lets the bell wake the current task. A task's waker stays good as long as the task lives.
    pub(super) async fn sit(&mut self) {
        poll_fn(|cx| {
            let place = Place {
                waker: cx.waker().clone(),
                has_upstream: Cell::new(false),
            };
            self.key = Some(self.house.seats.borrow_mut().insert(place));
            Poll::Ready(())
        })
        .await;
    }

    /// Notes whether this session has an upstream, or is getting one.
    pub(super) fn note_upstream(&self, has: bool) {
        let seats = self.house.seats.borrow();
        if let Some(place) = self.key.and_then(|key| seats.get(key)) {
            place.has_upstream.set(has);
        }
    }

    /// True once for each time the bell rang since the last call, however often it rang.
    #[inline]
    pub(super) fn has_turned(&mut self) -> bool {
        let turn = self.house.turn.get();
        std::mem::replace(&mut self.turn, turn) != turn
    }

    /// Waits for the bell.
    pub(super) async fn turned(&mut self) {
        poll_fn(|_| {
            if self.has_turned() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Notes why this session ends; the first reason counts.
    pub(crate) fn close(&mut self, reason: CloseReason) {
        self.reason.get_or_insert(reason);
    }

    /// Counts a session that was closed for a switch.
    pub(super) fn cut(&self) {
        let left = self.house.left.get();
        self.house.left.set(Left {
            cut: left.cut + 1,
            ..left
        });
    }

    /// Counts a session that outlives a switch.
    pub(super) fn kept(&self) {
        let left = self.house.left.get();
        self.house.left.set(Left {
            kept: left.kept + 1,
            ..left
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.house.seats.borrow_mut().remove(key);
        }
        let reason = match self.reason {
            Some(reason) => reason,
            None if std::thread::panicking() => CloseReason::Panicked,
            None => CloseReason::ShutdownForced,
        };
        self.house.closed(reason);
    }
}

/// One of `max_held` places.
#[derive(Debug)]
pub(super) struct WaitingPlace(Rc<House>);

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.common.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.tally.waiting.sub(1);
    }
}

/// The right to dial; dropping it lets the next one dial.
#[derive(Debug)]
pub(super) struct DialSlot {
    _permit: OwnedSemaphorePermit,
}
