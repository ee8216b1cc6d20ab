//! A failover that its leader announced: whom it promotes, and how long that is waited for. Pure.
//!
//! In a planned failover the leader names the successor some 60 to 100 ms before it promotes it, and the old master takes
//! writes for ten seconds more. What it acknowledges after the promotion is lost, so clients are held from
//! the announcement on.

use std::net::SocketAddr;
use std::time::Duration;

use super::Steward;
use crate::control::action::{Action, Tale, Unfulfilled};
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::observation::{RoleReport, Succession};

/// After an announced failover that came to nothing, the next announcement is not waited for before this has passed: a
/// failover that fails again and again must not stall clients each time.
pub(super) const HOLD_MIN_INTERVAL: Duration = Duration::from_secs(30);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Announcement {
    /// The leader of the failover: nobody else can give it up.
    pub(super) by: SentinelAddr,
    pub(super) successor: NodeAddr,
    since: Moment,
    /// The successor's own last word.
    promoted: bool,
    /// It does not tell its role to us.
    hides: bool,
    /// It has said since the announcement that it was a replica. One that was a master all along was not promoted by this
    /// failover, and need not have the data of the master that it is to succeed.
    was_replica: bool,
    /// Answers to questions from before this do not tell so: the process stood still in between.
    witnessed_from: Moment,
}

impl Announcement {
    /// Heard now.
    pub(super) const fn new(now: Moment, by: SentinelAddr, successor: NodeAddr) -> Self {
        Self {
            by,
            successor,
            since: now,
            promoted: false,
            hides: false,
            was_replica: false,
            witnessed_from: now,
        }
    }

    /// The successor says that it is a master: what the old one replies from now on may be undone.
    pub(super) const fn is_promoted(&self) -> bool {
        self.promoted
    }

    /// The successor was asked.
    pub(super) fn successor_said(&mut self, asked: Moment, report: &RoleReport) {
        self.hides = matches!(report, RoleReport::Refused(_) | RoleReport::LoginFailed(_));
        match report {
            RoleReport::Master => self.promoted = true,
            RoleReport::Replica => {
                self.promoted = false;
                self.was_replica |= asked >= self.witnessed_from;
            }
            // Sentinel closes every connection to it while it promotes: that says nothing.
            _ => {}
        }
    }

    /// What happened meanwhile is not known, nor whether this failover is still under way.
    pub(super) const fn stood_still(&mut self, now: Moment) {
        self.was_replica = false;
        self.witnessed_from = now;
    }

    /// Why it is not waited for any longer, if so.
    pub(super) fn expired(
        &self,
        now: Moment,
        announced_hold_max: Duration,
        hold_max: Duration,
    ) -> Option<Unfulfilled> {
        let waited = now.since(self.since);
        if self.promoted {
            (waited >= hold_max).then_some(Unfulfilled::NotConfirmed)
        } else {
            let why = if self.hides {
                Unfulfilled::NotTold
            } else {
                Unfulfilled::NotPromoted
            };
            (waited >= announced_hold_max).then_some(why)
        }
    }
}

impl Steward {
    /// The announced successor was asked for its role at `asked`, and this is its answer; `at` is where it was reached.
    pub fn successor_said(
        &mut self,
        now: Moment,
        asked: Moment,
        addr: &NodeAddr,
        at: Option<SocketAddr>,
        report: &RoleReport,
    ) {
        let Some(announced) = self.announced.as_mut().filter(|a| a.successor == *addr) else {
            return;
        };
        announced.successor_said(asked, report);
        let witnessed = announced.was_replica && announced.promoted;
        if *report == RoleReport::Replica {
            self.actions.push_back(Action::Prove(asked));
        }
        if let Some(at) = at.filter(|_| *report == RoleReport::Master && witnessed)
            && self.rules.trusts_successors()
        {
            self.succeed(now, asked, addr, at);
        }
        self.settle_publication(now);
    }

    /// Holds from the announcement on: what the old master executes after the promotion is lost.
    pub(super) fn announce(&mut self, now: Moment, by: SentinelAddr, succession: Succession) {
        let Succession { master, successor } = succession;
        let ours = self
            .master
            .as_ref()
            .is_some_and(|m| *m.addr.host_port() == master.0);
        let known = self
            .announced
            .as_ref()
            .is_some_and(|a| a.successor == successor);
        let wanted = !self.rules.announced_hold_max.is_zero() && !self.hold_max().is_zero();
        if !ours || known || !wanted || now < self.announced_again {
            return;
        }
        self.actions.push_back(Action::Follow(successor.clone()));
        self.announced = Some(Announcement::new(now, by, successor));
        self.holds.announced = true;
    }

    /// Ends an announced hold whose time has come.
    pub(super) fn expire_announcement(&mut self, now: Moment) {
        let limits = (self.rules.announced_hold_max, self.hold_max());
        let over = self
            .announced
            .as_ref()
            .and_then(|a| a.expired(now, limits.0, limits.1));
        if let Some(why) = over {
            self.give_up_announcement(now, why);
        }
    }

    pub(super) fn give_up_announcement(&mut self, now: Moment, why: Unfulfilled) {
        if self.end_announcement() {
            self.announced_again = now + HOLD_MIN_INTERVAL;
            self.tell(Tale::AnnouncementOver { why });
        }
    }

    pub(super) fn end_announcement(&mut self) -> bool {
        self.holds.announced = false;
        let was = self.announced.take().is_some();
        if was {
            self.actions.push_back(Action::Unfollow);
        }
        was
    }
}
