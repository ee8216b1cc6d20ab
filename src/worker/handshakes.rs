//! Clients of one proxy entry on one worker that are not through with TLS' handshake: each has a deadline, and there are only so many.
//!
//! Whoever opens connections and says nothing costs others nothing: when there are too many, the oldest goes, and an honest client is
//! through in milliseconds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use crate::net::stream::Stream;
use crate::net::tls::{Refused, TurnedAway};

/// Most that are under way. An honest one is crowded out only where so many others come within the time it needs.
const HANDSHAKES_MAX: usize = 1024;

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Handshakes(Rc<RefCell<UnderWay>>);

#[derive(Debug, Default)]
struct UnderWay {
    /// Oldest first.
    all: BTreeMap<u64, Rc<Notify>>,
    next: u64,
    ended: bool,
}

/// One that is under way; dropping it ends that.
#[derive(Debug)]
pub(super) struct Handshake {
    under_way: Rc<RefCell<UnderWay>>,
    number: u64,
    /// It is to go.
    goes: Rc<Notify>,
}

impl Handshakes {
    /// One more; the oldest goes where there are too many.
    pub(super) fn begin(&self) -> Handshake {
        let mut under_way = self.0.borrow_mut();
        let number = under_way.next;
        under_way.next += 1;
        let goes = Rc::new(Notify::new());
        if under_way.ended {
            goes.notify_one();
        }
        under_way.all.insert(number, Rc::clone(&goes));
        if under_way.all.len() > HANDSHAKES_MAX
            && let Some((_, oldest)) = under_way.all.pop_first()
        {
            oldest.notify_one();
        }
        Handshake {
            under_way: Rc::clone(&self.0),
            number,
            goes,
        }
    }

    /// Nobody who is not through by now will be served.
    pub(super) fn end(&self) {
        let mut under_way = self.0.borrow_mut();
        under_way.ended = true;
        for goes in under_way.all.values() {
            goes.notify_one();
        }
    }
}

impl Handshake {
    /// Until it is through, or has to go; where this process ends there is nothing to tell of that.
    pub(super) async fn run(
        self,
        accepting: impl Future<Output = Result<Stream, TurnedAway>>,
    ) -> Result<Stream, TurnedAway> {
        tokio::select! {
            biased;
            accepted = accepting => accepted,
            () = self.goes.notified() => {
                let ended = self.under_way.borrow().ended;
                Err(TurnedAway::at_once((!ended).then_some(Refused::Crowded)))
            }
        }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.under_way.borrow_mut().all.remove(&self.number);
    }
}
