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
//!
//! Offsets of two histories compare as numbers and say nothing of each other: a master may be restarted at the same address, and a
//! replica whose connection to the process before is half open knows nothing of it. So an offset counts only where the master's own
//! answer to ROLE, over the present connection to it, has listed the replica as connected before that was asked.

#[cfg(test)]
mod histories;
mod lanes;
#[cfg(test)]
mod lanes_tests;
mod progress;
#[cfg(test)]
mod tests;
mod voices;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub use self::lanes::{Lanes, MAX_MEMBERS, Move, World};
pub use self::progress::Progress;
use self::voices::Voices;
use super::Generation;
use super::observation::Observation;
use super::rules::Agree;
use crate::net::addr::{HostPort, NodeAddr};
use crate::net::clock::Moment;

/// A replica that has said nothing for so long is not read from. A long script keeps it silent as well.
pub const SILENT: Duration = Duration::from_secs(3);
/// Most replicas that are asked for their role.
pub const MAX_ASKED: usize = 32;
/// What was asked of a replica before it was promoted, or told to follow another master, has so long to be answered.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// A replica that closed the connection on which it is asked has so long to answer on another one: Sentinel and administrators close
/// connections of nodes that are in order.
const PROVE_ANEW: Duration = Duration::from_millis(500);
/// A replica that is read from and that no Sentinel lists any more stays so long as it proves itself: a Sentinel that was reset learns
/// of it anew from the master's INFO, each 10 s.
const LISTED_AGAIN: Duration = Duration::from_secs(12);
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
    /// The master does not list it as connected: what it has may be of another history.
    Unattached,
    /// It is read from under another name.
    SameNode,
    /// Its data is, or may be, older than `max_lag`.
    Lagging,
}

impl Unfit {
    /// Every reason once.
    pub const ALL: [Self; 14] = [
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
        Self::Unattached,
        Self::SameNode,
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
            Self::Unattached => "unattached",
            Self::SameNode => "same_node",
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
            Self::Unattached => {
                "the master does not list it (ROLE) among its connected replicas: its connection to it may be of before"
            }
            Self::SameNode => "it is read from under another name or address",
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

/// When a node was asked for its role, and when its answer was here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    /// The question was sent not before this.
    pub asked: Moment,
    /// The answer was given not after this.
    pub heard: Moment,
}

/// A replica as the master's answer to ROLE lists it: its name, and where that leads to.
pub type Attached = (HostPort, Vec<SocketAddr>);

#[derive(Debug, Default)]
struct Node {
    at: Option<SocketAddr>,
    unreachable: bool,
    said: Option<(Moment, Report)>,
    /// The master in force listed it as connected, in an answer that was heard then.
    attached: Option<Moment>,
    /// What it had when it last said so over the connection it is asked on, and when that was heard. Of the master's history.
    offset: Option<(u64, Moment)>,
    /// It has everything up to this moment, by offsets of before the connection to the master was lost.
    floor: Option<Moment>,
    link_down_since: Option<Moment>,
    /// When a Sentinel was asked that listed it.
    listed: Moment,
}

impl Node {
    /// What is known of its data is of no use any more.
    const fn forget(&mut self) {
        self.offset = None;
        self.floor = None;
    }

    fn is(&self, addr: &NodeAddr, (name, leads_to): &Attached) -> bool {
        addr.0 == *name
            || self.at.is_some_and(|at| leads_to.contains(&at))
            || addr
                .0
                .socket_addr()
                .is_some_and(|at| leads_to.contains(&at))
    }
}

/// The master that replicas have to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As it is announced.
    pub addr: HostPort,
    /// Where it proved itself.
    pub at: SocketAddr,
    /// One that was left and is back is another: replicas of before have to say anew whom they follow.
    pub generation: Generation,
}

/// A replica that may be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// Where it answered.
    pub at: SocketAddr,
    /// What it has is no older than that.
    pub age: Duration,
    /// Until when that is proof enough.
    pub until: Moment,
}

