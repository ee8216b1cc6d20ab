//! Which worker gets a new connection: the one with the fewest sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::listener::{Accepted, Entrance, Greeting, Ticket};
use crate::net::stream::{Stream, Unregistered};

/// Connections that may be on their way to one worker.
const QUEUE: usize = 256;
/// Longest wait for a worker whose queue is full; the kernel's backlog holds the rest meanwhile.
const QUEUE_LIMIT: Duration = Duration::from_secs(1);

/// A connection on its way to another worker.
#[derive(Debug)]
pub(super) struct Deal {
    /// Which proxy entry it came in for.
    pub(super) entry: usize,
    pub(super) stream: Unregistered,
    pub(super) greeting: Option<Greeting>,
    pub(super) tickets: Tickets,
}

/// Counts a connection where it came in, and on its worker, already while it is on the way.
#[derive(Debug)]
pub(super) struct Tickets {
    inside: Entrance,
    _load: Ticket,
}

impl Tickets {
    /// From where a balancer says that the client comes.
    pub(super) fn conveyed(&self) -> Option<IpAddr> {
        self.inside.conveyed()
    }

    /// Of a connection that was not dealt.
    pub(super) fn new(inside: Entrance, load: &Arc<AtomicUsize>) -> Self {
        Self {
            inside,
            _load: Ticket::new(load),
        }
    }
}

/// Where one worker receives.
#[derive(Debug)]
pub(super) struct Inbox(pub(super) mpsc::Receiver<Deal>);

/// Deals to every worker; lives on worker 0.
#[derive(Debug)]
pub(super) struct Dealer {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    load: Arc<AtomicUsize>,
    queue: mpsc::Sender<Deal>,
}

/// Where a connection went.
#[derive(Debug)]
pub(super) enum Dealt {
    /// To the thread that asks.
    Here(Stream, Option<Greeting>, Tickets),
    /// To another thread.
    Away,
    /// No worker takes it; it is closed.
    Nowhere,
}

impl Dealer {
    pub(super) fn new(workers: usize) -> (Self, Vec<Inbox>) {
        let (lanes, inboxes) = (0..workers)
            .map(|_| {
                let (queue, inbox) = mpsc::channel(QUEUE);
                let load = Arc::default();
                (Lane { load, queue }, Inbox(inbox))
            })
            .unzip();
        (Self { lanes }, inboxes)
    }

    /// How many sessions each worker has.
    pub(super) fn loads(&self) -> Vec<Arc<AtomicUsize>> {
        let lanes = self.lanes.iter();
        lanes.map(|lane| Arc::clone(&lane.load)).collect()
    }

    /// Deals one connection; to be called on worker 0.
    pub(super) async fn deal(&self, entry: usize, accepted: Accepted) -> Dealt {
        let load = |lane: &Lane| lane.load.load(Ordering::Relaxed);
        let Some((worker, lane)) = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| !lane.queue.is_closed())
            .min_by_key(|(_, lane)| load(lane))
        else {
            return Dealt::Nowhere;
        };
        let tickets = Tickets {
            inside: accepted.entrance,
            _load: Ticket::new(&lane.load),
        };
        if worker == 0 {
            return Dealt::Here(accepted.stream, accepted.greeting, tickets);
        }
        let Ok(stream) = accepted.stream.unregister() else {
            return Dealt::Nowhere;
        };
        let deal = Deal {
            entry,
            stream,
            greeting: accepted.greeting,
            tickets,
        };
        match lane.queue.send_timeout(deal, QUEUE_LIMIT).await {
            Ok(()) => Dealt::Away,
            Err(_) => Dealt::Nowhere,
        }
    }
}
