//! What a server says of subscriptions: confirmations and messages, as RESP2 arrays or RESP3 pushes. Pure text, no state.

use super::number::quick;

/// The three kinds of names that can be subscribed to. Each has a space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feed {
    /// SUBSCRIBE
    Channel,
    /// PSUBSCRIBE
    Pattern,
    /// SSUBSCRIBE
    Shard,
}

impl Feed {
    /// Every kind once, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    /// Its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The command that subscribes.
    pub const fn command(self) -> &'static [u8] {
        match self {
            Self::Channel => b"SUBSCRIBE",
            Self::Pattern => b"PSUBSCRIBE",
            Self::Shard => b"SSUBSCRIBE",
        }
    }
}

/// What an announcement is, by its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Somebody published something.
    Message,
    /// A subscription was made, or was there already.
    Subscribed(Feed),
    /// A subscription was ended, or was not there.
    Unsubscribed(Feed),
}

/// The first word of a value, if it is an announcement's, and what follows it. The value may be cut off behind the word.
pub fn announcement(value: &[u8]) -> Option<(Word, &[u8])> {
    let (elements, value) = match value {
        [
            b'*' | b'>',
            elements @ b'3'..=b'4',
            b'\r',
            b'\n',
            value @ ..,
        ] => (*elements, value),
        _ => return None,
    };
    let (word, rest) = bulk(value)?;
    let word = match word? {
        b"message" | b"smessage" => Word::Message,
        b"pmessage" => return (elements == b'4').then_some((Word::Message, rest)),
        b"subscribe" => Word::Subscribed(Feed::Channel),
        b"psubscribe" => Word::Subscribed(Feed::Pattern),
        b"ssubscribe" => Word::Subscribed(Feed::Shard),
        b"unsubscribe" => Word::Unsubscribed(Feed::Channel),
        b"punsubscribe" => Word::Unsubscribed(Feed::Pattern),
        b"sunsubscribe" => Word::Unsubscribed(Feed::Shard),
        _ => return None,
    };
    (elements == b'3').then_some((word, rest))
}

/// What a confirmation says behind its word: the name, and how many subscriptions there are now. There is no name where all
/// were to be ended and there was none. `None` if it is cut off, or no confirmation.
pub fn confirmation(rest: &[u8]) -> Option<(Option<&[u8]>, u32)> {
    let (name, rest) = bulk(rest)?;
    let (count, used) = quick(rest.strip_prefix(b":")?)?;
    (1 + used == rest.len()).then_some((name, count))
}

/// The bulk string, or null, that comes next, and what follows it.
fn bulk(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    for null in [&b"$-1\r\n"[..], b"_\r\n"] {
        if let Some(rest) = bytes.strip_prefix(null) {
            return Some((None, rest));
        }
    }
    let bytes = bytes.strip_prefix(b"$")?;
    let (length, used) = quick(bytes)?;
    let (text, rest) = bytes.get(used..)?.split_at_checked(length as usize)?;
    Some((Some(text), rest.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_are_known_by_their_first_word_and_their_length() {
        let cases: [(&[u8], Option<Word>); 10] = [
            (
                b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n",
                Some(Word::Message),
            ),
            (b">3\r\n$8\r\nsmessage\r\n$1\r\na\r\n", Some(Word::Message)),
            (b">4\r\n$8\r\npmessage\r\n$1", Some(Word::Message)),
            (b">3\r\n$8\r\npmessage\r\n", None),
            (b"*4\r\n$7\r\nmessage\r\n", None),
            (
                b">3\r\n$10\r\npsubscribe\r\n$1\r\na\r\n:1\r\n",
                Some(Word::Subscribed(Feed::Pattern)),
            ),
            (
                b"*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n",
                Some(Word::Unsubscribed(Feed::Shard)),
            ),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", None),
            (b"*3\r\n+message\r\n", None),
            (b"+message\r\n", None),
        ];
        for (value, expected) in cases {
            let found = announcement(value).map(|(word, _)| word);
            assert_eq!(found, expected, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn a_confirmation_has_a_name_or_none_and_a_count() {
        type Found<'a> = Option<(Option<&'a [u8]>, u32)>;
        let cases: [(&[u8], Found<'_>); 7] = [
            (b"$2\r\n\r\n\r\n:12\r\n", Some((Some(b"\r\n"), 12))),
            (b"$-1\r\n:0\r\n", Some((None, 0))),
            (b"_\r\n:0\r\n", Some((None, 0))),
            (b"$1\r\na\r\n:1\r\n+", None),
            (b"$1\r\na\r\n:1\r", None),
            (b"$1\r\na\r\n$1\r\n1\r\n", None),
            (b"$5\r\na", None),
        ];
        for (rest, expected) in cases {
            assert_eq!(confirmation(rest), expected, "{}", rest.escape_ascii());
        }
    }
}
