//! Reloads: another configuration for a process that serves, without ending a session that need not end.

#[path = "../harness/mod.rs"]
mod harness;

mod credentials;
mod entries;
mod errors;
mod load;

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::Value;

use harness::fake_master::{Bytes, FakeMaster};
use harness::fake_sentinel::{FakeSentinel, Protocol, View};
use harness::proxy::{Event, Plan, Proxy};
use harness::stream::{SOON, connect};

/// What entitles to act in these tests.
pub(crate) const TOKEN: &str = "a-token-of-this-test";

/// A proxy with this file, whose endpoint takes actions.
pub(crate) fn plan(text: &str) -> Plan {
    Plan::bare(["run", "--log-format", "json"])
        .env("SWITCHMASTER_ADMIN_LISTEN", "127.0.0.1:0")
        .env("SWITCHMASTER_ADMIN_ACTIONS", "true")
        .env("SWITCHMASTER_ADMIN_TOKEN", TOKEN)
        .config(text)
}

/// The same, started.
pub(crate) fn start(text: &str) -> Proxy {
    plan(text).start()
}

/// The same, with its first master verified.
pub(crate) fn ready(text: &str) -> Proxy {
    let proxy = start(text);
    proxy.event("ready", SOON);
    proxy
}

/// Where a proxy's admin endpoint is.
pub(crate) fn admin_of(proxy: &Proxy) -> SocketAddr {
    let event = proxy.event("admin_listening", SOON);
    event.text("addr").parse().expect("an address")
}

fn asked(admin: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = connect(admin);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or(0), body.to_owned())
}

/// What somebody without a token is answered.
pub(crate) fn get(admin: SocketAddr, path: &str) -> String {
    let (code, body) = asked(
        admin,
        &format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"),
    );
    assert_eq!(code, 200, "{path}: {body}");
    body
}

/// What somebody with this token is answered.
pub(crate) fn post_as(admin: SocketAddr, path: &str, body: &str, token: &str) -> (u16, String) {
    asked(
        admin,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// `POST /reload`: code and answer.
pub(crate) fn reload(proxy: &Proxy) -> (u16, Value) {
    let (code, body) = post_as(admin_of(proxy), "/reload", "", TOKEN);
    let answer = serde_json::from_str(&body).unwrap_or(Value::String(body));
    (code, answer)
}

/// Puts this text in place and has it taken over.
pub(crate) fn taken_over(proxy: &Proxy, text: &str) -> Value {
    proxy.rewrite(text);
    let (code, answer) = reload(proxy);
    assert_eq!(
        (code, &answer["outcome"]),
        (200, &Value::from("reloaded")),
        "{answer}"
    );
    answer
}

/// Sends SIGHUP, and gives the event that tells what came of it.
pub(crate) fn hung_up(proxy: &Proxy, event: &str) -> Event {
    let mark = proxy.mark();
    proxy.hang_up();
    proxy.event_after(mark, event, SOON)
}

/// The value of a metric's one series with this text in its labels.
pub(crate) fn metric(proxy: &Proxy, name: &str, labels: &str) -> f64 {
    let text = get(admin_of(proxy), "/metrics");
    let line = text.lines().find(|line| {
        let (series, _) = line.split_once(' ').unwrap_or((line, ""));
        series.split('{').next() == Some(name) && series.contains(labels)
    });
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} with {labels} in\n{text}"))
}

/// A master that echoes and a Sentinel that names it.
pub(crate) fn stage() -> (FakeMaster, FakeSentinel) {
    let master = FakeMaster::start(Bytes::Echo);
    let sentinel = FakeSentinel::start(Protocol::Resp3, View::of(master.addr()));
    (master, sentinel)
}

/// The file of these entries: name, master, addresses.
pub(crate) fn file(sentinel: SocketAddr, entries: &[(&str, &str, &str)]) -> String {
    let mut text =
        format!("[sentinel]\naddresses = [\"{sentinel}\"]\n[limits]\nshutdown_grace = \"5s\"\n");
    for (name, master, listen) in entries {
        text.push_str(&format!(
            "[[proxy]]\nname = \"{name}\"\nmaster = \"{master}\"\nlisten = [{listen}]\n"
        ));
    }
    text
}
