//! A Sentinel that says what the test wants: its view, its events, its silences.
//!
//! It does not monitor anything and never speaks first except through [`FakeSentinel::publish`].

use std::collections::BTreeSet;
use std::io::{BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::wire::{Reply, read_command};

/// What the Sentinel believes of one master.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Name of the master.
    pub(crate) master: String,
    /// Its address.
    pub(crate) addr: SocketAddr,
    /// Host and port in other words than `addr`: a name, or what is no address.
    pub(crate) announced: Option<(String, String)>,
    /// `config-epoch`
    pub(crate) epoch: u64,
    /// `SENTINEL MYID`
    pub(crate) sentinel_id: String,
    /// `runid` of the master.
    pub(crate) master_id: String,
    /// `flags`
    pub(crate) flags: String,
    /// `num-other-sentinels`
    pub(crate) others: usize,
    /// `quorum`
    pub(crate) quorum: usize,
    /// `down-after-milliseconds`
    pub(crate) down_after_ms: u64,
    /// What `SENTINEL SENTINELS` tells of the others: address and id.
    pub(crate) sentinels: Vec<(SocketAddr, String)>,
}

impl View {
    /// A calm view of `mymaster` at `addr`, held by the only Sentinel there is.
    pub(crate) fn of(addr: SocketAddr) -> Self {
        Self {
            master: "mymaster".to_owned(),
            addr,
            announced: None,
            epoch: 1,
            sentinel_id: "a".repeat(40),
            master_id: "b".repeat(40),
            flags: "master".to_owned(),
            others: 0,
            quorum: 1,
            down_after_ms: 1500,
            sentinels: Vec::new(),
        }
    }

    /// The same by the Sentinel of this number among so many.
    pub(crate) fn by(self, number: usize, of: usize) -> Self {
        Self {
            sentinel_id: format!("{number:040x}"),
            others: of - 1,
            quorum: of / 2 + 1,
            ..self
        }
    }

    fn host_and_port(&self) -> (String, String) {
        self.announced.clone().unwrap_or_else(|| {
            let addr = self.addr;
            (addr.ip().to_string(), addr.port().to_string())
        })
    }
}

/// Which protocol the Sentinel speaks at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// `HELLO` is an unknown command (servers before 6.0, and proxies in between).
    Resp2Only,
    /// `HELLO 3` works.
    Resp3,
}

/// A scripted Sentinel on 127.0.0.1; ends with the value.
#[derive(Debug)]
pub(crate) struct FakeSentinel {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    views: Mutex<Vec<View>>,
    links: Mutex<Vec<Arc<Link>>>,
    mute_subscribers: AtomicBool,
    answers_after: Mutex<Duration>,
    /// Whether answers are kept back, and how many questions wait for theirs.
    withholds: AtomicBool,
    withheld: AtomicUsize,
    ended: AtomicBool,
}

/// One accepted connection; its thread reads, `publish` writes as well.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    state: Mutex<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    resp3: bool,
    channels: BTreeSet<String>,
    closed: bool,
}

