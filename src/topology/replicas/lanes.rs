//! Which replica each lane leads to, and what is published for it. Pure.
//!
//! A lane is a meeting point of its own: a [`State`], a fence, sessions. It leads to one replica from the moment at which that joins to
//! the moment at which it leaves; each such time has a generation of its own, counted over all lanes of the entry, so that a node that
//! comes back is another member. The last lane is the master's, for `fallback = "master"`. The lobby is where sessions are that have
//! no upstream.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::{Choice, Fallback, Unfit};
use crate::net::addr::NodeAddr;
use crate::net::clock::Moment;
use crate::topology::{ForReaders, Generation, HoldCause, MasterAddr, Phase, State};

/// Most replicas that are read from at once.
pub const MAX_MEMBERS: usize = 16;
/// The master's lane.
const MASTER: usize = Lanes::MASTER;
/// All of them.
const LANES: usize = Lanes::COUNT;
/// For so long after the first master is known its replicas are asked, and nobody falls back on it: nothing was lost.
const FIRST_LOOK: Duration = Duration::from_secs(1);

/// Sessions are evened out where a lane is off its share by more than one part in so many, in either direction.
const TOLERATED: u64 = 20;

/// What there is to be decided on.
#[derive(Clone, Debug)]
pub struct World<'a> {
    /// The master in force, or none.
    pub master: &'a State,
    /// Each replica: where it can be read from, or why not.
    pub replicas: &'a BTreeMap<NodeAddr, Result<SocketAddr, Unfit>>,
    /// Replicas that take no new connections, and may serve those they have.
    pub shut: &'a BTreeSet<NodeAddr>,
    /// Sessions of each lane.
    pub loads: &'a [u64],
}

/// What is to be done. In this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Publish this for a lane.
    Publish(usize, State),
    /// Publish this for the lobby.
    Lobby(State),
    /// New sessions may come to this lane, or may not.
    Accept(usize, bool),
    /// A replica is read from, from now on.
    Joined(usize, NodeAddr),
    /// It is not, any more. To be told when no session has an upstream of before.
    Left(usize, NodeAddr, Unfit),
}

#[derive(Clone, Debug)]
struct Member {
    addr: NodeAddr,
    at: SocketAddr,
    /// It takes no new connections.
    shut: bool,
    /// It leaves at this moment, for this reason.
    leaves: Option<(Moment, Unfit)>,
}

#[derive(Clone, Debug)]
struct Lane {
    state: State,
    accepts: bool,
    member: Option<Member>,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Lanes {
    choice: Choice,
    lanes: Vec<Lane>,
    lobby: State,
    /// The last generation that was given to anybody.
    last: u64,
    /// The master's generation that the master's lane is of.
    master: Generation,
    /// Since when a master is known.
    known: Option<Moment>,
}

impl Lanes {
    /// The master's.
    pub const MASTER: usize = MAX_MEMBERS;
    /// How many there are.
    pub const COUNT: usize = MAX_MEMBERS + 1;

    /// Nobody is there.
    pub fn new(choice: Choice, initial: &State) -> Self {
        let lane = Lane {
            state: initial.clone(),
            accepts: false,
            member: None,
        };
        Self {
            choice,
            lanes: vec![lane; LANES],
            lobby: initial.clone(),
            last: 0,
            master: Generation(0),
            known: None,
        }
    }

    /// Goes by this from now on.
    pub const fn change(&mut self, choice: Choice) {
        self.choice = choice;
    }

    /// True for a replica that is read from.
    pub fn is_in(&self, addr: &NodeAddr) -> bool {
        self.members().any(|(_, of)| of == addr)
    }

    /// Replicas that are read from.
    pub fn members(&self) -> impl Iterator<Item = (usize, &NodeAddr)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter_map(|(at, lane)| {
            let member = lane.member.as_ref()?;
            member.leaves.is_none().then_some((at, &member.addr))
        })
    }

    /// The master is read from, for want of replicas.
    pub fn falls_back(&self) -> bool {
        self.lanes[MASTER].accepts
    }

