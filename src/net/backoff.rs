//! Waiting times between tries; pure: the caller brings the random number.

use std::time::Duration;

/// Exponential backoff with full jitter: the n-th wait is drawn evenly from `floor..=min(cap, floor * 2^n)`,
/// so that a thousand proxies that lost the same peer do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    floor: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits between `floor` and `cap`.
    pub const fn new(floor: Duration, cap: Duration) -> Self {
        Self {
            floor,
            cap,
            tries: 0,
        }
    }

    /// The next wait; `random` is evenly drawn from 0..1.
    pub fn next(&mut self, random: f64) -> Duration {
        let top = self
            .floor
            .saturating_mul(2_u32.saturating_pow(self.tries.min(16) + 1))
            .min(self.cap);
        self.tries = self.tries.saturating_add(1);
        self.floor
            + top
                .saturating_sub(self.floor)
                .mul_f64(random.clamp(0.0, 1.0))
    }

    /// Starts anew after a success.
    pub const fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_starts_anew() {
        let mut b = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let tops: Vec<_> = (0..6).map(|_| b.next(1.0).as_millis()).collect();
        assert_eq!(tops, [200, 400, 800, 1600, 2000, 2000]);
        b.reset();
        assert_eq!(b.next(0.0), Duration::from_millis(100));
        assert_eq!(b.next(7.0), Duration::from_millis(400));
    }
}
