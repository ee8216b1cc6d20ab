//! What becomes of each kind of session. Each kind has a proxy of its own in front of the same servers, so that the
//! counters of that proxy are the reasons of that kind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::slice;

use switchmaster::demo::wire::{Conn, Value};

use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{FAILOVER, FOLLOW, Topology, blocked_clients, follows};
use crate::harness::wait_until;
use crate::sessions::{APP_USER, KINDS, Kind, Outcome, Promise, SCRIPT, Session, When};

/// One kind, and what became of its sessions.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) planned: Fate,
    pub(crate) crash: Fate,
}

/// What became of the sessions of one kind in one failover.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) kept: usize,
    pub(crate) closed: usize,
    /// Why the proxy ended sessions.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// What must not be.
    pub(crate) broken: Vec<String>,
}

/// How the master changes.
#[derive(Clone, Copy, Debug)]
enum How {
    Planned,
    Crash,
}

/// The sessions of one kind through one failover.
struct Trial<'a> {
    kind: &'a Kind,
    proxy: Proxy,
    mark: usize,
    sessions: Vec<Session>,
}

/// Each kind in a planned failover and in a crash.
pub(crate) fn measure(servers: &Topology) -> Vec<Row> {
    [&KINDS[..], slice::from_ref(&SCRIPT)]
        .into_iter()
        .flat_map(|kinds| {
            let planned = through(servers, kinds, How::Planned);
            let crash = through(servers, kinds, How::Crash);
            let fates = planned.into_iter().zip(crash);
            let rows = kinds.iter().zip(fates).map(|(kind, (planned, crash))| Row {
                name: kind.name,
                planned,
                crash,
            });
            rows.collect::<Vec<_>>()
        })
        .collect()
}

fn through(servers: &Topology, kinds: &[Kind], how: How) -> Vec<Fate> {
    eprintln!("{} kinds of sessions, {how:?}", kinds.len());
    // A restarted node has forgotten it.
    for node in servers.cluster().nodes() {
        let reply = servers.direct(node.addr()).call(&APP_USER);
        assert!(reply.is_ok_and(|reply| !reply.is_error()), "it is made");
    }
    let old = servers.master().addr();
    let emptied = servers.direct(old).call(&["FLUSHALL"]);
    assert_eq!(emptied.ok(), Some(Value::Simple("OK".to_owned())));

    let mut trials: Vec<Trial<'_>> = kinds.iter().map(|kind| Trial::new(servers, kind)).collect();
    start(&mut trials, When::Before);
    wait_until("the blocking commands to block", FOLLOW, || {
        let block = |trial: &&Trial<'_>| trial.kind.blocks();
        let blocked: usize = trials.iter().filter(block).map(|t| t.kind.sessions).sum();
        blocked_clients(&mut servers.direct(old)) == blocked
    });
    servers.settle();
    for trial in &mut trials {
        trial.mark = trial.proxy.mark();
    }
    start(&mut trials, When::Last);
    match how {
        How::Planned => servers.cluster().trigger_failover(0),
        How::Crash => servers.node(old).kill(),
    }
    .unwrap_or_else(|e| panic!("{e}"));
    start(&mut trials, When::Held);
    let switch = servers.switched_from(old);
    for trial in &trials {
        follows(&trial.proxy, trial.mark, switch);
    }
    let fates = trials.into_iter().map(|trial| trial.end(how)).collect();
    match how {
        How::Planned => servers.ready_again(switch),
        How::Crash => servers.bring_back(switch),
    };
    fates
}

fn start(trials: &mut [Trial<'_>], when: When) {
    for trial in trials.iter_mut().filter(|trial| trial.kind.when == when) {
        if when == When::Held {
            trial.proxy.event_after(trial.mark, "hold_begin", FOLLOW);
        }
        let to = trial.proxy.addr();
        let sessions = 0..trial.kind.sessions;
        trial.sessions = sessions
            .map(|number| Session::start(to, trial.kind.work, number))
            .collect();
    }
}

impl<'a> Trial<'a> {
    fn new(servers: &Topology, kind: &'a Kind) -> Self {
        Self {
            kind,
            proxy: Proxy::ready(Plan::moving(&servers.sentinels())),
            mark: 0,
            sessions: Vec::new(),
        }
    }

    fn end(self, how: How) -> Fate {
        let mut fate = Fate {
            kept: 0,
            closed: 0,
            reasons: BTreeMap::new(),
            broken: Vec::new(),
        };
        for (number, session) in self.sessions.into_iter().enumerate() {
            match session.finish() {
                Outcome::Kept => fate.kept += 1,
                Outcome::Closed => {
                    fate.closed += 1;
                    fate.broken
                        .extend(executed(self.kind, number, self.proxy.addr()));
                }
                Outcome::Wrong(why) => fate.broken.push(format!("session {number}: {why}")),
            }
        }
        fate.reasons = self.proxy.closed(0);
        let promised = self.kind.promised[how as usize];
        if !fate.is_as(promised) {
            fate.broken.push(format!("{promised:?} is promised"));
        }
        fate
    }
}

/// What a closed session has begun and the new master has none the less.
fn executed(kind: &Kind, number: usize, proxy: SocketAddr) -> Option<String> {
    let key = kind.unexecuted?.replace("{n}", &number.to_string());
    let mut conn = Conn::connect(proxy, FAILOVER).expect("the proxy listens");
    let exists = conn.call(&["EXISTS", &key]);
    (!matches!(exists, Ok(Value::Int(0)))).then(|| format!("{key} was executed: {exists:?}"))
}

impl Fate {
    fn is_as(&self, promised: Promise) -> bool {
        match promised {
            Promise::Kept => self.closed == 0,
            Promise::Closed => self.kept == 0,
            Promise::KeptUnlessUnanswered => true,
        }
    }

    /// `kept`, `closed (switched)`, or how many of each; findings tell what was neither.
    pub(crate) fn words(&self) -> String {
        let reasons: Vec<String> = self.reasons.keys().map(|r| format!("`{r}`")).collect();
        let reasons = reasons.join(", ");
        match (self.kept, self.closed) {
            (0, 0) => "broken".to_owned(),
            (_, 0) => "kept".to_owned(),
            (0, _) => format!("closed ({reasons})"),
            (kept, closed) => format!("{kept} kept, {closed} closed ({reasons})"),
        }
    }
}

impl Row {
    pub(crate) fn findings(&self) -> Vec<String> {
        let of = |how, fate: &Fate| -> Vec<String> {
            let broken = fate.broken.iter();
            broken
                .map(|why| format!("{}, {how}: {} (it was {})", self.name, why, fate.words()))
                .collect()
        };
        [
            of("planned failover", &self.planned),
            of("crash", &self.crash),
        ]
        .concat()
    }
}
