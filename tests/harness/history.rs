//! Writers of unique tokens, and what their history proves.
//!
//! A token is pushed to its writer's list once: what was executed twice, executed by the wrong node, or
//! executed although refused can be seen in the lists afterwards.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, Value, WireError};

use super::wait_until;

/// Longer than any hold, so that a writer's patience never ends a test.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts to connect where connecting fails.
const REDIAL: Duration = Duration::from_millis(10);
/// Every list of tokens has a name that begins so.
const LIST: &str = "tokens:";

/// What a writer knows of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged.
    Ok,
    /// Answered with an error.
    Refused(String),
    /// Sent, at least in part, and not answered.
    Unknown,
}

/// One write.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// The writer.
    pub(crate) writer: usize,
    /// Its value; unique in the history.
    pub(crate) token: String,
    /// Just before its first byte was written.
    pub(crate) began: SystemTime,
    /// Just after its reply was read, or the connection seen to end.
    pub(crate) ended: SystemTime,
    /// See [`Outcome`].
    pub(crate) outcome: Outcome,
}

/// Writers on kept connections, each with one write at a time.
#[derive(Debug)]
pub(crate) struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the writers did.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// Every write.
    pub(crate) writes: Vec<Write>,
    /// Connections of each writer, beyond its first.
    pub(crate) reconnects: Vec<usize>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    password: Option<String>,
    pace: Duration,
    stop: AtomicBool,
    history: Mutex<History>,
}

impl Writers {
    /// Starts `count` of them, each pausing for `pace` after a write, and waits until each was acknowledged once.
    pub(crate) fn start(to: SocketAddr, count: usize, pace: Duration) -> Self {
        Self::start_as(to, count, pace, None)
    }

