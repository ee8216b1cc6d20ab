//! The accept loop: who comes in, who is turned away, and what happens when the kernel has nothing to give.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Config;
use super::bind::{Bound, SocketFile};
use crate::net::backoff::Backoff;
use crate::net::clock::now;
use crate::net::counter::Counter;
use crate::net::rarely::Rarely;
use crate::net::reserve::Reserve;
use crate::net::stream::Stream;
use crate::net::tls::{Acceptor, Refused};

/// Shortest and longest pause when the kernel has no descriptor or memory left.
const PAUSE_FLOOR: Duration = Duration::from_millis(10);
const PAUSE_CAP: Duration = Duration::from_millis(500);
/// Connections accepted in a row before the sessions of the same thread have their turn.
const BATCH: usize = 32;

/// What the listeners of one proxy entry share: who may come in, how many are in, and what went wrong.
#[derive(Debug)]
pub(crate) struct Door {
    name: Arc<str>,
    /// Looked at once for each connection.
    terms: ArcSwap<Terms>,
    inside: Arc<AtomicUsize>,
    ceiling: Ceiling,
    /// Failed calls of `accept(2)`.
    pub(crate) accept_errors: Counter,
    /// Peers that `allow_from` does not name.
    pub(crate) not_allowed: Counter,
    /// Peers beyond `max_connections` or the ceiling, or that no worker could take.
    pub(crate) full: Counter,
    /// Clients that were closed for what TLS has against them, by [`Refused`].
    tls_refused: [AtomicU64; Refused::ALL.len()],
    tls_log: [Rarely; Refused::ALL.len()],
    /// One for each kind: what is counted in a line happened for the reason it names.
    error_log: [Rarely; Trouble::ALL.len()],
    refusal_log: [Rarely; Refusal::ALL.len()],
    reserve_log: Rarely,
}

/// Who may come in, and how many.
#[derive(Debug)]
struct Terms {
    allow_from: Vec<IpNet>,
    max_connections: usize,
    tls: Option<Acceptor>,
    /// Whoever is asked to prove who it is may come from anywhere.
    open: bool,
}

impl Terms {
    fn of(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            allow_from: config.allow_from.clone(),
            max_connections: config.max_connections,
            tls: config.tls.clone(),
            open: config.allow_from.is_empty() && config.demands_certificates(),
        })
    }
}

impl Door {
    pub(crate) fn new(name: Arc<str>, config: &Config, ceiling: Ceiling) -> Self {
        Self {
            name,
            terms: ArcSwap::new(Terms::of(config)),
            inside: Arc::default(),
            ceiling,
            accept_errors: Counter::default(),
            not_allowed: Counter::default(),
            full: Counter::default(),
            tls_refused: Default::default(),
            tls_log: Default::default(),
            error_log: Default::default(),
            refusal_log: Default::default(),
            reserve_log: Rarely::default(),
        }
    }

    /// From the next connection on these say who may come in, and how many. Whoever is in stays.
    pub(crate) fn change(&self, config: &Config) {
        self.terms.store(Terms::of(config));
    }

    /// How whoever comes in now is met; `None` is without TLS.
    pub(crate) fn tls(&self) -> Option<Acceptor> {
        self.terms.load().tls.clone()
    }

    /// How many were closed for that, in the order of [`Refused::ALL`].
    pub(crate) fn tls_refusals(&self) -> [u64; Refused::ALL.len()] {
        Refused::ALL.map(|refused| self.tls_refused[refused.index()].load(Ordering::Relaxed))
    }

    /// Counts and tells that a client was closed before it was served, for what TLS has against it.
    pub(crate) fn no_tls(&self, refused: Refused) {
        self.tls_refused[refused.index()].fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.tls_log[refused.index()].allow(now()) {
            warn!(
                event = "tls_refused", proxy = %self.name, reason = refused.label(), count,
                "closed a new connection: {}", refused.advice()
            );
        }
    }

    /// Counts and tells that a connection was closed because no worker could take it.
    pub(crate) fn no_worker(&self) {
        self.refuse(Refusal::NoWorker, None);
    }

