//! `switchmaster top` and `status` on a real terminal, in front of a real proxy, real servers and Sentinels.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use rustix::termios::LocalModes;
use serde_json::Value;
use switchmaster::demo::wire::Conn;
use switchmaster::top::terminal::Screen;

#[path = "../harness/mod.rs"]
mod harness;
mod pty;

use harness::proxy::{Plan, Proxy};
use harness::topology::{Topology, follows};
use harness::{wait_for, wait_until};
use pty::{PATIENCE, Pty, modes_of};

/// The first byte that reaches nobody: the discard port of this host.
const NOBODY: &str = "127.0.0.1:9";
const USUAL: (u16, u16) = (80, 24);
/// Set for the test that is run as a program of its own.
const ON_A_TERMINAL: &str = "SWITCHMASTER_TEST_ON_A_TERMINAL";

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchmaster"));
    command
        .args(args)
        .env_remove("SWITCHMASTER_CONFIG")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm-256color");
    command
}

fn top(admin: &str) -> Pty {
    Pty::start(
        &mut program(&["top", "--admin", admin, "--interval", "100ms"]),
        USUAL,
    )
}

fn watched(sentinels: &[SocketAddr], admin: &str) -> Proxy {
    Plan::moving(sentinels)
        .env("SWITCHMASTER_ADMIN_LISTEN", admin)
        .start()
}

fn admin_of(proxy: &Proxy) -> String {
    let event = proxy.event("admin_listening", PATIENCE);
    event.fields["addr"].as_str().expect("a text").to_owned()
}

/// For whoever wants to look: `cargo test --test top -- --nocapture`.
fn show(what: &str, screen: &str) {
    println!("=== {what}\n{screen}\n===");
}

/// A client that is at work until it is told to stop.
fn at_work(proxy: SocketAddr, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let Ok(mut conn) = Conn::connect(proxy, PATIENCE) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        while !stop.load(Ordering::Relaxed) && conn.call(&["INCR", "n"]).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The facts of a line, without its label: `to master  2.1 KiB/s`.
fn beside<'a>(screen: &'a str, label: &str) -> &'a str {
    let lines = screen.lines().map(str::trim_start);
    lines
        .filter_map(|line| line.strip_prefix(label))
        .next()
        .unwrap_or_default()
        .trim()
}

