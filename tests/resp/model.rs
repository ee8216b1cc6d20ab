//! The naive opinion: keeps every byte, parses from the beginning each time (`naive`), and holds a
//! session's state as plain owned values. Slow and simple, against which the tracker is held.

use std::collections::{BTreeSet, VecDeque};

use switchmaster::session::replay::Replay;
use switchmaster::session::tracker::{Rules, Tracker};

// Named by its path, as the fuzz target includes this file from elsewhere.
#[path = "naive.rs"]
mod naive;

use naive::{
    Confirmed, Doubt, Incomplete, Whole, Words, announced, feed, is_one_of_the_few, is_one_read,
};
use naive::{reply, reply_code, request};

/// Requests of which streams are made.
const REQUESTS: &[&str] = &[
    "*1\r\n$4\r\nPING\r\n",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n\r\n*1\r\r\n",
    "*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n",
    "*2\r\n$6\r\nselect\r\n$1\r\n2\r\n",
    "*1\r\n$5\r\nMULTI\r\n",
    "*1\r\n$4\r\nEXEC\r\n",
    "*1\r\n$7\r\nDISCARD\r\n",
    "*2\r\n$5\r\nWATCH\r\n$1\r\nk\r\n",
    "*1\r\n$7\r\nUNWATCH\r\n",
    "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n",
    "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$2\r\npw\r\n",
    "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
    "*5\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nauth\r\n$1\r\nu\r\n$1\r\np\r\n",
    "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$1\r\nn\r\n",
    "*3\r\n$6\r\nCLIENT\r\n$8\r\nNO-EVICT\r\n$2\r\nON\r\n",
    "client setname 'm\\'' \r\n",
    "\"SELECT\" \"\\x33\"\n",
    "RESET\r\n",
    "QUIT\r\n",
    "get k\n",
    "\r\n",
    "*0\r\n",
    "*-1\r\n",
    // From here on they retire.
    "CLIENT ID\r\n",
    "CLIENT REPLY OFF\r\n",
    "SUBSCRIBE a\r\n",
    "\"multi\\x00x\" a\n",
];
/// The last ones of these.
const RETIRING: usize = 4;
/// Replies of which streams are made.
const REPLIES: &[&str] = &[
    "+OK\r\n",
    "+OK\r\n",
    "+OK\r\n",
    "+QUEUED\r\n",
    "-ERR no\r\n",
    "-EXECABORT x\r\n",
    "$5\r\n+OK\r\n\r\n",
    "*2\r\n:1\r\n*1\r\n$-1\r\n",
    "%1\r\n+a\r\n#t\r\n",
    ">2\r\n+a\r\n:1\r\n",
    "|1\r\n+k\r\n+v\r\n+OK\r\n",
    "*-1\r\n",
    "!3\r\nERR\r\n",
];

/// With `pubsub = "move"` there are these, too.
const FEED_REQUESTS: &[&str] = &[
    "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n",
    "subscribe a b\r\n",
    "PSUBSCRIBE a\r\n",
    "SSUBSCRIBE b\r\n",
    "UNSUBSCRIBE\r\n",
    "UNSUBSCRIBE a c\r\n",
    "PUNSUBSCRIBE a\r\n",
    "SUNSUBSCRIBE\r\n",
];
const FEED_REPLIES: &[&str] = &[
    TRUTH,
    TRUTH,
    TRUTH,
    "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$9\r\nsubscribe\r\n",
    ">4\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\na\r\n$1\r\nx\r\n",
    "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
    ">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n",
];
/// With `resend_reads` there is this, too.
const READ: &str = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n";
/// Stands for what a server says to the oldest request, if it changes subscriptions.
const TRUTH: &str = "";

