//! Inline commands: a line split into words and quotes as Redis' `sdssplitargs` does it, resumable at any byte.

use super::Doubt;

/// Where in a line the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Between words.
    Blank,
    /// In a word, outside of quotes.
    Word,
    /// In double quotes.
    Double,
    /// Behind a backslash in double quotes.
    Escape,
    /// Behind `\x`.
    Hex,
    /// Behind `\x` and this digit.
    HexDigit(u8),
    /// In single quotes.
    Single,
    /// Behind a backslash in single quotes.
    SingleEscape,
    /// Behind a closing quote, which must end the word.
    Closed,
}

/// What a byte means to the words of the line; at most three bytes of text come out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Text of the current word, `len` bytes of it.
    text: [u8; 3],
    len: u8,
    /// The word ended.
    pub(super) ended: bool,
}

impl Step {
    const NONE: Self = Self {
        text: [0; 3],
        len: 0,
        ended: false,
    };

    fn push(&mut self, byte: u8) {
        // Three at most: `x`, a digit, and the byte that is no digit.
        if let Some(to) = self.text.get_mut(usize::from(self.len)) {
            *to = byte;
            self.len += 1;
        }
    }

    pub(super) fn text(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl Place {
    /// Takes a byte of the line, the line feed included, which ends a word as it ends the line.
    pub(super) fn take(&mut self, byte: u8) -> Result<Step, Doubt> {
        let mut step = Step::NONE;
        if byte == 0 {
            return Err(Doubt::Nul);
        }
        if byte == b'\n' {
            // No quote reaches over it.
            step.ended = match self {
                Self::Blank => false,
                Self::Word | Self::Closed => true,
                _ => return Err(Doubt::Quotes),
            };
            *self = Self::Blank;
            return Ok(step);
        }
        *self = match *self {
            Self::Blank if is_space(byte) => Self::Blank,
            Self::Blank => outside(byte, &mut step),
            // Unlike between words, a vertical tab or form feed is part of one.
            Self::Word if matches!(byte, b' ' | b'\r' | b'\t') => {
                step.ended = true;
                Self::Blank
            }
            Self::Word => outside(byte, &mut step),
            Self::Double => double(byte, &mut step),
            Self::Escape => match byte {
                b'x' => Self::Hex,
                _ => {
                    step.push(unescaped(byte));
                    Self::Double
                }
            },
            // `\x` without two digits is an escaped x.
            Self::Hex if byte.is_ascii_hexdigit() => Self::HexDigit(byte),
            Self::Hex => {
                step.push(b'x');
                double(byte, &mut step)
            }
            Self::HexDigit(first) if byte.is_ascii_hexdigit() => {
                step.push(hex(first) * 16 + hex(byte));
                Self::Double
            }
            Self::HexDigit(first) => {
                step.push(b'x');
                step.push(first);
                double(byte, &mut step)
            }
            Self::Single => single(byte, &mut step),
            Self::SingleEscape if byte == b'\'' => {
                step.push(byte);
                Self::Single
            }
            Self::SingleEscape => {
                step.push(b'\\');
                single(byte, &mut step)
            }
            Self::Closed if is_space(byte) => {
                step.ended = true;
                Self::Blank
            }
            Self::Closed => return Err(Doubt::Quotes),
        };
        Ok(step)
    }
}

fn outside(byte: u8, step: &mut Step) -> Place {
    match byte {
        b'"' => Place::Double,
        b'\'' => Place::Single,
        _ => {
            step.push(byte);
            Place::Word
        }
    }
}

fn double(byte: u8, step: &mut Step) -> Place {
    match byte {
        b'\\' => Place::Escape,
        b'"' => Place::Closed,
        _ => {
            step.push(byte);
            Place::Double
        }
    }
}

fn single(byte: u8, step: &mut Step) -> Place {
    match byte {
        b'\\' => Place::SingleEscape,
        b'\'' => Place::Closed,
        _ => {
            step.push(byte);
            Place::Single
        }
    }
}

const fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        _ => byte,
    }
}

/// C's `isspace`.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        // A hexadecimal digit, as the caller has checked.
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}
