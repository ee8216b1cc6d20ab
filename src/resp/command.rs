//! The few commands that change a session: their names, and what their arguments mean for it.
//!
//! Every other command is one request with exactly one reply, errors included, and leaves the session as it was.

use super::feed::Feed;

/// Longest name in [`Command::named`]; a longer first word is an ordinary command.
pub const NAME_MAX: usize = 12;
/// Most arguments of one command that are looked at.
pub const ARGUMENTS_MAX: usize = 16;

/// A command that may change the session, by its first word. Commands that mean the same to a session are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// ASKING
    Asking,
    /// AUTH
    Auth,
    /// CLIENT
    Client,
    /// DISCARD
    Discard,
    /// EXEC
    Exec,
    /// FAILOVER
    Failover,
    /// HELLO
    Hello,
    /// MONITOR
    Monitor,
    /// MULTI
    Multi,
    /// QUIT
    Quit,
    /// READONLY
    Readonly,
    /// READWRITE
    Readwrite,
    /// SYNC, PSYNC, REPLCONF
    Replicate,
    /// RESET
    Reset,
    /// SCRIPT
    Script,
    /// SELECT
    Select,
    /// SHUTDOWN
    Shutdown,
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE
    Subscribe(Feed),
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE
    Unsubscribe(Feed),
    /// UNWATCH
    Unwatch,
    /// WAIT, WAITAOF
    Wait,
    /// WATCH
    Watch,
}

impl Command {
    /// The command a first word names, in any case.
    #[inline]
    pub fn named(word: &[u8]) -> Option<Self> {
        let mut upper = [0; NAME_MAX];
        let upper = upper.get_mut(..word.len())?;
        for (to, from) in upper.iter_mut().zip(word) {
            *to = from.to_ascii_uppercase();
        }
        Some(match &*upper {
            b"ASKING" => Self::Asking,
            b"AUTH" => Self::Auth,
            b"CLIENT" => Self::Client,
            b"DISCARD" => Self::Discard,
            b"EXEC" => Self::Exec,
            b"FAILOVER" => Self::Failover,
            b"HELLO" => Self::Hello,
            b"MONITOR" => Self::Monitor,
            b"MULTI" => Self::Multi,
            b"QUIT" => Self::Quit,
            b"READONLY" => Self::Readonly,
            b"READWRITE" => Self::Readwrite,
            b"SYNC" | b"PSYNC" | b"REPLCONF" => Self::Replicate,
            b"RESET" => Self::Reset,
            b"SCRIPT" => Self::Script,
            b"SELECT" => Self::Select,
            b"SHUTDOWN" => Self::Shutdown,
            b"SUBSCRIBE" => Self::Subscribe(Feed::Channel),
            b"PSUBSCRIBE" => Self::Subscribe(Feed::Pattern),
            b"SSUBSCRIBE" => Self::Subscribe(Feed::Shard),
            b"UNSUBSCRIBE" => Self::Unsubscribe(Feed::Channel),
            b"PUNSUBSCRIBE" => Self::Unsubscribe(Feed::Pattern),
            b"SUNSUBSCRIBE" => Self::Unsubscribe(Feed::Shard),
            b"UNWATCH" => Self::Unwatch,
            b"WAIT" | b"WAITAOF" => Self::Wait,
            b"WATCH" => Self::Watch,
            _ => return None,
        })
    }

    /// How many of its arguments have to be read to know what it means.
    pub const fn arguments_read(self) -> usize {
        match self {
            Self::Client | Self::Hello => ARGUMENTS_MAX,
            // One more than it takes, to tell the wrong form.
            Self::Auth => 3,
            Self::Select => 2,
            // SCRIPT LOAD carries whole scripts; only the subcommand counts.
            Self::Script => 1,
            _ => 0,
        }
    }

    /// True when its arguments have to be read, or at least counted.
    pub const fn takes_arguments(self) -> bool {
        self.arguments_read() > 0 || matches!(self, Self::Subscribe(_) | Self::Unsubscribe(_))
    }

