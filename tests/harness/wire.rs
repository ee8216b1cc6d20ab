//! The little RESP a scripted server needs: reading commands, writing replies in either protocol.
//!
//! Never used against a real server; for that there is the blocking client of the demo.

use std::io::{self, BufRead, ErrorKind};

/// Longest command a scripted server reads; longer ones are a fault of the test.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT: usize = 64 * 1024;

/// Reads one command in its array form; `None` at the end of the stream.
pub(crate) fn read_command(from: &mut impl BufRead) -> io::Result<Option<Vec<String>>> {
    let Some(head) = read_line(from)? else {
        return Ok(None);
    };
    let count = number(&head, '*')?;
    if count > MAX_ARGUMENTS {
        return Err(bad("too many arguments"));
    }
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let head = read_line(from)?.ok_or_else(|| bad("the stream ends inside a command"))?;
        let len = number(&head, '$')?;
        if len > MAX_ARGUMENT {
            return Err(bad("an argument is too long"));
        }
        let mut payload = vec![0; len + 2];
        from.read_exact(&mut payload)?;
        payload.truncate(len);
        words.push(String::from_utf8_lossy(&payload).into_owned());
    }
    Ok(Some(words))
}

/// A reply, written as RESP2 or RESP3 as the connection asked.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// `+text`
    Simple(&'static str),
    /// `-text`
    Error(String),
    /// `:n`
    Integer(i64),
    /// `$n text`
    Bulk(String),
    /// No value.
    Nil,
    /// `*n`
    Array(Vec<Self>),
    /// `%n`; a flat array in RESP2.
    Map(Vec<(String, Self)>),
    /// `>n`; an array in RESP2.
    Push(Vec<Self>),
}

impl Reply {
    /// Text as a bulk string.
    pub(crate) fn bulk(text: impl ToString) -> Self {
        Self::Bulk(text.to_string())
    }

    /// The bytes on the wire.
    pub(crate) fn encode(&self, resp3: bool) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(resp3, &mut out);
        out
    }

    fn encode_to(&self, resp3: bool, out: &mut Vec<u8>) {
        let head = |out: &mut Vec<u8>, kind: char, n: usize| {
            out.extend_from_slice(format!("{kind}{n}\r\n").as_bytes());
        };
        match self {
            Self::Simple(text) => out.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Self::Error(text) => out.extend_from_slice(format!("-{text}\r\n").as_bytes()),
            Self::Integer(n) => out.extend_from_slice(format!(":{n}\r\n").as_bytes()),
            Self::Bulk(text) => {
                head(out, '$', text.len());
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil if resp3 => out.extend_from_slice(b"_\r\n"),
            Self::Nil => out.extend_from_slice(b"*-1\r\n"),
            Self::Array(items) | Self::Push(items) => {
                let push = resp3 && matches!(self, Self::Push(_));
                head(out, if push { '>' } else { '*' }, items.len());
                for item in items {
                    item.encode_to(resp3, out);
                }
            }
            Self::Map(pairs) => {
                let (kind, n) = if resp3 {
                    ('%', pairs.len())
                } else {
                    ('*', 2 * pairs.len())
                };
                head(out, kind, n);
                for (key, value) in pairs {
                    Self::bulk(key).encode_to(resp3, out);
                    value.encode_to(resp3, out);
                }
            }
        }
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

fn number(head: &str, kind: char) -> io::Result<usize> {
    head.strip_prefix(kind)
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| bad(head))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not a command: {what:?}"))
}