    pub(super) fn refuse(&self, refusal: Refusal, peer: Option<SocketAddr>) {
        match refusal {
            Refusal::NotAllowed => self.not_allowed.add(1),
            Refusal::Full | Refusal::OpenFiles | Refusal::NoWorker => self.full.add(1),
        }
        let Some(count) = self.refusal_log[refusal as usize].allow(now()) else {
            return;
        };
        let (proxy, reason) = (&self.name, refusal.label());
        match (refusal, peer) {
            (Refusal::NotAllowed, Some(peer)) => warn!(
                event = "client_refused", %proxy, reason, count,
                "closed a connection from {}: add it to `allow_from` if it may connect", peer.ip()
            ),
            _ => warn!(
                event = "client_refused", %proxy, reason, count,
                "closed a new connection: {}", refusal.advice()
            ),
        }
    }

    pub(super) fn failed(&self, trouble: Trouble, error: &io::Error) {
        self.accept_errors.add(1);
        if let Some(count) = self.error_log[trouble as usize].allow(now()) {
            warn!(
                event = "accept_failed", proxy = %self.name, count,
                "cannot accept a connection ({error}): {}", trouble.advice()
            );
        }
    }

    fn waits_for_reserve(&self) {
        if let Some(count) = self.reserve_log.allow(now()) {
            warn!(
                event = "accept_paused", proxy = %self.name, count,
                "no connections are accepted: the file descriptors kept back for the control plane are in use; {}",
                Trouble::ProcessFiles.advice()
            );
        }
    }

    /// Lets in who was let in before, by another process.
    pub(crate) fn admit(&self) -> Entrance {
        // One of those who are expected.
        let less = |coming: usize| Some(coming.saturating_sub(1));
        let coming = &self.ceiling.coming;
        let _ = coming.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Entrance {
            _here: Ticket::new(&self.inside),
            _anywhere: Ticket::new(&self.ceiling.inside),
        }
    }

    fn enter(&self, local: bool, peer: Option<SocketAddr>) -> Result<Entrance, Refusal> {
        let terms = self.terms.load();
        if let Some(peer) = peer
            && !terms.open
            && !admits(&terms.allow_from, local, peer.ip())
        {
            return Err(Refusal::NotAllowed);
        }
        let here = Ticket::new(&self.inside);
        if terms.max_connections > 0 && here.number > terms.max_connections {
            return Err(Refusal::Full);
        }
        let anywhere = Ticket::new(&self.ceiling.inside);
        let coming = self.ceiling.coming.load(Ordering::Relaxed);
        if anywhere.number.saturating_add(coming) > self.ceiling.most {
            return Err(Refusal::OpenFiles);
        }
        Ok(Entrance {
            _here: here,
            _anywhere: anywhere,
        })
    }
}

/// How many connections there may be over all entries. Sessions that took the last descriptor would leave none to
/// ask a new master for its role with.
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    inside: Arc<AtomicUsize>,
    most: usize,
    /// Places that are kept for sessions of the process that this one follows.
    coming: Arc<AtomicUsize>,
    /// Comes first: while some of it is lent, what comes free is not for clients.
    reserve: Reserve,
}

impl Ceiling {
    /// `None` is as many as come.
    pub(crate) fn new(most: Option<u64>, reserve: &Reserve) -> Self {
        Self {
            inside: Arc::default(),
            most: most.map_or(usize::MAX, |most| {
                usize::try_from(most).unwrap_or(usize::MAX)
            }),
            coming: Arc::default(),
            reserve: reserve.clone(),
        }
    }

    /// Keeps so many places for those who are let in without a question.
    pub(crate) fn expect(&self, sessions: u64) {
        let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
        self.coming.store(sessions, Ordering::Relaxed);
    }
}

/// One of the connections inside; dropping it leaves.
#[derive(Debug)]
pub(crate) struct Ticket {
    inside: Arc<AtomicUsize>,
    number: usize,
}

