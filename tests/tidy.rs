//! The house rules, read from the sources: who may import whom, what pure rooms may not name, how long a file
//! may be. Lines behind `#[cfg(test)]` are exempt, and so are comments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A file past this houses two rooms.
const LONGEST: usize = 600;
/// Names that say nothing about what lives there.
const SAYING_NOTHING: &[&str] = &[
    "utils",
    "util",
    "common",
    "helpers",
    "types",
    "constants",
    "misc",
];

/// Which room may name which others; itself always. `*` = every room. Never up, never across: `session` does
/// not know `sentinel`, nor the reverse, and no room imports `config`.
const IMPORTS: &[(&str, &str)] = &[
    ("main", "*"),
    ("lib", "*"),
    ("daemon", "*"),
    ("cli", "check config demo exit net status telemetry top"),
    ("status", "admin control exit net"),
    ("top", "admin control exit net status telemetry"),
    (
        "config",
        "admin listener session worker sentinel topology control telemetry exit net",
    ),
    ("exit", ""),
    ("listener", "session topology net telemetry"),
    // A worker runs the listeners and is dealt what they accept; a listener knows no worker.
    ("worker", "listener session topology net telemetry"),
    ("session", "upstream resp topology net telemetry"),
    // Only what a session is, and the way it travels; who lets go of it and who goes on is the composition root's matter.
    ("upgrade", "session topology net"),
    ("upstream", "topology net telemetry"),
    ("resp", "net"),
    ("sentinel", "topology net telemetry"),
    ("control", "sentinel topology net telemetry"),
    ("topology", "net"),
    (
        "admin",
        "control listener session worker topology net telemetry",
    ),
    // The doctor looks at what the others would do, and does nothing of it.
    (
        "check",
        "admin status config listener worker sentinel topology exit net telemetry",
    ),
    ("drill", "sentinel topology net telemetry"),
    // The whole program in small: servers, and the program itself in front of them as a child.
    ("demo", "sentinel topology net telemetry exit"),
    ("telemetry", "net"),
    ("net", ""),
];

/// Rooms and files that decide without doing: everything they know is handed to them, time included.
const PURE: &[&str] = &[
    "src/resp/",
    "src/control/ledger/",
    "src/session/journal.rs",
    "src/session/replay.rs",
    "src/session/luggage.rs",
    "src/session/sniff.rs",
    "src/listener/conveyed.rs",
    "src/session/subscriptions.rs",
    "src/session/tracker/",
    "src/topology/",
    "src/sentinel/event.rs",
    "src/check/",
    "src/status/harmless.rs",
    "src/status/text.rs",
    "src/top/",
    "src/upstream/pick.rs",
    "src/net/backoff.rs",
    "src/upgrade/message.rs",
    "src/upgrade/old.rs",
    "src/upgrade/new.rs",
];
/// The shells of otherwise pure rooms: the one swap and its wake-up; those who gather facts.
const NOT_PURE: &[&str] = &[
    "src/topology/publish.rs",
    "src/check/mod.rs",
    "src/check/host.rs",
    "src/check/ask.rs",
    "src/top/mod.rs",
    "src/top/terminal.rs",
];
const IMPURE_WORDS: &[&str] = &[
    "tokio",
    "clock::now",
    "tracing",
    "std::net::Tcp",
    "SystemTime",
];

/// What only these files may name, and why that matters is in their heads.
const ONLY: &[(&str, &[&str])] = &[
    (
        "redis::",
        &["src/sentinel/client.rs", "src/sentinel/client/"],
    ),
    ("clap::", &["src/cli.rs", "src/cli/"]),
    ("ratatui::", &["src/top/"]),
    ("anyhow", &["src/main.rs"]),
    ("unbounded_channel", &[]),
    ("crossbeam_channel::unbounded", &[]),
    // std's own `channel()` has no bound; `sync_channel` has.
    ("mpsc::channel()", &[]),
];

/// A source file: its path from the project's root, and its lines without comments and tests.
struct Source {
    path: String,
    lines: usize,
    code: Vec<(usize, String)>,
}

