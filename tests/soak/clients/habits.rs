//! What each kind of client does in a turn.

use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::Conn;

use super::{Client, Habit, digest, micros, reply};
use crate::history::{Outcome, Request};

/// From the end of a turn to the next: some hundred requests a second of all clients together, so that
/// servers and Sentinels are never short of time.
const PACE: Duration = Duration::from_millis(10);
/// The same for batches and for large payloads.
const SLOW_PACE: Duration = Duration::from_millis(300);
/// Requests of a batch.
const BATCH: usize = 64;
/// Payloads in a batch are short.
const SHORT: usize = 200;
/// Large payloads.
const LARGE: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024;
/// How long a stored payload stays, in milliseconds: memory is not what is tested.
const STORED_MS: &str = "10000";
/// How often a subscriber looks whether it shall end.
const LOOK: Duration = Duration::from_millis(200);

impl Client {
    /// Does this until the end.
    pub(super) fn live(&mut self, habit: Habit) {
        while !self.is_over() {
            match habit {
                Habit::Kept => self.turn(PACE, Self::push),
                Habit::Fresh => {
                    self.turn(PACE, Self::push);
                    self.conn = None;
                }
                Habit::Pipelines => self.turn(SLOW_PACE, Self::batch),
                Habit::Blocks => self.turn(PACE, Self::block),
                Habit::Large => self.turn(SLOW_PACE, Self::large),
                Habit::Publishes => self.turn(PACE, Self::publish),
                Habit::Subscribes => self.subscribe(),
            }
        }
    }

    fn turn(&mut self, pace: Duration, act: impl FnOnce(&mut Self)) {
        act(self);
        thread::sleep(pace);
    }

    fn push(&mut self) {
        let write = self.write();
        let mut requests = vec![write];
        // What a session has told its server must be true wherever it is.
        if let Some(name) = &self.name {
            let ask = ["CLIENT", "GETNAME"].map(|word| word.as_bytes().to_vec());
            requests.push((Request::Echo(digest(name.as_bytes())), ask.to_vec()));
        }
        self.exchange(&requests);
    }

    fn batch(&mut self) {
        let count = self.random.usize(1..=BATCH);
        let batch: Vec<_> = (0..count)
            .map(|_| match self.random.bool() {
                true => self.write(),
                false => self.echo(1..=SHORT),
            })
            .collect();
        self.exchange(&batch);
    }

    fn block(&mut self) {
        let queue = format!("queue:{}", self.number).into_bytes();
        let token = self.token();
        let value = format!("t{token}").into_bytes();
        // An empty queue now and then: that is when it really blocks.
        if self.random.bool() {
            let enqueue = vec![b"RPUSH".to_vec(), queue.clone(), value];
            if !self.exchange(&[(Request::Enqueue(token), enqueue)]) {
                return;
            }
        }
        let pop = vec![b"BLPOP".to_vec(), queue, b"2".to_vec()];
        self.exchange(&[(Request::Pop, pop)]);
    }

    fn large(&mut self) {
        let payload = self.payload(LARGE);
        let key = format!("large:{}", self.token()).into_bytes();
        let store = vec![
            b"SET".to_vec(),
            key.clone(),
            payload.clone(),
            b"PX".to_vec(),
            STORED_MS.into(),
        ];
        let stored = digest(&payload);
        let write = self.write();
        let echo = self.echo(LARGE);
        self.exchange(&[
            (Request::Store(stored), store),
            write,
            (Request::Fetch(stored), vec![b"GET".to_vec(), key]),
            echo,
        ]);
    }

    fn publish(&mut self) {
        let number = self.token();
        let message = format!("n{number}").into_bytes();
        let publish = vec![b"PUBLISH".to_vec(), b"numbers".to_vec(), message];
        self.exchange(&[(Request::Publish(number), publish)]);
    }

    /// One subscription, from its beginning until it is cut.
    fn subscribe(&mut self) {
        let Ok((conn, session)) = self.connected() else {
            thread::sleep(super::RECONNECT_PAUSE);
            return;
        };
        let session = *session;
        let confirmed = conn.call(&["SUBSCRIBE", "numbers"]);
        let subscribed = confirmed.is_ok_and(|confirmation| !confirmation.is_error());
        while subscribed && !self.is_over() {
            let began = micros();
            let Some(heard) = self.conn.as_mut().and_then(|(conn, _)| hear(conn)) else {
                break;
            };
            if let Some(value) = heard {
                let outcome = Outcome::Replied(reply(Request::Receive, &value));
                self.record(session, began, Request::Receive, outcome);
            }
        }
        self.conn = None;
        thread::sleep(super::RECONNECT_PAUSE);
    }

    fn write(&mut self) -> (Request, Vec<Vec<u8>>) {
        let token = self.token();
        let list = format!("list:{}", self.number);
        let args = ["RPUSH".to_owned(), list, format!("t{token}")];
        (
            Request::Push(token),
            args.into_iter().map(String::into_bytes).collect(),
        )
    }

    fn echo(&mut self, sizes: std::ops::RangeInclusive<usize>) -> (Request, Vec<Vec<u8>>) {
        let payload = self.payload(sizes);
        (
            Request::Echo(digest(&payload)),
            vec![b"ECHO".to_vec(), payload],
        )
    }

    /// Printable, as MONITOR would make four bytes of any other.
    fn payload(&mut self, sizes: std::ops::RangeInclusive<usize>) -> Vec<u8> {
        let len = self.random.usize(sizes);
        (0..len).map(|_| self.random.u8(b'a'..=b'z')).collect()
    }
}

/// The next message, `Some(None)` when there was none for a while, `None` at the end of the connection.
fn hear(conn: &mut Conn) -> Option<Option<switchmaster::demo::wire::Value>> {
    match conn.readable(LOOK) {
        Ok(true) => conn.read().ok().map(Some),
        Ok(false) => Some(None),
        Err(_) => None,
    }
}