impl Ticket {
    /// Enters where so many are counted.
    pub(crate) fn new(inside: &Arc<AtomicUsize>) -> Self {
        Self {
            inside: Arc::clone(inside),
            number: inside.fetch_add(1, Ordering::Relaxed) + 1,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one connection at its entry and under the ceiling of all.
#[derive(Debug)]
pub(crate) struct Entrance {
    _here: Ticket,
    _anywhere: Ticket,
}

/// A connection that may come in.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Registered with the runtime that accepted it.
    pub(crate) stream: Stream,
    pub(crate) entrance: Entrance,
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotAllowed,
    Full,
    OpenFiles,
    NoWorker,
}

impl Refusal {
    /// Every refusal once, in order.
    pub(super) const ALL: [Self; 4] = [
        Self::NotAllowed,
        Self::Full,
        Self::OpenFiles,
        Self::NoWorker,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Full => "max_connections",
            Self::OpenFiles => "open_files",
            Self::NoWorker => "no_worker",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::NotAllowed => "add its address to `allow_from` if it may connect",
            Self::Full => {
                "as many are open as may be: raise `max_connections` if there may be more (the admin endpoint has 64)"
            }
            Self::OpenFiles => {
                "there are as many sessions as the limit of open files allows, two files a session; raise LimitNOFILE in the unit (or `ulimit -n`)"
            }
            Self::NoWorker => "no worker took it; raise `[limits] workers` if this goes on",
        }
    }
}

/// What an error of `accept(2)` means for the loop. None of them ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// This one connection is lost; the next may be fine.
    Connection,
    /// No descriptor left in this process.
    ProcessFiles,
    /// No descriptor or memory left on this machine.
    MachineResources,
    /// Anything that may last.
    Listener,
}

impl Trouble {
    /// Every trouble once, in order.
    pub(super) const ALL: [Self; 4] = [
        Self::Connection,
        Self::ProcessFiles,
        Self::MachineResources,
        Self::Listener,
    ];

    pub(super) fn of(error: &io::Error) -> Self {
        let Some(errno) = Errno::from_io_error(error) else {
            return Self::Listener;
        };
        match errno {
            // accept(2): errors of the network already pending on the new socket are to be treated like EAGAIN.
            Errno::CONNABORTED
            | Errno::INTR
            | Errno::PERM
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::OPNOTSUPP
            | Errno::NETUNREACH => Self::Connection,
            Errno::MFILE => Self::ProcessFiles,
            Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::MachineResources,
            _ => Self::Listener,
        }
    }

    /// Trying again at once would burn a core for the same answer.
    pub(super) const fn pauses(self) -> bool {
        !matches!(self, Self::Connection)
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::Connection => "the client gave up before it was accepted; nothing to do",
            Self::ProcessFiles => {
                "every file descriptor is in use, two a session; raise LimitNOFILE in the unit (or `ulimit -n`)"
            }
            Self::MachineResources => {
                "the machine is out of file descriptors or socket memory; raise fs.file-max or free memory"
            }
            Self::Listener => "the listening socket fails; connections that are open go on",
        }
    }
}

/// Accepts until it is to stop, and deals what may come in: whoever was accepted is dealt. Ends otherwise only when the runtime
/// refuses to watch the socket.
///
/// # Errors
/// When `bound` cannot be registered with this thread's runtime.
pub(crate) async fn serve<F>(
    bound: Bound,
    door: Arc<Door>,
    stop: &CancellationToken,
    mut deal: impl FnMut(Accepted) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()>,
{
    let local = bound.addr().is_local();
    let listening = bound.listen()?;
    let mut backoff = Backoff::new(PAUSE_FLOOR, PAUSE_CAP);
    let mut batch = 0;
    // Once, and not for each connection.
    let mut stopped = pin!(stop.cancelled());
    loop {
        if stop.is_cancelled() {
            return Ok(());
        }
        if !door.ceiling.reserve.restore() {
            door.waits_for_reserve();
            rest(&mut backoff, stop).await;
            continue;
        }
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => return Ok(()),
            accepted = listening.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                backoff.reset();
                match door.enter(local, peer) {
                    Ok(entrance) => deal(Accepted { stream, entrance }).await,
                    Err(refusal) => door.refuse(refusal, peer),
                }
            }
            Err(error) => {
                let trouble = Trouble::of(&error);
                door.failed(trouble, &error);
                if trouble.pauses() {
                    rest(&mut backoff, stop).await;
                }
            }
        }
        batch += 1;
        if batch >= BATCH {
            batch = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Pauses, unless it is to stop.
async fn rest(backoff: &mut Backoff, stop: &CancellationToken) {
    let pause = tokio::time::sleep(backoff.next(fastrand::f64()));
    stop.run_until_cancelled(pause).await;
}

/// A listening socket that a runtime watches.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix {
        socket: UnixListener,
        /// Removed when listening ends, if we made it.
        _file: Option<Arc<SocketFile>>,
    },
}

impl Listening {
    /// The next connection; its address where it has one that says something.
    async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }
}

/// May this TCP peer connect? On a loopback listener this host itself always may.
pub(super) fn admits(allow_from: &[IpNet], local: bool, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    (local && peer.is_loopback()) || allow_from.iter().any(|net| net.contains(&peer))
}
