//! One run: the clock that steps from event to event, the faults, and the end, when everything is mended and the proxies
//! have to come back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use switchmaster::topology::observation::{Hint, RoleReport};
use switchmaster::topology::rules::{Agree, Verify};

use crate::checker::{Property, Violation};
use crate::cluster::{Cluster, Effect, Health, Hello, Life, Step};
use crate::names::{NOWHERE, letter};
use crate::plant::Plant;
use crate::proxy::{Proxy, Wait};
use crate::schedule::{Fault, Schedule};
use crate::trace::Trace;

/// The longest that what a majority names and answers may go without being served, milliseconds.
const CONVERGES_WITHIN: u64 = 20_000;
/// So long a good end has to last.
const GOOD_FOR: u64 = 1500;
/// A run that has not come to agree by then is given up.
const PATIENCE: u64 = 60_000;
const HELLO_EVERY: u64 = 2000;
const SWEEP_EVERY: u64 = 500;

#[derive(Clone, Debug)]
pub(crate) enum Due {
    Fault(usize),
    Mended(usize),
    HelloTick(usize),
    Hello(usize, usize, Hello),
    Failover(usize, u64, Step),
    Monitor(usize, usize),
    Sweep,
    Calm,
    Proxy(usize, Wait),
}

struct Entry(u64, u64, Due);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Time, chance, and what is under way.
pub(crate) struct Net {
    pub(crate) now: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) lost: u64,
    pub(crate) steps: u64,
    delay: u64,
    serial: u64,
    queue: BinaryHeap<Reverse<Entry>>,
}

impl Net {
    pub(crate) fn after(&mut self, millis: u64, due: Due) {
        self.serial += 1;
        self.queue
            .push(Reverse(Entry(self.now + millis, self.serial, due)));
    }

    /// How long a message takes to or from a proxy: mostly short.
    pub(crate) fn way(&mut self) -> u64 {
        let long = self.rng.u8(..4) == 0;
        self.rng
            .u64(..=if long { self.delay } else { self.delay.min(2) })
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    pub(crate) steps: u64,
    pub(crate) simulated: u64,
    pub(crate) generations: u64,
    /// Everybody agreed at the end, and was served.
    pub(crate) settled: bool,
    pub(crate) trace: String,
}

pub(crate) struct World<'a> {
    schedule: &'a Schedule,
    net: Net,
    cluster: Cluster,
    proxies: Vec<Proxy>,
    /// What is good for each proxy, and since when.
    good: Vec<Option<((usize, u64), u64)>>,
    settled_since: Option<u64>,
    ended: bool,
    next_repair: u64,
}

impl<'a> World<'a> {
    pub(crate) fn run(schedule: &'a Schedule, plant: Plant, traced: bool) -> Outcome {
        let setup = &schedule.setup;
        let trace = || {
            if traced {
                Trace::on()
            } else {
                Trace::default()
            }
        };
        let mut world = Self {
            schedule,
            net: Net {
                now: 0,
                rng: fastrand::Rng::with_seed(schedule.seed ^ 0x5157_1c4d),
                lost: setup.lost,
                steps: 0,
                delay: setup.delay,
                serial: 0,
                queue: BinaryHeap::new(),
            },
            cluster: Cluster::new(setup.nodes, setup.sentinels, setup.hidden),
            proxies: (0..setup.proxies)
                .map(|p| Proxy::new(p, setup, plant, trace()))
                .collect(),
            good: vec![None; setup.proxies],
            settled_since: None,
            ended: false,
            next_repair: schedule.calm + 4000,
        };
        world.play()
    }

