//! The tools that measure: `redis-benchmark` through the proxy, every default test and not one error; and the rig of
//! `scripts/bench`, one short round of it. Nothing here asserts on speed.

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use harness::topology::Topology;

/// Of each test; enough for some seconds of it.
const REQUESTS: &str = "20000";
/// What `scripts/bench` measures unless told otherwise.
const PROGRAMS: &[&str] = &[
    "switchmaster",
    "switchmaster-close",
    "floor",
    "haproxy",
    "haproxy-again",
    "haproxy-2t",
    "nginx",
    "direct",
];

#[test]
fn redis_benchmark_without_pipelining() {
    benchmark(1);
}

#[test]
fn redis_benchmark_with_a_pipeline_of_16() {
    benchmark(16);
}

fn benchmark(pipeline: usize) {
    let _alone = alone();
    let servers = Topology::start_with(|options| {
        options.replicas = 0;
        options.sentinels = 1;
        options.quorum = 1;
    });
    let proxy = servers.proxy();
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new("redis-benchmark")
        .args(["-h", "127.0.0.1", "-p", &proxy.addr().port().to_string()])
        .args(["-q", "-P", &pipeline.to_string(), "-n", REQUESTS])
        .output()
        .unwrap_or_else(|e| {
            panic!("redis-benchmark cannot be started ({e}): apt-get install redis-tools")
        });
    let (stdout, stderr) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{status}\n{stdout}\n{stderr}");
    // Progress is overwritten in place: what counts is what stands there in the end.
    let results: Vec<&str> = stdout
        .split(['\n', '\r'])
        .filter(|line| line.contains("requests per second"))
        .collect();
    for test in ["PING_INLINE", "SET", "GET", "LPUSH", "LRANGE_600", "MSET"] {
        assert!(
            results
                .iter()
                .any(|line| line.trim_start().starts_with(test)),
            "{test} has no result:\n{stdout}"
        );
    }
    for said in [&stdout, &stderr] {
        let lower = said.to_lowercase();
        for word in ["error", "err ", "could not", "refused", "reset"] {
            assert!(!lower.contains(word), "{word:?} in what it says:\n{said}");
        }
    }
    assert!(proxy.events(0, "switched").is_empty());
}

#[test]
fn the_rig_measures_everything_it_was_asked_for_and_ends_what_it_started() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let (json, markdown, svg) = (
        folder.path().join("run.json"),
        folder.path().join("benchmarks.md"),
        folder.path().join("benchmarks.svg"),
    );
    let output = python()
        .arg(root().join("benches/side_by_side"))
        .args([
            "--quick",
            "--rounds",
            "1",
            "--seconds",
            "0.2",
            "--only",
            "get50",
        ])
        .args(["--idle-seconds", "0.2"])
        .arg(format!(
            "--switchmaster={}",
            env!("CARGO_BIN_EXE_switchmaster")
        ))
        .arg(format!("--floor={}", floor().display()))
        .args([Path::new("--json"), &json, Path::new("--svg"), &svg])
        .args([Path::new("--markdown"), &markdown])
        // What it starts works in there.
        .env("TMPDIR", folder.path())
        .output()
        .expect("python3 runs: scripts/setup proxies installs it");
    let said = format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{}\n{said}", output.status);

    let run = std::fs::read_to_string(&json).expect("the JSON file");
    let run: Value = serde_json::from_str(&run).expect("JSON");
    let measurements = run["measurements"].as_array().expect("a list");
    for program in PROGRAMS {
        let found: Vec<&Value> = measurements
            .iter()
            .filter(|m| m["program"] == *program)
            .collect();
        assert_eq!(found.len(), 1, "{program} in {measurements:#?}");
        let figures = &found[0]["figures"];
        let mut wanted = vec!["rps", "p50_ms", "p99_ms"];
        if *program != "direct" {
            wanted.push("cpu_us");
            let idle = run["idle"].as_array().expect("a list");
            let idle = idle.iter().find(|one| one["program"] == *program);
            let step = &idle.expect("an idle measurement")["figures"]["steps"][0];
            assert_eq!(step["sessions"], 1000, "{program}: {step}");
            assert_eq!(step["descriptors_per_session"], 2.0, "{program}: {step}");
            for figure in ["kib_per_session", "idle_cpu_percent"] {
                assert!(step[figure].as_f64().is_some_and(|v| v >= 0.0), "{step}");
            }
        }
        for figure in wanted {
            assert!(
                figures[figure].as_f64().is_some_and(|v| v > 0.0),
                "{program}: {figures}"
            );
        }
    }
    assert_eq!(measurements.len(), PROGRAMS.len(), "{measurements:#?}");
    let verdicts = run["verdicts"].as_array().expect("a list");
    assert!(
        verdicts.iter().all(|v| v["must_verdict"] != "not measured"),
        "{verdicts:#?}"
    );
    assert!(!verdicts.is_empty());
    let markdown = std::fs::read_to_string(&markdown).expect("the report");
    assert!(markdown.contains("(benchmarks.svg)"), "{markdown}");
    let svg = std::fs::read_to_string(&svg).expect("the plot");
    assert!(
        svg.contains("switchmaster dot") && svg.ends_with("</svg>\n"),
        "{svg}"
    );

    let left = working_in(folder.path());
    assert!(left.is_empty(), "still running: {left:#?}");
}