    /// What it means to the session with these arguments, which are at most
    /// [`arguments_read`](Self::arguments_read); `more` says that there were others.
    pub fn meaning<'a>(self, arguments: &'a [&'a [u8]], more: bool) -> Meaning<'a> {
        match self {
            Self::Failover | Self::Wait => Meaning::Plain,
            Self::Asking => Meaning::Asks,
            Self::Monitor => Meaning::Monitors,
            Self::Replicate => Meaning::Replicates,
            Self::Subscribe(feed) => Meaning::Subscribes(feed),
            Self::Unsubscribe(feed) => Meaning::Unsubscribes(feed),
            Self::Multi => Meaning::Multi,
            Self::Exec => Meaning::Exec,
            Self::Discard => Meaning::Discard,
            Self::Watch => Meaning::Watch,
            Self::Unwatch => Meaning::Unwatch,
            Self::Quit => Meaning::Quit,
            Self::Shutdown => Meaning::Shutdown,
            Self::Reset => Meaning::Reset,
            Self::Readonly => Meaning::Readonly(true),
            Self::Readwrite => Meaning::Readonly(false),
            Self::Script => script(arguments),
            Self::Select => match arguments {
                [db] => number(db).map_or(Meaning::Unread, Meaning::Select),
                _ => Meaning::Unread,
            },
            Self::Auth => match *arguments {
                [password] => Meaning::Auth(Login {
                    user: None,
                    password,
                }),
                [user, password] => Meaning::Auth(Login {
                    user: Some(user),
                    password,
                }),
                _ => Meaning::Unread,
            },
            Self::Hello if more => Meaning::HelloUnread,
            Self::Hello => hello(arguments),
            Self::Client => client(arguments, more),
        }
    }
}

/// What a command means to a session, if the server accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// Nothing.
    Plain,
    /// A transaction begins.
    Multi,
    /// It is executed.
    Exec,
    /// It is dropped.
    Discard,
    /// Keys are watched.
    Watch,
    /// No key is watched any more.
    Unwatch,
    /// The database changes.
    Select(u32),
    /// The user changes.
    Auth(Login<'a>),
    /// Protocol, user and name may change.
    Hello(Hello<'a>),
    /// A HELLO with options that were not understood.
    HelloUnread,
    /// The connection's name.
    Name(&'a [u8]),
    /// The client library's name.
    LibName(&'a [u8]),
    /// The client library's version.
    LibVer(&'a [u8]),
    /// Excepted from client eviction.
    NoEvict(bool),
    /// Leaves the keys' idle time alone.
    NoTouch(bool),
    /// What the client is capable of (Valkey); adds to what it said before.
    Capa(&'a [&'a [u8]]),
    /// A cluster replica may be read.
    Readonly(bool),
    /// Back to a new connection's state.
    Reset,
    /// The server closes behind its reply.
    Quit,
    /// The server ends; a reply means that it does not.
    Shutdown,
    /// Replies are suppressed.
    Mutes,
    /// Keys read are tracked by this connection.
    Tracks,
    /// Shows the client id, which another server gave to somebody else.
    ShowsId,
    /// Another subcommand of CLIENT.
    ClientUnknown,
    /// One reply for each argument.
    Subscribes(Feed),
    /// The same; with no argument at all, one for each subscription, and at least one.
    Unsubscribes(Feed),
    /// The connection becomes a feed of commands.
    Monitors,
    /// The connection becomes a replica's.
    Replicates,
    /// The connection becomes a debugger's.
    Debugs,
    /// The next command concerns a slot that is being imported.
    Asks,
    /// The arguments have a form that the server will refuse; if it does not, they are not understood.
    Unread,
}

/// User and password as the client gave them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// `None` = `AUTH password`: the default user.
    pub user: Option<&'a [u8]>,
    /// The password.
    pub password: &'a [u8],
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(***)")
    }
}

/// What a HELLO with arguments asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// 2 or 3.
    pub proto: u8,
    /// `AUTH user password`
    pub login: Option<Login<'a>>,
    /// `SETNAME name`
    pub name: Option<&'a [u8]>,
}

fn script<'a>(arguments: &[&[u8]]) -> Meaning<'a> {
    const DEBUG: &[u8] = b"DEBUG";
    // Redis before 7.0 reads the word up to a NUL; no other subcommand begins with it.
    let debugs = |sub: &&[u8]| {
        sub.get(..DEBUG.len())
            .is_some_and(|sub| sub.eq_ignore_ascii_case(DEBUG))
    };
    match arguments {
        [sub, ..] if debugs(sub) => Meaning::Debugs,
        _ => Meaning::Plain,
    }
}

/// `HELLO [proto [AUTH user password] [SETNAME name]]`; of an option given twice the last one counts, as in Redis.
fn hello<'a>(arguments: &[&'a [u8]]) -> Meaning<'a> {
    let [proto, options @ ..] = arguments else {
        return Meaning::Plain;
    };
    let mut hello = Hello {
        proto: match *proto {
            b"2" => 2,
            b"3" => 3,
            _ => return Meaning::HelloUnread,
        },
        login: None,
        name: None,
    };
    let mut options = options;
    loop {
        options = match options {
            [] => return Meaning::Hello(hello),
            [word, user, password, rest @ ..] if word.eq_ignore_ascii_case(b"AUTH") => {
                hello.login = Some(Login {
                    user: Some(user),
                    password,
                });
                rest
            }
            [word, name, rest @ ..] if word.eq_ignore_ascii_case(b"SETNAME") => {
                hello.name = Some(name);
                rest
            }
            _ => return Meaning::HelloUnread,
        };
    }
}

