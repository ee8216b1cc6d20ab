//! What the process is asked by signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// See [`Asked`].
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    status: Signal,
    hangup: Signal,
    upgrade: Signal,
}

/// What is asked.
pub(super) enum Asked {
    /// SIGTERM, SIGINT
    End,
    /// SIGUSR1
    Status,
    /// SIGHUP
    Hangup,
    /// SIGUSR2
    Upgrade,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            status: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.status.recv() => Asked::Status,
            _ = self.hangup.recv() => Asked::Hangup,
            _ = self.upgrade.recv() => Asked::Upgrade,
        }
    }
}
