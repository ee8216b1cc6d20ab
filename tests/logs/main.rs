//! What the log says, and what it never says, whatever peers do to it.

#[path = "../harness/mod.rs"]
mod harness;

mod disagreement;
mod floods;
mod names;
mod secrets;

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
