//! Who said what, when: the one input of the facts flow. Pure.
//!
//! A Sentinel's event carries no config-epoch, so an event is only ever a [`Hint`] to ask; what counts is the [`View`]
//! that the answer gives.

use std::fmt;
use std::time::Duration;

use super::Epoch;
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::clock::Moment;

/// A Sentinel's identity for life (`SENTINEL MYID`): 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(String);

impl RunId {
    /// Length of every run id (`CONFIG_RUN_ID_SIZE` in the servers' sources).
    pub const LEN: usize = 40;

    /// Reads a run id; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == Self::LEN && text.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one Sentinel believes of one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it says the master is (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
    pub master: NodeAddr,
    /// Its config-epoch (`SENTINEL MASTER`).
    pub epoch: Epoch,
    /// Its `down-after-milliseconds`.
    pub down_after: Option<Duration>,
    /// How many Sentinels it wants to agree that the master is down.
    pub quorum: Option<u64>,
    /// A quorum, of which it is one, calls the master it names down (`o_down` among its flags).
    pub objectively_down: bool,
    /// For how long the master it names has owed it an answer: what it measures against its `down-after-milliseconds`.
    pub unanswered: Duration,
}

/// Why a Sentinel that answers has no view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoView {
    /// It does not monitor a master of that name.
    #[error("it knows no master of that name")]
    UnknownMaster,
    /// What it says cannot be an address or an epoch.
    #[error("its answer makes no sense: {0}")]
    Absurd(String),
}

/// What an event is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The Sentinel has adopted a new master.
    SwitchMaster,
    /// The leader saw the promotion; its address has flipped.
    PromotedSlave,
    /// A Sentinel took over a newer configuration.
    ConfigUpdate,
    /// The leader turns the replicas to the new master.
    ReconfSlaves,
    /// The failover is over.
    FailoverEnd,
    /// The master's state was forgotten.
    Reset,
    /// The master's run id changed: it was restarted.
    Reboot,
    /// The master began to be monitored.
    Monitor,
    /// The master is not monitored any longer.
    Unmonitor,
    /// A quorum sees the master down.
    ObjectivelyDown,
    /// The master is not seen down any longer.
    NoLongerDown,
    /// The leader has chosen, and is about to promote, a replica.
    SelectedSlave,
    /// The failover was given up.
    Aborted,
    /// Another Sentinel was discovered.
    NewSentinel,
}

impl Hint {
    /// Every hint once.
    pub const ALL: [Self; 14] = [
        Self::SwitchMaster,
        Self::PromotedSlave,
        Self::ConfigUpdate,
        Self::ReconfSlaves,
        Self::FailoverEnd,
        Self::Reset,
        Self::Reboot,
        Self::Monitor,
        Self::Unmonitor,
        Self::ObjectivelyDown,
        Self::NoLongerDown,
        Self::SelectedSlave,
        Self::Aborted,
        Self::NewSentinel,
    ];

    /// The event's name, for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SwitchMaster => "+switch-master",
            Self::PromotedSlave => "+promoted-slave",
            Self::ConfigUpdate => "+config-update-from",
            Self::ReconfSlaves => "+failover-state-reconf-slaves",
            Self::FailoverEnd => "+failover-end",
            Self::Reset => "+reset-master",
            Self::Reboot => "+reboot",
            Self::Monitor => "+monitor",
            Self::Unmonitor => "-monitor",
            Self::ObjectivelyDown => "+odown",
            Self::NoLongerDown => "-odown",
            Self::SelectedSlave => "+selected-slave",
            Self::Aborted => "-failover-abort",
            Self::NewSentinel => "+sentinel",
        }
    }

    /// True for events after which the master's address may be another.
    pub const fn asks(self) -> bool {
        !matches!(
            self,
            Self::SelectedSlave | Self::Aborted | Self::NewSentinel
        )
    }
}

/// A failover that is about to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession {
    /// The master that is left.
    pub master: NodeAddr,
    /// The replica that was chosen.
    pub successor: NodeAddr,
}

