//! A writer that counts, and readers that note what they were told, when, and by which node.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use switchmaster::demo::wire::Conn;

/// One exchange.
const ASK: Duration = Duration::from_secs(8);
/// Between two exchanges of one client.
const PACE: Duration = Duration::from_millis(3);
const READERS: usize = 12;

/// One answered read.
pub(crate) struct Read {
    pub(crate) sent: SystemTime,
    pub(crate) heard: SystemTime,
    pub(crate) port: u16,
    pub(crate) value: u64,
}

/// When each number was acknowledged; they are written in order.
type Written = Arc<Mutex<Vec<(u64, SystemTime)>>>;

/// See the head of this file; ends with [`Load::end`].
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    written: Written,
    writer: JoinHandle<()>,
    readers: Vec<JoinHandle<Vec<Read>>>,
}

impl Load {
    pub(crate) fn start(master: SocketAddr, replicas: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let written = Written::default();
        let (ends, notes) = (Arc::clone(&stop), Arc::clone(&written));
        let writer = thread::spawn(move || write(master, &ends, &notes));
        let reader = |_| {
            let ends = Arc::clone(&stop);
            thread::spawn(move || read(replicas, &ends))
        };
        let readers = (0..READERS).map(reader).collect();
        Self {
            stop,
            written,
            writer,
            readers,
        }
    }

    pub(crate) fn end(self) -> (Vec<(u64, SystemTime)>, Vec<Read>) {
        self.stop.store(true, Ordering::SeqCst);
        self.writer.join().expect("the writer does not panic");
        let reads = self.readers.into_iter();
        let reads = reads.flat_map(|reader| reader.join().expect("nor does a reader"));
        let reads = reads.collect();
        let written = self.written.lock().expect("nobody panicked").clone();
        (written, reads)
    }
}

fn write(master: SocketAddr, stop: &AtomicBool, written: &Written) {
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut conn) = Conn::connect(master, ASK) else {
            thread::sleep(PACE);
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            number += 1;
            match conn.call(&["SET", "number", &number.to_string()]) {
                Ok(reply) if !reply.is_error() => {
                    let mut written = written.lock().expect("nobody panicked");
                    written.push((number, SystemTime::now()));
                }
                Ok(_) => {}
                Err(_) => break,
            }
            thread::sleep(PACE);
        }
    }
}

/// The number and the node that told it, asked in one go: they are answered by the same.
fn read(replicas: SocketAddr, stop: &AtomicBool) -> Vec<Read> {
    let mut reads = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut conn) = Conn::connect(replicas, ASK) else {
            thread::sleep(PACE);
            continue;
        };
        while !stop.load(Ordering::SeqCst) {
            let sent = SystemTime::now();
            let asked = conn
                .send(&["GET", "number"])
                .and_then(|()| conn.send(&["CONFIG", "GET", "port"]));
            let answers = asked.and_then(|()| Ok((conn.read()?, conn.read()?)));
            let Ok((number, node)) = answers else { break };
            let heard = SystemTime::now();
            let port = node
                .items()
                .get(1)
                .and_then(|port| port.text()?.parse().ok());
            let value = number.text().and_then(|text| text.parse().ok());
            if let (Some(port), Some(value)) = (port, value) {
                reads.push(Read {
                    sent,
                    heard,
                    port,
                    value,
                });
            }
            thread::sleep(PACE);
        }
    }
    reads
}

/// How old what was read was when it was asked for; nothing where it was the newest. The next number that was acknowledged makes it old.
pub(crate) fn age(read: &Read, written: &[(u64, SystemTime)]) -> Option<Duration> {
    let next = written.partition_point(|(number, _)| *number <= read.value);
    let (_, at) = written.get(next)?;
    read.sent.duration_since(*at).ok()
}
