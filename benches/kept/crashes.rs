//! Kills of the master under writers and a pool of idle connections.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::history::{Outcome, Writers};
use crate::harness::planned::WRITERS;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FAILOVER, FOLLOW, Switch, Topology, follows};
use crate::moments::{Clients, Moments, Witness, since};

/// Idle connections.
pub(crate) const POOL: usize = 200;
/// A whole exchange may be held through an outage.
const PATIENCE: Duration = FAILOVER;
/// Between an acknowledgement and the writer's next write.
const PACE: Duration = Duration::from_millis(2);
/// They write so long before the kill.
const STEADY: Duration = Duration::from_secs(1);

/// All of them.
#[derive(Debug)]
pub(crate) struct Crashes {
    pub(crate) kills: Vec<Crash>,
    pub(crate) moments: Vec<Moments>,
}

/// What came of one kill.
#[derive(Debug)]
pub(crate) struct Crash {
    /// Idle connections that live on with their database and their name, and what the others did.
    pub(crate) survived: usize,
    pub(crate) broken: Vec<String>,
    /// Sessions that the proxy ended, by reason.
    pub(crate) closed: BTreeMap<String, u64>,
    /// Connections that writers saw end.
    pub(crate) disconnects: usize,
    /// Writes that were sent and never answered: requests that were in flight.
    pub(crate) in_flight: usize,
    /// Writes that were answered with an error.
    pub(crate) refused: usize,
    pub(crate) acknowledged: usize,
    /// Of those, what the new master does not have, which asynchronous replication may lose.
    pub(crate) lost: usize,
    /// Of those, what was acknowledged to a write that began after the kill.
    pub(crate) lost_after: usize,
    /// From the kill to the first write that the new master acknowledged.
    pub(crate) first_answer: Duration,
}

/// So many kills under the same pool.
pub(crate) fn measure(servers: &Topology, count: usize) -> Crashes {
    let witness = Witness::start(servers);
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let mut pool: Vec<Pooled> = (0..POOL)
        .map(|number| Pooled::new(&proxy, number))
        .collect();
    let mut crashes = Crashes {
        kills: Vec::new(),
        moments: Vec::new(),
    };
    for number in 0..count {
        let (crash, moments, switch) = kill(servers, &witness, &proxy, &mut pool);
        eprintln!(
            "kill {:>3}  idle: {} of {POOL} kept   closed {:?}, in flight {}   first answer after {:>7.1} ms",
            number + 1,
            crash.survived,
            crash.closed,
            crash.in_flight,
            crash.first_answer.as_secs_f64() * 1000.0
        );
        crashes.kills.push(crash);
        crashes.moments.push(moments);
        servers.bring_back(switch);
    }
    crashes
}

fn kill(
    servers: &Topology,
    witness: &Witness,
    proxy: &Proxy,
    pool: &mut [Pooled],
) -> (Crash, Moments, Switch) {
    let old = servers.master().addr();
    // The writers' database alone: their tokens repeat. The pool has another.
    let emptied = servers.direct(old).call(&["FLUSHDB"]);
    assert_eq!(emptied.ok(), Some(Value::Simple("OK".to_owned())));
    let writers = Writers::start(proxy.addr(), WRITERS, PACE);
    writers.all_acknowledged_after(SystemTime::now() + STEADY, STEADY + FOLLOW);
    let (mark, before) = (proxy.mark(), proxy.closed(POOL + WRITERS));

    let killed = SystemTime::now();
    servers.node(old).kill().unwrap_or_else(|e| panic!("{e}"));
    let switch = servers.switched_from(old);
    let switched = follows(proxy, mark, switch);
    writers.all_acknowledged_after(switched.written(), FOLLOW);
    let history = writers.stop();
    let broken: Vec<String> = pool
        .iter_mut()
        .filter_map(|idle| idle.broken(proxy))
        .collect();
    let closed = more_than(&before, proxy.closed(POOL));
    witness.wait_told(killed, "+switch-master");

    let mut new = servers.direct(switch.new);
    history.assert_at_most_once(&mut new);
    let lost = history.lost(&mut new);
    let (_, answered) = history.longest_silence();
    let unanswered = history
        .writes
        .iter()
        .filter(|w| w.outcome == Outcome::Unknown);
    let clients = Clients {
        last_cut: unanswered.map(|w| w.ended).max(),
        answered,
    };
    let crash = Crash {
        survived: pool.len() - broken.len(),
        broken,
        closed,
        disconnects: history.reconnects.iter().sum(),
        in_flight: history.count(|o| *o == Outcome::Unknown),
        refused: history.count(|o| matches!(o, Outcome::Refused(_))),
        acknowledged: history.count(|o| *o == Outcome::Ok),
        lost: lost.len(),
        lost_after: lost.iter().filter(|write| write.began > killed).count(),
        first_answer: since(answered, killed),
    };
    let moments = Moments::crash(witness, killed, (proxy, mark), switch, &clients);
    (crash, moments, switch)
}

