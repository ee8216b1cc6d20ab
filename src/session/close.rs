//! Every way a session can end: whose doing it was, how loudly it is said, and its word in logs and metrics.

use std::fmt;

/// Why a session ended. There is no variant for "something else": a new way to end gets its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed, and everything it was owed was relayed.
    ClientClosed,
    /// The client reset the connection or vanished.
    ClientReset,
    /// The client closed while it waited for a master, or while its bytes were withheld; they were never sent.
    ClientLeftWaiting,
    /// The master closed (QUIT, CLIENT KILL, its own timeout or output limit, its end).
    UpstreamClosed,
    /// The master reset the connection, or acknowledged nothing for too long.
    UpstreamReset,
    /// Another master was published; the client is to reconnect.
    Switched,
    /// A hold lasted longer than `hold_max`.
    HeldTooLong,
    /// No master was ever verified within `hold_max`.
    NoMaster,
    /// `max_held` clients were waiting already.
    TooManyWaiting,
    /// The published master could not be reached within `hold_max` of the first try, or of getting in line for it.
    DialFailed,
    /// The kernel had no room to watch the client's socket (`epoll_ctl(2)`).
    NotWatched,
    /// WAIT or WAITAOF on a session that has been moved: its answer would be about another connection.
    WaitRefused,
    /// The new master refused what the session needs (its login, its database).
    ReplayRefused,
    /// The proxy is ending, and nothing of this session was under way.
    Shutdown,
    /// The proxy ended while something was: its time to drain was over, or it was told to end at once.
    ShutdownForced,
    /// A defect in the proxy ended this session and no other.
    Panicked,
    /// It goes on in the process that follows this one (an upgrade); its client has noticed nothing.
    HandedOver,
    /// The client spoke HTTP; the master saw nothing of it, as of the next two.
    SpokeHttp,
    /// The client spoke TLS where none is spoken.
    SpokeTls,
    /// The client sent a header of the PROXY protocol where none is expected.
    SpokeProxy,
    /// The client had asked for nothing in `first_request_timeout`, and others need its place.
    NoRequest,
    /// The client took none of the replies that there were for it in `write_stall_timeout`.
    WriteStalled,
    /// The master refused the proxy's own login (`[proxy.login]`).
    LoginRefused,
}

/// Whose doing an end was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client's.
    Client,
    /// The master's, or the network's on the way to it.
    Upstream,
    /// The failover's: there was no master to serve it, or it changed.
    Failover,
    /// The operator's: an end that was asked for.
    Operator,
    /// Ours.
    Proxy,
}

