//! One task for each entry that leads to replicas: asks every replica and the master for their roles, hears from the Sentinels which
//! replicas there are, and publishes what follows, lane by lane. The only publisher of the lanes.
//!
//! The master itself is followed by the control task of the entry as any other; this task reads what that publishes, and acknowledges
//! it for the workers.

mod hear;
mod link;
mod names;
mod newcomer;
mod ourselves;
mod tales;
mod workers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::link::{Heard, Manner, NodeLink};
use self::names::Names;
use self::newcomer::Newcomer;
use super::Settings;
use super::ledger::{Book, Reads};
use crate::net::addr::{Host, HostPort, NodeAddr};
use crate::net::address_map::AddressMap;
use crate::net::clock::{At, Moment, now};
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::sentinel::client::Dial;
use crate::sentinel::discovery::Asker;
use crate::telemetry::Often;
use crate::topology::board::Board;
use crate::topology::observation::Observation;
use crate::topology::publish::{Left, Publisher, Reader, Subscription};
use crate::topology::replicas::{Choice, Head, Lanes, Move, Roll, Unfit, World};
use crate::topology::{Generation, HoldCause, Phase, State};

/// Answers waiting to be looked at.
const MAX_HEARD: usize = 256;
/// The task turns at least so often; validities of the fence words are extended as it does.
const TURN: Duration = Duration::from_millis(100);
/// The same while workers are waited for, or the master's lane hands over replies that need a proof.
const QUICK_TURN: Duration = Duration::from_millis(5);
/// For so long after the master changed, those that are not read from are asked at each turn: they are told one after the other to
/// follow the new one.
const URGENT: Duration = Duration::from_secs(15);
/// A replica is asked at least so often: one that was promoted without its connections being closed (REPLICAOF NO ONE, FAILOVER) takes
/// writes of those who read there until it has said so.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How often those who look are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Lines of one name that are written at once; then one a second.
const AT_ONCE: u32 = 30;

/// The part of [`Settings`] that is for this task.
#[derive(Clone, Debug)]
pub struct Reading {
    /// How replicas are chosen.
    pub choice: Choice,
    /// Applied to the master that a replica names.
    pub address_map: Arc<AddressMap>,
    /// The listeners of every entry: one that leads to another that leads back is a circle, too.
    pub own: Vec<HostPort>,
}

/// What the task is given.
#[derive(Debug)]
pub struct Entry {
    /// The proxy entry's name.
    pub name: Arc<str>,
    /// See [`Reading`].
    pub settings: watch::Receiver<Settings>,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Descriptors for what has to be dialled when there are no others.
    pub reserve: Reserve,
    /// What the watchers see of replicas.
    pub observations: mpsc::Receiver<Observation>,
    /// Asks all watchers to ask.
    pub asker: Asker,
    /// What the control task publishes of the master.
    pub master: Reader,
    /// The same, to be acknowledged.
    pub changed: Subscription,
    /// Where sessions without an upstream are.
    pub lobby: Publisher,
    /// Where sessions with one are.
    pub lanes: Vec<Publisher>,
    /// How many they are.
    pub board: Board,
    /// Where it is written down.
    pub book: Book,
}

/// A replica that is not read from any more, as far as this task is concerned.
struct Leaving {
    lane: usize,
    addr: NodeAddr,
    why: Unfit,
    generation: Generation,
    since: Moment,
    /// It was told that not every worker has let go in time.
    told: bool,
}

struct Task {
    entry: Entry,
    choice: Choice,
    roll: Roll,
    own: Vec<HostPort>,
    /// Those that are listed and are listeners of ours.
    ours: BTreeSet<NodeAddr>,
    lanes: Lanes,
    tasks: TaskTracker,
    manner: watch::Sender<Manner>,
    heard: mpsc::Sender<Heard>,
    /// Numbers of links.
    last: u64,
    links: HashMap<NodeAddr, NodeLink>,
    /// Those that sessions could not connect to are tried; those that took no connection then are `shut` until they do.
    newcomers: HashMap<NodeAddr, Newcomer>,
    shut: BTreeSet<NodeAddr>,
    /// The master's, and where it is.
    head: Option<(Head, NodeLink)>,
    names: Names,
    /// When the Sentinels were asked again because a replica proves itself that they call down.
    disputed: Moment,
    urgent_until: Moment,
    leaving: Vec<Leaving>,
    left: Left,
    acknowledged: Generation,
    /// The edition of the master's upstreams that the lanes were told of, and their own.
    edition: u64,
    editions: Vec<u64>,
    /// In force for each lane.
    generations: Vec<Generation>,
    evened: Moment,
    /// How long it is until sessions are asked again, and how many were too many when they were asked last.
    even_pause: (Duration, u64),
    told: Moment,
    /// What was written down last.
    shown: Option<State>,
    has_served: bool,
    /// Clients were said to wait, for this by now, since then.
    waits: Option<(HoldCause, Moment)>,
    falls_back: bool,
    /// How many replicas are listed and not asked.
    left_out: usize,
    often: Often,
}

