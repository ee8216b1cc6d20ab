//! What reaches into a running pool from outside: opens and closes its doors, takes sessions out of it, puts sessions into it. For
//! an upgrade, off the way of all else.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Tallies;
use crate::listener::Bound;
use crate::session::luggage::Packet;

/// Orders that wait for one worker; whoever gives them waits for the answer before the next.
const ORDERS: usize = 8;
/// Longest wait for a worker that obeys; only a stuck one needs it.
const ORDER_LIMIT: Duration = Duration::from_secs(2);

/// What one worker is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept at these, one list for each entry; worker 0 only.
    Open(Vec<Vec<Bound>>),
    /// Accept no more; worker 0 only.
    Close(oneshot::Sender<()>),
    /// Ask some sessions to let go, from this seat on; the answer is where to go on.
    LetGo {
        entry: usize,
        from: usize,
        answer: oneshot::Sender<(Vec<Packet>, Option<usize>)>,
    },
    /// Serve these, whose master was verified there.
    Seat {
        entry: usize,
        at: Option<SocketAddr>,
        packets: Vec<Packet>,
        done: oneshot::Sender<()>,
    },
}

/// Where one worker hears.
pub(super) type Orders = mpsc::Receiver<Order>;

/// One for each worker.
pub(super) fn orders(workers: usize) -> (Vec<mpsc::Sender<Order>>, Vec<Orders>) {
    (0..workers).map(|_| mpsc::channel(ORDERS)).unzip()
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    workers: Vec<Worker>,
    /// The listeners, whether they are open or not; each is a copy of what worker 0 accepts at.
    doors: Arc<Mutex<Vec<Vec<Bound>>>>,
    tallies: Tallies,
}

#[derive(Clone, Debug)]
struct Worker {
    orders: mpsc::Sender<Order>,
    load: Arc<AtomicUsize>,
}

/// How far it is with asking every session once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    worker: usize,
    entry: usize,
    seat: usize,
}

impl Hands {
    pub(super) fn new(
        senders: Vec<mpsc::Sender<Order>>,
        loads: Vec<Arc<AtomicUsize>>,
        bound: Vec<Vec<Bound>>,
        tallies: Tallies,
    ) -> Self {
        let workers = senders.into_iter().zip(loads);
        Self {
            workers: workers
                .map(|(orders, load)| Worker { orders, load })
                .collect(),
            doors: Arc::new(Mutex::new(bound)),
            tallies,
        }
    }

    /// Copies of the listeners, one list for each entry.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn doors(&self) -> io::Result<Vec<Vec<Bound>>> {
        let copies = |bound: &Vec<Bound>| bound.iter().map(Bound::try_clone).collect();
        self.kept().iter().map(copies).collect()
    }

    /// From now on the files of unix sockets are removed at the end of this process, or not.
    pub fn own_files(&self, own: bool) {
        let doors = self.kept();
        doors.iter().flatten().for_each(|bound| bound.own_file(own));
    }

    /// Closes the listeners for good, but for those that are open, which worker 0 closes at its end.
    pub(super) fn forget_doors(&self) {
        self.kept().clear();
    }

    /// Before anybody else gives orders.
    pub(super) fn open_at_start(&self) -> io::Result<()> {
        let doors = self.doors()?;
        let first = self.workers.first();
        let told = first.map(|worker| worker.orders.try_send(Order::Open(doors)));
        match told {
            Some(Ok(())) => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Accepts, from the next turn of worker 0 on. False when it cannot.
    pub async fn open_doors(&self) -> bool {
        match self.doors() {
            Ok(doors) => self.tell(0, Order::Open(doors)).await,
            Err(_) => false,
        }
    }

    /// Accepts no more; connections wait in the kernel until somebody does. False when that is not certain.
    pub async fn close_doors(&self) -> bool {
        let (done, closed) = oneshot::channel();
        self.tell(0, Order::Close(done)).await && heard(closed).await.is_some()
    }

    /// Asks the next sessions of a round to let go, and gives the entry and those that did; `None` behind the last.
    pub async fn let_go(&self, round: &mut Round) -> Option<(usize, Vec<Packet>)> {
        loop {
            if round.worker >= self.workers.len() {
                return None;
            }
            let entry = round.entry;
            if entry >= self.tallies.0.len() {
                *round = Round {
                    worker: round.worker + 1,
                    ..Round::default()
                };
                continue;
            }
            let (answer, let_go) = oneshot::channel();
            let order = Order::LetGo {
                entry,
                from: round.seat,
                answer,
            };
            let told = self.tell(round.worker, order).await;
            // What a worker lets go of too late it takes back.
            let let_go = if told { heard(let_go).await } else { None };
            let (packets, next) = let_go.unwrap_or_default();
            match next {
                Some(seat) => round.seat = seat,
                None => {
                    round.seat = 0;
                    round.entry += 1;
                }
            }
            if !packets.is_empty() {
                return Some((entry, packets));
            }
        }
    }

    /// Serves these sessions, on the workers that have the fewest. False when it is not certain that all of them are.
    pub async fn seat(&self, entry: usize, at: Option<SocketAddr>, packets: Vec<Packet>) -> bool {
        let mut shares: Vec<(usize, Vec<Packet>)> = self
            .workers
            .iter()
            .map(|worker| (worker.load.load(Ordering::Relaxed), Vec::new()))
            .collect();
        for packet in packets {
            let fewest = shares.iter_mut().min_by_key(|(load, _)| *load);
            let Some((load, share)) = fewest else {
                return false;
            };
            *load += 1;
            share.push(packet);
        }
        let mut all = true;
        for (worker, (_, packets)) in shares.into_iter().enumerate() {
            if packets.is_empty() {
                continue;
            }
            let (done, seated) = oneshot::channel();
            let order = Order::Seat {
                entry,
                at,
                packets,
                done,
            };
            all &= self.tell(worker, order).await && heard(seated).await.is_some();
        }
        all
    }

    /// Sessions of this entry that are here.
    pub fn sessions(&self, entry: usize) -> u64 {
        self.tallies.of(entry).active()
    }

    async fn tell(&self, worker: usize, order: Order) -> bool {
        match self.workers.get(worker) {
            Some(worker) => worker.orders.send_timeout(order, ORDER_LIMIT).await.is_ok(),
            None => false,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<Bound>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn heard<T>(answer: oneshot::Receiver<T>) -> Option<T> {
    timeout(ORDER_LIMIT, answer).await.ok()?.ok()
}
