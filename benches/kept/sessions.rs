//! Kinds of sessions, each with what it does before a failover, and with what shows afterwards that it lives or that it
//! was closed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use switchmaster::net::clock::now;

use crate::harness::topology::FAILOVER;
use crate::harness::wait_until;

/// A reply may be held through an outage.
const PATIENCE: Duration = FAILOVER;
/// Those who are told nothing and ask nothing have been closed by then.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);
/// Between two rounds of a session that works: so long that some are idle at a kill.
const PACE: Duration = Duration::from_millis(20);
/// A script that runs past a promotion, which is 0.2 s after its beginning, and ends before down-after.
const BUSY: Duration = Duration::from_secs(1);
/// Rounds of a script's loop that show how fast the server is.
const TRIAL_LOOPS: u64 = 10_000_000;

/// Makes the user that sessions log in as.
pub(crate) const APP_USER: [&str; 7] = ["ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*"];

/// One kind of session. `{n}` in its steps is the number of the session.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) sessions: usize,
    pub(crate) when: When,
    pub(crate) work: Work,
    /// What was begun and may not be executed when the session was closed.
    pub(crate) unexecuted: Option<&'static str>,
    /// In a planned failover, and in a crash.
    pub(crate) promised: [Promise; 2],
}

/// When it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the failover, with time to come to rest.
    Before,
    /// As the last thing before it.
    Last,
    /// While clients are held.
    Held,
}

/// What it does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// The first before the failover, the others after it.
    Rests(&'static [Step], &'static [Step]),
    /// The same all the time.
    Goes(&'static [Step]),
}

/// A part of that.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Sends a command.
    Tell(&'static str),
    /// Hears a reply that begins so.
    Hear(&'static str),
    /// Both.
    Ask(&'static str, &'static str),
    /// Sends a command so many times, then hears as many replies of one line that begin so.
    Pipe(usize, &'static str, &'static str),
    /// Sends these bytes.
    Raw(&'static str),
    /// Begins a script that runs for [`BUSY`].
    Busy,
    /// Hears nothing but the end of the connection, and what was said before it.
    End,
}

/// What is said about a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    Kept,
    Closed,
    /// Kept between two requests, closed with an unanswered one.
    KeptUnlessUnanswered,
}

/// What became of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Kept,
    Closed,
    /// It heard what it must not hear, or nothing.
    Wrong(String),
}

use Step::{Ask, Busy, End, Hear, Pipe, Raw, Tell};

const KEPT: [Promise; 2] = [Promise::Kept; 2];
const CLOSED: [Promise; 2] = [Promise::Closed; 2];
const WORKING: [Promise; 2] = [Promise::Kept, Promise::KeptUnlessUnanswered];

/// Kinds that do not disturb one another.
pub(crate) static KINDS: [Kind; 15] = [
    resting(
        "idle, nothing told",
        &[Ask("PING", "+PONG")],
        &[Ask("PING", "+PONG")],
        KEPT,
    ),
    resting(
        "idle in a pool: HELLO 3, SELECT, CLIENT SETNAME",
        &[
            Ask("HELLO 3", "%"),
            Ask("SELECT 5", "+OK"),
            Ask("CLIENT SETNAME pool-{n}", "+OK"),
            Ask("SET pool:{n} value-{n}", "+OK"),
        ],
        &[
            Ask("GET pool:{n}", "$7\r\nvalue-{n}"),
            Ask("CLIENT GETNAME", "$6\r\npool-{n}"),
            Ask("HGETALL nothing", "%0"),
        ],
        KEPT,
    ),
    resting(
        "idle, logged in with AUTH",
        &[Ask("AUTH app secret", "+OK")],
        &[Ask("ACL WHOAMI", "$3\r\napp")],
        KEPT,
    ),
    working(
        "one writer, a write at a time",
        &[Ask("RPUSH writer:{n} x", ":")],
    ),
    working("pipelines of 16", &[Pipe(16, "INCR pipeline:{n}", ":")]),
    Kind {
        when: When::Held,
        ..resting(
            "arriving while there is no master",
            &[Tell("PING")],
            &[Hear("+PONG")],
            KEPT,
        )
    },
    Kind {
        unexecuted: Some("multi:{n}"),
        ..resting(
            "MULTI open for longer, EXEC not sent",
            &[Ask("MULTI", "+OK"), Ask("SET multi:{n} x", "+QUEUED")],
            &[Ask("EXEC", "*1")],
            CLOSED,
        )
    },
    resting(
        "keys watched",
        &[Ask("WATCH watched:{n}", "+OK")],
        &[Ask("PING", "+PONG")],
        CLOSED,
    ),
    resting(
        "blocked in BLPOP",
        &[Tell("BLPOP nothing:{n} 0")],
        &[End],
        CLOSED,
    ),
    resting("subscribed", &[Ask("SUBSCRIBE news", "*3")], &[End], CLOSED),
    resting("MONITOR", &[Ask("MONITOR", "+OK")], &[End], CLOSED),
    resting(
        "asked for its CLIENT ID",
        &[Ask("CLIENT ID", ":")],
        &[Ask("CLIENT ID", ":")],
        CLOSED,
    ),
    resting(
        "CLIENT TRACKING on",
        &[Ask("HELLO 3", "%"), Ask("CLIENT TRACKING ON", "+OK")],
        &[Ask("PING", "+PONG")],
        CLOSED,
    ),
    resting(
        "idle, then WAIT after the move",
        &[Ask("SET wait:{n} x", "+OK")],
        &[Ask("SET wait:{n} y", "+OK"), Ask("WAIT 0 0", ":")],
        CLOSED,
    ),
    Kind {
        unexecuted: Some("half:{n}"),
        ..resting(
            "a request half sent",
            &[Raw("*3\r\n$3\r\nSET\r\n$6\r\nhalf:{n}\r\n$10\r\n01234")],
            &[Raw("56789\r\n"), Hear("+OK")],
            CLOSED,
        )
    },
];

