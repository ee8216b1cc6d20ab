//! Asks an announced successor for its role until told to stop.
//!
//! Sentinel closes every connection to a replica while it promotes it (CLIENT KILL in the same MULTI), so a lost
//! connection is dialled again at once.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
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
        let mut dialled = link::ask(&addr.0, &dial).await;
        loop {
            let answer = Answer::Successor(addr.clone(), asked, dialled.report.clone());
            if answers.send(answer).await.is_err() {
                return;
            }
            sleep(match dialled.report {
                RoleReport::Master => ROLE_EVERY_PROMOTED,
                _ => ROLE_EVERY,
            })
            .await;
            asked = now();
            match &mut dialled.link {
                Some(link) if !link.is_closed() => dialled.report = link.role().await,
                _ => break,
            }
        }
    }
}
