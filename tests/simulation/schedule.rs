//! What befalls one run: its set-up and its faults, drawn from a seed before it starts, so that a run that fails can be
//! repeated with fewer of them.

use std::fmt;

use switchmaster::topology::rules::{Agree, Confirm, HoldMax, Rules, Verify};

/// Most faults in one run.
const MOST_FAULTS: usize = 10;
/// An epoch no honest Sentinel reaches.
pub(crate) const ROGUE_EPOCH: u64 = 900;

/// The world before the first fault.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) sentinels: usize,
    pub(crate) nodes: usize,
    pub(crate) proxies: usize,
    /// The first Sentinel is known by two addresses.
    pub(crate) alias: bool,
    pub(crate) agree: Agree,
    pub(crate) verify: Verify,
    pub(crate) confirm: Confirm,
    /// Data nodes do not tell their role.
    pub(crate) hidden: bool,
    /// Longest way of a message, milliseconds.
    pub(crate) delay: u64,
    /// Longest way of a hello between Sentinels, milliseconds.
    pub(crate) gossip: u64,
    /// Events that get lost, of a hundred.
    pub(crate) lost: u64,
    /// The rogue Sentinel is still there at the end.
    pub(crate) rogue_stays: bool,
}

impl Setup {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            agree: self.agree,
            verify: self.verify,
            confirm: self.confirm,
            hold_max: HoldMax::Auto,
            ..Rules::default()
        }
    }
}

/// One fault. Indices wrap around what there is; durations are milliseconds, after which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `SENTINEL FAILOVER`: nobody is asked to vote.
    Planned { leader: usize },
    /// A quorum sees the master down and elects a leader.
    Elected { leader: usize },
    /// The Sentinel is killed, with any failover it leads.
    SentinelDies { sentinel: usize, lasts: u64 },
    /// It is stopped and comes back with the view it had.
    SentinelPauses { sentinel: usize, lasts: u64 },
    /// It does not hear the other Sentinels.
    SentinelAlone { sentinel: usize, lasts: u64 },
    /// The proxy does not reach it.
    ProxyLosesSentinel {
        proxy: usize,
        sentinel: usize,
        lasts: u64,
    },
    /// The proxy reaches no Sentinel.
    ProxyLosesAll { proxy: usize, lasts: u64 },
    /// The proxy does not reach a node; the Sentinels do.
    ProxyLosesNode {
        proxy: usize,
        node: usize,
        lasts: u64,
    },
    /// `SENTINEL RESET`; on a leader it forgets which replica was promoted.
    Reset { sentinel: usize },
    /// `SENTINEL REMOVE` and `MONITOR` on the Sentinels of the mask.
    Remonitor { mask: usize, node: usize, gap: u64 },
    /// The node is killed and comes back in the role it had.
    NodeCrashes { node: usize, lasts: u64 },
    /// It accepts and does not answer.
    NodeHangs { node: usize, lasts: u64 },
    /// It is restarted and reads its data.
    NodeLoads { node: usize, lasts: u64 },
    /// `FAILOVER` behind Sentinel's back: it changes roles with the master.
    RolesSwapped { node: usize },
    /// The proxy's process stands still.
    ProxyStops { proxy: usize, lasts: u64 },
    /// An operator pauses its entry. What it decides is to be as if nobody had.
    ProxyPaused { proxy: usize, lasts: u64 },
    /// A session of the proxy lost its upstream.
    Doubt { proxy: usize },
    /// This Sentinel is none of ours any longer: it names this node at an epoch of its own.
    Rogue {
        sentinel: usize,
        node: usize,
        epoch: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) setup: Setup,
    /// By time, milliseconds.
    pub(crate) faults: Vec<(u64, Fault)>,
    /// When no more faults come and all that is broken is mended.
    pub(crate) calm: u64,
}

