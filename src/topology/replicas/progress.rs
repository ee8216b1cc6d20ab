//! How old an offset is: how far the master was when. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use crate::net::clock::Moment;

/// Most moments remembered; where they are to cover more time they lie further apart, which makes ages larger, never smaller.
const MAX_NOTES: u32 = 64;

/// The master's own offset at moments of the last `max_lag`.
#[derive(Clone, Debug)]
pub struct Progress {
    covers: Duration,
    notes: VecDeque<(Moment, u64)>,
}

/// The master is behind what it was: it began anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backwards;

impl Progress {
    /// Remembers so much time.
    pub fn new(covers: Duration) -> Self {
        Self {
            covers,
            notes: VecDeque::new(),
        }
    }

    /// Remembers so much time from now on; what is remembered stays true.
    pub const fn cover(&mut self, covers: Duration) {
        self.covers = covers;
    }

    /// The master, asked at this moment, had (at that moment at the latest, or soon after) written so much.
    ///
    /// # Errors
    /// When it had written more before.
    pub fn note(&mut self, asked: Moment, offset: u64) -> Result<(), Backwards> {
        if let Some((last, before)) = self.notes.back().copied() {
            if offset < before {
                return Err(Backwards);
            }
            if asked <= last {
                return Ok(());
            }
        }
        // The newest is always kept; the one before it only where it is not too close to its own predecessor.
        let apart = self.covers / MAX_NOTES;
        let len = self.notes.len();
        if len >= 2 && self.notes[len - 1].0.since(self.notes[len - 2].0) < apart {
            self.notes.pop_back();
        }
        self.notes.push_back((asked, offset));
        while self.notes.len() > 1 && asked.since(self.notes[1].0) > self.covers {
            self.notes.pop_front();
        }
        Ok(())
    }

    /// When the master was asked last.
    pub fn asked(&self) -> Option<Moment> {
        self.notes.back().map(|(asked, _)| *asked)
    }

    /// The latest moment up to which whoever has this offset certainly has everything. `None` where that is longer ago than is
    /// remembered.
    pub fn had(&self, offset: u64) -> Option<Moment> {
        let mut notes = self.notes.iter().rev();
        notes.find(|(_, of)| *of <= offset).map(|(asked, _)| *asked)
    }

    /// How many moments are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.notes.len()
    }
}
