//! Clients by the thousand that want places and not answers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::Conn;
use switchmaster::net::clock::now;

use crate::harness::admin::{admin_of, page};
use crate::harness::fake_master::{Bytes, FakeMaster};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::reload::plan;
use crate::harness::stream::{SOON, connect, reset};
use crate::harness::topology::Topology;
use crate::harness::{raise_descriptor_limit, wait_until};
use crate::{counted, peak_kib, pings, tell};

/// Connections that say hardly anything: two descriptors each in the proxy, one here, one in the server.
const LORISES: usize = 5_000;
/// Places there are: fewer, so that some of them and of the honest are turned away until others make room.
const PLACES: usize = 4_500;
/// Those that a worker has look at themselves in one go (`session::crowd`): more than that make room, or the look ended there.
const AT_ONCE: f64 = 64.0;
/// What they say, a byte at a time.
const HALF_A_REQUEST: &[u8] = b"*2\r\n$3\r\nGET\r\n$1000\r\n";
/// Most that so many connections may cost the process: one that is idle costs some kilobytes.
const PEAK_KIB: u64 = 200 * 1024;
/// Those who try to make everybody else wait.
const FLOODERS: usize = 4;
const FLOOD: Duration = Duration::from_secs(3);
const HONEST: usize = 200;

/// A failover is followed, honest clients are served, and those who never come to a request give their places up.
#[test]
fn a_slow_loris_of_five_thousand_is_harmless() {
    raise_descriptor_limit();
    let servers = Topology::start();
    let sentinels: Vec<_> = servers
        .sentinels()
        .iter()
        .map(|addr| format!("\"{addr}\""))
        .collect();
    let text = format!(
        "[sentinel]\naddresses = [{}]\n[limits]\nfirst_request_timeout = \"2s\"\n[[proxy]]\nlisten = [\"127.0.0.1:0\"]\nmax_connections = {PLACES}\n",
        sentinels.join(", ")
    );
    let proxy = Proxy::ready(plan(&text).env("SWITCHMASTER_FAILOVER_ON_SWITCH", "move"));
    let alone = pings(proxy.addr(), HONEST);
    tell("alone", peak_kib(proxy.pid()), &alone);

    let end = AtomicBool::new(false);
    let (mut honest, mut switch) = (Vec::new(), None);
    thread::scope(|scope| {
        let tormenting = scope.spawn(|| torment(proxy.addr(), &end));
        let admin = admin_of(&proxy);
        let gave_up = || {
            let page = page(admin, "/metrics");
            counted(&page, "switchmaster_sessions_closed_total", "no_request")
        };
        wait_until("those who ask for nothing to make room", SOON * 6, || {
            honest.extend(patient_pings(proxy.addr(), 10));
            gave_up() > 2.0 * AT_ONCE
        });
        // They stand, and the control plane is not blind.
        let mark = proxy.mark();
        switch = Some(servers.fail_over(0));
        let to = |fields: &serde_json::Value| {
            switch.is_some_and(|switch| fields["to"] == switch.new.to_string())
        };
        proxy.event_where(mark, "switched", SOON, to);
        honest.extend(patient_pings(proxy.addr(), HONEST));
        end.store(true, Ordering::Relaxed);
        let begun = tormenting.join().expect("it ends by itself");
        assert!(begun >= LORISES, "{begun} of them");
    });
    honest.sort();
    let peak = peak_kib(proxy.pid());
    tell("a slow loris of 5,000, through a failover", peak, &honest);
    assert!(peak < PEAK_KIB, "{peak} KiB");
}

/// The same of clients that come again when they are turned away, as all places are taken.
fn patient_pings(to: SocketAddr, count: usize) -> Vec<Duration> {
    let ping = || {
        let mut conn = Conn::connect(to, SOON).ok()?;
        conn.call(&["PING"]).ok()?.text()
    };
    let served = |_| {
        let begun = now();
        wait_until("a place", 2 * SOON, || ping().as_deref() == Some("PONG"));
        now().since(begun)
    };
    (0..count).map(served).collect()
}

/// Keeps so many connections open, and says a byte on each now and then; who is closed comes again.
fn torment(to: SocketAddr, end: &AtomicBool) -> usize {
    let mut lorises: Vec<(TcpStream, usize)> = Vec::new();
    let mut begun = 0;
    while !end.load(Ordering::Relaxed) {
        while lorises.len() < LORISES && !end.load(Ordering::Relaxed) {
            let Ok(stream) = TcpStream::connect(to) else {
                break;
            };
            stream.set_nonblocking(true).expect("a socket");
            lorises.push((stream, 0));
            begun += 1;
        }
        lorises.retain_mut(|(stream, said)| {
            let byte = HALF_A_REQUEST.get(*said..=*said).unwrap_or(b"x");
            *said += 1;
            stream.write_all(byte).is_ok()
        });
        thread::sleep(Duration::from_millis(200));
    }
    for (stream, _) in lorises {
        reset(stream);
    }
    begun
}

#[test]
fn a_flood_of_connects_leaves_room_for_the_honest() {
    raise_descriptor_limit();
    let servers = Topology::start();
    let proxy = servers.proxy();
    let alone = pings(proxy.addr(), HONEST);
    tell("alone", peak_kib(proxy.pid()), &alone);
    let (end, connects) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut honest = Vec::new();
    thread::scope(|scope| {
        for _ in 0..FLOODERS {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    if let Ok(stream) = TcpStream::connect(proxy.addr()) {
                        connects.fetch_add(1, Ordering::Relaxed);
                        reset(stream);
                    }
                }
            });
        }
        let until = now() + FLOOD;
        while now() < until {
            honest.extend(pings(proxy.addr(), 5));
        }
        end.store(true, Ordering::Relaxed);
    });
    honest.sort();
    let peak = peak_kib(proxy.pid());
    let connects = connects.into_inner();
    tell(
        &format!("a flood of {connects} connects within {FLOOD:?}"),
        peak,
        &honest,
    );
    assert!(
        connects > 0 && peak < PEAK_KIB,
        "{connects} connects, {peak} KiB"
    );
}

/// All descriptors that clients may have are taken, and stay so: a Sentinel that comes back is heard, and what it says is followed.
#[test]
fn links_to_sentinels_are_made_again_while_a_flood_stands() {
    raise_descriptor_limit();
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let proxy = Proxy::ready(
        Plan::following(&[sentinel.addr()])
            .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "60s")
            .open_files(200),
    );
    let mut flood: Vec<TcpStream> = (0..300).map(|_| connect(proxy.addr())).collect();
    let refused = proxy.event("client_refused", SOON);
    assert_eq!(refused.text("reason"), "open_files");
    let mark = proxy.mark();
    sentinel.drop_subscribers();
    proxy.event_after(mark, "sentinel_up", SOON);
    sentinel.switch_master(new.addr());
    let switched = proxy.event_after(mark, "switched", SOON);
    assert_eq!(switched.text("to"), new.addr().to_string());
    flood.clear();
}
