//! A master, two replicas and three Sentinels on both sides of a [`Network`], so that they can be parted.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use switchmaster::demo::guard;
use switchmaster::demo::server::Server;
use switchmaster::demo::wire::{Conn, Value};
use tempfile::TempDir;

use super::network::Network;
use super::wait_until;

/// On a loaded machine.
const START: Duration = Duration::from_secs(40);
/// One exchange with a server that is asked directly.
const ASK: Duration = Duration::from_secs(5);
/// Ports in the namespace; on this machine's side the kernel chooses.
const FAR_PORT: u16 = 7000;
const NODES: usize = 3;

/// Where a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// With the test and the proxy.
    Near,
    /// In the namespace.
    Far,
}

/// The servers; the first node is the master.
#[derive(Debug)]
pub(crate) struct Split {
    // Ended in this order.
    pub(crate) nodes: Vec<Place>,
    pub(crate) sentinels: Vec<Place>,
    pub(crate) network: Network,
    _folder: TempDir,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Place {
    /// How the others and the proxy know it.
    pub(crate) addr: SocketAddr,
    /// How the test asks it.
    managed: SocketAddr,
    side: Side,
    child: Option<Child>,
}

impl Split {
    /// Starts them, each where it belongs, and waits until they could fail over.
    pub(crate) fn start(network: Network, nodes: [Side; 3], sentinels: [Side; 3]) -> Self {
        let server = super::server();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = |(index, side): (usize, Side)| {
            let index = u16::try_from(index).expect("six");
            let (addr, managed) = match side {
                Side::Near => {
                    let free = std::net::TcpListener::bind((network.near(), 0)).expect("a port");
                    let addr = free.local_addr().expect("bound");
                    (addr, addr)
                }
                Side::Far => {
                    let port = FAR_PORT + index;
                    let ip = network.far(u8::try_from(index).expect("six"));
                    ((ip, port).into(), network.managed(port))
                }
            };
            Place {
                addr,
                managed,
                side,
                child: None,
            }
        };
        let mut places = nodes.into_iter().chain(sentinels).enumerate().map(place);
        let mut split = Self {
            nodes: places.by_ref().take(NODES).collect(),
            sentinels: places.collect(),
            network,
            _folder: folder,
        };
        split.launch(&server);
        split.wait_complete();
        split
    }

    fn launch(&mut self, server: &Server) {
        let nodes: Vec<SocketAddr> = self.nodes.iter().map(|n| n.addr).collect();
        let sentinels: Vec<SocketAddr> = self.sentinels.iter().map(|s| s.addr).collect();
        let folder = self._folder.path();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let mut lines = vec![
                "save \"\"".to_owned(),
                "repl-diskless-sync-delay 0".to_owned(),
                "repl-ping-replica-period 1".to_owned(),
                "repl-timeout 5".to_owned(),
                format!("replica-announce-ip {}", node.addr.ip()),
            ];
            if index > 0 {
                lines.push(format!("replicaof {} {}", nodes[0].ip(), nodes[0].port()));
            }
            node.start(&self.network, server, &server.node_arg0(), folder, &lines);
        }
        wait_until("the replicas to be connected", START, || {
            let info = self.nodes[0]
                .connect()
                .and_then(|mut c| c.call(&["INFO", "replication"]).ok())
                .and_then(|info| info.text());
            info.is_some_and(|info| info.matches("state=online").count() == NODES - 1)
        });
        for sentinel in &mut self.sentinels {
            let mut lines = vec![
                format!(
                    "sentinel monitor mymaster {} {} 2",
                    nodes[0].ip(),
                    nodes[0].port()
                ),
                "sentinel down-after-milliseconds mymaster 1500".to_owned(),
                "sentinel failover-timeout mymaster 10000".to_owned(),
                format!("sentinel announce-ip {}", sentinel.addr.ip()),
                format!("sentinel myid {:040x}", sentinel.addr.port()),
            ];
            for replica in &nodes[1..] {
                lines.push(format!(
                    "sentinel known-replica mymaster {} {}",
                    replica.ip(),
                    replica.port()
                ));
            }
            for other in sentinels.iter().filter(|other| **other != sentinel.addr) {
                lines.push(format!(
                    "sentinel known-sentinel mymaster {} {} {:040x}",
                    other.ip(),
                    other.port(),
                    other.port()
                ));
            }
            sentinel.start(
                &self.network,
                server,
                &server.sentinel_arg0(),
                folder,
                &lines,
            );
        }
    }

