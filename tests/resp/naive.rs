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

/// The name, if there is one, and the count.
pub(crate) type Confirmed = (Option<Vec<u8>>, usize);

/// The first word, in capitals, of what a server announces; and, of a confirmation, the name and the count.
pub(crate) fn announced(value: &[u8]) -> Option<(String, Option<Confirmed>)> {
    let size = value
        .strip_prefix(b"*")
        .or_else(|| value.strip_prefix(b">"))?;
    let (size, rest) = if let Some(rest) = size.strip_prefix(b"3\r\n") {
        (3, rest)
    } else {
        (4, size.strip_prefix(b"4\r\n")?)
    };
    let (word, rest) = text(rest)?;
    let word = String::from_utf8(word?).ok()?;
    let known = match word.as_str() {
        "message" | "smessage" => size == 3,
        "pmessage" => size == 4,
        "subscribe" | "psubscribe" | "ssubscribe" | "unsubscribe" | "punsubscribe"
        | "sunsubscribe" => size == 3,
        _ => false,
    };
    let confirmed = || {
        let (name, rest) = text(rest)?;
        let count = rest.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        let count = std::str::from_utf8(count).ok()?;
        let number: usize = count.parse().ok()?;
        (number.to_string() == count).then_some((name, number))
    };
    known.then(|| (word.to_uppercase(), confirmed()))
}

/// A bulk string or a null, and the rest.
fn text(bytes: &[u8]) -> Option<(Option<Vec<u8>>, &[u8])> {
    if let Some(rest) = bytes
        .strip_prefix(b"$-1\r\n")
        .or_else(|| bytes.strip_prefix(b"_\r\n"))
    {
        return Some((None, rest));
    }
    let bytes = bytes.strip_prefix(b"$")?;
    let Whole((length, used)) = number(bytes) else {
        return None;
    };
    let Whole(size) = payload(&bytes[used..], length.try_into().ok()?) else {
        return None;
    };
    let all = &bytes[used..];
    Some((Some(all[..size - 2].to_vec()), &all[size..]))
}

/// The command in capitals, and which of the three kinds of names it is about.
pub(crate) fn feed(words: &Words) -> Option<(String, u8)> {
    let word = String::from_utf8_lossy(&words[0]).to_uppercase();
    let of = match word.as_str() {
        "SUBSCRIBE" | "UNSUBSCRIBE" => b'U',
        "PSUBSCRIBE" | "PUNSUBSCRIBE" => b'P',
        "SSUBSCRIBE" | "SUNSUBSCRIBE" => b'S',
        _ => return None,
    };
    Some((word, of))
}

pub(crate) fn is_one_of_the_few(words: &Words) -> bool {
    if feed(words).is_some() {
        return true;
    }
    let upper: Vec<String> = words
        .iter()
        .map(|word| String::from_utf8_lossy(word).to_uppercase())
        .collect();
    let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
    !matches!(
        upper[..],
        ["HELLO"] | ["CLIENT"] | ["CLIENT", "GETNAME", ..] | ["CLIENT", "REPLY", "ON"]
    ) && matches!(
        upper[0],
        "MULTI"
            | "EXEC"
            | "DISCARD"
            | "WATCH"
            | "UNWATCH"
            | "SELECT"
            | "AUTH"
            | "HELLO"
            | "CLIENT"
            | "RESET"
            | "QUIT"
            | "READONLY"
            | "READWRITE"
            | "SHUTDOWN"
    )
}

pub(crate) fn reply_code(reply: &[u8]) -> &[u8] {
    // Attributes come before it.
    let start = reply.iter().rposition(|byte| *byte == b'-').unwrap_or(0);
    reply[start + 1..]
        .split(|byte| matches!(byte, b' ' | b'\r'))
        .next()
        .unwrap_or_default()
}

/// The whole of it is one of the reads that are played with, in its array form.
pub(crate) fn is_one_read(bytes: &[u8]) -> bool {
    let Some(b'*') = bytes.first() else {
        return false;
    };
    match request(bytes) {
        Whole((words, used)) => {
            let is_get = words
                .first()
                .is_some_and(|w| w.eq_ignore_ascii_case(b"GET"));
            used == bytes.len() && is_get
        }
        Incomplete | Doubt => false,
    }
}
