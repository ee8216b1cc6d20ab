//! Sessions that are led to replicas: lanes over loopback, published by the test.

use std::time::Duration;

use super::*;
use crate::topology::board::{Board, LaneEnds};
use crate::topology::replicas::Lanes;

/// A pool with one entry that leads to replicas, and the control plane's end of it.
struct Readers {
    pool: Option<Pool>,
    lobby: Publisher,
    lanes: Vec<Publisher>,
    board: Board,
    addr: SocketAddr,
    last: u64,
    hold_max: Duration,
}

impl Readers {
    fn new(workers: usize) -> Self {
        Self::holding(workers, LONG)
    }

    fn holding(workers: usize, hold_max: Duration) -> Self {
        let far = now() + Duration::from_secs(3600);
        let (mut lobby, reader, subscriptions) = channel(State::initial(hold_max), workers);
        lobby.extend(far);
        let board = Board::new(Lanes::COUNT);
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..Lanes::COUNT {
            let (mut publisher, reader, subscriptions) = channel(State::initial(hold_max), workers);
            publisher.extend(far);
            lanes.push(publisher);
            ends.push((reader, subscriptions));
        }
        let listener = listener::Config {
            listen: vec![ListenAddr::Tcp(([127, 0, 0, 1], 0).into())],
            ..listener::Config::default()
        };
        let bound = listener::Inherited::default()
            .bind(None, &listener, &mut listener::Passed::nothing())
            .expect("bind");
        let ListenAddr::Tcp(addr) = *bound[0].addr() else {
            panic!("it was asked for TCP");
        };
        let entry = Entry {
            name: "reads".into(),
            listener,
            bound,
            session: session::Config {
                on_switch: OnSwitch::Move,
                ..session::Config::default()
            },
            login: None,
            upstream_tls: None,
            reader,
            subscriptions,
            dials: metrics::Histogram::noop(),
            lanes: Some(LaneEnds {
                board: board.clone(),
                lanes: ends,
            }),
        };
        let pool = Pool::start(vec![entry], workers, None, &Reserve::default()).expect("pool");
        Self {
            pool: Some(pool),
            lobby,
            lanes,
            board,
            addr,
            last: 0,
            hold_max,
        }
    }

    fn publish(&mut self, lane: usize, phase: Phase, to: Option<SocketAddr>) -> Generation {
        self.last += 1;
        let state = State {
            generation: Generation(self.last),
            phase,
            master: to.map(MasterAddr::for_test),
            verified_at: to,
            hold_max: self.hold_max,
            readers: ForReaders::default(),
        };
        self.lanes[lane].publish(state);
        Generation(self.last)
    }

    fn join(&mut self, lane: usize, replica: &TcpListener) {
        self.join_at(lane, replica.local_addr().expect("addr"));
    }

    fn join_at(&mut self, lane: usize, addr: SocketAddr) {
        self.publish(lane, Phase::Serving, Some(addr));
        self.board.accept(lane, true);
        self.lobby.ring();
    }

    fn leave(&mut self, lane: usize) {
        self.board.accept(lane, false);
        let passed = self.publish(lane, Phase::NoMaster, None);
        until(|| self.lanes[lane].is_acknowledged(passed));
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(pool.shutdown());
        }
    }
}

fn until(mut holds: impl FnMut() -> bool) {
    let deadline = now() + PATIENCE;
    while !holds() {
        assert!(now() < deadline, "in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn listen() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("a port")
}

fn ask(client: &mut TcpStream) {
    client.write_all(b"*1\r\n$4\r\nPING\r\n").expect("sent");
}

/// The next session that comes to this replica, which is answered its first request.
fn take(replica: &TcpListener, client: &mut TcpStream) -> TcpStream {
    let (mut upstream, _) = replica.accept().expect("a session");
    upstream
        .set_read_timeout(Some(PATIENCE))
        .expect("an option");
    answer(&mut upstream, client);
    upstream
}

fn answer(upstream: &mut TcpStream, client: &mut TcpStream) {
    let mut request = [0; 14];
    upstream.read_exact(&mut request).expect("a request");
    upstream.write_all(b"+PONG\r\n").expect("sent");
    let mut reply = [0; 7];
    client.read_exact(&mut reply).expect("its reply");
    assert_eq!(&reply, b"+PONG\r\n");
}

fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).expect("the pool listens");
    client.set_read_timeout(Some(PATIENCE)).expect("an option");
    client
}