/// Everything known of the replicas of one master.
#[derive(Debug)]
pub struct Roll {
    max_lag: Duration,
    own: Vec<HostPort>,
    voices: Voices,
    nodes: BTreeMap<NodeAddr, Node>,
    /// How many are listed and not asked, as they are too many.
    left_out: usize,
    head: Option<Head>,
    /// The connection to the master was lost: whoever answers over the next one may be another process.
    parted: bool,
    progress: Progress,
}

impl Roll {
    /// Nothing is known. `own`: the addresses of our own listeners, at which we would read from ourselves.
    pub fn new(choice: Choice, agree: Agree, own: Vec<HostPort>) -> Self {
        Self {
            max_lag: choice.max_lag,
            own,
            voices: Voices::new(agree),
            nodes: BTreeMap::new(),
            left_out: 0,
            head: None,
            parted: false,
            progress: Progress::new(choice.max_lag),
        }
    }

    /// Goes by these from now on.
    pub fn change(&mut self, choice: Choice, agree: Agree, own: Vec<HostPort>) {
        self.own = own;
        self.voices.change(agree);
        self.max_lag = choice.max_lag;
        self.progress.cover(choice.max_lag);
    }

    /// A Sentinel was heard.
    pub fn observe(&mut self, observation: Observation) {
        self.voices.observe(observation);
        let asked = self.voices.asked();
        let listed = self.voices.listed();
        let stays = |node: &Node| {
            matches!(node.said, Some((_, Report::Follows(_))))
                && asked.since(node.listed) < LISTED_AGAIN
        };
        self.nodes
            .retain(|addr, node| listed.contains_key(addr) || stays(node));
        // A list may be long, of the dead above all, as Sentinels forget nobody: those that can be read from are asked first.
        let rank = |addr: &NodeAddr, down: bool| match self.nodes.get(addr) {
            Some(node) if matches!(node.said, Some((_, Report::Follows(_)))) => 0,
            _ if down => 3,
            Some(node) if node.unreachable => 2,
            _ => 1,
        };
        let others = listed
            .into_iter()
            .filter(|(addr, _)| !self.own.contains(&addr.0));
        let mut ranked: Vec<(i32, NodeAddr)> = others
            .map(|(addr, down)| (rank(&addr, down), addr))
            .collect();
        ranked.sort();
        self.left_out = ranked.len().saturating_sub(MAX_ASKED);
        for (_, addr) in ranked.drain(ranked.len().min(MAX_ASKED)..) {
            self.nodes.remove(&addr);
        }
        for (_, addr) in ranked {
            self.nodes.entry(addr).or_default().listed = asked;
        }
    }

    /// How many replicas are listed and not even asked.
    pub const fn left_out(&self) -> usize {
        self.left_out
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
        self.parted = false;
        self.progress = Progress::new(self.max_lag);
        for node in self.nodes.values_mut() {
            node.forget();
            node.attached = None;
            node.link_down_since = None;
        }
    }

    /// The connection to the master in force was lost, or it says that it is none. What is proven stays so and runs out by itself.
    pub const fn parted(&mut self) {
        self.parted = true;
    }

    /// The master in force had written so much, and lists these as connected. True when one of them may have something to say now.
    pub fn written(&mut self, when: When, offset: u64, attached: &[Attached]) -> bool {
        if std::mem::take(&mut self.parted) {
            let progress = &self.progress;
            for node in self.nodes.values_mut() {
                let had = node.offset.take().and_then(|(had, _)| progress.had(had));
                node.floor = node.floor.max(had);
                node.attached = None;
            }
        }
        if self.progress.note(when.asked, offset).is_err() {
            // It began anew: what anybody had of its past says nothing of what it has of its present.
            self.forget_offsets();
            let _ = self.progress.note(when.asked, offset);
        }
        let mut any = false;
        for (addr, node) in &mut self.nodes {
            // What a replica had before the master was asked the master has, or it is not of its history.
            let ahead = |(had, heard)| had > offset && heard <= when.asked;
            if node.offset.is_some_and(ahead) {
                node.forget();
                node.attached = None;
            }
            if node.attached.is_none() && attached.iter().any(|of| node.is(addr, of)) {
                node.attached = Some(when.heard);
                any = true;
            }
        }
        any
    }

