//! Sentinels and data nodes as far as a proxy can tell: config-epochs, elections, the steps of a failover, hellos, and the
//! demotion of a master that nobody names. After `sentinel.c`: a configuration is adopted only from a strictly greater
//! epoch; a leader's address flips only when it has seen the promotion; `RESET` makes it forget that but not the epoch.

use switchmaster::topology::observation::{Hint, RoleReport};

/// A master that should be a replica is demoted after so long, milliseconds (four publish periods).
const CONVERT_AFTER: u64 = 8000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Up,
    Hung,
    Crashed,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) master: bool,
    pub(crate) since: u64,
    pub(crate) health: Health,
    pub(crate) loading: bool,
    pub(crate) hidden: bool,
}

impl Node {
    /// What it says to ROLE, when it says anything.
    pub(crate) fn role(&self) -> RoleReport {
        if self.hidden {
            RoleReport::Refused("NOAUTH".to_owned())
        } else if self.loading {
            RoleReport::Loading
        } else if self.master {
            RoleReport::Master
        } else {
            RoleReport::Replica
        }
    }

    pub(crate) fn is_serving_master(&self) -> bool {
        self.master && self.health == Health::Up && !self.loading
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Alive,
    Paused,
    Dead,
}

/// The steps of a failover, each some time after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Select,
    Promote,
    Confirm,
    End,
}

#[derive(Clone, Debug)]
struct Failover {
    serial: u64,
    epoch: u64,
    successor: usize,
    tries: u8,
}

#[derive(Clone, Debug)]
pub(crate) struct Sentinel {
    pub(crate) view: Option<(usize, u64)>,
    pub(crate) life: Life,
    pub(crate) alone: bool,
    pub(crate) rogue: bool,
    view_since: u64,
    before: usize,
    current_epoch: u64,
    failover: Option<Failover>,
    /// The replicas of its master are not known to it.
    forgot: bool,
}

/// A configuration as one Sentinel publishes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hello {
    pub(crate) view: (usize, u64),
    pub(crate) current_epoch: u64,
}

/// What a step of the cluster brings about outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Event(usize, Hint),
    /// The leader names the master and who is to succeed it.
    Announced(usize, usize, usize),
    /// This failover goes on with this step after so many milliseconds.
    Later(usize, u64, Step, u64),
    /// It publishes its configuration to all others at once.
    HelloAll(usize),
    /// Connections of clients to this node were killed.
    Killed(usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) sentinels: Vec<Sentinel>,
    serial: u64,
}

impl Cluster {
    pub(crate) fn new(nodes: usize, sentinels: usize, hidden: bool) -> Self {
        let node = |n| Node {
            master: n == 0,
            since: 0,
            health: Health::Up,
            loading: false,
            hidden,
        };
        let sentinel = Sentinel {
            view: Some((0, 1)),
            life: Life::Alive,
            alone: false,
            rogue: false,
            view_since: 0,
            before: 0,
            current_epoch: 1,
            failover: None,
            forgot: false,
        };
        Self {
            nodes: (0..nodes).map(node).collect(),
            sentinels: vec![sentinel; sentinels],
            serial: 0,
        }
    }

    /// Begins a failover; an elected one needs the votes of a majority.
    pub(crate) fn begin_failover(&mut self, leader: usize, elected: bool) -> Vec<Effect> {
        let l = &self.sentinels[leader];
        if l.life != Life::Alive || l.rogue || l.view.is_none() || l.failover.is_some() {
            return Vec::new();
        }
        let voters: Vec<usize> = (0..self.sentinels.len())
            .filter(|v| *v == leader || self.hear(leader, *v))
            .collect();
        let mut effects = Vec::new();
        let mut epoch = self.sentinels[leader].current_epoch + 1;
        if elected {
            effects.push(Effect::Event(leader, Hint::ObjectivelyDown));
            if voters.len() * 2 <= self.sentinels.len() {
                effects.push(Effect::Event(leader, Hint::Aborted));
                return effects;
            }
            // A vote is given once an epoch: the epoch of a leader is above all its voters have seen.
            let seen = voters.iter().map(|v| self.sentinels[*v].current_epoch);
            epoch = epoch.max(seen.max().unwrap_or(0) + 1);
            for voter in voters {
                self.sentinels[voter].current_epoch = epoch;
            }
        }
        self.serial += 1;
        let l = &mut self.sentinels[leader];
        l.current_epoch = epoch;
        l.failover = Some(Failover {
            serial: self.serial,
            epoch,
            successor: usize::MAX,
            tries: 0,
        });
        effects.push(Effect::Later(leader, self.serial, Step::Select, 70));
        effects
    }

