//! What is logged can be changed while the process runs, for a while or for good.
//!
//! It costs a log line nothing: tracing remembers for each place in the code whether it is heard, until the filter is another.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, enabled, warn};
use tracing_subscriber::EnvFilter;

use super::{FilterError, filter};
use crate::net::clock::Moment;

/// Puts a filter in force. False when there is no log any more.
type Apply = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

/// The filter in force, and how to have another.
#[derive(Clone)]
pub struct Filter(Arc<Shared>);

struct Shared {
    current: Mutex<Current>,
    apply: Apply,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Current {
    text: String,
    configured: String,
    /// The configured one returns then.
    until: Option<Moment>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text()).finish()
    }
}

impl Filter {
    /// `configured` is in force.
    pub(super) fn new(configured: &str, apply: Apply) -> Self {
        Self(Arc::new(Shared {
            current: Mutex::new(Current {
                text: configured.to_owned(),
                configured: configured.to_owned(),
                until: None,
            }),
            apply,
        }))
    }

    /// The one in force.
    pub fn text(&self) -> String {
        self.current().text.clone()
    }

    /// The one of the configuration.
    pub fn configured(&self) -> String {
        self.current().configured.clone()
    }

    /// The configuration says another one. It is in force from now on, unless another is for a while: then from the end of that.
    ///
    /// # Errors
    /// When the text is no filter.
    pub fn configure(&self, text: &str, by: &str) -> Result<(), FilterError> {
        let new = filter(text)?;
        let passing = {
            let mut current = self.current();
            text.clone_into(&mut current.configured);
            current.until.is_some()
        };
        if !passing {
            self.put(new, text, None, by);
        }
        Ok(())
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        let current = self.0.current.lock();
        current.unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this is logged, and after `limit` what was configured. Gives what was in force before.
    ///
    /// # Errors
    /// When the text is no filter.
    pub fn set(
        &self,
        now: Moment,
        text: &str,
        limit: Option<Duration>,
        by: &str,
    ) -> Result<String, FilterError> {
        let new = filter(text)?;
        let until = limit.map(|limit| now + limit);
        Ok(self.put(new, text, until, by))
    }

    /// Puts the configured filter in force again when the other one's time is up.
    pub fn expire(&self, now: Moment) {
        let Current {
            until, configured, ..
        } = self.current().clone();
        if until.is_some_and(|until| now >= until)
            && let Ok(filter) = filter(&configured)
        {
            self.put(filter, &configured, None, "time");
        }
    }

    fn put(&self, new: EnvFilter, text: &str, until: Option<Moment>, by: &str) -> String {
        let before = {
            let mut current = self.current();
            current.until = until;
            std::mem::replace(&mut current.text, text.to_owned())
        };
        let tell = || {
            warn!(event = "log_level", from = %before, to = %text, by, "what is logged changes");
        };
        // It is told under the filter that lets it through; the new one may be "off", and so may the old one.
        let heard = enabled!(Level::WARN);
        if heard {
            tell();
        }
        let applied = (self.0.apply)(new);
        if applied && !heard {
            tell();
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_for_a_while_gives_way_to_the_configured_one() {
        let applied = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&applied);
        let apply = move |filter: EnvFilter| {
            seen.lock().expect("no panic").push(filter.to_string());
            true
        };
        let level = Filter::new("info", Box::new(apply));
        let start = Moment::from_nanos(5);
        let minute = Duration::from_secs(60);
        assert!(level.set(start, "debgu", None, "test").is_err());
        assert_eq!(level.text(), "info");
        let before = level.set(start, "debug", Some(minute), "test");
        assert_eq!(before, Ok("info".to_owned()));
        level.expire(start + minute / 2);
        assert_eq!(level.text(), "debug");
        level.expire(start + minute);
        level.expire(start + minute * 2);
        assert_eq!(level.text(), "info");
        // One without an end outlives the end of the one before.
        let before = level.set(start, "warn", Some(minute), "test");
        assert_eq!(before, Ok("info".to_owned()));
        let before = level.set(start, "trace", None, "test");
        assert_eq!(before, Ok("warn".to_owned()));
        level.expire(start + minute * 2);
        assert_eq!(level.text(), "trace");
        let applied = applied.lock().expect("no panic");
        assert_eq!(*applied, ["debug", "info", "warn", "trace"]);
    }

    #[test]
    fn another_configured_filter_waits_for_the_end_of_one_that_is_for_a_while() {
        let level = Filter::new("info", Box::new(|_| true));
        let start = Moment::from_nanos(5);
        let minute = Duration::from_secs(60);
        assert_eq!(level.configure("warn", "reload"), Ok(()));
        assert_eq!(
            (level.text().as_str(), &*level.configured()),
            ("warn", "warn")
        );
        let _ = level.set(start, "debug", Some(minute), "test");
        assert_eq!(level.configure("error", "reload"), Ok(()));
        assert_eq!(
            (level.text().as_str(), &*level.configured()),
            ("debug", "error")
        );
        level.expire(start + minute);
        assert_eq!(level.text(), "error");
        // One without an end gives way at once.
        let _ = level.set(start, "trace", None, "test");
        assert_eq!(level.configure("info", "reload"), Ok(()));
        assert_eq!(level.text(), "info");
        assert!(level.configure("debgu", "reload").is_err());
        assert_eq!(
            (level.text().as_str(), &*level.configured()),
            ("info", "info")
        );
    }
}
