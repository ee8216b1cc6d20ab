//! Whether a client speaks Redis' protocol at all, by its first bytes; pure.
//!
//! A browser, a health check or a load balancer that is pointed at the listener must not reach the master: an HTTP request can be made to
//! carry commands (cross-protocol scripting), and what Redis logs of it is the proxy's address. So the first bytes of a client are
//! looked at before one of them is written, once in the life of a session, and kept back only as long as they can still become one
//! of these. An inline command (`GET key`) is none of them. One exception is made on purpose: an inline command of three words
//! whose second begins like a path and whose third begins with `HTTP/` is taken for a request, whatever its verb.

use super::close::CloseReason;

/// Most bytes that are kept back for want of an end of the request's target; by then nobody means an inline command.
pub const HELD_MAX: usize = 8 * 1024;
/// Longest method of HTTP there is a use for; `UPDATEREDIRECTREF` has 17.
const METHOD_MAX: usize = 32;

/// How version 2 of the PROXY protocol begins, and nothing else.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 does. There is no such command.
const PROXY_V1: &[u8] = b"PROXY ";
/// A record of TLS that carries a handshake, and the first byte of its version, which is 3 from SSL 3.0 to TLS 1.3.
const TLS: &[u8] = &[0x16, 0x03];
/// A header without its request, which Redis itself takes for an attack.
const HOSTS: [&[u8]; 2] = [b"Host:", b"host:"];
/// Behind the target of a request.
const VERSION: &[u8] = b"HTTP/";

/// What a client speaks that does not speak RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// A request of HTTP, or a part of one.
    Http,
    /// A handshake of TLS where none is spoken.
    Tls,
    /// A header of the PROXY protocol where none is expected.
    ProxyHeader,
}

impl Foreign {
    /// Why its session ends.
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::Http => CloseReason::SpokeHttp,
            Self::Tls => CloseReason::SpokeTls,
            Self::ProxyHeader => CloseReason::SpokeProxy,
        }
    }
}

/// What a client's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// RESP, or something that Redis may judge: nothing of it is looked at any more.
    Known,
    /// Another protocol: the master does not see a byte of it.
    Foreign(Foreign),
    /// It may become either. What there is of it is no complete request, so nobody waits for it to be forwarded.
    More,
}

/// Judges all that a client has said so far.
pub fn sniff(said: &[u8]) -> Verdict {
    match said.first() {
        None => Verdict::More,
        // Nearly all there are: an array of RESP.
        Some(b'*') => Verdict::Known,
        Some(0x16) => begins(said, TLS, Foreign::Tls),
        Some(b'\r') => begins(said, PROXY_V2, Foreign::ProxyHeader),
        Some(b'h') => begins(said, HOSTS[1], Foreign::Http),
        Some(byte) if byte.is_ascii_uppercase() => line(said),
        Some(_) => Verdict::Known,
    }
}

/// Foreign once all of the `signature` is there.
fn begins(said: &[u8], signature: &[u8], foreign: Foreign) -> Verdict {
    if said.starts_with(signature) {
        Verdict::Foreign(foreign)
    } else if signature.starts_with(said) {
        Verdict::More
    } else {
        Verdict::Known
    }
}

/// A line that may be the first of a request: `METHOD target HTTP/`.
fn line(said: &[u8]) -> Verdict {
    for (signature, foreign) in [(HOSTS[0], Foreign::Http), (PROXY_V1, Foreign::ProxyHeader)] {
        if said.starts_with(signature) {
            return Verdict::Foreign(foreign);
        }
    }
    let is_method = |byte: &u8| byte.is_ascii_uppercase() || *byte == b'-';
    let end = said.iter().position(|byte| !is_method(byte));
    let Some(end) = end else {
        return if said.len() <= METHOD_MAX {
            Verdict::More
        } else {
            Verdict::Known
        };
    };
    let (method, rest) = said.split_at(end);
    let Some((b' ', rest)) = rest.split_first() else {
        return begins(said, HOSTS[0], Foreign::Http);
    };
    match method {
        // No command of Redis, which closes for it, too.
        b"POST" => return Verdict::Foreign(Foreign::Http),
        _ if method.len() > METHOD_MAX => return Verdict::Known,
        // Its target has no form of its own.
        b"CONNECT" => {}
        _ => match target(rest) {
            Verdict::Foreign(_) => {}
            other => return other,
        },
    }
    let Some(end) = rest.iter().position(|byte| b" \r\n".contains(byte)) else {
        return if said.len() < HELD_MAX {
            Verdict::More
        } else {
            Verdict::Foreign(Foreign::Http)
        };
    };
    match &rest[end..] {
        [b' ', version @ ..] => begins(version, VERSION, Foreign::Http),
        _ => Verdict::Known,
    }
}

