//! The nemesis: a real topology, the real program in front of it, all kinds of clients through it, faults drawn
//! from a seed, and a checker that holds the whole history against the invariants at the end.
//!
//! `scripts/soak` runs it; plain `cargo test` does not. The checker's own tests are `tests/soak_checker.rs`.
//! Exit code: 0 every invariant held, 1 one did not, 2 the run says nothing (servers, arguments).

mod checker;
mod clients;
mod history;
mod nemesis;
mod page;
mod proxy;
mod schedule;
mod witness;

#[path = "../harness/chaos.rs"]
#[allow(
    unreachable_pub,
    reason = "shared with test programs in which it is reachable"
)]
mod chaos;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use switchmaster::demo::cluster::{Cluster, Options};
use switchmaster::demo::instance::Instance;
use switchmaster::demo::server::Server;
use switchmaster::demo::wait::wait_until;
use switchmaster::demo::wire::Value;
use switchmaster::net::clock::{Moment, now};

use chaos::ChaosRelay;
use checker::{Demands, check};
use clients::{Clients, micros};
use history::{Evidence, Round, Token};
use nemesis::Nemesis;
use proxy::{Proxy, rss_kib};
use schedule::{Schedule, Step};
use witness::Witnesses;

/// I7: the program needs some 8 MiB, its few clients a buffer each, whatever the size of what they send.
const RSS_CAP_KIB: u64 = 32 * 1024;
/// Clients are held from the announcement of a planned failover on, so that it loses nothing.
const ANNOUNCED_HOLD: bool = true;
/// Unless told otherwise.
const LASTING: Duration = Duration::from_secs(90);
/// How long it may take until the sockets of clients that went are gone.
const GONE: Duration = Duration::from_secs(15);
/// Between two samples of memory, and two live lines.
const SAMPLE: Duration = Duration::from_millis(500);
/// A node that is asked for all its tokens.
const READ_BACK: Duration = Duration::from_secs(60);

/// What was asked for.
struct Args {
    seed: u64,
    on_switch: &'static str,
    lasting: Duration,
    results: PathBuf,
}

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(why) => {
            eprintln!(
                "soak: {why}\nusage: scripts/soak [--seed N] [--minutes M | --seconds S] [--on-switch move|close]"
            );
            return ExitCode::from(2);
        }
    };
    println!(
        "soak: seed {}, {} s, on_switch = \"{}\"; repeat it with: scripts/soak --seed {} --seconds {} --on-switch {}",
        args.seed,
        args.lasting.as_secs(),
        args.on_switch,
        args.seed,
        args.lasting.as_secs(),
        args.on_switch
    );
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!(
                "soak: seed {}: the run says nothing: {why}\nsee {}",
                args.seed,
                args.results.display()
            );
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<bool, String> {
    std::fs::create_dir_all(&args.results).map_err(|e| format!("no folder for results: {e}"))?;
    let server = Server::find(None).map_err(|e| e.to_string())?;
    println!("soak: on {server}");
    let guard = Path::new(env!("CARGO_BIN_EXE_switchmaster")).to_owned();
    let cluster = Cluster::start(&Options::new(server, guard)).map_err(|e| e.to_string())?;
    let relays: Vec<ChaosRelay> = cluster
        .sentinels()
        .iter()
        .map(|sentinel| ChaosRelay::to(sentinel.addr()))
        .collect();
    let links: Vec<SocketAddr> = relays.iter().map(ChaosRelay::addr).collect();
    let nodes: Vec<SocketAddr> = cluster.nodes().iter().map(Instance::addr).collect();
    let witnesses = Witnesses::start(&nodes);
    let proxy = Proxy::start(&links, args.on_switch, &args.results)?;
    let fds_before = wait_calm(&proxy);
    let clients = Clients::start(proxy.addr(), args.seed);
    let mut nemesis = Nemesis::new(&cluster, &relays, proxy);

    let watch = Watch::start();
    let mut evidence = Evidence::default();
    let outcome = torment(args, &mut nemesis, &clients, &watch, &mut evidence);
    (evidence.resources.rss_peak_kib, evidence.resources.late_ms) = watch.stop();
    evidence.ops = clients.stop();
    if outcome.is_ok() {
        evidence.resources.fds_before = fds_before;
        evidence.resources.fds_after = wait_gone(&nemesis.proxy, fds_before);
        let master = cluster.master_addr().map_err(|e| e.to_string())?;
        let master = cluster.node_at(master).ok_or("the master is no node")?;
        evidence.present = tokens_on(master)?;
    }
    evidence.executed = witnesses.stop();
    evidence.declared = nemesis.proxy.declared();
    evidence.given_up = nemesis.proxy.given_up();
    if let Err(why) = outcome {
        page::write_history(&args.results, args.seed, &evidence)?;
        keep_logs(&cluster, &args.results)?;
        return Err(why);
    }
    let acked = evidence.ops.iter().filter(|op| op.is_acked_write());
    if evidence.executed.len() * 2 < acked.count() {
        return Err("the witnesses saw less than half of what was executed".to_owned());
    }
    let demands = Demands {
        rss_cap_kib: RSS_CAP_KIB,
        announced_hold: ANNOUNCED_HOLD,
    };
    let findings = check(&evidence, demands);
    let page = page::result(args.seed, &evidence, demands, &findings, &nemesis.proxy);
    println!("\n{page}");
    let failed = |e| format!("cannot write the result: {e}");
    std::fs::write(args.results.join("result.txt"), &page).map_err(failed)?;
    if !findings.violations.is_empty() {
        page::write_history(&args.results, args.seed, &evidence)?;
        keep_logs(&cluster, &args.results)?;
        println!(
            "history, schedule and the proxy's logs: {}",
            args.results.display()
        );
    }
    Ok(findings.violations.is_empty())
}

