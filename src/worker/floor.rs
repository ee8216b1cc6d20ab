//! The houses of one worker, and how they come and go while it serves.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::iter;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::SESSIONS_END_LIMIT;
use super::dealer::{Deal, Dealer, Dealt, Tickets};
use super::handshakes::Handshakes;
use super::thread::{Room, RoomLanes};
use crate::listener::{Bound, Door, Greeting, SocketId, serve};
use crate::net::clock::now;
use crate::net::stream::Stream;
use crate::session::close::CloseReason;
use crate::session::luggage::Packet;
use crate::session::{self, Buffer, Ending, House, Lanes, Login, Seat, adopt, run};

/// Orders on their way to one worker; whoever gives more waits.
pub(super) const ORDERS: usize = 16;
/// How often it is looked whether places are few; and how soon again when there are more to be looked at than in one go.
const CROWD_LOOK: Duration = Duration::from_secs(1);
const CROWD_MORE: Duration = Duration::from_millis(50);

/// What a worker is told while it serves. Entries go by their numbers, which are never used again.
#[derive(Debug)]
pub(super) enum Order {
    /// An entry is served from now on.
    House(usize, Box<Room>),
    /// How its sessions are made from now on.
    Change(usize, session::Config, Option<Arc<Login>>),
    /// Worker 0 only: clients of this entry come in here, too.
    Open(usize, Bound, Arc<Door>),
    /// Worker 0 only: they no longer do.
    Close(usize, SocketId),
    /// The entry is served no longer: its sessions have so long for what they have begun.
    Leave(usize, Duration),
    /// Its house is of no use any more: no worker has sessions of it.
    Raze(usize),
    /// Some of its sessions, from this seat on, are to let go; the answer is where to go on.
    LetGo(usize, usize, oneshot::Sender<LetGo>),
    /// These sessions of it are served from now on.
    Seat(usize, Vec<Packet>),
}

/// Sessions that nobody serves, and the seat behind the last that was asked; none when there are no more.
pub(super) type LetGo = (Vec<Packet>, Option<usize>);

/// An order, and where it is told that it was carried out.
pub(super) type Told = (Order, oneshot::Sender<()>);

/// The rooms of one thread, made there.
pub(super) struct Floor {
    buffer: Buffer,
    /// How many sessions it has.
    load: Arc<AtomicUsize>,
    houses: RefCell<BTreeMap<usize, Rc<Lodging>>>,
}

/// A house, what hears its bell, and who lives there.
struct Lodging {
    house: Rc<House>,
    /// Where its sessions are led to replicas.
    lanes: Option<Rc<Lanes>>,
    door: Arc<Door>,
    bells: Vec<AbortHandle>,
    sessions: TaskTracker,
    handshakes: Handshakes,
}

impl Lodging {
    /// All houses of the entry.
    fn houses(&self) -> impl Iterator<Item = &Rc<House>> {
        let lanes = self.lanes.iter().flat_map(|lanes| lanes.houses());
        iter::once(&self.house).chain(lanes)
    }

    fn end(&self, ending: Ending) {
        self.handshakes.end();
        self.houses().for_each(|house| house.end(ending));
    }
}

/// What runs on a thread beside its sessions. None ends by itself; if one does, the worker is of no use.
#[derive(Default)]
pub(super) struct Attendants {
    pub(super) bells: JoinSet<()>,
    /// True of one that was told to end.
    pub(super) doors: JoinSet<bool>,
    /// The doors by what they are of.
    open: BTreeMap<(usize, SocketId), Way>,
}

/// A listener at which clients come in.
struct Way {
    stop: CancellationToken,
    /// Empty when nobody comes in there any more.
    accepting: TaskTracker,
}

impl Floor {
    pub(super) fn new(buffer: Buffer, load: Arc<AtomicUsize>) -> Self {
        Self {
            buffer,
            load,
            houses: RefCell::default(),
        }
    }

