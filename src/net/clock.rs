//! Time that counts while the machine or the process stands still.
//!
//! A proxy that was suspended across a failover must notice on its first instruction afterwards.
//! `CLOCK_MONOTONIC` stops while a machine is suspended; `CLOCK_BOOTTIME` does not (clock_gettime(2)).

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point on the boot-time clock. Pure rooms are given it; only shells call [`now`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

/// The current moment. Costs one vDSO call, no system call.
pub fn now() -> Moment {
    let t = clock_gettime(ClockId::Boottime);
    // Both fields of a boot-time clock are positive.
    Moment(t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs())
}

/// A moment, and what the calendar showed then.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// For reckoning.
    pub moment: Moment,
    /// For people; may jump.
    pub wall: SystemTime,
}

impl At {
    /// Reads both clocks. Like [`now`], for shells only.
    pub fn now() -> Self {
        Self {
            moment: now(),
            wall: SystemTime::now(),
        }
    }

    /// This moment, on a calendar that began with the clock.
    #[cfg(test)]
    pub(crate) fn for_test(moment: Moment) -> Self {
        Self {
            moment,
            wall: UNIX_EPOCH + Duration::from_nanos(moment.as_nanos()),
        }
    }

    /// The calendar time of another moment, reckoned from this one: seconds since the Unix epoch.
    pub fn unix_of(self, moment: Moment) -> f64 {
        let wall = self.wall - self.moment.since(moment) + moment.since(self.moment);
        wall.duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64())
    }
}

impl Moment {
    /// The moment this many nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}s", Duration::from_nanos(self.0).as_secs_f64())
    }
}
