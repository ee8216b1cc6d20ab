//! Does what the schedule says to real processes, and heals it: whatever a step stopped, cut or confused runs,
//! passes and agrees again before the next one begins.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use switchmaster::demo::cluster::Cluster;
use switchmaster::demo::instance::Instance;
use switchmaster::demo::wait::wait_until;
use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::now;

use crate::chaos::ChaosRelay;
use crate::proxy::Proxy;
use crate::schedule::{Fault, Side, Step};

/// What Sentinel may need for a failover: an election that fails is repeated after 2 x failover-timeout, and
/// one that was frozen does nothing for 30 s.
const FAILOVER: Duration = Duration::from_secs(75);
/// What it may need for a planned one, if it goes through with it.
const PLANNED: Duration = Duration::from_secs(20);
/// The longest that it does nothing after it stood still, and some.
const TILT: Duration = Duration::from_secs(40);
/// What it may need until all agree and follow.
const SETTLE: Duration = Duration::from_secs(60);
/// After healing, a new client is to be served by the master within this: the epoch's floor is released
/// after 10 s at the latest, a dead link to a Sentinel is dialled again within 2 s.
const SERVED: Duration = Duration::from_secs(20);
/// One exchange with a server.
const ASK: Duration = Duration::from_secs(5);

/// The servers, the links to the Sentinels, the proxy.
#[derive(Debug)]
pub(crate) struct Nemesis<'a> {
    cluster: &'a Cluster,
    relays: &'a [ChaosRelay],
    /// The proxy.
    pub(crate) proxy: Proxy,
}

/// How a step ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aftermath {
    /// Sentinel did not come to rest by itself and was told who is master.
    pub(crate) forced: bool,
    /// The master does not serve new clients through the proxy, although all is well behind it.
    pub(crate) stuck: Option<String>,
}

impl<'a> Nemesis<'a> {
    /// With everything running.
    pub(crate) fn new(cluster: &'a Cluster, relays: &'a [ChaosRelay], proxy: Proxy) -> Self {
        Self {
            cluster,
            relays,
            proxy,
        }
    }

    /// One step, healed.
    ///
    /// # Errors
    /// The servers did not do what they were asked: nothing is said about the proxy.
    pub(crate) fn perform(&mut self, step: &Step) -> Result<Aftermath, String> {
        thread::sleep(step.calm);
        self.wait_able(step);
        let done = self.beside(step.side, |nemesis| nemesis.fault(step.fault));
        self.heal()?;
        done?;
        let forced = if step.rushed { false } else { self.settle()? };
        if !self.proxy.is_running() {
            return Err(format!("the proxy ended by itself: {:?}", self.proxy));
        }
        Ok(Aftermath {
            forced,
            stuck: self.served().err(),
        })
    }

    /// A Sentinel that was frozen for 2 s does nothing for the next 30 (TILT). Two of them, and nobody fails
    /// over; for so long that afterwards no replica is thought good enough.
    fn wait_able(&self, step: &Step) {
        let asleep = match (step.fault, step.side) {
            (Fault::Partition { .. }, _) | (_, Some(Side::FreezeSentinel(_))) => 1,
            (Fault::KillMaster | Fault::FreezeMaster { .. }, _) => 0,
            _ => return,
        };
        // In vain where the machine is so slow that they never leave it; then the step says so.
        drop(wait_until(now() + TILT, "the Sentinels to act", || {
            let sentinels = self.cluster.sentinels().iter();
            let tilted = sentinels.filter(|sentinel| {
                let info = ask(sentinel, &["INFO", "sentinel"]).ok();
                let info = info.and_then(|info| info.text()).unwrap_or_default();
                !info.lines().any(|line| line == "sentinel_tilt:0")
            });
            match tilted.count() + asleep {
                0 | 1 => Ok(()),
                _ => Err("too many do not".to_owned()),
            }
        }));
    }

    /// Waits until all agree and follow; true when they had to be told.
    ///
    /// # Errors
    /// They do not even then.
    pub(crate) fn settle(&self) -> Result<bool, String> {
        let first = self.cluster.wait_settled(now() + SETTLE);
        if first.is_ok() {
            return Ok(false);
        }
        // A RESET in the wrong moment makes Sentinels disagree for good (failover at equal epochs).
        let master = self.majority()?;
        self.monitor_at_all(master)?;
        self.follow(master)?;
        self.cluster
            .wait_settled(now() + SETTLE)
            .map(|_| true)
            .map_err(|e| e.to_string())
    }

