//! Whether a worker's thread turns: each writes down now and then that it did, and whoever looks after the process reads that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::net::clock::{Moment, now};

/// How often a worker writes it down. Nothing on the way of a request does.
const BEAT_EVERY: Duration = Duration::from_millis(250);
/// Written by a thread that has ended: nobody waits for it to turn.
const RESTS: u64 = u64::MAX;

/// One worker's; written by its thread, read by any.
#[derive(Clone, Debug)]
pub(super) struct Heart(Arc<AtomicU64>);

impl Default for Heart {
    /// Has just turned: the thread is about to start.
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(now().as_nanos())))
    }
}

impl Heart {
    /// Beats for as long as the thread's runtime turns; never ends.
    pub(super) async fn beat(self) {
        loop {
            self.0.store(now().as_nanos(), Ordering::Relaxed);
            sleep(BEAT_EVERY).await;
        }
    }

    /// The thread has ended.
    pub(super) fn rests(&self) {
        self.0.store(RESTS, Ordering::Relaxed);
    }
}

/// Those of all workers.
#[derive(Clone, Debug, Default)]
pub struct Hearts(Arc<[Heart]>);

impl Hearts {
    pub(super) fn new(hearts: Vec<Heart>) -> Self {
        Self(hearts.into())
    }

    /// For how long each worker's thread has not turned, in their order.
    pub fn idle(&self, now: Moment) -> impl Iterator<Item = Duration> {
        let turned = |heart: &Heart| Moment::from_nanos(heart.0.load(Ordering::Relaxed));
        self.0.iter().map(move |heart| now.since(turned(heart)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_stands_still_is_told_from_one_that_has_ended() {
        let hearts = Hearts::new(vec![Heart::default(), Heart::default()]);
        let later = now() + Duration::from_secs(60);
        assert!(
            hearts
                .idle(later)
                .all(|idle| idle > Duration::from_secs(50))
        );
        hearts.0[1].rests();
        let idle: Vec<_> = hearts.idle(later).collect();
        assert!(idle[0] > Duration::from_secs(50), "{idle:?}");
        assert_eq!(idle[1], Duration::ZERO);
    }
}
