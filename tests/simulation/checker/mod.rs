//! What must hold of a proxy after every step, whatever happened: judged from what the proxy has received and published
//! alone, by bookkeeping of its own.

mod announced;

use std::collections::BTreeMap;

use switchmaster::control::action::{Swap, Tale};
use switchmaster::control::steward::VALIDITY;
use switchmaster::topology::observation::{Hint, RoleReport};
use switchmaster::topology::rules::{Agree, Confirm, Rules, Verify};
use switchmaster::topology::{HoldCause, Phase, State};

use self::announced::{Provisional, Succession};
use crate::heard::{Heard, Seen, statements, voters};
use crate::names::node_of;

/// How long a majority below the floor has to agree; and when all of them announced it.
const RELEASE: u64 = 10_000;
const RELEASE_MONITORED: u64 = 1000;
const MONITOR_MEMORY: u64 = 60_000;
/// Longest wait for a first answer after a standstill.
const SETTLE_SILENT: u64 = 3000;

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) property: Property,
    pub(crate) at: u64,
    pub(crate) what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Property {
    /// The floor falls by the documented release only, and what is adopted was named at that epoch, not below it.
    Floor,
    /// A generation has one address and only the newest is open; a fence comes before the candidate's answer.
    OneGeneration,
    /// Nothing is open on a node that the fresh views of the highest epoch do not name.
    Named,
    /// Nothing is adopted, or open, that did not say it is a master.
    Verified,
    /// What a majority names and answers is served in the end, a lone rogue notwithstanding.
    Converges,
    /// After a standstill nothing is open before fresh answers and a role.
    Standstill,
    /// A successor is used on its own word only where that was asked for and its promotion was seen, and no longer than
    /// 3 s unless a Sentinel names it; then the master before is gone back to.
    Provisional,
    /// An announced failover is waited for so long and no longer, and a reply is withheld only after the promotion.
    Announced,
    /// Nothing is open while an operator's pause lasts.
    Paused,
}

#[derive(Clone, Copy, Debug)]
struct Below {
    epoch: u64,
    node: usize,
    since: u64,
}

#[derive(Debug)]
pub(crate) struct Checker {
    agree: Agree,
    verify: Verify,
    confirm: Confirm,
    links: Vec<Heard>,
    floor: Option<u64>,
    /// Both as they were when the steward last looked at the clock, before what it was told next.
    before: (Vec<Heard>, Option<u64>),
    below: Option<Below>,
    /// The node of each generation.
    generations: Vec<usize>,
    /// When the last standstill was noticed.
    distrust: u64,
    /// Nothing was decided since then, so nobody was counted.
    settling: bool,
    /// Somebody named a master since then, asked since then.
    answered: bool,
    last_step: u64,
    /// The last answer to ROLE of each node, by probe or control connection.
    said: BTreeMap<usize, RoleReport>,
    /// The last answer to a probe: of whom, what, and when the probe began.
    probed: Option<(usize, RoleReport, u64)>,
    /// The probe under way.
    probing: Option<(usize, u64)>,
    all_down_when_probed: bool,
    succession: Succession,
    provisional: Option<Provisional>,
    /// The last generation that was the way back from a provisional one, and its node.
    over: Option<(u64, usize)>,
    /// A new generation was published open, of this node.
    opening: Option<usize>,
    /// The master in force was fenced for another, and nobody has named it again since.
    left: bool,
    was: State,
    pub(crate) found: Option<Violation>,
}

impl Checker {
    pub(crate) fn new(rules: &Rules, links: usize, initial: State) -> Self {
        Self {
            agree: rules.agree,
            verify: rules.verify,
            confirm: rules.confirm,
            links: vec![Heard::default(); links],
            floor: None,
            before: (Vec::new(), None),
            below: None,
            generations: Vec::new(),
            distrust: 0,
            settling: false,
            answered: false,
            last_step: 0,
            said: BTreeMap::new(),
            probed: None,
            probing: None,
            all_down_when_probed: false,
            succession: Succession::default(),
            provisional: None,
            over: None,
            opening: None,
            left: false,
            was: initial,
            found: None,
        }
    }

