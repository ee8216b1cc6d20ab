//! The sessions of one proxy entry on one worker, and what they share. Lives on that worker's thread.
//!
//! One bell rings for all of them ([`House::attend`]); each session is woken through its seat, looks at the
//! published state and gives up what it has of an older generation. When the last one has, the generation is
//! acknowledged: from then on nothing here can send a byte to the old master.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{pending, poll_fn};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use slab::Slab;
use tokio::sync::{Notify, Semaphore};

use super::budget::Budget;
use super::buffer::Buffer;
use super::claim::{Claim, Upstreams};
use super::close::CloseReason;
use super::handing::{Brought, Outbox};
use super::lanes::Berth;
use super::spare::Spares;
use super::tally::Tally;
use super::{Config, Ending, Login, Outlook};
use crate::net::clock::{Moment, now};
use crate::net::rarely::Rarely;
use crate::net::reserve::Reserve;
use crate::net::tls::Connector;
use crate::topology::publish::{Gate, Leave, Left, Reader, Subscription};
use crate::topology::{Generation, Phase, State};
use crate::upstream::DialError;

/// Dials of one proxy entry at the same time, over all workers. After a swap thousands of clients come at once:
/// the new master's accept queue must not overflow, or dials meet retransmission timers instead of a queue.
pub(crate) const DIALS_AT_ONCE: usize = 64;

/// Nobody dials for so long when there was no port for a dial: the kernel looks through all of them each time, which takes
/// milliseconds of the worker's thread.
pub(super) const NO_PORT_PAUSE: Duration = Duration::from_millis(50);

/// Sessions woken by one ring before all else on the worker has its turn. To give an upstream up costs tens of microseconds, so
/// thousands in a row would stop everybody else for a second.
pub(super) const ROUSED_AT_ONCE: usize = 64;

/// What the workers share of one proxy entry; touched off the hot path only.
#[derive(Debug)]
pub(crate) struct Common {
    pub(super) waiting: AtomicUsize,
    pub(super) dial_slots: Arc<Semaphore>,
    /// How long dials took that succeeded, in seconds.
    dial_seconds: metrics::Histogram,
    reserve: Reserve,
    pub(super) budget: Budget,
    /// How masters are met; `None` is without TLS. Looked at once for each dial.
    upstream_tls: ArcSwapOption<Connector>,
    pub(super) replays: Rarely,
    pub(super) logins: Rarely,
    /// One for each reason, as of those below: what is counted in a line happened for the reason it names.
    pub(super) dials: [Rarely; DialError::LABELS.len()],
    pub(super) closes: [Rarely; CloseReason::ALL.len()],
}

impl Default for Common {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            dial_slots: Arc::new(Semaphore::new(DIALS_AT_ONCE)),
            dial_seconds: metrics::Histogram::noop(),
            reserve: Reserve::default(),
            budget: Budget::default(),
            upstream_tls: ArcSwapOption::empty(),
            replays: Rarely::default(),
            logins: Rarely::default(),
            dials: Default::default(),
            closes: Default::default(),
        }
    }
}

impl Common {
    /// Records how long dials take, leaves the reserve what is its own, and keeps no more than there is budget for.
    pub(crate) fn new(dial_seconds: metrics::Histogram, reserve: Reserve, budget: Budget) -> Self {
        Self {
            dial_seconds,
            reserve,
            budget,
            ..Self::default()
        }
    }