    fn play(&mut self) -> Outcome {
        for p in &mut self.proxies {
            p.start(&mut self.net);
        }
        for (number, (at, _)) in self.schedule.faults.iter().enumerate() {
            self.net.after(*at, Due::Fault(number));
        }
        for s in 0..self.cluster.sentinels.len() {
            let first = self.net.rng.u64(..HELLO_EVERY);
            self.net.after(first, Due::HelloTick(s));
        }
        self.net.after(SWEEP_EVERY, Due::Sweep);
        self.net.after(self.schedule.calm, Due::Calm);
        let mut violation = None;
        while let Some(Reverse(Entry(at, _, due))) = self.net.queue.pop() {
            self.net.now = at;
            self.step(due);
            let found = self.proxies.iter_mut().find_map(|p| p.checker.found.take());
            violation = violation.or(found);
            if violation.is_some() || self.ended || at > self.schedule.calm + PATIENCE {
                break;
            }
        }
        Outcome {
            violation,
            steps: self.net.steps,
            simulated: self.net.now,
            generations: self.proxies.iter().map(|p| p.state.generation.0).sum(),
            settled: self.ended,
            trace: self
                .proxies
                .first()
                .map(|p| p.trace.text())
                .unwrap_or_default(),
        }
    }

    fn step(&mut self, due: Due) {
        match due {
            Due::Fault(number) => self.fault(number),
            Due::Mended(number) => self.mend(number),
            Due::HelloTick(s) => {
                self.hello_all(s);
                self.net.after(HELLO_EVERY, Due::HelloTick(s));
            }
            Due::Hello(from, to, hello) => {
                if self.cluster.hear(from, to) {
                    let effects = self.cluster.take_hello(self.net.now, to, hello);
                    self.effect(effects);
                }
            }
            Due::Failover(leader, serial, step) => {
                let now = self.net.now;
                let effects = self
                    .cluster
                    .step(now, leader, serial, step, &mut self.net.rng);
                if step == Step::Confirm && !effects.is_empty() {
                    let view = self.cluster.sentinels[leader].view;
                    self.note(&format!(
                        "s{} leads a failover and says {view:?}",
                        leader + 1
                    ));
                }
                self.effect(effects);
            }
            Due::Monitor(s, node) => {
                let effects = self.cluster.monitor(self.net.now, s, node);
                self.effect(effects);
            }
            Due::Sweep => {
                let effects = self.cluster.convert(self.net.now);
                self.effect(effects);
                self.watch_convergence();
                self.net.after(SWEEP_EVERY, Due::Sweep);
            }
            Due::Calm => self.calm(),
            Due::Proxy(p, wait) => self.proxies[p].take(&mut self.net, &self.cluster, wait),
        }
    }