    /// Begins to serve an entry.
    pub(super) fn settle(&self, entry: usize, room: Room, attendants: &mut Attendants) {
        let build = |reader, subscription| {
            let house = House::new(
                Arc::clone(&room.name),
                room.config,
                reader,
                subscription,
                Arc::clone(&room.tally),
                Arc::clone(&room.common),
                Rc::clone(&self.buffer),
            );
            house.log_in_with(room.login.clone());
            house
        };
        let house = build(room.reader, room.subscription);
        let lanes = room.lanes.map(|RoomLanes { board, lanes }| {
            let lanes = lanes.into_iter();
            let houses = lanes.map(|(reader, subscription)| build(reader, subscription));
            Lanes::new(&house, houses.collect(), &board)
        });
        let mut lodging = Lodging {
            house,
            lanes,
            door: room.door,
            bells: Vec::new(),
            sessions: TaskTracker::new(),
            handshakes: Handshakes::default(),
        };
        let bells = lodging.houses().map(|house| {
            let attending = Rc::clone(house).attend();
            attendants.bells.spawn_local(attending)
        });
        lodging.bells = bells.collect();
        self.houses.borrow_mut().insert(entry, Rc::new(lodging));
    }

    fn lodging(&self, entry: usize) -> Option<Rc<Lodging>> {
        self.houses.borrow().get(&entry).cloned()
    }

    fn lodgings(&self) -> Vec<Rc<Lodging>> {
        self.houses.borrow().values().cloned().collect()
    }

    fn seat(&self, entry: usize, client: Stream, greeting: Option<Greeting>, tickets: Tickets) {
        // Gone: it came in just before its entry was removed.
        let Some(lodging) = self.lodging(entry) else {
            return;
        };
        if let Some(Greeting { tls, peer }) = greeting {
            let handshake = lodging.handshakes.begin();
            let (door, house) = (Arc::clone(&lodging.door), Rc::clone(&lodging.house));
            lodging.sessions.spawn_local(async move {
                let counted = tickets;
                // In a box, so that a session does not carry it about.
                match Box::pin(handshake.run(tls.accept(client))).await {
                    Ok(client) => {
                        let seat = Seat::new(&house).conveyed_from(counted.conveyed());
                        run(seat, client).await;
                    }
                    Err(turned_away) => {
                        if let Some(refused) = turned_away.why {
                            door.no_tls(refused, peer);
                        }
                        Box::pin(turned_away.leave()).await;
                    }
                }
            });
            return;
        }
        let seat = Seat::new(&lodging.house).conveyed_from(tickets.conveyed());
        lodging.sessions.spawn_local(async move {
            let _counted = tickets;
            run(seat, client).await;
        });
    }

    pub(super) fn seat_from_afar(&self, deal: Deal) {
        match deal.stream.register() {
            Ok(client) => self.seat(deal.entry, client, deal.greeting, deal.tickets),
            Err(_) => {
                if let Some(lodging) = self.lodging(deal.entry) {
                    Seat::new(&lodging.house).close(CloseReason::NotWatched);
                }
            }
        }
    }

    /// Where places become few, those make room who have one and never asked for anything; never ends.
    pub(super) async fn watch_for_crowds(self: Rc<Self>) {
        let mut more = false;
        loop {
            tokio::time::sleep(if more { CROWD_MORE } else { CROWD_LOOK }).await;
            more = false;
            for lodging in self.lodgings() {
                if lodging.door.is_crowded() {
                    for house in lodging.houses() {
                        more |= house.suspect_the_silent(now());
                    }
                }
            }
        }
    }

    /// Serves sessions that nobody serves.
    fn seat_again(&self, entry: usize, packets: Vec<Packet>) {
        let Some(lodging) = self.lodging(entry) else {
            return;
        };
        for packet in packets {
            let tickets = Tickets::new(
                lodging.door.admit(&packet.client, packet.conveyed),
                &self.load,
            );
            if let Some(session) = adopt(&lodging.house, packet) {
                lodging.sessions.spawn_local(async move {
                    let _counted = tickets;
                    session.await;
                });
            }
        }
    }

    /// Asks some sessions of this entry to let go, from this seat on.
    async fn let_go(&self, entry: usize, from: usize, answer: oneshot::Sender<LetGo>) {
        let Some(lodging) = self.lodging(entry) else {
            return;
        };
        if lodging.lanes.is_some() {
            // Which replica an upstream leads to is not agreed on between two processes: these sessions drain here.
            let _ = answer.send((Vec::new(), None));
            return;
        }
        let mut next = from;
        let (packets, more) = lodging.house.let_go(&mut next).await;
        if let Err((packets, _)) = answer.send((packets, more.then_some(next))) {
            // Nobody takes them.
            self.seat_again(entry, packets);
        }
    }

    pub(super) fn end(&self, ending: Ending) {
        for lodging in self.lodgings() {
            lodging.end(ending);
        }
    }

