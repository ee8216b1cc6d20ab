//! The figures of one run, as a table for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

/// What is wanted of each figure that has a goal.
const LINKS_GOAL: f64 = 1.0;
const SENTINEL_CPU_GOAL_PERCENT: f64 = 5.0;
const SPREAD_GOAL: Duration = Duration::from_secs(1);

/// A whole run.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) servers: String,
    pub(crate) cores: usize,
    pub(crate) watchers: usize,
    pub(crate) threads: usize,
    pub(crate) rest: Rest,
    pub(crate) rss_per_watcher_kib: f64,
    pub(crate) failovers: Vec<Failover>,
}

/// While nothing happened.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) sentinels: Vec<SentinelAtRest>,
    /// Processor time of the fleet.
    pub(crate) own_spent: Duration,
    pub(crate) lasted: Duration,
}

/// One Sentinel while nothing happened.
#[derive(Debug)]
pub(crate) struct SentinelAtRest {
    /// Connected clients that are neither Sentinels nor this bench asking.
    pub(crate) links: usize,
    pub(crate) spent: Duration,
    pub(crate) commands: u64,
}

/// One planned failover; times are since a Sentinel took the command.
#[derive(Debug)]
pub(crate) struct Failover {
    pub(crate) followed: usize,
    pub(crate) first: Option<Duration>,
    pub(crate) median: Option<Duration>,
    pub(crate) last: Option<Duration>,
    pub(crate) spent: Vec<Spent>,
    pub(crate) own_spent: Duration,
    /// Over which processor time was taken: until some time after the last switch.
    pub(crate) lasted: Duration,
}

/// Processor time of one server.
#[derive(Debug)]
pub(crate) struct Spent {
    pub(crate) by: &'static str,
    pub(crate) spent: Duration,
}

impl Failover {
    /// From the first watcher's switch to the last.
    fn spread(&self) -> Option<Duration> {
        Some(self.last? - self.first?)
    }

    fn percent_of(&self, by: &str) -> Vec<f64> {
        let spent = self.spent.iter().filter(|spent| spent.by == by);
        spent
            .map(|spent| percent(spent.spent, self.lasted))
            .collect()
    }
}

