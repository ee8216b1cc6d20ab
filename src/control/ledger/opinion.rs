//! What one Sentinel last said. Pure.

use super::disagreement::Dissent;
use crate::net::clock::Moment;
use crate::topology::observation::{NoView, RunId, Said, Unasked, View};

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Opinion {
    pub(super) run_id: Option<RunId>,
    /// `None`: the first dial is under way.
    pub(super) up: Option<bool>,
    /// Since when it is up or down.
    pub(super) since: Moment,
    /// Why it is down.
    pub(super) down: Option<Unasked>,
    pub(super) view: Option<Result<View, NoView>>,
    /// When its last answer came.
    pub(super) heard: Option<Moment>,
    /// It names another master than the one in force.
    pub(super) dissent: Option<Dissent>,
    /// When that was last told.
    pub(super) told_dissent: Option<Moment>,
}

impl Opinion {
    pub(super) const fn new(at: Moment) -> Self {
        Self {
            run_id: None,
            up: None,
            since: at,
            down: None,
            view: None,
            heard: None,
            dissent: None,
            told_dissent: None,
        }
    }

    pub(super) fn take_in(&mut self, at: Moment, said: &Said) {
        match said {
            Said::Followed(run_id) => self.identify(run_id.as_ref()),
            Said::Up(run_id) => {
                self.identify(run_id.as_ref());
                self.turns(at, true);
                self.down = None;
            }
            Said::Down(why) => {
                self.turns(at, false);
                self.down = Some(why.clone());
            }
            Said::View { view, .. } => {
                self.view = Some(view.clone());
                self.heard = Some(at);
            }
            Said::Forgotten | Said::Hint(_) | Said::Announced(_) | Said::Replicas { .. } => {}
        }
    }

    fn identify(&mut self, run_id: Option<&RunId>) {
        if let Some(run_id) = run_id {
            self.run_id = Some(run_id.clone());
        }
    }

    fn turns(&mut self, at: Moment, up: bool) {
        if self.up != Some(up) {
            self.up = Some(up);
            self.since = at;
        }
    }
}
