//! How the running data plane is changed: entries and listeners that come and go, and what sessions are made by.
//!
//! Each order is carried out on the workers' own threads, between two turns of everything else; nothing on the way of a request
//! looks whether there is one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::floor::{Order, Told};
use super::{Counting, Entry, SESSIONS_END_LIMIT, Tallies, furnish};
use crate::listener::{self, Bound, Ceiling, SocketId};
use crate::net::reserve::Reserve;
use crate::net::tls::Connector;
use crate::session::{self, Budget, Login};

/// Longest wait for a worker to do what it was told; only a stuck one needs it.
const OBEY_LIMIT: Duration = Duration::from_secs(2);

/// A worker did not do what it was told in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker {0} does not turn")]
pub struct Stuck(pub usize);

/// Changes the data plane while it serves.
#[derive(Clone, Debug)]
pub struct Reins {
    pub(super) workers: Vec<Rein>,
    pub(super) ceiling: Ceiling,
    pub(super) reserve: Reserve,
    pub(super) budget: Budget,
    pub(super) tallies: Tallies,
}

/// How one worker is told, and how many sessions it has.
#[derive(Clone, Debug)]
pub(super) struct Rein {
    pub(super) orders: mpsc::Sender<Told>,
    pub(super) load: Arc<AtomicUsize>,
}

impl Reins {
    /// The number of workers: an entry needs as many subscriptions.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Begins to serve an entry that nobody has had this number before; its listeners are opened last.
    ///
    /// # Errors
    /// When a worker is stuck.
    pub async fn add(&self, number: usize, entry: Entry) -> Result<Counting, Stuck> {
        let means = (&self.reserve, &self.budget);
        let (counted, rooms, bound) = furnish(number, entry, &self.ceiling, means);
        let counting = self.tallies.add(counted);
        for (worker, room) in rooms.into_iter().enumerate() {
            self.tell(worker, Order::House(number, Box::new(room)))
                .await?;
        }
        for bound in bound {
            self.open(number, bound).await?;
        }
        Ok(counting)
    }

    /// From now on sessions of this entry are made by this.
    ///
    /// # Errors
    /// When a worker is stuck.
    pub async fn change(
        &self,
        number: usize,
        session: session::Config,
        login: Option<Arc<Login>>,
        listener: &listener::Config,
        upstream_tls: Option<Connector>,
    ) -> Result<(), Stuck> {
        if let Some(counted) = self.tallies.find(number) {
            counted.0.door.change(listener);
            // Before the workers are told, which give up what spares they have.
            counted.0.common.meet_masters(upstream_tls);
        }
        for worker in 0..self.workers.len() {
            let order = Order::Change(number, session, login.clone());
            self.tell(worker, order).await?;
        }
        Ok(())
    }

    /// Lets clients of this entry in here, too, unless they come in there already.
    ///
    /// # Errors
    /// When worker 0 is stuck.
    pub async fn open(&self, number: usize, bound: Bound) -> Result<(), Stuck> {
        match self.tallies.find(number) {
            Some(counted) => {
                let door = Arc::clone(&counted.0.door);
                self.tell(0, Order::Open(number, bound, door)).await
            }
            None => Ok(()),
        }
    }

    /// Lets clients of this entry in there no longer; whoever came in there goes on. Where somebody has a double of it, clients wait
    /// in the kernel until it is opened again.
    ///
    /// # Errors
    /// When worker 0 is stuck.
    pub async fn close(&self, number: usize, socket: SocketId) -> Result<(), Stuck> {
        self.tell(0, Order::Close(number, socket)).await
    }

    /// Ends the sessions of an entry whose listeners are closed: each when what it has begun is finished, and what is left after
    /// `grace` is cut.
    pub async fn leave(&self, number: usize, grace: Duration) {
        let mut left = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let (done, ended) = oneshot::channel();
            if worker
                .orders
                .send((Order::Leave(number, grace), done))
                .await
                .is_ok()
            {
                left.push(ended);
            }
        }
        let limit = grace + SESSIONS_END_LIMIT + OBEY_LIMIT;
        let all = futures_util::future::join_all(left);
        // A worker that is stuck is noticed by whoever looks after the process.
        let _ = timeout(limit, all).await;
    }

    /// Nothing of this entry, which has been left, is of interest any more.
    ///
    /// # Errors
    /// When a worker is stuck.
    pub async fn forget(&self, number: usize) -> Result<(), Stuck> {
        self.tallies.forget(number);
        for worker in 0..self.workers.len() {
            self.tell(worker, Order::Raze(number)).await?;
        }
        Ok(())
    }

    pub(super) async fn tell(&self, worker: usize, order: Order) -> Result<(), Stuck> {
        match timeout(OBEY_LIMIT, self.tell_patiently(worker, order)).await {
            Ok(told) => told,
            Err(_) => Err(Stuck(worker)),
        }
    }

    /// Without a deadline, for what must not be dropped half-way.
    pub(super) async fn tell_patiently(&self, worker: usize, order: Order) -> Result<(), Stuck> {
        let Some(Rein { orders, .. }) = self.workers.get(worker) else {
            return Err(Stuck(worker));
        };
        let (done, ended) = oneshot::channel();
        let telling = async {
            orders
                .send((order, done))
                .await
                .map_err(|_| io::ErrorKind::BrokenPipe)?;
            ended.await.map_err(|_| io::ErrorKind::BrokenPipe)
        };
        telling.await.map_err(|_: io::ErrorKind| Stuck(worker))
    }
}
