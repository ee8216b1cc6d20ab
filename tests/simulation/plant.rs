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
}

impl Plant {
    pub(crate) fn epoch(self, epoch: u64, floor: Option<Epoch>) -> u64 {
        match floor {
            Some(floor) if self == Self::ForgetsEpochs => epoch.max(floor.0),
            _ => epoch,
        }
    }

    pub(crate) fn report(self, report: RoleReport) -> RoleReport {
        if self == Self::LyingProbe {
            RoleReport::Master
        } else {
            report
        }
    }
}
