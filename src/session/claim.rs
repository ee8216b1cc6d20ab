//! Which upstream sockets the sessions of a house have: what the end of a generation, or of an edition, waits for.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::house::House;
use super::luggage::{Origin, Stay};
use crate::net::clock::{Moment, now};
use crate::topology::Generation;
use crate::topology::publish::{self, Pass};

/// A node that ends a connection sooner than this may have no room for it.
const YOUNG: Duration = Duration::from_secs(1);

/// A generation and an edition in one word, the generation first: ten thousand sessions have one each. Either would take more
/// than a century at one a second to outgrow its half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Of(u64);

impl Of {
    const HALF: u32 = 32;

    const fn new(generation: Generation, edition: u64) -> Self {
        Self((generation.0 << Self::HALF) | edition)
    }

    const fn generation(self) -> Generation {
        Generation(self.0 >> Self::HALF)
    }

    const fn edition(self) -> u64 {
        self.0 & ((1 << Self::HALF) - 1)
    }
}

/// How many upstream sockets, connected or being connected, there are of each generation, and in it of each edition.
#[derive(Debug, Default)]
pub(super) struct Upstreams(BTreeMap<Of, u64>);

impl Upstreams {
    /// The generation of the oldest.
    pub(super) fn oldest(&self) -> Option<Generation> {
        self.0.keys().next().map(|of| of.generation())
    }

    /// All, and those that are older than this edition.
    pub(super) fn count(&self, edition: u64) -> publish::Upstreams {
        let old = self.0.iter().filter(|(of, _)| of.edition() < edition);
        publish::Upstreams {
            open: self.0.values().sum(),
            old: old.map(|(_, count)| count).sum(),
        }
    }
}

/// "I have, or am about to have, an upstream socket of this generation." Drop the socket first.
#[derive(Debug)]
pub(super) struct Claim {
    house: Rc<House>,
    of: Of,
    since: Moment,
}

impl House {
    /// To be held as long as there is an upstream socket of this generation, or a dial for one.
    pub(super) fn claim(self: &Rc<Self>, generation: Generation) -> Claim {
        self.claim_of(Of::new(generation, self.edition()), now())
    }

    /// The same for an upstream that was made before, here or in another process; nobody else is ever to have it.
    pub(super) fn claim_again(self: &Rc<Self>, origin: Origin) -> Claim {
        let of = Of::new(origin.generation, origin.edition);
        self.claim_of(of, Moment::default())
    }

    fn claim_of(self: &Rc<Self>, of: Of, since: Moment) -> Claim {
        *self.upstreams.borrow_mut().0.entry(of).or_default() += 1;
        self.upstreams_changed();
        Claim {
            house: Rc::clone(self),
            of,
            since,
        }
    }
}

impl Claim {
    /// The generation of the upstream.
    pub(super) const fn generation(&self) -> Generation {
        self.of.generation()
    }

    /// What its session has to show before each write.
    pub(super) const fn pass(&self) -> Pass {
        Pass::of(self.generation())
    }

    /// When the dial began.
    pub(super) const fn since(&self) -> Moment {
        self.since
    }

    /// One that ends now was hardly begun.
    pub(super) fn is_young(&self) -> bool {
        now().since(self.since) < YOUNG
    }

    /// What its upstream is worth to whoever gets it.
    pub(super) fn origin(&self) -> Origin {
        let state = self.house.state();
        let is_in_force = state.generation == self.generation();
        Origin {
            generation: self.generation(),
            edition: self.of.edition(),
            at: state.verified_at.filter(|_| is_in_force),
        }
    }

    /// The upstream leaves this thread: the claim stays here until it is certain that it does not come back, or until it has.
    pub(super) fn stays(self) -> Stay {
        let (stay, ended) = oneshot::channel::<()>();
        spawn_local(async move {
            // Nothing is ever said there.
            let _ = ended.await;
            drop(self);
        });
        Stay::new(stay)
    }

    /// Its session is to take another at the next quiet moment, and nobody else is to have this one.
    pub(super) fn is_old(&self) -> bool {
        self.of.edition() < self.house.edition()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut upstreams = self.house.upstreams.borrow_mut();
        if let Some(count) = upstreams.0.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                upstreams.0.remove(&self.of);
            }
        }
        drop(upstreams);
        self.house.upstreams_changed();
    }
}