    /// One step of a failover, unless it was given up meanwhile.
    pub(crate) fn step(
        &mut self,
        now: u64,
        leader: usize,
        serial: u64,
        step: Step,
        rng: &mut fastrand::Rng,
    ) -> Vec<Effect> {
        let Some(mut failover) = self.sentinels[leader]
            .failover
            .take()
            .filter(|f| f.serial == serial)
        else {
            return Vec::new();
        };
        match self.sentinels[leader].life {
            Life::Dead => return Vec::new(),
            Life::Paused => {
                self.sentinels[leader].failover = Some(failover);
                return vec![Effect::Later(leader, serial, step, 100)];
            }
            Life::Alive => {}
        }
        let mut effects = Vec::new();
        match step {
            Step::Select => {
                let old = self.sentinels[leader].view.map(|(n, _)| n);
                let good: Vec<usize> = (0..self.nodes.len())
                    .filter(|n| Some(*n) != old && self.nodes[*n].health == Health::Up)
                    .collect();
                if good.is_empty() || self.sentinels[leader].forgot {
                    return vec![Effect::Event(leader, Hint::Aborted)];
                }
                failover.successor = good[rng.usize(..good.len())];
                if let Some(old) = old {
                    effects.push(Effect::Announced(leader, old, failover.successor));
                }
                effects.push(Effect::Later(leader, serial, Step::Promote, 100));
            }
            Step::Promote => {
                if self.nodes[failover.successor].health == Health::Up {
                    self.set_master(now, failover.successor, true);
                    effects.push(Effect::Killed(failover.successor));
                }
                effects.push(Effect::Later(
                    leader,
                    serial,
                    Step::Confirm,
                    rng.u64(5..1000),
                ));
            }
            Step::Confirm => {
                let node = &self.nodes[failover.successor];
                if node.health != Health::Up || !node.master {
                    failover.tries += 1;
                    if failover.tries > 3 {
                        return vec![Effect::Event(leader, Hint::Aborted)];
                    }
                    effects.push(Effect::Later(leader, serial, Step::Confirm, 1000));
                } else {
                    let s = &mut self.sentinels[leader];
                    s.before = s.view.map_or(s.before, |(n, _)| n);
                    s.view = Some((failover.successor, failover.epoch));
                    s.view_since = now;
                    effects.push(Effect::Event(leader, Hint::PromotedSlave));
                    effects.push(Effect::Event(leader, Hint::ReconfSlaves));
                    effects.push(Effect::HelloAll(leader));
                    effects.push(Effect::Later(leader, serial, Step::End, rng.u64(50..4000)));
                }
            }
            Step::End => {
                return vec![
                    Effect::Event(leader, Hint::FailoverEnd),
                    Effect::Event(leader, Hint::SwitchMaster),
                ];
            }
        }
        self.sentinels[leader].failover = Some(failover);
        effects
    }

    /// True while what `from` publishes reaches `to`.
    pub(crate) fn hear(&self, from: usize, to: usize) -> bool {
        let (f, t) = (&self.sentinels[from], &self.sentinels[to]);
        let good = |s: &Sentinel| s.life == Life::Alive && !s.alone && !s.rogue;
        from != to && good(f) && good(t)
    }