    /// A step begins; true when the process stood still before it.
    pub(crate) fn begin(&mut self, now: u64) -> bool {
        let stood = u128::from(now - self.last_step) > VALIDITY.as_millis();
        if stood {
            self.distrust = now;
            self.settling = true;
            self.answered = false;
            self.probing = None;
            // What was known of links before says nothing of now.
            self.links.iter_mut().for_each(|l| l.down = false);
        }
        self.last_step = now;
        if !stood {
            self.count(now);
        }
        self.track_below(now);
        stood
    }

    /// The steward looked at the clock, and may have decided by that alone.
    pub(crate) fn turned(&mut self, now: u64, floor: Option<u64>) {
        self.before = (self.links.clone(), self.floor);
        self.check_floor(now, floor);
    }

    pub(crate) fn met(&mut self, link: usize, voter: usize) {
        self.links[link].voter = Some(voter);
    }

    pub(crate) fn link_is(&mut self, link: usize, up: bool) {
        self.links[link].down = !up;
    }

    pub(crate) fn hinted(&mut self, now: u64, link: usize, hint: Hint) {
        if matches!(hint, Hint::Monitor | Hint::Unmonitor) {
            self.links[link].monitored = Some(now);
        }
    }

    pub(crate) fn heard(&mut self, link: usize, view: Option<(usize, u64)>, asked_at: u64) {
        self.answered |= view.is_some() && asked_at >= self.distrust;
        let heard = &mut self.links[link];
        if let Some((node, epoch)) = view {
            let anew = |old: &Seen| epoch < old.epoch;
            if heard.set_aside != Some(node) || heard.seen.as_ref().is_none_or(anew) {
                heard.set_aside = None;
            }
        }
        heard.seen = view.map(|(node, epoch)| Seen {
            node,
            epoch,
            asked_at,
        });
    }

    pub(crate) fn probe_begins(&mut self, now: u64, node: Option<usize>) {
        self.probing = node.map(|node| (node, now));
        // Whom to verify was decided.
        self.settling &= node.is_none();
        self.all_down_when_probed = self.links.iter().all(|l| l.down);
    }

    pub(crate) fn probed(&mut self, node: usize, report: &RoleReport) {
        if let Some((_, began)) = self.probing.take().filter(|(of, _)| *of == node) {
            self.probed = Some((node, report.clone(), began));
            self.said.insert(node, report.clone());
        }
    }

    pub(crate) fn said(&mut self, node: usize, report: &RoleReport) {
        self.said.insert(node, report.clone());
    }

    pub(crate) fn told(&mut self, now: u64, tale: &Tale) {
        match tale {
            Tale::Switched(swap) if swap.provisional => self.provided(now, swap),
            Tale::Switched(swap) if self.went_back(now, swap) => {}
            Tale::Ready(swap) | Tale::Switched(swap) => self.swapped(now, swap),
            Tale::Confirmed { epoch, .. } => self.confirmed(now, epoch.0),
            Tale::Undone { .. } => self.undone(now),
            Tale::SetAside(addr) => {
                let node = node_of(addr);
                let (links, floor) = &self.before;
                if !self.is_lone(now, node, links, *floor)
                    && !self.is_lone(now, node, &self.links, self.floor)
                {
                    self.fail(
                        Property::Converges,
                        now,
                        format!("{addr} was set aside though not alone"),
                    );
                }
                let floor = self.floor;
                for heard in &mut self.links {
                    let names = |s: &Seen| s.node == node && Some(s.epoch) > floor;
                    if heard.seen.as_ref().is_some_and(names) {
                        heard.set_aside = Some(node);
                    }
                }
            }
            _ => {}
        }
    }

