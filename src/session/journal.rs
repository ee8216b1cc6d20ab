//! What a connection to the master has been told that a new one would not know: the last value of each setting.
//!
//! Values, not a log: it does not grow with a session's life; of subscriptions there may be many, and no more than
//! `subscriptions` allows. All text is wiped when dropped and no Debug shows it.

use std::borrow::Borrow;
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

use super::subscriptions::Subscriptions;
use crate::resp::command::{Hello, Login};
use crate::resp::feed::Feed;

/// Most bytes of text of one session; what would need more is not kept, and the session not moved.
pub const JOURNAL_MAX: usize = 1024;

/// The user of `AUTH password`, by the name that HELLO needs.
const DEFAULT_USER: &[u8] = b"default";

/// Text of the client, wiped when dropped.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept(Box<[u8]>);

impl Kept {
    pub(super) fn new(text: &[u8]) -> Self {
        Self(text.into())
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.0
    }

    /// A name that is set to nothing is unset.
    pub(super) fn unless_empty(text: &[u8]) -> Option<Self> {
        (!text.is_empty()).then(|| Self::new(text))
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Kept {
    /// From the message itself: no copy is left behind that nobody wipes.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Kept;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<Kept, E> {
                Ok(Kept::new(text))
            }
        }
        deserializer.deserialize_bytes(Text)
    }
}

impl Borrow<[u8]> for Kept {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// User and password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Credentials {
    /// `None` = the default user.
    pub(super) user: Option<Kept>,
    pub(super) password: Kept,
}

impl Credentials {
    pub(super) fn new(login: Login<'_>) -> Self {
        Self {
            user: login.user.map(Kept::new),
            password: Kept::new(login.password),
        }
    }

    pub(super) fn user(&self) -> &[u8] {
        self.user.as_ref().map_or(DEFAULT_USER, Kept::text)
    }
}

/// Whether a session's login is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Identity {
    /// The client never authenticated itself.
    #[default]
    Unsaid,
    /// It did, and credentials are not to be kept.
    NotKept,
    /// It did.
    Known(Credentials),
}

/// What HELLO asked for, kept until it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) proto: u8,
    pub(super) identity: Identity,
    pub(super) name: Option<Kept>,
}

/// What became of a value that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Noted {
    Yes,
    /// It does not fit in [`JOURNAL_MAX`], or in what is kept of subscriptions.
    Full,
}

/// The last value of each setting; what was never set is at its default.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Of the last HELLO that named one; else the protocol is RESP2.
    pub(super) proto: Option<u8>,
    pub(super) db: u32,
    pub(super) no_evict: bool,
    pub(super) no_touch: bool,
    pub(super) readonly: bool,
    /// Most sessions have none of these.
    texts: Option<Box<Texts>>,
    /// Where there is one at least.
    subscriptions: Option<Box<Subscriptions>>,
}

#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Texts {
    pub(super) identity: Identity,
    pub(super) name: Option<Kept>,
    pub(super) lib_name: Option<Kept>,
    pub(super) lib_ver: Option<Kept>,
    pub(super) capa: Vec<Kept>,
}

impl Journal {
    /// True when a new connection is like this one already.
    pub fn is_empty(&self) -> bool {
        self.like_new() && self.texts_unset() && !self.is_subscribed()
    }

    /// It holds no more than may be kept; for one that somebody else wrote down.
    pub(super) fn is_within_limits(&self) -> bool {
        let fits = |texts: &Texts| texts.len() <= JOURNAL_MAX;
        self.texts().is_none_or(fits)
            && self.proto.is_none_or(|proto| (2..=3).contains(&proto))
            && self.subscriptions().is_none_or(|kept| kept.len() > 0)
    }

    /// Most bytes it is written down in, roughly.
    pub(super) fn weight(&self) -> usize {
        /// Flags, numbers and the lengths of a few texts; the length of one more.
        const FIXED: usize = 48;
        const LENGTH: usize = 3;
        let texts = self
            .texts()
            .map_or(0, |texts| texts.len() + LENGTH * texts.capa.len());
        let names = self
            .subscriptions()
            .map_or(0, |kept| kept.text() + LENGTH * kept.len());
        FIXED + texts + names
    }

    /// Credentials are not to be kept any longer.
    pub(super) fn forget_credentials(&mut self) {
        if let Some(texts) = &mut self.texts
            && texts.identity != Identity::Unsaid
        {
            texts.identity = Identity::NotKept;
        }
    }

    /// True when the client logged in, and its credentials are not here.
    pub(super) fn lacks_credentials(&self) -> bool {
        *self.identity() == Identity::NotKept
    }

    pub(super) fn identity(&self) -> &Identity {
        self.texts
            .as_ref()
            .map_or(&Identity::Unsaid, |texts| &texts.identity)
    }

    pub(super) fn texts(&self) -> Option<&Texts> {
        self.texts.as_deref()
    }

