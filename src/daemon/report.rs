//! What the daemon tells of itself: one line an event. The names of events and fields are public interface.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::Roster;
use crate::admin::status::counted;
use crate::config::Proxy;
use crate::listener::Bound;
use crate::session::close::CloseReason;
use crate::session::tally::Sum;
use crate::topology::Phase;
use crate::topology::publish::Reader;
use crate::worker::Counters;

/// Where clients connect.
pub(super) fn listening(proxy: &Proxy, held: &[Bound]) {
    for bound in held {
        let addr = bound.addr();
        let whom = whom(proxy.leads_to_replicas);
        info!(
            event = "listening", proxy = %proxy.name, addr = %addr, master_name = %proxy.master,
            "clients connect to {addr} and reach {whom} \"{}\"", proxy.master
        );
    }
}

/// Whom clients of an entry reach.
const fn whom(leads_to_replicas: bool) -> &'static str {
    if leads_to_replicas {
        "replicas of the master"
    } else {
        "the master"
    }
}

/// The state and the counters.
pub(super) fn status(roster: &Roster) {
    for entry in roster.entries().iter() {
        let counters = entry.counting.read();
        let state = entry.reader.state();
        let master = state
            .master
            .as_ref()
            .map_or_else(|| "none".to_owned(), ToString::to_string);
        let phase = match &state.phase {
            Phase::NoMaster => "no_master".to_owned(),
            Phase::Held { cause, .. } => format!("held:{cause}"),
            Phase::Serving => "serving".to_owned(),
        };
        let s = &counters.sessions;
        info!(
            event = "status", proxy = %counters.name, phase, master, generation = state.generation.0,
            sessions = s.active(), waiting = s.waiting, opened = s.opened, bytes_up = s.bytes_up, bytes_down = s.bytes_down,
            dial_failures = s.dial_failures(), no_port = s.no_port(), accept_errors = counters.accept_errors,
            refused = counters.refused(), closed = %closed_by_reason(&counters),
            "{} sessions to {master}", s.active()
        );
    }
}

/// What the process does, for the one line that a service manager shows.
pub(super) struct Progress {
    pub(super) roster: Roster,
    pub(super) draining: CancellationToken,
}

impl Progress {
    /// Entries that are named in the line; the others are a number.
    const NAMED: usize = 4;

    /// The line.
    pub(super) fn in_words(&self) -> String {
        let entries = self.roster.entries();
        let words: Vec<_> = entries
            .iter()
            .take(Self::NAMED)
            .map(|entry| match entry.counting.read() {
                counters if entries.len() == 1 => of_entry(&counters, &entry.reader),
                counters => format!("{}: {}", counters.name, of_entry(&counters, &entry.reader)),
            })
            .collect();
        let mut line = words.join("; ");
        if let Some(more) = entries.len().checked_sub(Self::NAMED).filter(|n| *n > 0) {
            line.push_str(&format!("; and {more} more"));
        }
        if self.draining.is_cancelled() {
            line.insert_str(0, "Draining: ");
        }
        // The end of a line would end the message.
        line.replace(char::is_control, " ")
    }
}

fn of_entry(counters: &Counters, reader: &Reader) -> String {
    let state = reader.state();
    let sessions = counted(counters.sessions.active(), "session");
    match (&state.master, &state.phase) {
        (Some(master), Phase::Serving) => format!("{sessions} to {master}"),
        (Some(master), _) => format!("{sessions} held, last master {master}"),
        (None, _) => format!("no master yet, {sessions}"),
    }
}

/// How the sessions of one entry, or of all, ended since the process was told to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// With nothing under way.
    pub(super) in_order: u64,
    /// With something under way: the rest of it is lost to the client.
    pub(super) cut: u64,
    /// By their clients, by the master, or by a switch, as at any time.
    pub(super) otherwise: u64,
}

impl Ended {
    /// What was counted between the two.
    pub(super) fn between(before: &Sum, after: &Sum) -> Self {
        let by = |reason| {
            after
                .closed_by(reason)
                .saturating_sub(before.closed_by(reason))
        };
        let all: u64 = CloseReason::ALL.into_iter().map(by).sum();
        let (in_order, forced) = (by(CloseReason::Shutdown), by(CloseReason::ShutdownForced));
        Self {
            in_order,
            // Those that are still there end with the process.
            cut: forced + after.active(),
            otherwise: all - in_order - forced,
        }
    }
}

/// Tells of each entry how it ended; gives the number of sessions that were cut.
pub(super) fn stopped(before: &[Counters], after: &[Counters], took: Duration) -> u64 {
    let mut cut = 0;
    for (before, counters) in before.iter().zip(after) {
        let s = &counters.sessions;
        let ended = Ended::between(&before.sessions, s);
        cut += ended.cut;
        info!(
            event = "stopped", proxy = %counters.name, ended_in_order = ended.in_order, cut = ended.cut,
            ended_otherwise = ended.otherwise, took_ms = millis(took), sessions = s.active(),
            opened = s.opened, bytes_up = s.bytes_up, bytes_down = s.bytes_down, dial_failures = s.dial_failures(),
            no_port = s.no_port(), accept_errors = counters.accept_errors,
            refused = counters.refused(),
            closed = %closed_by_reason(counters),
            "stopped: {} sessions ended in order, {} were cut", ended.in_order, ended.cut
        );
    }
    cut
}

/// Whole milliseconds.
pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// `client_closed=12 switched=3`
fn closed_by_reason(counters: &Counters) -> String {
    let nonzero = CloseReason::ALL
        .iter()
        .map(|r| (r.label(), counters.sessions.closed_by(*r)));
    let words: Vec<_> = nonzero
        .filter(|(_, n)| *n > 0)
        .map(|(l, n)| format!("{l}={n}"))
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_before_does_not_count() {
        let mut before = Sum {
            opened: 10,
            ..Sum::default()
        };
        before.closed[CloseReason::ClientClosed.index()] = 3;
        let mut after = before.clone();
        after.closed[CloseReason::ClientClosed.index()] = 4;
        after.closed[CloseReason::Shutdown.index()] = 3;
        after.closed[CloseReason::ShutdownForced.index()] = 2;
        let expected = Ended {
            in_order: 3,
            // Two, and one that is still there.
            cut: 3,
            otherwise: 1,
        };
        assert_eq!(Ended::between(&before, &after), expected);
    }
}
