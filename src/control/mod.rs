//! One control task a proxy entry: observations in, decide, verify, publish. The only publisher.
//!
//! This is the hands of [`steward::Steward`], which does the thinking: it dials, waits and logs what the steward asks
//! for, and tells it what came of it. It never waits for anything but its inputs.
//!
//! ```text
//! watchers --Observation--> control task --State--> topology::publish --> workers
//! sessions --doubt--------->   |   ^
//!                  Probe/Watch v   | RoleReport
//!                          master's ROLE (never more than one dial at a time, and one standing connection)
//! ```

pub mod action;
pub mod ledger;
mod link;
pub mod orders;
pub mod replicas;
pub mod steward;
mod succession;
mod tales;
mod waiting;

use std::fmt;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::action::{Action, Swap, Tale};
use self::ledger::{Book, Pulse};
use self::link::{Dialled, MasterLink};
use self::orders::Order;
use self::steward::{Heritage, Steward, VALIDITY};
use self::succession::Successor;
use crate::net::addr::{HostPort, NodeAddr};
use crate::net::clock::{At, Moment, now};
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::net::tls::Connector;
use crate::sentinel::Credentials;
use crate::sentinel::client::{Dial, RoleLink};
use crate::sentinel::discovery::Asker;
use crate::telemetry::Often;
use crate::topology::observation::{Observation, ReplicaSeen, RoleReport};
use crate::topology::publish::{Left, Publisher};
use crate::topology::rules::Rules;
use crate::topology::{MasterAddr, State};

/// Observations waiting to be looked at; senders wait beyond it.
pub const MAX_OBSERVATIONS: usize = 256;
/// Answers of the control connection waiting to be looked at.
const MAX_ANSWERS: usize = 16;
/// Longest wait for the workers to let go of the old master before the switch is reported without them.
const FENCE_LIMIT: Duration = Duration::from_secs(3);

/// While the first reply after an outage is awaited the workers' counters are looked at so often: the error of the
/// outage's measured end.
const REPLY_LOOK: Duration = Duration::from_millis(2);

/// Reads what the workers have counted.
pub struct PulseReader(pub Box<dyn Fn() -> Pulse + Send>);

impl fmt::Debug for PulseReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PulseReader")
    }
}

/// What can be another while the task runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's choices.
    pub rules: Rules,
    /// Login for ROLE.
    pub probe: Credentials,
    /// How data nodes are met; `None` is without TLS.
    pub tls: Option<Connector>,
    /// Longest wait for a TCP connection to a data node.
    pub connect_timeout: Duration,
    /// Our own listeners, which can never be the master.
    pub own: Vec<HostPort>,
    /// Clients are led to replicas of the master.
    pub reading: Option<replicas::Reading>,
}

/// What a control task is given.
#[derive(Debug)]
pub struct Entry {
    /// The proxy entry's name.
    pub name: Arc<str>,
    /// The name Sentinel knows the master by.
    pub master: String,
    /// See [`Settings`].
    pub settings: watch::Receiver<Settings>,
    /// Names to addresses.
    pub resolver: Resolver,
    /// Descriptors for what has to be dialled when there are no others.
    pub reserve: Reserve,
    /// What the watchers see.
    pub observations: mpsc::Receiver<Observation>,
    /// Asks all watchers to ask.
    pub asker: Asker,
    /// What operators ask for.
    pub orders: mpsc::Receiver<Order>,
    /// Where the outcome goes.
    pub publisher: Publisher,
    /// Where it is written down what happened.
    pub book: Book,
    /// What the workers have counted.
    pub pulse: PulseReader,
    /// What the process before believed, if there was one.
    pub heritage: Heritage,
}

/// Runs one control task until `end`.
pub async fn run(mut entry: Entry, tasks: TaskTracker, end: CancellationToken) {
    let settings = entry.settings.borrow_and_update().clone();
    let mut steward = Steward::new(now(), settings.rules, settings.own);
    steward.inherit(entry.heritage);
    let (answers_to, answers) = mpsc::channel(MAX_ANSWERS);
    let dial = Dial {
        connect_timeout: settings.connect_timeout,
        credentials: settings.probe,
        tls: settings.tls,
        resolver: entry.resolver.clone(),
        reserve: entry.reserve.clone(),
        tasks: tasks.clone(),
    };
    let task = Control {
        entry,
        steward,
        dial,
        tasks,
        answers_to,
        probe: None,
        verified: None,
        link: None,
        successor: None,
        pending_switch: None,
        often: Often::after(tales::AT_ONCE),
        edition: 0,
        ordered: Vec::new(),
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = task.run(answers) => {}
    }
}

/// What the control connection has to say.
#[derive(Debug)]
pub(crate) enum Answer {
    Said(MasterAddr, Option<SocketAddr>, RoleReport, Vec<ReplicaSeen>),
    Gone(MasterAddr, String),
    /// The announced successor's answer, when it was asked, and where it was reached.
    Successor(NodeAddr, Moment, Option<SocketAddr>, RoleReport),
}

type ProbeTask = Pin<Box<dyn Future<Output = Probed> + Send>>;

