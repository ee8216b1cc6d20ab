//! Connects through a proxy whose master is some way off: what a round trip costs that is made or saved. A relay on loopback
//! stands in for the way. It keeps bytes back, the first ones of a connection by one round trip more, which stands for the
//! handshake that loopback does at once.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use switchmaster::demo::wire::Conn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Size;
use crate::churn::{churn, columns, get, row};
use crate::harness::fake_sentinel::{FakeSentinel, Protocol, View};
use crate::harness::flood::Flood;
use crate::harness::topology::Topology;
use crate::page::{Cell, Part};
use crate::subject::{CLOSING, HAPROXY_TCP, SWITCHMASTER, WITHOUT_SPARES};

/// The runtime's clock has a millisecond; a part of one would be rounded up to it.
const ONE_WAY: Duration = Duration::from_millis(1);
/// Pieces on their way in one direction of one connection.
const UNDER_WAY: usize = 64;
const PIECE: usize = 16 * 1024;
/// Connects of clients that need no proxy: what nobody can be faster than.
const DIRECT: Duration = Duration::from_secs(3);

/// `--delay`
pub(crate) fn measure(size: &Size) -> Part {
    let seconds = Duration::from_secs(size.seconds.div_ceil(4) as u64);
    let mut part = Part::new(
        format!(
            "the same with a master that is {ONE_WAY:?} away in each direction, {} a second for {seconds:?}",
            size.rate
        ),
        columns(),
    );
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let master = servers.master().addr();
    let far = Way::to(master);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(far.addr));
    let mut direct: Conn = servers.direct(master);
    for subject in [SWITCHMASTER, WITHOUT_SPARES, CLOSING, HAPROXY_TCP] {
        let running = subject.start(&[sentinel.addr()], far.addr);
        let churned = churn(&running, &mut direct, size.rate, seconds);
        let failed = churned.flooded.failed();
        part.row(row(subject.label, &churned, None));
        part.expect(
            failed == 0,
            format!(
                "{}: {failed} errors: {:?}",
                subject.label, churned.flooded.errors
            ),
        );
    }
    let flood = Flood::start(get(far.addr, size.rate));
    thread::sleep(DIRECT.min(seconds));
    let flooded = flood.stop();
    let mut cells = vec![Cell::None; columns().len()];
    cells[0] = "no proxy".into();
    cells[1] = Cell::Number(flooded.per_second(), 0);
    cells[2] = flooded.micros.len().into();
    cells[3] = flooded.failed().into();
    cells[5] = flooded.quantile_ms(500).into();
    cells[6] = flooded.quantile_ms(990).into();
    part.row(cells);
    part.note("the way is a relay that keeps bytes back; its clock rounds up to whole milliseconds: compare with \"no proxy\"");
    part
}

/// The relay, on a thread of its own; ends with its value.
struct Way {
    addr: SocketAddr,
    _end: DropGuard,
}

impl Way {
    fn to(master: SocketAddr) -> Self {
        let (tell, told) = sync_channel(1);
        let end = CancellationToken::new();
        let ended = end.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let addr = listener.local_addr().expect("bound");
                tell.send(addr).expect("waited for below");
                ended.run_until_cancelled(accept(listener, master)).await;
            });
        });
        Self {
            addr: told.recv().expect("told above"),
            _end: end.drop_guard(),
        }
    }
}

async fn accept(listener: TcpListener, master: SocketAddr) {
    loop {
        if let Ok((near, _)) = listener.accept().await {
            // A connection that fails is closed, which its peer sees.
            spawn_local(async move { drop(join(near, master).await) });
        }
    }
}

async fn join(near: TcpStream, master: SocketAddr) -> io::Result<()> {
    let opened = Instant::now() + ONE_WAY * 2;
    let far = TcpStream::connect(master).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    tokio::join!(
        carry(near_reads, far_writes, opened),
        carry(far_reads, near_writes, opened)
    );
    Ok(())
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, opened: Instant) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let departing = async move {
        let mut buffer = vec![0; PIECE];
        // An end and a reset travel alike.
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now().max(opened) + ONE_WAY;
            if depart.send((due, buffer[..n].to_vec())).await.is_err() {
                return;
            }
        }
        let due = Instant::now().max(opened) + ONE_WAY;
        drop(depart.send((due, Vec::new())).await);
    };
    let arriving = async move {
        while let Some((due, bytes)) = arrive.recv().await {
            sleep_until(due).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(departing, arriving);
}
