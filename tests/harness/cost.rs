//! What a process has cost so far, as proc(5) tells it.

use std::time::Duration;

use switchmaster::net::clock::{Moment, now};

/// Clock ticks a second in proc(5): USER_HZ, which is 100 on every architecture that Rust's standard library has.
const TICKS_A_SECOND: u32 = 100;

/// Processes whose processor time is being taken.
#[derive(Debug)]
pub(crate) struct Taking {
    before: Vec<(u32, Duration)>,
    began: Moment,
}

impl Taking {
    /// Begins now.
    pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> Self {
        let before = pids.into_iter().map(|pid| (pid, cpu_time(pid)));
        Self {
            before: before.collect(),
            began: now(),
        }
    }

    /// What each has spent since, in the order they were given, and how long that was.
    pub(crate) fn end(self) -> (Vec<Duration>, Duration) {
        let lasted = now().since(self.began);
        let spent = self
            .before
            .iter()
            .map(|(pid, before)| cpu_time(*pid) - *before);
        (spent.collect(), lasted)
    }
}

/// Processor time of all its threads, user and system; good to 10 ms.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name may hold anything; behind its last parenthesis field 3 begins. utime and stime are 14 and 15.
    let ticks: u32 = stat
        .rsplit_once(") ")
        .map(|(_, fields)| fields.split(' ').skip(11).take(2))
        .into_iter()
        .flatten()
        .map(|ticks| ticks.parse::<u32>().expect("proc(5): a number"))
        .sum();
    Duration::from_secs(1) * ticks / TICKS_A_SECOND
}

/// Resident memory, KiB.
pub(crate) fn rss_kib(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .expect("the process runs")
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .expect("proc(5): VmRSS is a number of kB")
}
