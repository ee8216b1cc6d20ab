//! When what happens in a failover: the Sentinels' own words, the servers' own roles, the proxy's log and the writers, on one
//! clock.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use switchmaster::demo::instance::Instance;
use switchmaster::demo::wire::{Conn, Value};

use crate::harness::planned::Planned;
use crate::harness::proxy::Proxy;
use crate::harness::topology::{FAILOVER, Switch, Topology};
use crate::harness::{wait_for, wait_until};

/// Between two questions for a node's role; also the error of what is said about it.
const ASK_INTERVAL: Duration = Duration::from_millis(5);
/// Between two attempts to reach a node that is down.
const REDIAL: Duration = Duration::from_millis(20);
/// How soon a subscription notices that nobody wants to know any more.
const LOOK: Duration = Duration::from_millis(100);
/// One exchange with a server; a node in the middle of a script does not answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Some 50 a failover; of a run without end the rest is not kept.
const MOST_HEARD: usize = 200_000;

/// Listens to every Sentinel, and asks every node for its role, as long as it lives.
#[derive(Debug)]
pub(crate) struct Witness(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    heard: Mutex<Vec<Heard>>,
}

/// Something a server said.
#[derive(Debug)]
struct Heard {
    at: SystemTime,
    by: SocketAddr,
    /// A Sentinel's channel; of a node its role, when it is another than before.
    what: String,
    /// A Sentinel's message.
    of: String,
}

/// What the clients saw of a crash.
#[derive(Debug)]
pub(crate) struct Clients {
    /// The last end of a connection with an unanswered request.
    pub(crate) last_cut: Option<SystemTime>,
    /// The new master's first answer.
    pub(crate) answered: SystemTime,
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Servers,
    Proxy,
    Clients,
}

/// Something that happens in every failover.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) who: Who,
    pub(crate) what: &'static str,
    /// Since the failover began; `None` when it was not seen.
    pub(crate) at_ms: Option<f64>,
}

/// One failover.
#[derive(Clone, Debug)]
pub(crate) struct Moments(pub(crate) Vec<Moment>);