/// A kind that stops its server, and is therefore by itself.
pub(crate) static SCRIPT: Kind = Kind {
    sessions: 1,
    when: When::Last,
    ..resting(
        "a script running past the promotion",
        &[Busy],
        &[Hear(":1")],
        CLOSED,
    )
};

const fn resting(
    name: &'static str,
    before: &'static [Step],
    after: &'static [Step],
    promised: [Promise; 2],
) -> Kind {
    Kind {
        name,
        // So many that each number is one digit: the expected replies tell lengths.
        sessions: 10,
        when: When::Before,
        work: Work::Rests(before, after),
        unexecuted: None,
        promised,
    }
}

const fn working(name: &'static str, round: &'static [Step]) -> Kind {
    Kind {
        work: Work::Goes(round),
        promised: WORKING,
        ..resting(name, &[], &[], KEPT)
    }
}

impl Kind {
    /// Its sessions wait in a blocking command.
    pub(crate) fn blocks(&self) -> bool {
        matches!(self.work, Work::Rests([Tell(command)], _) if command.starts_with("BLPOP "))
    }
}

/// A session under way.
#[derive(Debug)]
pub(crate) enum Session {
    Rests(Client, &'static [Step]),
    Goes(Going),
}

/// A thread that goes on with its rounds.
#[derive(Debug)]
pub(crate) struct Going {
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Broken>>,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    number: String,
    /// Heard, and not yet looked at.
    heard: Vec<u8>,
}

/// Why a step was not done.
#[derive(Clone, Debug)]
enum Broken {
    Closed,
    Wrong(String),
}

impl Session {
    /// Connects and does what comes before the failover.
    pub(crate) fn start(to: SocketAddr, work: Work, number: usize) -> Self {
        let mut client = Client::connect(to, number);
        match work {
            Work::Rests(before, after) => {
                let begun = client.play(before);
                assert!(begun.is_ok(), "{before:?}: {begun:?}");
                Self::Rests(client, after)
            }
            Work::Goes(round) => {
                let rounds: Arc<AtomicUsize> = Arc::default();
                let stop: Arc<AtomicBool> = Arc::default();
                let (counted, told) = (Arc::clone(&rounds), Arc::clone(&stop));
                let thread = thread::spawn(move || client.go_on(round, &counted, &told));
                let going = Going {
                    rounds,
                    stop,
                    thread,
                };
                assert!(going.does_another_round(), "it ends before the failover");
                Self::Goes(going)
            }
        }
    }

    /// Does what comes after the failover.
    pub(crate) fn finish(self) -> Outcome {
        let done = match self {
            Self::Rests(mut client, after) => client.play(after),
            Self::Goes(going) => {
                going.does_another_round();
                going.stop.store(true, Ordering::Release);
                going.thread.join().expect("its panic was printed")
            }
        };
        match done {
            Ok(()) => Outcome::Kept,
            Err(Broken::Closed) => Outcome::Closed,
            Err(Broken::Wrong(why)) => Outcome::Wrong(why),
        }
    }
}

impl Going {
    /// Waits for one that has begun after this. False when it has ended instead.
    fn does_another_round(&self) -> bool {
        let seen = self.rounds.load(Ordering::Acquire);
        let more = || self.rounds.load(Ordering::Acquire) > seen + 1;
        wait_until("another round of a session, or its end", PATIENCE, || {
            more() || self.thread.is_finished()
        });
        !self.thread.is_finished()
    }
}

impl Client {
    fn connect(to: SocketAddr, number: usize) -> Self {
        let stream = TcpStream::connect(to).expect("the proxy listens");
        stream.set_nodelay(true).expect("a socket");
        Self {
            stream,
            number: number.to_string(),
            heard: Vec::new(),
        }
    }

