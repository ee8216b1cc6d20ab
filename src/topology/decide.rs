//! Who is master, by what the Sentinels say: (beliefs, observation, now) -> verdict. Pure.
//!
//! The rules rest on Sentinel's own: a configuration is adopted only by those who hold a lower config-epoch
//! (`sentinelProcessHelloMessage`), so the highest epoch is what all others will come to believe. Epochs alone cannot
//! break a tie (a leader that is reset in the middle of a failover advertises the *old* address with the
//! *new* epoch), a majority must.

use std::collections::BTreeMap;
use std::time::Duration;

use super::observation::{Asked, Hint, NoView, Observation, RunId, Said, Unasked};
pub use super::poll::{Candidate, Why};
use super::poll::{FEWEST_FOR_MAJORITY, Poll, Statement};
use super::rules::{Agree, lease};
use super::{Epoch, MasterAddr};
use crate::net::addr::{HostPort, NodeAddr, SentinelAddr};
use crate::net::clock::Moment;

/// How long an answer counts.
pub const FRESH: Duration = Duration::from_secs(3);
/// How long a majority must agree on an epoch below the floor before it is believed.
const RELEASE_AFTER: Duration = Duration::from_secs(10);
/// The same when each of them has announced that it was told to monitor the master anew.
const RELEASE_AFTER_MONITOR: Duration = Duration::from_secs(1);
/// How long such an announcement counts.
const MONITOR_MEMORY: Duration = Duration::from_secs(60);

/// Who is one voter: a Sentinel by its run id, or by its address as long as that is not known, so that one Sentinel
/// known by name and by address counts once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Voter {
    RunId(RunId),
    Address(SentinelAddr),
}

#[derive(Debug, Default)]
struct Link {
    run_id: Option<RunId>,
    reach: Reach,
    /// Why it was down last.
    unasked: Option<Unasked>,
    said: Option<Statement>,
    unknown_since: Option<Moment>,
    monitored_at: Option<Moment>,
    /// This Sentinel's word for this address is not counted, see [`Beliefs::set_aside`].
    set_aside: Option<NodeAddr>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reach {
    /// The first dial is under way.
    #[default]
    Untried,
    Up,
    Down,
}

/// All that is known of one master from its Sentinels.
#[derive(Debug)]
pub struct Beliefs {
    agree: Agree,
    /// Addresses that cannot be the master: our own listeners.
    own: Vec<HostPort>,
    links: BTreeMap<SentinelAddr, Link>,
    floor: Option<Epoch>,
    /// Answers to questions sent before this do not count.
    not_before: Moment,
    /// A majority below the floor: what it says and since when.
    below: Option<(Epoch, NodeAddr, Moment)>,
}

/// What follows from the beliefs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The Sentinels name no other than the current master (or none was ever named).
    Keep(Why),
    /// They name this address, which is not the current master's.
    Verify(Candidate),
}

/// A summary for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Voters known.
    pub voters: usize,
    /// Voters that answered lately.
    pub fresh: usize,
    /// Voters whose links are down.
    pub down: usize,
    /// Voters that answered lately and know no such master.
    pub ignorant: usize,
    /// Voters that name another address than the one asked about.
    pub disagreeing: usize,
}

impl Beliefs {
    /// Nothing known yet. `own` are addresses that cannot be the master's: our listeners.
    pub const fn new(agree: Agree, own: Vec<HostPort>) -> Self {
        Self {
            agree,
            own,
            links: BTreeMap::new(),
            floor: None,
            not_before: Moment::from_nanos(0),
            below: None,
        }
    }

    /// Counts by another rule from now on, and takes these addresses for our own.
    pub fn change(&mut self, agree: Agree, own: Vec<HostPort>) {
        self.agree = agree;
        self.own = own;
    }