/// Plays a stream that is drawn from these bytes to a tracker and to the model, and holds them against each other after each piece.
pub(crate) fn play(data: &[u8]) {
    let mut data = data.iter().copied();
    let flags = data.next().unwrap_or(0);
    let rules = Rules {
        login: flags & 1 != 0,
        replay_auth: flags & 2 == 0,
        pubsub: flags & 8 != 0,
        resend_reads: flags & 16 != 0,
    };
    // In an orderly stream a reply comes when one is due, nothing is torn, and nobody leaves the track by intent: it
    // goes on for longer.
    let orderly = flags & 4 != 0;
    let mut requests = REQUESTS.to_vec();
    let mut replies = REPLIES.to_vec();
    if orderly {
        requests.truncate(REQUESTS.len() - RETIRING);
    }
    if rules.pubsub {
        requests.extend(FEED_REQUESTS);
        replies.extend(FEED_REPLIES);
    }
    if rules.resend_reads {
        requests.push(READ);
    }
    let mut tracker = Tracker::new(rules);
    let mut model = Model::new(rules);
    let (mut client, mut master) = (Vec::new(), Vec::new());
    while let Some(what) = data.next() {
        let pick = |list: &[&str], n: u8| list[usize::from(n) % list.len()].as_bytes().to_vec();
        match what {
            0..80 => client.extend(pick(&requests, what)),
            80..160 if orderly && !(master.is_empty() && model.owes()) => {}
            80..160 => match pick(&replies, what) {
                truth if truth.is_empty() => master.extend(model.truth()),
                reply => master.extend(reply),
            },
            160..176 if model.is_repeatable() => {
                assert_eq!(tracker.take_back(), model.take_back());
                assert_eq!(tracker.movable(), Ok(()));
            }
            160..176 if orderly => {}
            160..168 => client.extend(data.by_ref().take(usize::from(what - 159))),
            168..176 => master.extend(data.by_ref().take(usize::from(what - 167))),
            176..216 => {
                let n = client.len().min(usize::from(what - 175));
                let piece: Vec<u8> = client.drain(..n).collect();
                tracker.client_bytes(&piece);
                model.client_bytes(&piece);
            }
            _ => {
                let n = master.len().min(usize::from(what - 215));
                let piece: Vec<u8> = master.drain(..n).collect();
                let _ = tracker.master_bytes(&piece);
                model.master_bytes(&piece);
            }
        }
        model.agrees(&tracker);
    }
    tracker.client_bytes(&client);
    model.client_bytes(&client);
    model.agrees(&tracker);
    let _ = tracker.master_bytes(&master);
    model.master_bytes(&master);
    model.agrees(&tracker);
}

struct Model {
    rules: Rules,
    client: Vec<u8>,
    master: Vec<u8>,
    waiting: VecDeque<Words>,
    retired: bool,
    transaction: bool,
    watching: bool,
    left: bool,
    proto: Option<Vec<u8>>,
    login: Option<(Option<Vec<u8>>, Vec<u8>)>,
    name: Vec<u8>,
    db: Vec<u8>,
    no_evict: bool,
    /// First letter of the command, and name.
    subscribed: BTreeSet<(u8, Vec<u8>)>,
    /// How much of the oldest request, which changes subscriptions, was confirmed.
    confirmed: usize,
    /// The value that is being read began when nothing was listened for.
    torn: bool,
    /// The read that may be sent again.
    read: Vec<u8>,
    /// It was taken back; it was sent again.
    taken: bool,
    again: bool,
}

impl Model {
    fn new(rules: Rules) -> Self {
        Self {
            rules,
            client: Vec::new(),
            master: Vec::new(),
            waiting: VecDeque::new(),
            retired: false,
            transaction: false,
            watching: false,
            left: false,
            proto: None,
            login: None,
            name: Vec::new(),
            db: b"0".to_vec(),
            no_evict: false,
            subscribed: BTreeSet::new(),
            confirmed: 0,
            torn: false,
            read: Vec::new(),
            taken: false,
            again: false,
        }
    }

    fn is_repeatable(&self) -> bool {
        let kept = !(self.read.is_empty() || self.again || self.retired);
        kept && self.waiting.len() == 1 && self.is_still()
    }

    fn take_back(&mut self) -> Vec<u8> {
        self.waiting.clear();
        self.taken = true;
        std::mem::take(&mut self.read)
    }

    /// Nothing but requests in flight stands against a move.
    fn is_still(&self) -> bool {
        let held = self.login.is_some() && !self.rules.replay_auth;
        let bound = self.transaction || self.watching || self.left || held;
        self.client.is_empty() && self.master.is_empty() && !bound
    }

