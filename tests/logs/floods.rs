//! Peers that provoke the same a thousand times: few lines, with a count.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::PATIENCE;
use super::harness::fake_master::{Bytes, FakeMaster};
use super::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use super::harness::proxy::{Plan, Proxy};
use super::harness::topology::FOLLOW;
use super::harness::wait_until;
use switchmaster::net::clock::now;

const TIMES: u64 = 1000;
/// Of one name: some at once, then one a second, see `telemetry::Often`.
const AT_ONCE: usize = 30;

/// No event has more lines than may be written at once and one a second since; gives those that were counted instead.
fn few_lines(proxy: &Proxy, events: &[&str], seconds: u64) -> u64 {
    for event in events {
        let lines = proxy.events(0, event).len();
        let most = AT_ONCE + usize::try_from(seconds).expect("few") + 1;
        assert!(lines <= most, "{lines} lines of {event} in {seconds} s");
    }
    let left_out = proxy.events(0, "log_lines_left_out");
    let of = |name: &str| events.contains(&name);
    let counted = left_out.iter().filter(|line| of(line.text("of")));
    counted
        .map(|line| line.fields["count"].as_u64().unwrap_or(0))
        .sum()
}

#[test]
fn a_sentinel_that_announces_and_renames_its_master_all_the_time() {
    let master = FakeMaster::start(Bytes::Echo);
    let fake = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Proxy::ready(Plan::following(&[fake.addr()]));
    let begun = now();
    for n in 0..TIMES {
        fake.update(|view| {
            view.epoch = n + 2;
            // Ports that are none, ports of nobody, and the master in between.
            view.announced = match n % 3 {
                0 => Some(("127.0.0.1".to_owned(), format!("none-{n}"))),
                1 => Some(("127.0.0.1".to_owned(), format!("{}", 1 + n % 1000))),
                _ => None,
            };
        });
        fake.publish("+odown", "master mymaster 127.0.0.1 1");
        // Each is asked about: questions are 20 ms apart.
        thread::sleep(Duration::from_millis(6));
    }
    let provoked = [
        "failover_seen",
        "sentinel_view_refused",
        "master_candidate",
        "role_rejected",
        "hold_begin",
        "hold_end",
        "switched",
    ];
    // One more after a second says what was left out.
    let mut again = 0;
    let mut more = || {
        again += 1;
        fake.update(|view| view.announced = Some(("127.0.0.1".to_owned(), format!("no-{again}"))));
        fake.publish("+odown", "master mymaster 127.0.0.1 1");
        few_lines(
            &proxy,
            &["sentinel_view_refused"],
            now().since(begun).as_secs(),
        )
    };
    wait_until("what was left out to be counted", PATIENCE, || more() > 0);
    fake.update(|view| view.announced = None);
    few_lines(&proxy, &provoked, now().since(begun).as_secs());
    // It is none the worse for it.
    let next = FakeMaster::start(Bytes::Echo);
    let mark = proxy.mark();
    fake.switch_master(next.addr());
    wait_until("the next master to be followed", FOLLOW, || {
        let to = next.addr().to_string();
        proxy.status().text("master") == to
            || proxy
                .events(mark, "switched")
                .iter()
                .any(|e| e.text("to") == to)
    });
}

#[test]
fn clients_that_come_in_vain_by_the_thousand() {
    let proxy = Plan::following(&["127.0.0.1:9".parse().expect("an address")])
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "0s")
        .start();
    let begun = now();
    let addr = proxy.addr();
    for _ in 0..TIMES {
        drop(TcpStream::connect(addr).expect("it listens"));
        // Who is refused because there is no master, and not because it has left.
        drop(TcpStream::connect(addr).map(|mut stream| {
            use std::io::Read;
            drop(stream.set_read_timeout(Some(PATIENCE)));
            drop(stream.read(&mut [0; 16]));
        }));
    }
    let lines = proxy.events(0, "session_closed");
    let seconds = now().since(begun).as_secs();
    assert!(
        lines.len() as u64 <= seconds + 2,
        "{} in {seconds} s",
        lines.len()
    );
    let closed = || {
        let closed = proxy.status();
        let reasons = closed.text("closed").to_owned();
        let of = |reason: &str| {
            reasons
                .split(' ')
                .find_map(|r| r.strip_prefix(reason)?.parse::<u64>().ok())
        };
        of("no_master=").unwrap_or(0)
    };
    wait_until("all to be counted", PATIENCE, || closed() >= TIMES);
    // The next line has the rest.
    wait_until("all to be told of", PATIENCE, || {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        drop(stream.set_read_timeout(Some(PATIENCE)));
        drop(std::io::Read::read(&mut stream, &mut [0; 16]));
        let lines = proxy.events(0, "session_closed");
        lines
            .iter()
            .map(|line| line.fields["count"].as_u64().unwrap_or(0))
            .sum::<u64>()
            >= TIMES
    });
}

/// Each end of a link and each new one is news of its own.
#[test]
fn a_sentinel_whose_link_comes_and_goes() {
    let master = FakeMaster::start(Bytes::Echo);
    let steady = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()).by(0, 2));
    let shaky = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()).by(1, 2));
    let proxy = Proxy::ready(Plan::following(&[steady.addr(), shaky.addr()]));
    let begun = now();
    let end = begun + Duration::from_secs(5);
    let mut cut = 0;
    while now() < end {
        if shaky.links() > 0 {
            shaky.drop_subscribers();
            cut += 1;
        }
        thread::sleep(Duration::from_millis(2));
    }
    assert!(cut > 3, "{cut} times");
    few_lines(
        &proxy,
        &["sentinel_up", "sentinel_down"],
        now().since(begun).as_secs(),
    );
}

#[test]
fn a_crowd_at_the_admin_endpoint() {
    let nobody = "127.0.0.1:9".parse().expect("an address");
    let proxy = Plan::following(&[nobody])
        .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
        .start();
    let admin = proxy.event("admin_listening", PATIENCE);
    let admin: std::net::SocketAddr = admin.text("addr").parse().expect("an address");
    let begun = now();
    // More than may be inside; they say nothing, so those who come later are turned away.
    let crowd: Vec<_> = (0..TIMES)
        .filter_map(|_| TcpStream::connect(admin).ok())
        .collect();
    assert!(crowd.len() > 200, "{}", crowd.len());
    proxy.event("client_refused", PATIENCE);
    drop(crowd);
    let lines = proxy.events(0, "client_refused").len() as u64;
    let seconds = now().since(begun).as_secs();
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s");
}
