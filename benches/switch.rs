//! How long a planned failover takes, from the first word of any Sentinel to the first answer of the new master
//! on a new connection, through the real program on real servers.
//!
//! `cargo bench --bench switch [-- RUNS]`. Prints a line for each run, then median and maximum. Asserts nothing:
//! figures are for people, and for the machine they were taken on.

use std::thread;
use std::time::Duration;

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::announced::{announcements, first_answer_of_another};
use harness::topology::{FAILOVER, FOLLOW, Topology};

/// Failovers of one run of this bench unless told otherwise.
const RUNS: usize = 10;
/// Most failovers that can be asked for: about 15 s each.
const MOST_RUNS: usize = 200;

/// One failover, measured.
struct Run {
    announced_to_served: Duration,
    announced_by: String,
    fence_ms: f64,
    verify_ms: f64,
}

fn main() {
    // `cargo bench` adds `--bench`; `cargo test` runs this without it, to see that it builds and starts.
    let args: Vec<String> = std::env::args().skip(1).collect();
    if !args.iter().any(|arg| arg == "--bench") {
        return;
    }
    let runs = args
        .iter()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(RUNS)
        .min(MOST_RUNS);
    println!("{runs} planned failovers; from the first Sentinel's announcement:");
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut times = Vec::new();
    for number in 1..=runs {
        let run = measure(&servers, &proxy);
        println!(
            "{number:>3}  first byte of the new master on a new connection {:>7.2} ms   verify {:>6.2} ms   \
             fence {:>6.2} ms   ({})",
            milliseconds(run.announced_to_served),
            run.verify_ms,
            run.fence_ms,
            run.announced_by,
        );
        times.push(run.announced_to_served);
        servers.settle();
    }
    times.sort();
    println!(
        "median {:.2} ms, maximum {:.2} ms",
        milliseconds(times[times.len() / 2]),
        milliseconds(times[times.len() - 1]),
    );
}

fn measure(servers: &Topology, proxy: &harness::proxy::Proxy) -> Run {
    let (old, addr, mark) = (servers.master().addr(), proxy.addr(), proxy.mark());
    let announcements = announcements(&servers.sentinels());
    let client = thread::spawn(move || first_answer_of_another(addr, old));
    servers
        .cluster()
        .trigger_failover(fastrand::usize(..servers.sentinels().len()))
        .unwrap_or_else(|e| panic!("{e}"));
    let (announced, announced_by) = announcements
        .recv_timeout(FAILOVER)
        .expect("a Sentinel announces the new master");
    let served = client
        .join()
        .expect("the client is served by the new master");
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    Run {
        announced_to_served: served.since(announced),
        announced_by,
        fence_ms: switched.number("fence_ms"),
        verify_ms: switched.number("verify_ms"),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
