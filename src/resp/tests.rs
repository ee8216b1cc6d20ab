//! Boundaries of requests and replies, one by one and by property: any division into pieces gives the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use redis_protocol::{resp2, resp3};

use super::command::{Command, Meaning};
use super::*;

/// Every request's end and kind, or the doubt and how many requests came before it.
fn requests_in(pieces: &[&[u8]]) -> (Vec<(usize, Request)>, Option<Doubt>, bool) {
    let mut scanner = Requests::new();
    let (mut found, mut offset) = (Vec::new(), 0);
    for mut piece in pieces.iter().copied() {
        loop {
            match scanner.next(piece, &mut ()) {
                Ok(Scan::More) => break offset += piece.len(),
                Ok(Scan::Ended { used, request }) => {
                    offset += used;
                    piece = &piece[used..];
                    found.push((offset, request));
                }
                Err(doubt) => return (found, Some(doubt), false),
            }
        }
    }
    (found, None, scanner.at_boundary())
}

/// Where a value ended, what it was, and its error code.
type Ended = (usize, Kind, Vec<u8>);

fn replies_in(pieces: &[&[u8]]) -> (Vec<Ended>, Option<Doubt>, bool) {
    let mut scanner = Replies::new();
    let (mut found, mut offset) = (Vec::new(), 0);
    for mut piece in pieces.iter().copied() {
        loop {
            match scanner.next(piece) {
                Ok(Heard::More) => break offset += piece.len(),
                Ok(Heard::Ended { used, kind }) => {
                    offset += used;
                    piece = &piece[used..];
                    found.push((offset, kind, scanner.error_code().to_vec()));
                }
                Err(doubt) => return (found, Some(doubt), false),
            }
        }
    }
    (found, None, scanner.at_boundary())
}

/// Divides at every offset that a bit of `cuts` names.
fn cut<'a>(bytes: &'a [u8], cuts: &[bool]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, cut) in cuts.iter().enumerate().take(bytes.len()).skip(1) {
        if *cut {
            pieces.push(&bytes[start..at]);
            start = at;
        }
    }
    pieces.push(&bytes[start..]);
    pieces
}

fn one_request(bytes: &[u8]) -> Result<Vec<Request>, Doubt> {
    let (found, doubt, _) = requests_in(&[bytes]);
    match doubt {
        Some(doubt) => Err(doubt),
        None => Ok(found.into_iter().map(|(_, request)| request).collect()),
    }
}

/// Bytes, and what ends in them.
struct Case<'a, T>(&'a [u8], Result<&'a [T], Doubt>);

#[test]
fn requests_are_read_as_redis_reads_them() {
    use Request::{Ordinary, Silent};
    let select = Request::Command(Command::Select);
    let cases: &[Case<'_, Request>] = &[
        Case(b"*1\r\n$4\r\nPING\r\n", Ok(&[Ordinary])),
        Case(b"*2\r\n$6\r\nsElEcT\r\n$1\r\n1\r\n", Ok(&[select])),
        Case(b"*2\r\n$7\r\nSELECTS\r\n$1\r\n1\r\n", Ok(&[Ordinary])),
        Case(b"*2\r\n$0\r\n\r\n$6\r\nSELECT\r\n", Ok(&[Ordinary])),
        Case(b"*0\r\n*-1\r\n*-7\r\n\r\n\n  \t\r\n", Ok(&[Silent; 6])),
        Case(b"select 1\r\nselect 2\n", Ok(&[select, select])),
        Case(b" \x0b\"se\\x6cect\" '1'\r\n", Ok(&[select])),
        Case(b"sel\"ec\"t 1\n", Err(Doubt::Quotes)),
        Case(b"sel\"ect\" 1\n", Ok(&[select])),
        Case(b"\"\"\n", Ok(&[Ordinary])),
        Case(b"select\x0b1\n", Ok(&[Ordinary])),
        Case(b"'it\\'s' \"\\\"\" \"\\x4\" \"\\xg\"\n", Ok(&[Ordinary])),
        Case(b"'ping\n", Err(Doubt::Quotes)),
        Case(b"\"a\"b\n", Err(Doubt::Quotes)),
        Case(b"\"a\\\"\r\n", Err(Doubt::Quotes)),
        Case(b"ping\0\n", Err(Doubt::Nul)),
        Case(b"*1\r\n$7\r\nMULTI\0a\r\n", Err(Doubt::Nul)),
        Case(b"\"MULTI\\x00\"\n", Err(Doubt::Nul)),
        Case(b"*1\r\n$15\r\nSUNSUBSCRIBE\0ab\r\n", Err(Doubt::Nul)),
        Case(b"*1\r\n$15\r\nABCDEFGHIJKLM\0a\r\n", Ok(&[Ordinary])),
        Case(b"*2\r\n$3\r\nGET\r\n$1\r\n\0\r\n", Ok(&[Ordinary])),
        Case(b"*03\r\n", Err(Doubt::Number)),
        Case(b"*-0\r\n", Err(Doubt::Number)),
        Case(b"*+1\r\n", Err(Doubt::Number)),
        Case(b"*1\n", Err(Doubt::Number)),
        Case(b"*\r\n", Err(Doubt::Number)),
        Case(b"*?\r\n", Err(Doubt::Number)),
        Case(b"*1\rx", Err(Doubt::Number)),
        Case(b"*2147483648\r\n", Err(Doubt::Elements)),
        Case(b"*99999999999999999999\r\n", Err(Doubt::Number)),
        Case(b"*1\r\n:1\r\n", Err(Doubt::NotBulk)),
        Case(b"*1\r\n$-1\r\n", Err(Doubt::Number)),
        Case(b"*1\r\n$9223372036854775808\r\n", Err(Doubt::Number)),
        Case(b"*1\r\n$4\r\nPINGxx", Err(Doubt::Terminator)),
        Case(b"*1\r\n$4\r\nPING\rx", Err(Doubt::Terminator)),
        Case(b"*2147483647\r\n$9223372036854775807\r\n", Ok(&[])),
    ];
    for Case(bytes, expected) in cases {
        let shown = bytes.escape_ascii();
        let expected = expected.map(<[Request]>::to_vec);
        assert_eq!(one_request(bytes), expected, "{shown}");
        // Again byte by byte, where nothing is quick.
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(requests_in(&single), requests_in(&[bytes]), "{shown}");
    }
}

