//! Which replicas may be read from now: what the Sentinels, the replicas and the master say in, a verdict on each out. Pure.
//!
//! ```text
//! SENTINEL REPLICAS (each Sentinel) --+
//! ROLE of each replica ---------------+--> Roll --verdict--> Lanes --State of each lane--> sessions
//! ROLE of the master (its offset) ----+
//! ```
//!
//! A replica may be read from when a Sentinel lists it as up and no majority calls it down; when it says itself, lately, that it follows
//! the master in force; and when what it has is provably no older than `max_lag`. The last is known from ROLE alone
//! ([`Progress`]): the master had the replica's offset at a moment that was noted. While the master is unreachable nobody follows it, and
//! the same proof runs out by itself: until then there is nothing newer to be read anywhere.

mod lanes;
#[cfg(test)]
mod lanes_tests;
mod progress;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

pub use self::lanes::{Lanes, MAX_MEMBERS, Move, World};
pub use self::progress::Progress;
use super::decide::FRESH;
use super::observation::{Observation, Said};
use crate::net::addr::{HostPort, NodeAddr, SentinelAddr};
use crate::net::clock::Moment;

/// A replica that has said nothing for so long is not read from. A long script keeps it silent as well.
pub const SILENT: Duration = Duration::from_secs(3);
/// Most Sentinels listened to; discovery follows no more.
const MAX_VOICES: usize = 64;
/// Most replicas that are asked for their role.
pub const MAX_ASKED: usize = 32;
/// What was asked of a replica before it was promoted, or told to follow another master, has so long to be answered.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// A replica that closed the connection on which it is asked has so long to answer on another one: Sentinel and administrators close
/// connections of nodes that are in order.
const PROVE_ANEW: Duration = Duration::from_millis(500);
/// A replica comes (back) when it is no older than this part of `max_lag`, so that one at the limit does not come and go.
const REJOIN: u32 = 2;

/// What becomes of clients when no replica may be read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// They are led to the master.
    Master,
    /// They wait for `hold_max`, as clients of a master do.
    #[default]
    Refuse,
}

/// The part of a `[[proxy]]` entry that concerns replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is read is no older than this.
    pub max_lag: Duration,
    /// See [`Fallback`].
    pub fallback: Fallback,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            max_lag: Duration::from_secs(10),
            fallback: Fallback::default(),
        }
    }
}

impl Choice {
    /// How often nodes are asked for their role, so that proofs are renewed well before they run out.
    pub fn pace(self) -> Duration {
        (self.max_lag / 8).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }
}

/// Why a replica is not read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// No master is known.
    NoMaster,
    /// It is the master.
    Promoted,
    /// No Sentinel that answers lists it.
    Unlisted,
    /// Every Sentinel that lists it, or a majority, calls it down.
    Down,
    /// Nobody takes a connection there.
    Unreachable,
    /// It has not answered for [`SILENT`].
    Silent,
    /// It follows another master, or has not said since the master changed.
    OtherMaster,
    /// It has lost its master, which is there.
    LinkDown,
    /// It reads its data first.
    Loading,
    /// It does not tell its role.
    Refused,
    /// How old its data is is not known yet.
    Unproven,
    /// Its data is, or may be, older than `max_lag`.
    Lagging,
}

impl Unfit {
    /// Every reason once.
    pub const ALL: [Self; 12] = [
        Self::NoMaster,
        Self::Promoted,
        Self::Unlisted,
        Self::Down,
        Self::Unreachable,
        Self::Silent,
        Self::OtherMaster,
        Self::LinkDown,
        Self::Loading,
        Self::Refused,
        Self::Unproven,
        Self::Lagging,
    ];

    /// The word for logs and the status; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoMaster => "no_master",
            Self::Promoted => "promoted",
            Self::Unlisted => "unlisted",
            Self::Down => "down",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::OtherMaster => "other_master",
            Self::LinkDown => "link_down",
            Self::Loading => "loading",
            Self::Refused => "refused",
            Self::Unproven => "unproven",
            Self::Lagging => "lagging",
        }
    }

    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NoMaster => "no master is known that it could follow",
            Self::Promoted => "it is the master",
            Self::Unlisted => "no Sentinel lists it",
            Self::Down => "the Sentinels call it down",
            Self::Unreachable => "it cannot be reached",
            Self::Silent => "it does not answer",
            Self::OtherMaster => "it has not said that it follows the master in force",
            Self::LinkDown => "it has no connection to its master",
            Self::Loading => "it is loading its data",
            Self::Refused => "it does not tell its role: permit ROLE to the user of [proxy.probe]",
            Self::Unproven => "how old its data is is not known yet",
            Self::Lagging => "its data is, or may be, older than max_lag",
        }
    }

    /// Nothing more is asked of it, and it leaves so much later: what was asked of it before, in good faith, may still be answered, and
    /// one that has lost a mere connection may prove itself anew.
    pub const fn grace(self) -> Duration {
        match self {
            Self::Promoted | Self::OtherMaster => LAST_WORDS,
            Self::Unproven => PROVE_ANEW,
            _ => Duration::ZERO,
        }
    }
}

