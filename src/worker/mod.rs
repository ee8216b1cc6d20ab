//! The data-plane threads: one current-thread runtime each, one task a session.

use std::num::NonZeroUsize;

/// How many data-plane threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// One: it carries more requests than one Redis can answer.
    #[default]
    Auto,
    /// So many.
    Fixed(NonZeroUsize),
}

impl Workers {
    /// Most threads that can be asked for.
    pub const MAX: usize = 64;

    /// The number of threads to start.
    pub const fn count(self) -> usize {
        match self {
            Self::Auto => 1,
            Self::Fixed(n) => n.get(),
        }
    }
}