    /// A replica answered from this address.
    pub fn said(&mut self, addr: &NodeAddr, when: When, at: SocketAddr, report: Report) {
        let Some(node) = self.nodes.get_mut(addr) else {
            return;
        };
        node.unreachable = false;
        match node.at.replace(at) {
            Some(before) if before == at => {}
            before => {
                node.forget();
                // Its name leads to another process.
                node.attached = node.attached.filter(|_| before.is_none());
            }
        }
        match report {
            Report::Nothing => return,
            Report::Follows(Some(offset)) => {
                if node.attached.is_some_and(|since| when.asked >= since) {
                    node.offset = Some((offset, when.heard));
                }
                node.link_down_since = None;
            }
            Report::Follows(None) => {
                node.link_down_since.get_or_insert(when.asked);
            }
            _ => node.forget(),
        }
        node.said = Some((when.asked, report));
    }

    /// The connection that a replica was asked on is gone: it may be another process from now on.
    pub fn lost(&mut self, addr: &NodeAddr) {
        if let Some(node) = self.nodes.get_mut(addr) {
            node.forget();
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

    /// True for one of those.
    pub fn knows(&self, addr: &NodeAddr) -> bool {
        self.nodes.contains_key(addr)
    }

    /// Where this one answered.
    pub fn at(&self, addr: &NodeAddr) -> Option<SocketAddr> {
        self.nodes.get(addr)?.at
    }

    /// A verdict on each node: where it is read from, how old what it has is at the most and until when that proof is good, or why it
    /// is not read from. One that `is_in` may be older than one that wants to come in.
    pub fn verdicts(
        &self,
        is_in: impl Fn(&NodeAddr) -> bool,
        now: Moment,
    ) -> BTreeMap<NodeAddr, Result<Fit, Unfit>> {
        let mut all = BTreeMap::new();
        let mut taken = Vec::new();
        // A node that is listed by name and by address is one, and who is in stays in.
        let (members, others): (Vec<_>, Vec<_>) = self.nodes.keys().partition(|addr| is_in(addr));
        let members = members.into_iter().map(|addr| (addr, true));
        for (addr, is_in) in members.chain(others.into_iter().map(|addr| (addr, false))) {
            let verdict = self.verdict(addr, is_in, now).and_then(|(age, until)| {
                let at = self.at(addr).ok_or(Unfit::Unproven)?;
                if taken.contains(&at) {
                    return Err(Unfit::SameNode);
                }
                taken.push(at);
                Ok(Fit { at, age, until })
            });
            all.insert(addr.clone(), verdict);
        }
        all
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
        match self.voices.standing(addr, now) {
            // It was listed a moment ago, and what it says itself is as good as ever.
            Err(Unfit::Unlisted) if is_in && now.since(node.listed) < LISTED_AGAIN => {}
            standing => standing?,
        }
        self.proof(node, is_in, now)
    }

    /// A replica is called down that proves itself: it may be as well to ask the Sentinels again.
    pub fn is_disputed(&self, now: Moment) -> bool {
        let down = |addr| self.voices.standing(addr, now) == Err(Unfit::Down);
        let mut nodes = self.nodes.iter();
        nodes.any(|(addr, node)| down(addr) && self.proof(node, false, now).is_ok())
    }

    /// The same by what the node and the master say alone.
    fn proof(&self, node: &Node, is_in: bool, now: Moment) -> Result<(Duration, Moment), Unfit> {
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
        if node.attached.is_none() && node.floor.is_none() {
            let asked = self.progress.asked().is_some();
            return Err(if asked && !is_in {
                Unfit::Unattached
            } else {
                Unfit::Unproven
            });
        }
        if node.offset.is_none() && node.floor.is_none() {
            return Err(Unfit::Unproven);
        }
        // Nothing is known of this master yet, or of a time that is so long ago.
        let known = is_in && self.progress.asked().is_some();
        let unknown = if known {
            Unfit::Lagging
        } else {
            Unfit::Unproven
        };
        let had = node
            .offset
            .and_then(|(offset, _)| self.progress.had(offset));
        let from = had.max(node.floor).ok_or(unknown)?;
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
}
