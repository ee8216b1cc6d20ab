//! A local topology of real servers: one master, its replicas, their Sentinels, on free loopback ports in a
//! temporary folder. Dropping it ends every process and removes the folder; nothing is ever persisted.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::cluster_config as config;
use super::instance::{Instance, Launch};
use super::ports::Port;
use super::server::Server;
use super::settle;
use super::wait::{TimedOut, wait_until};
use super::wire::{Value, WireError};
use crate::net::clock::{Moment, now};

/// Starts over when another process took a port between its choice and its use.
const START_ATTEMPTS: usize = 5;
/// How long the replicas and Sentinels may take to find each other; generous, test machines are loaded.
const START_LIMIT: Duration = Duration::from_secs(40);
/// How long a Sentinel may call a failover impossible before that is believed: it needs a fresh view of the
/// replicas first.
const TRIGGER_LIMIT: Duration = Duration::from_secs(20);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Data nodes beside the master.
    pub replicas: usize,
    /// Sentinels.
    pub sentinels: usize,
    /// Sentinels that must agree that the master is down.
    pub quorum: usize,
    /// Silence after which a Sentinel calls an instance down.
    pub down_after: Duration,
    /// Sentinel's `failover-timeout`.
    pub failover_timeout: Duration,
    /// The name Sentinels know the master by.
    pub master_name: String,
    /// `requirepass` and `masterauth` of every data node, `auth-pass` of every Sentinel.
    pub requirepass: Option<String>,
    /// `requirepass` and `sentinel-pass` of every Sentinel.
    pub sentinel_requirepass: Option<String>,
    /// TLS at every port, and nothing else.
    pub tls: Option<Tls>,
    /// Further lines of every data node's configuration.
    pub extra_node_config: Vec<String>,
    /// Further lines of every Sentinel's configuration.
    pub extra_sentinel_config: Vec<String>,
    /// The program that is started.
    pub server: Server,
    /// The switchmaster binary, through which every child is started.
    pub guard: PathBuf,
    /// Whether the Sentinels are started too; else [`Cluster::start_sentinel`] starts each.
    pub start_sentinels: bool,
}

/// What every server shows, and believes.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority that signed for all of them, and for their clients.
    pub ca_file: PathBuf,
    /// Their certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

impl Options {
    /// One master, two replicas, three Sentinels with quorum 2, down-after 1.5 s, no passwords.
    pub fn new(server: Server, guard: PathBuf) -> Self {
        Self {
            replicas: 2,
            sentinels: 3,
            quorum: 2,
            down_after: Duration::from_millis(1500),
            failover_timeout: Duration::from_secs(10),
            master_name: "mymaster".into(),
            requirepass: None,
            sentinel_requirepass: None,
            tls: None,
            extra_node_config: Vec::new(),
            extra_sentinel_config: Vec::new(),
            server,
            guard,
            start_sentinels: true,
        }
    }
}

/// Why the topology is not as asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A server did not talk.
    #[error("{who}: {source}")]
    Wire {
        /// The server.
        who: String,
        /// Why it failed.
        source: WireError,
    },
    /// A server ended by itself.
    #[error("{who} ended by itself; the end of its log:\n{tail}")]
    Exited {
        /// The server.
        who: String,
        /// The end of its log.
        tail: String,
    },
    /// A state was not reached in time.
    #[error("{timeout}\nthe end of the log:\n{tail}")]
    Timeout {
        /// What was waited for, and what was missing.
        timeout: TimedOut,
        /// The end of the log that may tell why.
        tail: String,
    },
    /// A Sentinel answered with an error.
    #[error("{who} refused {command}: {reply}")]
    Refused {
        /// The Sentinel.
        who: String,
        /// What it was asked.
        command: String,
        /// Its answer.
        reply: String,
    },
    /// The process is not in a state for that.
    #[error("{who} {is}")]
    State {
        /// The server.
        who: String,
        /// Its state, and what does not go with it.
        is: String,
    },
    /// The Sentinels that answer do not agree.
    #[error("no majority of the Sentinels that answer names one master: {0}")]
    NoMajority(String),
    /// No port could be had.
    #[error("no free port on 127.0.0.1 between 10000 and 32000")]
    NoPort,
}

/// A running topology.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: the processes end before their folder goes.
    nodes: Vec<Instance>,
    sentinels: Vec<Instance>,
    master_name: String,
    folder: TempDir,
}