#[test]
fn replies_of_both_protocols_end_where_they_end() {
    use Kind::{Error, Push, Value};
    let cases: &[Case<'_, Kind>] = &[
        Case(b"+OK\r\n:1\r\n$-1\r\n*-1\r\n_\r\n", Ok(&[Value; 5])),
        Case(b"$0\r\n\r\n*0\r\n%0\r\n~0\r\n", Ok(&[Value; 4])),
        Case(b"-ERR x\r\n!5\r\nERR x\r\n", Ok(&[Error, Error])),
        Case(b"#t\r\n,1.5\r\n(123\r\n=7\r\ntxt:abc\r\n", Ok(&[Value; 4])),
        Case(b"*2\r\n-ERR\r\n*1\r\n*2\r\n+a\r\n$1\r\nb\r\n", Ok(&[Value])),
        Case(b"%1\r\n+a\r\n~2\r\n:1\r\n%1\r\n:1\r\n:2\r\n", Ok(&[Value])),
        Case(b">2\r\n+a\r\n*1\r\n:1\r\n+OK\r\n", Ok(&[Push, Value])),
        Case(b"|1\r\n+k\r\n*1\r\n:1\r\n-E\r\n", Ok(&[Error])),
        Case(b"|1\r\n+k\r\n+v\r\n>1\r\n+a\r\n", Ok(&[Push])),
        Case(
            b"|1\r\n+k\r\n|1\r\n+a\r\n+b\r\n+v\r\n|0\r\n-E\r\n",
            Ok(&[Error]),
        ),
        Case(b"*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n", Ok(&[Value])),
        Case(b"*1\r\n>1\r\n", Err(Doubt::NestedPush)),
        Case(b"|1\r\n>1\r\n", Err(Doubt::NestedPush)),
        Case(b"$?\r\n", Err(Doubt::Streamed)),
        Case(b"*?\r\n", Err(Doubt::Streamed)),
        Case(b";1\r\n", Err(Doubt::Streamed)),
        Case(b"%-1\r\n", Err(Doubt::Number)),
        Case(b"!-1\r\n", Err(Doubt::Number)),
        Case(b"$-2\r\n", Err(Doubt::Number)),
        Case(b"*01\r\n", Err(Doubt::Number)),
        Case(b"*2147483648\r\n", Err(Doubt::Elements)),
        Case(b"$1\r\nabc", Err(Doubt::Terminator)),
        Case(b"+a\nb", Err(Doubt::LineEnd)),
        Case(b"-a\nb", Err(Doubt::LineEnd)),
        Case(b"+a\rb", Err(Doubt::LineEnd)),
        Case(b"HTTP", Err(Doubt::Type)),
    ];
    for Case(bytes, expected) in cases {
        let shown = bytes.escape_ascii();
        let (found, doubt, _) = replies_in(&[bytes]);
        let kinds = found.iter().map(|(_, kind, _)| *kind).collect::<Vec<_>>();
        let got = doubt.map_or(Ok(kinds), Err);
        assert_eq!(got, expected.map(<[Kind]>::to_vec), "{shown}");
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(replies_in(&single), replies_in(&[bytes]), "{shown}");
    }
}