/// What came of a verification dial.
struct Probed {
    addr: MasterAddr,
    dialled: Dialled,
}

struct Control {
    entry: Entry,
    steward: Steward,
    dial: Dial,
    tasks: TaskTracker,
    answers_to: mpsc::Sender<Answer>,
    /// The one verification dial.
    probe: Option<ProbeTask>,
    /// The connection over which the last candidate proved itself; becomes its control connection.
    verified: Option<(MasterAddr, RoleLink)>,
    link: Option<MasterLink>,
    /// Asks an announced successor.
    successor: Option<Successor>,
    pending_switch: Option<PendingSwitch>,
    often: Often,
    /// Of which edition upstreams are that are made now.
    edition: u64,
    /// Orders that wait for sessions; no more than [`orders::MAX_ORDERS`].
    ordered: Vec<orders::Pending>,
}

/// A swap that is in force but not reported, because a worker may still hold an old socket.
struct PendingSwitch {
    swap: Swap,
    published: Instant,
}

enum Input {
    Observation(Option<Observation>),
    Probed(Probed),
    Answer(Answer),
    Order(Order),
    Changed,
    Doubt,
    Acknowledged(Left),
    FenceLate,
    Turn,
}

impl Control {
    async fn run(mut self, mut answers: mpsc::Receiver<Answer>) {
        self.act();
        loop {
            let input = self.next_input(&mut answers).await;
            // Each input is first a turn: nothing that comes after a standstill may be acted on before the standstill
            // is noticed.
            let at = now();
            self.steward.turn(at);
            match input {
                Input::Observation(Some(observation)) => {
                    let book = &self.entry.book;
                    book.with(|ledger| ledger.observed(At::now(), &observation));
                    self.steward.observe(now(), observation);
                }
                // The watchers are gone: the program is ending.
                Input::Observation(None) => return,
                Input::Probed(Probed { addr, dialled }) => {
                    self.probe = None;
                    let at = dialled.peer();
                    self.verified = dialled.link.map(|link| (addr.clone(), link));
                    self.note_role(&addr, &dialled.report);
                    self.steward.probed(now(), &addr, at, dialled.report);
                }
                Input::Answer(Answer::Said(addr, at, report, replicas)) => {
                    self.entry.book.with(|ledger| {
                        ledger.role_said(At::now(), &addr, &report);
                        ledger.replicas_seen(&addr, replicas);
                    });
                    self.steward.master_said(now(), &addr, at, &report);
                }
                Input::Answer(Answer::Successor(addr, asked, at, report)) => {
                    let steward = &mut self.steward;
                    steward.successor_said(now(), asked, &addr, at, &report);
                }
                Input::Answer(Answer::Gone(addr, why)) => {
                    tales::master_gone(&self.entry, &addr, &why);
                    self.steward.master_gone(now(), &addr);
                }
                Input::Order(order) => self.order(order),
                Input::Changed => self.change(),
                Input::Doubt => self.steward.doubt(now()),
                Input::Acknowledged(left) => self.report_switch(Some(left)),
                Input::FenceLate => self.report_switch(None),
                Input::Turn => {}
            }
            self.act();
            self.answer_orders();
            self.note_turn();
            // A connection that proved nothing is not kept open on a node that is not ours.
            self.verified = None;
            // From the moment that the standstill was looked for, not from now: one in between must not pass.
            let until = self.steward.valid_until(at);
            self.entry.publisher.extend(until);
            self.entry.publisher.awake(at + VALIDITY);
        }
    }

