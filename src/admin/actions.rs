//! What changes something: who may, and what it is.
//!
//! Over a unix socket root and the proxy's own user may, but nobody whom the kernel cannot name here; over TCP whoever knows the token. A browser can be made to send a
//! stranger's request to this machine, but not with this token in a header of its own.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Extension;
use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::header::{ALLOW, AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::{Config, Panel};
use crate::control::orders::{Done, LET_GO_LIMIT, Order, Refused, What};
use crate::listener;
use crate::net::clock::now;
use crate::net::counter::Counter;
use crate::net::rarely::Rarely;

/// Bounds of `for=`. A pause that nobody ends is asked for without it.
const FOR_MIN: Duration = Duration::from_millis(1);
const FOR_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest wait for the control task's answer; what it waits for itself has a limit.
const ANSWER_LIMIT: Duration = Duration::from_secs(LET_GO_LIMIT.as_secs() + 2);
/// Largest body, in bytes: a log filter has 1024 at the most.
const BODY_MAX: usize = 4096;
/// Longest wait for it.
const BODY_LIMIT: Duration = Duration::from_secs(5);

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody who reached the port.
    Tcp,
    /// A user of this machine; `None` when the kernel does not say which.
    Unix(Option<u32>),
}

/// Who acts, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct By(pub(super) String);

/// Why somebody may not act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody may.
    Off,
    /// No token, or none that is called a bearer's.
    NoToken,
    /// Another token.
    WrongToken,
    /// Another user.
    WrongUser,
}

impl Refusal {
    /// Every refusal that is counted, in order.
    pub(super) const COUNTED: [Self; 3] = [Self::NoToken, Self::WrongToken, Self::WrongUser];

    /// The word for logs and metrics; public interface.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::WrongUser => "wrong_user",
        }
    }

    const fn in_words(self) -> &'static str {
        match self {
            Self::Off => {
                "this endpoint only tells; it takes GET and HEAD. To allow actions set actions = true in [admin]\n"
            }
            Self::NoToken => "send the token of [admin] token_file: Authorization: Bearer TOKEN\n",
            Self::WrongToken => "this is not the token of [admin] token_file\n",
            Self::WrongUser => {
                "over this socket root and switchmaster's own user may act, but not uid 65534 (kernel.overflowuid), which may be anybody\n"
            }
        }
    }

    const fn code(self) -> StatusCode {
        match self {
            Self::Off => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoToken | Self::WrongToken => StatusCode::UNAUTHORIZED,
            Self::WrongUser => StatusCode::FORBIDDEN,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let refused = (self.code(), self.in_words());
        match self {
            Self::Off => ([(ALLOW, "GET, HEAD")], refused).into_response(),
            Self::NoToken | Self::WrongToken => {
                let scheme = "Bearer realm=\"switchmaster\"";
                ([(WWW_AUTHENTICATE, scheme)], refused).into_response()
            }
            Self::WrongUser => refused.into_response(),
        }
    }
}

/// How often somebody was refused, and how often that is said.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals(Arc<[(Counter, Rarely); Refusal::COUNTED.len()]>);

impl Refusals {
    /// Each reason with its count.
    pub(super) fn read(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.0.iter().map(|(count, _)| count.read());
        Refusal::COUNTED.map(Refusal::label).into_iter().zip(counts)
    }

    fn note(&self, refusal: Refusal, peer: Peer) {
        let place = Refusal::COUNTED.iter().position(|r| *r == refusal);
        let Some((counter, rarely)) = place.and_then(|place| self.0.get(place)) else {
            return;
        };
        counter.add(1);
        if let Some(count) = rarely.allow(now()) {
            let reason = refusal.label();
            let uid = match peer {
                Peer::Unix(uid) => uid,
                Peer::Tcp => None,
            };
            warn!(
                event = "action_refused",
                reason, uid, count, "somebody who may not act has tried to"
            );
        }
    }
}

/// What entitles.
#[derive(Debug)]
struct Terms {
    actions: bool,
    token: Option<SecretString>,
}

impl Terms {
    fn of(config: &Config) -> Self {
        Self {
            actions: config.actions,
            token: config.token.clone(),
        }
    }
}

/// Lets those act who may.
#[derive(Debug)]
pub(super) struct Guard {
    terms: ArcSwap<Terms>,
    own: u32,
    /// May be anybody, even where it is our own.
    nobodys: u32,
    refusals: Refusals,
}

impl Guard {
    pub(super) fn new(config: &Config, panel: &Panel) -> Self {
        Self {
            terms: ArcSwap::from_pointee(Terms::of(config)),
            own: rustix::process::geteuid().as_raw(),
            nobodys: listener::overflow_uid(),
            refusals: panel.refusals.clone(),
        }
    }

    /// From the next request on this entitles.
    pub(super) fn change(&self, config: &Config) {
        self.terms.store(Arc::new(Terms::of(config)));
    }