/// One step after the other until the time is over; always healed and at rest at the end.
fn torment(
    args: &Args,
    nemesis: &mut Nemesis<'_>,
    clients: &Clients,
    watch: &Watch,
    evidence: &mut Evidence,
) -> Result<(), String> {
    let begun = now();
    let mut hurried = false;
    for (number, step) in (1..).zip(Schedule::of(args.seed)) {
        if now().since(begun) >= args.lasting {
            break;
        }
        watch.follow(&nemesis.proxy);
        announce(begun, number, &step);
        let from = micros();
        let at = now();
        let done = nemesis.perform(&step);
        watch.follow(&nemesis.proxy);
        evidence.rounds.push(round(&step, number, from, hurried));
        let aftermath = done.map_err(|why| format!("step {number}, {step}: {why}"))?;
        say(begun, number, &step, at, clients, aftermath.forced);
        if let Some(stuck) = aftermath.stuck {
            println!("        {stuck}");
            evidence
                .stuck
                .push(format!("step {number}, {step}: {stuck}"));
        }
        hurried = step.rushed;
    }
    nemesis.heal()?;
    nemesis.settle().map(drop)
}

fn round(step: &Step, number: usize, from: u64, hurried: bool) -> Round {
    Round {
        kind: step.fault.kind(),
        what: format!("step {number}, {step}"),
        from,
        to: micros(),
        clean_planned: step.fault.kind() == "planned failover" && step.side.is_none() && !hurried,
        disturbs_replication: step.fault.disturbs_replication(),
    }
}

/// The live line: what goes on now; rewritten by what came of it.
fn announce(begun: Moment, number: usize, step: &Step) {
    let mut out = std::io::stdout();
    if out.is_terminal() {
        let since = now().since(begun).as_secs_f64();
        // A terminal that is gone takes nothing from the run.
        drop(write!(out, "{since:6.1} s  {number:>3}  {step} ..."));
        drop(out.flush());
    }
}

fn say(begun: Moment, number: usize, step: &Step, at: Moment, clients: &Clients, forced: bool) {
    let (requests, acked) = clients.totals();
    if std::io::stdout().is_terminal() {
        print!("\r\x1b[K");
    }
    println!(
        "{:6.1} s  {number:>3}  {step}; {:.1} s{}  [{requests} requests, {acked} writes acknowledged]",
        now().since(begun).as_secs_f64(),
        now().since(at).as_secs_f64(),
        if forced {
            ", the Sentinels had to be told who is master"
        } else {
            ""
        },
    );
}

