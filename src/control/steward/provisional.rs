//! `confirm = "role"`: an announced successor is used as soon as it says itself that it was promoted. Pure.
//!
//! The leader of a failover asks the replica that it promotes once a second; a proxy that asks it too knows up to a second
//! earlier. What is missing then is the Sentinels' word, so its generation is *provisional*: the floor stays where it is, and
//! who still names the master that was left, as of before, does not count against it. The first Sentinel that names it
//! (as many as `agree` asks for) makes it final. If the leader has died nobody may ever, and the others make it a replica
//! again; so without that word it ends after [`CONFIRMED_WITHIN`], long before they would (8 s). It is then fenced, and what the
//! Sentinels name is verified as at any switch.

use std::net::SocketAddr;
use std::time::Duration;

use super::announced::HOLD_MIN_INTERVAL;
use super::{Adopted, Holds, Steward};
use crate::control::action::{Action, Swap, Tale, Undone, Unfulfilled};
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::clock::Moment;
use crate::topology::decide::{Candidate, Verdict, Why};
use crate::topology::{Epoch, MasterAddr};

/// The longest that a generation is in force without a Sentinel's word.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(3);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Provisional {
    /// The master before.
    left: Adopted,
    since: Moment,
    /// Who announced it.
    by: SentinelAddr,
}

impl Provisional {
    /// When it ends unless it was confirmed. Nothing is written to it from then on, whatever else is late.
    pub(super) fn until(&self) -> Moment {
        self.since + CONFIRMED_WITHIN
    }
}

impl Steward {
    /// The master that the Sentinels named last.
    pub(super) fn named(&self) -> Option<&MasterAddr> {
        let left = self.provisional.as_ref().map(|p| &p.left);
        left.or(self.master.as_ref()).map(|m| &m.addr)
    }

    /// The announced successor, asked at `asked` and reached at `at`, says that it is a master, and has said before that
    /// it was a replica.
    pub(super) fn succeed(
        &mut self,
        now: Moment,
        asked: Moment,
        successor: &NodeAddr,
        at: SocketAddr,
    ) {
        // What the Sentinels or a standstill have put in question is not decided by this.
        let in_question = self.holds.switching || self.holds.resumed || self.provisional.is_some();
        let Some(epoch) = self
            .master
            .as_ref()
            .map(|m| m.epoch)
            .filter(|_| !in_question)
        else {
            return;
        };
        let Some(by) = self.announced.as_ref().map(|a| a.by.clone()) else {
            return;
        };
        let Some(candidate) = self.beliefs.successor(asked, successor, epoch) else {
            return;
        };
        // Nor is what would be undone at once.
        let named = self.named().cloned();
        let verdict = self.beliefs.decide(now, named.as_ref(), true);
        if matches!(
            verdict,
            Verdict::Verify(_) | Verdict::Keep(Why::Confirmed(_))
        ) {
            return;
        }
        let master = Adopted {
            addr: candidate.addr.clone(),
            at,
            epoch,
        };
        let Some(left) = self.install(now, master, Holds::default()) else {
            return;
        };
        let swap = Swap {
            from: Some(left.addr.clone()),
            provisional: true,
            ..self.swap(now, &candidate)
        };
        self.provisional = Some(Provisional {
            left,
            since: now,
            by,
        });
        self.tell(Tale::Switched(swap));
    }

