//! One proxy: the real steward, and a model of the hands it has in `control` and `sentinel`: a link to each Sentinel
//! (subscribe, ask on events, on doubt and each second), one probe, one standing connection to the master.

mod links;
mod nodes;

use std::time::Duration;

use switchmaster::control::action::Action;
use switchmaster::control::steward::{Steward, VALIDITY};
use switchmaster::net::clock::Moment;
use switchmaster::topology::observation::{Asked, Hint, Observation, RoleReport, Said};
use switchmaster::topology::{MasterAddr, Phase, State};

use crate::checker::Checker;
use crate::cluster::{Cluster, Health, Life};
use crate::names::{letter, millis, moment, node, node_at, node_of, sentinel};
use crate::plant::Plant;
use crate::schedule::Setup;
use crate::trace::Trace;
use crate::world::{Due, Net};

/// How long an answer is waited for, milliseconds; and how close together questions may be.
const REPLY_WITHIN: u64 = 500;
const COALESCE: u64 = 20;

/// What a proxy waits for.
#[derive(Clone, Debug)]
pub(crate) enum Wait {
    Turn(u64),
    Dial(usize),
    Connected(usize),
    Ask(usize, u64),
    AtSentinel(Question),
    Answered(Question, Option<(usize, u64)>),
    Late(Question),
    Event(usize, u64, Hint, Option<(usize, usize)>),
    Closed(usize, u64),
    AtNode(u64, MasterAddr),
    Probed(u64, MasterAddr, RoleReport),
    Check(u64),
    AtMaster(u64, bool),
    /// What the control connection brings: `None` when it is gone.
    Said(u64, MasterAddr, Option<RoleReport>),
    MasterClosed(u64),
    Succeeds(u64, usize),
    /// With the moment of asking.
    AtSuccessor(u64, usize, u64),
    SuccessorSaid(u64, usize, u64, RoleReport),
    Doubt,
}

impl Wait {
    /// True for what happens elsewhere and so goes on while the process stands still.
    const fn is_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::AtSentinel(_) | Self::AtNode(..) | Self::AtMaster(..) | Self::AtSuccessor(..)
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    link: usize,
    serial: u64,
    asked_at: u64,
    asked: Asked,
    since: u64,
}

#[derive(Debug)]
struct Link {
    sentinel: usize,
    up: bool,
    told_down: bool,
    /// Counts connections.
    conn: u64,
    asking: Option<u64>,
    wanted: Option<(Asked, u64)>,
    last_question: u64,
    poll_due: u64,
    answered: u64,
    timer: u64,
}

#[derive(Debug)]
struct MasterLink {
    addr: MasterAddr,
    serial: u64,
    connected: bool,
    busy: bool,
    again: bool,
}

#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) number: usize,
    pub(crate) state: State,
    pub(crate) checker: Checker,
    pub(crate) trace: Trace,
    pub(crate) stands_until: u64,
    /// Faults that keep it from each Sentinel, and each node.
    pub(crate) no_sentinel: Vec<u8>,
    pub(crate) no_node: Vec<u8>,
    steward: Steward,
    plant: Plant,
    slept: u64,
    last_input: u64,
    links: Vec<Link>,
    probe: Option<u64>,
    master: Option<MasterLink>,
    successor: Option<u64>,
    serial: u64,
    turn_at: u64,
}

impl Proxy {
    pub(crate) fn new(number: usize, setup: &Setup, plant: Plant, trace: Trace) -> Self {
        let steward = Steward::new(moment(0), setup.rules(), vec![node(14).0]);
        let state = steward.state().clone();
        let count = setup.sentinels + usize::from(setup.alias);
        let link = |l: usize| Link {
            sentinel: l % setup.sentinels,
            up: false,
            told_down: false,
            conn: 0,
            asking: None,
            wanted: None,
            last_question: 0,
            poll_due: 0,
            answered: 0,
            timer: 0,
        };
        Self {
            number,
            checker: Checker::new(&setup.rules(), count, state.clone()),
            state,
            trace,
            stands_until: 0,
            no_sentinel: vec![0; setup.sentinels],
            no_node: vec![0; setup.nodes],
            steward,
            plant,
            slept: 0,
            last_input: 0,
            links: (0..count).map(link).collect(),
            probe: None,
            master: None,
            successor: None,
            serial: 0,
            turn_at: u64::MAX,
        }
    }

    pub(crate) fn start(&mut self, net: &mut Net) {
        for link in 0..self.links.len() {
            let said = Said::Followed(None);
            self.observe(net, link, said);
            self.wait(net, 0, Wait::Dial(link));
        }
    }

    /// True while bytes pass to this node.
    pub(crate) fn serves(&self, node: usize) -> bool {
        self.state.phase == Phase::Serving
            && self
                .state
                .master
                .as_ref()
                .is_some_and(|m| node_of(m) == node)
    }

    pub(crate) fn reaches_sentinel(&self, cluster: &Cluster, s: usize) -> bool {
        self.no_sentinel[s] == 0 && cluster.sentinels[s].life == Life::Alive
    }