#[test]
fn scraping_is_measured_beside_the_same_process_unscraped() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("run.json");
    let output = python()
        .arg(root().join("benches/side_by_side/scraped.py"))
        .args(["--quick", "--rounds", "1", "--only", "get50"])
        .arg(format!(
            "--switchmaster={}",
            env!("CARGO_BIN_EXE_switchmaster")
        ))
        .args([Path::new("--json"), &json])
        .env("TMPDIR", folder.path())
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}{told}", output.status);
    let run = std::fs::read_to_string(&json).expect("the JSON file");
    let run: Value = serde_json::from_str(&run).expect("JSON");
    let measurements = run["measurements"].as_array().expect("a list");
    for (arm, scraped) in [("off", false), ("on", true), ("off-again", false)] {
        let found = measurements.iter().find(|m| m["program"] == arm);
        let figures = &found.expect("measured")["figures"];
        for figure in ["rps", "cpu_us"] {
            assert!(
                figures[figure].as_f64().is_some_and(|v| v > 0.0),
                "{arm}: {figures}"
            );
        }
        let scrapes = figures["scrapes"].as_u64().unwrap_or(0);
        assert_eq!(scrapes > 0, scraped, "{arm}: {figures}");
    }
    assert_eq!(run["summary"].as_array().map(Vec::len), Some(2), "{run:#}");
    assert!(said.contains("on / off"), "{said}");
    let left = working_in(folder.path());
    assert!(left.is_empty(), "still running: {left:#?}");
}

#[test]
fn the_rig_draws_the_right_conclusions_from_planted_measurements() {
    let output = python()
        .current_dir(root().join("benches/side_by_side"))
        .args(["-m", "unittest", "-v", "test_figures"])
        .output()
        .expect("python3 runs: scripts/setup proxies installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("Ran 0 tests"), "{said}");
}

/// Each of these saturates the machine; beside another, the proxy could stand still for long enough to hold its clients.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without a trace in the source tree.
fn python() -> Command {
    let mut python = Command::new("python3");
    python.arg("-B");
    python
}

/// The bare relay, which only `cargo test` without further words builds by itself.
fn floor() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_switchmaster"));
    let folder = program.parent().expect("a program is in a folder");
    let mut cargo = Command::new(env!("CARGO"));
    // What cargo says of this very test is what build scripts ask for, a dependency's and ours: with it, here and in the next
    // build without it, they and all that rests on them would be built again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let of_this = ["CARGO_PKG_", "CARGO_MANIFEST_", "SWITCHMASTER_"]
            .iter()
            .any(|beginning| name.starts_with(beginning));
        if of_this || name == "OUT_DIR" {
            cargo.env_remove(&*name);
        }
    }
    let built = cargo
        .current_dir(root())
        .args(["build", "--quiet", "--locked", "--example", "floor"])
        .arg("--target-dir")
        .arg(folder.parent().expect("target/PROFILE/switchmaster"))
        .args((!cfg!(debug_assertions)).then_some("--release"))
        .output()
        .expect("cargo runs");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    folder.join("examples/floor")
}

/// Command lines of the processes that work in `folder`, removed or not.
fn working_in(folder: &Path) -> Vec<String> {
    std::fs::read_dir("/proc")
        .expect("a proc file system")
        .filter_map(|entry| {
            let process = entry.ok()?.path();
            let works_in = std::fs::read_link(process.join("cwd")).ok()?;
            let line = std::fs::read(process.join("cmdline")).ok()?;
            works_in
                .starts_with(folder)
                .then(|| String::from_utf8_lossy(&line).replace('\0', " "))
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
