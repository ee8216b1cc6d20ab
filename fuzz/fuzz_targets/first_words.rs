//! What a client speaks is judged the same however its bytes are cut, and what a balancer conveys ends where it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchmaster::listener::conveyed::{Framed, HEADER_MAX, framed};
use switchmaster::session::sniff::{HELD_MAX, Verdict, sniff};

fuzz_target!(|bytes: &[u8]| {
    let verdict = sniff(bytes);
    assert!(verdict != Verdict::More || bytes.len() < HELD_MAX);
    let length = bytes.len().min(600);
    for end in 0..length {
        let before = sniff(&bytes[..end]);
        assert!(before == Verdict::More || before == verdict);
    }
    match framed(bytes) {
        Framed::Whole(length, conveyed) => {
            assert!(length <= bytes.len() && length <= HEADER_MAX);
            assert_eq!(framed(&bytes[..length]), Framed::Whole(length, conveyed));
        }
        Framed::More => assert!(bytes.len() < HEADER_MAX),
        Framed::Bad => {}
    }
});