impl Cluster {
    /// Starts everything and waits until it could fail over: replicas connected, every Sentinel aware of all
    /// replicas and of all other Sentinels, quorum reachable.
    ///
    /// # Errors
    /// [`ClusterError`], with the end of the log of the server that did not come up.
    pub fn start(options: &Options) -> Result<Self, ClusterError> {
        let mut attempt = 1;
        loop {
            match Self::try_start(options) {
                Err(ClusterError::Exited { tail, .. })
                    if attempt < START_ATTEMPTS && tail.contains("Address already in use") =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    /// Starts a Sentinel that is not running and waits until it answers.
    ///
    /// # Errors
    /// As [`Instance::restart`].
    pub fn start_sentinel(&self, index: usize) -> Result<(), ClusterError> {
        self.sentinels[index].restart()
    }

    /// Asks Sentinel `index` for a planned failover, again while it does not yet see a replica fit for it.
    ///
    /// # Errors
    /// [`ClusterError::Refused`] or [`ClusterError::Wire`] when it does not agree within 20 s.
    pub fn trigger_failover(&self, index: usize) -> Result<(), ClusterError> {
        self.trigger(index, &["SENTINEL", "FAILOVER", &self.master_name])
    }

    /// The same, but the master itself hands over: writes pause until its successor has them all. Valkey 9 and newer.
    ///
    /// # Errors
    /// As [`trigger_failover`](Self::trigger_failover).
    pub fn trigger_coordinated_failover(&self, index: usize) -> Result<(), ClusterError> {
        self.trigger(
            index,
            &["SENTINEL", "FAILOVER", &self.master_name, "COORDINATED"],
        )
    }

    fn trigger(&self, index: usize, command: &[&str]) -> Result<(), ClusterError> {
        let deadline = now() + TRIGGER_LIMIT;
        let mut last = None;
        wait_until(deadline, "a Sentinel to start a failover", || {
            let outcome = ask(&self.sentinels[index], command);
            let outcome = outcome.map_err(|e| last = Some(e));
            outcome.map_err(|()| "it refuses".into())
        })
        .map(drop)
        .map_err(|timeout| {
            last.unwrap_or(ClusterError::Timeout {
                timeout,
                tail: String::new(),
            })
        })
    }

    /// Waits until no failover is in progress, all running Sentinels name the same running master, and all
    /// other running nodes are its connected replicas. Frozen and killed instances are left aside.
    ///
    /// # Errors
    /// [`ClusterError::Timeout`] with what was missing and the end of a Sentinel's log.
    pub fn wait_settled(&self, deadline: Moment) -> Result<SocketAddr, ClusterError> {
        wait_until(deadline, "the topology to settle", || self.settled()).map_err(|timeout| {
            ClusterError::Timeout {
                timeout,
                tail: self.sentinel_log_tail(),
            }
        })
    }

    /// One look of [`wait_settled`](Self::wait_settled): the master, or what is missing.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn settled(&self) -> Result<SocketAddr, String> {
        settle::settled(self)
    }

    /// The master's address by the majority of those running Sentinels that answer.
    ///
    /// # Errors
    /// [`ClusterError::NoMajority`] when there is none.
    pub fn master_addr(&self) -> Result<SocketAddr, ClusterError> {
        let command = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.master_name];
        let answers: Vec<_> = self
            .sentinels
            .iter()
            .filter(|sentinel| sentinel.is_running())
            .filter_map(|sentinel| settle::addr_in(&ask(sentinel, &command).ok()?))
            .collect();
        let mut votes = HashMap::new();
        for addr in &answers {
            *votes.entry(*addr).or_insert(0) += 1;
        }
        votes
            .iter()
            .find(|(_, count)| **count * 2 > answers.len())
            .map(|(addr, _)| *addr)
            .ok_or_else(|| ClusterError::NoMajority(format!("{votes:?}")))
    }

    /// The data nodes; the first was started as the master.
    pub fn nodes(&self) -> &[Instance] {
        &self.nodes
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[Instance] {
        &self.sentinels
    }

    /// The data node that listens at `addr`.
    pub fn node_at(&self, addr: SocketAddr) -> Option<&Instance> {
        self.nodes.iter().find(|node| node.addr() == addr)
    }

    /// The name Sentinels know the master by.
    pub fn master_name(&self) -> &str {
        &self.master_name
    }

    /// The temporary folder: configurations and logs of all processes, and a folder of its own for each.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The end of the log of the first running Sentinel.
    pub fn sentinel_log_tail(&self) -> String {
        let running = self.sentinels.iter().find(|sentinel| sentinel.is_running());
        running.map(Instance::log_tail).unwrap_or_default()
    }

    fn try_start(options: &Options) -> Result<Self, ClusterError> {
        let folder = tempfile::Builder::new()
            .prefix("switchmaster-")
            .tempdir()
            .map_err(|source| ClusterError::Io {
                what: "cannot make a temporary folder".into(),
                source,
            })?;
        let node_ports = reserve(options.replicas + 1)?;
        let sentinel_ports = reserve(options.sentinels)?;
        let node_configs = config::nodes(options, &node_ports);
        let sentinel_configs = config::sentinels(options, &node_ports, &sentinel_ports);
        let server = &options.server;
        let instances = |ports: Vec<Port>, configs: Vec<String>, kind: Kind<'_>| {
            ports
                .into_iter()
                .zip(configs)
                .map(|(port, config)| instance(folder.path(), options, port, &config, &kind))
                .collect::<Result<Vec<_>, _>>()
        };
        let nodes = instances(
            node_ports,
            node_configs,
            Kind {
                file: "node",
                title: "node",
                arg0: server.node_arg0(),
                password: &options.requirepass,
            },
        )?;
        let sentinels = instances(
            sentinel_ports,
            sentinel_configs,
            Kind {
                file: "sentinel",
                title: "Sentinel",
                arg0: server.sentinel_arg0(),
                password: &options.sentinel_requirepass,
            },
        )?;
        let master_name = options.master_name.clone();
        let cluster = Self {
            nodes,
            sentinels,
            master_name,
            folder,
        };
        cluster.bring_up(options)?;
        Ok(cluster)
    }

    fn bring_up(&self, options: &Options) -> Result<(), ClusterError> {
        let deadline = now() + START_LIMIT;
        start_all(&self.nodes)?;
        for replica in &self.nodes[1..] {
            let what = format!("{} to connect to its master", replica.name());
            wait_until(deadline, &what, || settle::link_up(replica)).map_err(|timeout| {
                ClusterError::Timeout {
                    timeout,
                    tail: replica.log_tail(),
                }
            })?;
        }
        if options.start_sentinels && options.sentinels > 0 {
            // After the replicas are connected: a Sentinel asks them once and then every 10 s.
            start_all(&self.sentinels)?;
            wait_until(deadline, "the Sentinels to know the topology", || {
                settle::complete(self, options.replicas).and_then(|()| self.settled())
            })
            .map_err(|timeout| ClusterError::Timeout {
                timeout,
                tail: self.sentinel_log_tail(),
            })?;
        }
        Ok(())
    }
}

/// Asks an instance; an error reply is an error.
pub(super) fn ask(instance: &Instance, command: &[&str]) -> Result<Value, ClusterError> {
    let who = || instance.name().to_owned();
    let reply = instance
        .connect()
        .and_then(|mut conn| conn.call(command))
        .map_err(|source| ClusterError::Wire { who: who(), source })?;
    match reply {
        Value::Error(reply) => Err(ClusterError::Refused {
            who: who(),
            command: command.join(" "),
            reply,
        }),
        reply => Ok(reply),
    }
}

/// What tells a data node and a Sentinel apart before they run.
struct Kind<'a> {
    file: &'static str,
    title: &'static str,
    arg0: std::ffi::OsString,
    password: &'a Option<String>,
}

