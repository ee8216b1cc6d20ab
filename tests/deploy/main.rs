//! What is shipped for operators in `deploy/`: do the alert rules and the dashboard name what the program exports, does each
//! alert fire when it should and only then, in promtool and in a real Prometheus?
//!
//! A missing Prometheus is a failure, not a skip: `scripts/setup prometheus` brings it.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use switchmaster::admin::table::{self, Kind};
use switchmaster::demo::wire::Conn;

#[path = "../harness/mod.rs"]
mod harness;
mod prometheus;
mod queries;
mod recipes;
mod scrape;

use harness::proxy::{Plan, Proxy};
use harness::topology::{Topology, follows, idle_client};
use harness::{wait_for, wait_until};
use prometheus::{Prometheus, promtool};
use queries::{Alert, Query, alerts, made_up, names, of_dashboard};

const RULES: &str = "deploy/prometheus/switchmaster.rules.yml";
const TESTS: &str = "deploy/prometheus/switchmaster.rules.test.yml";
const DASHBOARD: &str = "deploy/grafana/switchmaster.json";

const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody listens there: the discard port of this host.
const NOBODY: &str = "127.0.0.1:9";
/// Labels that Prometheus adds to whatever it scrapes.
const ADDED: &[&str] = &["job", "instance"];

/// Every `for` of the rules is divided by this in [`in_a_real_prometheus_exactly_the_right_alerts_fire`]: the longest that is
/// waited for there becomes 20 s, and the one that a planned failover has to stay below becomes 5 s.
const HASTE: u32 = 6;
/// A `for` of 2 min in haste, and what scraping, evaluating and a loaded machine add.
const FIRES: Duration = Duration::from_secs(35);

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).expect("JSON")
}

fn watched(plan: Plan) -> (Proxy, SocketAddr) {
    let proxy = plan.env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0").start();
    let event = proxy.event("admin_listening", PATIENCE);
    let admin = event.text("addr").parse().expect("an address");
    (proxy, admin)
}

/// The labels that a metric has once it was scraped, or nothing if there is no such metric.
fn labels_of(metric: &str, process: &BTreeSet<String>) -> Option<Vec<&'static str>> {
    if metric == "up" || process.contains(metric) {
        return Some(ADDED.to_vec());
    }
    table::ALL.iter().find_map(|known| {
        let mut labels = [known.labels, ADDED].concat();
        let suffix = metric.strip_prefix(known.name)?;
        match (known.kind, suffix) {
            (Kind::Counter | Kind::Gauge, "") => {}
            (Kind::Histogram, "_bucket") => labels.push("le"),
            (Kind::Histogram, "_sum" | "_count") => {}
            _ => return None,
        }
        Some(labels)
    })
}

/// What is wrong with the names in a query.
fn faults(query: &Query, process: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    let mut known = Vec::new();
    let found = names(&query.expr);
    if found.selectors.is_empty() {
        faults.push("names no metric".to_owned());
    }
    for selector in &found.selectors {
        let Some(labels) = labels_of(&selector.metric, process) else {
            faults.push(format!("{} does not exist", selector.metric));
            continue;
        };
        for (label, _, _) in &selector.matchers {
            if !labels.contains(&label.as_str()) {
                faults.push(format!("{} has no label {label}", selector.metric));
            }
        }
        known.extend(labels);
    }
    for label in found.grouping.iter().chain(&query.shown) {
        if !known.contains(&label.as_str()) {
            faults.push(format!("nothing in it has a label {label}"));
        }
    }
    let place = |fault| format!("{}: {fault}: {}", query.place, query.expr);
    faults.into_iter().map(place).collect()
}