#[test]
fn top_lives_through_a_failover() {
    let servers = Topology::start();
    let proxy = watched(&servers.sentinels(), "127.0.0.1:0");
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let addr = proxy.addr();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Told to stop however this ends, so that a failure is not a test that hangs.
        let _stopping = OnDrop(&stop);
        scope.spawn(|| at_work(addr, &stop));
        let old = servers.settle();
        let mut terminal = top(&admin);
        let screen = terminal.wait("everything to be told", |screen| {
            screen.contains("Serving 1 session to")
                && beside(screen, "master").starts_with(&old.to_string())
                && screen.contains("SENTINELS, 3 of 3 agree")
                && screen.matches("replica ").count() == 2
                && screen.contains("LOG")
        });
        assert!(screen.contains(&admin), "{screen}");
        for way in ["to master", "to clients"] {
            terminal.wait(way, |screen| {
                let rate = beside(screen, way);
                rate.contains("B/s") && !rate.starts_with("0 B/s") && rate.contains('\u{2588}')
            });
        }
        show("serving, 80x24", &terminal.text());
        let (modes, _) = terminal.modes();
        assert!(
            !modes
                .local_modes
                .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
        );
        terminal.wait_look("a screen of its own", |screen| {
            screen.alternate_screen() && screen.hide_cursor()
        });
        terminal.wait_look("colours", has_colour);

        keys_do_what_they_say(&terminal);
        sizes(&terminal, "serving");

        // Frozen before, and thawed after.
        terminal.press(" ");
        terminal.wait_text("FROZEN for");
        let mut other = top(&admin);
        other.wait_text("SERVING");
        let mark = proxy.mark();
        servers.node(old).kill().expect("it dies");
        other.wait("clients to wait", |screen| {
            beside(screen, "master").contains("HELD")
        });
        show("held, 80x24", &other.text());
        other.wait("the headline to say so", |screen| {
            screen.contains("held for") && screen.contains("Last master")
        });
        for (columns, rows) in [(40, 20), (200, 50)] {
            other.resize(columns, rows);
            other.wait("a line of that width", |screen| {
                widest(screen) == columns && screen.contains("q quit")
            });
            show(&format!("failing over, {columns}x{rows}"), &other.text());
        }
        let switch = servers.switched_from(old);
        follows(&proxy, mark, switch);
        other.wait("the new master", |screen| {
            beside(screen, "master").starts_with(&switch.new.to_string())
                && screen.contains(&format!("{} -> {}", switch.old, switch.new))
                && screen.contains("first byte")
        });
        let frozen = terminal.wait_text("FROZEN for");
        assert!(
            beside(&frozen, "master").starts_with(&old.to_string()),
            "{frozen}"
        );
        terminal.press(" ");
        terminal.wait("the screen to go on", |screen| {
            !screen.contains("FROZEN")
                && beside(screen, "master").starts_with(&switch.new.to_string())
        });
        // All failovers, then the log with its fields.
        other.press("s");
        other.wait("failovers alone", |screen| {
            screen.contains("FAILOVERS") && !screen.contains("SENTINELS")
        });
        other.press("s");
        let log = other.wait("the log alone", |screen| screen.contains("LOG, the last"));
        assert!(log.contains(&format!("to={}", switch.new)), "{log}");
        show("the log, 200x50", &log);

        other.press("s");
        other.resize(USUAL.0, USUAL.1);
        let after = other.wait("the failover in its phases", |screen| {
            screen.contains("detect ") && screen.contains(" kept, ") && screen.contains("q quit")
        });
        show("after the failover, 80x24", &after);

        // Nobody is there any more: what was so stays, and is told to be old.
        proxy.ask_to_end();
        for (columns, rows) in [(40, 20), (200, 50), USUAL] {
            other.resize(columns, rows);
            let gone = other.wait("what was so", |screen| {
                screen.contains("no answer for")
                    && screen.contains(&switch.new.to_string())
                    && widest(screen) == columns
                    && screen.contains("q quit")
            });
            show(&format!("the endpoint is gone, {columns}x{rows}"), &gone);
            other.wait_look("what was to be grey", is_grey);
        }
        terminal.press("q");
        assert_eq!(terminal.is_given_back().code(), Some(0));
        other.press("\x1b");
        assert_eq!(other.is_given_back().code(), Some(0));
    });
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn keys_do_what_they_say(terminal: &Pty) {
    for (keys, shows) in [
        ("?", "The proxy is not paused"),
        ("\x1b", "SENTINELS"),
        ("h", "The proxy is not paused"),
        ("h", "SENTINELS"),
        ("+", "every 250ms"),
        ("=", "every 500ms"),
        ("-", "every 250ms"),
        ("s", "s log"),
        ("s", "LOG, the last"),
        ("s", "SENTINELS"),
        (" ", "FROZEN for"),
    ] {
        terminal.press(keys);
        terminal.wait_text(shows);
    }
    terminal.press("p");
    terminal.wait("it to go on", |screen| !screen.contains("FROZEN"));
    // The first line of the body goes away, and comes back.
    let below = |screen: &str| screen.contains("more below") && !screen.contains("generation");
    let end = |screen: &str| screen.contains("q quit") && !screen.contains("generation");
    for (down, up) in [
        ("jjj", "kkk"),
        ("\x1b[B\x1b[B\x1b[B", "\x1b[A\x1b[A\x1b[A"),
        ("\x1b[6~", "\x1b[5~"),
        ("G", "g"),
    ] {
        terminal.resize(80, 14);
        terminal.press(down);
        terminal.wait("what is below", if down == "G" { end } else { below });
        terminal.press(up);
        terminal.wait("what is above", |screen| screen.contains("generation"));
    }
    terminal.resize(USUAL.0, USUAL.1);
    // Drawn anew, whatever has been written over it.
    let before = terminal.bytes().len();
    terminal.press("\x0c");
    wait_until("the whole screen to be written", PATIENCE, || {
        let bytes = terminal.bytes();
        bytes[before..].windows(4).any(|four| four == b"\x1b[2J")
    });
    terminal.wait_text("SENTINELS");
}

