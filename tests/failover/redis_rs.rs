//! redis-rs with one multiplexed connection for all its tasks, RESP3: what `tests/clients` are for the other libraries.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult, Value as Reply, cmd, pipe};
use serde_json::{Map, Value, json};
use tokio::runtime;
use tokio::sync::Mutex;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::wait_until;

const WORKERS: usize = 3;
const PAUSE: Duration = Duration::from_millis(20);
const LARGE: usize = 1024 * 1024;
const LARGE_EVERY: usize = 25;
const BLOCKING_SECONDS: usize = 5;
const SCRIPT: &str = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]";
const LAST: &str = "last";
const RECOVERY: Duration = Duration::from_secs(20);
const KEYS_AT_ONCE: usize = 200;
/// The library gives a request up after half a second by default; a failover may hold it longer.
const ANSWER: Duration = Duration::from_secs(30);

/// The application, on a thread of its own.
pub(crate) struct RedisRs {
    shared: Arc<Shared>,
    thread: JoinHandle<Value>,
}

#[derive(Default)]
struct Shared {
    rounds: AtomicUsize,
    ended: AtomicBool,
}

/// What was seen.
#[derive(Default)]
struct Seen {
    errors: HashMap<&'static str, Map<String, Value>>,
    reconnects: HashMap<&'static str, usize>,
    recovered: HashMap<&'static str, bool>,
    acknowledged: HashMap<String, String>,
    wrong_values: usize,
    heard: usize,
    popped: usize,
}

impl RedisRs {
    pub(crate) fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let given = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            LocalSet::new().block_on(&runtime.expect("a runtime"), run(port, given))
        });
        Self { shared, thread }
    }

    /// Waits for so many more rounds.
    pub(crate) fn rounds(&self, count: usize) {
        let before = self.shared.rounds.load(Ordering::Relaxed);
        wait_until("redis-rs to go on", ANSWER, || {
            self.shared.rounds.load(Ordering::Relaxed) >= before + count
        });
    }

    pub(crate) fn finish(self) -> Value {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("a report")
    }
}

impl Seen {
    fn error(&mut self, work: &'static str, error: &RedisError) {
        let count = self
            .errors
            .entry(work)
            .or_default()
            .entry(error.to_string());
        let count = count.or_insert(json!(0));
        *count = json!(count.as_u64().expect("a count") + 1);
    }

    fn expect(&mut self, found: Option<Vec<u8>>, expected: &[u8]) {
        // None is a lost write, which is counted in the end.
        self.wrong_values += usize::from(found.is_some_and(|found| found != expected));
    }

    fn acknowledge(&mut self, keys: impl IntoIterator<Item = String>, token: &str) {
        self.acknowledged
            .extend(keys.into_iter().map(|key| (key, token.to_owned())));
    }
}

type Saw = Arc<Mutex<Seen>>;

fn client(port: u16) -> Client {
    Client::open(format!("redis://127.0.0.1:{port}/?protocol=resp3")).expect("an address")
}

async fn connect(port: u16) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
    client(port)
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

async fn run(port: u16, shared: Arc<Shared>) -> Value {
    let saw = Saw::default();
    let line = connect(port).await.expect("the proxy serves");
    let others = [
        tokio::task::spawn_local(subscribe(port, Arc::clone(&saw))),
        tokio::task::spawn_local(pop(port, Arc::clone(&saw))),
    ];
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            tokio::task::spawn_local(work(
                port,
                line.clone(),
                n,
                Arc::clone(&saw),
                Arc::clone(&shared),
            ))
        })
        .collect();
    for worker in workers {
        worker.await.expect("it ends when told");
    }
    let mut line = connect(port).await.expect("the proxy serves");
    let deadline = Instant::now() + RECOVERY;
    while Instant::now() < deadline && saw.lock().await.recovered.len() < 2 {
        to_others(&mut line, LAST)
            .await
            .expect("nothing fails over any more");
        sleep(PAUSE).await;
    }
    for other in others {
        other.abort();
    }
    let mut seen = saw.lock().await;
    let acknowledged: Vec<(String, String)> = seen.acknowledged.drain().collect();
    let mut lost = 0;
    for some in acknowledged.chunks(KEYS_AT_ONCE) {
        let keys: Vec<&str> = some.iter().map(|(key, _)| key.as_str()).collect();
        let values: Vec<Option<String>> = cmd("MGET")
            .arg(keys)
            .query_async(&mut line)
            .await
            .expect("values");
        lost += some
            .iter()
            .zip(values)
            .filter(|((_, token), value)| value.as_ref() != Some(token))
            .count();
    }
    let of = |work| {
        (
            json!(seen.errors.get(work).cloned().unwrap_or_default()),
            seen.reconnects.get(work).copied().unwrap_or_default(),
            seen.recovered.get(work).copied().unwrap_or_default(),
        )
    };
    let (ordinary, pubsub, blocking) = (of("ordinary"), of("pubsub"), of("blocking"));
    json!({
        "library": "redis-rs multiplexed, RESP3",
        "rounds": shared.rounds.load(Ordering::Relaxed),
        "errors": { "ordinary": ordinary.0, "pubsub": pubsub.0, "blocking": blocking.0 },
        "reconnects": { "ordinary": ordinary.1, "pubsub": pubsub.1, "blocking": blocking.1 },
        "acknowledged": acknowledged.len(),
        "lost": lost,
        "wrong_values": seen.wrong_values,
        "heard": seen.heard,
        "popped": seen.popped,
        "recovered": { "pubsub": pubsub.2, "blocking": blocking.2 },
    })
}

