//! The fault matrix on real servers: a master, two replicas and three Sentinels a test, the real program in
//! front of them, in close mode. A test that begins with `row_` is the row of that number.
//!
//! Tests are independent: each has its own cluster on its own ports. Three clusters run at once
//! (`harness::topology`), however many threads the test runner has. Deadlines are ten times the goals and end at
//! most 3 s after Sentinel has done its own part; what is asserted is the order of events and what the
//! servers hold afterwards. Figures are for the benches.

#[path = "../harness/mod.rs"]
mod harness;

mod ambiguity;
mod applications;
mod backdoor;
mod clients;
mod crash;
mod hostile;
mod leader;
mod login;
mod planned;
mod repeated;
mod sentinels;
mod startup;
mod unreachable;
