//! The unit files: systemd understands every line, and finds them tight.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Most that `systemd-analyze security` may find exposed, of 10.
const EXPOSURE_MAX: f64 = 1.5;
const UNITS: [&str; 3] = [
    "switchmaster.service",
    "switchmaster@.service",
    "switchmaster.socket",
];

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("systemd")
        .join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(unit(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What `systemd-analyze` says; both streams.
fn analyze(args: &[&str]) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("systemd-analyze: {e}: apt-get install systemd"));
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// The values of a key, in order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let line = |line: &'a str| line.strip_prefix(key)?.strip_prefix('=');
    text.lines().filter_map(line).collect()
}

#[test]
fn systemd_understands_every_line() {
    // The program is where cargo has built it, and there is no manual page beside it.
    let folder = tempfile::tempdir().expect("a folder");
    for name in UNITS {
        let text = read(name)
            .replace("/usr/bin/switchmaster", env!("CARGO_BIN_EXE_switchmaster"))
            .replace("Documentation=man:switchmaster(1)\n", "");
        fs::write(folder.path().join(name), text).expect("written");
    }
    for name in UNITS {
        // A template is looked at as one of its instances.
        let path = folder.path().join(name.replace('@', "@cache"));
        if !path.exists() {
            fs::copy(folder.path().join(name), &path).expect("copied");
        }
        let (understood, text) = analyze(&["verify", path.to_str().expect("text")]);
        assert!(understood && text.trim().is_empty(), "{name}:\n{text}");
    }
}

#[test]
fn the_services_are_tight() {
    for name in UNITS.into_iter().filter(|name| name.ends_with(".service")) {
        let path = unit(name);
        let (_, text) = analyze(&["security", "--offline=true", path.to_str().expect("text")]);
        let exposure: f64 = text
            .lines()
            .find_map(|line| {
                line.split_once("Overall exposure level for ")?
                    .1
                    .split_once(": ")
            })
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .unwrap_or_else(|| panic!("no level in:\n{text}"));
        assert!(exposure <= EXPOSURE_MAX, "{name}: {exposure}\n{text}");
    }
}

/// The system calls of a set, those of the sets in it included.
fn calls(set: &str) -> BTreeSet<String> {
    let (understood, text) = analyze(&["syscall-filter", set]);
    assert!(understood, "{set}:\n{text}");
    let lines = text.lines().skip(1).map(str::trim);
    let named = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    named.flat_map(calls_named).collect()
}

fn calls_named(name: &str) -> BTreeSet<String> {
    if name.starts_with('@') {
        calls(name)
    } else {
        BTreeSet::from([name.to_owned()])
    }
}

/// `socket_group` is a chown, and no more of what needs privileges gets through the filter.
#[test]
fn a_file_may_be_given_to_a_group() {
    for name in UNITS.into_iter().filter(|name| name.ends_with(".service")) {
        let text = read(name);
        let mut allowed = BTreeSet::new();
        for line in values(&text, "SystemCallFilter") {
            let forbids = line.starts_with('~');
            for call in line
                .trim_start_matches('~')
                .split(' ')
                .flat_map(calls_named)
            {
                if forbids {
                    allowed.remove(&call);
                } else {
                    allowed.insert(call);
                }
            }
        }
        assert!(
            allowed.contains("fchownat") && allowed.contains("accept4"),
            "{name}"
        );
        let mut privileged = calls("@privileged");
        privileged.retain(|call| allowed.contains(call));
        assert_eq!(
            privileged,
            BTreeSet::from(["fchownat".to_owned()]),
            "{name}"
        );
    }
}

/// What the program does and what the units say of it.
#[test]
fn the_units_fit_the_program() {
    let (service, template) = (read(UNITS[0]), read(UNITS[1]));
    for text in [&service, &template] {
        assert_eq!(values(text, "Type"), ["notify"]);
        assert_eq!(values(text, "Restart"), ["always"]);
        assert_eq!(values(text, "StartLimitIntervalSec"), ["0"]);
        assert_eq!(values(text, "SuccessExitStatus"), [crate::CUT.to_string()]);
        assert_eq!(values(text, "TimeoutStopSec"), ["30"]);
        assert_eq!(values(text, "ExecReload"), ["/bin/kill -HUP $MAINPID"]);
        // Twice what is stuck (5 s), so that it is not fed once more.
        assert_eq!(values(text, "WatchdogSec"), ["10"]);
    }
    // The template is the service for another file, and nothing else.
    let plain = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let named = lines.map(|line| {
            line.replace(" (%i)", "")
                .replace("switchmaster-%i", "switchmaster")
                .replace("/%i.toml", "/config.toml")
        });
        named.collect()
    };
    assert_eq!(plain(&template), plain(&service));
}
