//! The demo itself: everything that runs, the events that are done to it, and what is told meanwhile.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::cluster::{self, Cluster, ClusterError};
use super::error::DemoError;
use super::instance::Instance;
use super::load::{self, Load, WRITERS};
use super::proxy::{self, Proxy};
use super::screen::{Screen, interrupted};
use super::story::Story;
use super::verdict::{Episode, Evidence, Switch, seconds, title};
use super::wait::TimedOut;
use super::witness::Witness;
use super::{Event, Options, verdict};
use crate::net::clock::{Moment, now};

/// How often the screen is brought up to date.
const TICK: Duration = Duration::from_millis(50);
/// Between two looks at the whole topology, which cost some 20 questions.
const LOOK: Duration = Duration::from_millis(150);
/// How long the proxy may take to find the master.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long a switch may take; far more than is passed as good.
const SWITCH_LIMIT: Duration = Duration::from_secs(40);
/// How long the topology may take to be whole again. Sentinel demotes an old master after some 10 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// How long the frozen master sleeps on after the switch.
const FROZEN_AFTER_SWITCH: Duration = Duration::from_secs(3);

/// Everything that runs. Dropped from top to bottom: the writers first, the servers last.
#[derive(Debug)]
pub(super) struct Stage {
    load: Load,
    witness: Witness,
    proxy: Proxy,
    cluster: Cluster,
    screen: Screen,
    down_after: Duration,
    master: Option<SocketAddr>,
    told: usize,
    story: Story,
    episodes: Vec<Episode>,
    switches: Vec<Switch>,
    performing: bool,
}

impl Stage {
    /// Starts the topology, the proxy and the writers.
    pub(super) fn set(options: &Options, mut screen: Screen) -> Result<Self, DemoError> {
        let server = super::server::Server::find(options.server_bin.as_deref())?;
        proxy::check_port(options.port)?;
        let binary = std::env::current_exe().map_err(|source| DemoError::Io {
            what: "cannot find my own program",
            source,
        })?;
        let wanted = cluster::Options::new(server, binary.clone());
        let down_after = wanted.down_after;
        screen.say("starting 1 master, 2 replicas and 3 Sentinels on free ports of 127.0.0.1");
        let cluster = start_cluster(&wanted, &mut screen)?;
        let addrs =
            |instances: &[Instance]| instances.iter().map(Instance::addr).collect::<Vec<_>>();
        let io = |what| move |source| DemoError::Io { what, source };
        let witness =
            Witness::start(&addrs(cluster.nodes())).map_err(io("cannot watch the nodes"))?;
        let proxy = Proxy::start(&binary, &cluster, options.port)?;
        let listen = proxy.listen();
        let mut stage = Self {
            load: Load::new(listen),
            witness,
            proxy,
            cluster,
            screen,
            down_after,
            master: None,
            told: 0,
            story: Story::default(),
            episodes: Vec::new(),
            switches: Vec::new(),
            performing: false,
        };
        stage.wait("switchmaster to lead to the master", READY_LIMIT, |stage| {
            stage
                .master
                .map(drop)
                .ok_or_else(|| "it has not said so".into())
        })?;
        stage.load.start().map_err(io("cannot start the writers"))?;
        let started = now();
        stage.writers_back(started)?;
        Ok(stage)
    }

    /// Says what runs where.
    pub(super) fn introduce(&mut self) {
        let nodes: Vec<_> = self
            .cluster
            .nodes()
            .iter()
            .map(|n| n.addr().to_string())
            .collect();
        let sentinels: Vec<_> = self
            .cluster
            .sentinels()
            .iter()
            .map(|s| s.addr().to_string())
            .collect();
        let listen = self.proxy.listen();
        let lines = [
            format!("Redis       {} (the first is the master)", nodes.join(", ")),
            format!("Sentinels   {}, quorum 2", sentinels.join(", ")),
            format!(
                "switchmaster listens on {}; {WRITERS} writers use it. Try it yourself:",
                listen
            ),
            format!("    redis-cli -p {}", listen.port()),
        ];
        lines.iter().for_each(|line| self.screen.say(line));
        if self.screen.has_keys() {
            self.screen
                .say("keys: p  ask a Sentinel for a planned failover");
            self.screen
                .say("      k  kill the master (it comes back as a replica)");
            self.screen.say("      z  freeze the master, and thaw it after the switch: nobody writes to it then");
            self.screen
                .say("      q  end, with a table of what the writers saw");
        }
    }