impl Witness {
    pub(crate) fn start(servers: &Topology) -> Self {
        let shared = Arc::new(Shared::default());
        for sentinel in servers.cluster().sentinels() {
            let mut conn = sentinel.connect().expect("the Sentinel runs");
            conn.send(&["PSUBSCRIBE", "*"]).expect("sent");
            conn.read().expect("confirmed");
            let (shared, by) = (Arc::clone(&shared), sentinel.addr());
            thread::spawn(move || shared.listen(conn, by));
        }
        for by in servers.cluster().nodes().iter().map(Instance::addr) {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.ask(by));
        }
        Self(shared)
    }

    /// Waits until a Sentinel has said this after that moment.
    pub(crate) fn wait_told(&self, after: SystemTime, channel: &str) {
        wait_for(channel, FAILOVER, || self.first(after, channel));
    }

    /// Waits until this node says that it is no master any more.
    pub(crate) fn wait_demoted(&self, node: SocketAddr) {
        wait_until("the old master to be demoted", FAILOVER, || {
            let heard = self.0.locked();
            heard
                .iter()
                .rfind(|heard| heard.by == node)
                .is_some_and(|last| last.what == "slave")
        });
    }

    /// When the first Sentinel said this of the master or of its successor.
    fn first(&self, after: SystemTime, channel: &str) -> Option<SystemTime> {
        // Replicas are down now and then as well.
        let of_master =
            |heard: &&Heard| !channel.ends_with("down") || heard.of.starts_with("master ");
        let heard = self.0.locked();
        heard
            .iter()
            .filter(|heard| heard.at >= after && heard.what == channel)
            .find(of_master)
            .map(|heard| heard.at)
    }

    /// When this node first answered with this role.
    fn role(&self, after: SystemTime, node: SocketAddr, role: &str) -> Option<SystemTime> {
        let heard = self.0.locked();
        heard
            .iter()
            .find(|heard| heard.at >= after && heard.by == node && heard.what == role)
            .map(|heard| heard.at)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

impl Shared {
    fn listen(&self, mut conn: Conn, by: SocketAddr) {
        conn.set_timeout(ANSWER);
        while !self.is_over() {
            match conn.readable(LOOK) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(message) = conn.read() else { return };
                    if let [_, _, channel, of] = message.items() {
                        let (what, of) = (channel.text(), of.text());
                        self.keep(by, what.unwrap_or_default(), of.unwrap_or_default());
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn ask(&self, by: SocketAddr) {
        let mut known = None;
        while !self.is_over() {
            let Ok(mut conn) = Conn::connect(by, ANSWER) else {
                thread::sleep(REDIAL);
                continue;
            };
            while let Ok(reply) = conn.call(&["ROLE"])
                && !self.is_over()
            {
                let role = reply.items().first().and_then(Value::text);
                if let Some(role) = role
                    && known.as_ref() != Some(&role)
                {
                    self.keep(by, role.clone(), String::new());
                    known = Some(role);
                }
                thread::sleep(ASK_INTERVAL);
            }
        }
    }

    fn keep(&self, by: SocketAddr, what: String, of: String) {
        let mut heard = self.locked();
        if heard.len() < MOST_HEARD {
            let at = SystemTime::now();
            heard.push(Heard { at, by, what, of });
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Moments {
    /// Of a planned failover that began after this moment, and its proxy's log from that place on.
    pub(crate) fn planned(
        witness: &Witness,
        after: SystemTime,
        log: (&Proxy, usize),
        run: &Planned,
    ) -> Self {
        let first = |channel| witness.first(after, channel);
        let began = first("+try-failover").unwrap_or(after);
        let mut moments = Self(Vec::new());
        let mut add = |who, what, at| moments.add(began, who, what, at);
        add(Who::Servers, "`SENTINEL FAILOVER`", Some(began));
        add(Who::Servers, "`+selected-slave`", first("+selected-slave"));
        let successor = witness.role(after, run.switch.new, "master");
        add(Who::Servers, "the successor is a master", successor);
        add(Who::Servers, "`+promoted-slave`", first("+promoted-slave"));
        add(Who::Servers, "`+switch-master`", first("+switch-master"));
        let demoted = witness.role(began, run.switch.old, "slave");
        add(Who::Servers, "the old master is a replica", demoted);
        add(Who::Proxy, "holds", logged(log, "hold_begin"));
        add(Who::Proxy, "`switched`", logged(log, "switched"));
        let (last, next) = run.silence;
        add(
            Who::Clients,
            "last write acknowledged by the old master",
            Some(last),
        );
        add(
            Who::Clients,
            "first write acknowledged by the new master",
            Some(next),
        );
        moments
    }

    /// Of the crash that a kill began, and its proxy's log from that place on.
    pub(crate) fn crash(
        witness: &Witness,
        killed: SystemTime,
        log: (&Proxy, usize),
        switch: Switch,
        clients: &Clients,
    ) -> Self {
        let first = |channel| witness.first(killed, channel);
        let mut moments = Self(Vec::new());
        let mut add = |who, what, at| moments.add(killed, who, what, at);
        add(Who::Servers, "SIGKILL", Some(killed));
        add(Who::Servers, "`+sdown`", first("+sdown"));
        add(Who::Servers, "`+odown`", first("+odown"));
        add(Who::Servers, "`+elected-leader`", first("+elected-leader"));
        add(Who::Servers, "`+selected-slave`", first("+selected-slave"));
        let successor = witness.role(killed, switch.new, "master");
        add(Who::Servers, "the successor is a master", successor);
        add(Who::Servers, "`+promoted-slave`", first("+promoted-slave"));
        add(Who::Servers, "`+switch-master`", first("+switch-master"));
        add(Who::Proxy, "holds", logged(log, "hold_begin"));
        add(Who::Proxy, "`switched`", logged(log, "switched"));
        let what = "those with an unanswered request are closed";
        add(Who::Clients, what, clients.last_cut);
        let what = "first write acknowledged by the new master";
        add(Who::Clients, what, Some(clients.answered));
        moments
    }

    fn add(&mut self, began: SystemTime, who: Who, what: &'static str, at: Option<SystemTime>) {
        let at_ms = at.map(|at| match at.duration_since(began) {
            Ok(later) => later.as_secs_f64() * 1000.0,
            Err(earlier) => earlier.duration().as_secs_f64() * -1000.0,
        });
        self.0.push(Moment { who, what, at_ms });
    }
}

/// When the proxy first logged this from that place on.
fn logged((proxy, mark): (&Proxy, usize), event: &str) -> Option<SystemTime> {
    let events = proxy.events(mark, event);
    events.first().map(crate::harness::proxy::Event::written)
}

/// Zero for what came before.
pub(crate) fn since(later: SystemTime, earlier: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
