//! The clients: what applications do with Redis, each in a thread, each remembering what it was told. They
//! never repeat a request and never ask Sentinel for anything.

mod habits;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchmaster::demo::wire::{Conn, Value, WireError};

use crate::history::{Digest, Micros, Op, Outcome, Reply, Request, Token};

/// Pause after an error, before the connection is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Longest text of an unexpected answer that is kept.
const ANSWER_SHOWN: usize = 120;

/// What a client does all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// One connection, one write at a time.
    Kept,
    /// A connection for each write.
    Fresh,
    /// Batches of writes and echoes on one connection.
    Pipelines,
    /// Blocks on a queue that it also fills.
    Blocks,
    /// Payloads of 64 KiB to 1 MiB, there and back.
    Large,
    /// Publishes numbers.
    Publishes,
    /// Subscribes to them.
    Subscribes,
}

/// The clients of a run, and how patient each is.
const CLIENTS: [(Habit, Duration); 16] = [
    (Habit::Kept, Duration::from_secs(1)),
    (Habit::Kept, Duration::from_secs(1)),
    (Habit::Kept, Duration::from_secs(20)),
    (Habit::Kept, Duration::from_secs(20)),
    (Habit::Fresh, Duration::from_millis(500)),
    (Habit::Fresh, Duration::from_secs(20)),
    (Habit::Pipelines, Duration::from_secs(2)),
    (Habit::Pipelines, Duration::from_secs(20)),
    (Habit::Blocks, Duration::from_secs(5)),
    (Habit::Blocks, Duration::from_secs(20)),
    (Habit::Large, Duration::from_secs(3)),
    (Habit::Large, Duration::from_secs(20)),
    (Habit::Publishes, Duration::from_secs(2)),
    (Habit::Subscribes, Duration::from_secs(20)),
    (Habit::Subscribes, Duration::from_secs(20)),
    (Habit::Subscribes, Duration::from_secs(20)),
];

/// The running clients; they end with it.
#[derive(Debug)]
pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    stop: AtomicBool,
    next_token: AtomicU64,
    next_session: AtomicU32,
    acked: AtomicU64,
    // Bounded by the run's length: every client paces itself.
    ops: Mutex<Vec<Op>>,
}

/// One client's side of its connection.
struct Client {
    shared: Arc<Shared>,
    number: u16,
    patience: Duration,
    random: fastrand::Rng,
    /// What its connections are called, of those that look whether they still are.
    name: Option<String>,
    conn: Option<(Conn, u32)>,
}

impl Clients {
    /// Starts them all.
    pub(crate) fn start(to: SocketAddr, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            to,
            stop: AtomicBool::new(false),
            next_token: AtomicU64::new(1),
            next_session: AtomicU32::new(1),
            acked: AtomicU64::new(0),
            ops: Mutex::default(),
        });
        let threads = (0_u16..)
            .zip(CLIENTS)
            .map(|(number, (habit, patience))| {
                let mut client = Client {
                    shared: Arc::clone(&shared),
                    number,
                    patience,
                    random: fastrand::Rng::with_seed(seed ^ u64::from(number)),
                    name: (habit == Habit::Kept).then(|| format!("client-{number}")),
                    conn: None,
                };
                thread::spawn(move || client.live(habit))
            })
            .collect();
        Self { shared, threads }
    }

    /// Requests so far, and how many of them were acknowledged writes.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let ops = self.shared.ops().len();
        (ops, self.shared.acked.load(Ordering::Relaxed))
    }

    /// Ends them, each after its request, and gives what they did.
    pub(crate) fn stop(mut self) -> Vec<Op> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        std::mem::take(&mut *self.shared.ops())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn ops(&self) -> MutexGuard<'_, Vec<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn is_over(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn token(&self) -> Token {
        self.shared.next_token.fetch_add(1, Ordering::Relaxed)
    }

    /// The connection and its number, made where there is none.
    fn connected(&mut self) -> Result<&mut (Conn, u32), WireError> {
        if self.conn.is_none() {
            let mut conn = Conn::connect(self.shared.to, self.patience)?;
            if let Some(name) = &self.name
                && !matches!(conn.call(&["CLIENT", "SETNAME", name])?, Value::Simple(_))
            {
                return Err(WireError::Closed);
            }
            let session = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
            self.conn = Some((conn, session));
        }
        self.conn.as_mut().ok_or(WireError::Closed)
    }

    /// Sends all, then reads a reply to each; the connection is given up at the first that fails. True when
    /// every one was answered.
    fn exchange(&mut self, requests: &[(Request, Vec<Vec<u8>>)]) -> bool {
        let began = micros();
        let Ok((conn, session)) = self.connected() else {
            for (request, _) in requests {
                self.record(0, began, *request, Outcome::NotSent);
            }
            thread::sleep(RECONNECT_PAUSE);
            return false;
        };
        let session = *session;
        let mut failed = requests.iter().any(|(_, args)| conn.send(args).is_err());
        // What was answered before a failure to send is answered all the same.
        for (request, _) in requests {
            let answer = self.conn.as_mut().map(|(conn, _)| conn.read());
            let outcome = match answer {
                Some(Ok(value)) => Outcome::Replied(reply(*request, &value)),
                Some(Err(WireError::Malformed(why))) => {
                    Outcome::Replied(Reply::Other(format!("{why} in RESP").into()))
                }
                Some(Err(_)) | None => Outcome::Unknown,
            };
            if !matches!(outcome, Outcome::Replied(_)) {
                failed = true;
                self.conn = None;
            }
            self.record(session, began, *request, outcome);
        }
        if failed {
            self.conn = None;
            thread::sleep(RECONNECT_PAUSE);
        }
        !failed
    }

    fn record(&self, session: u32, began: Micros, request: Request, outcome: Outcome) {
        if matches!(
            (&request, &outcome),
            (
                Request::Push(_) | Request::Enqueue(_),
                Outcome::Replied(Reply::Int(_))
            )
        ) {
            self.shared.acked.fetch_add(1, Ordering::Relaxed);
        }
        self.shared.ops().push(Op {
            client: self.number,
            session,
            began,
            ended: micros(),
            request,
            outcome,
        });
    }
}

/// Now.
pub(crate) fn micros() -> Micros {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn reply(request: Request, value: &Value) -> Reply {
    let other = || {
        let text: String = format!("{value:?}").chars().take(ANSWER_SHOWN).collect();
        Reply::Other(text.into())
    };
    match (request, value) {
        (_, Value::Error(text)) => Reply::Error(text.as_str().into()),
        (_, Value::Int(n)) => Reply::Int(*n),
        (_, Value::Nil) => Reply::Nil,
        (_, Value::Simple(text)) if text == "OK" => Reply::Done,
        (_, Value::Bulk(bytes)) => Reply::Bulk(digest(bytes)),
        (Request::Pop, Value::Array(items)) => match items.as_slice() {
            [_, Value::Bulk(token)] => parsed(token, 't').map_or_else(other, Reply::Popped),
            _ => other(),
        },
        (Request::Receive, Value::Array(items)) => match items.as_slice() {
            [Value::Bulk(kind), _, Value::Bulk(number)] if kind == b"message" => {
                parsed(number, 'n').map_or_else(other, Reply::Message)
            }
            _ => other(),
        },
        _ => other(),
    }
}

fn parsed(bytes: &[u8], letter: char) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    text.strip_prefix(letter)?.parse().ok()
}

fn digest(bytes: &[u8]) -> Digest {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    Digest {
        len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        hash: hasher.finish(),
    }
}
