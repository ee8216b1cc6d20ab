//! One process follows another, with real servers behind them and clients that must not notice: what SIGUSR2 starts.

#[path = "../harness/mod.rs"]
mod harness;

mod crash;
mod follow;
mod lineage;
mod manager;
mod program;
mod reload;
mod replicas;
mod sessions;
mod still;

use std::time::Duration;

/// Longest upgrade: the start of a process, and what Sentinels take to answer it, on a loaded machine.
pub(crate) const UPGRADE: Duration = Duration::from_secs(40);
