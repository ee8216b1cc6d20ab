//! Sessions that are led to replicas (`role = "replica"`): which house a session lives in.
//!
//! ```text
//!             lobby (no upstream: waiting, detached, failing)
//!               |  ^
//!       needs   |  | has given up, or lost, its upstream
//!       one     v  |
//!             lane 0    lane 1   ...   the master's lane
//! ```
//!
//! Each lane is a house of its own, with its own fence, generations and spares, so that nothing on the way of a request knows of the
//! others. A session moves between houses only while it has no upstream.

use std::rc::{Rc, Weak};

use super::house::{House, Seat};
use super::relay::Relay;
use super::watch::Watch;
use super::{Event, Life, Stage};
use crate::net::clock::now;
use crate::topology::Phase;
use crate::topology::board::Board;
use crate::topology::publish::{Leave, Reader};
use crate::topology::replicas;

/// The houses of one replica entry on one worker.
#[derive(Debug)]
pub(crate) struct Lanes {
    lobby: Rc<House>,
    lanes: Vec<Rc<House>>,
}

/// A house's place among those of its entry.
#[derive(Debug)]
pub(super) struct Berth {
    board: Board,
    /// None in the lobby.
    lane: Option<usize>,
    /// Gone only when the entry is.
    all: Weak<Lanes>,
}

impl Lanes {
    /// Puts them together, once.
    pub(crate) fn new(lobby: &Rc<House>, lanes: Vec<Rc<House>>, board: &Board) -> Rc<Self> {
        let this = Rc::new(Self {
            lobby: Rc::clone(lobby),
            lanes,
        });
        let berth = |lane| Berth {
            board: board.clone(),
            lane,
            all: Rc::downgrade(&this),
        };
        // Each of them was made for this a moment ago.
        let _ = this.lobby.berth.set(berth(None));
        for (at, house) in this.lanes.iter().enumerate() {
            let _ = house.berth.set(berth(Some(at)));
        }
        this
    }

    /// All but the lobby.
    pub(crate) fn houses(&self) -> &[Rc<House>] {
        &self.lanes
    }

    fn pick(&self, board: &Board, but: Option<usize>) -> Option<&Rc<House>> {
        let good = |lane: usize| Some(lane) != but && self.lanes[lane].is_open();
        let lane = board.least_loaded(now(), good);
        lane.map(|lane| &self.lanes[lane])
    }
}

impl House {
    /// A session may get an upstream here now.
    fn is_open(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Serving && self.gate().leave(Reader::pass(&state)) == Leave::Open
    }

    /// Its sessions are led to replicas, or to the master for want of one.
    pub(super) fn leads_to_replicas(&self) -> bool {
        self.berth.get().is_some()
    }

    /// What its upstreams lead to is a replica.
    pub(super) fn is_of_replica(&self) -> bool {
        let lane = self.berth.get().and_then(|berth| berth.lane);
        lane.is_some_and(|lane| lane != replicas::Lanes::MASTER)
    }

    /// One of its sessions, which is looking and `could` leave, is to look for another lane.
    fn asks_to_leave(&self, could: impl FnOnce() -> bool) -> bool {
        match self.berth.get() {
            Some(Berth {
                board,
                lane: Some(lane),
                ..
            }) => board.asks_to_leave(*lane) && could() && board.is_asked_to_leave(*lane),
            _ => false,
        }
    }

    /// A session could not get an upstream here, or lost it at once: it is to be known what that means, and until then others are led
    /// elsewhere, unless it is not even certain.
    pub(super) fn shun(&self, is_certain: bool) {
        if let Some(Berth {
            board,
            lane: Some(lane),
            ..
        }) = self.berth.get()
        {
            if is_certain {
                board.shun(*lane, now());
            } else {
                board.suspect(*lane);
            }
        }
    }

    /// A session comes, or goes.
    pub(super) fn count_session(&self, comes: bool) {
        if let Some(Berth {
            board,
            lane: Some(lane),
            ..
        }) = self.berth.get()
        {
            if comes {
                board.enter(*lane);
            } else {
                board.leave(*lane);
            }
        }
    }
}

impl Seat {
    /// Before the state is looked at: whoever needs an upstream looks where there is one.
    pub(super) fn seek(&mut self, stage: Stage, event: Event) {
        let Some(berth) = self.house.berth.get() else {
            return;
        };
        let stays = match stage {
            Stage::Waiting | Stage::Failing => false,
            Stage::Dialing(generation) => {
                let accepts = berth.lane.is_some_and(|lane| berth.board.accepts(lane));
                accepts && self.house.is_open() && self.house.state().generation == generation
            }
            Stage::Detached => !matches!(event, Event::Spoke | Event::SpokeBefore),
            Stage::Live(_) | Stage::Closing(_) => true,
        };
        if stays {
            return;
        }
        let Some(lanes) = berth.all.upgrade() else {
            return;
        };
        let to = lanes.pick(&berth.board, None).unwrap_or(&lanes.lobby);
        self.move_to(to);
    }

    /// This session is to look for another lane. Only one that can is ever asked: requests to leave are few, and those who cannot would
    /// use them up.
    pub(super) fn is_to_leave<W: Watch>(&mut self, relay: &Relay<'_, W>) -> bool {
        self.leaves = W::MOVES && self.house.asks_to_leave(|| relay.could_retire());
        self.leaves
    }

    /// In the lobby: a session that has left a lane because it was asked to is here from now on, or here no longer. False elsewhere.
    pub(super) fn count_roaming(&self, begins: bool) -> bool {
        match self.house.berth.get() {
            Some(Berth {
                board, lane: None, ..
            }) => {
                board.roam(begins);
                true
            }
            _ => false,
        }
    }

    /// The replica it was led to cannot be dialled: to another one, if there is one. Whoever looks next must not
    /// [`seek`](Self::seek): the one it comes from has the fewest sessions, as nobody gets there.
    pub(super) fn seek_elsewhere(&mut self) -> bool {
        let Some(berth) = self.house.berth.get() else {
            return false;
        };
        let Some(lanes) = berth.all.upgrade() else {
            return false;
        };
        let other = lanes.pick(&berth.board, berth.lane);
        other.is_some_and(|other| {
            self.move_to(other);
            true
        })
    }

    /// Whoever has no upstream, and is getting none, is in the lobby. True when it went there.
    pub(super) fn return_to_lobby(&mut self, life: &Life) -> bool {
        if matches!(life.stage, Stage::Dialing(_) | Stage::Live(_)) {
            return false;
        }
        let all = match self.house.berth.get() {
            Some(Berth {
                lane: Some(_), all, ..
            }) => all.upgrade(),
            _ => None,
        };
        all.is_some_and(|lanes| {
            self.move_to(&lanes.lobby);
            true
        })
    }
}