/// Whether a second word may be the target of a request: a path, all of a server (`*`), or a URL.
fn target(word: &[u8]) -> Verdict {
    let is_url = |scheme: &[u8]| {
        let length = scheme.len().min(word.len());
        word[..length]
            .eq_ignore_ascii_case(&scheme[..length])
            .then_some(length == scheme.len())
    };
    match (word, is_url(b"http://"), is_url(b"https://")) {
        ([], ..) => Verdict::More,
        ([b'/' | b'*', ..], ..) | (_, Some(true), _) | (_, _, Some(true)) => {
            Verdict::Foreign(Foreign::Http)
        }
        (_, None, None) => Verdict::Known,
        _ => Verdict::More,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HTTP: Verdict = Verdict::Foreign(Foreign::Http);
    const TLS_SPOKEN: Verdict = Verdict::Foreign(Foreign::Tls);
    const PROXY: Verdict = Verdict::Foreign(Foreign::ProxyHeader);

    /// How it is judged, however it is cut: no shorter part of it is judged otherwise.
    fn judged(said: &[u8]) -> Verdict {
        let verdict = sniff(said);
        for end in 0..said.len() {
            let before = sniff(&said[..end]);
            assert!(
                before == verdict || before == Verdict::More,
                "{:?} of {:?}",
                said[..end].escape_ascii().to_string(),
                said.escape_ascii().to_string()
            );
        }
        verdict
    }

    #[test]
    fn another_protocol_is_known_by_its_beginning() {
        for (said, verdict) in [
            (&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], HTTP),
            (b"GET /livez HTTP/1.0\r\n", HTTP),
            (b"HEAD http://localhost:6379/ HTTP/1.1\r\n", HTTP),
            (b"OPTIONS * HTTP/1.1\r\n", HTTP),
            (b"CONNECT redis:6379 HTTP/1.1\r\n", HTTP),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP),
            (b"M-SEARCH * HTTP/1.1\r\n", HTTP),
            (b"SET /a HTTP/1.1\r\n", HTTP),
            (b"POST x", HTTP),
            (b"Host: localhost\r\n", HTTP),
            (b"host:", HTTP),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TLS_SPOKEN),
            (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 6379\r\n*1\r\n", PROXY),
            (b"PROXY UNKNOWN\r\n", PROXY),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", PROXY),
        ] {
            assert_eq!(judged(said), verdict, "{}", said.escape_ascii());
        }
    }

    #[test]
    fn what_redis_understands_is_none() {
        for said in [
            &b"*1\r\n$4\r\nPING\r\n"[..],
            b"PING\r\n",
            b"GET key\r\n",
            b"GET /path\r\n",
            b"GET http://localhost/\r\n",
            b"GET hello",
            b"SET /path value\r\n",
            b"SET key \"GET / HTTP/1.1\"\r\n",
            b"SET proto HTTP/1.1\r\n",
            b"KEYS *\r\n",
            b"POSTPONE x\r\n",
            b"HGETALL h\r\n",
            b"hget h f\r\n",
            b"ping",
            b"\r\nPING\r\n",
            b"\r\n\r\nPING\r\n",
            b"\n",
            b"\x16\x02",
            b"\0\0\0",
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            assert_eq!(judged(said), Verdict::Known, "{}", said.escape_ascii());
        }
    }

    #[test]
    fn nobody_is_kept_waiting_for_longer_than_is_said() {
        let mut said = b"GET /".to_vec();
        said.resize(HELD_MAX - 1, b'a');
        assert_eq!(sniff(&said), Verdict::More);
        said.push(b'a');
        assert_eq!(sniff(&said), HTTP);
    }

    proptest! {
        /// What waits is never a request that Redis would answer: no line of it has come to its end, but for empty ones.
        #[test]
        fn what_waits_is_no_complete_request(said in "[A-Z]{0,6}[ /\\*\r\n]{0,4}[a-z/ \r\n]{0,6}(HTTP/1)?[\r\n]{0,3}") {
            if sniff(said.as_bytes()) == Verdict::More {
                prop_assert!(said.trim_matches(&['\r', '\n'][..]).find('\n').is_none(), "{said:?}");
                prop_assert!(said.trim().is_empty() || !said.contains('\n'), "{said:?}");
            }
        }

        #[test]
        fn more_bytes_change_no_verdict(said in prop::collection::vec(prop::sample::select(b"GETPOSH /*:httpx.1\r\n\0\x16\x03QUI".to_vec()), 0..40)) {
            let mut before = Verdict::More;
            for end in 0..=said.len() {
                let verdict = sniff(&said[..end]);
                prop_assert!(before == Verdict::More || before == verdict);
                before = verdict;
            }
        }
    }
}
