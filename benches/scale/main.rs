//! The network's side of it: new connections by the thousand, the ports and TIME_WAIT that they take, failovers under them,
//! thousands of idle sessions at a swap, and small requests beside large ones. Real servers, and HAProxy in the same run.
//!
//! `cargo bench --bench scale [-- OPTIONS]`, see [`USAGE`]. As root it moves into a network namespace of its own first, so that
//! its sysctls and what it leaves in TIME_WAIT are nobody else's; without root the parts that need one are left out, and say so.
//! Times are printed and never asserted. Exit code 1 when a count is wrong, which is no matter of speed: see `findings`.

mod churn;
mod crowd;
mod delay;
mod flood;
mod idle;
mod page;
mod subject;
mod tail;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use serde_json::json;

#[path = "../../tests/harness/mod.rs"]
mod harness;

use harness::args::Args;
use harness::raise_descriptor_limit;
use page::Part;

const USAGE: &str = "cargo bench --bench scale -- [PARTS] [OPTIONS]
parts (all of them unless some are named):
  --churn           connects at a steady rate, proxy and clients in one network namespace, servers in another
  --ports           the same with few ports: who runs out of them
  --delay           the same with a master that is a millisecond away in each direction
  --flood           planned failovers and kills under a flood of connects
  --idle            idle sessions: accepting, cutting and keeping them all at a swap, and what it costs another
  --tail            small requests beside one session that moves 1 MiB values
options:
  --seconds N       of --churn for each program (60); --ports and --delay take a quarter of it
  --rate N          connects a second in --churn, --ports and --delay (1000)
  --flood-rate N    connects a second in --flood (5000)
  --failovers N     of each kind in --flood, with the flood and without (3)
  --sessions N      in --idle (9000)
  --rounds N        in --tail (5)
  --quick           everything small: only to see that it works
  --json            the same figures as one JSON object";

/// Tells the process that it is in a namespace of its own.
const INSIDE: &str = "SWITCHMASTER_BENCH_NAMESPACE";

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) seconds: usize,
    pub(crate) rate: u32,
    pub(crate) flood_rate: u32,
    pub(crate) failovers: usize,
    pub(crate) sessions: usize,
    pub(crate) rounds: usize,
    /// Of one measurement in `--tail`, in milliseconds.
    pub(crate) round_ms: u64,
}

/// A part of the bench by its option.
type Measure = fn(&Size) -> Part;
const PARTS: [(&str, Measure); 6] = [
    ("--churn", churn::steady),
    ("--ports", churn::few_ports),
    ("--delay", delay::measure),
    ("--flood", flood::measure),
    ("--idle", idle::measure),
    ("--tail", tail::measure),
];

fn main() -> ExitCode {
    let Some(mut args) = Args::of_bench(USAGE) else {
        return ExitCode::SUCCESS;
    };
    let mut parts: Vec<Measure> = PARTS
        .iter()
        .filter(|(name, _)| args.flag(name))
        .map(|(_, measure)| *measure)
        .collect();
    if parts.is_empty() {
        parts = PARTS.iter().map(|(_, measure)| *measure).collect();
    }
    let quick = args.flag("--quick");
    let or = |full: usize, small: usize| if quick { small } else { full };
    let json = args.flag("--json");
    let size = Size {
        seconds: args.number("--seconds", or(60, 2), 3600),
        rate: narrow(args.number("--rate", or(1000, 200), 100_000)),
        flood_rate: narrow(args.number("--flood-rate", or(5000, 500), 100_000)),
        failovers: args.number("--failovers", or(3, 1), 100),
        sessions: args.number("--sessions", or(9000, 300), 100_000),
        rounds: args.number("--rounds", or(5, 1), 1000),
        round_ms: if quick { 300 } else { 2000 },
    };
    args.end();
    move_into_a_namespace();
    raise_descriptor_limit();

    let parts: Vec<Part> = parts
        .into_iter()
        .map(|measure| {
            let part = measure(&size);
            // A part takes minutes: what is known is shown.
            if !json {
                println!("{}", part.table());
            }
            part
        })
        .collect();
    if json {
        let parts: Vec<_> = parts.iter().map(Part::json).collect();
        println!(
            "{:#}",
            json!({ "size": format!("{size:?}"), "parts": parts })
        );
    }
    let findings: Vec<&String> = parts.iter().flat_map(|part| &part.findings).collect();
    for finding in &findings {
        eprintln!("failed: {finding}");
    }
    ExitCode::from(u8::from(!findings.is_empty()))
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("at most 100,000")
}

/// Starts this process over in a network namespace of its own, where root can make one. Returns when it is there, or cannot be.
fn move_into_a_namespace() {
    if std::env::var_os(INSIDE).is_some() {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()), "ip link set lo up");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let own = std::env::current_exe().expect("/proc");
    let error = Command::new("unshare")
        .arg("--net")
        .arg(own)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    panic!("unshare --net: {error}: install util-linux, or run scripts/setup network");
}
