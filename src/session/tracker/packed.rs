//! What a tracker knows, as plain data that another process goes on from: at a moment when that can be said in full.
//!
//! The connection to the master travels, too, so what is open on it (a transaction, watched keys, subscriptions, requests whose
//! replies are due) need not be ended for it. What cannot be said is the middle of a request or of a reply, and a command in flight
//! that will change the session: such a moment passes.

use serde::{Deserialize, Serialize};

use super::listen::Head;
use super::pending::Pending;
use super::{Retire, Rules, Tracker};
use crate::resp::{Replies, Requests};
use crate::session::journal::Journal;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    retired: Option<Retire>,
    /// All of them ordinary.
    in_flight: u32,
    in_transaction: bool,
    watching: bool,
    leaving: bool,
    moved: bool,
    greeted: bool,
    journal: Journal,
}

impl Packed {
    /// Most bytes it is encoded in, roughly.
    pub fn weight(&self) -> usize {
        const FLAGS: usize = 32;
        FLAGS + self.journal.weight()
    }

    /// It says no more than a tracker would have kept.
    pub fn is_within_limits(&self) -> bool {
        self.journal.is_within_limits()
    }
}

impl Tracker {
    /// Whether all that it knows can be said now.
    pub fn can_be_packed(&self) -> bool {
        self.in_flight_to_pack().is_some()
    }

    fn in_flight_to_pack(&self) -> Option<u32> {
        match self.retired {
            // Of one that has retired nothing is asked again, but for where requests begin if it has moved.
            Some(_) if self.moved && !self.requests.at_boundary() => None,
            Some(_) => Some(0),
            None => {
                let between = self.requests.at_boundary()
                    && self.replies.at_boundary()
                    && self.captured.is_none()
                    && self.head.as_ref().is_none_or(|head| head.is_clean())
                    && !self.is_repeating();
                self.pending.all_ordinary().filter(|_| between)
            }
        }
    }

    /// Everything it knows; `None` in a moment when that cannot be said.
    pub fn pack(&self) -> Option<Packed> {
        Some(Packed {
            retired: self.retired,
            in_flight: self.in_flight_to_pack()?,
            in_transaction: self.in_transaction,
            watching: self.watching,
            leaving: self.leaving,
            moved: self.moved,
            greeted: self.greeted,
            journal: self.journal.clone(),
        })
    }

