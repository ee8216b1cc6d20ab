//! The tracker held against a real server: it counts as many replies as come, whatever the form of the requests.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use switchmaster::demo::guard;
use switchmaster::demo::server::Server;
use switchmaster::session::replay::{Answer, Replay};
use switchmaster::session::tracker::{READS, Retire, Rules, Tracker, WhyNot};
use tempfile::TempDir;

use super::harness::wait_for;

/// One exchange with a server on the same machine; generous, test machines are loaded.
const ANSWER: Duration = Duration::from_secs(10);
/// Comes last in each dialogue, so that the end of all replies is known: of the few that a RESP2 subscriber may say.
const LAST: &[u8] = b"*2\r\n$4\r\nPING\r\n$10\r\n<the last>\r\n";
const LAST_REPLY: &[u8] = b"$10\r\n<the last>\r\n";
const DIALOGUES: u64 = 200;
const RULES: Rules = Rules {
    login: false,
    replay_auth: true,
    pubsub: false,
    resend_reads: false,
};

/// A server of its own on a Unix socket.
struct Node {
    child: Child,
    folder: TempDir,
}

impl Node {
    fn start() -> Self {
        let server = Server::find(None).unwrap_or_else(|e| panic!("{e}"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let binary = Path::new(env!("CARGO_BIN_EXE_switchmaster"));
        let socket = folder.path().join("s");
        let mut command = guard::command(binary, &server.node_arg0(), server.program().as_os_str());
        command
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .args(["--dir"])
            .arg(folder.path())
            .args(["--logfile", "log"]);
        let child = guard::spawn(command).expect("the server starts");
        let node = Self { child, folder };
        wait_for("the server to listen", ANSWER, || {
            UnixStream::connect(&socket).ok()
        });
        node
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("s")).expect("it listens");
        stream.set_read_timeout(Some(ANSWER)).expect("a timeout");
        stream
    }

    /// What it replies to these bytes and [`LAST`], and whether it closed.
    fn answers(&self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut stream = self.connect();
        Self::answers_on(&mut stream, bytes)
    }

    fn answers_on(stream: &mut UnixStream, bytes: &[u8]) -> (Vec<u8>, bool) {
        // It may close before it has read all.
        let _ = stream.write_all(&[bytes, LAST].concat());
        let mut replies = Vec::new();
        let mut buffer = [0; 65536];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (replies, true),
                Ok(n) => replies.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return (replies, true),
                Err(e) => panic!("no answer to {}: {e}", bytes.escape_ascii()),
            }
            if replies.ends_with(LAST_REPLY) {
                return (replies, false);
            }
        }
    }

    /// A tracker that has seen this dialogue.
    fn tracked(&self, bytes: &[u8]) -> (Tracker, bool) {
        let (replies, closed) = self.answers(bytes);
        let mut tracker = Tracker::new(RULES);
        tracker.client_bytes(&[bytes, LAST].concat());
        let _ = tracker.master_bytes(&replies);
        (tracker, closed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn array(command: &str) -> Vec<u8> {
    let words: Vec<&str> = command.split(' ').collect();
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

#[test]
fn odd_requests_have_as_many_replies_as_are_counted() {
    let node = Node::start();
    let fine: &[&[u8]] = &[
        b"\r\n\n \t\r\n*0\r\n*-1\r\n*-7\r\nPING\r\n",
        b"set k \"a\\x41\\n\\\"\" \r\nGET k\n 'get' k\n\"\" x\n",
        b"sel\"ect\" 1\nget\x0bk\nGET\rk\n'it\\'s'\n\"\\xg\\x4\"\n",
        b"*1\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$7\r\nUNKNOWN\r\n",
        b"hello 3\r\nhset h a 1 b 2\r\nhgetall h\r\nget nothing\r\nzadd z 1.5 m\r\nzrange z 0 -1 withscores\r\n",
        b"hello 3\r\ncommand docs\r\ncommand\r\nconfig get *\r\nrole\r\ninfo\r\n",
        b"command docs\r\ncommand\r\nhello\r\nhello 2\r\nrole\r\n",
        b"multi\r\nset a 1\r\nget\r\nexec\r\nmulti\r\nget a\r\nrole\r\nexec\r\nexec\r\ndiscard\r\n",
        b"watch a\r\nmulti\r\nwatch b\r\nmulti\r\ndiscard\r\nunwatch\r\nauth x\r\nselect 99\r\nselect 3\r\n",
        b"eval 'return {1,{2,{3,{err=\"x\"}}}}' 0\r\neval 'return {}' 0\r\nmulti\r\nreset\r\nping\r\n",
        b"client maint_notifications on\r\nclient setinfo lib-name x\r\nclient no-touch on\r\nclient\r\nclient reply\tON\r\n",
        b"hello 3\r\neval 'redis.setresp(3); return redis.call(\"hgetall\",\"h\")' 0\r\n",
    ];
    for bytes in fine {
        let (tracker, closed) = node.tracked(bytes);
        let shown = bytes.escape_ascii();
        assert!(!closed, "{shown}");
        assert_eq!(tracker.movable(), Ok(()), "{shown}");
    }
    let refused: &[&[u8]] = &[
        b"'ping\r\n",
        b"\"a\"b\r\n",
        b"*03\r\n",
        b"*-0\r\n",
        b"*x\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$04\r\nPING\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$99999999999999999999\r\n",
        b"*2147483648\r\n",
    ];
    for bytes in refused {
        let (tracker, closed) = node.tracked(bytes);
        let shown = bytes.escape_ascii();
        assert!(closed, "the server reads {shown}");
        assert!(
            matches!(tracker.retired(), Some(Retire::RequestUnclear(_))),
            "{shown}: {:?}",
            tracker.retired()
        );
    }
}

#[test]
fn pushes_in_a_transaction_are_where_the_tracker_gives_up() {
    let node = Node::start();
    let bytes = b"hello 3\r\nmulti\r\nsubscribe a b\r\nping\r\nexec\r\n";
    let (replies, _) = node.answers(bytes);
    assert!(replies.windows(6).any(|part| part == b"*2\r\n>3"));
    let (tracker, _) = node.tracked(bytes);
    assert_eq!(tracker.retired(), Some(Retire::Subscribed));
    // The scanner alone does not trust them either.
    let mut scanner = switchmaster::resp::Replies::new();
    let mut rest = &replies[..];
    let doubt = loop {
        match scanner.next(rest) {
            Ok(switchmaster::resp::Heard::Ended { used, .. }) => rest = &rest[used..],
            Ok(switchmaster::resp::Heard::More) => panic!("no doubt"),
            Err(doubt) => break doubt,
        }
    };
    assert_eq!(doubt, switchmaster::resp::Doubt::NestedPush);
}

#[test]
fn any_dialogue_of_ordinary_work_is_counted_right() {
    let node = Node::start();
    let commands = [
        "PING",
        "GET k",
        "SET k v",
        "SET k",
        "INCR k",
        "INCR n",
        "NOSUCH a b",
        "LPUSH l a b c",
        "LRANGE l 0 -1",
        "HSET h f v",
        "HGETALL h",
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH k",
        "UNWATCH",
        "SELECT 1",
        "SELECT 0",
        "SELECT 77",
        "HELLO 3",
        "HELLO 2",
        "HELLO",
        "RESET",
        "CLIENT SETNAME n",
        "CLIENT GETNAME",
        "AUTH x",
        "EXPIRE k 100",
        "SMEMBERS s",
        "SADD s a b",
        "ROLE",
        "READONLY",
        "WAIT 0 0",
        "SCRIPT EXISTS a",
    ];
    let mut counted = 0;
    for seed in 0..DIALOGUES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..40) {
            let command = commands[random.usize(..commands.len())];
            match random.u8(..10) {
                0 => bytes.extend_from_slice(b"\r\n*0\r\n*-1\r\n"),
                1..4 => bytes.extend_from_slice(format!("{command}\r\n").as_bytes()),
                _ => bytes.extend(array(command)),
            }
        }
        // An open transaction would queue the last command.
        bytes.extend_from_slice(b"DISCARD\r\n");
        let (tracker, closed) = node.tracked(&bytes);
        assert!(!closed, "seed {seed}");
        match tracker.movable() {
            Ok(()) | Err(WhyNot::Watching) => counted += 1,
            // A setting between MULTI and EXEC.
            Err(WhyNot::Retired(Retire::SetInTransaction)) => {}
            Err(why) => panic!("seed {seed}: {why:?}"),
        }
    }
    assert!(
        counted > DIALOGUES / 4,
        "only {counted} were counted to their end"
    );
}

#[test]
fn any_dialogue_of_subscribers_is_counted_right_and_replayed() {
    let node = Node::start();
    // What a subscriber hears, as replies that are none.
    let lists = b"del m s\r\nrpush m message a b\r\nrpush s subscribe a 1\r\n";
    let commands = [
        "PING",
        "PING x",
        "GET k",
        "LRANGE m 0 -1",
        "LRANGE s 0 -1",
        "SUBSCRIBE a",
        "SUBSCRIBE a b c a",
        "SUBSCRIBE",
        "PSUBSCRIBE a*",
        "PSUBSCRIBE b c*",
        "SSUBSCRIBE a",
        "SSUBSCRIBE b c",
        "UNSUBSCRIBE",
        "UNSUBSCRIBE a",
        "UNSUBSCRIBE b z",
        "PUNSUBSCRIBE",
        "PUNSUBSCRIBE a*",
        "SUNSUBSCRIBE",
        "SUNSUBSCRIBE b",
        "PUBLISH a message",
        "PUBLISH b subscribe",
        "SPUBLISH b x",
        "SELECT 1",
        "HELLO 3",
        "HELLO 2",
        "RESET",
    ];
    let rules = Rules {
        pubsub: true,
        ..RULES
    };
    let (mut subscribed, mut messages) = (0_u64, 0_u64);
    for seed in 0..DIALOGUES {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = lists.to_vec();
        // Most end as they began.
        if seed % 2 == 1 {
            bytes.extend(array("HELLO 3"));
        }
        for _ in 0..random.usize(1..40) {
            bytes.extend(array(commands[random.usize(..commands.len())]));
        }
        let mut stream = node.connect();
        let (replies, closed) = Node::answers_on(&mut stream, &bytes);
        assert!(!closed, "seed {seed}");
        let mut tracker = Tracker::new(rules);
        tracker.client_bytes(&[&bytes, LAST].concat());
        let mut rest = &replies[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.usize(1..=rest.len()));
            let _ = tracker.master_bytes(piece);
            rest = more;
        }
        assert_eq!(tracker.movable(), Ok(()), "seed {seed}");
        messages += u64::from(replies.windows(8).any(|part| part == b"3\r\n$7\r\nm"));
        // Whoever published to all of them would be heard once on each of the two.
        let before = node.subscribers();
        let mut second = node.connect();
        if let Some(replay) = Replay::new(tracker.journal(), None) {
            second.write_all(replay.request()).expect("it is written");
            let mut check = replay.check();
            let mut buffer = [0; 4096];
            let answer = loop {
                let n = second.read(&mut buffer).expect("it answers");
                assert!(n > 0, "the server closed");
                match check.take(&buffer[..n]) {
                    Answer::NotYet => {}
                    answer => break answer,
                }
            };
            assert_eq!(answer, Answer::Done, "seed {seed}");
            assert!(check.into_heard().is_empty(), "nobody publishes");
        }
        let after = node.subscribers();
        let twice: Vec<_> = before.iter().map(|line| line * 2).collect();
        assert_eq!(after, twice, "seed {seed}");
        subscribed += u64::from(before.iter().any(|count| *count > 0));
        drop((stream, second));
        wait_for("the server to forget both", ANSWER, || {
            node.subscribers()
                .iter()
                .all(|count| *count == 0)
                .then_some(())
        });
    }
    let few = DIALOGUES / 4;
    assert!(subscribed > few, "only {subscribed} were subscribed");
    assert!(
        messages > few,
        "only {messages} heard what may be taken for a message"
    );
}

