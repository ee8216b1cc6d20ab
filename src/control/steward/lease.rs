//! Stricter than the default: the master in force counts only as long as the Sentinels vouch for it. Pure.
//!
//! `when_sentinels_are_lost = "stop"` is a lease: a side that is cut off with the old master stops writing to it before
//! the other side can have called it down and promoted another. The lease is also the end of the fence word's
//! validity, so it ends by the clock and needs no turn for it.
//!
//! It is counted from the master's last sign of life to the Sentinels that vouch for it, so it does not matter which of
//! the two, the master or this process, they lose first. That needs a quorum that is a majority: with a smaller
//! one those who call the master down need not be among those who vouch for it.

use super::provisional::Provisional;
use super::{Steward, VALIDITY};
use crate::net::clock::Moment;
use crate::topology::observation::Said;
use crate::topology::rules::SentinelsLost;

impl Steward {
    /// How long what is published counts, after a turn at `turned`.
    pub fn valid_until(&self, turned: Moment) -> Moment {
        let validity = turned + VALIDITY;
        let provisional = self.provisional.as_ref().map(Provisional::until);
        let ends = [self.lease, provisional].into_iter().flatten();
        ends.fold(validity, Moment::min)
    }

    /// A Sentinel was heard, or heard of. When others vote from now on, what those of before have vouched for is true to its
    /// end: it does not depend on who is asked next. That is the time in which a majority of the others has to answer. It is
    /// over when one of them says that the master is another.
    pub(super) fn bequeath_lease(&mut self, now: Moment, said: &Said) {
        match said {
            Said::Followed(_) | Said::Forgotten => {
                self.bequest = self.lease.filter(|end| *end > now);
            }
            Said::View { view: Ok(view), .. } => {
                let master = self.master.as_ref().map(|m| m.addr.host_port());
                if master != Some(&view.master.0) {
                    self.bequest = None;
                }
            }
            _ => {}
        }
    }

    /// Looks at what the Sentinels vouch for.
    pub(super) fn renew_lease(&mut self, now: Moment) {
        let Some(master) = self.master.as_ref().map(|m| m.addr.clone()) else {
            return;
        };
        if self.rules.when_sentinels_are_lost == SentinelsLost::Stop {
            let vouched = self.beliefs.vouched_until(&master).unwrap_or_default();
            if vouched > now {
                self.bequest = None;
            }
            let until = vouched.max(self.bequest.unwrap_or_default());
            let runs = until > now;
            if runs || now >= self.lease_from {
                self.lease_from = self.lease_from.min(now);
                self.lease = Some(until);
                self.holds.unconfirmed = !runs;
            }
        }
        if self.rules.fence_at_odown
            && let Some(down) = self.beliefs.is_objectively_down(now, &master)
        {
            // Without an answer the last word stands.
            self.holds.objectively_down = down;
        }
    }
}
