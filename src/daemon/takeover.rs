//! The hands of the process that follows: takes listeners and sessions over as [`Taker`] says.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::getppid;
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::ExitError;
use super::known::{Known, open_doors};
use super::program::FOLLOWS;
use super::report::millis;
use crate::config::{Config, Proxy};
use crate::control::steward::Heritage;
use crate::exit::Exit;
use crate::listener::Inherited;
use crate::net::clock::{Moment, now};
use crate::net::stream::Unregistered;
use crate::session::luggage::{Packet, Stay, Upstream};
use crate::topology::{Epoch, Generation};
use crate::upgrade::link::{self, Broken, Link, Parcel};
use crate::upgrade::message::{
    Batch, Belief, Hello, Listener, Message, Named, SESSIONS, Said, words,
};
use crate::upgrade::new::{Action, DEATH_LIMIT, Input, Outcome, Taker};
use crate::worker::Reins;

/// For tests: another number for the form of sessions, as a version of another time would say.
const OTHER_FORM: &str = "_SWITCHMASTER_SESSION_FORM";
/// How often it is looked whether the masters are known, and whether the old process is dead.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How often it is said again that they are known.
const SAY_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for a message to be taken.
const SEND_LIMIT: Duration = Duration::from_secs(2);
/// Most listeners that are taken over.
const LISTENERS_MAX: usize = 4096;
/// Longest wait for the sessions of one message to be seated before those of the next are refused.
const SEAT_LIMIT: Duration = Duration::from_secs(1);

/// The process that started this one to be followed by it, if it was started so.
#[derive(Debug)]
pub(super) struct Predecessor {
    pid: i32,
    socket: OwnedFd,
}

impl Predecessor {
    /// By the environment and the standard input of this process. Whoever else finds the variable in its environment was started by
    /// a child of ours, and follows nobody.
    ///
    /// # Errors
    /// When the other process has ended already, with all that it had: whoever watched it starts another.
    pub(super) fn of_this_process() -> Result<Option<Self>, ExitError> {
        let pid = std::env::var(FOLLOWS).ok().and_then(|pid| pid.parse().ok());
        let Some((pid, socket)) = pid.zip(link::from_stdin().ok()) else {
            return Ok(None);
        };
        if parent() == Some(pid) {
            Ok(Some(Self { pid, socket }))
        } else {
            Err(ExitError {
                exit: Exit::Runtime,
                message: format!("cannot follow process {pid}: it has ended"),
            })
        }
    }
}

/// This process on its way to follow another one.
#[derive(Debug)]
pub(super) struct Following {
    link: Link,
    taker: Taker,
    pid: i32,
    begun: Moment,
    listeners: Vec<(Listener, OwnedFd)>,
    beliefs: Vec<Belief>,
    /// Sessions that may come.
    expected: u64,
    /// What arrived last, and is not served yet.
    parcel: Option<(Batch, Vec<OwnedFd>)>,
    adopted: u64,
    /// The sessions that arrived last are on their way to their workers.
    seating: Option<JoinHandle<bool>>,
    /// Nobody ends these: they end by themselves, or with the process.
    seatings: TaskTracker,
    /// When it was last said that the masters are known.
    said: Option<Moment>,
}

/// This process has taken the place of another.
#[derive(Debug)]
pub(super) struct Followed {
    pid: i32,
    sessions: u64,
    took: Duration,
}

impl Followed {
    /// To be said when it could be followed itself.
    pub(super) fn tell(&self) {
        let Self {
            pid,
            sessions,
            took,
        } = self;
        info!(
            event = "took_over",
            pid = std::process::id(),
            from = pid,
            sessions,
            ms = millis(*took),
            "serves in the place of process {pid}: {sessions} sessions were taken over"
        );
    }
}