    pub(crate) fn hello(&self, from: usize) -> Option<Hello> {
        let s = &self.sentinels[from];
        s.view.map(|view| Hello {
            view,
            current_epoch: s.current_epoch,
        })
    }

    /// A hello is taken in.
    pub(crate) fn take_hello(&mut self, now: u64, to: usize, hello: Hello) -> Vec<Effect> {
        let s = &mut self.sentinels[to];
        s.current_epoch = s.current_epoch.max(hello.current_epoch);
        let Some((node, epoch)) = s.view.filter(|(_, epoch)| *epoch < hello.view.1) else {
            return Vec::new();
        };
        debug_assert!(epoch < hello.view.1);
        s.view = Some(hello.view);
        if node == hello.view.0 {
            return Vec::new();
        }
        s.view_since = now;
        s.failover = None;
        s.forgot = false;
        vec![
            Effect::Event(to, Hint::ConfigUpdate),
            Effect::Event(to, Hint::SwitchMaster),
        ]
    }

    /// `SENTINEL RESET`.
    pub(crate) fn reset(&mut self, now: u64, sentinel: usize) -> Vec<Effect> {
        let s = &mut self.sentinels[sentinel];
        if s.life != Life::Alive || s.rogue {
            return Vec::new();
        }
        let flipped = s.failover.take().filter(|f| {
            s.view
                .is_some_and(|(node, epoch)| node == f.successor && epoch == f.epoch)
        });
        if flipped.is_some() {
            s.view = s.view.map(|(_, epoch)| (s.before, epoch));
            s.view_since = now;
            s.forgot = true;
        }
        vec![Effect::Event(sentinel, Hint::Reset)]
    }

    /// `SENTINEL REMOVE`.
    pub(crate) fn remove(&mut self, sentinel: usize) -> Vec<Effect> {
        let s = &mut self.sentinels[sentinel];
        if s.life != Life::Alive || s.rogue {
            return Vec::new();
        }
        s.view = None;
        s.failover = None;
        vec![Effect::Event(sentinel, Hint::Unmonitor)]
    }

    /// `SENTINEL MONITOR`: the config-epoch begins at 0.
    pub(crate) fn monitor(&mut self, now: u64, sentinel: usize, node: usize) -> Vec<Effect> {
        let s = &mut self.sentinels[sentinel];
        if s.view.is_some() {
            return Vec::new();
        }
        s.view = Some((node, 0));
        s.view_since = now;
        s.forgot = false;
        vec![Effect::Event(sentinel, Hint::Monitor)]
    }

    pub(crate) fn set_master(&mut self, now: u64, node: usize, master: bool) {
        let n = &mut self.nodes[node];
        if n.master != master {
            n.master = master;
            n.since = now;
        }
    }

    /// `+convert-to-slave`: each Sentinel demotes who it thinks is a replica and says it is a master.
    pub(crate) fn convert(&mut self, now: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for s in 0..self.sentinels.len() {
            let sentinel = &self.sentinels[s];
            let Some((master, _)) = sentinel.view else {
                continue;
            };
            let acts = sentinel.life == Life::Alive
                && !sentinel.rogue
                && !sentinel.forgot
                && sentinel.failover.is_none()
                && now >= sentinel.view_since + CONVERT_AFTER
                && self.nodes[master].is_serving_master();
            if !acts {
                continue;
            }
            for n in (0..self.nodes.len()).filter(|n| *n != master) {
                let node = &self.nodes[n];
                if node.is_serving_master() && now >= node.since + CONVERT_AFTER {
                    self.set_master(now, n, false);
                    effects.push(Effect::Killed(n));
                }
            }
        }
        effects
    }

    /// What a strict majority of all Sentinels says, when it says one thing.
    pub(crate) fn majority(&self) -> Option<(usize, u64)> {
        let views = self.sentinels.iter().filter_map(|s| s.view);
        views
            .clone()
            .find(|v| views.clone().filter(|w| w == v).count() * 2 > self.sentinels.len())
    }
}
