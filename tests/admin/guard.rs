//! Who may act, and what is logged changed at run time.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchmaster::demo::wire::Conn;

use crate::actions::{TOKEN, act, acting, post, request};
use crate::harness::proxy::Plan;
use crate::harness::wait_until;
use crate::{NOBODY, PATIENCE, admin_of, ask, get, series, status, watched};

/// Somebody who is neither root nor the proxy's user.
const NOBODYS_UID: u32 = 65534;

#[test]
fn over_tcp_only_the_token_acts() {
    let proxy = acting(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin_of(&proxy);
    let pause = "/proxies/main/pause";
    for (headers, reason) in [
        ("", "no_token"),
        ("Authorization: Basic YTpi\r\n", "no_token"),
        (
            "Authorization: Bearer a-token-of-this-tesT\r\n",
            "wrong_token",
        ),
        ("Authorization: Bearer\r\n", "no_token"),
        ("Cookie: token=a-token-of-this-test\r\n", "no_token"),
    ] {
        let (code, head, why) = ask(admin, &request("POST", pause, headers, ""));
        assert_eq!(code, 401, "{headers}: {why}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(!why.contains(TOKEN), "{why}");
        let refused = proxy.event_where(0, "action_refused", PATIENCE, |fields| {
            fields["reason"] == reason
        });
        assert_eq!(refused.fields["level"], "WARN");
    }
    let (_, metrics) = get(admin, "/metrics");
    for (reason, count) in [("no_token", 4.0), ("wrong_token", 1.0), ("wrong_user", 0.0)] {
        let refused = format!("switchmaster_actions_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(series(&metrics, &refused), Some(count), "{metrics}");
    }
    assert_eq!(status(admin)["proxies"][0]["pause"], Value::Null);

    let (code, head, _) = ask(admin, &request("GET", pause, "", ""));
    assert_eq!(code, 405);
    assert!(head.to_ascii_lowercase().contains("allow: post"), "{head}");
    let (code, why) = post(admin, "/proxies/other/pause", "");
    assert_eq!(
        (code, why.as_str()),
        (404, "no such proxy. There is: main\n")
    );
    let (code, why) = post(admin, "/proxies/main/stop", "");
    assert_eq!(code, 404);
    assert!(why.contains("pause, resume, reconnect"), "{why}");
    for wrong in [
        "pause?for=5",
        "pause?for=2days",
        "pause?until=5s",
        "resume?for=5s",
    ] {
        assert_eq!(
            post(admin, &format!("/proxies/main/{wrong}"), "").0,
            400,
            "{wrong}"
        );
    }
    assert_eq!(post(admin, "/status", "").0, 405);
    // A browser that was led here by its name for a stranger's machine.
    let rebound = format!(
        "POST {pause} HTTP/1.1\r\nHost: rebound.example\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(ask(admin, &rebound).0, 421);
    // Before there is a master, too.
    assert_eq!(act(admin, "pause")["before"], "no_master");
    assert!(get(admin, "/readyz").1.starts_with("main: paused: "));
    assert!(!proxy.output().contains(TOKEN), "the token is in the log");
}

#[test]
fn actions_are_off_unless_somebody_allows_them() {
    let proxy = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin_of(&proxy);
    for path in ["/proxies/main/pause", "/log"] {
        let (code, why) = post(admin, path, "off");
        assert_eq!(code, 405);
        assert!(why.contains("actions = true"), "{why}");
    }
    assert_eq!(get(admin, "/log").0, 200);
    // Over TCP without a token it does not start.
    let mut open = watched(
        Plan::following(&[NOBODY.parse().expect("an address")])
            .env("SWITCHMASTER_ADMIN_ACTIONS", "true"),
    );
    assert_eq!(open.exit(PATIENCE).code(), Some(78));
    assert!(open.output().contains("token_file"), "{}", open.output());
}

/// What one request over a unix socket is answered; `uid`: by another process, as that user.
fn ask_unix(socket: &Path, uid: Option<u32>, request: &str) -> String {
    let Some(uid) = uid else {
        let mut stream = UnixStream::connect(socket).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        return answer;
    };
    let asks = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(10)\n\
                s.connect(sys.argv[1])\ns.sendall(sys.argv[2].encode())\n\
                while data := s.recv(65536): sys.stdout.buffer.write(data)";
    let output = Command::new("python3")
        .args(["-c", asks])
        .arg(socket)
        .arg(request)
        .uid(uid)
        .output()
        .expect("python3");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn over_a_unix_socket_the_user_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("admin.sock");
    let proxy = Plan::following(&[NOBODY.parse().expect("an address")])
        .env("SWITCHMASTER_ADMIN_ACTIONS", "true")
        .env(
            "SWITCHMASTER_ADMIN_LISTEN",
            format!("unix:{}", socket.display()),
        )
        .start();
    proxy.event("admin_listening", PATIENCE);
    let pause = request("POST", "/proxies/main/pause", "", "");
    let answer = ask_unix(&socket, None, &pause);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let paused = proxy.event("paused", PATIENCE);
    let own = rustix::process::geteuid().as_raw();
    assert_eq!(paused.text("by"), format!("uid {own}"));
    // Only root can be another user. Whom the socket's own permissions let in is still nobody who may act.
    if own == 0 {
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
        };
        open(dir.path(), 0o755);
        open(&socket, 0o666);
        let other = Some(NOBODYS_UID);
        let resume = request("POST", "/proxies/main/resume", "", "");
        let answer = ask_unix(&socket, other, &resume);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let refused = proxy.event("action_refused", PATIENCE);
        assert_eq!(refused.text("reason"), "wrong_user");
        assert_eq!(refused.fields["uid"], NOBODYS_UID);
        let looks = request("GET", "/readyz", "", "");
        assert!(ask_unix(&socket, other, &looks).contains("main: paused"));
    }
}

#[test]
fn what_is_logged_changes_for_a_while() {
    let proxy = acting(Plan::following(&[NOBODY.parse().expect("an address")]));
    let admin = admin_of(&proxy);
    // A client that leaves is told at debug only.
    let leaves = || drop(Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens"));
    let closed = |mark| proxy.events(mark, "session_closed").len();
    let is = || get(admin, "/log").1;
    assert_eq!(is(), r#"{"filter":"info","configured":"info"}"#);
    let mark = proxy.mark();
    let (code, why) = post(admin, "/log", "debgu");
    assert_eq!(code, 400);
    assert!(why.contains("\"debgu\" is not a log level"), "{why}");
    assert_eq!(post(admin, "/log", &"x".repeat(10_000)).0, 400);
    assert_eq!(post(admin, "/log", "").0, 400);
    leaves();
    wait_until("it to be counted", PATIENCE, || {
        status(admin)["proxies"][0]["sessions"]["closed"]["client_left_waiting"] == 1
    });
    assert_eq!(closed(mark), 0);

    let (code, changed) = post(admin, "/log?for=2s", "debug\n");
    assert_eq!(code, 200, "{changed}");
    assert_eq!(
        changed,
        r#"{"before":"info","after":"debug","for_seconds":2.0}"#
    );
    let told = proxy.event_after(mark, "log_level", PATIENCE);
    assert_eq!(
        (told.text("from"), told.text("to"), told.text("by")),
        ("info", "debug", "token")
    );
    leaves();
    proxy.event_after(mark, "session_closed", PATIENCE);
    let back = proxy.event_after(told.index + 1, "log_level", PATIENCE);
    assert_eq!((back.text("to"), back.text("by")), ("info", "time"));
    assert_eq!(is(), r#"{"filter":"info","configured":"info"}"#);

    // To nothing and back: both changes are in the log.
    let mark = proxy.mark();
    assert_eq!(post(admin, "/log", "off").0, 200);
    assert_eq!(post(admin, "/log", "warn").0, 200);
    let told = proxy.event_after(mark, "log_level", PATIENCE);
    assert_eq!(told.text("to"), "off");
    let told = proxy.event_after(told.index + 1, "log_level", PATIENCE);
    assert_eq!((told.text("from"), told.text("to")), ("off", "warn"));
    let _ = post(admin, "/log", "info");
    // SIGUSR1 is what it was.
    assert_eq!(proxy.status().text("phase"), "no_master");
}
