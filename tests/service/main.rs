//! The process as a service: how it ends when it is told to, and what it and its service manager say to each other.

#[path = "../harness/mod.rs"]
mod harness;

mod ending;
mod notify;
mod sockets;
mod units;
mod watchdog;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

pub(crate) use harness::admin::{admin_of, get};

/// Exit code of an end in which sessions were cut.
pub(crate) const CUT: i32 = 75;
/// Longest end that waits for nobody; a multiple of the second for which a client's last words are read.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(8);

/// The exit code; a signal's end is none.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
}
