//! What a session is subscribed to, as its server has confirmed it. Bounded; wiped when dropped, as no Debug shows what a
//! client said.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::journal::{Kept, Noted};
use crate::resp::feed::Feed;

/// Most subscriptions of one session; one with more is not moved.
pub(super) const SUBSCRIPTIONS_MAX: usize = 1024;
/// Most bytes of their names together.
pub(super) const NAMES_MAX: usize = 32 * 1024;

/// Each name once for each kind.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Names")]
pub(super) struct Subscriptions {
    names: [BTreeSet<Kept>; Feed::ALL.len()],
    #[serde(skip)]
    text: usize,
}

/// As they were written down.
#[derive(Deserialize)]
struct Names([BTreeSet<Kept>; Feed::ALL.len()]);

impl TryFrom<Names> for Subscriptions {
    type Error = &'static str;

    fn try_from(Names(names): Names) -> Result<Self, Self::Error> {
        let text = names.iter().flatten().map(|name| name.text().len()).sum();
        let read = Self { names, text };
        if read.len() <= SUBSCRIPTIONS_MAX && text <= NAMES_MAX {
            Ok(read)
        } else {
            Err("more subscriptions than are kept")
        }
    }
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        self.names.iter().map(BTreeSet::len).sum()
    }

    /// Bytes of their names together.
    pub(super) const fn text(&self) -> usize {
        self.text
    }

    pub(super) fn of(&self, feed: Feed) -> &BTreeSet<Kept> {
        &self.names[feed.index()]
    }

    /// As a server counts them in its confirmations: channels and patterns together, shard channels apart.
    pub(super) fn reported(&self, feed: Feed) -> usize {
        match feed {
            Feed::Channel | Feed::Pattern => {
                self.of(Feed::Channel).len() + self.of(Feed::Pattern).len()
            }
            Feed::Shard => self.of(Feed::Shard).len(),
        }
    }

    pub(super) fn add(&mut self, feed: Feed, name: &[u8]) -> Noted {
        if self.of(feed).contains(name) {
            return Noted::Yes;
        }
        if self.len() >= SUBSCRIPTIONS_MAX || self.text + name.len() > NAMES_MAX {
            return Noted::Full;
        }
        self.text += name.len();
        self.names[feed.index()].insert(Kept::new(name));
        Noted::Yes
    }

    pub(super) fn remove(&mut self, feed: Feed, name: &[u8]) {
        if self.names[feed.index()].remove(name) {
            self.text -= name.len();
        }
    }
}
