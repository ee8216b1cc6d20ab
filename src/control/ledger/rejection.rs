//! Who is named as the master and does not pass the role check. Pure.

use std::time::Duration;

use super::Ledger;
use super::account::Rejected;
use crate::net::addr::HostPort;
use crate::net::clock::{At, Moment};
use crate::topology::MasterAddr;
use crate::topology::observation::RoleReport;

/// A candidate is asked again at least each second or two. One that was not for so long is none any more.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    addr: MasterAddr,
    reason: &'static str,
    words: String,
    since: Moment,
    last: Moment,
}

impl Ledger {
    /// A candidate was asked for its role and said this instead of being a master; `words` are for people.
    pub fn rejected(&mut self, at: At, addr: &MasterAddr, report: &RoleReport, words: String) {
        let before = self.rejection.take();
        let since = before
            .filter(|before| before.addr == *addr && !before.is_stale(at.moment))
            .map_or(at.moment, |before| before.since);
        self.rejection = Some(Rejection {
            addr: addr.clone(),
            reason: report.label(),
            words,
            since,
            last: at.moment,
        });
    }

    pub(super) fn rejection(&self, at: At) -> Option<Rejected> {
        let rejection = self.rejection.as_ref();
        let rejection = rejection.filter(|of| !of.is_stale(at.moment))?;
        Some(Rejected {
            addr: rejection.addr.to_string(),
            reason: rejection.reason.to_owned(),
            words: rejection.words.clone(),
            seconds: at.moment.since(rejection.since).as_secs_f64(),
        })
    }
}

impl Rejection {
    /// Why this node is not accepted, if it is the one.
    pub(super) fn of(rejection: Option<&Self>, at: Moment, named: &HostPort) -> Option<String> {
        let rejection = rejection.filter(|of| of.addr.host_port() == named && !of.is_stale(at));
        rejection.map(|of| of.words.clone())
    }

    fn is_stale(&self, at: Moment) -> bool {
        at.since(self.last) >= STALE_AFTER
    }
}