    /// Does what the keys say until the end is asked for.
    pub(super) fn play(&mut self) -> Result<(), DemoError> {
        loop {
            let event = match self.tick("keys: p k z q")? {
                Some(b'p') => Event::Planned,
                Some(b'k') => Event::Kill,
                Some(b'z') => Event::Freeze,
                _ if self.load.is_full() => {
                    self.screen
                        .say("half an hour is as much as the demo remembers: it ends here");
                    return Ok(());
                }
                _ => continue,
            };
            self.perform(event)?;
        }
    }

    /// Does one event and sees it through, until the topology is whole again.
    pub(super) fn perform(&mut self, event: Event) -> Result<(), DemoError> {
        let old = self.settle(None)?;
        self.wait("a witness at every node", READY_LIMIT, |stage| {
            stage.all_witnessed()
        })?;
        let begun = now();
        self.performing = true;
        self.story = Story::default();
        self.episodes.push(Episode { event, begun });
        self.tell(
            begun,
            &match event {
                Event::Planned => "you asked for a planned failover (SENTINEL FAILOVER)".to_owned(),
                Event::Kill => format!("the master {old} was killed (SIGKILL)"),
                Event::Freeze => {
                    format!("the master {old} was frozen (SIGSTOP): its sockets stay open")
                }
            },
        );
        match event {
            Event::Planned => self.cluster.trigger_failover(0)?,
            Event::Kill => self.node(old)?.kill()?,
            Event::Freeze => self.node(old)?.freeze()?,
        }
        let switched = self.wait("switchmaster to switch", SWITCH_LIMIT, |stage| {
            let switch = stage.switches.iter().find(|s| s.at >= begun && s.to != old);
            switch
                .map(|s| s.at)
                .ok_or_else(|| "it has not said so".into())
        })?;
        let back = self.writers_back(switched)?;
        self.summarise(begun, back);
        self.repair(event, switched, old)?;
        self.settle(Some(old))?;
        self.tell(
            now(),
            "the topology is whole again: every node follows the new master",
        );
        self.performing = false;
        Ok(())
    }

    /// Stops the writers, reads back what was acknowledged to them, and hands over all that was seen.
    pub(super) fn conclude(&mut self) -> Result<Evidence, DemoError> {
        self.screen.clear();
        self.screen
            .say("stopping the writers, reading every acknowledged write back");
        self.load.stop();
        let ended = now();
        let master = self.cluster.master_addr()?;
        let histories = self.load.histories();
        let missing = self
            .node(master)?
            .connect()
            .map_err(|e| e.to_string())
            .and_then(|mut conn| load::missing(&mut conn, &histories))
            .map_err(|why| DemoError::ReadBack { master, why })?;
        Ok(Evidence {
            down_after: self.down_after,
            episodes: self.episodes.clone(),
            switches: self.switches.clone(),
            histories,
            missing,
            executed: self.witness.executed(),
            ended,
        })
    }

    /// Whether an event has begun and is not seen through.
    pub(super) fn is_performing(&self) -> bool {
        self.performing
    }

    /// Prints a line.
    pub(super) fn say(&mut self, text: &str) {
        self.screen.say(text);
    }

    /// Brings back what an event took away.
    fn repair(&mut self, event: Event, switched: Moment, old: SocketAddr) -> Result<(), DemoError> {
        match event {
            Event::Planned => {
                self.tell(
                    now(),
                    "the old master still takes writes, until Sentinel demotes it in some 10 s",
                );
            }
            Event::Kill => {
                let new = self.wait("the Sentinels to agree", SETTLE_LIMIT, |stage| {
                    let named = stage.cluster.master_addr().map_err(|e| e.to_string())?;
                    if named == old {
                        Err("they still name the old master".into())
                    } else {
                        Ok(named)
                    }
                })?;
                self.node(old)?.restart_as_replica_of(new)?;
                self.tell(
                    now(),
                    &format!("{old} was started again, as a replica of {new}"),
                );
            }
            Event::Freeze => {
                self.wait(
                    "the frozen master to sleep on a little",
                    SWITCH_LIMIT,
                    |_| {
                        let slept = now().since(switched);
                        if slept >= FROZEN_AFTER_SWITCH {
                            Ok(())
                        } else {
                            Err("not yet".into())
                        }
                    },
                )?;
                self.node(old)?.thaw()?;
                self.tell(now(), &format!(
                    "{old} was thawed: it still believes it is the master, until Sentinel demotes it"
                ));
            }
        }
        Ok(())
    }

    fn summarise(&mut self, begun: Moment, back: Moment) {
        let mut outages: Vec<_> = self
            .load
            .histories()
            .iter()
            .map(|history| verdict::outage(history, begun, back))
            .collect();
        outages.sort_unstable();
        let max = outages.last().copied().unwrap_or_default();
        let median = outages[outages.len() / 2];
        self.tell(
            back,
            &format!(
                "all writers are back; the longest pause of one was {}, the median {}",
                seconds(max),
                seconds(median)
            ),
        );
    }

