//! Why a peer of the control plane could not be asked.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::REPLY_TIMEOUT;
use super::reply::{printable, without_arguments};
use crate::net::tls::TlsError;
use crate::sentinel::metered::Meter;

/// Why a peer could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The name has no address now.
    #[error("cannot resolve {0}")]
    Resolve(String),
    /// TCP refused or broke.
    #[error("{0}")]
    Io(String),
    /// The connection was taken and ended at our first words, without TLS.
    #[error("the connection was taken, and ended at the first words ({0})")]
    Ended(String),
    /// This host has no descriptor or no port left: nothing was sent, and nothing is known of the peer.
    #[error("{0}")]
    Local(String),
    /// It is there, and there is no TLS with it.
    #[error("{0}")]
    Tls(TlsError),
    /// No answer in time.
    #[error("no answer within {} ms while {doing}", .limit.as_millis())]
    Timeout {
        /// What we were waiting for.
        doing: &'static str,
        /// How long we waited.
        limit: Duration,
    },
    /// A login is needed.
    #[error("a login is needed: {0}")]
    LoginNeeded(String),
    /// Wrong user or password.
    #[error("login failed: {0}")]
    Auth(String),
    /// The user may not run the command.
    #[error("not permitted: {0}")]
    NoPermission(String),
    /// The peer answered with something else than what the command answers.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl ClientError {
    /// A word for logs and metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "resolve",
            Self::Io(_) | Self::Ended(_) => "connect",
            Self::Local(_) => "local",
            Self::Tls(_) => "tls",
            Self::Timeout { .. } => "timeout",
            Self::LoginNeeded(_) | Self::Auth(_) => "auth",
            Self::NoPermission(_) => "permission",
            Self::Protocol(_) => "protocol",
        }
    }

    pub(super) fn timeout(doing: &'static str, limit: Duration) -> Self {
        Self::Timeout { doing, limit }
    }

    /// The same, or what is behind it.
    pub(super) fn explained(self, meter: &Meter) -> Self {
        match (self, meter.tls_fault()) {
            (Self::Io(_), Some(fault)) => Self::Tls(fault.clone()),
            (Self::Io(why), None) if meter.ended_at_once() => Self::Ended(why),
            (other, _) => other,
        }
    }

    /// What may be the matter beyond its own words, on the leg that this table is for.
    pub fn suspicion(&self, table: &str) -> String {
        match self {
            Self::Ended(_) => {
                format!(": is that its TLS port (tls-port)? Then set ca_file in {table}")
            }
            _ => String::new(),
        }
    }
}

impl From<RedisError> for ClientError {
    fn from(e: RedisError) -> Self {
        let text = match (e.code(), e.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => e.to_string(),
        };
        let text = printable(without_arguments(&text));
        match (e.kind(), e.code()) {
            (_, Some("NOAUTH")) => Self::LoginNeeded(text),
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => Self::Auth(text),
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => Self::NoPermission(text),
            (ErrorKind::Io, _) if e.is_timeout() => Self::timeout("reading a reply", REPLY_TIMEOUT),
            (ErrorKind::Io, _) => Self::Io(text),
            _ => Self::Protocol(text),
        }
    }
}