/// It fits whatever there is.
fn sizes(terminal: &Pty, state: &str) {
    for (columns, rows) in [(40, 20), (200, 50), (80, 24)] {
        terminal.resize(columns, rows);
        let screen = terminal.wait("a line of that width", |screen| {
            widest(screen) == columns && screen.contains("q quit") && screen.contains("SERVING")
        });
        show(&format!("{state}, {columns}x{rows}"), &screen);
        let side_by_side = screen
            .lines()
            .any(|line| line.contains("on 127.0.0.1") && line.contains("FAILOVERS"));
        assert_eq!(side_by_side, columns == 200, "{screen}");
        assert!(columns > 40 || screen.contains("127.0.0.1:"), "{screen}");
    }
}

/// The header and the footer are as wide as the terminal.
fn widest(screen: &str) -> u16 {
    let widths = screen.lines().map(|line| line.chars().count());
    u16::try_from(widths.max().unwrap_or(0)).expect("a width")
}

fn has_colour(screen: &vt100::Screen) -> bool {
    let (rows, columns) = screen.size();
    let mut cells = (0..rows.get()).flat_map(|y| (0..columns.get()).map(move |x| (y, x)));
    cells.any(|(y, x)| {
        screen.cell(y, x).is_some_and(|cell| {
            cell.fgcolor() != vt100::Color::Default || cell.bgcolor() != vt100::Color::Default
        })
    })
}

#[test]
fn an_endpoint_that_goes_leaves_its_facts_and_may_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let admin = format!("unix:{}", folder.path().join("admin.sock").display());
    let sentinels = [NOBODY.parse().expect("an address")];
    let terminal = top(&admin);
    terminal.wait("nobody to be there", |screen| {
        screen.contains("no answer for")
            && screen.contains("--admin")
            && screen.contains("No such file")
    });
    let proxy = watched(&sentinels, &admin);
    terminal.wait("an answer", |screen| {
        screen.contains("NO MASTER") && !screen.contains("no answer")
    });
    terminal.wait_look("it to be told as it is", |screen| !is_grey(screen));

    // It hangs: the question has a deadline, and keys are heard meanwhile.
    proxy.freeze();
    let gone = terminal.wait_text("nothing within 3 s");
    assert!(gone.contains("NO MASTER"), "{gone}");
    show("gone, 80x24", &gone);
    terminal.wait_look("what was to be grey", is_grey);
    terminal.press("?");
    terminal.wait_text("The proxy is not paused");
    terminal.press("?");
    proxy.thaw();
    terminal.wait("an answer", |screen| {
        screen.contains("NO MASTER") && !screen.contains("no answer")
    });

    assert!(proxy.terminate(PATIENCE).success());
    let gone = terminal.wait("it to be gone", |screen| screen.contains("no answer for 2"));
    assert!(gone.contains("NO MASTER"), "{gone}");
    for (columns, rows) in [(40, 20), (200, 50), (80, 24)] {
        terminal.resize(columns, rows);
        let gone = terminal.wait("a line of that width", |screen| {
            widest(screen) == columns
                && screen.contains("no answer for")
                && screen.contains("NO MASTER")
                && screen.contains("q quit")
        });
        show(&format!("gone, {columns}x{rows}"), &gone);
        terminal.wait_look("what was to be grey", is_grey);
    }
    let again = watched(&sentinels, &admin);
    terminal.wait("an answer", |screen| {
        screen.contains("NO MASTER") && !screen.contains("no answer")
    });
    drop(again);
}

/// What stands above the last line is grey.
fn is_grey(screen: &vt100::Screen) -> bool {
    let (rows, columns) = screen.size();
    let row = rows.get() - 2;
    let grey = |x| {
        screen
            .cell(row, x)
            .is_some_and(|cell| cell.fgcolor() == vt100::Color::Idx(8))
    };
    (0..columns.get()).all(grey)
}

