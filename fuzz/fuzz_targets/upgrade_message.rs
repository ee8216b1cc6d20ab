//! What the other process of an upgrade may say: an error or a message, and one that is read is written and read again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchmaster::upgrade::message::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let Ok(message) = decode(data) else { return };
    // JSON may say the same in fewer bytes than it is written in.
    if let Ok(bytes) = encode(&message) {
        assert_eq!(decode(&bytes), Ok(message));
    }
});
