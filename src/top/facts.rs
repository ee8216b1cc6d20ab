//! What the endpoint has told so far, and for how long it has told nothing. Pure.

use std::collections::{BTreeMap, VecDeque};

use crate::admin::status::{ProxyStatus, Status};
use crate::net::clock::Moment;
use crate::telemetry::RecentEvent;

/// Points kept of each proxy; no terminal is wider.
const KEPT: usize = 512;
/// Shortest time between two answers that a rate is made of, in seconds.
const SHORTEST: f64 = 0.01;

/// Everything that can be shown.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Who is asked.
    pub(super) endpoint: String,
    /// The last answer.
    pub(super) seen: Option<Seen>,
    /// Set while there is none.
    pub(super) silence: Option<Silence>,
    histories: BTreeMap<String, History>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) status: Status,
    /// The last log events, oldest first.
    pub(super) events: Vec<RecentEvent>,
    at: Moment,
}

/// No answer.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    /// When it answered last, or was asked first.
    pub(super) since: Moment,
    pub(super) why: String,
}

/// What flowed between two answers, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Bytes to the master.
    pub(super) up: f64,
    /// Bytes to clients.
    pub(super) down: f64,
    /// New sessions.
    pub(super) opened: f64,
}

/// The rates of one proxy, oldest first; nothing where none is known.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<Option<Rates>>);

impl Facts {
    pub(super) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            seen: None,
            silence: None,
            histories: BTreeMap::new(),
        }
    }

    pub(super) fn heard(&mut self, status: Status, events: Vec<RecentEvent>, at: Moment) {
        let before = self.seen.take();
        let mut histories = std::mem::take(&mut self.histories);
        for proxy in &status.proxies {
            let name = &proxy.account.proxy;
            let mut history = histories.remove(name).unwrap_or_default();
            history.push(
                before
                    .as_ref()
                    .and_then(|b| rates(&b.status, &status, name)),
            );
            // Of two entries of one name the last counts; configurations have none.
            self.histories.insert(name.clone(), history);
        }
        self.seen = Some(Seen { status, events, at });
        self.silence = None;
    }

    pub(super) fn unanswered(&mut self, why: String, at: Moment) {
        let since = match (&self.silence, &self.seen) {
            (Some(silence), _) => silence.since,
            (None, Some(seen)) => seen.at,
            (None, None) => at,
        };
        self.silence = Some(Silence { since, why });
        for history in self.histories.values_mut() {
            history.push(None);
        }
    }

    pub(super) fn proxies(&self) -> &[ProxyStatus] {
        self.seen.as_ref().map_or(&[], |seen| &seen.status.proxies)
    }

    pub(super) fn history(&self, proxy: &str) -> History {
        self.histories.get(proxy).cloned().unwrap_or_default()
    }
}

impl History {
    fn push(&mut self, rates: Option<Rates>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(rates);
    }

    pub(super) fn latest(&self) -> Option<Rates> {
        self.0.back().copied().flatten()
    }

    /// The last so many points of one of the rates, oldest first.
    pub(super) fn last(&self, count: usize, of: fn(&Rates) -> f64) -> Vec<Option<f64>> {
        let skipped = self.0.len().saturating_sub(count);
        self.0
            .iter()
            .skip(skipped)
            .map(|r| r.as_ref().map(of))
            .collect()
    }
}

/// What flowed between two answers of one process, by its own clock, which does not jump. `None` over a restart.
fn rates(before: &Status, after: &Status, proxy: &str) -> Option<Rates> {
    let same_process = before.pid == after.pid && before.started_at == after.started_at;
    let seconds = after.uptime_seconds - before.uptime_seconds;
    if !same_process || seconds < SHORTEST {
        return None;
    }
    let of = |status: &Status| {
        let mut proxies = status.proxies.iter();
        let found = proxies.find(|p| p.account.proxy == proxy)?;
        let s = &found.sessions;
        Some([s.bytes_up, s.bytes_down, s.opened])
    };
    let (before, after) = (of(before)?, of(after)?);
    let rate = |n: usize| Some(after[n].checked_sub(before[n])? as f64 / seconds);
    Some(Rates {
        up: rate(0)?,
        down: rate(1)?,
        opened: rate(2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::{at, status};

    fn told(uptime: f64, up: u64) -> Status {
        let mut status = status();
        status.uptime_seconds = uptime;
        status.proxies[0].sessions.bytes_up = up;
        status
    }

    fn latest(facts: &Facts) -> Option<f64> {
        facts.history("main").latest().map(|rates| rates.up)
    }

    #[test]
    fn rates_are_differences_by_the_clock_of_the_proxy() {
        let mut facts = Facts::new("here".into());
        facts.heard(told(10.0, 1000), vec![], at(0));
        assert_eq!(latest(&facts), None);
        facts.heard(told(12.0, 5000), vec![], at(1));
        assert_eq!(latest(&facts), Some(2000.0));
        // The same answer twice says nothing of time.
        facts.heard(told(12.0, 5000), vec![], at(2));
        assert_eq!(latest(&facts), None);
    }

    #[test]
    fn a_restart_is_no_rate() {
        let mut facts = Facts::new("here".into());
        facts.heard(told(10.0, 1000), vec![], at(0));
        let mut restarted = told(11.0, 2000);
        restarted.started_at += 5.0;
        facts.heard(restarted, vec![], at(1));
        assert_eq!(latest(&facts), None);
        facts.heard(told(12.0, 5), vec![], at(2));
        assert_eq!(latest(&facts), None, "counters that went back");
    }

    #[test]
    fn silence_counts_from_the_last_answer_and_leaves_a_gap() {
        let mut facts = Facts::new("here".into());
        facts.unanswered("refused".into(), at(3));
        facts.unanswered("refused".into(), at(4));
        assert_eq!(facts.silence.as_ref().map(|s| s.since), Some(at(3)));
        facts.heard(told(10.0, 0), vec![], at(5));
        assert!(facts.silence.is_none());
        facts.unanswered("nothing within 3 s".into(), at(9));
        let silence = facts.silence.clone().expect("silent");
        assert_eq!(
            (silence.since, silence.why.as_str()),
            (at(5), "nothing within 3 s")
        );
        // Over the gap the mean is known.
        facts.heard(told(20.0, 100), vec![], at(15));
        assert_eq!(facts.history("main").last(2, |r| r.up), [None, Some(10.0)]);
    }

    #[test]
    fn histories_are_bounded_and_forgotten_with_their_proxy() {
        let mut facts = Facts::new("here".into());
        for n in 0..KEPT as u64 + 10 {
            facts.heard(told(n as f64, n), vec![], at(n));
        }
        assert_eq!(facts.history("main").last(usize::MAX, |r| r.up).len(), KEPT);
        let mut other = told(10_000.0, 0);
        other.proxies[0].account.proxy = "other".into();
        facts.heard(other, vec![], at(10_000));
        assert!(facts.history("main").latest().is_none());
        assert_eq!(facts.histories.len(), 1);
    }
}
