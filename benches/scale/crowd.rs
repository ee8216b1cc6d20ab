//! Thousands of clients that ask once and then do nothing, on one thread; and one that asks all the time, on another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::{Conn, Value};
use switchmaster::net::clock::now;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_local;

use crate::harness::wait_until;

/// Clients that connect at once.
const AT_ONCE: usize = 256;
/// Until all have done what they are told to.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions of the steady client.
const PACE: Duration = Duration::from_millis(1);
const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// They end with it.
#[derive(Debug)]
pub(crate) struct Crowd {
    size: usize,
    live: Arc<Live>,
    /// How often each is to have asked; 0 ends them.
    turn: watch::Sender<usize>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Live {
    /// Answers to all of them.
    answered: AtomicUsize,
    ended: AtomicUsize,
    /// When the last was seen to end.
    last_end: Mutex<Option<SystemTime>>,
}

impl Crowd {
    /// Connects so many; each is answered once. Gives the time that this took.
    pub(crate) fn gather(to: SocketAddr, size: usize) -> (Self, Duration) {
        let live = Arc::new(Live::default());
        let (turn, turns) = watch::channel(1);
        let began = now();
        let told = Arc::clone(&live);
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("a runtime");
            runtime.block_on(hold(to, size, &told, turns));
        });
        let crowd = Self {
            size,
            live,
            turn,
            thread: Some(thread),
        };
        crowd.wait_answered(1);
        (crowd, now().since(began))
    }

    /// Lets each ask once more; gives the time until the last was answered.
    pub(crate) fn ask_all(&self) -> Duration {
        let began = now();
        let turn = *self.turn.borrow() + 1;
        self.turn.send_replace(turn);
        self.wait_answered(turn);
        now().since(began)
    }

    /// Waits until all were closed by the other side, and says when the last one was.
    pub(crate) fn wait_ended(&self) -> Option<SystemTime> {
        wait_until("all sessions to be cut", PATIENCE, || {
            self.live.ended.load(Ordering::Acquire) == self.size
        });
        *self.live.last_end.lock().expect("nobody panics with it")
    }

    /// Sessions that were closed by the other side.
    pub(crate) fn ended(&self) -> usize {
        self.live.ended.load(Ordering::Acquire)
    }

    fn wait_answered(&self, turn: usize) {
        wait_until("the crowd to be answered", PATIENCE, || {
            self.live.answered.load(Ordering::Acquire) + self.ended() >= self.size * turn
        });
        assert_eq!(self.ended(), 0, "sessions ended instead of being answered");
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.turn.send_replace(0);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed when it happened.
            drop(thread.join());
        }
    }
}

async fn hold(to: SocketAddr, size: usize, live: &Arc<Live>, mut turns: watch::Receiver<usize>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    for _ in 0..size {
        let (live, turns, places) = (Arc::clone(live), turns.clone(), Arc::clone(&places));
        spawn_local(async move {
            if client(to, &live, turns, &places).await.is_err() {
                let at = SystemTime::now();
                *live.last_end.lock().expect("nobody panics with it") = Some(at);
                live.ended.fetch_add(1, Ordering::Release);
            }
        });
    }
    // The runtime's end closes them.
    drop(turns.wait_for(|turn| *turn == 0).await);
}

/// Fails when the session is closed.
async fn client(
    to: SocketAddr,
    live: &Live,
    mut turns: watch::Receiver<usize>,
    places: &Semaphore,
) -> std::io::Result<()> {
    let place = places.acquire().await.expect("never closed");
    let mut stream = TcpStream::connect(to).await?;
    let mut back = [0; PONG.len()];
    stream.write_all(PING).await?;
    stream.read_exact(&mut back).await?;
    live.answered.fetch_add(1, Ordering::Release);
    drop(place);
    loop {
        // Nothing is under way when all are told to ask again, so no half-read reply is lost.
        tokio::select! {
            changed = turns.changed() => {
                if changed.is_err() || *turns.borrow_and_update() == 0 {
                    return Ok(());
                }
                stream.write_all(PING).await?;
            }
            read = stream.read_exact(&mut back) => {
                read?;
                live.answered.fetch_add(1, Ordering::Release);
            }
        }
    }
}

/// One client that asks each millisecond; ends with its value.
#[derive(Debug)]
pub(crate) struct Steady {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answers: AtomicUsize,
    /// Longest time between two answers, in microseconds.
    worst: AtomicU64,
}

impl Steady {
    /// Starts it; it has been answered when this returns.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let asking = Arc::clone(&shared);
        let steady = Self {
            shared,
            thread: Some(thread::spawn(move || asking.ask_on(to))),
        };
        steady.wait_answered(2);
        steady
    }

    /// Waits for so many more answers.
    pub(crate) fn wait_answered(&self, more: usize) {
        let wanted = self.shared.answers.load(Ordering::Relaxed) + more;
        wait_until("the steady client to be answered", PATIENCE, || {
            self.shared.answers.load(Ordering::Relaxed) >= wanted
        });
    }

    /// The longest that it has been without an answer since the last call, in milliseconds.
    pub(crate) fn take_worst_ms(&self) -> f64 {
        self.shared.worst.swap(0, Ordering::Relaxed) as f64 / 1000.0
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed when it happened.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn ask_on(&self, to: SocketAddr) {
        let mut conn = None;
        let mut last = now();
        while !self.stop.load(Ordering::Relaxed) {
            if conn.is_none() {
                conn = Conn::connect(to, PATIENCE).ok();
            }
            let pong = conn.as_mut().map(|conn| conn.call(&["PING"]));
            if !matches!(pong, Some(Ok(Value::Simple(_)))) {
                // Closed with its master: at once to the next.
                conn = None;
                continue;
            }
            let at = now();
            let gap = u64::try_from(at.since(last).as_micros()).unwrap_or(u64::MAX);
            self.worst.fetch_max(gap, Ordering::Relaxed);
            self.answers.fetch_add(1, Ordering::Relaxed);
            last = at;
            thread::sleep(PACE);
        }
    }
}
