//! Descriptors kept back for the control plane: where sessions and floods have taken all others, it can still ask a new
//! master for its role, and the sessions that wait for that give theirs back.
//!
//! The ceiling of sessions leaves it room where the limit of open files is what it was at the start. The reserve is for what no
//! ceiling foresees: a limit that was lowered, descriptors that something else in the process took, a machine that has no more.
//!
//! Whoever serves clients restores it before taking a descriptor: what comes free goes to the reserve first, so that it is not
//! drained by a Sentinel that is dialled again and again and never answers.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use tracing::warn;

/// Descriptors kept back: for a master, its announced successor and some Sentinels.
const KEPT: usize = 8;
/// Those that are not for Sentinels, of which there may be many.
const KEPT_FOR_MASTERS: usize = 4;

/// See the head of this file; clones share it. The default keeps none.
#[derive(Clone, Debug, Default)]
pub struct Reserve {
    inner: Arc<Inner>,
    /// So many are not for whoever has this clone.
    not_ours: usize,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Mutex<Kept>,
    /// Some were lent and are not back: asked for each connection, without the lock.
    short: AtomicBool,
}

#[derive(Debug, Default)]
struct Kept {
    descriptors: Vec<OwnedFd>,
    most: usize,
}

impl Reserve {
    /// Opens them, or as many as there are.
    #[must_use]
    pub fn fill() -> Self {
        let reserve = Self::default();
        reserve.kept().most = KEPT;
        reserve.inner.short.store(true, Ordering::Relaxed);
        reserve.restore();
        reserve
    }

    /// The same, of which some are not lent.
    #[must_use]
    pub fn for_sentinels(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            not_ours: KEPT_FOR_MASTERS,
        }
    }

    /// Closes one of them, for the caller to take its place at once; false when none is left.
    #[must_use]
    pub fn lend(&self) -> bool {
        let mut kept = self.kept();
        if kept.descriptors.len() <= self.not_ours {
            return false;
        }
        self.inner.short.store(true, Ordering::Relaxed);
        kept.descriptors.pop();
        true
    }

    /// True when all are there, after opening again what is missing. Until then nobody else has a claim to a descriptor.
    pub fn restore(&self) -> bool {
        if !self.inner.short.load(Ordering::Relaxed) {
            return true;
        }
        let mut kept = self.kept();
        while kept.descriptors.len() < kept.most {
            match eventfd(0, EventfdFlags::CLOEXEC) {
                Ok(descriptor) => kept.descriptors.push(descriptor),
                Err(Errno::MFILE | Errno::NFILE) => return false,
                Err(why) => {
                    // Nobody is to wait for what will never come.
                    kept.most = kept.descriptors.len();
                    warn!(
                        event = "no_reserve",
                        "no file descriptors can be kept back for the control plane ({why})"
                    );
                }
            }
        }
        self.inner.short.store(false, Ordering::Relaxed);
        true
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.inner
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(reserve: &Reserve) -> usize {
        reserve.kept().descriptors.len()
    }

    #[test]
    fn what_is_lent_is_missed_until_it_is_restored() {
        let reserve = Reserve::fill();
        assert_eq!(left(&reserve), KEPT);
        for now in (0..KEPT).rev() {
            assert!(reserve.lend());
            assert_eq!(left(&reserve), now);
        }
        assert!(!reserve.lend(), "none is left");
        assert!(reserve.restore());
        assert_eq!(left(&reserve), KEPT);
    }

    #[test]
    fn sentinels_leave_some_to_masters() {
        let reserve = Reserve::fill();
        let sentinels = reserve.for_sentinels();
        while sentinels.lend() {}
        assert_eq!(left(&reserve), KEPT_FOR_MASTERS);
        assert!(reserve.lend());
        assert!(sentinels.restore(), "it is one reserve");
        assert_eq!(left(&reserve), KEPT);
    }

    #[test]
    fn none_is_kept_where_nobody_asked() {
        let reserve = Reserve::default();
        assert!(!reserve.lend());
        assert!(reserve.restore());
    }
}