impl FakeSentinel {
    /// Listens on a free port.
    pub(crate) fn start(protocol: Protocol, view: View) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), protocol, view)
    }

    /// Listens on this address.
    pub(crate) fn start_at(at: SocketAddr, protocol: Protocol, view: View) -> Self {
        let listener = TcpListener::bind(at).expect("a Sentinel's port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            protocol,
            views: Mutex::new(vec![view]),
            links: Mutex::default(),
            mute_subscribers: AtomicBool::new(false),
            answers_after: Mutex::default(),
            withholds: AtomicBool::new(false),
            withheld: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                serving.take(stream);
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the view of the first master; nobody is told.
    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        change(&mut locked(&self.shared.views)[0]);
    }

    /// Watches one more master.
    pub(crate) fn watch(&self, view: View) {
        locked(&self.shared.views).push(view);
    }

    /// Publishes to every subscriber of the channel and says how many there were.
    pub(crate) fn publish(&self, channel: &str, payload: &str) -> usize {
        if self.shared.mute_subscribers.load(Ordering::Acquire) {
            return 0;
        }
        let message = Reply::Push(vec![
            Reply::bulk("message"),
            Reply::bulk(channel),
            Reply::bulk(payload),
        ]);
        let links = locked(&self.shared.links).clone();
        links
            .iter()
            .filter(|link| link.is_subscribed_to(channel) && link.send(&message))
            .count()
    }

    /// Moves the first master as a Sentinel does that adopts another's view: new address, next epoch, event.
    pub(crate) fn switch_master(&self, to: SocketAddr) {
        let (name, from) = {
            let view = &mut locked(&self.shared.views)[0];
            let from = std::mem::replace(&mut view.addr, to);
            view.epoch += 1;
            (view.master.clone(), from)
        };
        self.publish(
            "+switch-master",
            &format!(
                "{name} {} {} {} {}",
                from.ip(),
                from.port(),
                to.ip(),
                to.port()
            ),
        );
    }

    /// Says that this replica is about to be promoted, as the leader of a failover does.
    pub(crate) fn announce(&self, successor: SocketAddr) -> usize {
        let (name, master) = self.first();
        let (host, port) = (successor.ip(), successor.port());
        self.publish(
            "+selected-slave",
            &format!(
                "slave {successor} {host} {port} @ {name} {} {}",
                master.ip(),
                master.port()
            ),
        )
    }

    /// Says that the failover is given up.
    pub(crate) fn abort(&self) -> usize {
        let (name, master) = self.first();
        self.publish(
            "-failover-abort-slave-timeout",
            &format!("master {name} {} {}", master.ip(), master.port()),
        )
    }

    fn first(&self) -> (String, SocketAddr) {
        let view = &locked(&self.shared.views)[0];
        (view.master.clone(), view.addr)
    }

    /// Links that subscribe fall silent: no event, no answer, no end. Others go on.
    pub(crate) fn mute_subscribers(&self, mute: bool) {
        self.shared.mute_subscribers.store(mute, Ordering::Release);
    }

    /// From now on thinks for so long before each answer.
    pub(crate) fn answer_after(&self, delay: Duration) {
        *locked(&self.shared.answers_after) = delay;
    }

    /// Answers are kept back until told otherwise; events are not.
    pub(crate) fn withhold_answers(&self, withhold: bool) {
        self.shared.withholds.store(withhold, Ordering::Release);
    }

    /// Links on which a question waits for an answer that is kept back.
    pub(crate) fn withheld(&self) -> usize {
        self.shared.withheld.load(Ordering::Acquire)
    }

    /// Closes every link that subscribes.
    pub(crate) fn drop_subscribers(&self) {
        for link in locked(&self.shared.links).iter() {
            if link.is_subscriber() {
                link.close();
            }
        }
    }

    /// Links that subscribe now.
    pub(crate) fn subscribers(&self) -> usize {
        locked(&self.shared.links)
            .iter()
            .filter(|link| link.is_subscriber())
            .count()
    }

    /// Links that are open now.
    pub(crate) fn links(&self) -> usize {
        locked(&self.shared.links).len()
    }
}

impl Drop for FakeSentinel {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        for link in locked(&self.shared.links).iter() {
            link.close();
        }
        // Wakes the accepting thread, which then lets go of the port.
        drop(TcpStream::connect(self.addr));
    }
}

impl Shared {
    fn take(self: &Arc<Self>, stream: TcpStream) {
        let Ok(reading) = stream.try_clone() else {
            return;
        };
        let link = Arc::new(Link {
            stream,
            state: Mutex::default(),
        });
        locked(&self.links).push(Arc::clone(&link));
        let shared = Arc::clone(self);
        thread::spawn(move || {
            let mut reading = BufReader::new(reading);
            while let Ok(Some(words)) = read_command(&mut reading) {
                let delay = *locked(&shared.answers_after);
                thread::sleep(delay);
                shared.withhold();
                for reply in shared.answer(&link, &words) {
                    let silent =
                        link.is_subscriber() && shared.mute_subscribers.load(Ordering::Acquire);
                    if !silent {
                        link.send(&reply);
                    }
                }
            }
            link.close();
            locked(&shared.links).retain(|other| !Arc::ptr_eq(other, &link));
        });
    }

