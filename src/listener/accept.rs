//! The accept loop: who comes in, who is turned away, and what happens when the kernel has nothing to give.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use rustix::io::Errno;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::bind::{Bound, SocketFile};
use super::sources::{FromSource, Sources};
use super::{Config, OVERFLOW_UID};
use crate::net::backoff::Backoff;
use crate::net::clock::now;
use crate::net::counter::Counter;
use crate::net::rarely::Rarely;
use crate::net::reserve::Reserve;
use crate::net::stream::Stream;

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
    /// Peers beyond `max_connections_per_source`.
    pub(crate) source_full: Counter,
    sources: Arc<Sources>,
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
    max_per_source: usize,
    max_anywhere: usize,
    allowed_uids: Vec<u32>,
}

impl Terms {
    fn of(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            allow_from: config.allow_from.clone(),
            max_connections: config.max_connections,
            max_per_source: config.max_per_source,
            max_anywhere: config.max_anywhere,
            allowed_uids: config.allowed_uids.clone(),
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
            source_full: Counter::default(),
            sources: Arc::default(),
            error_log: Default::default(),
            refusal_log: Default::default(),
            reserve_log: Rarely::default(),
        }
    }

    /// From the next connection on these say who may come in, and how many. Whoever is in stays.
    pub(crate) fn change(&self, config: &Config) {
        self.terms.store(Terms::of(config));
    }

    /// Counts and tells that a connection was closed because no worker could take it.
    pub(crate) fn no_worker(&self) {
        self.refuse(Refusal::NoWorker, None);
    }

    pub(super) fn refuse(&self, refusal: Refusal, peer: Option<Peer>) {
        match refusal {
            Refusal::NotAllowed | Refusal::NotAUser | Refusal::UnknownUser => {
                self.not_allowed.add(1);
            }
            Refusal::Full | Refusal::FullAnywhere | Refusal::OpenFiles | Refusal::NoWorker => {
                self.full.add(1);
            }
            Refusal::SourceFull => self.source_full.add(1),
        }
        let Some(count) = self.refusal_log[refusal as usize].allow(now()) else {
            return;
        };
        let (proxy, reason) = (&self.name, refusal.label());
        match (refusal, peer) {
            (Refusal::NotAllowed | Refusal::NotAUser | Refusal::SourceFull, Some(peer)) => warn!(
                event = "client_refused", %proxy, reason, count,
                "closed a connection from {peer}: {}", refusal.advice()
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
            _source: None,
            _here: Ticket::new(&self.inside),
            _anywhere: Ticket::new(&self.ceiling.inside),
        }
    }

    fn enter(&self, local: bool, peer: Peer) -> Result<Entrance, Refusal> {
        let terms = self.terms.load();
        let mut source = None;
        match peer {
            Peer::At(ip) => {
                if !admits(&terms.allow_from, local, ip) {
                    return Err(Refusal::NotAllowed);
                }
                if terms.max_per_source > 0 {
                    let entered = self.sources.enter(ip, terms.max_per_source);
                    source = Some(Box::new(entered.ok_or(Refusal::SourceFull)?));
                }
            }
            Peer::User(uid) => may_user(&terms.allowed_uids, uid)?,
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
        if terms.max_anywhere > 0 && anywhere.number > terms.max_anywhere {
            return Err(Refusal::FullAnywhere);
        }
        Ok(Entrance {
            _source: source,
            _here: here,
            _anywhere: anywhere,
        })
    }

    /// Three quarters of the places are taken.
    pub(crate) fn is_crowded(&self) -> bool {
        let terms = self.terms.load();
        let here = self.inside.load(Ordering::Relaxed);
        let anywhere = self.ceiling.inside.load(Ordering::Relaxed);
        let is_tight = |taken: usize, most: usize| most > 0 && taken > most - most.div_ceil(4);
        is_tight(here, terms.max_connections)
            || is_tight(anywhere, terms.max_anywhere)
            || is_tight(anywhere, self.ceiling.most)
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
    /// In a box: most have none.
    _source: Option<Box<FromSource>>,
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
    FullAnywhere,
    SourceFull,
    NotAUser,
    UnknownUser,
}

impl Refusal {
    /// Every refusal once, in order.
    pub(super) const ALL: [Self; 8] = [
        Self::NotAllowed,
        Self::Full,
        Self::OpenFiles,
        Self::NoWorker,
        Self::FullAnywhere,
        Self::SourceFull,
        Self::NotAUser,
        Self::UnknownUser,
    ];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Full => "max_connections",
            Self::OpenFiles => "open_files",
            Self::NoWorker => "no_worker",
            Self::FullAnywhere => "max_connections_in_all",
            Self::SourceFull => "max_connections_per_source",
            Self::NotAUser => "uid_not_allowed",
            Self::UnknownUser => "uid_unknown",
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
            Self::FullAnywhere => {
                "as many are open over all entries as may be: raise `max_connections` in [limits] if there may be more"
            }
            Self::SourceFull => {
                "as many are open from there as may be: raise `max_connections_per_source` if there may be more"
            }
            Self::NotAUser => "add the user to `allowed_uids` if it may connect",
            Self::UnknownUser => {
                "the kernel does not say which user it is (uid 65534: one of another user namespace, as in a container, or PrivateUsers= \
                 in the unit), so `allowed_uids` cannot let it in"
            }
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
                    Err(refusal) => door.refuse(refusal, Some(peer)),
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
    /// The next connection, and who it is.
    async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((Stream::Tcp(stream), Peer::At(peer.ip())))
            }
            Self::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                let uid = stream.peer_cred().map_or(OVERFLOW_UID, |peer| peer.uid());
                Ok((Stream::Unix(stream), Peer::User(uid)))
            }
        }
    }
}

/// Who connects, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Over TCP.
    At(IpAddr),
    /// Over a unix socket.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(ip) => ip.fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// May this user connect to a unix socket?
pub(super) fn may_user(allowed: &[u32], uid: u32) -> Result<(), Refusal> {
    match allowed {
        [] => Ok(()),
        // It may be anybody.
        _ if uid == OVERFLOW_UID => Err(Refusal::UnknownUser),
        _ if allowed.contains(&uid) => Ok(()),
        _ => Err(Refusal::NotAUser),
    }
}

/// May this TCP peer connect? On a loopback listener this host itself always may.
pub(super) fn admits(allow_from: &[IpNet], local: bool, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    (local && peer.is_loopback()) || allow_from.iter().any(|net| net.contains(&peer))
}
