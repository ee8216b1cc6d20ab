//! The standing connection to one node of which its role is asked: a replica, or the master for its offset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::sleep;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::net::addr::{Host, HostPort, NodeAddr};
use crate::net::address_map::AddressMap;
use crate::net::backoff::Backoff;
use crate::net::clock::{Moment, now};
use crate::sentinel::client::{ClientError, Dial, RoleLink};
use crate::topology::observation::{RoleDetail, RoleReport};
use crate::topology::replicas::When;

/// Redial waits.
const REDIAL_FLOOR: Duration = Duration::from_millis(50);
const REDIAL_CAP: Duration = Duration::from_secs(1);
/// Questions for which there is a reason lie so far apart: a client that writes to a replica gives one with each request.
const COALESCE: Duration = Duration::from_millis(100);

/// What was learnt.
#[derive(Debug)]
pub(super) struct Heard {
    /// The link's number; one that was given up may have said something last.
    pub(super) of: u64,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// It ended the connection: it may be another process from now on.
    Lost,
    /// It took none.
    Gone,
    /// It answered.
    Said(Said),
    /// It took another connection than the standing one, or did not.
    Met(bool),
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) when: When,
    pub(super) at: SocketAddr,
    pub(super) report: RoleReport,
    pub(super) detail: Option<RoleDetail>,
    /// Where the nodes that it names are reached: its master, or its replicas.
    pub(super) named: Vec<HostPort>,
}

/// What every link of an entry goes by.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) dial: Dial,
    pub(super) address_map: Arc<AddressMap>,
    pub(super) pace: Duration,
}

impl Manner {
    /// A connection that was made by the other is none that this one would make.
    fn is_met_otherwise(&self, other: &Self) -> bool {
        self.dial.credentials != other.dial.credentials || self.dial.tls != other.dial.tls
    }
}

/// Ends with its value.
#[derive(Debug)]
pub(super) struct NodeLink {
    pub(super) number: u64,
    check: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl NodeLink {
    /// To this address, which is of this host. It is asked `at_least` so often, whatever else it is asked for.
    pub(super) fn start(
        number: u64,
        (addr, host): (HostPort, Host),
        at_least: Duration,
        manner: watch::Receiver<Manner>,
        heard: mpsc::Sender<Heard>,
        tasks: &TaskTracker,
    ) -> Self {
        let check = Arc::new(Notify::new());
        let asking = Asking {
            number,
            addr,
            host,
            at_least,
            manner,
            heard,
            check: Arc::clone(&check),
        };
        Self {
            number,
            check,
            _task: AbortOnDropHandle::new(tasks.spawn(asking.run())),
        }
    }

    /// Asks soon.
    pub(super) fn check(&self) {
        self.check.notify_one();
    }
}

struct Asking {
    number: u64,
    addr: HostPort,
    /// What its certificate has to be for, where there is TLS.
    host: Host,
    at_least: Duration,
    manner: watch::Receiver<Manner>,
    heard: mpsc::Sender<Heard>,
    check: Arc<Notify>,
}

impl Asking {
    async fn run(mut self) {
        let mut backoff = Backoff::new(REDIAL_FLOOR, REDIAL_CAP);
        loop {
            let manner = self.latest();
            let asked = now();
            match RoleLink::open(&self.addr, &manner.dial).await {
                Ok(link) => {
                    if self.converse(link, manner).await {
                        backoff.reset();
                    }
                    if !self.tell(What::Lost).await {
                        return;
                    }
                }
                // It is there, and this is no role; where TLS is what fails, nobody else would get further.
                Err(
                    refused @ (ClientError::LoginNeeded(_)
                    | ClientError::Auth(_)
                    | ClientError::NoPermission(_)
                    | ClientError::Tls(_)),
                ) if !is_silence(&refused) => {
                    // Where it is is of no interest: it is not read from.
                    let at = SocketAddr::from(([0, 0, 0, 0], 0));
                    let report = RoleReport::Refused(refused.to_string());
                    if !self.say(asked, at, report, None, &manner).await {
                        return;
                    }
                }
                // We have no descriptor or port, or it has none: nothing says that it is gone.
                Err(ClientError::Local(_) | ClientError::Protocol(_)) => {}
                Err(_) => {
                    if !self.tell(What::Gone).await {
                        return;
                    }
                }
            }
            sleep(backoff.next(fastrand::f64())).await;
        }
    }

    /// What is to be gone by now.
    fn latest(&mut self) -> Manner {
        let mut manner = self.manner.borrow_and_update().clone();
        let tls = manner.dial.tls.as_ref();
        manner.dial.tls = tls.map(|tls| tls.of_host(&self.host));
        manner
    }

    /// Asks until the connection is lost, or cannot be had as it is to be. True when it answered at all.
    async fn converse(&mut self, mut link: RoleLink, mut manner: Manner) -> bool {
        let mut answered = false;
        loop {
            let asked = now();
            let report = link.role().await;
            let detail = link.detail();
            if link.is_closed() {
                return answered;
            }
            answered |= !matches!(report, RoleReport::Failed(_));
            if !self.say(asked, link.peer(), report, detail, &manner).await {
                return false;
            }
            tokio::select! {
                () = link.closed() => return answered,
                Ok(()) = self.manner.changed() => {
                    let latest = self.latest();
                    if latest.is_met_otherwise(&manner) {
                        // The old one goes only when the new one is there: nobody is left for a reload.
                        match RoleLink::open(&self.addr, &latest.dial).await {
                            Ok(other) if other.peer() == link.peer() && !link.is_closed() => {
                                link = other;
                            }
                            _ => return answered,
                        }
                    }
                    manner = latest;
                }
                () = self.check.notified() => sleep(COALESCE).await,
                () = sleep(manner.pace.min(self.at_least)) => {}
            }
        }
    }

    async fn say(
        &self,
        asked: Moment,
        at: SocketAddr,
        report: RoleReport,
        detail: Option<RoleDetail>,
        manner: &Manner,
    ) -> bool {
        let heard = now();
        let named = match &detail {
            Some(RoleDetail::ReplicaOf(master, _)) => std::slice::from_ref(master),
            Some(RoleDetail::Master(_, replicas)) => replicas,
            None => &[],
        };
        let reach = |NodeAddr(named): &NodeAddr| manner.address_map.reach(named.clone());
        let named = named.iter().map(reach).collect();
        self.tell(What::Said(Said {
            when: When { asked, heard },
            at,
            report,
            detail,
            named,
        }))
        .await
    }

    /// False when nobody listens any more.
    async fn tell(&self, what: What) -> bool {
        let of = self.number;
        self.heard.send(Heard { of, what }).await.is_ok()
    }
}

/// Nobody said anything, though somebody accepted.
const fn is_silence(refused: &ClientError) -> bool {
    matches!(refused, ClientError::Tls(fault) if fault.is_silent())
}
