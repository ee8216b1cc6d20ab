//! switchmaster: one fixed port that always leads to the current Redis/Valkey master.
//!
//! Two flows, one meeting point:
//!
//! ```text
//! bytes   client -> listener -> worker -> session -> upstream (the master)
//!                                            |  ^
//!                            "ask again"     |  | State: generation, phase, master
//!                                            v  |
//!                                     topology::publish
//!                                               ^
//! facts   Sentinels -> sentinel::watcher -> control (steward decides; ROLE verifies)
//! ```
//!
//! The rooms below are in the order of the flows. Start with [`topology::decide`] (who is master, pure), then
//! [`control::steward`] (what is done about it, pure), then [`session`] (the life of one client). Invariants and a map are in
//! `docs/ARCHITECTURE.md`.

// --- bytes ---------------------------------------------------------------------------------------
pub mod listener;
pub mod resp;
pub mod session;
pub mod upstream;
pub mod worker;
// --- facts ---------------------------------------------------------------------------------------
pub mod control;
pub mod sentinel;
pub mod topology;
// --- operators -----------------------------------------------------------------------------------
pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod exit;
pub mod status;
pub mod top;
pub mod upgrade;
// --- under all -----------------------------------------------------------------------------------
pub mod net;
pub mod telemetry;
