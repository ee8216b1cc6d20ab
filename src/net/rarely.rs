//! Keeps what can happen ten thousand times a second from filling the log; pure: the caller brings the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Moment;

/// Shortest time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets the first event through, then one a second, with the number of events since the last one let through.
#[derive(Debug, Default)]
pub struct Rarely {
    /// Nanoseconds since boot at which the next event may pass.
    next: AtomicU64,
    since: AtomicU64,
}

impl Rarely {
    /// Counts one event; `Some(count)` when it should be logged, for itself and those before it.
    pub fn allow(&self, now: Moment) -> Option<u64> {
        let count = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let next = self.next.load(Ordering::Relaxed);
        if now.as_nanos() < next {
            return None;
        }
        // Of two threads at the same instant one logs; the other's event is in that count or the next.
        self.next
            .compare_exchange(
                next,
                (now + INTERVAL).as_nanos(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            )
            .ok()?;
        self.since.fetch_sub(count, Ordering::Relaxed);
        Some(count)
    }
}

/// The log lines that this thread writes meanwhile.
#[cfg(test)]
pub(crate) fn logged(write: impl FnOnce()) -> String {
    use std::io::{Read, Seek};

    let mut file = tempfile::tempfile().expect("a temporary file");
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::sync::Arc::new(file.try_clone().expect("a file")))
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, write);
    let mut lines = String::new();
    file.rewind().expect("a file");
    file.read_to_string(&mut lines).expect("text");
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_at_once_then_one_a_second_with_a_count() {
        let rarely = Rarely::default();
        let start = Moment::from_nanos(5);
        assert_eq!(rarely.allow(start), Some(1));
        assert_eq!(rarely.allow(start), None);
        assert_eq!(rarely.allow(start + Duration::from_millis(999)), None);
        assert_eq!(rarely.allow(start + INTERVAL), Some(3));
        assert_eq!(rarely.allow(start + INTERVAL * 10), Some(1));
    }
}
