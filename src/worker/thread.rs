//! One data-plane thread: its runtime, its houses, its end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::error;

use super::dealer::{Dealer, Inbox};
use super::floor::{Attendants, Floor, Told, was_told};
use super::heart::Heart;
use super::{Departed, SESSIONS_END_LIMIT, Stops};
use crate::listener::{Bound, Door};
use crate::session::tally::Tally;
use crate::session::{self, Common, Ending, Login, new_buffer};
use crate::topology::board::{Board, LaneEnds};
use crate::topology::publish::{Reader, Subscription};

/// Threads that names of masters are resolved on, at most (`getaddrinfo(3)` blocks).
const RESOLVER_THREADS: usize = 4;

/// What a worker is to do.
#[derive(Debug)]
pub(super) struct Plan {
    inbox: Inbox,
    orders: mpsc::Receiver<Told>,
    /// How many sessions it has.
    load: Arc<AtomicUsize>,
    /// One for each proxy entry.
    pub(super) rooms: Vec<Room>,
    /// Worker 0 only.
    pub(super) front: Option<Front>,
}

impl Plan {
    pub(super) const fn new(
        inbox: Inbox,
        orders: mpsc::Receiver<Told>,
        load: Arc<AtomicUsize>,
    ) -> Self {
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
    /// One for each proxy entry.
    pub(super) doorways: Vec<Doorway>,
}

/// The listeners of one proxy entry.
#[derive(Debug)]
pub(super) struct Doorway {
    pub(super) bound: Vec<Bound>,
    pub(super) door: Arc<Door>,
}

/// What a house is made of; crosses to its thread, where a house cannot.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) name: Arc<str>,
    pub(super) config: session::Config,
    pub(super) login: Option<Arc<Login>>,
    pub(super) reader: Reader,
    pub(super) subscription: Subscription,
    pub(super) tally: Arc<Tally>,
    pub(super) common: Arc<Common>,
    pub(super) door: Arc<Door>,
    pub(super) lanes: Option<RoomLanes>,
}

/// The lanes of a room whose sessions are led to replicas.
#[derive(Debug)]
pub(super) struct RoomLanes {
    pub(super) board: Board,
    pub(super) lanes: Vec<(Reader, Subscription)>,
}

impl RoomLanes {
    /// Those of the next worker.
    pub(super) fn of_next(ends: &mut LaneEnds) -> Self {
        let board = ends.board.clone();
        let lanes = ends.lanes.iter_mut();
        let lanes = lanes
            .filter_map(|(reader, subscriptions)| Some((reader.clone(), subscriptions.pop()?)));
        Self {
            board,
            lanes: lanes.collect(),
        }
    }
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

async fn work(worker: usize, plan: Plan, stops: Stops, heart: Heart) {
    let floor = Rc::new(Floor::new(new_buffer(), plan.load));
    let mut attendants = Attendants::default();
    for (entry, room) in plan.rooms.into_iter().enumerate() {
        floor.settle(entry, room, &mut attendants);
    }
    attendants.bells.spawn_local(heart.beat());
    attendants
        .bells
        .spawn_local(Rc::clone(&floor).watch_for_crowds());
    let mut receiving = JoinSet::new();
    receiving.spawn_local(receive(plan.inbox, Rc::clone(&floor)));
    let (mut dealer, mut orders) = (None, plan.orders);
    if let Some(front) = plan.front {
        let dealing = Rc::new(front.dealer);
        for (entry, Doorway { bound, door }) in front.doorways.into_iter().enumerate() {
            for bound in bound {
                attendants.open(entry, bound, Arc::clone(&door), &dealing, &floor);
            }
        }
        dealer = Some(dealing);
    }
    let drains = loop {
        tokio::select! {
            () = stops.drain.cancelled() => break true,
            Some(ended) = attendants.bells.join_next() => {
                if !was_told(&ended) {
                    break lost(worker, "a bell");
                }
            }
            Some(ended) = attendants.doors.join_next() => {
                if !matches!(ended, Ok(true)) {
                    break lost(worker, "a listener");
                }
            }
            Some(told) = orders.recv() => floor.obey(told, &mut attendants, dealer.as_ref()).await,
        }
    };
    // Whoever waits for an order to be carried out hears that it is not.
    drop(orders);
    attendants.doors.shutdown().await;
    let has_doors = dealer.take().is_some();
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
            floor.emptied().await;
        };
        stops.now.run_until_cancelled(draining).await;
    }
    floor.end(Ending::Now);
    // Sessions that take longer are dropped with the runtime, and counted as such.
    let _ = timeout(SESSIONS_END_LIMIT, floor.emptied()).await;
}

async fn receive(mut inbox: Inbox, floor: Rc<Floor>) {
    while let Some(deal) = inbox.0.recv().await {
        floor.seat_from_afar(deal);
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
