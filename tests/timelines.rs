//! Plays every file of `tests/timelines/` against the pure steward under a clock of its own.
//!
//! One instruction a line; `#` starts a comment. Times are milliseconds from the start and never run back; between
//! instructions the clock turns as often as the steward asks for it.
//!
//! ```text
//! rules agree=majority verify=role hold_max=2s
//! 0    inherit 3 7                 it follows a process that had seen 3 masters, and believed epoch 7
//! 0    follow s1 s2 s3             voters s1..s3 (an id a letter repeated 40 times may follow: s1=a)
//! 10   up s1                       its link is made (`down s1` ends it, `forget s1` removes it)
//! 20   view s1 A 4                 it names node A at epoch 4 (`view s1 none`: knows no such master)
//! 30   hint s1 +switch-master
//! 40   poll s1 s2 : A 4            each of them repeats this view every 1,000 ms from now on (`mute s1` ends it)
//! 50   role A master               what A answers to ROLE from now on: master replica refused loading silent
//! 60   said A replica              the control connection brings this answer
//! 65   moved A                     its redial found a master at another address under A's name
//! 70   gone A                      the control connection is lost and a redial failed
//! 80   freeze 3000                 the process stands still so long
//! 85   announce s1 A B               s1 leads a failover from A and is about to promote B
//! 86   successor B master            what the announced successor answers now (an error when it is not asked)
//! 90   doubt
//! 95   odown s1 yes                 its views say from now on that a quorum calls the master down (`no`: not)
//! 97   owed s1 yes                 from now on the master leaves its PINGs unanswered (`no`: it answers)
//! 98   down_after s1 500            what it says from now on (1500 until then)
//! 99   pause 500                    an operator pauses it, for so long or (no time) until `resume`; `reconnect`
//! expect serving A 1               phase, master, generation now (held CAUSE A 1 | sealed CAUSE A 1 | none)
//! expect readers paused 99         those who read from replicas are held, since then (`go on`: not; `but B`: not from B)
//! expect told role_rejected        this was told since the last `expect told`/`expect untold` (`untold`: was not)
//! ```

#![allow(
    missing_docs,
    reason = "a test program has no public interface; its items are documented where that helps"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use switchmaster::control::action::{Action, Tale};
use switchmaster::control::steward::{Heritage, Steward};
use switchmaster::net::addr::{HostPort, NodeAddr, SentinelAddr};
use switchmaster::net::clock::Moment;
use switchmaster::topology::observation::{
    Asked, Hint, NoView, Observation, RoleReport, RunId, Said, Succession, Unasked, View,
};
use switchmaster::topology::rules::{Agree, Confirm, HoldMax, Rules, SentinelsLost, Verify};
use switchmaster::topology::{Epoch, ForReaders, Generation, MasterAddr, Phase, State};

/// Where every name leads.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6379);
/// Where a name leads that has moved.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6380);
/// How long a dial takes here.
const DIAL: Duration = Duration::from_millis(2);
const DOWN_AFTER: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_secs(1);

fn timelines() -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = std::fs::read_dir("tests/timelines")
        .expect("the folder of timelines")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    assert!(files.len() >= 15, "only {} timelines found", files.len());
    let text = |file: &PathBuf| std::fs::read_to_string(file).expect("a readable timeline");
    let read = files.into_iter().map(|file| (file.clone(), text(&file)));
    read.collect()
}

#[test]
fn every_timeline_holds() {
    let mut failures = Vec::new();
    for (file, text) in timelines() {
        if let Err(why) = play(&text) {
            failures.push(format!("{}:{why}", file.display()));
        }
    }
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let timeline = "0 follow s1\n0 up s1\n0 role A master\n0 poll s1 : A 1\n100 nothing\n";
    assert!(play(&format!("{timeline}expect serving A 1")).is_ok());
    assert!(play(&format!("{timeline}expect serving B 1")).is_err());
    assert!(play(&format!("{timeline}expect serving A 2")).is_err());
    assert!(play(&format!("{timeline}expect told switched")).is_err());
    assert!(play(&format!("{timeline}expect untold ready")).is_err());
}

