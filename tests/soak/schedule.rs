//! Which faults, in which order, with which particulars: a function of the seed alone.
//!
//! How long a fault takes to heal is the servers' affair, so a run of so many minutes plays more or less of
//! the schedule; what it plays is always its beginning.

use std::fmt;
use std::time::Duration;

/// Kinds of faults: each is dealt once before any is dealt again.
const KINDS: usize = 15;
/// One in so many failovers has a second fault at its side.
const WITH_SIDE: u32 = 3;
/// One in so many failovers is followed before the old master was demoted.
const RUSHED: u32 = 4;
/// Sentinels, and so links to them.
pub(crate) const SENTINELS: usize = 3;
/// Replicas.
pub(crate) const REPLICAS: usize = 2;

/// What is done. An index of a replica counts the nodes that are not the master at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `SENTINEL FAILOVER`
    Planned { sentinel: usize },
    /// SIGKILL; it comes back as a replica.
    KillMaster,
    /// SIGSTOP, too short for Sentinel to notice or long enough for a failover; SIGCONT.
    FreezeMaster { lasting: Duration },
    /// SIGKILL; it comes back.
    KillReplica { replica: usize, lasting: Duration },
    /// SIGSTOP and SIGCONT.
    FreezeReplica { replica: usize, lasting: Duration },
    /// SIGKILL; it comes back.
    KillSentinel { sentinel: usize, lasting: Duration },
    /// SIGSTOP and SIGCONT.
    FreezeSentinel { sentinel: usize, lasting: Duration },
    /// SIGSTOP and SIGCONT of the proxy.
    FreezeProxy { lasting: Duration },
    /// The same, with a planned failover in its sleep.
    FreezeProxyAcrossFailover { sentinel: usize, lasting: Duration },
    /// SIGKILL, and another one on the same port.
    KillProxy { lasting: Duration },
    /// SIGTERM, and another one on the same port.
    TermProxy,
    /// `SENTINEL RESET` at one.
    Reset { sentinel: usize },
    /// A planned failover, and `SENTINEL RESET` at its leader as soon as it names the new master.
    ResetAfterPlanned { sentinel: usize },
    /// `SENTINEL REMOVE` and `MONITOR` at all, of a replica promoted by hand or of the same master.
    Remonitor { replica: Option<usize> },
    /// Nothing passes on the links to these Sentinels (a bit each).
    BlackHole { links: u8, lasting: Duration },
    /// The master and a Sentinel frozen together: the minority side of a partition.
    Partition { sentinel: usize, lasting: Duration },
}

/// What goes on beside a failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// One Sentinel is frozen.
    FreezeSentinel(usize),
    /// Nothing passes on the links to these Sentinels (a bit each).
    BlackHole(u8),
    /// The proxy is frozen so long, from the fault's beginning.
    FreezeProxy(Duration),
}

/// One turn of the nemesis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Calm before it.
    pub(crate) calm: Duration,
    /// The fault.
    pub(crate) fault: Fault,
    /// Another one beside it.
    pub(crate) side: Option<Side>,
    /// The next step does not wait for the old master's demotion.
    pub(crate) rushed: bool,
}

/// The endless schedule of a seed.
#[derive(Debug)]
pub(crate) struct Schedule {
    random: fastrand::Rng,
    deck: Vec<usize>,
}

