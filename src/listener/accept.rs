//! The accept loop: who comes in, who is turned away, and what happens when the kernel has nothing to give.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bind::{Bound, SocketFile};
use super::conveyed::Conveyed;
use super::header::{self, NoHeader};
use super::places::{Ceiling, Ticket};
use super::refusal::{Refusal, Trouble};
use super::sources::{FromSource, Sources};
use super::{Config, overflow_uid};
use crate::net::backoff::Backoff;
use crate::net::clock::now;
use crate::net::counter::Counter;
use crate::net::rarely::Rarely;
use crate::net::socket;
use crate::net::stream::Stream;
use crate::net::tls::{Acceptor, Refused};

/// Shortest and longest pause when the kernel has no descriptor or memory left.
const PAUSE_FLOOR: Duration = Duration::from_millis(10);
const PAUSE_CAP: Duration = Duration::from_millis(500);
/// Connections accepted in a row before the sessions of the same thread have their turn.
const BATCH: usize = 32;
/// Connections of balancers whose header is awaited, at one listener; more are closed.
const HEADERS_AWAITED: usize = 1024;
/// Longest wait for them when the listener is closed.
const LAST_HEADERS: Duration = Duration::from_millis(200);

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
    max_per_source: usize,
    max_anywhere: usize,
    allowed_uids: Vec<u32>,
    proxy_protocol_from: Vec<IpNet>,
    tls: Option<Arc<Acceptor>>,
    /// Whoever is asked to prove who it is may come from anywhere.
    open: bool,
}