/// A word that is nobody's is never told.
#[test]
fn what_is_untold_somewhere_is_told_elsewhere() {
    let all: Vec<_> = timelines().into_iter().map(|(_, text)| text).collect();
    let words = |prefix: &str| -> BTreeSet<&str> {
        let lines = all.iter().flat_map(|text| text.lines());
        lines.filter_map(|line| line.strip_prefix(prefix)).collect()
    };
    let (told, untold) = (words("expect told "), words("expect untold "));
    assert!(
        !untold.is_empty() && untold.is_subset(&told),
        "{untold:?} of {told:?}"
    );
}

struct World {
    now: u64,
    steward: Steward,
    state: State,
    roles: BTreeMap<String, RoleReport>,
    polls: BTreeMap<String, (String, u64, u64)>,
    up: BTreeSet<String>,
    odown: BTreeSet<String>,
    owing: BTreeMap<String, u64>,
    down_after: BTreeMap<String, Duration>,
    told: Vec<String>,
    dial: Option<(MasterAddr, u64)>,
    master: Option<MasterAddr>,
    successor: Option<NodeAddr>,
}

fn play(text: &str) -> Result<(), String> {
    let mut world = World::new(
        text.lines()
            .find_map(|l| l.strip_prefix("rules "))
            .unwrap_or(""),
    );
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() || line.starts_with("rules ") {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = match words.as_slice() {
            ["expect", rest @ ..] => world.expect(rest),
            [at, rest @ ..] => {
                let at = at
                    .parse()
                    .map_err(|_| format!("{}: no time: {line}", number + 1))?;
                world.run_until(at);
                world.instruct(rest)
            }
            [] => Ok(()),
        };
        done.map_err(|why| format!("{}: {line}\n    {why}", number + 1))?;
    }
    Ok(())
}

impl World {
    fn new(rules: &str) -> Self {
        let steward = Steward::new(moment(0), read_rules(rules), vec![node("OWN").0]);
        let state = steward.state().clone();
        Self {
            now: 0,
            steward,
            state,
            roles: BTreeMap::new(),
            polls: BTreeMap::new(),
            up: BTreeSet::new(),
            odown: BTreeSet::new(),
            owing: BTreeMap::new(),
            down_after: BTreeMap::new(),
            told: Vec::new(),
            dial: None,
            master: None,
            successor: None,
        }
    }

    /// Lets time pass, one thing after the other.
    fn run_until(&mut self, until: u64) {
        assert!(until >= self.now, "time runs back to {until}");
        loop {
            let turn = millis(self.steward.next_turn());
            let dial = self.dial.as_ref().map_or(u64::MAX, |(_, at)| *at);
            let poll = self
                .polls
                .values()
                .map(|(_, _, at)| *at)
                .min()
                .unwrap_or(u64::MAX);
            let next = turn.min(dial).min(poll).max(self.now);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            self.turn();
            if dial == next {
                self.finish_dial();
            }
            self.poll_due();
        }
    }

    fn turn(&mut self) {
        self.steward.turn(moment(self.now));
        self.act();
    }

    fn finish_dial(&mut self) {
        let Some((addr, _)) = self.dial.take() else {
            return;
        };
        let silent = RoleReport::Failed("silent".to_owned());
        let report = self.roles.get(&letter(&addr)).cloned().unwrap_or(silent);
        self.steward
            .probed(moment(self.now), &addr, Some(ADDRESS), report);
        self.act();
    }

    fn poll_due(&mut self) {
        let due: Vec<_> = self
            .polls
            .iter()
            .filter(|(_, (_, _, at))| *at <= self.now)
            .map(|(who, (addr, epoch, _))| (who.clone(), addr.clone(), *epoch))
            .collect();
        for (who, addr, epoch) in due {
            self.polls
                .insert(who.clone(), (addr.clone(), epoch, self.now + 1000));
            self.say(&who, self.view(&who, &addr, epoch, Asked::ByPoll));
        }
    }

