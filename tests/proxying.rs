//! Bytes through the real program, before scripted masters: both halves of a connection, slow readers, much
//! data, who may connect, and what happens while there is no master.

mod harness;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use harness::fake_master::{Bytes, FakeMaster, Role};
use harness::fake_sentinel::{FakeSentinel, Protocol, View};
use harness::pattern::{self, Check};
use harness::proxy::{Plan, Proxy};
use harness::{holds_for, wait_until};
use switchmaster::net::clock::now;

/// Deadline of everything that should take some milliseconds.
const SOON: Duration = Duration::from_secs(10);
/// A process that was not run for so long must confirm what it believes.
const STANDSTILL: Duration = Duration::from_secs(1);
const GIB: u64 = 1024 * 1024 * 1024;

/// A scripted Sentinel and master, and a proxy in front of them.
struct Stage {
    master: FakeMaster,
    sentinel: FakeSentinel,
    proxy: Proxy,
}

impl Stage {
    fn set(bytes: Bytes) -> Self {
        let master = FakeMaster::start(bytes);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
        Self {
            master,
            sentinel,
            proxy,
        }
    }

    fn client(&self) -> TcpStream {
        connect(self.proxy.addr())
    }
}

#[test]
fn half_close_passes_in_each_direction() {
    let stage = Stage::set(Bytes::CountUntilEnd);
    let mut client = stage.client();
    client.write_all(b"hello").expect("written");
    client.shutdown(Shutdown::Write).expect("half-closed");
    // The answer is made only when the client's end has arrived, and must come back afterwards.
    assert_eq!(read_to_end(&mut client), b"5");
}

#[test]
fn a_gibibyte_each_way_is_byte_identical() {
    let stage = Stage::set(Bytes::Exchange(GIB));
    let client = stage.client();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            pattern::write(&client, GIB)?;
            client.shutdown(Shutdown::Write)
        });
        let check = receive(&client, u64::MAX);
        assert_eq!(check.seen(), GIB);
        sending
            .join()
            .expect("no panic")
            .expect("everything was taken");
    });
    wait_until("the other end to have everything", SOON, || {
        let record = &stage.master.records()[0];
        record.ended && record.bytes == GIB
    });
    assert!(
        stage.master.records()[0].matches,
        "some byte changed on its way"
    );
}

#[test]
fn a_slow_reader_is_kept_and_costs_no_memory() {
    const REPLY: u64 = 64 * 1024 * 1024;
    /// Far below the reply: what a session and its sockets may cost a process.
    const BOUND_KIB: u64 = 4 * 1024;
    let stage = Stage::set(Bytes::Source(REPLY));
    let before = stage.proxy.rss_kib();
    let mut slow = stage.client();
    slow.write_all(b"go").expect("written");
    holds_for(
        "little memory while nobody reads",
        Duration::from_secs(3),
        || stage.proxy.rss_kib() <= before + BOUND_KIB,
    );
    // Another client is not in its way.
    let mut other = stage.client();
    other.write_all(b"go").expect("written");
    let mut first = [0; 1024];
    other.read_exact(&mut first).expect("served meanwhile");
    assert_eq!(
        receive(&slow, REPLY).seen(),
        REPLY,
        "every byte, in the end"
    );
}

#[test]
fn nothing_reaches_the_old_master_after_switched() {
    let stage = Stage::set(Bytes::Sink);
    let next = FakeMaster::start(Bytes::Echo);
    let flood = stage.client();
    let flooding = thread::spawn(move || pattern::write(&flood, u64::MAX).expect_err("it ends"));
    wait_until("the flood to arrive", SOON, || {
        stage.master.records().first().is_some_and(|r| r.bytes > 0)
    });
    stage.sentinel.switch_master(next.addr());
    let switched = stage.proxy.event("switched", SOON);
    assert!(switched.number("cut") >= 1.0, "{}", switched.fields);
    flooding.join().expect("the client is cut, too");

    wait_until("the old end to see its end", SOON, || {
        stage.master.records()[0].ended
    });
    let taken = stage.master.records();
    let mut newcomer = stage.client();
    assert_eq!(echoed(&mut newcomer, b"after"), b"after");
    holds_for("silence at the old master", Duration::from_secs(1), || {
        let records = stage.master.records();
        records.len() == taken.len() && records[0].bytes == taken[0].bytes
    });
}

