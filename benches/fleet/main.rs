//! What a fleet of proxies costs the three Sentinels it follows, at rest and in a planned failover, and how evenly it
//! switches: 1,000 whole control planes (discovery, watchers, steward, control task, verification, control connection)
//! in this process, a real master, two real replicas.
//!
//! `cargo bench --bench fleet [-- OPTIONS]`, see [`USAGE`]. Times and shares are printed and never asserted: they
//! are for people, and for the machine they were taken on. Exit code 1 when a count is wrong, which is no matter of speed:
//! more than one link per proxy and Sentinel, or a proxy that did not follow.

mod fleet;
mod page;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use switchmaster::demo::instance::Instance;
use switchmaster::net::clock::now;

#[path = "../../tests/harness/mod.rs"]
mod harness;

use fleet::Fleet;
use harness::args::Args;
use harness::cost::{Taking, rss_kib};
use harness::topology::{FAILOVER, Switch, Topology};
use harness::{raise_descriptor_limit, wait_until};
use page::{Failover, Page, Rest, SentinelAtRest, Spent};

const USAGE: &str = "cargo bench --bench fleet -- [OPTIONS]
  --watchers N      control planes, one for each proxy there would be (1000)
  --threads N       threads that they share (1)
  --rest-seconds N  time over which the rest is measured (20)
  --failovers N     planned failovers (3)
  --quick           50 watchers, 2 s, 1 failover: only to see that it works
  --json            the same figures as one JSON object";

/// Descriptors of one control plane: three Sentinels, the master, an announced successor, a dial.
const FILES_PER_WATCHER: u64 = 6;
/// Descriptors of everything else.
const RESERVED_FILES: u64 = 200;
/// A fleet was not started in one instant: its polls have no common beat.
const SPREAD: Duration = Duration::from_secs(5);
/// A small one starts faster.
const SPREAD_PER_WATCHER: Duration = Duration::from_millis(5);
/// Until the whole fleet serves: the spread, and time for a small machine.
const READY: Duration = Duration::from_secs(60);
/// After the last has connected: what is only done at the start is over.
const CALM: Duration = Duration::from_secs(3);
/// After the last switch: the leading Sentinel's own events come last, and each makes the fleet ask again.
const AFTERMATH: Duration = Duration::from_secs(2);
/// A Sentinel that was not run for 2 s does nothing for 30 s. Whoever sees this wait should make the machine quiet.
const TILT: Duration = Duration::from_secs(120);
/// How often the fleet is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Size {
    watchers: usize,
    threads: usize,
    rest: Duration,
    failovers: usize,
}

