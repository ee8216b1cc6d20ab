//! Small requests beside one session that moves large values: whether it takes more than its turn. 49 sessions ask for 64 bytes as
//! fast as they are answered; beside them nothing, or one that gets or sets 1 MiB as fast as it can.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Size;
use crate::churn::{KEY, VALUE, get};
use crate::harness::flood::{Ask, quantile_ms};
use crate::harness::topology::Topology;
use crate::page::{Cell, Part, median};
use crate::subject::{HAPROXY_AGAIN, HAPROXY_TCP, Running, SWITCHMASTER};

const SMALL: usize = 49;
const LARGE: usize = 1024 * 1024;
/// A reply that takes longer than this is none.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the small sessions have before it counts: a share of the round.
const WARM_UP: f64 = 0.1;

/// What is beside the small sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Gets,
    Sets,
}

/// One program in one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_second: f64,
    large_per_second: f64,
    /// p50, p99, p99.9.
    ms: [f64; 3],
}

/// `--tail`
pub(crate) fn measure(size: &Size) -> Part {
    let round = Duration::from_millis(size.round_ms);
    let mut part = Part::new(
        format!(
            "{SMALL} sessions with GET 64 B beside one with 1 MiB values; {} interleaved rounds of {round:?}, medians",
            size.rounds
        ),
        &[
            "beside",
            "program",
            "small/s",
            "MiB/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "p99 / HAProxy",
            "least",
            "most",
            "p99.9 / HAProxy",
        ],
    );
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let master = servers.master().addr();
    let large = vec![b'L'; LARGE];
    let mut direct = servers.direct(master);
    for (key, value) in [(KEY, &VALUE[..]), ("L", &large[..])] {
        let set = direct.call(&[&b"SET"[..], key.as_bytes(), value]);
        set.expect("the master runs");
    }
    let subjects = [SWITCHMASTER, HAPROXY_TCP, HAPROXY_AGAIN];
    let running = subjects.map(|subject| subject.start(&servers.sentinels(), master));
    for beside in [Beside::Nothing, Beside::Gets, Beside::Sets] {
        let mut rounds = Vec::new();
        for _ in 0..size.rounds {
            rounds.push([0, 1, 2].map(|index: usize| one(&running[index], beside, round)));
        }
        for (index, subject) in subjects.iter().enumerate() {
            let all = |figure: &dyn Fn(&Measured) -> f64| {
                rounds
                    .iter()
                    .map(|round| figure(&round[index]))
                    .collect::<Vec<_>>()
            };
            let ratios = |which: usize| {
                let ratio = |round: &[Measured; 3]| round[index].ms[which] / round[1].ms[which];
                rounds.iter().map(ratio).collect::<Vec<_>>()
            };
            let p99 = ratios(1);
            part.row(vec![
                match beside {
                    Beside::Nothing => "nothing",
                    Beside::Gets => "GET 1 MiB",
                    Beside::Sets => "SET 1 MiB",
                }
                .into(),
                subject.label.into(),
                Cell::Number(median(&all(&|m| m.per_second)), 0),
                Cell::Number(median(&all(&|m| m.large_per_second)), 0),
                Cell::Number(median(&all(&|m| m.ms[0])), 3),
                Cell::Number(median(&all(&|m| m.ms[1])), 3),
                Cell::Number(median(&all(&|m| m.ms[2])), 3),
                median(&p99).into(),
                p99.iter().copied().fold(f64::INFINITY, f64::min).into(),
                p99.iter().copied().fold(0.0, f64::max).into(),
                median(&ratios(2)).into(),
            ]);
        }
    }
    part.note("ratios are taken within a round; \"HAProxy again\" is the same program once more: nothing smaller is claimed");
    part
}

fn one(running: &Running, beside: Beside, lasting: Duration) -> Measured {
    let stop = Arc::new(AtomicBool::new(false));
    let large = (beside != Beside::Nothing).then(|| {
        let (to, stop) = (running.addr, Arc::clone(&stop));
        thread::spawn(move || move_large(to, beside == Beside::Sets, &stop))
    });
    let micros = ask_small(get(running.addr, 0), lasting);
    stop.store(true, Ordering::Relaxed);
    let (moved, time) = large.map_or((0, 1.0), |large| {
        large.join().expect("a thread that does not panic")
    });
    Measured {
        per_second: micros.len() as f64 / (lasting.as_secs_f64() * (1.0 - WARM_UP)),
        large_per_second: moved as f64 / time,
        ms: [500, 990, 999].map(|of_1000| quantile_ms(&micros, of_1000)),
    }
}

/// The latencies of all small sessions, in microseconds, in ascending order.
fn ask_small(ask: Ask, lasting: Duration) -> Vec<u32> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime");
    let asking = runtime.block_on(async {
        let counts = Instant::now() + lasting.mul_f64(WARM_UP);
        let end = Instant::now() + lasting;
        let mut sessions = JoinSet::new();
        for _ in 0..SMALL {
            sessions.spawn_local(small(ask, counts, end));
        }
        sessions.join_all().await
    });
    let mut micros: Vec<u32> = asking.into_iter().flatten().collect();
    micros.sort_unstable();
    micros
}

async fn small(ask: Ask, counts: Instant, end: Instant) -> Vec<u32> {
    let mut micros = Vec::new();
    let mut stream = tokio::net::TcpStream::connect(ask.to)
        .await
        .expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket");
    let mut reply = vec![0; ask.reply];
    loop {
        let began = Instant::now();
        if began >= end {
            return micros;
        }
        stream.write_all(ask.request).await.expect("open");
        stream.read_exact(&mut reply).await.expect("answered");
        if began >= counts {
            let took = began.elapsed().as_micros();
            micros.push(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }
}

/// Values moved, and the seconds that took.
fn move_large(to: SocketAddr, sets: bool, stop: &AtomicBool) -> (u64, f64) {
    let mut stream = TcpStream::connect(to).expect("the proxy listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let (request, reply) = if sets {
        let mut request = format!("*3\r\n$3\r\nSET\r\n$1\r\nL\r\n${LARGE}\r\n").into_bytes();
        request.resize(request.len() + LARGE, b'L');
        request.extend_from_slice(b"\r\n");
        (request, b"+OK\r\n".len())
    } else {
        let head = format!("${LARGE}\r\n").len();
        (b"*2\r\n$3\r\nGET\r\n$1\r\nL\r\n".to_vec(), head + LARGE + 2)
    };
    let mut buffer = vec![0; reply];
    let began = Instant::now();
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&request).expect("open");
        stream.read_exact(&mut buffer).expect("answered");
        moved += 1;
    }
    (moved, began.elapsed().as_secs_f64())
}
