//! What an entry that leads to replicas has beside what every entry has: a lobby, lanes, and a task that publishes them.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::control::ledger::Book;
use crate::control::{self, Settings, replicas};
use crate::net::reserve::Reserve;
use crate::net::resolver::Resolver;
use crate::sentinel::discovery::Asker;
use crate::sentinel::watcher::Subscriber;
use crate::topology::State;
use crate::topology::board::{Board, LaneEnds};
use crate::topology::observation::Observation;
use crate::topology::publish::{Publisher, Reader, Subscription, channel};
use crate::topology::replicas::Lanes;

/// The ends of its channels that somebody has to be given.
pub(super) struct Readers {
    /// What the control task publishes.
    changed: Subscription,
    lobby: Publisher,
    lanes: Vec<Publisher>,
    board: Board,
    pub(super) seen: mpsc::Sender<Observation>,
    observations: mpsc::Receiver<Observation>,
    /// For the workers.
    ends: Option<(Reader, Vec<Subscription>, LaneEnds)>,
}

impl Readers {
    /// Beside a master whose state is seen through `changed`.
    pub(super) fn new(initial: &State, changed: Subscription, workers: usize) -> Self {
        let (lobby, lobby_reader, lobby_ends) = channel(initial.clone(), workers);
        let board = Board::new(Lanes::COUNT);
        let (mut lanes, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..Lanes::COUNT {
            let (publisher, reader, subscriptions) = channel(initial.clone(), workers);
            lanes.push(publisher);
            ends.push((reader, subscriptions));
        }
        let (seen, observations) = mpsc::channel(control::MAX_OBSERVATIONS);
        let lanes_of_workers = LaneEnds {
            board: board.clone(),
            lanes: ends,
        };
        Self {
            changed,
            lobby,
            lanes,
            board,
            seen,
            observations,
            ends: Some((lobby_reader, lobby_ends, lanes_of_workers)),
        }
    }

    /// What the workers get, once: the lobby's state and subscriptions, and the lanes'.
    pub(super) const fn take_ends(&mut self) -> Option<(Reader, Vec<Subscription>, LaneEnds)> {
        self.ends.take()
    }

    /// What the task is given.
    pub(super) fn into_entry(
        self,
        name: &Arc<str>,
        settings: watch::Receiver<Settings>,
        (resolver, reserve): (Resolver, Reserve),
        asker: Asker,
        master: Reader,
        book: Book,
    ) -> replicas::Entry {
        replicas::Entry {
            name: Arc::clone(name),
            settings,
            resolver,
            reserve,
            observations: self.observations,
            asker,
            master,
            changed: self.changed,
            lobby: self.lobby,
            lanes: self.lanes,
            board: self.board,
            book,
        }
    }
}

/// Who wants to know of the replicas of this master.
pub(super) fn subscriber(master: &str, seen: &mpsc::Sender<Observation>) -> Subscriber {
    Subscriber {
        master: master.to_owned(),
        leases: false,
        replicas: true,
        observations: seen.clone(),
    }
}
