//! The program as it is called: help texts, exit codes, what is printed where.
//!
//! Help texts are held in `tests/cli/*.txt`; after a wanted change `BLESS=1 cargo test --test cli`
//! writes them anew, for review with `git diff`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

#[test]
fn help_texts() {
    for (name, arguments) in [
        ("help", &["--help"][..]),
        ("run", &["run", "--help"]),
        ("status", &["status", "--help"]),
        ("top", &["top", "--help"]),
        ("demo", &["demo", "--help"]),
        ("check", &["check", "--help"]),
        ("man", &["man", "--help"]),
        ("completions", &["completions", "--help"]),
        ("config", &["config", "--help"]),
        ("config_show", &["config", "show", "--help"]),
        ("config_example", &["config", "example", "--help"]),
    ] {
        let output = switchmaster(arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        let shown = stdout(&output);
        for line in shown.lines() {
            assert!(line.chars().count() <= 100, "{arguments:?}: {line}");
        }
        compare(&PathBuf::from(format!("tests/cli/{name}.txt")), &shown);
    }
}

#[test]
fn every_subcommand_has_a_help_text_here() {
    let shown = stdout(&switchmaster(&["--help"], &[]));
    let commands = shown
        .split("Commands:\n")
        .nth(1)
        .expect("a list of commands");
    for line in commands.lines().take_while(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().expect("a name");
        assert!(
            Path::new(&format!("tests/cli/{name}.txt")).exists(),
            "{name}"
        );
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [
        &["--no-such-flag"][..],
        &["no-such-command"],
        &["--log-format", "xml"],
        &["config"],
        &["demo", "--script", "planned,explode"],
        &["demo", "--port", "0"],
        &["--sentinel", "a", "demo"],
        &["--master", "a", "config", "example"],
    ] {
        let output = switchmaster(arguments, &[]);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(stdout(&output).is_empty(), "{arguments:?}");
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn bad_configuration_exits_with_78() {
    for (arguments, variables, words) in [
        (
            &["--config", "tests/config/bad/bare_number.toml"][..],
            &[][..],
            "bare_number.toml:",
        ),
        (&["run", "--config", "/nonexistent"], &[], "No such file"),
        (
            &["--sentinel", "a:b"],
            &[],
            "sentinel.addresses: \"a:b\" is no address",
        ),
        (
            &["--sentinel", "a", "--log", "debgu"],
            &[],
            "log.level: \"debgu\"",
        ),
        (
            &["--sentinel", "a"],
            &[("SWITCHMASTER_LIMITS_WORKERS", "many")],
            "env SWITCHMASTER_LIMITS_WORKERS",
        ),
        (
            &["config", "show", "--listen", "0.0.0.0:1"],
            &[("SWITCHMASTER_SENTINEL", "a")],
            "allow_from",
        ),
    ] {
        let output = switchmaster(arguments, variables);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{arguments:?}: {told}");
        assert!(
            told.contains(words),
            "{arguments:?}: no `{words}` in\n{told}"
        );
    }
}

#[test]
fn config_show_names_every_source() {
    let output = switchmaster(
        &[
            "--master",
            "flagged",
            "config",
            "show",
            "--config",
            "tests/config/good/smallest.toml",
        ],
        &[
            ("SWITCHMASTER_LIMITS_WORKERS", "3"),
            ("SWITCHMASTER_LIMIT_WORKERS", "4"),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    for (value, source) in [
        (
            "addresses = [\"10.0.0.3:26379\"]",
            "file tests/config/good/smallest.toml:2",
        ),
        ("master = \"flagged\"", "flag --master"),
        ("workers = 3", "env SWITCHMASTER_LIMITS_WORKERS"),
        ("hold_max = \"auto\"", "default"),
    ] {
        let line = shown
            .lines()
            .find(|line| line.starts_with(value))
            .expect(value);
        assert!(line.ends_with(&format!("# {source}")), "{line}");
    }
    assert!(
        stderr(&output).contains("did you mean SWITCHMASTER_LIMITS_WORKERS?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn flags_after_the_command_count_more() {
    let output = switchmaster(
        &[
            "--sentinel",
            "a",
            "--master",
            "before",
            "config",
            "show",
            "--master",
            "after",
        ],
        &[],
    );
    let shown = stdout(&output);
    assert!(
        shown.contains("master = \"after\"") && shown.contains("\"a:26379\""),
        "{shown}"
    );
}

#[test]
fn sentinels_may_be_listed_or_repeated() {
    let listed = switchmaster(&["config", "show", "--sentinel", "a,b"], &[]);
    let repeated = switchmaster(
        &["config", "show", "--sentinel", "a", "--sentinel", "b"],
        &[],
    );
    assert!(
        stdout(&listed).contains("[\"a:26379\", \"b:26379\"]"),
        "{}",
        stdout(&listed)
    );
    assert_eq!(stdout(&listed), stdout(&repeated));
}

#[test]
fn a_url_names_sentinels_and_master_and_shows_no_password_to_others() {
    let url = "redis+sentinel://10.0.0.3,10.0.0.4/orders";
    let shown = stdout(&switchmaster(&["config", "show", "--url", url], &[]));
    assert!(shown.contains("master = \"orders\""), "{shown}");
    assert!(
        shown.contains("\"10.0.0.4:26379\"] # flag --url"),
        "{shown}"
    );

    let url = "redis+sentinel://:s3cret@10.0.0.3/orders";
    let refused = switchmaster(&["run", "--url", url], &[]);
    assert_eq!(refused.status.code(), Some(78));
    let told = stderr(&refused);
    assert!(told.contains("can read a command line"), "{told}");
    assert!(!told.contains("s3cret"), "{told}");
    let taken = switchmaster(&["config", "show"], &[("SWITCHMASTER_URL", url)]);
    let shown = stdout(&taken);
    assert!(shown.contains("# password = "), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn config_example_is_the_file_of_the_repository() {
    let output = switchmaster(&["config", "example"], &[]);
    let file = fs::read_to_string("config.example.toml").expect("the example");
    assert_eq!(stdout(&output), file);
}

#[test]
fn version() {
    let short = format!("switchmaster {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&switchmaster(&["-V"], &[])), format!("{short}\n"));
    let long = stdout(&switchmaster(&["--version"], &[]));
    let build = long.strip_prefix(&format!("{short} (commit "));
    let (commit, target) = build.and_then(|b| b.split_once(", ")).expect(&long);
    assert!(!commit.is_empty());
    assert!(target.contains(std::env::consts::ARCH), "{long}");
}

#[test]
fn the_man_pages_are_sound() {
    let directory = tempfile::tempdir().expect("a directory");
    let output = switchmaster(&["man", "--dir", &directory.path().to_string_lossy()], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let main = fs::read(directory.path().join("switchmaster.1")).expect("the page");
    assert_eq!(switchmaster(&["man"], &[]).stdout, main);
    let pages: Vec<PathBuf> = fs::read_dir(&directory)
        .expect("a directory")
        .map(|entry| entry.expect("a page").path())
        .collect();
    assert!(pages.iter().any(|p| p.ends_with("switchmaster-check.1")));
    assert!(
        !pages
            .iter()
            .any(|p| p.to_string_lossy().contains("guarded"))
    );
    let said = Command::new("mandoc")
        .args(["-T", "lint", "-W", "error"])
        .args(&pages)
        .output()
        .expect("mandoc is installed: scripts/setup");
    assert!(said.status.success(), "{}", stdout(&said));
}

#[test]
fn completions_are_sound() {
    for (shell, check) in [("bash", Some("bash")), ("zsh", None), ("fish", None)] {
        let output = switchmaster(&["completions", shell], &[]);
        let script = stdout(&output);
        assert!(
            script.contains("--log-format") || script.contains("-l log-format"),
            "{script}"
        );
        assert!(
            !script.contains("__guarded"),
            "{shell}: what is hidden stays so"
        );
        if let Some(interpreter) = check {
            let file = tempfile::NamedTempFile::new().expect("a file");
            fs::write(&file, &script).expect("written");
            let read = Command::new(interpreter)
                .arg("-n")
                .arg(file.path())
                .status();
            assert!(read.expect("a shell").success());
        }
    }
}

fn compare(path: &Path, shown: &str) {
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, shown).expect("the snapshot is written");
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        shown == expected,
        "{} differs; if that is wanted: BLESS=1 cargo test --test cli\n--- expected\n{expected}\n--- shown\n{shown}",
        path.display()
    );
}

/// Runs the program with these variables alone.
fn switchmaster(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_switchmaster"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", "100")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("text")
}