impl Schedule {
    /// The same as [`Self::unpaused`] half of the time, else with pauses.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut schedule = Self::unpaused(seed);
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x7061_7573);
        let pauses = if rng.bool() { rng.u8(1..=3) } else { 0 };
        for _ in 0..pauses {
            let (proxy, lasts) = (rng.usize(..2), *pick(&mut rng, &[5, 100, 700, 6000]));
            let at = rng.u64(100..schedule.calm);
            schedule
                .faults
                .push((at, Fault::ProxyPaused { proxy, lasts }));
        }
        schedule.faults.sort_by_key(|(at, _)| *at);
        schedule
    }

    /// The same as [`Self::plain`] half of the time, else with `confirm = "role"` and more of what that has to stand.
    pub(crate) fn unpaused(seed: u64) -> Self {
        let mut schedule = Self::plain(seed);
        // Drawn apart, so that a seed plays what it played before there was a choice.
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x726f_6c65);
        schedule.setup.confirm = *pick(&mut rng, &[Confirm::Sentinel, Confirm::Role]);
        if schedule.setup.confirm == Confirm::Role && rng.bool() {
            let more = draw_lost_leader(&mut rng, schedule.calm);
            schedule.faults.extend(more);
            schedule.faults.sort_by_key(|(at, _)| *at);
        }
        schedule
    }

    /// With `confirm = "sentinel"`.
    pub(crate) fn plain(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let setup = Setup {
            sentinels: if rng.u8(..4) == 0 { 5 } else { 3 },
            nodes: rng.usize(2..=3),
            proxies: if rng.u8(..8) == 0 { 2 } else { 1 },
            alias: rng.u8(..8) == 0,
            agree: *pick(&mut rng, &[Agree::Any, Agree::Any, Agree::Majority]),
            verify: *pick(&mut rng, &[Verify::Auto, Verify::Auto, Verify::Role]),
            confirm: Confirm::Sentinel,
            hidden: false,
            delay: *pick(&mut rng, &[2, 20, 100, 450]),
            gossip: *pick(&mut rng, &[2, 100, 1500]),
            lost: *pick(&mut rng, &[0, 10, 100]),
            rogue_stays: rng.bool(),
        };
        let hidden = setup.verify == Verify::Auto && rng.u8(..8) == 0;
        let length = *pick(&mut rng, &[1500, 4000, 4000, 12000, 30000]);
        let count = rng.usize(1..=MOST_FAULTS);
        let mut faults: Vec<_> = (0..count)
            .map(|_| (rng.u64(500..500 + length), draw_fault(&mut rng)))
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        // One rogue is an accident; two are a majority of three.
        let mut rogues = 0;
        faults.retain(|(_, fault)| {
            rogues += usize::from(matches!(fault, Fault::Rogue { .. }));
            !matches!(fault, Fault::Rogue { .. }) || rogues == 1
        });
        Self {
            seed,
            setup: Setup { hidden, ..setup },
            faults,
            calm: 500 + length,
        }
    }
}

/// The leader of a planned failover is lost about when it promotes (170 ms after the command), and the successor
/// perhaps with it.
fn draw_lost_leader(rng: &mut fastrand::Rng, until: u64) -> Vec<(u64, Fault)> {
    let leader = rng.usize(..60);
    let at = rng.u64(500..until);
    let lost = at + rng.u64(120..600);
    let lasts = *pick(rng, &[700, 2500, 6000, 15000]);
    let sentinel = leader;
    let fault = match rng.u8(..3) {
        0 => Fault::SentinelDies { sentinel, lasts },
        1 => Fault::SentinelPauses { sentinel, lasts },
        _ => Fault::Reset { sentinel },
    };
    let mut faults = vec![(at, Fault::Planned { leader }), (lost, fault)];
    if rng.u8(..3) == 0 {
        let node = rng.usize(..60);
        faults.push((
            lost + rng.u64(..2000),
            match rng.u8(..3) {
                0 => Fault::NodeCrashes { node, lasts },
                1 => Fault::NodeHangs { node, lasts },
                _ => Fault::RolesSwapped { node },
            },
        ));
    }
    faults
}

fn draw_fault(rng: &mut fastrand::Rng) -> Fault {
    let lasts = |rng: &mut fastrand::Rng| *pick(rng, &[100, 700, 2500, 6000, 15000]);
    let (sentinel, node, proxy) = (rng.usize(..60), rng.usize(..60), rng.usize(..2));
    let leader = sentinel;
    match rng.u8(..29) {
        0..=3 => Fault::Planned { leader },
        4..=6 => Fault::Elected { leader },
        7 => Fault::SentinelDies {
            sentinel,
            lasts: lasts(rng),
        },
        8 | 9 => Fault::SentinelPauses {
            sentinel,
            lasts: lasts(rng),
        },
        10 | 11 => Fault::SentinelAlone {
            sentinel,
            lasts: lasts(rng),
        },
        12 | 13 => Fault::ProxyLosesSentinel {
            proxy,
            sentinel,
            lasts: lasts(rng),
        },
        14 => Fault::ProxyLosesAll {
            proxy,
            lasts: lasts(rng),
        },
        15 => Fault::ProxyLosesNode {
            proxy,
            node,
            lasts: lasts(rng),
        },
        16 | 17 => Fault::Reset { sentinel },
        18 | 19 => Fault::Remonitor {
            mask: rng.usize(1..32),
            node,
            gap: rng.u64(5..500),
        },
        20 | 21 => Fault::NodeCrashes {
            node,
            lasts: lasts(rng),
        },
        22 => Fault::NodeHangs {
            node,
            lasts: lasts(rng),
        },
        23 => Fault::NodeLoads {
            node,
            lasts: lasts(rng),
        },
        24 => Fault::RolesSwapped { node },
        25 | 26 => Fault::ProxyStops {
            proxy,
            lasts: *pick(rng, &[300, 499, 501, 600, 3500, 9000]),
        },
        27 => Fault::Doubt { proxy },
        _ => Fault::Rogue {
            sentinel,
            node,
            epoch: *pick(rng, &[0, 1, 2, ROGUE_EPOCH, ROGUE_EPOCH]),
        },
    }
}

fn pick<'a, T>(rng: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}
