//! The admin endpoint of a proxy, asked by hand: one question a connection.

use std::io::{Read, Write};
use std::net::SocketAddr;

use super::proxy::Proxy;
use super::stream::{SOON, connect};

/// Where it is.
pub(crate) fn admin_of(proxy: &Proxy) -> SocketAddr {
    let event = proxy.event("admin_listening", SOON);
    event.text("addr").parse().expect("an address")
}

/// What one request is answered: code, head, body.
pub(crate) fn ask(admin: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = connect(admin);
    stream
        .write_all(request.as_bytes())
        .expect("the endpoint reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer in time");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.unwrap_or(0), head.to_owned(), body.to_owned())
}

/// What somebody without a token is answered: code and body.
pub(crate) fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    let (code, _, body) = ask(admin, &request);
    (code, body)
}

/// The same where it has to be good.
pub(crate) fn page(admin: SocketAddr, path: &str) -> String {
    let (code, body) = get(admin, path);
    assert_eq!(code, 200, "{path}: {body}");
    body
}