/// A connection as a pool holds it: it has a database, a name, and nothing to do.
#[derive(Debug)]
struct Pooled {
    number: usize,
    conn: Conn,
}

impl Pooled {
    fn new(proxy: &Proxy, number: usize) -> Self {
        let conn = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
        let mut pooled = Self { number, conn };
        let (key, value) = (format!("idle:{number}"), number.to_string());
        for command in [
            &["SELECT", "1"][..],
            &["SET", &key, &value],
            &["CLIENT", "SETNAME", &pooled.name()],
        ] {
            let reply = pooled.conn.call(command).expect("the master answers");
            assert_eq!(reply, Value::Simple("OK".to_owned()), "{command:?}");
        }
        pooled
    }

    fn name(&self) -> String {
        format!("pool-{}", self.number)
    }

    /// What is wrong with it after a crash, if anything; another takes its place then.
    fn broken(&mut self, proxy: &Proxy) -> Option<String> {
        let key = format!("idle:{}", self.number);
        let asked = [
            (&["GET", &key][..], self.number.to_string()),
            (&["CLIENT", "GETNAME"][..], self.name()),
        ];
        let wrong = asked.iter().find_map(|(command, expected)| {
            let reply = self.conn.call(command);
            let text = reply.as_ref().ok().and_then(Value::text);
            (text.as_ref() != Some(expected)).then(|| format!("{key}: {command:?}: {reply:?}"))
        });
        if wrong.is_some() {
            *self = Self::new(proxy, self.number);
        }
        wrong
    }
}

/// What was counted since.
fn more_than(
    before: &BTreeMap<String, u64>,
    after: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let more = after.into_iter().map(|(reason, count)| {
        let count = count - before.get(&reason).copied().unwrap_or_default();
        (reason, count)
    });
    more.filter(|(_, count)| *count > 0).collect()
}

impl Crash {
    pub(crate) fn closed_together(&self) -> usize {
        let closed: u64 = self.closed.values().sum();
        closed.try_into().expect("a number of connections")
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        let lost = self.broken.len();
        let first = self.broken.first();
        let of_idle = first.map(|why| format!("{lost} idle connections did not live on: {why}"));
        let mut findings: Vec<String> = of_idle.into_iter().collect();
        let closed = self.closed_together().max(self.disconnects);
        if closed > self.in_flight {
            findings.push(format!(
                "{closed} connections were closed ({:?}), and {} had a request in flight",
                self.closed, self.in_flight
            ));
        }
        if self.refused > 0 {
            findings.push(format!(
                "{} writes were answered with an error",
                self.refused
            ));
        }
        if self.lost_after > 0 {
            findings.push(format!(
                "{} writes were lost that began after the kill",
                self.lost_after
            ));
        }
        findings
    }
}

impl Crashes {
    pub(crate) fn findings(&self) -> Vec<String> {
        let of = |(number, crash): (usize, &Crash)| {
            let findings = crash.findings().into_iter();
            findings
                .map(|finding| format!("kill {}: {finding}", number + 1))
                .collect::<Vec<_>>()
        };
        self.kills.iter().enumerate().flat_map(of).collect()
    }
}
