//! The tracker of a session held against a naive parser that keeps everything, and against a real server.

#[path = "../harness/mod.rs"]
mod harness;
mod model;
mod server;

use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn the_tracker_agrees_with_one_that_keeps_everything(data in vec(any::<u8>(), 0..200)) {
        model::play(&data);
    }
}
