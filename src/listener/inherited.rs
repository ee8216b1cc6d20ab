//! Listening sockets of the process that this one follows: nobody is refused while one takes the place of the other.

use std::os::fd::OwnedFd;

use tracing::warn;

use super::Bound;

/// Those that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Heirloom>);

#[derive(Debug)]
struct Heirloom {
    /// The proxy entry; `None` = the admin endpoint.
    entry: Option<String>,
    bound: Bound,
}

impl Inherited {
    /// One more. What is of no use is left out: its address is bound anew then.
    pub fn add(&mut self, entry: Option<String>, asked: &str, owns_file: bool, socket: OwnedFd) {
        match Bound::inherited(asked, owns_file, socket) {
            Ok(bound) => self.0.push(Heirloom { entry, bound }),
            Err(error) => warn!(
                event = "listener_not_taken_over",
                addr = %asked.escape_default(),
                "a listener of the process before is of no use: {error}"
            ),
        }
    }

    /// Those of this entry that were asked for by this address.
    pub fn take(&mut self, entry: Option<&str>, asked: &str) -> Vec<Bound> {
        let is_it =
            |kept: &mut Heirloom| kept.entry.as_deref() == entry && kept.bound.asked() == asked;
        self.0
            .extract_if(.., is_it)
            .map(|kept| kept.bound)
            .collect()
    }
}
