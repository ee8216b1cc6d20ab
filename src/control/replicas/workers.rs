//! What the task has to do with the workers beside publishing: when they have let go of what, and how even their sessions are spread.

use std::time::Duration;

use futures_util::FutureExt;

use super::{Leaving, Task, tales};
use crate::net::clock::{Moment, now};
use crate::topology::State;
use crate::topology::publish::Upstreams;
use crate::topology::replicas::Lanes;

/// Longest wait for the workers to let go of a replica before that is reported without them.
const FENCE_LIMIT: Duration = Duration::from_secs(3);
/// How often sessions are asked to look for another lane, and how many at once at the most.
const EVEN_EVERY: Duration = Duration::from_secs(1);
const EVEN_AT_ONCE: u64 = 100;
/// The same where asking leads to nothing: every session of a lane is woken for it.
const EVEN_RARELY: Duration = Duration::from_secs(60);

impl Task {
    /// What the workers have let go of is told; and when they have let go of everything, so is the control task.
    pub(super) fn acknowledge(&mut self, master: &State, at: Moment) {
        let mut waiting: Vec<Leaving> = Vec::new();
        for mut leaving in std::mem::take(&mut self.leaving) {
            let lane = &self.entry.lanes[leaving.lane];
            let left = if lane.is_acknowledged(leaving.generation) {
                lane.acknowledged(leaving.generation).now_or_never()
            } else {
                None
            };
            if left.is_none() && (leaving.told || at.since(leaving.since) < FENCE_LIMIT) {
                waiting.push(leaving);
                continue;
            }
            if let Some(left) = left {
                self.left.cut += left.cut;
                self.left.kept += left.kept;
            }
            if leaving.told {
                continue;
            }
            let fence = now().since(leaving.since);
            tales::left(
                &self.entry.name,
                &mut self.often,
                &leaving.addr,
                leaving.why,
                fence,
                left,
            );
            if left.is_none() {
                // A worker may hold a socket there for as long as it is stuck: no switch is over before it has let go. Whoever has let go of
                // what is newer in the lane has of this, too.
                leaving.told = true;
                waiting.retain(|other| !other.told || other.lane != leaving.lane);
                waiting.push(leaving);
            }
        }
        self.leaving = waiting;
        let master_lane = &self.entry.lanes[Lanes::MASTER];
        let generation = self.generations[Lanes::MASTER];
        let let_go = self.leaving.is_empty()
            && !self.lanes.is_switching()
            && master_lane.is_acknowledged(generation);
        if let_go {
            let of_master = master_lane
                .acknowledged(generation)
                .now_or_never()
                .unwrap_or_default();
            self.left.cut += of_master.cut;
            self.left.kept += of_master.kept;
            let left = std::mem::take(&mut self.left);
            if std::mem::replace(&mut self.acknowledged, master.generation) != master.generation {
                self.entry.changed.acknowledge(master.generation, left);
            }
        }
    }

    /// Pause and reconnect are for every lane.
    pub(super) fn renew(&mut self) {
        let edition = self.entry.master.edition();
        if edition != self.edition {
            self.edition = edition;
            for (of, lane) in self.editions.iter_mut().zip(&mut self.entry.lanes) {
                *of = lane.renew();
            }
        }
        let mut sum = Upstreams::default();
        for (edition, lane) in self.editions.iter().zip(&self.entry.lanes) {
            let Some(of) = lane.upstreams(*edition) else {
                return;
            };
            sum.open += of.open;
            sum.old += of.old;
        }
        self.entry.changed.report(self.edition, sum);
    }

    /// Has some sessions look for another lane where others have fewer.
    pub(super) fn even(&mut self, at: Moment, loads: &[u64]) {
        let (pause, before) = self.even_pause;
        if at.since(self.evened) < pause.max(EVEN_EVERY) {
            return;
        }
        self.evened = at;
        let board = &self.entry.board;
        let asked = self.lanes.too_many(loads, board.roaming());
        // Whoever was asked before and had no opportunity is asked anew, or not.
        (0..loads.len()).for_each(|lane| board.ask_to_leave(lane, 0));
        let excess = asked.iter().map(|(_, sessions)| *sessions).sum();
        // Sessions that cannot leave need not be asked each second.
        let in_vain = excess > 0 && excess >= before && before > 0;
        let pause = if in_vain {
            (pause.max(EVEN_EVERY) * 2).min(EVEN_RARELY)
        } else {
            EVEN_EVERY
        };
        self.even_pause = (pause, excess);
        let mut left = EVEN_AT_ONCE;
        for (lane, sessions) in asked {
            let sessions = sessions.min(left);
            left -= sessions;
            if sessions > 0 {
                self.entry.board.ask_to_leave(lane, sessions);
                self.entry.lanes[lane].ring();
            }
        }
    }
}
