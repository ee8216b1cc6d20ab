//! Where requests end: arrays of bulk strings and inline commands.

use super::command::{Command, NAME_MAX};
use super::inline::Place;
use super::number::{Number, quick};
use super::{Doubt, ELEMENTS_MAX, INLINE_MAX, PAYLOAD_MAX};

/// Takes the arguments of the commands that change a session; `()` looks at names alone.
pub trait Arguments {
    /// The name of such a command was read; its arguments follow.
    fn begin(&mut self, _command: Command) {}
    /// The next bytes of the current argument.
    fn bytes(&mut self, _part: &[u8]) {}
    /// The current argument is complete.
    fn end(&mut self) {}
}

impl Arguments for () {}

/// A complete request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A blank line, `*0`, `*-1`: never answered.
    Silent,
    /// One request, one reply.
    Ordinary,
    /// One of the few.
    Command(Command),
}

/// What was found in a piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// All of it belongs to a request that is not complete; or it was empty.
    More,
    /// A request ended with byte `used` of this piece; the rest has not been looked at.
    Ended {
        /// Bytes up to the request's end.
        used: usize,
        /// The request.
        request: Request,
    },
}

/// The scanner of what a client sends. Plain data: a copy of it looks ahead.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    phase: Phase,
    role: Role,
    /// The request is one of the few.
    command: Option<Command>,
    /// Elements to come, the current one included; of an inline command: words so far.
    elements: u32,
    /// Bytes of the payload to come; of an inline command: bytes so far.
    left: u64,
    number: Number,
    word: Word,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Between two requests.
    Start,
    /// In the number of elements.
    Count,
    /// Before an element.
    Element,
    /// In the length of an element.
    Length,
    /// In its payload.
    Payload,
    PayloadCr,
    PayloadLf,
    Inline(Place),
    Doubtful(Doubt),
}

/// What is done with the bytes of the current element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It is the first word.
    Word,
    /// It is handed on.
    Argument,
    /// It is skipped.
    Skipped,
}

/// The first word as far as it was read, when it comes in pieces.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// One more than the longest name, which a NUL may follow.
    bytes: [u8; NAME_MAX + 1],
    /// [`TOO_LONG`](Self::TOO_LONG) if it did not fit: it is none of the few.
    len: u8,
}

impl Word {
    const TOO_LONG: u8 = u8::MAX;
    const EMPTY: Self = Self {
        bytes: [0; NAME_MAX + 1],
        len: 0,
    };

    fn push(&mut self, part: &[u8]) {
        for &byte in part {
            match self.bytes.get_mut(usize::from(self.len)) {
                Some(to) => {
                    *to = byte;
                    self.len += 1;
                }
                None => {
                    self.len = Self::TOO_LONG;
                    return;
                }
            }
        }
    }

    fn command(&self) -> Result<Option<Command>, Doubt> {
        let read = self.bytes.get(..usize::from(self.len));
        command(read.unwrap_or(&self.bytes))
    }
}

/// Servers compare names up to a NUL: where the hash of the rest happens to lead to it, `MULTI\0x` is MULTI.
fn command(word: &[u8]) -> Result<Option<Command>, Doubt> {
    if word.iter().take(NAME_MAX + 1).any(|byte| *byte == 0) {
        return Err(Doubt::Nul);
    }
    Ok(Command::named(word))
}

impl Default for Requests {
    fn default() -> Self {
        Self::new()
    }
}

