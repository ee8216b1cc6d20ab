//! What the Sentinels list, and what follows from it together. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Unfit;
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::observation::{Observation, Said};
use crate::topology::rules::Agree;

/// How long a list counts beside newer ones: each Sentinel is asked for it every 5 s.
const FRESH: Duration = Duration::from_secs(12);
/// Most Sentinels listened to; discovery follows no more.
const MAX_VOICES: usize = 64;

/// A list, and when it was asked for.
type List = (Moment, BTreeMap<NodeAddr, bool>);

#[derive(Debug)]
pub(super) struct Voices {
    agree: Agree,
    /// What each listed last; `None` before its first answer.
    lists: BTreeMap<SentinelAddr, Option<List>>,
    /// The last lists of Sentinels that are not followed any longer: they count until those that are have listed.
    of_before: BTreeMap<SentinelAddr, List>,
}

impl Voices {
    pub(super) const fn new(agree: Agree) -> Self {
        Self {
            agree,
            lists: BTreeMap::new(),
            of_before: BTreeMap::new(),
        }
    }

    pub(super) const fn change(&mut self, agree: Agree) {
        self.agree = agree;
    }

    pub(super) fn observe(&mut self, Observation { sentinel, said }: Observation) {
        let room = self.lists.len() < MAX_VOICES || self.lists.contains_key(&sentinel);
        match said {
            Said::Forgotten => {
                if let Some(Some(list)) = self.lists.remove(&sentinel)
                    && self.of_before.len() < MAX_VOICES
                {
                    self.of_before.insert(sentinel, list);
                }
            }
            Said::Replicas { listed, asked_at } if room => {
                let mut all = BTreeMap::new();
                for replica in listed {
                    *all.entry(replica.addr).or_default() |= replica.down;
                }
                self.of_before.remove(&sentinel);
                self.lists.insert(sentinel, Some((asked_at, all)));
            }
            Said::Followed(_) if room => {
                self.lists.entry(sentinel).or_default();
            }
            _ => {}
        }
        if self.suffice(self.lists.values().flatten().count(), self.lists.len()) {
            self.of_before.clear();
        }
    }

    /// So many of so many are enough for a decision.
    fn suffice(&self, some: usize, of: usize) -> bool {
        match self.agree {
            Agree::Any => some > 0,
            Agree::Majority => some * 2 > of,
        }
    }

    /// When one was asked last.
    pub(super) fn asked(&self) -> Moment {
        let asked = self.said().map(|(asked, _)| *asked);
        asked.max().unwrap_or_default()
    }

    fn said(&self) -> impl Iterator<Item = &List> {
        self.lists.values().flatten().chain(self.of_before.values())
    }

    /// Of how many a majority is one.
    fn all(&self) -> usize {
        if self.of_before.is_empty() {
            self.lists.len()
        } else {
            self.said().count()
        }
    }

    /// All that are listed by as many as have to agree; true for one that all of those call down.
    pub(super) fn listed(&self) -> BTreeMap<NodeAddr, bool> {
        let mut all: BTreeMap<&NodeAddr, (usize, bool)> = BTreeMap::new();
        for (addr, down) in self.said().flat_map(|(_, listed)| listed) {
            let (by, is_down) = all.entry(addr).or_insert((0, true));
            *by += 1;
            *is_down &= down;
        }
        let agreed = all
            .into_iter()
            .filter(|(_, (by, _))| self.suffice(*by, self.all()));
        agreed
            .map(|(addr, (_, down))| (addr.clone(), down))
            .collect()
    }

    /// Until none of what the Sentinels said last has any freshness left it counts as it is: losing them ends nothing.
    pub(super) fn standing(&self, addr: &NodeAddr, now: Moment) -> Result<(), Unfit> {
        let is_fresh = |(asked, _): &&List| now.since(*asked) < FRESH;
        let fresh_only = self.suffice(self.said().filter(is_fresh).count(), self.all());
        let counts = self.said().filter(|list| !fresh_only || is_fresh(list));
        let words: Vec<bool> = counts
            .filter_map(|(_, listed)| listed.get(addr).copied())
            .collect();
        let down = words.iter().filter(|down| **down).count();
        if !self.suffice(words.len(), self.all()) {
            Err(Unfit::Unlisted)
        } else if down == words.len() || down * 2 > self.all() {
            Err(Unfit::Down)
        } else {
            Ok(())
        }
    }
}
