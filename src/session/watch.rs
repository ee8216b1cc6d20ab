//! What a relay lets look at its bytes: nobody (`on_switch = "close"`), or the tracker (`"move"`). Chosen once a session, so
//! that a session which is never moved pays nothing for it.

use super::tracker::{Packed, Retire, Sight, Tracker};

/// Sees each byte that is forwarded, once and in order; changes none.
pub(super) trait Watch {
    /// Whether a session of this kind can outlive its upstream.
    const MOVES: bool;

    /// These bytes were written to the master.
    fn sent(&mut self, bytes: &[u8]);

    /// These bytes were read from the master.
    fn received(&mut self, bytes: &[u8]) -> Sight;

    /// Requests without a reply, where that is known.
    fn unanswered(&self) -> Option<u32>;

    /// The master has the beginning of a request, as far as that is known.
    fn has_begun(&self) -> bool;

    /// Why requests and replies are followed no longer.
    fn retired(&self) -> Option<Retire>;

    /// The master was told to close.
    fn is_leaving(&self) -> bool;

    /// How many of these bytes may be written; fewer than there are when the session has to end before the next one.
    fn allowed(&self, unwritten: &[u8]) -> usize;

    /// A transaction was begun, and its end was not written.
    fn has_transaction(&self) -> bool;

    /// No reply that is due says that anything was executed, if the master is queueing behind them.
    fn only_queues(&self) -> bool;

    /// It has accepted MULTI, and nothing that ends it.
    fn is_queueing(&self) -> bool;

    /// The end, in these bytes, of the next request that may be written, or of what is missing of the last.
    fn next_request(&self, unwritten: &[u8]) -> Option<usize>;

    /// The end, in these bytes, of the request that the master has only the beginning of.
    fn rest_of_request(&self, unwritten: &[u8]) -> Option<usize>;

    /// How many of these bytes belong to the request that the master has only the beginning of. `None`: it has whole ones.
    fn rest_of_begun(&self, unwritten: &[u8]) -> Option<usize>;

    /// How many of these bytes a session that is to end still finishes; what comes behind them is not begun.
    fn finishes(&self, unwritten: &[u8]) -> usize;

    /// Whether something is under way. A client that is not heard any more (`deaf`) does not go on with a transaction.
    fn rest(&self, deaf: bool) -> Rest;

    /// The session can be carried over to another upstream, as far as its bytes tell.
    fn is_movable(&self) -> bool;

    /// More than requests and their replies stand against that.
    fn is_bound(&self) -> bool;

    /// All that is under way is one request, which may be sent again.
    fn is_repeatable(&self) -> bool;

    /// That request, no longer under way; if it is so.
    fn take_back(&mut self) -> Option<Vec<u8>>;

    /// It was taken back, and not sent since.
    fn is_repeating(&self) -> bool;

    /// The client is waiting for what the upstream says unasked: without one it must not wait to speak first.
    fn listens(&self) -> bool;

    /// The upstream is as it was when it was new.
    fn is_spotless(&self) -> bool;

    /// What a new upstream has to be told, and what can be answered in a master's place.
    fn tracker(&mut self) -> Option<&mut Tracker>;

    /// All that is known can be said now, for another process to go on from.
    fn can_be_told(&self) -> bool;

    /// It, where anything is known.
    fn packed(&self) -> Option<Packed>;
}

/// Whether a session's end would be missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing is under way.
    Settled,
    /// A request, its reply, or a transaction is not over.
    Busy,
    /// Nobody can tell from the bytes.
    Unknown,
}

/// Looks at nothing.
#[derive(Debug)]
pub(super) struct Blind;

impl Watch for Blind {
    const MOVES: bool = false;

    #[inline]
    fn sent(&mut self, _: &[u8]) {}

    #[inline]
    fn received(&mut self, _: &[u8]) -> Sight {
        Sight::Nothing
    }

    fn unanswered(&self) -> Option<u32> {
        None
    }

    fn has_begun(&self) -> bool {
        false
    }

    fn retired(&self) -> Option<Retire> {
        None
    }

    fn is_leaving(&self) -> bool {
        false
    }

    #[inline]
    fn allowed(&self, unwritten: &[u8]) -> usize {
        unwritten.len()
    }

    fn has_transaction(&self) -> bool {
        false
    }

    fn only_queues(&self) -> bool {
        false
    }

    fn is_queueing(&self) -> bool {
        false
    }

    fn next_request(&self, _: &[u8]) -> Option<usize> {
        None
    }

    fn rest_of_request(&self, _: &[u8]) -> Option<usize> {
        None
    }

    fn rest_of_begun(&self, _: &[u8]) -> Option<usize> {
        None
    }