    /// Who that is, if they may.
    pub(super) fn admit(&self, peer: Peer, headers: &HeaderMap) -> Result<By, Refusal> {
        let admitted = self.look(peer, headers);
        if let Err(refusal) = admitted {
            self.refusals.note(refusal, peer);
        }
        admitted
    }

    fn look(&self, peer: Peer, headers: &HeaderMap) -> Result<By, Refusal> {
        let terms = self.terms.load();
        if !terms.actions {
            return Err(Refusal::Off);
        }
        match peer {
            Peer::Unix(Some(uid)) if uid == self.nobodys => Err(Refusal::WrongUser),
            Peer::Unix(Some(uid)) if uid == 0 || uid == self.own => Ok(By(format!("uid {uid}"))),
            Peer::Unix(_) => Err(Refusal::WrongUser),
            Peer::Tcp => {
                let shown = bearer(headers).ok_or(Refusal::NoToken)?;
                let token = terms.token.as_ref().ok_or(Refusal::WrongToken)?;
                if bool::from(shown.ct_eq(token.expose_secret().as_bytes())) {
                    Ok(By("token".to_owned()))
                } else {
                    Err(Refusal::WrongToken)
                }
            }
        }
    }
}

/// The token in the one `Authorization` header (RFC 6750, 2.1); the scheme's case is of no account.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let only = values.next().is_none();
    (only && scheme.eq_ignore_ascii_case(b"Bearer ")).then(|| token.trim_ascii())
}

/// What came of an action on an entry.
#[derive(Debug, Serialize)]
struct Acted<'a> {
    proxy: &'a str,
    action: &'a str,
    #[serde(flatten)]
    done: Done,
}

