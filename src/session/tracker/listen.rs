//! Sessions that subscribe (`pubsub = "move"`): what comes unasked is told from replies, and what they are subscribed to is
//! learnt from what the server confirms.
//!
//! RESP3 has pushes for both. In RESP2 they are arrays: between the first subscription and the end of the last a server
//! executes nothing but what changes them, PING, QUIT and RESET, so that an array which begins as a message is one. The
//! confirmations of a command come when it is its turn, one for each argument, and are its reply.

use super::{Retire, Sight, Staged, Tracker};
use crate::resp::feed::{Feed, Word, announcement, confirmation};
use crate::resp::{Heard, Kind};
use crate::session::journal::Noted;

/// Longest name of a channel or pattern; what is longer is not understood.
const NAME_MAX: usize = 1024;
/// As much of a value as is kept when it comes in pieces: a confirmation with a name of [`NAME_MAX`].
const HEAD_MAX: usize = NAME_MAX + 64;
/// Servers tell a subscriber here which keys another connection must not cache any longer (CLIENT TRACKING ... REDIRECT).
const INVALIDATIONS: &[u8] = b"__redis__:invalidate";

/// The beginning of a value that comes in pieces.
#[derive(Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    /// The value began before it was kept.
    torn: bool,
}

impl Head {
    /// Nothing of a value has come.
    pub(super) const fn is_clean(&self) -> bool {
        self.bytes.is_empty() && !self.torn
    }

    fn keep(&mut self, part: &[u8]) {
        let room = HEAD_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&part[..part.len().min(room)]);
    }
}

impl std::fmt::Debug for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Head({} bytes)", self.bytes.len())
    }
}

/// What a command that changes subscriptions has still to be confirmed.
#[derive(Debug)]
pub(super) struct Awaited {
    word: Word,
    /// How many times; `None` = until none of its kind is left (UNSUBSCRIBE without arguments).
    left: Option<u32>,
    begun: bool,
}

impl Awaited {
    pub(super) const fn subscribes(feed: Feed, arguments: u32) -> Self {
        Self {
            word: Word::Subscribed(feed),
            left: Some(arguments),
            begun: false,
        }
    }

    pub(super) fn unsubscribes(feed: Feed, arguments: u32) -> Self {
        Self {
            word: Word::Unsubscribed(feed),
            left: (arguments > 0).then_some(arguments),
            begun: false,
        }
    }

    /// Some of it was confirmed: an error comes too late.
    pub(super) const fn has_begun(&self) -> bool {
        self.begun
    }
}

impl Tracker {
    /// [`master_bytes`](Self::master_bytes) of a session that is subscribed, or about to be.
    pub(super) fn listened_bytes(&mut self, mut bytes: &[u8]) -> Sight {
        let mut sight = Sight::Nothing;
        while self.retired.is_none() {
            // As long as there is nothing to listen for, the others' way.
            let Some(head) = &mut self.head else {
                return sight.or(self.master_bytes(bytes));
            };
            match self.replies.next(bytes) {
                Ok(Heard::More) => {
                    head.keep(bytes);
                    break;
                }
                Ok(Heard::Ended { used, kind }) => {
                    let (value, rest) = bytes.split_at(used);
                    bytes = rest;
                    if kind == Kind::Error && self.refused_as_replica() {
                        sight = Sight::NotMaster;
                    }
                    self.hear(kind, value);
                }
                Err(doubt) => self.retire(Retire::reply(doubt)),
            }
        }
        sight
    }

    /// A value has ended, with these bytes.
    fn hear(&mut self, kind: Kind, value: &[u8]) {
        let Some(mut head) = self.head.take() else {
            return;
        };
        if std::mem::take(&mut head.torn) {
            self.judge(kind, &[]);
        } else if head.bytes.is_empty() {
            self.judge(kind, value);
        } else {
            head.keep(value);
            self.judge(kind, &head.bytes);
        }
        // Gives the memory back: an idle session owns no buffer.
        head.bytes = Vec::new();
        let listens = self.journal.is_subscribed() || self.pending.has_feed();
        if listens && self.retired.is_none() {
            self.head = Some(head);
        }
    }

    fn judge(&mut self, kind: Kind, value: &[u8]) {
        let pushed = self.journal.proto == Some(3);
        // Of what a server says out of turn.
        let unasked = if pushed {
            kind == Kind::Push
        } else {
            kind == Kind::Value && self.journal.is_subscribed()
        };
        let said = match kind {
            Kind::Error => None,
            Kind::Value | Kind::Push => announcement(value),
        };
        let awaited = self.pending.feed();
        match (said, awaited) {
            (Some((Word::Message, _)), _) if unasked => {}
            (Some((word, rest)), Some(awaited))
                if awaited.word == word && pushed == (kind == Kind::Push) =>
            {
                awaited.begun = true;
                self.confirmed(word, rest);
            }
            // A subscription that was taken away, say by a cluster.
            (Some((Word::Subscribed(_) | Word::Unsubscribed(_), _)), _) if unasked => {
                self.retire(Retire::Unasked);
            }
            // Queued in a transaction, or something else that is not understood.
            (_, Some(_)) if kind == Kind::Value => self.retire(Retire::Subscribed),
            _ => self.answered(kind),
        }
    }

    /// One name of a command is confirmed.
    fn confirmed(&mut self, word: Word, rest: &[u8]) {
        let Some((name, count)) = confirmation(rest) else {
            self.retire(Retire::TooLong);
            return;
        };
        if name.is_some_and(|name| name.len() > NAME_MAX) {
            self.retire(Retire::TooLong);
            return;
        }
        let (feed, noted) = match (word, name) {
            (Word::Subscribed(Feed::Channel), Some(INVALIDATIONS)) => {
                self.retire(Retire::Tracking);
                return;
            }
            (Word::Subscribed(feed), Some(name)) => (feed, self.journal.subscribed(feed, name)),
            (Word::Unsubscribed(feed), name) => {
                self.journal.unsubscribed(feed, name.unwrap_or_default());
                (feed, Noted::Yes)
            }
            (Word::Subscribed(_), None) | (Word::Message, _) => {
                self.retire(Retire::Subscribed);
                return;
            }
        };
        if noted == Noted::Full {
            self.retire(Retire::TooLong);
            return;
        }
        let subscriptions = self.journal.subscriptions();
        let (reported, of_kind) = subscriptions.map_or((0, 0), |subscriptions| {
            (subscriptions.reported(feed), subscriptions.of(feed).len())
        });
        let left = self.pending.feed().map(|awaited| match &mut awaited.left {
            Some(left) => left.checked_sub(1).inspect(|less| *left = *less),
            None => u32::try_from(of_kind).ok(),
        });
        match left.flatten() {
            // What was counted here is not what the server counts, or more was confirmed than asked for.
            _ if u32::try_from(reported) != Ok(count) => self.retire(Retire::Subscribed),
            None => self.retire(Retire::Subscribed),
            Some(0) => drop(self.pending.pop()),
            Some(_) => {}
        }
    }

    /// To be called when one of the few was put in line.
    pub(super) fn listen_for(&mut self, staged: &Staged) {
        if matches!(staged, Staged::Feed(_)) && self.head.is_none() {
            self.head = Some(Box::new(Head {
                bytes: Vec::new(),
                torn: !self.replies.at_boundary(),
            }));
        }
    }
}