#[test]
fn a_switch_is_not_missed_while_the_subscription_is_down() {
    for protocol in [Protocol::Resp2Only, Protocol::Resp3] {
        let (old, new) = (
            FakeMaster::start(Bytes::Sink),
            FakeMaster::start(Bytes::Echo),
        );
        let sentinel = FakeSentinel::start(protocol, View::of(old.addr()));
        let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
        wait_until("a subscription", SOON, || sentinel.subscribers() == 1);
        sentinel.drop_subscribers();
        sentinel.switch_master(new.addr());
        proxy.event("switched", SOON);
        wait_until("a subscription again", SOON, || sentinel.subscribers() == 1);
        // And the way back, which the new subscription may tell.
        let mark = proxy.mark();
        sentinel.switch_master(old.addr());
        let back = proxy.event_after(mark, "switched", SOON);
        assert_eq!(back.text("to"), old.addr().to_string());
        assert_eq!(back.number("epoch"), 3.0, "{}", back.fields);
    }
}

#[test]
fn a_new_master_is_not_adopted_before_it_says_so_nor_the_old_one_kept() {
    for (role, time) in [
        (Role::Replica, 500),
        (Role::Loading, 500),
        (Role::Mute, 1500),
    ] {
        let stage = Stage::set(Bytes::Echo);
        let next = FakeMaster::start(Bytes::Echo);
        next.set_role(role);
        let mut idle = stage.client();
        assert_eq!(echoed(&mut idle, b"one"), b"one");
        stage.sentinel.switch_master(next.addr());
        let hold = stage.proxy.event("hold_begin", SOON);
        // Fenced when the decision fell: neither node gets a byte, whatever the old one believes of itself.
        let mut newcomer = stage.client();
        newcomer.write_all(b"two").expect("written");
        assert_silent(&mut newcomer, Duration::from_millis(time));
        assert_eq!(
            stage.master.records().iter().map(|r| r.bytes).sum::<u64>(),
            3
        );
        assert!(next.records().is_empty(), "not a byte before its ROLE");
        assert!(stage.proxy.events(0, "switched").is_empty());

        next.set_role(Role::Master);
        let switched = stage.proxy.event("switched", SOON);
        assert!(switched.index > hold.index);
        newcomer.set_read_timeout(Some(SOON)).expect("a socket");
        let mut back = [0; 3];
        newcomer.read_exact(&mut back).expect("held, then served");
        assert_eq!(&back, b"two");
        assert_eq!(read_to_end(&mut idle), b"", "cut");
    }
}

#[test]
fn after_a_standstill_no_byte_is_written_before_every_sentinel_was_heard() {
    let (old, new) = (
        FakeMaster::start(Bytes::Sink),
        FakeMaster::start(Bytes::Sink),
    );
    let sentinels: Vec<FakeSentinel> = ["1", "2", "3"]
        .iter()
        .map(|digit| {
            let view = View {
                sentinel_id: digit.repeat(40),
                others: 2,
                quorum: 2,
                ..View::of(old.addr())
            };
            FakeSentinel::start(Protocol::Resp3, view)
        })
        .collect();
    let addrs: Vec<SocketAddr> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::ready(Plan::following(&addrs));
    let mut kept = connect(proxy.addr());
    kept.write_all(b"before").expect("written");
    wait_until("the first bytes to arrive", SOON, || {
        old.records().first().is_some_and(|r| r.bytes == 6)
    });
    wait_until("all Sentinels to be heard", SOON, || {
        proxy.events(0, "sentinel_up").len() == 3
    });

    proxy.freeze();
    // In the sleep the leader promotes another node, which the two that answer at once do not know yet. Both nodes
    // say that they are masters, as they do for some seconds.
    sentinels[2].update(|view| {
        view.addr = new.addr();
        view.epoch += 1;
    });
    sentinels[2].answer_after(Duration::from_millis(200));
    kept.write_all(b"in the sleep")
        .expect("taken by the kernel");
    thread::sleep(STANDSTILL);
    proxy.thaw();

    proxy.event("switched", SOON);
    assert_eq!(read_to_end(&mut kept), b"", "cut");
    assert_eq!(
        old.records()[0].bytes,
        6,
        "written to the master of before the sleep"
    );
}

