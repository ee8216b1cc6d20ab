//! What the admin endpoint answers, read as Prometheus would.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One answer of an endpoint on this host.
const ANSWER: Duration = Duration::from_secs(10);

/// The body of a good answer.
pub(crate) fn get(admin: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("the endpoint listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .expect("the endpoint reads");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

/// The names of the metrics in an exposition that begin so.
pub(crate) fn families(exposition: &str, beginning: &str) -> BTreeSet<String> {
    let typed = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = typed.filter_map(|line| line.split(' ').next());
    names
        .filter(|name| name.starts_with(beginning))
        .map(str::to_owned)
        .collect()
}