#[test]
fn rules_and_dashboard_name_what_is_exported() {
    let (_proxy, admin) = watched(Plan::following(&[NOBODY.parse().expect("an address")]));
    let exposition = scrape::get(admin, "/metrics");
    let process = scrape::families(&exposition, "process_");
    assert!(process.contains("process_open_fds"), "{exposition}");

    let rules = alerts(&read(RULES));
    let rules: Vec<Query> = rules.into_iter().map(|alert| alert.query).collect();
    let panels = of_dashboard(&dashboard());
    let tests = made_up(&read(TESTS));
    let wrong: Vec<_> = [&rules, &panels, &tests]
        .into_iter()
        .flatten()
        .flat_map(|query| faults(query, &process))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // A series of the tests is one that could be scraped: with all its labels. A text that a rule asks for is there to be found.
    for query in &tests {
        let found = names(&query.expr);
        let [series] = found.selectors.as_slice() else {
            panic!("{}: {}", query.place, query.expr);
        };
        let given: BTreeSet<_> = series
            .matchers
            .iter()
            .map(|(label, _, _)| label.as_str())
            .collect();
        let all: BTreeSet<_> = labels_of(&series.metric, &process)
            .expect("checked above")
            .into_iter()
            .collect();
        assert_eq!(given, all, "{}: {}", query.place, query.expr);
    }
    for query in rules.iter().chain(&panels) {
        for selector in names(&query.expr).selectors {
            let own = selector.matchers.iter().filter(|(label, sign, text)| {
                sign == "=" && !ADDED.contains(&label.as_str()) && !text.starts_with('$')
            });
            for (label, _, text) in own {
                let pair = format!("{label}=\"{text}\"");
                let series = format!("{}{{", selector.metric);
                let mut lines = exposition.lines();
                let known = lines.any(|line| line.starts_with(&series) && line.contains(&pair));
                assert!(known, "{}: no {} with {pair}", query.place, selector.metric);
            }
        }
    }
}

#[test]
fn the_dashboard_fits_its_grid_and_asks_the_chosen_data_source() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("a list");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(x + w <= 24, "{title} is too wide");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{title} lies over another panel");
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
    let is_source =
        |variable: &Value| variable["name"] == "datasource" && variable["type"] == "datasource";
    let mut variables = dashboard["templating"]["list"]
        .as_array()
        .expect("a list")
        .iter();
    assert!(
        variables.any(is_source),
        "nothing to choose the data source with"
    );
}

#[test]
fn a_wrong_name_is_found() {
    let process = BTreeSet::from(["process_open_fds".to_owned()]);
    let query = |expr: &str, shown: &str| Query {
        place: "here".to_owned(),
        expr: expr.to_owned(),
        shown: vec![shown.to_owned()],
    };
    let well = [
        ("up{job=\"switchmaster\"} == 0", "instance"),
        (
            "sum by (le) (rate(switchmaster_hold_seconds_bucket{proxy=\"a\"}[5m]))",
            "proxy",
        ),
        ("process_open_fds", "job"),
    ];
    for (expr, shown) in well {
        assert_eq!(faults(&query(expr, shown), &process), Vec::<String>::new());
    }
    let wrong = [
        ("switchmaster_master_upp", "proxy"),
        ("switchmaster_hold_seconds", "proxy"),
        ("switchmaster_hold_seconds_bucket", "phase"),
        ("switchmaster_master_up_sum", "proxy"),
        ("switchmaster_master_up{master=\"a\"}", "proxy"),
        ("sum by (sentinel) (switchmaster_master_up)", "proxy"),
        ("process_open_files", "job"),
        ("vector(1)", "job"),
    ];
    for (expr, shown) in wrong {
        assert!(!faults(&query(expr, shown), &process).is_empty(), "{expr}");
    }
}

#[test]
fn promtool_is_content_with_the_rules_and_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = |file: &str| {
        root.join(file)
            .to_str()
            .expect("our paths are text")
            .to_owned()
    };
    let checked = promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", &path(RULES)],
        "",
    );
    assert!(checked.content, "{}", checked.text);
    let tested = promtool(&["test", "rules", &path(TESTS)], "");
    assert!(tested.content, "{}", tested.text);
}

/// Every alert is broken in three ways, and each time the tests notice it of each.
#[test]
fn the_tests_of_the_rules_notice_each_broken_alert() {
    let rules = read(RULES);
    let all = alerts(&rules);
    let every = |which: fn(&Alert) -> bool| -> BTreeSet<String> {
        all.iter()
            .filter(|alert| which(alert))
            .map(|alert| alert.name.clone())
            .collect()
    };
    // Expected and missing; there and not expected.
    let (missing, _) = noticed(&with_every_expr(&rules, "vector(0) > 1"));
    assert_eq!(missing, every(|_| true), "are expected to fire somewhere");
    let (_, unexpected) = noticed(&with_every_expr(&rules, "vector(1)"));
    assert_eq!(
        unexpected,
        every(|_| true),
        "are expected not to fire somewhere"
    );
    let hasty: Vec<_> = rules
        .lines()
        .filter(|line| !line.trim().starts_with("for: "))
        .collect();
    let (_, unexpected) = noticed(&hasty.join("\n"));
    assert_eq!(
        unexpected,
        every(|alert| alert.waits),
        "are expected to wait"
    );
}

