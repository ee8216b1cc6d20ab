//! More than all buffers on the way hold, with TLS on both legs and sockets with room for little.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use super::client::{Client, knowing};
use super::harness::cost::{Taking, rss_kib};
use super::harness::proxy::{Plan, Proxy};
use super::harness::secure::everywhere;
use super::harness::stream::connect;
use super::harness::topology::Topology;
use super::harness::{holds_for, wait_until};

/// The kernel makes of it the least that there is.
const SMALL: usize = 4096;
/// A window that is smaller than what loopback sends in one piece is opened by a timer, five times a second.
const SMALL_WINDOW: usize = 128 * 1024;
/// For what a loaded machine does in a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

fn small(proxy: &Proxy) -> TcpStream {
    let stream = connect(proxy.addr());
    let socket = SockRef::from(&stream);
    socket
        .set_recv_buffer_size(SMALL_WINDOW)
        .expect("an option");
    socket.set_send_buffer_size(SMALL).expect("an option");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream.set_write_timeout(Some(PATIENCE)).expect("an option");
    stream
}

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

#[test]
fn nothing_is_lost_and_nobody_gets_stuck() {
    let papers = everywhere();
    let servers = Topology::start_with(|options| papers.secure(options));
    for mode in ["move", "close"] {
        let plan = Plan::following(&servers.sentinels())
            .secure(papers)
            .env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode);
        let proxy = Proxy::ready(plan);
        let connector = knowing(&papers.ca, Some(&papers.client));
        let client = || Client::over(small(&proxy), &connector).expect("let in");
        piped(client());
        large_replies(client());
        both_ways_at_once(&proxy, client());
        stops_reading(&proxy, client());
    }
}

/// As `redis-cli --pipe`: all of it, then the end, and only then what was answered.
fn piped(mut client: Client) {
    const REQUESTS: usize = 2000;
    let value = [b'v'; 300];
    let mut all = Vec::new();
    for n in 0..REQUESTS {
        all.extend(command(&[b"SET", format!("piped:{n}").as_bytes(), &value]));
    }
    client.0.write_all(&all).expect("taken");
    // Redis drops what it has not answered when the end comes, with and without TLS; so one that asks hears all of it first.
    client
        .0
        .write_all(&command(&[b"ECHO", b"the-last"]))
        .expect("taken");
    client.0.flush().expect("taken");
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while !heard.ends_with(b"the-last\r\n") {
        let n = client.0.read(&mut buffer).expect("an answer");
        assert!(n > 0, "ended behind {} bytes", heard.len());
        heard.extend_from_slice(&buffer[..n]);
    }
    assert_eq!(heard.len(), REQUESTS * 5 + b"$8\r\nthe-last\r\n".len());
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
}

/// One that is larger than everything between, for a client that is in no hurry.
fn large_replies(mut client: Client) {
    const SIZE: usize = 12 * 1024 * 1024;
    let value: Vec<u8> = (0..SIZE)
        .map(|n| u8::try_from(n % 249).expect("small"))
        .collect();
    let ok = client.exchange(&command(&[b"SET", b"large", &value]), 5);
    assert_eq!(ok.expect("taken"), b"+OK\r\n");
    client
        .0
        .write_all(&command(&[b"GET", b"large"]))
        .expect("taken");
    client.0.flush().expect("taken");
    let head = format!("${SIZE}\r\n");
    let heard = client
        .exchange(b"", head.len() + SIZE + 2)
        .expect("all of it");
    assert!(heard.starts_with(head.as_bytes()));
    assert!(heard[head.len()..].starts_with(&value), "another value");
}

/// Requests go up while replies of the same size come down.
fn both_ways_at_once(proxy: &Proxy, client: Client) {
    const ROUNDS: usize = 400;
    const SIZE: usize = 20_000;
    let value = |n: usize| vec![b'a' + u8::try_from(n % 26).expect("small"); SIZE];
    let Client(mut stream) = client;
    stream.sock.set_nonblocking(true).expect("an option");
    let mut to_say: Vec<u8> = (0..ROUNDS)
        .flat_map(|n| command(&[b"ECHO", &value(n)]))
        .collect();
    let expected: Vec<u8> = (0..ROUNDS)
        .flat_map(|n| {
            [
                format!("${SIZE}\r\n").into_bytes(),
                value(n),
                b"\r\n".to_vec(),
            ]
            .concat()
        })
        .collect();
    let mut heard = Vec::with_capacity(expected.len());
    let mut buffer = vec![0; 3000];
    wait_until("all of it to be answered", PATIENCE, || {
        for _ in 0..64 {
            if let Ok(n) = stream.write(&to_say[..to_say.len().min(5000)]) {
                to_say.drain(..n);
            }
            let _ = stream.flush();
            if let Ok(n) = stream.read(&mut buffer) {
                assert!(n > 0, "ended behind {} bytes", heard.len());
                heard.extend_from_slice(&buffer[..n]);
            }
        }
        heard.len() == expected.len()
    });
    assert!(heard == expected, "other bytes came back");
    assert!(proxy.rss_kib() < 100_000, "{} KiB", proxy.rss_kib());
}

/// It asks for more than it takes: it is left alone, and costs neither memory nor time.
fn stops_reading(proxy: &Proxy, mut client: Client) {
    for _ in 0..20 {
        client
            .0
            .write_all(&command(&[b"GET", b"large"]))
            .expect("taken");
    }
    client.0.flush().expect("taken");
    let before = rss_kib(proxy.pid());
    let taking = Taking::of([proxy.pid()]);
    let rest = Duration::from_secs(3);
    holds_for("its memory is bounded", rest, || {
        rss_kib(proxy.pid()) < before + 20_000
    });
    let (spent, lasted) = taking.end();
    // What the control plane needs is a few percent; a session that looks again and again would need all of it.
    assert!(spent[0] < lasted / 3, "{spent:?} of {lasted:?}");
    drop(client);
    wait_until("its session to end", PATIENCE, || {
        proxy.status().number("sessions") == 0.0
    });
}