#[test]
fn a_client_without_a_master_is_held_then_served() {
    let master = FakeMaster::start(Bytes::Echo);
    master.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Plan::following(&[sentinel.addr()]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    let rejected = proxy.event("role_rejected", SOON);
    assert_eq!(rejected.text("addr"), master.addr().to_string());
    assert_silent(&mut client, Duration::from_millis(500));
    assert!(master.records().is_empty(), "not a byte to a replica");

    for (role, time) in [(Role::Loading, 500), (Role::Mute, 1500)] {
        master.set_role(role);
        assert_silent(&mut client, Duration::from_millis(time));
    }
    master.set_role(Role::Master);
    client.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("held, then served");
    assert_eq!(&back, b"early");
}

#[test]
fn a_client_is_closed_when_hold_max_has_passed() {
    let master = FakeMaster::start(Bytes::Echo);
    master.set_role(Role::Replica);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let proxy = Plan::following(&[sentinel.addr()])
        .env("SWITCHMASTER_FAILOVER_HOLD_MAX", "2s")
        .start();
    let mut client = connect(proxy.addr());
    assert_silent(&mut client, Duration::from_millis(1500));
    client.set_read_timeout(Some(SOON)).expect("a socket");
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn nothing_at_the_sentinels_address_is_waited_for() {
    let place = free_address();
    let proxy = Plan::following(&[place]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    // It says whom it cannot ask, and that clients wait for that.
    let down = proxy.event("sentinel_down", SOON);
    assert_eq!(down.text("sentinel"), place.to_string());
    let waiting = proxy.event("waiting", SOON);
    assert_eq!(waiting.number("answering"), 0.0, "{}", waiting.fields);
    assert_silent(&mut client, Duration::from_millis(500));

    let master = FakeMaster::start(Bytes::Echo);
    let _sentinel = FakeSentinel::start_at(place, Protocol::Resp3, View::of(master.addr()));
    client.set_read_timeout(Some(SOON)).expect("a socket");
    let mut back = [0; 5];
    client
        .read_exact(&mut back)
        .expect("served as soon as a Sentinel is there");
    assert_eq!(&back, b"early");
}

#[test]
fn sigterm_ends_it_at_once_with_a_client_waiting() {
    let proxy = Plan::following(&[free_address()]).start();
    let mut client = connect(proxy.addr());
    client.write_all(b"early").expect("written");
    proxy.event("waiting", SOON);
    let asked = now();
    let status = proxy.terminate(SOON);
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(now().since(asked) < Duration::from_secs(2), "at once");
}

#[test]
fn sigterm_ends_it_in_traffic() {
    let stage = Stage::set(Bytes::Echo);
    let mut client = stage.client();
    assert_eq!(echoed(&mut client, b"before"), b"before");
    let status = stage.proxy.terminate(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0), "{status}");
    client.set_read_timeout(Some(SOON)).expect("a socket");
    assert_eq!(read_to_end(&mut client), b"");
}

#[test]
fn a_port_that_is_taken_is_said_and_ends_it_with_73() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    let (code, output) = refused(Plan::bare([
        "run",
        "--sentinel",
        "127.0.0.1:1",
        "--master",
        "mymaster",
        "--listen",
        &addr,
    ]));
    assert_eq!(code, Some(73), "{output}");
    assert!(output.contains(&addr), "{output}");
}

#[test]
fn a_listener_for_all_without_allow_from_ends_it_with_78() {
    let (code, output) = refused(Plan::bare([
        "run",
        "--sentinel",
        "127.0.0.1:1",
        "--master",
        "mymaster",
        "--listen",
        "0.0.0.0:0",
    ]));
    assert_eq!(code, Some(78), "{output}");
    assert!(output.contains("allow_from"), "it names the key: {output}");
}

#[test]
fn allow_from_lets_in_whom_it_names() {
    for (network, allowed) in [("10.255.0.0/16", false), ("127.0.0.0/8", true)] {
        let master = FakeMaster::start(Bytes::Echo);
        let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
        let proxy = Proxy::ready(Plan::bare(["run", "--log-format", "json"]).config(format!(
            "{}\n{}allow_from = [\"{network}\"]\n",
            sentinel_section(&sentinel),
            proxy_section("main", "mymaster", "0.0.0.0:0"),
        )));
        let mut client = connect(SocketAddr::from(([127, 0, 0, 1], proxy.addr().port())));
        if allowed {
            assert_eq!(echoed(&mut client, b"let in"), b"let in");
        } else {
            assert_eq!(read_to_end(&mut client), b"", "closed without a word");
            assert!(master.records().is_empty(), "the master never heard of it");
        }
    }
}

#[test]
fn two_entries_lead_to_two_masters() {
    let (one, other) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::CountUntilEnd),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(one.addr()));
    sentinel.watch(View {
        master: "cache".to_owned(),
        ..View::of(other.addr())
    });
    let proxy = Plan::bare(["run", "--log-format", "json"])
        .config(format!(
            "{}\n{}\n{}",
            sentinel_section(&sentinel),
            proxy_section("main", "mymaster", "127.0.0.1:0"),
            proxy_section("cache", "cache", "127.0.0.1:0"),
        ))
        .start();
    for entry in ["main", "cache"] {
        proxy.event_where(0, "ready", SOON, |fields| fields["proxy"] == entry);
    }
    let mut to_one = connect(proxy.addr_of("main"));
    assert_eq!(echoed(&mut to_one, b"main"), b"main");
    let mut to_other = connect(proxy.addr_of("cache"));
    to_other.write_all(b"four").expect("written");
    to_other.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end(&mut to_other), b"4");

    // A switch of one concerns nobody of the other.
    let next = FakeMaster::start(Bytes::Echo);
    sentinel.switch_master(next.addr());
    let switched = proxy.event("switched", SOON);
    assert_eq!(switched.text("proxy"), "main");
    assert_eq!(read_to_end(&mut to_one), b"", "cut");
    let mut again = connect(proxy.addr_of("cache"));
    again.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(read_to_end(&mut again), b"0");
}

