//! From one process to the one that follows it, without closing a session: what is said between them, and who may do what when.
//!
//! ```text
//! operator --SIGUSR2--> old process --starts--> new process          (their link is its standard input)
//!                       old::Giver <--link--> new::Taker              pure: (state, input, now) -> actions
//!                          |                     |
//!                       daemon::upgrade       daemon::takeover        their hands
//! ```
//!
//! Exactly one process accepts at any instant, and exactly one reads and writes for a session: whoever is to begin does so only
//! after the other has said that it has ended, or is known to be dead.

pub mod link;
pub mod message;
pub mod new;
pub mod old;
#[cfg(test)]
mod timelines;
