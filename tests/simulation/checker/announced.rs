//! Announced failovers: how long one is waited for, and the generation that rests on a successor's own word
//! (`confirm = "role"`).

use switchmaster::control::action::Swap;
use switchmaster::topology::observation::RoleReport;
use switchmaster::topology::rules::Confirm;
use switchmaster::topology::{HoldCause, Phase, State};

use super::{Checker, Property};
use crate::names::node_of;

/// Longest wait for an announced promotion, and how late the end of it may be noticed.
const ANNOUNCED_HOLD: u64 = 3000;
const LATE: u64 = 600;
/// The longest that a generation is in force without a Sentinel's word.
const PROVISIONAL: u64 = 3000;

/// What is known of the successor that is asked.
#[derive(Debug, Default)]
pub(super) struct Succession {
    /// An announced hold: since when.
    held: Option<u64>,
    node: Option<usize>,
    was_replica: bool,
    /// It said that it is a master, at some time.
    promoted: bool,
    /// It said so last.
    is_master: bool,
}

/// A generation that no Sentinel's word stands behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Provisional {
    pub(super) left: usize,
    node: usize,
    generation: u64,
    since: u64,
    floor: Option<u64>,
}

impl Checker {
    /// An announced successor is asked from now on.
    pub(crate) fn follows(&mut self, node: usize) {
        self.succession = Succession {
            node: Some(node),
            ..Succession::default()
        };
    }

    pub(crate) fn successor_said(&mut self, report: &RoleReport) {
        let said = &mut self.succession;
        said.is_master = *report == RoleReport::Master;
        said.promoted |= said.is_master;
        said.was_replica |= *report == RoleReport::Replica;
        if let Some(node) = said.node {
            self.said(node, report);
        }
    }

    /// The master whose names count as the current one's: a provisional one is named by nobody yet.
    pub(super) fn named(&self) -> Option<usize> {
        let left = self.provisional.map(|p| p.left);
        left.or_else(|| self.generations.last().copied())
    }

    /// A generation on the successor's own word.
    pub(super) fn provided(&mut self, now: u64, swap: &Swap) {
        let node = node_of(&swap.to);
        let said = &self.succession;
        let witnessed = said.node == Some(node) && said.was_replica && said.is_master;
        let what = if self.confirm != Confirm::Role {
            "though confirm is \"sentinel\""
        } else if !witnessed {
            "and was not seen being promoted"
        } else if self.provisional.is_some() {
            "on top of another"
        } else if self.settling && self.distrust > 0 {
            "in the middle of a standstill"
        } else {
            ""
        };
        if !what.is_empty() {
            let what = format!("{} is used on its own word {what}", swap.to);
            self.fail(Property::Provisional, now, what);
        }
        self.opening = None;
        self.provisional = swap.from.as_ref().map(|from| Provisional {
            left: node_of(from),
            node,
            generation: swap.generation.0,
            since: now,
            floor: self.floor,
        });
    }

    /// A Sentinel is said to name it at this epoch.
    pub(super) fn confirmed(&mut self, now: u64, epoch: u64) {
        // As it was decided: by those who count against the master that was left.
        self.count(now);
        if Some(epoch) < self.floor {
            // Released, and raised to that at once.
            let released = self.below.map(|b| b.epoch).or(Some(epoch));
            self.check_floor(now, released);
        }
        // By what is published now it may be left already, for the next one.
        let node = self.provisional.take().map(|p| p.node);
        let mut named = self.links.iter().filter_map(|l| l.seen.as_ref());
        if !named.any(|s| Some(s.node) == node && s.epoch >= epoch) {
            let what = format!("{node:?} is final at {epoch}, where nobody names it");
            self.fail(Property::Provisional, now, what);
        }
    }

    pub(super) fn undone(&mut self, now: u64) {
        self.count(now);
        match self.provisional.take() {
            Some(p) => self.over = Some((p.generation + 1, p.left)),
            None => self.fail(
                Property::Provisional,
                now,
                "undone, and was not in force".to_owned(),
            ),
        }
    }

    /// The way back. True when this was one.
    pub(super) fn went_back(&mut self, now: u64, swap: &Swap) -> bool {
        let Some((generation, left)) = self.over.filter(|(g, _)| *g == swap.generation.0) else {
            return false;
        };
        if node_of(&swap.to) != left || self.was.phase == Phase::Serving {
            let what = format!("generation {generation} is no way back to {left}");
            self.fail(Property::Provisional, now, what);
        }
        true
    }

    pub(super) fn check_provisional(&mut self, now: u64, state: &State, floor: Option<u64>) {
        if let Some((generation, left)) = self.over
            && state.generation.0 < generation
        {
            let what = format!("{left} is not gone back to");
            self.fail(Property::Provisional, now, what);
        }
        let Some(p) = self.provisional else { return };
        if floor > p.floor {
            let what = format!("the floor rose from {:?} to {floor:?}", p.floor);
            self.fail(Property::Provisional, now, what);
        }
        if state.phase == Phase::Serving && now >= p.since + PROVISIONAL {
            let what = format!("in force since {}, and no Sentinel has named it", p.since);
            self.fail(Property::Provisional, now, what);
        }
    }

    pub(super) fn check_announced(&mut self, now: u64, state: &State) {
        let Phase::Held {
            cause: HoldCause::Announced,
            sealed,
            ..
        } = state.phase
        else {
            self.succession.held = None;
            return;
        };
        let since = *self.succession.held.get_or_insert(now);
        let promoted = self.succession.promoted;
        if sealed && !promoted {
            let what = "sealed though no successor was promoted".to_owned();
            self.fail(Property::Announced, now, what);
        }
        let waited = now - since;
        if !promoted && waited > ANNOUNCED_HOLD + LATE {
            let what = format!("waits for a promotion since {since}");
            self.fail(Property::Announced, now, what);
        }
    }
}
