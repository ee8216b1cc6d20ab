//! Sees which node executes which token, without the proxy: a MONITOR connection to every node, attached again
//! whenever it is cut. What comes over a node's replication link is not its own and is left out.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::history::{Executed, Token};

/// Before a cut connection is made again.
const ATTACH_PAUSE: Duration = Duration::from_millis(10);
/// How long attaching may take, and how often a quiet connection looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);
/// A line's beginning says all that matters; a large payload makes it longer.
const HEAD: usize = 256;

/// The witnesses; they end with it.
#[derive(Debug)]
pub(crate) struct Witnesses {
    stop: Arc<AtomicBool>,
    // One entry a token: bounded by what the clients write.
    executed: Arc<Mutex<Vec<Executed>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Witnesses {
    /// Attaches to every node.
    pub(crate) fn start(nodes: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let executed = Arc::new(Mutex::new(Vec::new()));
        let threads = nodes
            .iter()
            .map(|node| {
                let (node, nodes) = (*node, nodes.to_vec());
                let (stop, executed) = (Arc::clone(&stop), Arc::clone(&executed));
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // A node that is down, or that cuts its clients, is what this is here for.
                        drop(follow(node, &nodes, &stop, &executed));
                        thread::sleep(ATTACH_PAUSE);
                    }
                })
            })
            .collect();
        Self {
            stop,
            executed,
            threads,
        }
    }

    /// Ends them and gives what they saw.
    pub(crate) fn stop(mut self) -> Vec<Executed> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        let mut executed = self.executed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *executed)
    }
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn follow(
    node: SocketAddr,
    nodes: &[SocketAddr],
    stop: &AtomicBool,
    executed: &Mutex<Vec<Executed>>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&node, LOOK)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.write_all(b"MONITOR\r\n")?;
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match lines.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            // What came so far stays in `line`.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        }
        let head = String::from_utf8_lossy(&line[..line.len().min(HEAD)]);
        if let Some(token) = own_token(&head, nodes) {
            let mut executed = executed.lock().unwrap_or_else(PoisonError::into_inner);
            executed.push(Executed { node, token });
        }
        line.clear();
    }
    Ok(())
}

/// The token in `+1700000000.000000 [0 127.0.0.1:50000] "RPUSH" "list:3" "t17"`, unless it came from a node.
fn own_token(line: &str, nodes: &[SocketAddr]) -> Option<Token> {
    let (_, rest) = line.split_once(" [")?;
    let (origin, command) = rest.split_once("] ")?;
    let (_, client) = origin.split_once(' ')?;
    if client.parse().is_ok_and(|addr| nodes.contains(&addr)) {
        return None;
    }
    let mut words = command
        .trim_end()
        .split(' ')
        .map(|word| word.trim_matches('"'));
    words.next()?.eq_ignore_ascii_case("RPUSH").then_some(())?;
    words.nth(1)?.strip_prefix('t')?.parse().ok()
}
