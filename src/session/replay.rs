//! Telling a new connection what the old one knew: one write, whose replies are swallowed and judged.
//!
//! ROLE comes last, so that a session never goes on with a node that has stopped being a master since it was verified; but for
//! subscriptions, behind which RESP2 servers execute nothing else. What comes between and behind their confirmations is the client's.

use std::fmt;

use zeroize::Zeroizing;

use super::journal::{Identity, Journal, Kept};
use crate::resp::command::Login;
use crate::resp::feed::{Feed, Word, announcement};
use crate::resp::{Doubt, Heard, Kind, Replies};

/// As much of a reply as is looked at: an error's first words, the first element of ROLE's answer.
const HEAD_MAX: usize = 64;
/// Most bytes of messages that come before the last subscription is confirmed. All is sent in one write, so there are few.
const HEARD_MAX: usize = 256 * 1024;

/// What makes a new connection like the old one.
pub struct Replay {
    request: Zeroizing<Vec<u8>>,
    steps: Vec<Step>,
}

/// One command of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The proxy's own login.
    Login,
    /// HELLO with all that it can carry.
    Hello,
    /// The client's own login, when it never used HELLO.
    Auth,
    /// CLIENT SETNAME
    Name,
    /// CLIENT SETINFO, either kind
    LibInfo,
    /// SELECT
    Select,
    /// CLIENT NO-EVICT
    NoEvict,
    /// CLIENT NO-TOUCH
    NoTouch,
    /// CLIENT CAPA
    Capa,
    /// READONLY
    Readonly,
    /// ROLE
    Role,
    /// A name in SUBSCRIBE, PSUBSCRIBE or SSUBSCRIBE
    Subscribe(Feed),
}

/// What came of a replay so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// Replies are missing.
    NotYet,
    /// The new connection is like the old one, and leads to a master.
    Done,
    /// It is not, or does not.
    Failed(Failure),
}

/// Why a replay failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node is loading its data, or busy with a script.
    NotReady(Step),
    /// `max number of clients reached`
    TooManyClients,
    /// The login is not valid there, or not allowed to do this (NOAUTH, WRONGPASS, NOPERM).
    Denied(Step),
    /// Another error.
    Refused(Step),
    /// ROLE says that it is no master.
    NotMaster,
    /// What came is no RESP.
    Unclear(Doubt),
    /// There were more replies than requests.
    Unasked,
    /// More messages than are kept came before all subscriptions were confirmed.
    TooMuch,
}

impl Failure {
    /// True when the same may succeed a little later.
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::NotReady(_) | Self::TooManyClients | Self::NotMaster | Self::TooMuch
        )
    }

    /// True when it is the proxy's own login that is not accepted.
    pub const fn is_of_login(self) -> bool {
        matches!(self, Self::Denied(Step::Login) | Self::Refused(Step::Login))
    }

    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NotReady(_) => "not_ready",
            Self::TooManyClients => "too_many_clients",
            Self::Denied(_) => "denied",
            Self::Refused(_) => "refused",
            Self::NotMaster => "not_master",
            Self::Unclear(_) => "unclear",
            Self::Unasked => "unasked",
            Self::TooMuch => "too_much",
        }
    }
}

impl Replay {
    /// What has to be sent; `None` if a new connection is as good as the old one. `login` is the proxy's own, used
    /// unless the client logged in by itself.
    pub fn new(journal: &Journal, login: Option<Login<'_>>) -> Option<Self> {
        let login = login.filter(|_| *journal.identity() == Identity::Unsaid);
        if login.is_none() && journal.is_empty() {
            return None;
        }
        let db = journal.db.to_string();
        let proto = journal.proto.map(|proto| proto.to_string());
        let mut script = Script::default();
        if let Some(Login { user, password }) = login {
            script.add(Step::Login, &[b"AUTH"], user.into_iter().chain([password]));
        }
        script.identify(journal, proto.as_deref());
        if let Some(texts) = journal.texts() {
            if let Some(name) = &texts.lib_name {
                let words: [&[u8]; 3] = [b"CLIENT", b"SETINFO", b"LIB-NAME"];
                script.add(Step::LibInfo, &words, [name.text()]);
            }
            if let Some(version) = &texts.lib_ver {
                let words: [&[u8]; 3] = [b"CLIENT", b"SETINFO", b"LIB-VER"];
                script.add(Step::LibInfo, &words, [version.text()]);
            }
        }
        if journal.db != 0 {
            script.add(Step::Select, &[b"SELECT"], [db.as_bytes()]);
        }
        if journal.no_evict {
            script.add(Step::NoEvict, &[b"CLIENT", b"NO-EVICT", b"ON"], []);
        }
        if journal.no_touch {
            script.add(Step::NoTouch, &[b"CLIENT", b"NO-TOUCH", b"ON"], []);
        }
        if let Some(texts) = journal.texts().filter(|texts| !texts.capa.is_empty()) {
            let words = texts.capa.iter().map(Kept::text);
            script.add(Step::Capa, &[b"CLIENT", b"CAPA"], words);
        }
        if journal.readonly {
            script.add(Step::Readonly, &[b"READONLY"], []);
        }
        script.add(Step::Role, &[b"ROLE"], []);
        for feed in Feed::ALL {
            let names = journal.subscriptions().map(|known| known.of(feed));
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                let words = names.iter().map(Kept::text);
                script.add(Step::Subscribe(feed), &[feed.command()], words);
            }
        }
        Some(Self {
            request: script.written(),
            steps: script.steps(),
        })
    }

    /// The bytes to write, at once.
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// Judges the replies to it.
    pub fn check(&self) -> Check {
        Check {
            replies: Replies::new(),
            steps: self.steps.clone(),
            answered: 0,
            head: [0; HEAD_MAX],
            head_len: 0,
            value: Vec::new(),
            heard: Vec::new(),
            failed: None,
            of_replica: false,
        }
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// The commands of a replay, not yet written.
#[derive(Default)]
struct Script<'a>(Vec<(Step, Vec<&'a [u8]>)>);

