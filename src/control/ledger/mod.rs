//! What one proxy entry has been through, for those who look: metrics, the status page, `switchmaster status`. Pure.
//!
//! ```text
//! control task --what it was told, published and told--> Ledger --Account--> admin (page, JSON, metrics)
//! ```
//!
//! It is told facts with their time and decides nothing; nobody decides by it. The control task writes it and the admin
//! endpoint reads it.

mod account;
mod disagreement;
mod opinion;
mod outage;
mod reads;
mod rejection;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use self::account::{
    Account, Hold, Master, OutageAccount, Pause, Phases, Rejected, Replica, SentinelAccount,
};
pub use self::disagreement::Disagreement;
use self::opinion::Opinion;
use self::outage::Outage;
pub use self::outage::Outcome;
pub use self::reads::{ReadFrom, Reads};
use self::rejection::Rejection;
use crate::control::action::{Swap, Tale, Undone};
use crate::net::addr::{HostPort, SentinelAddr};
use crate::net::clock::{At, Moment};
use crate::topology::observation::{Asked, Hint, Observation, ReplicaSeen, RoleReport, Said};
use crate::topology::publish::Left;
use crate::topology::{Epoch, Generation, MasterAddr, Phase, State};

/// Outages remembered; of older ones only the sums stay.
pub const OUTAGES_KEPT: usize = 32;
/// Sentinels accounted for; discovery follows no more than that.
const MAX_SENTINELS: usize = 64;
/// Replicas accounted for; more are not listed.
const MAX_REPLICAS: usize = 64;
/// After clients may go on, the first reply of the master is waited for so long. Without one by then nobody had asked.
pub const FIRST_REPLY_LIMIT: Duration = Duration::from_secs(1);

/// Replies within this time before an outage say that clients were at work, so that the first reply after it is its end.
const BUSY: Duration = Duration::from_secs(1);
/// What was lost in this time before an outage began was lost to it: the end of a master is what gives it away.
const BEFORE: Duration = Duration::from_secs(1);

/// What the workers count, as far as it tells how clients fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    /// Bytes written to clients.
    pub bytes_down: u64,
    /// Sessions that wait for a master.
    pub waiting: u64,
    /// Sessions that ended for want of their master, since the start.
    pub lost: u64,
    /// Requests whose replies were lost, since the start.
    pub unknown: u64,
}

/// What an outage has cost clients, as far as it is known at the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// How long they had to wait until they could go on.
    pub paused: Duration,
    /// Most that waited at once.
    pub held: u64,
    /// Sessions that ended for want of a master.
    pub lost: u64,
    /// Requests whose replies were lost.
    pub unknown: u64,
}

/// Sums since the start of the process, each with the label that tells its parts apart.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Masters adopted after another, by what set the switch off.
    pub switches: BTreeMap<&'static str, u64>,
    /// Holds that have ended, by how.
    pub holds: BTreeMap<&'static str, u64>,
    /// Answers to ROLE that were none of a master, by what was wrong with them.
    pub role_failures: BTreeMap<&'static str, u64>,
    /// Sentinel's events, by name.
    pub events: BTreeMap<&'static str, u64>,
    /// Times that this process stood still.
    pub standstills: u64,
    /// Switches that not every worker acknowledged in time.
    pub unfenced: u64,
}

impl Totals {
    /// Every label there can be, at zero: Prometheus sees no increase from a series that begins with its first count.
    fn zero() -> Self {
        let zero = |label| (label, 0);
        let triggers = Asked::all().map(Asked::label);
        Self {
            switches: triggers
                .chain(Undone::ALL.map(Undone::label))
                .map(zero)
                .collect(),
            holds: Outcome::ENDS.map(Outcome::label).map(zero).into(),
            role_failures: RoleReport::FAILURES.map(zero).into(),
            events: Hint::ALL.map(Hint::as_str).map(zero).into(),
            standstills: 0,
            unfenced: 0,
        }
    }
}

