//! What the docs tell people to run or to write into files does what it says: each block is taken out of its page and used.
//!
//! A block says in the line before it what becomes of it: `<!-- test: NAME -->` and `<!-- run: NAME -->` name what is done with it here,
//! `<!-- not run: WHY -->` why nothing is. [`blocks`] finds one that says nothing.

mod blocks;
mod clients;
mod commands;
#[path = "../harness/mod.rs"]
mod harness;
mod retries;
mod settings;