#[test]
fn every_way_out_gives_the_terminal_back() {
    for keys in ["q", "\x1b", "\x03"] {
        let mut terminal = top(NOBODY);
        terminal.wait_text("no answer for");
        terminal.press(keys);
        assert_eq!(terminal.is_given_back().code(), Some(0), "{keys:?}");
    }
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = top(NOBODY);
        terminal.wait_text("no answer for");
        terminal.signal(signal);
        assert_eq!(terminal.is_given_back().code(), Some(0), "{signal:?}");
    }
    let mut terminal = top(NOBODY);
    terminal.wait_text("no answer for");
    terminal.hang_up();
    terminal.exit();
}

#[test]
fn a_terminal_that_takes_nothing_does_not_keep_it_alive() {
    let mut terminal = top(NOBODY);
    terminal.resize(200, 50);
    terminal.wait_text("no answer for");
    terminal.stop_reading();
    // Whole screens, until it hangs in a write for good.
    let syscall = format!("/proc/{}/syscall", terminal.pid());
    let mut hangs = 0;
    wait_until("it to hang in a write", PATIENCE, || {
        terminal.press("\x0c");
        let doing = std::fs::read_to_string(&syscall).unwrap_or_default();
        let writes = doing.split(' ').next() == Some(WRITE);
        hangs = if writes { hangs + 1 } else { 0 };
        hangs > HANGS
    });
    terminal.signal(Signal::TERM);
    assert_eq!(terminal.exit().code(), Some(1));
    let (after, before) = terminal.modes();
    assert_eq!(modes_of(&after), modes_of(&before));
}

/// Looks in a row at a process that hangs.
const HANGS: usize = 40;
/// The number of write(2) in `/proc/PID/syscall`.
#[cfg(target_arch = "x86_64")]
const WRITE: &str = "1";
#[cfg(not(target_arch = "x86_64"))]
const WRITE: &str = "64";

