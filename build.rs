//! What `--version` tells of a build: its commit and its target.
//!
//! `SWITCHMASTER_COMMIT` counts more than what git says, for builds from an archive. Other profiles than release do not look: each
//! commit would build everything anew.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=SWITCHMASTER_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let told = env::var("SWITCHMASTER_COMMIT").ok();
    let commit = told.filter(|told| !told.is_empty()).or_else(|| {
        (env::var("PROFILE").as_deref() == Ok("release"))
            .then(commit)
            .flatten()
    });
    println!(
        "cargo:rustc-env=SWITCHMASTER_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    println!(
        "cargo:rustc-env=SWITCHMASTER_TARGET={}",
        env::var("TARGET").as_deref().unwrap_or("unknown")
    );
}

/// `None` without git, or where this directory is not a checkout but lies in somebody's.
fn commit() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // A line is added with each commit, checkout and reset.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}, changed")
    })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(said).ok()?.trim().to_owned())
}