/// Runs it until `end`.
pub async fn run(mut entry: Entry, tasks: TaskTracker, end: CancellationToken) {
    let settings = entry.settings.borrow_and_update().clone();
    let Some(reading) = settings.reading.clone() else {
        return;
    };
    let manner = manner(&entry, &settings, &reading, &tasks);
    let (heard_to, mut heard) = mpsc::channel(MAX_HEARD);
    let initial = entry.master.state();
    let lanes = entry.lanes.len();
    let mut task = Task {
        choice: reading.choice,
        roll: Roll::new(reading.choice, settings.rules.agree, reading.own.clone()),
        own: reading.own,
        ours: BTreeSet::new(),
        lanes: Lanes::new(reading.choice, &initial),
        tasks,
        manner: watch::Sender::new(manner),
        heard: heard_to,
        last: 0,
        links: HashMap::new(),
        newcomers: HashMap::new(),
        shut: BTreeSet::new(),
        head: None,
        names: Names::new(),
        disputed: Moment::default(),
        urgent_until: Moment::default(),
        leaving: Vec::new(),
        left: Left::default(),
        acknowledged: Generation(0),
        edition: 0,
        editions: vec![0; lanes],
        generations: vec![Generation(0); lanes],
        evened: now(),
        even_pause: (Duration::ZERO, 0),
        told: Moment::default(),
        shown: None,
        has_served: false,
        waits: None,
        falls_back: false,
        left_out: 0,
        often: Often::after(AT_ONCE),
        entry,
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = task.run(&mut heard) => {}
    }
}

fn manner(entry: &Entry, settings: &Settings, reading: &Reading, tasks: &TaskTracker) -> Manner {
    Manner {
        dial: Dial {
            connect_timeout: settings.connect_timeout,
            credentials: settings.probe.clone(),
            tls: settings.tls.clone(),
            resolver: entry.resolver.clone(),
            reserve: entry.reserve.clone(),
            tasks: tasks.clone(),
        },
        address_map: Arc::clone(&reading.address_map),
        pace: reading.choice.pace(),
    }
}

impl Task {
    async fn run(&mut self, heard: &mut mpsc::Receiver<Heard>) {
        loop {
            let wait = self.next_turn();
            tokio::select! {
                () = self.entry.changed.changed() => {}
                observation = self.entry.observations.recv() => match observation {
                    Some(observation) => self.observe(observation),
                    // The watchers are gone: the program is ending.
                    None => return,
                },
                Some(heard) = heard.recv() => self.hear(heard),
                Some(found) = self.names.found.recv() => self.learn(found),
                Ok(()) = self.entry.settings.changed() => self.change(),
                () = sleep(wait) => {}
            }
            self.turn();
        }
    }

    fn next_turn(&self) -> Duration {
        let proofs = matches!(
            self.entry.master.state().phase,
            Phase::Held {
                cause: HoldCause::Announced,
                ..
            }
        );
        let leaving = self.leaving.iter().any(|leaving| !leaving.told);
        let wait = if proofs || leaving { QUICK_TURN } else { TURN };
        let next = self.lanes.next_turn();
        next.map_or(wait, |at| at.since(now()).min(wait))
    }

    /// Takes over what the operator has changed.
    fn change(&mut self) {
        let settings = self.entry.settings.borrow_and_update().clone();
        let Some(reading) = settings.reading.clone() else {
            return;
        };
        self.choice = reading.choice;
        let agree = settings.rules.agree;
        self.roll.change(reading.choice, agree, reading.own.clone());
        self.lanes.change(reading.choice);
        let manner = manner(&self.entry, &settings, &reading, &self.tasks);
        self.own = reading.own;
        self.manner.send_if_modified(|old| {
            let same = old.dial.credentials == manner.dial.credentials
                && old.dial.tls == manner.dial.tls
                && old.dial.connect_timeout == manner.dial.connect_timeout
                && old.address_map == manner.address_map
                && old.pace == manner.pace;
            if !same {
                *old = manner;
            }
            !same
        });
    }