    /// Goes on from there, by other rules perhaps.
    pub fn unpack(packed: Packed, rules: Rules) -> Self {
        let mut journal = packed.journal;
        if !rules.replay_auth {
            journal.forget_credentials();
        }
        let mut tracker = Self {
            requests: Requests::new(),
            replies: Replies::new(),
            pending: Pending::of_ordinary(packed.in_flight),
            head: journal.is_subscribed().then(Box::<Head>::default),
            journal,
            retired: None,
            in_transaction: packed.in_transaction,
            watching: packed.watching,
            leaving: packed.leaving,
            moved: packed.moved,
            greeted: packed.greeted,
            ..Self::new(rules)
        };
        let unfollowed = (tracker.is_subscribed() && !rules.pubsub).then_some(Retire::Subscribed);
        if let Some(why) = packed.retired.or(unfollowed) {
            tracker.retire(why);
        }
        tracker
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sight;
    use super::*;

    const RULES: Rules = Rules {
        login: false,
        replay_auth: true,
        pubsub: true,
        resend_reads: true,
    };

    /// What was asked and answered; `>` begins what the client said, `<` what the master did.
    fn tracked(script: &[&str]) -> Tracker {
        let mut tracker = Tracker::new(RULES);
        for line in script {
            let (who, text) = line.split_at(1);
            match who {
                ">" => tracker.client_bytes(text.as_bytes()),
                _ => assert_eq!(tracker.master_bytes(text.as_bytes()), Sight::Nothing),
            }
        }
        tracker
    }

    fn carried(tracker: &Tracker) -> Tracker {
        let packed = tracker.pack().expect("a moment that can be told");
        let mut room = [0; 4096];
        let bytes = postcard::to_slice(&packed, &mut room).expect("room");
        assert!(bytes.len() <= packed.weight(), "{}", bytes.len());
        let read: Packed = postcard::from_bytes(bytes).expect("as written");
        assert_eq!(read, packed);
        assert!(read.is_within_limits());
        Tracker::unpack(read, RULES)
    }

    #[test]
    fn what_is_open_goes_along() {
        let mut tracker = carried(&tracked(&[
            ">AUTH user secret\r\n",
            "<+OK\r\n",
            ">SELECT 3\r\n",
            "<+OK\r\n",
            ">WATCH a\r\n",
            "<+OK\r\n",
            ">MULTI\r\n",
            "<+OK\r\n",
        ]));
        assert!(tracker.movable().is_err());
        tracker.client_bytes(b"EXEC\r\n");
        assert_eq!(tracker.master_bytes(b"*0\r\n"), Sight::Nothing);
        assert_eq!(tracker.movable(), Ok(()));
        assert_eq!(tracker.journal().db, 3);
        assert!(!tracker.journal().lacks_credentials());
        assert!(!tracker.journal().is_empty());
    }

    #[test]
    fn replies_that_are_due_are_counted() {
        let mut tracker = carried(&tracked(&[">BLPOP a 0\r\nPING\r\n"]));
        assert_eq!(tracker.in_flight(), 2);
        let replies = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n+PONG\r\n";
        assert_eq!(tracker.master_bytes(replies), Sight::Nothing);
        assert_eq!(tracker.movable(), Ok(()));
        assert_eq!(tracker.master_bytes(b"+PONG\r\n"), Sight::Nothing);
        assert_eq!(tracker.retired(), Some(Retire::Unasked));
    }

    #[test]
    fn a_subscriber_goes_on_listening() {
        let said = "<*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let mut tracker = carried(&tracked(&[">SUBSCRIBE a\r\n", said]));
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n";
        assert_eq!(tracker.master_bytes(message), Sight::Nothing);
        assert!(tracker.is_subscribed());
        assert_eq!(tracker.movable(), Ok(()));
        tracker.client_bytes(b"UNSUBSCRIBE\r\n");
        let ended = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n";
        assert_eq!(tracker.master_bytes(ended), Sight::Nothing);
        assert!(!tracker.is_subscribed());
        assert_eq!(tracker.movable(), Ok(()));
    }

    #[test]
    fn the_middle_of_something_cannot_be_told() {
        for script in [
            &[">*1\r\n$4\r\nPI"][..],
            &[">PING\r\n", "<+PO"],
            &[">SELECT 3\r\n"],
            &[">MULTI\r\n"],
            &[
                ">SUBSCRIBE a b\r\n",
                "<*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
            ],
        ] {
            assert_eq!(tracked(script).pack(), None, "{script:?}");
        }
    }

    #[test]
    fn who_has_retired_stays_so_and_can_be_told_at_any_moment() {
        let tracker = tracked(&[">MONITOR\r\n", "<+OK\r\n+123 GE"]);
        assert_eq!(carried(&tracker).retired(), Some(Retire::Monitoring));
    }

    #[test]
    fn one_that_has_moved_still_refuses_to_wait() {
        let mut tracker = tracked(&[">PING\r\n", "<+PONG\r\n"]);
        tracker.moved();
        let mut tracker = carried(&tracker);
        assert!(tracker.refuses(b"WAIT 1 0\r\n").is_some());
        tracker.client_bytes(b"MONITOR\r\n");
        assert!(carried(&tracker).refuses(b"WAIT 1 0\r\n").is_some());
        tracker.client_bytes(b"PI");
        assert_eq!(tracker.pack(), None, "who knows where requests begin");
    }

    #[test]
    fn other_rules_count_from_then_on() {
        let packed = tracked(&[">AUTH user secret\r\n", "<+OK\r\n"]).pack();
        let rules = Rules {
            replay_auth: false,
            ..RULES
        };
        let tracker = Tracker::unpack(packed.expect("a moment that can be told"), rules);
        assert!(tracker.journal().lacks_credentials());
        assert!(tracker.movable().is_err());

        let said = "<*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
        let packed = tracked(&[">SUBSCRIBE a\r\n", said]).pack();
        let rules = Rules {
            pubsub: false,
            ..RULES
        };
        let tracker = Tracker::unpack(packed.expect("a moment that can be told"), rules);
        assert_eq!(tracker.retired(), Some(Retire::Subscribed));
    }

    #[test]
    fn no_debug_shows_a_secret() {
        let packed = tracked(&[">AUTH user secret\r\n", "<+OK\r\n"]).pack();
        assert!(!format!("{packed:?}").contains("secret"));
    }
}
