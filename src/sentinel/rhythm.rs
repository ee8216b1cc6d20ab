//! When one Sentinel is asked next, and what its last answers were. Pure but for the clock.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::clock::{Moment, now};
use crate::topology::observation::{Asked, NoView, View};

/// A link that has not answered for so long is dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(3);
/// Heartbeat of a separate event link.
const PING_EVERY: Duration = Duration::from_secs(1);
/// Events within this time of a question share one more question at its end.
const COALESCE: Duration = Duration::from_millis(20);
/// Polls are spread by so much of their interval to either side, so that a fleet does not ask in step.
const POLL_JITTER: f64 = 0.1;
/// How often a Sentinel is asked which others it knows.
pub(super) const PEERS_EVERY: Duration = Duration::from_secs(30);
/// How often it is asked for its replicas, but for events.
const LIST_EVERY: Duration = Duration::from_secs(5);
/// The same where somebody doubts.
const LIST_IN_DOUBT: Duration = Duration::from_secs(1);

/// When the next question is due, and why.
#[derive(Debug)]
pub(super) struct Rhythm {
    interval: Duration,
    poll_due: Instant,
    /// Heartbeat of a separate event link; `None` without one, because a time that is never taken would be due for ever.
    ping_due: Option<Instant>,
    pub(super) peers_due: Instant,
    /// A question wanted before the poll: why, since when, and the earliest time for it.
    wanted: Option<(Asked, Moment, Instant)>,
    last_question: Option<Instant>,
    pub(super) answered: Moment,
    /// That this link has answered.
    pub(super) reported: bool,
}

impl Rhythm {
    pub(super) fn new(interval: Duration, has_event_link: bool) -> Self {
        let start = Instant::now();
        Self {
            interval,
            poll_due: start + interval,
            ping_due: has_event_link.then(|| start + PING_EVERY),
            peers_due: start + PEERS_EVERY,
            wanted: Some((Asked::OnConnect, now(), start)),
            last_question: None,
            answered: now(),
            reported: false,
        }
    }

    pub(super) fn next_due(&self) -> Instant {
        let wanted = self.wanted.map_or(self.poll_due, |(_, _, at)| at);
        let due = wanted.min(self.poll_due).min(self.peers_due);
        self.ping_due.map_or(due, |ping| due.min(ping))
    }

    pub(super) fn takes_ping(&mut self, at: Instant) -> bool {
        let due = self.ping_due.is_some_and(|ping| at >= ping);
        if due {
            self.ping_due = Some(at + PING_EVERY);
        }
        due
    }

    /// The first hint asks at once; those that follow closely share one more question.
    pub(super) fn hint(&mut self, asked: Asked, since: Moment) {
        if self.wanted.is_none() {
            let at = self
                .last_question
                .map_or_else(Instant::now, |last| last + COALESCE);
            self.wanted = Some((asked, since, at));
        }
    }

    pub(super) fn take_question(&mut self, at: Instant) -> Option<(Asked, Moment)> {
        let question = match self.wanted {
            Some((asked, since, due)) if at >= due => Some((asked, since)),
            _ if at >= self.poll_due => Some((Asked::ByPoll, now())),
            _ => None,
        }?;
        self.wanted = None;
        self.last_question = Some(at);
        let spread = 1.0 + POLL_JITTER * (fastrand::f64() * 2.0 - 1.0);
        self.poll_due = at + self.interval.mul_f64(spread);
        Some(question)
    }

    /// The interval from the next poll on, which is not later than this one allows.
    pub(super) fn keep(&mut self, interval: Duration) {
        self.interval = interval;
        self.poll_due = self.poll_due.min(Instant::now() + interval);
    }

    pub(super) fn is_dead(&self) -> bool {
        now().since(self.answered) >= DEAD_AFTER
    }
}

/// The last answer for each master, to notice one that was read in the middle of a change.
#[derive(Debug, Default)]
pub(super) struct Questions {
    views: HashMap<String, View>,
    /// When it was asked for replicas.
    listed: Option<Instant>,
}

impl Questions {
    /// True when the address changed and the epoch did not: the epoch may have been read before the change and the
    /// address after it, so it has to be asked again before it counts.
    pub(super) fn is_torn(&self, master: &str, view: Result<&View, &NoView>) -> bool {
        let Ok(view) = view else { return false };
        self.views
            .get(master)
            .is_some_and(|last| last.master != view.master && last.epoch == view.epoch)
    }

