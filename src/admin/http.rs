//! HTTP for the admin endpoint: who is let in, what is answered, and how long anybody may take. GET and HEAD only, unless
//! actions are allowed.
//!
//! A browser on this machine may be made to ask on behalf of a stranger's page (DNS rebinding), so on a loopback listener the
//! `Host` a request names must be this machine's.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::actions::{Guard, Peer, act, log, logged};
use super::reload::reload;
use super::{Config, MAX_CONNECTIONS, Panel, ProxyStatus, STUCK_AFTER, page};
use crate::listener::{self, Accepted, Bound, Ceiling, Door};
use crate::net::clock::At;
use crate::net::reserve::Reserve;
use crate::net::stream::Stream;

/// Longest until a request's head is complete.
const HEAD_LIMIT: Duration = Duration::from_secs(2);
/// Longest life of a connection; whoever wants more connects again.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes. Bodies are read for [`log`] only.
const HEAD_MAX: usize = 16 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";
/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers on these sockets until `end`.
pub(super) fn serve(
    bound: Vec<Bound>,
    mut config: watch::Receiver<Config>,
    panel: Arc<Panel>,
    tasks: &TaskTracker,
    end: &CancellationToken,
) {
    let first = config.borrow_and_update().clone();
    let guard = Arc::new(Guard::new(&first, &panel));
    let door = Arc::new(Door::new(
        "admin".into(),
        &admission(&first),
        Ceiling::new(None, &Reserve::default()),
    ));
    let (changing, at_door, ending) = (Arc::clone(&guard), Arc::clone(&door), end.clone());
    tasks.spawn(async move {
        while let Some(Ok(())) = ending.run_until_cancelled(config.changed()).await {
            let config = config.borrow_and_update().clone();
            changing.change(&config);
            at_door.change(&admission(&config));
        }
    });
    for bound in bound {
        let local = bound.addr().is_local();
        let app = router(Arc::clone(&panel), Arc::clone(&guard), local);
        let (door, inner, ending) = (Arc::clone(&door), tasks.clone(), end.clone());
        tasks.spawn(async move {
            let deal = |accepted: Accepted| {
                let (app, ending) = (app.clone(), ending.clone());
                inner.spawn(async move {
                    let Accepted {
                        stream, entrance, ..
                    } = accepted;
                    let talking = async {
                        match stream {
                            Stream::Tcp(stream) => talk(stream, Peer::Tcp, app).await,
                            Stream::Unix(stream) => {
                                let uid = stream.peer_cred().ok().map(|cred| cred.uid());
                                talk(stream, Peer::Unix(uid), app).await;
                            }
                            // Nobody shakes hands here.
                            Stream::Tls(_) => {}
                        }
                    };
                    ending.run_until_cancelled(talking).await;
                    drop(entrance);
                });
                std::future::ready(())
            };
            let mut serving = pin!(listener::serve(bound, door, &ending, deal));
            if let Some(Err(error)) = ending.run_until_cancelled(&mut serving).await {
                warn!(
                    event = "admin_failed",
                    "the admin endpoint cannot be watched: {error}"
                );
            }
        });
    }
}

fn admission(config: &Config) -> listener::Config {
    listener::Config {
        max_connections: MAX_CONNECTIONS,
        ..config.listener.clone()
    }
}

/// One connection. Whatever goes wrong on it is the asker's to notice.
async fn talk<S>(stream: S, peer: Peer, app: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = TowerToHyperService::new(app);
    let app = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer);
        app.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), app);
    let _ = timeout(CONNECTION_LIMIT, connection).await;
}

fn router(panel: Arc<Panel>, guard: Arc<Guard>, local: bool) -> Router {
    let app = Router::new()
        .route("/", get(home))
        .route("/main", get(part))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/events", get(events))
        .route("/log", get(logged).post(log))
        .route("/reload", post(reload))
        .route("/proxies/{name}/{action}", post(act))
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                "not here. There is: / /status /metrics /livez /readyz /events /log\n",
            )
        })
        .with_state(panel);
    let app = if local {
        app.layer(middleware::from_fn(only_this_machine))
    } else {
        app
    };
    app.layer(middleware::from_fn_with_state(guard, guarded))
}

