//! TLS on each leg: with a scripted master where it is about clients alone, and with real servers that speak nothing else.
//!
//! `SWITCHMASTER_TEST_TLS=1 cargo test --test failover row_` is the fault matrix on such servers.

#[path = "../harness/mod.rs"]
mod harness;

mod client;
mod clients;
mod everywhere;
mod heavy;
mod renewal;
mod replicas;
mod together;