async fn work(
    port: u16,
    mut line: MultiplexedConnection,
    worker: usize,
    saw: Saw,
    shared: Arc<Shared>,
) {
    let mut round = 0_usize;
    while !shared.ended.load(Ordering::Relaxed) {
        if let Err(error) = one_round(&mut line, worker, round, &saw).await {
            saw.lock().await.error("ordinary", &error);
            // A multiplexed connection does not connect again by itself; its application does.
            if error.is_unrecoverable_error()
                && let Ok(new) = connect(port).await
            {
                line = new;
                *saw.lock().await.reconnects.entry("ordinary").or_default() += 1;
            }
        }
        round += 1;
        if worker == 0 {
            shared.rounds.fetch_add(1, Ordering::Relaxed);
        }
        sleep(PAUSE).await;
    }
}

async fn one_round(
    line: &mut MultiplexedConnection,
    worker: usize,
    round: usize,
    saw: &Saw,
) -> RedisResult<()> {
    let token = format!("{worker}:{round}");
    let key = |name: &str| format!("redis-rs:{token}:{name}");

    let _: () = cmd("SET")
        .arg(key("plain"))
        .arg(&token)
        .query_async(line)
        .await?;
    saw.lock().await.acknowledge([key("plain")], &token);
    let found = cmd("GET").arg(key("plain")).query_async(line).await?;
    saw.lock().await.expect(found, token.as_bytes());

    let mut pipeline = pipe();
    pipeline
        .set(key("p1"), &token)
        .ignore()
        .set(key("p2"), &token)
        .ignore()
        .get(key("p1"));
    let (found,): (Option<Vec<u8>>,) = pipeline.query_async(line).await?;
    saw.lock().await.acknowledge([key("p1"), key("p2")], &token);
    saw.lock().await.expect(found, token.as_bytes());

    let mut transaction = pipe();
    transaction
        .atomic()
        .set(key("m1"), &token)
        .set(key("m2"), &token);
    let _: Vec<Reply> = transaction.query_async(line).await?;
    saw.lock().await.acknowledge([key("m1"), key("m2")], &token);

    let script = cmd("EVAL")
        .arg(SCRIPT)
        .arg(1)
        .arg(key("lua"))
        .arg(&token)
        .query_async(line)
        .await?;
    saw.lock().await.acknowledge([key("lua")], &token);
    saw.lock().await.expect(script, token.as_bytes());

    if round.is_multiple_of(LARGE_EVERY) {
        let mut value = token.clone().into_bytes();
        value.resize(LARGE, b'.');
        let large = format!("redis-rs:large:{worker}");
        let _: () = cmd("SET").arg(&large).arg(&value).query_async(line).await?;
        let found = cmd("GET").arg(&large).query_async(line).await?;
        saw.lock().await.expect(found, &value);
    }
    if worker == 0 {
        to_others(line, &token).await?;
    }
    Ok(())
}

async fn to_others(line: &mut MultiplexedConnection, value: &str) -> RedisResult<()> {
    let _: () = cmd("PUBLISH")
        .arg("redis-rs:channel")
        .arg(value)
        .query_async(line)
        .await?;
    let queue = if value == LAST {
        "redis-rs:last"
    } else {
        "redis-rs:queue"
    };
    cmd("LPUSH").arg(queue).arg(value).query_async(line).await
}

/// A stream that ends is all that the library says of a connection that was closed.
async fn subscribe(port: u16, saw: Saw) {
    for connection in 0.. {
        if connection > 0 {
            *saw.lock().await.reconnects.entry("pubsub").or_default() += 1;
        }
        match client(port).get_async_pubsub().await {
            Ok(mut subscription) => {
                if let Err(error) = subscription.subscribe("redis-rs:channel").await {
                    saw.lock().await.error("pubsub", &error);
                }
                let mut messages = subscription.into_on_message();
                while let Some(message) = messages.next().await {
                    let mut seen = saw.lock().await;
                    seen.heard += 1;
                    if message.get_payload_bytes() == LAST.as_bytes() {
                        seen.recovered.insert("pubsub", true);
                        return;
                    }
                }
            }
            Err(error) => saw.lock().await.error("pubsub", &error),
        }
        sleep(PAUSE).await;
    }
}

async fn pop(port: u16, saw: Saw) {
    let mut line = connect(port).await.expect("the proxy serves");
    loop {
        let mut blocking = cmd("BLPOP");
        blocking
            .arg("redis-rs:queue")
            .arg("redis-rs:last")
            .arg(BLOCKING_SECONDS);
        let popped = timeout(
            ANSWER,
            blocking.query_async::<Option<(String, String)>>(&mut line),
        )
        .await;
        match popped.expect("it ends by itself before") {
            Ok(Some((_, value))) => {
                let mut seen = saw.lock().await;
                seen.popped += 1;
                if value == LAST {
                    seen.recovered.insert("blocking", true);
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                saw.lock().await.error("blocking", &error);
                if let Ok(new) = connect(port).await {
                    line = new;
                    *saw.lock().await.reconnects.entry("blocking").or_default() += 1;
                }
                sleep(PAUSE).await;
            }
        }
    }
}