#[test]
fn rooms_import_downward_only() {
    let rules: BTreeMap<&str, Vec<&str>> = IMPORTS
        .iter()
        .map(|(room, others)| (*room, others.split(' ').collect()))
        .collect();
    let mut wrong = Vec::new();
    for source in sources("src") {
        let own = room(&source.path);
        let allowed = rules
            .get(own.as_str())
            .unwrap_or_else(|| panic!("{}: add the room {own:?} to IMPORTS", source.path));
        for (number, line) in &source.code {
            for named in rooms_named(line) {
                let fine = named == own
                    || allowed.contains(&"*")
                    || allowed.contains(&named.as_str())
                    || !rules.contains_key(named.as_str());
                if !fine {
                    wrong.push(format!("{}:{number}: {own} names {named}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_know_no_runtime_no_clock_and_no_log() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for source in sources("src") {
        // A room's tests move its clock.
        let pure = PURE.iter().any(|prefix| source.path.starts_with(prefix))
            && !source.path.ends_with("/tests.rs");
        if !pure || NOT_PURE.contains(&source.path.as_str()) {
            continue;
        }
        seen += 1;
        wrong.extend(namings(&source, IMPURE_WORDS));
    }
    assert!(seen > 3, "the pure rooms have moved: change PURE");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn some_things_are_named_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        for (word, places) in ONLY {
            if !places.iter().any(|place| source.path.starts_with(place)) {
                wrong.extend(namings(&source, &[word]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short_and_named_for_what_they_hold() {
    let mut wrong = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for source in sources(folder) {
            if source.lines > LONGEST {
                wrong.push(format!(
                    "{}: {} lines, {LONGEST} at most",
                    source.path, source.lines
                ));
            }
            let names = Path::new(&source.path).components();
            for name in names.filter_map(|part| Path::new(part.as_os_str()).file_stem()) {
                if SAYING_NOTHING.iter().any(|word| name == *word) {
                    wrong.push(format!("{}: a name that says nothing", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let wrong: Vec<String> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(files)
        .filter(|path| !read(path).starts_with("//! "))
        .map(|path| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "no head comment:\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_lists_every_subcommand() {
    let readme = read(&root().join("README.md"));
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_switchmaster"))
        .arg("--help")
        .output()
        .expect("the program was built by cargo");
    let help = String::from_utf8(help.stdout).expect("help is text");
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| line.trim() != "Commands:")
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        // Deeper indented lines go on with the description above them.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(
        commands.contains(&"run"),
        "--help has another form now:\n{help}"
    );
    let missing: Vec<&str> = commands
        .into_iter()
        .filter(|name| {
            !readme.contains(&format!("switchmaster {name}"))
                && !readme.contains(&format!("`{name}`"))
        })
        .collect();
    assert!(missing.is_empty(), "README.md says nothing of {missing:?}");
}

#[test]
fn the_docs_list_every_log_event() {
    const MARK: &str = "event = \"";
    let mut events = BTreeSet::new();
    for source in sources("src") {
        let text = read(&root().join(&source.path));
        let named = text.split(MARK).skip(1);
        events.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    assert!(events.contains("switched"), "events are written otherwise");
    let page = read(&root().join("docs/log-events.md"));
    let cells = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once(" | "));
    let listed: Vec<String> = cells
        .flat_map(|(cell, _)| cell.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "one is listed twice: {listed:?}");
    assert_eq!(once, events, "docs/log-events.md and the sources differ");
}

/// What the proxy needs at a Sentinel is said twice: beside the key, and where one looks for it.
#[test]
fn rights_are_the_same_wherever_they_are_said() {
    let page = read(&root().join("docs/operations.md")).replace("\\|", "|");
    for user in ["switchmaster", "probe"] {
        let rule = format!("ACL SETUSER {user} on >PASSWORD ");
        let example = switchmaster::config::EXAMPLE;
        let (_, rights) = example.split_once(&rule).expect("the example says them");
        let rights = rights.lines().next().expect("rights");
        assert!(page.contains(&format!("`{rights}`")), "{user}: {rights}");
    }
}

/// The room of a file: `src/session/relay.rs` and `src/session.rs` are `session`.
fn room(path: &str) -> String {
    let inner = path.strip_prefix("src/").expect("a file of src");
    let first = inner.split('/').next().unwrap_or(inner);
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// The rooms a line reaches into: `crate::room`, `switchmaster::room`, and each name of `crate::{a, b}`.
fn rooms_named(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for root in ["crate::", "switchmaster::"] {
        for (at, _) in line.match_indices(root) {
            let rest = &line[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => {
                    let list = list.split_once('}').map_or(list, |(list, _)| list);
                    rooms.extend(list.split(',').map(|name| first_word(name.trim())));
                }
                None => rooms.push(first_word(rest)),
            }
        }
    }
    rooms
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn namings(source: &Source, words: &[&str]) -> Vec<String> {
    source
        .code
        .iter()
        .flat_map(|(number, line)| {
            words
                .iter()
                .filter(|word| names(line, word))
                .map(move |word| format!("{}:{number}: names {word:?}", source.path))
        })
        .collect()
}

/// The word, and not the end of a longer one (`fake_redis::` is not `redis::`).
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn sources(folder: &str) -> Vec<Source> {
    files(folder)
        .into_iter()
        .map(|path| {
            let text = read(&path);
            let code = text
                .lines()
                .enumerate()
                .map(|(index, line)| (index + 1, line))
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
                .map(|(number, line)| (number, line.to_owned()))
                .collect();
            let path = path.strip_prefix(root()).expect("below the root");
            let path = path.to_str().expect("our paths are text");
            Source {
                path: path.to_owned(),
                lines: text.lines().count(),
                // `#[cfg(test)] mod tests;` in the file above it.
                code: if path.ends_with("/tests.rs") {
                    Vec::new()
                } else {
                    without_tests(code)
                },
            }
        })
        .collect()
}

/// Everything before the test module, which is last in a file; an item for tests before that counts as code.
fn without_tests(code: Vec<(usize, String)>) -> Vec<(usize, String)> {
    let end = code
        .windows(2)
        .position(|pair| pair[0].1 == "#[cfg(test)]" && pair[1].1.starts_with("mod "))
        .unwrap_or(code.len());
    code.into_iter().take(end).collect()
}

/// Every Rust file below a folder of the project; a rule over nothing would hold for ever.
fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {folder}");
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
