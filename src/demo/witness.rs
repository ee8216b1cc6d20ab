//! Sees which node executes which write, without the proxy: a MONITOR connection to every node, attached again
//! whenever it is cut. Writes that come over a node's replication link are not its own and are left out.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::load::parse_key;
use super::wire::{Conn, Value, WireError};

/// Pause before a cut connection is made again.
const ATTACH_PAUSE: Duration = Duration::from_millis(10);
/// One step of attaching.
const ATTACH_LIMIT: Duration = Duration::from_millis(500);
/// How often a quiet connection looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);

/// A write that a node executed for a client of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executed {
    pub(super) node: SocketAddr,
    pub(super) writer: usize,
    pub(super) number: usize,
}

/// The witnesses of all nodes; they end with it.
#[derive(Debug)]
pub(super) struct Witness {
    stop: Arc<AtomicBool>,
    nodes: Vec<Arc<Seen>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Seen {
    node: SocketAddr,
    attached: AtomicBool,
    // Bounded by what the writers may write at all.
    executed: Mutex<Vec<Executed>>,
}

impl Witness {
    /// Attaches to every node.
    pub(super) fn start(nodes: &[SocketAddr]) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut witness = Self {
            stop,
            nodes: Vec::new(),
            threads: Vec::new(),
        };
        for node in nodes {
            let seen = Arc::new(Seen {
                node: *node,
                attached: AtomicBool::new(false),
                executed: Mutex::default(),
            });
            witness.nodes.push(Arc::clone(&seen));
            let (stop, nodes) = (Arc::clone(&witness.stop), nodes.to_vec());
            let thread = thread::Builder::new().name(format!("witness-{}", node.port()));
            witness.threads.push(thread.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // A node that is down, or that cuts its clients, is what this is here for.
                    let _ = seen.follow(&nodes, &stop);
                    seen.attached.store(false, Ordering::Relaxed);
                    thread::sleep(ATTACH_PAUSE);
                }
            })?);
        }
        Ok(witness)
    }

    /// Whether `node` is being watched right now.
    pub(super) fn is_attached(&self, node: SocketAddr) -> bool {
        self.nodes
            .iter()
            .any(|seen| seen.node == node && seen.attached.load(Ordering::Relaxed))
    }

    /// All that was executed so far.
    pub(super) fn executed(&self) -> Vec<Executed> {
        let of = |seen: &Arc<Seen>| {
            seen.executed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        };
        self.nodes.iter().flat_map(of).collect()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Seen {
    fn follow(&self, nodes: &[SocketAddr], stop: &AtomicBool) -> Result<(), WireError> {
        let mut conn = Conn::connect(self.node, ATTACH_LIMIT)?;
        if conn.call(&["MONITOR"])?.is_error() {
            return Ok(());
        }
        self.attached.store(true, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            if !conn.readable(LOOK)? {
                continue;
            }
            if let Value::Simple(line) = conn.read()?
                && let Some((writer, number)) = own_write(&line, nodes)
            {
                let executed = Executed {
                    node: self.node,
                    writer,
                    number,
                };
                self.executed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(executed);
            }
        }
        Ok(())
    }
}

/// The write in a line of MONITOR, unless it came from another node:
/// `1700000000.000000 [0 127.0.0.1:50000] "SET" "demo:1:2" "1"`.
fn own_write(line: &str, nodes: &[SocketAddr]) -> Option<(usize, usize)> {
    let (_, rest) = line.split_once(" [")?;
    let (origin, command) = rest.split_once("] ")?;
    let (_, client) = origin.split_once(' ')?;
    if client.parse().is_ok_and(|addr| nodes.contains(&addr)) {
        return None;
    }
    let mut words = command.split(' ').map(|word| word.trim_matches('"'));
    let name = words.next()?;
    name.eq_ignore_ascii_case("SET").then_some(())?;
    parse_key(words.next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_own_writes_from_replicated_ones() {
        let nodes = [SocketAddr::from(([127, 0, 0, 1], 5000))];
        let line = |from: &str| format!("1700000000.0 [0 {from}] \"SET\" \"demo:1:22\" \"1\"");
        assert_eq!(own_write(&line("127.0.0.1:50000"), &nodes), Some((1, 22)));
        assert_eq!(own_write(&line("127.0.0.1:5000"), &nodes), None);
        assert_eq!(own_write("1.0 [0 127.0.0.1:1] \"PING\"", &nodes), None);
        assert_eq!(own_write("OK", &nodes), None);
    }
}
