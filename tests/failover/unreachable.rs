//! The master, or who is to become it, cannot be reached or does not speak: rows 22 to 26, scripted.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use switchmaster::net::clock::now;

use crate::harness::chaos::ChaosRelay;
use crate::harness::fake_master::{Bytes, FakeMaster, Role};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::name_server::NameServer;
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::stream::{assert_silent, connect, echoed, free_address, read_to_end};
use crate::harness::topology::FOLLOW;
use crate::harness::{holds_for, wait_until};

/// Some dials that fail, with their waits.
const ROUNDS: Duration = Duration::from_secs(3);
/// The master is asked for its role every 5 s.
const ONE_ROUND: Duration = Duration::from_secs(6);

/// The stand-in for row 22 in network namespaces (`partition`), where nobody is root.
#[test]
fn row_22_a_minority_side_goes_on_and_is_cut_when_it_heals() {
    let (old, new) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinels: Vec<FakeSentinel> = (0..3)
        .map(|number| FakeSentinel::start(Protocol::Resp3, View::of(old.addr()).by(number, 3)))
        .collect();
    let paths: Vec<ChaosRelay> = sentinels.iter().map(|s| ChaosRelay::to(s.addr())).collect();
    let addrs: Vec<SocketAddr> = paths.iter().map(ChaosRelay::addr).collect();
    let proxy = Proxy::ready(Plan::following(&addrs));
    let mut kept = connect(proxy.addr());
    let mark = proxy.mark();
    for path in &paths[1..] {
        path.black_hole(true);
    }
    for sentinel in &sentinels[1..] {
        sentinel.switch_master(new.addr());
    }
    holds_for("traffic on the minority's side", ONE_ROUND, || {
        echoed(&mut kept, b"x") == b"x"
    });
    assert!(proxy.events(mark, "switched").is_empty());
    for path in &paths {
        path.black_hole(false);
    }
    proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(read_to_end(&mut kept), b"", "cut");
    let bytes = old.bytes();
    assert_eq!(echoed(&mut connect(proxy.addr()), b"new"), b"new");
    holds_for("the majority's master", ROUNDS, || {
        proxy.sockets_to(old.addr()) == 0
    });
    assert_eq!(old.bytes(), bytes);
    assert_eq!(proxy.events(mark, "switched").len(), 1);
}

/// The stand-in for row 23 in network namespaces (`partition`), where nobody is root.
#[test]
fn row_23_only_the_path_to_the_master_is_cut_by_a_relay() {
    let master = FakeMaster::start(Bytes::Echo);
    let path = ChaosRelay::to(master.addr());
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(path.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"before"), b"before");
    let mark = proxy.mark();

    path.black_hole(true);
    kept.write_all(b"lost?").expect("written");
    assert_silent(&mut kept, ONE_ROUND);
    assert!(proxy.events(mark, "switched").is_empty());
    let healed = now();
    path.black_hole(false);
    let mut newcomer = connect(proxy.addr());
    assert_eq!(echoed(&mut newcomer, b"after"), b"after");
    assert!(now().since(healed) < FOLLOW);
    assert!(proxy.events(mark, "switched").is_empty(), "nobody moved");
}

#[test]
fn row_24_new_master_is_a_syn_black_hole() {
    let hole = Hole::new();
    let proxy = is_not_adopted(hole.addr, |proxy| proxy.dials_to(hole.addr) <= 1);
    drop(proxy);
}

#[test]
fn row_24_new_master_refuses() {
    let nowhere = free_address();
    let proxy = is_not_adopted(nowhere, |proxy| proxy.dials_to(nowhere) <= 1);
    drop(proxy);
}

#[test]
fn row_25_new_master_is_mute() {
    let mute = FakeMaster::start(Bytes::Echo);
    mute.set_role(Role::Mute);
    let addr = mute.addr();
    let proxy = is_not_adopted(addr, |proxy| {
        proxy.sockets_to(addr) + proxy.dials_to(addr) <= 1
    });
    assert!(mute.records().is_empty(), "not a byte of a client");
    drop(proxy);
}

