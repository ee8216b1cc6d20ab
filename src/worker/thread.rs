//! One data-plane thread: its runtime, its houses, its end.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::dealer::{Deal, Dealer, Dealt, Inbox, Tickets};
use super::hands::{Order, Orders};
use super::heart::Heart;
use super::{Departed, SESSIONS_END_LIMIT, Stops};
use crate::listener::{Bound, Door, serve};
use crate::net::stream::Stream;
use crate::session::close::CloseReason;
use crate::session::luggage::Packet;
use crate::session::tally::Tally;
use crate::session::{self, Common, Ending, House, Seat, adopt, new_buffer, run};
use crate::topology::publish::{Reader, Subscription};

/// Threads that names of masters are resolved on, at most (`getaddrinfo(3)` blocks).
const RESOLVER_THREADS: usize = 4;

/// What a worker is to do.
#[derive(Debug)]
pub(super) struct Plan {
    inbox: Inbox,
    orders: Orders,
    /// How many sessions it has.
    load: Arc<AtomicUsize>,
    /// One for each proxy entry.
    pub(super) rooms: Vec<Room>,
    /// Worker 0 only.
    pub(super) front: Option<Front>,
}

impl Plan {
    pub(super) const fn new(inbox: Inbox, orders: Orders, load: Arc<AtomicUsize>) -> Self {
        Self {
            inbox,
            orders,
            load,
            rooms: Vec::new(),
            front: None,
        }
    }
}

/// What accepts for all workers.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) dealer: Dealer,
}

/// What a house is made of; crosses to its thread, where a house cannot.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    pub(super) config: session::Config,
    pub(super) reader: Reader,
    pub(super) subscription: Subscription,
    pub(super) tally: Arc<Tally>,
    pub(super) common: Arc<Common>,
    pub(super) door: Arc<Door>,
}

/// Starts worker `worker`.
pub(super) fn start(
    worker: usize,
    plan: Plan,
    stops: Stops,
    report: mpsc::Sender<Departed>,
    heart: Heart,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(format!("worker-{worker}"))
        .spawn(move || {
            let _leaving = Leaving {
                worker,
                report,
                heart: heart.clone(),
            };
            let runtime = Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(RESOLVER_THREADS)
                .build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    runtime.block_on(work(worker, plan, stops, heart));
                    // A resolver that hangs must not hold up the end.
                    runtime.shutdown_background();
                }
                Err(error) => error!(
                    event = "worker_failed",
                    worker, "cannot make a runtime: {error}; raise LimitNOFILE"
                ),
            }
        })
}

/// Reports the end of a thread, however it came about.
struct Leaving {
    worker: usize,
    report: mpsc::Sender<Departed>,
    heart: Heart,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.heart.rests();
        // The channel has room for every worker; nobody listens any more when the pool is gone.
        let _ = self.report.try_send(Departed {
            worker: self.worker,
            panicked: thread::panicking(),
        });
    }
}

/// The rooms of one thread, made there.
struct Floor {
    houses: Vec<Rc<House>>,
    /// One for each house.
    doors: Vec<Arc<Door>>,
    sessions: TaskTracker,
    load: Arc<AtomicUsize>,
}

impl Floor {
    fn seat(&self, entry: usize, client: Stream, tickets: Tickets) {
        let Some(house) = self.houses.get(entry) else {
            return;
        };
        let seat = Seat::new(house);
        self.sessions.spawn_local(async move {
            let _counted = tickets;
            run(seat, client).await;
        });
    }

    /// Serves sessions that nobody serves.
    fn seat_again(&self, entry: usize, at: Option<SocketAddr>, packets: Vec<Packet>) {
        let (Some(house), Some(door)) = (self.houses.get(entry), self.doors.get(entry)) else {
            return;
        };
        for packet in packets {
            let tickets = Tickets::new(door.admit(), &self.load);
            if let Some(session) = adopt(house, packet, at) {
                self.sessions.spawn_local(async move {
                    let _counted = tickets;
                    session.await;
                });
            }
        }
    }

    /// Asks some sessions of this entry to let go, from this seat on; gives where to go on.
    async fn let_go(&self, entry: usize, from: usize) -> (Vec<Packet>, Option<usize>) {
        let Some(house) = self.houses.get(entry) else {
            return (Vec::new(), None);
        };
        let mut next = from;
        let (packets, more) = house.let_go(&mut next).await;
        (packets, more.then_some(next))
    }

    fn end(&self, ending: Ending) {
        for house in &self.houses {
            house.end(ending);
        }
    }

    fn seat_from_afar(&self, deal: Deal) {
        match deal.stream.register() {
            Ok(client) => self.seat(deal.entry, client, deal.tickets),
            Err(_) => {
                if let Some(house) = self.houses.get(deal.entry) {
                    Seat::new(house).close(CloseReason::NotWatched);
                }
            }
        }
    }
}

