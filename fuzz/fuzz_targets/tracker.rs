//! The tracker, held after each piece against a naive parser that keeps everything.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/resp/model.rs"]
mod model;

fuzz_target!(|data: &[u8]| model::play(data));
