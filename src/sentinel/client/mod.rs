//! One conversation with a Sentinel, or with a claimed master about its role.
//!
//! The only file that names the redis crate, which is the protocol layer here and nothing more: it is given a stream
//! we dialled ourselves, and each of its answers has our deadline. It never decides, and the bytes of
//! clients never pass it.
//!
//! A Sentinel of Redis 6 or newer gets one RESP3 link that subscribes and answers; an older one (no HELLO) gets two
//! RESP2 links, because a subscribed RESP2 connection takes no other questions.

mod error;
pub mod inspect;
mod listen;
pub mod listing;
mod reply;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{
    AsyncConnectionConfig, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult,
    Value,
};
use rustix::io::Errno;
use secrecy::ExposeSecret;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use self::error::ClientError;
use self::listen::{Events, OwnEvents};
pub use self::listen::{Listening, RawEvent};
use self::reply::{
    printable, pushed_event, read_detail, read_peer, read_replicas, read_view, text,
};
use super::metered::{MAX_UNREAD, Meter, Metered};
use super::{Credentials, Peer};
use crate::net::addr::HostPort;
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::net::stream::Stream;
use crate::net::tls::Connector;
use crate::topology::observation::{NoView, ReplicaSeen, RoleDetail, RoleReport, RunId, View};

/// Longest wait for one answer.
pub const REPLY_TIMEOUT: Duration = Duration::from_millis(500);
/// Events waiting to be looked at. More are dropped: each one here makes us ask, which tells more than the event.
const MAX_EVENTS: usize = 256;
/// Masters asked about in one write.
const MAX_ASKED_AT_ONCE: usize = 32;
/// Most other Sentinels taken from one reply.
const MAX_PEERS: usize = 64;
/// Keepalive of control-plane links: they also carry a question each second or five.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How to reach a peer of the control plane.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Longest wait for the TCP connection.
    pub connect_timeout: Duration,
    /// Login, if any.
    pub credentials: Credentials,
    /// How the peer is met; `None` is without TLS.
    pub tls: Option<Connector>,
    /// Names to addresses.
    pub resolver: Resolver,
    /// What to fall back on where there is no descriptor.
    pub reserve: Reserve,
    /// Where the tasks that drive links are started.
    pub tasks: TaskTracker,
}

/// A link to one Sentinel: questions, and (unless denied) events. Two halves, so that no event waits for an answer.
#[derive(Debug)]
pub struct SentinelLink {
    /// Takes questions.
    pub asking: Asking,
    /// Tells of events.
    pub listening: Listening,
}

/// The half of a link that takes questions.
#[derive(Debug)]
pub struct Asking(Connection);

impl SentinelLink {
    /// Dials, logs in, subscribes. Ask only afterwards: what happens between is then an event.
    ///
    /// # Errors
    /// When the Sentinel cannot be reached, refuses the login or does not answer in time. A refused SUBSCRIBE is no
    /// error, see [`Listening::subscribed`].
    pub async fn open(
        addr: &HostPort,
        dial: &Dial,
        channels: &[&str],
    ) -> Result<Self, ClientError> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        let login = &dial.credentials;
        match Connection::open(addr, dial, login, ProtocolVersion::RESP3, Some(sender)).await {
            Ok(mut questions) => {
                let subscribe = questions.connection.subscribe(channels);
                let subscribed = answer("subscribing", subscribe).await;
                let events = match subscribed {
                    Ok(()) => Events::Same(receiver),
                    Err(ClientError::NoPermission(why)) => Events::Denied(why),
                    Err(e) => return Err(e),
                };
                Ok(Self::new(questions, events))
            }
            // Sentinels before Redis 6 know no HELLO; a user without +hello is told NOPERM.
            Err(ClientError::Protocol(_) | ClientError::NoPermission(_)) => {
                Self::open_two(addr, dial, channels).await
            }
            Err(e) => Err(e),
        }
    }

    async fn open_two(
        addr: &HostPort,
        dial: &Dial,
        channels: &[&str],
    ) -> Result<Self, ClientError> {
        let login = &dial.credentials;
        let questions = Connection::open(addr, dial, login, ProtocolVersion::RESP2, None).await?;
        let (stream, meter) = Metered::new(connect(addr, dial).await?.0, dial.tls.as_ref());
        let info = connection_info(&dial.credentials, ProtocolVersion::RESP2);
        let opened = log_in(login, PubSub::new(&info, stream)).await;
        let mut pubsub = opened.map_err(|e| e.explained(&meter))?;
        let events = match answer("subscribing", pubsub.subscribe(channels)).await {
            Ok(()) => Events::Own(Box::new(OwnEvents { pubsub, meter })),
            Err(ClientError::NoPermission(why)) => Events::Denied(why),
            Err(e) => return Err(e),
        };
        Ok(Self::new(questions, events))
    }

    fn new(questions: Connection, events: Events) -> Self {
        let listening = Listening::new(events, questions.meter.clone());
        Self {
            asking: Asking(questions),
            listening,
        }
    }
}