/// What a node said of itself when it was asked for its role, held against the master in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It follows the master in force, and has this much of what that wrote; `None` while it has no connection to it.
    Follows(Option<u64>),
    /// It follows somebody else.
    FollowsAnother,
    /// It is a master.
    Master,
    /// It reads its data first.
    Loading,
    /// It does not tell.
    Refused,
    /// Nothing in time, or nothing that makes sense.
    Nothing,
}

#[derive(Debug, Default)]
struct Voice {
    /// What it listed last, and when it was asked; `None` before its first answer.
    listed: Option<(Moment, BTreeMap<NodeAddr, bool>)>,
}

#[derive(Debug)]
struct Node {
    at: Option<SocketAddr>,
    unreachable: bool,
    said: Option<(Moment, Report)>,
    /// What it had when it last said so over the connection it is asked on.
    offset: Option<u64>,
    link_down_since: Option<Moment>,
}

impl Node {
    const fn new() -> Self {
        Self {
            at: None,
            unreachable: false,
            said: None,
            offset: None,
            link_down_since: None,
        }
    }
}

/// The master that replicas have to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As it is announced.
    pub addr: HostPort,
    /// Where it proved itself.
    pub at: SocketAddr,
}

/// Everything known of the replicas of one master.
#[derive(Debug)]
pub struct Roll {
    max_lag: Duration,
    own: Vec<HostPort>,
    voices: BTreeMap<SentinelAddr, Voice>,
    nodes: BTreeMap<NodeAddr, Node>,
    head: Option<Head>,
    progress: Progress,
}

impl Roll {
    /// Nothing is known. `own`: the addresses of our own listeners, at which we would read from ourselves.
    pub fn new(choice: Choice, own: Vec<HostPort>) -> Self {
        Self {
            max_lag: choice.max_lag,
            own,
            voices: BTreeMap::new(),
            nodes: BTreeMap::new(),
            head: None,
            progress: Progress::new(choice.max_lag),
        }
    }

    /// Goes by these from now on.
    pub fn change(&mut self, choice: Choice, own: Vec<HostPort>) {
        self.own = own;
        self.max_lag = choice.max_lag;
        self.progress.cover(choice.max_lag);
    }

    /// A Sentinel was heard.
    pub fn observe(&mut self, observation: Observation) {
        let Observation { sentinel, said } = observation;
        match said {
            Said::Forgotten => {
                self.voices.remove(&sentinel);
            }
            Said::Replicas { listed, asked_at } if self.has_room_for(&sentinel) => {
                let mut all = BTreeMap::new();
                for replica in listed {
                    *all.entry(replica.addr).or_default() |= replica.down;
                }
                self.voices.entry(sentinel).or_default().listed = Some((asked_at, all));
            }
            Said::Followed(_) if self.has_room_for(&sentinel) => {
                self.voices.entry(sentinel).or_default();
            }
            _ => {}
        }
        let listed = self.listed();
        self.nodes.retain(|addr, _| listed.contains(addr));
        for addr in listed {
            self.nodes.entry(addr).or_insert_with(Node::new);
        }
    }

    fn has_room_for(&self, sentinel: &SentinelAddr) -> bool {
        self.voices.len() < MAX_VOICES || self.voices.contains_key(sentinel)
    }

