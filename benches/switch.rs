//! How long a planned failover takes, from the first word of any Sentinel to the first answer of the new master
//! on a new connection, through the real program on real servers.
//!
//! `cargo bench --bench switch [-- RUNS]`. Prints a line for each run, then median and maximum. Asserts nothing:
//! figures are for people, and for the machine they were taken on.

use std::net::SocketAddr;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::{Moment, now};

#[path = "../tests/harness/mod.rs"]
mod harness;

use harness::topology::{FAILOVER, FOLLOW, Topology, port_of};

/// Failovers of one run of this bench unless told otherwise.
const RUNS: usize = 10;
/// Most failovers that can be asked for: about 15 s each.
const MOST_RUNS: usize = 200;
/// What a Sentinel says once a promotion is certain; the first of these, of any Sentinel, starts the clock.
const ANNOUNCEMENTS: [&str; 3] = ["+switch-master", "+promoted-slave", "+config-update-from"];
/// Between two attempts of the client; also the error of its measurement.
const ATTEMPT: Duration = Duration::from_micros(500);
/// One attempt of the client: an attempt that is held through the switch is answered at its end.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let (heard, announcements) = sync_channel(64);
    for sentinel in servers.sentinels() {
        listen(sentinel, heard.clone());
    }
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

/// Tells when this Sentinel first announces something. Its own subscription: the proxy is not asked.
fn listen(sentinel: SocketAddr, heard: SyncSender<(Moment, String)>) {
    let mut conn = Conn::connect(sentinel, FAILOVER).expect("the Sentinel runs");
    let mut command = vec!["SUBSCRIBE"];
    command.extend(ANNOUNCEMENTS);
    conn.send(&command).expect("the Sentinel runs");
    for _ in ANNOUNCEMENTS {
        conn.read().expect("a confirmation for each channel");
    }
    thread::spawn(move || {
        while let Ok(message) = conn.read() {
            let when = now();
            if let [_, channel, _] = message.items()
                && let Some(channel) = channel.text()
            {
                // The run may be over, and nobody listens any more.
                drop(heard.try_send((when, format!("{channel} of {sentinel}"))));
                return;
            }
        }
    });
}

/// When a new connection was first answered by a server other than `old`.
fn first_answer_of_another(proxy: SocketAddr, old: SocketAddr) -> Moment {
    let deadline = now() + FAILOVER;
    while now() < deadline {
        if let Ok(mut conn) = Conn::connect(proxy, PATIENCE)
            && conn
                .call(&["PING"])
                .is_ok_and(|r| r == Value::Simple("PONG".to_owned()))
        {
            let answered = now();
            if port_of(&mut conn).is_some_and(|port| port != old.port()) {
                return answered;
            }
        }
        thread::sleep(ATTEMPT);
    }
    panic!("no answer of another server within {FAILOVER:?}");
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
