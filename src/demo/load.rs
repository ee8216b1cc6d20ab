//! The demo's writers: each keeps one connection to the proxy, writes one unique key after the other, and
//! remembers what it was told about each. They never retry a write and never ask Sentinel for anything.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::wire::{Conn, Value, WireError};
use crate::net::clock::{Moment, now};

/// Writers.
pub(super) const WRITERS: usize = 10;
/// From the start of a write to the start of the next: about 50 a second.
const PACE: Duration = Duration::from_millis(20);
/// A usual client's patience.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after an error, before the connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Writes a writer remembers: half an hour of them. The demo ends when one has made so many.
const REMEMBERED_MAX: usize = 90_000;

/// What a writer was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The reply was OK.
    Acked,
    /// There was an error reply or no connection: certainly not executed.
    Failed,
    /// It was sent, and no reply came.
    Unknown,
}

/// One write; its number is its place in the writer's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) begun: Moment,
    pub(super) ended: Moment,
    pub(super) outcome: Outcome,
}

/// Running writers; they end with it.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    proxy: SocketAddr,
    stop: AtomicBool,
    acked: AtomicU64,
    errors: AtomicU64,
    histories: Vec<Mutex<Vec<Write>>>,
}

impl Load {
    /// Starts the writers.
    pub(super) fn start(proxy: SocketAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            proxy,
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            histories: (0..WRITERS).map(|_| Mutex::default()).collect(),
        });
        let mut load = Self {
            shared,
            threads: Vec::new(),
        };
        for writer in 0..WRITERS {
            let shared = Arc::clone(&load.shared);
            let thread = thread::Builder::new().name(format!("writer-{writer}"));
            load.threads
                .push(thread.spawn(move || shared.write_on(writer))?);
        }
        Ok(load)
    }

    /// Ends the writers, each after its current write.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Acknowledged writes and errors so far.
    pub(super) fn totals(&self) -> (u64, u64) {
        let shared = &self.shared;
        (
            shared.acked.load(Ordering::Relaxed),
            shared.errors.load(Ordering::Relaxed),
        )
    }

    /// When the last of the writers had a write acknowledged that it began after `since`; `None` while one of
    /// them has not.
    pub(super) fn all_acked_since(&self, since: Moment) -> Option<Moment> {
        let first_ack = |history: MutexGuard<'_, Vec<Write>>| {
            let from = history.partition_point(|write| write.begun < since);
            history[from..]
                .iter()
                .find(|w| w.outcome == Outcome::Acked)
                .map(|w| w.ended)
        };
        let acks: Option<Vec<_>> = (0..WRITERS)
            .map(|w| first_ack(self.shared.history(w)))
            .collect();
        acks?.into_iter().max()
    }

    /// All that was written so far, one history a writer.
    pub(super) fn histories(&self) -> Vec<Vec<Write>> {
        (0..WRITERS)
            .map(|writer| self.shared.history(writer).clone())
            .collect()
    }

    /// Whether the writers remember as much as they may.
    pub(super) fn is_full(&self) -> bool {
        (0..WRITERS).any(|writer| self.shared.history(writer).len() >= REMEMBERED_MAX)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn write_on(&self, writer: usize) {
        let mut conn = None;
        for number in 0..REMEMBERED_MAX {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let begun = now();
            let outcome = self.write(&mut conn, &key(writer, number));
            let ended = now();
            self.history(writer).push(Write {
                begun,
                ended,
                outcome,
            });
            if outcome == Outcome::Acked {
                self.acked.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PACE.saturating_sub(ended.since(begun)));
            } else {
                self.errors.fetch_add(1, Ordering::Relaxed);
                conn = None;
                thread::sleep(RECONNECT_PAUSE);
            }
        }
    }

    fn write(&self, conn: &mut Option<Conn>, key: &str) -> Outcome {
        let conn = match conn {
            Some(conn) => conn,
            None => match Conn::connect(self.proxy, CLIENT_TIMEOUT) {
                Ok(fresh) => conn.insert(fresh),
                Err(_) => return Outcome::Failed,
            },
        };
        match conn.call(&["SET", key, "1"]) {
            Ok(Value::Simple(_)) => Outcome::Acked,
            Ok(_) | Err(WireError::Connect(_)) => Outcome::Failed,
            Err(_) => Outcome::Unknown,
        }
    }

    fn history(&self, writer: usize) -> MutexGuard<'_, Vec<Write>> {
        self.histories[writer]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of a write: unique over all writers and the whole run.
pub(super) fn key(writer: usize, number: usize) -> String {
    format!("demo:{writer}:{number}")
}

/// Writer and number of a key made by [`key`].
pub(super) fn parse_key(key: &str) -> Option<(usize, usize)> {
    let (writer, number) = key.strip_prefix("demo:")?.split_once(':')?;
    Some((writer.parse().ok()?, number.parse().ok()?))
}