    /// Takes in one observation.
    pub fn observe(&mut self, now: Moment, observation: Observation) {
        let Observation { sentinel, said } = observation;
        if let Said::Followed(run_id) = said {
            let link = self.links.entry(sentinel).or_default();
            link.run_id = run_id.or_else(|| link.run_id.take());
            return;
        }
        // A last word of a Sentinel that was just forgotten makes it no voter again.
        let Some(link) = self.links.get_mut(&sentinel) else {
            return;
        };
        match said {
            Said::Forgotten => {
                self.links.remove(&sentinel);
            }
            Said::Up(run_id) => {
                link.reach = Reach::Up;
                link.run_id = run_id.or_else(|| link.run_id.take());
            }
            Said::Down(why) => {
                link.reach = Reach::Down;
                link.unasked = Some(why);
            }
            Said::Hint(Hint::Monitor | Hint::Unmonitor) => link.monitored_at = Some(now),
            Said::Hint(_) | Said::Announced(_) | Said::Followed(_) | Said::Replicas { .. } => {}
            Said::View {
                view: Ok(view),
                asked_at,
                asked,
                since,
            } => {
                link.unknown_since = None;
                if self.own.contains(&view.master.0) {
                    link.said = None;
                    return;
                }
                // Another address is another word, and so is one that was withdrawn or monitored anew in between.
                let anew = |old: &Statement| view.epoch < old.view.epoch;
                if link.set_aside.as_ref() != Some(&view.master)
                    || link.said.as_ref().is_none_or(anew)
                {
                    link.set_aside = None;
                }
                let same = |old: &Statement| {
                    old.view.master == view.master && old.view.epoch == view.epoch
                };
                let (asked, since) = match link.said.as_ref().filter(|old| same(old)) {
                    Some(old) => (old.asked, old.since),
                    None => (asked, since),
                };
                link.said = Some(Statement {
                    view,
                    asked_at,
                    asked,
                    since,
                });
            }
            Said::View {
                view: Err(why),
                asked_at,
                ..
            } => {
                link.said = None;
                link.unknown_since = (why == NoView::UnknownMaster).then_some(asked_at);
            }
        }
    }

    /// Answers to questions sent before now count no longer (this process stood still).
    pub fn distrust_until(&mut self, now: Moment) {
        self.not_before = now;
        self.below = None;
    }

    /// True when waiting longer teaches nothing: every voter has answered since the start (or since
    /// [`Self::distrust_until`]) or, where `unreachable` counts, cannot be reached.
    ///
    /// A majority is not enough: for about 0.1 s after a promotion the leader alone knows of it, while the others still
    /// name the old master and that still says it is one. After a standstill an unreachable one does not count either:
    /// its link may have died of the standstill.
    pub fn is_settled(&self, now: Moment, unreachable: bool) -> bool {
        let voters = self.voters();
        let spoke = |link: &&Link| {
            link.unknown_since.is_some_and(|at| at >= self.not_before)
                || self.fresh(link, now).is_some()
        };
        let answered = voters
            .values()
            .filter(|links| links.iter().any(spoke))
            .count();
        let down = |links: &&Vec<&Link>| links.iter().all(|l| l.reach == Reach::Down);
        let silent = if unreachable {
            voters.values().filter(down).count()
        } else {
            0
        };
        answered > 0 && answered + silent >= voters.len()
    }

    /// Decides; `current` is the master in force. Lowers the floor where its release is due.
    ///
    /// With a `provisional` generation `current` is the master that was left for it: who names that at or below the floor
    /// has not heard of the promotion yet, and only a newer word counts against it.
    pub fn decide(
        &mut self,
        now: Moment,
        current: Option<&MasterAddr>,
        provisional: bool,
    ) -> Verdict {
        self.lift_set_aside(now);
        self.outvote(now, current);
        self.release_floor(now);
        let statements = self.statements(now);
        if statements.is_empty() {
            return Verdict::Keep(Why::NoFreshView);
        }
        let poll = Poll::new(&statements, self.voters().len(), current);
        match poll.winner(self.floor, self.agree) {
            Err(why) => Verdict::Keep(why),
            Ok((epoch, addr, _))
                if provisional && poll.is_current(addr) && Some(epoch) <= self.floor =>
            {
                Verdict::Keep(Why::Provisional)
            }
            Ok((epoch, addr, _)) if poll.is_current(addr) => {
                // One voter alone raises no floor: it could never be lowered by the others' word for 10 s.
                let sure = poll.is_majority(epoch, addr) || self.floor.is_none();
                let floor = self.floor.unwrap_or_default();
                Verdict::Keep(Why::Confirmed(if sure { epoch } else { floor }))
            }
            Ok((epoch, addr, by)) => {
                // The earliest cause among those who name it is what set the switch off.
                let first = by.iter().min_by_key(|s| s.since);
                Verdict::Verify(Candidate {
                    addr: MasterAddr::decided(addr.clone()),
                    epoch,
                    support: poll.support(addr, self.floor),
                    voters: poll.voters,
                    asked: first.map_or(Asked::ByPoll, |s| s.asked),
                    since: first.map_or(now, |s| s.since),
                })
            }
        }
    }

