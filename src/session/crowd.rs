//! When places become few: clients that have one and have never asked for anything give it up.
//!
//! A pool may open connections long before it uses them, so that being silent is no fault; with room for everybody nobody is
//! closed for it. It is when three quarters of the places are taken (`listener::Door::is_crowded`) that whoever came
//! long enough ago and has not got as far as one request makes room. Half a request a minute does not help: it is requests that count.
//! Whether one was made shows where it is sent; what is not read yet may be one, and is looked at again in the next round. So is
//! whoever was busy with something else than a look at itself, as in waiting for a master.

use std::time::Duration;

use super::house::{House, Seat};
use super::relay::Carried;
use crate::net::clock::Moment;

/// Most that are looked at in one go: each costs the worker some tens of microseconds.
pub(super) const SUSPECTS_AT_ONCE: usize = 64;

impl House {
    /// Has sessions look at themselves that came before `now` less `first_request_timeout`, and never asked for anything as far as is
    /// known here; from where the last look ended. True when there may be more of them.
    pub(crate) fn suspect_the_silent(&self, now: Moment) -> bool {
        let limit = self.config().first_request_timeout;
        if limit == Duration::ZERO {
            return false;
        }
        let seats = self.seats.borrow();
        let mut next = self.suspected.take();
        let mut suspects = 0;
        while next < seats.capacity() && suspects < SUSPECTS_AT_ONCE {
            if let Some(place) = seats.get(next)
                && now.since(place.since) >= limit
                && !place.has_asked.get()
            {
                place.suspect.set(true);
                place.waker.wake_by_ref();
                suspects += 1;
            }
            next += 1;
        }
        if suspects > 0 {
            self.ring();
        }
        let more = next < seats.capacity();
        if more {
            self.suspected.set(next);
        }
        more
    }
}

impl Seat {
    /// True when this session was asked whether its client ever made a request, and it did not.
    pub(super) fn makes_room<W>(&self, has_asked: bool, carried: &Carried<W>) -> bool {
        let is_suspect = self.place(|place| place.suspect.replace(false));
        if is_suspect != Some(true) {
            return false;
        }
        // A unix socket's is somebody on this machine, who has other means than silence.
        if has_asked || carried.client.is_unix() {
            self.has_asked();
            return false;
        }
        // What waits to be sent, and was looked at once, may be one, too.
        carried.client.is_quiet() && (carried.fresh || carried.unsent.is_empty())
    }

    /// It did: it is not asked again.
    pub(super) fn has_asked(&self) {
        self.place(|place| place.has_asked.set(true));
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::clock::now;
    use crate::net::stream::Stream;
    use crate::session::tests::house;
    use crate::session::watch::Blind;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("bound");
        let (theirs, ours) = tokio::join!(TcpStream::connect(addr), listener.accept());
        (
            Stream::Tcp(ours.expect("came").0),
            theirs.expect("connects"),
        )
    }

    async fn seated(house: &Rc<House>) -> Seat {
        let mut seat = Seat::new(house);
        seat.sit().await;
        seat
    }

    #[tokio::test]
    async fn whoever_was_busy_is_asked_again() {
        let house = house();
        let seat = seated(&house).await;
        let late = now() + house.config().first_request_timeout;
        let suspect = || seat.place(|place| place.suspect.get()) == Some(true);
        house.suspect_the_silent(late);
        assert!(suspect());
        // It did not look at itself, and its bell is rung all the same.
        let rung = house.bell();
        house.suspect_the_silent(late);
        assert!(suspect() && house.bell() != rung);
        seat.has_asked();
        let rung = house.bell();
        house.suspect_the_silent(late);
        assert_eq!(house.bell(), rung);
    }

    #[tokio::test]
    async fn bytes_that_may_be_a_request_put_it_off_and_do_not_excuse() {
        let house = house();
        let seat = seated(&house).await;
        let (client, mut application) = pair().await;
        let mut carried = Carried::new(client, Blind);
        let late = now() + house.config().first_request_timeout;
        application.write_all(b"*3").await.expect("written");
        carried.client.readable().await.expect("readable");
        house.suspect_the_silent(late);
        assert!(!seat.makes_room(false, &carried));
        // Nobody asked in between.
        assert!(!seat.makes_room(false, &carried));
        let mut read = [0; 8];
        std::future::poll_fn(|cx| carried.client.poll_read(cx, &mut read))
            .await
            .expect("read");
        house.suspect_the_silent(late);
        assert!(seat.makes_room(false, &carried));
        house.suspect_the_silent(late);
        assert!(!seat.makes_room(true, &carried));
        house.suspect_the_silent(late);
        assert!(!seat.makes_room(false, &carried), "it has asked once");
    }

    #[tokio::test]
    async fn a_crowd_is_looked_at_in_turns_and_each_of_it() {
        let house = house();
        let mut seats = Vec::new();
        for _ in 0..SUSPECTS_AT_ONCE * 2 + 1 {
            seats.push(seated(&house).await);
        }
        let late = now() + house.config().first_request_timeout;
        while house.suspect_the_silent(late) {}
        for seat in &seats {
            assert_eq!(seat.place(|place| place.suspect.get()), Some(true));
        }
    }
}
