//! Failovers while thousands connect each second, beside the same without them: from the first Sentinel's word to the first
//! answer of the new master.

use std::thread;
use std::time::{Duration, SystemTime};

use switchmaster::net::clock::now;

use crate::Size;
use crate::harness::announced::{announcements, first_answer_of_another};
use crate::harness::flood::{Ask, Flood};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FAILOVER, FOLLOW, Topology};
use crate::page::{Cell, Part, largest, median};

/// Clients at once: while there is no master they wait.
const AT_MOST: usize = 4000;
/// The flood flows for so long before the failover, and behind it.
const STEADY: Duration = Duration::from_secs(2);

/// How the master changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Planned,
    Kill,
}

/// One failover.
#[derive(Debug)]
struct Run {
    /// Answered clients a second before it.
    answered: f64,
    begun: u64,
    failed: u64,
    /// From the first Sentinel's word, in milliseconds, to the log line of the switch; to the first answer of the new master to
    /// any client of the flood; to that to a witness.
    switched_ms: f64,
    anyone_ms: Option<f64>,
    served_ms: f64,
    verify_ms: f64,
    fence_ms: f64,
}

/// `--flood`
pub(crate) fn measure(size: &Size) -> Part {
    let mut part = Part::new(
        format!(
            "failovers under a flood: connect, PING, close, {} a second offered; {} of each",
            size.flood_rate, size.failovers
        ),
        &[
            "failover",
            "offered/s",
            "answered/s before",
            "clients",
            "errors",
            "first word to switch ms",
            "max",
            "to any answer ms",
            "max",
            "to the witness' answer ms",
            "max",
            "verify ms",
            "fence ms",
        ],
    );
    let servers = Topology::start();
    for fault in [Fault::Planned, Fault::Kill] {
        // A proxy of its own: what it did before is nothing to this one.
        let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
        let mut runs = [Vec::new(), Vec::new()];
        for round in 0..size.failovers {
            for (flooded, runs) in runs.iter_mut().enumerate() {
                let rate = (flooded == 1).then_some(size.flood_rate);
                runs.push(run(&servers, &proxy, fault, round, rate));
            }
        }
        for (flooded, runs) in runs.iter().enumerate() {
            let offered = [0, size.flood_rate][flooded];
            let all = |figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
            let any: Vec<f64> = runs.iter().filter_map(|run| run.anyone_ms).collect();
            let anyone = (!any.is_empty()).then_some(median);
            part.row(vec![
                match fault {
                    Fault::Planned => "planned".into(),
                    Fault::Kill => "kill".into(),
                },
                u64::from(offered).into(),
                Cell::Number(median(&all(|run| run.answered)), 0),
                runs.iter().map(|run| run.begun).sum::<u64>().into(),
                runs.iter().map(|run| run.failed).sum::<u64>().into(),
                median(&all(|run| run.switched_ms)).into(),
                largest(&all(|run| run.switched_ms)).into(),
                anyone.map_or(Cell::None, |of| of(&any).into()),
                anyone.map_or(Cell::None, |_| largest(&any).into()),
                median(&all(|run| run.served_ms)).into(),
                largest(&all(|run| run.served_ms)).into(),
                median(&all(|run| run.verify_ms)).into(),
                largest(&all(|run| run.fence_ms)).into(),
            ]);
        }
    }
    part.note("errors: clients that had asked and were not answered when the master went, and what their connects met");
    part.note("medians and maxima; any answer: to whichever client of the flood was served first; the witness connects every");
    part.note(
        "half millisecond, waits with all who came meanwhile, and is served somewhere among them",
    );
    part
}

fn run(servers: &Topology, proxy: &Proxy, fault: Fault, round: usize, rate: Option<u32>) -> Run {
    let addr = proxy.addr();
    let flood = rate.map(|rate| Flood::start(Ask::ping(addr, rate, AT_MOST)));
    thread::sleep(STEADY);
    let before = flood.as_ref().map_or(0, Flood::answered);

    let (old, mark) = (servers.master().addr(), proxy.mark());
    let announcements = announcements(&servers.sentinels());
    let client = thread::spawn(move || first_answer_of_another(addr, old));
    match fault {
        Fault::Planned => servers
            .cluster()
            .trigger_failover(round % servers.sentinels().len())
            .unwrap_or_else(|e| panic!("{e}")),
        Fault::Kill => servers.node(old).kill().unwrap_or_else(|e| panic!("{e}")),
    }
    let (announced, _) = announcements
        .recv_timeout(FAILOVER)
        .expect("a Sentinel announces the new master");
    let announced_wall = SystemTime::now() - now().since(announced);
    let served = client
        .join()
        .expect("the client is served by the new master");
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    let switch = servers.switched_from(old);
    thread::sleep(STEADY);
    let flooded = flood.map(Flood::stop).unwrap_or_default();
    if fault == Fault::Kill {
        servers
            .node(switch.old)
            .restart_as_replica_of(switch.new)
            .unwrap_or_else(|e| panic!("{e}"));
    }
    servers.ready_again(switch);
    Run {
        answered: before as f64 / STEADY.as_secs_f64(),
        begun: flooded.begun,
        failed: flooded.failed(),
        switched_ms: milliseconds(
            // The control plane may have heard it before this bench.
            switched
                .written()
                .duration_since(announced_wall)
                .unwrap_or_default(),
        ),
        anyone_ms: flooded
            .pause
            .map(|pause| milliseconds(pause.ended.since(announced))),
        served_ms: milliseconds(served.since(announced)),
        verify_ms: switched.number("verify_ms"),
        fence_ms: switched.number("fence_ms"),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