    fn withhold(&self) {
        let holds =
            || self.withholds.load(Ordering::Acquire) && !self.ended.load(Ordering::Acquire);
        if holds() {
            self.withheld.fetch_add(1, Ordering::AcqRel);
            while holds() {
                thread::sleep(Duration::from_millis(1));
            }
            self.withheld.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn answer(&self, link: &Link, words: &[String]) -> Vec<Reply> {
        let upper: Vec<String> = words.iter().map(|w| w.to_ascii_uppercase()).collect();
        let upper: Vec<&str> = upper.iter().map(String::as_str).collect();
        let subscribed_in_resp2 = link.is_subscriber() && !locked(&link.state).resp3;
        if subscribed_in_resp2 && !matches!(upper[..], ["PING" | "SUBSCRIBE" | "UNSUBSCRIBE", ..]) {
            return vec![Reply::Error(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
                 are allowed in this context",
                words[0]
            ))];
        }
        if let [
            "SENTINEL",
            question @ ("MASTER" | "GET-MASTER-ADDR-BY-NAME" | "SENTINELS"),
            _,
        ] = upper[..]
        {
            return vec![self.tell(question, &words[2])];
        }
        vec![match upper[..] {
            ["HELLO", "3", ..] if self.protocol == Protocol::Resp3 => {
                locked(&link.state).resp3 = true;
                Reply::Map(vec![
                    ("server".to_owned(), Reply::bulk("redis")),
                    ("version".to_owned(), Reply::bulk("7.0.15")),
                    ("proto".to_owned(), Reply::Integer(3)),
                    ("id".to_owned(), Reply::Integer(1)),
                    ("mode".to_owned(), Reply::bulk("sentinel")),
                    ("role".to_owned(), Reply::bulk("sentinel")),
                    ("modules".to_owned(), Reply::Array(Vec::new())),
                ])
            }
            ["AUTH", ..] | ["CLIENT", "SETNAME" | "SETINFO", ..] => Reply::Simple("OK"),
            ["PING", ..] if subscribed_in_resp2 => {
                Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")])
            }
            ["PING", ..] => Reply::Simple("PONG"),
            ["SUBSCRIBE", ..] => return link.subscribe(&words[1..]),
            ["SENTINEL", "MYID"] => Reply::bulk(&locked(&self.views)[0].sentinel_id),
            _ => Reply::Error(format!("ERR unknown command '{}'", words[0])),
        }]
    }

    /// What is asked about one master.
    fn tell(&self, question: &str, master: &str) -> Reply {
        let views = locked(&self.views);
        let view = views.iter().find(|view| view.master == master);
        match (question, view) {
            ("MASTER", Some(view)) => Reply::Map(master_fields(view)),
            ("GET-MASTER-ADDR-BY-NAME", Some(view)) => {
                let (host, port) = view.host_and_port();
                Reply::Array(vec![Reply::Bulk(host), Reply::Bulk(port)])
            }
            ("GET-MASTER-ADDR-BY-NAME", None) => Reply::Nil,
            (_, Some(view)) => Reply::Array(
                view.sentinels
                    .iter()
                    .map(|(addr, id)| Reply::Map(other_fields(*addr, id)))
                    .collect(),
            ),
            (_, None) => Reply::Error("ERR No such master with that name".to_owned()),
        }
    }
}

impl Link {
    fn is_subscriber(&self) -> bool {
        !locked(&self.state).channels.is_empty()
    }

    fn is_subscribed_to(&self, channel: &str) -> bool {
        locked(&self.state).channels.contains(channel)
    }

    fn subscribe(&self, channels: &[String]) -> Vec<Reply> {
        let mut state = locked(&self.state);
        channels
            .iter()
            .map(|channel| {
                state.channels.insert(channel.clone());
                Reply::Push(vec![
                    Reply::bulk("subscribe"),
                    Reply::bulk(channel),
                    Reply::Integer(i64::try_from(state.channels.len()).expect("a few channels")),
                ])
            })
            .collect()
    }

    /// Whole replies under one lock: an event never lands inside an answer.
    fn send(&self, reply: &Reply) -> bool {
        let state = locked(&self.state);
        !state.closed && (&self.stream).write_all(&reply.encode(state.resp3)).is_ok()
    }

    fn close(&self) {
        locked(&self.state).closed = true;
        // The peer may have closed first, which is as good.
        drop(self.stream.shutdown(Shutdown::Both));
    }
}

fn master_fields(view: &View) -> Vec<(String, Reply)> {
    let (host, port) = view.host_and_port();
    [
        ("name", view.master.clone()),
        ("ip", host),
        ("port", port),
        ("runid", view.master_id.clone()),
        ("flags", view.flags.clone()),
        ("link-pending-commands", "0".to_owned()),
        ("link-refcount", "1".to_owned()),
        ("down-after-milliseconds", view.down_after_ms.to_string()),
        ("role-reported", "master".to_owned()),
        ("config-epoch", view.epoch.to_string()),
        ("num-slaves", "2".to_owned()),
        ("num-other-sentinels", view.others.to_string()),
        ("quorum", view.quorum.to_string()),
        ("failover-timeout", "180000".to_owned()),
        ("parallel-syncs", "1".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), Reply::Bulk(value)))
    .to_vec()
}

fn other_fields(addr: SocketAddr, id: &str) -> Vec<(String, Reply)> {
    [
        ("name", id.to_owned()),
        ("ip", addr.ip().to_string()),
        ("port", addr.port().to_string()),
        ("runid", id.to_owned()),
        ("flags", "sentinel".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), Reply::Bulk(value)))
    .to_vec()
}

/// A panicking test must not hide its reason behind a poisoned lock.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
