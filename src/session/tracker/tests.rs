//! Each command that changes a session, each reason to retire, and what is replayed.

use super::*;
use crate::resp::Doubt;
use crate::resp::command::Login;
use crate::session::replay::{Answer, Failure, Replay, Step};

pub(super) const RULES: Rules = Rules {
    login: false,
    replay_auth: true,
    pubsub: false,
    resend_reads: false,
};
pub(super) const OK: &str = "+OK\r\n";
pub(super) const ERR: &str = "-ERR no\r\n";

fn tracker() -> Tracker {
    Tracker::new(RULES)
}

/// A command in its array form, from words divided by spaces.
pub(super) fn array(command: &str) -> Vec<u8> {
    let words: Vec<&str> = command.split(' ').collect();
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

impl Tracker {
    /// A command and its reply.
    pub(super) fn says(&mut self, command: &str, reply: &str) -> &mut Self {
        self.client_bytes(&array(command));
        let _ = self.master_bytes(reply.as_bytes());
        self
    }

    pub(super) fn replayed(&self) -> String {
        let replay = Replay::new(&self.journal, None);
        let bytes = replay.map(|replay| replay.request().to_vec());
        // Without lengths and line ends it is the words that were given.
        String::from_utf8(bytes.unwrap_or_default())
            .expect("these tests write text")
            .lines()
            .filter(|line| !line.starts_with('$'))
            .map(|line| if line.starts_with('*') { ";" } else { line })
            .collect::<Vec<_>>()
            .join(" ")
    }
}

#[test]
fn a_tracker_is_small() {
    let size = size_of::<Tracker>();
    assert!(size <= 256, "{size} bytes for each session");
}

#[test]
fn requests_in_flight_are_counted() {
    let mut t = tracker();
    assert_eq!(t.movable(), Ok(()));
    t.client_bytes(b"*1\r\n$4\r\nPI");
    assert_eq!(t.movable(), Err(WhyNot::MidRequest));
    t.client_bytes(b"NG\r\nping\r\n\r\n*0\r\n");
    assert_eq!(t.movable(), Err(WhyNot::InFlight(2)));
    assert_eq!(t.master_bytes(b"+PONG\r\n>1\r\n:1\r\n"), Sight::Nothing);
    assert_eq!(t.movable(), Err(WhyNot::InFlight(1)));
    assert_eq!(t.master_bytes(b"+PONG\r\n>1\r\n"), Sight::Nothing);
    assert_eq!(t.movable(), Err(WhyNot::MidReply));
    assert_eq!(t.master_bytes(b":1\r\n"), Sight::Nothing);
    assert_eq!(t.movable(), Ok(()));
}

#[test]
fn what_was_accepted_is_kept_and_what_was_refused_is_not() {
    let cases = [
        ("SELECT 3", "; SELECT 3 ; ROLE"),
        ("AUTH pw", "; AUTH pw ; ROLE"),
        ("AUTH me pw", "; AUTH me pw ; ROLE"),
        ("HELLO 3", "; HELLO 3 ; ROLE"),
        ("hello 2 setname n", "; HELLO 2 SETNAME n ; ROLE"),
        (
            "HELLO 3 SETNAME n AUTH me pw",
            "; HELLO 3 AUTH me pw SETNAME n ; ROLE",
        ),
        ("CLIENT SETNAME n", "; CLIENT SETNAME n ; ROLE"),
        (
            "client setinfo lib-name l",
            "; CLIENT SETINFO LIB-NAME l ; ROLE",
        ),
        (
            "CLIENT SETINFO LIB-VER 1",
            "; CLIENT SETINFO LIB-VER 1 ; ROLE",
        ),
        ("CLIENT NO-EVICT on", "; CLIENT NO-EVICT ON ; ROLE"),
        ("CLIENT NO-TOUCH ON", "; CLIENT NO-TOUCH ON ; ROLE"),
        ("CLIENT CAPA redirect x", "; CLIENT CAPA redirect x ; ROLE"),
        ("READONLY", "; READONLY ; ROLE"),
        // No change, or back to the default.
        ("SELECT 0", ""),
        ("HELLO", ""),
        ("CLIENT SETNAME ", ""),
        ("CLIENT NO-EVICT OFF", ""),
        ("READWRITE", ""),
        ("CLIENT GETNAME", ""),
        ("CLIENT REPLY ON", ""),
        ("CLIENT TRACKING OFF", ""),
        ("SCRIPT LOAD return", ""),
        ("FAILOVER", ""),
        ("WAIT 0 0", ""),
    ];
    for (command, replay) in cases {
        let mut t = tracker();
        t.client_bytes(&array(command));
        assert_eq!(t.replayed(), "", "{command}: not before its reply");
        let _ = t.master_bytes(OK.as_bytes());
        assert_eq!(t.movable(), Ok(()), "{command}");
        assert_eq!(t.replayed(), replay, "{command}");
        let mut t = tracker();
        t.says(command, ERR);
        assert_eq!(t.replayed(), "", "{command} refused");
        // The same inline, and byte by byte.
        let mut t = tracker();
        for byte in format!("{command}\r\n").bytes() {
            t.client_bytes(&[byte]);
        }
        let _ = t.master_bytes(OK.as_bytes());
        if !command.ends_with(' ') {
            assert_eq!(t.replayed(), replay, "{command} inline");
        }
    }
}

#[test]
fn only_a_connection_that_nothing_is_left_on_is_anothers() {
    let cases: &[Case<'_, bool>] = &[
        Case(&[], true),
        Case(&[("PING", "+PONG\r\n")], true),
        Case(&[("SELECT 1", OK)], false),
        Case(&[("SELECT 1", OK), ("SELECT 0", OK)], true),
        Case(&[("MULTI", OK)], false),
        Case(&[("MULTI", OK), ("EXEC", "*0\r\n")], true),
        Case(&[("AUTH pw", OK)], false),
        Case(&[("AUTH pw", ERR)], true),
        Case(&[("PING", "")], false),
        Case(&[("QUIT", OK)], false),
        // Its id was shown.
        Case(&[("HELLO", "*0\r\n")], false),
        Case(&[("HELLO 3", "%0\r\n"), ("RESET", "+RESET\r\n")], false),
    ];
    for Case(dialogue, expected) in cases {
        let mut t = tracker();
        for (command, reply) in *dialogue {
            t.says(command, reply);
        }
        assert_eq!(t.is_spotless(), *expected, "{dialogue:?}");
    }
}

#[test]
fn pipelined_settings_are_accepted_one_by_one() {
    let mut t = tracker();
    for command in ["SELECT 1", "GET k", "SELECT 2", "SELECT 3", "GET k"] {
        t.client_bytes(&array(command));
    }
    for (reply, replay) in [
        (OK, "; SELECT 1 ; ROLE"),
        ("$-1\r\n", "; SELECT 1 ; ROLE"),
        (OK, "; SELECT 2 ; ROLE"),
        (ERR, "; SELECT 2 ; ROLE"),
        ("$-1\r\n", "; SELECT 2 ; ROLE"),
    ] {
        assert!(t.movable().is_err());
        let _ = t.master_bytes(reply.as_bytes());
        assert_eq!(t.replayed(), replay);
    }
    assert_eq!(t.movable(), Ok(()));
}

#[test]
fn the_last_value_counts() {
    let mut t = tracker();
    t.says("HELLO 3 AUTH a b SETNAME c", "%0\r\n")
        .says("AUTH d", OK);
    t.says("CLIENT SETNAME e", OK).says("CLIENT CAPA x", OK);
    t.says("CLIENT CAPA y X", OK).says("HELLO 2", "*0\r\n");
    let last = "; HELLO 2 AUTH default d SETNAME e ; CLIENT CAPA x y ; ROLE";
    assert_eq!(t.replayed(), last);
}

/// Commands with their replies, and what comes of it.
pub(super) struct Case<'a, T>(pub(super) &'a [(&'a str, &'a str)], pub(super) T);

