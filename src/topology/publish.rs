//! The one swap between the two flows: `channel() -> (Publisher, Reader, subscriptions)`.
//!
//! The publisher writes a [`State`] and one atomic word; readers load them. One wake-up goes to each
//! *worker* (not to each session); a worker walks its own sessions and acknowledges the generation once
//! none of them holds an upstream socket of an older one.
//!
//! A [`Reader`] cannot publish, and a [`Publisher`] cannot be cloned: there is one source of truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{Generation, State};
use crate::net::clock::{Moment, now};

/// Low bits of the fence word: what a session of that generation may do.
pub(super) const MODE_BITS: u32 = 2;
/// Nothing may be written; replies flow.
pub(super) const HELD: u64 = 0;
/// Everything flows.
pub(super) const OPEN: u64 = 1;
/// Nothing flows, see [`Phase::Held`](super::Phase::Held).
pub(super) const SEALED: u64 = 2;
/// Replies flow, and what was begun may be finished: a promotion is announced, and has not happened.
pub(super) const DRAINING: u64 = 3;
const MODE: u64 = (1 << MODE_BITS) - 1;

/// The fence, checked before every upstream write: two loads and a clock reading.
///
/// The word is `generation * 4 + mode`. `valid_until` is extended by the control task as it turns; a process
/// that stood still (SIGSTOP, a suspended machine) finds it in the past and writes nothing until the
/// control task has confirmed what it believes.
#[derive(Debug)]
pub struct Gate {
    word: AtomicU64,
    valid_until: AtomicU64,
    /// When the announced successor was last asked and still was a replica.
    proven_until: AtomicU64,
    /// Until then the control plane has turned. Not what it believes to be true, as `valid_until`: whether it has looked.
    awake_until: AtomicU64,
}

/// What a session must hold to write to the upstream of one generation: the word of that generation, open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass(u64);

/// What the fence says of a [`Pass`] at this instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Go on.
    Open,
    /// No new request: only the rest of one that the master has the beginning of.
    Draining,
    /// Not now. The worker is woken when that changes.
    Held,
    /// Never again: the generation has passed.
    Passed,
}

impl Pass {
    /// For upstreams of this generation.
    pub const fn of(generation: Generation) -> Self {
        Self((generation.0 << MODE_BITS) | OPEN)
    }

    /// The generation it is for.
    pub const fn generation(self) -> Generation {
        Generation(self.0 >> MODE_BITS)
    }
}

impl Gate {
    /// May a session with this pass write to its upstream now?
    #[inline]
    pub fn leave(&self, pass: Pass) -> Leave {
        let word = self.word.load(Ordering::Acquire);
        if word == pass.0 {
            return self.unless_expired(Leave::Open);
        }
        if word >> MODE_BITS != pass.0 >> MODE_BITS {
            return Leave::Passed;
        }
        match word & MODE {
            DRAINING => self.unless_expired(Leave::Draining),
            _ => Leave::Held,
        }
    }

    #[inline]
    fn unless_expired(&self, leave: Leave) -> Leave {
        if now().as_nanos() < self.valid_until.load(Ordering::Relaxed) {
            leave
        } else {
            Leave::Held
        }
    }

    /// May a session with this pass read replies of its upstream now? Costs no clock reading. `Draining`: it may, and
    /// hand over what it read when [`is_proven`](Self::is_proven) says so.
    #[inline]
    pub fn leave_to_read(&self, pass: Pass) -> Leave {
        let word = self.word.load(Ordering::Acquire);
        if word >> MODE_BITS != pass.0 >> MODE_BITS {
            return Leave::Passed;
        }
        match word & MODE {
            SEALED => Leave::Held,
            DRAINING => Leave::Draining,
            _ => Leave::Open,
        }
    }

    /// The control plane has not turned for so long that this process stood still, and nobody has looked yet at what happened
    /// meanwhile: a reply that was read now may be of one that has been replaced.
    #[inline]
    pub fn is_stale(&self) -> bool {
        now().as_nanos() >= self.awake_until.load(Ordering::Acquire)
    }

    /// True when this pass will never be good again. One load of a word that was read a moment ago.
    #[inline]
    pub fn has_passed(&self, pass: Pass) -> bool {
        self.word.load(Ordering::Acquire) >> MODE_BITS != pass.0 >> MODE_BITS
    }