#[test]
fn a_panic_gives_the_terminal_back() {
    let this = std::env::current_exe().expect("a path");
    let mut command = Command::new(this);
    command
        .args([
            "--exact",
            "panics_on_its_terminal",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(ON_A_TERMINAL, "1")
        .env("RUST_BACKTRACE", "0");
    let mut terminal = Pty::start(&mut command, USUAL);
    let status = terminal.is_given_back();
    assert_eq!(status.code(), Some(101));
    let screen = terminal.wait_text("on purpose");
    let bytes = terminal.bytes();
    let entered = bytes.windows(8).position(|eight| eight == b"\x1b[?1049h");
    let left = bytes.windows(8).position(|eight| eight == b"\x1b[?1049l");
    let told = bytes.windows(10).position(|ten| ten == b"on purpose");
    // Left before the words come, so that they can be read.
    assert!(
        entered < left && left < told && entered.is_some(),
        "{entered:?} {left:?} {told:?}\n{screen}"
    );
}

/// Not a test by itself: [`a_panic_gives_the_terminal_back`] runs it.
#[test]
#[ignore = "run by a_panic_gives_the_terminal_back, on a terminal"]
fn panics_on_its_terminal() {
    if std::env::var_os(ON_A_TERMINAL).is_some() {
        let _screen = Screen::take().expect("a terminal");
        panic!("on purpose");
    }
}

#[test]
fn a_shell_gets_its_terminal_back_meanwhile() {
    let mut shell = Command::new("bash");
    shell
        .args(["--norc", "--noprofile", "-i"])
        .env("TERM", "xterm-256color")
        .env("PS1", "ready> ")
        .env("PROGRAM", env!("CARGO_BIN_EXE_switchmaster"));
    let mut terminal = Pty::start(&mut shell, USUAL);
    terminal.wait_text("ready>");
    terminal.press(&format!(
        "\"$PROGRAM\" top --admin {NOBODY} --interval 100ms\r"
    ));
    terminal.wait_text("no answer for");
    terminal.press("\x1a");
    terminal.wait("the shell", |screen| {
        screen.contains("Stopped") && !screen.contains("no answer for")
    });
    terminal.wait_look("the shell's screen", |screen| {
        !screen.alternate_screen() && !screen.hide_cursor()
    });
    terminal.press("echo it is $((6 * 7))\r");
    terminal.wait_text("it is 42");
    terminal.press("fg\r");
    terminal.wait_text("no answer for");
    terminal.wait_look("a screen of its own", |screen| {
        screen.alternate_screen() && screen.hide_cursor()
    });
    terminal.press("q");
    terminal.wait_text("it is 42");
    terminal.press("exit $?\r");
    assert_eq!(terminal.is_given_back().code(), Some(0));
}

#[test]
fn without_colours_there_is_none() {
    for mut command in [program(&["top", "--admin", NOBODY, "--no-color"]), {
        let mut command = program(&["top", "--admin", NOBODY]);
        command.env("NO_COLOR", "1");
        command
    }] {
        let mut terminal = Pty::start(&mut command, USUAL);
        terminal.wait_text("no answer for");
        terminal.press("q");
        assert_eq!(terminal.is_given_back().code(), Some(0));
        let bytes = terminal.bytes();
        let sets = |sgr: &[u8]| bytes.windows(sgr.len()).any(|some| some == sgr);
        assert!(!sets(b"\x1b[38;") && !sets(b"\x1b[48;"), "{command:?}");
        // It would have been seen: this sets off the first and the last line.
        assert!(sets(b"\x1b[7m"), "{command:?}");
    }
}

#[test]
fn where_there_is_no_terminal_it_says_what_to_use() {
    let output = program(&["top", "--admin", NOBODY])
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(
        words.contains("switchmaster status") && output.stdout.is_empty(),
        "{words}"
    );

    let mut dumb = Pty::start(
        program(&["top", "--admin", NOBODY]).env("TERM", "dumb"),
        USUAL,
    );
    assert_eq!(dumb.exit().code(), Some(2));
    dumb.wait_text("switchmaster status");
    assert!(!dumb.bytes().contains(&0x1b));

    let mut off = Pty::start(&mut program(&["top", "--admin", "off"]), USUAL);
    assert_eq!(off.exit().code(), Some(69));
    let mut wrong = Pty::start(&mut program(&["top", "--interval", "1"]), USUAL);
    assert_eq!(wrong.exit().code(), Some(2));
    wrong.wait_text("500ms");
}

#[test]
fn status_on_a_terminal_and_in_a_pipe() {
    let servers = Topology::start();
    let proxy = watched(&servers.sentinels(), "127.0.0.1:0");
    let admin = admin_of(&proxy);
    proxy.event("ready", PATIENCE);
    let on_terminal = |args: &[&str], variable: &str| {
        let mut command = program(&["status", "--admin", &admin]);
        command.args(args).env(variable, "1");
        // Wide, so that JSON is not broken into lines.
        let mut terminal = Pty::start(&mut command, (20_000, 30));
        let code = terminal.is_given_back().code();
        (code, terminal)
    };
    let (code, terminal) = on_terminal(&[], "NOTHING");
    assert_eq!(code, Some(0));
    let screen = terminal.wait_text("switchmaster ");
    assert!(screen.contains("3 of 3 Sentinels agree"), "{screen}");
    terminal.wait_look("colours", has_colour);
    let (code, terminal) = on_terminal(&[], "NO_COLOR");
    assert_eq!(code, Some(0));
    terminal.wait_text("switchmaster ");
    assert!(!terminal.bytes().contains(&0x1b));

    let piped = program(&["status", "--admin", &admin])
        .output()
        .expect("it runs");
    assert!(piped.status.success() && !piped.stdout.contains(&0x1b));
    assert!(piped.stdout.starts_with(b"Serving 0 sessions"));

    let (code, terminal) = on_terminal(&["--json"], "NOTHING");
    assert_eq!(code, Some(0));
    let json = wait_for("all of the JSON", PATIENCE, || {
        serde_json::from_slice::<Value>(&terminal.bytes()).ok()
    });
    assert_eq!(json["proxies"][0]["phase"], "serving");
    for probe in ["live", "ready"] {
        let (code, terminal) = on_terminal(&["--probe", probe], "NOTHING");
        assert_eq!((code, terminal.bytes()), (Some(0), vec![]), "{probe}");
    }
    let lost = watched(&[NOBODY.parse().expect("an address")], "127.0.0.1:0");
    let lost_admin = admin_of(&lost);
    let mut probe = Pty::start(
        &mut program(&["status", "--admin", &lost_admin, "--probe", "ready"]),
        USUAL,
    );
    assert_eq!(probe.exit().code(), Some(1));
    probe.wait_text("not ready");
}