#[test]
fn depth_costs_nothing() {
    let mut deep = b"*1\r\n".repeat(100_000);
    deep.extend_from_slice(b":1\r\n");
    let (found, doubt, at_boundary) = replies_in(&[&deep]);
    assert_eq!((found.len(), doubt, at_boundary), (1, None, true));
    let mut wide = b"*2147483647\r\n".repeat(600);
    assert_eq!(replies_in(&[&wide]).1, Some(Doubt::Elements));
    wide.truncate(b"*2147483647\r\n".len() * 500);
    assert_eq!(replies_in(&[&wide]).1, None);
}

#[test]
fn lines_have_limits_that_no_division_moves() {
    assert_eq!((INLINE_MAX, LINE_MAX), (64 * 1024, 64 * 1024));
    for (extra, doubt) in [(0, None), (1, Some(Doubt::Line))] {
        let mut line = vec![b'a'; 64 * 1024 + extra];
        line.push(b'\n');
        assert_eq!(requests_in(&[&line]).1, doubt);
        assert_eq!(requests_in(&line.chunks(1000).collect::<Vec<_>>()).1, doubt);
        let mut line = vec![b'a'; 64 * 1024 + extra];
        line.insert(0, b'-');
        line.extend_from_slice(b"\r\n");
        assert_eq!(replies_in(&[&line]).1, doubt);
        assert_eq!(replies_in(&line.chunks(1000).collect::<Vec<_>>()).1, doubt);
    }
}

#[test]
fn an_error_is_known_by_its_first_word() {
    let cases: &[(&[u8], &[u8])] = &[
        (b"-READONLY You can't\r\n", b"READONLY"),
        (b"-ERR\r\n", b"ERR"),
        (b"-\r\n", b""),
        (b"-ABCDEFGHIJKLMNOP x\r\n", b"ABCDEFGHIJKL"),
        (b"!8\r\nREADONLY\r\n", b""),
    ];
    for (bytes, code) in cases {
        let (found, ..) = replies_in(&[bytes]);
        assert_eq!(found[0].2, *code);
    }
}

#[test]
fn no_debug_shows_a_password() {
    let arguments: [&[u8]; 2] = [b"somebody", b"s3cret"];
    let meaning = Command::Auth.meaning(&arguments, false);
    assert!(matches!(meaning, Meaning::Auth(_)));
    let shown = format!("{meaning:?}");
    assert!(!shown.contains("s3cret") && !shown.contains("somebody"));
    assert!(!shown.contains("115"), "{shown}: bytes as numbers");
}

/// Pieces that streams are made of, well formed and not.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let whole: Vec<&'static [u8]> = vec![
        b"*1\r\n$4\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n$5\r\nab\r\nc\r\n",
        b"*2\r\n$6\r\nselect\r\n$2\r\n10\r\n",
        b"*3\r\n$12\r\nPUNSUBSCRIBE\r\n$0\r\n\r\n$1\r\na\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"set a 'b c' \"\\x41\\n\"\r\n",
        b"\r\n",
        b"wait 1 2\n",
        b"+OK\r\n",
        b"-ERR no\r\n",
        b"$5\r\nhello\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        b">2\r\n+x\r\n+y\r\n",
        b"|1\r\n+k\r\n+v\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"#t\r\n",
        b",inf\r\n",
    ];
    let torn: Vec<&'static [u8]> = vec![
        b"*", b"$", b"\r\n", b"\n", b"1", b"2\r\n", b"-", b"'", b"\"", b"\\", b"x", b"?", b"\0",
    ];
    prop_oneof![
        8 => select(whole).prop_map(<[u8]>::to_vec),
        2 => select(torn).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..4),
    ]
}

fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<bool>)> {
    vec(fragment(), 0..12).prop_flat_map(|parts| {
        let bytes = parts.concat();
        let cuts = vec(prop::bool::weighted(0.3), bytes.len());
        (Just(bytes), cuts)
    })
}