    /// Everything runs and passes.
    ///
    /// # Errors
    /// Something cannot be started.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        for relay in self.relays {
            relay.black_hole(false);
        }
        let (nodes, sentinels) = (self.cluster.nodes(), self.cluster.sentinels());
        for instance in nodes.iter().chain(sentinels) {
            if instance.is_frozen() {
                instance.thaw().map_err(|e| e.to_string())?;
            }
        }
        for sentinel in sentinels.iter().filter(|s| !s.is_running()) {
            sentinel.restart().map_err(|e| e.to_string())?;
        }
        for node in nodes.iter().filter(|n| !n.is_running()) {
            let master = self.majority()?;
            node.restart_as_replica_of(master)
                .map_err(|e| e.to_string())?;
        }
        if self.proxy.pid().is_none() {
            self.proxy.spawn()?;
        }
        self.proxy.thaw()?;
        self.proxy.wait_ready()
    }

    fn beside(
        &mut self,
        side: Option<Side>,
        act: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        match side {
            None => act(self),
            Some(Side::FreezeSentinel(sentinel)) => {
                // A planned failover asks a Sentinel that runs (`trigger`).
                text(self.cluster.sentinels()[sentinel].freeze())?;
                act(self)
            }
            Some(Side::BlackHole(links)) => {
                self.black_hole(links);
                act(self)
            }
            Some(Side::FreezeProxy(lasting)) => {
                self.proxy.freeze()?;
                let done = act(self);
                thread::sleep(lasting);
                self.proxy.thaw()?;
                done
            }
        }
    }

    fn fault(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Planned { sentinel } => self.plan(sentinel).map(drop),
            Fault::KillMaster => {
                let old = self.master()?;
                text(old.kill())?;
                if self.named_instead_of(old.addr(), None, FAILOVER).is_ok() {
                    return Ok(());
                }
                println!("        Sentinel gave the failover up: a replica is promoted by hand");
                self.remonitor(Some(0))
            }
            // What comes of a long one is awaited when it is over.
            Fault::FreezeMaster { lasting } => frozen(self.master()?, lasting),
            Fault::KillReplica { replica, lasting } => {
                text(self.replica(replica)?.kill())?;
                thread::sleep(lasting);
                Ok(())
            }
            Fault::FreezeReplica { replica, lasting } => frozen(self.replica(replica)?, lasting),
            Fault::KillSentinel { sentinel, lasting } => {
                text(self.cluster.sentinels()[sentinel].kill())?;
                thread::sleep(lasting);
                Ok(())
            }
            Fault::FreezeSentinel { sentinel, lasting } => {
                frozen(&self.cluster.sentinels()[sentinel], lasting)
            }
            Fault::FreezeProxy { lasting } => {
                self.proxy.freeze()?;
                thread::sleep(lasting);
                self.proxy.thaw()
            }
            Fault::FreezeProxyAcrossFailover { sentinel, lasting } => {
                self.proxy.freeze()?;
                let done = self.plan(sentinel);
                thread::sleep(lasting);
                self.proxy.thaw()?;
                done.map(drop)
            }
            Fault::KillProxy { lasting } => {
                self.proxy.kill()?;
                thread::sleep(lasting);
                self.proxy.spawn()
            }
            Fault::TermProxy => {
                let status = self.proxy.terminate()?;
                // Clients that were blocked were cut.
                if !matches!(status.code(), Some(0 | 75)) {
                    return Err(format!("the proxy's answer to SIGTERM: {status}"));
                }
                self.proxy.spawn()
            }
            Fault::Reset { sentinel } => self.reset(sentinel),
            Fault::ResetAfterPlanned { sentinel } => {
                let old = self.plan(sentinel)?;
                drop(self.named_instead_of(old, Some(sentinel), PLANNED));
                self.reset(sentinel)
            }
            Fault::Remonitor { replica } => self.remonitor(replica),
            Fault::BlackHole { links, lasting } => {
                self.black_hole(links);
                thread::sleep(lasting);
                Ok(())
            }
            Fault::Partition { sentinel, lasting } => {
                text(self.cluster.sentinels()[sentinel].freeze())?;
                frozen(self.master()?, lasting)
            }
        }
    }

    /// `SENTINEL FAILOVER`, and waits until any Sentinel names another; gives the old master.
    fn plan(&self, sentinel: usize) -> Result<SocketAddr, String> {
        let old = self.master()?.addr();
        let sentinels = self.cluster.sentinels();
        let runs = (sentinel..sentinel + sentinels.len())
            .map(|index| index % sentinels.len())
            .find(|index| sentinels[*index].is_running())
            .ok_or("no Sentinel runs")?;
        text(self.cluster.trigger_failover(runs))?;
        // Sentinel gives some up, when a former fault still keeps it busy; then nothing was to follow.
        if self.named_instead_of(old, None, PLANNED).is_err() {
            println!("        Sentinel gave the failover up");
        }
        Ok(old)
    }

    fn named_instead_of(
        &self,
        old: SocketAddr,
        by: Option<usize>,
        within: Duration,
    ) -> Result<SocketAddr, String> {
        let sentinels = self.cluster.sentinels();
        wait_until(now() + within, "a Sentinel to name another master", || {
            let asked = sentinels
                .iter()
                .enumerate()
                .filter(|(index, s)| by.is_none_or(|by| by == *index) && s.is_running());
            asked
                .filter_map(|(_, sentinel)| self.named_by(sentinel))
                .find(|named| *named != old)
                .ok_or_else(|| format!("they name {old}"))
        })
        .map_err(|e| e.to_string())
    }

    fn named_by(&self, sentinel: &Instance) -> Option<SocketAddr> {
        let name = self.cluster.master_name();
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name];
        let reply = sentinel.connect().ok()?.call(&command).ok()?;
        let [ip, port] = reply.items() else {
            return None;
        };
        format!("{}:{}", ip.text()?, port.text()?).parse().ok()
    }

    fn reset(&self, sentinel: usize) -> Result<(), String> {
        let name = self.cluster.master_name();
        ask(
            &self.cluster.sentinels()[sentinel],
            &["SENTINEL", "RESET", name],
        )
        .map(drop)
    }

    fn remonitor(&self, replica: Option<usize>) -> Result<(), String> {
        let old = self.majority()?;
        let new = match replica {
            None => old,
            Some(replica) => {
                let new = self.replica(replica)?;
                ask(new, &["REPLICAOF", "NO", "ONE"])?;
                new.addr()
            }
        };
        self.monitor_at_all(new)?;
        self.follow(new)
    }

    fn monitor_at_all(&self, master: SocketAddr) -> Result<(), String> {
        let name = self.cluster.master_name();
        let (ip, port) = (master.ip().to_string(), master.port().to_string());
        for sentinel in self.cluster.sentinels() {
            // One that a RESET or a former attempt has left without it says so; that is as good.
            drop(ask(sentinel, &["SENTINEL", "REMOVE", name]));
            ask(sentinel, &["SENTINEL", "MONITOR", name, &ip, &port, "2"])?;
            for (key, value) in [
                ("down-after-milliseconds", "1500"),
                ("failover-timeout", "10000"),
            ] {
                ask(sentinel, &["SENTINEL", "SET", name, key, value])?;
            }
        }
        Ok(())
    }

    fn follow(&self, master: SocketAddr) -> Result<(), String> {
        let (ip, port) = (master.ip().to_string(), master.port().to_string());
        let others = self
            .cluster
            .nodes()
            .iter()
            .filter(|n| n.addr() != master && n.is_running());
        for node in others {
            ask(node, &["REPLICAOF", &ip, &port])?;
        }
        Ok(())
    }

    fn black_hole(&self, links: u8) {
        for (index, relay) in self.relays.iter().enumerate() {
            relay.black_hole(links & (1 << index) != 0);
        }
    }

    /// A new client is served by the master.
    fn served(&self) -> Result<(), String> {
        wait_until(
            now() + SERVED,
            "a new client to be served by the master",
            || {
                let master = self.majority()?;
                let mut conn = Conn::connect(self.proxy.addr(), ASK).map_err(|e| e.to_string())?;
                let info = conn.call(&["INFO", "server"]).map_err(|e| e.to_string())?;
                let own = format!("tcp_port:{}\r", master.port());
                let info = info.text().unwrap_or_default();
                match info.lines().any(|line| line == own.trim_end()) {
                    true => Ok(()),
                    false => Err(format!("it is served by another than {master}")),
                }
            },
        )
        .map_err(|e| e.to_string())
    }

    fn majority(&self) -> Result<SocketAddr, String> {
        // In the middle of a failover there may be none for a moment.
        wait_until(now() + FAILOVER, "a majority of the Sentinels", || {
            text(self.cluster.master_addr())
        })
        .map_err(|e| e.to_string())
    }

    fn master(&self) -> Result<&'a Instance, String> {
        let addr = self.majority()?;
        let cluster = self.cluster;
        cluster
            .node_at(addr)
            .ok_or_else(|| format!("{addr} is no node"))
    }

    fn replica(&self, replica: usize) -> Result<&'a Instance, String> {
        let master = self.majority()?;
        let cluster = self.cluster;
        let mut replicas = cluster
            .nodes()
            .iter()
            .filter(|n| n.addr() != master && n.is_running());
        replicas
            .nth(replica)
            .ok_or_else(|| "no such replica".to_owned())
    }
}

fn frozen(instance: &Instance, lasting: Duration) -> Result<(), String> {
    text(instance.freeze())?;
    thread::sleep(lasting);
    text(instance.thaw())
}

fn ask(instance: &Instance, command: &[&str]) -> Result<Value, String> {
    let mut conn = text(instance.connect())?;
    conn.set_timeout(ASK);
    match text(conn.call(command))? {
        Value::Error(error) => Err(format!(
            "{} refused {}: {error}",
            instance.name(),
            command.join(" ")
        )),
        reply => Ok(reply),
    }
}

fn text<T, E: ToString>(outcome: Result<T, E>) -> Result<T, String> {
    outcome.map_err(|e| e.to_string())
}
