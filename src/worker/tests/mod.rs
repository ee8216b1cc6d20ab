//! The whole bytes flow over loopback: a real pool between plain blocking sockets.

mod budget;
mod busy;
mod bytes;
mod crowd;
mod fence;
mod finishing;
mod handing;
mod lanes;
mod moving;
mod pool;
mod retiring;
mod stuck;
mod waiting;
mod words;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::net::addr::ListenAddr;
use crate::net::clock::{Moment, now};
use crate::net::reserve::Reserve;
use crate::session::OnSwitch;
use crate::session::close::CloseReason;
use crate::topology::publish::{Publisher, channel};
use crate::topology::{ForReaders, Generation, HoldCause, MasterAddr, Phase, State};

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it is watched that something does not happen.
const WATCH: Duration = Duration::from_millis(150);
/// `hold_max` where a test does not wait for its end.
const LONG: Duration = Duration::from_secs(60);

/// A pool with one entry on a free port, and the control plane's end of the published state.
struct Rig {
    pool: Option<Pool>,
    publisher: Publisher,
    addr: SocketAddr,
    /// Doubles of the listeners, where they are kept.
    kept: Vec<Bound>,
}

#[derive(Default)]
struct Options {
    workers: Option<usize>,
    session: session::Config,
    /// `on_switch = "move"`; these tests are about closing otherwise.
    moves: bool,
    max_connections: usize,
    sessions_max: Option<u64>,
    allow_from: Vec<ipnet::IpNet>,
    listen: Option<ListenAddr>,
    dials: Option<metrics::Histogram>,
    keeps: bool,
    budget: Budget,
}

impl Rig {
    fn new(hold_max: Duration) -> Self {
        Self::with(hold_max, Options::default())
    }

    fn with(hold_max: Duration, options: Options) -> Self {
        let workers = options.workers.unwrap_or(1);
        let (mut publisher, reader, subscriptions) = channel(State::initial(hold_max), workers);
        publisher.extend(now() + Duration::from_secs(3600));
        let any = ListenAddr::Tcp(([127, 0, 0, 1], 0).into());
        let listener = listener::Config {
            listen: vec![options.listen.unwrap_or(any)],
            allow_from: options.allow_from,
            max_connections: options.max_connections,
            ..listener::Config::default()
        };
        let bound = listener::Inherited::default()
            .bind(None, &listener, &mut listener::Passed::nothing())
            .expect("bind");
        let addr = match bound[0].addr() {
            ListenAddr::Tcp(addr) => *addr,
            ListenAddr::Unix(_) | ListenAddr::Systemd(_) => ([0, 0, 0, 0], 0).into(),
        };
        let kept = bound.iter().filter(|_| options.keeps);
        let kept = kept.map(|bound| bound.double().expect("files")).collect();
        let entry = Entry {
            name: "main".into(),
            listener,
            bound,
            login: None,
            session: session::Config {
                on_switch: if options.moves {
                    OnSwitch::Move
                } else {
                    OnSwitch::Close
                },
                ..options.session
            },
            upstream_tls: None,
            reader,
            subscriptions,
            dials: options.dials.unwrap_or_else(metrics::Histogram::noop),
            lanes: None,
        };
        Self {
            pool: Some(
                Pool::start_within(
                    vec![entry],
                    workers,
                    options.sessions_max,
                    &Reserve::default(),
                    options.budget,
                )
                .expect("pool"),
            ),
            publisher,
            addr,
            kept,
        }
    }

    /// A pool that serves generation 1 at `upstream`.
    fn serving(upstream: &TcpListener) -> Self {
        let mut rig = Self::new(LONG);
        rig.serve(1, upstream);
        rig
    }

    fn serve(&mut self, generation: u64, upstream: &TcpListener) {
        let addr = upstream.local_addr().expect("addr");
        self.serve_at(generation, addr);
    }

    fn serve_at(&mut self, generation: u64, addr: SocketAddr) {
        let hold_max = self.publisher.state().hold_max;
        self.publisher.publish(State {
            generation: Generation(generation),
            phase: Phase::Serving,
            master: Some(MasterAddr::for_test(addr)),
            verified_at: Some(addr),
            hold_max,
            readers: ForReaders::default(),
        });
    }

    fn hold(&mut self) {
        self.hold_for(HoldCause::MasterUnreachable);
    }

    fn announce(&mut self) {
        self.hold_for(HoldCause::Announced);
    }

    fn hold_for(&mut self, cause: HoldCause) {
        self.hold_since(cause, now());
    }

    fn hold_since(&mut self, cause: HoldCause, since: Moment) {
        let mut state = State::clone(&self.publisher.state());
        state.phase = Phase::Held {
            cause,
            since,
            sealed: false,
        };
        self.publisher.publish(state);
    }

    fn release(&mut self) {
        let mut state = State::clone(&self.publisher.state());
        state.phase = Phase::Serving;
        self.publisher.publish(state);
    }

    fn connect(&self) -> TcpStream {
        patient(TcpStream::connect(self.addr).expect("connect"))
    }

    /// A client and the master's end of its session, proven to be joined.
    fn join(&self, upstream: &TcpListener) -> (TcpStream, TcpStream) {
        let mut client = self.connect();
        let mut master = accept(upstream);
        client.write_all(b"ping").expect("write");
        assert_eq!(read(&mut master, 4), b"ping");
        master.write_all(b"pong").expect("write");
        assert_eq!(read(&mut client, 4), b"pong");
        (client, master)
    }

    fn counters(&self) -> Counters {
        self.pool.as_ref().expect("running").tallies().read()[0].clone()
    }

    fn closed_by(&self, reason: CloseReason) -> u64 {
        self.counters().sessions.closed_by(reason)
    }

    fn wait_closed(&self, reason: CloseReason, count: u64) {
        wait_until(reason.label(), || self.closed_by(reason) == count);
    }

    fn wait_acknowledged(&self, generation: u64) {
        wait_until("acknowledged", || {
            self.publisher.is_acknowledged(Generation(generation))
        });
    }

    /// Begins the end: nobody else gets in.
    fn drain(&self) {
        block_on(self.pool.as_ref().expect("running").stop_accepting());
    }

    fn shutdown(&mut self) {
        if let Some(pool) = self.pool.take() {
            block_on(pool.shutdown());
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(future)
}

fn in_time<F: Future>(future: F) -> F::Output {
    block_on(async { timeout(PATIENCE, future).await }).expect("in time")
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn upstream() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("bind")
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream
}

/// Accepts one connection of the proxy, within [`PATIENCE`].
fn accept(upstream: &TcpListener) -> TcpStream {
    upstream.set_nonblocking(true).expect("nonblocking");
    let mut accepted = None;
    wait_until("dialled", || {
        accepted = upstream.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("just seen");
    stream.set_nonblocking(false).expect("blocking");
    patient(stream)
}

fn read(stream: &mut impl Read, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).expect("read");
    bytes
}

fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read to the end");
    bytes
}

/// Nothing arrives while it is watched.
fn assert_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(WATCH)).expect("timeout");
    let mut byte = [0];
    let error = stream
        .read(&mut byte)
        .expect_err("something or the end arrived");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
}