/// Refuses what would change something to those who may not, and says for every answer that it is not to be kept.
async fn guarded(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get().copied().unwrap_or(Peer::Tcp);
    let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
        next.run(request).await
    } else {
        match guard.admit(peer, request.headers()) {
            Ok(by) => {
                request.extensions_mut().insert(by);
                next.run(request).await
            }
            Err(refusal) => refusal.into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn only_this_machine(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    // Without one it is no browser.
    if host.is_none_or(is_this_machine) {
        return next.run(request).await;
    }
    let refusal = "the Host header names another machine; ask for 127.0.0.1 or localhost\n";
    (StatusCode::MISDIRECTED_REQUEST, refusal).into_response()
}

fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next(),
        None => host.split(':').next(),
    };
    let name = name.unwrap_or_default().trim_end_matches('.');
    // An address cannot be rebound: it is what was connected to.
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

async fn home(State(panel): State<Arc<Panel>>) -> Response {
    let nonce = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let html = Html(page::render(&panel, &nonce).into_string());
    match HeaderValue::try_from(policy) {
        Ok(policy) => ([(CONTENT_SECURITY_POLICY, policy)], html).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn part(State(panel): State<Arc<Panel>>) -> Response {
    Html(page::render_main(&panel).into_string()).into_response()
}

async fn status(State(panel): State<Arc<Panel>>) -> Response {
    Json(panel.status()).into_response()
}

async fn events(State(panel): State<Arc<Panel>>) -> Response {
    Json(panel.log.recent.events()).into_response()
}

async fn metrics(State(panel): State<Arc<Panel>>) -> Response {
    ([(CONTENT_TYPE, EXPOSITION)], panel.metrics()).into_response()
}

/// Every control loop and every worker turns; whatever the state of Redis.
async fn livez(State(panel): State<Arc<Panel>>) -> Response {
    let stuck = panel.vitals.stuck(At::now());
    if stuck.is_empty() {
        return plain(StatusCode::OK, "ok\n".to_owned());
    }
    let words = format!(
        "{} has not turned for {} s\n",
        stuck.join(", "),
        STUCK_AFTER.as_secs()
    );
    plain(StatusCode::SERVICE_UNAVAILABLE, words)
}

/// Clients are better off here than nowhere: every entry takes them and has a verified master, and one of them at least serves.
/// `?proxy=NAME`: that entry serves.
async fn readyz(State(panel): State<Arc<Panel>>, RawQuery(query): RawQuery) -> Response {
    let mut status = panel.status();
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        let Some(name) = query.strip_prefix("proxy=") else {
            let words = format!("{query:?} is not understood: /readyz?proxy=NAME\n");
            return plain(StatusCode::BAD_REQUEST, words);
        };
        status.proxies.retain(|proxy| proxy.account.proxy == name);
        if status.proxies.is_empty() {
            let words = format!("there is no entry {name:?}\n");
            return plain(StatusCode::NOT_FOUND, words);
        }
    }
    let ready = !status.draining && ProxyStatus::are_ready(&status.proxies);
    let lines = status.proxies.iter().map(|proxy| {
        let word = if status.draining {
            "draining"
        } else if proxy.is_ready() {
            "ready"
        } else if proxy.account.pause.is_some() {
            "paused"
        } else if proxy.lacks_replicas() {
            "no replica"
        } else {
            "not ready"
        };
        format!("{}: {word}: {}\n", proxy.account.proxy, proxy.headline)
    });
    let code = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    plain(code, lines.collect())
}

fn plain(code: StatusCode, text: String) -> Response {
    (code, [(CONTENT_TYPE, TEXT)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:8479",
            "127.0.0.1:8479",
            "[::1]:8479",
            "10.1.2.3",
            "localhost.",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8479",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
