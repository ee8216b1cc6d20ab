//! Keeps what can happen ten thousand times a second from filling the log; pure: the caller brings the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::clock::Moment;

/// Shortest time between two lines about the same thing.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets the first event through (or the first few), then one a second, with the number of events since the last one let through.
#[derive(Debug, Default)]
pub struct Rarely {
    /// Nanoseconds since boot at which the next event may pass, once the first few have.
    next: AtomicU64,
    since: AtomicU64,
    /// So much earlier than that it may pass, in nanoseconds.
    ahead: u64,
}

impl Rarely {
    /// Lets so many through at once; as many again after as many seconds of silence.
    pub fn after(first: u32) -> Self {
        let ahead = INTERVAL * first.saturating_sub(1);
        Self {
            ahead: u64::try_from(ahead.as_nanos()).unwrap_or(u64::MAX),
            ..Self::default()
        }
    }

    /// Counts one event; `Some(count)` when it should be logged, for itself and those before it.
    pub fn allow(&self, now: Moment) -> Option<u64> {
        let count = self.since.fetch_add(1, Ordering::Relaxed) + 1;
        let next = self.next.load(Ordering::Relaxed);
        if now.as_nanos() < next.saturating_sub(self.ahead) {
            return None;
        }
        // Of two threads at the same instant one logs; the other's event is in that count or the next.
        self.next
            .compare_exchange(
                next,
                next.max(now.as_nanos())
                    .saturating_add((Moment::default() + INTERVAL).as_nanos()),
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

    #[test]
    fn a_few_at_once_are_told_and_a_thousand_are_counted() {
        let rarely = Rarely::after(3);
        let start = Moment::from_nanos(5);
        let told = |from: Moment| -> Vec<u64> {
            (0..1000)
                .filter_map(|n| rarely.allow(from + Duration::from_millis(n * 2)))
                .collect()
        };
        // The first three; then one after a second, as each of them is owed one.
        assert_eq!(told(start), [1, 1, 1, 498]);
        let rest = told(start + INTERVAL * 2);
        assert_eq!(rest.len(), 2);
        let later = told(start + INTERVAL * 60);
        assert_eq!(later[1..3], [1, 1], "silence makes room again");
    }
}