impl Node {
    /// How many connections are subscribed to each of the names above.
    fn subscribers(&self) -> Vec<u64> {
        let asked =
            b"PUBSUB NUMSUB a b c z\r\nPUBSUB SHARDNUMSUB a b c\r\nCLIENT LIST TYPE pubsub\r\n";
        let (replies, _) = self.answers(asked);
        let text = String::from_utf8_lossy(&replies);
        let (counts, clients) = text.split_once(" addr=").unwrap_or((&text, ""));
        let mut found: Vec<u64> = counts
            .lines()
            .filter_map(|line| line.strip_prefix(':')?.parse().ok())
            .collect();
        assert_eq!(found.len(), 7, "{text}");
        // Patterns are counted once for all who have them elsewhere.
        let patterns = |line: &str| line.strip_prefix("psub=")?.parse::<u64>().ok();
        found.push(clients.split(' ').filter_map(patterns).sum());
        found
    }
}

#[test]
fn what_may_be_sent_again_is_a_read_to_a_server() {
    let node = Node::start();
    for name in READS {
        let (replies, _) = node.answers(format!("COMMAND INFO {name}\r\n").as_bytes());
        let text = String::from_utf8_lossy(&replies);
        let says = |word: &str| text.lines().any(|line| line == word);
        if text.starts_with("*1\r\n*-1") || text.starts_with("*1\r\n$-1") {
            // A command of a newer server.
            assert!(
                [
                    "LCS",
                    "EXPIRETIME",
                    "PEXPIRETIME",
                    "SINTERCARD",
                    "ZINTERCARD"
                ]
                .contains(name)
            );
            continue;
        }
        assert!(says("+readonly") || says("readonly"), "{name}: {text}");
        for flag in ["write", "blocking", "noscript", "admin", "may_replicate"] {
            assert!(!says(&format!("+{flag}")), "{name} is {flag}");
        }
        // The time that is left is another each time.
        let by_time = ["TTL", "PTTL"].contains(name);
        assert!(
            !says("nondeterministic_output") || by_time,
            "{name}: {text}"
        );
        assert!(
            !says("+@dangerous") && !says("+@blocking"),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_replay_makes_a_new_connection_like_the_old_one() {
    let node = Node::start();
    let told = b"acl setuser me on >pw ~* &* +@all\r\nhello 3 auth me pw setname app\r\nselect 5\r\nclient no-evict on\r\n";
    let (tracker, _) = node.tracked(told);
    assert_eq!(tracker.movable(), Ok(()));
    let replay = Replay::new(tracker.journal(), None).expect("there is something to tell");
    let mut stream = node.connect();
    stream.write_all(replay.request()).expect("it is written");
    let mut check = replay.check();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).expect("it answers");
        assert!(n > 0, "the server closed");
        match check.take(&buffer[..n]) {
            Answer::NotYet => {}
            Answer::Done => break,
            Answer::Failed(why) => panic!("{why:?}"),
        }
    }
    stream
        .write_all(&[b"client info\r\n", LAST].concat())
        .expect("it is written");
    let mut info = Vec::new();
    while !info.ends_with(LAST_REPLY) {
        let n = stream.read(&mut buffer).expect("it answers");
        assert!(n > 0, "the server closed");
        info.extend_from_slice(&buffer[..n]);
    }
    let info = String::from_utf8_lossy(&info);
    for field in ["name=app ", " db=5 ", " user=me ", " resp=3"] {
        assert!(info.contains(field), "{field}: {info}");
    }
    let flags = info.split_once(" flags=").expect("there are flags").1;
    let flags = flags.split(' ').next().unwrap_or_default();
    assert!(flags.contains('e'), "{info}");
}

#[test]
fn a_command_that_the_server_finds_by_the_beginning_of_its_name_is_not_overlooked() {
    /// The server looks in one of some hundreds of places, which the hash of the whole name decides.
    const NAMES: u32 = 5000;

    let node = Node::start();
    let mut stream = node.connect();
    let mut replies = BufReader::new(stream.try_clone().expect("a second handle"));
    let mut taken = None;
    for n in 0..NAMES {
        let request = array(&format!("MULTI\0{n}"));
        let mut tracker = Tracker::new(RULES);
        tracker.client_bytes(&request);
        assert!(tracker.retired().is_some(), "{}", request.escape_ascii());
        if taken.is_none() {
            stream.write_all(&request).expect("written");
            let mut reply = Vec::new();
            replies.read_until(b'\n', &mut reply).expect("a line");
            taken = (reply == b"+OK\r\n").then_some(n);
        }
    }
    // Not every server does that; those that do have begun a transaction.
    if taken.is_some() {
        stream.write_all(&array("GET k")).expect("written");
        let mut reply = Vec::new();
        replies.read_until(b'\n', &mut reply).expect("a line");
        assert_eq!(reply, b"+QUEUED\r\n");
    }
}