    /// A reply is due, and none is on its way.
    fn owes(&self) -> bool {
        !self.waiting.is_empty() && self.master.is_empty()
    }

    fn agrees(&self, tracker: &Tracker) {
        assert_eq!(tracker.retired().is_some(), self.retired, "{tracker:?}");
        if self.retired {
            return;
        }
        assert_eq!(tracker.in_flight() as usize, self.waiting.len());
        assert_eq!(tracker.is_repeatable(), self.is_repeatable());
        let held = self.login.is_some() && !self.rules.replay_auth;
        let movable = self.waiting.is_empty() && self.is_still();
        assert_eq!(
            tracker.movable().is_ok(),
            movable,
            "{:?}",
            tracker.movable()
        );
        if held {
            return;
        }
        let replay = Replay::new(tracker.journal(), None);
        let request = replay.map_or(Vec::new(), |replay| replay.request().to_vec());
        assert_eq!(
            request.escape_ascii().to_string(),
            self.replay().escape_ascii().to_string()
        );
    }

    fn replay(&self) -> Vec<u8> {
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        if let Some(proto) = &self.proto {
            let mut hello: Vec<&[u8]> = vec![b"HELLO", proto];
            if let Some((user, password)) = &self.login {
                hello.extend([
                    b"AUTH",
                    user.as_deref().unwrap_or(b"default"),
                    &password[..],
                ]);
            }
            if !self.name.is_empty() {
                hello.extend([&b"SETNAME"[..], &self.name]);
            }
            commands.push(hello);
        } else {
            if let Some((user, password)) = &self.login {
                let mut auth: Vec<&[u8]> = vec![b"AUTH"];
                auth.extend(user.as_deref());
                auth.push(password);
                commands.push(auth);
            }
            if !self.name.is_empty() {
                commands.push(vec![b"CLIENT", b"SETNAME", &self.name]);
            }
        }
        if self.db != b"0" {
            commands.push(vec![b"SELECT", &self.db]);
        }
        if self.no_evict {
            commands.push(vec![b"CLIENT", b"NO-EVICT", b"ON"]);
        }
        if commands.is_empty() && self.subscribed.is_empty() {
            return Vec::new();
        }
        commands.push(vec![b"ROLE"]);
        let feeds: [(u8, &[u8]); 3] = [
            (b'U', b"SUBSCRIBE"),
            (b'P', b"PSUBSCRIBE"),
            (b'S', b"SSUBSCRIBE"),
        ];
        for (feed, word) in feeds {
            let names: Vec<&[u8]> = self.names(feed).collect();
            if !names.is_empty() {
                commands.push([&[word], &names[..]].concat());
            }
        }
        let mut out = Vec::new();
        for command in commands {
            out.extend(format!("*{}\r\n", command.len()).bytes());
            for word in command {
                out.extend(format!("${}\r\n", word.len()).bytes());
                out.extend(word);
                out.extend(b"\r\n");
            }
        }
        out
    }

    fn client_bytes(&mut self, bytes: &[u8]) {
        if self.rules.resend_reads && !bytes.is_empty() {
            let alone = self.waiting.is_empty() && self.client.is_empty();
            let kept = alone && bytes.len() <= 1024 && is_one_read(bytes);
            self.read = if kept { bytes.to_vec() } else { Vec::new() };
            self.again = std::mem::take(&mut self.taken);
        }
        self.client.extend(bytes);
        while !self.retired && !self.client.is_empty() {
            match request(&self.client) {
                Incomplete => return,
                Doubt => self.retired = true,
                Whole((words, used)) => {
                    self.client.drain(..used);
                    if !words.is_empty() {
                        self.asked(words);
                    }
                }
            }
        }
    }