impl Page {
    /// Counts that are wrong; figures of speed are never among them.
    pub(crate) fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (number, sentinel) in self.rest.sentinels.iter().enumerate() {
            if sentinel.links != self.watchers {
                findings.push(format!(
                    "Sentinel {} has {} links to {} proxies",
                    number + 1,
                    sentinel.links,
                    self.watchers
                ));
            }
        }
        for (number, failover) in self.failovers.iter().enumerate() {
            if failover.followed != self.watchers {
                findings.push(format!(
                    "failover {}: {} of {} proxies followed",
                    number + 1,
                    failover.followed,
                    self.watchers
                ));
            }
        }
        findings
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = format!(
            "{} control planes in one process on {} thread(s); 3 Sentinels, 1 master, 2 replicas of {}; {} cores, all \
             on this machine\n\
             a share is processor time by elapsed time, 100 % = one core; three figures are the three Sentinels\n\n",
            self.watchers, self.threads, self.servers, self.cores
        );
        let mut row = |what: &str, measured: String, goal: &str| {
            let _ = writeln!(out, "{what:<58} {measured:>24}   {goal}");
        };
        row("measure", "measured".into(), "goal");
        let links = self.links_per_proxy();
        row(
            "links per proxy and Sentinel",
            figures(&links, 3),
            &goal("1", links.iter().all(|n| *n == LINKS_GOAL)),
        );
        let seconds = self.rest.lasted.as_secs_f64();
        let cpu = self.sentinel_percent();
        let met = cpu.iter().all(|p| *p < SENTINEL_CPU_GOAL_PERCENT);
        row(
            &format!("Sentinel CPU at rest, % (over {seconds:.0} s)"),
            figures(&cpu, 1),
            &goal("< 5 each", met),
        );
        row(
            "commands at rest, per Sentinel and second",
            figures(&self.commands_per_second(), 0),
            "",
        );
        row(
            "the fleet's own CPU at rest, %",
            format!("{:.1}", self.own_percent()),
            "",
        );
        row(
            "the fleet's own memory, KiB RSS per control plane",
            format!("{:.1}", self.rss_per_watcher_kib),
            "",
        );
        for (number, failover) in self.failovers.iter().enumerate() {
            let _ = writeln!(
                out,
                "\nplanned failover {}, processor time over {:.1} s from the command on",
                number + 1,
                failover.lasted.as_secs_f64()
            );
            let mut row = |what: &str, measured: String, goal: &str| {
                let _ = writeln!(out, "{what:<58} {measured:>24}   {goal}");
            };
            row(
                "control planes that followed",
                format!("{} of {}", failover.followed, self.watchers),
                "all",
            );
            let after = [failover.first, failover.median, failover.last];
            let after: Vec<f64> = after.iter().flatten().map(Duration::as_secs_f64).collect();
            row(
                "command to first, median, last switch, s",
                figures(&after, 3),
                "",
            );
            let spread = failover.spread();
            row(
                "first switch to the last, s",
                spread.map_or_else(|| "-".into(), |s| format!("{:.3}", s.as_secs_f64())),
                &goal("<= 1", spread.is_some_and(|s| s <= SPREAD_GOAL)),
            );
            row(
                "Sentinel CPU meanwhile, %",
                figures(&failover.percent_of("Sentinel"), 1),
                "",
            );
            for by in ["new master", "old master", "other replica"] {
                row(
                    &format!("{by}'s CPU meanwhile, %"),
                    figures(&failover.percent_of(by), 1),
                    "",
                );
            }
            row(
                "the fleet's own CPU meanwhile, %",
                format!("{:.1}", percent(failover.own_spent, failover.lasted)),
                "",
            );
        }
        out.pop();
        out
    }

    /// For programs; times in seconds, shares in percent of a core.
    pub(crate) fn json(&self) -> Value {
        let failovers = self.failovers.iter().map(|failover| {
            json!({
                "followed": failover.followed,
                "first_switch_s": failover.first.map(|t| t.as_secs_f64()),
                "median_switch_s": failover.median.map(|t| t.as_secs_f64()),
                "last_switch_s": failover.last.map(|t| t.as_secs_f64()),
                "first_to_last_s": failover.spread().map(|t| t.as_secs_f64()),
                "lasted_s": failover.lasted.as_secs_f64(),
                "sentinel_cpu_percent": failover.percent_of("Sentinel"),
                "new_master_cpu_percent": failover.percent_of("new master"),
                "old_master_cpu_percent": failover.percent_of("old master"),
                "other_replica_cpu_percent": failover.percent_of("other replica"),
                "fleet_cpu_percent": percent(failover.own_spent, failover.lasted),
            })
        });
        json!({
            "servers": self.servers,
            "cores": self.cores,
            "watchers": self.watchers,
            "threads": self.threads,
            "rest": {
                "lasted_s": self.rest.lasted.as_secs_f64(),
                "links_per_proxy": self.links_per_proxy(),
                "sentinel_cpu_percent": self.sentinel_percent(),
                "commands_per_second": self.commands_per_second(),
                "fleet_cpu_percent": self.own_percent(),
            },
            "rss_per_watcher_kib": self.rss_per_watcher_kib,
            "failovers": failovers.collect::<Vec<_>>(),
            "goals": {
                "links_per_proxy": LINKS_GOAL,
                "sentinel_cpu_percent_below": SENTINEL_CPU_GOAL_PERCENT,
                "first_to_last_s_at_most": SPREAD_GOAL.as_secs_f64(),
            },
        })
    }

    fn links_per_proxy(&self) -> Vec<f64> {
        let of = |s: &SentinelAtRest| s.links as f64 / self.watchers as f64;
        self.rest.sentinels.iter().map(of).collect()
    }

    fn sentinel_percent(&self) -> Vec<f64> {
        let of = |s: &SentinelAtRest| percent(s.spent, self.rest.lasted);
        self.rest.sentinels.iter().map(of).collect()
    }

    fn commands_per_second(&self) -> Vec<f64> {
        let of = |s: &SentinelAtRest| s.commands as f64 / self.rest.lasted.as_secs_f64();
        self.rest.sentinels.iter().map(of).collect()
    }

    fn own_percent(&self) -> f64 {
        percent(self.rest.own_spent, self.rest.lasted)
    }
}

fn percent(spent: Duration, of: Duration) -> f64 {
    100.0 * spent.as_secs_f64() / of.as_secs_f64()
}

fn figures(figures: &[f64], digits: usize) -> String {
    let words: Vec<String> = figures.iter().map(|f| format!("{f:.digits$}")).collect();
    words.join("  ")
}

fn goal(goal: &str, met: bool) -> String {
    format!("{goal}: {}", if met { "met" } else { "NOT met" })
}
