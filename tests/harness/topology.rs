//! A cluster of real servers for one test, and what is asked of it around a failover.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use switchmaster::demo::cluster::{Cluster, Options};
use switchmaster::demo::instance::Instance;
use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::now;

use super::proxy::{Event, Plan, Proxy};
use super::{Slot, Slots, wait_for};

/// Clusters that run at once in one test process: six servers each, on two cores. With more of them a
/// Sentinel is not run for 2 s now and then, goes into TILT, and does nothing for 30 s.
const CLUSTERS: usize = 3;
/// The longest that Sentinel itself may need for a failover; down-after is 1.5 s, an election that fails
/// is repeated after 2 x failover-timeout.
pub(crate) const FAILOVER: Duration = Duration::from_secs(45);
/// What the proxy may need beyond Sentinel: ten times the goal, at most this.
pub(crate) const FOLLOW: Duration = Duration::from_secs(3);
/// The fence closes sockets within 50 ms; ten times that on a loaded machine.
const FENCE_MS: f64 = 500.0;
/// A restarted node loads what a test has written.
const LOADED: Duration = Duration::from_secs(30);
/// How long an idle client that need not notice anything is watched.
const UNDISTURBED: Duration = Duration::from_millis(300);
/// One exchange with a server that is asked directly.
const ASK: Duration = Duration::from_secs(5);

static SLOTS: Slots = Slots::new(CLUSTERS);

/// A cluster and its place among those that may run at once.
#[derive(Debug)]
pub(crate) struct Topology {
    // Dropped in this order: the place is given back when the servers are gone.
    cluster: Cluster,
    _slot: Slot<'static>,
}

/// What the Sentinels did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Switch {
    /// The master before.
    pub(crate) old: SocketAddr,
    /// The master that a Sentinel names now.
    pub(crate) new: SocketAddr,
}

impl Topology {
    /// One master, two replicas, three Sentinels, quorum 2, down-after 1.5 s.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same with other options.
    pub(crate) fn start_with(change: impl FnOnce(&mut Options)) -> Self {
        let slot = SLOTS.take();
        let server = super::server();
        let guard = Path::new(env!("CARGO_BIN_EXE_switchmaster")).to_owned();
        let mut options = Options::new(server, guard);
        change(&mut options);
        if let Some(papers) = super::secure::papers() {
            papers.secure(&mut options);
        }
        Self {
            cluster: Cluster::start(&options).unwrap_or_else(|e| panic!("{e}")),
            _slot: slot,
        }
    }

    /// The servers.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Every Sentinel's address.
    pub(crate) fn sentinels(&self) -> Vec<SocketAddr> {
        self.cluster
            .sentinels()
            .iter()
            .map(Instance::addr)
            .collect()
    }

