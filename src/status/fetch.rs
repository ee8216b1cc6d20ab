//! One question to an admin endpoint, bounded in time and size.

use std::time::Duration;

use axum::body::{self, Body};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::net::addr::ListenAddr;

/// Largest answer read, in bytes: 256 proxy entries with 64 Sentinels each stay below it.
const ANSWER_MAX: usize = 16 * 1024 * 1024;

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn is_good(&self) -> bool {
        self.code == StatusCode::OK
    }
}

/// Asks, on a runtime of its own.
pub(crate) fn get(endpoint: &ListenAddr, path: &str, limit: Duration) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let asking = async {
        match endpoint {
            ListenAddr::Tcp(addr) => {
                // An endpoint that listens everywhere is here, too.
                let mut addr = *addr;
                if addr.ip().is_unspecified() {
                    addr.set_ip(match addr {
                        std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                        std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
                    });
                }
                let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
                ask(stream, &addr.to_string(), path).await
            }
            ListenAddr::Unix(file) => {
                let stream = UnixStream::connect(file).await.map_err(|e| e.to_string())?;
                ask(stream, "localhost", path).await
            }
            // The configuration takes none here.
            ListenAddr::Systemd(_) => Err(format!("{endpoint} is no address to ask")),
        }
    };
    runtime
        .block_on(async { timeout(limit, asking).await })
        .unwrap_or_else(|_| Err(format!("nothing within {} s", limit.as_secs())))
}

async fn ask<S>(stream: S, host: &str, path: &str) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let request = Request::get(path)
        .header(HOST, host)
        .header(CONNECTION, "close")
        .body(Body::empty())
        .map_err(|e| e.to_string())?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(text)?;
        let code = answer.status();
        let bytes = body::to_bytes(Body::new(answer.into_body()), ANSWER_MAX)
            .await
            .map_err(|e| e.to_string())?;
        let text = String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?;
        Ok(Answer { code, text })
    };
    tokio::pin!(connection, answering);
    tokio::select! {
        // The connection may end first, with the answer on its way.
        biased;
        answer = &mut answering => answer,
        _ = &mut connection => answering.await,
    }
}
