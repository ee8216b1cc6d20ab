//! Whole requests and whole replies, read from their first byte into owned values.

/// What was read of a value from its beginning.
pub(crate) enum Parsed<T> {
    Incomplete,
    Doubt,
    Whole(T),
}
pub(crate) use Parsed::{Doubt, Incomplete, Whole};

/// The words of a request.
pub(crate) type Words = Vec<Vec<u8>>;

/// The number up to CR LF and what it takes; strict.
fn number(bytes: &[u8]) -> Parsed<(i64, usize)> {
    for (i, byte) in bytes.iter().enumerate() {
        let digits = bytes[..i].strip_prefix(b"-").unwrap_or(&bytes[..i]);
        match byte {
            b'0'..=b'9' if digits == b"0" || (*byte == b'0' && bytes[..i] == *b"-") => {
                return Doubt;
            }
            b'0'..=b'9' => {
                let text = std::str::from_utf8(&bytes[..=i]).expect("digits");
                if text.trim_start_matches('-').parse::<i64>().is_err() {
                    return Doubt;
                }
            }
            b'-' if i == 0 => {}
            b'\r' if !digits.is_empty() => {
                let text = std::str::from_utf8(&bytes[..i]).expect("digits");
                return match bytes.get(i + 1) {
                    None => Incomplete,
                    Some(b'\n') => Whole((text.parse().expect("checked"), i + 2)),
                    Some(_) => Doubt,
                };
            }
            _ => return Doubt,
        }
    }
    Incomplete
}

/// `len` bytes and CR LF.
fn payload(bytes: &[u8], len: u64) -> Parsed<usize> {
    let Some(len) = usize::try_from(len).ok().filter(|len| *len <= bytes.len()) else {
        return Incomplete;
    };
    match &bytes[len..] {
        [] | [b'\r'] => Incomplete,
        [b'\r', b'\n', ..] => Whole(len + 2),
        _ => Doubt,
    }
}

pub(crate) fn request(bytes: &[u8]) -> Parsed<(Words, usize)> {
    if bytes[0] != b'*' {
        return inline(bytes);
    }
    let (count, used) = match number(&bytes[1..]) {
        Incomplete => return Incomplete,
        Doubt => return Doubt,
        Whole(found) => found,
    };
    if count > i64::from(i32::MAX) {
        return Doubt;
    }
    let mut at = 1 + used;
    let mut words = Vec::new();
    for _ in 0..count {
        match bytes.get(at) {
            None => return Incomplete,
            Some(b'$') => at += 1,
            Some(_) => return Doubt,
        }
        let (len, used) = match number(&bytes[at..]) {
            Incomplete => return Incomplete,
            Whole((len, used)) if len >= 0 => (len, used),
            Doubt | Whole(_) => return Doubt,
        };
        at += used;
        match payload(&bytes[at..], len.unsigned_abs()) {
            Incomplete => return Incomplete,
            Doubt => return Doubt,
            Whole(used) => {
                words.push(bytes[at..at + used - 2].to_vec());
                at += used;
                if is_cut_short(&words) {
                    return Doubt;
                }
            }
        }
    }
    Whole((words, at))
}