    /// A proxy that follows all Sentinels, with its first master verified.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::ready(Plan::following(&self.sentinels()))
    }

    /// The node that most Sentinels call master.
    pub(crate) fn master(&self) -> &Instance {
        let addr = self.cluster.master_addr().unwrap_or_else(|e| panic!("{e}"));
        self.node(addr)
    }

    /// The node at this address.
    pub(crate) fn node(&self, addr: SocketAddr) -> &Instance {
        self.cluster.node_at(addr).expect("a node of this cluster")
    }

    /// A connection to a node, not through the proxy.
    pub(crate) fn direct(&self, addr: SocketAddr) -> Conn {
        let mut conn = self.node(addr).connect().expect("the node runs");
        conn.set_timeout(ASK);
        conn
    }

    /// What the servers call themselves: `Redis 7.0.15`, `Valkey 8.1.1`.
    pub(crate) fn server_version(&self) -> String {
        let info = self.direct(self.master().addr()).call(&["INFO", "server"]);
        let info = info.ok().and_then(|info| info.text()).unwrap_or_default();
        let field = |name| info.lines().find_map(|line| line.strip_prefix(name));
        match (field("valkey_version:"), field("redis_version:")) {
            (Some(version), _) => format!("Valkey {}", version.trim()),
            (None, Some(version)) => format!("Redis {}", version.trim()),
            (None, None) => "a server that tells no version".to_owned(),
        }
    }

    /// `SENTINEL FAILOVER` at this Sentinel, and what came of it.
    pub(crate) fn fail_over(&self, sentinel: usize) -> Switch {
        let old = self.master().addr();
        self.cluster
            .trigger_failover(sentinel)
            .unwrap_or_else(|e| panic!("{e}"));
        self.switched_from(old)
    }

    /// `SENTINEL FAILOVER ... COORDINATED` at this Sentinel, and what came of it.
    pub(crate) fn fail_over_coordinated(&self, sentinel: usize) -> Switch {
        let old = self.master().addr();
        self.cluster
            .trigger_coordinated_failover(sentinel)
            .unwrap_or_else(|e| panic!("{e}"));
        self.switched_from(old)
    }

    /// Waits until any Sentinel that runs names another master than this one.
    pub(crate) fn switched_from(&self, old: SocketAddr) -> Switch {
        let mut conns: Vec<Conn> = self
            .cluster
            .sentinels()
            .iter()
            .filter(|sentinel| sentinel.is_running())
            .map(|sentinel| sentinel.connect().expect("the Sentinel runs"))
            .collect();
        let new = wait_for("a Sentinel to name another master", FAILOVER, || {
            conns
                .iter_mut()
                .filter_map(|conn| master_named(conn, self.cluster.master_name()))
                .find(|named| *named != old)
        });
        Switch { old, new }
    }

    /// Waits until everything is calm again, and gives the master.
    pub(crate) fn settle(&self) -> SocketAddr {
        self.cluster
            .wait_settled(now() + FAILOVER)
            .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until another failover can be asked for, and gives the master.
    ///
    /// A Sentinel reads INFO of a calm replica every 10 s. A node that it saw as a master then, and again now, was one
    /// all the time in its eyes: it demotes the node again, in the middle of its promotion. So each Sentinel
    /// must have seen the demoted node as a replica; that is sooner when the test demotes it, not Sentinel after 10 s.
    pub(crate) fn ready_again(&self, switch: Switch) -> SocketAddr {
        let (ip, port) = (switch.new.ip().to_string(), switch.new.port().to_string());
        let demoted = self
            .direct(switch.old)
            .call(&["REPLICAOF", &ip, &port])
            .expect("the node is asked directly");
        assert!(!demoted.is_error(), "{demoted:?}");
        let master = self.settle();
        wait_for("every Sentinel to know every replica", FAILOVER, || {
            let knows = |sentinel: &Instance| {
                let replicas = sentinel.connect().and_then(|mut conn| {
                    conn.call(&["SENTINEL", "REPLICAS", self.cluster.master_name()])
                });
                let is = |r: &Value| r.field("role-reported").as_deref() == Some("slave");
                replicas.is_ok_and(|replicas| replicas.items().iter().all(is))
            };
            self.cluster.sentinels().iter().all(knows).then_some(())
        });
        master
    }

    /// Starts the killed master of before as a replica, and waits until another failover can be asked for; gives the master.
    pub(crate) fn bring_back(&self, switch: Switch) -> SocketAddr {
        self.node(switch.old)
            .restart_as_replica_of(switch.new)
            .unwrap_or_else(|e| panic!("{e}"));
        wait_for("its data to be loaded", LOADED, || {
            let pong = self.direct(switch.old).call(&["PING"]);
            pong.is_ok_and(|pong| !pong.is_error()).then_some(())
        });
        self.ready_again(switch)
    }

    /// Makes the test's end quiet: what is frozen goes on.
    pub(crate) fn thaw_all(&self) {
        for instance in self.cluster.nodes().iter().chain(self.cluster.sentinels()) {
            if instance.is_frozen() {
                instance.thaw().unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}

/// A test that fails shows what its servers did.
impl Drop for Topology {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for instance in self.cluster.sentinels().iter().chain(self.cluster.nodes()) {
            println!("--- the end of the log of {}", instance.name());
            println!("{}", instance.log_tail());
        }
    }
}

/// The master's address in a Sentinel's words; `None` when it cannot say.
pub(crate) fn master_named(sentinel: &mut Conn, master: &str) -> Option<SocketAddr> {
    let reply = sentinel
        .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master])
        .ok()?;
    let [ip, port] = reply.items() else {
        return None;
    };
    format!("{}:{}", ip.text()?, port.text()?).parse().ok()
}