    /// What a verdict is for a provisional generation: its end, either way, or nothing.
    pub(super) fn weigh(&mut self, now: Moment, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Verify(candidate)
                if self.provisional.is_some() && self.is_master(&candidate.addr) =>
            {
                self.make_final(now, candidate.epoch);
                Verdict::Keep(Why::Confirmed(candidate.epoch))
            }
            Verdict::Verify(_) | Verdict::Keep(Why::Confirmed(_)) => {
                self.undo(now, Undone::Superseded);
                verdict
            }
            Verdict::Keep(_) => verdict,
        }
    }

    /// The leader has given its failover up. What others give up is theirs.
    pub(super) fn aborted(&mut self, now: Moment, by: &SentinelAddr) {
        if self.announced.as_ref().is_some_and(|a| a.by == *by) {
            self.give_up_announcement(now, Unfulfilled::Aborted);
        }
        if self.provisional.as_ref().is_some_and(|p| p.by == *by) {
            self.undo(now, Undone::Aborted);
        }
    }

    fn make_final(&mut self, now: Moment, epoch: Epoch) {
        if let Some(Provisional { since, .. }) = self.provisional.take() {
            let after = now.since(since);
            self.tell(Tale::Confirmed { epoch, after });
        }
    }

    /// Ends a provisional generation whose time has come.
    pub(super) fn expire_provisional(&mut self, now: Moment) {
        if self.provisional.as_ref().is_some_and(|p| now >= p.until()) {
            self.undo(now, Undone::NotConfirmed);
        }
    }

    /// Back to the master before, in a generation of its own that stays fenced until the Sentinels name it, or another, and
    /// that is verified. Does nothing unless a provisional generation is in force; the caller decides anew.
    pub(super) fn undo(&mut self, now: Moment, why: Undone) {
        let Some(Provisional { left, since, .. }) = self.provisional.take() else {
            return;
        };
        if self.trial.take().is_some() {
            self.actions.push_back(Action::StopProbe);
        }
        let candidate = self.beliefs.candidate_again(now, &left.addr, left.epoch);
        let holds = Holds {
            switching: true,
            resumed: self.holds.resumed,
            ..Holds::default()
        };
        let undone = self.install(now, left, holds);
        self.actions.push_back(Action::AskAll);
        self.announced_again = now + HOLD_MIN_INTERVAL;
        self.tell(Tale::Undone {
            why,
            after: now.since(since),
        });
        self.tell(Tale::Switched(Swap {
            from: undone.map(|m| m.addr),
            trigger: why.label(),
            ..self.swap(now, &candidate)
        }));
    }

    /// What is told of a switch that is decided now.
    fn swap(&self, now: Moment, candidate: &Candidate) -> Swap {
        Swap {
            from: None,
            to: candidate.addr.clone(),
            generation: self.generation,
            epoch: candidate.epoch,
            trigger: candidate.asked.label(),
            detect: now.since(candidate.since),
            verify: Duration::ZERO,
            provisional: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::steward::{SEEN_AGAIN, VALIDITY};
    use crate::net::addr::{HostPort, SentinelAddr};
    use crate::topology::observation::{
        Asked, Hint, Observation, RoleReport, Said, Succession, View,
    };
    use crate::topology::rules::{Confirm, Rules};
    use crate::topology::{Generation, HoldCause, Phase};

    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn start() -> Moment {
        Moment::from_nanos(0) + Duration::from_secs(1000)
    }

    fn node(name: &str) -> NodeAddr {
        NodeAddr(HostPort::parse(name, Some(6379)).expect("a name"))
    }

    fn hear(steward: &mut Steward, now: Moment, said: Said) {
        hear_from("s1", steward, now, said);
    }

    fn hear_from(sentinel: &str, steward: &mut Steward, now: Moment, said: Said) {
        let sentinel = SentinelAddr(HostPort::parse(sentinel, Some(26379)).expect("a name"));
        steward.observe(now, Observation { sentinel, said });
    }

    fn names(now: Moment, master: &str, epoch: u64) -> Said {
        let view = View {
            master: node(master),
            epoch: Epoch(epoch),
            down_after: None,
            quorum: None,
            objectively_down: false,
            unanswered: Duration::ZERO,
        };
        Said::View {
            view: Ok(view),
            asked_at: now,
            asked: Asked::ByPoll,
            since: now,
        }
    }

    fn done(steward: &mut Steward) -> Vec<Action> {
        std::iter::from_fn(|| steward.next_action()).collect()
    }

    /// In force on the word of `b` alone since `start`; `a` was left, the floor is 4.
    fn provisional() -> Steward {
        let now = start();
        let rules = Rules {
            confirm: Confirm::Role,
            ..Rules::default()
        };
        let mut steward = Steward::new(now, rules, Vec::new());
        hear(&mut steward, now, Said::Followed(None));
        hear(&mut steward, now, names(now, "a", 4));
        let first = steward.named().cloned();
        assert_eq!(first, None, "not verified yet");
        let probed = done(&mut steward)
            .into_iter()
            .find_map(|action| match action {
                Action::Probe(addr) => Some(addr),
                _ => None,
            });
        steward.probed(now, &probed.expect("named"), Some(AT), RoleReport::Master);
        let (master, successor) = (node("a"), node("b"));
        let succession = Succession { master, successor };
        hear(&mut steward, now, Said::Announced(succession));
        for report in [RoleReport::Replica, RoleReport::Master] {
            steward.successor_said(now, now, &node("b"), Some(AT), &report);
        }
        assert_eq!(steward.state().generation, Generation(2));
        assert_eq!(steward.state().phase, Phase::Serving);
        done(&mut steward);
        steward
    }

    #[test]
    fn the_fence_word_counts_until_the_deadline_whoever_is_late() {
        let mut steward = provisional();
        let deadline = start() + CONFIRMED_WITHIN;
        let mut now = start();
        while now + VALIDITY <= deadline {
            steward.turn(now);
            assert_eq!(steward.valid_until(now), now + VALIDITY);
            now = now + Duration::from_millis(100);
        }
        steward.turn(now);
        assert_eq!(steward.valid_until(now), deadline, "and no longer");
        assert!(steward.next_turn() <= deadline);
        let late = deadline - Duration::from_millis(1);
        steward.turn(late);
        assert_eq!(steward.next_turn(), deadline);
        assert_eq!(steward.state().generation, Generation(2));
        steward.turn(deadline);
        assert_eq!(steward.state().generation, Generation(3));
        let held = matches!(
            steward.state().phase,
            Phase::Held {
                cause: HoldCause::Switching,
                ..
            }
        );
        assert!(held, "{:?}", steward.state());
        assert_eq!(steward.valid_until(deadline), deadline + VALIDITY);
    }

    #[test]
    fn the_floor_rises_with_a_sentinels_word_and_not_before() {
        let mut steward = provisional();
        assert_eq!(steward.beliefs().floor(), Some(Epoch(4)));
        let now = start() + Duration::from_millis(100);
        hear(&mut steward, now, names(now, "a", 4));
        assert_eq!(steward.beliefs().floor(), Some(Epoch(4)));
        assert!(steward.provisional.is_some());
        hear(&mut steward, now, names(now, "b", 5));
        assert_eq!(steward.beliefs().floor(), Some(Epoch(5)));
        assert!(steward.provisional.is_none());
        assert_eq!(
            steward.state().generation,
            Generation(2),
            "the same sessions"
        );
        assert_eq!(steward.valid_until(now), now + VALIDITY);
        let told = done(&mut steward);
        let confirmed = |a: &Action| {
            matches!(
                a,
                Action::Tell(Tale::Confirmed {
                    epoch: Epoch(5),
                    ..
                })
            )
        };
        assert!(told.iter().any(confirmed), "{told:?}");
    }

    #[test]
    fn what_another_sentinel_gives_up_is_its_own_failover() {
        let mut steward = provisional();
        let now = start() + Duration::from_millis(100);
        let before = steward.state().clone();
        hear_from("s2", &mut steward, now, Said::Hint(Hint::Aborted));
        assert_eq!(*steward.state(), before);
    }

    #[test]
    fn a_word_of_a_failover_is_told_once() {
        let mut steward = provisional();
        let now = start() + Duration::from_millis(100);
        let mut told = |now, from| {
            hear_from(from, &mut steward, now, Said::Hint(Hint::ObjectivelyDown));
            let told = done(&mut steward).into_iter();
            told.filter(|a| matches!(a, Action::Tell(Tale::FailoverSeen { .. })))
                .count()
        };
        let later = now + SEEN_AGAIN;
        let counted =
            [(now, "s2"), (now, "s2"), (now, "s3"), (later, "s3")].map(|(n, s)| told(n, s));
        assert_eq!(counted, [1, 0, 1, 1]);
    }

    #[test]
    fn an_abort_goes_back_and_blocks_the_next_hold_for_a_while() {
        let mut steward = provisional();
        let now = start() + Duration::from_millis(100);
        hear(&mut steward, now, Said::Hint(Hint::Aborted));
        assert_eq!(steward.state().generation, Generation(3));
        assert_eq!(steward.state().master, steward.named().cloned());
        let told = done(&mut steward);
        assert!(told.contains(&Action::AskAll), "{told:?}");
        let back = told.into_iter().find_map(|action| match action {
            Action::Probe(addr) => Some(addr),
            _ => None,
        });
        steward.probed(
            now,
            &back.expect("verified again"),
            Some(AT),
            RoleReport::Master,
        );
        assert_eq!(steward.state().phase, Phase::Serving);
        let (master, successor) = (node("a"), node("b"));
        hear(
            &mut steward,
            now,
            Said::Announced(Succession { master, successor }),
        );
        assert_eq!(steward.state().phase, Phase::Serving);
    }
}
