//! The links to the Sentinels: dial, ask, be told; as in `sentinel::watcher`.

use std::time::Duration;

use switchmaster::topology::Epoch;
use switchmaster::topology::observation::{
    Asked, Hint, NoView, RunId, Said, Succession, Unasked, View,
};

use super::{COALESCE, Proxy, Question, REPLY_WITHIN, Wait};
use crate::cluster::{Cluster, Life};
use crate::names::{letter, moment, node};
use crate::plant::Plant;
use crate::world::Net;

const DEAD_AFTER: u64 = 3000;
const POLL: u64 = 1000;

impl Proxy {
    pub(super) fn dial(&mut self, net: &mut Net, cluster: &Cluster, link: usize) {
        let s = self.links[link].sentinel;
        let after = if self.no_sentinel[s] > 0 || cluster.sentinels[s].life == Life::Paused {
            REPLY_WITHIN
        } else {
            net.way()
        };
        self.wait(net, after, Wait::Connected(link));
    }

    pub(super) fn connected(&mut self, net: &mut Net, cluster: &Cluster, link: usize) {
        let s = self.links[link].sentinel;
        if !self.reaches_sentinel(cluster, s) {
            return self.link_down(net, link);
        }
        let now = net.now;
        let l = &mut self.links[link];
        l.up = true;
        l.told_down = false;
        l.conn += 1;
        l.asking = None;
        l.answered = now;
        l.poll_due = now + POLL;
        l.wanted = Some((Asked::OnConnect, now));
        let id = letter(s).to_ascii_lowercase();
        self.trace.line(now, &format!("up s{}={id}", link + 1));
        self.checker.met(link, s);
        self.checker.link_is(link, true);
        self.observe(
            net,
            link,
            Said::Up(RunId::parse(&id.to_string().repeat(40))),
        );
        self.arm(net, link, 0);
    }

    pub(super) fn link_down(&mut self, net: &mut Net, link: usize) {
        let l = &mut self.links[link];
        l.up = false;
        l.asking = None;
        l.timer += 1;
        if !std::mem::replace(&mut l.told_down, true) {
            self.trace.line(net.now, &format!("down s{}", link + 1));
            let why = Unasked {
                reason: "connect",
                words: "Connection refused".to_owned(),
            };
            self.heard(net, link, Said::Down(why), |checker| {
                checker.link_is(link, false);
            });
        }
        let redial = net.rng.u64(20..2000);
        self.wait(net, redial, Wait::Dial(link));
    }

    pub(super) fn want(&mut self, net: &mut Net, link: usize, asked: Asked, since: u64) {
        let l = &mut self.links[link];
        if l.up && l.wanted.is_none() {
            l.wanted = Some((asked, since));
            let after = (l.last_question + COALESCE).saturating_sub(net.now);
            self.arm(net, link, after);
        }
    }

    pub(super) fn arm(&mut self, net: &mut Net, link: usize, after: u64) {
        self.links[link].timer += 1;
        let timer = self.links[link].timer;
        self.wait(net, after, Wait::Ask(link, timer));
    }

    pub(super) fn ask(&mut self, net: &mut Net, link: usize, timer: u64) {
        let now = net.now;
        let spread = net.rng.u64(900..1100);
        let l = &mut self.links[link];
        if !l.up || l.timer != timer || l.asking.is_some() {
            return;
        }
        let (asked, since) = l.wanted.take().unwrap_or((Asked::ByPoll, now));
        self.serial += 1;
        let question = Question {
            link,
            serial: self.serial,
            asked_at: now,
            asked,
            since,
        };
        l.asking = Some(self.serial);
        l.last_question = now;
        l.poll_due = now + spread;
        let way = net.way();
        self.wait(net, way, Wait::AtSentinel(question));
        self.wait(net, REPLY_WITHIN, Wait::Late(question));
    }

    pub(super) fn rearm(&mut self, net: &mut Net, link: usize) {
        let l = &self.links[link];
        let due = if l.wanted.is_some() {
            l.last_question + COALESCE
        } else {
            l.poll_due
        };
        let after = due.saturating_sub(net.now);
        self.arm(net, link, after);
    }

    pub(super) fn answered(&mut self, net: &mut Net, q: Question, view: Option<(usize, u64)>) {
        let l = &mut self.links[q.link];
        if l.asking != Some(q.serial) {
            return;
        }
        l.asking = None;
        l.answered = net.now;
        let said = match view {
            Some((n, epoch)) => format!("{} {epoch}", letter(n)),
            None => "none".to_owned(),
        };
        self.trace.view(net.now, q.link, &said, q.asked_at);
        let floor = self.steward.beliefs().floor();
        let told =
            view.map(|(n, epoch)| (self.plant.node(q.link, n), self.plant.epoch(epoch, floor)));
        let view_of = |(n, epoch)| View {
            master: node(n),
            epoch: Epoch(epoch),
            down_after: Some(Duration::from_millis(1500)),
            quorum: Some(2),
            objectively_down: false,
            unanswered: Duration::ZERO,
        };
        let asked_at = self.plant.asked_at(q.asked_at, net.now);
        let said = Said::View {
            view: told.map(view_of).ok_or(NoView::UnknownMaster),
            asked_at: moment(asked_at.saturating_sub(self.slept)),
            asked: q.asked,
            since: moment(q.since.saturating_sub(self.slept)),
        };
        let deaf = self.plant == Plant::HearsNoWithdrawal && view.is_none();
        self.told(net, q.link, said, deaf, |checker| {
            checker.heard(q.link, view, q.asked_at);
        });
        if self.plant == Plant::HastyRelease {
            self.observe(net, q.link, Said::Hint(Hint::Monitor));
        }
        self.rearm(net, q.link);
    }

    pub(super) fn late(&mut self, net: &mut Net, q: Question) {
        let l = &mut self.links[q.link];
        if l.asking != Some(q.serial) {
            return;
        }
        l.asking = None;
        if net.now - l.answered >= DEAD_AFTER {
            self.link_down(net, q.link);
        } else {
            self.rearm(net, q.link);
        }
    }

    pub(super) fn heard_event(
        &mut self,
        net: &mut Net,
        link: usize,
        conn: u64,
        (hint, names): (Hint, Option<(usize, usize)>),
    ) {
        if !self.links[link].up || self.links[link].conn != conn {
            return;
        }
        self.trace
            .line(net.now, &format!("hint s{} {}", link + 1, hint.as_str()));
        let now = net.now;
        self.heard(net, link, Said::Hint(hint), |checker| {
            checker.hinted(now, link, hint);
        });
        if let Some((master, successor)) = names {
            let (m, s) = (letter(master), letter(successor));
            self.trace
                .line(now, &format!("announce s{} {m} {s}", link + 1));
            let (master, successor) = (node(master), node(successor));
            self.observe(net, link, Said::Announced(Succession { master, successor }));
        }
        if hint.asks() {
            self.want(net, link, Asked::OnHint(hint), now);
        }
    }
}
