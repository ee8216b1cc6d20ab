//! Bytes that nobody should send, on every port there is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::admin::{admin_of, page};
use crate::harness::proxy::Proxy;
use crate::harness::reload::plan;
use crate::harness::topology::Topology;
use crate::{peak_kib, pings, tell};

/// What all of this together may cost the process.
const PEAK_KIB: u64 = 96 * 1024;
/// Connections of garbage to each port, and most bytes of each.
const ROUNDS: usize = 150;
const LONGEST: usize = 8 * 1024;
/// The same garbage in each run.
const SEED: u64 = 0x5eed_0000_0000_0043;
/// A peer that closes in the middle is as good as one that answers; one that does neither is left.
const PATIENCE: Duration = Duration::from_millis(100);

#[test]
fn nothing_that_is_said_brings_it_down() {
    for mode in ["move", "close"] {
        let servers = Topology::start();
        let sentinels: Vec<_> = servers
            .sentinels()
            .iter()
            .map(|addr| format!("\"{addr}\""))
            .collect();
        let text = format!(
            "[sentinel]\naddresses = [{}]\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\n",
            sentinels.join(", ")
        );
        let mut proxy = Proxy::ready(plan(&text).env("SWITCHMASTER_FAILOVER_ON_SWITCH", mode));
        let (clients, admin) = (proxy.addr(), admin_of(&proxy));
        let mut honest = Vec::new();
        for (what, said) in monsters() {
            for port in [clients, admin] {
                say(port, &said);
            }
            honest.extend(pings(clients, 5));
            assert!(proxy.is_running(), "{mode}: ended by {what}");
        }
        let mut random = fastrand::Rng::with_seed(SEED);
        for _ in 0..ROUNDS {
            let mut said: Vec<u8> = (0..random.usize(1..LONGEST))
                .map(|_| random.u8(..))
                .collect();
            // Half of it begins as if it were a request.
            if random.bool() {
                said.splice(0..0, *b"*3\r\n$3\r\nSET\r\n$1\r\n");
            }
            for port in [clients, admin] {
                say(port, &said);
            }
        }
        honest.extend(pings(clients, 50));
        assert!(proxy.is_running());
        page(admin, "/livez");
        honest.sort();
        let peak = peak_kib(proxy.pid());
        tell(&format!("monsters and garbage, {mode}"), peak, &honest);
        assert!(peak < PEAK_KIB, "{peak} KiB");
    }
}

fn monsters() -> Vec<(&'static str, Vec<u8>)> {
    let bulk = |length: &str| format!("*2\r\n$3\r\nGET\r\n${length}\r\nx").into_bytes();
    vec![
        ("an inline line of 10 MB", vec![b'a'; 10 << 20]),
        (
            "one that may be HTTP",
            [&b"GET /"[..], &vec![b'a'; 10 << 20]].concat(),
        ),
        ("a bulk of 2^63 bytes", bulk("9223372036854775808")),
        ("a bulk of 2^63 - 1 bytes", bulk("9223372036854775807")),
        ("a bulk of -2^63 bytes", bulk("-9223372036854775808")),
        (
            "an array of 2^63 elements",
            b"*9223372036854775808\r\n".to_vec(),
        ),
        (
            "an array of 2^31 - 1 elements",
            b"*2147483647\r\n$1\r\nx\r\n".to_vec(),
        ),
        ("arrays in arrays", b"*1\r\n".repeat(1 << 20)),
        (
            "a length without an end",
            [&b"*"[..], &vec![b'1'; 1 << 20]].concat(),
        ),
        ("nothing but ends of lines", b"\r\n".repeat(1 << 20)),
        ("zeros", vec![0; 1 << 20]),
        ("a value of 512 MB that never comes", bulk("536870912")),
    ]
}

/// Says it as far as it is taken, and hears what comes back for a moment.
fn say(to: SocketAddr, said: &[u8]) {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    // Most of it is refused on the way.
    drop(stream.write_all(said));
    drop(stream.read(&mut [0; 1024]));
}