impl<'a> Script<'a> {
    fn add(&mut self, step: Step, words: &[&'a [u8]], values: impl IntoIterator<Item = &'a [u8]>) {
        let command = words.iter().copied().chain(values).collect();
        self.0.push((step, command));
    }

    /// Protocol, user and name: in one HELLO if the client used it, as the protocol must fit all that follows.
    fn identify(&mut self, journal: &'a Journal, proto: Option<&'a str>) {
        let credentials = match journal.identity() {
            Identity::Known(credentials) => Some(credentials),
            Identity::Unsaid | Identity::NotKept => None,
        };
        let name = journal.texts().and_then(|texts| texts.name.as_ref());
        if let Some(proto) = proto {
            let mut words: Vec<&[u8]> = vec![proto.as_bytes()];
            if let Some(credentials) = credentials {
                words.extend([
                    &b"AUTH"[..],
                    credentials.user(),
                    credentials.password.text(),
                ]);
            }
            if let Some(name) = name {
                words.extend([&b"SETNAME"[..], name.text()]);
            }
            self.add(Step::Hello, &[b"HELLO"], words);
            return;
        }
        if let Some(credentials) = credentials {
            let user = credentials.user.iter().map(Kept::text);
            let words = user.chain([credentials.password.text()]);
            self.add(Step::Auth, &[b"AUTH"], words);
        }
        if let Some(name) = name {
            self.add(Step::Name, &[b"CLIENT", b"SETNAME"], [name.text()]);
        }
    }

    /// What each reply is to. A subscription is confirmed name by name.
    fn steps(&self) -> Vec<Step> {
        let each = self.0.iter().map(|(step, words)| match step {
            Step::Subscribe(_) => std::iter::repeat_n(*step, words.len() - 1),
            _ => std::iter::repeat_n(*step, 1),
        });
        each.flatten().collect()
    }

    /// Written into room of exactly the right size: a buffer that grows leaves credentials in freed memory.
    fn written(&self) -> Zeroizing<Vec<u8>> {
        let header = |kind: char, n: usize| format!("{kind}{n}\r\n");
        let size: usize = self
            .0
            .iter()
            .map(|(_, words)| {
                let each = |word: &&[u8]| header('$', word.len()).len() + word.len() + 2;
                header('*', words.len()).len() + words.iter().map(each).sum::<usize>()
            })
            .sum();
        let mut out = Zeroizing::new(Vec::with_capacity(size));
        for (_, words) in &self.0 {
            out.extend_from_slice(header('*', words.len()).as_bytes());
            for word in words {
                out.extend_from_slice(header('$', word.len()).as_bytes());
                out.extend_from_slice(word);
                out.extend_from_slice(b"\r\n");
            }
        }
        debug_assert_eq!(out.len(), size);
        out
    }
}

/// Swallows and judges the replies to a replay.
#[derive(Clone)]
pub struct Check {
    replies: Replies,
    steps: Vec<Step>,
    answered: usize,
    /// The first bytes of the current reply.
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// All of the current value, once subscriptions are being confirmed.
    value: Vec<u8>,
    /// What is the client's.
    heard: Vec<u8>,
    failed: Option<Failure>,
    /// It is to be a replica, not a master.
    of_replica: bool,
}

impl Check {
    /// The new connection is to lead to a replica, or (`false`) to a master.
    pub const fn of_replica(mut self, replica: bool) -> Self {
        self.of_replica = replica;
        self
    }