    /// From the next dial on masters are met like this.
    pub(crate) fn meet_masters(&self, tls: Option<Connector>) {
        self.upstream_tls.store(tls.map(Arc::new));
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct House {
    config: Cell<Config>,
    login: RefCell<Option<Arc<Login>>>,
    /// Upstreams that are older were made by what is no longer in force: another login, another way to meet masters.
    changed: Cell<Moment>,
    pub(super) buffer: Buffer,
    pub(super) tally: Arc<Tally>,
    pub(super) name: Arc<str>,
    reader: Reader,
    subscription: Subscription,
    pub(super) common: Arc<Common>,
    pub(super) seats: RefCell<Slab<Place>>,
    /// Where its sessions are led to replicas.
    pub(super) berth: OnceCell<Berth>,
    pub(super) spares: RefCell<Spares>,
    /// The generation and the edition whose spares may be there.
    spares_of: Cell<(Generation, u64)>,
    pub(super) spare_kept: Notify,
    pub(super) upstreams: RefCell<Upstreams>,
    /// The edition that every session has been told of.
    heard: Cell<u64>,
    /// There was no port for a dial to the master of this generation; until when nobody tries again.
    pub(super) no_port: Cell<Option<(Generation, Moment)>>,
    /// From where on the silent are looked for; see `crowd`.
    pub(super) suspected: Cell<usize>,
    /// Counts rings of the bell.
    turn: Cell<u32>,
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
            login: RefCell::default(),
            changed: Cell::default(),
            buffer,
            tally,
            name,
            reader,
            subscription,
            common,
            seats: RefCell::default(),
            berth: OnceCell::new(),
            spares: RefCell::default(),
            spares_of: Cell::default(),
            spare_kept: Notify::new(),
            upstreams: RefCell::default(),
            heard: Cell::new(0),
            no_port: Cell::default(),
            suspected: Cell::default(),
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

    /// What sessions are made by; not on the way of a request.
    pub(super) fn config(&self) -> Config {
        self.config.get()
    }

    /// What each new upstream is told first.
    pub(super) fn login(&self) -> Option<Arc<Login>> {
        self.login.borrow().clone()
    }

    /// It was made by what is no longer in force.
    pub(super) fn is_outdated(&self, claim: &Claim) -> bool {
        claim.since() < self.changed.get()
    }

    /// From now on new upstreams are logged in with this; those that are spare were with another.
    pub(crate) fn log_in_with(&self, login: Option<Arc<Login>>) {
        if self.login() == login {
            return;
        }
        *self.login.borrow_mut() = login;
        self.changed.set(now());
        self.drop_spares();
    }

    /// From now on sessions are made, dial and wait by this; what one was made by, it keeps.
    pub(crate) fn change(&self, config: Config) {
        self.config.set(config);
        // Masters may be met in another way from now on; there are more where those came from.
        self.changed.set(now());
        self.drop_spares();
    }

    /// Ends every session, in order or at once.
    pub(crate) fn end(&self, ending: Ending) {
        // What is being cut is not told to take its time: an entry that was removed ends before the process does.
        if self.ending.get() == Ending::Now {
            return;
        }
        self.ending.set(ending);
        self.drop_spares();
        self.ring();
        for with_upstream in [true, false] {
            self.rouse_some(&mut 0, usize::MAX, with_upstream);
        }
    }

    /// Whoever is woken looks what there is.
    pub(super) fn ring(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// How often that was.
    #[cfg(test)]
    pub(super) fn bell(&self) -> u32 {
        self.turn.get()
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

    /// Since when clients wait, if they do.
    pub(super) fn held_since(&self) -> Option<Moment> {
        match self.state().phase {
            Phase::Held { since, .. } => Some(since),
            Phase::NoMaster | Phase::Serving => None,
        }
    }

    /// Clients wait because an operator wants it.
    pub(super) fn is_paused(&self) -> bool {
        self.state().is_paused()
    }

    pub(super) fn outlook(&self, state: &State) -> Outlook {
        let open = self.gate().leave(Reader::pass(state)) == Leave::Open;
        Outlook::new(state, open, self.ending.get())
    }

    /// The dial that this claim was made for has succeeded.
    pub(super) fn dialled(&self, claim: &Claim) {
        let took = now().since(claim.since());
        self.common.dial_seconds.record(took.as_secs_f64());
    }

    /// How the master is met now.
    pub(super) fn upstream_tls(&self) -> Option<Arc<Connector>> {
        self.common.upstream_tls.load_full()
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
}

/// What the bell knows of a session.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) waker: Waker,
    pub(super) has_upstream: Cell<bool>,
    pub(super) since: Moment,
    /// See `crowd`.
    pub(super) has_asked: Cell<bool>,
    pub(super) suspect: Cell<bool>,
}

/// The number of a place, and one: so that having none costs no memory.
#[derive(Clone, Copy, Debug)]
struct At(NonZeroUsize);

impl At {
    const fn new(key: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(key))
    }

    const fn key(self) -> usize {
        self.0.get() - 1
    }
}

/// One session's place in its house; dropping it is the end of the session, however that came about.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) house: Rc<House>,
    key: Option<At>,
    turn: u32,
    reason: Option<CloseReason>,
    /// It is to look for another lane, or has left one for that. See `lanes`.
    pub(super) leaves: bool,
    /// What it comes with, until its first poll; what it leaves with, from its last. In a box, as hardly any has it.
    pub(super) brought: Option<Box<Brought>>,
    /// From where a balancer says that its client comes. In a box, for the same reason.
    pub(super) conveyed: Option<Box<IpAddr>>,
}

impl Seat {
    pub(crate) fn new(house: &Rc<House>) -> Self {
        house.tally.opened.add(1);
        Self {
            house: Rc::clone(house),
            key: None,
            turn: house.turn.get(),
            reason: None,
            leaves: false,
            brought: None,
            conveyed: None,
        }
    }

    /// A balancer says from where its client comes.
    pub(crate) fn conveyed_from(mut self, ip: Option<IpAddr>) -> Self {
        self.conveyed = ip.map(Box::new);
        self
    }

    /// From one house to another of the same entry, without an upstream. What the bell of the other has told before is seen by
    /// whoever looks at its state next.
    pub(super) fn move_to(&mut self, to: &Rc<House>) {
        if Rc::ptr_eq(&self.house, to) {
            return;
        }
        if let Some(at) = self.key {
            let place = self.house.seats.borrow_mut().remove(at.key());
            place.has_upstream.set(false);
            self.key = Some(At::new(to.seats.borrow_mut().insert(place)));
        }
        self.house.count_session(false);
        to.count_session(true);
        let roamed = self.leaves && self.count_roaming(false);
        self.turn = to.turn.get();
        self.house = Rc::clone(to);
        if self.leaves && (roamed || !self.count_roaming(true)) {
            self.leaves = false;
        }
    }

    /// Lets the bell wake the current task. A task's waker stays good as long as the task lives.
    pub(super) async fn sit(&mut self) {
        poll_fn(|cx| {
            let place = Place {
                waker: cx.waker().clone(),
                has_upstream: Cell::new(false),
                since: now(),
                has_asked: Cell::new(false),
                suspect: Cell::new(false),
            };
            self.key = Some(At::new(self.house.seats.borrow_mut().insert(place)));
            Poll::Ready(())
        })
        .await;
    }

    /// Notes whether this session has an upstream, or is getting one.
    pub(super) fn note_upstream(&self, has: bool) {
        self.place(|place| place.has_upstream.set(has));
    }

    pub(super) fn place<T>(&self, look: impl FnOnce(&Place) -> T) -> Option<T> {
        let seats = self.house.seats.borrow();
        self.key.and_then(|at| seats.get(at.key())).map(look)
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
        if let Some(at) = self.key {
            self.house.seats.borrow_mut().remove(at.key());
        }
        self.house.count_session(false);
        if self.leaves {
            self.count_roaming(false);
        }
        let reason = match self.reason {
            Some(reason) => reason,
            None if std::thread::panicking() => CloseReason::Panicked,
            None => CloseReason::ShutdownForced,
        };
        self.house.closed(reason);
    }
}