    /// True when replicas are to be listed now.
    pub(super) fn wants_a_list(&mut self, asked: Asked, at: Instant) -> bool {
        let every = match asked {
            Asked::OnHint(_) => Duration::ZERO,
            Asked::OnDoubt => LIST_IN_DOUBT,
            _ => LIST_EVERY,
        };
        let is_due = self.listed.is_none_or(|last| at - last >= every);
        if is_due {
            self.listed = Some(at);
        }
        is_due
    }

    pub(super) fn remember(&mut self, master: &str, view: Result<&View, &NoView>) {
        if let Ok(view) = view {
            self.views.insert(master.to_owned(), view.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep_until;

    use super::*;
    use crate::net::addr::{HostPort, NodeAddr};
    use crate::topology::Epoch;
    use crate::topology::observation::Hint;

    fn view(host: &str, epoch: u64) -> View {
        View {
            master: NodeAddr(HostPort::parse(host, Some(6379)).expect("an address")),
            epoch: Epoch(epoch),
            down_after: None,
            quorum: None,
            objectively_down: false,
            unanswered: Duration::ZERO,
        }
    }

    #[test]
    fn an_address_that_changed_at_an_unchanged_epoch_is_asked_again() {
        let mut questions = Questions::default();
        assert!(
            !questions.is_torn("m", Ok(&view("a", 4))),
            "the first answer stands"
        );
        questions.remember("m", Ok(&view("a", 4)));
        assert!(
            questions.is_torn("m", Ok(&view("b", 4))),
            "old epoch, new address"
        );
        assert!(!questions.is_torn("m", Ok(&view("b", 5))));
        assert!(!questions.is_torn("other", Ok(&view("b", 4))));
        assert!(!questions.is_torn("m", Err(&NoView::UnknownMaster)));
    }

    #[test]
    fn replicas_are_listed_by_the_clock_in_doubt_sooner_and_for_an_event_at_once() {
        let (mut questions, start) = (Questions::default(), Instant::now());
        let hint = Asked::OnHint(Hint::SwitchMaster);
        for (millis, asked, expected) in [
            (0, Asked::OnConnect, true),
            (4999, Asked::ByPoll, false),
            (5000, Asked::ByPoll, true),
            (5001, hint, true),
            (6000, Asked::OnDoubt, false),
            (6001, Asked::OnDoubt, true),
            (6002, hint, true),
            (11_001, Asked::ByPoll, false),
        ] {
            let at = start + Duration::from_millis(millis);
            assert_eq!(questions.wants_a_list(asked, at), expected, "{millis}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_hint_asks_at_once_and_the_next_share_one_question() {
        let mut rhythm = Rhythm::new(Duration::from_secs(1), false);
        assert!(rhythm.take_question(Instant::now()).is_some(), "on connect");
        tokio::time::advance(Duration::from_millis(300)).await;
        rhythm.hint(Asked::OnHint(Hint::SwitchMaster), now());
        assert!(
            rhythm.take_question(Instant::now()).is_some(),
            "leading edge"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..5 {
            rhythm.hint(Asked::OnHint(Hint::ConfigUpdate), now());
        }
        assert!(rhythm.take_question(Instant::now()).is_none(), "too close");
        tokio::time::advance(COALESCE).await;
        let asked = rhythm.take_question(Instant::now()).map(|(asked, _)| asked);
        assert_eq!(
            asked,
            Some(Asked::OnHint(Hint::ConfigUpdate)),
            "one trailing question"
        );
        assert!(rhythm.take_question(Instant::now()).is_none());
        tokio::time::advance(Duration::from_millis(1100)).await;
        assert_eq!(
            rhythm.take_question(Instant::now()).map(|(a, _)| a),
            Some(Asked::ByPoll)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_stays_due_that_was_taken() {
        for has_event_link in [false, true] {
            let mut rhythm = Rhythm::new(Duration::from_secs(1), has_event_link);
            for _ in 0..100 {
                sleep_until(rhythm.next_due()).await;
                // As a turn does it.
                let at = Instant::now();
                rhythm.take_question(at);
                rhythm.takes_ping(at);
                if at >= rhythm.peers_due {
                    rhythm.peers_due = at + PEERS_EVERY;
                }
                assert!(
                    rhythm.next_due() > at,
                    "a watcher with a separate event link ({has_event_link}) would never sleep"
                );
            }
        }
    }
}
