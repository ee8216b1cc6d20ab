//! What goes with a release: its bill of materials (`scripts/sbom`) is exactly the crates that the program is compiled from, as Cargo.lock
//! has them; whoever builds it builds from that lock file; CHANGELOG.md has the form that docs/releasing.md describes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The project's own name in a list of crates.
const OWN: &str = "switchmaster";

fn written() -> String {
    let output = Command::new("scripts/sbom").output().expect("bash");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    String::from_utf8(output.stdout).expect("text")
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    let found = value.pointer(path).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no {path} in {value}"))
}

/// Names with versions, and what is wanted of each.
fn components(written: &str) -> BTreeMap<(String, String), Value> {
    let bill: Value = serde_json::from_str(written).expect("JSON");
    assert_eq!(text(&bill, "/bomFormat"), "CycloneDX");
    assert_eq!(text(&bill, "/metadata/component/name"), OWN);
    let version = text(&bill, "/metadata/component/version");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let components = bill["components"].as_array().expect("components");
    let named = |component: &Value| {
        let name = text(component, "/name").to_owned();
        (
            (name, text(component, "/version").to_owned()),
            component.clone(),
        )
    };
    components.iter().map(named).collect()
}

/// The crates that cargo names when it is asked which are used in this way, on this machine's target.
fn crates(used: &str) -> BTreeSet<(String, String)> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", used, "--prefix", "none"])
        .args(["--format", "{p}"])
        .output()
        .expect("cargo");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let said = String::from_utf8(output.stdout).expect("text");
    let named = said.lines().filter_map(|line| {
        let (name, rest) = line.split_once(" v")?;
        let version = rest.split(' ').next()?;
        (name != OWN).then(|| (name.to_owned(), version.to_owned()))
    });
    named.collect()
}

#[test]
fn it_names_each_crate_that_is_shipped_and_no_other() {
    let named: BTreeSet<_> = components(&written()).into_keys().collect();
    let shipped = crates("normal");
    let missing: Vec<_> = shipped.difference(&named).collect();
    assert!(missing.is_empty(), "not named: {missing:?}");
    let besides: Vec<_> = named.difference(&shipped).collect();
    assert!(besides.is_empty(), "named and not shipped: {besides:?}");
    let everything = crates("normal,build,dev");
    for ours in ["tokio", "criterion", "proptest"] {
        let known = everything.iter().any(|(name, _)| name == ours);
        assert!(known, "{ours} is gone: name another one here");
    }
    assert!(named.iter().any(|(name, _)| name == "tokio"));
    assert!(
        !named
            .iter()
            .any(|(name, _)| name == "criterion" || name == "proptest")
    );
}

#[test]
fn it_has_the_checksum_of_the_lock_file_and_a_licence_for_each() {
    let lock = fs::read_to_string("Cargo.lock").expect("the lock file");
    let lock: toml::Table = lock.parse().expect("TOML");
    let packages = lock["package"].as_array().expect("packages");
    for ((name, version), component) in components(&written()) {
        let locked = packages.iter().find(|package| {
            package["name"].as_str() == Some(&name) && package["version"].as_str() == Some(&version)
        });
        let locked = locked.unwrap_or_else(|| panic!("{name} {version} is not in Cargo.lock"));
        let checksum = locked["checksum"].as_str().expect("a checksum");
        assert_eq!(text(&component, "/hashes/0/content"), checksum, "{name}");
        assert!(!text(&component, "/licenses/0/expression").is_empty());
    }
}

#[test]
fn it_is_the_same_each_time_and_tells_no_path_of_this_machine() {
    let bill = written();
    assert_eq!(bill, written());
    let here = std::env::current_dir().expect("a folder");
    let temporary = std::env::temp_dir();
    for path in [here, temporary] {
        let path = path.to_str().expect("text");
        assert!(!bill.contains(&format!("file://{path}")), "{path}");
    }
}

/// Every file below one of these, or the file itself.
fn files(places: &[&str]) -> Vec<PathBuf> {
    let mut open: Vec<PathBuf> = places.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder");
            open.extend(entries.map(|entry| entry.expect("readable").path()));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn whoever_builds_it_builds_what_is_locked() {
    let mut seen = 0;
    let mut wrong = Vec::new();
    for path in files(&[
        "README.md",
        "CONTRIBUTING.md",
        "docs",
        "deploy",
        "scripts",
        ".ci",
    ]) {
        // A picture is none.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        // A command may go on in the next line.
        let text = text.replace("\\\n", " ");
        for line in text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
        {
            if line.contains("cargo build") || line.contains("cargo install -") {
                seen += 1;
                if !line.contains("--locked") {
                    wrong.push(format!("{}: {line}", path.display()));
                }
            }
        }
    }
    assert!(seen >= 3, "the commands have another form now: {seen}");
    assert!(wrong.is_empty(), "without --locked:\n{}", wrong.join("\n"));
}

/// `1.2.3` as numbers.
fn number(version: &str) -> Option<Vec<u32>> {
    let parts: Vec<u32> = version
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    (parts.len() == 3 && version.split('.').count() == 3).then_some(parts)
}

#[test]
fn the_changelog_has_its_form() {
    let text = fs::read_to_string("CHANGELOG.md").expect("the changelog");
    let headings: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let (first, released) = headings.split_first().expect("a section");
    assert_eq!(*first, "Unreleased", "what is not released yet comes first");
    let own = number(env!("CARGO_PKG_VERSION")).expect("three numbers");
    let mut before: Option<Vec<u32>> = None;
    for heading in released {
        let (version, day) = heading
            .split_once(" - ")
            .unwrap_or_else(|| panic!("{heading}: VERSION - DATE"));
        let version = number(version).unwrap_or_else(|| panic!("{heading}: three numbers"));
        let dashes: Vec<usize> = day.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!(
            (day.len(), dashes),
            (10, vec![4, 7]),
            "{heading}: 2026-01-31"
        );
        assert!(version <= own, "{heading}: newer than Cargo.toml");
        assert!(
            before.is_none_or(|before| before > version),
            "{heading}: newest first"
        );
        before = Some(version);
    }
}
