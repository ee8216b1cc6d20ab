//! The arguments of a command that changes a session, while they come in.

use zeroize::Zeroize;

use crate::resp::Arguments;
use crate::resp::command::{ARGUMENTS_MAX, Command};

/// Most bytes of the arguments of one command.
pub(super) const CAPTURE_MAX: usize = 1024;
/// Enough for a SELECT; most others grow it once.
const CAPTURE_FIRST: usize = 64;

/// A bounded copy of arguments, wiped when dropped and when it grows.
#[derive(Default)]
pub(super) struct Captured {
    bytes: Vec<u8>,
    /// Where each complete argument ends.
    ends: [u16; ARGUMENTS_MAX],
    count: u8,
    /// How many are looked at.
    wanted: u8,
    /// How many there were.
    total: u32,
    /// There were more arguments than that.
    more: bool,
    /// There were more bytes than [`CAPTURE_MAX`].
    overflowed: bool,
}

impl Captured {
    pub(super) fn overflowed(&self) -> bool {
        self.overflowed
    }

    pub(super) fn more(&self) -> bool {
        self.more
    }

    /// How many arguments there were, looked at or not.
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// Hands the arguments to `read`.
    pub(super) fn with<R>(&self, read: impl FnOnce(&[&[u8]]) -> R) -> R {
        let mut arguments: [&[u8]; ARGUMENTS_MAX] = [&[]; ARGUMENTS_MAX];
        let mut start = 0;
        for (argument, end) in arguments.iter_mut().zip(self.ends).take(self.count()) {
            let end = usize::from(end);
            *argument = self.bytes.get(start..end).unwrap_or_default();
            start = end;
        }
        read(&arguments[..self.count()])
    }

    fn count(&self) -> usize {
        usize::from(self.count).min(ARGUMENTS_MAX)
    }

    fn is_full(&self) -> bool {
        self.count >= self.wanted
    }

    fn append(&mut self, part: &[u8]) {
        if self.bytes.len() + part.len() > CAPTURE_MAX {
            self.overflowed = true;
            return;
        }
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            // By hand, as a Vec that grows leaves what it held in freed memory.
            let room = needed.next_power_of_two().max(CAPTURE_FIRST);
            let mut larger = Vec::with_capacity(room);
            larger.extend_from_slice(&self.bytes);
            self.bytes.zeroize();
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(part);
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for Captured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Captured({} arguments)", self.count)
    }
}

impl Arguments for Option<Box<Captured>> {
    fn begin(&mut self, command: Command) {
        let mut captured = Box::<Captured>::default();
        captured.wanted = u8::try_from(command.arguments_read()).unwrap_or(u8::MAX);
        *self = Some(captured);
    }

    fn bytes(&mut self, part: &[u8]) {
        if let Some(captured) = self
            && !captured.is_full()
        {
            captured.append(part);
        }
    }

    fn end(&mut self) {
        let Some(captured) = self else { return };
        // A request has at most 31 bits of them.
        captured.total = captured.total.saturating_add(1);
        if captured.is_full() {
            captured.more = true;
            return;
        }
        let end = u16::try_from(captured.bytes.len()).unwrap_or(u16::MAX);
        if let Some(to) = captured.ends.get_mut(usize::from(captured.count)) {
            *to = end;
            captured.count += 1;
        }
    }
}