impl Asking {
    /// The Sentinel's run id (SENTINEL MYID), `None` where the user may not ask for it.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn my_id(&mut self) -> Result<Option<RunId>, ClientError> {
        match self.0.ask(redis::cmd("SENTINEL").arg("MYID")).await {
            Ok(value) => Ok(text(&value).and_then(|t| RunId::parse(&t))),
            Err(ClientError::NoPermission(_) | ClientError::Protocol(_)) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What this Sentinel says of each of these masters, in that order.
    ///
    /// All questions go in one write (of 32 masters at most), and of each master SENTINEL MASTER first: a failover
    /// between its two answers then shows as the old epoch with the new address, which is asked again, and never as the old
    /// address with the new epoch.
    ///
    /// # Errors
    /// The outer error: the link fails. The inner: this Sentinel has no usable answer.
    pub async fn views(
        &mut self,
        masters: &[&str],
    ) -> Result<Vec<Result<View, NoView>>, ClientError> {
        let mut views = Vec::with_capacity(masters.len());
        for masters in masters.chunks(MAX_ASKED_AT_ONCE) {
            let mut pipe = redis::pipe();
            for master in masters {
                pipe.cmd("SENTINEL").arg("MASTER").arg(*master);
                pipe.cmd("SENTINEL")
                    .arg("GET-MASTER-ADDR-BY-NAME")
                    .arg(*master);
            }
            let mut answers = self.0.ask_pipe(&pipe).await?.into_iter();
            for _ in masters {
                let (Some(details), Some(address)) = (answers.next(), answers.next()) else {
                    return Err(fewer_answers());
                };
                views.push(view_in(&details, &address)?);
            }
        }
        Ok(views)
    }

    /// The other Sentinels that this one knows for each of these masters (SENTINEL SENTINELS), in that order; none where it may
    /// not be asked.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn peers(&mut self, masters: &[&str]) -> Result<Vec<Vec<Peer>>, ClientError> {
        let mut peers = Vec::with_capacity(masters.len());
        for masters in masters.chunks(MAX_ASKED_AT_ONCE) {
            let mut pipe = redis::pipe();
            for master in masters {
                pipe.cmd("SENTINEL").arg("SENTINELS").arg(*master);
            }
            let mut answers = self.0.ask_pipe(&pipe).await?.into_iter();
            for _ in masters {
                peers.push(peers_in(answers.next().ok_or_else(fewer_answers)?)?);
            }
        }
        Ok(peers)
    }
}

fn fewer_answers() -> ClientError {
    ClientError::Protocol("fewer answers than questions".to_owned())
}

fn view_in(details: &Value, address: &Value) -> Result<Result<View, NoView>, ClientError> {
    if matches!(address, Value::Nil) {
        return Ok(Err(NoView::UnknownMaster));
    }
    for value in [details, address] {
        if let Value::ServerError(e) = value {
            let e = RedisError::from(e.clone());
            // A master removed between the two answers, or never known.
            return match ClientError::from(e) {
                ClientError::Protocol(t) if t.contains("No such master") => {
                    Ok(Err(NoView::UnknownMaster))
                }
                e => Err(e),
            };
        }
    }
    Ok(read_view(details, address))
}

fn peers_in(answer: Value) -> Result<Vec<Peer>, ClientError> {
    match answer {
        Value::Array(peers) => Ok(peers.iter().take(MAX_PEERS).filter_map(read_peer).collect()),
        Value::ServerError(e) => match ClientError::from(RedisError::from(e)) {
            ClientError::NoPermission(_) | ClientError::Protocol(_) => Ok(Vec::new()),
            e => Err(e),
        },
        _ => Ok(Vec::new()),
    }
}