    /// Until no session is left.
    pub(super) async fn emptied(&self) {
        for lodging in self.lodgings() {
            lodging.sessions.close();
            lodging.sessions.wait().await;
        }
    }

    /// Does what it is told, and says so.
    pub(super) async fn obey(
        self: &Rc<Self>,
        (order, done): Told,
        attendants: &mut Attendants,
        dealer: Option<&Rc<Dealer>>,
    ) {
        match order {
            Order::House(entry, room) => self.settle(entry, *room, attendants),
            Order::Change(entry, config, login) => {
                if let Some(lodging) = self.lodging(entry) {
                    for house in lodging.houses() {
                        house.change(config);
                        house.log_in_with(login.clone());
                    }
                }
            }
            Order::Open(entry, bound, door) => {
                if let Some(dealer) = dealer {
                    attendants.open(entry, bound, door, dealer, self);
                }
            }
            Order::Raze(entry) => self.raze(entry),
            Order::Close(entry, socket) => attendants.close(entry, socket).await,
            Order::LetGo(entry, from, answer) => self.let_go(entry, from, answer).await,
            Order::Seat(entry, packets) => self.seat_again(entry, packets),
            Order::Leave(entry, grace) => {
                let floor = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    floor.leave(entry, grace).await;
                    // Nobody waits any more where the process ends.
                    let _ = done.send(());
                });
                return;
            }
        }
        let _ = done.send(());
    }

    async fn leave(&self, entry: usize, grace: Duration) {
        let Some(lodging) = self.lodging(entry) else {
            return;
        };
        lodging.end(Ending::Draining);
        lodging.sessions.close();
        if timeout(grace, lodging.sessions.wait()).await.is_err() {
            lodging.end(Ending::Now);
            // One that takes longer is ended with the process, and counted as such.
            let _ = timeout(SESSIONS_END_LIMIT, lodging.sessions.wait()).await;
        }
    }

    /// Not sooner than the other workers' sessions have ended: until then a switch waits for this house to acknowledge it, too.
    fn raze(&self, entry: usize) {
        let razed = self.houses.borrow_mut().remove(&entry);
        if let Some(lodging) = razed {
            lodging.bells.iter().for_each(AbortHandle::abort);
        }
    }
}

impl Attendants {
    /// Lets clients of an entry in, unless they come in there already.
    pub(super) fn open(
        &mut self,
        entry: usize,
        bound: Bound,
        door: Arc<Door>,
        dealer: &Rc<Dealer>,
        floor: &Rc<Floor>,
    ) {
        let key = (entry, bound.id());
        if self.open.contains_key(&key) {
            return;
        }
        let way = Way {
            stop: CancellationToken::new(),
            accepting: TaskTracker::new(),
        };
        let (dealer, floor) = (Rc::clone(dealer), Rc::clone(floor));
        let accepting = accept(entry, bound, door, way.stop.clone(), dealer, floor);
        self.doors
            .spawn_local(way.accepting.track_future(accepting));
        way.accepting.close();
        self.open.insert(key, way);
    }

    /// Lets nobody in there any more; whoever was accepted is dealt, and the socket is closed when this is over.
    async fn close(&mut self, entry: usize, socket: SocketId) {
        if let Some(way) = self.open.remove(&(entry, socket)) {
            way.stop.cancel();
            way.accepting.wait().await;
        }
    }
}

/// True for the end of a task that was told to end.
pub(super) fn was_told(ended: &Result<(), JoinError>) -> bool {
    ended.as_ref().is_err_and(JoinError::is_cancelled)
}

/// Until it is told to stop; false when it ends by itself.
async fn accept(
    entry: usize,
    bound: Bound,
    door: Arc<Door>,
    stop: CancellationToken,
    dealer: Rc<Dealer>,
    floor: Rc<Floor>,
) -> bool {
    let deal = |accepted| {
        let (dealer, floor, door) = (&dealer, &floor, &door);
        async move {
            match dealer.deal(entry, accepted).await {
                Dealt::Here(client, greeting, tickets) => {
                    floor.seat(entry, client, greeting, tickets);
                }
                Dealt::Away => {}
                Dealt::Nowhere => door.no_worker(),
            }
        }
    };
    if let Err(error) = serve(bound, Arc::clone(&door), &stop, deal).await {
        error!(
            event = "listener_failed",
            "a listener cannot be watched: {error}"
        );
    }
    stop.is_cancelled()
}