    /// Takes what the new master sent.
    pub fn take(&mut self, mut bytes: &[u8]) -> Answer {
        while self.failed.is_none() {
            if self.is_subscribed() {
                self.heard.extend_from_slice(bytes);
                return Answer::Done;
            }
            match self.replies.next(bytes) {
                Ok(Heard::More) => {
                    self.keep(bytes);
                    break;
                }
                Ok(Heard::Ended { used, kind }) => {
                    let (reply, rest) = bytes.split_at(used);
                    bytes = rest;
                    self.keep(reply);
                    if let Some(&Step::Subscribe(feed)) = self.steps.get(self.answered) {
                        self.confirm(feed, kind);
                    } else if kind != Kind::Push {
                        self.failed = self.judge(kind);
                        self.answered += 1;
                    }
                    self.head_len = 0;
                }
                Err(doubt) => self.failed = Some(Failure::Unclear(doubt)),
            }
        }
        match self.failed {
            Some(why) => Answer::Failed(why),
            None if self.answered < self.steps.len() => Answer::NotYet,
            // Half a reply behind the last one: the connection is not at a boundary.
            None if !self.replies.at_boundary() => Answer::Failed(Failure::Unasked),
            None => Answer::Done,
        }
    }

    /// The messages that came meanwhile, and what came behind the last confirmation: the client's, in this order.
    pub fn into_heard(self) -> Vec<u8> {
        self.heard
    }

    /// True behind the last confirmation of a replay that subscribes.
    fn is_subscribed(&self) -> bool {
        self.answered == self.steps.len() && matches!(self.steps.last(), Some(Step::Subscribe(_)))
    }

    /// A value has come where a name is to be confirmed.
    fn confirm(&mut self, feed: Feed, kind: Kind) {
        let said = announcement(&self.value).map(|(word, _)| word);
        match (kind, said) {
            (Kind::Error, _) => self.failed = self.failed.or_else(|| self.judge(kind)),
            (_, Some(Word::Subscribed(confirmed))) if confirmed == feed => self.answered += 1,
            (Kind::Push, _) | (Kind::Value, Some(Word::Message)) => {
                self.heard.append(&mut self.value);
            }
            (Kind::Value, _) => self.failed = Some(Failure::Unasked),
        }
        self.value.clear();
    }

    fn keep(&mut self, part: &[u8]) {
        if let Some(Step::Subscribe(_)) = self.steps.get(self.answered) {
            if self.value.len() + self.heard.len() + part.len() > HEARD_MAX {
                self.failed = Some(Failure::TooMuch);
                return;
            }
            self.value.extend_from_slice(part);
        }
        for (to, from) in self.head.iter_mut().skip(self.head_len).zip(part) {
            *to = *from;
            self.head_len += 1;
        }
    }

    fn judge(&self, kind: Kind) -> Option<Failure> {
        let Some(&step) = self.steps.get(self.answered) else {
            return Some(Failure::Unasked);
        };
        let head = self.head.get(..self.head_len).unwrap_or_default();
        if kind != Kind::Error {
            let role = if self.of_replica {
                SAYS_REPLICA
            } else {
                SAYS_MASTER
            };
            let is_fine = step != Step::Role || says_role(head, role);
            return (!is_fine).then_some(Failure::NotMaster);
        }
        let says = |text: &[u8]| head.get(1..).is_some_and(|head| starts_with(head, text));
        if says(b"LOADING ") || says(b"BUSY ") {
            return Some(Failure::NotReady(step));
        }
        if says(b"ERR max number of clients") {
            return Some(Failure::TooManyClients);
        }
        if says(b"WRONGPASS ") || says(b"NOAUTH ") || says(b"NOPERM ") {
            // A login that may not ask for the role was verified by other means.
            let tolerated = step == Step::Role && !says(b"WRONGPASS ");
            return (!tolerated).then_some(Failure::Denied(step));
        }
        // The password came here before it came there: nobody is asked for one yet.
        let unneeded = says(b"ERR AUTH <password> called without any password")
            || says(b"ERR Client sent AUTH, but no password is set");
        if step == Step::Login && unneeded {
            return None;
        }
        // What a server of another version does not know was a hint to the old one, too.
        let optional = matches!(step, Step::LibInfo | Step::NoTouch | Step::Capa);
        (!(optional && says(b"ERR unknown "))).then_some(Failure::Refused(step))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("steps", &self.steps)
            .field("answered", &self.answered)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

/// How the role comes in an answer to ROLE.
const SAYS_MASTER: &[&[u8]] = &[b"$6\r", b"master\r"];
const SAYS_REPLICA: &[&[u8]] = &[b"$5\r", b"slave\r"];

/// ROLE's answer is an array that begins with the role.
fn says_role(head: &[u8], role: &[&[u8]]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n');
    lines.next().is_some_and(|line| line.starts_with(b"*"))
        && role.iter().all(|word| lines.next() == Some(word))
}

/// In any case.
fn starts_with(text: &[u8], beginning: &[u8]) -> bool {
    text.get(..beginning.len())
        .is_some_and(|text| text.eq_ignore_ascii_case(beginning))
}
