//! One data-plane thread: its runtime, its houses, its end.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::error;

use super::dealer::{Deal, Dealer, Dealt, Inbox, Tickets};
use super::heart::Heart;
use super::{Departed, SESSIONS_END_LIMIT, Stops};
use crate::listener::{Bound, Door, serve};
use crate::net::stream::Stream;
use crate::session::close::CloseReason;
use crate::session::tally::Tally;
use crate::session::{self, Common, Ending, House, Seat, new_buffer, run};
use crate::topology::publish::{Reader, Subscription};

/// Threads that names of masters are resolved on, at most (`getaddrinfo(3)` blocks).
const RESOLVER_THREADS: usize = 4;

/// What a worker is to do.
#[derive(Debug)]
pub(super) struct Plan {
    inbox: Inbox,
    /// One for each proxy entry.
    pub(super) rooms: Vec<Room>,
    /// Worker 0 only.
    pub(super) front: Option<Front>,
}

impl Plan {
    pub(super) const fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
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
    pub(super) reader: Reader,
    pub(super) subscription: Subscription,
    pub(super) tally: Arc<Tally>,
    pub(super) common: Arc<Common>,
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
    sessions: TaskTracker,
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
        sessions: TaskTracker::new(),
    });
    // None of these ends by itself; if one does, the worker is of no use.
    let mut bells = JoinSet::new();
    for house in &floor.houses {
        bells.spawn_local(Rc::clone(house).attend());
    }
    bells.spawn_local(heart.beat());
    let mut receiving = JoinSet::new();
    receiving.spawn_local(receive(plan.inbox, Rc::clone(&floor)));
    let mut doors = JoinSet::new();
    let has_doors = plan.front.is_some();
    if let Some(front) = plan.front {
        let dealer = Rc::new(front.dealer);
        for (entry, Doorway { bound, door }) in front.doorways.into_iter().enumerate() {
            for bound in bound {
                let floor = Rc::clone(&floor);
                doors.spawn_local(accept(
                    entry,
                    bound,
                    Arc::clone(&door),
                    Rc::clone(&dealer),
                    floor,
                ));
            }
        }
    }
    let drains = tokio::select! {
        () = stops.drain.cancelled() => true,
        Some(_) = bells.join_next() => lost(worker, "a bell"),
        Some(_) = doors.join_next() => lost(worker, "a listener"),
    };
    doors.shutdown().await;
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

async fn accept(entry: usize, bound: Bound, door: Arc<Door>, dealer: Rc<Dealer>, floor: Rc<Floor>) {
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
    if let Err(error) = serve(bound, Arc::clone(&door), deal).await {
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
