//! What was observed in a run: every request of every client, who executed it, what the proxy said, what was
//! done to whom. Plain data; nothing here talks to anything.

use std::net::SocketAddr;

/// Microseconds of the wall clock since 1970: the proxy's log lines carry no other time.
pub(crate) type Micros = u64;

/// A write's unique number.
pub(crate) type Token = u64;

/// Length and hash of a payload; two payloads with the same are taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    /// Bytes.
    pub(crate) len: u32,
    /// Hash of the bytes.
    pub(crate) hash: u64,
}

/// What a client asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `RPUSH` of a token to the client's own list.
    Push(Token),
    /// `RPUSH` of a token to the client's own queue, from which it is popped again.
    Enqueue(Token),
    /// `BLPOP` of the client's own queue.
    Pop,
    /// `ECHO` of a payload.
    Echo(Digest),
    /// `SET` of a payload to a key that is never used again.
    Store(Digest),
    /// `GET` of the key just stored.
    Fetch(Digest),
    /// `PUBLISH` of the next number.
    Publish(u64),
    /// The next message of a subscription.
    Receive,
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// An integer.
    Int(i64),
    /// `+OK`
    Done,
    /// A payload.
    Bulk(Digest),
    /// A token taken from the queue.
    Popped(Token),
    /// A published number.
    Message(u64),
    /// No value.
    Nil,
    /// An error.
    Error(Box<str>),
    /// Nothing that this request can be answered with.
    Other(Box<str>),
}

/// What a client knows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was a reply.
    Replied(Reply),
    /// There was no connection to send it on.
    NotSent,
    /// Sent, at least in part, and not answered.
    Unknown,
}

/// One request of one client.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    /// The client.
    pub(crate) client: u16,
    /// The connection; its requests are recorded in the order in which they were written.
    pub(crate) session: u32,
    /// Just before its first byte was written.
    pub(crate) began: Micros,
    /// Just after its reply was read, or its connection given up.
    pub(crate) ended: Micros,
    /// See [`Request`].
    pub(crate) request: Request,
    /// See [`Outcome`].
    pub(crate) outcome: Outcome,
}

impl Op {
    /// The token it writes, if any.
    pub(crate) fn token(&self) -> Option<Token> {
        match self.request {
            Request::Push(token) | Request::Enqueue(token) => Some(token),
            _ => None,
        }
    }

    /// Whether it is a write of which the client was told that it was done.
    pub(crate) fn is_acked_write(&self) -> bool {
        self.token().is_some() && matches!(self.outcome, Outcome::Replied(Reply::Int(_)))
    }
}

/// A token that a node executed for a client of its own (not for its master).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Executed {
    /// The node.
    pub(crate) node: SocketAddr,
    /// The token.
    pub(crate) token: Token,
}

/// The proxy said that from now on it serves this master: `ready` or `switched`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// The time in the line.
    pub(crate) at: Micros,
    /// The master.
    pub(crate) to: SocketAddr,
}

/// One fault, from its beginning to the calm after it.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// What was done, without its particulars.
    pub(crate) kind: &'static str,
    /// What was done.
    pub(crate) what: String,
    /// Just before it.
    pub(crate) from: Micros,
    /// All was healed.
    pub(crate) to: Micros,
    /// A planned failover with nothing else in its way: loses no acknowledged write.
    pub(crate) clean_planned: bool,
    /// Replication may have lost something: a data node was killed, frozen or moved by hand.
    pub(crate) disturbs_replication: bool,
}

/// What the proxy used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resources {
    /// Descriptors of a proxy that has no client yet.
    pub(crate) fds_before: usize,
    /// Descriptors when all clients had gone.
    pub(crate) fds_after: usize,
    /// Largest resident memory seen, KiB.
    pub(crate) rss_peak_kib: u64,
    /// The latest that the run itself was woken, milliseconds: a machine that is short of time makes everything
    /// on it stand still now and then.
    pub(crate) late_ms: u64,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Every request.
    pub(crate) ops: Vec<Op>,
    /// Every write that a witness saw; witnesses are cut now and then, so not all there were.
    pub(crate) executed: Vec<Executed>,
    /// By time.
    pub(crate) declared: Vec<Declared>,
    /// When the proxy gave an announced failover up: for a while after it, or until it has switched, it holds for none.
    pub(crate) given_up: Vec<Micros>,
    /// By time; they do not overlap.
    pub(crate) rounds: Vec<Round>,
    /// The tokens on the master at the end, each as often as it is there.
    pub(crate) present: Vec<Token>,
    /// See [`Resources`].
    pub(crate) resources: Resources,
    /// Healed, and yet new clients were not served by the master in time.
    pub(crate) stuck: Vec<String>,
}
