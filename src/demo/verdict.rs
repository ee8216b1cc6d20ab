//! What the clients saw, judged. Pure: histories in, table and findings out.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::Event;
use super::load::{Outcome, Write};
use super::witness::Executed;
use crate::net::clock::Moment;

/// Longest outage a planned failover may cause.
const PLANNED_LIMIT: Duration = Duration::from_secs(3);
/// Longest outage a crash may cause beyond the time in which Sentinel notices it.
const CRASH_LIMIT: Duration = Duration::from_secs(5);
/// How long before its log line a new master may have served: a session may be faster than the log.
const SWITCH_SLACK: Duration = Duration::from_secs(1);

/// An event, from its cause to the cause of the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Episode {
    pub(super) event: Event,
    pub(super) begun: Moment,
}

/// A `switched` line of the proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switch {
    pub(super) at: Moment,
    pub(super) to: SocketAddr,
}

/// All that was observed in a run.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) down_after: Duration,
    pub(super) episodes: Vec<Episode>,
    pub(super) switches: Vec<Switch>,
    /// One history a writer.
    pub(super) histories: Vec<Vec<Write>>,
    /// Acknowledged writes that the final master does not hold: writer and number.
    pub(super) missing: HashSet<(usize, usize)>,
    pub(super) executed: Vec<Executed>,
    pub(super) ended: Moment,
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) event: Option<Event>,
    pub(super) outage_max: Duration,
    pub(super) outage_median: Duration,
    pub(super) errors: usize,
    pub(super) acked: usize,
    pub(super) lost: usize,
    pub(super) after_fence: usize,
}

impl Evidence {
    /// A row for the time before the first event, and one for each event.
    pub(super) fn rows(&self) -> Vec<Row> {
        let first = self.episodes.first().map_or(self.ended, |e| e.begun);
        let ends = self
            .episodes
            .iter()
            .skip(1)
            .map(|e| e.begun)
            .chain([self.ended]);
        let windows = self
            .episodes
            .iter()
            .zip(ends)
            .map(|(e, end)| (Some(e.event), e.begun, end));
        std::iter::once((None, Moment::default(), first))
            .chain(windows)
            .map(|(event, from, to)| self.row(event, from, to))
            .collect()
    }

    /// The longest time that each writer went without an acknowledged write, as far as it lies in the window.
    pub(super) fn outages(&self, from: Moment, to: Moment) -> Vec<Duration> {
        self.histories
            .iter()
            .map(|history| outage(history, from, to))
            .collect()
    }

    fn row(&self, event: Option<Event>, from: Moment, to: Moment) -> Row {
        let mut outages = self.outages(from, to);
        outages.sort_unstable();
        let mut row = Row {
            event,
            outage_max: outages.last().copied().unwrap_or_default(),
            outage_median: outages.get(outages.len() / 2).copied().unwrap_or_default(),
            errors: 0,
            acked: 0,
            lost: 0,
            after_fence: 0,
        };
        for (writer, history) in self.histories.iter().enumerate() {
            for (number, write) in history.iter().enumerate() {
                if write.ended < from || write.ended >= to {
                    continue;
                }
                match write.outcome {
                    Outcome::Acked => row.acked += 1,
                    Outcome::Failed | Outcome::Unknown => row.errors += 1,
                }
                row.lost += usize::from(self.missing.contains(&(writer, number)));
            }
        }
        let in_window = |e: &&Executed| {
            self.write(e)
                .is_some_and(|write| (from..to).contains(&write.ended))
        };
        row.after_fence = self
            .executed
            .iter()
            .filter(in_window)
            .filter(|e| self.is_after_fence(e))
            .count();
        row
    }

    /// Whether a node executed a write that began after the proxy said it had left that node.
    fn is_after_fence(&self, executed: &Executed) -> bool {
        let Some(write) = self.write(executed) else {
            return false;
        };
        let before = self
            .switches
            .partition_point(|switch| switch.at < write.begun);
        let Some(current) = before.checked_sub(1).map(|i| self.switches[i]) else {
            return false;
        };
        let became_master =
            |switch: &Switch| switch.to == executed.node && switch.at <= write.ended + SWITCH_SLACK;
        current.to != executed.node && !self.switches[before..].iter().any(became_master)
    }

    fn write(&self, executed: &Executed) -> Option<&Write> {
        self.histories.get(executed.writer)?.get(executed.number)
    }

    /// Every condition that does not hold, in words; empty when all is well.
    pub(super) fn findings(&self, rows: &[Row]) -> Vec<String> {
        let mut findings = Vec::new();
        for row in rows {
            if let Some(event) = row.event {
                let limit = self.limit(event);
                if row.outage_max > limit {
                    findings.push(format!(
                        "{}: a writer was without an acknowledged write for {}, more than {}",
                        title(event),
                        seconds(row.outage_max),
                        seconds(limit)
                    ));
                }
            }
            if row.event == Some(Event::Planned) && row.lost > 0 {
                findings.push(format!(
                    "planned: {} acknowledged writes were lost, although clients are held from the announcement on",
                    row.lost
                ));
            }
            if row.after_fence > 0 {
                findings.push(format!(
                    "{}: an old master executed {} writes that began after the switch",
                    row.event.map_or("before the first event", title),
                    row.after_fence
                ));
            }
        }
        findings
    }