    fn observe(&mut self, observation: Observation) {
        self.roll.observe(observation);
        let left_out = self.roll.left_out();
        if std::mem::replace(&mut self.left_out, left_out) == 0 && left_out > 0 {
            tales::left_out(&self.entry.name, &mut self.often, left_out);
        }
    }

    fn turn(&mut self) {
        let at = now();
        // In this order: a validity that is newer than the state could open what has been held since.
        let valid_until = self.entry.master.gate().valid_until();
        let master = self.entry.master.state();
        self.follow(&master, at);
        self.ask();
        let fits = self.roll.verdicts(|addr| self.lanes.is_in(addr), at);
        if fits.values().any(|fit| *fit == Err(Unfit::Down)) {
            self.dispute(at);
        }
        let proofs: HashMap<NodeAddr, Moment> = fits
            .iter()
            .filter_map(|(addr, fit)| Some((addr.clone(), fit.ok()?.until)))
            .collect();
        let verdicts: BTreeMap<_, _> = fits
            .into_iter()
            .map(|(addr, fit)| (addr, fit.map(|fit| fit.at)))
            .collect();
        let loads = self.entry.board.loads();
        let world = World {
            master: &master,
            replicas: &verdicts,
            shut: &self.shut,
            loads: &loads,
        };
        let moves = self.lanes.look(at, &world);
        let moved = !moves.is_empty();
        if moved {
            self.even_pause = (Duration::ZERO, 0);
        }
        let mut opened = None;
        for one in moves {
            match one {
                // Whoever leaves the lobby is to find a lane that counts.
                Move::Lobby(state) if self.lanes.is_open() => opened = Some(state),
                one => self.apply(one, at),
            }
        }
        let mut again = false;
        for (lane, addr) in self.lanes.members() {
            let proven = proofs.get(addr).copied().unwrap_or_default();
            again |= self.entry.lanes[lane].extend(valid_until.min(proven));
        }
        let fallback = &mut self.entry.lanes[Lanes::MASTER];
        fallback.prove(self.entry.master.gate().proven_until());
        again |= fallback.extend(valid_until);
        if let Some(state) = opened {
            self.entry.lobby.publish(state);
        } else if again {
            self.entry.lobby.ring();
        }
        self.look_for_doubt(at);
        self.acknowledge(&master, at);
        self.renew();
        self.even(at, &loads);
        self.tell(&master, &verdicts, moved, at);
    }

    /// Asks the master in force, and no other, how much it has written.
    fn follow(&mut self, master: &State, at: Moment) {
        let head = master.master.as_ref().zip(master.verified_at);
        let head = head.map(|(addr, at)| Head {
            addr: addr.host_port().clone(),
            at,
            generation: master.generation,
        });
        if self.head.as_ref().map(|(head, _)| head) == head.as_ref() {
            return;
        }
        self.roll.head(head.clone());
        self.urgent_until = at + URGENT;
        self.head = head.map(|head| {
            let addr = (HostPort::from(head.at), head.addr.host.clone());
            let link = self.link(addr, Duration::MAX);
            (head, link)
        });
    }

    fn link(&mut self, addr: (HostPort, Host), at_least: Duration) -> NodeLink {
        self.last += 1;
        let manner = self.manner.subscribe();
        let (heard, tasks) = (self.heard.clone(), &self.tasks);
        NodeLink::start(self.last, addr, at_least, manner, heard, tasks)
    }

    /// Every replica that is listed is asked.
    fn ask(&mut self) {
        let nodes: Vec<NodeAddr> = self.roll.nodes().cloned().collect();
        self.links.retain(|addr, _| nodes.contains(addr));
        self.newcomers.retain(|addr, _| nodes.contains(addr));
        self.shut.retain(|addr| nodes.contains(addr));
        self.ours.retain(|addr| nodes.contains(addr));
        for addr in nodes {
            if !self.links.contains_key(&addr) {
                let link = self.link((addr.0.clone(), addr.0.host.clone()), ASK_EVERY);
                self.links.insert(addr, link);
            }
        }
    }

