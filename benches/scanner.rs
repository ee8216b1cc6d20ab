//! What move mode costs for each request and reply, sockets left out: the scanner alone, and the tracker on top of it.
//!
//! `cargo bench --bench scanner`. Each figure is one chunk, as the relay hands it on; a chunk of sixteen is `-P 16`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use switchmaster::resp::{Heard, Replies, Requests, Scan};
use switchmaster::session::tracker::{Rules, Tracker};

/// The relay's buffer: a larger request is seen in pieces of this size.
const CHUNK: usize = 32 * 1024;

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn bulk(len: usize) -> Vec<u8> {
    let mut out = format!("${len}\r\n").into_bytes();
    out.resize(out.len() + len, b'v');
    out.extend_from_slice(b"\r\n");
    out
}

fn requests() -> Vec<(&'static str, Vec<u8>)> {
    let keys: Vec<String> = (0..100).map(|i| format!("key:{i:09}")).collect();
    let mut mget: Vec<&[u8]> = vec![b"MGET"];
    mget.extend(keys.iter().map(String::as_bytes));
    vec![
        ("get", command(&[b"GET", b"key:000000001"])),
        ("set_32", command(&[b"SET", b"key:000000001", &[b'v'; 32]])),
        (
            "set_64k",
            command(&[b"SET", b"key:000000001", &[b'v'; 65536]]),
        ),
        ("mget_100", command(&mget)),
        ("select", command(&[b"SELECT", b"1"])),
        ("inline_ping", b"PING\r\n".to_vec()),
    ]
}

fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let mut array = b"*100\r\n".to_vec();
    for _ in 0..100 {
        array.extend(bulk(32));
    }
    vec![
        ("ok", b"+OK\r\n".to_vec()),
        ("integer", b":1000\r\n".to_vec()),
        ("bulk_32", bulk(32)),
        ("bulk_64k", bulk(65536)),
        ("array_100", array),
    ]
}

fn scan_requests(requests: &mut Requests, bytes: &[u8]) -> usize {
    let mut ended = 0;
    for mut piece in bytes.chunks(CHUNK) {
        while let Ok(Scan::Ended { used, .. }) = requests.next(piece, &mut ()) {
            ended += 1;
            piece = &piece[used..];
        }
    }
    ended
}

fn scan_replies(replies: &mut Replies, bytes: &[u8]) -> usize {
    let mut ended = 0;
    for mut piece in bytes.chunks(CHUNK) {
        while let Ok(Heard::Ended { used, .. }) = replies.next(piece) {
            ended += 1;
            piece = &piece[used..];
        }
    }
    ended
}

fn scanning(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    for (name, bytes) in requests() {
        let mut requests = Requests::new();
        assert_eq!(scan_requests(&mut requests, &bytes), 1);
        group.bench_function(name, |b| {
            b.iter(|| scan_requests(&mut requests, black_box(&bytes)));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("reply");
    for (name, bytes) in replies() {
        let mut replies = Replies::new();
        assert_eq!(scan_replies(&mut replies, &bytes), 1);
        group.bench_function(name, |b| {
            b.iter(|| scan_replies(&mut replies, black_box(&bytes)));
        });
    }
    group.finish();
}

/// A request written and its reply read, through the whole tracker; and sixteen of them at a time.
fn tracking(c: &mut Criterion) {
    let pairs = [
        ("get", command(&[b"GET", b"key:000000001"]), bulk(32)),
        (
            "set_32",
            command(&[b"SET", b"key:000000001", &[b'v'; 32]]),
            b"+OK\r\n".to_vec(),
        ),
        ("select", command(&[b"SELECT", b"1"]), b"+OK\r\n".to_vec()),
    ];
    let mut group = c.benchmark_group("pair");
    for (name, request, reply) in pairs {
        for depth in [1, 16] {
            let (request, reply) = (request.repeat(depth), reply.repeat(depth));
            let rules = Rules {
                login: false,
                replay_auth: true,
                pubsub: false,
                resend_reads: false,
            };
            let mut tracker = Tracker::new(rules);
            group.throughput(Throughput::Elements(depth as u64));
            group.bench_function(format!("{name}_p{depth}"), |b| {
                b.iter(|| {
                    tracker.client_bytes(black_box(&request));
                    tracker.master_bytes(black_box(&reply))
                });
            });
            assert_eq!(tracker.movable(), Ok(()));
        }
    }
    group.finish();
}

criterion_group!(benches, scanning, tracking);
criterion_main!(benches);
