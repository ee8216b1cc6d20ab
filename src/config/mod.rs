//! What is run: each room's own `Config` put together. Resolved; cannot be illegal.

use crate::{listener, sentinel, session, telemetry, topology, worker};

/// One `[[proxy]]` entry, resolved.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The entry's name, unique; in every log line and metric.
    pub name: String,
    /// The name Sentinel knows the master by.
    pub master: String,
    /// Accepting.
    pub listener: listener::Config,
    /// Sessions.
    pub session: session::Config,
    /// The login for the proxy's own ROLE checks.
    pub probe: sentinel::Credentials,
}

/// The whole configuration, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[sentinel]`
    pub sentinel: sentinel::Config,
    /// `[failover]`
    pub rules: topology::rules::Rules,
    /// `[[proxy]]`, at least one.
    pub proxies: Vec<Proxy>,
    /// `[limits] workers`
    pub workers: worker::Workers,
    /// `[log]`
    pub log: telemetry::Config,
}
