//! Tells the service manager how the process is (sd_notify(3)): that it listens, what it does, that it still turns, that it ends.
//!
//! The messages are a line each in a datagram, so there is little for a library to do; and those that are known wait when
//! the manager is slow to read, which on this thread would delay a failover. Nothing here waits but for moments at start and end: what the
//! manager does not take now is told at the next turn.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::report::Progress;
use crate::admin::{STUCK_AFTER, Vitals};
use crate::net::clock::{At, Moment};

/// How often it is looked whether there is something to tell.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The line of state is sent no more often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the manager to take what it must hear, and between two tries.
const TAKE_LIMIT: Duration = Duration::from_secs(1);
const TRY_EVERY: Duration = Duration::from_millis(20);
/// Time asked for beyond the drain's own, for what comes behind it.
const END_SLACK: Duration = Duration::from_secs(10);

/// The service manager, if there is one that wants to hear.
#[derive(Debug)]
pub(super) struct Manager {
    link: Option<Link>,
    watchdog: Option<Duration>,
    /// Another process is the main one now: what this one says is none of the manager's business.
    silent: AtomicBool,
}

#[derive(Debug)]
struct Link {
    socket: UnixDatagram,
    addr: SocketAddr,
}

impl Manager {
    /// By the environment of this process.
    pub(super) fn from_env() -> Self {
        let link = env::var_os("NOTIFY_SOCKET")
            .filter(|path| !path.is_empty())
            .and_then(|path| match Link::open(&path) {
                Ok(link) => Some(link),
                Err(error) => {
                    warn!(
                        event = "manager_unreachable",
                        "cannot tell the service manager anything (NOTIFY_SOCKET): {error}"
                    );
                    None
                }
            });
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // Without the id it is meant for whoever reads it (sd_watchdog_enabled(3)).
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_ours && *usec > 0);
        Self {
            link,
            watchdog: watchdog.map(Duration::from_micros),
            silent: AtomicBool::new(false),
        }
    }

    /// Clients may connect.
    pub(super) async fn ready(&self) {
        self.must_hear("READY=1").await;
    }

    /// This process has taken the place of another. It feeds the watchdog at once, as nobody else does any more.
    pub(super) async fn followed(&self) {
        self.must_hear("READY=1\nWATCHDOG=1").await;
    }

    /// From now on that process is the main one of the service, and this one says nothing more. It has to be said by who was it
    /// until now (`NotifyAccess=main`).
    pub(super) async fn introduce(&self, pid: u32) {
        self.must_hear(&format!("MAINPID={pid}")).await;
        self.silent.store(true, Ordering::Relaxed);
    }

    /// The configuration is read anew; [`Self::ready`] follows, whatever comes of it.
    pub(super) async fn reloading(&self) {
        // The manager takes a READY for this reload's only with the time at which it began (sd_notify(3)).
        let since = clock_gettime(ClockId::Monotonic);
        let usec = since.tv_sec * 1_000_000 + since.tv_nsec / 1_000;
        self.must_hear(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"))
            .await;
    }

    /// The process ends, and may take so long.
    pub(super) async fn stopping(&self, grace: Duration) {
        let usec = (grace + END_SLACK).as_micros();
        let message = format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={usec}");
        self.must_hear(&message).await;
    }

    /// Tells what there is to tell until `end`.
    pub(super) async fn attend(
        self: Arc<Self>,
        vitals: Vitals,
        progress: Progress,
        end: CancellationToken,
    ) {
        let Some(link) = &self.link else {
            return;
        };
        let mut duty = Duty::new(At::now().moment, self.watchdog);
        let mut look = interval(
            self.watchdog
                .map_or(LOOK_EVERY, |every| LOOK_EVERY.min(every / 4)),
        );
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(look.tick()).await.is_some() && !self.is_silent() {
            let at = At::now();
            if duty.has_to_feed(at.moment, || vitals.idle(at)) && link.send("WATCHDOG=1") {
                duty.fed(at.moment);
            }
            if let Some(status) = duty.has_to_say(at.moment, || progress.in_words())
                && link.send(&format!("STATUS={status}"))
            {
                duty.said(at.moment, status);
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    async fn must_hear(&self, message: &str) {
        let Some(link) = self.link.as_ref().filter(|_| !self.is_silent()) else {
            return;
        };
        let telling = async {
            while !link.send(message) {
                sleep(TRY_EVERY).await;
            }
        };
        if timeout(TAKE_LIMIT, telling).await.is_err() {
            warn!(
                event = "manager_unreachable",
                "the service manager does not take \"{}\"",
                message.escape_default()
            );
        }
    }
}

impl Link {
    /// A path, or `@` and a name in the abstract namespace.
    fn open(path: &OsStr) -> io::Result<Self> {
        let addr = match path.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(path)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, addr })
    }

    /// False when the manager has no room for it now, or is not there.
    fn send(&self, message: &str) -> bool {
        self.socket
            .send_to_addr(message.as_bytes(), &self.addr)
            .is_ok()
    }
}

/// What the manager was told, and when: decides what it is to be told now.
#[derive(Debug)]
struct Duty {
    watchdog: Option<Duration>,
    fed: Moment,
    said: Option<(Moment, String)>,
}

impl Duty {
    const fn new(now: Moment, watchdog: Option<Duration>) -> Self {
        Self {
            watchdog,
            fed: now,
            said: None,
        }
    }

    /// Half of the period is over (sd_watchdog_enabled(3)), and whoever has to turn has done so since the last time; `idle` is how
    /// long the one has not that has stood still longest.
    fn has_to_feed(&self, now: Moment, idle: impl FnOnce() -> Duration) -> bool {
        let since = now.since(self.fed);
        self.watchdog
            .is_some_and(|period| since >= period / 2 && idle() < since.min(STUCK_AFTER))
    }

    fn fed(&mut self, now: Moment) {
        self.fed = now;
    }

    /// The state, where it has changed.
    fn has_to_say(&self, now: Moment, words: impl FnOnce() -> String) -> Option<String> {
        let (at, last) = match &self.said {
            Some((at, last)) => (Some(*at), last.as_str()),
            None => (None, ""),
        };
        if at.is_some_and(|at| now.since(at) < STATUS_EVERY) {
            return None;
        }
        Some(words()).filter(|words| words != last)
    }

    fn said(&mut self, now: Moment, words: String) {
        self.said = Some((now, words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Moment {
        Moment::default() + Duration::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_watchdog_is_fed_when_all_have_turned_since() {
        let duty = Duty::new(at(0), Some(PERIOD));
        for (now, idle, feeds) in [
            (4999, ms(0), false),
            (5000, ms(100), true),
            (5000, ms(4999), true),
            // The last turn of one of them was before the last time.
            (5000, ms(5000), false),
            (9000, ms(9000), false),
            // It has turned since, and is stuck.
            (9000, STUCK_AFTER, false),
            (9000, ms(300), true),
            // Late is better than never.
            (60_000, ms(0), true),
        ] {
            assert_eq!(
                duty.has_to_feed(at(now), || idle),
                feeds,
                "at {now} ms, {idle:?} idle"
            );
        }
        let without = Duty::new(at(0), None);
        assert!(!without.has_to_feed(at(60_000), || ms(0)));
    }

    #[test]
    fn one_that_never_turns_again_is_noticed_within_the_period() {
        // Stuck from its last turn at 7 s on; everything else turns.
        let stuck_at = at(7000);
        let mut duty = Duty::new(at(0), Some(PERIOD));
        let mut last = at(0);
        for millis in (0..60_000).step_by(250) {
            let now = at(millis);
            if duty.has_to_feed(now, || now.since(stuck_at).max(ms(100))) {
                duty.fed(now);
                last = now;
            }
        }
        assert!(last <= stuck_at + STUCK_AFTER, "fed at {last}");
        assert!(last >= at(5000), "fed before that");
    }

    #[test]
    fn the_state_is_said_when_it_changes_and_not_too_often() {
        let mut duty = Duty::new(at(0), None);
        let words = |n: u32| move || n.to_string();
        let first = duty.has_to_say(at(0), words(1)).expect("said at once");
        duty.said(at(0), first);
        assert_eq!(duty.has_to_say(at(999), words(2)), None);
        assert_eq!(duty.has_to_say(at(1000), words(1)), None, "no news");
        assert_eq!(duty.has_to_say(at(1000), words(2)), Some("2".to_owned()));
    }
}
