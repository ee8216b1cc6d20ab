//! Keys out of the bytes a terminal sends. Pure; the part that reads them is in `terminal`.
//!
//! Not crossterm's: its reader spins for ever on a terminal that has hung up, where reading gives nothing or an error.

/// Longest escape sequence that is followed to its end, in bytes.
const LONGEST: usize = 32;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    /// With Ctrl, as the letter.
    Ctrl(char),
    Esc,
    Enter,
    Tab,
    BackTab,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// Takes bytes, gives keys. What is no key here is swallowed, sequences as a whole.
#[derive(Debug, Default)]
pub(super) struct Parser {
    sequence: Vec<u8>,
}

impl Parser {
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<Key> {
        bytes.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    /// An escape has begun, which is a key of its own when nothing follows.
    pub(super) fn is_open(&self) -> bool {
        !self.sequence.is_empty()
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) -> Option<Key> {
        let alone = self.sequence == [0x1b];
        self.sequence.clear();
        alone.then_some(Key::Esc)
    }

    fn byte(&mut self, byte: u8) -> Option<Key> {
        if self.sequence.is_empty() {
            return self.first(byte);
        }
        if byte == 0x1b {
            let before = self.end();
            self.sequence.push(byte);
            return before;
        }
        self.sequence.push(byte);
        let is_whole = match self.sequence.as_slice() {
            [_, b'[' | b'O'] => false,
            [_, b'[', ..] => (0x40..=0x7e).contains(&byte),
            _ => true,
        };
        if is_whole || self.sequence.len() == LONGEST {
            let key = named(&self.sequence);
            self.sequence.clear();
            return key;
        }
        None
    }

    fn first(&mut self, byte: u8) -> Option<Key> {
        match byte {
            0x1b => {
                self.sequence.push(byte);
                None
            }
            b'\t' => Some(Key::Tab),
            b'\r' | b'\n' => Some(Key::Enter),
            0x01..=0x1a => Some(Key::Ctrl(char::from(byte - 1 + b'a'))),
            b' '..=b'~' => Some(Key::Char(char::from(byte))),
            _ => None,
        }
    }
}

fn named(sequence: &[u8]) -> Option<Key> {
    let (_, rest) = sequence.split_first()?;
    Some(match rest {
        b"[A" | b"OA" => Key::Up,
        b"[B" | b"OB" => Key::Down,
        b"[C" | b"OC" => Key::Right,
        b"[D" | b"OD" => Key::Left,
        b"[H" | b"OH" | b"[1~" | b"[7~" => Key::Home,
        b"[F" | b"OF" | b"[4~" | b"[8~" => Key::End,
        b"[5~" => Key::PageUp,
        b"[6~" => Key::PageDown,
        b"[Z" => Key::BackTab,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_terminals_send_them() {
        for (bytes, keys) in [
            (
                &b"qj "[..],
                &[Key::Char('q'), Key::Char('j'), Key::Char(' ')][..],
            ),
            (
                b"\x03\x1a\x0c",
                &[Key::Ctrl('c'), Key::Ctrl('z'), Key::Ctrl('l')],
            ),
            (
                b"\x1b[A\x1bOB\x1b[5~\x1b[6~",
                &[Key::Up, Key::Down, Key::PageUp, Key::PageDown],
            ),
            (
                b"\x1b[H\x1b[4~\t\x1b[Z\r",
                &[Key::Home, Key::End, Key::Tab, Key::BackTab, Key::Enter],
            ),
            // With modifiers, functions, a mouse, another alphabet: nothing, and what follows is read.
            (b"\x1b[1;5A\x1b[15~\x1b[<0;1;1Mq", &[Key::Char('q')]),
            (b"\x1bx\xc3\xa4\x7fq", &[Key::Char('q')]),
            (b"\x1b\x1b[A", &[Key::Esc, Key::Up]),
        ] {
            let mut parser = Parser::default();
            assert_eq!(parser.feed(bytes), keys, "{bytes:?}");
            assert!(!parser.is_open(), "{bytes:?}");
        }
    }

    #[test]
    fn an_escape_is_a_key_when_nothing_follows() {
        let mut parser = Parser::default();
        assert!(parser.feed(b"\x1b").is_empty());
        assert!(parser.is_open());
        assert_eq!(parser.end(), Some(Key::Esc));
        // A sequence that came in pieces, and one that was cut off.
        assert!(parser.feed(b"\x1b[").is_empty());
        assert_eq!(parser.feed(b"5~"), [Key::PageUp]);
        assert!(parser.feed(b"\x1b[1;").is_empty());
        assert_eq!((parser.end(), parser.is_open()), (None, false));
    }

    #[test]
    fn an_endless_sequence_ends() {
        let mut parser = Parser::default();
        parser.feed(b"\x1b[");
        parser.feed(&[b'1'; LONGEST]);
        assert!(!parser.is_open());
    }
}