fn main() -> ExitCode {
    let Some(mut args) = Args::of_bench(USAGE) else {
        return ExitCode::SUCCESS;
    };
    let (watchers, rest, failovers) = match args.flag("--quick") {
        true => (50, 2, 1),
        false => (1000, 20, 3),
    };
    let json = args.flag("--json");
    let rest = args.number("--rest-seconds", rest, 3600);
    let size = Size {
        watchers: args.number("--watchers", watchers, 10_000),
        threads: args.number("--threads", 1, 64),
        rest: Duration::from_secs(rest.try_into().expect("at most 3600")),
        failovers: args.number("--failovers", failovers, 100),
    };
    args.end();

    raise_descriptor_limit();
    if let Err(why) = has_files_for(size.watchers) {
        eprintln!("{why}");
        return ExitCode::from(2);
    }
    let page = measure(size);
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

fn has_files_for(watchers: usize) -> Result<(), String> {
    let limit = switchmaster::net::socket::open_files().unwrap_or(u64::MAX);
    let most = limit.saturating_sub(RESERVED_FILES) / FILES_PER_WATCHER;
    if watchers as u64 > most {
        return Err(format!(
            "the hard limit of open files ({limit}) allows {most} watchers: ulimit -Hn, or --watchers {most}"
        ));
    }
    Ok(())
}

fn measure(size: Size) -> Page {
    let servers = Topology::start();
    let own = std::process::id();
    let rss_before = rss_kib(own);

    let fleet = Fleet::start(
        size.watchers,
        size.threads,
        SPREAD.min(SPREAD_PER_WATCHER.mul_f64(size.watchers as f64)),
        &servers.sentinels(),
        servers.cluster().master_name(),
    );
    let master = servers.master().addr();
    wait_until("the whole fleet to serve", READY, || {
        fleet.serving_since(|addr| addr == master).len() == size.watchers
    });
    // Nothing to wait for: what the start set off is to have passed before rest is measured.
    thread::sleep(CALM);

    let rest = rest(&servers, size.rest);
    let rss_per_watcher_kib =
        (rss_kib(own).saturating_sub(rss_before)) as f64 / size.watchers as f64;
    let failovers = (0..size.failovers)
        .map(|round| {
            let (failover, switch) = fail_over(&servers, &fleet, size.watchers, round);
            if round + 1 < size.failovers {
                servers.ready_again(switch);
            }
            failover
        })
        .collect();
    Page {
        servers: servers.server_version(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        watchers: size.watchers,
        threads: size.threads,
        rest,
        rss_per_watcher_kib,
        failovers,
    }
}

/// What the fleet costs while nothing happens.
fn rest(servers: &Topology, time: Duration) -> Rest {
    let sentinels = servers.cluster().sentinels();
    let before: Vec<u64> = sentinels.iter().map(commands).collect();
    let taking = Taking::of(sentinels.iter().map(pid).chain([std::process::id()]));
    thread::sleep(time);
    let (mut spent, lasted) = taking.end();
    let own_spent = spent.pop().unwrap_or_default();
    let at_rest = sentinels.iter().zip(before).zip(spent);
    let at_rest = at_rest.map(|((sentinel, before), spent)| SentinelAtRest {
        commands: commands(sentinel) - before,
        links: links(sentinel),
        spent,
    });
    Rest {
        sentinels: at_rest.collect(),
        own_spent,
        lasted,
    }
}

/// One planned failover under the eyes of the fleet. Nobody else asks the servers meanwhile.
fn fail_over(
    servers: &Topology,
    fleet: &Fleet,
    watchers: usize,
    round: usize,
) -> (Failover, Switch) {
    let cluster = servers.cluster();
    let old = servers.master().addr();
    let processes: Vec<&Instance> = cluster.sentinels().iter().chain(cluster.nodes()).collect();
    let sentinel = round % cluster.sentinels().len();
    wait_until("every Sentinel to have left TILT", TILT, || {
        let calm = |sentinel| field(sentinel, "sentinel", "sentinel_tilt:") == 0;
        cluster.sentinels().iter().all(calm)
    });
    // Not part of it: a Sentinel that sees no fit replica yet refuses, and is asked again.
    cluster
        .trigger_failover(sentinel)
        .unwrap_or_else(|e| panic!("{e}"));
    let began = now();
    let pids = processes.iter().map(|process| pid(process));
    let taking = Taking::of(pids.chain([std::process::id()]));
    let deadline = began + FAILOVER;
    while fleet.serving_since(|addr| addr != old).len() < watchers && now() < deadline {
        thread::sleep(LOOK);
    }
    thread::sleep(AFTERMATH);
    let (mut spent, lasted) = taking.end();
    let own_spent = spent.pop().unwrap_or_default();

    let switch = servers.switched_from(old);
    let mut at = fleet.serving_since(|addr| addr == switch.new);
    at.sort_unstable();
    let role = |process: &Instance| match process.addr() {
        addr if addr == switch.new => "new master",
        addr if addr == switch.old => "old master",
        addr if servers.sentinels().contains(&addr) => "Sentinel",
        _ => "other replica",
    };
    let spent = processes.iter().zip(spent).map(|(process, spent)| Spent {
        by: role(process),
        spent,
    });
    let failover = Failover {
        followed: at.len(),
        first: at.first().map(|first| first.since(began)),
        median: at.get(at.len() / 2).map(|median| median.since(began)),
        last: at.last().map(|last| last.since(began)),
        spent: spent.collect(),
        own_spent,
        lasted,
    };
    (failover, switch)
}

fn pid(instance: &Instance) -> u32 {
    instance.pid().expect("it runs: nothing here ends it")
}

/// Connected clients, as CLIENT LIST has them, without the other Sentinels and this very question.
fn links(sentinel: &Instance) -> usize {
    let is_fleet =
        |client: &str| !client.contains(" name=sentinel-") && !client.contains(" cmd=client");
    ask(sentinel, &["CLIENT", "LIST"])
        .lines()
        .filter(|client| is_fleet(client))
        .count()
}

/// Commands that it has executed.
fn commands(sentinel: &Instance) -> u64 {
    field(sentinel, "stats", "total_commands_processed:")
}

/// A number in a section of INFO.
fn field(sentinel: &Instance, section: &str, name: &str) -> u64 {
    ask(sentinel, &["INFO", section])
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO {section} does not tell {name}"))
}

fn ask(sentinel: &Instance, command: &[&str]) -> String {
    let answer = sentinel.connect().and_then(|mut conn| conn.call(command));
    let answer = answer.expect("the Sentinel is asked directly");
    answer
        .text()
        .unwrap_or_else(|| panic!("{command:?} was answered with {answer:?}"))
}
