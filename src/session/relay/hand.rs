//! Whether a session could go on in another process now: all its bytes are with the kernel.

use super::super::House;
use super::{Flow, Relay};
use crate::session::Ending;
use crate::session::watch::Watch;
use crate::topology::publish::Leave;

impl<W: Watch> Relay<'_, W> {
    /// True when nothing of it is in this process alone, as the keys of TLS are. The fence is open, so that nothing is begun in a hold.
    #[cold]
    pub(in crate::session) fn can_be_handed(&self, house: &House) -> bool {
        let flows = self.up.is_free() && self.down == Flow::Open && self.reason.is_none();
        let withholds = self.withheld || self.retires || self.keeps || self.unproven.is_some();
        let holds = !self.carried.unsent.is_empty() || !self.carried.owed.is_empty();
        flows
            && !self.sealed
            && !withholds
            && !holds
            && house.ending() == Ending::No
            && house.gate().leave(self.pass) == Leave::Open
            && self.carried.watch.can_be_told()
    }
}
