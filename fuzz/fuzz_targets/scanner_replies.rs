//! Replies: any division gives the same, and where a library reads a value it ends at the same byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_protocol::{resp2, resp3};
use switchmaster::resp::{Doubt, Heard, Kind, Replies};

/// The library recurses; this many types in a row could be so many levels.
const DEPTH_MAX: usize = 100;

fn scan(pieces: &[&[u8]]) -> (Vec<(usize, Kind)>, Option<Doubt>) {
    let (mut scanner, mut ends, mut offset) = (Replies::new(), Vec::new(), 0);
    for mut piece in pieces.iter().copied() {
        loop {
            match scanner.next(piece) {
                Ok(Heard::More) => break offset += piece.len(),
                Ok(Heard::Ended { used, kind }) => {
                    offset += used;
                    piece = &piece[used..];
                    ends.push((offset, kind));
                }
                Err(doubt) => return (ends, Some(doubt)),
            }
        }
    }
    (ends, None)
}

fuzz_target!(|data: &[u8]| {
    let [cut, bytes @ ..] = data else { return };
    let whole = scan(&[bytes]);
    let (left, right) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(scan(&[left, right]), whole);
    assert_eq!(scan(&bytes.chunks(1).collect::<Vec<_>>()), whole);

    let mut start = 0;
    for (end, _) in whole.0 {
        let one = &bytes[start..end];
        start = end;
        // What a value is made of may be nonsense that the library refuses; where it reads one, the end is the same.
        // Attributes it counts as values of their own.
        if one.contains(&b'|') || one.iter().filter(|byte| b"*%~>".contains(byte)).count() > DEPTH_MAX {
            continue;
        }
        if let Ok(Some((_, used))) = resp2::decode::decode(one) {
            assert_eq!(used, one.len(), "{}", one.escape_ascii());
        }
        if let Ok(Some((_, used))) = resp3::decode::complete::decode(one) {
            assert_eq!(used, one.len(), "{}", one.escape_ascii());
        }
    }
});
