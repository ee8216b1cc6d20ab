//! Asks an announced successor for its role until told to stop.
//!
//! Sentinel closes every connection to a replica while it promotes it (CLIENT KILL in the same MULTI), so a lost
//! connection is dialled again at once.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Answer, link};
use crate::net::addr::NodeAddr;
use crate::net::clock::now;
use crate::sentinel::client::Dial;
use crate::topology::observation::RoleReport;

/// How often it is asked: a promotion is seen so much late.
const ROLE_EVERY: Duration = Duration::from_millis(20);
/// The same once it has said that it is a master: a fleet of proxies is not to keep it busy until the Sentinels say so.
const ROLE_EVERY_PROMOTED: Duration = Duration::from_millis(250);

/// Ends with its value.
#[derive(Debug)]
pub(super) struct Successor {
    _task: AbortOnDropHandle<()>,
}

impl Successor {
    pub(super) fn start(
        addr: NodeAddr,
        dial: Dial,
        answers: mpsc::Sender<Answer>,
        tasks: &TaskTracker,
    ) -> Self {
        let task = ask_on(addr, dial, answers);
        Self {
            _task: AbortOnDropHandle::new(tasks.spawn(task)),
        }
    }
}

async fn ask_on(addr: NodeAddr, dial: Dial, answers: mpsc::Sender<Answer>) {
    loop {
        let mut asked = now();
        let again = Instant::now() + ROLE_EVERY;
        let mut dialled = link::ask(&addr.0, &dial).await;
        loop {
            let (at, report) = (dialled.peer(), dialled.report.clone());
            let every = match report {
                RoleReport::Master => ROLE_EVERY_PROMOTED,
                _ => ROLE_EVERY,
            };
            let answer = Answer::Successor(addr.clone(), asked, at, report);
            if answers.send(answer).await.is_err() {
                return;
            }
            let Some(link) = &mut dialled.link else {
                sleep(every).await;
                break;
            };
            tokio::select! {
                () = sleep(every) => {}
                () = link.closed() => {}
            }
            if link.is_closed() {
                // Dialled again at once, but no more often than it would be asked: some nodes close every connection.
                sleep_until(again).await;
                break;
            }
            asked = now();
            dialled.report = link.role().await;
        }
    }
}