    fn wait_complete(&self) {
        wait_until("the Sentinels to know everybody", START, || {
            self.sentinels.iter().all(|sentinel| {
                let Some(mut conn) = sentinel.connect() else {
                    return false;
                };
                let mut all_are = |question: &str, flags: &str, count: usize| {
                    let reply = conn.call(&["SENTINEL", question, "mymaster"]);
                    let good = |v: &Value| v.field("flags").as_deref() == Some(flags);
                    reply.is_ok_and(|r| r.items().iter().filter(|v| good(v)).count() == count)
                };
                all_are("REPLICAS", "slave", 2) && all_are("SENTINELS", "sentinel", 2)
            })
        });
    }

    /// Every Sentinel, as the proxy knows it.
    pub(crate) fn sentinel_addrs(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(|s| s.addr).collect()
    }

    /// A connection to a node, whatever is cut.
    pub(crate) fn direct(&self, addr: SocketAddr) -> Conn {
        let node = self.nodes.iter().find(|n| n.addr == addr);
        let conn = node.expect("a node of these").connect();
        conn.expect("the node runs")
    }
}

impl Place {
    /// A connection over the management link.
    pub(crate) fn connect(&self) -> Option<Conn> {
        Conn::connect(self.managed, ASK).ok()
    }

    /// A server in the namespace, at one of its addresses, with this configuration.
    pub(crate) fn far(
        network: &Network,
        server: &Server,
        arg0: &std::ffi::OsStr,
        folder: &Path,
        index: u8,
        lines: &[String],
    ) -> Self {
        let port = FAR_PORT + u16::from(index);
        let mut place = Self {
            addr: (network.far(index), port).into(),
            managed: network.managed(port),
            side: Side::Far,
            child: None,
        };
        place.start(network, server, arg0, folder, lines);
        wait_until("it to answer", START, || place.connect().is_some());
        place
    }

    fn start(
        &mut self,
        network: &Network,
        server: &Server,
        arg0: &std::ffi::OsStr,
        folder: &Path,
        lines: &[String],
    ) {
        let port = self.addr.port();
        let bind = match self.side {
            Side::Near => self.addr.ip().to_string(),
            Side::Far => "0.0.0.0".to_owned(),
        };
        let own = folder.join(port.to_string());
        std::fs::create_dir(&own).expect("a folder of its own");
        let config = own.join("config");
        let text = format!(
            "port {port}\nbind {bind}\nprotected-mode no\ndir {}\n{}\n",
            own.display(),
            lines.join("\n")
        );
        std::fs::write(&config, text).expect("a configuration");
        let guarded = guard::command(
            Path::new(env!("CARGO_BIN_EXE_switchmaster")),
            arg0,
            server.program().as_os_str(),
        );
        let mut command = match self.side {
            Side::Near => guarded,
            Side::Far => within(network, &guarded),
        };
        let log = File::create(own.join("log")).expect("a log");
        command.arg(config).stdin(Stdio::null()).stdout(log);
        let child = guard::spawn(command).unwrap_or_else(|e| panic!("{e}"));
        self.child = Some(child);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended already, which is as good.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The same command in the namespace.
fn within(network: &Network, command: &Command) -> Command {
    let mut within = network.command();
    within.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        within.env(
            key,
            value.expect("the guard's command sets, and removes nothing"),
        );
    }
    within
}
