//! Asks one Sentinel for the replicas of those masters that somebody reads of, beside the questions that masters live on: over
//! connections of its own, at its own pace. Whatever it meets delays nobody but readers.

use std::sync::Arc;

use tokio::sync::Notify;

use super::client::listing::ListLink;
use super::client::{ClientError, Dial};
use super::told::Told;
use super::watcher::Subscriber;
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::address_map::AddressMap;
use crate::net::clock::now;
use crate::topology::observation::Said;

/// The part of a watcher that lists replicas.
#[derive(Debug)]
pub(super) struct Lister {
    pub(super) addr: SentinelAddr,
    pub(super) dial: Dial,
    pub(super) address_map: Arc<AddressMap>,
    pub(super) subscribers: Arc<[Subscriber]>,
    /// They are to be listed. Who asks while that is under way has it done once more.
    pub(super) wanted: Arc<Notify>,
}

impl Lister {
    /// Lists whenever that is wanted; never ends.
    pub(super) async fn run(self) {
        let mut told = Told::default();
        loop {
            self.wanted.notified().await;
            self.list(&mut told).await;
        }
    }

    async fn list(&self, told: &mut Told) {
        let readers = || self.subscribers.iter().filter(|s| s.replicas);
        let mut masters: Vec<&str> = readers().map(|s| &*s.master).collect();
        masters.sort_unstable();
        masters.dedup();
        let mut link = None;
        for master in masters {
            let mut open = match link.take() {
                Some(open) => open,
                None => match ListLink::open(&self.addr.0, &self.dial).await {
                    Ok(open) => open,
                    Err(why) => {
                        told.replicas(&self.addr, master, Some(&why));
                        return;
                    }
                },
            };
            let (asked_at, answer) = (now(), open.replicas(master).await);
            told.replicas(&self.addr, master, answer.as_ref().err());
            let mut listed = match answer {
                Ok(listed) => listed,
                // It will be as late with the next; the next turn tries again.
                Err(ClientError::Timeout { .. }) => return,
                Err(_) => continue,
            };
            link = Some(open);
            for replica in &mut listed {
                replica.addr = NodeAddr(self.address_map.reach(replica.addr.0.clone()));
            }
            for subscriber in readers().filter(|s| s.master == master) {
                let listed = listed.clone();
                let said = Said::Replicas { listed, asked_at };
                subscriber.tell(&self.addr, said).await;
            }
        }
    }
}
