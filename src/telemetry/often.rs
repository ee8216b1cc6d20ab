//! Keeps peers that provoke the same line again and again from filling the log.

use std::collections::BTreeMap;

use tracing::warn;

use crate::net::clock::now;
use crate::net::rarely::Rarely;

/// Limits the lines of one part of the program, those of each name by themselves. Names are those of events, so they are few.
#[derive(Debug)]
pub struct Often {
    at_once: u32,
    names: BTreeMap<&'static str, Rarely>,
}

impl Often {
    /// So many lines of a name at once, then one a second.
    pub const fn after(at_once: u32) -> Self {
        Self {
            at_once,
            names: BTreeMap::new(),
        }
    }

    /// Whether this line may be written now. Says how many of its name were left out since the last one; `about` is whom they
    /// concern.
    pub fn allow(&mut self, event: &'static str, about: &str) -> bool {
        let rarely = self
            .names
            .entry(event)
            .or_insert_with(|| Rarely::after(self.at_once));
        let Some(count) = rarely.allow(now()) else {
            return false;
        };
        if count > 1 {
            warn!(
                event = "log_lines_left_out",
                of = event,
                about,
                count = count - 1,
                "so many lines of this kind were left out: they come faster than one a second"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::rarely::logged;

    #[test]
    fn each_name_has_its_own_limit_and_says_what_it_left_out() {
        let mut often = Often::after(2);
        let log = logged(|| {
            let told = (0..1000).filter(|_| often.allow("one", "10.0.0.1")).count();
            assert!((2..10).contains(&told), "{told}");
            assert!(often.allow("another", "10.0.0.1"));
            let deadline = now() + std::time::Duration::from_secs(5);
            while !often.allow("one", "10.0.0.1") {
                assert!(now() < deadline, "it is told again after a second");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        assert!(log.contains("event=\"log_lines_left_out\""), "{log}");
        assert!(
            log.contains("of=\"one\"") && !log.contains("another"),
            "{log}"
        );
    }
}