impl Schedule {
    /// The schedule of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            deck: Vec::new(),
        }
    }

    fn fault(&mut self, kind: usize) -> Fault {
        let random = &mut self.random;
        let sentinel = random.usize(..SENTINELS);
        let replica = random.usize(..REPLICAS);
        let mut lasting = |from: u64, to: u64| Duration::from_millis(random.u64(from..=to));
        match kind {
            0 => Fault::Planned { sentinel },
            1 => Fault::KillMaster,
            2 => Fault::FreezeMaster {
                lasting: lasting(100, 1000),
            },
            3 => Fault::FreezeMaster {
                lasting: lasting(4000, 9000),
            },
            4 => Fault::KillReplica {
                replica,
                lasting: lasting(200, 3000),
            },
            5 => Fault::FreezeReplica {
                replica,
                lasting: lasting(200, 5000),
            },
            6 => Fault::KillSentinel {
                sentinel,
                lasting: lasting(200, 5000),
            },
            7 => Fault::FreezeSentinel {
                sentinel,
                lasting: lasting(300, 2500),
            },
            8 => Fault::FreezeProxy {
                lasting: lasting(50, 4000),
            },
            9 => Fault::FreezeProxyAcrossFailover {
                sentinel,
                lasting: lasting(1000, 8000),
            },
            10 => {
                let lasting = lasting(0, 2000);
                match random.bool() {
                    true => Fault::KillProxy { lasting },
                    false => Fault::TermProxy,
                }
            }
            11 => Fault::Reset { sentinel },
            12 => match random.bool() {
                true => Fault::ResetAfterPlanned { sentinel },
                false => Fault::Planned { sentinel },
            },
            13 => Fault::Remonitor {
                replica: random.bool().then_some(replica),
            },
            14 if random.bool() => Fault::Partition {
                sentinel,
                lasting: Duration::from_millis(random.u64(4000..=9000)),
            },
            _ => Fault::BlackHole {
                links: random.u8(1..8),
                lasting: Duration::from_millis(random.u64(500..=6000)),
            },
        }
    }

    fn side(&mut self) -> Side {
        let random = &mut self.random;
        match random.usize(..3) {
            0 => Side::FreezeSentinel(random.usize(..SENTINELS)),
            1 => Side::BlackHole(random.u8(1..8)),
            _ => Side::FreezeProxy(Duration::from_millis(random.u64(50..=3000))),
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.deck.is_empty() {
            self.deck = (0..KINDS).collect();
            self.random.shuffle(&mut self.deck);
        }
        let kind = self.deck.pop()?;
        let calm = Duration::from_millis(self.random.u64(300..=2500));
        let fault = self.fault(kind);
        let fails_over = matches!(
            fault,
            Fault::Planned { .. } | Fault::KillMaster | Fault::FreezeMaster { .. }
        );
        let side = (fails_over && self.random.u32(..WITH_SIDE) == 0).then(|| self.side());
        let planned = matches!(fault, Fault::Planned { .. });
        let rushed = planned && self.random.u32(..RUSHED) == 0;
        Some(Step {
            calm,
            fault,
            side,
            rushed,
        })
    }
}

impl Fault {
    /// Its name, for tables.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Planned { .. } => "planned failover",
            Self::KillMaster => "kill master",
            Self::FreezeMaster { .. } => "freeze master",
            Self::KillReplica { .. } => "kill replica",
            Self::FreezeReplica { .. } => "freeze replica",
            Self::KillSentinel { .. } => "kill Sentinel",
            Self::FreezeSentinel { .. } => "freeze Sentinel",
            Self::FreezeProxy { .. } => "freeze proxy",
            Self::FreezeProxyAcrossFailover { .. } => "freeze proxy + planned",
            Self::KillProxy { .. } => "kill proxy",
            Self::TermProxy => "restart proxy",
            Self::Reset { .. } => "RESET",
            Self::ResetAfterPlanned { .. } => "planned + RESET",
            Self::Remonitor { .. } => "REMOVE + MONITOR",
            Self::BlackHole { .. } => "black-holed links",
            Self::Partition { .. } => "partition",
        }
    }

    /// Whether it stops or moves a data node, so that replication may lose what was acknowledged.
    pub(crate) fn disturbs_replication(&self) -> bool {
        matches!(
            self,
            Self::KillMaster
                | Self::FreezeMaster { .. }
                | Self::KillReplica { .. }
                | Self::FreezeReplica { .. }
                | Self::Remonitor { .. }
                | Self::Partition { .. }
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)?;
        if let Some(side) = self.side {
            write!(f, " beside {side:?}")?;
        }
        if self.rushed {
            f.write_str(", rushed")?;
        }
        Ok(())
    }
}
