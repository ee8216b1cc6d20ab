//! Where the names lead that nodes tell of others: looked up beside everything else, and remembered. No answer of a node waits for
//! a resolver, because how old a replica's data is depends on when it came.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::net::addr::HostPort;
use crate::net::clock::{Moment, now};
use crate::sentinel::client::Dial;

/// A name is looked up anew so long after it was found, as long as somebody tells of it.
const EVERY: Duration = Duration::from_secs(1);
/// One that nobody tells of for so long is forgotten.
const UNUSED: Duration = Duration::from_secs(10);
/// Most names: nodes name what they like.
const MAX_NAMES: usize = 256;
/// Most of those for what a master tells of its replicas, so that what they tell of their master has room.
const MAX_OF_A_MASTER: usize = 224;
/// Most that are looked up at once; each may take a second.
const AT_ONCE: usize = 8;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Names {
    known: HashMap<HostPort, Known>,
    slots: Arc<Semaphore>,
    found_to: mpsc::Sender<Found>,
    /// What was found, to be [learnt](Self::learn).
    pub(super) found: mpsc::Receiver<Found>,
}

#[derive(Debug)]
struct Known {
    /// When somebody told of it last.
    used: Moment,
    /// Where it leads, and when that was found. `None` until then.
    found: Option<(Moment, Vec<SocketAddr>)>,
    running: Option<AbortOnDropHandle<()>>,
}

/// What a name leads to; nowhere where it has no address.
#[derive(Debug)]
pub(super) struct Found {
    name: HostPort,
    leads_to: Vec<SocketAddr>,
}

