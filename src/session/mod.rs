//! The life of one client connection through the proxy.

use std::time::Duration;

/// The part of a `[[proxy]]` entry and of `[failover]` that concerns sessions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest wait for a TCP connection to the master.
    pub connect_timeout: Duration,
    /// `TCP_USER_TIMEOUT` of the upstream leg: unacknowledged bytes older than this end the session.
    pub upstream_user_timeout: Duration,
    /// Most clients of one worker set that wait for a master at once (per proxy entry).
    pub max_held: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(500),
            upstream_user_timeout: Duration::from_secs(30),
            max_held: 10_000,
        }
    }
}