async fn work(worker: usize, plan: Plan, stops: Stops, heart: Heart) {
    let buffer = new_buffer();
    let doors = plan.rooms.iter().map(|room| Arc::clone(&room.door));
    let doors = doors.collect();
    let houses = plan.rooms.into_iter().map(|room| {
        House::new(
            room.name,
            room.config,
            room.reader,
            room.subscription,
            room.tally,
            room.common,
            Rc::clone(&buffer),
        )
    });
    let floor = Rc::new(Floor {
        houses: houses.collect(),
        doors,
        sessions: TaskTracker::new(),
        load: plan.load,
    });
    // None of these ends by itself; if one does, the worker is of no use.
    let mut bells = JoinSet::new();
    for house in &floor.houses {
        bells.spawn_local(Rc::clone(house).attend());
    }
    bells.spawn_local(heart.beat());
    let mut receiving = JoinSet::new();
    receiving.spawn_local(receive(plan.inbox, Rc::clone(&floor)));
    let has_doors = plan.front.is_some();
    let mut porch = plan.front.map(|front| Porch::new(front.dealer, &floor));
    let mut orders = plan.orders;
    let drains = loop {
        tokio::select! {
            () = stops.drain.cancelled() => break true,
            Some(_) = bells.join_next() => break lost(worker, "a bell"),
            () = Porch::lost(&mut porch) => break lost(worker, "a listener"),
            Some(order) = orders.recv() => obey(order, &floor, &mut porch).await,
        }
    };
    drop(orders);
    // The dealer goes with it.
    if let Some(porch) = porch {
        porch.leave().await;
    }
    if drains {
        let draining = async {
            floor.end(Ending::Draining);
            if has_doors {
                stops.closed.cancel();
            } else {
                stops.closed.cancelled().await;
            }
            // Whoever was dealt here already; the dealer is gone with the listeners.
            while receiving.join_next().await.is_some() {}
            floor.sessions.close();
            floor.sessions.wait().await;
        };
        stops.now.run_until_cancelled(draining).await;
    }
    floor.end(Ending::Now);
    floor.sessions.close();
    // Sessions that take longer are dropped with the runtime, and counted as such.
    let _ = timeout(SESSIONS_END_LIMIT, floor.sessions.wait()).await;
}

async fn receive(mut inbox: Inbox, floor: Rc<Floor>) {
    while let Some(deal) = inbox.0.recv().await {
        floor.seat_from_afar(deal);
    }
}

/// What accepts; on worker 0 alone.
struct Porch {
    dealer: Rc<Dealer>,
    floor: Rc<Floor>,
    /// None ends by itself; if one does, the worker is of no use.
    open: JoinSet<()>,
    stop: CancellationToken,
}

impl Porch {
    fn new(dealer: Dealer, floor: &Rc<Floor>) -> Self {
        Self {
            dealer: Rc::new(dealer),
            floor: Rc::clone(floor),
            open: JoinSet::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Accepts at these, one list for each entry.
    fn open(&mut self, bound: Vec<Vec<Bound>>) {
        self.stop = CancellationToken::new();
        for (entry, bound) in bound.into_iter().enumerate() {
            let Some(door) = self.floor.doors.get(entry) else {
                return;
            };
            for bound in bound {
                self.open.spawn_local(accept(
                    entry,
                    bound,
                    Arc::clone(door),
                    self.stop.clone(),
                    Rc::clone(&self.dealer),
                    Rc::clone(&self.floor),
                ));
            }
        }
    }

    /// Accepts no more; whoever was accepted is dealt.
    async fn close(&mut self) {
        self.stop.cancel();
        while self.open.join_next().await.is_some() {}
    }

    async fn leave(mut self) {
        self.open.shutdown().await;
    }

    /// Until one that is open ends.
    async fn lost(porch: &mut Option<Self>) {
        match porch {
            Some(porch) if !porch.open.is_empty() => drop(porch.open.join_next().await),
            _ => std::future::pending().await,
        }
    }
}

/// Off the way of requests: an upgrade's.
async fn obey(order: Order, floor: &Floor, porch: &mut Option<Porch>) {
    match order {
        Order::Open(bound) => {
            if let Some(porch) = porch {
                porch.open(bound);
            }
        }
        Order::Close(done) => {
            if let Some(porch) = porch {
                porch.close().await;
            }
            // Who asked may have given up.
            let _ = done.send(());
        }
        Order::LetGo {
            entry,
            from,
            answer,
        } => {
            let let_go = floor.let_go(entry, from).await;
            if let Err((packets, _)) = answer.send(let_go) {
                // Nobody takes them. They lead to the master in force: a change since would have been heard by them.
                let house = floor.houses.get(entry);
                let at = house.and_then(|house| house.verified_at());
                floor.seat_again(entry, at, packets);
            }
        }
        Order::Seat {
            entry,
            at,
            packets,
            done,
        } => {
            floor.seat_again(entry, at, packets);
            let _ = done.send(());
        }
    }
}

async fn accept(
    entry: usize,
    bound: Bound,
    door: Arc<Door>,
    stop: CancellationToken,
    dealer: Rc<Dealer>,
    floor: Rc<Floor>,
) {
    let deal = |accepted| {
        let (dealer, floor, door) = (&dealer, &floor, &door);
        async move {
            match dealer.deal(entry, accepted).await {
                Dealt::Here(client, tickets) => floor.seat(entry, client, tickets),
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
}

/// Not to be drained: without its bell a session does not hear of a switch.
fn lost(worker: usize, what: &'static str) -> bool {
    error!(
        event = "worker_failed",
        worker, "{what} ended by itself; this worker closes its sessions and ends"
    );
    false
}