impl Terms {
    fn of(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            allow_from: config.allow_from.clone(),
            max_connections: config.max_connections,
            max_per_source: config.max_per_source,
            max_anywhere: config.max_anywhere,
            allowed_uids: config.allowed_uids.clone(),
            proxy_protocol_from: config.proxy_protocol_from.clone(),
            tls: config.tls.clone().map(Arc::new),
            open: config.allow_from.is_empty() && config.demands_certificates(),
        })
    }

    /// How whoever comes in by these terms is met.
    fn greeting(&self, peer: Peer) -> Option<Greeting> {
        let tls = Arc::clone(self.tls.as_ref()?);
        Some(Greeting { tls, peer })
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

    /// How many were closed for that, in the order of [`Refused::ALL`].
    pub(crate) fn tls_refusals(&self) -> [u64; Refused::ALL.len()] {
        Refused::ALL.map(|refused| self.tls_refused[refused.index()].load(Ordering::Relaxed))
    }

    /// Counts and tells that a client was closed before it was served, for what TLS has against it.
    pub(crate) fn no_tls(&self, refused: Refused, peer: Peer) {
        self.tls_refused[refused.index()].fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.tls_log[refused.index()].allow(now()) {
            warn!(
                event = "tls_refused", proxy = %self.name, reason = refused.label(), count,
                "closed a connection from {peer}: {}", refused.advice()
            );
        }
    }

    /// Counts and tells that a connection was closed because no worker could take it.
    pub(crate) fn no_worker(&self) {
        self.refuse(Refusal::NoWorker, None);
    }

    pub(super) fn refuse(&self, refusal: Refusal, peer: Option<Peer>) {
        match refusal {
            Refusal::NotAllowed | Refusal::NotAUser | Refusal::UnknownUser | Refusal::NoHeader => {
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
            (
                Refusal::NotAllowed | Refusal::NotAUser | Refusal::SourceFull | Refusal::NoHeader,
                Some(peer),
            ) => warn!(
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
    /// From where it was said to come then, or else comes, it counts as any; where there are too many, it stays.
    pub(crate) fn admit(&self, client: &impl AsFd, conveyed: Option<IpAddr>) -> Entrance {
        let limit = self.terms.load().max_per_source;
        let from = conveyed.or_else(|| socket::peer(client));
        let counted = match from {
            Some(from) if limit > 0 => self.sources.enter(from, usize::MAX),
            _ => None,
        };
        // One of those who are expected.
        let less = |coming: usize| Some(coming.saturating_sub(1));
        let coming = &self.ceiling.coming;
        let _ = coming.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        Entrance {
            origin: Origin::of(conveyed, counted),
            _here: Ticket::new(&self.inside),
            _anywhere: Ticket::new(&self.ceiling.inside),
        }
    }

    pub(super) fn enter(
        &self,
        local: bool,
        peer: Peer,
    ) -> Result<(Entrance, Option<Greeting>), Refusal> {
        let terms = self.terms.load();
        let counted = self.identify(&terms, local, peer)?;
        let mut entrance = self.place(&terms)?;
        entrance.origin = Origin::of(None, counted);
        Ok((entrance, terms.greeting(peer)))
    }

    /// May it come in, as far as it counts who it is?
    fn identify(
        &self,
        terms: &Terms,
        local: bool,
        peer: Peer,
    ) -> Result<Option<FromSource>, Refusal> {
        match peer {
            Peer::At(ip) => {
                if !terms.open && !admits(&terms.allow_from, local, ip) {
                    return Err(Refusal::NotAllowed);
                }
                if terms.max_per_source == 0 {
                    return Ok(None);
                }
                let entered = self.sources.enter(ip, terms.max_per_source);
                entered.map(Some).ok_or(Refusal::SourceFull)
            }
            Peer::User(uid) => may_user(&terms.allowed_uids, uid, overflow_uid()).map(|()| None),
        }
    }

    /// Is there room, whoever it is?
    fn place(&self, terms: &Terms) -> Result<Entrance, Refusal> {
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
            origin: None,
            _here: here,
            _anywhere: anywhere,
        })
    }

    /// It is a balancer that says whom it speaks for.
    fn is_balancer(&self, peer: Peer) -> bool {
        let terms = self.terms.load();
        match peer {
            Peer::At(ip) => contains(&terms.proxy_protocol_from, ip),
            Peer::User(_) => false,
        }
    }

    /// Lets a client of this balancer in once it is known who that is.
    pub(super) async fn introduce(
        self: Arc<Self>,
        mut stream: TcpStream,
        local: bool,
        balancer: Peer,
    ) -> Option<Accepted> {
        let introduced = async {
            let mut entrance = self.place(&self.terms.load())?;
            let header = header::read(&mut stream).await;
            let terms = self.terms.load();
            let peer = match header {
                Ok(Conveyed::From(ip)) => {
                    debug!(event = "client_conveyed", proxy = %self.name, "{balancer} speaks for {}", Peer::At(ip));
                    let peer = Peer::At(ip);
                    let counted = self.identify(&terms, false, peer).inspect_err(|refusal| {
                        self.refuse(*refusal, Some(peer));
                    })?;
                    entrance.origin = Origin::of(Some(ip), counted);
                    peer
                }
                // As for a health check.
                Ok(Conveyed::Itself) => balancer,
                // Clients of whom it knows nothing: they are let in as itself, or not at all.
                Ok(Conveyed::Unknown) => {
                    let counted =
                        self.identify(&terms, local, balancer)
                            .inspect_err(|refusal| {
                                self.refuse(*refusal, Some(balancer));
                            })?;
                    entrance.origin = Origin::of(None, counted);
                    balancer
                }
                Err(NoHeader::Other | NoHeader::Late) => return Err(Refusal::NoHeader),
            };
            Ok((entrance, terms.greeting(peer)))
        };
        match introduced.await {
            Ok((entrance, greeting)) => {
                return Some(Accepted {
                    stream: Stream::Tcp(stream),
                    entrance,
                    greeting,
                });
            }
            // Told already, with the address that was refused.
            Err(Refusal::NotAllowed | Refusal::SourceFull) => {}
            Err(refusal) => self.refuse(refusal, Some(balancer)),
        }
        None
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

/// Counts one connection at its entry and under the ceiling of all.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// In a box: most have none.
    origin: Option<Box<Origin>>,
    _here: Ticket,
    _anywhere: Ticket,
}

/// Where a connection comes from, as far as anybody has to know.
#[derive(Debug)]
struct Origin {
    conveyed: Option<IpAddr>,
    _counted: Option<FromSource>,
}

impl Origin {
    fn of(conveyed: Option<IpAddr>, counted: Option<FromSource>) -> Option<Box<Self>> {
        (conveyed.is_some() || counted.is_some()).then(|| {
            Box::new(Self {
                conveyed,
                _counted: counted,
            })
        })
    }
}

impl Entrance {
    /// From where a balancer says that the client comes.
    pub(crate) fn conveyed(&self) -> Option<IpAddr> {
        self.origin.as_ref().and_then(|origin| origin.conveyed)
    }
}

/// A connection that may come in.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Registered with the runtime that accepted it.
    pub(crate) stream: Stream,
    pub(crate) entrance: Entrance,
    pub(crate) greeting: Option<Greeting>,
}

/// How a client is met that has to come with TLS: as the terms say that let it in, whatever has been changed since.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) tls: Arc<Acceptor>,
    /// Who it is, for people.
    pub(crate) peer: Peer,
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
    // Those whose header is awaited; dropped, they are closed.
    let mut introduced = JoinSet::new();
    loop {
        if stop.is_cancelled() {
            break;
        }
        if !door.ceiling.reserve.restore() {
            door.waits_for_reserve();
            rest(&mut backoff, stop).await;
            continue;
        }
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            Some(client) = introduced.join_next() => {
                if let Ok(Some(accepted)) = client {
                    deal(accepted).await;
                }
                continue;
            }
            accepted = listening.accept() => accepted,
        };
        match accepted {
            Ok((Stream::Tcp(stream), peer)) if door.is_balancer(peer) => {
                backoff.reset();
                if introduced.len() < HEADERS_AWAITED {
                    introduced.spawn(Arc::clone(&door).introduce(stream, local, peer));
                } else {
                    door.refuse(Refusal::NoHeader, Some(peer));
                }
            }
            Ok((stream, peer)) => {
                backoff.reset();
                match door.enter(local, peer) {
                    Ok((entrance, greeting)) => {
                        let accepted = Accepted {
                            stream,
                            entrance,
                            greeting,
                        };
                        deal(accepted).await;
                    }
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
    // A balancer sends its header at once: whoever was accepted is dealt.
    let rest = async {
        while let Some(client) = introduced.join_next().await {
            if let Ok(Some(accepted)) = client {
                deal(accepted).await;
            }
        }
    };
    // The others are closed.
    let _ = timeout(LAST_HEADERS, rest).await;
    Ok(())
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
                let uid = stream
                    .peer_cred()
                    .map_or_else(|_| overflow_uid(), |peer| peer.uid());
                Ok((Stream::Unix(stream), Peer::User(uid)))
            }
        }
    }
}

/// Who connects, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Over TCP.
    At(IpAddr),
    /// Over a unix socket.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As it is written in `allow_from`.
            Self::At(ip) => ip.to_canonical().fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// May this user connect to a unix socket? One is nobody's.
pub(super) fn may_user(allowed: &[u32], uid: u32, nobodys: u32) -> Result<(), Refusal> {
    match allowed {
        [] => Ok(()),
        // It may be anybody.
        _ if uid == nobodys => Err(Refusal::UnknownUser),
        _ if allowed.contains(&uid) => Ok(()),
        _ => Err(Refusal::NotAUser),
    }
}

/// May this TCP peer connect? Where nobody is named, this host itself may, on a loopback listener. Whoever names somebody means it.
pub(super) fn admits(allow_from: &[IpNet], local: bool, peer: IpAddr) -> bool {
    if allow_from.is_empty() {
        local && peer.to_canonical().is_loopback()
    } else {
        contains(allow_from, peer)
    }
}

fn contains(networks: &[IpNet], peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    networks.iter().any(|net| net.contains(&peer))
}