/// Why a Sentinel was asked; names the trigger of a switch in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The link was just made.
    OnConnect,
    /// The regular safety net.
    ByPoll,
    /// An event made us ask.
    OnHint(Hint),
    /// A session or the master's own answer made us ask.
    OnDoubt,
    /// No Sentinel was asked: an announced successor says itself that it was promoted.
    OnRole,
}

impl Asked {
    /// Every reason once.
    pub fn all() -> impl Iterator<Item = Self> {
        let others = [Self::OnConnect, Self::ByPoll, Self::OnDoubt, Self::OnRole];
        let hints = Hint::ALL.into_iter().filter(|hint| hint.asks());
        others.into_iter().chain(hints.map(Self::OnHint))
    }

    /// A word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OnConnect => "connect",
            Self::ByPoll => "poll",
            Self::OnHint(hint) => hint.as_str(),
            Self::OnDoubt => "doubt",
            Self::OnRole => "role",
        }
    }
}

/// Why a Sentinel cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked {
    /// A word for logs.
    pub reason: &'static str,
    /// For people, with what to do about it where that is known.
    pub words: String,
}

/// A replica, as a Sentinel lists it (SENTINEL REPLICAS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its address.
    pub addr: NodeAddr,
    /// The Sentinel cannot reach it.
    pub down: bool,
}

/// One thing learnt from or about one Sentinel, for one master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The Sentinel, as it is dialled.
    pub sentinel: SentinelAddr,
    /// What was learnt.
    pub said: Said,
}

/// See [`Observation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is followed from now on, and so counts as a voter; its run id if it is known.
    Followed(Option<RunId>),
    /// It is not followed any longer.
    Forgotten,
    /// A link was made; its run id where it tells it.
    Up(Option<RunId>),
    /// The link ended or could not be made.
    Down(Unasked),
    /// It answered.
    View {
        /// The answer.
        view: Result<View, NoView>,
        /// When the question was sent.
        asked_at: Moment,
        /// What made us ask.
        asked: Asked,
        /// When that happened.
        since: Moment,
    },
    /// It listed the replicas it knows.
    Replicas {
        /// All of them.
        listed: Vec<Listed>,
        /// When the question was sent.
        asked_at: Moment,
    },
    /// It published an event.
    Hint(Hint),
    /// It leads a failover and is about to promote a replica.
    Announced(Succession),
}

/// A replica, as its master tells of it (ROLE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSeen {
    /// Its address.
    pub addr: NodeAddr,
    /// Bytes of the replication stream that it has not acknowledged.
    pub lag: u64,
}

/// What a data node's answer to ROLE tells beyond the role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleDetail {
    /// A master that has written so many bytes of replication stream, and these replicas, which are connected to it.
    Master(u64, Vec<NodeAddr>),
    /// A replica of this node, which has so many of them; `None` while it is not connected to it.
    ReplicaOf(NodeAddr, Option<u64>),
}

/// What a data node says of itself (ROLE).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleReport {
    /// A master.
    Master,
    /// A replica.
    Replica,
    /// A Sentinel, or something else that is no data node.
    NotADataNode,
    /// It is there, and reads its data first.
    Loading,
    /// It is there, and tells its role only to those who log in or are permitted.
    Refused(String),
    /// It is there, and refuses the login that was configured.
    LoginFailed(String),
    /// It could not be asked.
    Failed(String),
}

impl RoleReport {
    /// The words of all that are no master's.
    pub const FAILURES: [&'static str; 6] = [
        "replica",
        "not_a_data_node",
        "loading",
        "refused",
        "login_failed",
        "failed",
    ];

    /// A word for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
            Self::NotADataNode => "not_a_data_node",
            Self::Loading => "loading",
            Self::Refused(_) => "refused",
            Self::LoginFailed(_) => "login_failed",
            Self::Failed(_) => "failed",
        }
    }
}

impl fmt::Display for RoleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("it says it is a master"),
            Self::Replica => f.write_str("it says it is a replica"),
            Self::NotADataNode => f.write_str("it is no Redis or Valkey data node"),
            Self::Loading => f.write_str("it is loading its data"),
            Self::Refused(why) => write!(f, "it does not tell its role: {why}"),
            Self::LoginFailed(why) => write!(f, "it refuses the configured login: {why}"),
            Self::Failed(why) => write!(f, "it cannot be asked: {why}"),
        }
    }
}
