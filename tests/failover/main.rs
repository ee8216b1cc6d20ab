//! The fault matrix in close mode: the real program in front of a master, two replicas and three Sentinels a test, or
//! of scripted ones where a real server cannot be made to misbehave (each module says which). A test that begins with
//! `row_` is the row of that number; one marked `ignore` needs a newer server than the distribution's, and scripts/test runs it
//! where it has one.
//!
//! Tests are independent: each has its own cluster on its own ports. Three clusters run at once
//! (`harness::topology`), however many threads the test runner has. Deadlines are ten times the goals and end at
//! most 3 s after Sentinel has done its own part; what is asserted is the order of events and what the
//! servers hold afterwards. Figures are for the benches.

#[path = "../harness/mod.rs"]
mod harness;

mod ambiguity;
mod announced;
mod applications;
mod backdoor;
mod clients;
mod coordinated;
mod crash;
mod flood;
mod hostile;
mod in_flight;
mod leader;
mod login;
mod moving;
mod on_behalf;
mod partition;
mod planned;
mod redis_rs;
mod repeated;
mod resend;
mod role;
mod sentinels;
mod startup;
mod strict;
mod subscribers;
mod unreachable;