    /// The current master again, to be verified before it is resumed.
    pub fn candidate_again(&self, now: Moment, current: &MasterAddr, epoch: Epoch) -> Candidate {
        let support = self
            .statements(now)
            .iter()
            .filter(|s| s.view.master.0 == *current.host_port())
            .count();
        let voters = self.voters().len();
        let addr = current.clone();
        Candidate {
            addr,
            epoch,
            support,
            voters,
            asked: Asked::OnDoubt,
            since: now,
        }
    }

    /// An announced successor that was asked at `asked` and said itself that it was promoted. No Sentinel names it yet, so it
    /// has no epoch of its own.
    pub fn successor(
        &self,
        asked: Moment,
        successor: &NodeAddr,
        epoch: Epoch,
    ) -> Option<Candidate> {
        let believed = asked >= self.not_before && !self.is_own(successor);
        believed.then(|| Candidate {
            addr: MasterAddr::decided(successor.clone()),
            epoch,
            support: 0,
            voters: self.voters().len(),
            asked: Asked::OnRole,
            since: asked,
        })
    }

    /// True when a Sentinel's latest word, be it older than what counts, still names the candidate at its epoch.
    pub fn named_last(&self, candidate: &Candidate) -> bool {
        let names = |s: &Statement| {
            s.asked_at >= self.not_before
                && s.view.master.0 == *candidate.addr.host_port()
                && s.view.epoch >= candidate.epoch
        };
        self.links
            .values()
            .filter_map(|l| l.said.as_ref())
            .any(names)
    }

    /// The epoch was adopted: nothing below it is believed any longer.
    pub fn adopt(&mut self, epoch: Epoch) {
        if self.floor.is_none_or(|floor| floor < epoch) {
            self.floor = Some(epoch);
            self.below = None;
            // Who was told to monitor anew before this epoch does not say by it that the epoch is void.
            self.links.values_mut().for_each(|l| l.monitored_at = None);
            // A word of before does not count anyhow, and what its voter says next is another, be it for the same address.
            for link in self.links.values_mut() {
                if link.said.as_ref().is_some_and(|s| s.view.epoch < epoch) {
                    link.set_aside = None;
                }
            }
        }
    }

    /// The counter-rule against a lone rogue or leftover: a candidate named by one voter, which cannot be verified,
    /// is not counted while a strict majority of all voters names one other address. True when set aside.
    ///
    /// Who names it at the floor speaks of a failover that never came to be, and is no second voter.
    pub fn set_aside(&mut self, now: Moment, candidate: &MasterAddr) -> bool {
        let voters = self.voters().len();
        let mut others: BTreeMap<&NodeAddr, usize> = BTreeMap::new();
        let statements = self.statements(now);
        let mut naming = 0;
        for s in &statements {
            if s.view.master.0 == *candidate.host_port() {
                naming += usize::from(Some(s.view.epoch) > self.floor);
            } else {
                *others.entry(&s.view.master).or_default() += 1;
            }
        }
        if naming != 1 || !others.values().any(|count| count * 2 > voters) {
            return false;
        }
        for link in self.links.values_mut() {
            if let Some(said) = &link.said
                && said.view.master.0 == *candidate.host_port()
                && Some(said.view.epoch) > self.floor
            {
                link.set_aside = Some(said.view.master.clone());
            }
        }
        true
    }