#[test]
fn transactions_and_watched_keys_stay_where_they_are() {
    use WhyNot::{InTransaction, Watching};
    let cases: &[Case<'_, Result<(), WhyNot>>] = &[
        Case(&[("MULTI", OK)], Err(InTransaction)),
        Case(&[("MULTI", ERR)], Ok(())),
        Case(&[("MULTI", OK), ("EXEC", "*0\r\n")], Ok(())),
        Case(&[("MULTI", OK), ("EXEC", "_\r\n")], Ok(())),
        Case(&[("MULTI", OK), ("EXEC", "-EXECABORT x\r\n")], Ok(())),
        Case(&[("MULTI", OK), ("EXEC", ERR)], Err(InTransaction)),
        Case(&[("MULTI", OK), ("DISCARD", OK)], Ok(())),
        Case(&[("WATCH k", OK)], Err(Watching)),
        Case(&[("WATCH k", OK), ("UNWATCH", OK)], Ok(())),
        Case(&[("WATCH k", OK), ("EXEC", ERR)], Err(Watching)),
        Case(&[("WATCH k", OK), ("MULTI", OK), ("DISCARD", OK)], Ok(())),
        Case(&[("WATCH k", OK), ("RESET", "+RESET\r\n")], Ok(())),
        Case(
            &[("MULTI", OK), ("UNWATCH", "+QUEUED\r\n")],
            Err(InTransaction),
        ),
        Case(&[("MULTI", OK), ("SELECT 99", ERR)], Err(InTransaction)),
        Case(&[("MULTI", OK), ("RESET", "+RESET\r\n")], Ok(())),
    ];
    for Case(dialogue, expected) in cases {
        let mut t = tracker();
        for (command, reply) in *dialogue {
            t.says(command, reply);
        }
        assert_eq!(t.movable(), *expected, "{dialogue:?}");
    }
}