impl Names {
    pub(super) fn new() -> Self {
        let (found_to, found) = mpsc::channel(MAX_NAMES);
        Self {
            known: HashMap::new(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            found_to,
            found,
        }
    }

    /// Where the name of a master leads, by the last look-up, if there has been one; another one is begun where that is of some time
    /// ago.
    pub(super) fn of_a_master(
        &mut self,
        name: &HostPort,
        dial: &Dial,
        at: Moment,
    ) -> Option<Vec<SocketAddr>> {
        self.leads_to(name, dial, at, MAX_NAMES)
    }

    /// The same of a replica that a master tells of; nowhere as long as nothing is known.
    pub(super) fn of_a_replica(
        &mut self,
        name: &HostPort,
        dial: &Dial,
        at: Moment,
    ) -> Vec<SocketAddr> {
        let leads_to = self.leads_to(name, dial, at, MAX_OF_A_MASTER);
        leads_to.unwrap_or_default()
    }

    fn leads_to(
        &mut self,
        name: &HostPort,
        dial: &Dial,
        at: Moment,
        most: usize,
    ) -> Option<Vec<SocketAddr>> {
        if let Some(addr) = name.socket_addr() {
            return Some(vec![addr]);
        }
        if self.known.len() >= most && !self.known.contains_key(name) {
            return Some(Vec::new());
        }
        let known = self.known.entry(name.clone()).or_insert(Known {
            used: at,
            found: None,
            running: None,
        });
        known.used = at;
        let is_new = |(found, _): &(Moment, _)| at.since(*found) < EVERY;
        if known.running.is_none() && !known.found.as_ref().is_some_and(is_new) {
            let (slots, found_to) = (Arc::clone(&self.slots), self.found_to.clone());
            let (name, dial) = (name.clone(), dial.clone());
            let tasks = dial.tasks.clone();
            known.running = Some(AbortOnDropHandle::new(tasks.spawn(async move {
                // Nobody closes it.
                let _slot = slots.acquire().await;
                let leads_to = dial.resolver.resolve(&name, &dial.tasks).await;
                let leads_to = leads_to.unwrap_or_default();
                // Nobody listens any more: the entry is gone.
                let _ = found_to.send(Found { name, leads_to }).await;
            })));
        }
        known.found.as_ref().map(|(_, leads_to)| leads_to.clone())
    }

    /// A look-up is over. True when the name leads elsewhere than was known.
    pub(super) fn learn(&mut self, Found { name, leads_to }: Found) -> bool {
        let Some(known) = self.known.get_mut(&name) else {
            return false;
        };
        known.running = None;
        let before = known.found.replace((now(), leads_to.clone()));
        before.is_none_or(|(_, before)| before != leads_to)
    }

    /// Nobody tells of some of them any more.
    pub(super) fn forget(&mut self, at: Moment) {
        self.known.retain(|_, known| at.since(known.used) < UNUSED);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::net::reserve::Reserve;
    use crate::net::resolver::{Resolver, WAIT};
    use crate::sentinel::Credentials;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn addr(text: &str) -> HostPort {
        text.parse().expect("an address")
    }

    fn dial() -> Dial {
        Dial {
            connect_timeout: WAIT,
            credentials: Credentials::default(),
            tls: None,
            resolver: Resolver::default(),
            reserve: Reserve::default(),
            tasks: TaskTracker::new(),
        }
    }

    async fn learn(names: &mut Names) -> bool {
        let found = timeout(PATIENCE, names.found.recv()).await;
        names.learn(found.expect("in time").expect("it is open"))
    }

    #[tokio::test]
    async fn nobody_waits_for_a_name_and_what_was_found_stands_until_more_is_known() {
        let (mut names, dial) = (Names::new(), dial());
        let (name, start) = (addr("localhost:9"), now());
        assert_eq!(
            names.of_a_master(&name, &dial, start),
            None,
            "not known yet"
        );
        assert!(learn(&mut names).await);
        let found = names.of_a_master(&name, &dial, start).expect("found");
        assert!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 9));
        assert!(!found.is_empty());
        // The resolver has gone silent, for this name and all others.
        let silent: Vec<_> = ["localhost", "a", "b", "c", "d"]
            .map(|name| dial.resolver.is_silent_on(name))
            .into();
        for round in 1..50 {
            let at = now() + EVERY * round;
            names.forget(at);
            for other in ["a:9", "b:9", "c:9", "d:9"] {
                assert_eq!(names.of_a_master(&addr(other), &dial, at), None);
            }
            assert_eq!(names.of_a_master(&name, &dial, at).as_ref(), Some(&found));
        }
        assert_eq!(dial.tasks.len(), 5, "one look-up for each");
        // A name without an address is known to lead nowhere.
        for _ in 0..5 {
            learn(&mut names).await;
        }
        let at = now() + EVERY * 50;
        assert_eq!(names.of_a_master(&addr("a:9"), &dial, at), Some(Vec::new()));
        assert_eq!(
            names.of_a_master(&name, &dial, at),
            Some(found),
            "remembered"
        );
        drop(silent);
    }

    #[tokio::test]
    async fn names_are_bounded_and_forgotten() {
        let (mut names, dial) = (Names::new(), dial());
        let ip = names.of_a_master(&addr("192.0.2.1:7"), &dial, now());
        assert_eq!(ip, Some(vec![([192, 0, 2, 1], 7).into()]));
        let start = now();
        for n in 0..MAX_NAMES {
            // What a master tells of its replicas leaves room for what they tell of it.
            let replica = addr(&format!("s{n}.invalid:7"));
            if names.known.len() == MAX_OF_A_MASTER {
                names.of_a_replica(&replica, &dial, start);
                assert!(!names.known.contains_key(&replica));
            }
            let name = addr(&format!("r{n}.invalid:7"));
            assert_eq!(names.of_a_master(&name, &dial, start), None);
        }
        let late = addr("late.invalid:7");
        assert!(names.of_a_replica(&late, &dial, start).is_empty());
        assert_eq!(names.of_a_master(&late, &dial, start), Some(Vec::new()));
        names.forget(start + UNUSED);
        assert_eq!(names.of_a_master(&late, &dial, start + UNUSED), None);
        assert_eq!(names.known.len(), 1);
    }
}
