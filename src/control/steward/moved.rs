//! A master whose name leads elsewhere than before. Pure.

use std::net::SocketAddr;

use super::Steward;
use super::trial::Trial;
use crate::net::clock::Moment;

impl Steward {
    pub(super) fn has_moved(&self, at: Option<SocketAddr>) -> bool {
        at.is_some() && self.master.as_ref().map(|m| m.at) != at
    }

    /// The redial of the control connection found the master's name at another address, and a master there.
    ///
    /// One that was left, or that the Sentinels have not named since a standstill, is not resumed for that: it proves
    /// itself, wherever its name leads then, when they do.
    pub(super) fn follow_name(&mut self, now: Moment, at: Option<SocketAddr>) {
        let (Some(at), Some(master)) = (at, &self.master) else {
            return;
        };
        if self.holds.switching || self.holds.resumed {
            return;
        }
        let candidate = self
            .beliefs
            .candidate_again(now, &master.addr, master.epoch);
        self.trial = Some(Trial::new(now, candidate));
        self.adopt(now, at);
    }
}
