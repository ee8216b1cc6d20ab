//! The proxy entries that run at one moment, as far as two processes have to know them of which one follows the other.

use crate::control::ledger::Book;
use crate::listener::Bound;
use crate::session::luggage::Origin;
use crate::topology::Phase;
use crate::topology::publish::Reader;
use crate::upgrade::message::{Belief, Named, Reign};
use crate::worker::Reins;

/// One proxy entry, as far as the other process has to know it.
#[derive(Debug)]
pub(super) struct Known {
    /// The number it is known by while this process runs.
    pub(super) number: usize,
    pub(super) name: String,
    pub(super) master: String,
    /// It leads to replicas: its sessions drain.
    pub(super) replicas: bool,
    pub(super) reader: Reader,
    pub(super) book: Book,
    /// Doubles of its listeners, whether they are open or not.
    pub(super) doors: Vec<Bound>,
}

impl Known {
    /// Its names.
    pub(super) fn named(&self) -> Named {
        Named {
            name: self.name.clone(),
            master: self.master.clone(),
            replicas: self.replicas,
        }
    }

    /// The master in force; none while it is held.
    pub(super) fn reign(&self) -> Option<Reign> {
        self.in_force().map(|(reign, _)| reign)
    }

    /// The same, and what upstreams that lead to it are of here.
    pub(super) fn in_force(&self) -> Option<(Reign, Origin)> {
        let origin = Origin::in_force(&self.reader)?;
        let reign = Reign {
            entry: self.name.clone(),
            at: origin.at?,
            epoch: self.epoch(),
        };
        Some((reign, origin))
    }

    /// There is a master, and clients wait all the same.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.reader.state().phase, Phase::Held { .. })
    }

    fn epoch(&self) -> Option<u64> {
        self.book.with(|ledger| ledger.epoch().map(|epoch| epoch.0))
    }

    pub(super) fn belief(&self) -> Belief {
        Belief {
            of: self.named(),
            generation: self.reader.state().generation.0,
            epoch: self.epoch(),
        }
    }
}

/// Accepts at all of these, from the next turn of worker 0 on. False when it cannot.
pub(super) async fn open_doors(entries: &[Known], reins: &Reins) -> bool {
    for known in entries {
        for door in &known.doors {
            let Ok(double) = door.double() else {
                return false;
            };
            if reins.open(known.number, double).await.is_err() {
                return false;
            }
        }
    }
    true
}

/// Accepts no more; connections wait in the kernel until somebody does. False when that is not certain.
pub(super) async fn close_doors(entries: &[Known], reins: &Reins) -> bool {
    for known in entries {
        for door in &known.doors {
            if reins.close(known.number, door.id()).await.is_err() {
                return false;
            }
        }
    }
    true
}
