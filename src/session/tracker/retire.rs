//! Why a session is tracked no longer, and why it cannot be moved now.

use serde::{Deserialize, Serialize};

use crate::resp::Doubt;

/// Why a session is tracked no longer. Final: from then on it is as in close mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Retire {
    /// The client's bytes are not understood.
    RequestUnclear(Doubt),
    /// The master's bytes are not understood.
    ReplyUnclear(Doubt),
    /// The master streams a value whose length it does not say.
    Streamed,
    /// More unanswered commands that change the session than are kept in mind, or more requests than can be counted.
    TooManyPending,
    /// A command's arguments, or all that would have to be replayed, are too long.
    TooLong,
    /// The server accepted arguments that were not understood.
    Unread,
    /// The master replied to nothing that was asked.
    Unasked,
    /// CLIENT REPLY OFF or SKIP.
    RepliesOff,
    /// CLIENT TRACKING ON.
    Tracking,
    /// The client was shown a client id, which is another's on another server.
    IdShown,
    /// A subcommand of CLIENT that is not known to leave the session movable.
    ClientCommand,
    /// A subscription was asked for or ended, and is not followed (`pubsub`), or not understood.
    Subscribed,
    /// MONITOR
    Monitoring,
    /// SYNC, PSYNC, REPLCONF
    Replicating,
    /// SCRIPT DEBUG
    Debugging,
    /// ASKING
    Asking,
    /// RESET in a state of which it is not certain what it leaves.
    Reset,
    /// A setting was queued in a transaction.
    SetInTransaction,
    /// HELLO with arguments was refused: it may have authenticated before that.
    HelloRefused,
}

impl Retire {
    /// The words there are for logs and metrics; public interface.
    pub const LABELS: [&'static str; 19] = [
        "request_unclear",
        "reply_unclear",
        "streamed",
        "too_many_pending",
        "too_long",
        "unread",
        "unasked",
        "replies_off",
        "tracking",
        "id_shown",
        "client_command",
        "subscribed",
        "monitoring",
        "replicating",
        "debugging",
        "asking",
        "reset",
        "set_in_transaction",
        "hello_refused",
    ];

    /// The place of its word among [`LABELS`](Self::LABELS), and of what is counted by it.
    pub const fn index(self) -> usize {
        match self {
            Self::RequestUnclear(_) => 0,
            Self::ReplyUnclear(_) => 1,
            Self::Streamed => 2,
            Self::TooManyPending => 3,
            Self::TooLong => 4,
            Self::Unread => 5,
            Self::Unasked => 6,
            Self::RepliesOff => 7,
            Self::Tracking => 8,
            Self::IdShown => 9,
            Self::ClientCommand => 10,
            Self::Subscribed => 11,
            Self::Monitoring => 12,
            Self::Replicating => 13,
            Self::Debugging => 14,
            Self::Asking => 15,
            Self::Reset => 16,
            Self::SetInTransaction => 17,
            Self::HelloRefused => 18,
        }
    }

    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        Self::LABELS[self.index()]
    }

    pub(super) const fn reply(doubt: Doubt) -> Self {
        match doubt {
            Doubt::Streamed => Self::Streamed,
            _ => Self::ReplyUnclear(doubt),
        }
    }
}

/// Why a session cannot be moved now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyNot {
    /// It is not tracked any more.
    Retired(Retire),
    /// Requests are unanswered.
    InFlight(u32),
    /// A reply, or a push, is in the middle.
    MidReply,
    /// The last byte that was written is inside a request.
    MidRequest,
    /// MULTI was accepted, and neither EXEC nor DISCARD since.
    InTransaction,
    /// Keys are watched.
    Watching,
    /// QUIT was accepted.
    Leaving,
    /// The client logged in, and its credentials are not kept.
    NoCredentials,
}

impl WhyNot {
    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Retired(_) => "retired",
            Self::InFlight(_) => "in_flight",
            Self::MidReply => "mid_reply",
            Self::MidRequest => "mid_request",
            Self::InTransaction => "in_transaction",
            Self::Watching => "watching",
            Self::Leaving => "leaving",
            Self::NoCredentials => "no_credentials",
        }
    }
}