/// Descriptors of a proxy without clients, when their number no longer changes.
fn wait_calm(proxy: &Proxy) -> usize {
    let mut last = (proxy.open_fds(), now());
    let calm = Duration::from_secs(2);
    drop(wait_until(
        now() + GONE,
        "the descriptors to be calm",
        || {
            let fds = proxy.open_fds();
            if fds != last.0 {
                last = (fds, now());
            }
            (now().since(last.1) >= calm)
                .then_some(())
                .ok_or_else(String::new)
        },
    ));
    last.0
}

/// Descriptors when they are no more than before, or when the time for that is over.
fn wait_gone(proxy: &Proxy, before: usize) -> usize {
    drop(wait_until(now() + GONE, "the descriptors to go", || {
        (proxy.open_fds() <= before)
            .then_some(())
            .ok_or_else(String::new)
    }));
    proxy.open_fds()
}

/// The servers' logs go with their folder; these stay.
fn keep_logs(cluster: &Cluster, results: &Path) -> Result<(), String> {
    let copy = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(cluster.folder())? {
            let path = entry?.path();
            if let Some(name) = path
                .file_name()
                .filter(|_| path.extension() == Some("log".as_ref()))
            {
                std::fs::copy(&path, results.join(name))?;
            }
        }
        Ok(())
    };
    copy().map_err(|e| format!("cannot keep the servers' logs: {e}"))
}

fn tokens_on(node: &Instance) -> Result<Vec<Token>, String> {
    let mut conn = node.connect().map_err(|e| e.to_string())?;
    conn.set_timeout(READ_BACK);
    let mut tokens = Vec::new();
    for pattern in ["list:*", "queue:*"] {
        let keys = conn.call(&["KEYS", pattern]).map_err(|e| e.to_string())?;
        for key in keys.items().iter().filter_map(Value::text) {
            let list = conn.call(&["LRANGE", &key, "0", "-1"]);
            let list = list.map_err(|e| e.to_string())?;
            let numbers = list.items().iter().filter_map(Value::text);
            tokens.extend(numbers.filter_map(|t| t.strip_prefix('t')?.parse::<Token>().ok()));
        }
    }
    Ok(tokens)
}

/// Samples the proxy's memory, and how much of the machine is left for this.
struct Watch {
    pid: Arc<AtomicU32>,
    peak: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Watch {
    fn start() -> Self {
        let (pid, peak, late, stop) = (
            Arc::new(AtomicU32::new(0)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (watched, highest, over) = (Arc::clone(&pid), Arc::clone(&peak), Arc::clone(&stop));
        let slept = Arc::clone(&late);
        let thread = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                if let Some(rss) = rss_kib(watched.load(Ordering::Relaxed)) {
                    highest.fetch_max(rss, Ordering::Relaxed);
                }
                let at = now();
                thread::sleep(SAMPLE);
                let late = now().since(at).saturating_sub(SAMPLE);
                slept.fetch_max(
                    u64::try_from(late.as_millis()).unwrap_or(u64::MAX),
                    Ordering::Relaxed,
                );
            }
        });
        Self {
            pid,
            peak,
            late,
            stop,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// From now on this start of the proxy.
    fn follow(&self, proxy: &Proxy) {
        self.pid.store(proxy.pid().unwrap_or(0), Ordering::Relaxed);
    }

    /// The largest memory, KiB, and the latest that this process itself was run, milliseconds.
    fn stop(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            drop(thread.join());
        }
        (
            self.peak.load(Ordering::Relaxed),
            self.late.load(Ordering::Relaxed),
        )
    }
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self {
            seed: fastrand::u64(..1_000_000_000),
            on_switch: "move",
            lasting: LASTING,
            results: PathBuf::new(),
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words
                .next()
                .ok_or_else(|| format!("{word} wants a value"))?;
            let number = || {
                let number: Result<u64, _> = value.parse();
                number.map_err(|_| format!("{word} wants a number, not {value:?}"))
            };
            match word.as_str() {
                "--seed" => args.seed = number()?,
                "--on-switch" => {
                    args.on_switch = match value.as_str() {
                        "move" => "move",
                        "close" => "close",
                        _ => return Err("--on-switch wants move or close".to_owned()),
                    }
                }
                "--seconds" => args.lasting = Duration::from_secs(number()?),
                "--minutes" => args.lasting = Duration::from_secs(number()? * 60),
                _ => return Err(format!("{word} is not known")),
            }
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        args.results = folder.join(format!("soak-{}-{}", args.seed, std::process::id()));
        Ok(args)
    }
}