    /// A set-aside word counts again once those who outvoted it no longer speak, or one of them says the same (at the floor:
    /// at the very same epoch, or it speaks of another failover).
    fn lift_set_aside(&mut self, now: Moment) {
        if self.links.values().all(|l| l.set_aside.is_none()) {
            return;
        }
        let statements = self.statements(now);
        let outvoted = statements.len() * 2 > self.voters().len();
        let floor = self.floor;
        for link in self.links.values_mut() {
            let said = link.said.as_ref().map(|s| s.view.epoch);
            let seconds = |s: &Statement, aside: &NodeAddr| {
                let epoch = Some(s.view.epoch);
                s.view.master == *aside && (epoch > floor || (epoch == floor && epoch == said))
            };
            let seconded = |aside: &NodeAddr| statements.iter().any(|s| seconds(s, aside));
            if !outvoted || link.set_aside.as_ref().is_some_and(seconded) {
                link.set_aside = None;
            }
        }
    }

    /// One voter alone, however high its epoch, does not keep us at the current master while a strict majority has
    /// moved on to another.
    fn outvote(&mut self, now: Moment, current: Option<&MasterAddr>) {
        let (Some(current), Some(floor)) = (current, self.floor) else {
            return;
        };
        let stays = |s: &Statement| s.view.master.0 == *current.host_port();
        let voters = self.voters().len();
        let newer: Vec<_> = self
            .statements(now)
            .into_iter()
            .filter(|s| s.view.epoch > floor)
            .collect();
        let moved = newer.iter().filter(|s| !stays(s)).any(|s| {
            let same =
                |o: &&Statement| o.view.master == s.view.master && o.view.epoch == s.view.epoch;
            newer.iter().filter(same).count() * 2 > voters
        });
        if moved {
            for link in self.links.values_mut() {
                if let Some(said) = link
                    .said
                    .as_ref()
                    .filter(|s| stays(s) && s.view.epoch > floor)
                {
                    link.set_aside = Some(said.view.master.clone());
                }
            }
        }
    }

    /// True for an address at which we would be talking to ourselves.
    pub fn is_own(&self, addr: &NodeAddr) -> bool {
        self.own.contains(&addr.0)
    }

    /// The floor in force.
    pub const fn floor(&self) -> Option<Epoch> {
        self.floor
    }

    /// The largest `down-after-milliseconds` any Sentinel reports.
    pub fn down_after(&self) -> Option<Duration> {
        self.links
            .values()
            .filter_map(|l| l.said.as_ref()?.view.down_after)
            .max()
    }

    /// Until when a strict majority of the voters vouches for `current` (`when_sentinels_are_lost = "stop"`). `None` when
    /// there is no such majority.
    ///
    /// Each vouches for a lease of its own down-after, before which it cannot call the master down; so no majority can
    /// before that of the last who is needed has ended. An answer proves what was true when the Sentinel sent it, which was
    /// not before we asked; and what the master has owed that Sentinel by then is as good as spent.
    pub fn vouched_until(&self, current: &MasterAddr) -> Option<Moment> {
        let voters = self.voters();
        let vouches = |s: &&Statement| {
            s.view.master.0 == *current.host_port()
                && Some(s.view.epoch) >= self.floor
                && s.asked_at >= self.not_before
        };
        let ends = |s: &Statement| Some(s.asked_at + lease(s.view.down_after?) - s.view.unanswered);
        let mut ends: Vec<Moment> = voters
            .values()
            .filter_map(|links| {
                let said = links.iter().filter_map(|l| l.said.as_ref());
                said.max_by_key(|s| s.asked_at).filter(vouches)
            })
            .filter_map(ends)
            .collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(voters.len() / 2).copied()
    }

    /// Is `addr` what a Sentinel says now, at an epoch that counts?
    pub fn names(&self, now: Moment, addr: &MasterAddr) -> bool {
        self.statements(now)
            .iter()
            .any(|s| s.view.master.0 == *addr.host_port() && Some(s.view.epoch) >= self.floor)
    }

    /// Does a Sentinel that names `current` see it objectively down? `None` when none has answered lately.
    pub fn is_objectively_down(&self, now: Moment, current: &MasterAddr) -> Option<bool> {
        let statements = self.statements(now);
        let down =
            |s: &Statement| s.view.objectively_down && s.view.master.0 == *current.host_port();
        (!statements.is_empty()).then(|| statements.iter().any(down))
    }