/// A canonical RESP3 value and whether RESP2 has it, too.
fn value() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let text = vec(any::<u8>(), 0..20);
    let line = "[ -~]{0,20}";
    let leaf = prop_oneof![
        line.prop_map(|s| (format!("+{s}\r\n").into_bytes(), true)),
        line.prop_map(|s| (format!("-{s}\r\n").into_bytes(), true)),
        any::<i64>().prop_map(|n| (format!(":{n}\r\n").into_bytes(), true)),
        Just((b"$-1\r\n".to_vec(), true)),
        Just((b"_\r\n".to_vec(), false)),
        Just((b"#f\r\n".to_vec(), false)),
        any::<i32>().prop_map(|n| (format!(",{n}.25\r\n").into_bytes(), false)),
        any::<u64>().prop_map(|n| (format!("({n}0\r\n").into_bytes(), false)),
        text.clone()
            .prop_map(|t| (encoded("$", t.len(), &t, true), true)),
        "(txt|mkd):[ -~]{0,9}".prop_map(|t| (encoded("=", t.len(), t.as_bytes(), true), false)),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            3 => vec(inner.clone(), 0..5).prop_map(|items| {
                let all_resp2 = items.iter().all(|(_, resp2)| *resp2);
                let body = items.iter().flat_map(|(b, _)| b.clone()).collect::<Vec<_>>();
                (encoded("*", items.len(), &body, false), all_resp2)
            }),
            1 => vec((".{0,5}", inner), 0..4).prop_map(|pairs| {
                // Distinct keys: a library builds a map of them.
                let body = pairs.iter().enumerate().flat_map(|(i, (_, (v, _)))| {
                    let mut pair = format!("+key{i}\r\n").into_bytes();
                    pair.extend_from_slice(v);
                    pair
                }).collect::<Vec<_>>();
                (encoded("%", pairs.len(), &body, false), false)
            }),
        ]
    })
}

fn encoded(kind: &str, count: usize, body: &[u8], payload: bool) -> Vec<u8> {
    let mut out = format!("{kind}{count}\r\n").into_bytes();
    out.extend_from_slice(body);
    if payload {
        out.extend_from_slice(b"\r\n");
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_division_gives_the_same((bytes, cuts) in stream()) {
        let pieces = cut(&bytes, &cuts);
        prop_assert_eq!(requests_in(&pieces), requests_in(&[&bytes]));
        prop_assert_eq!(replies_in(&pieces), replies_in(&[&bytes]));
    }

    #[test]
    fn looking_ahead_sees_what_will_be((bytes, _) in stream(), at in any::<prop::sample::Index>()) {
        let at = at.index(bytes.len() + 1);
        let (found, doubt, _) = requests_in(&[&bytes[..at], &bytes[at..]]);
        let mut scanner = Requests::new();
        let mut rest = &bytes[..at];
        while let Ok(Scan::Ended { used, .. }) = scanner.next(rest, &mut ()) {
            rest = &rest[used..];
        }
        let mut ahead = Vec::new();
        let mut seen_doubt = None;
        for item in scanner.ahead(&bytes[at..]) {
            match item {
                Ok(unsent) => ahead.push((at + unsent.end, unsent.request)),
                Err(doubt) => seen_doubt = Some(doubt),
            }
        }
        let behind = found.into_iter().filter(|(end, _)| *end > at).collect::<Vec<_>>();
        prop_assert_eq!(ahead, behind);
        if at < bytes.len() {
            prop_assert_eq!(seen_doubt, doubt);
        }
    }

    #[test]
    fn a_library_agrees_where_values_end(values in vec(value(), 1..4)) {
        let bytes = values.iter().flat_map(|(b, _)| b.clone()).collect::<Vec<_>>();
        let (found, doubt, at_boundary) = replies_in(&[&bytes]);
        prop_assert_eq!((doubt, at_boundary), (None, true));
        let mut at = 0;
        for ((value, in_resp2), (end, ..)) in values.iter().zip(&found) {
            prop_assert_eq!(at + value.len(), *end);
            // The library's RESP3 does not know RESP2's null, which servers never mix with it.
            if !value.windows(5).any(|part| part == b"$-1\r\n") {
                let (_, used) = resp3::decode::complete::decode(&bytes[at..])
                    .expect("the library reads it")
                    .expect("it is complete");
                prop_assert_eq!(at + used, *end);
            }
            if *in_resp2 {
                let (_, used) = resp2::decode::decode(&bytes[at..])
                    .expect("the library reads it")
                    .expect("it is complete");
                prop_assert_eq!(at + used, *end);
            }
            at = *end;
        }
        prop_assert_eq!(found.len(), values.len());
    }

    #[test]
    fn a_library_agrees_where_requests_end(
        // A NUL in a name is a doubt.
        commands in vec((vec(1..=u8::MAX, 0..20), vec(vec(any::<u8>(), 0..20), 0..5)), 1..4)
    ) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for (name, arguments) in &commands {
            let words: Vec<_> = std::iter::once(name).chain(arguments).collect();
            let items = words.iter().flat_map(|w| encoded("$", w.len(), w, true)).collect::<Vec<_>>();
            bytes.extend(encoded("*", words.len(), &items, false));
            ends.push(bytes.len());
        }
        let (found, doubt, _) = requests_in(&[&bytes]);
        prop_assert_eq!(doubt, None);
        prop_assert_eq!(found.iter().map(|(end, _)| *end).collect::<Vec<_>>(), ends.clone());
        let mut at = 0;
        for end in ends {
            let (_, used) = resp2::decode::decode(&bytes[at..])
                .expect("the library reads it")
                .expect("it is complete");
            at += used;
            prop_assert_eq!(at, end);
        }
    }
}
