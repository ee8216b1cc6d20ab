//! Names to addresses for the control plane: never in anybody's way, and with a memory.
//!
//! The system's resolver (getaddrinfo(3)) blocks a thread, for up to half a minute where its servers are silent, and
//! knows no cancelling. So a name is looked up once at a time, whoever asks; nobody waits longer than [`WAIT`]; what
//! comes later is there for the next who asks. A resolver that fails takes nothing away: the last good answer counts
//! for `KEPT`. Failures are not remembered.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::addr::{Host, HostPort};
use super::clock::{Moment, now};

/// Longest wait for an answer.
pub const WAIT: Duration = Duration::from_secs(1);
/// How long a good answer may stand in for one that does not come. The system does not tell a record's TTL.
const KEPT: Duration = Duration::from_secs(300);
/// Most names remembered; a topology has some ten, and replicas may tell of a few hundred more.
const MAX_NAMES: usize = 1024;
/// Most addresses of one name.
const MAX_ADDRESSES: usize = 16;

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The resolver says so, or that it cannot tell.
    #[error("{0}")]
    Refused(String),
    /// No answer within [`WAIT`].
    #[error("no answer within {} ms while resolving its name", WAIT.as_millis())]
    Late,
}

/// What is known of names; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<Mutex<HashMap<String, Known>>>);

#[derive(Debug, Default)]
struct Known {
    good: Option<(Vec<SocketAddr>, Moment)>,
    running: Option<watch::Receiver<Outcome>>,
}

/// `None` until it is known.
type Outcome = Option<Result<Vec<SocketAddr>, ResolveError>>;

impl Resolver {
    /// The addresses of a host, with its port.
    ///
    /// # Errors
    /// When the name has none, now and as far as is remembered.
    pub async fn resolve(
        &self,
        addr: &HostPort,
        tasks: &TaskTracker,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let name = match &addr.host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, addr.port)]),
            Host::Name(name) => name,
        };
        let mut outcome = self.running(name, tasks);
        let answer = match timeout(WAIT, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Err(ResolveError::Late)),
            // The lookup ended with the program, or is still under way.
            Ok(Err(_)) | Err(_) => Err(ResolveError::Late),
        };
        let found = answer.or_else(|why| self.remembered(name).ok_or(why))?;
        let with_port = |found: SocketAddr| SocketAddr::new(found.ip(), addr.port);
        Ok(found.into_iter().map(with_port).collect())
    }

    /// The lookup of this name that is under way, begun if there is none.
    fn running(&self, name: &str, tasks: &TaskTracker) -> watch::Receiver<Outcome> {
        let mut names = self.names();
        if names.len() >= MAX_NAMES && !names.contains_key(name) {
            // What never led anywhere goes first: who invents names must not take the good answers away.
            let led = |known: &Known| known.running.is_some() || known.good.is_some();
            if names.values().all(led) {
                names.retain(|_, known| known.running.is_some());
            } else {
                names.retain(|_, known| led(known));
            }
        }
        let known = names.entry(name.to_owned()).or_default();
        if let Some(running) = &known.running {
            return running.clone();
        }
        let (told, outcome) = watch::channel(None);
        known.running = Some(outcome.clone());
        let (this, name) = (self.clone(), name.to_owned());
        tasks.spawn(async move {
            let answer = look_up(&name).await;
            this.remember(&name, &answer);
            // Nobody waits any longer; what was found is remembered.
            let _ = told.send(Some(answer));
        });
        outcome
    }

    fn remember(&self, name: &str, answer: &Result<Vec<SocketAddr>, ResolveError>) {
        let mut names = self.names();
        let known = names.entry(name.to_owned()).or_default();
        known.running = None;
        if let Ok(found) = answer {
            known.good = Some((found.clone(), now()));
        }
    }

    fn remembered(&self, name: &str) -> Option<Vec<SocketAddr>> {
        let names = self.names();
        let (found, at) = names.get(name)?.good.as_ref()?;
        (now().since(*at) <= KEPT).then(|| found.clone())
    }

    /// A look-up of this name is under way, and takes as long as what this returns lives.
    #[cfg(test)]
    pub fn is_silent_on(&self, name: &str) -> impl Drop + use<> {
        struct Silent(watch::Sender<Outcome>);
        impl Drop for Silent {
            fn drop(&mut self) {
                let _ = self.0.send(Some(Err(ResolveError::Late)));
            }
        }
        let (told, outcome) = watch::channel(None);
        self.names().entry(name.to_owned()).or_default().running = Some(outcome);
        Silent(told)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        // Held for a look-up or an entry, never while waiting; a panic in between leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = lookup_host((name, 0)).await;
    let found = found.map_err(|e| ResolveError::Refused(e.to_string()))?;
    let found: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        return Err(ResolveError::Refused("it has no address".to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> HostPort {
        text.parse().expect("an address")
    }

    #[tokio::test]
    async fn addresses_need_no_lookup_and_names_get_their_port() {
        let (resolver, tasks) = (Resolver::default(), TaskTracker::new());
        let ip = resolver.resolve(&addr("192.0.2.1:7"), &tasks).await;
        assert_eq!(ip, Ok(vec![([192, 0, 2, 1], 7).into()]));
        assert!(resolver.names().is_empty());
        let name = resolver.resolve(&addr("localhost:9"), &tasks).await;
        let name = name.expect("every machine knows itself");
        assert!(name.iter().all(|a| a.port() == 9 && a.ip().is_loopback()));
    }

    #[tokio::test]
    async fn the_last_good_answer_stands_in_until_it_is_too_old() {
        let (resolver, tasks) = (Resolver::default(), TaskTracker::new());
        let gone = addr("no-such-host.invalid:9");
        assert!(resolver.resolve(&gone, &tasks).await.is_err());
        let good: SocketAddr = ([192, 0, 2, 1], 0).into();
        let age = |age| {
            let known = Known {
                good: Some((vec![good], now() - age)),
                running: None,
            };
            let mut names = resolver.names();
            names.insert("no-such-host.invalid".to_owned(), known);
        };
        age(Duration::from_secs(1));
        let found = resolver.resolve(&gone, &tasks).await;
        assert_eq!(found, Ok(vec![([192, 0, 2, 1], 9).into()]));
        age(KEPT + Duration::from_secs(1));
        assert!(resolver.resolve(&gone, &tasks).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_at_a_time_and_nobody_waits_for_a_slow_one() {
        let (resolver, tasks) = (Resolver::default(), TaskTracker::new());
        let (told, outcome) = watch::channel(None);
        let known = Known {
            good: None,
            running: Some(outcome),
        };
        resolver.names().insert("slow".to_owned(), known);
        let slow = addr("slow:9");
        assert_eq!(
            resolver.resolve(&slow, &tasks).await,
            Err(ResolveError::Late)
        );
        assert!(tasks.is_empty(), "the one under way is shared");
        told.send_replace(Some(Ok(vec![([192, 0, 2, 1], 0).into()])));
        let found = resolver.resolve(&slow, &tasks).await;
        assert_eq!(found, Ok(vec![([192, 0, 2, 1], 9).into()]));
    }
}