impl Requests {
    /// At the beginning of a stream.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Start,
            role: Role::Word,
            command: None,
            elements: 0,
            left: 0,
            number: Number::NEW,
            word: Word::EMPTY,
        }
    }

    /// Goes on to the end of the current request, or of these bytes.
    ///
    /// # Errors
    /// The stream is not understood, now and from now on. No byte behind the last request that was complete counts.
    #[inline]
    pub fn next(&mut self, bytes: &[u8], arguments: &mut impl Arguments) -> Result<Scan, Doubt> {
        let mut at = 0;
        // `at` is below the length wherever it indexes: the loop's condition.
        while at < bytes.len() {
            match self.phase {
                Phase::Start => {
                    self.command = None;
                    self.role = Role::Word;
                    self.word.len = 0;
                    self.elements = 0;
                    if bytes[at] != b'*' {
                        self.left = 0;
                        self.phase = Phase::Inline(Place::Blank);
                        continue;
                    }
                    at += 1;
                    match quick(&bytes[at..]) {
                        Some((count @ 1.., used)) => {
                            at += used;
                            self.elements = count;
                            self.phase = Phase::Element;
                        }
                        _ => {
                            self.number = Number::NEW;
                            self.phase = Phase::Count;
                        }
                    }
                }
                Phase::Element => {
                    if bytes[at] != b'$' {
                        return self.doubt(Doubt::NotBulk);
                    }
                    at += 1;
                    let Some((length, used)) = quick(&bytes[at..]) else {
                        self.number = Number::NEW;
                        self.phase = Phase::Length;
                        continue;
                    };
                    at += used;
                    let whole = bytes[at..].split_at_checked(length as usize);
                    let Some((payload, [b'\r', b'\n', ..])) = whole else {
                        self.begin_payload(u64::from(length));
                        continue;
                    };
                    // The common case: all of it is here.
                    at += payload.len() + 2;
                    match self.role {
                        Role::Skipped => {}
                        Role::Argument => {
                            arguments.bytes(payload);
                            arguments.end();
                        }
                        Role::Word => self.name(command(payload), arguments)?,
                    }
                    if let Some(request) = self.element_ended() {
                        return Ok(Scan::Ended { used: at, request });
                    }
                }
                Phase::Payload => {
                    let rest = &bytes[at..];
                    let here = usize::try_from(self.left)
                        .unwrap_or(usize::MAX)
                        .min(rest.len());
                    let part = &rest[..here];
                    at += here;
                    self.left -= here as u64;
                    match self.role {
                        Role::Skipped => {}
                        Role::Argument => arguments.bytes(part),
                        Role::Word => self.word.push(part),
                    }
                    if self.left == 0 {
                        self.phase = Phase::PayloadCr;
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
                    match self.role {
                        Role::Skipped => {}
                        Role::Argument => arguments.end(),
                        Role::Word => self.name(self.word.command(), arguments)?,
                    }
                    if let Some(request) = self.element_ended() {
                        return Ok(Scan::Ended { used: at, request });
                    }
                }
                Phase::Count => {
                    let taken = self.number.take(bytes[at]);
                    at += 1;
                    match taken {
                        Ok(None) => {}
                        Ok(Some(..=0)) => {
                            self.phase = Phase::Start;
                            let request = Request::Silent;
                            return Ok(Scan::Ended { used: at, request });
                        }
                        Ok(Some(count)) => match u32::try_from(count) {
                            Ok(count) if u64::from(count) <= ELEMENTS_MAX => {
                                self.elements = count;
                                self.phase = Phase::Element;
                            }
                            _ => return self.doubt(Doubt::Elements),
                        },
                        // There are no streamed requests.
                        Err(_) => return self.doubt(Doubt::Number),
                    }
                }
                Phase::Length => {
                    let taken = self.number.take(bytes[at]);
                    at += 1;
                    match taken.map(|length| length.map(u64::try_from)) {
                        Ok(None) => {}
                        Ok(Some(Ok(length @ ..=PAYLOAD_MAX))) => self.begin_payload(length),
                        Ok(Some(_)) | Err(_) => return self.doubt(Doubt::Number),
                    }
                }
                Phase::Inline(place) => {
                    let byte = bytes[at];
                    at += 1;
                    if let Some(request) = self.inline(place, byte, arguments)? {
                        return Ok(Scan::Ended { used: at, request });
                    }
                }
                Phase::Doubtful(doubt) => return Err(doubt),
            }
        }
        Ok(Scan::More)
    }

    /// True when the last byte ended a request, or nothing was read yet.
    pub fn at_boundary(&self) -> bool {
        self.phase == Phase::Start
    }

    /// The requests that end in these bytes, which come next in the stream, without going there.
    pub fn ahead<'a>(&self, bytes: &'a [u8]) -> Ahead<'a> {
        Ahead {
            requests: *self,
            bytes,
            at: 0,
        }
    }

    fn begin_payload(&mut self, length: u64) {
        self.left = length;
        self.phase = if length == 0 {
            Phase::PayloadCr
        } else {
            Phase::Payload
        };
    }

    fn name(
        &mut self,
        command: Result<Option<Command>, Doubt>,
        arguments: &mut impl Arguments,
    ) -> Result<(), Doubt> {
        let command = match command {
            Ok(command) => command,
            Err(doubt) => return self.doubt(doubt),
        };
        self.command = command;
        self.role = match command {
            Some(command) if command.takes_arguments() => {
                arguments.begin(command);
                Role::Argument
            }
            _ => Role::Skipped,
        };
        Ok(())
    }

    fn element_ended(&mut self) -> Option<Request> {
        self.elements -= 1;
        if self.elements > 0 {
            self.phase = Phase::Element;
            return None;
        }
        self.phase = Phase::Start;
        Some(self.request())
    }

    fn request(&self) -> Request {
        self.command.map_or(Request::Ordinary, Request::Command)
    }

    fn inline(
        &mut self,
        mut place: Place,
        byte: u8,
        arguments: &mut impl Arguments,
    ) -> Result<Option<Request>, Doubt> {
        if byte != b'\n' {
            self.left += 1;
            if self.left > INLINE_MAX {
                return self.doubt(Doubt::Line);
            }
        }
        let step = match place.take(byte) {
            Ok(step) => step,
            Err(doubt) => return self.doubt(doubt),
        };
        self.phase = Phase::Inline(place);
        match self.role {
            Role::Skipped => {}
            Role::Argument => arguments.bytes(step.text()),
            Role::Word => self.word.push(step.text()),
        }
        if step.ended {
            self.elements += 1;
            match self.role {
                Role::Skipped => {}
                Role::Argument => arguments.end(),
                Role::Word => self.name(self.word.command(), arguments)?,
            }
        }
        if byte != b'\n' {
            return Ok(None);
        }
        self.phase = Phase::Start;
        Ok(Some(if self.elements == 0 {
            Request::Silent
        } else {
            self.request()
        }))
    }

    fn doubt<T>(&mut self, doubt: Doubt) -> Result<T, Doubt> {
        self.phase = Phase::Doubtful(doubt);
        Err(doubt)
    }
}

/// Requests in bytes that are not yet part of the stream; see [`Requests::ahead`].
#[derive(Clone, Debug)]
pub struct Ahead<'a> {
    requests: Requests,
    bytes: &'a [u8],
    at: usize,
}

/// A complete request in bytes that were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// Where it begins; 0 also when its beginning was sent before.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// The request.
    pub request: Request,
}

impl Iterator for Ahead<'_> {
    type Item = Result<Unsent, Doubt>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        match self.requests.next(rest, &mut ()) {
            Ok(Scan::More) => {
                self.at = self.bytes.len();
                None
            }
            Ok(Scan::Ended { used, request }) => {
                let start = self.at;
                self.at += used;
                Some(Ok(Unsent {
                    start,
                    end: self.at,
                    request,
                }))
            }
            Err(doubt) => {
                self.at = self.bytes.len();
                Some(Err(doubt))
            }
        }
    }
}
