//! Reasons to withhold client bytes although a master is known. Pure.

use crate::topology::HoldCause;

/// Any of them holds.
#[derive(Debug, Default)]
pub(super) struct Holds {
    pub(super) switching: bool,
    pub(super) announced: bool,
    pub(super) says_replica: bool,
    pub(super) unreachable: bool,
    pub(super) objectively_down: bool,
    pub(super) unconfirmed: bool,
    pub(super) resumed: bool,
}

impl Holds {
    /// The one that is told: what must end first, first.
    pub(super) const fn cause(&self) -> Option<HoldCause> {
        if self.resumed {
            Some(HoldCause::Resumed)
        } else if self.switching {
            Some(HoldCause::Switching)
        } else if self.announced {
            Some(HoldCause::Announced)
        } else if self.says_replica {
            Some(HoldCause::MasterSaysReplica)
        } else if self.unreachable {
            Some(HoldCause::MasterUnreachable)
        } else if self.objectively_down {
            Some(HoldCause::ObjectivelyDown)
        } else if self.unconfirmed {
            Some(HoldCause::Unconfirmed)
        } else {
            None
        }
    }
}
