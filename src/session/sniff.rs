//! Whether a client speaks Redis' protocol at all, by its first bytes; pure.
//!
//! A browser, a health check or a load balancer that is pointed at the listener must not reach the master: an HTTP request can be made to
//! carry commands (cross-protocol scripting), and what Redis logs of it is the proxy's address. So the first bytes of a client are
//! looked at before one of them is written, once in the life of a session, and kept back only as long as they can still become one
//! of these.
//!
//! What is a line, and where its words begin, is as Redis sees it (`networking.c`, `sdssplitargs`): whatever would be taken for a
//! command there is looked at here, with empty lines before it, and blanks of any kind between its words. A verb begins with a capital
//! letter, as HTTP's all do (RFC 9110, 9.1): one in small letters no browser sends to a stranger without having asked first, and the
//! question is in capitals. An inline command (`GET key`) is none of them. One exception is made on purpose: an inline command of three words whose second begins like a
//! path and whose third begins with `HTTP/` is taken for a request, whatever its verb.

use super::close::CloseReason;

/// Most bytes that are looked at. What cannot be told by then has no end of a target, which nobody means as a command; or of its
/// first word, which nobody means at all, and Redis refuses.
pub const HELD_MAX: usize = 8 * 1024;

/// How version 2 of the PROXY protocol begins, and nothing else.
const PROXY_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// How version 1 does, before a space. There is no such command.
const PROXY_V1: &[u8] = b"PROXY";
/// A record of TLS that carries a handshake, and the first byte of its version, which is 3 from SSL 3.0 to TLS 1.3.
const TLS: &[u8] = &[0x16, 0x03];
/// A header without its request, which Redis itself takes for an attack; in capitals or not.
const HOST: &[u8] = b"host:";
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
        None => return Verdict::More,
        // Nearly all there are: an array of RESP.
        Some(b'*') => return Verdict::Known,
        Some(_) => {}
    }
    let said = &said[..said.len().min(HELD_MAX)];
    match beginning(said) {
        Verdict::More if said.len() == HELD_MAX => {
            if said.iter().copied().all(is_token) {
                Verdict::Known
            } else {
                Verdict::Foreign(Foreign::Http)
            }
        }
        verdict => verdict,
    }
}

fn beginning(said: &[u8]) -> Verdict {
    for (signature, foreign) in [(TLS, Foreign::Tls), (PROXY_V2, Foreign::ProxyHeader)] {
        match begins(said, signature, foreign) {
            Verdict::Known => {}
            verdict => return verdict,
        }
    }
    // Redis skips empty lines.
    let blank = |byte: &&u8| is_blank(**byte) || **byte == b'\n';
    let blanks = said.iter().take_while(blank).count();
    match said.get(blanks) {
        None => Verdict::More,
        Some(b'h') => begins(&said[blanks..], HOST, Foreign::Http),
        Some(byte) if byte.is_ascii_uppercase() => line(&said[blanks..]),
        Some(_) => Verdict::Known,
    }
}

/// What words of a line stand between; `\r` among them, as it ends a line only before `\n`.
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | 0x0b | 0x0c)
}

/// What methods are made of (RFC 9110, 5.6.2).
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Without the blanks before it.
fn trimmed(said: &[u8]) -> &[u8] {
    let blanks = said.iter().take_while(|byte| is_blank(**byte)).count();
    &said[blanks..]
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
    let end = said.iter().position(|byte| !is_token(*byte));
    let Some((method, rest)) = end.map(|end| said.split_at(end)) else {
        return Verdict::More;
    };
    match rest[0] {
        b':' if method.eq_ignore_ascii_case(b"host") => return Verdict::Foreign(Foreign::Http),
        b' ' if method == PROXY_V1 => return Verdict::Foreign(Foreign::ProxyHeader),
        byte if is_blank(byte) || byte == b'\n' => {}
        _ => return Verdict::Known,
    }
    // Redis closes for it, too, whatever comes behind it.
    if method.eq_ignore_ascii_case(b"post") {
        return Verdict::Foreign(Foreign::Http);
    }
    let rest = trimmed(rest);
    match rest.first() {
        None => return Verdict::More,
        Some(b'\n') => return Verdict::Known,
        // Its target has no form of its own.
        Some(_) if method == b"CONNECT" => {}
        Some(_) => match target(rest) {
            Verdict::Foreign(_) => {}
            other => return other,
        },
    }
    let end = rest
        .iter()
        .position(|byte| is_blank(*byte) || *byte == b'\n');
    match end.map(|end| trimmed(&rest[end..])) {
        None | Some([]) => Verdict::More,
        Some(version) => begins(version, VERSION, Foreign::Http),
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
            (b"HoSt:", HTTP),
            (b"Post /x", HTTP),
            (b"Patch /x HTTP/1.1\r\n", HTTP),
            (b"GET  /x \t HTTP/1.1\r\n", HTTP),
            (b"GET\t/x HTTP/1.1\r\n", HTTP),
            (b"GET\r/x HTTP/1.1\n", HTTP),
            (b"\r\nGET /x HTTP/1.1\r\n", HTTP),
            (b"\n \r\nPOST /x HTTP/1.1\r\n", HTTP),
            (b" GET /x HTTP/1.1\r\n", HTTP),
            (b"X-WEIRD_* /x HTTP/1.1\r\n", HTTP),
            (b"\r\nhost: x\r\n", HTTP),
            (
                b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n",
                HTTP,
            ),
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
            b"x",
            b"  ping",
            b"patch /x HTTP/1.1\r\n",
            b"set /path value\r\n",
            b"GET /path \r\n",
            b"SET \"/path\" HTTP/1.1\r\n",
            b"post:",
            b"proxy unknown\r\n",
            b"\r\nPING\r\n",
            b"\r\n\r\nPING\r\n",
            b"\r\n*1\r\n",
            b"\r\n\r\n\0\r\nQUIP",
            b"\x16\x02",
            b"\0\0\0",
            b"\"GET\" / HTTP/1.1\r\n",
            b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
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
        for (of, verdict) in [(b'A', Verdict::Known), (b'\n', HTTP)] {
            let mut said = vec![of; HELD_MAX - 1];
            assert_eq!(sniff(&said), Verdict::More);
            said.push(of);
            assert_eq!(sniff(&said), verdict);
            said.extend_from_slice(b" / HTTP/1.1\r\n");
            assert_eq!(sniff(&said), verdict);
        }
    }

    proptest! {
        /// What waits is never a request that Redis would answer: no line of it has come to its end, but for empty ones.
        #[test]
        fn what_waits_is_no_complete_request(said in "[\r\n ]{0,3}[A-Za-z]{0,6}[ /\\*\r\n\t]{0,4}[a-z/ \r\n]{0,6}(HTTP/1)?[\r\n]{0,3}") {
            if sniff(said.as_bytes()) == Verdict::More {
                prop_assert!(!said.trim_start().contains('\n'), "{said:?}");
            }
        }

        #[test]
        fn more_bytes_change_no_verdict(said in prop::collection::vec(prop::sample::select(b"GETPOSHhost /*:tpx.1\r\n\t\0\x16\x03QUI".to_vec()), 0..40)) {
            let mut before = Verdict::More;
            for end in 0..=said.len() {
                let verdict = sniff(&said[..end]);
                prop_assert!(before == Verdict::More || before == verdict);
                before = verdict;
            }
        }
    }
}