    /// Until when it counts, if nothing extends it.
    pub fn valid_until(&self) -> Moment {
        Moment::from_nanos(self.valid_until.load(Ordering::Acquire))
    }

    /// See [`Publisher::prove`].
    pub fn proven_until(&self) -> Moment {
        Moment::from_nanos(self.proven_until.load(Ordering::Acquire))
    }

    /// The announced successor was still a replica after this moment: what the old master had replied by then was no reply
    /// of one that has been replaced.
    pub fn is_proven(&self, read: Moment) -> bool {
        self.proven_until.load(Ordering::Acquire) >= read.as_nanos()
    }
}

/// Upstream connections of all sessions, those that are being made among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upstreams {
    /// All.
    pub open: u64,
    /// Those that are older than the edition, and will be given up at their next quiet moment.
    pub old: u64,
}

/// What became of the sessions whose upstream was of a generation that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Closed.
    pub cut: u64,
    /// They live on, and are carried over when their clients speak.
    pub kept: u64,
}

#[derive(Debug)]
struct Shared {
    state: ArcSwap<State>,
    gate: Gate,
    /// Counts [`Publisher::renew`]; an upstream that was made before the last is old.
    edition: AtomicU64,
    doubt: Notify,
    acked: Notify,
    wakes: Vec<Wake>,
}

/// One worker's bell, and what it has acknowledged.
#[derive(Debug)]
struct Wake {
    bell: Notify,
    acked: AtomicU64,
    cut: AtomicU64,
    kept: AtomicU64,
    /// The edition that the two below are of.
    edition: AtomicU64,
    open: AtomicU64,
    old: AtomicU64,
}

/// The writing end; lives in the control task.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// The reading end; sessions and workers hold it.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

/// One worker's subscription: woken once for each change.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    worker: usize,
}

impl Drop for Subscription {
    /// A worker that is gone holds nothing, of whatever generation: nobody waits for its word.
    fn drop(&mut self) {
        let wake = &self.shared.wakes[self.worker];
        wake.open.store(0, Ordering::Release);
        wake.old.store(0, Ordering::Release);
        wake.edition.store(u64::MAX, Ordering::Release);
        wake.acked.store(u64::MAX, Ordering::Release);
        self.shared.acked.notify_one();
    }
}

/// Makes the meeting point of one proxy entry for so many workers.
pub fn channel(initial: State, workers: usize) -> (Publisher, Reader, Vec<Subscription>) {
    let shared = Arc::new(Shared {
        gate: Gate {
            word: AtomicU64::new(initial.word()),
            valid_until: AtomicU64::new(0),
            proven_until: AtomicU64::new(0),
            awake_until: AtomicU64::new(u64::MAX),
        },
        state: ArcSwap::from_pointee(initial),
        edition: AtomicU64::new(0),
        doubt: Notify::new(),
        acked: Notify::new(),
        wakes: (0..workers)
            .map(|_| Wake {
                bell: Notify::new(),
                acked: AtomicU64::new(0),
                cut: AtomicU64::new(0),
                kept: AtomicU64::new(0),
                edition: AtomicU64::new(0),
                open: AtomicU64::new(0),
                old: AtomicU64::new(0),
            })
            .collect(),
    });
    let subscriptions = (0..workers)
        .map(|worker| Subscription {
            shared: Arc::clone(&shared),
            worker,
        })
        .collect();
    (
        Publisher {
            shared: Arc::clone(&shared),
        },
        Reader { shared },
        subscriptions,
    )
}

impl Publisher {
    /// Swaps the state and rings every worker's bell.
    pub fn publish(&mut self, state: State) {
        let gate = &self.shared.gate;
        let word = state.word();
        let open = word & MODE == OPEN;
        // Closing comes before the state is seen, opening after it: no session can hold a newer state
        // and find the fence of an older one open.
        if !open {
            gate.word.store(word, Ordering::Release);
        }
        self.shared.state.store(Arc::new(state));
        if open {
            gate.word.store(word, Ordering::Release);
        }
        self.ring();
    }

