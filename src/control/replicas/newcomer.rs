//! Tries a replica as a new client would: over a connection of its own. The standing one says nothing of whether there is room for
//! another (`maxclients`, a full queue, a firewall between here and there).

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::link::{Heard, Manner, What};
use super::{Task, tales};
use crate::net::addr::NodeAddr;
use crate::net::clock::Moment;
use crate::sentinel::client::{ClientError, Dial, RoleLink};
use crate::topology::observation::RoleReport;

/// How soon it is tried again while it takes none.
const AGAIN: Duration = Duration::from_millis(500);
/// It is tried at most so often: a client whose requests end its connections gives a reason with each.
const APART: Duration = Duration::from_millis(250);
/// What a server says to one client too many.
const TOO_MANY: &str = "max number of clients";

/// Tries until one connection is taken; ends with its value.
#[derive(Debug)]
pub(super) struct Newcomer {
    number: u64,
    begun: Moment,
    /// It was taken.
    done: bool,
    _task: AbortOnDropHandle<()>,
}

impl Newcomer {
    fn start(
        at: Moment,
        number: u64,
        addr: NodeAddr,
        manner: watch::Receiver<Manner>,
        heard: mpsc::Sender<Heard>,
        tasks: &TaskTracker,
    ) -> Self {
        Self {
            number,
            begun: at,
            done: false,
            _task: AbortOnDropHandle::new(tasks.spawn(run(number, addr, manner, heard))),
        }
    }

    /// Another reason to try is answered by this one.
    fn is_recent(&self, at: Moment) -> bool {
        !self.done || at.since(self.begun) < APART
    }
}

impl Task {
    /// A session could not connect to it: is that so for the next one?
    pub(super) fn meet(&mut self, addr: &NodeAddr, at: Moment) {
        if self
            .newcomers
            .get(addr)
            .is_some_and(|one| one.is_recent(at))
        {
            return;
        }
        self.last += 1;
        let (manner, heard) = (self.manner.subscribe(), self.heard.clone());
        let newcomer = Newcomer::start(at, self.last, addr.clone(), manner, heard, &self.tasks);
        self.newcomers.insert(addr.clone(), newcomer);
    }

    /// A new connection was taken, or was not: new sessions are led there, or are not. Those it has it keeps.
    pub(super) fn met(&mut self, of: u64, taken: bool) {
        let found = self.newcomers.iter_mut().find(|(_, one)| one.number == of);
        let Some((addr, newcomer)) = found else {
            return;
        };
        newcomer.done = taken;
        let changed = if taken {
            let lane = self.lanes.members().find(|(_, of)| *of == addr);
            if let Some((lane, _)) = lane {
                self.entry.board.trust(lane);
            }
            self.shut.remove(addr)
        } else {
            self.shut.insert(addr.clone())
        };
        if changed {
            tales::takes_newcomers(&self.entry.name, &mut self.often, addr, taken);
        }
    }
}

async fn run(
    number: u64,
    addr: NodeAddr,
    manner: watch::Receiver<Manner>,
    heard: mpsc::Sender<Heard>,
) {
    loop {
        let mut dial: Dial = manner.borrow().dial.clone();
        let tls = dial.tls.as_ref();
        dial.tls = tls.map(|tls| tls.of_host(&addr.0.host));
        if let Some(taken) = is_taken(&addr, &dial).await {
            let what = What::Met(taken);
            // Nobody listens any more, or there is nothing more to say.
            if heard.send(Heard { of: number, what }).await.is_err() || taken {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

/// `None`: nobody can tell.
async fn is_taken(addr: &NodeAddr, dial: &Dial) -> Option<bool> {
    match RoleLink::open(&addr.0, dial).await {
        Ok(mut link) => match link.role().await {
            RoleReport::Failed(why) => {
                (link.is_closed() || why.contains(TOO_MANY)).then_some(false)
            }
            // Whatever it says: it says it to a newcomer.
            _ => Some(true),
        },
        Err(ClientError::LoginNeeded(_) | ClientError::Auth(_) | ClientError::NoPermission(_)) => {
            Some(true)
        }
        Err(ClientError::Protocol(why)) => why.contains(TOO_MANY).then_some(false),
        Err(ClientError::Local(_) | ClientError::Resolve(_)) => None,
        Err(
            ClientError::Io(_)
            | ClientError::Ended(_)
            | ClientError::Timeout { .. }
            | ClientError::Tls(_),
        ) => Some(false),
    }
}
