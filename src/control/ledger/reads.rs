//! What is known of the replicas that an entry leads to (`role = "replica"`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ledger;
use crate::net::addr::NodeAddr;
use crate::net::clock::At;
use crate::topology::State;
use crate::topology::replicas::Unfit;

/// See the head of this file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reads {
    /// For want of replicas new clients are led to the master.
    pub falls_back: bool,
    /// Sessions that read from the master.
    pub on_master: u64,
    /// Every replica that a Sentinel lists.
    pub replicas: Vec<ReadFrom>,
}

/// One replica.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ReadFrom {
    /// Its address.
    pub addr: String,
    /// It is read from.
    pub usable: bool,
    /// Sessions that read from it.
    pub sessions: u64,
    /// What it has is no older than that, in seconds; `None` where nobody knows.
    pub age_seconds: Option<f64>,
    /// Why it is not read from, in a word.
    pub reason: Option<String>,
    /// The same for people.
    pub words: Option<String>,
}

impl Reads {
    /// One more replica.
    pub fn note(
        &mut self,
        addr: &NodeAddr,
        usable: bool,
        sessions: u64,
        age: Option<Duration>,
        why: Option<Unfit>,
    ) {
        self.replicas.push(ReadFrom {
            addr: addr.0.to_string(),
            usable,
            sessions,
            age_seconds: age.map(|age| age.as_secs_f64()),
            reason: why.map(|why| why.label().to_owned()),
            words: why.map(|why| why.in_words().to_owned()),
        });
    }

    /// How many replicas are read from.
    pub fn usable(&self) -> usize {
        self.replicas.iter().filter(|of| of.usable).count()
    }
}

impl Ledger {
    /// This is what is read from now.
    pub fn reads(&mut self, reads: Reads) {
        self.reads = Some(reads);
    }

    /// The state of an entry that leads to replicas: its master's, but for whether clients are served.
    pub fn serves(&mut self, at: At, state: &State) {
        if self.state != *state {
            self.published(at, state, self.pulse);
        }
    }
}
