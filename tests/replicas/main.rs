//! Listeners that lead to replicas (`role = "replica"`), on real servers: a master, replicas and three Sentinels a test.

#[path = "../harness/mod.rs"]
mod harness;

mod entries;
mod failovers;
mod lag;
mod load;
mod reader;
mod spread;