#[test]
fn each_reason_to_retire() {
    use Retire::*;
    let long = format!("AUTH {}", "x".repeat(1025));
    let script = format!("SCRIPT LOAD {}", "x".repeat(2000));
    let no_script = format!("SCRIPT {}", "x".repeat(2000));
    let queued = "+QUEUED\r\n";
    let cases: &[Case<'_, Option<Retire>>] = &[
        Case(&[("SUBSCRIBE a", "")], Some(Subscribed)),
        Case(&[("PSUBSCRIBE a", "")], Some(Subscribed)),
        Case(&[("SSUBSCRIBE a", "")], Some(Subscribed)),
        Case(&[("UNSUBSCRIBE", "")], Some(Subscribed)),
        Case(&[("PUNSUBSCRIBE", "")], Some(Subscribed)),
        Case(&[("SUNSUBSCRIBE", "")], Some(Subscribed)),
        Case(&[("MONITOR", "")], Some(Monitoring)),
        Case(&[("SYNC", "")], Some(Replicating)),
        Case(&[("PSYNC ? -1", "")], Some(Replicating)),
        Case(&[("REPLCONF capa x", "")], Some(Replicating)),
        Case(&[("SCRIPT debug YES", "")], Some(Debugging)),
        Case(&[("SCRIPT debug\0 YES", "")], Some(Debugging)),
        Case(&[("ASKING", "")], Some(Asking)),
        Case(&[("CLIENT REPLY OFF", "")], Some(RepliesOff)),
        Case(&[("CLIENT REPLY SKIP", "")], Some(RepliesOff)),
        Case(&[("CLIENT REPLY", "")], Some(RepliesOff)),
        Case(&[("CLIENT TRACKING ON", OK)], Some(Tracking)),
        Case(&[("CLIENT TRACKING ON", ERR)], None),
        Case(&[("CLIENT ID", ":1\r\n")], Some(IdShown)),
        Case(&[("CLIENT INFO", "$0\r\n\r\n")], Some(IdShown)),
        Case(&[("CLIENT LIST", "$0\r\n\r\n")], Some(IdShown)),
        Case(&[("CLIENT KILL ID 1", ":0\r\n")], Some(ClientCommand)),
        Case(
            &[("CLIENT MAINT_NOTIFICATIONS ON", OK)],
            Some(ClientCommand),
        ),
        Case(&[("CLIENT MAINT_NOTIFICATIONS ON", ERR)], None),
        Case(
            &[("HELLO 3 AUTH a b", "-WRONGPASS\r\n")],
            Some(HelloRefused),
        ),
        Case(&[("HELLO 3 SETNAME a", ERR)], Some(HelloRefused)),
        Case(&[("HELLO 3 NONSENSE", ERR)], Some(HelloRefused)),
        Case(&[("HELLO 3", "-NOAUTH\r\n")], None),
        Case(&[("HELLO 9", "%0\r\n")], Some(Unread)),
        Case(&[("SELECT x", OK)], Some(Unread)),
        Case(&[("SELECT x", ERR)], None),
        Case(&[("AUTH a b c", OK)], Some(Unread)),
        Case(&[("CLIENT NO-EVICT maybe", OK)], Some(Unread)),
        Case(
            &[("MULTI", OK), ("SELECT 1", queued)],
            Some(SetInTransaction),
        ),
        Case(&[("MULTI", OK), ("AUTH a", queued)], Some(SetInTransaction)),
        Case(&[("MULTI", OK), ("CLIENT ID", queued)], Some(IdShown)),
        Case(&[("CLIENT NO-EVICT ON", OK), ("RESET", OK)], Some(Reset)),
        Case(&[("CLIENT NO-TOUCH ON", OK), ("RESET", OK)], Some(Reset)),
        Case(&[("CLIENT CAPA x", OK), ("RESET", OK)], Some(Reset)),
        Case(&[("PING", "+PONG\r\n+PONG\r\n")], Some(Unasked)),
        Case(&[("PING", "$?\r\n")], Some(Streamed)),
        Case(&[("PING", "PONG")], Some(ReplyUnclear(Doubt::Type))),
        Case(&[(&long, "")], Some(TooLong)),
        Case(&[(&script, OK)], None),
        Case(&[(&no_script, "")], Some(TooLong)),
    ];
    for Case(dialogue, expected) in cases {
        let mut t = tracker();
        for (command, reply) in *dialogue {
            t.says(command, reply);
        }
        assert_eq!(t.retired(), *expected, "{:?}", dialogue.last());
        assert_eq!(t.movable().is_err(), expected.is_some());
        // Final, and deaf.
        t.says("SELECT 1", OK).says("PING", "+PONG\r\n+PONG\r\n");
        assert_eq!(t.retired(), expected.or(Some(Unasked)));
        assert!(t.journal().is_empty());
    }
    let mut t = tracker();
    t.client_bytes(b"*1\r\n+PING\r\n");
    assert_eq!(t.retired(), Some(RequestUnclear(Doubt::NotBulk)));
}