    /// Counts for people; `current` is the address that others may disagree with.
    pub fn census(&self, now: Moment, current: Option<&MasterAddr>) -> Census {
        let mut census = Census::default();
        for links in self.voters().values() {
            census.voters += 1;
            census.down += usize::from(links.iter().all(|l| l.reach == Reach::Down));
            let latest = links
                .iter()
                .filter_map(|l| self.fresh(l, now))
                .max_by_key(|s| s.asked_at);
            if let Some(said) = latest {
                census.fresh += 1;
                let other = |c: &MasterAddr| *c.host_port() != said.view.master.0;
                census.disagreeing += usize::from(current.is_some_and(other));
            } else if links
                .iter()
                .any(|l| l.reach == Reach::Up && l.unknown_since.is_some())
            {
                census.ignorant += 1;
            }
        }
        census
    }

    /// The Sentinels that cannot be asked now, in order, `most` at the most, and why where a dial has ended.
    pub fn silent(&self, most: usize) -> Vec<(SentinelAddr, Option<Unasked>)> {
        let silent = self.links.iter().filter(|(_, l)| l.reach != Reach::Up);
        let why = |(addr, link): (&SentinelAddr, &Link)| (addr.clone(), link.unasked.clone());
        silent.map(why).take(most).collect()
    }

    /// Sentinels grouped to voters.
    fn voters(&self) -> BTreeMap<Voter, Vec<&Link>> {
        let mut voters: BTreeMap<Voter, Vec<&Link>> = BTreeMap::new();
        for (addr, link) in &self.links {
            let voter = link
                .run_id
                .clone()
                .map_or_else(|| Voter::Address(addr.clone()), Voter::RunId);
            voters.entry(voter).or_default().push(link);
        }
        voters
    }

    /// The latest fresh statement of each voter that counts.
    fn statements(&self, now: Moment) -> Vec<Statement> {
        self.voters()
            .values()
            .filter_map(|links| {
                links
                    .iter()
                    .filter(|l| {
                        l.said
                            .as_ref()
                            .is_none_or(|s| l.set_aside.as_ref() != Some(&s.view.master))
                    })
                    .filter_map(|l| self.fresh(l, now))
                    .max_by_key(|s| s.asked_at)
                    .cloned()
            })
            .collect()
    }

    fn fresh<'a>(&self, link: &'a Link, now: Moment) -> Option<&'a Statement> {
        link.said
            .as_ref()
            .filter(|s| s.asked_at >= self.not_before && now.since(s.asked_at) <= FRESH)
    }

    /// `SENTINEL REMOVE` and `MONITOR` start the config-epoch anew at 0. What a strict majority says for long enough
    /// is believed although it is below the floor; a single voter cannot lower it.
    fn release_floor(&mut self, now: Moment) {
        let Some(floor) = self.floor else { return };
        let voters = self.voters().len();
        let mut low: BTreeMap<(Epoch, NodeAddr), usize> = BTreeMap::new();
        for s in self.statements(now) {
            if s.view.epoch < floor {
                *low.entry((s.view.epoch, s.view.master)).or_default() += 1;
            }
        }
        let majority = low
            .into_iter()
            .find(|(_, count)| *count >= FEWEST_FOR_MAJORITY && count * 2 > voters)
            .map(|(key, _)| key);
        let Some((epoch, addr)) = majority else {
            self.below = None;
            return;
        };
        let since = match &self.below {
            Some((e, a, since)) if *e == epoch && *a == addr => *since,
            _ => now,
        };
        let all_told = self.links.values().all(|link| {
            let says = link
                .said
                .as_ref()
                .is_some_and(|s| s.view.epoch == epoch && s.view.master == addr);
            !says
                || link
                    .monitored_at
                    .is_some_and(|at| now.since(at) <= MONITOR_MEMORY)
        });
        let wait = if all_told {
            RELEASE_AFTER_MONITOR
        } else {
            RELEASE_AFTER
        };
        if now.since(since) >= wait {
            self.floor = Some(epoch);
            self.below = None;
            // Who still speaks of the time before is not counted until it says something else.
            for link in self.links.values_mut() {
                if let Some(said) = link
                    .said
                    .as_ref()
                    .filter(|s| s.view.epoch >= floor && s.view.master != addr)
                {
                    link.set_aside = Some(said.view.master.clone());
                }
            }
        } else {
            self.below = Some((epoch, addr, since));
        }
    }
}