/// `POST /proxies/NAME/ACTION`
pub(super) async fn act(
    State(panel): State<Arc<Panel>>,
    Path((name, action)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    Extension(By(by)): Extension<By>,
) -> Response {
    let limit = match limit(query.as_deref()) {
        Ok(limit) => limit,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let what = match action.as_str() {
        "pause" => What::Pause(limit),
        "resume" | "reconnect" if limit.is_some() => {
            let why = "only a pause has a length\n";
            return (StatusCode::BAD_REQUEST, why).into_response();
        }
        "resume" => What::Resume,
        "reconnect" => What::Reconnect,
        _ => {
            let why = "no such action. There is: pause, resume, reconnect\n";
            return (StatusCode::NOT_FOUND, why).into_response();
        }
    };
    let Some(entry) = panel.roster.find(&name) else {
        let entries = panel.roster.entries();
        let names: Vec<_> = entries.iter().map(|entry| entry.name()).collect();
        let why = format!("no such proxy. There is: {}\n", names.join(", "));
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    if what != What::Resume && panel.vitals.is_upgrading() {
        let why = "an upgrade is under way, and the new process would not know of it: ask again behind took_over or \
                   upgrade_failed\n";
        return (StatusCode::CONFLICT, why).into_response();
    }
    let (answer, answered) = oneshot::channel();
    let sent = entry.orders.try_send(Order { what, by, answer });
    let refused = if sent.is_err() {
        Refused::Busy
    } else {
        match timeout(ANSWER_LIMIT, answered).await {
            Ok(Ok(Ok(done))) => {
                let acted = Acted {
                    proxy: &name,
                    action: &action,
                    done,
                };
                return Json(acted).into_response();
            }
            Ok(Ok(Err(refused))) => refused,
            // The control task is stuck, or has ended with the process.
            Ok(Err(_)) | Err(_) => {
                let why = "no answer from the control task, see /livez\n";
                return (StatusCode::GATEWAY_TIMEOUT, why).into_response();
            }
        }
    };
    let code = match refused {
        Refused::NobodyIsHeld => StatusCode::CONFLICT,
        Refused::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{refused}\n")).into_response()
}

/// What is logged.
#[derive(Debug, Serialize)]
struct Logged<'a> {
    filter: &'a str,
    configured: &'a str,
}

/// `GET /log`
pub(super) async fn logged(State(panel): State<Arc<Panel>>) -> Response {
    let (filter, configured) = (&panel.log.filter.text(), &panel.log.filter.configured());
    Json(Logged { filter, configured }).into_response()
}

/// What came of another filter.
#[derive(Debug, Serialize)]
struct Relogged<'a> {
    before: &'a str,
    after: &'a str,
    for_seconds: Option<f64>,
}

/// `POST /log`
pub(super) async fn log(
    State(panel): State<Arc<Panel>>,
    RawQuery(query): RawQuery,
    Extension(By(by)): Extension<By>,
    body: Body,
) -> Response {
    let refuse = |why: String| (StatusCode::BAD_REQUEST, why).into_response();
    let limit = match limit(query.as_deref()) {
        Ok(limit) => limit,
        Err(why) => return refuse(why),
    };
    let Ok(Ok(bytes)) = timeout(BODY_LIMIT, to_bytes(body, BODY_MAX)).await else {
        return refuse(format!(
            "the body is longer than {BODY_MAX} bytes, or did not come\n"
        ));
    };
    let Ok(text) = str::from_utf8(&bytes) else {
        return refuse("the body is no text\n".to_owned());
    };
    let after = text.trim();
    match panel.log.filter.set(now(), after, limit, &by) {
        Ok(before) => Json(Relogged {
            before: &before,
            after,
            for_seconds: limit.map(|limit| limit.as_secs_f64()),
        })
        .into_response(),
        Err(why) => refuse(format!(
            "{why}. Send off, error, warn, info, debug or trace, or a list such as info,switchmaster::control=debug\n"
        )),
    }
}

/// The one parameter there is.
fn limit(query: Option<&str>) -> Result<Option<Duration>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else {
        return Ok(None);
    };
    let Some(text) = query.strip_prefix("for=") else {
        return Err("the only parameter is for=, as in ?for=30s\n".to_owned());
    };
    let limit = humantime::parse_duration(text).ok();
    let limit = limit.filter(|limit| (FOR_MIN..=FOR_MAX).contains(limit));
    limit.map(Some).ok_or_else(|| {
        let most = humantime::format_duration(FOR_MAX);
        format!("for= takes a time with a unit, up to {most}, as in ?for=30s\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn guard(actions: bool) -> Guard {
        Guard {
            terms: ArcSwap::from_pointee(Terms {
                actions,
                token: Some(TOKEN.into()),
            }),
            own: 1000,
            nobodys: listener::OVERFLOW_UID,
            refusals: Refusals::default(),
        }
    }

    fn shows(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn over_tcp_the_token_counts_and_nothing_else() {
        let guard = guard(true);
        let right = format!("Bearer {TOKEN}");
        let lower = format!("bearer  {TOKEN}");
        for value in [&right, &lower] {
            let by = guard.admit(Peer::Tcp, &shows(&[value]));
            assert_eq!(by, Ok(By("token".to_owned())));
        }
        let (longer, shorter) = (format!("{right}0"), &right[..right.len() - 1]);
        for wrong in ["Bearer ", "Bearer x", &longer, shorter] {
            let by = guard.admit(Peer::Tcp, &shows(&[wrong]));
            assert_eq!(by, Err(Refusal::WrongToken), "{wrong}");
        }
        let basic = format!("Basic {TOKEN}");
        for none in [
            &[][..],
            &[""],
            &["Bearer"],
            &[TOKEN],
            &[&basic],
            // Which of them counts is not to be guessed.
            &[&right, &right],
        ] {
            let by = guard.admit(Peer::Tcp, &shows(none));
            assert_eq!(by, Err(Refusal::NoToken), "{none:?}");
        }
        let counts: Vec<_> = guard.refusals.read().collect();
        assert_eq!(
            counts,
            [("no_token", 6), ("wrong_token", 4), ("wrong_user", 0)]
        );
    }

    #[test]
    fn over_a_unix_socket_the_user_counts_and_nothing_else() {
        let guard = guard(true);
        for uid in [0, 1000] {
            let by = guard.admit(Peer::Unix(Some(uid)), &HeaderMap::new());
            assert_eq!(by, Ok(By(format!("uid {uid}"))));
        }
        let right = shows(&[&format!("Bearer {TOKEN}")]);
        for uid in [Some(1001), None] {
            let by = guard.admit(Peer::Unix(uid), &right);
            assert_eq!(by, Err(Refusal::WrongUser));
        }
    }

    /// In a user namespace everybody of another one is called that.
    #[test]
    fn a_user_whom_the_kernel_cannot_name_is_not_taken_for_our_own() {
        let guard = Guard {
            own: listener::OVERFLOW_UID,
            ..guard(true)
        };
        let unnamed = Peer::Unix(Some(listener::OVERFLOW_UID));
        let by = guard.admit(unnamed, &HeaderMap::new());
        assert_eq!(by, Err(Refusal::WrongUser));
        guard
            .admit(Peer::Unix(Some(0)), &HeaderMap::new())
            .expect("root has a name");
    }

    #[test]
    fn where_actions_are_off_nobody_acts() {
        let guard = guard(false);
        let right = shows(&[&format!("Bearer {TOKEN}")]);
        for peer in [Peer::Tcp, Peer::Unix(Some(0))] {
            assert_eq!(guard.admit(peer, &right), Err(Refusal::Off));
        }
    }

    #[test]
    fn the_one_parameter() {
        for none in [None, Some("")] {
            assert_eq!(limit(none), Ok(None));
        }
        for (query, millis) in [
            ("for=30s", 30_000),
            ("for=1ms", 1),
            ("for=1h30m", 5_400_000),
        ] {
            assert_eq!(limit(Some(query)), Ok(Some(Duration::from_millis(millis))));
        }
        for wrong in [
            "for=",
            "for=5",
            "for=0s",
            "for=2days",
            "for=1s&x=2",
            "until=5s",
        ] {
            assert!(limit(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
