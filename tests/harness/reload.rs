//! Another configuration for a proxy that runs.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use super::admin::{admin_of, ask};
use super::fake_master::{Bytes, FakeMaster};
use super::fake_sentinel::{FakeSentinel, Protocol, View};
use super::proxy::{Plan, Proxy};
use super::stream::SOON;

impl Proxy {
    /// Where its configuration file is.
    pub(crate) fn config_path(&self) -> &Path {
        self.config.as_deref().expect("the test gave it one")
    }

    /// Puts another text into its configuration file, whole at any moment.
    pub(crate) fn rewrite(&self, text: &str) {
        let path = self.config_path();
        let fresh = path.with_extension("new");
        std::fs::write(&fresh, text).expect("writing a temporary file");
        std::fs::rename(&fresh, path).expect("the same folder");
    }

    /// SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }
}

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

/// What somebody with this token is answered.
pub(crate) fn post_as(admin: SocketAddr, path: &str, body: &str, token: &str) -> (u16, String) {
    let (code, _, body) = ask(
        admin,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ),
    );
    (code, body)
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

/// A second master, which the same Sentinel knows by this name.
pub(crate) fn other(sentinel: &FakeSentinel) -> FakeMaster {
    let master = FakeMaster::start(Bytes::Echo);
    sentinel.watch(View {
        master: "other".to_owned(),
        ..View::of(master.addr())
    });
    master
}

/// As it is written in a list of listeners.
pub(crate) fn quoted(addr: SocketAddr) -> String {
    format!("\"{addr}\"")
}