    /// Whether clients are served, for those who look.
    pub fn phase(&self) -> &Phase {
        if self.is_open() {
            &Phase::Serving
        } else {
            &self.lobby.phase
        }
    }

    /// There is a lane where new sessions may come.
    pub fn is_open(&self) -> bool {
        let open = |lane: &Lane| lane.accepts && lane.state.phase == Phase::Serving;
        self.lanes.iter().any(open)
    }

    /// When something is to be looked at again.
    pub fn next_turn(&self) -> Option<Moment> {
        self.leaving().map(|(at, _)| at).min()
    }

    /// Somebody is about to leave because there is another master, or is one.
    pub fn is_switching(&self) -> bool {
        let mut leaving = self.leaving();
        leaving.any(|(_, why)| matches!(why, Unfit::Promoted | Unfit::OtherMaster))
    }

    fn leaving(&self) -> impl Iterator<Item = (Moment, Unfit)> {
        let members = self.lanes.iter().filter_map(|lane| lane.member.as_ref());
        members.filter_map(|member| member.leaves)
    }

    /// Looks at what is, and says what is to be done.
    pub fn look(&mut self, now: Moment, world: &World<'_>) -> Vec<Move> {
        let mut moves = Vec::new();
        let hold = hold_of(world.master);
        if world.master.master.is_some() {
            self.known.get_or_insert(now);
        }
        for at in 0..MAX_MEMBERS {
            self.stay_or_leave(at, now, world, hold.as_ref(), &mut moves);
        }
        for (addr, fit) in world.replicas {
            let Ok(socket) = fit else { continue };
            if is_successor(world, addr) || world.shut.contains(addr) {
                continue;
            }
            let taken = |lane: &Lane| lane.member.as_ref().is_some_and(|m| m.addr == *addr);
            if self.lanes.iter().any(taken) {
                continue;
            }
            let free = self.lanes[..MAX_MEMBERS]
                .iter()
                .position(|lane| lane.member.is_none());
            let Some(at) = free else { break };
            let state = State {
                generation: self.next_generation(),
                phase: hold.clone().unwrap_or(Phase::Serving),
                master: Some(MasterAddr::decided(addr.clone())),
                verified_at: Some(*socket),
                hold_max: world.master.hold_max,
                readers: ForReaders::default(),
            };
            self.lanes[at].member = Some(Member {
                addr: addr.clone(),
                at: *socket,
                shut: false,
                leaves: None,
            });
            self.publish(at, state, &mut moves);
            self.accept(at, true, &mut moves);
            moves.push(Move::Joined(at, addr.clone()));
        }
        self.fall_back(now, world, &mut moves);
        self.lobby(now, world, hold, &mut moves);
        moves
    }

    fn stay_or_leave(
        &mut self,
        at: usize,
        now: Moment,
        world: &World<'_>,
        hold: Option<&Phase>,
        moves: &mut Vec<Move>,
    ) {
        let Some(member) = &mut self.lanes[at].member else {
            return;
        };
        let verdict = match world.replicas.get(&member.addr) {
            // Its name leads to another address, which is another member.
            Some(Ok(at)) if *at != member.at => Err(Unfit::Unproven),
            // Nothing is to be written there by those who read, nor are they to be cut when Sentinel promotes it.
            Some(Ok(_)) if is_successor(world, &member.addr) => Err(Unfit::Promoted),
            Some(verdict) => verdict.map(|_| ()),
            None => Err(Unfit::Unlisted),
        };
        member.shut = world.shut.contains(&member.addr);
        let addr = member.addr.clone();
        let stood_still = matches!(
            hold,
            Some(Phase::Held {
                cause: HoldCause::Resumed,
                ..
            })
        );
        let (until, why) = match (member.leaves, verdict) {
            (None | Some((_, Unfit::Unproven)), Ok(())) => {
                member.leaves = None;
                self.stay(at, world.master.hold_max, hold, moves);
                return;
            }
            // Nobody could answer this process while it stood still; until that is over nobody is asked anything.
            (None, Err(Unfit::Silent | Unfit::Lagging | Unfit::Unproven)) if stood_still => {
                self.stay(at, world.master.hold_max, hold, moves);
                return;
            }
            (None, Err(why)) => (now + why.grace(), why),
            // One that is good again comes back as another.
            (Some(leaves), Ok(())) => leaves,
            // What is known by now says more than that nothing was known.
            (Some((until, Unfit::Unproven)), Err(other)) => (until.min(now + other.grace()), other),
            (Some((until, why)), Err(other)) => (until.min(now + other.grace()), why),
        };
        member.leaves = Some((until, why));
        self.accept(at, false, moves);
        if now < until {
            let mut state = self.lanes[at].state.clone();
            // It is a matter of moments, and of no limit.
            state.hold_max = world.master.hold_max.max(why.grace());
            if state.phase == Phase::Serving {
                state.phase = Phase::Held {
                    cause: HoldCause::NoReplica,
                    since: now,
                    sealed: false,
                };
            }
            self.publish(at, state, moves);
        } else {
            self.empty(at, world.master.hold_max, moves);
            self.lanes[at].member = None;
            moves.push(Move::Left(at, addr, why));
        }
    }