    fn view(&self, who: &str, addr: &str, epoch: u64, asked: Asked) -> Said {
        let view = View {
            master: node(addr),
            epoch: Epoch(epoch),
            down_after: Some(self.down_after.get(who).copied().unwrap_or(DOWN_AFTER)),
            quorum: Some(2),
            objectively_down: self.odown.contains(who),
            unanswered: self.owing.get(who).map_or(Duration::ZERO, |since| {
                Duration::from_millis(self.now - since)
            }),
        };
        let at = moment(self.now);
        Said::View {
            view: Ok(view),
            asked_at: at,
            asked,
            since: at,
        }
    }

    fn say(&mut self, who: &str, said: Said) {
        self.steward.observe(
            moment(self.now),
            Observation {
                sentinel: sentinel(who),
                said,
            },
        );
        self.act();
    }

    fn act(&mut self) {
        while let Some(action) = self.steward.next_action() {
            match action {
                Action::Publish(state) => {
                    assert!(
                        state.generation >= self.state.generation,
                        "a generation ran back"
                    );
                    self.state = state;
                }
                Action::Probe(addr) => {
                    let takes = u64::try_from(DIAL.as_millis()).expect("small");
                    self.dial = Some((addr, self.now + takes));
                }
                Action::StopProbe => self.dial = None,
                Action::Watch(addr) => self.master = Some(addr),
                Action::Tell(tale) => {
                    self.told.push(tale.event().to_owned());
                    let why = why(&tale).map(|why| format!("{}:{why}", tale.event()));
                    self.told.extend(why);
                }
                Action::Follow(addr) => self.successor = Some(addr),
                Action::Unfollow => self.successor = None,
                Action::Renew => {
                    // Who gives an upstream up now must find what keeps it from another.
                    assert_eq!(&self.state, self.steward.state(), "not published yet");
                    self.told.push("renew".to_owned());
                }
                Action::AskAll | Action::CheckMaster | Action::Prove(_) => {}
            }
        }
    }