#[test]
fn sessions_are_spread_over_lanes_by_all_workers_together() {
    let mut readers = Readers::new(3);
    let replicas = [listen(), listen(), listen()];
    for (lane, replica) in replicas.iter().enumerate() {
        readers.join(lane, replica);
    }
    let mut all = Vec::new();
    for n in 1..=30 {
        let client = connect(readers.addr);
        until(|| readers.board.loads().iter().sum::<u64>() == n);
        all.push(client);
    }
    assert_eq!(readers.board.loads()[..3], [10, 10, 10]);
    drop(all);
    until(|| readers.board.loads().iter().all(|load| *load == 0));
}

#[test]
fn no_byte_goes_to_a_replica_that_left_and_its_session_goes_on_elsewhere() {
    let mut readers = Readers::new(1);
    let (gone, other) = (listen(), listen());
    readers.join(0, &gone);
    let mut client = connect(readers.addr);
    ask(&mut client);
    let mut upstream = take(&gone, &mut client);
    readers.join(1, &other);
    readers.leave(0);
    ask(&mut client);
    let _elsewhere = take(&other, &mut client);
    // Not a byte more, and the end.
    let mut rest = Vec::new();
    let ended = upstream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:?}");
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    assert_eq!(readers.board.loads()[..2], [0, 1]);
    // The same node again is another member: nothing of before comes back to it.
    readers.join(0, &gone);
    let mut second = connect(readers.addr);
    ask(&mut second);
    let _again = take(&gone, &mut second);
    assert_eq!(readers.board.loads()[..2], [1, 1]);
}

#[test]
fn whoever_finds_no_lane_waits_for_the_first_that_opens() {
    let mut readers = Readers::new(2);
    let mut client = connect(readers.addr);
    ask(&mut client);
    std::thread::sleep(WATCH);
    assert_eq!(readers.board.loads().iter().sum::<u64>(), 0);
    let replica = listen();
    readers.join(4, &replica);
    let _upstream = take(&replica, &mut client);
    assert_eq!(readers.board.loads()[4], 1);
}

#[test]
fn a_session_that_is_asked_to_leaves_when_it_is_quiet() {
    let mut readers = Readers::new(1);
    let (full, empty) = (listen(), listen());
    readers.join(0, &full);
    let mut clients = [connect(readers.addr), connect(readers.addr)];
    let mut upstreams = Vec::new();
    for client in &mut clients {
        ask(client);
        upstreams.push(take(&full, client));
    }
    readers.join(1, &empty);
    readers.board.ask_to_leave(0, 1);
    readers.lanes[0].ring();
    until(|| readers.board.loads()[0] == 1);
    assert_eq!(readers.board.roaming(), 1, "it will come to another");
    let mut kept = Vec::new();
    for (client, upstream) in clients.iter_mut().zip(&mut upstreams) {
        ask(client);
        upstream.set_read_timeout(Some(WATCH)).expect("an option");
        let mut first = [0];
        if matches!(upstream.peek(&mut first), Ok(1)) {
            answer(upstream, client);
        } else {
            kept.push(take(&empty, client));
        }
    }
    assert_eq!(readers.board.loads()[..2], [1, 1]);
    assert_eq!(readers.board.roaming(), 0);
    readers.board.ask_to_leave(1, 1);
    readers.lanes[1].ring();
    until(|| readers.board.roaming() == 1);
    drop(clients);
    until(|| readers.board.roaming() == 0);
    assert_eq!(readers.board.loads()[..2], [0, 0]);
}