    /// One voter names this node above the floor, while a majority names another.
    fn is_lone(&self, now: u64, node: usize, links: &[Heard], floor: Option<u64>) -> bool {
        let statements = statements(links, self.distrust, now, false);
        let naming = |n: usize| statements.iter().filter(move |s| s.node == n);
        let majority = |s: &Seen| naming(s.node).count() * 2 > self.voters();
        naming(node).filter(|s| Some(s.epoch) > floor).count() == 1
            && statements.iter().any(|s| s.node != node && majority(s))
    }

    fn swapped(&mut self, now: u64, swap: &Swap) {
        let (node, epoch) = (node_of(&swap.to), swap.epoch.0);
        if self.provisional.is_some() {
            let what = format!("{} follows, and nobody has undone it", swap.to);
            self.fail(Property::Provisional, now, what);
        }
        if self.floor.is_some_and(|floor| epoch < floor) {
            self.fail(
                Property::Floor,
                now,
                format!("{} adopted at {epoch}, below {:?}", swap.to, self.floor),
            );
        }
        let named = self.links.iter().filter_map(|l| l.seen.as_ref());
        if !named.clone().any(|s| s.node == node && s.epoch >= epoch) {
            self.fail(
                Property::Floor,
                now,
                format!("{} adopted at {epoch}, where nobody names it", swap.to),
            );
        }
    }

    /// Whether a state is published that is open although a pause lasts.
    pub(crate) fn paused(&mut self, now: u64, open: bool) {
        if open {
            self.fail(Property::Paused, now, "open during a pause".to_owned());
        }
    }

    /// Every state that is published, in order.
    pub(crate) fn published(&mut self, now: u64, state: &State) {
        let (old, new) = (self.was.generation.0, state.generation.0);
        if new != old && new != old + 1 {
            self.fail(
                Property::OneGeneration,
                now,
                format!("generation {new} follows {old}"),
            );
        }
        if let Some(master) = &state.master {
            let node = node_of(master);
            if new == old + 1 {
                self.generations.push(node);
                // One that begins closed is the way back from a provisional one.
                let open = state.phase == Phase::Serving;
                self.left = !open;
                self.opening = open.then_some(node);
            } else if self.generations.last() != Some(&node) {
                self.fail(
                    Property::OneGeneration,
                    now,
                    format!("generation {new} has a second address, {master}"),
                );
            }
            let resumed = matches!(
                &self.was.phase,
                Phase::Held {
                    cause: HoldCause::Resumed | HoldCause::Switching,
                    ..
                }
            );
            if new == old && resumed && state.phase == Phase::Serving {
                self.opened(now, node);
                if self.left {
                    let what = format!("{master} was left, is resumed, and nobody named it again");
                    self.fail(Property::Named, now, what);
                }
            }
        }
        self.was = state.clone();
    }

    /// A node was verified, and is opened for that.
    fn opened(&mut self, now: u64, node: usize) {
        let Some((of, report, began)) = self.probed.clone() else {
            return self.fail(Property::Verified, now, "nobody was probed".to_owned());
        };
        let naming = self
            .statements(now, true)
            .iter()
            .filter(|s| s.node == node)
            .count();
        let majority = naming >= 2 && naming * 2 > self.voters();
        let hidden =
            matches!(report, RoleReport::Refused(_)) && self.verify == Verify::Auto && majority;
        if of != node || !(report == RoleReport::Master || hidden) {
            self.fail(
                Property::Verified,
                now,
                format!("opened {node}; the last probe: {of} {report:?}"),
            );
        }
        // Who has taken it back since, or fell silent, has answered all the same.
        let fresh = self.answered;
        let silent = now >= self.distrust + SETTLE_SILENT || self.all_down_when_probed;
        // Before the first standstill there is nothing to be confirmed: a candidate that was named when it was asked
        // is adopted although its Sentinels fell silent meanwhile.
        let stood_still = self.distrust > 0;
        if stood_still && (began < self.distrust || !(fresh || silent)) {
            self.fail(
                Property::Standstill,
                now,
                format!("opened {node} on what was heard before the standstill"),
            );
        }
    }