    fn go_on(
        &mut self,
        round: &[Step],
        rounds: &AtomicUsize,
        stop: &AtomicBool,
    ) -> Result<(), Broken> {
        while !stop.load(Ordering::Acquire) {
            if self.has_ended() {
                let why = "it was closed between two requests";
                return Err(Broken::Wrong(why.to_owned()));
            }
            self.play(round)?;
            rounds.fetch_add(1, Ordering::Release);
            thread::sleep(PACE);
        }
        Ok(())
    }

    /// Whether the other side has closed, asked while nothing is unanswered.
    fn has_ended(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        !matches!(peeked, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    fn play(&mut self, steps: &[Step]) -> Result<(), Broken> {
        for step in steps {
            match step {
                Tell(command) => self.send(&self.array(command))?,
                Hear(expected) => self.hear(expected)?,
                Ask(command, expected) => {
                    self.send(&self.array(command))?;
                    self.hear(expected)?;
                }
                Pipe(count, command, expected) => {
                    self.send(&self.array(command).repeat(*count))?;
                    for _ in 0..*count {
                        self.hear_line(expected)?;
                    }
                }
                Raw(bytes) => self.send(&self.numbered(bytes))?,
                Busy => {
                    let begun = now();
                    self.send(&self.script(TRIAL_LOOPS))?;
                    self.hear(":1")?;
                    let taken = now().since(begun).max(Duration::from_millis(1));
                    let trials = BUSY.as_millis() / taken.as_millis();
                    let loops = u64::try_from(trials).unwrap_or(1) * TRIAL_LOOPS;
                    self.send(&self.script(loops))?;
                }
                End => return self.hear_the_end(),
            }
        }
        Ok(())
    }

    fn numbered(&self, text: &str) -> String {
        text.replace("{n}", &self.number)
    }

    /// The words of a command as an array of bulk strings.
    fn array(&self, command: &str) -> String {
        let command = self.numbered(command);
        let words: Vec<&str> = command.split(' ').collect();
        let bulks = words
            .iter()
            .map(|word| format!("${}\r\n{word}\r\n", word.len()));
        format!("*{}\r\n{}", words.len(), bulks.collect::<String>())
    }

    /// Its spaces would be the ends of words.
    fn script(&self, loops: u64) -> String {
        self.array(&format!("EVAL for\ni=1,{loops}\ndo\nend\nreturn\n1 0"))
    }

    fn send(&mut self, bytes: &str) -> Result<(), Broken> {
        self.stream
            .write_all(bytes.as_bytes())
            .map_err(|e| broken(&e))
    }

    /// A reply that begins so, and nothing behind it: all that is there, as nothing else was asked for.
    fn hear(&mut self, expected: &str) -> Result<(), Broken> {
        let expected = self.numbered(expected);
        // The first line may come alone.
        let goes_on =
            |heard: &[u8]| heard.len() < expected.len() && expected.as_bytes().starts_with(heard);
        while goes_on(&self.heard) || !self.heard.ends_with(b"\r\n") {
            self.hear_more(PATIENCE)?;
        }
        let reply = std::mem::take(&mut self.heard);
        if reply.starts_with(expected.as_bytes()) {
            return Ok(());
        }
        let reply = String::from_utf8_lossy(&reply);
        Err(Broken::Wrong(format!("{reply:?} instead of {expected:?}")))
    }

    fn hear_line(&mut self, expected: &str) -> Result<(), Broken> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                if line.starts_with(expected.as_bytes()) {
                    return Ok(());
                }
                let line = String::from_utf8_lossy(&line);
                return Err(Broken::Wrong(format!("{line:?} instead of {expected:?}")));
            }
            self.hear_more(PATIENCE)?;
        }
    }

    fn hear_the_end(&mut self) -> Result<(), Broken> {
        let deadline = now() + CLOSED_WITHIN;
        loop {
            let left = deadline.since(now());
            if left.is_zero() {
                return Ok(());
            }
            match self.hear_more(left) {
                Ok(()) => self.heard.clear(),
                // Silent, but there.
                Err(Broken::Wrong(_)) => return Ok(()),
                Err(Broken::Closed) => return Err(Broken::Closed),
            }
        }
    }

    fn hear_more(&mut self, within: Duration) -> Result<(), Broken> {
        self.stream
            .set_read_timeout(Some(within))
            .expect("a socket");
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Broken::Closed),
            Ok(n) => {
                self.heard.extend_from_slice(&bytes[..n]);
                Ok(())
            }
            Err(e) => Err(broken(&e)),
        }
    }
}

fn broken(error: &std::io::Error) -> Broken {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
            Broken::Closed
        }
        _ => Broken::Wrong(error.to_string()),
    }
}