    /// Lets the fence word count until `until`. Workers that found it expired are woken; true then.
    pub fn extend(&mut self, until: Moment) -> bool {
        let before = self
            .shared
            .gate
            .valid_until
            .swap(until.as_nanos(), Ordering::AcqRel);
        let at = now();
        let counts_again = before <= at.as_nanos() && until > at;
        if counts_again {
            self.ring();
        }
        counts_again
    }

    /// The control plane turns, and what it has published is what it knows: so it is at least until then. Workers that found this over
    /// are woken.
    pub fn awake(&mut self, until: Moment) {
        let gate = &self.shared.gate;
        let before = gate.awake_until.swap(until.as_nanos(), Ordering::AcqRel);
        if before <= now().as_nanos() {
            self.ring();
        }
    }

    /// The announced successor, asked at this moment, said that it is a replica. Wakes nobody: who has something to hand
    /// over looks by itself.
    pub fn prove(&mut self, asked: Moment) {
        let gate = &self.shared.gate;
        gate.proven_until
            .fetch_max(asked.as_nanos(), Ordering::AcqRel);
    }

    /// Has every session give up its upstream at its next quiet moment, and take a new one when it needs one and may.
    /// Gives the edition that upstreams are of from now on.
    pub fn renew(&mut self) -> u64 {
        let edition = self.shared.edition.fetch_add(1, Ordering::AcqRel) + 1;
        self.ring();
        edition
    }

    /// The upstreams that there are. `None`: not every worker has heard of this edition yet.
    pub fn upstreams(&self, edition: u64) -> Option<Upstreams> {
        let mut sum = Upstreams::default();
        for wake in &self.shared.wakes {
            if wake.edition.load(Ordering::Acquire) < edition {
                return None;
            }
            sum.open += wake.open.load(Ordering::Acquire);
            sum.old += wake.old.load(Ordering::Acquire);
        }
        Some(sum)
    }

    /// What is published now.
    pub fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// Waits until a session doubts the master, see [`Reader::doubt`].
    pub async fn doubted(&self) {
        self.shared.doubt.notified().await;
    }

    /// Waits until every worker has acknowledged this generation; gives what became of sessions since the last call.
    /// Cancel-safe; the caller brings the deadline.
    pub async fn acknowledged(&self, generation: Generation) -> Left {
        loop {
            let changed = self.shared.acked.notified();
            if self.is_acknowledged(generation) {
                let sum = |counter: fn(&Wake) -> &AtomicU64| {
                    let wakes = self.shared.wakes.iter();
                    wakes.map(|w| counter(w).swap(0, Ordering::AcqRel)).sum()
                };
                return Left {
                    cut: sum(|w| &w.cut),
                    kept: sum(|w| &w.kept),
                };
            }
            changed.await;
        }
    }

    /// True when no worker holds an upstream socket older than this generation.
    pub fn is_acknowledged(&self, generation: Generation) -> bool {
        self.shared
            .wakes
            .iter()
            .all(|w| w.acked.load(Ordering::Acquire) >= generation.0)
    }

    /// Has every session look again, whatever for.
    pub fn ring(&self) {
        for wake in &self.shared.wakes {
            wake.bell.notify_one();
        }
    }
}

impl Reader {
    /// What is published now.
    pub fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// The pass for the upstream of this state.
    pub const fn pass(state: &State) -> Pass {
        Pass::of(state.generation)
    }

    /// Of which edition an upstream is whose dial begins now.
    pub fn edition(&self) -> u64 {
        self.shared.edition.load(Ordering::Acquire)
    }

    /// The fence.
    #[inline]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// "Something is wrong with the master: ask again." Carries no data, never blocks, and many doubts
    /// before the next question are one.
    pub fn doubt(&self) {
        self.shared.doubt.notify_one();
    }
}

impl Subscription {
    /// Waits for the next change; a change since the last call counts.
    pub async fn changed(&self) {
        self.shared.wakes[self.worker].bell.notified().await;
    }

    /// What is published now.
    pub fn state(&self) -> Arc<State> {
        self.shared.state.load_full()
    }

    /// Says: none of this worker's sessions holds an upstream socket older than `generation`; and what became of
    /// those that did, since the last acknowledgement.
    pub fn acknowledge(&self, generation: Generation, left: Left) {
        let wake = &self.shared.wakes[self.worker];
        wake.cut.fetch_add(left.cut, Ordering::AcqRel);
        wake.kept.fetch_add(left.kept, Ordering::AcqRel);
        wake.acked.fetch_max(generation.0, Ordering::AcqRel);
        self.shared.acked.notify_one();
    }