    pub(crate) fn reaches_node(&self, cluster: &Cluster, n: usize) -> Option<Health> {
        match self.no_node.get(n) {
            None => Some(Health::Crashed),
            Some(0) => Some(cluster.nodes[n].health),
            Some(_) => None,
        }
    }

    /// An operator's order; nobody takes it while the process stands still.
    pub(crate) fn pause(&mut self, net: &mut Net, lasts: u64) {
        if net.now >= self.stands_until {
            let lasts = Duration::from_millis(lasts);
            self.input(net, |steward, now| {
                let paused = steward.pause(now, Some(lasts), "somebody");
                assert_eq!(paused, Ok(()), "there is a hold_max");
            });
        }
    }

    /// A Sentinel published an event.
    pub(crate) fn event(
        &mut self,
        net: &mut Net,
        s: usize,
        hint: Hint,
        names: Option<(usize, usize)>,
    ) {
        for link in 0..self.links.len() {
            let l = &self.links[link];
            let heard = l.sentinel == s && l.up && self.no_sentinel[s] == 0;
            if heard && net.rng.u64(..100) >= net.lost {
                let (conn, way) = (l.conn, net.way());
                self.wait(net, way, Wait::Event(link, conn, hint, names));
            }
        }
    }

    /// A Sentinel was killed: its connections end.
    pub(crate) fn sentinel_died(&mut self, net: &mut Net, s: usize) {
        for link in 0..self.links.len() {
            let l = &self.links[link];
            if l.sentinel == s && l.up && self.no_sentinel[s] == 0 {
                let (conn, way) = (l.conn, net.way());
                self.wait(net, way, Wait::Closed(link, conn));
            }
        }
    }

    /// Connections to a node were killed.
    pub(crate) fn node_killed(&mut self, net: &mut Net, n: usize) {
        let ours = self
            .master
            .as_ref()
            .filter(|m| node_of(&m.addr) == n && m.connected);
        if let Some(serial) = ours.map(|m| m.serial)
            && self.no_node[n] == 0
        {
            let way = net.way();
            self.wait(net, way, Wait::MasterClosed(serial));
        }
    }

    /// Something that was waited for is there.
    pub(crate) fn take(&mut self, net: &mut Net, cluster: &Cluster, wait: Wait) {
        if net.now < self.stands_until && !wait.is_elsewhere() {
            // What came meanwhile is there when it goes on; timers and sockets in no certain order.
            let late = self.stands_until - net.now + net.rng.u64(..3);
            return self.wait(net, late, wait);
        }
        match wait {
            Wait::Turn(at) if at == self.turn_at => {
                self.turn_at = u64::MAX;
                self.input(net, |_, _| {});
            }
            Wait::Turn(_) => {}
            Wait::Dial(link) => self.dial(net, cluster, link),
            Wait::Connected(link) => self.connected(net, cluster, link),
            Wait::Ask(link, timer) => self.ask(net, link, timer),
            Wait::AtSentinel(q) => {
                let s = self.links[q.link].sentinel;
                if self.reaches_sentinel(cluster, s) {
                    let view = cluster.sentinels[s].view;
                    let way = net.way();
                    self.wait(net, way, Wait::Answered(q, view));
                }
            }
            Wait::Answered(q, view) => self.answered(net, q, view),
            Wait::Late(q) => self.late(net, q),
            Wait::Event(link, conn, hint, names) => {
                self.heard_event(net, link, conn, (hint, names));
            }
            Wait::Closed(link, conn) => {
                if self.links[link].up && self.links[link].conn == conn {
                    self.link_down(net, link);
                }
            }
            Wait::AtNode(serial, addr) => self.at_node(net, cluster, serial, addr),
            Wait::Probed(serial, addr, report) => self.probed(net, serial, &addr, report),
            Wait::Check(serial) => self.check(net, serial),
            Wait::AtMaster(serial, redial) => self.at_master(net, cluster, serial, redial),
            Wait::Said(serial, addr, report) => self.master_said(net, serial, &addr, report),
            Wait::MasterClosed(serial) => self.master_closed(net, serial),
            Wait::Succeeds(serial, n) => {
                if self.successor == Some(serial) {
                    let way = net.way();
                    self.wait(net, way, Wait::AtSuccessor(serial, n, net.now));
                }
            }
            Wait::AtSuccessor(serial, n, asked) => {
                let (after, report) = self.ask_node(net, cluster, n);
                self.wait(net, after, Wait::SuccessorSaid(serial, n, asked, report));
            }
            Wait::SuccessorSaid(serial, n, asked, report) => {
                self.successor_said(net, serial, (n, asked), &report);
            }
            Wait::Doubt => {
                self.trace.line(net.now, "doubt");
                self.input(net, |steward, now| steward.doubt(now));
            }
        }
    }

    fn wait(&self, net: &mut Net, after: u64, wait: Wait) {
        net.after(after, Due::Proxy(self.number, wait));
    }

