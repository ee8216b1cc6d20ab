//! The end, once the process is told to: no new clients, what was begun is finished, the rest is cut.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::report::{self, millis};
use super::signals::{Asked, Signals};
use crate::worker::{Counters, Pool, Tallies};

/// Why no session has time any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// `shutdown_grace` is over.
    GraceOver,
    /// A second signal.
    Signal,
}

/// Ends all sessions; gives the number of those that were cut.
pub(super) async fn end(
    mut pool: Pool,
    signals: &mut Signals,
    grace: Duration,
    tallies: &Tallies,
    status: impl Fn(),
) -> u64 {
    let begun = Instant::now();
    let before = tallies.read();
    pool.stop_accepting().await;
    let sessions = active(&tallies.read());
    info!(
        event = "draining",
        sessions,
        grace_ms = millis(grace),
        "asked to end: no new clients; {sessions} sessions have {} s for what they have begun",
        grace.as_secs_f64()
    );
    let cut = tokio::select! {
        () = pool.drained() => None,
        () = sleep_until(begun + grace) => Some(Cut::GraceOver),
        () = asked_again(signals, &status) => Some(Cut::Signal),
    };
    let left = active(&tallies.read());
    match cut {
        None => {}
        Some(Cut::GraceOver) => warn!(
            event = "grace_over",
            sessions = left,
            "limits.shutdown_grace is over: the {left} sessions that are left are cut"
        ),
        Some(Cut::Signal) => warn!(
            event = "ended_at_once",
            sessions = left,
            "a second signal: the {left} sessions that are left are cut"
        ),
    }
    tokio::select! {
        () = pool.shutdown() => {}
        // Whoever asks a third time does not want to hear of a second.
        () = asked_again(signals, &status), if cut == Some(Cut::Signal) => {}
    }
    report::stopped(&before, &tallies.read(), begun.elapsed())
}

async fn asked_again(signals: &mut Signals, status: &impl Fn()) {
    loop {
        match signals.next().await {
            Asked::End => return,
            Asked::Status => status(),
            Asked::Hangup | Asked::Upgrade => {}
        }
    }
}

fn active(counters: &[Counters]) -> u64 {
    counters.iter().map(|c| c.sessions.active()).sum()
}