    fn limit(&self, event: Event) -> Duration {
        match event {
            Event::Planned => PLANNED_LIMIT,
            Event::Kill | Event::Freeze => self.down_after + CRASH_LIMIT,
        }
    }
}

/// The rows as a table of text.
pub(super) fn table(rows: &[Row]) -> String {
    let mut out = String::from(
        "event      outage max   median   errors   acked writes   acked, lost   to the old master\n",
    );
    for row in rows {
        let (max, median) = match row.event {
            Some(_) => (seconds(row.outage_max), seconds(row.outage_median)),
            None => ("-".into(), "-".into()),
        };
        let _ = writeln!(
            out,
            "{:<10} {:>10}   {:>6}   {:>6}   {:>12}   {:>11}   {:>17}",
            row.event.map_or("before", title),
            max,
            median,
            row.errors,
            row.acked,
            row.lost,
            row.after_fence
        );
    }
    if rows.iter().any(|row| row.lost > 0) {
        out.push_str(
            "acked, lost: acknowledged by a master that Sentinel had already begun to replace, and replicated to no \
             other node\n",
        );
    }
    out.push_str(
        "to the old master: writes that began after the switch and that an old master executed\n",
    );
    out
}

/// An event in one word.
pub(super) fn title(event: Event) -> &'static str {
    match event {
        Event::Planned => "planned",
        Event::Kill => "kill",
        Event::Freeze => "freeze",
    }
}

/// `1.07 s`
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The longest time between two acknowledged writes, as far as it lies between `from` and `to`.
pub(super) fn outage(history: &[Write], from: Moment, to: Moment) -> Duration {
    let acks = history
        .iter()
        .filter(|w| w.outcome == Outcome::Acked)
        .map(|w| w.ended);
    let mut longest = Duration::ZERO;
    let mut last = None;
    for ack in acks.chain([to]) {
        if ack >= from
            && let Some(last) = last
        {
            longest = longest.max(ack.min(to).since(last));
        }
        if ack >= to {
            break;
        }
        last = Some(ack);
    }
    // A writer without any acknowledged write before was out from the first moment.
    if last.is_none_or(|last| last < from) {
        longest.max(to.since(from))
    } else {
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    fn history(acks: &[u64]) -> Vec<Write> {
        acks.iter()
            .map(|at| Write {
                begun: ms(at - 1),
                ended: ms(*at),
                outcome: Outcome::Acked,
            })
            .collect()
    }

    fn node(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    fn evidence(acks: &[u64], executed: Vec<Executed>) -> Evidence {
        Evidence {
            down_after: Duration::from_millis(1500),
            episodes: vec![Episode {
                event: Event::Planned,
                begun: ms(1000),
            }],
            switches: vec![
                Switch {
                    at: ms(2000),
                    to: node(2),
                },
                Switch {
                    at: ms(9000),
                    to: node(3),
                },
            ],
            histories: vec![history(acks)],
            missing: HashSet::from([(0, 1)]),
            executed,
            ended: ms(20_000),
        }
    }

    #[test]
    fn the_outage_is_the_longest_gap_in_the_window() {
        let gap = |acks: &[u64]| outage(&history(acks), ms(1000), ms(5000)).as_millis();
        assert_eq!(gap(&[100, 980, 1500, 2600, 4900]), 2300);
        assert_eq!(gap(&[100, 980, 2600, 2700, 4900, 9000]), 2200);
        assert_eq!(gap(&[100, 980, 3000]), 2020);
        assert_eq!(gap(&[100]), 4900);
        assert_eq!(gap(&[]), 4000);
    }

    #[test]
    fn a_write_is_late_only_on_a_master_that_was_left() {
        let at = |node, number| Executed {
            node,
            writer: 0,
            number,
        };
        let acks = [1999, 2500, 8500];
        let late = |executed| evidence(&acks, vec![executed]).rows()[1].after_fence;
        assert_eq!(late(at(node(1), 0)), 0, "it began before the switch");
        assert_eq!(late(at(node(1), 1)), 1, "it began after the switch");
        assert_eq!(late(at(node(2), 1)), 0, "the new master");
        assert_eq!(
            late(at(node(3), 2)),
            0,
            "the next master, just before its log line"
        );
        assert_eq!(late(at(node(3), 1)), 1, "the next master, long before");
        assert_eq!(late(at(node(1), 7)), 0, "a write nobody knows");
    }

    #[test]
    fn rows_attribute_writes_to_the_event_they_fell_in() {
        let acks: Vec<u64> = (1..=1000).map(|i| i * 20).collect();
        let evidence = evidence(&acks, vec![]);
        let mut rows = evidence.rows();
        assert_eq!((rows[0].acked, rows[0].lost), (49, 1));
        assert_eq!((rows[1].acked, rows[1].lost, rows[1].errors), (950, 0, 0));
        assert_eq!(rows[1].outage_max, Duration::from_millis(20));
        assert!(evidence.findings(&rows).is_empty());
        rows[1].event = Some(Event::Planned);
        rows[1].lost = 1;
        assert_eq!(
            evidence.findings(&rows).len(),
            1,
            "a planned failover loses nothing"
        );
        assert!(table(&rows).lines().any(|line| line.starts_with("planned")));
    }
}