/// A Sentinel names this address: nobody is sent there, few words are made, and what it names next counts at once.
pub(crate) fn is_not_adopted(bad: SocketAddr, each_look: impl Fn(&Proxy) -> bool) -> Proxy {
    let (old, next) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(old.addr()));
    let proxy = Proxy::ready(Plan::following(&[sentinel.addr()]));
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"one"), b"one");
    let mark = proxy.mark();

    sentinel.switch_master(bad);
    proxy.event_after(mark, "hold_begin", FOLLOW);
    let mut newcomer = connect(proxy.addr());
    newcomer.write_all(b"two").expect("written");
    let bytes = old.bytes();
    holds_for("one verification at a time", ROUNDS, || each_look(&proxy));
    assert_silent(&mut newcomer, Duration::from_millis(100));
    assert_eq!(old.bytes(), bytes, "the old master is fenced");
    assert!(proxy.events(mark, "switched").is_empty());
    let said = proxy.events(mark, "role_rejected").len() + proxy.events(mark, "dial_failed").len();
    assert!((1..=2).contains(&said), "{said} lines in {ROUNDS:?}");

    sentinel.switch_master(next.addr());
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), next.addr().to_string());
    assert_eq!(read_to_end(&mut kept), b"", "cut");
    wait_until("the waiting client's bytes", FOLLOW, || next.bytes() == 3);
    proxy
}

#[test]
fn row_26_a_name_that_does_not_resolve_blocks_nothing() {
    let (master, next) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let sentinels: Vec<FakeSentinel> = (0..3)
        .map(|number| FakeSentinel::start(Protocol::Resp3, View::of(master.addr()).by(number, 3)))
        .collect();
    let addrs: Vec<SocketAddr> = sentinels.iter().map(FakeSentinel::addr).collect();
    let proxy = Proxy::ready(Plan::following(&addrs));
    let mark = proxy.mark();
    // One alone: fenced until it is set aside, then the last good one goes on.
    sentinels[1].update(|view| {
        view.announced = Some(("no-such-host.invalid".to_owned(), "6379".to_owned()));
        view.epoch = 50;
    });
    let aside = proxy.event_after(mark, "candidate_set_aside", FOLLOW * 3);
    let mut kept = connect(proxy.addr());
    holds_for("traffic to the last good master", ROUNDS, || {
        echoed(&mut kept, b"x") == b"x"
    });
    // All of them: clients wait, and the resolver keeps nobody from hearing the next word.
    for sentinel in &sentinels {
        sentinel.update(|view| {
            view.announced = Some(("redis-a.invalid".to_owned(), "6379".to_owned()));
            view.epoch = 60;
        });
    }
    proxy.event_after(aside.index, "hold_begin", FOLLOW);
    let asked = now();
    for sentinel in &sentinels {
        sentinel.update(|view| view.announced = None);
        sentinel.switch_master(next.addr());
    }
    let switched = proxy.event_after(aside.index, "switched", FOLLOW);
    println!("switched {:?} after the last word", now().since(asked));
    assert_eq!(switched.text("to"), next.addr().to_string());
    assert!(proxy.events(0, "stood_still").is_empty(), "a blocked loop");
}

#[test]
fn row_26_the_address_changes_under_the_same_name() {
    const NAME: &str = "redis-a.switchmaster.test";
    let first = FakeMaster::start(Bytes::Echo);
    let port = first.addr().port();
    let second = FakeMaster::start_at(([127, 0, 0, 2], port).into(), Bytes::Echo);
    let hosts = tempfile::NamedTempFile::new().expect("a temporary file");
    resolve(hosts.path(), NAME, first.addr());
    let view = View {
        announced: Some((NAME.to_owned(), port.to_string())),
        ..View::of(first.addr())
    };
    let sentinel = FakeSentinel::start(Protocol::Resp3, view);
    let proxy =
        Proxy::ready(Plan::following(&[sentinel.addr()]).in_place_of("/etc/hosts", hosts.path()));
    let ready = proxy.event("ready", FOLLOW);
    assert_eq!(ready.text("master"), format!("{NAME}:{port}"));
    let mut kept = connect(proxy.addr());
    assert_eq!(echoed(&mut kept, b"one"), b"one");

    // What proved itself is used as long as it lives, whatever its name resolves to meanwhile, and when it does not.
    for lines in [format!("127.0.0.2 {NAME}\n"), String::new()] {
        std::fs::write(hosts.path(), lines).expect("written");
        assert_eq!(echoed(&mut connect(proxy.addr()), b"two"), b"two");
        assert_eq!(echoed(&mut kept, b"two"), b"two");
    }
    assert!(second.records().is_empty());
    // It is gone, and its name leads nowhere, then elsewhere: another node, so another generation.
    drop(first);
    assert_eq!(read_to_end(&mut kept), b"", "closed with its upstream");
    // Who comes before that may still be connected to a listener that is about to close.
    proxy.event("hold_begin", FOLLOW);
    let mut newcomer = connect(proxy.addr());
    newcomer.write_all(b"three").expect("written");
    assert_silent(&mut newcomer, ROUNDS);
    resolve(hosts.path(), NAME, second.addr());
    let moved = proxy.event("switched", FOLLOW);
    assert_eq!(moved.number("generation"), 2.0, "{}", moved.fields);
    wait_until("the waiting client to be served", FOLLOW, || {
        second.bytes() == 5
    });
    assert!(proxy.events(0, "stood_still").is_empty(), "a blocked loop");
    // Another name is another master.
    resolve(hosts.path(), "redis-b.switchmaster.test", second.addr());
    sentinel.update(|view| {
        view.announced = Some(("redis-b.switchmaster.test".to_owned(), port.to_string()));
        view.epoch += 1;
    });
    let switched = proxy.event_after(moved.index + 1, "switched", FOLLOW);
    assert_eq!(switched.number("generation"), 3.0);
    assert_eq!(read_to_end(&mut newcomer), b"three", "cut");
}

