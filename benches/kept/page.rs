//! The figures of one run, as tables for people (and for the README) and as JSON.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crashes::{Crash, Crashes, POOL};
use crate::harness::load::Figure;
use crate::harness::planned::{Planned, WRITERS};
use crate::harness::topology::Topology;
use crate::moments::{Moments, Who};
use crate::planned::Setting;
use crate::promises::{Fate, Row};
use crate::under_load::UnderLoad;

/// A whole run; a part that was not asked for is empty.
#[derive(Debug)]
pub(crate) struct Page {
    servers: String,
    cores: usize,
    pub(crate) under_load: Vec<UnderLoad>,
    pub(crate) planned: Vec<Setting>,
    pub(crate) crashes: Option<Crashes>,
    pub(crate) promises: Vec<Row>,
}

impl Page {
    pub(crate) fn new(servers: &Topology) -> Self {
        Self {
            servers: servers.server_version(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            under_load: Vec::new(),
            planned: Vec::new(),
            crashes: None,
            promises: Vec::new(),
        }
    }

    /// Promises that were broken; figures of speed are never among them.
    pub(crate) fn findings(&self) -> Vec<String> {
        let load = self.under_load.iter().flat_map(UnderLoad::findings);
        let planned = self.planned.iter().flat_map(Setting::findings);
        let crashes = self.crashes.iter().flat_map(Crashes::findings);
        let promises = self.promises.iter().flat_map(Row::findings);
        load.chain(planned).chain(crashes).chain(promises).collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let (servers, cores) = (&self.servers, self.cores);
        let mut out =
            format!("{servers}, {cores} cores, all on this machine; on_switch = \"move\"\n");
        if !self.under_load.is_empty() {
            out += &under_load(&self.under_load);
        }
        if !self.planned.is_empty() {
            out += &planned(&self.planned);
        }
        for setting in &self.planned {
            let title = format!("planned failover, confirm = \"{}\"", setting.confirm);
            out += &timeline(&title, &setting.moments);
        }
        if let Some(measured) = &self.crashes {
            out += &crashes(measured);
            out += &timeline("SIGKILL of the master, down-after 1.5 s", &measured.moments);
        }
        if !self.promises.is_empty() {
            out += "\n| session | planned failover | crash |\n|---|---|---|\n";
            for row in &self.promises {
                let (planned, crash) = (row.planned.words(), row.crash.words());
                let _ = writeln!(out, "| {} | {planned} | {crash} |", row.name);
            }
        }
        out
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "servers": self.servers,
            "cores": self.cores,
            "under_load": self.under_load.iter().map(load_json).collect::<Vec<_>>(),
            "planned": self.planned.iter().map(setting_json).collect::<Vec<_>>(),
            "crashes": self.crashes.as_ref().map(crashes_json),
            "promises": self.promises.iter().map(row_json).collect::<Vec<_>>(),
            "findings": self.findings(),
        })
    }
}

fn under_load(loads: &[UnderLoad]) -> String {
    let mut out = "\n| redis-benchmark -c 50 -t set,get | runs | planned failovers | connections closed | errors \
                   | SET/s, GET/s (median run) | longest request |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for load in loads {
        let closed = load.closed.values().sum::<u64>();
        let per_second = |test: &str| {
            let figures = load.runs.iter().flatten();
            let of_test = figures.filter(|figure| figure.test == test);
            median(of_test.map(|figure| figure.per_second).collect())
        };
        let longest = load.runs.iter().flatten().filter_map(|f| f.longest_ms);
        let _ = writeln!(
            out,
            "| -n {} -P {} | {} | {} | {closed} | {} | {}, {} | {} ms |",
            load.requests,
            load.pipeline,
            load.runs.len(),
            load.failovers,
            usize::from(load.complaint.is_some()),
            whole(per_second("SET")),
            whole(per_second("GET")),
            whole(longest.reduce(f64::max)),
        );
    }
    out
}

fn planned(settings: &[Setting]) -> String {
    let mut out = format!(
        "\n| confirm | planned failovers, {WRITERS} writers | disconnects | errors | acknowledged writes | lost \
         | stall, median | stall, maximum |\n|---|---|---|---|---|---|---|---|\n"
    );
    for setting in settings {
        let _ = writeln!(
            out,
            "| `\"{}\"` | {} | {} | {} | {} | {} | {} ms | {} ms |",
            setting.confirm,
            setting.runs.len(),
            setting.sum(|run| run.disconnects),
            setting.sum(Planned::errors),
            setting.sum(|run| run.acknowledged),
            setting.sum(|run| run.lost),
            whole(median(stalls(setting))),
            whole(stalls(setting).into_iter().reduce(f64::max)),
        );
    }
    out + "\nstall: the longest that any writer went between two acknowledgements, one figure a failover\n"
}

