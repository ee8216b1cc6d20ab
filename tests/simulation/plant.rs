//! Defects put in on purpose, between the steward and its world, to show that the checker sees them.

use switchmaster::topology::Epoch;
use switchmaster::topology::observation::RoleReport;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// Views below the floor look as if they were at it.
    ForgetsEpochs,
    /// Whatever a candidate says, it is a master.
    LyingProbe,
    /// Holds are not published.
    NoFence,
    /// Time that passes in a standstill does not count.
    Sleepwalks,
    /// Probes are never answered.
    DeafProbe,
    /// Every Sentinel seems to have announced that it monitors anew.
    HastyRelease,
    /// A master that says it is a replica is not heard.
    BelievesReplicas,
    /// A node that refuses to tell its role has told that it is a master.
    TakesRefusals,
    /// Answers seem to have been asked for when they come.
    TakesOldAnswers,
    /// A Sentinel that withdraws what it said is not heard.
    HearsNoWithdrawal,
    /// A successor seems to be promoted now and then, when it is not.
    LyingSuccessor,
    /// The way back from a provisional generation is not published.
    NeverGoesBack,
    /// Clients are served during a pause.
    LeakyPause,
    /// All Sentinels but the first seem to name the first node.
    HearsOneVoice,
}

impl Plant {
    pub(crate) fn epoch(self, epoch: u64, floor: Option<Epoch>) -> u64 {
        match floor {
            Some(floor) if self == Self::ForgetsEpochs => epoch.max(floor.0),
            _ => epoch,
        }
    }

    pub(crate) fn report(self, report: RoleReport) -> RoleReport {
        let refused = matches!(report, RoleReport::Refused(_));
        if self == Self::LyingProbe || (self == Self::TakesRefusals && refused) {
            RoleReport::Master
        } else {
            report
        }
    }

    pub(crate) fn successor(self, report: &RoleReport, step: u64) -> RoleReport {
        let lies = self == Self::LyingSuccessor && step.is_multiple_of(2);
        if lies && *report == RoleReport::Replica {
            RoleReport::Master
        } else {
            report.clone()
        }
    }

    pub(crate) const fn node(self, link: usize, node: usize) -> usize {
        if matches!(self, Self::HearsOneVoice) && link > 0 {
            0
        } else {
            node
        }
    }

    pub(crate) const fn asked_at(self, asked_at: u64, now: u64) -> u64 {
        if matches!(self, Self::TakesOldAnswers) {
            now
        } else {
            asked_at
        }
    }
}
