//! What the steward asks for, and what it has people told. Data only.

use std::time::Duration;

use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::decide::{Candidate, Census};
use crate::topology::observation::{Hint, RoleReport, Unasked};
use crate::topology::{Epoch, Generation, HoldCause, MasterAddr, State};

/// What the shell is to do. In order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask every Sentinel now.
    AskAll,
    /// Ask the master for its role now, over the control connection.
    CheckMaster,
    /// Dial this address and ask for its role; drop any earlier dial. Answer with [`Steward::probed`](super::steward::Steward::probed).
    Probe(MasterAddr),
    /// Drop the dial under way.
    StopProbe,
    /// Ask this announced successor for its role again and again; drop any earlier one. Answer with
    /// [`Steward::successor_said`](super::steward::Steward::successor_said).
    Follow(NodeAddr),
    /// The announced successor, asked at this moment, still was a replica: what was replied before is true.
    Prove(Moment),
    /// Ask the announced successor no longer.
    Unfollow,
    /// Publish this.
    Publish(State),
    /// Keep the control connection to this master from now on.
    Watch(MasterAddr),
    /// Have every session give up its upstream at its next quiet moment.
    Renew,
    /// Tell people.
    Tell(Tale),
}

/// What people are told, one log line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tale {
    /// The first verified master.
    Ready(Swap),
    /// Another master. To be told when every worker has let go of the old one.
    Switched(Swap),
    /// An event of a failover.
    FailoverSeen {
        /// The Sentinel that published it.
        sentinel: String,
        /// The event.
        hint: Hint,
    },
    /// A new address is being verified.
    Candidate(Candidate),
    /// It did not pass; told once for each reason.
    RoleRejected {
        /// The address.
        addr: MasterAddr,
        /// What it said.
        report: RoleReport,
    },
    /// It passed although it hides its role: `verify = "auto"`.
    Unverified(MasterAddr, String),
    /// A Sentinel names the master that was used on its own word (`confirm = "role"`).
    Confirmed {
        /// At which config-epoch.
        epoch: Epoch,
        /// How long it was in force without.
        after: Duration,
    },
    /// None did in time: it is left again.
    Undone {
        /// Why.
        why: Undone,
        /// How long it was in force.
        after: Duration,
    },
    /// An announced failover did not happen: clients go on with the same master.
    AnnouncementOver {
        /// Why.
        why: Unfulfilled,
    },
    /// Clients wait.
    HoldBegin(HoldCause),
    /// They go on.
    HoldEnd {
        /// Why they waited.
        cause: HoldCause,
        /// For how long.
        lasted: Duration,
        /// With another master, or the same.
        switched: bool,
    },
    /// An operator has paused this entry, or given a pause another end.
    Paused {
        /// Who.
        by: String,
        /// When it ends by itself, from now.
        limit: Option<Duration>,
    },
    /// The pause is over.
    Resumed {
        /// Who ended it; nobody when its time was up.
        by: Option<String>,
        /// How long it was.
        lasted: Duration,
    },
    /// An operator wants every session to take another upstream.
    Reconnecting {
        /// Who.
        by: String,
    },
    /// No Sentinel has answered for a while; the last verified master stays.
    SentinelsLost(Census),
    /// At least one answers again.
    SentinelsBack,
    /// The Sentinels name several masters at one epoch.
    Ambiguous(bool),
    /// A lone Sentinel's candidate cannot be verified and is not counted.
    SetAside(MasterAddr),
    /// This process stood still so long.
    StoodStill(Duration),
    /// There is no verified master, and why.
    Waiting {
        /// What the Sentinels say.
        census: Census,
        /// Some of those that say nothing, and why.
        silent: Vec<(SentinelAddr, Option<Unasked>)>,
        /// Whom they name, and what that one last said instead of being a master.
        rejected: Option<(MasterAddr, RoleReport)>,
        /// A master is known, and clients are held for this.
        held: Option<HoldCause>,
    },
    /// A Sentinel names one of our own listeners as the master.
    NamesUs {
        /// Who.
        sentinel: String,
        /// Which.
        addr: String,
    },
}

/// Why an announced failover is no longer waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfulfilled {
    /// Sentinel gave it up.
    Aborted,
    /// The successor was not promoted within `announced_hold_max`.
    NotPromoted,
    /// The successor has not told its role: the login of `[proxy.probe]` is missing there, or refused.
    NotTold,
    /// The successor says it is a master, and no Sentinel confirmed it within `hold_max`.
    NotConfirmed,
}

/// Why a master that was used on its own word is left again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undone {
    /// No Sentinel has named it in time.
    NotConfirmed,
    /// Sentinel gave the failover up.
    Aborted,
    /// It says that it is a replica again.
    Demoted,
    /// Its name leads to another node.
    Moved,
    /// The Sentinels have gone on with another, or name the one before at a newer config-epoch.
    Superseded,
}

impl Undone {
    /// Every reason once.
    pub const ALL: [Self; 5] = [
        Self::NotConfirmed,
        Self::Aborted,
        Self::Demoted,
        Self::Moved,
        Self::Superseded,
    ];

    /// A word for logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotConfirmed => "not_confirmed",
            Self::Aborted => "aborted",
            Self::Demoted => "demoted",
            Self::Moved => "moved",
            Self::Superseded => "superseded",
        }
    }

    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::NotConfirmed => "no Sentinel has named it in time",
            Self::Aborted => "Sentinel gave the failover up",
            Self::Demoted => "it says that it is a replica again",
            Self::Moved => "its name leads to another node",
            Self::Superseded => "the Sentinels name another",
        }
    }
}

impl Tale {
    /// The name of its line, `event=`. Public interface.
    pub const fn event(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Switched(_) => "switched",
            Self::FailoverSeen { .. } => "failover_seen",
            Self::Candidate(_) => "master_candidate",
            Self::RoleRejected { .. } => "role_rejected",
            Self::Unverified(..) => "master_unverified",
            Self::Confirmed { .. } => "provisional_confirmed",
            Self::Undone { .. } => "provisional_undone",
            Self::AnnouncementOver { .. } => "announcement_over",
            Self::HoldBegin(_) => "hold_begin",
            Self::HoldEnd { .. } => "hold_end",
            Self::NamesUs { .. } => "sentinel_names_us",
            Self::SentinelsLost(_) => "sentinels_lost",
            Self::SentinelsBack => "sentinels_back",
            Self::Ambiguous(true) => "ambiguous",
            Self::Ambiguous(false) => "ambiguous_end",
            Self::SetAside(_) => "candidate_set_aside",
            Self::StoodStill(_) => "stood_still",
            Self::Waiting { .. } => "waiting",
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Reconnecting { .. } => "reconnecting",
        }
    }
}

/// One swap, with what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The master before.
    pub from: Option<MasterAddr>,
    /// The master now.
    pub to: MasterAddr,
    /// The generation now.
    pub generation: Generation,
    /// Its config-epoch.
    pub epoch: Epoch,
    /// What set it off.
    pub trigger: &'static str,
    /// From that to the decision (and the fence).
    pub detect: Duration,
    /// From the decision to the verified role.
    pub verify: Duration,
    /// No Sentinel names the new master yet (`confirm = "role"`).
    pub provisional: bool,
}
