//! Rules that the operator has changed while they were in force. Pure.
//!
//! The master in force stays, and nobody is held for the change itself.

use super::Steward;
use crate::net::addr::HostPort;
use crate::net::clock::Moment;
use crate::topology::decide::FRESH;
use crate::topology::rules::{Rules, SentinelsLost};

impl Steward {
    /// From now on these are the rules, and these the addresses of our listeners.
    pub fn rules_changed(&mut self, now: Moment, rules: Rules, own: Vec<HostPort>) {
        let stops = |rules: &Rules| rules.when_sentinels_are_lost == SentinelsLost::Stop;
        if stops(&rules) && !stops(&self.rules) {
            // The Sentinels were asked at leisure until now: their first answers at the new pace count, not those of before.
            self.lease_from = now + FRESH;
        }
        if !stops(&rules) {
            self.lease = None;
            self.holds.unconfirmed = false;
        }
        if !rules.fence_at_odown {
            self.holds.objectively_down = false;
        }
        self.rules = rules;
        self.beliefs.change(rules.agree, own);
        self.reconsider(now);
    }
}
