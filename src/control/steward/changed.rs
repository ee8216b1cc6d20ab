//! Rules that the operator has changed while they were in force. Pure.
//!
//! The master in force stays, and nobody is held for the change itself.

use super::Steward;
use crate::net::addr::HostPort;
use crate::net::clock::Moment;
use crate::topology::decide::FRESH;
use crate::topology::rules::{Rules, SentinelsLost};

impl Steward {
    /// From now on these are the rules, and these the addresses of our listeners.
    pub fn rules_changed(&mut self, now: Moment, rules: Rules, own: Vec<HostPort>) {
        let stops = |rules: &Rules| rules.when_sentinels_are_lost == SentinelsLost::Stop;
        if stops(&rules) && !stops(&self.rules) {
            // The Sentinels were asked at leisure until now: their first answers at the new pace count, not those of before.
            self.lease_from = now + FRESH;
        }
        if !stops(&rules) {
            self.lease = None;
            self.bequest = None;
            self.holds.unconfirmed = false;
        }
        if !rules.fence_at_odown {
            self.holds.objectively_down = false;
        }
        self.rules = rules;
        self.beliefs.change(rules.agree, own);
        self.reconsider(now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::super::{Action, TURN};
    use super::*;
    use crate::net::addr::{NodeAddr, SentinelAddr};
    use crate::topology::observation::{Asked, Observation, RoleReport, Said, View};
    use crate::topology::rules::HoldMax;
    use crate::topology::{Epoch, HoldCause, Phase};

    const DOWN_AFTER: Duration = Duration::from_secs(1);

    struct World {
        steward: Steward,
        now: Moment,
    }

    fn addr(text: &str) -> HostPort {
        HostPort::parse(text, Some(6379)).expect("an address")
    }

    impl World {
        /// One Sentinel, whose word was taken just now, and a verified master.
        fn new(rules: Rules) -> Self {
            let now = Moment::default() + Duration::from_secs(60);
            let steward = Steward::new(now, rules, Vec::new());
            let mut this = Self { steward, now };
            this.hear(Said::Followed(None));
            this.answer();
            let actions: Vec<_> = std::iter::from_fn(|| this.steward.next_action()).collect();
            let probe = actions.into_iter().find_map(|action| match action {
                Action::Probe(addr) => Some(addr),
                _ => None,
            });
            let at: SocketAddr = ([127, 0, 0, 1], 1).into();
            let probe = probe.expect("named");
            this.steward
                .probed(this.now, &probe, Some(at), RoleReport::Master);
            assert_eq!(this.steward.state().phase, Phase::Serving);
            this
        }

        fn hear(&mut self, said: Said) {
            self.hear_from("s", said);
        }

        fn hear_from(&mut self, sentinel: &str, said: Said) {
            let sentinel = SentinelAddr(addr(sentinel));
            self.steward
                .observe(self.now, Observation { sentinel, said });
        }

        fn answer(&mut self) {
            self.named_by("s", "a");
        }

        fn named_by(&mut self, sentinel: &str, master: &str) {
            let view = View {
                master: NodeAddr(addr(master)),
                epoch: Epoch(1),
                down_after: Some(DOWN_AFTER),
                quorum: Some(1),
                objectively_down: false,
                unanswered: Duration::ZERO,
            };
            let said = Said::View {
                view: Ok(view),
                asked_at: self.now,
                asked: Asked::ByPoll,
                since: self.now,
            };
            self.hear_from(sentinel, said);
        }

        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now = (self.now + TURN).min(end);
                self.steward.turn(self.now);
            }
        }

        fn change(&mut self, lost: SentinelsLost) {
            let rules = Rules {
                when_sentinels_are_lost: lost,
                ..Rules::default()
            };
            self.steward.rules_changed(self.now, rules, Vec::new());
        }

        fn is_unconfirmed(&self) -> bool {
            let phase = &self.steward.state().phase;
            matches!(
                phase,
                Phase::Held {
                    cause: HoldCause::Unconfirmed,
                    ..
                }
            )
        }
    }

    #[test]
    fn a_lease_begins_with_the_first_answer_under_it() {
        let mut world = World::new(Rules::default());
        // Longer ago than a lease runs: it was asked at leisure.
        world.pass(DOWN_AFTER);
        world.change(SentinelsLost::Stop);
        world.pass(Duration::from_millis(300));
        assert!(!world.is_unconfirmed(), "nobody is held for the change");
        world.answer();
        world.pass(Duration::from_millis(700));
        assert!(!world.is_unconfirmed());
        world.pass(Duration::from_millis(200));
        assert!(world.is_unconfirmed(), "from then on each lease counts");
        world.change(SentinelsLost::Serve);
        assert_eq!(world.steward.state().phase, Phase::Serving);
        assert!(world.steward.valid_until(world.now) > world.now);
    }

    #[test]
    fn without_any_answer_it_begins_all_the_same() {
        let mut world = World::new(Rules::default());
        world.pass(DOWN_AFTER);
        world.change(SentinelsLost::Stop);
        world.pass(FRESH - TURN);
        assert!(!world.is_unconfirmed());
        world.pass(TURN);
        assert!(world.is_unconfirmed());
    }

    fn strict() -> Rules {
        Rules {
            when_sentinels_are_lost: SentinelsLost::Stop,
            ..Rules::default()
        }
    }

    /// Other Sentinels in the place of the one, none of which has answered.
    fn others_vote(after: Duration) -> World {
        let mut world = World::new(strict());
        world.pass(after);
        world.hear(Said::Forgotten);
        for other in ["t", "u", "v"] {
            world.hear_from(other, Said::Followed(None));
        }
        world
    }

    #[test]
    fn a_lease_is_not_over_when_others_vote() {
        let mut world = others_vote(Duration::from_millis(300));
        world.pass(Duration::from_millis(400));
        assert!(!world.is_unconfirmed(), "what was vouched for is true");
        world.named_by("t", "a");
        world.pass(Duration::from_millis(200));
        assert!(world.is_unconfirmed(), "it is over, and one is no majority");
        world.named_by("u", "a");
        assert_eq!(world.steward.state().phase, Phase::Serving);
        world.pass(Duration::from_millis(900));
        assert!(world.is_unconfirmed(), "from then on it is theirs");
    }

    #[test]
    fn nothing_is_left_of_a_lease_that_one_of_the_others_denies() {
        let mut world = others_vote(Duration::ZERO);
        assert!(world.steward.valid_until(world.now) > world.now);
        world.named_by("t", "b");
        assert!(world.steward.valid_until(world.now) <= world.now);
    }

    #[test]
    fn nor_of_one_of_before_a_standstill() {
        let mut world = others_vote(Duration::ZERO);
        world.now = world.now + Duration::from_millis(600);
        world.steward.turn(world.now);
        assert!(world.steward.valid_until(world.now) <= world.now);
    }

    #[test]
    fn a_limit_is_published_at_once() {
        let mut world = World::new(Rules::default());
        while world.steward.next_action().is_some() {}
        let limit = Duration::from_secs(77);
        let rules = Rules {
            hold_max: HoldMax::Fixed(limit),
            ..Rules::default()
        };
        let generation = world.steward.state().generation;
        world.steward.rules_changed(world.now, rules, Vec::new());
        let actions: Vec<_> = std::iter::from_fn(|| world.steward.next_action()).collect();
        let [Action::Publish(state)] = &actions[..] else {
            panic!("{actions:?}");
        };
        assert_eq!((state.hold_max, state.generation), (limit, generation));
    }
}
