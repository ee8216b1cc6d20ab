//! What a Sentinel is to us: somebody who publishes hints and answers questions. Sentinels are asked here and
//! believed in `topology`; this room never decides who is master.
//!
//! ```text
//! Sentinel --events--> watcher --asks--> Sentinel --answer--> watcher --Observation--> control
//! ```

pub mod client;
pub mod discovery;
pub mod event;
mod lister;
mod metered;
mod rhythm;
mod told;
pub mod watcher;

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::net::addr::SentinelAddr;
use crate::net::address_map::AddressMap;
use crate::net::tls::Connector;
use crate::topology::observation::RunId;

/// A login. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// ACL user; `None` logs in as the default user.
    pub username: Option<String>,
    /// Password; `None` sends no login.
    pub password: Option<SecretString>,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        fn password(of: &Credentials) -> Option<&str> {
            of.password.as_ref().map(|p| p.expose_secret())
        }
        self.username == other.username && password(self) == password(other)
    }
}

/// The `[sentinel]` section.
#[derive(Clone, Debug)]
pub struct Config {
    /// The Sentinels the operator named.
    pub addresses: Vec<SentinelAddr>,
    /// How to log in at a Sentinel.
    pub credentials: Credentials,
    /// How Sentinels are met; `None` is without TLS.
    pub tls: Option<Connector>,
    /// What Sentinels announce, and where it is reached from here.
    pub address_map: AddressMap,
    /// Also follow Sentinels that others report.
    pub discover: bool,
    /// Longest wait for a TCP connection to a Sentinel.
    pub connect_timeout: Duration,
    /// How often each Sentinel is asked, behind its events.
    pub poll_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            credentials: Credentials::default(),
            tls: None,
            address_map: AddressMap::default(),
            discover: true,
            connect_timeout: Duration::from_millis(300),
            poll_interval: Duration::from_secs(1),
        }
    }
}

/// Another Sentinel, as one reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub addr: SentinelAddr,
    /// Its run id.
    pub run_id: Option<RunId>,
}
