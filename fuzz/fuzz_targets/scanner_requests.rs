//! Requests: any division gives the same, looking ahead gives the same, and a library agrees where one ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use switchmaster::resp::{Doubt, Request, Requests, Scan};

fn scan(pieces: &[&[u8]]) -> (Vec<(usize, Request)>, Option<Doubt>) {
    let (mut scanner, mut ends, mut offset) = (Requests::new(), Vec::new(), 0);
    for mut piece in pieces.iter().copied() {
        loop {
            match scanner.next(piece, &mut ()) {
                Ok(Scan::More) => break offset += piece.len(),
                Ok(Scan::Ended { used, request }) => {
                    offset += used;
                    piece = &piece[used..];
                    ends.push((offset, request));
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
    let ahead: Vec<_> = Requests::new()
        .ahead(bytes)
        .map_while(Result::ok)
        .map(|unsent| (unsent.end, unsent.request))
        .collect();
    assert_eq!(ahead, whole.0);

    let mut start = 0;
    for (end, request) in whole.0 {
        let one = &bytes[start..end];
        if one.starts_with(b"*") && request != Request::Silent {
            match decode(one) {
                Ok(Some((OwnedFrame::Array(words), used))) => {
                    assert_eq!(used, one.len());
                    assert!(!words.is_empty());
                }
                other => panic!("a library reads {} as {other:?}", one.escape_ascii()),
            }
        }
        start = end;
    }
});
