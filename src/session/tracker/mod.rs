//! What is known of a session between its client and its master, from nothing but the bytes that pass: how many requests are
//! unanswered, and what a new connection would have to be told to be like this one.
//!
//! ```text
//! client --bytes--> [written to the master] --> client_bytes --+--> in flight, pending commands, journal --> movable?
//! client <--bytes-- [read from the master]  --> master_bytes --+
//! ```
//!
//! Passive: it is shown bytes that are forwarded in any case, and never changes, delays or keeps them. Where it does not
//! understand, or a session cannot be carried over by what is kept here, it *retires*, for good: the session is then as in close mode.
//! Whatever a command asks for counts when its reply says that it was accepted, in the order of replies; an ordinary command
//! is no more than one in a counter.

mod captured;
mod listen;
#[cfg(test)]
mod listening_tests;
mod packed;
mod pending;
mod repeat;
#[cfg(test)]
mod repeating_tests;
mod retire;
#[cfg(test)]
mod tests;

use super::journal::{Greeting, Identity, Journal, Kept, Noted};
use crate::resp::command::{Command, Meaning};
use crate::resp::{Ahead, Heard, Kind, Replies, Request, Requests, Scan};

use captured::Captured;
use listen::{Awaited, Head};
pub use packed::Packed;
use pending::{Pending, Staged, Turn};
pub use repeat::READS;
use repeat::Repeat;
pub use retire::{Retire, WhyNot};

/// Settings of the proxy entry that a tracker has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The proxy logs in by itself on each new connection (`[proxy.login]`).
    pub login: bool,
    /// A client's own credentials may be kept for a replay (`replay_auth`).
    pub replay_auth: bool,
    /// Subscriptions are followed and carried over (`pubsub = "move"`).
    pub pubsub: bool,
    /// A read that is alone in flight is kept, to be sent again (`resend_reads`).
    pub resend_reads: bool,
}

/// What the master's bytes say of the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sight {
    /// Nothing out of the ordinary.
    Nothing,
    /// It refused as a replica does (READONLY, REDIRECT): look whether it is still the master.
    NotMaster,
}

impl Sight {
    fn or(self, other: Self) -> Self {
        match self {
            Self::Nothing => other,
            Self::NotMaster => self,
        }
    }
}

/// Why bytes must not be written to the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// WAIT or WAITAOF on a session that has moved: the new master would confirm writes it never got from this client.
    Wait,
    /// On a session that has moved: what follows is not understood, so it might be such a command.
    Unclear,
}

/// How bytes that were not yet written divide into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// The end of the first request that ends here: the one that was begun before, if there is one.
    pub first: Option<usize>,
    /// The end of the last one; 0 if none ends here. All before it may be written and leave the master at a boundary.
    pub last: usize,
}

/// The tracker of one session. To be shown each byte once, in the order of the stream; of a write before the
/// next read.
#[derive(Debug)]
pub struct Tracker {
    requests: Requests,
    replies: Replies,
    pending: Pending,
    journal: Journal,
    /// Arguments of the request that is being read, if it is one of the few.
    captured: Option<Box<Captured>>,
    /// There while what the master says has to be listened to: it is subscribed to something, or about to be.
    head: Option<Box<Head>>,
    /// There where a request may be sent again.
    repeat: Option<Box<Repeat>>,
    retired: Option<Retire>,
    rules: Rules,
    in_transaction: bool,
    watching: bool,
    leaving: bool,
    moved: bool,
    /// HELLO may have been answered, which tells the connection's id.
    greeted: bool,
}

