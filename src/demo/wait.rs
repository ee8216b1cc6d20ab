//! Waiting until something is so, never longer than said, and saying what was missing.

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::net::clock::{Moment, now};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// The time was over first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedOut {
    /// What was waited for.
    pub waited_for: String,
    /// What was still missing at the last look.
    pub missing: String,
    /// How long it was waited for.
    pub waited: Duration,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            waited_for,
            missing,
            waited,
        } = self;
        write!(
            f,
            "waited {:.1} s for {waited_for}: {missing}",
            waited.as_secs_f64()
        )
    }
}

/// Looks at `cond` until it answers `Ok`, at least once, at most until `deadline`. Its `Err` says what is
/// missing.
///
/// # Errors
/// [`TimedOut`] with the last thing that was missing.
pub fn wait_until<T>(
    deadline: Moment,
    what: &str,
    mut cond: impl FnMut() -> Result<T, String>,
) -> Result<T, TimedOut> {
    let begun = now();
    loop {
        match cond() {
            Ok(found) => return Ok(found),
            Err(missing) if now() >= deadline => {
                return Err(TimedOut {
                    waited_for: what.to_owned(),
                    missing,
                    waited: now().since(begun),
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
