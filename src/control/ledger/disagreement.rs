//! A Sentinel that names another master than the one in force, for longer than a failover takes. Pure.

use std::time::Duration;

use super::opinion::Opinion;
use crate::net::addr::{HostPort, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::MasterAddr;
use crate::topology::decide::FRESH;

/// In each failover the Sentinels change their minds one after the other; a leader's `+switch-master` comes a second late.
const LASTING: Duration = Duration::from_secs(3);
/// A Sentinel that goes to and fro is told of so often.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What is new of one Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Which.
    pub sentinel: String,
    /// The master it names, or named.
    pub names: String,
    /// At this config-epoch.
    pub epoch: u64,
    /// For how long it has been so.
    pub lasted: Duration,
    /// It is so no longer.
    pub over: bool,
    /// Why the one it names is not in force: it was asked, and is not accepted.
    pub rejected: Option<String>,
}

/// What is known of a Sentinel that disagrees.
#[derive(Clone, Debug)]
pub(super) struct Dissent {
    since: Moment,
    names: String,
    epoch: u64,
    told: bool,
}

impl Opinion {
    /// To be asked at each turn; gives each beginning once and its end once.
    pub(super) fn news(
        &mut self,
        at: Moment,
        sentinel: &SentinelAddr,
        current: Option<&MasterAddr>,
        rejected: impl Fn(&HostPort) -> Option<String>,
    ) -> Option<Disagreement> {
        let lately =
            self.up == Some(true) && self.heard.is_some_and(|heard| at.since(heard) < FRESH);
        let view = self.view.as_ref().and_then(|view| view.as_ref().ok());
        let other = view.filter(|view| {
            lately && current.is_some_and(|master| *master.host_port() != view.master.0)
        });
        let Some(view) = other else {
            let ended = self.dissent.take()?;
            return ended.told.then(|| ended.tell(at, sentinel, true));
        };
        let told_lately = self
            .told_dissent
            .is_some_and(|told| at.since(told) < AGAIN_AFTER);
        let dissent = self.dissent.get_or_insert_with(|| Dissent {
            since: at,
            names: String::new(),
            epoch: 0,
            told: false,
        });
        if dissent.told || told_lately || at.since(dissent.since) < LASTING {
            return None;
        }
        dissent.told = true;
        dissent.names = view.master.0.to_string();
        dissent.epoch = view.epoch.0;
        self.told_dissent = Some(at);
        let rejected = rejected(&view.master.0);
        let told = dissent.tell(at, sentinel, false);
        Some(Disagreement { rejected, ..told })
    }
}

impl Dissent {
    fn tell(&self, at: Moment, sentinel: &SentinelAddr, over: bool) -> Disagreement {
        Disagreement {
            sentinel: sentinel.0.to_string(),
            names: self.names.clone(),
            epoch: self.epoch,
            lasted: at.since(self.since),
            over,
            rejected: None,
        }
    }
}
