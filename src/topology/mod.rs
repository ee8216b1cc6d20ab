//! What we believe of the world, and since when. The meeting point of the two flows.
//!
//! ```text
//! sentinel --Observation--> steward (decide, pure) --State--> publish --> sessions read it
//!                                                            Reader::doubt() ("ask again") <--
//! ```

pub mod board;
pub mod decide;
pub mod observation;
mod poll;
pub mod publish;
pub mod replicas;
pub mod rules;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::addr::{HostPort, NodeAddr};
use crate::net::clock::Moment;

/// Sentinel's config-epoch: which failover made this master. Adopted by Sentinels only when it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One period with one verified master; counts up by one at each swap. 0 is the time before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The address of a master that was decided on. Only `topology` makes one, so nothing is dialled
/// for clients that was not decided.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MasterAddr(HostPort);

impl MasterAddr {
    /// Called where a decision is made, nowhere else.
    pub(in crate::topology) fn decided(addr: NodeAddr) -> Self {
        Self(addr.0)
    }

    /// Where to dial.
    pub const fn host_port(&self) -> &HostPort {
        &self.0
    }

    /// For tests of rooms that are handed a decision.
    #[cfg(test)]
    pub(crate) fn for_test(addr: SocketAddr) -> Self {
        Self(HostPort::from(addr))
    }
}

impl fmt::Display for MasterAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why clients wait although a master is known (or was).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldCause {
    /// The leader of a failover has named the successor and is about to promote it.
    Announced,
    /// Sentinel named another master, which is being verified; the old one is fenced.
    Switching,
    /// The master's control connection is gone and a redial failed: it crashed or is unreachable.
    MasterUnreachable,
    /// The master itself says it is a replica.
    MasterSaysReplica,
    /// A quorum of Sentinels calls the master down (`fence_at_odown`).
    ObjectivelyDown,
    /// No majority of the Sentinels has confirmed the master for the length of a lease
    /// (`when_sentinels_are_lost = "stop"`).
    Unconfirmed,
    /// This process stood still for a while; what it believes must be confirmed first.
    Resumed,
    /// No replica may be read from (`role = "replica"`).
    NoReplica,
    /// An operator asked for it. The master is as good as before: sessions with something under way go on with it, and give
    /// it up when they can; all others wait.
    Paused,
}

impl HoldCause {
    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Switching => "switching",
            Self::MasterUnreachable => "master_unreachable",
            Self::MasterSaysReplica => "master_says_replica",
            Self::ObjectivelyDown => "objectively_down",
            Self::Unconfirmed => "unconfirmed",
            Self::Resumed => "resumed",
            Self::NoReplica => "no_replica",
            Self::Paused => "paused",
        }
    }

    /// For people.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Announced => "a failover is announced: a replica is about to be promoted",
            Self::Switching => "the Sentinels name another master, which is being verified",
            Self::MasterUnreachable => "the master cannot be reached",
            Self::MasterSaysReplica => "the master says it is a replica",
            Self::ObjectivelyDown => "a quorum of the Sentinels calls the master down",
            Self::Unconfirmed => {
                "no majority of the Sentinels confirms the master, and failover.when_sentinels_are_lost is \"stop\""
            }
            Self::Resumed => "this process stood still, and the master must be confirmed",
            Self::NoReplica => "no replica may be read from",
            Self::Paused => "paused by an operator",
        }
    }
}

impl fmt::Display for HoldCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// May client bytes flow? A level, not an event: whoever looks late sees the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No master was ever verified.
    NoMaster,
    /// A master is known, but no byte may be written to it now.
    Held {
        /// Why.
        cause: HoldCause,
        /// Since when.
        since: Moment,
        /// The successor already says that it is a master: no reply of this generation may be relayed any longer,
        /// because the write behind it may be undone, and handing it over would call it acknowledged.
        sealed: bool,
    },
    /// The master is verified and open.
    Serving,
}

/// What of a master's state concerns those who read from its replicas: nothing that is a matter of the master alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForReaders {
    /// They wait, too, whatever else holds the master's own clients: why, and since when.
    pub held: Option<(HoldCause, Moment)>,
    /// The replica that an announced failover is about to promote: it is not read from any more.
    pub successor: Option<NodeAddr>,
}

/// Everything the data plane knows, swapped as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Counts swaps.
    pub generation: Generation,
    /// May bytes flow.
    pub phase: Phase,
    /// The master of this generation; `None` exactly in generation 0.
    pub master: Option<MasterAddr>,
    /// The socket address that proved to be the master; a name may resolve to others, which did not. `None` as
    /// long as there is no master.
    pub verified_at: Option<SocketAddr>,
    /// How long a client waits for a verified master at the most, as of now (`hold_max`, resolved).
    pub hold_max: Duration,
    /// See [`ForReaders`].
    pub readers: ForReaders,
}

impl State {
    /// The state before anything is known.
    pub const fn initial(hold_max: Duration) -> Self {
        Self {
            generation: Generation(0),
            phase: Phase::NoMaster,
            master: None,
            verified_at: None,
            hold_max,
            readers: ForReaders {
                held: None,
                successor: None,
            },
        }
    }

    /// Clients are held because an operator wants it, and for nothing else.
    pub const fn is_paused(&self) -> bool {
        matches!(
            self.phase,
            Phase::Held {
                cause: HoldCause::Paused,
                ..
            }
        )
    }

    /// The fence word of this state, see [`publish::Gate`].
    pub(crate) const fn word(&self) -> u64 {
        let mode = match self.phase {
            Phase::Serving => publish::OPEN,
            Phase::Held { sealed: true, .. } => publish::SEALED,
            // Who was named by a Sentinel has been promoted; and while this process stood still somebody may have been.
            Phase::Held {
                cause: HoldCause::Switching | HoldCause::Resumed,
                ..
            } => publish::SEALED,
            Phase::Held {
                cause: HoldCause::Announced,
                ..
            } => publish::DRAINING,
            // Nothing is wrong with this master: who still has something under way may end it there.
            Phase::Held {
                cause: HoldCause::Paused,
                ..
            } => publish::OPEN,
            Phase::Held { .. } | Phase::NoMaster => publish::HELD,
        };
        (self.generation.0 << publish::MODE_BITS) | mode
    }
}
