//! Requests that were written and not answered: ordinary ones counted, the few that change a session in line.

use std::collections::VecDeque;

use super::Retire;
use super::listen::Awaited;
use crate::session::journal::{Greeting, Identity, Kept};

/// Most commands that change a session in flight at once.
pub(super) const PENDING_MAX: usize = 64;
/// Room that an empty line keeps; a longer one was a burst.
const ROOM_KEPT: usize = 4;

/// What a command does when its reply says that it was accepted.
#[derive(Debug)]
pub(super) enum Staged {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    Select(u32),
    Auth(Box<Identity>),
    Hello(Box<Greeting>),
    HelloUnread,
    Name(Kept),
    LibName(Kept),
    LibVer(Kept),
    NoEvict(bool),
    NoTouch(bool),
    Capa(Vec<Kept>),
    Readonly(bool),
    Reset,
    Quit,
    Shutdown,
    Feed(Awaited),
    Retire(Retire),
}

impl Staged {
    /// In a transaction a server queues it; the others it executes at once, or refuses.
    pub(super) const fn is_queued_in_transaction(&self) -> bool {
        !matches!(
            self,
            Self::Multi
                | Self::Exec
                | Self::Discard
                | Self::Watch
                | Self::Reset
                | Self::Quit
                | Self::Retire(_)
        )
    }

    const fn is_parting(&self) -> bool {
        matches!(self, Self::Quit | Self::Shutdown)
    }
}

/// Whose reply the next one is.
#[derive(Debug)]
pub(super) enum Turn {
    Ordinary,
    Staged(Staged),
    Nobodys,
}

/// More is in flight than can be kept in mind.
#[derive(Debug)]
pub(super) struct Full;

/// The line. `in_flight` is the sum of all `before`, `behind` and the line's length.
#[derive(Debug)]
pub(super) struct Pending {
    line: VecDeque<Entry>,
    /// Ordinary requests behind the last entry.
    behind: u32,
    in_flight: u32,
}

#[derive(Debug)]
struct Entry {
    /// Unanswered ordinary requests between the entry before and this one.
    before: u32,
    staged: Staged,
}

impl Pending {
    pub(super) const fn new() -> Self {
        Self {
            line: VecDeque::new(),
            behind: 0,
            in_flight: 0,
        }
    }

    /// So many ordinary requests are in flight, and nothing else.
    pub(super) fn of_ordinary(in_flight: u32) -> Self {
        Self {
            behind: in_flight,
            in_flight,
            ..Self::new()
        }
    }

    /// How many are in flight, if all of them are ordinary.
    pub(super) fn all_ordinary(&self) -> Option<u32> {
        self.line.is_empty().then_some(self.in_flight)
    }

    pub(super) const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn has_parting(&self) -> bool {
        self.line.iter().any(|entry| entry.staged.is_parting())
    }

    /// True when the beginning of a transaction is not answered.
    pub(super) fn has_transaction(&self) -> bool {
        let begins = |entry: &Entry| matches!(entry.staged, Staged::Multi | Staged::Watch);
        self.line.iter().any(begins)
    }

    /// True when what may end a transaction is not answered.
    pub(super) fn has_transaction_end(&self) -> bool {
        let ends = |entry: &Entry| !Self::is_queued(entry);
        self.line.iter().any(ends)
    }

    /// True when all that is not answered comes behind the one MULTI in it, and is queued by a master that accepts that.
    pub(super) fn is_queued_behind_multi(&self) -> bool {
        let is_multi = |entry: &&Entry| matches!(entry.staged, Staged::Multi);
        let first = self.line.front().filter(is_multi);
        first.is_some_and(|entry| entry.before == 0)
            && self.line.iter().filter(is_multi).count() == 1
            && !self.has_transaction_end()
    }

    fn is_queued(entry: &Entry) -> bool {
        let begins = matches!(entry.staged, Staged::Multi | Staged::Watch);
        begins || entry.staged.is_queued_in_transaction()
    }

    /// True when a change of subscriptions is not confirmed to its end.
    pub(super) fn has_feed(&self) -> bool {
        let is_feed = |entry: &Entry| matches!(entry.staged, Staged::Feed(_));
        self.line.iter().any(is_feed)
    }

    /// The change of subscriptions that the next reply belongs to, if it is one's turn.
    pub(super) fn feed(&mut self) -> Option<&mut Awaited> {
        match self.line.front_mut() {
            Some(Entry {
                before: 0,
                staged: Staged::Feed(awaited),
            }) => Some(awaited),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn push_ordinary(&mut self) -> Result<(), Full> {
        self.in_flight = self.in_flight.checked_add(1).ok_or(Full)?;
        // Part of the sum above.
        self.behind += 1;
        Ok(())
    }

    pub(super) fn push(&mut self, staged: Staged) -> Result<(), Full> {
        if self.line.len() >= PENDING_MAX {
            return Err(Full);
        }
        self.in_flight = self.in_flight.checked_add(1).ok_or(Full)?;
        let before = std::mem::take(&mut self.behind);
        self.line.push_back(Entry { before, staged });
        Ok(())
    }

    /// A reply came.
    #[inline]
    pub(super) fn pop(&mut self) -> Turn {
        let Some(left) = self.in_flight.checked_sub(1) else {
            return Turn::Nobodys;
        };
        self.in_flight = left;
        match self.line.front_mut() {
            Some(entry) if entry.before > 0 => entry.before -= 1,
            Some(_) => return self.pop_entry(),
            // With an empty line everything in flight is behind it.
            None => self.behind -= 1,
        }
        Turn::Ordinary
    }

    fn pop_entry(&mut self) -> Turn {
        let Some(entry) = self.line.pop_front() else {
            return Turn::Nobodys;
        };
        if self.line.is_empty() && self.line.capacity() > ROOM_KEPT {
            self.line = VecDeque::new();
        }
        Turn::Staged(entry.staged)
    }
}
