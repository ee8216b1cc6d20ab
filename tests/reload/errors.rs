//! What is refused, what is told of it, and what a reload does not touch.

use std::thread;

use serde_json::Value;

use crate::harness::stream::{SOON, connect, echoed};
use crate::{
    TOKEN, admin_of, file, get, hung_up, metric, post_as, ready, reload, stage, taken_over,
};

#[test]
fn a_file_that_is_wrong_changes_nothing_and_each_problem_has_its_line() {
    let (_master, sentinel) = stage();
    let right = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
    let proxy = ready(&right);
    let mut client = connect(proxy.addr());
    assert_eq!(echoed(&mut client, b"served"), b"served");
    let wrong = right
        .replace("shutdown_grace = \"5s\"", "shutdown_grace = 5")
        .replace("name = \"a\"", "nome = \"a\"");
    proxy.rewrite(&wrong);
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 400, "{answer}");
    let lines: Vec<_> = answer["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|problem| problem["line"].clone())
        .collect();
    assert!(
        !lines.is_empty() && lines.contains(&Value::from(6)),
        "{answer}"
    );
    let event = hung_up(&proxy, "reload_failed");
    assert!(
        event
            .text("message")
            .contains("the old configuration stays in force")
    );
    assert!(!event.text("help").is_empty(), "{}", event.fields);
    assert!(metric(&proxy, "switchmaster_reloads_total", "failed") > 1.5);
    let told = || get(admin_of(&proxy), "/status").contains("an older configuration is in force");
    assert!(told());
    assert_eq!(echoed(&mut client, b"goes on"), b"goes on");
    // No file at all.
    let path = proxy.config_path().to_owned();
    std::fs::remove_file(&path).expect("it was there");
    let event = hung_up(&proxy, "reload_failed");
    assert!(
        event.text("what").contains("cannot read the configuration"),
        "{}",
        event.fields
    );
    proxy.rewrite(&right);
    let at = metric(
        &proxy,
        "switchmaster_config_last_reload_timestamp_seconds",
        "",
    );
    hung_up(&proxy, "reload_unchanged");
    assert!(!told());
    assert!(
        metric(
            &proxy,
            "switchmaster_config_last_reload_timestamp_seconds",
            ""
        ) > at
    );
    assert!(metric(&proxy, "switchmaster_config_last_reload_successful", "") > 0.5);
}

#[test]
fn what_needs_a_restart_refuses_all_of_it() {
    let (_master, sentinel) = stage();
    let right = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
    let proxy = ready(&right);
    let text = right.replace("[limits]\n", "[limits]\nworkers = 3\n");
    proxy.rewrite(&format!("{text}max_connections = 1\n"));
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 409, "{answer}");
    let what = answer["problems"][0]["what"].as_str().expect("a text");
    assert!(what.starts_with("limits.workers needs a restart"), "{what}");
    assert_eq!(answer["problems"][0]["line"], 4);
    // The other half of it is not in force either.
    let mut clients = [connect(proxy.addr()), connect(proxy.addr())];
    for client in &mut clients {
        assert_eq!(echoed(client, b"served"), b"served");
    }
}

#[test]
fn the_log_level_of_the_file_and_that_of_the_endpoint() {
    let (_master, sentinel) = stage();
    let with = |level: &str| {
        let text = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
        format!("{text}[log]\nlevel = \"{level}\"\n")
    };
    let proxy = ready(&with("info"));
    let admin = admin_of(&proxy);
    let log = || serde_json::from_str::<Value>(&get(admin, "/log")).expect("JSON");
    taken_over(&proxy, &with("debug"));
    assert_eq!(
        (&log()["filter"], &log()["configured"]),
        (&"debug".into(), &"debug".into())
    );
    // For a while: the file's waits for the end of it.
    let (code, body) = post_as(admin, "/log?for=10m", "info,switchmaster::net=trace", TOKEN);
    assert_eq!(code, 200, "{body}");
    taken_over(&proxy, &with("info"));
    assert_eq!(log()["filter"], "info,switchmaster::net=trace");
    assert_eq!(log()["configured"], "info");
    // For good: the file's word is the later one.
    let (code, body) = post_as(admin, "/log", "trace", TOKEN);
    assert_eq!(code, 200, "{body}");
    taken_over(&proxy, &with("warn,switchmaster::daemon=info"));
    assert_eq!(log()["filter"], "warn,switchmaster::daemon=info");
}

#[test]
fn who_may_not_act_may_not_reload() {
    let (_master, sentinel) = stage();
    let proxy = ready(&file(
        sentinel.addr(),
        &[("a", "mymaster", "\"127.0.0.1:0\"")],
    ));
    let (code, _) = post_as(admin_of(&proxy), "/reload", "", "another token of the test");
    assert_eq!(code, 401);
    let (code, body) = post_as(admin_of(&proxy), "/reload?now=1", "", TOKEN);
    assert_eq!(code, 400, "{body}");
    let (code, answer) = reload(&proxy);
    assert_eq!(
        (code, &answer["outcome"]),
        (200, &Value::from("unchanged")),
        "{answer}"
    );
    proxy.event("reload_unchanged", SOON);
    assert_eq!(proxy.events(0, "reload_unchanged").len(), 1);
}

/// Many at once, by both ways: everybody hears what came of a reading of after the question.
#[test]
fn many_ask_at_once() {
    let (_master, sentinel) = stage();
    let with = |limit: usize| {
        let text = file(sentinel.addr(), &[("a", "mymaster", "\"127.0.0.1:0\"")]);
        format!("{text}max_connections = {limit}\n")
    };
    let mut proxy = ready(&with(1));
    let mut client = connect(proxy.addr());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let (code, answer) = reload(&proxy);
                    assert!(code == 200 || code == 503, "{answer}");
                }
            });
        }
        for limit in 2..30 {
            proxy.rewrite(&with(limit));
            proxy.hang_up();
        }
    });
    let (code, answer) = reload(&proxy);
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = reload(&proxy);
    assert_eq!(
        (code, &answer["outcome"]),
        (200, &Value::from("unchanged")),
        "{answer}"
    );
    let others: Vec<_> = (0..28).map(|_| connect(proxy.addr())).collect();
    for mut other in others {
        assert_eq!(echoed(&mut other, b"served"), b"served");
    }
    assert_eq!(echoed(&mut client, b"served"), b"served");
    // The end comes first, whatever is asked for beside it.
    proxy.hang_up();
    proxy.ask_to_end();
    proxy.hang_up();
    assert_eq!(proxy.exit(SOON).code(), Some(0));
}