    /// All that any Sentinel lists, some of them where they are too many: who is known is known on.
    fn listed(&self) -> BTreeSet<NodeAddr> {
        let all = self.voices.values().filter_map(|v| v.listed.as_ref());
        let all: BTreeSet<_> = all.flat_map(|(_, listed)| listed.keys()).collect();
        let (known, new): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|addr| self.nodes.contains_key(*addr));
        let all = known.into_iter().chain(new);
        let all = all.filter(|addr| !self.own.contains(&addr.0));
        all.take(MAX_ASKED).cloned().collect()
    }

    /// This is the master from now on, or nobody. Who followed another one has to say anew whom it follows.
    pub fn head(&mut self, head: Option<Head>) {
        if self.head == head {
            return;
        }
        self.head = head;
        self.forget_offsets();
        for node in self.nodes.values_mut() {
            if let Some((_, report @ Report::Follows(_))) = &mut node.said {
                *report = Report::FollowsAnother;
            }
        }
    }

    fn forget_offsets(&mut self) {
        self.progress = Progress::new(self.max_lag);
        for node in self.nodes.values_mut() {
            node.offset = None;
            node.link_down_since = None;
        }
    }

    /// The master in force, asked at this moment, had written so much.
    pub fn written(&mut self, asked: Moment, offset: u64) {
        if self.progress.note(asked, offset).is_err() {
            // It began anew: what anybody had of its past says nothing of what it has of its present.
            self.forget_offsets();
            let _ = self.progress.note(asked, offset);
        }
    }

    /// A replica, asked at this moment, answered from this address.
    pub fn said(&mut self, addr: &NodeAddr, asked: Moment, at: SocketAddr, report: Report) {
        let Some(node) = self.nodes.get_mut(addr) else {
            return;
        };
        node.unreachable = false;
        if node.at.replace(at) != Some(at) {
            node.offset = None;
        }
        match report {
            Report::Nothing => return,
            Report::Follows(Some(offset)) => {
                node.offset = Some(offset);
                node.link_down_since = None;
            }
            Report::Follows(None) => {
                node.link_down_since.get_or_insert(asked);
            }
            _ => node.offset = None,
        }
        node.said = Some((asked, report));
    }

    /// The connection that a replica was asked on is gone: it may be another process from now on.
    pub fn lost(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.nodes.get_mut(addr) {
            node.offset = None;
            node.said = None;
        }
    }

    /// Nobody took a connection there.
    pub fn gone(&mut self, addr: &NodeAddr) {
        self.lost(addr);
        if let Some(node) = self.nodes.get_mut(addr) {
            node.unreachable = true;
        }
    }

    /// Those to be asked for their role.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeAddr> {
        self.nodes.keys()
    }

    /// Where this one answered.
    pub fn at(&self, addr: &NodeAddr) -> Option<SocketAddr> {
        self.nodes.get(addr)?.at
    }

    /// How old what it has is at the most, and until when that proof is good; or why it is not read from. One that `is_in` may be
    /// older than one that wants to come in.
    pub fn verdict(
        &self,
        addr: &NodeAddr,
        is_in: bool,
        now: Moment,
    ) -> Result<(Duration, Moment), Unfit> {
        let head = self.head.as_ref().ok_or(Unfit::NoMaster)?;
        let node = self.nodes.get(addr).ok_or(Unfit::Unlisted)?;
        if head.addr == addr.0 || node.at == Some(head.at) {
            return Err(Unfit::Promoted);
        }
        self.listing(addr, now)?;
        if node.unreachable {
            return Err(Unfit::Unreachable);
        }
        let (asked, report) = node.said.ok_or(Unfit::Unproven)?;
        match report {
            Report::Follows(_) => {}
            Report::FollowsAnother => return Err(Unfit::OtherMaster),
            Report::Master => return Err(Unfit::Promoted),
            Report::Loading => return Err(Unfit::Loading),
            Report::Refused | Report::Nothing => return Err(Unfit::Refused),
        }
        if now.since(asked) >= SILENT {
            return Err(Unfit::Silent);
        }
        // The master answered after it was lost: that is not a master's crash, of which nobody has anything newer.
        let lost = |since| self.progress.asked().is_some_and(|asked| asked > since);
        if node.link_down_since.is_some_and(lost) {
            return Err(Unfit::LinkDown);
        }
        let offset = node.offset.ok_or(Unfit::Unproven)?;
        // Nothing is known of this master yet, or of a time that is so long ago.
        let known = is_in && self.progress.asked().is_some();
        let unknown = if known {
            Unfit::Lagging
        } else {
            Unfit::Unproven
        };
        let from = self.progress.had(offset).ok_or(unknown)?;
        let age = now.since(from);
        let limit = if is_in {
            self.max_lag
        } else {
            self.max_lag / REJOIN
        };
        if age > limit {
            return Err(Unfit::Lagging);
        }
        Ok((age, (from + self.max_lag).min(asked + SILENT)))
    }

    /// Until none of what the Sentinels said last has any freshness left it counts as it is: losing them ends nothing.
    fn listing(&self, addr: &NodeAddr, now: Moment) -> Result<(), Unfit> {
        let said = || self.voices.values().filter_map(|v| v.listed.as_ref());
        let any_fresh = said().any(|(asked, _)| now.since(*asked) < FRESH);
        let counts = said().filter(|(asked, _)| !any_fresh || now.since(*asked) < FRESH);
        let words: Vec<bool> = counts
            .filter_map(|(_, listed)| listed.get(addr).copied())
            .collect();
        let down = words.iter().filter(|down| **down).count();
        if words.is_empty() {
            Err(Unfit::Unlisted)
        } else if down == words.len() || down * 2 > self.voices.len() {
            Err(Unfit::Down)
        } else {
            Ok(())
        }
    }
}