    fn apply(&mut self, one: Move, at: Moment) {
        match one {
            Move::Publish(lane, state) => {
                self.generations[lane] = state.generation;
                self.entry.lanes[lane].publish(state);
            }
            Move::Lobby(state) => self.entry.lobby.publish(state),
            Move::Accept(lane, accepts) => self.entry.board.accept(lane, accepts),
            Move::Joined(lane, addr) => {
                self.entry.board.trust(lane);
                tales::joined(
                    &self.entry.name,
                    &mut self.often,
                    &addr,
                    self.generations[lane],
                );
            }
            Move::Left(lane, addr, why) => {
                self.entry.asker.ask_all();
                self.leaving.push(Leaving {
                    lane,
                    addr,
                    why,
                    generation: self.generations[lane],
                    since: at,
                    told: false,
                });
            }
        }
    }

    /// Sessions doubt whom they lead to, and those that are not read from may have come round.
    fn look_for_doubt(&mut self, at: Moment) {
        let members: Vec<(usize, NodeAddr)> = self
            .lanes
            .members()
            .map(|(lane, addr)| (lane, addr.clone()))
            .collect();
        for (lane, addr) in &members {
            if self.entry.lanes[*lane].doubted().now_or_never().is_some()
                && let Some(link) = self.links.get(addr)
            {
                link.check();
            }
            if self.entry.board.is_suspected(*lane) {
                self.meet(addr, at);
            }
        }
        if self.entry.lanes[Lanes::MASTER]
            .doubted()
            .now_or_never()
            .is_some()
        {
            self.entry.master.doubt();
        }
        if at < self.urgent_until {
            let is_in = |addr: &NodeAddr| members.iter().any(|(_, of)| of == addr);
            let others = self.links.iter().filter(|(addr, _)| !is_in(addr));
            others.for_each(|(_, link)| link.check());
        }
    }

    /// Clients wait, or go on. At the start it takes a moment to know of any replica. A hold that only changes its cause goes on.
    fn tell_waits(&mut self, at: Moment) {
        let held = match self.lanes.phase() {
            Phase::Held { cause, since, .. } => Some((*cause, *since)),
            Phase::Serving => {
                self.has_served = true;
                None
            }
            Phase::NoMaster => None,
        };
        let (proxy, often) = (&self.entry.name, &mut self.often);
        match (self.waits, held) {
            (None, Some((cause, since)))
                if self.has_served
                    || cause != HoldCause::NoReplica
                    || at.since(since) >= TELL_EVERY =>
            {
                self.waits = Some((cause, since));
                tales::waits(proxy, often, cause);
            }
            (Some((_, since)), Some((cause, _))) => self.waits = Some((cause, since)),
            (Some((cause, since)), None) => {
                self.waits = None;
                tales::goes_on(proxy, often, cause, at.since(since));
            }
            _ => {}
        }
    }

    /// Tells those who look.
    fn tell(
        &mut self,
        master: &State,
        verdicts: &BTreeMap<NodeAddr, Result<std::net::SocketAddr, Unfit>>,
        moved: bool,
        at: Moment,
    ) {
        self.tell_waits(at);
        let falls_back = self.lanes.falls_back();
        if std::mem::replace(&mut self.falls_back, falls_back) != falls_back {
            tales::fallback(&self.entry.name, &mut self.often, falls_back);
        }
        let state = State {
            phase: self.lanes.phase().clone(),
            ..master.clone()
        };
        if self.shown.as_ref() != Some(&state) {
            let book = &self.entry.book;
            book.with(|ledger| ledger.serves(At::now(), &state));
            self.shown = Some(state);
        } else if !moved && at.since(self.told) < TELL_EVERY {
            return;
        }
        self.told = at;
        let loads = self.entry.board.loads();
        let lane_of: HashMap<&NodeAddr, usize> = self
            .lanes
            .members()
            .map(|(lane, addr)| (addr, lane))
            .collect();
        let mut reads = Reads {
            falls_back,
            on_master: loads[Lanes::MASTER],
            ..Reads::default()
        };
        for (addr, verdict) in verdicts {
            let age = self.roll.verdict(addr, true, at).ok().map(|(age, _)| age);
            let sessions = lane_of.get(addr).map_or(0, |lane| loads[*lane]);
            let is_in = lane_of.contains_key(addr);
            let why = verdict.err().filter(|_| !is_in);
            reads.note(addr, is_in, sessions, age, why);
        }
        self.entry.book.with(|ledger| ledger.reads(reads));
    }
}