    /// The same, logging in with this password first.
    pub(crate) fn start_as(
        to: SocketAddr,
        count: usize,
        pace: Duration,
        password: Option<&str>,
    ) -> Self {
        let shared = Arc::new(Shared {
            to,
            password: password.map(ToOwned::to_owned),
            pace,
            stop: AtomicBool::new(false),
            history: Mutex::new(History {
                writes: Vec::new(),
                reconnects: vec![0; count],
            }),
        });
        let threads = (0..count)
            .map(|writer| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.write(writer))
            })
            .collect();
        let writers = Self { shared, threads };
        writers.all_acknowledged_after(SystemTime::UNIX_EPOCH, PATIENCE);
        writers
    }

    /// Waits until every writer was acknowledged a write that began after this moment.
    pub(crate) fn all_acknowledged_after(&self, moment: SystemTime, within: Duration) {
        let count = self.threads.len();
        wait_until("every writer to be acknowledged", within, || {
            let history = locked(&self.shared.history);
            let recent = history.writes.iter().rev().take_while(|w| w.began > moment);
            let done: HashSet<usize> = recent
                .filter(|w| w.outcome == Outcome::Ok)
                .map(|w| w.writer)
                .collect();
            done.len() == count
        });
    }

    /// What they did until now.
    pub(crate) fn so_far(&self) -> History {
        locked(&self.shared.history).clone()
    }

    /// Ends them and gives what they did.
    pub(crate) fn stop(mut self) -> History {
        self.end();
        std::mem::replace(
            &mut *locked(&self.shared.history),
            History {
                writes: Vec::new(),
                reconnects: Vec::new(),
            },
        )
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // Its panic was printed when it happened; the history shows what is missing.
            drop(thread.join());
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

impl Shared {
    fn write(&self, writer: usize) {
        let list = format!("{LIST}{writer}");
        let mut connections = 0_usize;
        let mut number = 0_u64;
        while !self.stop.load(Ordering::Acquire) {
            let Ok(mut conn) = self.connect() else {
                thread::sleep(REDIAL);
                continue;
            };
            connections += 1;
            locked(&self.history).reconnects[writer] = connections - 1;
            loop {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                number += 1;
                let token = format!("{writer}-{number}");
                let began = SystemTime::now();
                let answer = conn.call(&["RPUSH", &list, &token]);
                let goes_on = answer.is_ok();
                let outcome = match answer {
                    Ok(Value::Int(_)) => Outcome::Ok,
                    Ok(Value::Error(text)) => Outcome::Refused(text),
                    Ok(other) => panic!("RPUSH was answered with {other:?}"),
                    Err(WireError::Malformed(why)) => panic!("RPUSH was answered with {why}"),
                    Err(_) => Outcome::Unknown,
                };
                locked(&self.history).writes.push(Write {
                    writer,
                    token,
                    began,
                    ended: SystemTime::now(),
                    outcome,
                });
                if !goes_on {
                    break;
                }
                thread::sleep(self.pace);
            }
        }
    }

    fn connect(&self) -> Result<Conn, WireError> {
        let mut conn = Conn::connect(self.to, PATIENCE)?;
        if let Some(password) = &self.password {
            conn.call(&["AUTH", password])?;
        }
        Ok(conn)
    }
}

impl History {
    /// Each token at most once on the node, refused ones never; nothing there that nobody wrote.
    pub(crate) fn assert_at_most_once(&self, node: &mut Conn) {
        let outcomes: HashMap<&str, &Outcome> = self
            .writes
            .iter()
            .map(|w| (w.token.as_str(), &w.outcome))
            .collect();
        let mut seen = HashSet::new();
        for token in self.tokens_on(node) {
            assert!(seen.insert(token.clone()), "{token} was executed twice");
            match outcomes.get(token.as_str()) {
                Some(Outcome::Refused(text)) => panic!("{token} was refused ({text}) and executed"),
                Some(Outcome::Ok | Outcome::Unknown) => {}
                None => panic!("{token} was executed and never written"),
            }
        }
    }

    /// No token on this node whose write began after the fence; the promise of `switched`.
    pub(crate) fn assert_none_after(&self, fence: SystemTime, node: &mut Conn) {
        let began: HashMap<&str, SystemTime> = self
            .writes
            .iter()
            .map(|w| (w.token.as_str(), w.began))
            .collect();
        for token in self.tokens_on(node) {
            // Written by a writer that has not yet been told the outcome: began before this call, so it is
            // looked for in the next one.
            let Some(began) = began.get(token.as_str()) else {
                continue;
            };
            assert!(
                *began <= fence,
                "{token} was executed by the old master; its write began {:?} after `switched`",
                began.duration_since(fence).unwrap_or_default()
            );
        }
    }

    /// Acknowledged writes that this node does not have, in the order of their beginnings.
    pub(crate) fn lost(&self, node: &mut Conn) -> Vec<&Write> {
        let present: HashSet<String> = self.tokens_on(node).into_iter().collect();
        self.writes
            .iter()
            .filter(|w| w.outcome == Outcome::Ok && !present.contains(&w.token))
            .collect()
    }

    /// Nothing acknowledged is missing on this node: what a planned failover may not lose. Else says when each began, and for how
    /// long it lasted.
    pub(crate) fn assert_nothing_lost(&self, node: &mut Conn) {
        let lost = self.lost(node);
        let told: Vec<String> = lost
            .iter()
            .map(|w| {
                let began = w.began.duration_since(SystemTime::UNIX_EPOCH);
                let (began, lasted) = (began.unwrap_or_default(), w.ended.duration_since(w.began));
                let second = began.as_secs_f64() % 60.0;
                format!("{} at second {second:.3} for {lasted:?}", w.token)
            })
            .collect();
        assert!(
            lost.is_empty(),
            "{} acknowledged and lost: {told:#?}",
            lost.len()
        );
    }

    /// Nothing acknowledged is missing on this node unless its write began before the fence: what Redis'
    /// asynchronous replication loses, and no more. Says how many those were.
    pub(crate) fn assert_lost_only_before(&self, fence: SystemTime, node: &mut Conn) -> usize {
        let lost = self.lost(node);
        for write in &lost {
            assert!(
                write.began <= fence,
                "{} was acknowledged after `switched`, and the new master does not have it",
                write.token
            );
        }
        lost.len()
    }

    /// Writes with this outcome.
    pub(crate) fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.writes.iter().filter(|w| is(&w.outcome)).count()
    }

    /// The longest time between two acknowledgements of one writer.
    pub(crate) fn longest_pause(&self) -> Duration {
        let mut last = HashMap::new();
        let acknowledged = self.writes.iter().filter(|w| w.outcome == Outcome::Ok);
        acknowledged
            .filter_map(|w| w.ended.duration_since(last.insert(w.writer, w.ended)?).ok())
            .max()
            .unwrap_or_default()
    }

    /// The longest time without an acknowledgement of any writer: its beginning and its end.
    pub(crate) fn longest_silence(&self) -> (SystemTime, SystemTime) {
        let acknowledged = self.writes.iter().filter(|w| w.outcome == Outcome::Ok);
        let mut at: Vec<SystemTime> = acknowledged.map(|w| w.ended).collect();
        at.sort_unstable();
        at.windows(2)
            .map(|pair| (pair[0], pair[1]))
            .max_by_key(|(from, to)| to.duration_since(*from).unwrap_or_default())
            .expect("every writer was acknowledged more than once")
    }

    fn tokens_on(&self, node: &mut Conn) -> Vec<String> {
        (0..self.reconnects.len())
            .flat_map(|writer| {
                let list = format!("{LIST}{writer}");
                let reply = node
                    .call(&["LRANGE", &list, "0", "-1"])
                    .expect("the node is asked directly");
                assert!(!reply.is_error(), "LRANGE was answered with {reply:?}");
                reply
                    .items()
                    .iter()
                    .filter_map(Value::text)
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

/// A panicking writer must not hide its reason behind a poisoned lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