/// A ledger that one writes and others read. Never locked across a wait.
#[derive(Clone, Debug)]
pub struct Book(Arc<Mutex<Ledger>>);

impl Book {
    /// Opens it.
    pub fn new(ledger: Ledger) -> Self {
        Self(Arc::new(Mutex::new(ledger)))
    }

    /// Does this with it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Ledger) -> T) -> T {
        // A reader's panic leaves sums that are as good as before.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A pause that lasts.
#[derive(Debug)]
struct Paused {
    by: String,
    since: Moment,
    until: Option<Moment>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Ledger {
    proxy: String,
    master_name: String,
    state: State,
    /// Since when the generation in force is in force.
    since: At,
    /// What the swap to it was.
    swap: Option<Swap>,
    /// What the steward believes since.
    epoch: Option<Epoch>,
    /// A node that hides its role, trusted all the same.
    unverified: Option<MasterAddr>,
    degraded: bool,
    ambiguous: bool,
    pause: Option<Paused>,
    /// What the workers had counted when it was last looked at, and when replies last reached clients.
    pulse: Pulse,
    turned: Moment,
    busy_at: Option<Moment>,
    /// What had been counted at least [`BEFORE`] ago, and what had been later, and when.
    earlier: [(Moment, Pulse); 2],
    sentinels: BTreeMap<SentinelAddr, Opinion>,
    replicas: Vec<ReplicaSeen>,
    reads: Option<Reads>,
    role: Option<(&'static str, Moment)>,
    /// Who was named last and is not accepted.
    rejection: Option<Rejection>,
    candidate_since: Option<Moment>,
    /// The outage that goes on, or that has ended and waits for its first reply.
    open: Option<Outage>,
    /// The latest last.
    outages: VecDeque<Outage>,
    ended: u64,
    /// Of those, how many were told of, see [`Ledger::over`].
    told_over: u64,
    /// Time of outages that have ended.
    unavailable: Duration,
    totals: Totals,
}

impl Ledger {
    /// An entry that was just started.
    pub fn new(at: At, proxy: &str, master_name: &str, state: State) -> Self {
        let mut ledger = Self {
            proxy: proxy.to_owned(),
            master_name: master_name.to_owned(),
            state,
            since: at,
            swap: None,
            epoch: None,
            unverified: None,
            degraded: false,
            ambiguous: false,
            pause: None,
            pulse: Pulse::default(),
            turned: at.moment,
            busy_at: None,
            earlier: [(at.moment, Pulse::default()); 2],
            sentinels: BTreeMap::new(),
            replicas: Vec::new(),
            reads: None,
            role: None,
            rejection: None,
            candidate_since: None,
            open: None,
            outages: VecDeque::new(),
            ended: 0,
            told_over: 0,
            unavailable: Duration::ZERO,
            totals: Totals::zero(),
        };
        // Until the first master is verified nobody can be served.
        ledger.open = Some(Outage::new(
            at.moment,
            outage::STARTING,
            None,
            Generation(0),
            false,
        ));
        ledger
    }

    /// A Sentinel was heard, or was not.
    pub fn observed(&mut self, at: At, observation: &Observation) {
        let Observation { sentinel, said } = observation;
        if let Said::Hint(hint) = said {
            *self.totals.events.entry(hint.as_str()).or_default() += 1;
        }
        if matches!(said, Said::Announced(_)) {
            let name = Hint::SelectedSlave.as_str();
            *self.totals.events.entry(name).or_default() += 1;
        }
        if matches!(said, Said::Forgotten) {
            self.sentinels.remove(sentinel);
            return;
        }
        if self.sentinels.len() >= MAX_SENTINELS && !self.sentinels.contains_key(sentinel) {
            return;
        }
        let opinion = self.sentinels.entry(sentinel.clone());
        opinion
            .or_insert_with(|| Opinion::new(at.moment))
            .take_in(at.moment, said);
    }

    /// The master in force, or a candidate, was asked for its role.
    pub fn role_said(&mut self, at: At, addr: &MasterAddr, report: &RoleReport) {
        if *report == RoleReport::Master {
            self.unverified.take_if(|hidden| hidden == addr);
        } else {
            *self.totals.role_failures.entry(report.label()).or_default() += 1;
        }
        if self.state.master.as_ref() == Some(addr) {
            self.role = Some((report.label(), at.moment));
        }
    }

    /// The master in force told of its replicas.
    pub fn replicas_seen(&mut self, addr: &MasterAddr, mut replicas: Vec<ReplicaSeen>) {
        replicas.truncate(MAX_REPLICAS);
        if self.state.master.as_ref() == Some(addr) {
            self.replicas = replicas;
        }
    }

    /// People were told this.
    pub fn told(&mut self, at: At, tale: &Tale) {
        match tale {
            Tale::Ready(swap) | Tale::Switched(swap) => self.swapped(swap),
            Tale::Candidate(_) => self.candidate_since = Some(at.moment),
            Tale::Unverified(addr, _) => self.unverified = Some(addr.clone()),
            Tale::Paused { by, limit } => {
                let since = self.pause.take().map_or(at.moment, |pause| pause.since);
                self.pause = Some(Paused {
                    by: by.clone(),
                    since,
                    until: limit.map(|limit| at.moment + limit),
                });
            }
            Tale::Resumed { .. } => self.pause = None,
            Tale::SentinelsLost(_) => self.degraded = true,
            Tale::SentinelsBack => self.degraded = false,
            Tale::Ambiguous(ambiguous) => self.ambiguous = *ambiguous,
            Tale::StoodStill(_) => self.totals.standstills += 1,
            Tale::Confirmed { epoch, .. } => {
                if let Some(swap) = &mut self.swap {
                    swap.epoch = *epoch;
                }
            }
            _ => {}
        }
    }

    fn swapped(&mut self, swap: &Swap) {
        if swap.from.is_some() {
            *self.totals.switches.entry(swap.trigger).or_default() += 1;
        }
        // The state was published before this was told: the outage has ended with it, or lasts with its fenced generation.
        let ended = self.outages.back_mut().into_iter().chain(&mut self.open);
        if let Some(outage) = { ended }.rfind(|outage| outage.is_of(swap.generation)) {
            outage.switched(swap);
        }
        self.replicas.clear();
        self.role = None;
        self.swap = Some(swap.clone());
    }

    /// This is in force from now on.
    pub fn published(&mut self, at: At, state: &State, pulse: Pulse) {
        self.turn(at, pulse);
        if state.phase == Phase::Serving {
            self.rejection = None;
        }
        if state.generation != self.state.generation {
            self.since = at;
        }
        match (&state.phase, &mut self.open) {
            (Phase::Serving, Some(outage)) if outage.is_lasting() => {
                // The phases of a switch are not those of the pause around it.
                let decided = self.candidate_since.take();
                let decided = decided.filter(|_| !outage.was_paused());
                outage.served(at.moment, state.generation, decided);
                if !outage.is_start() {
                    let ended = outage.outcome().label();
                    *self.totals.holds.entry(ended).or_default() += 1;
                }
                if !outage.was_busy() && pulse.waiting == 0 {
                    self.close();
                }
            }
            (Phase::Held { cause, .. }, Some(outage)) if outage.is_lasting() => {
                outage.changes_cause(cause.label());
            }
            (Phase::Held { cause, since, .. }, _) => {
                self.close();
                self.candidate_since = None;
                let busy = self.busy_at.is_some_and(|last| since.since(last) < BUSY);
                let from = self.state.master.clone();
                let before = self.state.generation;
                let mut outage = Outage::new(*since, cause.label(), from, before, busy);
                outage.counts_from(self.earlier[0].1);
                self.open = Some(outage);
            }
            _ => {}
        }
        self.state = state.clone();
    }

    /// Time has passed, and the workers have counted this.
    pub fn turn(&mut self, at: At, pulse: Pulse) {
        let replied = pulse.bytes_down > self.pulse.bytes_down;
        self.pulse = pulse;
        self.turned = at.moment;
        if at.moment.since(self.earlier[1].0) >= BEFORE {
            self.earlier = [self.earlier[1], (at.moment, pulse)];
        }
        if replied {
            self.busy_at = Some(at.moment);
        }
        let Some(outage) = &mut self.open else {
            return;
        };
        outage.saw(pulse);
        let Some(served) = outage.served_at() else {
            return;
        };
        if replied {
            outage.replied(at.moment);
        }
        if replied || at.moment.since(served) >= FIRST_REPLY_LIMIT {
            self.close();
        }
    }

    /// The epoch that is believed, as it was last told.
    pub const fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The epoch that is believed; a Sentinel that was reset starts at 0 again, which is no switch.
    pub fn believes(&mut self, epoch: Option<Epoch>) {
        self.epoch = epoch;
    }

    /// Clients may go on after an outage, and the first reply is waited for: to be told soon of what the workers count.
    pub fn awaits_reply(&self) -> bool {
        self.open
            .as_ref()
            .is_some_and(|outage| !outage.is_lasting())
    }

    /// Every worker has let go of the old master (and what became of its sessions), or has not in time. Gives what the
    /// switch has cost clients so far.
    pub fn fenced(&mut self, fence: Duration, swap: &Swap, left: Option<Left>) -> Harm {
        if left.is_none() {
            self.totals.unfenced += 1;
        }
        let of_this = |outage: &&mut Outage| outage.generation() == Some(swap.generation);
        let is_next = |open: &Outage| open.generation() != Some(swap.generation);
        let next_began = self.open.as_ref().is_some_and(is_next);
        let outages = self.outages.iter_mut().rev().chain(&mut self.open);
        let Some(outage) = { outages }.find(of_this) else {
            return Harm::default();
        };
        outage.fenced(fence, left);
        // Who had nobody waiting was counted as over before its sessions were closed.
        if !next_began {
            outage.saw(self.pulse);
        }
        outage.harm()
    }

    /// The next outage that is over and known in all its parts, once; the start is none.
    pub fn over(&mut self, at: At) -> Option<OutageAccount> {
        while self.told_over < self.ended {
            let untold = usize::try_from(self.ended - self.told_over).unwrap_or(usize::MAX);
            // Of more than are remembered the oldest are not told.
            let next = self.outages.len().saturating_sub(untold);
            let account = account::tell(at, self.outages.get(next)?, true);
            if !account.is_told() {
                return None;
            }
            self.told_over = self.ended - (self.outages.len() - next) as u64 + 1;
            if !self.outages[next].is_start() {
                return Some(account);
            }
        }
        None
    }

    fn close(&mut self) {
        let Some(outage) = self.open.take() else {
            return;
        };
        self.ended += 1;
        self.unavailable += outage.length();
        if self.outages.len() == OUTAGES_KEPT {
            self.outages.pop_front();
        }
        self.outages.push_back(outage);
    }

    /// What is new of Sentinels that name another master than the one in force. To be asked at each turn.
    pub fn disagreements(&mut self, at: At) -> Vec<Disagreement> {
        let current = self.state.master.as_ref();
        let rejection = self.rejection.as_ref();
        let opinions = self.sentinels.iter_mut();
        opinions
            .filter_map(|(addr, opinion)| {
                let rejected = |named: &HostPort| Rejection::of(rejection, at.moment, named);
                opinion.news(at.moment, addr, current, rejected)
            })
            .collect()
    }

    /// The entry's name.
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// The entry's name, and for how long its control task has not turned.
    pub fn idle(&self, at: At) -> (String, Duration) {
        (self.proxy.clone(), at.moment.since(self.turned))
    }

    /// The sums.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }
}