/// A resolver that takes five seconds: names of before lead where they led, a new one where it will have led, and
/// nobody else waits.
#[test]
fn row_26_a_slow_resolver() {
    const SLOW: Duration = Duration::from_secs(5);
    let names = NameServer::start();
    let conf = tempfile::NamedTempFile::new().expect("a temporary file");
    names.write_resolv_conf(conf.path());
    let master = FakeMaster::start(Bytes::Echo);
    let (second, third) = (
        FakeMaster::start(Bytes::Echo),
        FakeMaster::start(Bytes::Echo),
    );
    let view = |number| View::of(master.addr()).by(number, 2);
    let by_name = FakeSentinel::start(Protocol::Resp3, view(0));
    let by_address = FakeSentinel::start(Protocol::Resp3, view(1));
    let named = format!("sentinel-a.switchmaster.test:{}", by_name.addr().port());
    let plan = Plan::following(&[by_address.addr()])
        .env("SWITCHMASTER_SENTINEL_DISCOVER", "false")
        .args(["--sentinel", &named]);
    let proxy = Proxy::ready(plan.in_place_of("/etc/resolv.conf", conf.path()));
    let is_named = |fields: &serde_json::Value| fields["sentinel"] == named;
    proxy.event_where(0, "sentinel_up", FOLLOW, is_named);

    names.answer_after(SLOW);
    let (mark, slow) = (proxy.mark(), now());
    by_name.drop_subscribers();
    let down = proxy.event_where(mark, "sentinel_down", FOLLOW, is_named);
    proxy.event_where(down.index, "sentinel_up", FOLLOW, is_named);
    assert!(now().since(slow) < SLOW, "dialled where it was");
    // What needs no name is followed meanwhile.
    for sentinel in [&by_address, &by_name] {
        sentinel.switch_master(second.addr());
    }
    let switched = proxy.event_after(mark, "switched", FOLLOW);
    assert_eq!(switched.text("to"), second.addr().to_string());
    assert!(now().since(slow) < SLOW, "before any answer");

    // A name nobody has heard of takes its time, once; the one lookup serves every try.
    let asked = names.asked();
    for sentinel in [&by_address, &by_name] {
        let port = third.addr().port().to_string();
        sentinel.update(|view| {
            view.announced = Some(("redis-c.switchmaster.test".to_owned(), port));
            view.epoch += 1;
        });
    }
    let switched = proxy.event_after(switched.index + 1, "switched", SLOW + FOLLOW);
    assert!(
        switched.text("to").starts_with("redis-c."),
        "{}",
        switched.fields
    );
    assert_eq!(echoed(&mut connect(proxy.addr()), b"three"), b"three");
    // One lookup is a question for A and one for AAAA.
    assert!(names.asked() - asked <= 4, "{} questions", names.asked());
    assert!(proxy.events(0, "stood_still").is_empty(), "a blocked loop");

    // A lookup under way keeps nobody from ending.
    by_name.drop_subscribers();
    let asked = names.asked();
    wait_until("another lookup", FOLLOW, || names.asked() > asked);
    assert!(proxy.terminate(FOLLOW).success());
}

fn resolve(hosts: &Path, name: &str, to: SocketAddr) {
    std::fs::write(hosts, format!("{} {name}\n", to.ip())).expect("written");
}

/// A listener whose queue is full: the kernel answers no SYN any more.
struct Hole {
    addr: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Hole {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        rustix::net::listen(listener.as_fd(), 0).expect("a listener's queue can be changed");
        let mut queued = Vec::new();
        // listen(2): the queue holds one more than was asked for.
        while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
            queued.push(stream);
            assert!(queued.len() < 10, "this kernel's queue does not fill");
        }
        Self {
            addr,
            _listener: listener,
            _queued: queued,
        }
    }
}
