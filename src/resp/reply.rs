//! Where replies end: RESP2 and RESP3, whichever is spoken.

use super::number::{Number, quick};
use super::{Doubt, ELEMENTS_MAX, LINE_MAX, OUTSTANDING_MAX, PAYLOAD_MAX};

/// As much of an error's first word as is kept; the longest that means something to us is EXECABORT.
const CODE_MAX: usize = 12;

/// What was found in a piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// All of it belongs to a value that is not complete; or it was empty.
    More,
    /// A value ended with byte `used` of this piece; the rest has not been looked at.
    Ended {
        /// Bytes up to the value's end.
        used: usize,
        /// What it was.
        kind: Kind,
    },
}

/// What a complete value is to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its reply.
    Value,
    /// Its reply: an error, whose first word is [`Replies::error_code`].
    Error,
    /// Nothing: out-of-band data.
    Push,
}

/// The scanner of what a server sends.
#[derive(Clone, Copy, Debug)]
pub struct Replies {
    phase: Phase,
    /// The type of the current element.
    element: u8,
    /// The type of the whole value was read; before that there were at most attributes of it.
    begun: bool,
    kind: Kind,
    /// Elements to come, the current one included; none between two values.
    open: u64,
    /// Bytes of the payload to come; of a line: bytes so far.
    left: u64,
    number: Number,
    code: [u8; CODE_MAX],
    code_len: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before an element.
    Element,
    /// In a line.
    Line,
    /// In the first word of the line of an error that is the whole value.
    Code,
    LineLf,
    /// In a length or count.
    Length,
    Payload,
    PayloadCr,
    PayloadLf,
    Doubtful(Doubt),
}

impl Default for Replies {
    fn default() -> Self {
        Self::new()
    }
}