    /// True when the server may speak without being asked.
    pub(super) fn is_subscribed(&self) -> bool {
        self.subscriptions.is_some()
    }

    pub(super) fn subscriptions(&self) -> Option<&Subscriptions> {
        self.subscriptions.as_deref()
    }

    pub(super) fn subscribed(&mut self, feed: Feed, name: &[u8]) -> Noted {
        self.subscriptions.get_or_insert_default().add(feed, name)
    }

    pub(super) fn unsubscribed(&mut self, feed: Feed, name: &[u8]) {
        if let Some(subscriptions) = &mut self.subscriptions {
            subscriptions.remove(feed, name);
            if subscriptions.len() == 0 {
                self.subscriptions = None;
            }
        }
    }

    /// RESET was accepted: as a new connection, except for the library's name and version, which stay.
    pub(super) fn reset(&mut self) {
        let texts = self.texts.take().map(|old| {
            Box::new(Texts {
                lib_name: old.lib_name,
                lib_ver: old.lib_ver,
                ..Texts::default()
            })
        });
        *self = Self {
            texts,
            ..Self::default()
        };
    }

    pub(super) fn authenticated(&mut self, identity: Identity) -> Noted {
        self.note(|texts| texts.identity = identity)
    }

    pub(super) fn greeted(&mut self, greeting: Greeting) -> Noted {
        self.proto = Some(greeting.proto);
        let Greeting { identity, name, .. } = greeting;
        if identity == Identity::Unsaid && name.is_none() {
            return Noted::Yes;
        }
        self.note(|texts| {
            if identity != Identity::Unsaid {
                texts.identity = identity;
            }
            if let Some(name) = name {
                texts.name = Kept::unless_empty(name.text());
            }
        })
    }

    pub(super) fn named(&mut self, name: &Kept) -> Noted {
        self.note(|texts| texts.name = Kept::unless_empty(name.text()))
    }

    pub(super) fn lib_named(&mut self, name: &Kept) -> Noted {
        self.note(|texts| texts.lib_name = Kept::unless_empty(name.text()))
    }

    pub(super) fn lib_versioned(&mut self, version: &Kept) -> Noted {
        self.note(|texts| texts.lib_ver = Kept::unless_empty(version.text()))
    }

    /// A server adds what it is told to what it knows.
    pub(super) fn capable(&mut self, words: Vec<Kept>) -> Noted {
        self.note(|texts| {
            for word in words {
                let known = |old: &Kept| old.text().eq_ignore_ascii_case(word.text());
                if !texts.capa.iter().any(known) {
                    texts.capa.push(word);
                }
            }
        })
    }

    fn note(&mut self, change: impl FnOnce(&mut Texts)) -> Noted {
        let texts = self.texts.get_or_insert_default();
        change(texts);
        if texts.len() <= JOURNAL_MAX {
            Noted::Yes
        } else {
            Noted::Full
        }
    }

    fn like_new(&self) -> bool {
        self.proto.is_none() && self.db == 0 && !self.no_evict && !self.no_touch && !self.readonly
    }

    fn texts_unset(&self) -> bool {
        self.texts
            .as_ref()
            .is_none_or(|texts| **texts == Texts::default())
    }
}

impl Texts {
    /// Bytes of text.
    fn len(&self) -> usize {
        let identity = match &self.identity {
            Identity::Known(login) => login.user().len() + login.password.text().len(),
            Identity::Unsaid | Identity::NotKept => 0,
        };
        let rest = [&self.name, &self.lib_name, &self.lib_ver]
            .into_iter()
            .flatten()
            .chain(&self.capa);
        identity + rest.map(|kept| kept.text().len()).sum::<usize>()
    }
}

impl fmt::Debug for Journal {
    /// What is set, and no value a client chose freely.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("proto", &self.proto)
            .field("db", &self.db)
            .field("no_evict", &self.no_evict)
            .field("no_touch", &self.no_touch)
            .field("readonly", &self.readonly)
            .field("texts", &self.texts.is_some())
            .field(
                "subscriptions",
                &self.subscriptions.as_ref().map(|s| s.len()),
            )
            .finish()
    }
}

impl Greeting {
    /// True when it may have changed the session even though it was refused: servers authenticate, and set
    /// the name, before they have looked at all of its options.
    pub(super) fn may_half_succeed(&self) -> bool {
        self.identity != Identity::Unsaid || self.name.is_some()
    }

    /// `keep`: whether credentials may be kept at all.
    pub(super) fn new(hello: Hello<'_>, keep: bool) -> Self {
        Self {
            proto: hello.proto,
            identity: hello
                .login
                .map_or(Identity::Unsaid, |login| Identity::new(login, keep)),
            name: hello.name.map(Kept::new),
        }
    }
}

impl Identity {
    /// `keep`: whether credentials may be kept at all.
    pub(super) fn new(login: Login<'_>, keep: bool) -> Self {
        if keep {
            Self::Known(Credentials::new(login))
        } else {
            Self::NotKept
        }
    }
}
