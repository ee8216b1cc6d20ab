//! What clients notice of failovers, which is to be nothing where a session can be kept: the real program in its
//! default mode, on real servers.
//!
//! `cargo bench --bench kept [-- OPTIONS]`, see [`USAGE`]. Times are printed and never asserted: they are for people,
//! and for the machine they were taken on. Exit code 1 when a promise was broken, which is no matter of speed.

mod crashes;
mod moments;
mod page;
mod planned;
mod promises;
mod sessions;
mod under_load;

use std::process::ExitCode;

#[path = "../../tests/harness/mod.rs"]
mod harness;

use harness::args::Args;
use harness::topology::Topology;
use page::Page;

const USAGE: &str = "cargo bench --bench kept -- [OPTIONS]
Parts; all of them when none is named:
  --requests N  redis-benchmark, N SETs and N GETs a run at -P 1 and at -P 16, during 3 planned failovers each (500000)
  --planned N   N planned failovers of each setting of failover.confirm, under 10 writers (20); some 9 s each
  --kills N     N kills of the master under 10 writers and 200 idle connections (10); some 12 s each
  --promises    every kind of session in a planned failover and in a crash
And:
  --json        the same figures as one JSON object";

/// Of each part unless told otherwise.
const REQUESTS: usize = 500_000;
const PLANNED: usize = 20;
const KILLS: usize = 10;
/// Most that can be asked for.
const MOST_REQUESTS: usize = 100_000_000;
const MOST_FAILOVERS: usize = 1000;
/// Commands that redis-benchmark has under way on each connection.
const PIPELINES: [usize; 2] = [1, 16];

fn main() -> ExitCode {
    let Some(mut args) = Args::of_bench(USAGE) else {
        return ExitCode::SUCCESS;
    };
    let json = args.flag("--json");
    // Zero cannot be asked for: it is a part that was not named.
    let mut requests = args.number("--requests", 0, MOST_REQUESTS);
    let mut planned = args.number("--planned", 0, MOST_FAILOVERS);
    let mut kills = args.number("--kills", 0, MOST_FAILOVERS);
    let mut promises = args.flag("--promises");
    args.end();
    if (requests, planned, kills, promises) == (0, 0, 0, false) {
        (requests, planned, kills, promises) = (REQUESTS, PLANNED, KILLS, true);
    }

    let page = measure(requests, planned, kills, promises);
    if json {
        println!("{:#}", page.json());
    } else {
        println!("{}", page.table());
    }
    let findings = page.findings();
    for finding in &findings {
        eprintln!("failed: {finding}");
    }
    ExitCode::from(u8::from(!findings.is_empty()))
}

/// The parts that were named, one after the other on the same servers.
fn measure(requests: usize, planned: usize, kills: usize, promises: bool) -> Page {
    let servers = Topology::start();
    let mut page = Page::new(&servers);
    if requests > 0 {
        let load = |depth| under_load::measure(&servers, depth, requests);
        page.under_load = PIPELINES.map(load).into();
    }
    if planned > 0 {
        page.planned = planned::measure(&servers, planned);
    }
    if kills > 0 {
        page.crashes = Some(crashes::measure(&servers, kills));
    }
    if promises {
        page.promises = promises::measure(&servers);
    }
    page
}
