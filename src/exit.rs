//! How the process ends: the numbers that scripts and service managers see.

use std::process::ExitCode;

/// Why the process ended. Part of the public interface: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or ended by SIGTERM with every session ended in order.
    Ok = 0,
    /// Failed while running.
    Runtime = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// Nothing that had to be asked could be reached (`EX_UNAVAILABLE`).
    Unreachable = 69,
    /// A listening address is taken (`EX_CANTCREAT`).
    PortTaken = 73,
    /// Ended as it was told to, but sessions with something under way were cut: their time was over, or a second signal came
    /// (`EX_TEMPFAIL`).
    Cut = 75,
    /// The system forbids it (`EX_NOPERM`).
    Permission = 77,
    /// The configuration is not valid (`EX_CONFIG`).
    Config = 78,
}

impl Exit {
    /// Every one, in order.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Runtime,
        Self::Usage,
        Self::Unreachable,
        Self::PortTaken,
        Self::Permission,
        Self::Config,
    ];

    /// The number itself.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
