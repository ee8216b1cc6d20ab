//! What nodes say, and what is made of it.

use std::time::Duration;

use super::link::{Heard, NodeLink, Said, What};
use super::names::Found;
use super::ourselves::leads_to_us;
use super::{Task, tales};
use crate::net::addr::{HostPort, NodeAddr};
use crate::net::clock::{Moment, now};
use crate::topology::observation::{RoleDetail, RoleReport};
use crate::topology::replicas::{Attached, Report};

/// Sentinels are asked again so often while they call a replica down that proves itself.
const DISPUTE_EVERY: Duration = Duration::from_secs(1);

impl Task {
    pub(super) fn hear(&mut self, Heard { of, what }: Heard) {
        if let Some((head, link)) = &self.head
            && link.number == of
        {
            match what {
                What::Said(Said {
                    when,
                    at,
                    detail: Some(RoleDetail::Master(offset, _)),
                    named,
                    ..
                }) if at == head.at => {
                    let attached = self.attached(named);
                    if self.roll.written(when, offset, &attached) {
                        self.links.values().for_each(NodeLink::check);
                    }
                }
                What::Said(Said {
                    report: RoleReport::Failed(_),
                    ..
                }) => {}
                What::Met(_) => {}
                What::Said(_) | What::Lost | What::Gone => self.roll.parted(),
            }
            return;
        }
        if let What::Met(taken) = what {
            self.met(of, taken);
            return;
        }
        let Some(addr) = self
            .links
            .iter()
            .find(|(_, link)| link.number == of)
            .map(|(addr, _)| addr.clone())
        else {
            return;
        };
        match what {
            What::Met(_) => {}
            What::Lost => self.roll.lost(&addr),
            What::Gone => self.roll.gone(&addr),
            What::Said(said) => {
                let report = if leads_to_us(said.at, &self.own) {
                    if self.ours.insert(addr.clone()) {
                        tales::is_us(&self.entry.name, &mut self.often, &addr);
                    }
                    Report::FollowsAnother
                } else {
                    self.ours.remove(&addr);
                    self.judge(&said)
                };
                self.roll.said(&addr, said.when, said.at, report);
            }
        }
    }

    fn judge(&mut self, said: &Said) -> Report {
        match &said.report {
            RoleReport::Master => Report::Master,
            RoleReport::Loading => Report::Loading,
            RoleReport::Refused(_) | RoleReport::LoginFailed(_) | RoleReport::NotADataNode => {
                Report::Refused
            }
            RoleReport::Failed(_) => Report::Nothing,
            RoleReport::Replica => {
                let Some((head, _)) = &self.head else {
                    return Report::FollowsAnother;
                };
                let Some(name) = said.named.first() else {
                    return Report::FollowsAnother;
                };
                let follows = *name == head.addr || {
                    let dial = &self.manner.borrow().dial;
                    match self.names.of_a_master(name, dial, now()) {
                        Some(leads_to) => leads_to.contains(&head.at),
                        // Nobody knows yet; until it is known it counts what it has said before.
                        None => return Report::Nothing,
                    }
                };
                match &said.detail {
                    Some(RoleDetail::ReplicaOf(_, offset)) if follows => Report::Follows(*offset),
                    _ => Report::FollowsAnother,
                }
            }
        }
    }

    /// The replicas that the master names. One that is listed by the same name needs no resolver.
    fn attached(&mut self, named: Vec<HostPort>) -> Vec<Attached> {
        let at = now();
        self.names.forget(at);
        let dial = &self.manner.borrow().dial;
        let of = |name: HostPort| {
            let addr = NodeAddr(name);
            let leads_to = if self.roll.knows(&addr) {
                Vec::new()
            } else {
                self.names.of_a_replica(&addr.0, dial, at)
            };
            (addr.0, leads_to)
        };
        named.into_iter().map(of).collect()
    }

    /// Where a name leads is known: what was said with it may mean something else.
    pub(super) fn learn(&mut self, found: Found) {
        if self.names.learn(found) {
            let head = self.head.iter().map(|(_, link)| link);
            head.chain(self.links.values()).for_each(NodeLink::check);
        }
    }

    /// The Sentinels call somebody down: is that so?
    pub(super) fn dispute(&mut self, at: Moment) {
        if at.since(self.disputed) >= DISPUTE_EVERY && self.roll.is_disputed(at) {
            self.disputed = at;
            self.entry.asker.ask_all();
        }
    }
}
