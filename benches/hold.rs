//! Acknowledged writes that planned failovers lose, with the announced hold (until a Sentinel names the new master, or
//! until that says itself that it is one) and without it, and what the hold costs the clients in waiting: the
//! real program on real servers.
//!
//! `cargo bench --bench hold [-- OPTIONS]`, see [`USAGE`]. All policies fail over the same servers in turn, so that all
//! meet the same machine. Exit code 1 when the default lost a write; figures of time are for people.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::args::Args;
use harness::planned::{Planned, WRITERS, believing, planned_failover, without_hold};
use harness::proxy::Proxy;
use harness::topology::Topology;

const USAGE: &str = "cargo bench --bench hold -- [OPTIONS]
  --runs N   planned failovers of each policy, some 8 s each (20)
  --json     the same figures as one JSON object";

/// What is compared, by the words of the configuration.
const POLICIES: [&str; 3] = [
    "announced hold (default)",
    "confirm = \"role\"",
    "hold_max = \"0s\"",
];
/// Failovers of each policy unless told otherwise.
const RUNS: usize = 20;
/// Most that can be asked for.
const MOST_RUNS: usize = 1000;

fn main() -> ExitCode {
    let Some(mut args) = Args::of_bench(USAGE) else {
        return ExitCode::SUCCESS;
    };
    let json = args.flag("--json");
    let runs = args.number("--runs", RUNS, MOST_RUNS);
    args.end();

    let servers = Topology::start();
    let proxies = [servers.proxy(), believing(&servers), without_hold(&servers)];
    let version = servers.server_version();
    let results = measure(&servers, &proxies, runs);
    if json {
        println!("{:#}", report(&version, &results));
    } else {
        println!("{}", table(&version, &results));
    }
    let held_lost: usize = results[0].iter().map(|run| run.lost).sum();
    if held_lost > 0 {
        eprintln!("failed: {held_lost} acknowledged writes were lost although clients were held");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// The runs of each policy.
fn measure(servers: &Topology, proxies: &[Proxy; 3], runs: usize) -> [Vec<Planned>; 3] {
    let mut results = [const { Vec::new() }; 3];
    let sentinels = servers.sentinels().len();
    for number in 0..runs {
        for (policy, proxy) in proxies.iter().enumerate() {
            let run = planned_failover(servers, proxy, number % sentinels);
            eprintln!(
                "{:>3}  {:<26}  acknowledged {:>6}   lost {:>5}   longest pause {:>8.1} ms",
                number + 1,
                POLICIES[policy],
                run.acknowledged,
                run.lost,
                milliseconds(run.pause)
            );
            servers.ready_again(run.switch);
            results[policy].push(run);
        }
    }
    results
}

fn table(version: &str, results: &[Vec<Planned>; 3]) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut out = format!(
        "planned failovers (SENTINEL FAILOVER) of {version}, {WRITERS} writers through the proxy, about {} writes a \
         second together; {cores} cores\n\n\
         {:<26} {:>5} {:>13} {:>6} {:>14} {:>16} {:>13}\n",
        WRITERS * 50,
        "policy",
        "runs",
        "acknowledged",
        "lost",
        "lost a run",
        "median pause, s",
        "max pause, s"
    );
    for (policy, runs) in POLICIES.iter().zip(results) {
        let sum = Summary::of(runs);
        out += &format!(
            "{policy:<26} {:>5} {:>13} {:>6} {:>14} {:>16.3} {:>13.3}\n",
            sum.runs,
            sum.acknowledged,
            sum.lost,
            format!("{}-{}", sum.lost_least, sum.lost_most),
            sum.pause_median.as_secs_f64(),
            sum.pause_max.as_secs_f64()
        );
    }
    out + "\nlost: acknowledged to a writer, and not held by the new master\n\
           pause: the longest that any writer went between two acknowledgements, one figure a run; some 20 ms without a \
           failover"
}

fn report(version: &str, results: &[Vec<Planned>; 3]) -> Value {
    let policies = POLICIES.iter().zip(results).map(|(policy, runs)| {
        let sum = Summary::of(runs);
        json!({
            "policy": policy,
            "runs": sum.runs,
            "acknowledged": sum.acknowledged,
            "lost": sum.lost,
            "lost_by_run": runs.iter().map(|run| run.lost).collect::<Vec<_>>(),
            "pause_median_s": sum.pause_median.as_secs_f64(),
            "pause_max_s": sum.pause_max.as_secs_f64(),
            "pause_s_by_run": runs.iter().map(|run| run.pause.as_secs_f64()).collect::<Vec<_>>(),
        })
    });
    json!({
        "servers": version,
        "writers": WRITERS,
        "policies": policies.collect::<Vec<_>>(),
    })
}

/// The runs of one policy, of which there is at least one.
struct Summary {
    runs: usize,
    acknowledged: usize,
    lost: usize,
    lost_least: usize,
    lost_most: usize,
    pause_median: Duration,
    pause_max: Duration,
}

impl Summary {
    fn of(runs: &[Planned]) -> Self {
        let lost = || runs.iter().map(|run| run.lost);
        let mut pauses: Vec<Duration> = runs.iter().map(|run| run.pause).collect();
        pauses.sort_unstable();
        Self {
            runs: runs.len(),
            acknowledged: runs.iter().map(|run| run.acknowledged).sum(),
            lost: lost().sum(),
            lost_least: lost().min().unwrap_or_default(),
            lost_most: lost().max().unwrap_or_default(),
            pause_median: pauses[pauses.len() / 2],
            pause_max: pauses[pauses.len() - 1],
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