#[test]
fn a_unix_socket_is_a_listener() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("main.sock");
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    let listen = format!("unix:{}", path.display());
    let proxy = Proxy::ready(Plan::bare(["run", "--log-format", "json"]).config(format!(
        "{}\n{}",
        sentinel_section(&sentinel),
        proxy_section("main", "mymaster", &listen),
    )));
    let listening = proxy.event("listening", SOON);
    assert_eq!(listening.text("addr"), listen);
    let mut client = UnixStream::connect(&path).expect("the proxy listens");
    client.set_read_timeout(Some(SOON)).expect("a socket");
    client.write_all(b"local").expect("written");
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("echoed");
    assert_eq!(&back, b"local");
    drop(client);
    assert_eq!(proxy.terminate(SOON).code(), Some(0));
    assert!(!path.exists(), "its own socket file is taken away");
}

fn sentinel_section(sentinel: &FakeSentinel) -> String {
    format!("[sentinel]\naddresses = [\"{}\"]\n", sentinel.addr())
}

fn proxy_section(name: &str, master: &str, listen: &str) -> String {
    format!("[[proxy]]\nname = \"{name}\"\nmaster = \"{master}\"\nlisten = [\"{listen}\"]\n")
}

/// How a start ended that must not succeed, and what was said.
fn refused(plan: Plan) -> (Option<i32>, String) {
    let mut proxy = plan.start();
    let status = proxy.exit(SOON);
    (status.code(), proxy.output())
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the proxy listens");
    stream.set_read_timeout(Some(SOON)).expect("a socket");
    stream
}

/// An address of 127.0.0.1 where nothing listened a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound")
}

fn echoed(client: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    client.write_all(bytes).expect("written");
    let mut back = vec![0; bytes.len()];
    client.read_exact(&mut back).expect("echoed");
    back
}

/// What is left on the connection; a reset ends it as well.
fn read_to_end(client: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => rest,
        Err(e) if e.kind() == ErrorKind::ConnectionReset => rest,
        Err(e) => panic!("the connection does not end: {e}"),
    }
}

/// Reads up to `len` bytes or the end, all of which must be the pattern's.
fn receive(mut from: &TcpStream, len: u64) -> Check {
    let mut check = Check::default();
    let mut buffer = vec![0; 256 * 1024];
    while check.seen() < len {
        match from.read(&mut buffer).expect("the pattern goes on") {
            0 => break,
            n => assert!(
                check.accept(&buffer[..n]),
                "wrong within {n} bytes after {}",
                check.seen()
            ),
        }
    }
    check
}

/// Open, and not a byte.
fn assert_silent(client: &mut TcpStream, time: Duration) {
    client.set_read_timeout(Some(time)).expect("a socket");
    match client.read(&mut [0]) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Ok(0) => panic!("closed instead of held"),
        other => panic!("held clients hear nothing: {other:?}"),
    }
}