    async fn next_input(&mut self, answers: &mut mpsc::Receiver<Answer>) -> Input {
        let mut wait = self.steward.next_turn().since(now()).min(self.next_look());
        if self.entry.book.with(|ledger| ledger.awaits_reply()) {
            wait = wait.min(REPLY_LOOK);
        }
        let Self {
            entry,
            probe,
            pending_switch,
            ..
        } = self;
        let probing = async {
            match probe {
                Some(task) => task.as_mut().await,
                None => pending().await,
            }
        };
        let publisher = &entry.publisher;
        let fencing = async {
            match pending_switch {
                Some(p) => {
                    tokio::select! {
                        left = publisher.acknowledged(p.swap.generation) => Input::Acknowledged(left),
                        () = sleep_until(p.published + FENCE_LIMIT) => Input::FenceLate,
                    }
                }
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = sleep_until(Instant::now() + wait) => Input::Turn,
            input = fencing => input,
            probed = probing => Input::Probed(probed),
            Some(answer) = answers.recv() => Input::Answer(answer),
            observation = entry.observations.recv() => Input::Observation(observation),
            () = publisher.doubted() => Input::Doubt,
            Some(order) = entry.orders.recv() => Input::Order(order),
            Ok(()) = entry.settings.changed() => Input::Changed,
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.steward.next_action() {
            if let Action::Tell(tale) = &action {
                if matches!(tale, Tale::Switched(_)) {
                    self.report_overtaken();
                }
                self.entry.book.with(|ledger| ledger.told(At::now(), tale));
            }
            match action {
                Action::Publish(state) => self.publish(state),
                Action::AskAll => self.entry.asker.ask_all(),
                Action::CheckMaster => {
                    if let Some(link) = &self.link {
                        link.check();
                    }
                }
                Action::Probe(addr) => self.probe = Some(Box::pin(probe(addr, self.dial.clone()))),
                Action::StopProbe => self.probe = None,
                Action::Watch(addr) => self.watch(addr),
                Action::Follow(addr) => self.follow(addr),
                Action::Prove(asked) => self.entry.publisher.prove(asked),
                Action::Unfollow => self.successor = None,
                Action::Renew => self.edition = self.entry.publisher.renew(),
                Action::Tell(Tale::Switched(swap)) => {
                    self.pending_switch = Some(PendingSwitch {
                        swap,
                        published: Instant::now(),
                    });
                }
                Action::Tell(tale) => tales::tell(&self.entry, &mut self.often, &tale),
            }
        }
    }

    fn publish(&mut self, state: State) {
        let pulse = (self.entry.pulse.0)();
        // Whether clients of replicas are served is written down by those who know.
        if self.entry.settings.borrow().reading.is_none() {
            let book = &self.entry.book;
            book.with(|ledger| ledger.published(At::now(), &state, pulse));
        }
        self.entry.publisher.publish(state);
    }

    /// Takes over what the operator has changed. Another login is tried on a connection of its own at once, so that it is known
    /// whether it works before it is needed; the master in force stays in force whatever comes of it.
    fn change(&mut self) {
        let settings = self.entry.settings.borrow_and_update().clone();
        let same_dial = self.dial.credentials == settings.probe
            && self.dial.tls == settings.tls
            && self.dial.connect_timeout == settings.connect_timeout;
        self.dial.credentials = settings.probe;
        self.dial.tls = settings.tls;
        self.dial.connect_timeout = settings.connect_timeout;
        self.steward
            .rules_changed(now(), settings.rules, settings.own);
        if !same_dial && let Some(link) = self.link.take() {
            self.watch(link.addr().clone());
        }
    }

    fn watch(&mut self, addr: MasterAddr) {
        let proven = self
            .verified
            .take()
            .filter(|(of, _)| *of == addr)
            .map(|(_, link)| link);
        let check = Arc::new(Notify::new());
        self.link = Some(MasterLink::start(
            addr,
            proven,
            self.dial.clone(),
            self.answers_to.clone(),
            check,
            &self.tasks,
        ));
    }

    fn follow(&mut self, addr: NodeAddr) {
        let (dial, answers) = (self.dial.clone(), self.answers_to.clone());
        self.successor = Some(Successor::start(addr, dial, answers, &self.tasks));
    }

    /// Writes down what a candidate said.
    fn note_role(&self, addr: &MasterAddr, report: &RoleReport) {
        let verify = self.entry.settings.borrow().rules.verify;
        let rejection = (*report != RoleReport::Master).then(|| waiting::rejection(report, verify));
        self.entry.book.with(|ledger| {
            ledger.role_said(At::now(), addr, report);
            if let Some(words) = rejection {
                ledger.rejected(At::now(), addr, report, words);
            }
        });
    }

    /// Writes down what the workers have counted, and tells what is known by that.
    fn note_turn(&mut self) {
        let pulse = (self.entry.pulse.0)();
        let epoch = self.steward.epoch();
        let (over, disagreements) = self.entry.book.with(|ledger| {
            let at = At::now();
            ledger.turn(at, pulse);
            ledger.believes(epoch);
            (ledger.over(at), ledger.disagreements(at))
        });
        let proxy = &*self.entry.name;
        if let Some(outage) = over
            && self.often.allow("outage_over", proxy)
        {
            tales::outage_over(proxy, &outage);
        }
        for news in disagreements {
            if self.often.allow("sentinel_disagrees", proxy) {
                tales::disagreement(&self.entry, &news);
            }
        }
    }

    /// Two swaps in a row: the first is reported as it is, its sockets go with the second's. Before the ledger hears of the
    /// second, or it could not tell whose they are.
    fn report_overtaken(&mut self) {
        let left = self.pending_switch.as_ref().and_then(|pending| {
            let publisher = &self.entry.publisher;
            publisher
                .acknowledged(pending.swap.generation)
                .now_or_never()
        });
        self.report_switch(left);
    }

    /// `None`: not every worker has acknowledged.
    fn report_switch(&mut self, left: Option<Left>) {
        if let Some(PendingSwitch { swap, published }) = self.pending_switch.take() {
            let fence = published.elapsed();
            let pulse = (self.entry.pulse.0)();
            let harm = self.entry.book.with(|ledger| {
                ledger.turn(At::now(), pulse);
                ledger.fenced(fence, &swap, left)
            });
            if self.often.allow("switched", &self.entry.name) {
                tales::switched(&self.entry, &swap, fence, left, harm);
            }
        }
    }
}

/// Dials a candidate and asks for its role.
async fn probe(addr: MasterAddr, dial: Dial) -> Probed {
    let dialled = link::ask(addr.host_port(), &dial).await;
    Probed { addr, dialled }
}
