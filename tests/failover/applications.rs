//! Programs that know nothing of Sentinel.

use std::fmt::Write as _;

use serde_json::Value;

use crate::harness::application::{Application, node_modules, python};
use crate::harness::proxy::{Plan, Proxy};
use crate::harness::topology::{Topology, follows};
use crate::redis_rs::RedisRs;

/// `PLANNED,CRASHES` of the test of the libraries, for `scripts/clients`.
const SWITCHES: &str = "SWITCHMASTER_TEST_CLIENTS";

#[test]
fn plain_redis_py_survives_a_planned_failover() {
    let python = python();
    let servers = Topology::start();
    let proxy = servers.proxy();
    let mut app = Application::start(&python, "plain_app.py", [proxy.addr().port().to_string()]);
    app.rounds(20);
    let mark = proxy.mark();
    let switch = servers.fail_over(0);
    follows(&proxy, mark, switch);
    app.rounds(200);
    let report = app.finish();
    assert_eq!(report["other_errors"], 0, "{report}");
    assert_eq!(report["wrong_values"], 0, "{report}");
    assert!(
        report["reconnects"].as_u64().is_some_and(|n| n <= 1),
        "{report}"
    );
    assert!(
        report["connection_errors"].as_u64().is_some_and(|n| n <= 1),
        "{report}"
    );
}

/// Each library does all kinds of work at once, through a proxy in its default mode, and is asked in the end what it saw.
#[test]
fn client_libraries_do_not_notice_planned_failovers() {
    let (planned, crashes) = switches();
    let python = python();
    node_modules();
    let programs = [
        (python.as_str(), "redis_py_sync.py"),
        (python.as_str(), "redis_py_asyncio.py"),
        ("node", "node/ioredis.mjs"),
        ("node", "node/node_redis.mjs"),
        ("php", "php/phpredis.php"),
        ("php", "php/predis.php"),
    ];
    let servers = Topology::start();
    let proxy = Proxy::ready(Plan::moving(&servers.sentinels()));
    let port = proxy.addr().port().to_string();
    let mut apps =
        programs.map(|(interpreter, script)| Application::start(interpreter, script, [&port]));
    let redis_rs = RedisRs::start(proxy.addr().port());
    let rounds = |apps: &mut [Application], count| {
        apps.iter_mut().for_each(|app| app.rounds(count));
        redis_rs.rounds(count);
    };
    rounds(&mut apps, 20);
    for _ in 0..planned {
        let mark = proxy.mark();
        let switch = servers.fail_over(0);
        let switched = follows(&proxy, mark, switch);
        println!(
            "planned failover: {} sessions kept, {} cut",
            switched.number("kept"),
            switched.number("cut")
        );
        rounds(&mut apps, 20);
        servers.ready_again(switch);
    }
    for _ in 0..crashes {
        let old = servers.master().addr();
        let mark = proxy.mark();
        servers.node(old).kill().expect("SIGKILL");
        let switch = servers.switched_from(old);
        let switched = follows(&proxy, mark, switch);
        println!(
            "crash: {} sessions kept, {} cut",
            switched.number("kept"),
            switched.number("cut")
        );
        rounds(&mut apps, 20);
        servers.bring_back(switch);
    }
    let mut reports = apps.map(Application::finish).to_vec();
    reports.push(redis_rs.finish());
    println!("{}", table(&reports));
    for report in &reports {
        let more_than = |path: &str, least: u64| {
            report
                .pointer(path)
                .and_then(Value::as_u64)
                .is_some_and(|n| n > least)
        };
        assert_eq!(report["wrong_values"], 0, "{report}");
        assert_eq!(report["recovered"]["pubsub"], true, "{report}");
        assert_eq!(report["recovered"]["blocking"], true, "{report}");
        assert!(
            more_than("/acknowledged", 100) && more_than("/heard", 20) && more_than("/popped", 20),
            "{report}"
        );
        if crashes == 0 {
            assert_eq!(
                report["errors"]["ordinary"],
                serde_json::json!({}),
                "{report}"
            );
            assert_eq!(report["reconnects"]["ordinary"], 0, "{report}");
            assert_eq!(report["lost"], 0, "{report}");
        }
        // Closed at each switch, by design; no more often than that.
        for work in ["pubsub", "blocking"] {
            assert!(
                !more_than(&format!("/reconnects/{work}"), planned + 2 * crashes),
                "{report}"
            );
        }
    }
}

/// Planned failovers and crashes: few planned ones, unless told otherwise.
fn switches() -> (u64, u64) {
    let Ok(told) = std::env::var(SWITCHES) else {
        return (2, 0);
    };
    let (planned, crashes) = told
        .split_once(',')
        .expect("SWITCHMASTER_TEST_CLIENTS=PLANNED,CRASHES");
    (
        planned.parse().expect("a number"),
        crashes.parse().expect("a number"),
    )
}

/// One row a library, in Markdown.
fn table(reports: &[Value]) -> String {
    let mut rows = String::from(
        "| library | errors: ordinary work | pub/sub | blocking | reconnects: ordinary | pub/sub | blocking \
         | acknowledged writes | lost | wrong values |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for report in reports {
        let kinds = |work: &str| {
            let kinds = report["errors"][work].as_object().expect("errors by kind");
            let told: Vec<String> = kinds
                .iter()
                .map(|(kind, count)| format!("{count} x {kind}"))
                .collect();
            if told.is_empty() {
                "0".to_owned()
            } else {
                told.join("; ")
            }
        };
        let name = report["library"].as_str().expect("a name");
        let reconnects = &report["reconnects"];
        writeln!(
            rows,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            kinds("ordinary"),
            kinds("pubsub"),
            kinds("blocking"),
            reconnects["ordinary"],
            reconnects["pubsub"],
            reconnects["blocking"],
            report["acknowledged"],
            report["lost"],
            report["wrong_values"],
        )
        .expect("a string takes everything");
    }
    rows
}