/// Waits for the `switched` line of this switch and holds it against what must be true of every one.
pub(crate) fn follows(proxy: &Proxy, mark: usize, switch: Switch) -> Event {
    let event = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(
        event.text("from"),
        switch.old.to_string(),
        "{}",
        event.fields
    );
    assert_eq!(event.text("to"), switch.new.to_string(), "{}", event.fields);
    assert!(event.number("generation") > 1.0, "{}", event.fields);
    // No Sentinel has given a provisional generation an epoch yet.
    let provisional = event.fields["provisional"] == true;
    assert!(
        event.number("epoch") > 0.0 || provisional,
        "{}",
        event.fields
    );
    assert!(event.number("fence_ms") <= FENCE_MS, "{}", event.fields);
    assert!(event.number("verify_ms") >= 0.0, "{}", event.fields);
    assert!(!event.text("trigger").is_empty(), "{}", event.fields);
    wait_for("the sockets to the old master to be gone", FOLLOW, || {
        (proxy.sockets_to(switch.old) == 0).then_some(())
    });
    event
}

/// A new client is served, by this master.
pub(crate) fn serves(proxy: &Proxy, master: SocketAddr, within: Duration) {
    let mut conn = Conn::connect(proxy.addr(), within).expect("the proxy listens");
    assert_eq!(
        port_of(&mut conn),
        Some(master.port()),
        "served by the wrong node"
    );
}

/// The port of the server that answers here: which node one has been connected to.
pub(crate) fn port_of(conn: &mut Conn) -> Option<u16> {
    let info = conn.call(&["INFO", "server"]).ok()?.text()?;
    info.lines()
        .find_map(|line| line.strip_prefix("tcp_port:"))
        .and_then(|port| port.trim().parse().ok())
}

/// Clients of this node that wait in a blocking command.
pub(crate) fn blocked_clients(node: &mut Conn) -> usize {
    let info = node.call(&["INFO", "clients"]).expect("the node answers");
    let info = info.text().unwrap_or_default();
    info.lines()
        .find_map(|line| line.strip_prefix("blocked_clients:"))
        .and_then(|n| n.trim().parse().ok())
        .expect("INFO tells how many clients are blocked")
}

/// A client that has been answered once and now waits.
pub(crate) fn idle_client(proxy: &Proxy) -> Conn {
    let mut conn = Conn::connect(proxy.addr(), ASK).expect("the proxy listens");
    let pong = conn.call(&["PING"]).expect("the master answers");
    assert_eq!(pong, Value::Simple("PONG".to_owned()));
    conn
}

/// What the loss of its upstream is to an idle client: the end where sessions are closed, nothing at all where they move.
pub(crate) fn loses_upstream(conn: &mut Conn, within: Duration) {
    if super::proxy::sessions_move() {
        let heard = conn.readable(UNDISTURBED);
        assert!(
            matches!(heard, Ok(false)),
            "an idle session hears nothing: {heard:?}"
        );
    } else {
        is_closed(conn, within);
    }
}

/// Waits until this client's connection is ended by the other side, and says when that was seen.
pub(crate) fn is_closed(conn: &mut Conn, within: Duration) -> SystemTime {
    conn.set_timeout(within);
    match conn.read() {
        Ok(reply) => panic!("{reply:?} was never asked for"),
        Err(switchmaster::demo::wire::WireError::Timeout(limit)) => {
            panic!("the connection is still open after {limit:?}")
        }
        Err(_) => SystemTime::now(),
    }
}
