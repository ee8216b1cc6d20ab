//! Takes sessions out of a running pool, and puts sessions into it. For an upgrade, off the way of all else.

use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::Reins;
use super::floor::Order;
use crate::session::luggage::Packet;

/// How far it is with asking every session of some entries once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    worker: usize,
    /// Its place in the list.
    entry: usize,
    seat: usize,
}

impl Reins {
    /// Asks the next sessions of a round over the entries of these numbers to let go, and gives those that did with the place of
    /// their entry; `None` behind the last.
    pub async fn let_go(
        &self,
        round: &mut Round,
        numbers: &[usize],
    ) -> Option<(usize, Vec<Packet>)> {
        while round.worker < self.workers.len() {
            let place = round.entry;
            let Some(number) = numbers.get(place) else {
                *round = Round {
                    worker: round.worker + 1,
                    ..Round::default()
                };
                continue;
            };
            let (answer, mut let_go) = oneshot::channel();
            let order = Order::LetGo(*number, round.seat, answer);
            let told = self.tell(round.worker, order).await;
            // What a worker lets go of from now on it takes back.
            let_go.close();
            let (packets, next) = let_go.try_recv().unwrap_or_default();
            match next {
                Some(seat) => round.seat = seat,
                None => {
                    round.seat = 0;
                    round.entry += 1;
                }
            }
            if told.is_err() {
                // One that is stuck is noticed by whoever looks after the process.
                round.entry = numbers.len();
            }
            if !packets.is_empty() {
                return Some((place, packets));
            }
        }
        None
    }

    /// Serves these sessions, on the workers that have the fewest. Takes as long as it takes, since whoever would give up on it would
    /// close them; the caller need not wait. False when a worker is gone, and they are with it.
    pub async fn seat(&self, number: usize, packets: Vec<Packet>) -> bool {
        let mut shares: Vec<(usize, Vec<Packet>)> = self
            .workers
            .iter()
            .map(|worker| (worker.load.load(Ordering::Relaxed), Vec::new()))
            .collect();
        for packet in packets {
            let fewest = shares.iter_mut().min_by_key(|(load, _)| *load);
            let Some((load, share)) = fewest else {
                return false;
            };
            *load += 1;
            share.push(packet);
        }
        let mut all = true;
        for (worker, (_, packets)) in shares.into_iter().enumerate() {
            if !packets.is_empty() {
                let order = Order::Seat(number, packets);
                all &= self.tell_patiently(worker, order).await.is_ok();
            }
        }
        all
    }

    /// Keeps room for so many sessions that will be seated; clients who come meanwhile do not get it.
    pub fn expect(&self, sessions: u64) {
        self.ceiling.expect(sessions);
    }

    /// Sessions of this entry that are here.
    pub fn sessions(&self, number: usize) -> u64 {
        let counting = self.tallies.find(number);
        counting.map_or(0, |counting| counting.sum().active())
    }
}