    fn finishes(&self, unwritten: &[u8]) -> usize {
        unwritten.len()
    }

    fn rest(&self, _: bool) -> Rest {
        Rest::Unknown
    }

    fn is_movable(&self) -> bool {
        false
    }

    fn is_bound(&self) -> bool {
        true
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    fn take_back(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn is_repeating(&self) -> bool {
        false
    }

    fn listens(&self) -> bool {
        false
    }

    fn is_spotless(&self) -> bool {
        false
    }

    fn tracker(&mut self) -> Option<&mut Tracker> {
        None
    }

    fn can_be_told(&self) -> bool {
        true
    }

    fn packed(&self) -> Option<Packed> {
        None
    }
}

impl Watch for Tracker {
    const MOVES: bool = true;

    #[inline]
    fn sent(&mut self, bytes: &[u8]) {
        self.client_bytes(bytes);
    }

    #[inline]
    fn received(&mut self, bytes: &[u8]) -> Sight {
        self.master_bytes(bytes)
    }

    fn unanswered(&self) -> Option<u32> {
        Self::retired(self).is_none().then(|| self.in_flight())
    }

    fn has_begun(&self) -> bool {
        Self::retired(self).is_none() && !self.at_request_boundary()
    }

    fn retired(&self) -> Option<Retire> {
        Self::retired(self)
    }

    fn is_leaving(&self) -> bool {
        Self::is_leaving(self)
    }

    #[inline]
    fn allowed(&self, unwritten: &[u8]) -> usize {
        self.refuses(unwritten)
            .map_or(unwritten.len(), |(at, _)| at)
    }

    fn has_transaction(&self) -> bool {
        Self::has_transaction(self)
    }

    fn only_queues(&self) -> bool {
        Self::only_queues(self)
    }

    fn is_queueing(&self) -> bool {
        Self::is_queueing(self)
    }

    fn next_request(&self, unwritten: &[u8]) -> Option<usize> {
        let end = self.outlook(unwritten).first?;
        // A request that must not reach this master is not finished either.
        self.refuses(unwritten.get(..end)?).is_none().then_some(end)
    }

    fn rest_of_request(&self, unwritten: &[u8]) -> Option<usize> {
        let has_begun = Self::retired(self).is_none() && !self.at_request_boundary();
        has_begun.then(|| self.next_request(unwritten)).flatten()
    }

    fn rest_of_begun(&self, unwritten: &[u8]) -> Option<usize> {
        if self.retired().is_some() || self.at_request_boundary() {
            return None;
        }
        let end = self.outlook(unwritten).first;
        Some(self.allowed(&unwritten[..end.unwrap_or(unwritten.len())]))
    }

    fn finishes(&self, unwritten: &[u8]) -> usize {
        if self.retired().is_some() || self.is_transacting() {
            unwritten.len()
        } else if self.at_request_boundary() {
            0
        } else {
            self.outlook(unwritten).first.unwrap_or(unwritten.len())
        }
    }

    fn rest(&self, deaf: bool) -> Rest {
        if self.retired().is_some() {
            Rest::Unknown
        } else if !self.is_settled() || (!deaf && self.is_transacting()) {
            Rest::Busy
        } else {
            Rest::Settled
        }
    }

    fn is_movable(&self) -> bool {
        self.movable().is_ok()
    }

    fn is_bound(&self) -> bool {
        Self::is_bound(self)
    }

    fn is_repeatable(&self) -> bool {
        Self::is_repeatable(self)
    }

    fn take_back(&mut self) -> Option<Vec<u8>> {
        Self::is_repeatable(self).then(|| Self::take_back(self))
    }

    fn is_repeating(&self) -> bool {
        Self::is_repeating(self)
    }

    fn listens(&self) -> bool {
        self.is_subscribed()
    }

    fn is_spotless(&self) -> bool {
        self.is_spotless()
    }

    fn tracker(&mut self) -> Option<&mut Tracker> {
        Some(self)
    }

    fn can_be_told(&self) -> bool {
        self.can_be_packed()
    }

    fn packed(&self) -> Option<Packed> {
        self.pack()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tracker::Rules;
    use super::*;

    #[test]
    fn a_request_that_is_refused_is_not_finished() {
        const WAIT: &[u8] = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n";
        let (head, tail) = WAIT.split_at(12);
        for moved in [false, true] {
            let mut tracker = Tracker::new(Rules {
                login: false,
                replay_auth: true,
                pubsub: false,
                resend_reads: false,
            });
            if moved {
                tracker.moved();
            }
            tracker.sent(head);
            let expected = (!moved).then_some(tail.len());
            assert_eq!(tracker.rest_of_request(tail), expected);
        }
    }
}