    fn instruct(&mut self, words: &[&str]) -> Result<(), String> {
        let now = moment(self.now);
        match words {
            ["nothing"] => {}
            ["inherit", generation, epoch] => self.steward.inherit(Heritage {
                generation: Generation(generation.parse().map_err(|_| "no generation")?),
                epoch: Some(Epoch(epoch.parse().map_err(|_| "no epoch")?)),
            }),
            ["follow", who @ ..] => {
                for who in who {
                    let (name, id) = who.split_once('=').unwrap_or((who, ""));
                    let id = RunId::parse(&id.repeat(40));
                    self.say(name, Said::Followed(id));
                }
            }
            ["up", who @ ..] => {
                for who in who {
                    let (name, id) = who.split_once('=').unwrap_or((who, ""));
                    self.up.insert(name.to_owned());
                    self.say(name, Said::Up(RunId::parse(&id.repeat(40))));
                }
            }
            ["down", who @ ..] => {
                for who in who {
                    self.polls.remove(*who);
                    let (reason, words) = ("connect", String::new());
                    self.say(who, Said::Down(Unasked { reason, words }));
                }
            }
            ["forget", who] => self.say(who, Said::Forgotten),
            ["mute", who @ ..] => who.iter().for_each(|who| drop(self.polls.remove(*who))),
            ["view", who, "none"] => {
                let view = Err(NoView::UnknownMaster);
                self.say(
                    who,
                    Said::View {
                        view,
                        asked_at: now,
                        asked: Asked::ByPoll,
                        since: now,
                    },
                );
            }
            ["view", who, addr, epoch] => {
                let epoch = epoch.parse().map_err(|_| "no epoch")?;
                self.say(
                    who,
                    self.view(who, addr, epoch, Asked::OnHint(Hint::SwitchMaster)),
                );
            }
            // The answer to a question of an earlier time.
            ["view", who, addr, epoch, asked_at] => {
                let epoch = epoch.parse().map_err(|_| "no epoch")?;
                let mut said = self.view(who, addr, epoch, Asked::ByPoll);
                if let Said::View { asked_at: at, .. } = &mut said {
                    *at = moment(asked_at.parse().map_err(|_| "no time")?);
                }
                self.say(who, said);
            }
            ["poll", rest @ ..] => {
                let at = rest.iter().position(|w| *w == ":").ok_or("no colon")?;
                let [addr, epoch] = &rest[at + 1..] else {
                    return Err("address, epoch".to_owned());
                };
                let epoch = epoch.parse().map_err(|_| "no epoch")?;
                for who in &rest[..at] {
                    let first = self.now;
                    self.polls
                        .insert((*who).to_owned(), ((*addr).to_owned(), epoch, first));
                }
                self.poll_due();
            }
            ["odown", who, "yes"] => drop(self.odown.insert((*who).to_owned())),
            ["odown", who, "no"] => drop(self.odown.remove(*who)),
            ["owed", who, "yes"] => drop(self.owing.insert((*who).to_owned(), self.now)),
            ["owed", who, "no"] => drop(self.owing.remove(*who)),
            ["down_after", who, millis] => {
                let millis = millis.parse().map_err(|_| "no duration")?;
                self.down_after
                    .insert((*who).to_owned(), Duration::from_millis(millis));
            }
            ["hint", who, hint] => {
                let payload = "master m 127.0.0.1 1 @ m 127.0.0.1 1";
                let payload = if *hint == "+switch-master" {
                    "m a 1 b 1"
                } else {
                    payload
                };
                let event = switchmaster::sentinel::event::parse(hint, payload);
                self.say(who, Said::Hint(event.ok_or("no such event")?.hint));
            }
            ["role", addr, role] => {
                self.roles.insert((*addr).to_owned(), report(role)?);
            }
            ["said", addr, role] => {
                let master = self
                    .master
                    .clone()
                    .filter(|m| letter(m) == *addr)
                    .ok_or("not watched")?;
                self.steward
                    .master_said(now, &master, Some(ADDRESS), &report(role)?);
                self.act();
            }
            ["moved", addr] => {
                let master = self
                    .master
                    .clone()
                    .filter(|m| letter(m) == *addr)
                    .ok_or("not watched")?;
                self.steward
                    .master_said(now, &master, Some(ELSEWHERE), &RoleReport::Master);
                self.act();
            }
            ["gone", addr] => {
                let master = self
                    .master
                    .clone()
                    .filter(|m| letter(m) == *addr)
                    .ok_or("not watched")?;
                self.steward.master_gone(now, &master);
                self.act();
            }
            ["announce", who, master, successor] => {
                let (master, successor) = (node(master), node(successor));
                self.say(who, Said::Announced(Succession { master, successor }));
            }
            ["successor", addr, role] => {
                let asked = self.successor.clone().filter(|s| *s == node(addr));
                let asked = asked.ok_or("not asked")?;
                let report = report(role)?;
                let at = Some(ADDRESS).filter(|_| !matches!(report, RoleReport::Failed(_)));
                self.steward.successor_said(now, now, &asked, at, &report);
                self.act();
            }
            ["doubt"] => {
                self.steward.doubt(now);
                self.act();
            }
            ["pause", limit @ ..] => {
                let limit = limit.first().map(|millis| millis.parse());
                let limit = limit.transpose().map_err(|_| "no duration")?;
                let limit = limit.map(Duration::from_millis);
                let paused = self.steward.pause(now, limit, "uid 0");
                self.act();
                if paused.is_err() {
                    self.told.push("refused".to_owned());
                }
            }
            ["resume"] => {
                let ended = self.steward.resume(now, "uid 0");
                self.act();
                if !ended {
                    self.told.push("not_paused".to_owned());
                }
            }
            ["reconnect"] => {
                self.steward.reconnect("uid 0");
                self.act();
            }
            ["freeze", millis] => {
                self.now += millis.parse::<u64>().map_err(|_| "no duration")?;
                for (_, _, at) in self.polls.values_mut() {
                    *at = self.now + 5;
                }
                self.turn();
            }
            _ => return Err("no such instruction".to_owned()),
        }
        Ok(())
    }