impl Tracker {
    /// Of a session that has said nothing yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            requests: Requests::new(),
            replies: Replies::new(),
            pending: Pending::new(),
            journal: Journal::default(),
            captured: None,
            head: None,
            repeat: rules.resend_reads.then(Box::default),
            retired: None,
            rules,
            in_transaction: false,
            watching: false,
            leaving: false,
            moved: false,
            greeted: false,
        }
    }

    /// These bytes were written to the master.
    #[inline]
    pub fn client_bytes(&mut self, mut bytes: &[u8]) {
        if self.repeat.is_some() {
            self.keep_for_repeat(bytes);
        }
        while !self.is_blind() {
            match self.requests.next(bytes, &mut self.captured) {
                Ok(Scan::More) => return,
                Ok(Scan::Ended { used, request }) => {
                    bytes = &bytes[used..];
                    match request {
                        Request::Silent => {}
                        Request::Ordinary => self.sent(),
                        Request::Command(command) => self.commanded(command),
                    }
                }
                Err(doubt) => {
                    self.retire(Retire::RequestUnclear(doubt));
                    return;
                }
            }
        }
    }

    /// These bytes were read from the master, and are the client's.
    #[inline]
    pub fn master_bytes(&mut self, mut bytes: &[u8]) -> Sight {
        if self.head.is_some() {
            return self.listened_bytes(bytes);
        }
        let mut sight = Sight::Nothing;
        while self.retired.is_none() {
            match self.replies.next(bytes) {
                Ok(Heard::More) => break,
                Ok(Heard::Ended { used, kind }) => {
                    bytes = &bytes[used..];
                    if kind == Kind::Error && self.refused_as_replica() {
                        sight = Sight::NotMaster;
                    }
                    self.answered(kind);
                }
                Err(doubt) => self.retire(Retire::reply(doubt)),
            }
        }
        sight
    }

    /// The proxy has logged in on its connection, or will on the next: RESET would undo that.
    pub fn logged_in(&mut self) {
        self.rules.login = true;
    }

    /// The session has been carried to a connection to another master, and everything was replayed.
    ///
    /// Only after [`movable`](Self::movable) said so; and not for the first connection of a session.
    pub fn moved(&mut self) {
        debug_assert_eq!(self.movable(), Ok(()));
        self.moved = true;
        self.greeted = false;
        self.replies = Replies::new();
    }

    /// Whether this session can be carried over now, as far as it can be known from its bytes.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn movable(&self) -> Result<(), WhyNot> {
        // None of a session that has retired.
        match (self.pending.in_flight(), self.obstacle()) {
            (1.., _) => Err(WhyNot::InFlight(self.pending.in_flight())),
            (0, Some(why)) => Err(why),
            (0, None) => Ok(()),
        }
    }

    /// True when more than requests and their replies stands against carrying it over: no answer to what was asked so far
    /// need change that.
    pub fn is_bound(&self) -> bool {
        let passes = |why| matches!(why, WhyNot::MidReply | WhyNot::MidRequest);
        self.obstacle().is_some_and(|why| !passes(why))
    }

    /// What stands against carrying it over apart from requests in flight.
    fn obstacle(&self) -> Option<WhyNot> {
        if let Some(why) = self.retired {
            Some(WhyNot::Retired(why))
        } else if !self.replies.at_boundary() {
            Some(WhyNot::MidReply)
        } else if !self.requests.at_boundary() {
            Some(WhyNot::MidRequest)
        } else if self.in_transaction {
            Some(WhyNot::InTransaction)
        } else if self.watching {
            Some(WhyNot::Watching)
        } else if self.leaving {
            Some(WhyNot::Leaving)
        } else if self.journal.lacks_credentials() {
            Some(WhyNot::NoCredentials)
        } else {
            None
        }
    }

    /// What must be refused in bytes that are about to be written, and where it begins; to be asked before each write. What comes
    /// before it may be written. Costs nothing on a session that has never moved.
    #[inline]
    pub fn refuses(&self, unwritten: &[u8]) -> Option<(usize, Refusal)> {
        if !self.moved {
            return None;
        }
        self.first_refusal(unwritten)
    }

    /// How bytes that come next, and were not yet written, divide into requests.
    pub fn outlook(&self, unwritten: &[u8]) -> Outlook {
        let mut outlook = Outlook {
            first: None,
            last: 0,
        };
        for request in self.ahead(unwritten).map_while(Result::ok) {
            outlook.first.get_or_insert(request.end);
            outlook.last = request.end;
        }
        outlook
    }

    /// The complete requests in bytes that come next, and were not yet written; for those that are to be answered
    /// here, and not by a master. Ends with an error where it does not understand.
    pub fn ahead<'a>(&self, unwritten: &'a [u8]) -> Ahead<'a> {
        self.requests.ahead(unwritten)
    }

    /// Why it is tracked no longer, if so.
    pub fn retired(&self) -> Option<Retire> {
        self.retired
    }

    /// Requests that were written and not answered; 0 when retired.
    pub fn in_flight(&self) -> u32 {
        self.pending.in_flight()
    }

    /// True when the last byte that was written ended a request.
    pub fn at_request_boundary(&self) -> bool {
        self.requests.at_boundary()
    }

    /// True when every request was answered, and neither side is in the middle of anything.
    pub fn is_settled(&self) -> bool {
        self.in_flight() == 0 && self.replies.at_boundary() && self.requests.at_boundary()
    }

    /// True from MULTI or WATCH until what ends it is written, as long as the bytes are followed.
    pub fn has_transaction(&self) -> bool {
        self.retired.is_none() && self.is_transacting() && !self.pending.has_transaction_end()
    }

    /// True when no reply that is due says that anything was executed, as long as the master [is queueing](Self::is_queueing) behind them:
    /// then it has queued all of it for an EXEC that it was not sent. One that refuses MULTI executes what comes behind it.
    pub fn only_queues(&self) -> bool {
        self.retired.is_none()
            && if self.in_transaction {
                !self.pending.has_transaction_end()
            } else {
                self.pending.is_queued_behind_multi()
            }
    }

    /// True when MULTI was accepted, and nothing that ends it was.
    pub fn is_queueing(&self) -> bool {
        self.retired.is_none() && self.in_transaction
    }

    /// True from MULTI or WATCH to what ends it: a client that goes on here is in the middle of something.
    pub fn is_transacting(&self) -> bool {
        self.in_transaction || self.watching || self.pending.has_transaction()
    }

    /// True when the server was told to close, or to end, and has not refused: its end of the stream ends the session.
    pub fn is_leaving(&self) -> bool {
        self.leaving || self.pending.has_parting()
    }

    /// True when the session has been carried over before.
    pub fn has_moved(&self) -> bool {
        self.moved
    }

    /// True when its master may say something without being asked.
    pub fn is_subscribed(&self) -> bool {
        self.journal.is_subscribed()
    }

    /// What a new connection would have to be told.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// True when a new client may have this connection instead of one of its own. Not so when the id was shown: who was
    /// told it may still use it, to kill or to redirect to, and means another.
    pub fn is_spotless(&self) -> bool {
        self.movable().is_ok() && self.journal.is_empty() && !self.greeted
    }

    /// Nothing more is to be learnt from the client's bytes. A session that has moved is read on even when it has retired,
    /// as [`refuses`](Self::refuses) has to know where its requests begin.
    fn is_blind(&self) -> bool {
        self.retired.is_some() && !self.moved
    }

    fn first_refusal(&self, unwritten: &[u8]) -> Option<(usize, Refusal)> {
        let mut end = 0;
        for request in self.ahead(unwritten) {
            match request {
                Ok(request) if request.request == Request::Command(Command::Wait) => {
                    return Some((request.start, Refusal::Wait));
                }
                Ok(request) => end = request.end,
                Err(_) => return Some((end, Refusal::Unclear)),
            }
        }
        None
    }

    fn refused_as_replica(&self) -> bool {
        matches!(self.replies.error_code(), b"READONLY" | b"REDIRECT")
    }

    fn sent(&mut self) {
        if self.retired.is_none() && self.pending.push_ordinary().is_err() {
            self.retire(Retire::TooManyPending);
        }
    }

    /// One of the few was written: what it asks for waits for its reply, unless replies can no longer be told apart behind it.
    fn commanded(&mut self, command: Command) {
        let captured = self.captured.take();
        if self.retired.is_some() {
            return;
        }
        self.greeted |= command == Command::Hello;
        let staged = match &captured {
            None => self.stage(command.meaning(&[], false), 0),
            Some(captured) if captured.overflowed() => Err(Retire::TooLong),
            Some(captured) => captured.with(|arguments| {
                let meaning = command.meaning(arguments, captured.more());
                self.stage(meaning, captured.total())
            }),
        };
        match staged {
            Ok(None) => self.sent(),
            Ok(Some(staged)) => {
                self.listen_for(&staged);
                if self.pending.push(staged).is_err() {
                    self.retire(Retire::TooManyPending);
                }
            }
            Err(why) => self.retire(why),
        }
    }

    /// What is to happen when the command, which has so many arguments, is answered; an error if it has to happen at once.
    fn stage(&self, meaning: Meaning<'_>, arguments: u32) -> Result<Option<Staged>, Retire> {
        let keep = self.rules.replay_auth;
        Ok(Some(match meaning {
            Meaning::Plain => return Ok(None),
            Meaning::Subscribes(feed) if self.rules.pubsub => {
                Staged::Feed(Awaited::subscribes(feed, arguments))
            }
            Meaning::Unsubscribes(feed) if self.rules.pubsub => {
                Staged::Feed(Awaited::unsubscribes(feed, arguments))
            }
            // Behind these, replies do not pair with requests, or are none.
            Meaning::Subscribes(_) | Meaning::Unsubscribes(_) => return Err(Retire::Subscribed),
            Meaning::Mutes => return Err(Retire::RepliesOff),
            Meaning::Monitors => return Err(Retire::Monitoring),
            Meaning::Replicates => return Err(Retire::Replicating),
            Meaning::Debugs => return Err(Retire::Debugging),
            Meaning::Asks => return Err(Retire::Asking),
            // These have one reply. Refused, they changed nothing and the session goes on: client libraries try
            // out on each new connection what a server may not know.
            Meaning::Tracks => Staged::Retire(Retire::Tracking),
            Meaning::ShowsId => Staged::Retire(Retire::IdShown),
            Meaning::ClientUnknown => Staged::Retire(Retire::ClientCommand),
            Meaning::Unread => Staged::Retire(Retire::Unread),
            Meaning::Multi => Staged::Multi,
            Meaning::Exec => Staged::Exec,
            Meaning::Discard => Staged::Discard,
            Meaning::Watch => Staged::Watch,
            Meaning::Unwatch => Staged::Unwatch,
            Meaning::Select(db) => Staged::Select(db),
            Meaning::Auth(login) => Staged::Auth(Box::new(Identity::new(login, keep))),
            Meaning::Hello(hello) => Staged::Hello(Box::new(Greeting::new(hello, keep))),
            Meaning::HelloUnread => Staged::HelloUnread,
            Meaning::Name(name) => Staged::Name(Kept::new(name)),
            Meaning::LibName(name) => Staged::LibName(Kept::new(name)),
            Meaning::LibVer(version) => Staged::LibVer(Kept::new(version)),
            Meaning::NoEvict(on) => Staged::NoEvict(on),
            Meaning::NoTouch(on) => Staged::NoTouch(on),
            Meaning::Capa(words) => {
                Staged::Capa(words.iter().map(|word| Kept::new(word)).collect())
            }
            Meaning::Readonly(on) => Staged::Readonly(on),
            Meaning::Reset => Staged::Reset,
            Meaning::Quit => Staged::Quit,
            Meaning::Shutdown => Staged::Shutdown,
        }))
    }

    fn answered(&mut self, kind: Kind) {
        if kind == Kind::Push {
            return;
        }
        match self.pending.pop() {
            Turn::Ordinary => {}
            Turn::Staged(staged) if kind == Kind::Error => self.refused(&staged),
            Turn::Staged(staged) => self.accepted(staged),
            Turn::Nobodys => self.retire(Retire::Unasked),
        }
    }

    fn refused(&mut self, staged: &Staged) {
        match staged {
            Staged::HelloUnread => self.retire(Retire::HelloRefused),
            Staged::Hello(greeting) if greeting.may_half_succeed() => {
                self.retire(Retire::HelloRefused);
            }
            Staged::Feed(awaited) if awaited.has_begun() => self.retire(Retire::Unasked),
            // The transaction is dropped, and with it the watched keys. Any other error says there was none.
            Staged::Exec if self.replies.error_code() == b"EXECABORT" => self.transaction_ended(),
            _ => {}
        }
    }

    fn accepted(&mut self, staged: Staged) {
        if self.in_transaction && staged.is_queued_in_transaction() {
            // It waits for EXEC, whose reply would have to be looked into; UNWATCH is of no account there.
            if !matches!(staged, Staged::Unwatch) {
                self.retire(Retire::SetInTransaction);
            }
            return;
        }
        let noted = match staged {
            Staged::Multi => {
                self.in_transaction = true;
                Noted::Yes
            }
            Staged::Exec | Staged::Discard => {
                self.transaction_ended();
                Noted::Yes
            }
            Staged::Watch => {
                self.watching = true;
                Noted::Yes
            }
            Staged::Unwatch => {
                self.watching = false;
                Noted::Yes
            }
            Staged::Select(db) => {
                self.journal.db = db;
                Noted::Yes
            }
            Staged::NoEvict(on) => {
                self.journal.no_evict = on;
                Noted::Yes
            }
            Staged::NoTouch(on) => {
                self.journal.no_touch = on;
                Noted::Yes
            }
            Staged::Readonly(on) => {
                self.journal.readonly = on;
                Noted::Yes
            }
            Staged::Quit => {
                self.leaving = true;
                Noted::Yes
            }
            // A reply to SHUTDOWN is that of SHUTDOWN ABORT.
            Staged::Shutdown => Noted::Yes,
            Staged::Auth(identity) => self.journal.authenticated(*identity),
            Staged::Hello(greeting) => self.journal.greeted(*greeting),
            Staged::Name(name) => self.journal.named(&name),
            Staged::LibName(name) => self.journal.lib_named(&name),
            Staged::LibVer(version) => self.journal.lib_versioned(&version),
            Staged::Capa(words) => self.journal.capable(words),
            Staged::HelloUnread => {
                self.retire(Retire::Unread);
                Noted::Yes
            }
            Staged::Retire(why) => {
                self.retire(why);
                Noted::Yes
            }
            // It is confirmed, not answered.
            Staged::Feed(_) => {
                self.retire(Retire::Subscribed);
                Noted::Yes
            }
            Staged::Reset => {
                self.reset();
                Noted::Yes
            }
        };
        if noted == Noted::Full {
            self.retire(Retire::TooLong);
        }
    }

    fn reset(&mut self) {
        let capable = self.journal.texts().is_some_and(|t| !t.capa.is_empty());
        // Servers differ in what they clear of the first three; and the proxy's own login would be gone.
        if self.journal.no_evict || self.journal.no_touch || capable || self.rules.login {
            self.retire(Retire::Reset);
            return;
        }
        self.transaction_ended();
        self.journal.reset();
    }

    fn transaction_ended(&mut self) {
        self.in_transaction = false;
        self.watching = false;
    }

    /// The one way out. What was kept is wiped at once.
    fn retire(&mut self, why: Retire) {
        self.retired.get_or_insert(why);
        self.pending = Pending::new();
        self.journal = Journal::default();
        self.captured = None;
        self.head = None;
        self.repeat = None;
    }
}