#[test]
fn whoever_cannot_leave_is_not_asked_to() {
    const SUBSCRIBE: &[u8] = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n";
    const SUBSCRIBED: &[u8] = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
    let mut readers = Readers::new(1);
    let replica = listen();
    readers.join(0, &replica);
    let mut upstreams = Vec::new();
    let mut subscribers = [connect(readers.addr), connect(readers.addr)];
    for client in &mut subscribers {
        client.write_all(SUBSCRIBE).expect("sent");
        let (mut upstream, _) = replica.accept().expect("a session");
        upstream
            .read_exact(&mut [0; SUBSCRIBE.len()])
            .expect("a request");
        upstream.write_all(SUBSCRIBED).expect("sent");
        client
            .read_exact(&mut [0; SUBSCRIBED.len()])
            .expect("its reply");
        upstreams.push(upstream);
    }
    let mut plain = connect(readers.addr);
    ask(&mut plain);
    upstreams.push(take(&replica, &mut plain));
    // They are woken in the order in which they came.
    readers.board.ask_to_leave(0, 1);
    readers.lanes[0].ring();
    until(|| readers.board.roaming() == 1);
    assert_eq!(readers.board.loads()[0], 2);
}

/// An address where nobody listens.
fn refusing() -> SocketAddr {
    listen().local_addr().expect("addr")
}

#[test]
fn nobody_waits_longer_than_hold_max_for_a_replica_that_cannot_be_dialled() {
    let mut readers = Readers::holding(1, Duration::from_millis(300));
    let addr = refusing();
    readers.join_at(0, addr);
    let mut client = connect(readers.addr);
    ask(&mut client);
    let mut words = [0; 39];
    client.read_exact(&mut words).expect("an answer");
    assert_eq!(&words, b"-LOADING switchmaster: no usable replic");
    until(|| client.read_exact(&mut words[..1]).is_ok() && words[0] == b'\n');
    // It is tried on, and serves when it can be had.
    let replica = TcpListener::bind(addr).expect("nobody has it");
    let serving = std::thread::spawn(move || {
        let (mut upstream, _) = replica.accept().expect("a session");
        while upstream.read_exact(&mut [0; 14]).is_ok() {
            upstream.write_all(b"+PONG\r\n").expect("sent");
        }
    });
    until(|| {
        std::thread::sleep(Duration::from_millis(10));
        ask(&mut client);
        client.read_exact(&mut words[..1]).expect("an answer");
        let is_served = words[0] == b'+';
        until(|| client.read_exact(&mut words[..1]).is_ok() && words[0] == b'\n');
        is_served
    });
    drop(client);
    serving.join().expect("no panic");
}

#[test]
fn a_replica_that_cannot_be_dialled_draws_nobody() {
    let mut readers = Readers::new(2);
    let good = listen();
    readers.join(0, &good);
    let mut kept = Vec::new();
    for _ in 0..3 {
        let mut client = connect(readers.addr);
        ask(&mut client);
        kept.push((take(&good, &mut client), client));
    }
    readers.join_at(1, refusing());
    for _ in 0..5 {
        let mut client = connect(readers.addr);
        ask(&mut client);
        kept.push((take(&good, &mut client), client));
    }
    assert_eq!(readers.board.loads()[..2], [8, 0]);
    assert!(readers.board.is_suspected(1) && !readers.board.is_suspected(0));
}

/// `maxclients`: who is one too many is told so, and is a reason to look whether that is so for the next one.
#[test]
fn a_replica_that_ends_connections_at_once_is_suspected() {
    const FULL: &[u8] = b"-ERR max number of clients reached\r\n";
    let mut readers = Readers::new(1);
    let (good, full) = (listen(), listen());
    readers.join(0, &good);
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = connect(readers.addr);
        ask(&mut client);
        kept.push((take(&good, &mut client), client));
    }
    readers.join(1, &full);
    let mut one_too_many = connect(readers.addr);
    ask(&mut one_too_many);
    let (mut upstream, _) = full.accept().expect("a session");
    upstream.read_exact(&mut [0; 14]).expect("a request");
    upstream.write_all(FULL).expect("sent");
    drop(upstream);
    let mut words = [0; FULL.len()];
    one_too_many.read_exact(&mut words).expect("the words");
    assert_eq!(words, FULL);
    until(|| readers.board.is_suspected(1));
    assert!(!readers.board.is_suspected(0));
}