/// A connection to a data node, for ROLE alone.
#[derive(Debug)]
pub struct RoleLink {
    connection: Connection,
    /// The login that was configured failed, and this is a connection without one.
    refused_login: Option<String>,
    replicas: Vec<ReplicaSeen>,
    detail: Option<RoleDetail>,
}

impl RoleLink {
    /// Dials and logs in.
    ///
    /// # Errors
    /// When the node cannot be reached, refuses the login or does not answer in time.
    pub async fn open(addr: &HostPort, dial: &Dial) -> Result<Self, ClientError> {
        let open = |login| Connection::open(addr, dial, login, ProtocolVersion::RESP2, None);
        match open(&dial.credentials).await {
            // AUTH fails as well at a server that has no password (yet): those are rolled out to one side after the other.
            Err(ClientError::Auth(why)) => Ok(Self {
                connection: open(&Credentials::default()).await?,
                refused_login: Some(why),
                replicas: Vec::new(),
                detail: None,
            }),
            other => Ok(Self {
                connection: other?,
                refused_login: None,
                replicas: Vec::new(),
                detail: None,
            }),
        }
    }

    /// What the node says it is.
    pub async fn role(&mut self) -> RoleReport {
        self.replicas.clear();
        self.detail = None;
        match self.connection.ask(&redis::cmd("ROLE")).await {
            Ok(Value::Array(parts)) => match parts.first().and_then(text).as_deref() {
                Some("master") => {
                    self.replicas = read_replicas(&parts);
                    self.detail = read_detail(&parts);
                    RoleReport::Master
                }
                Some("slave" | "replica") => {
                    self.detail = read_detail(&parts);
                    RoleReport::Replica
                }
                _ => RoleReport::NotADataNode,
            },
            Ok(_) => RoleReport::NotADataNode,
            Err(ClientError::LoginNeeded(why)) => match &self.refused_login {
                Some(refused) => RoleReport::LoginFailed(refused.clone()),
                None => RoleReport::Refused(why),
            },
            Err(ClientError::NoPermission(why)) => RoleReport::Refused(why),
            Err(ClientError::Auth(why)) => RoleReport::LoginFailed(why),
            Err(ClientError::Protocol(why)) if why.contains("LOADING") => RoleReport::Loading,
            Err(e) => {
                let more = e.suspicion("[proxy.upstream_tls]");
                RoleReport::Failed(format!("{e}{more}"))
            }
        }
    }

    /// The replicas that it told of with its last answer, if it is a master.
    pub fn replicas(&mut self) -> Vec<ReplicaSeen> {
        std::mem::take(&mut self.replicas)
    }

    /// What its last answer told beyond its role.
    pub fn detail(&mut self) -> Option<RoleDetail> {
        self.detail.take()
    }

    /// The address that the name was dialled at.
    pub const fn peer(&self) -> SocketAddr {
        self.connection.peer
    }

    /// True once the node has closed the connection.
    pub fn is_closed(&self) -> bool {
        self.connection.meter.is_closed()
    }

    /// Completes when the node has closed the connection. Cancel-safe.
    pub async fn closed(&self) {
        self.connection.meter.closed().await;
    }
}

struct Connection {
    connection: MultiplexedConnection,
    peer: SocketAddr,
    meter: Meter,
    /// Ends with the link.
    _driver: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("closed", &self.meter.is_closed())
            .finish()
    }
}

impl Connection {
    async fn open(
        addr: &HostPort,
        dial: &Dial,
        login: &Credentials,
        protocol: ProtocolVersion,
        events: Option<mpsc::Sender<RawEvent>>,
    ) -> Result<Self, ClientError> {
        let (stream, peer) = connect(addr, dial).await?;
        let (stream, meter) = Metered::new(stream, dial.tls.as_ref());
        let mut config = AsyncConnectionConfig::new().set_response_timeout(Some(REPLY_TIMEOUT));
        if let Some(events) = events {
            let meter = meter.clone();
            config = config.set_push_sender(move |push: PushInfo| {
                meter.reset();
                if let Some(event) = pushed_event(&push) {
                    let _ = events.try_send(event);
                }
                Ok::<(), ()>(())
            });
        }
        let info = connection_info(login, protocol);
        let opening = MultiplexedConnection::new_with_config(&info, stream, config);
        let opened = log_in(login, opening).await;
        let (connection, driver) = opened.map_err(|e| e.explained(&meter))?;
        let driver: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(driver);
        let _driver = AbortOnDropHandle::new(dial.tasks.spawn(driver));
        Ok(Self {
            connection,
            peer,
            meter,
            _driver,
        })
    }

