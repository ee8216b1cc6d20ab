//! Upstreams that a client left as it found them, kept a moment for the next client (`on_switch = "move"`).
//!
//! A client that connects for each request costs its master a connection each time; where the tracker is certain that nothing
//! is left of a session on its upstream (no login, no database, no name, nothing under way), the next client may as well have it.
//! It also keeps the proxy, which closes first, from leaving a port in TIME_WAIT for a minute after each of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::Ending;
use super::claim::Claim;
use super::house::House;
use crate::net::clock::{Moment, now};
use crate::net::socket::reset_on_close;
use crate::net::stream::Stream;
use crate::topology::Generation;
use crate::topology::publish::Leave;

/// How long one is kept that nobody wants, and as long again at the most: a host where nobody connects holds none.
pub(super) const SPARE_KEPT: Duration = Duration::from_secs(1);
/// Oldest connection that is handed on. A server asks for no password again on a connection that needed none when it was
/// made: without this limit, clients that follow closely on each other would not notice that one is required now.
const SPARE_AGE_MAX: Duration = Duration::from_secs(10);
/// Most of one proxy entry on one worker.
const MAX_SPARES: usize = 64;

/// See the head of this file. The newest is used first, so that the rest grows old when fewer are needed.
#[derive(Debug, Default)]
pub(super) struct Spares(VecDeque<Spare>);

#[derive(Debug)]
pub(super) struct Spare {
    // Dropped in this order: the claim says that there may be a socket.
    upstream: Stream,
    claim: Claim,
    generation: Generation,
    since: Moment,
}

impl Spare {
    /// Nothing is under way, and an end in order would leave a port in TIME_WAIT after all.
    fn reset(&self) {
        // Fails only on a descriptor that is no socket.
        let _ = reset_on_close(&self.upstream);
    }
}

impl Spares {
    /// Keeps one, or gives it back when there are enough or it is too old.
    pub(super) fn keep(
        &mut self,
        now: Moment,
        generation: Generation,
        upstream: Stream,
        claim: Claim,
    ) -> Option<(Stream, Claim)> {
        if self.0.len() >= MAX_SPARES || now.since(claim.since()) >= SPARE_AGE_MAX {
            return Some((upstream, claim));
        }
        self.0.push_back(Spare {
            upstream,
            claim,
            generation,
            since: now,
        });
        None
    }

    /// One of this generation whose master has neither closed it nor said anything; `useless` are to be dropped.
    pub(super) fn take(
        &mut self,
        generation: Generation,
        useless: &mut Vec<Spare>,
    ) -> Option<(Stream, Claim)> {
        while let Some(spare) = self.0.pop_back() {
            if spare.generation == generation && spare.upstream.is_quiet() {
                return Some((spare.upstream, spare.claim));
            }
            spare.reset();
            useless.push(spare);
        }
        None
    }

    /// Those that are too old, to be dropped by the caller.
    pub(super) fn expired(&mut self, now: Moment) -> Vec<Spare> {
        let is_old = |spare: &Spare| now.since(spare.since) >= SPARE_KEPT;
        let count = self.0.iter().take_while(|spare| is_old(spare)).count();
        let expired: Vec<_> = self.0.drain(..count).collect();
        expired.iter().for_each(Spare::reset);
        expired
    }

    /// All of them, to be dropped by the caller.
    pub(super) fn all(&mut self) -> Vec<Spare> {
        let all: Vec<_> = self.0.drain(..).collect();
        all.iter().for_each(Spare::reset);
        all
    }

    /// True when there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl House {
    /// Drops spare upstreams that nobody has wanted for a while; never ends.
    pub(super) async fn spares_grow_old(&self) {
        loop {
            if self.spares.borrow().is_empty() {
                self.spare_kept.notified().await;
            }
            tokio::time::sleep(SPARE_KEPT).await;
            let expired = self.spares.borrow_mut().expired(now());
            // Only now, as the end of each may acknowledge a generation.
            drop(expired);
        }
    }

    pub(super) fn drop_spares(&self) {
        let spares = self.spares.borrow_mut().all();
        drop(spares);
    }

    /// Keeps an upstream that is as good as new for the next client; gives it back when it cannot be kept.
    pub(super) fn keep_spare(&self, upstream: Stream, claim: Claim) -> Option<(Stream, Claim)> {
        if !self.config().spare_upstreams
            || self.is_outdated(&claim)
            || self.ending() != Ending::No
            || self.gate().leave(claim.pass()) != Leave::Open
        {
            return Some((upstream, claim));
        }
        let refused = self
            .spares
            .borrow_mut()
            .keep(now(), claim.generation(), upstream, claim);
        if refused.is_none() {
            self.spare_kept.notify_one();
        }
        refused
    }

    /// An upstream of this generation that another client has left.
    pub(super) fn take_spare(&self, generation: Generation) -> Option<(Stream, Claim)> {
        // Those that turn out to be of no use are dropped after the list is free again.
        let mut useless = Vec::new();
        let spare = self.spares.borrow_mut().take(generation, &mut useless);
        drop(useless);
        spare
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::super::Config;
    use super::super::tests::{G1, house, house_of, serving};
    use super::*;

    /// A switch gives up as many as sixty-four at once.
    #[tokio::test]
    async fn those_that_are_given_up_leave_no_port_behind() {
        let house = house();
        let mut spares = Spares::default();
        let master = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = master.local_addr().expect("bound");
        let upstream = TcpStream::connect(addr).await.expect("a connection");
        let (mut theirs, _) = master.accept().await.expect("accepted");
        let claim = house.claim(G1);
        let refused = spares.keep(claim.since(), G1, Stream::Tcp(upstream), claim);
        assert!(refused.is_none());
        drop(spares.all());
        let end = theirs.read(&mut [0]).await.expect_err("no end in order");
        assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_old_connection_is_nobodys() {
        let house = house();
        let mut spares = Spares::default();
        for (age, kept) in [(Duration::ZERO, true), (SPARE_AGE_MAX, false)] {
            let (upstream, _master) = UnixStream::pair().expect("pair");
            let claim = house.claim(G1);
            let now = claim.since() + age;
            let refused = spares.keep(now, G1, Stream::Unix(upstream), claim);
            assert_eq!(refused.is_none(), kept, "{age:?}");
        }
    }

    /// A reload may change whom an upstream is logged in as, and how its master is met; a session that has one keeps it, and nobody
    /// gets it from that.
    #[tokio::test]
    async fn what_was_made_before_a_change_is_nobodys() {
        let (mut publisher, house) = house_of();
        publisher.extend(now() + Duration::from_secs(3600));
        publisher.publish(serving(G1));
        let config = Config {
            spare_upstreams: true,
            ..house.config()
        };
        house.change(config);
        let is_kept = |claim| {
            let (upstream, _master) = UnixStream::pair().expect("pair");
            house.keep_spare(Stream::Unix(upstream), claim).is_none()
        };
        assert!(is_kept(house.claim(G1)));
        let before = house.claim(G1);
        while now() <= before.since() {
            std::hint::spin_loop();
        }
        house.change(config);
        assert!(house.take_spare(G1).is_none());
        assert!(!is_kept(before));
        assert!(is_kept(house.claim(G1)));
    }
}