    fn writers_back(&mut self, since: Moment) -> Result<Moment, DemoError> {
        self.wait(
            "every writer to have a write acknowledged",
            SWITCH_LIMIT,
            |stage| {
                stage
                    .load
                    .all_acked_since(since)
                    .ok_or_else(|| "not all have".into())
            },
        )
    }

    fn settle(&mut self, old: Option<SocketAddr>) -> Result<SocketAddr, DemoError> {
        let mut next_look = Moment::default();
        self.wait("the topology to settle", SETTLE_LIMIT, |stage| {
            if now() < next_look {
                return Err("not looked yet".into());
            }
            next_look = now() + LOOK;
            let master = stage.cluster.settled()?;
            if Some(master) == old {
                return Err(format!("{master} is still the master"));
            }
            if stage.master != Some(master) {
                return Err(format!("switchmaster does not lead to {master}"));
            }
            Ok(master)
        })
    }

    fn all_witnessed(&self) -> Result<(), String> {
        let unseen = self
            .cluster
            .nodes()
            .iter()
            .find(|n| !self.witness.is_attached(n.addr()));
        unseen.map_or(Ok(()), |node| Err(format!("none at {}", node.name())))
    }

    /// Waits with the screen alive.
    fn wait<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut cond: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<T, DemoError> {
        let begun = now();
        let deadline = begun + limit;
        loop {
            let phase = format!("waiting for {what}");
            if matches!(self.tick(&phase)?, Some(b'p' | b'k' | b'z')) {
                self.screen
                    .say(&format!("one event after the other: still {phase}"));
            }
            match cond(self) {
                Ok(found) => return Ok(found),
                Err(missing) if now() >= deadline => {
                    let waited = now().since(begun);
                    return Err(DemoError::Stuck {
                        timeout: TimedOut {
                            waited_for: what.to_owned(),
                            missing,
                            waited,
                        },
                        proxy: self.proxy.log_tail(),
                        sentinel: self.cluster.sentinel_log_tail(),
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// One turn: a key, the proxy's news, the live line.
    fn tick(&mut self, phase: &str) -> Result<Option<u8>, DemoError> {
        let key = self.screen.key(TICK);
        if interrupted() || matches!(key, Some(b'q' | b'Q' | 3 | 4)) {
            return Err(DemoError::Quit);
        }
        self.read_news();
        if let Some(how) = self.proxy.ended() {
            let tail = self.proxy.log_tail();
            return Err(DemoError::ProxyEnded {
                how: how.to_string(),
                tail,
            });
        }
        let (_, errors) = self.load.totals();
        let per_second = self.load.per_second();
        let master = self
            .master
            .map_or_else(|| "no master".into(), |m| format!("master {m}"));
        self.screen.show(&format!(
            "{per_second} writes/s, {errors} errors, {master}; {phase}"
        ));
        Ok(key)
    }

    fn read_news(&mut self) {
        let news = self.proxy.events_from(self.told);
        self.told += news.len();
        for event in news {
            match event.name.as_str() {
                "ready" => self.master = event.addr("master"),
                "switched" => {
                    if let Some(to) = event.addr("to") {
                        self.master = Some(to);
                        self.switches.push(Switch { at: event.at, to });
                    }
                }
                _ => {}
            }
            // Before the first event there is nothing to tell a story about.
            if !self.episodes.is_empty()
                && let Some(sentence) = self.story.tell(&event)
            {
                self.tell(event.at, &sentence);
            }
        }
    }

    /// Says something with its time since the event began.
    fn tell(&mut self, at: Moment, text: &str) {
        let begun = self.episodes.last().map_or(at, |episode| episode.begun);
        let event = self
            .episodes
            .last()
            .map_or("", |episode| title(episode.event));
        self.screen.say(&format!(
            "{event:<8}{:>9}  {text}",
            seconds(at.since(begun))
        ));
    }

    fn node(&self, addr: SocketAddr) -> Result<&Instance, DemoError> {
        self.cluster
            .node_at(addr)
            .ok_or_else(|| ClusterError::NoMajority(format!("{addr} is none of the nodes")).into())
    }
}

/// Starts the servers on a thread of their own, so that the screen shows that something happens.
fn start_cluster(options: &cluster::Options, screen: &mut Screen) -> Result<Cluster, DemoError> {
    thread::scope(|scope| {
        let starting = scope.spawn(|| Cluster::start(options));
        while !starting.is_finished() {
            screen.show("waiting for the servers to know each other");
            thread::sleep(TICK);
        }
        match starting.join() {
            Ok(_) if interrupted() => Err(DemoError::Quit),
            Ok(started) => Ok(started?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
