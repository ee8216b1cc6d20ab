//! Descriptors kept back for the control plane: where sessions and floods have taken all others, it can still ask a new
//! master for its role, and the sessions that wait for that give theirs back.
//!
//! The ceiling of sessions leaves it room where the limit of open files is what it was at the start. The reserve is for what no
//! ceiling foresees: a limit that was lowered, descriptors that something else in the process took.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

/// Descriptors kept back: the links to a new master and to some Sentinels, and room for what others snatch.
const KEPT: usize = 8;

/// See the head of this file; clones share it. The default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Reserve(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    most: usize,
    kept: Mutex<Vec<OwnedFd>>,
    /// Some were lent and are not back: what accepts asks for each connection, without the lock.
    short: AtomicBool,
}

impl Reserve {
    /// Opens them, or as many as there are.
    #[must_use]
    pub fn fill() -> Self {
        let reserve = Self(Arc::new(Inner {
            most: KEPT,
            short: AtomicBool::new(true),
            ..Inner::default()
        }));
        reserve.restore();
        reserve
    }

    /// Closes one of them, for the caller to take its place at once; false when none is left.
    #[must_use]
    pub fn lend(&self) -> bool {
        let mut kept = self.kept();
        let lent = kept.pop().is_some();
        if lent {
            self.0.short.store(true, Ordering::Relaxed);
        }
        lent
    }

    /// True when all are there, after opening again what is missing. Until then nobody else has a claim to a descriptor.
    pub fn restore(&self) -> bool {
        if !self.0.short.load(Ordering::Relaxed) {
            return true;
        }
        let mut kept = self.kept();
        while kept.len() < self.0.most {
            let Ok(socket) = Socket::new(Domain::UNIX, Type::STREAM, None) else {
                return false;
            };
            kept.push(socket.into());
        }
        self.0.short.store(false, Ordering::Relaxed);
        true
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_missed_until_it_is_restored() {
        let reserve = Reserve::fill();
        assert_eq!(reserve.kept().len(), KEPT);
        for left in (0..KEPT).rev() {
            assert!(reserve.lend());
            assert_eq!(reserve.kept().len(), left);
        }
        assert!(!reserve.lend(), "none is left");
        assert!(reserve.restore());
        assert_eq!(reserve.kept().len(), KEPT);
    }

    #[test]
    fn none_is_kept_where_nobody_asked() {
        let reserve = Reserve::default();
        assert!(!reserve.lend());
        assert!(reserve.restore());
    }
}