    async fn ask(&mut self, cmd: &redis::Cmd) -> Result<Value, ClientError> {
        self.ask_at_length(cmd, MAX_UNREAD).await
    }

    async fn ask_at_length(&mut self, cmd: &redis::Cmd, most: usize) -> Result<Value, ClientError> {
        self.meter.expect(most);
        match answer(
            "waiting for an answer",
            self.connection.send_packed_command(cmd),
        )
        .await
        .map_err(|e| e.explained(&self.meter))?
        {
            Value::ServerError(e) => Err(RedisError::from(e).into()),
            value => Ok(value),
        }
    }

    async fn ask_pipe(&mut self, pipe: &redis::Pipeline) -> Result<Vec<Value>, ClientError> {
        self.meter.reset();
        let asking = self.connection.send_packed_commands(pipe, 0, pipe.len());
        let answered = answer("waiting for an answer", asking).await;
        answered.map_err(|e| e.explained(&self.meter))
    }
}

async fn answer<T>(
    doing: &'static str,
    asking: impl Future<Output = RedisResult<T>>,
) -> Result<T, ClientError> {
    match timeout(REPLY_TIMEOUT, asking).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(ClientError::timeout(doing, REPLY_TIMEOUT)),
    }
}

/// The same for what begins with a login. What a peer then says is repeated in logs, and it may repeat what it was told.
async fn log_in<T>(
    login: &Credentials,
    asking: impl Future<Output = RedisResult<T>>,
) -> Result<T, ClientError> {
    let hides = |why: &mut String| {
        let password = login.password.as_ref();
        let password = password.map(|secret| printable(secret.expose_secret()));
        if password.is_some_and(|password| !password.is_empty() && why.contains(&password)) {
            "its answer repeats the password".clone_into(why);
        }
    };
    let mut asked = answer("logging in", asking).await;
    if let Err(
        ClientError::LoginNeeded(why)
        | ClientError::Auth(why)
        | ClientError::NoPermission(why)
        | ClientError::Protocol(why)
        | ClientError::Io(why)
        | ClientError::Ended(why),
    ) = &mut asked
    {
        hides(why);
    }
    asked
}

async fn connect(addr: &HostPort, dial: &Dial) -> Result<(Stream, SocketAddr), ClientError> {
    let mut last = ClientError::Resolve(addr.to_string());
    let found = dial.resolver.resolve(addr, &dial.tasks).await;
    for target in found.map_err(|e| ClientError::Resolve(format!("{}: {e}", addr.host)))? {
        match timeout(dial.connect_timeout, open(target, &dial.reserve)).await {
            Ok(Ok(stream)) => {
                // Neither option can matter to correctness, so a kernel that refuses one is no reason to stop.
                let _ = stream.set_nodelay(true);
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
                let stream = Stream::Tcp(stream);
                let Some(tls) = &dial.tls else {
                    return Ok((stream, target));
                };
                match tls.connect(stream, &addr.host).await {
                    Ok(stream) => return Ok((stream, target)),
                    Err(e) => last = ClientError::Tls(e),
                }
            }
            Ok(Err(e)) => last = of_dial(&e),
            Err(_) => last = ClientError::timeout("connecting", dial.connect_timeout),
        }
    }
    Err(last)
}

/// Others may take a descriptor that is given back before it is taken here: each is tried in turn.
async fn open(target: SocketAddr, reserve: &Reserve) -> io::Result<TcpStream> {
    loop {
        match TcpStream::connect(target).await {
            Err(e) if is_out_of_files(&e) && reserve.lend() => {}
            other => return other,
        }
    }
}

/// This process, or this machine.
fn is_out_of_files(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE)
    )
}

fn of_dial(error: &io::Error) -> ClientError {
    if error.kind() == io::ErrorKind::AddrNotAvailable || is_out_of_files(error) {
        ClientError::Local(error.to_string())
    } else {
        ClientError::Io(error.to_string())
    }
}

fn connection_info(login: &Credentials, protocol: ProtocolVersion) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default()
        .set_protocol(protocol)
        .set_skip_set_lib_name();
    if let Some(username) = &login.username {
        info = info.set_username(username);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.expose_secret());
    }
    info
}
