//! ROLE: of a candidate, of the master over the standing connection, of an announced successor; as in `control::link`.

use std::net::SocketAddr;

use switchmaster::topology::MasterAddr;
use switchmaster::topology::observation::RoleReport;

use super::{COALESCE, MasterLink, Proxy, REPLY_WITHIN, Wait};
use crate::cluster::{Cluster, Health};
use crate::names::{letter, moment, node, node_of};
use crate::plant::Plant;
use crate::trace::Trace;
use crate::world::Net;

const ROLE_EVERY: u64 = 5000;

impl Proxy {
    pub(super) fn at_node(
        &mut self,
        net: &mut Net,
        cluster: &Cluster,
        serial: u64,
        addr: MasterAddr,
    ) {
        let (after, report) = self.ask_node(net, cluster, node_of(&addr));
        self.wait(net, after, Wait::Probed(serial, addr, report));
    }

    pub(super) fn probed(
        &mut self,
        net: &mut Net,
        serial: u64,
        addr: &MasterAddr,
        report: RoleReport,
    ) {
        if self.probe != Some(serial) || self.plant == Plant::DeafProbe {
            return;
        }
        self.probe = None;
        self.trace.answer(letter(node_of(addr)), &report);
        let told = self.plant.report(report.clone());
        let addr = addr.clone();
        let n = node_of(&addr);
        let at = answered_at(n, &report);
        self.checked_input(
            net,
            |checker| checker.probed(n, &report),
            |steward, now| steward.probed(now, &addr, at, told),
        );
    }

    pub(super) fn watch(&mut self, net: &mut Net, addr: MasterAddr) {
        self.serial += 1;
        self.master = Some(MasterLink {
            addr,
            serial: self.serial,
            connected: true,
            busy: false,
            again: false,
        });
        self.wait(net, ROLE_EVERY, Wait::Check(self.serial));
    }

    pub(super) fn check(&mut self, net: &mut Net, serial: u64) {
        let Some(m) = self.master.as_mut().filter(|m| m.serial == serial) else {
            return;
        };
        if m.busy {
            m.again = true;
            return;
        }
        m.busy = true;
        let redial = !m.connected;
        let way = net.way();
        self.wait(net, way, Wait::AtMaster(serial, redial));
    }

    pub(super) fn at_master(
        &mut self,
        net: &mut Net,
        cluster: &Cluster,
        serial: u64,
        redial: bool,
    ) {
        let Some(m) = self.master.as_ref().filter(|m| m.serial == serial) else {
            return;
        };
        let n = node_of(&m.addr);
        let (after, report) = match self.reaches_node(cluster, n) {
            Some(Health::Up) => (net.way(), Some(cluster.nodes[n].role())),
            Some(Health::Crashed) => (net.way(), None),
            Some(Health::Hung) | None if redial => (REPLY_WITHIN, None),
            Some(Health::Hung) | None => {
                (REPLY_WITHIN, Some(RoleReport::Failed("silent".to_owned())))
            }
        };
        let addr = m.addr.clone();
        self.wait(net, after, Wait::Said(serial, addr, report));
    }

    pub(super) fn master_said(
        &mut self,
        net: &mut Net,
        serial: u64,
        addr: &MasterAddr,
        report: Option<RoleReport>,
    ) {
        let n = node_of(addr);
        let mut next = net.rng.u64(50..500);
        let Some(m) = self.master.as_mut().filter(|m| m.serial == serial) else {
            return;
        };
        m.busy = false;
        m.connected = report.is_some();
        if m.connected {
            next = if std::mem::take(&mut m.again) {
                COALESCE
            } else {
                ROLE_EVERY
            };
        }
        self.wait(net, next, Wait::Check(serial));
        let who = letter(n);
        match report {
            Some(report) => {
                self.trace
                    .line(net.now, &format!("said {who} {}", Trace::word(&report)));
                let deaf = self.plant == Plant::BelievesReplicas && report == RoleReport::Replica;
                self.checked_input(
                    net,
                    |checker| checker.said(n, &report),
                    |steward, now| {
                        if !deaf {
                            steward.master_said(now, addr, answered_at(n, &report), &report);
                        }
                    },
                );
            }
            None => {
                self.trace.line(net.now, &format!("gone {who}"));
                self.input(net, |steward, now| steward.master_gone(now, addr));
            }
        }
    }

    pub(super) fn master_closed(&mut self, net: &mut Net, serial: u64) {
        if let Some(m) = self.master.as_mut().filter(|m| m.serial == serial) {
            m.connected = false;
            self.wait(net, 0, Wait::Check(serial));
        }
    }

    /// What a node says when it is dialled and asked, and after how long.
    pub(super) fn ask_node(&self, net: &mut Net, cluster: &Cluster, n: usize) -> (u64, RoleReport) {
        match self.reaches_node(cluster, n) {
            Some(Health::Up) => (net.way(), cluster.nodes[n].role()),
            Some(Health::Crashed) => (net.way(), RoleReport::Failed("refused".to_owned())),
            Some(Health::Hung) | None => (REPLY_WITHIN, RoleReport::Failed("silent".to_owned())),
        }
    }

    pub(super) fn successor_said(
        &mut self,
        net: &mut Net,
        serial: u64,
        (n, asked): (usize, u64),
        report: &RoleReport,
    ) {
        if self.successor != Some(serial) {
            return;
        }
        let text = format!("successor {} {}", letter(n), Trace::word(report));
        self.trace.line(net.now, &text);
        let at = answered_at(n, report);
        let told = self.plant.successor(report, net.steps);
        self.checked_input(
            net,
            |checker| checker.successor_said(report),
            |steward, now| steward.successor_said(now, moment(asked), &node(n), at, &told),
        );
        self.wait(net, COALESCE, Wait::Succeeds(serial, n));
    }
}

/// Where a node was reached, when it was.
fn answered_at(node: usize, report: &RoleReport) -> Option<SocketAddr> {
    let last = u8::try_from(node + 1).expect("few nodes");
    let reached = !matches!(report, RoleReport::Failed(_));
    reached.then(|| SocketAddr::from(([127, 0, 0, last], 6379)))
}