fn instance(
    folder: &Path,
    options: &Options,
    port: Port,
    config: &str,
    kind: &Kind<'_>,
) -> Result<Instance, ClusterError> {
    let addr = port.addr();
    let file = |extension| folder.join(format!("{}-{}.{extension}", kind.file, addr.port()));
    let launch = Launch {
        guard: options.guard.clone(),
        arg0: kind.arg0.clone(),
        program: options.server.program().to_owned(),
        config: file("conf"),
        log: file("log"),
    };
    // A replica renames what it received to dump.rdb and then loads that file, Valkey 9.1 only some time later. In a
    // shared folder two that follow a new master at once load each other's, and miss or repeat what was written
    // between the two copies.
    let own = folder.join(format!("{}-{}", kind.file, addr.port()));
    std::fs::create_dir(&own)
        .and_then(|()| {
            let dir = config::quoted(&own.to_string_lossy());
            std::fs::write(&launch.config, format!("dir {dir}\n{config}"))
        })
        .map_err(|source| ClusterError::Io {
            what: "cannot write a configuration".into(),
            source,
        })?;
    Ok(Instance::new(
        format!("{} {addr}", kind.title),
        port,
        launch,
        kind.password.clone(),
    ))
}

fn reserve(count: usize) -> Result<Vec<Port>, ClusterError> {
    (0..count)
        .map(|_| Port::reserve().ok_or(ClusterError::NoPort))
        .collect()
}

fn start_all(instances: &[Instance]) -> Result<(), ClusterError> {
    for instance in instances {
        instance.start(&[])?;
    }
    instances.iter().try_for_each(Instance::wait_answering)
}
