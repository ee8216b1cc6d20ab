//! The standing control connection to the master in force: ROLE every 5 s and on doubt, and its loss noticed at once.
//!
//! One session's lost upstream says little (QUIT, CLIENT KILL, Redis' own timeouts); the loss of this connection *and* a
//! failed redial say that the master is gone.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::Answer;
use crate::net::addr::HostPort;
use crate::net::backoff::Backoff;
use crate::sentinel::client::{ClientError, Dial, RoleLink};
use crate::topology::MasterAddr;
use crate::topology::observation::RoleReport;

/// How often a quiet master is asked.
const ROLE_EVERY: Duration = Duration::from_secs(5);
/// Doubts within this time share a question.
const COALESCE: Duration = Duration::from_millis(20);
/// Redial waits.
const REDIAL_FLOOR: Duration = Duration::from_millis(50);
const REDIAL_CAP: Duration = Duration::from_millis(500);

/// Ends with its value.
#[derive(Debug)]
pub(super) struct MasterLink {
    addr: MasterAddr,
    check: Arc<Notify>,
    _task: AbortOnDropHandle<()>,
}

impl MasterLink {
    /// Watches `addr`; `proven` is the connection over which it was verified.
    pub(super) fn start(
        addr: MasterAddr,
        proven: Option<RoleLink>,
        dial: Dial,
        answers: mpsc::Sender<Answer>,
        check: Arc<Notify>,
        tasks: &TaskTracker,
    ) -> Self {
        let task = watch(addr.clone(), proven, dial, answers, Arc::clone(&check));
        Self {
            addr,
            check,
            _task: AbortOnDropHandle::new(tasks.spawn(task)),
        }
    }

    /// Who is watched.
    pub(super) const fn addr(&self) -> &MasterAddr {
        &self.addr
    }

    /// Asks now.
    pub(super) fn check(&self) {
        self.check.notify_one();
    }
}

async fn watch(
    addr: MasterAddr,
    mut link: Option<RoleLink>,
    dial: Dial,
    answers: mpsc::Sender<Answer>,
    check: Arc<Notify>,
) {
    let mut backoff = Backoff::new(REDIAL_FLOOR, REDIAL_CAP);
    loop {
        if let Some(open) = link.take() {
            converse(&addr, open, &answers, &check).await;
        }
        // The immediate redial; what it says is the answer.
        let dialled = ask(addr.host_port(), &dial).await;
        let at = dialled.peer();
        let Dialled {
            report,
            link: mut opened,
            reached,
        } = dialled;
        let answer = if reached {
            let replicas = opened.as_mut().map_or_else(Vec::new, RoleLink::replicas);
            Answer::Said(addr.clone(), at, report, replicas)
        } else {
            Answer::Gone(addr.clone(), report.to_string())
        };
        if answers.send(answer).await.is_err() {
            return;
        }
        if opened.is_some() {
            backoff.reset();
        } else {
            sleep(backoff.next(fastrand::f64())).await;
        }
        link = opened;
    }
}

/// Asks until the connection is lost. A node that is merely slow to answer (a long script, a stopped process) keeps
/// its connection: that alone is a doubt, no loss.
async fn converse(
    addr: &MasterAddr,
    mut link: RoleLink,
    answers: &mpsc::Sender<Answer>,
    check: &Notify,
) {
    loop {
        tokio::select! {
            () = link.closed() => return,
            () = check.notified() => {}
            () = sleep(ROLE_EVERY) => {}
        }
        let report = link.role().await;
        let said = Answer::Said(addr.clone(), Some(link.peer()), report, link.replicas());
        if link.is_closed() || answers.send(said).await.is_err() {
            return;
        }
        sleep(COALESCE).await;
    }
}

/// What came of a dial.
#[derive(Debug)]
pub(super) struct Dialled {
    /// What the node said.
    pub(super) report: RoleReport,
    /// The connection, when it is good for further questions.
    pub(super) link: Option<RoleLink>,
    /// False when nobody took the connection.
    pub(super) reached: bool,
}

impl Dialled {
    /// The address that answered.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.link.as_ref().map(RoleLink::peer)
    }
}

/// Dials, logs in and asks for the role.
pub(super) async fn ask(addr: &HostPort, dial: &Dial) -> Dialled {
    match RoleLink::open(addr, dial).await {
        Ok(mut link) => {
            let report = link.role().await;
            let link = (!link.is_closed()).then_some(link);
            Dialled {
                report,
                reached: link.is_some(),
                link,
            }
        }
        Err(ClientError::LoginNeeded(why) | ClientError::NoPermission(why)) => Dialled {
            report: RoleReport::Refused(why),
            link: None,
            reached: true,
        },
        Err(ClientError::Auth(why)) => Dialled {
            report: RoleReport::LoginFailed(why),
            link: None,
            reached: true,
        },
        Err(e) => {
            // A node that is loading or out of client slots refuses the login and is there all the same; where it is we who
            // have no descriptor or port left, nothing says that it is gone; nor where it is there and TLS is what fails. A connection that
            // ends in the handshake is as good as one that ends behind it.
            let reached = match &e {
                ClientError::Protocol(_) | ClientError::Local(_) => true,
                ClientError::Tls(fault) => !fault.is_silent(),
                _ => false,
            };
            Dialled {
                report: RoleReport::Failed(format!("{e}{}", e.suspicion("[proxy.upstream_tls]"))),
                link: None,
                reached,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::net::reserve::Reserve;
    use crate::net::resolver::Resolver;
    use crate::net::tls::{Connector, Verify};

    /// What accepts for a node says nothing of the node, until that has said something itself.
    #[tokio::test]
    async fn who_is_reached() {
        let tls = || Some(Connector::new(&Verify::Nobody, None, None).expect("usable"));
        for (tls, says, reached) in [
            (None, "", false),
            (tls(), "", false),
            // It is no TLS port: another name for a configuration that is wrong, and no crash.
            (tls(), "-ERR unknown command\r\n", true),
        ] {
            let forwarder = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let addr = forwarder.local_addr().expect("bound");
            let tasks = TaskTracker::new();
            let forwarding = tasks.spawn(async move {
                while let Ok((mut socket, _)) = forwarder.accept().await {
                    // Whether it hears that does not matter.
                    let _ = socket.write_all(says.as_bytes()).await;
                    let _ = socket.shutdown().await;
                    let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
                }
            });
            let what = format!("{} with TLS, {says:?}", tls.is_some());
            let dial = Dial {
                connect_timeout: Duration::from_secs(10),
                credentials: Default::default(),
                tls,
                resolver: Resolver::default(),
                reserve: Reserve::default(),
                tasks,
            };
            let dialled = ask(&addr.into(), &dial).await;
            forwarding.abort();
            assert_eq!(dialled.reached, reached, "{what}: {}", dialled.report);
            // One that speaks TLS ends it there, too.
            let told = dialled.report.to_string();
            let suspects = told.contains(
                "is that its TLS port (tls-port)? Then set ca_file in [proxy.upstream_tls]",
            );
            assert_eq!(suspects, dial.tls.is_none(), "{told}");
        }
    }
}