    fn observe(&mut self, net: &mut Net, link: usize, said: Said) {
        self.heard(net, link, said, |_| {});
    }

    fn heard(&mut self, net: &mut Net, link: usize, said: Said, record: impl FnOnce(&mut Checker)) {
        self.told(net, link, said, false, record);
    }

    /// `deaf`: the steward does not hear it.
    fn told(
        &mut self,
        net: &mut Net,
        link: usize,
        said: Said,
        deaf: bool,
        record: impl FnOnce(&mut Checker),
    ) {
        let observation = Observation {
            sentinel: sentinel(link),
            said,
        };
        self.checked_input(net, record, |steward, now| {
            if !deaf {
                steward.observe(now, observation);
            }
        });
    }

    fn input(&mut self, net: &mut Net, input: impl FnOnce(&mut Steward, Moment)) {
        self.checked_input(net, |_| {}, input);
    }

    /// As the control task does it: a turn, the input, what follows from both.
    fn checked_input(
        &mut self,
        net: &mut Net,
        record: impl FnOnce(&mut Checker),
        input: impl FnOnce(&mut Steward, Moment),
    ) {
        let now = net.now;
        net.steps += 1;
        if self.checker.begin(now) {
            self.trace.freeze(self.last_input, now - self.last_input);
            if self.plant == Plant::Sleepwalks {
                self.slept += now - self.last_input - 1;
            }
        }
        self.last_input = now;
        let at = moment(now - self.slept);
        self.steward.turn(at);
        self.checker.turned(now, self.floor());
        record(&mut self.checker);
        input(&mut self.steward, at);
        self.act(net);
        self.checker.end(now, &self.state, self.floor());
        self.schedule_turn(net);
    }

    fn floor(&self) -> Option<u64> {
        self.steward.beliefs().floor().map(|e| e.0)
    }

    fn schedule_turn(&mut self, net: &mut Net) {
        let at = (millis(self.steward.next_turn()) + self.slept).max(net.now);
        if at < self.turn_at {
            self.turn_at = at;
            self.wait(net, at - net.now, Wait::Turn(at));
        }
    }

    fn act(&mut self, net: &mut Net) {
        while let Some(action) = self.steward.next_action() {
            match action {
                Action::Publish(mut state) => {
                    let open = state.phase == Phase::Serving
                        || (self.plant == Plant::LeakyPause && state.is_paused());
                    self.checker
                        .paused(net.now, self.steward.is_paused() && open);
                    // Everything else has to be as if nobody had paused it.
                    if state.is_paused() {
                        state.phase = Phase::Serving;
                    }
                    let fenced = matches!(state.phase, Phase::Held { .. });
                    let back = fenced && state.generation > self.state.generation;
                    let unheard = (fenced && self.plant == Plant::NoFence)
                        || (back && self.plant == Plant::NeverGoesBack);
                    if !unheard {
                        self.trace
                            .note(net.now, &format!("-> {}", describe(&state)));
                        self.checker.published(net.now, &state);
                        self.state = state;
                    }
                }
                // What the data plane makes of it is not simulated.
                Action::Prove(_) | Action::Renew => {}
                Action::AskAll => {
                    for link in 0..self.links.len() {
                        self.want(net, link, Asked::OnDoubt, net.now);
                    }
                }
                Action::CheckMaster => {
                    if let Some(serial) = self
                        .master
                        .as_ref()
                        .filter(|m| m.connected)
                        .map(|m| m.serial)
                    {
                        self.wait(net, 0, Wait::Check(serial));
                    }
                }
                Action::Probe(addr) => {
                    self.serial += 1;
                    self.probe = Some(self.serial);
                    self.trace.probe(net.now, letter(node_of(&addr)));
                    self.checker.probe_begins(net.now, Some(node_of(&addr)));
                    let way = net.way();
                    self.wait(net, way, Wait::AtNode(self.serial, addr));
                }
                Action::StopProbe => {
                    self.probe = None;
                    self.checker.probe_begins(net.now, None);
                }
                Action::Watch(addr) => self.watch(net, addr),
                Action::Follow(addr) => {
                    self.serial += 1;
                    self.successor = Some(self.serial);
                    self.checker.follows(node_at(&addr));
                    self.wait(net, 0, Wait::Succeeds(self.serial, node_at(&addr)));
                }
                Action::Unfollow => self.successor = None,
                Action::Tell(tale) => self.checker.told(net.now, &tale),
            }
        }
    }
}

fn describe(state: &State) -> String {
    let master = state.master.as_ref().map_or('-', |m| letter(node_of(m)));
    match &state.phase {
        Phase::NoMaster => "none".to_owned(),
        Phase::Held {
            cause,
            sealed: true,
            ..
        } => {
            format!("sealed {cause} {master} {}", state.generation)
        }
        Phase::Held { cause, .. } => format!("held {cause} {master} {}", state.generation),
        Phase::Serving => format!("serving {master} {}", state.generation),
    }
}

const _: () = assert!(
    VALIDITY.as_millis() == 500,
    "standstills are drawn around it"
);