    fn stay(&mut self, at: usize, hold_max: Duration, hold: Option<&Phase>, moves: &mut Vec<Move>) {
        let mut state = self.lanes[at].state.clone();
        state.phase = hold.cloned().unwrap_or(Phase::Serving);
        state.hold_max = hold_max;
        let open = self.lanes[at].member.as_ref().is_some_and(|m| !m.shut);
        self.publish(at, state, moves);
        self.accept(at, open, moves);
    }

    /// Nobody may write there or read from there any more.
    fn empty(&mut self, at: usize, hold_max: Duration, moves: &mut Vec<Move>) {
        let state = State {
            generation: self.next_generation(),
            phase: Phase::NoMaster,
            master: None,
            verified_at: None,
            hold_max,
            readers: ForReaders::default(),
        };
        self.publish(at, state, moves);
    }

    /// The master's lane is as the master is, as long as it has sessions or is to have some.
    fn fall_back(&mut self, now: Moment, world: &World<'_>, moves: &mut Vec<Move>) {
        // One that is about to leave may yet stay, and is gone in a moment if not.
        let mut members = self.lanes.iter().filter_map(|lane| lane.member.as_ref());
        let served = members.any(|member| !member.shut);
        let known = world.master.master.is_some();
        let looked = self.last > 0
            || self
                .known
                .is_some_and(|since| now.since(since) >= FIRST_LOOK);
        let wanted = self.choice.fallback == Fallback::Master && known && looked && !served;
        let has_sessions = world.loads.get(MASTER).is_some_and(|load| *load > 0);
        let lane = &self.lanes[MASTER].state;
        let is_used = lane.master.is_some() && has_sessions;
        if known && (wanted || is_used) {
            let generation = if lane.master.is_some() && self.master == world.master.generation {
                lane.generation
            } else {
                self.master = world.master.generation;
                self.next_generation()
            };
            let state = State {
                generation,
                readers: ForReaders::default(),
                ..world.master.clone()
            };
            self.publish(MASTER, state, moves);
        } else if lane.master.is_some() {
            self.empty(MASTER, world.master.hold_max, moves);
        }
        self.accept(MASTER, wanted, moves);
    }