    fn expect(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["told", tale] => {
                let told = std::mem::take(&mut self.told);
                told.iter()
                    .any(|t| t == tale)
                    .then_some(())
                    .ok_or_else(|| format!("told: {told:?}"))
            }
            ["untold", tale] => {
                let told = std::mem::take(&mut self.told);
                told.iter()
                    .all(|t| t != tale)
                    .then_some(())
                    .ok_or_else(|| format!("told: {told:?}"))
            }
            ["readers", expected @ ..] => {
                let is = self.describe_readers();
                let same = is == expected.join(" ");
                same.then_some(()).ok_or_else(|| format!("is: {is}"))
            }
            expected => {
                let is = self.describe();
                let expected = expected.join(" ");
                if is == expected {
                    Ok(())
                } else {
                    Err(format!("is: {is}; told: {:?}", self.told))
                }
            }
        }
    }

    fn describe_readers(&self) -> String {
        let ForReaders { held, successor } = &self.state.readers;
        let held = held.map_or_else(
            || "go on".to_owned(),
            |(cause, since)| format!("{cause} {}", millis(since)),
        );
        let but = successor
            .as_ref()
            .map(|of| format!(" but {}", of.0.host.to_string().to_uppercase()));
        format!("{held}{}", but.unwrap_or_default())
    }

    fn describe(&self) -> String {
        let Some(master) = &self.state.master else {
            return "none".to_owned();
        };
        let rest = format!("{} {}", letter(master), self.state.generation);
        match &self.state.phase {
            Phase::NoMaster => "none".to_owned(),
            Phase::Held {
                cause,
                sealed: true,
                ..
            } => format!("sealed {cause} {rest}"),
            Phase::Held { cause, .. } => format!("held {cause} {rest}"),
            Phase::Serving => format!("serving {rest}"),
        }
    }
}

/// What a tale says beyond its name.
fn why(tale: &Tale) -> Option<String> {
    match tale {
        Tale::AnnouncementOver { why } => Some(format!("{why:?}")),
        Tale::Waiting {
            silent, rejected, ..
        } => {
            let silent = silent
                .iter()
                .filter_map(|(_, why)| Some(why.as_ref()?.reason));
            let rejected = rejected.iter().map(|(_, report)| report.label());
            Some(silent.chain(rejected).collect::<Vec<_>>().join(","))
        }
        _ => None,
    }
}

fn report(role: &str) -> Result<RoleReport, String> {
    Ok(match role {
        "master" => RoleReport::Master,
        "replica" => RoleReport::Replica,
        "refused" => RoleReport::Refused("NOAUTH".to_owned()),
        "wrongpass" => RoleReport::LoginFailed("WRONGPASS".to_owned()),
        "loading" => RoleReport::Loading,
        "silent" => RoleReport::Failed("silent".to_owned()),
        _ => return Err(format!("no such role: {role}")),
    })
}

fn read_rules(text: &str) -> Rules {
    let mut rules = Rules::default();
    for word in text.split_whitespace() {
        match word.split_once('=').expect("key=value") {
            ("agree", "majority") => rules.agree = Agree::Majority,
            ("confirm", "role") => rules.confirm = Confirm::Role,
            ("verify", "role") => rules.verify = Verify::Role,
            ("when_sentinels_are_lost", "stop") => {
                rules.when_sentinels_are_lost = SentinelsLost::Stop;
            }
            ("fence_at_odown", "true") => rules.fence_at_odown = true,
            ("hold_max", d) => {
                rules.hold_max = HoldMax::Fixed(humantime::parse_duration(d).expect("a duration"));
            }
            other => panic!("no such rule: {other:?}"),
        }
    }
    rules
}

/// Node "A" is host `a`, port 6379.
fn node(letter: &str) -> NodeAddr {
    NodeAddr(HostPort::parse(letter, Some(6379)).expect("a letter"))
}

fn letter(addr: &MasterAddr) -> String {
    addr.host_port().host.to_string().to_uppercase()
}

fn sentinel(name: &str) -> SentinelAddr {
    SentinelAddr(HostPort::parse(name, Some(26379)).expect("a name"))
}

fn moment(millis: u64) -> Moment {
    // Not zero: a clock that starts at zero hides subtractions that go below it.
    Moment::from_nanos(0) + Duration::from_secs(1000) + Duration::from_millis(millis)
}

fn millis(at: Moment) -> u64 {
    u64::try_from(at.since(moment(0)).as_nanos().div_ceil(1_000_000)).expect("small")
}

const _: () = assert!(POLL.as_millis() == 1000, "poll_due repeats by this");