fn with_every_expr(rules: &str, expr: &str) -> String {
    let mut text = rules.to_owned();
    for alert in alerts(rules) {
        // Folded over lines in the file, joined here.
        let (before, block) = text
            .split_once(&format!("- alert: {}\n", alert.name))
            .expect("it is there");
        let (head, rest) = block.split_once("expr: ").expect("it has one");
        let end = ["        for:", "        labels:"]
            .iter()
            .filter_map(|key| rest.find(key))
            .min();
        let rest = &rest[end.expect("labels follow")..];
        text = format!(
            "{before}- alert: {}\n{head}expr: {expr}\n{rest}",
            alert.name
        );
    }
    text
}

/// Runs the tests on other rules: alerts of which one is missing, and of which one is too much, at some moment.
fn noticed(rules: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |path: &str| {
        folder
            .path()
            .join(Path::new(path).file_name().expect("a file"))
    };
    fs::write(file(RULES), rules).expect("writing a temporary file");
    fs::write(file(TESTS), read(TESTS)).expect("writing a temporary file");
    let said = promtool(&["test", "rules", file(TESTS).to_str().expect("text")], "");
    assert!(
        !said.content,
        "the tests pass on broken rules: {}",
        said.text
    );
    let (mut missing, mut unexpected) = (BTreeSet::new(), BTreeSet::new());
    let mut expected = BTreeSet::new();
    for line in said.text.lines().map(str::trim) {
        if let Some(samples) = line.strip_prefix("exp: ") {
            expected = named(samples);
        } else if let Some(samples) = line.strip_prefix("got: ") {
            let got = named(samples);
            missing.extend(expected.difference(&got).cloned());
            unexpected.extend(got.difference(&expected).cloned());
        }
    }
    (missing, unexpected)
}

/// The alerts in a list of series as promtool prints it.
fn named(samples: &str) -> BTreeSet<String> {
    let pieces = samples.split("alertname=\"").skip(1);
    pieces
        .filter_map(|piece| Some(piece.split_once('"')?.0.to_owned()))
        .collect()
}

#[test]
fn promtool_is_content_with_the_exposition() {
    let servers = Topology::start();
    let (proxy, admin) = watched(Plan::moving(&servers.sentinels()));
    proxy.event("ready", PATIENCE);
    let mut client = idle_client(&proxy);
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    client.call(&["PING"]).expect("the session moved");
    let exposition = wait_for(
        "every histogram and the replicas to be there",
        PATIENCE,
        || {
            let text = scrape::get(admin, "/metrics");
            let wanted = [
                "switchmaster_switch_duration_seconds_count",
                "switchmaster_fence_seconds_count",
                "switchmaster_replica_lag_bytes{",
                "switchmaster_switches_total{",
            ];
            wanted
                .iter()
                .all(|series| text.contains(series))
                .then_some(text)
        },
    );
    let checked = promtool(&["check", "metrics"], &exposition);
    assert!(
        checked.content && checked.text.trim().is_empty(),
        "{}\n{exposition}",
        checked.text
    );
}

/// The rules with every `for` divided by [`HASTE`], so that a test can wait for them. Nothing else is changed: windows look
/// back as far as there is something to see.
fn in_haste(rules: &str) -> String {
    let mut lines = Vec::new();
    let mut changed = 0;
    for line in rules.lines() {
        match line.split_once("for: ") {
            Some((indent, length)) if indent.trim().is_empty() => {
                let length = humantime::parse_duration(length).expect("a duration");
                lines.push(format!("{indent}for: {}ms", (length / HASTE).as_millis()));
                changed += 1;
            }
            _ => lines.push(line.to_owned()),
        }
    }
    assert!(changed > 5, "the rules have another form now");
    lines.join("\n")
}

/// The names of the alerts that fire among these.
fn firing(alerts: &[Value]) -> BTreeSet<&str> {
    let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
    firing
        .filter_map(|alert| alert["labels"]["alertname"].as_str())
        .collect()
}