    fn lobby(
        &mut self,
        now: Moment,
        world: &World<'_>,
        hold: Option<Phase>,
        moves: &mut Vec<Move>,
    ) {
        let phase = match (hold, &self.lobby.phase) {
            (Some(hold), _) => hold,
            // Nobody waits who can be served.
            _ if self.is_open() => Phase::NoMaster,
            _ if world.master.master.is_none() => Phase::NoMaster,
            (
                None,
                before @ Phase::Held {
                    cause: HoldCause::NoReplica,
                    ..
                },
            ) => before.clone(),
            (None, _) => Phase::Held {
                cause: HoldCause::NoReplica,
                since: now,
                sealed: false,
            },
        };
        let known = world.master.master.is_some();
        let state = State {
            generation: Generation(u64::from(known)),
            phase,
            master: None,
            verified_at: None,
            hold_max: world.master.hold_max,
            readers: ForReaders::default(),
        };
        // Who waits there has to look again when there is a new place to go.
        let opened = moves.iter().any(|m| matches!(m, Move::Accept(_, true)));
        let reopened = moves.iter().any(
            |m| matches!(m, Move::Publish(at, s) if s.phase == Phase::Serving && self.lanes[*at].accepts),
        );
        if self.lobby != state || opened || reopened {
            self.lobby = state.clone();
            let lobby = Move::Lobby(state);
            // Whoever is sent there is to see how long it has been so before it is sent; whoever is to leave it, a place to go.
            if self.is_open() {
                moves.push(lobby);
            } else {
                moves.insert(0, lobby);
            }
        }
    }

    const fn next_generation(&mut self) -> Generation {
        self.last += 1;
        Generation(self.last)
    }

    fn publish(&mut self, at: usize, state: State, moves: &mut Vec<Move>) {
        if self.lanes[at].state != state {
            self.lanes[at].state = state.clone();
            moves.push(Move::Publish(at, state));
        }
    }

    fn accept(&mut self, at: usize, accepts: bool, moves: &mut Vec<Move>) {
        if std::mem::replace(&mut self.lanes[at].accepts, accepts) != accepts {
            moves.push(Move::Accept(at, accepts));
        }
    }

    /// How many sessions each lane is to lose so that all come to an even share, where that is worth asking them to look for another
    /// lane. Those that are `roaming` have left one for that, and will come to those that have less than their share.
    pub fn too_many(&self, loads: &[u64], roaming: u64) -> Vec<(usize, u64)> {
        let open = |lane: &Lane| lane.accepts && lane.state.phase == Phase::Serving;
        let load = |at: usize| loads.get(at).copied().unwrap_or_default();
        // What a replica has that takes no new ones it keeps: they would have to be taken by others, and it serves them.
        let is_shut = |at: usize| self.lanes[at].member.as_ref().is_some_and(|m| m.shut);
        let serves = |at: &usize| self.lanes[*at].state.phase == Phase::Serving && !is_shut(*at);
        let (mut takers, others): (Vec<usize>, Vec<usize>) = (0..LANES)
            .filter(serves)
            .partition(|at| open(&self.lanes[*at]));
        if takers.is_empty() {
            return Vec::new();
        }
        let has_some = others.into_iter().filter(|at| load(*at) > 0);
        let mut asked: Vec<(usize, u64)> = has_some.map(|at| (at, load(at))).collect();
        let all = (0..LANES).filter(serves).map(load).sum::<u64>() + roaming;
        let of = takers.len() as u64;
        // Those that have the most keep what cannot be shared.
        takers.sort_by_key(|at| Reverse(load(*at)));
        let (most, least) = (load(takers[0]), load(takers[takers.len() - 1]));
        // A client more or less is no reason to move anybody.
        let is_off = |at: &usize| (load(*at) * of).abs_diff(all) * TOLERATED > all;
        if most - least > 1 && takers.iter().any(is_off) {
            let shares = (0..of).map(|rank| all / of + u64::from(rank < all % of));
            let over = takers
                .iter()
                .zip(shares)
                .map(|(at, share)| (*at, load(*at).saturating_sub(share)));
            asked.extend(over.filter(|(_, sessions)| *sessions > 0));
        }
        asked.sort_unstable();
        asked
    }
}

/// Holds of the master's that concern its replicas: whoever reads is to wait, too.
fn hold_of(master: &State) -> Option<Phase> {
    let (cause, since) = master.readers.held?;
    Some(Phase::Held {
        cause,
        since,
        sealed: false,
    })
}

/// An announced failover is about to promote it.
fn is_successor(world: &World<'_>, addr: &NodeAddr) -> bool {
    world.master.readers.successor.as_ref() == Some(addr)
}
