//! The pages of `docs/clients`: the block that a page gives is what a library is set up with here, and works through a failover.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::blocks::{Block, marked};
use crate::harness::application::{Application, node_modules, python};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{Topology, follows};

/// What is behind `run:` of the blocks that are used here.
pub(crate) const NAMES: &[&str] = &[
    "redis-py",
    "django",
    "celery",
    "phpredis",
    "sessions",
    "predis",
    "laravel",
    "sidekiq",
    "ioredis",
    "node-redis",
];
/// Those whose version `tests/clients` says; the others' is the distribution's.
const PINNED: &[&str] = &["redis-py", "django", "celery", "ioredis", "node-redis"];
/// In every block; the proxy's port goes there.
const PORT: &str = "6379";
/// Rounds before and after the failover.
const ROUNDS: usize = 20;

#[test]
fn the_blocks_of_the_pages_work_through_a_planned_failover() {
    let folder = tempfile::tempdir().expect("a folder");
    // For what the blocks import: found from where a file is.
    std::os::unix::fs::symlink(node_modules(), folder.path().join("node_modules")).expect("a link");
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let port = proxy.addr().port().to_string();
    let python = python();
    let programs = NAMES.iter().map(|name| {
        let file = written(&block(name), &port, folder.path(), name);
        let page = |interpreter: &str, script: &str| {
            let script = format!("pages/{script}");
            Application::start(interpreter, &script, [file.as_str(), name])
        };
        let program = match *name {
            "redis-py" => page(&python, "redis_py.py"),
            "django" => page(&python, "django_cache.py"),
            "celery" => page(&python, "celery_tasks.py"),
            "phpredis" | "predis" => page("php", "redis.php"),
            "sessions" => page("php", "sessions.php"),
            "laravel" => page("php", "laravel.php"),
            "sidekiq" => page("ruby", "sidekiq.rb"),
            "ioredis" | "node-redis" => page("node", "page.mjs"),
            other => unreachable!("{other} is in NAMES"),
        };
        (*name, program)
    });
    let mut programs: Vec<(&str, Application)> = programs.collect();
    programs
        .iter_mut()
        .for_each(|(_, program)| program.rounds(ROUNDS));
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    programs
        .iter_mut()
        .for_each(|(_, program)| program.rounds(ROUNDS));
    for (name, program) in programs {
        let report = program.finish();
        println!("{report}");
        assert_eq!(report["errors"], serde_json::json!({}), "{name}: {report}");
        assert_eq!(report["wrong_values"], 0, "{name}: {report}");
        assert_eq!(report["lost"], 0, "{name}: {report}");
        let acknowledged = report["acknowledged"].as_u64();
        assert!(
            acknowledged.is_some_and(|n| n >= 2 * ROUNDS as u64),
            "{name}: {report}"
        );
        if name == "redis-py" {
            assert!(report["popped"].as_u64() > Some(0), "{report}");
        }
        if PINNED.contains(&name) {
            told(name, &report);
        }
    }
}

/// What a page says that its block was run with is what it was run with.
fn told(name: &str, report: &Value) {
    let library = report["library"].as_str().expect("a name");
    let page = block(name).place;
    let (page, _) = page.split_once(':').expect("a page and a line");
    let text = fs::read_to_string(page).expect("the page");
    let version = |word: &&str| word.split('.').count() >= 3;
    for version in library.split([' ', ',']).filter(version) {
        assert!(
            text.contains(version),
            "{page} was checked with another {library}"
        );
    }
}

fn block(name: &str) -> Block {
    let [block] = <[Block; 1]>::try_from(marked("run", name)).expect("one block a name");
    block
}

/// The block as a file, for the proxy's port.
fn written(block: &Block, port: &str, folder: &Path, name: &str) -> String {
    assert!(block.text.contains(PORT), "{}: no {PORT}", block.place);
    let mut text = block.text.replace(PORT, port);
    let extension = match block.language.as_deref() {
        Some("python") => "py",
        Some("php") => "php",
        Some("ini") => "ini",
        Some("ruby") => "rb",
        Some("js") => {
            text.push_str("export { client };\n");
            "mjs"
        }
        other => panic!("{}: {other:?}", block.place),
    };
    let file = folder.join(format!("{name}.{extension}"));
    fs::write(&file, text).expect("written");
    file.to_str().expect("text").to_owned()
}
