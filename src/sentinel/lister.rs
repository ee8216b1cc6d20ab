//! Asks one Sentinel for the replicas of those masters that somebody reads of, beside the questions that masters live on: over
//! connections of its own, at its own pace. Whatever it meets delays nobody but readers.

use std::sync::Arc;

use tokio::sync::Notify;

use super::client::listing::ListLink;
use super::client::{ClientError, Dial};
use super::told::Told;
use super::watcher::Subscriber;
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::address_map::AddressMap;
use crate::net::clock::now;
use crate::topology::observation::Said;

/// The part of a watcher that lists replicas.
#[derive(Debug)]
pub(super) struct Lister {
    pub(super) addr: SentinelAddr,
    pub(super) dial: Dial,
    pub(super) address_map: Arc<AddressMap>,
    pub(super) subscribers: Arc<[Subscriber]>,
    /// They are to be listed. Who asks while that is under way has it done once more.
    pub(super) wanted: Arc<Notify>,
}

impl Lister {
    /// Lists whenever that is wanted; never ends.
    pub(super) async fn run(self) {
        let mut told = Told::default();
        loop {
            self.wanted.notified().await;
            self.list(&mut told).await;
        }
    }

    async fn list(&self, told: &mut Told) {
        let readers = || self.subscribers.iter().filter(|s| s.replicas);
        let mut masters: Vec<&str> = readers().map(|s| &*s.master).collect();
        masters.sort_unstable();
        masters.dedup();
        let mut link = None;
        for master in masters {
            let mut open = match link.take() {
                Some(open) => open,
                None => match ListLink::open(&self.addr.0, &self.dial).await {
                    Ok(open) => open,
                    Err(why) => {
                        told.replicas(&self.addr, master, Some(&why));
                        return;
                    }
                },
            };
            let (asked_at, answer) = (now(), open.replicas(master).await);
            told.replicas(&self.addr, master, answer.as_ref().err());
            let mut listed = match answer {
                Ok(listed) => listed,
                // It will be as late with the next; the next turn tries again.
                Err(ClientError::Timeout { .. }) => return,
                Err(_) => continue,
            };
            link = Some(open);
            for replica in &mut listed {
                replica.addr = NodeAddr(self.address_map.reach(replica.addr.0.clone()));
            }
            for subscriber in readers().filter(|s| s.master == master) {
                let listed = listed.clone();
                let said = Said::Replicas { listed, asked_at };
                subscriber.tell(&self.addr, said).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::{mpsc, watch};
    use tokio::time::{sleep, timeout};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::{AbortOnDropHandle, TaskTracker};

    use super::super::Credentials;
    use super::super::watcher::Watcher;
    use super::*;
    use crate::net::addr::HostPort;
    use crate::net::reserve::Reserve;
    use crate::net::resolver::Resolver;

    const PATIENCE: Duration = Duration::from_secs(60);
    const ID: &str = "$40\r\n0123456789012345678901234567890123456789\r\n";

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn log(log: &Log, what: &'static str) {
        log.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    /// Answers what it is asked, but for lists: then it says nothing more.
    async fn converse(stream: TcpStream, to: Log) {
        let mut stream = BufReader::new(stream);
        let mut lists = false;
        let mut line = String::new();
        let mut words: Vec<String> = Vec::new();
        let mut expected = 0;
        loop {
            line.clear();
            if stream.read_line(&mut line).await.unwrap_or_default() == 0 {
                if lists {
                    log(&to, "given up");
                }
                return;
            }
            match line.trim_end().split_at(1) {
                ("*", many) => expected = many.parse().expect("a number of words"),
                ("$", _) => {}
                _ => words.push(line.trim_end().to_ascii_uppercase()),
            }
            if words.len() < expected {
                continue;
            }
            let said = std::mem::take(&mut words);
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            let answer = match said[..] {
                ["HELLO", ..] => "%1\r\n+proto\r\n:3\r\n".to_owned(),
                ["SUBSCRIBE", ref channels @ ..] => {
                    let of = |(n, of): (usize, &&str)| {
                        format!(">3\r\n+subscribe\r\n+{of}\r\n:{}\r\n", n + 1)
                    };
                    channels.iter().enumerate().map(of).collect()
                }
                ["SENTINEL", "MYID"] => ID.to_owned(),
                ["SENTINEL", "SENTINELS", _] => "*0\r\n".to_owned(),
                ["SENTINEL", "MASTER", _] => {
                    log(&to, "view");
                    "*2\r\n+config-epoch\r\n+1\r\n".to_owned()
                }
                ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => {
                    "*2\r\n+192.0.2.1\r\n+6379\r\n".to_owned()
                }
                ["SENTINEL", "REPLICAS", _] => {
                    log(&to, "list");
                    lists = true;
                    continue;
                }
                _ => "+OK\r\n".to_owned(),
            };
            stream.write_all(answer.as_bytes()).await.expect("taken");
        }
    }

    #[tokio::test]
    async fn a_list_that_does_not_come_delays_no_view_and_ends_the_turn() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = HostPort::from(listener.local_addr().expect("bound"));
        let told = Log::default();
        let to = Arc::clone(&told);
        let tasks = TaskTracker::new();
        let conversations = tasks.clone();
        let _serving = AbortOnDropHandle::new(tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                conversations.spawn(converse(stream, Arc::clone(&to)));
            }
        }));
        let (observations, mut observed) = mpsc::channel(64);
        let (found, _found) = mpsc::channel(64);
        let (_asker, ask) = watch::channel(0);
        let reader = |master: &str| Subscriber {
            master: master.to_owned(),
            leases: false,
            replicas: true,
            observations: observations.clone(),
        };
        let watcher = Watcher {
            addr: SentinelAddr(addr),
            dial: Dial {
                connect_timeout: PATIENCE,
                credentials: Credentials::default(),
                tls: None,
                resolver: Resolver::default(),
                reserve: Reserve::default(),
                tasks: tasks.clone(),
            },
            poll_interval: Duration::from_millis(20),
            pace: Duration::from_millis(20),
            address_map: Arc::default(),
            subscribers: [reader("a"), reader("b")].into(),
            ask,
            found,
            list: Arc::default(),
            end: CancellationToken::new(),
        };
        let _watching = AbortOnDropHandle::new(tasks.spawn(watcher.run()));
        let _reading = AbortOnDropHandle::new(
            tasks.spawn(async move { while observed.recv().await.is_some() {} }),
        );
        let is_over = async {
            loop {
                let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if told.contains(&"given up") {
                    return told;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        let told = timeout(PATIENCE, is_over).await.expect("it is given up");
        let begun = told.iter().position(|what| *what == "list");
        let meanwhile = &told[begun.expect("it was asked")..];
        let views = meanwhile.iter().filter(|what| **what == "view").count();
        // Two masters a turn, some 25 turns in that time. One turn may come before the end of the list is seen.
        assert!(views >= 6, "{told:?}");
        let lists = told.iter().filter(|what| **what == "list").count();
        assert_eq!(lists, 1, "the other is not asked in vain: {told:?}");
    }
}
