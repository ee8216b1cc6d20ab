//! Questions to an admin endpoint, each bounded in time and size: one alone, or one after the other on a connection that is kept.

use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use axum::body::{self, Body};
use futures_util::FutureExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
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

/// Asks once, on a runtime of its own.
pub(crate) fn get(endpoint: &ListenAddr, path: &str, limit: Duration) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(Asker::new(endpoint.clone()).get(path, limit))
}

/// Asks again and again. The endpoint ends a connection after a minute; then the next question opens another.
pub(crate) struct Asker {
    endpoint: ListenAddr,
    kept: Option<Kept>,
}

/// A connection. Its own part of the work is done while something is asked; nothing comes unasked.
struct Kept {
    host: String,
    sender: SendRequest<Body>,
    connection: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

impl Asker {
    pub(crate) fn new(endpoint: ListenAddr) -> Self {
        Self {
            endpoint,
            kept: None,
        }
    }

    /// Asks. One deadline for all of it.
    pub(crate) async fn get(&mut self, path: &str, limit: Duration) -> Result<Answer, String> {
        // Taken out, so that a question that was given up takes its connection along.
        let kept = self.kept.take();
        let (answer, kept) = timeout(limit, self.ask(kept, path))
            .await
            .unwrap_or_else(|_| Err(format!("nothing within {} s", limit.as_secs())))?;
        self.kept = Some(kept);
        Ok(answer)
    }

    async fn ask(&self, kept: Option<Kept>, path: &str) -> Result<(Answer, Kept), String> {
        // A kept connection may have ended since. To ask twice changes nothing: it only tells.
        if let Some(mut kept) = kept
            && let Ok(answer) = kept.ask(path).await
        {
            return Ok((answer, kept));
        }
        let mut fresh = Kept::open(&self.endpoint).await?;
        let answer = fresh.ask(path).await?;
        Ok((answer, fresh))
    }
}

impl Kept {
    async fn open(endpoint: &ListenAddr) -> Result<Self, String> {
        match endpoint {
            ListenAddr::Tcp(addr) => {
                let addr = here(*addr);
                let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
                Self::over(stream, addr.to_string()).await
            }
            ListenAddr::Unix(file) => {
                let stream = UnixStream::connect(file).await.map_err(|e| e.to_string())?;
                Self::over(stream, "localhost".to_owned()).await
            }
            // The configuration takes none here.
            ListenAddr::Systemd(_) => Err(format!("{endpoint} is no address to ask")),
        }
    }

    async fn over<S>(stream: S, host: String) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        Ok(Self {
            host,
            sender,
            connection: Box::pin(connection.fuse()),
        })
    }

    async fn ask(&mut self, path: &str) -> Result<Answer, String> {
        let text = |e: hyper::Error| e.to_string();
        let request = Request::get(path)
            .header(HOST, &self.host)
            .body(Body::empty())
            .map_err(|e| e.to_string())?;
        let sender = &mut self.sender;
        let answering = async {
            sender.ready().await.map_err(text)?;
            let answer = sender.send_request(request).await.map_err(text)?;
            let code = answer.status();
            let bytes = body::to_bytes(Body::new(answer.into_body()), ANSWER_MAX)
                .await
                .map_err(|e| e.to_string())?;
            let text = String::from_utf8(bytes.to_vec()).map_err(|e| e.to_string())?;
            Ok(Answer { code, text })
        };
        tokio::pin!(answering);
        tokio::select! {
            // The connection may end first, with the answer on its way.
            biased;
            answer = &mut answering => answer,
            _ = &mut self.connection => answering.await,
        }
    }
}

/// An endpoint that listens everywhere is here, too.
fn here(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Answers so many questions on each connection with the path asked for, then closes it; tells each path and connection.
    fn server(answers: usize) -> (ListenAddr, Receiver<(usize, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = ListenAddr::Tcp(listener.local_addr().expect("a port"));
        let (tell, told) = sync_channel(64);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
                for _ in 0..answers {
                    let Some(Ok(first)) = lines.next() else { break };
                    // The rest of the head.
                    while lines
                        .next()
                        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                    {
                    }
                    let path = first.split(' ').nth(1).expect("a path").to_owned();
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                        path.len()
                    );
                    stream
                        .write_all(answer.as_bytes())
                        .expect("somebody listens");
                    if tell.send((number, path)).is_err() {
                        return;
                    }
                }
            }
        });
        (addr, told)
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_another_opened_when_it_has_ended() {
        let (addr, told) = server(2);
        let mut asker = Asker::new(addr);
        for path in ["/a", "/b", "/c"] {
            let answer = asker.get(path, LIMIT).await.expect("an answer");
            assert!(answer.is_good() && answer.text == path, "{answer:?}");
        }
        let seen: Vec<_> = told.iter().take(3).collect();
        assert_eq!(seen, [(0, "/a".into()), (0, "/b".into()), (1, "/c".into())]);
    }

    #[tokio::test]
    async fn a_question_has_a_deadline_and_the_next_one_a_connection_of_its_own() {
        // Accepted by the kernel, and by nobody else.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = ListenAddr::Tcp(listener.local_addr().expect("a port"));
        let mut asker = Asker::new(addr);
        let why = asker
            .get("/", Duration::from_secs(1))
            .await
            .expect_err("nobody answers");
        assert_eq!(why, "nothing within 1 s");
        assert!(asker.kept.is_none());
    }
}