impl Replies {
    /// At the beginning of a stream.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Element,
            element: 0,
            begun: false,
            kind: Kind::Value,
            open: 0,
            left: 0,
            number: Number::NEW,
            code: [0; CODE_MAX],
            code_len: 0,
        }
    }

    /// Goes on to the end of the current value, or of these bytes.
    ///
    /// # Errors
    /// The stream is not understood, now and from now on. No byte behind the last value that was complete counts.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Heard, Doubt> {
        let mut at = 0;
        // `at` is below the length wherever it indexes: the loop's condition.
        while at < bytes.len() {
            let mut ended = false;
            match self.phase {
                Phase::Element => {
                    let element = bytes[at];
                    at += 1;
                    self.begin_element(element)?;
                    if self.phase == Phase::Length
                        && let Some((number, used)) = quick(&bytes[at..])
                    {
                        at += used;
                        let whole = bytes[at..].split_at_checked(number as usize);
                        if element == b'$'
                            && let Some((payload, [b'\r', b'\n', ..])) = whole
                        {
                            // The common case: all of it is here.
                            at += payload.len() + 2;
                            ended = true;
                        } else {
                            ended = self.measured(i64::from(number))?;
                        }
                    }
                }
                Phase::Payload => {
                    let here = usize::try_from(self.left)
                        .unwrap_or(usize::MAX)
                        .min(bytes.len() - at);
                    self.left -= here as u64;
                    at += here;
                    if self.left == 0 {
                        self.phase = Phase::PayloadCr;
                    }
                }
                Phase::Line => {
                    let rest = &bytes[at..];
                    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
                    let here = end.unwrap_or(rest.len());
                    self.left += here as u64;
                    if self.left > LINE_MAX {
                        return self.doubt(Doubt::Line);
                    }
                    at += here;
                    if end.is_some() {
                        if bytes[at] == b'\n' {
                            return self.doubt(Doubt::LineEnd);
                        }
                        at += 1;
                        self.phase = Phase::LineLf;
                    }
                }
                Phase::Code => {
                    let byte = bytes[at];
                    let room = self.code.get_mut(usize::from(self.code_len));
                    match (byte, room) {
                        (b' ' | b'\r' | b'\n', _) | (_, None) => self.phase = Phase::Line,
                        (_, Some(to)) => {
                            *to = byte;
                            self.code_len += 1;
                            self.left += 1;
                            at += 1;
                        }
                    }
                }
                Phase::LineLf => {
                    if bytes[at] != b'\n' {
                        return self.doubt(Doubt::LineEnd);
                    }
                    at += 1;
                    ended = true;
                }
                Phase::Length => {
                    let taken = self.number.take(bytes[at]);
                    at += 1;
                    match taken {
                        Ok(None) => {}
                        Ok(Some(number)) => ended = self.measured(number)?,
                        Err(doubt) => return self.doubt(doubt),
                    }
                }
                Phase::PayloadCr => {
                    if bytes[at] != b'\r' {
                        return self.doubt(Doubt::Terminator);
                    }
                    at += 1;
                    self.phase = Phase::PayloadLf;
                }
                Phase::PayloadLf => {
                    if bytes[at] != b'\n' {
                        return self.doubt(Doubt::Terminator);
                    }
                    at += 1;
                    ended = true;
                }
                Phase::Doubtful(doubt) => return Err(doubt),
            }
            if ended {
                self.open -= 1;
                self.phase = Phase::Element;
                if self.open == 0 {
                    let kind = self.kind;
                    return Ok(Heard::Ended { used: at, kind });
                }
            }
        }
        Ok(Heard::More)
    }

    /// True when the last byte ended a value, or nothing was read yet.
    pub fn at_boundary(&self) -> bool {
        self.phase == Phase::Element && self.open == 0
    }

    /// The first word of the error that was the last value; empty for an error of the length-prefixed kind.
    pub fn error_code(&self) -> &[u8] {
        self.code
            .get(..usize::from(self.code_len))
            .unwrap_or_default()
    }

    #[inline]
    fn begin_element(&mut self, element: u8) -> Result<(), Doubt> {
        if self.open == 0 {
            self.open = 1;
            self.begun = false;
        }
        self.element = element;
        // The last open element, with no type seen: every element of an attribute comes on top of it.
        let whole = self.open == 1 && !self.begun;
        self.phase = match element {
            b'+' | b':' | b',' | b'_' | b'#' | b'(' => Phase::Line,
            b'-' if whole => Phase::Code,
            b'-' => Phase::Line,
            b'$' | b'*' | b'%' | b'~' | b'!' | b'=' | b'|' => Phase::Length,
            b'>' if whole => Phase::Length,
            b'>' => return self.doubt(Doubt::NestedPush),
            // A chunk and the end of a streamed value, which could have begun before we looked.
            b';' | b'.' => return self.doubt(Doubt::Streamed),
            _ => return self.doubt(Doubt::Type),
        };
        self.left = 0;
        self.number = Number::NEW;
        if whole && element != b'|' {
            self.begun = true;
            self.code_len = 0;
            self.kind = match element {
                b'-' | b'!' => Kind::Error,
                b'>' => Kind::Push,
                _ => Kind::Value,
            };
        }
        Ok(())
    }

    /// The length or count of the current element is known; true when that is its end.
    #[inline]
    fn measured(&mut self, number: i64) -> Result<bool, Doubt> {
        let Ok(number) = u64::try_from(number) else {
            // RESP2's two nulls.
            return if number == -1 && matches!(self.element, b'$' | b'*') {
                Ok(true)
            } else {
                self.doubt(Doubt::Number)
            };
        };
        if matches!(self.element, b'$' | b'!' | b'=') {
            if number > PAYLOAD_MAX {
                return self.doubt(Doubt::Number);
            }
            self.left = number;
            self.phase = Phase::Payload;
            if number == 0 {
                self.phase = Phase::PayloadCr;
            }
            return Ok(false);
        }
        if number > ELEMENTS_MAX {
            return self.doubt(Doubt::Elements);
        }
        let pairs = matches!(self.element, b'%' | b'|');
        self.open += if pairs { 2 * number } else { number };
        if self.open > OUTSTANDING_MAX {
            return self.doubt(Doubt::Elements);
        }
        self.phase = Phase::Element;
        // An attribute takes no place: what it decorates follows. The place of an aggregate is taken by its elements.
        Ok(self.element != b'|')
    }

    fn doubt<T>(&mut self, doubt: Doubt) -> Result<T, Doubt> {
        self.phase = Phase::Doubtful(doubt);
        Err(doubt)
    }
}