#[test]
fn limits_are_where_they_are_named() {
    let mut t = tracker();
    let queue = pending::PENDING_MAX;
    t.client_bytes(&array("SELECT 1").repeat(queue));
    assert_eq!(t.movable(), Err(WhyNot::InFlight(64)));
    t.client_bytes(&array("SELECT 1"));
    assert_eq!(t.retired(), Some(Retire::TooManyPending));
    // Text over all settings together.
    let mut t = tracker();
    let long = "x".repeat(600);
    t.says(&format!("CLIENT SETNAME {long}"), OK);
    assert_eq!(t.movable(), Ok(()));
    t.says(&format!("CLIENT SETINFO LIB-NAME {long}"), OK);
    assert_eq!(t.retired(), Some(Retire::TooLong));
}

#[test]
fn reset_leaves_a_new_connection_but_for_the_library() {
    let mut t = tracker();
    t.says("HELLO 3 AUTH a b SETNAME c", "%0\r\n")
        .says("SELECT 4", OK);
    t.says("CLIENT SETINFO LIB-NAME l", OK).says("READONLY", OK);
    t.says("RESET", "+RESET\r\n");
    assert_eq!(t.replayed(), "; CLIENT SETINFO LIB-NAME l ; ROLE");
    let mut t = Tracker::new(Rules {
        login: true,
        ..RULES
    });
    t.says("RESET", "+RESET\r\n");
    assert_eq!(t.retired(), Some(Retire::Reset));
}

#[test]
fn a_session_that_leaves_is_not_kept() {
    let mut t = tracker();
    t.client_bytes(&array("QUIT"));
    assert!(t.is_leaving());
    let _ = t.master_bytes(OK.as_bytes());
    assert_eq!((t.is_leaving(), t.movable()), (true, Err(WhyNot::Leaving)));
    let mut t = tracker();
    t.client_bytes(&array("SHUTDOWN"));
    assert!(t.is_leaving());
    let _ = t.master_bytes(ERR.as_bytes());
    assert_eq!((t.is_leaving(), t.movable()), (false, Ok(())));
}