impl Following {
    /// Hears what there is to be taken over.
    ///
    /// # Errors
    /// When the old process does not say it.
    pub(super) async fn greet(
        predecessor: Predecessor,
        config: &Config,
    ) -> Result<Self, ExitError> {
        let Predecessor { pid, socket } = predecessor;
        let link = Link::new(socket).map_err(|e| ExitError::runtime("cannot follow", &e))?;
        let (taker, actions) = Taker::new(now());
        info!(
            event = "taking_over",
            pid = std::process::id(),
            from = pid,
            "follows process {pid}, which serves until this one can"
        );
        let mut following = Self {
            link,
            taker,
            pid,
            begun: now(),
            listeners: Vec::new(),
            beliefs: Vec::new(),
            expected: 0,
            parcel: None,
            adopted: 0,
            seating: None,
            seatings: TaskTracker::new(),
            said: None,
        };
        let named = |proxy: &Proxy| Named {
            name: proxy.name.clone(),
            master: proxy.master.clone(),
            replicas: proxy.leads_to_replicas,
        };
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: form_of_sessions(),
            entries: config.proxies.iter().map(named).collect(),
        };
        let mut actions = actions;
        loop {
            for action in actions {
                match action {
                    Action::Hello => following.say(Said::Hello(hello.clone())).await,
                    Action::Prepare => return Ok(following),
                    _ => return Err(following.gives_up()),
                }
            }
            // A signal ends this process as any other until it serves.
            let input = following.next_input(&[], &CancellationToken::new()).await;
            actions = following.taker.on(now(), input);
            if let Some(Outcome::Ends(_)) = following.taker.outcome() {
                return Err(following.gives_up());
            }
        }
    }

    /// The listening sockets, for whoever binds.
    pub(super) fn listeners(&mut self) -> Inherited {
        let mut inherited = Inherited::default();
        for (listener, socket) in self.listeners.drain(..) {
            inherited.add(listener.entry, listener.asked, listener.file, socket);
        }
        inherited
    }

    /// What the old process believes of this entry's master.
    pub(super) fn heritage(&self, name: &str, master: &str) -> Heritage {
        let of = |belief: &&Belief| belief.of.name == name && belief.of.master == master;
        let belief = self.beliefs.iter().find(of);
        belief.map_or_else(Heritage::default, |belief| Heritage {
            generation: Generation(belief.generation),
            epoch: belief.epoch.map(Epoch),
        })
    }

    /// Waits for the masters, takes the place of the old process and its sessions.
    ///
    /// # Errors
    /// When the old process goes on.
    pub(super) async fn follow(
        mut self,
        entries: &[Known],
        reins: &Reins,
        ending: &CancellationToken,
    ) -> Result<Followed, ExitError> {
        reins.expect(self.expected);
        loop {
            let input = self.next_input(entries, ending).await;
            for action in self.taker.on(now(), input) {
                match action {
                    Action::Ready => {
                        let masters = entries.iter().filter_map(Known::reign).collect();
                        self.say(Said::Ready { masters }).await;
                    }
                    Action::Open => {
                        if !open_doors(entries, reins).await {
                            return Err(self.cannot("it cannot accept: a worker does not turn, or there are no descriptors left"));
                        }
                    }
                    Action::Opened => self.say(Said::Opened).await,
                    Action::Adopt => self.adopt(entries, reins).await?,
                    Action::Hello | Action::Prepare | Action::Part => {}
                }
            }
            match self.taker.outcome() {
                None => {}
                Some(Outcome::Ends(why)) => {
                    let why = why.to_owned();
                    self.say(Said::Failed { why }).await;
                    return Err(self.gives_up());
                }
                Some(Outcome::Serves) => {
                    // Who has not come by now does not.
                    reins.expect(0);
                    return Ok(Followed {
                        pid: self.pid,
                        sessions: self.adopted,
                        took: now().since(self.begun),
                    });
                }
            }
        }
    }

    async fn next_input(&mut self, entries: &[Known], ending: &CancellationToken) -> Input {
        let mut look = interval(LOOK_EVERY);
        let turn = self.taker.next_turn();
        let turning = async {
            match turn {
                Some(turn) => sleep(turn.since(now())).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(turning);
        let orphaned = self.taker.is_orphaned();
        loop {
            tokio::select! {
                biased;
                received = self.link.receive(), if !orphaned => {
                    if let Some(input) = self.heard(received) {
                        return input;
                    }
                }
                () = ending.cancelled() => return Input::Ending,
                () = &mut turning => return Input::Turn,
                _ = look.tick() => {
                    if orphaned && parent() != Some(self.pid) {
                        return Input::Dead;
                    }
                    let due = self.said.is_none_or(|at| now().since(at) >= SAY_EVERY);
                    if self.taker.is_preparing() && due && self.knows_all(entries) {
                        self.said = Some(now());
                        return Input::Known;
                    }
                }
            }
        }
    }

    /// `None` for what only adds to something.
    fn heard(&mut self, received: Result<Parcel, Broken>) -> Option<Input> {
        Some(match received {
            Ok(Parcel { message, sockets }) => match message {
                Message::Said(Said::Listeners { listeners }) => {
                    let fits = listeners.len() == sockets.len()
                        && self.listeners.len() + sockets.len() <= LISTENERS_MAX;
                    if !fits {
                        return Some(Input::Confused);
                    }
                    self.listeners.extend(listeners.into_iter().zip(sockets));
                    return None;
                }
                Message::Said(Said::Offer(offer)) => {
                    self.beliefs = offer.beliefs;
                    self.expected = offer.sessions;
                    Input::Offer
                }
                Message::Said(Said::Go) => Input::Go,
                Message::Said(Said::Done) => Input::Done,
                Message::Said(Said::Abort { why }) => {
                    info!(event = "upgrade_aborted", "told to end: {}", words(&why));
                    Input::Abort
                }
                // A later version may say more than this one understands.
                Message::Said(Said::Unknown) => return None,
                Message::Said(_) => Input::Confused,
                Message::Sessions(batch) => {
                    self.parcel = Some((batch, sockets));
                    Input::Sessions
                }
            },
            Err(Broken::Gone) => Input::Gone,
            // This process may have no more descriptors for now. The sessions go back, and all that there are here go on.
            Err(Broken::Torn) if self.taker.is_open() => Input::Sessions,
            Err(broken) => {
                warn!(
                    event = "upgrade_broken",
                    "cannot understand process {}: {broken}", self.pid
                );
                Input::Confused
            }
        })
    }

    /// Wherever the old process has had a master, there is one here, too.
    fn knows_all(&self, entries: &[Known]) -> bool {
        entries.iter().all(|known| {
            let named = known.named();
            let unknown = |belief: &&Belief| belief.of == named && belief.generation > 0;
            self.beliefs.iter().find(unknown).is_none() || known.reign().is_some()
        })
    }

    /// First says that they are ours, then serves them: the old process, which is the only other one that may serve them, either reads
    /// that, or takes them back when this one is dead and has not said it.
    async fn adopt(&mut self, entries: &[Known], reins: &Reins) -> Result<(), ExitError> {
        let Some((batch, sockets)) = self.parcel.take() else {
            let why = Broken::Torn.to_string();
            self.say(Said::Refused { why }).await;
            return Ok(());
        };
        let count = batch.sessions.len() as u64;
        let (number, packets) = match self.fit(batch, sockets, entries).await {
            Ok(packets) => packets,
            Err(why) => {
                let why = why.to_owned();
                self.say(Said::Refused { why }).await;
                return Ok(());
            }
        };
        match timeout(SEND_LIMIT, self.link.say(Said::Adopted)).await {
            Ok(Ok(())) => {}
            // Nobody else has them.
            Ok(Err(Broken::Gone)) if self.is_alone().await => {}
            // What is not ours is closed here; the old process has its own copies.
            Ok(Err(_)) | Err(_) => return Err(self.cannot("it cannot be told what is taken over")),
        }
        self.adopted += count;
        let reins = reins.clone();
        self.seating = Some(
            self.seatings
                .spawn(async move { reins.seat(number, packets).await }),
        );
        Ok(())
    }

    /// What arrived, if it can be served here now.
    async fn fit(
        &mut self,
        batch: Batch,
        sockets: Vec<OwnedFd>,
        entries: &[Known],
    ) -> Result<(usize, Vec<Packet>), &'static str> {
        if let Some(seating) = &mut self.seating {
            // It goes on by itself. A worker that is gone ends this process.
            if timeout(SEAT_LIMIT, seating).await.is_err() {
                return Err("a worker does not take sessions over");
            }
            self.seating = None;
        }
        packets(batch, sockets, entries)
    }

    /// The old process is dead; waits a moment for one that is ending.
    async fn is_alone(&self) -> bool {
        let dead = async {
            while parent() == Some(self.pid) {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(DEATH_LIMIT, dead).await.is_ok()
    }

    /// Whoever does not hear is gone, which is heard next.
    async fn say(&self, said: Said) {
        let _ = timeout(SEND_LIMIT, self.link.say(said)).await;
    }

    fn gives_up(&self) -> ExitError {
        match self.taker.outcome() {
            Some(Outcome::Ends(why)) => self.cannot(why),
            _ => self.cannot("nothing was agreed on"),
        }
    }

    fn cannot(&self, why: &str) -> ExitError {
        ExitError {
            exit: Exit::Runtime,
            message: format!("cannot follow process {}: {why}", self.pid),
        }
    }
}

/// The sessions of a message, and the number of the entry they belong to; or why none of them is served here.
fn packets(
    batch: Batch,
    sockets: Vec<OwnedFd>,
    entries: &[Known],
) -> Result<(usize, Vec<Packet>), &'static str> {
    const MISSING: &str = "descriptors are missing";
    if batch.sockets() != sockets.len() {
        return Err(MISSING);
    }
    let entry = &batch.reign.entry;
    let is_it = |known: &&Known| known.name == *entry;
    let known = entries.iter().find(is_it).ok_or("no such entry")?;
    if known.replicas {
        return Err("this entry leads to replicas here");
    }
    let in_force = known.in_force();
    let Some((_, origin)) = in_force.filter(|(reign, _)| *reign == batch.reign) else {
        return Err("another master is in force here, or none");
    };
    let mut sockets = sockets.into_iter();
    let mut packets = Vec::with_capacity(batch.sessions.len());
    for luggage in batch.sessions {
        let mut take = |kind| sockets.next().map(|socket| Unregistered::of(kind, socket));
        packets.push(Packet {
            client: take(luggage.client).ok_or(MISSING)?,
            upstream: luggage.upstream.and_then(take).map(|socket| Upstream {
                socket,
                origin,
                stay: Stay::default(),
            }),
            tracked: luggage.tracked,
            fresh: luggage.fresh,
            conveyed: luggage.conveyed,
        });
    }
    Ok((known.number, packets))
}

fn form_of_sessions() -> u32 {
    let other = std::env::var(OTHER_FORM).ok();
    other.and_then(|form| form.parse().ok()).unwrap_or(SESSIONS)
}

fn parent() -> Option<i32> {
    getppid().map(|pid| pid.as_raw_nonzero().get())
}
