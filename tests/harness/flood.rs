//! Clients that connect, ask once and close, so many a second whether the last ones were answered or not. One thread, so
//! that they cost little beside what is tested or measured.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchmaster::net::clock::{Moment, now};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

/// How often those that are due are started.
const BEAT: Duration = Duration::from_millis(1);
/// Longest life of one client; a proxy that waits for its master makes it wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Room for a reply; a longer one is read in pieces.
const READ: usize = 4096;

/// What each client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) to: SocketAddr,
    pub(crate) per_second: u32,
    /// Clients at once; those that are due beyond are put off for good, and counted.
    pub(crate) at_most: usize,
    pub(crate) request: &'static [u8],
    /// Length of the one good reply.
    pub(crate) reply: usize,
}

impl Ask {
    /// PING, so often.
    pub(crate) fn ping(to: SocketAddr, per_second: u32, at_most: usize) -> Self {
        Self {
            to,
            per_second,
            at_most,
            request: b"*1\r\n$4\r\nPING\r\n",
            reply: b"+PONG\r\n".len(),
        }
    }
}

/// Going on; ends with its value.
#[derive(Debug)]
pub(crate) struct Flood {
    live: Arc<Live>,
    thread: Option<JoinHandle<Flooded>>,
}

#[derive(Debug, Default)]
struct Live {
    stop: AtomicBool,
    answered: AtomicU64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flooded {
    pub(crate) begun: u64,
    /// Due, and not begun because so many were under way.
    pub(crate) put_off: u64,
    /// From before the connect to the end of the reply, in microseconds, in ascending order.
    pub(crate) micros: Vec<u32>,
    /// How many of each.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Until the last was due.
    pub(crate) lasted: Duration,
    /// The longest time in which nobody was answered.
    pub(crate) pause: Option<Pause>,
    last_answer: Option<Moment>,
}

/// A time without any answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    pub(crate) lasted: Duration,
    /// The next answer.
    pub(crate) ended: Moment,
}

impl Flood {
    /// Starts it.
    pub(crate) fn start(ask: Ask) -> Self {
        let live = Arc::new(Live::default());
        let watched = Arc::clone(&live);
        let thread = thread::spawn(move || run(ask, &watched));
        Self {
            live,
            thread: Some(thread),
        }
    }

    /// Clients that were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.live.answered.load(Ordering::Relaxed)
    }

    /// No more clients; waits for those that are under way.
    pub(crate) fn stop(mut self) -> Flooded {
        self.live.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("joined here or in drop");
        thread.join().expect("a thread that does not panic")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed when it happened.
            drop(thread.join());
        }
    }
}

impl Flooded {
    fn answered(&mut self, ended: Moment) {
        let last = self.last_answer.replace(ended).unwrap_or(ended);
        let lasted = ended.since(last);
        if self.pause.is_none_or(|pause| lasted > pause.lasted) {
            self.pause = Some(Pause { lasted, ended });
        }
    }

    /// Clients that were not answered.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Answered clients a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.micros.len() as f64 / self.lasted.as_secs_f64().max(f64::EPSILON)
    }

    /// The latency, in milliseconds, that so many of a thousand answered clients do not exceed.
    pub(crate) fn quantile_ms(&self, of_1000: usize) -> f64 {
        quantile_ms(&self.micros, of_1000)
    }
}

/// The value, in milliseconds, that so many of a thousand of `sorted` microseconds do not exceed.
pub(crate) fn quantile_ms(sorted: &[u32], of_1000: usize) -> f64 {
    let at = (sorted.len() * of_1000).div_ceil(1000).saturating_sub(1);
    sorted
        .get(at)
        .map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
}

fn run(ask: Ask, live: &Live) -> Flooded {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async {
        let told = Rc::new(RefCell::new(Flooded::default()));
        let clients = TaskTracker::new();
        let began = Instant::now();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while !live.stop.load(Ordering::Relaxed) {
            beat.tick().await;
            let due = began.elapsed().as_micros() * u128::from(ask.per_second) / 1_000_000;
            let due = u64::try_from(due).unwrap_or(u64::MAX);
            loop {
                let mut so_far = told.borrow_mut();
                if so_far.begun + so_far.put_off >= due {
                    break;
                }
                if clients.len() >= ask.at_most {
                    so_far.put_off = due - so_far.begun;
                    break;
                }
                so_far.begun += 1;
                drop(so_far);
                // Started on this thread, so it outlives neither `live` nor what is told.
                clients.spawn_local(client(ask, Rc::clone(&told)));
            }
            let answered = told.borrow().micros.len() as u64;
            live.answered.store(answered, Ordering::Relaxed);
        }
        told.borrow_mut().lasted = began.elapsed();
        clients.close();
        clients.wait().await;
        let mut told = told.take();
        told.micros.sort_unstable();
        told
    })
}

async fn client(ask: Ask, told: Rc<RefCell<Flooded>>) {
    let began = Instant::now();
    let outcome = timeout(PATIENCE, exchange(ask)).await;
    let took = began.elapsed();
    let mut told = told.borrow_mut();
    let error = match outcome {
        Ok(Ok(())) => {
            told.micros
                .push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
            told.answered(now());
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    *told.errors.entry(error).or_default() += 1;
}

async fn exchange(ask: Ask) -> io::Result<()> {
    let mut stream = TcpStream::connect(ask.to)
        .await
        .map_err(|e| io::Error::new(e.kind(), format!("connecting: {e}")))?;
    stream.write_all(ask.request).await?;
    let mut buffer = [0; READ];
    let mut read = 0;
    while read < ask.reply {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "closed instead of answered",
            ));
        }
        if read == 0 && buffer[0] == b'-' {
            let said = String::from_utf8_lossy(&buffer[..n]);
            let kind = said.split(' ').next().unwrap_or_default();
            return Err(io::Error::other(format!("answered with {kind}")));
        }
        read += n;
    }
    // Closed in order, by the client first, as applications do.
    Ok(())
}
