//! Counting votes: what fresh statements name, and which of it counts. Pure.

use std::collections::BTreeMap;

use super::observation::{Asked, View};
use super::rules::Agree;
use super::{Epoch, MasterAddr};
use crate::net::addr::NodeAddr;
use crate::net::clock::Moment;

/// Fewest voters whose agreement can lower the floor or vouch for a node that hides its role.
pub(super) const FEWEST_FOR_MAJORITY: usize = 2;

/// An address the Sentinels name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where to verify.
    pub addr: MasterAddr,
    /// At which config-epoch.
    pub epoch: Epoch,
    /// How many voters name it at that epoch.
    pub support: usize,
    /// How many voters there are.
    pub voters: usize,
    /// What made us ask the first that named it.
    pub asked: Asked,
    /// When that happened.
    pub since: Moment,
}

impl Candidate {
    /// True when a strict majority of the voters, and at least two, name it.
    pub const fn has_majority(&self) -> bool {
        self.support >= FEWEST_FOR_MAJORITY && self.support * 2 > self.voters
    }
}

/// Why nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The current master is named at this epoch.
    Confirmed(Epoch),
    /// No Sentinel has answered lately.
    NoFreshView,
    /// The fresh answers are older than what was adopted.
    BelowFloor,
    /// Several addresses at the highest epoch, no majority for one.
    Ambiguous,
    /// A new address is named, but not yet by a majority (`agree = "majority"`).
    AwaitMajority,
    /// The master that was left for a provisional generation is named as it was before.
    Provisional,
}

/// One Sentinel's latest word.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) view: View,
    pub(super) asked_at: Moment,
    pub(super) asked: Asked,
    pub(super) since: Moment,
}

/// The fresh statements, counted by what they name.
pub(super) struct Poll<'a> {
    named: BTreeMap<(Epoch, &'a NodeAddr), Vec<&'a Statement>>,
    pub(super) voters: usize,
    current: Option<&'a MasterAddr>,
}

/// An epoch, the address named at it, and by whom.
pub(super) type Named<'p, 'a> = (Epoch, &'a NodeAddr, &'p [&'a Statement]);

impl<'a> Poll<'a> {
    pub(super) fn new(
        statements: &'a [Statement],
        voters: usize,
        current: Option<&'a MasterAddr>,
    ) -> Self {
        let mut named: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for s in statements {
            let key = (s.view.epoch, &s.view.master);
            named.entry(key).or_default().push(s);
        }
        Self {
            named,
            voters,
            current,
        }
    }

    /// The highest epoch that counts, and the one address it has.
    pub(super) fn winner(&self, floor: Option<Epoch>, agree: Agree) -> Result<Named<'_, 'a>, Why> {
        let known = floor.unwrap_or_default();
        let mut above: Vec<Named<'_, 'a>> = self
            .named
            .iter()
            .filter(|((epoch, _), _)| *epoch >= known)
            .map(|((epoch, addr), by)| (*epoch, *addr, by.as_slice()))
            .collect();
        if above.is_empty() {
            return Err(Why::BelowFloor);
        }
        if agree == Agree::Majority {
            // A lone high epoch is not waited for: it may be a leftover's, and would block all that follows.
            above.retain(|(epoch, addr, _)| self.is_majority(*epoch, addr));
            if above.is_empty() {
                return Err(Why::AwaitMajority);
            }
        }
        let top = above
            .iter()
            .map(|(epoch, ..)| *epoch)
            .max()
            .unwrap_or_default();
        let mut at_top = above.iter().filter(|(epoch, ..)| *epoch == top);
        let winner = match (at_top.next(), at_top.next()) {
            (Some(only), None) => Some(only),
            _ => above
                .iter()
                .find(|(e, addr, _)| *e == top && self.is_majority(*e, addr)),
        };
        let Some(&(epoch, addr, by)) = winner else {
            return Err(Why::Ambiguous);
        };
        let sure = self.is_majority(epoch, addr);
        // Sentinels adopt strictly greater epochs only, so one that names another master at the epoch that was adopted
        // was reset in the middle of a failover.
        if !sure && floor == Some(epoch) && !self.is_current(addr) {
            return Err(Why::Ambiguous);
        }
        Ok((epoch, addr, by))
    }

    /// How many voters name this address, at whatever epoch counts.
    pub(super) fn support(&self, addr: &NodeAddr, floor: Option<Epoch>) -> usize {
        let counts = |(epoch, a): &(Epoch, &NodeAddr)| *a == addr && Some(*epoch) >= floor;
        self.named
            .iter()
            .filter(|(key, _)| counts(key))
            .map(|(_, by)| by.len())
            .sum()
    }

    pub(super) fn is_current(&self, addr: &NodeAddr) -> bool {
        self.current.is_some_and(|c| *c.host_port() == addr.0)
    }

    /// True when a strict majority of the voters names this address at this epoch.
    pub(super) fn is_majority(&self, epoch: Epoch, addr: &NodeAddr) -> bool {
        self.named
            .get(&(epoch, addr))
            .is_some_and(|by| by.len() * 2 > self.voters)
    }
}