    fn asked(&mut self, words: Words) {
        let upper: Vec<String> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).to_uppercase())
            .collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let long = matches!(upper[0], "CLIENT" | "AUTH" | "HELLO" | "SELECT")
            && words[1..].iter().map(Vec::len).sum::<usize>() > 1024;
        let listened = self.listens();
        let feeds = feed(&words).is_some();
        self.retired = long
            || (feeds && !self.rules.pubsub)
            || matches!(
                upper[0],
                "MONITOR" | "SYNC" | "PSYNC" | "REPLCONF" | "ASKING"
            )
            || matches!(upper[..], ["SCRIPT", sub, ..] if sub.starts_with("DEBUG") || words[1].len() > 1024)
            || (matches!(upper[..], ["CLIENT", "REPLY", ..])
                && !matches!(upper[..], ["CLIENT", "REPLY", "ON"]));
        let changes = matches!(
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
        );
        let before = self.waiting.iter().filter(|words| is_one_of_the_few(words));
        self.torn |= feeds && !listened && !self.master.is_empty();
        self.retired |= (changes || feeds) && is_one_of_the_few(&words) && before.count() >= 64;
        self.waiting.push_back(words);
    }

    fn master_bytes(&mut self, bytes: &[u8]) {
        self.master.extend(bytes);
        while !self.retired && !self.master.is_empty() {
            match reply(&self.master) {
                Incomplete => return,
                Doubt => self.retired = true,
                Whole((kind, used)) => {
                    let first: Vec<u8> = self.master.drain(..used).collect();
                    if self.listens() && self.heard(kind, &first) {
                        continue;
                    }
                    if kind == b'>' {
                        continue;
                    }
                    match self.waiting.pop_front() {
                        None => self.retired = true,
                        Some(words) => self.answered(&words, kind, &first),
                    }
                }
            }
        }
    }

    fn names(&self, feed: u8) -> impl Iterator<Item = &[u8]> {
        let of_kind = self
            .subscribed
            .iter()
            .filter(move |(kind, _)| *kind == feed);
        of_kind.map(|(_, name)| &name[..])
    }

    /// As servers count: channels and patterns together.
    fn count(&self, feed: u8) -> usize {
        match feed {
            b'S' => self.names(b'S').count(),
            _ => self.names(b'U').count() + self.names(b'P').count(),
        }
    }

    fn listens(&self) -> bool {
        let feeds = self.waiting.iter().any(|words| feed(words).is_some());
        self.rules.pubsub && (feeds || !self.subscribed.is_empty())
    }

    /// What a server that is honest says next to the oldest request, if that changes subscriptions.
    fn truth(&self) -> Vec<u8> {
        let Some((word, of)) = self.waiting.front().and_then(feed).filter(|_| self.owes()) else {
            return Vec::new();
        };
        let arguments = &self.waiting[0][1..];
        let name = match arguments.get(self.confirmed) {
            Some(name) => Some(&name[..]),
            None if arguments.is_empty() && word.contains("UN") => self.names(of).next(),
            None => return b"-ERR wrong\r\n".to_vec(),
        };
        let mut after = self.subscribed.clone();
        if let Some(name) = name {
            if word.contains("UN") {
                after.remove(&(of, name.to_vec()));
            } else {
                after.insert((of, name.to_vec()));
            }
        }
        let of_same = |kind: u8| (kind == b'S') == (of == b'S');
        let count = after.iter().filter(|(kind, _)| of_same(*kind)).count();
        let kind = if self.speaks_three() { '>' } else { '*' };
        let word = word.to_lowercase();
        let mut out = format!("{kind}3\r\n${}\r\n{word}\r\n", word.len()).into_bytes();
        match name {
            Some(name) => {
                out.extend(format!("${}\r\n", name.len()).bytes());
                out.extend(name);
                out.extend(b"\r\n");
            }
            None => out.extend(b"$-1\r\n"),
        }
        out.extend(format!(":{count}\r\n").bytes());
        out
    }

    fn speaks_three(&self) -> bool {
        self.proto.as_deref() == Some(b"3")
    }

    /// True if it is no reply, or was dealt with.
    fn heard(&mut self, kind: u8, value: &[u8]) -> bool {
        let error = matches!(kind, b'-' | b'!');
        let torn = std::mem::take(&mut self.torn);
        let said = Some(value).filter(|_| !torn && !error).and_then(announced);
        let front = self.waiting.front().and_then(feed);
        let unasked = if self.speaks_three() {
            kind == b'>'
        } else {
            kind != b'>' && !self.subscribed.is_empty()
        };
        match said {
            Some((word, _)) if unasked && word.ends_with("MESSAGE") => return true,
            Some((word, rest))
                if front.as_ref().is_some_and(|(asked, _)| *asked == word)
                    && self.speaks_three() == (kind == b'>') =>
            {
                self.confirm(&word, rest);
                return true;
            }
            Some((word, _)) if unasked && word.ends_with("SUBSCRIBE") => {
                self.retired = true;
                return true;
            }
            _ => {}
        }
        let answers = front.is_some() && kind != b'>';
        self.retired |= answers && (!error || self.confirmed > 0);
        self.retired
    }

    fn confirm(&mut self, word: &str, rest: Option<Confirmed>) {
        let (_, of) = feed(&self.waiting[0]).expect("the caller looked");
        let ends = word.contains("UN");
        let said = rest.as_ref().map(|(_, count)| *count);
        match rest {
            Some((Some(name), _)) if ends => drop(self.subscribed.remove(&(of, name))),
            Some((None, _)) if ends => {}
            Some((Some(name), _)) => drop(self.subscribed.insert((of, name))),
            _ => self.retired = true,
        }
        self.confirmed += 1;
        let arguments = self.waiting[0].len() - 1;
        let done = match arguments {
            0 => self.names(of).next().is_none(),
            _ => self.confirmed == arguments,
        };
        self.retired |= arguments == 0 && !ends;
        self.retired |= Some(self.count(of)) != said;
        if done {
            self.waiting.pop_front();
            self.confirmed = 0;
        }
    }

    fn answered(&mut self, words: &Words, kind: u8, reply: &[u8]) {
        let ok = !matches!(kind, b'-' | b'!');
        let upper: Vec<String> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word).to_uppercase())
            .collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let queued = self.transaction;
        match upper[..] {
            ["MULTI", ..] if ok => self.transaction = true,
            ["EXEC", ..] if ok || reply_code(reply) == b"EXECABORT" => self.end(),
            ["DISCARD", ..] if ok => self.end(),
            ["WATCH", ..] if ok => self.watching = true,
            ["UNWATCH", ..] if ok && !queued => self.watching = false,
            ["QUIT", ..] if ok => self.left = true,
            ["RESET", ..] if ok => {
                if self.no_evict || self.rules.login {
                    self.retired = true;
                } else {
                    *self = Self {
                        left: self.left,
                        client: std::mem::take(&mut self.client),
                        master: std::mem::take(&mut self.master),
                        waiting: std::mem::take(&mut self.waiting),
                        read: std::mem::take(&mut self.read),
                        taken: self.taken,
                        again: self.again,
                        ..Self::new(self.rules)
                    };
                }
            }
            ["HELLO", _, _, ..] if !ok => self.retired = true,
            _ if !ok => {}
            ["SELECT" | "AUTH" | "HELLO", _, ..] if queued => self.retired = true,
            ["CLIENT", "SETNAME" | "NO-EVICT", _] if queued => self.retired = true,
            ["SELECT", db] => {
                self.retired =
                    db.parse::<u32>().is_err() || (db != "0" && db.starts_with(['0', '+']));
                self.db.clone_from(&words[1]);
            }
            ["SELECT", ..] => self.retired = true,
            ["AUTH", _] => self.login = Some((None, words[1].clone())),
            ["AUTH", _, _] => self.login = Some((Some(words[1].clone()), words[2].clone())),
            ["AUTH", ..] => self.retired = true,
            ["HELLO"] => {}
            ["HELLO", "2" | "3"] => self.proto = Some(words[1].clone()),
            ["HELLO", "2" | "3", "AUTH", _, _] => {
                self.proto = Some(words[1].clone());
                self.login = Some((Some(words[3].clone()), words[4].clone()));
            }
            ["HELLO", ..] => self.retired = true,
            ["CLIENT"] | ["CLIENT", "GETNAME", ..] => {}
            ["CLIENT", "SETNAME", _] => self.name.clone_from(&words[2]),
            ["CLIENT", "NO-EVICT", on @ ("ON" | "OFF")] => self.no_evict = on == "ON",
            ["CLIENT", "REPLY", ..] | ["CLIENT", "TRACKING", "OFF", ..] => {}
            ["CLIENT", ..] => self.retired = true,
            _ => {}
        }
    }

    fn end(&mut self) {
        self.transaction = false;
        self.watching = false;
    }
}