/// CLIENT: what is not on this list, and not refused by the server, ends the tracking of a session.
fn client<'a>(arguments: &'a [&'a [u8]], more: bool) -> Meaning<'a> {
    let [sub, values @ ..] = arguments else {
        return Meaning::Plain;
    };
    let is = |name: &[u8]| sub.eq_ignore_ascii_case(name);
    if is(b"SETNAME") {
        return match values {
            [name] => Meaning::Name(name),
            _ => Meaning::Unread,
        };
    }
    if is(b"SETINFO") {
        return match values {
            [what, value] if what.eq_ignore_ascii_case(b"LIB-NAME") => Meaning::LibName(value),
            [what, value] if what.eq_ignore_ascii_case(b"LIB-VER") => Meaning::LibVer(value),
            _ => Meaning::Unread,
        };
    }
    if is(b"NO-EVICT") {
        return on_or_off(values).map_or(Meaning::Unread, Meaning::NoEvict);
    }
    if is(b"NO-TOUCH") {
        return on_or_off(values).map_or(Meaning::Unread, Meaning::NoTouch);
    }
    if is(b"CAPA") {
        return if more || values.is_empty() {
            Meaning::Unread
        } else {
            Meaning::Capa(values)
        };
    }
    if is(b"REPLY") {
        // Everything but ON, as a form of OFF that is overlooked would make every later reply another request's.
        return match values {
            [word] if word.eq_ignore_ascii_case(b"ON") => Meaning::Plain,
            _ => Meaning::Mutes,
        };
    }
    if is(b"TRACKING") {
        return match values {
            [word, ..] if word.eq_ignore_ascii_case(b"OFF") => Meaning::Plain,
            _ => Meaning::Tracks,
        };
    }
    if is(b"ID") || is(b"INFO") || is(b"LIST") {
        return Meaning::ShowsId;
    }
    if is(b"GETNAME") || is(b"GETREDIR") || is(b"TRACKINGINFO") || is(b"HELP") {
        return Meaning::Plain;
    }
    Meaning::ClientUnknown
}

fn on_or_off(values: &[&[u8]]) -> Option<bool> {
    match values {
        [word] if word.eq_ignore_ascii_case(b"ON") => Some(true),
        [word] if word.eq_ignore_ascii_case(b"OFF") => Some(false),
        _ => None,
    }
}

/// A database number as Redis reads it: digits, no sign, no leading zero.
fn number(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text).ok()?;
    let canonical =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| canonical)
}