    /// After everything of a step was done. `open` when the fence lets bytes pass.
    pub(crate) fn end(&mut self, now: u64, state: &State, floor: Option<u64>) {
        if let Some(node) = self.opening.take() {
            self.opened(now, node);
        }
        // What was adopted in this step is what is counted from.
        if floor > self.floor {
            self.check_floor(now, floor);
        }
        self.count(now);
        self.track_left(now);
        self.track_below(now);
        self.check_floor(now, floor);
        self.check_announced(now, state);
        self.check_provisional(now, state, floor);
        let (Phase::Serving, Some(master)) = (&state.phase, &state.master) else {
            return;
        };
        let node = node_of(master);
        if self.probing.is_some_and(|(of, _)| of != node) {
            self.fail(
                Property::OneGeneration,
                now,
                format!("{master} is open while another is being verified"),
            );
        }
        if matches!(
            self.said.get(&node),
            Some(RoleReport::Replica | RoleReport::NotADataNode)
        ) {
            self.fail(
                Property::Verified,
                now,
                format!("{master} is open and said last that it is a replica"),
            );
        }
        self.check_named(now, node);
    }

    fn check_named(&mut self, now: u64, node: usize) {
        let voters = self.voters();
        let floor = self.floor.unwrap_or(0);
        let statements: Vec<Seen> = self
            .statements(now, true)
            .into_iter()
            .filter(|s| s.epoch >= floor)
            // Who names the master that a provisional one was promoted from has not heard of it.
            .filter(|s| s.epoch > floor || self.provisional.is_none_or(|p| p.left != s.node))
            .collect();
        let named = |n: usize, e: u64| {
            statements
                .iter()
                .filter(|s| s.node == n && s.epoch == e)
                .count()
        };
        let stays_above = |e: u64| {
            statements
                .iter()
                .filter(|s| s.node == node && s.epoch > e)
                .count()
        };
        let top = statements.iter().map(|s| s.epoch).max();
        let other = statements.iter().filter(|s| s.node != node).find(|s| {
            let majority = named(s.node, s.epoch) * 2 > voters;
            let alone = !statements
                .iter()
                .any(|o| o.epoch == s.epoch && o.node != s.node);
            let newest = Some(s.epoch) == top;
            // At the floor a single voice is one that was reset in the middle of a failover.
            let lone = alone && newest && s.epoch > floor && self.agree == Agree::Any;
            lone || (majority && (newest || (s.epoch > floor && stays_above(s.epoch) <= 1)))
        });
        if let Some(s) = other {
            let by = named(s.node, s.epoch);
            let what = format!(
                "{node} is open; {by} of {voters} name {} at {}",
                s.node, s.epoch
            );
            self.fail(Property::Named, now, what);
        }
    }

    /// One voice for the open master, whatever its epoch, does not count against a majority that moved on; and who was not
    /// counted counts again when no majority is left, or a second voter says the same above the floor.
    fn count(&mut self, now: u64) {
        // Right after a standstill nothing is counted before all have answered.
        let settling = self.settling && self.was.master.is_some();
        let voters = self.voters();
        let counted = self.statements(now, true);
        let floor = self.floor;
        let seconded = |node, said: Option<u64>| {
            let counts = |e| Some(e) > floor || (Some(e) == floor && Some(e) == said);
            counted.iter().any(|s| s.node == node && counts(s.epoch))
        };
        for heard in self.links.iter_mut().filter(|_| !settling) {
            let said = heard.seen.as_ref().map(|s| s.epoch);
            if counted.len() * 2 <= voters || heard.set_aside.is_some_and(|n| seconded(n, said)) {
                heard.set_aside = None;
            }
        }
        let (Some(floor), Some(node)) = (self.floor, self.named()) else {
            return;
        };
        let newer: Vec<Seen> = self
            .statements(now, true)
            .into_iter()
            .filter(|s| s.epoch > floor)
            .collect();
        let moved = newer.iter().filter(|s| s.node != node).any(|s| {
            newer
                .iter()
                .filter(|o| o.node == s.node && o.epoch == s.epoch)
                .count()
                * 2
                > voters
        });
        for heard in self.links.iter_mut().filter(|_| moved) {
            if heard
                .seen
                .as_ref()
                .is_some_and(|s| s.node == node && s.epoch > floor)
            {
                heard.set_aside = Some(node);
            }
        }
    }

