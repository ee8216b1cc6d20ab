//! Counting on a hot path: one thread writes, any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with a single writer: adding is a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Subtracts; never below 0.
    pub fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).saturating_sub(n),
            Ordering::Relaxed,
        );
    }

    /// What was counted.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
