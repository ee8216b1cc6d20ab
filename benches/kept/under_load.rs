//! `redis-benchmark` through planned failovers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::load::{Figure, Load};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{Topology, follows};

/// As redis-benchmark has by itself.
const CONNECTIONS: usize = 50;
/// Planned failovers that have to come while all of its connections are there.
const FAILOVERS: usize = 3;
/// A failover between two runs does not count, and is repeated; never so often that this does not end.
const MOST_FAILOVERS: usize = 10 * FAILOVERS;

/// What came of it.
#[derive(Debug)]
pub(crate) struct UnderLoad {
    pub(crate) pipeline: usize,
    pub(crate) requests: usize,
    /// Planned failovers that all connections were kept through.
    pub(crate) failovers: usize,
    /// Sessions that they closed.
    pub(crate) cut: f64,
    /// The figures of each completed run.
    pub(crate) runs: Vec<Vec<Figure>>,
    /// What redis-benchmark complained of.
    pub(crate) complaint: Option<String>,
    /// Sessions that the proxy ended, by reason.
    pub(crate) closed: BTreeMap<String, u64>,
}

/// Runs after runs, until there were failovers enough.
pub(crate) fn measure(servers: &Topology, pipeline: usize, requests: usize) -> UnderLoad {
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let port = proxy.addr().port();
    let enough = AtomicBool::new(false);
    let mut result = thread::scope(|scope| {
        let runs = scope.spawn(|| {
            let mut runs = Vec::new();
            while !enough.load(Ordering::Acquire) {
                match Load::once(port, CONNECTIONS, pipeline, requests).finish() {
                    Ok(figures) => runs.push(figures),
                    Err(why) => return (runs, Some(why)),
                }
            }
            (runs, None)
        });
        let mut result = UnderLoad {
            pipeline,
            requests,
            failovers: 0,
            cut: 0.0,
            runs: Vec::new(),
            complaint: None,
            closed: BTreeMap::new(),
        };
        // However the failovers end, the runs do.
        let enough = Enough(&enough);
        for number in 0..MOST_FAILOVERS {
            if result.failovers == FAILOVERS || runs.is_finished() {
                break;
            }
            fail_over(servers, &proxy, number, &mut result);
        }
        drop(enough);
        let (runs, complaint) = runs.join().expect("its panic was printed");
        UnderLoad {
            runs,
            complaint,
            ..result
        }
    });
    result.closed = proxy.closed(0);
    result
}

fn fail_over(servers: &Topology, proxy: &Proxy, number: usize, result: &mut UnderLoad) {
    let mark = proxy.mark();
    let switch = servers.fail_over(number % servers.sentinels().len());
    let switched = follows(proxy, mark, switch);
    let kept = switched.number("kept");
    result.cut += switched.number("cut");
    let counts = kept >= CONNECTIONS as f64;
    result.failovers += usize::from(counts);
    eprintln!(
        "-P {:<2}  planned failover: {kept} connections kept, {} cut{}",
        result.pipeline,
        switched.number("cut"),
        if counts { "" } else { ": between two runs" }
    );
    servers.ready_again(switch);
}

/// Ends the runs when dropped.
struct Enough<'a>(&'a AtomicBool);

impl Drop for Enough<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl UnderLoad {
    pub(crate) fn findings(&self) -> Vec<String> {
        let of = format!("redis-benchmark -P {}", self.pipeline);
        let mut findings = Vec::new();
        if let Some(complaint) = &self.complaint {
            findings.push(format!("{of}: {complaint}"));
        } else if self.failovers < FAILOVERS {
            findings.push(format!(
                "{of}: only {} failovers came during a run",
                self.failovers
            ));
        }
        if self.cut > 0.0 || !self.closed.is_empty() {
            findings.push(format!(
                "{of}: {} sessions cut, closed: {:?}",
                self.cut, self.closed
            ));
        }
        findings
    }
}