    fn check_floor(&mut self, now: u64, floor: Option<u64>) {
        let (Some(old), Some(new)) = (self.floor, floor) else {
            self.floor = floor;
            return;
        };
        self.floor = floor;
        if new > old {
            for heard in &mut self.links {
                heard.monitored = None;
                // What is said at the new epoch is another word.
                if heard.seen.as_ref().is_some_and(|s| s.epoch < new) {
                    heard.set_aside = None;
                }
            }
        }
        if new >= old {
            return;
        }
        let below = self.below;
        // It may have been released, and raised again at once by what made a provisional generation final.
        let raised = self.provisional.and(below).filter(|b| b.epoch <= new);
        let to = raised.map_or(new, |b| b.epoch);
        let monitored = self.links.iter().all(|l| {
            !l.seen
                .as_ref()
                .is_some_and(|s| s.epoch == to && below.is_some_and(|b| b.node == s.node))
                || l.monitored.is_some_and(|at| now - at <= MONITOR_MEMORY)
        });
        let wait = if monitored {
            RELEASE_MONITORED
        } else {
            RELEASE
        };
        let due = self
            .below
            .is_some_and(|b| b.epoch == to && now >= b.since + wait);
        if !due {
            let what = format!(
                "the floor fell from {old} to {new}; the majority below: {:?}",
                self.below
            );
            self.fail(Property::Floor, now, what);
        }
        self.below = None;
        for heard in &mut self.links {
            let other = |s: &&Seen| s.epoch >= old && below.is_none_or(|b| b.node != s.node);
            if let Some(seen) = heard.seen.as_ref().filter(other) {
                heard.set_aside = Some(seen.node);
            }
        }
    }

    /// A fence for another master stands until somebody names the one in force again, or nobody can tell which.
    fn track_left(&mut self, now: u64) {
        let Some(node) = self.generations.last().copied() else {
            return;
        };
        let floor = self.floor.unwrap_or(0);
        let mut named = self.statements(now, true);
        named.retain(|s| s.epoch >= floor);
        let Some(first) = named.first().map(|s| s.node) else {
            return;
        };
        let majority = named.len() * 2 > self.voters();
        // At the floor a single voice is one that was reset in the middle of a failover.
        let unsure = !majority && named.iter().all(|s| s.epoch == floor);
        if first == node || named.iter().any(|s| s.node != first) || unsure {
            self.left = false;
        } else if self.agree == Agree::Any || majority {
            let switching = HoldCause::Switching;
            self.left |= matches!(self.was.phase, Phase::Held { cause, .. } if cause == switching);
        }
    }

    /// A strict majority of at least two that agrees below the floor, and since when.
    fn track_below(&mut self, now: u64) {
        let Some(floor) = self.floor else { return };
        let statements = self.statements(now, false);
        let voters = self.voters();
        let majority = statements.iter().filter(|s| s.epoch < floor).find(|s| {
            let same = statements
                .iter()
                .filter(|o| o.node == s.node && o.epoch == s.epoch)
                .count();
            same >= 2 && same * 2 > voters
        });
        self.below = majority.map(|s| match self.below {
            Some(b) if b.epoch == s.epoch && b.node == s.node => b,
            _ => Below {
                epoch: s.epoch,
                node: s.node,
                since: now,
            },
        });
    }

    fn statements(&self, now: u64, counted_only: bool) -> Vec<Seen> {
        statements(&self.links, self.distrust, now, counted_only)
    }

    fn voters(&self) -> usize {
        voters(&self.links)
    }

    fn fail(&mut self, property: Property, at: u64, what: String) {
        self.found.get_or_insert(Violation { property, at, what });
    }
}