fn crashes(crashes: &Crashes) -> String {
    let kills = &crashes.kills;
    let sum = |of: fn(&Crash) -> usize| kills.iter().map(of).sum::<usize>();
    let first: Vec<f64> = kills.iter().map(|kill| ms(kill.first_answer)).collect();
    let mut out = String::new();
    for (what, measured) in [
        ("kills of the master", kills.len().to_string()),
        (
            "idle connections kept, and lost",
            format!("{}, {}", sum(|k| k.survived), sum(|k| k.broken.len())),
        ),
        (
            "connections closed",
            sum(Crash::closed_together).to_string(),
        ),
        (
            "requests in flight at the kill",
            sum(|k| k.in_flight).to_string(),
        ),
        ("errors answered", sum(|k| k.refused).to_string()),
        (
            "acknowledged writes, and lost with the old master",
            format!("{}, {}", sum(|k| k.acknowledged), sum(|k| k.lost)),
        ),
        (
            "from the kill to the first answer: median, maximum",
            format!(
                "{}, {} ms",
                whole(median(first.clone())),
                whole(first.into_iter().reduce(f64::max))
            ),
        ),
    ] {
        let _ = writeln!(out, "| {what} | {measured} |");
    }
    format!("\n| kills under {WRITERS} writers and {POOL} idle connections | |\n|---|---|\n{out}")
}

/// What happened when, in the order of the medians.
fn timeline(title: &str, runs: &[Moments]) -> String {
    let mut rows: Vec<(f64, String)> = Vec::new();
    let first = runs.first().map(|run| run.0.as_slice()).unwrap_or_default();
    for (place, moment) in first.iter().enumerate() {
        let seen: Vec<f64> = runs.iter().filter_map(|run| run.0[place].at_ms).collect();
        let Some(at) = median(seen.clone()) else {
            continue;
        };
        let least = seen.iter().copied().reduce(f64::min);
        let most = seen.iter().copied().reduce(f64::max);
        let column = |who| if moment.who == who { moment.what } else { "" };
        let row = format!(
            "| {} | {} to {} | {} | {} | {} |",
            whole(Some(at)),
            whole(least),
            whole(most),
            column(Who::Servers),
            column(Who::Proxy),
            column(Who::Clients)
        );
        rows.push((at, row));
    }
    rows.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    format!(
        "\n{title}, {} of them:\n\n| t, ms (median) | range | Sentinels, servers | switchmaster | clients |\n\
         |---|---|---|---|---|\n{}\n",
        runs.len(),
        rows.join("\n")
    )
}

fn load_json(load: &UnderLoad) -> Value {
    let run = |figures: &Vec<Figure>| {
        let figure = |figure: &Figure| {
            let (per_second, longest_ms) = (figure.per_second, figure.longest_ms);
            json!({"test": figure.test, "per_second": per_second, "longest_ms": longest_ms})
        };
        figures.iter().map(figure).collect::<Vec<_>>()
    };
    json!({
        "pipeline": load.pipeline,
        "requests": load.requests,
        "planned_failovers": load.failovers,
        "cut": load.cut,
        "closed": load.closed,
        "complaint": load.complaint,
        "runs": load.runs.iter().map(run).collect::<Vec<_>>(),
    })
}

fn setting_json(setting: &Setting) -> Value {
    json!({
        "confirm": setting.confirm,
        "writers": WRITERS,
        "runs": setting.runs.len(),
        "disconnects": setting.sum(|run| run.disconnects),
        "errors": setting.sum(Planned::errors),
        "acknowledged": setting.sum(|run| run.acknowledged),
        "lost": setting.sum(|run| run.lost),
        "stall_ms": stalls(setting),
        "stall_median_ms": median(stalls(setting)),
        "moments": moments_json(&setting.moments),
    })
}

fn crashes_json(crashes: &Crashes) -> Value {
    let kill = |kill: &Crash| {
        json!({
            "idle_kept": kill.survived,
            "idle_broken": kill.broken,
            "closed": kill.closed,
            "disconnects": kill.disconnects,
            "in_flight": kill.in_flight,
            "refused": kill.refused,
            "acknowledged": kill.acknowledged,
            "lost": kill.lost,
            "lost_after_the_kill": kill.lost_after,
            "first_answer_ms": ms(kill.first_answer),
        })
    };
    json!({
        "kills": crashes.kills.iter().map(kill).collect::<Vec<_>>(),
        "moments": moments_json(&crashes.moments),
    })
}

fn moments_json(runs: &[Moments]) -> Value {
    let run = |run: &Moments| {
        let moments = run.0.iter();
        let pairs = moments.map(|moment| (moment.what.to_owned(), json!(moment.at_ms)));
        Value::Object(pairs.collect())
    };
    runs.iter().map(run).collect()
}

fn row_json(row: &Row) -> Value {
    let fate = |fate: &Fate| json!({"kept": fate.kept, "closed": fate.closed, "reasons": fate.reasons, "broken": fate.broken});
    json!({"session": row.name, "planned": fate(&row.planned), "crash": fate(&row.crash)})
}

fn stalls(setting: &Setting) -> Vec<f64> {
    setting.runs.iter().map(|run| ms(run.pause)).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Of nothing there is none.
fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    // Of an even number the middle between the middle two.
    let lower = figures[(figures.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

fn whole(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.0}"))
}
