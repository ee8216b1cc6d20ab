//! What the control task thinks, without its hands: (state, input, now) -> actions. Pure.
//!
//! Inputs are observations of Sentinels, answers to ROLE, the state of the standing control connection, doubts
//! of sessions, and turns of the clock. Outputs are [`Action`]s, taken in order with [`Steward::next_action`] after each
//! input. Nothing here waits, dials or logs, so a test (or a simulation) can be the whole world.

mod announced;
mod changed;
mod health;
mod heritage;
mod holds;
mod lease;
mod moved;
mod pause;
mod provisional;
mod standstill;
mod trial;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use self::announced::Announcement;
pub use self::heritage::Heritage;
use self::holds::Holds;
pub use self::pause::NobodyIsHeld;
use self::pause::Pause;
use self::provisional::Provisional;
use self::trial::Trial;
use super::action::{Action, Swap, Tale, Undone};
use crate::net::addr::{HostPort, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::decide::{Beliefs, Candidate, Verdict, Why};
use crate::topology::observation::{Hint, Observation, RoleReport, Said};
use crate::topology::rules::{Rules, Verify};
use crate::topology::{Epoch, ForReaders, Generation, HoldCause, MasterAddr, Phase, State};

/// How often the clock is looked at.
pub const TURN: Duration = Duration::from_millis(100);
/// The published word counts this long after a turn. A longer gap between turns means that this process stood still
/// (SIGSTOP, a suspended machine), and what it believes must be confirmed before another byte is written.
pub const VALIDITY: Duration = Duration::from_millis(500);
/// Doubts of sessions ask the Sentinels at most so often; in between they only ask the master. Clients that end with
/// QUIT each leave a doubt behind.
const DOUBT_EVERY: Duration = Duration::from_secs(1);
/// A candidate of one voter that fails this long is set aside where a majority names another.
const SET_ASIDE_AFTER: Duration = Duration::from_secs(3);
/// How often a master that said it is a replica is asked again.
const REPLICA_AGAIN: Duration = Duration::from_millis(250);
/// The same word of the same Sentinel is told again after so long.
const SEEN_AGAIN: Duration = Duration::from_secs(1);
/// Before this, waiting for the first master is ordinary start-up.
const WAITING_FIRST: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Adopted {
    addr: MasterAddr,
    /// Where it proved itself.
    at: SocketAddr,
    epoch: Epoch,
}

/// A hold as it is published.
#[derive(Clone, Copy, Debug)]
struct Held {
    cause: HoldCause,
    /// What the limit of those who wait counts from.
    since: Moment,
    /// When clients began to wait, whatever for, and the generation then.
    began: Moment,
    before: Generation,
}

/// See the module's head.
#[derive(Debug)]
pub struct Steward {
    rules: Rules,
    beliefs: Beliefs,
    master: Option<Adopted>,
    /// The master in force is not named by any Sentinel yet.
    provisional: Option<Provisional>,
    generation: Generation,
    /// There were so many masters before our first.
    inherited: Generation,
    holds: Holds,
    pause: Option<Pause>,
    held: Option<Held>,
    /// Nothing may be written from then on unless it is renewed; `None` where no lease is asked for.
    lease: Option<Moment>,
    /// A lease that is over counts from then on, or from the first that is not.
    lease_from: Moment,
    /// What is left of the lease that those gave who voted before.
    bequest: Option<Moment>,
    trial: Option<Trial>,
    announced: Option<Announcement>,
    /// After an announcement that came to nothing: the next one is waited for from then on.
    announced_again: Moment,
    /// Waiting for the Sentinels to answer once, since when, and when the first did.
    settling: Option<(Moment, Option<Moment>)>,
    last_turn: Moment,
    next_role: Option<Moment>,
    next_doubt: Moment,
    next_waiting: Moment,
    named_us: bool,
    /// The last word of a failover that was told: whose, what, when.
    seen: Option<(SentinelAddr, Hint, Moment)>,
    lost: bool,
    ambiguous: bool,
    published: State,
    /// A level, not an event: only the latest is ever published, and before anything else that was decided with it.
    unpublished: bool,
    actions: VecDeque<Action>,
}

impl Steward {
    /// Begins to listen. `own` are the addresses of our listeners.
    pub fn new(now: Moment, rules: Rules, own: Vec<HostPort>) -> Self {
        Self {
            rules,
            beliefs: Beliefs::new(rules.agree, own),
            master: None,
            provisional: None,
            generation: Generation(0),
            inherited: Generation(0),
            holds: Holds::default(),
            pause: None,
            held: None,
            lease: None,
            lease_from: now,
            bequest: None,
            trial: None,
            announced: None,
            announced_again: now,
            settling: Some((now, None)),
            last_turn: now,
            next_role: None,
            next_doubt: now,
            named_us: false,
            seen: None,
            next_waiting: now + WAITING_FIRST,
            lost: false,
            ambiguous: false,
            published: State::initial(rules.hold_max.resolve(None)),
            unpublished: false,
            actions: VecDeque::new(),
        }
    }

    /// The state before the first action.
    pub const fn state(&self) -> &State {
        &self.published
    }

    /// The beliefs, for display.
    pub const fn beliefs(&self) -> &Beliefs {
        &self.beliefs
    }

    /// The next thing to do; ask until there is none after each input.
    pub fn next_action(&mut self) -> Option<Action> {
        if std::mem::take(&mut self.unpublished) {
            return Some(Action::Publish(self.published.clone()));
        }
        self.actions.pop_front()
    }

    /// When [`Self::turn`] wants to be called at the latest.
    pub fn next_turn(&self) -> Moment {
        let tick = self.last_turn + TURN;
        let again = self.trial.as_ref().and_then(Trial::next);
        let lease = self.lease.filter(|end| *end > self.last_turn);
        let undo = self.provisional.as_ref().map(Provisional::until);
        let resume = self.pause.as_ref().and_then(Pause::until);
        let due = [again, lease, undo, resume].into_iter().flatten();
        due.fold(tick, Moment::min)
    }

    /// The epoch of what is believed; none is believed before the first master.
    pub fn epoch(&self) -> Option<Epoch> {
        self.beliefs.floor()
    }

    /// A Sentinel was heard, or heard of.
    pub fn observe(&mut self, now: Moment, observation: Observation) {
        if let Said::Hint(hint) = observation.said
            && matches!(
                hint,
                Hint::SelectedSlave | Hint::SwitchMaster | Hint::ObjectivelyDown
            )
        {
            // Two of its events mean the same, one right after the other.
            let seen = (observation.sentinel.clone(), hint, now);
            let before = self.seen.replace(seen);
            let again = before.is_some_and(|(by, what, at)| {
                by == observation.sentinel && what == hint && now.since(at) < SEEN_AGAIN
            });
            if !again {
                let sentinel = observation.sentinel.to_string();
                self.tell(Tale::FailoverSeen { sentinel, hint });
            }
        }
        if let Said::View { view: Ok(view), .. } = &observation.said {
            let named_us = self.beliefs.is_own(&view.master);
            if named_us && !self.named_us {
                let sentinel = observation.sentinel.to_string();
                let addr = view.master.to_string();
                self.tell(Tale::NamesUs { sentinel, addr });
            }
            self.named_us |= named_us;
        }
        match &observation.said {
            Said::Announced(succession) => {
                self.announce(now, observation.sentinel.clone(), succession.clone());
            }
            Said::Hint(Hint::Aborted) => self.aborted(now, &observation.sentinel),
            _ => {}
        }
        // An answer to a question of before the standstill is none.
        let heard = matches!(observation.said,
            Said::View { view: Ok(_), asked_at, .. } if self.settling.is_none_or(|(since, _)| asked_at >= since));
        self.bequeath_lease(now, &observation.said);
        self.beliefs.observe(now, observation);
        if let Some((_, first)) = &mut self.settling
            && heard
        {
            first.get_or_insert(now);
        }
        self.reconsider(now);
    }

    /// A candidate was asked for its role.
    pub fn probed(
        &mut self,
        now: Moment,
        addr: &MasterAddr,
        at: Option<SocketAddr>,
        report: RoleReport,
    ) {
        let Some(trial) = self.trial.as_mut().filter(|t| t.candidate.addr == *addr) else {
            return;
        };
        let trusted = self.rules.verify == Verify::Auto && trial.candidate.has_majority();
        let hidden = match &report {
            RoleReport::Refused(why) if trusted => Some(why.clone()),
            _ => None,
        };
        if let Some(at) = at.filter(|_| report == RoleReport::Master || hidden.is_some()) {
            if let Some(why) = hidden {
                self.tell(Tale::Unverified(addr.clone(), why));
            }
            self.adopt(now, at);
            return;
        }
        let failing = now.since(trial.decided_at);
        if trial.failed(now, &report) {
            self.tell(Tale::RoleRejected {
                addr: addr.clone(),
                report,
            });
        }
        if failing >= SET_ASIDE_AFTER && self.beliefs.set_aside(now, addr) {
            self.tell(Tale::SetAside(addr.clone()));
            self.reconsider(now);
        }
        self.settle_publication(now);
    }

    /// The control connection had an answer to ROLE.
    pub fn master_said(
        &mut self,
        now: Moment,
        addr: &MasterAddr,
        at: Option<SocketAddr>,
        report: &RoleReport,
    ) {
        if !self.is_master(addr) {
            return;
        }
        match report {
            RoleReport::Replica | RoleReport::NotADataNode if self.provisional.is_some() => {
                self.undo(now, Undone::Demoted);
            }
            RoleReport::Master if self.has_moved(at) => self.follow_name(now, at),
            RoleReport::Master => {
                self.holds.says_replica = false;
                self.holds.unreachable = false;
                self.next_role = None;
            }
            RoleReport::Replica | RoleReport::NotADataNode => {
                if !self.holds.says_replica {
                    self.actions.push_back(Action::AskAll);
                }
                self.holds.says_replica = true;
                self.holds.unreachable = false;
                self.next_role = Some(now + REPLICA_AGAIN);
            }
            // It is there. Slow scripts, loading or a changed password never end a generation by themselves.
            RoleReport::Loading | RoleReport::Refused(_) | RoleReport::LoginFailed(_) => {
                self.holds.unreachable = false;
                self.actions.push_back(Action::AskAll);
            }
            RoleReport::Failed(_) => self.actions.push_back(Action::AskAll),
        }
        self.reconsider(now);
    }

    /// The control connection is gone and an immediate redial failed.
    pub fn master_gone(&mut self, now: Moment, addr: &MasterAddr) {
        if self.is_master(addr) {
            self.holds.unreachable = true;
            self.actions.push_back(Action::AskAll);
            self.reconsider(now);
        }
    }

    /// A session lost its upstream, or could not dial.
    pub fn doubt(&mut self, now: Moment) {
        if now >= self.next_doubt {
            self.next_doubt = now + DOUBT_EVERY;
            self.actions.push_back(Action::AskAll);
        }
        if self.master.is_some() {
            self.actions.push_back(Action::CheckMaster);
        }
    }

    /// Time has passed.
    pub fn turn(&mut self, now: Moment) {
        let gap = now.since(self.last_turn);
        self.last_turn = now;
        if gap > VALIDITY {
            self.stood_still(now, gap);
        }
        if self.next_role.is_some_and(|at| now >= at) {
            self.next_role = Some(now + REPLICA_AGAIN);
            self.actions.push_back(Action::CheckMaster);
        }
        self.expire_announcement(now);
        self.expire_provisional(now);
        self.expire_pause(now);
        self.set_aside_for_current(now);
        self.reconsider(now);
        self.try_again(now);
        self.tell_waiting(now);
    }

    /// The counter-rule for the master in force: one voter alone does not keep clients at a master that denies being
    /// one, or cannot be reached, while most name another.
    fn set_aside_for_current(&mut self, now: Moment) {
        let denied = self.holds.says_replica || self.holds.unreachable;
        let long = self
            .held
            .is_some_and(|held| now.since(held.since) >= SET_ASIDE_AFTER);
        let current = self
            .master
            .as_ref()
            .map(|m| m.addr.clone())
            .filter(|_| denied && long);
        if let Some(current) = current
            && self.beliefs.set_aside(now, &current)
        {
            self.tell(Tale::SetAside(current));
        }
    }

    fn hold_max(&self) -> Duration {
        self.rules.hold_max.resolve(self.beliefs.down_after())
    }

    /// Decides anew and acts on the verdict.
    fn reconsider(&mut self, now: Moment) {
        if !self.is_settled(now) {
            self.settle_publication(now);
            return;
        }
        let current = self.named().cloned();
        let provisional = self.provisional.is_some();
        let verdict = self.beliefs.decide(now, current.as_ref(), provisional);
        self.note_health(now, &verdict);
        match self.weigh(now, verdict) {
            Verdict::Verify(candidate) => {
                self.holds.switching = self.master.is_some();
                self.begin_trial(now, candidate);
            }
            Verdict::Keep(Why::Confirmed(epoch)) => self.confirm(now, epoch),
            // Nobody can tell which: the master in force is kept if somebody still names it and it says that it is one.
            Verdict::Keep(Why::Ambiguous)
                if self.holds.switching
                    && current.is_some_and(|current| self.beliefs.names(now, &current)) =>
            {
                self.try_current(now, self.master.as_ref().map_or(Epoch(0), |m| m.epoch));
            }
            Verdict::Keep(why) => {
                // Silence takes nothing back, any other answer does: a candidate of before is not named any longer.
                let silent = why == Why::NoFreshView;
                let stays = |t: &Trial| {
                    self.is_master(&t.candidate.addr)
                        || (silent && self.beliefs.named_last(&t.candidate))
                };
                if !self.trial.as_ref().is_none_or(stays) {
                    self.trial = None;
                    self.actions.push_back(Action::StopProbe);
                }
                // Nobody says anything that counts: a master in force stays so, but after standing still it has to say
                // so itself. One that was left is in force no longer, and stays fenced until it is named again.
                if self.holds.resumed && !self.holds.switching {
                    self.try_current(now, self.master.as_ref().map_or(Epoch(0), |m| m.epoch));
                }
            }
        }
        self.settle_publication(now);
    }

    /// The Sentinels name the master in force.
    fn confirm(&mut self, now: Moment, epoch: Epoch) {
        if self.holds.switching || self.holds.resumed {
            self.try_current(now, epoch);
            return;
        }
        if self.trial.take().is_some() {
            self.actions.push_back(Action::StopProbe);
        }
        if let Some(master) = &mut self.master {
            master.epoch = master.epoch.max(epoch);
        }
        self.beliefs.adopt(epoch);
    }

    /// Verifies the master in force before it is resumed.
    fn try_current(&mut self, now: Moment, epoch: Epoch) {
        if let Some(master) = &self.master {
            let candidate = self.beliefs.candidate_again(now, &master.addr, epoch);
            self.begin_trial(now, candidate);
        }
    }

    fn begin_trial(&mut self, now: Moment, candidate: Candidate) {
        if let Some(trial) = self
            .trial
            .as_mut()
            .filter(|t| t.candidate.addr == candidate.addr)
        {
            trial.renew(now, candidate);
            return;
        }
        self.tell(Tale::Candidate(candidate.clone()));
        self.actions
            .push_back(Action::Probe(candidate.addr.clone()));
        self.trial = Some(Trial::new(now, candidate));
    }

    fn try_again(&mut self, now: Moment) {
        if let Some(trial) = &mut self.trial
            && trial.begin_dial(now)
        {
            let addr = trial.candidate.addr.clone();
            self.actions.push_back(Action::Probe(addr));
        }
    }

    /// The candidate is verified.
    fn adopt(&mut self, now: Moment, at: SocketAddr) {
        let Some(Trial {
            candidate,
            decided_at,
            ..
        }) = self.trial.take()
        else {
            return;
        };
        // A name that leads to another address is another master.
        let same = self
            .master
            .as_ref()
            .is_some_and(|m| m.addr == candidate.addr && m.at == at);
        if !same && self.provisional.is_some() {
            // The node that was announced is elsewhere, and who is here was not seen being promoted.
            self.undo(now, Undone::Moved);
            self.reconsider(now);
            return;
        }
        self.beliefs.adopt(candidate.epoch);
        let master = Adopted {
            addr: candidate.addr.clone(),
            at,
            epoch: candidate.epoch,
        };
        if same {
            self.master = Some(master);
            self.next_role = None;
            // The same master again ends no announced hold: it is about to be left. Nor does it overrule a quorum that
            // calls it down: that is no matter of what it says itself.
            self.holds = Holds {
                announced: self.holds.announced,
                objectively_down: self.holds.objectively_down,
                ..Holds::default()
            };
            self.settle_publication(now);
            return;
        }
        let left = self.install(now, master, Holds::default());
        // Failovers do succeed here: the next one is waited for.
        self.announced_again = now;
        let swap = Swap {
            to: candidate.addr,
            generation: self.generation,
            epoch: candidate.epoch,
            trigger: candidate.asked.label(),
            detect: decided_at.since(candidate.since),
            verify: now.since(decided_at),
            provisional: false,
            from: left.map(|m| m.addr),
        };
        let tale = if swap.from.is_some() {
            Tale::Switched(swap)
        } else {
            Tale::Ready(swap)
        };
        self.tell(tale);
    }

    /// Another master is in force, in a generation of its own. Gives the one before.
    fn install(&mut self, now: Moment, master: Adopted, holds: Holds) -> Option<Adopted> {
        let watch = Action::Watch(master.addr.clone());
        let left = self.master.replace(master);
        self.generation = Generation(self.generation.max(self.inherited).0 + 1);
        self.next_role = None;
        self.end_announcement();
        self.bequest = None;
        self.holds = holds;
        self.settle_publication(now);
        self.actions.push_back(watch);
        left
    }

    /// Publishes what follows from the holds, if it differs from what is published.
    fn settle_publication(&mut self, now: Moment) {
        self.renew_lease(now);
        let holds = self.held_now(now).filter(|_| self.master.is_some());
        match (self.held, holds) {
            (None, Some((cause, _))) => self.tell(Tale::HoldBegin(cause)),
            (Some(held), None) => {
                self.tell(Tale::HoldEnd {
                    cause: held.cause,
                    lasted: now.since(held.began),
                    switched: self.generation != held.before,
                });
            }
            _ => {}
        }
        // A hold that only changes its cause goes on.
        let begun = self.held.map(|held| (held.began, held.before));
        let (began, before) = begun.unwrap_or((now, self.generation));
        self.held = holds.map(|(cause, since)| Held {
            cause,
            since,
            began,
            before,
        });
        let phase = match (&self.master, self.held) {
            (None, _) => Phase::NoMaster,
            (Some(_), Some(Held { cause, since, .. })) => {
                let sealed = self
                    .announced
                    .as_ref()
                    .is_some_and(Announcement::is_promoted);
                Phase::Held {
                    cause,
                    since,
                    sealed,
                }
            }
            (Some(_), None) => Phase::Serving,
        };
        let state = State {
            generation: self.generation,
            phase,
            master: self.master.as_ref().map(|m| m.addr.clone()),
            verified_at: self.master.as_ref().map(|m| m.at),
            hold_max: self.hold_max(),
            readers: ForReaders {
                held: self.readers_held(now).filter(|_| self.master.is_some()),
                successor: self.announced.as_ref().map(|a| a.successor.clone()),
            },
        };
        if state != self.published {
            self.published = state;
            self.unpublished = true;
        }
    }

    fn is_master(&self, addr: &MasterAddr) -> bool {
        self.master.as_ref().is_some_and(|m| m.addr == *addr)
    }

    fn tell(&mut self, tale: Tale) {
        self.actions.push_back(Action::Tell(tale));
    }
}