impl CloseReason {
    /// Every reason once, in the order of their indices.
    pub const ALL: [Self; 23] = [
        Self::ClientClosed,
        Self::ClientReset,
        Self::ClientLeftWaiting,
        Self::UpstreamClosed,
        Self::UpstreamReset,
        Self::Switched,
        Self::HeldTooLong,
        Self::NoMaster,
        Self::TooManyWaiting,
        Self::DialFailed,
        Self::NotWatched,
        Self::WaitRefused,
        Self::ReplayRefused,
        Self::Shutdown,
        Self::ShutdownForced,
        Self::Panicked,
        Self::HandedOver,
        Self::SpokeHttp,
        Self::SpokeTls,
        Self::SpokeProxy,
        Self::NoRequest,
        Self::WriteStalled,
        Self::LoginRefused,
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word for logs and metrics; public interface.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientReset => "client_reset",
            Self::ClientLeftWaiting => "client_left_waiting",
            Self::UpstreamClosed => "upstream_closed",
            Self::UpstreamReset => "upstream_reset",
            Self::Switched => "switched",
            Self::HeldTooLong => "held_too_long",
            Self::NoMaster => "no_master",
            Self::TooManyWaiting => "too_many_waiting",
            Self::DialFailed => "dial_failed",
            Self::NotWatched => "not_watched",
            Self::WaitRefused => "wait_refused",
            Self::ReplayRefused => "replay_refused",
            Self::Shutdown => "shutdown",
            Self::ShutdownForced => "shutdown_forced",
            Self::Panicked => "panicked",
            Self::HandedOver => "handed_over",
            Self::SpokeHttp => "http",
            Self::SpokeTls => "tls",
            Self::SpokeProxy => "proxy_header",
            Self::NoRequest => "no_request",
            Self::WriteStalled => "write_stalled",
            Self::LoginRefused => "login_refused",
        }
    }

    /// Whose doing it was.
    pub const fn fault(self) -> Fault {
        match self {
            Self::ClientClosed
            | Self::ClientReset
            | Self::ClientLeftWaiting
            | Self::SpokeHttp
            | Self::SpokeTls
            | Self::SpokeProxy
            | Self::NoRequest
            | Self::WriteStalled => Fault::Client,
            Self::UpstreamClosed | Self::UpstreamReset | Self::DialFailed | Self::LoginRefused => {
                Fault::Upstream
            }
            Self::Switched
            | Self::HeldTooLong
            | Self::NoMaster
            | Self::TooManyWaiting
            | Self::WaitRefused
            | Self::ReplayRefused => Fault::Failover,
            Self::Shutdown | Self::ShutdownForced | Self::HandedOver => Fault::Operator,
            Self::NotWatched | Self::Panicked => Fault::Proxy,
        }
    }

    /// How loudly one such end is said. What happens in ordinary service, or is told by the one line of a
    /// switch or by one about the client, is said per session at debug only.
    pub const fn level(self) -> tracing::Level {
        match self {
            Self::HeldTooLong
            | Self::NoMaster
            | Self::TooManyWaiting
            | Self::DialFailed
            | Self::ReplayRefused
            | Self::LoginRefused
            | Self::NotWatched => tracing::Level::WARN,
            Self::Panicked => tracing::Level::ERROR,
            Self::ClientClosed
            | Self::ClientReset
            | Self::ClientLeftWaiting
            | Self::UpstreamClosed
            | Self::UpstreamReset
            | Self::Switched
            | Self::WaitRefused
            | Self::Shutdown
            | Self::ShutdownForced
            | Self::SpokeHttp
            | Self::SpokeTls
            | Self::SpokeProxy
            | Self::NoRequest
            | Self::WriteStalled
            | Self::HandedOver => tracing::Level::DEBUG,
        }
    }

    /// What its client did, or did not do, where a line of its own says so.
    pub const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::SpokeHttp => {
                "it spoke HTTP: a browser, a scanner, or a health check that belongs to the admin endpoint (/livez, /readyz)"
            }
            Self::SpokeTls => {
                "it spoke TLS, and this listener does not: set [proxy.client_tls], or use redis:// and not rediss:// for it"
            }
            Self::SpokeProxy => {
                "it sent a header of the PROXY protocol, which is not expected from it: name it in `proxy_protocol_from`, or switch that off at the load balancer before it"
            }
            Self::NoRequest => {
                "it asked for nothing in `first_request_timeout` ([limits]) while three quarters of the places were taken"
            }
            Self::WriteStalled => "it took no replies for `write_stall_timeout` ([limits])",
            _ => return None,
        })
    }

    /// True for ends that concern the upstream alone: a session that can be moved outlives them.
    pub const fn may_part(self) -> bool {
        matches!(
            self,
            Self::Switched | Self::HeldTooLong | Self::UpstreamClosed | Self::UpstreamReset
        )
    }

    /// True when the upstream ended by itself.
    pub const fn is_of_upstream(self) -> bool {
        matches!(self, Self::UpstreamClosed | Self::UpstreamReset)
    }

    /// True when what the kernel has not yet sent to the master must be dropped: it is fenced; or the client is gone, and the
    /// kernel would go on trying until long after a swap; or nobody will hear the reply.
    pub const fn resets_upstream(self) -> bool {
        matches!(
            self,
            Self::Switched
                | Self::HeldTooLong
                | Self::ClientReset
                | Self::ShutdownForced
                | Self::SpokeHttp
                | Self::SpokeTls
                | Self::SpokeProxy
                | Self::NoRequest
                | Self::WriteStalled
                | Self::LoginRefused
        )
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn indices_and_labels_are_unique_and_in_order() {
        let mut labels = HashSet::new();
        for (i, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(labels.insert(reason.label()), "{reason} twice");
        }
    }
}