/// The names of all alerts that ever fired.
fn fired(prometheus: &Prometheus) -> BTreeSet<String> {
    let fired =
        prometheus.query("max by (alertname) (max_over_time(ALERTS{alertstate=\"firing\"}[10m]))");
    let names = fired
        .iter()
        .filter_map(|(labels, _)| labels["alertname"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn in_a_real_prometheus_exactly_the_right_alerts_fire() {
    let servers = Topology::start();
    let (proxy, admin) = watched(Plan::moving(&servers.sentinels()));
    proxy.event("ready", PATIENCE);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("rules.yml"), in_haste(&read(RULES))).expect("a temporary file");
    let config = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
         rule_files: [rules.yml]\n\
         scrape_configs:\n- job_name: switchmaster\n  static_configs: [{{targets: [\"{admin}\"]}}]\n"
    );
    fs::write(&config, text).expect("a temporary file");
    let prometheus = Prometheus::start(folder.path(), &config);
    wait_until("some scrapes", PATIENCE, || {
        prometheus.number("count_over_time(switchmaster_master_up[1m])") >= Some(3.0)
    });

    // A planned failover, under way for longer than a scrape, with clients at work: nobody is told.
    let mut client = idle_client(&proxy);
    let mark = proxy.mark();
    follows(&proxy, mark, servers.fail_over(0));
    client
        .call(&["INCR", "counter"])
        .expect("the session moved");
    drop(client);
    wait_until("the switch to be scraped", PATIENCE, || {
        prometheus.number("switchmaster_master_generation") == Some(2.0)
    });
    prometheus.evaluates(PATIENCE);
    // What waits could still fire.
    wait_until("no alert to wait", FIRES, || {
        let alerts = prometheus.alerts();
        assert!(
            firing(&alerts).is_empty(),
            "after a planned failover: {alerts:?}"
        );
        alerts.is_empty()
    });
    // Not between two looks either.
    assert_eq!(
        fired(&prometheus),
        BTreeSet::new(),
        "after a planned failover"
    );
    let waited = prometheus.number("switchmaster_unavailable_seconds_total");
    assert!(
        waited > Some(0.0),
        "Prometheus saw nothing of the failover: {waited:?}"
    );

    // One Sentinel, of three.
    let lost = &servers.cluster().sentinels()[2];
    lost.kill().expect("it dies");
    shows_something_in_every_panel(&prometheus, &proxy);
    let told = wait_for("an alert to fire", FIRES, || {
        let alerts = prometheus.alerts();
        (!firing(&alerts).is_empty()).then_some(alerts)
    });
    assert_eq!(
        firing(&told),
        BTreeSet::from(["SwitchmasterSentinelDown"]),
        "{told:?}"
    );
    let told: Vec<_> = told
        .iter()
        .filter(|alert| alert["state"] == "firing")
        .collect();
    let [told] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(
        told["labels"]["sentinel"],
        lost.addr().to_string(),
        "{told}"
    );
    assert_eq!(told["labels"]["master"], "mymaster", "{told}");
    let words = told["annotations"].to_string();
    assert!(
        words.contains(&lost.addr().to_string()) && !words.contains("<no value>"),
        "{words}"
    );

    // And another.
    servers.cluster().sentinels()[1].kill().expect("it dies");
    let told = wait_for("the quorum to be missed", FIRES, || {
        let alerts = prometheus.alerts();
        firing(&alerts)
            .contains("SwitchmasterQuorumLost")
            .then_some(alerts)
    });
    let both = BTreeSet::from(["SwitchmasterSentinelDown", "SwitchmasterQuorumLost"]);
    assert_eq!(firing(&told), both, "{told:?}");
    // An alert fires before it is on record.
    wait_until("what fires to be on record", PATIENCE, || {
        fired(&prometheus).len() >= both.len()
    });
    let all = fired(&prometheus);
    assert_eq!(
        all.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        both
    );
    // Nobody lost service over it.
    let mut client = Conn::connect(proxy.addr(), PATIENCE).expect("the proxy listens");
    client.call(&["PING"]).expect("the master answers");
}

/// Every query of the dashboard is understood, and gives something.
fn shows_something_in_every_panel(prometheus: &Prometheus, proxy: &Proxy) {
    // Sessions that are opened and closed while they are counted.
    wait_until("a closed session to be counted", PATIENCE, || {
        drop(idle_client(proxy));
        prometheus.number("sum(increase(switchmaster_sessions_closed_total[1m]))") > Some(0.0)
    });
    let mut empty = Vec::new();
    for query in of_dashboard(&dashboard()) {
        let expr = ["instance", "proxy", "master"]
            .iter()
            .fold(query.expr.clone(), |expr, name| {
                expr.replace(&format!("\"${name}\""), "\".*\"")
            })
            .replace("$__rate_interval", "1m")
            .replace("$__range", "1m");
        assert!(
            !expr.contains('$'),
            "{}: a variable that Grafana does not know: {expr}",
            query.place
        );
        if prometheus.query(&expr).is_empty() {
            empty.push(format!("{}: {expr}", query.place));
        }
    }
    assert!(
        empty.is_empty(),
        "nothing to be seen:\n{}",
        empty.join("\n")
    );
}
