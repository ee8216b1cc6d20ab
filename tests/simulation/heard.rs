//! What a proxy was told by each Sentinel, as the checker counts it.

use std::collections::{BTreeMap, BTreeSet};

/// How long an answer counts, milliseconds.
const FRESH: u64 = 3000;

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) node: usize,
    pub(crate) epoch: u64,
    pub(crate) asked_at: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) voter: Option<usize>,
    pub(crate) seen: Option<Seen>,
    pub(crate) set_aside: Option<usize>,
    pub(crate) monitored: Option<u64>,
    pub(crate) down: bool,
}

fn voter(link: usize, heard: &Heard) -> usize {
    heard.voter.unwrap_or(1000 + link)
}

/// The latest fresh view of each voter.
pub(crate) fn statements(
    links: &[Heard],
    distrust: u64,
    now: u64,
    counted_only: bool,
) -> Vec<Seen> {
    let mut latest: BTreeMap<usize, &Seen> = BTreeMap::new();
    for (link, heard) in links.iter().enumerate() {
        let Some(seen) = &heard.seen else { continue };
        let fresh = seen.asked_at >= distrust && now - seen.asked_at <= FRESH;
        if !fresh || (counted_only && heard.set_aside == Some(seen.node)) {
            continue;
        }
        let slot = latest.entry(voter(link, heard)).or_insert(seen);
        if seen.asked_at >= slot.asked_at {
            *slot = seen;
        }
    }
    latest.into_values().cloned().collect()
}

/// How many voters there are.
pub(crate) fn voters(links: &[Heard]) -> usize {
    let voters: BTreeSet<usize> = (0..).zip(links).map(|(l, h)| voter(l, h)).collect();
    voters.len()
}