/// Redis' way with a line, read from its beginning; quotes are looked at whether or not the line is complete.
fn inline(bytes: &[u8]) -> Parsed<(Words, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    if line.len() > 64 * 1024 || line.contains(&0) {
        return Doubt;
    }
    let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c);
    let mut words = Vec::new();
    let mut p = 0;
    loop {
        while line.get(p).is_some_and(space) {
            p += 1;
        }
        if p == line.len() {
            return end.map_or(Incomplete, |end| Whole((words, end + 1)));
        }
        let mut word = Vec::new();
        let mut quote = None;
        loop {
            let Some(&byte) = line.get(p) else {
                if quote.is_some() {
                    return if end.is_some() { Doubt } else { Incomplete };
                }
                break;
            };
            match (quote, byte, line.get(p + 1)) {
                (Some(b'"'), b'\\', Some(b'x')) if hex(line, p + 2).is_some() => {
                    word.extend(hex(line, p + 2));
                    p += 3;
                }
                (Some(b'"'), b'\\', Some(next)) => {
                    word.push(match next {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => *other,
                    });
                    p += 1;
                }
                (Some(b'\''), b'\\', Some(b'\'')) => {
                    word.push(b'\'');
                    p += 1;
                }
                (Some(open), byte, next) if byte == open => {
                    if next.is_some_and(|next| !space(next)) {
                        return Doubt;
                    }
                    p += 1;
                    break;
                }
                (Some(_), byte, _) => word.push(byte),
                (None, b' ' | b'\t' | b'\r', _) => break,
                (None, b'"' | b'\'', _) => quote = Some(byte),
                (None, byte, _) => word.push(byte),
            }
            p += 1;
        }
        words.push(word);
        // It has ended: a byte of the line, or the line's end, is behind it.
        if (p < line.len() || end.is_some()) && is_cut_short(&words) {
            return Doubt;
        }
    }
}

/// A name with a NUL in it, as far as it may be one of those that count.
fn is_cut_short(words: &Words) -> bool {
    words.len() == 1 && words[0].iter().take(13).any(|byte| *byte == 0)
}

fn hex(line: &[u8], at: usize) -> Option<u8> {
    let digits = std::str::from_utf8(line.get(at..at + 2)?).ok()?;
    let both = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u8::from_str_radix(digits, 16).ok().filter(|_| both)
}

/// The type of the next value, attributes left aside, and how long it is with them.
pub(crate) fn reply(bytes: &[u8]) -> Parsed<(u8, usize)> {
    let mut at = 0;
    loop {
        let Some(&kind) = bytes.get(at) else {
            return Incomplete;
        };
        match value(&bytes[at..], true) {
            Incomplete => return Incomplete,
            Doubt => return Doubt,
            Whole(used) if kind == b'|' => at += used,
            Whole(used) => return Whole((kind, at + used)),
        }
    }
}

/// How long the value is; of an attribute: without what it decorates.
fn value(bytes: &[u8], outermost: bool) -> Parsed<usize> {
    let Some(&kind) = bytes.first() else {
        return Incomplete;
    };
    if b"+-:,_#(".contains(&kind) {
        let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let len = end.unwrap_or(bytes.len()) - 1;
        return match end {
            _ if len > 64 * 1024 => Doubt,
            None => Incomplete,
            Some(end) if bytes[end] == b'\n' => Doubt,
            Some(end) => match bytes.get(end + 1) {
                None => Incomplete,
                Some(b'\n') => Whole(end + 2),
                Some(_) => Doubt,
            },
        };
    }
    if !b"$!=*%~|>".contains(&kind) || (kind == b'>' && !outermost) {
        return Doubt;
    }
    let (n, used) = match number(&bytes[1..]) {
        Incomplete => return Incomplete,
        Doubt => return Doubt,
        Whole(found) => found,
    };
    let mut at = 1 + used;
    if n < 0 {
        let null = n == -1 && matches!(kind, b'$' | b'*');
        return if null { Whole(at) } else { Doubt };
    }
    if b"$!=".contains(&kind) {
        return match payload(&bytes[at..], n.unsigned_abs()) {
            Incomplete => Incomplete,
            Doubt => Doubt,
            Whole(used) => Whole(at + used),
        };
    }
    if n > i64::from(i32::MAX) {
        return Doubt;
    }
    let mut left = if matches!(kind, b'%' | b'|') {
        2 * n
    } else {
        n
    };
    while left > 0 {
        let is_attribute = bytes.get(at) == Some(&b'|');
        match value(&bytes[at..], false) {
            Incomplete => return Incomplete,
            Doubt => return Doubt,
            Whole(used) => at += used,
        }
        left -= i64::from(!is_attribute);
    }
    Whole(at)
}