#[test]
fn credentials_are_kept_only_where_that_is_allowed() {
    let rules = Rules {
        replay_auth: false,
        ..RULES
    };
    for command in ["AUTH pw", "HELLO 3 AUTH me pw"] {
        let mut t = Tracker::new(rules);
        t.says(command, ERR);
        assert_ne!(t.movable(), Err(WhyNot::NoCredentials));
        let mut t = Tracker::new(rules);
        t.says(command, OK);
        assert_eq!(t.movable(), Err(WhyNot::NoCredentials));
        assert!(!t.replayed().contains("pw"));
    }
}

#[test]
fn no_debug_shows_what_a_client_said() {
    let mut t = tracker();
    t.says("AUTH somebody s3cret", OK);
    t.client_bytes(&array("HELLO 3 AUTH somebody s3cret SETNAME s3cret"));
    t.client_bytes(b"*2\r\n$4\r\nAUTH\r\n$6\r\ns3cr");
    let replay = Replay::new(&t.journal, None).expect("there is a login");
    let shown = format!("{t:?} {replay:?} {:?}", replay.check());
    for secret in ["somebody", "s3cr", "115, 51"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_moved_session_may_not_wait() {
    let ping = array("PING");
    let wait = array("wait 1 0");
    let both = [&ping[..], &wait].concat();
    let mut t = tracker();
    assert_eq!(t.refuses(&both), None);
    t.moved();
    assert_eq!(t.refuses(&ping), None);
    assert_eq!(t.refuses(&both), Some((ping.len(), Refusal::Wait)));
    assert_eq!(t.refuses(b"WAITAOF 1 0 0\n"), Some((0, Refusal::Wait)));
    // In pieces, and inside a transaction.
    t.client_bytes(&wait[..9]);
    assert_eq!(t.refuses(&wait[9..]), Some((0, Refusal::Wait)));
    // Also when it was retired since: requests are still read.
    let mut t = tracker();
    t.moved();
    t.says("CLIENT ID", ":1\r\n");
    assert_eq!(t.retired(), Some(Retire::IdShown));
    t.client_bytes(&ping[..7]);
    let rest = [&ping[7..], &wait].concat();
    assert_eq!(t.refuses(&rest), Some((ping.len() - 7, Refusal::Wait)));
    t.client_bytes(&ping[7..]);
    assert_eq!(t.refuses(b"*1\r\n:1\r\n"), Some((0, Refusal::Unclear)));
    t.client_bytes(b"*1\r\n:");
    assert_eq!(t.refuses(b"1"), Some((0, Refusal::Unclear)));
}

#[test]
fn what_is_not_written_yet_divides_into_requests() {
    let mut t = tracker();
    t.client_bytes(b"*1\r\n$4\r\n");
    assert!(!t.at_request_boundary());
    let outlook = t.outlook(b"PING\r\n\r\nPING\r\nPI");
    assert_eq!((outlook.first, outlook.last), (Some(6), 14));
    let outlook = t.outlook(b"PIN");
    assert_eq!((outlook.first, outlook.last), (None, 0));
    let t = tracker();
    let requests: Vec<_> = t
        .ahead(b"PING\r\n\nMULTI\nGET a\nGE")
        .map(|request| request.expect("well formed").request)
        .collect();
    use Request::{Ordinary, Silent};
    let multi = Request::Command(Command::Multi);
    assert_eq!(requests, [Ordinary, Silent, multi, Ordinary]);
}

#[test]
fn a_refusal_as_a_replica_is_a_reason_to_look() {
    for (reply, sight) in [
        ("-READONLY You can't write\r\n", Sight::NotMaster),
        ("-REDIRECT 127.0.0.1:1\r\n", Sight::NotMaster),
        ("-ERR READONLY\r\n", Sight::Nothing),
        ("$8\r\nREADONLY\r\n", Sight::Nothing),
    ] {
        let mut t = tracker();
        t.client_bytes(&array("SET k v"));
        assert_eq!(t.master_bytes(reply.as_bytes()), sight, "{reply}");
    }
}

#[test]
fn a_replay_is_judged_by_its_replies() {
    let mut t = tracker();
    t.says("AUTH me pw", OK)
        .says("CLIENT SETINFO LIB-NAME l", OK);
    t.says("SELECT 1", OK);
    let master = "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    let slave = "*5\r\n$5\r\nslave\r\n$1\r\nh\r\n:1\r\n$9\r\nconnected\r\n:0\r\n";
    let unknown = "-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n";
    let done = Answer::Done;
    let failed = Answer::Failed;
    let cases = [
        ([OK, OK, OK, master], done),
        ([OK, unknown, OK, master], done),
        ([OK, OK, OK, "-NOPERM x\r\n"], done),
        ([OK, OK, OK, "-NOAUTH x\r\n"], done),
        ([OK, OK, OK, slave], failed(Failure::NotMaster)),
        ([OK, OK, OK, "+master\r\n"], failed(Failure::NotMaster)),
        (
            [OK, OK, unknown, master],
            failed(Failure::Refused(Step::Select)),
        ),
        (
            [OK, ERR, OK, master],
            failed(Failure::Refused(Step::LibInfo)),
        ),
        (
            ["-WRONGPASS x\r\n", OK, OK, master],
            failed(Failure::Denied(Step::Auth)),
        ),
        (
            [OK, OK, "-NOPERM x\r\n", master],
            failed(Failure::Denied(Step::Select)),
        ),
        (
            [OK, OK, "-LOADING x\r\n", master],
            failed(Failure::NotReady(Step::Select)),
        ),
        (
            ["-ERR max number of clients reached\r\n", "", "", ""],
            failed(Failure::TooManyClients),
        ),
        (
            ["HTTP/1.1", "", "", ""],
            failed(Failure::Unclear(Doubt::Type)),
        ),
        (
            [OK, OK, OK, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n+OK\r\n"],
            failed(Failure::Unasked),
        ),
        (
            [OK, OK, OK, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n+"],
            failed(Failure::Unasked),
        ),
        ([OK, OK, OK, "*3\r\n$6\r\nmaster\r\n:0\r\n"], Answer::NotYet),
        ([">1\r\n+x\r\n", OK, "+OK\r\n+OK\r\n", master], done),
    ];
    for (replies, expected) in cases {
        let replay = Replay::new(t.journal(), None).expect("there is something");
        let bytes = replies.concat().into_bytes();
        assert_eq!(replay.check().take(&bytes), expected, "{replies:?}");
        let mut check = replay.check();
        let mut last = Answer::NotYet;
        for byte in &bytes {
            last = check.take(&[*byte]);
            // What is done early is over; a later byte is then one too many.
            if last == Answer::Done && expected != done {
                continue;
            }
        }
        assert_eq!(last, expected, "{replies:?} byte by byte");
    }
}

#[test]
fn the_proxys_own_login_comes_first_unless_the_client_logged_in() {
    let login = Login {
        user: Some(b"svc"),
        password: b"pw",
    };
    let sent = |t: &Tracker| {
        Replay::new(t.journal(), Some(login))
            .map(|replay| String::from_utf8_lossy(replay.request()).into_owned())
            .unwrap_or_default()
    };
    let mut t = tracker();
    assert!(Replay::new(t.journal(), None).is_none());
    assert!(sent(&t).starts_with("*3\r\n$4\r\nAUTH\r\n$3\r\nsvc\r\n$2\r\npw\r\n*1\r\n$4\r\nROLE"));
    t.says("HELLO 3", "%0\r\n");
    assert!(sent(&t).contains("svc\r\n$2\r\npw\r\n*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"));
    t.says("AUTH own", OK);
    assert!(!sent(&t).contains("svc"));
}

#[test]
fn retire_reasons_have_their_own_index_and_word() {
    use std::collections::HashSet;
    let doubt = Doubt::Type;
    let all = [
        Retire::RequestUnclear(doubt),
        Retire::ReplyUnclear(doubt),
        Retire::Streamed,
        Retire::TooManyPending,
        Retire::TooLong,
        Retire::Unread,
        Retire::Unasked,
        Retire::RepliesOff,
        Retire::Tracking,
        Retire::IdShown,
        Retire::ClientCommand,
        Retire::Subscribed,
        Retire::Monitoring,
        Retire::Replicating,
        Retire::Debugging,
        Retire::Asking,
        Retire::Reset,
        Retire::SetInTransaction,
        Retire::HelloRefused,
    ];
    assert_eq!(all.len(), Retire::LABELS.len());
    let labels: HashSet<&str> = all.iter().map(|why| why.label()).collect();
    assert_eq!(labels.len(), Retire::LABELS.len());
    for (index, why) in all.into_iter().enumerate() {
        assert_eq!(why.index(), index);
    }
}
