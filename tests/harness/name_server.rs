//! A name server that answers when the test wants (RFC 1035, section 4): every name leads to 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Header of every message.
const HEADER: usize = 12;
/// The question's types that are told apart.
const A: u16 = 1;

/// Listens on port 53 of a loopback address of its own (root only); ends with the value.
#[derive(Debug)]
pub(crate) struct NameServer {
    ip: Ipv4Addr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    delay: Mutex<Duration>,
    asked: AtomicU64,
    ended: AtomicBool,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        // Tests run side by side, and a resolver asks at port 53 only.
        let (ip, socket) = (0..20)
            .find_map(|_| {
                let ip = Ipv4Addr::new(127, 53, fastrand::u8(..), fastrand::u8(1..255));
                UdpSocket::bind((ip, 53)).ok().map(|socket| (ip, socket))
            })
            .expect("root may listen at port 53 of a loopback address nobody uses");
        let beat = Some(Duration::from_millis(100));
        socket.set_read_timeout(beat).expect("a socket");
        let shared = Arc::new(Shared {
            delay: Mutex::default(),
            asked: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || serving.serve(&Arc::new(socket)));
        Self { ip, shared }
    }

    /// From now on thinks for so long before each answer.
    pub(crate) fn answer_after(&self, delay: Duration) {
        *self
            .shared
            .delay
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = delay;
    }

    /// Questions so far.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::Acquire)
    }

    /// Writes a `resolv.conf` that asks here, once and patiently.
    pub(crate) fn write_resolv_conf(&self, path: &Path) {
        let lines = format!("nameserver {}\noptions timeout:30 attempts:1\n", self.ip);
        std::fs::write(path, lines).expect("written");
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, socket: &Arc<UdpSocket>) {
        let mut buffer = [0; 512];
        while !self.ended.load(Ordering::Acquire) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let Some(reply) = answer(&buffer[..length]) else {
                continue;
            };
            self.asked.fetch_add(1, Ordering::AcqRel);
            let delay = *self.delay.lock().unwrap_or_else(PoisonError::into_inner);
            let socket = Arc::clone(socket);
            thread::spawn(move || send_after(delay, &socket, &reply, from));
        }
    }
}

fn send_after(delay: Duration, socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    thread::sleep(delay);
    // Whoever asked may be gone.
    drop(socket.send_to(reply, to));
}

/// A: 127.0.0.1. Everything else: no such record.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut end = HEADER;
    while *question.get(end)? != 0 {
        end += 1 + usize::from(question[end]);
    }
    let kind = u16::from_be_bytes([*question.get(end + 1)?, *question.get(end + 2)?]);
    let question = question.get(..end + 5)?;
    let mut reply = question.to_vec();
    let answers = u8::from(kind == A);
    // Response, recursion desired and available; one question, so many answers.
    reply[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    if kind == A {
        // The name of the question, type A, class IN, no caching, four bytes.
        reply.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}
