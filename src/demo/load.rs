//! The demo's writers: each keeps one connection to the proxy, writes one unique key after the other, and
//! remembers what it was told about each. They never retry a write and never ask Sentinel for anything.

use std::collections::HashSet;
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

/// Keys that are read back at once.
const READ_BACK_BATCH: usize = 500;

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

/// The writers; they end with it.
#[derive(Debug)]
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    rate: Rate,
}

/// Acknowledged writes over the last second.
#[derive(Debug)]
struct Rate {
    since: Moment,
    acked: u64,
    per_second: u64,
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
    /// Writers that do not write yet.
    pub(super) fn new(proxy: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            proxy,
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            histories: (0..WRITERS).map(|_| Mutex::default()).collect(),
        });
        Self {
            shared,
            threads: Vec::new(),
            rate: Rate {
                since: now(),
                acked: 0,
                per_second: 0,
            },
        }
    }

    /// Starts the writers, once.
    pub(super) fn start(&mut self) -> io::Result<()> {
        for writer in 0..WRITERS {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(format!("writer-{writer}"));
            self.threads
                .push(thread.spawn(move || shared.write_on(writer))?);
        }
        Ok(())
    }

    /// Ends the writers, each after its current write.
    pub(super) fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }

    /// Acknowledged writes a second, over the last second.
    pub(super) fn per_second(&mut self) -> u64 {
        let (at, acked) = (now(), self.totals().0);
        let rate = &mut self.rate;
        let passed = at.since(rate.since);
        if passed >= Duration::from_secs(1) {
            let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            rate.per_second = acked.saturating_sub(rate.acked) * 1000 / passed;
            (rate.since, rate.acked) = (at, acked);
        }
        rate.per_second
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

/// Reads every acknowledged write back: writer and number of those that `master` does not hold.
///
/// # Errors
/// In words, when it cannot be read.
pub(super) fn missing(
    master: &mut Conn,
    histories: &[Vec<Write>],
) -> Result<HashSet<(usize, usize)>, String> {
    let mut missing = HashSet::new();
    for (writer, history) in histories.iter().enumerate() {
        let numbered = history.iter().enumerate();
        let acked: Vec<_> = numbered
            .filter(|(_, w)| w.outcome == Outcome::Acked)
            .map(|(n, _)| n)
            .collect();
        for batch in acked.chunks(READ_BACK_BATCH) {
            let keys = batch.iter().map(|number| key(writer, *number));
            let command: Vec<_> = std::iter::once("MGET".to_owned()).chain(keys).collect();
            let reply = master.call(&command).map_err(|e| e.to_string())?;
            if reply.items().len() != batch.len() {
                return Err(format!("an unexpected reply: {reply:?}"));
            }
            let held = reply.items().iter().zip(batch);
            missing.extend(
                held.filter(|(v, _)| **v == Value::Nil)
                    .map(|(_, n)| (writer, *n)),
            );
        }
    }
    Ok(missing)
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
