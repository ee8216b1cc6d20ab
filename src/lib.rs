//! switchmaster: one fixed port that always leads to the current Redis/Valkey master.

// --- bytes ---------------------------------------------------------------------------------------
pub mod listener;
pub mod session;
pub mod upstream;
pub mod worker;
// --- facts ---------------------------------------------------------------------------------------
pub mod control;
pub mod sentinel;
pub mod topology;
// --- operators -----------------------------------------------------------------------------------
pub mod cli;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod exit;
// --- under all -----------------------------------------------------------------------------------
pub mod net;
pub mod telemetry;
