//! What a process goes on from that follows another one. Pure.

use super::Steward;
use crate::topology::{Epoch, Generation};

/// What the process before believed of one master. Not the master itself: whoever is to be served is verified anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heritage {
    /// How many masters there have been, the one in force included.
    pub generation: Generation,
    /// The highest config-epoch believed: a Sentinel that says less is behind, and is not followed back.
    pub epoch: Option<Epoch>,
}

impl Steward {
    /// To be called before the first observation.
    pub fn inherit(&mut self, heritage: Heritage) {
        if let Some(epoch) = heritage.epoch {
            self.beliefs.adopt(epoch);
        }
        // Our first master is most likely the one that was in force.
        self.inherited = Generation(heritage.generation.0.saturating_sub(1));
    }
}