    fn effect(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Event(s, hint) => {
                    for p in &mut self.proxies {
                        p.event(&mut self.net, s, hint, None);
                    }
                }
                Effect::Announced(s, master, successor) => {
                    let names = Some((master, successor));
                    for p in &mut self.proxies {
                        p.event(&mut self.net, s, Hint::SelectedSlave, names);
                    }
                }
                Effect::Later(leader, serial, step, after) => {
                    self.net.after(after, Due::Failover(leader, serial, step));
                }
                Effect::HelloAll(s) => self.hello_all(s),
                Effect::Killed(node) => {
                    for p in &mut self.proxies {
                        p.node_killed(&mut self.net, node);
                    }
                }
            }
        }
    }

    fn hello_all(&mut self, from: usize) {
        let Some(hello) = self.cluster.hello(from) else {
            return;
        };
        for to in 0..self.cluster.sentinels.len() {
            if self.cluster.hear(from, to) {
                let after = self.net.rng.u64(1..=self.schedule.setup.gossip);
                self.net.after(after, Due::Hello(from, to, hello));
            }
        }
    }

    fn fault(&mut self, number: usize) {
        let fault = self.schedule.faults[number].1;
        self.note(&fault.to_string());
        let (now, count) = (self.net.now, self.cluster.sentinels.len());
        let nodes = self.cluster.nodes.len();
        let proxies = self.proxies.len();
        let lasts = match fault {
            Fault::Planned { leader } => {
                let effects = self.cluster.begin_failover(leader % count, false);
                return self.effect(effects);
            }
            Fault::Elected { leader } => {
                let effects = self.cluster.begin_failover(leader % count, true);
                return self.effect(effects);
            }
            Fault::Reset { sentinel } => {
                let effects = self.cluster.reset(now, sentinel % count);
                return self.effect(effects);
            }
            Fault::Remonitor { mask, node, gap } => {
                for s in (0..count).filter(|s| mask & (1 << s) != 0) {
                    let effects = self.cluster.remove(s);
                    if !effects.is_empty() {
                        self.net.after(gap, Due::Monitor(s, node % nodes));
                    }
                    self.effect(effects);
                }
                return;
            }
            Fault::RolesSwapped { node } => {
                for n in 0..nodes {
                    self.cluster.set_master(now, n, n == node % nodes);
                }
                return;
            }
            Fault::Doubt { proxy } => {
                return self.net.after(0, Due::Proxy(proxy % proxies, Wait::Doubt));
            }
            Fault::Rogue {
                sentinel,
                node,
                epoch,
            } => {
                let named = if node % 3 == 0 { NOWHERE } else { node % nodes };
                let s = &mut self.cluster.sentinels[sentinel % count];
                s.rogue = true;
                s.view = Some((named, epoch));
                return;
            }
            Fault::ProxyPaused { proxy, lasts } => {
                return self.proxies[proxy % proxies].pause(&mut self.net, lasts);
            }
            Fault::ProxyStops { proxy, lasts } => {
                self.proxies[proxy % proxies].stands_until = now + lasts;
                return;
            }
            Fault::SentinelDies { sentinel, lasts } => {
                let s = sentinel % count;
                self.cluster.sentinels[s].life = Life::Dead;
                for p in &mut self.proxies {
                    p.sentinel_died(&mut self.net, s);
                }
                lasts
            }
            Fault::SentinelPauses { sentinel, lasts } => {
                self.cluster.sentinels[sentinel % count].life = Life::Paused;
                lasts
            }
            Fault::SentinelAlone { sentinel, lasts } => {
                self.cluster.sentinels[sentinel % count].alone = true;
                lasts
            }
            Fault::ProxyLosesSentinel {
                proxy,
                sentinel,
                lasts,
            } => {
                self.proxies[proxy % proxies].no_sentinel[sentinel % count] += 1;
                lasts
            }
            Fault::ProxyLosesAll { proxy, lasts } => {
                self.proxies[proxy % proxies]
                    .no_sentinel
                    .iter_mut()
                    .for_each(|n| *n += 1);
                lasts
            }
            Fault::ProxyLosesNode { proxy, node, lasts } => {
                self.proxies[proxy % proxies].no_node[node % nodes] += 1;
                lasts
            }
            Fault::NodeCrashes { node, lasts } => {
                self.cluster.nodes[node % nodes].health = Health::Crashed;
                self.effect(vec![Effect::Killed(node % nodes)]);
                lasts
            }
            Fault::NodeHangs { node, lasts } => {
                self.cluster.nodes[node % nodes].health = Health::Hung;
                lasts
            }
            Fault::NodeLoads { node, lasts } => {
                self.cluster.nodes[node % nodes].loading = true;
                self.effect(vec![Effect::Killed(node % nodes)]);
                lasts
            }
        };
        self.net.after(lasts, Due::Mended(number));
    }

    fn mend(&mut self, number: usize) {
        let (count, nodes, proxies) = (
            self.cluster.sentinels.len(),
            self.cluster.nodes.len(),
            self.proxies.len(),
        );
        let fewer = |n: &mut u8| *n = n.saturating_sub(1);
        match self.schedule.faults[number].1 {
            Fault::SentinelDies { sentinel, .. } | Fault::SentinelPauses { sentinel, .. } => {
                self.cluster.sentinels[sentinel % count].life = Life::Alive;
            }
            Fault::SentinelAlone { sentinel, .. } => {
                self.cluster.sentinels[sentinel % count].alone = false;
            }
            Fault::ProxyLosesSentinel {
                proxy, sentinel, ..
            } => {
                fewer(&mut self.proxies[proxy % proxies].no_sentinel[sentinel % count]);
            }
            Fault::ProxyLosesAll { proxy, .. } => {
                self.proxies[proxy % proxies]
                    .no_sentinel
                    .iter_mut()
                    .for_each(fewer);
            }
            Fault::ProxyLosesNode { proxy, node, .. } => {
                fewer(&mut self.proxies[proxy % proxies].no_node[node % nodes]);
            }
            Fault::NodeCrashes { node, .. } | Fault::NodeHangs { node, .. } => {
                self.cluster.nodes[node % nodes].health = Health::Up;
            }
            Fault::NodeLoads { node, .. } => self.cluster.nodes[node % nodes].loading = false,
            _ => {}
        }
    }

    /// No more faults, and all that is broken is whole again.
    fn calm(&mut self) {
        self.note("calm");
        let majority = self.cluster.majority();
        for s in &mut self.cluster.sentinels {
            s.life = Life::Alive;
            s.alone = false;
            if s.rogue && !self.schedule.setup.rogue_stays {
                s.rogue = false;
                s.view = majority.or(Some((0, 0)));
            }
        }
        for n in &mut self.cluster.nodes {
            n.health = Health::Up;
            n.loading = false;
        }
        for p in &mut self.proxies {
            p.no_sentinel.fill(0);
            p.no_node.fill(0);
        }
    }

    /// What an operator does when the Sentinels cannot agree, or name a node that is no master.
    fn repair(&mut self) {
        let agreed = self.cluster.majority();
        if agreed.is_some_and(|(node, _)| {
            self.cluster
                .nodes
                .get(node)
                .is_some_and(|n| n.is_serving_master())
        }) {
            return;
        }
        let leader = (0..self.cluster.sentinels.len()).find(|s| {
            !self.cluster.sentinels[*s].rogue && self.cluster.sentinels[*s].view.is_some()
        });
        self.note("an operator asks for a failover");
        if let Some(leader) = leader {
            let effects = self.cluster.reset(self.net.now, leader);
            self.effect(effects);
            let effects = self.cluster.begin_failover(leader, true);
            self.effect(effects);
        }
    }

    fn watch_convergence(&mut self) {
        let now = self.net.now;
        let mut all = true;
        for p in 0..self.proxies.len() {
            let good = self.named_for(p);
            let served = good.is_some_and(|(node, _)| self.proxies[p].serves(node));
            // Counts from when it was served last, too.
            let since = match (self.good[p], good) {
                (Some((was, since)), Some(is)) if was == is && !served => since,
                _ => now,
            };
            self.good[p] = good.map(|g| (g, since));
            all &= served;
            if let Some((node, epoch)) = good
                && !served
                && now - since > CONVERGES_WITHIN
            {
                let what = format!(
                    "{} is a master, named at {epoch} by a majority since {since}",
                    letter(node)
                );
                let found = &mut self.proxies[p].checker.found;
                found.get_or_insert(Violation {
                    property: Property::Converges,
                    at: now,
                    what,
                });
            }
        }
        let calm = now > self.schedule.calm + 2500;
        self.settled_since = if all && calm {
            self.settled_since.or(Some(now))
        } else {
            None
        };
        self.ended = self
            .settled_since
            .is_some_and(|since| now - since >= GOOD_FOR);
        if now >= self.next_repair {
            self.next_repair = now + 8000;
            self.repair();
        }
    }

    /// What this proxy has every reason to serve.
    fn named_for(&self, p: usize) -> Option<(usize, u64)> {
        let proxy = &self.proxies[p];
        let reached: Vec<(usize, u64)> = (0..self.cluster.sentinels.len())
            .filter(|s| proxy.reaches_sentinel(&self.cluster, *s))
            .filter_map(|s| self.cluster.sentinels[s].view)
            .collect();
        let count = self.cluster.sentinels.len();
        let named = *reached
            .iter()
            .find(|v| reached.iter().filter(|w| w == v).count() * 2 > count)?;
        let answers = |node: usize| {
            let good = |n: &crate::cluster::Node| match n.role() {
                RoleReport::Master => true,
                RoleReport::Refused(_) => self.schedule.setup.verify == Verify::Auto,
                _ => false,
            };
            proxy.reaches_node(&self.cluster, node) == Some(Health::Up)
                && self.cluster.nodes.get(node).is_some_and(good)
        };
        // With agree = "any" a higher epoch is believed of anybody whose node is a master.
        let any = self.schedule.setup.agree == Agree::Any;
        let rivalled = any
            && reached
                .iter()
                .any(|(n, e)| *e > named.1 && *n != named.0 && answers(*n));
        (self.net.now >= proxy.stands_until && answers(named.0) && !rivalled).then_some(named)
    }

    fn note(&mut self, text: &str) {
        for p in &mut self.proxies {
            p.trace.note(self.net.now, text);
        }
    }
}