    /// Says: these are this worker's upstreams, and its sessions have been told of `edition`.
    pub fn report(&self, edition: u64, upstreams: Upstreams) {
        let wake = &self.shared.wakes[self.worker];
        wake.open.store(upstreams.open, Ordering::Release);
        wake.old.store(upstreams.old, Ordering::Release);
        // Last: whoever sees it sees the counts that go with it, or later ones.
        wake.edition.store(edition, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::topology::{ForReaders, HoldCause, MasterAddr, Phase};

    fn serving(generation: u64) -> State {
        State {
            generation: Generation(generation),
            phase: Phase::Serving,
            master: Some(MasterAddr::for_test(([127, 0, 0, 1], 1).into())),
            verified_at: Some(([127, 0, 0, 1], 1).into()),
            hold_max: Duration::from_secs(1),
            readers: ForReaders::default(),
        }
    }

    #[test]
    fn a_pass_is_good_for_its_own_generation_while_open_and_valid() {
        let (mut publisher, reader, _subs) = channel(State::initial(Duration::ZERO), 1);
        let first = serving(1);
        let pass = Reader::pass(&first);
        assert_eq!(reader.gate().leave(pass), Leave::Passed);
        publisher.publish(first.clone());
        assert_eq!(reader.gate().leave(pass), Leave::Held, "never extended");
        publisher.extend(now() + Duration::from_secs(60));
        assert_eq!(reader.gate().leave(pass), Leave::Open);
        let held = Phase::Held {
            cause: HoldCause::MasterUnreachable,
            since: now(),
            sealed: false,
        };
        publisher.publish(State {
            phase: held,
            ..first.clone()
        });
        assert_eq!(reader.gate().leave(pass), Leave::Held);
        assert_eq!(reader.gate().leave_to_read(pass), Leave::Open);
        let sealed = Phase::Held {
            cause: HoldCause::Announced,
            since: now(),
            sealed: true,
        };
        publisher.publish(State {
            phase: sealed,
            ..first.clone()
        });
        assert_eq!(reader.gate().leave(pass), Leave::Held);
        assert_eq!(reader.gate().leave_to_read(pass), Leave::Held);
        publisher.publish(first);
        assert_eq!(reader.gate().leave(pass), Leave::Open);
        assert!(!reader.gate().has_passed(pass));
        publisher.publish(serving(2));
        assert_eq!(reader.gate().leave(pass), Leave::Passed);
        assert!(reader.gate().has_passed(pass));
        publisher.extend(now() - Duration::from_nanos(1));
        assert_eq!(reader.gate().leave(Reader::pass(&serving(2))), Leave::Held);
    }

    #[tokio::test]
    async fn acknowledged_only_after_the_last_worker() {
        let (mut publisher, _reader, subs) = channel(State::initial(Duration::ZERO), 2);
        publisher.publish(serving(1));
        for sub in &subs {
            sub.changed().await;
        }
        subs[0].acknowledge(Generation(1), Left { cut: 3, kept: 1 });
        assert!(!publisher.is_acknowledged(Generation(1)));
        subs[1].acknowledge(Generation(1), Left { cut: 4, kept: 2 });
        assert_eq!(
            publisher.acknowledged(Generation(1)).await,
            Left { cut: 7, kept: 3 }
        );
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_is_not_waited_for() {
        let (mut publisher, _reader, mut subs) = channel(State::initial(Duration::ZERO), 2);
        publisher.publish(serving(1));
        let edition = publisher.renew();
        let last = subs.pop().expect("two");
        last.acknowledge(Generation(1), Left { cut: 4, kept: 2 });
        let gone = subs.pop().expect("one more");
        assert!(!publisher.is_acknowledged(Generation(1)));
        let word = publisher.acknowledged(Generation(1));
        let (left, ()) = tokio::join!(word, async { drop(gone) });
        assert_eq!(left, Left { cut: 4, kept: 2 });
        drop(last);
        publisher.publish(serving(2));
        assert!(publisher.is_acknowledged(Generation(2)));
        assert_eq!(publisher.upstreams(edition), Some(Upstreams::default()));
    }
}
