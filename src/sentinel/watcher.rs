//! One task a Sentinel: subscribe, then ask; ask again when an event hints, when somebody doubts, and each second in
//! any case; redial when it is silent. Sockets and deadlines are its own, so that one bad Sentinel delays nobody.
//!
//! Never decides. A link that errs, lies or stalls ends in a redial; nothing a Sentinel sends ends the task.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::{Asking, ClientError, Dial, Listening, RawEvent, SentinelLink};
use super::lister::Lister;
use super::rhythm::{DEAD_AFTER, PEERS_EVERY, Questions, Rhythm};
use super::told::Told;
use super::{Peer, event, told};
use crate::net::addr::{NodeAddr, SentinelAddr};
use crate::net::address_map::AddressMap;
use crate::net::backoff::Backoff;
use crate::net::clock::{Moment, now};
use crate::topology::observation::{Asked, Hint, NoView, Observation, Said, Succession, View};
use crate::topology::rules::lease_poll;

/// Redial waits, full jitter between.
const REDIAL_FLOOR: Duration = Duration::from_millis(100);
const REDIAL_CAP: Duration = Duration::from_secs(2);
/// No lease is short enough to ask more often.
const FASTEST_POLL: Duration = Duration::from_millis(50);

/// Somebody who wants to know of one master.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// The name Sentinel knows the master by.
    pub master: String,
    /// A majority's word is a lease to it (`when_sentinels_are_lost = "stop"`), to be renewed in time.
    pub leases: bool,
    /// It wants to know of the master's replicas, too.
    pub replicas: bool,
    /// Where observations go. The reader never waits for anything but its inputs, so sending is brief.
    pub observations: mpsc::Sender<Observation>,
}

impl Subscriber {
    /// True when a watcher would do the same for both.
    pub(super) fn same(some: &[Self], others: &[Self]) -> bool {
        let same = |(a, b): (&Self, &Self)| {
            a.master == b.master
                && a.replicas == b.replicas
                && a.leases == b.leases
                && a.observations.same_channel(&b.observations)
        };
        some.len() == others.len() && some.iter().zip(others).all(same)
    }

    /// Tells it what this Sentinel said.
    pub(super) async fn tell(&self, sentinel: &SentinelAddr, said: Said) {
        let observation = Observation {
            sentinel: sentinel.clone(),
            said,
        };
        // The other end is gone only when the program ends.
        let _ = self.observations.send(observation).await;
    }
}

/// What a watcher is given.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) addr: SentinelAddr,
    pub(super) dial: Dial,
    pub(super) poll_interval: Duration,
    /// How often it is asked now: as often as that, or more often where a lease depends on it.
    pub(super) pace: Duration,
    /// Applied to all that it names: from here on there are only addresses that can be reached.
    pub(super) address_map: Arc<AddressMap>,
    pub(super) subscribers: Arc<[Subscriber]>,
    /// Changes when everybody is to be asked.
    pub(super) ask: watch::Receiver<u64>,
    /// Other Sentinels this one reports go here.
    pub(super) found: mpsc::Sender<Found>,
    /// Wakes the lister.
    pub(super) list: Arc<Notify>,
    pub(super) end: CancellationToken,
}

/// What one Sentinel told of others, and of itself.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) by: SentinelAddr,
    pub(super) heard: Heard,
}

#[derive(Debug)]
pub(super) enum Heard {
    Itself(Option<crate::topology::observation::RunId>),
    Others(Vec<Peer>),
    /// What it says of the masters: all subscribers have been told, for the first time over this link.
    Masters,
}

impl Watcher {
    /// Follows one Sentinel until told to end.
    pub(super) async fn run(self) {
        let end = self.end.clone();
        // Within this task, so that nothing is listed once it has ended.
        let lister = Lister {
            addr: self.addr.clone(),
            dial: self.dial.clone(),
            address_map: Arc::clone(&self.address_map),
            subscribers: Arc::clone(&self.subscribers),
            wanted: Arc::clone(&self.list),
        };
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
            () = lister.run() => {}
        }
    }

    async fn follow(mut self) {
        let mut backoff = Backoff::new(REDIAL_FLOOR, REDIAL_CAP);
        let mut said = Told::default();
        loop {
            match SentinelLink::open(&self.addr.0, &self.dial, event::CHANNELS).await {
                Ok(link) => {
                    let opened = now();
                    let why = self.converse(link, &mut said).await;
                    said.down(&self.addr, &why);
                    self.tell_all(told::down(&why)).await;
                    // A link that lived earns a quick redial; one that dies at once does not.
                    if now().since(opened) > DEAD_AFTER {
                        backoff.reset();
                    }
                }
                Err(why) => {
                    if said.down(&self.addr, &why) {
                        self.tell_all(told::down(&why)).await;
                    }
                }
            }
            tokio::time::sleep(backoff.next(fastrand::f64())).await;
        }
    }

    /// Asks and listens until the link fails.
    async fn converse(&mut self, mut link: SentinelLink, told: &mut Told) -> ClientError {
        let run_id = match link.asking.my_id().await {
            Ok(run_id) => run_id,
            Err(why) => return why,
        };
        self.tell_all(Said::Up(run_id.clone())).await;
        self.report(Heard::Itself(run_id));
        // Before the first question: who else votes is to be known when the first view is weighed.
        if let Err(why) = self.ask_for_peers(&mut link.asking).await {
            return why;
        }
        let mut rhythm = Rhythm::new(self.pace, link.listening.has_event_link());
        self.ask.mark_unchanged();
        let mut questions = Questions::default();
        loop {
            let due = rhythm.next_due();
            let step = tokio::select! {
                biased;
                event = link.listening.event() => match event {
                    Ok(event) => Step::Event(event),
                    Err(why) => return why,
                },
                changed = self.ask.changed() => {
                    if changed.is_err() {
                        return ClientError::Io("the program is ending".to_owned());
                    }
                    rhythm.hint(Asked::OnDoubt, now());
                    Step::Nothing
                }
                () = sleep_until(due) => Step::Due,
            };
            let outcome = match step {
                Step::Nothing => Ok(()),
                Step::Event(event) => {
                    self.take_event(&event.channel, &event.payload, &mut rhythm)
                        .await;
                    Ok(())
                }
                Step::Due => {
                    self.take_turn(&mut link, &mut rhythm, &mut questions, told)
                        .await
                }
            };
            if let Err(why) = outcome {
                if !matches!(why, ClientError::Timeout { .. }) || rhythm.is_dead() {
                    return why;
                }
                debug!(event = "sentinel_slow", sentinel = %self.addr, "{why}");
            }
        }
    }

    async fn take_event(&self, channel: &str, payload: &str, rhythm: &mut Rhythm) {
        let Some(event) = event::parse(channel, payload) else {
            debug!(event = "sentinel_event_ignored", sentinel = %self.addr, channel, "not understood");
            return;
        };
        debug!(event = "sentinel_event", sentinel = %self.addr, channel, payload, "heard");
        let mut concerned = false;
        for subscriber in self.subscribers.iter().filter(|s| s.master == event.master) {
            concerned = true;
            self.tell(subscriber, Said::Hint(event.hint)).await;
            if let Some(Succession { master, successor }) = event.succession.clone() {
                let succession = Succession {
                    master: self.reach(master),
                    successor: self.reach(successor),
                };
                self.tell(subscriber, Said::Announced(succession)).await;
            }
        }
        if concerned && event.hint.asks() {
            rhythm.hint(Asked::OnHint(event.hint), now());
        }
        if concerned && event.hint == Hint::NewSentinel {
            rhythm.peers_due = Instant::now();
        }
    }

    async fn take_turn(
        &mut self,
        link: &mut SentinelLink,
        rhythm: &mut Rhythm,
        questions: &mut Questions,
        told: &mut Told,
    ) -> Result<(), ClientError> {
        let SentinelLink { asking, listening } = link;
        let at = Instant::now();
        if let Some((why, since)) = rhythm.take_question(at) {
            let question = self.question(asking, questions, told, why, since);
            let pace = self.while_listening(listening, rhythm, question).await?;
            // Kept over a redial: a lease is not to wait for the first answer to know how often it must be renewed.
            self.pace = pace.map_or(self.poll_interval, |pace| pace.min(self.poll_interval));
            rhythm.keep(self.pace);
            rhythm.answered = now();
            if !std::mem::replace(&mut rhythm.reported, true) {
                self.report(Heard::Masters);
            }
            told.up(&self.addr, listening.subscribed());
        }
        if rhythm.takes_ping(at) {
            listening.ping_events().await?;
        }
        if at >= rhythm.peers_due {
            rhythm.peers_due = at + PEERS_EVERY;
            let question = self.ask_for_peers(asking);
            self.while_listening(listening, rhythm, question).await?;
        }
        Ok(())
    }

    /// Takes events while answers are awaited: an announcement is worth something only before what it announces.
    async fn while_listening<T>(
        &self,
        listening: &mut Listening,
        rhythm: &mut Rhythm,
        question: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let mut question = pin!(question);
        loop {
            // By turns: whoever sends events without end is to be found out by the question's deadline.
            let event = tokio::select! {
                answer = &mut question => return answer,
                event = listening.event() => event?,
            };
            self.take_event(&event.channel, &event.payload, rhythm)
                .await;
        }
    }

    /// Each master's name once, though several may subscribe to it.
    fn masters(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.subscribers.iter().map(|s| &*s.master).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn ask_for_peers(&self, asking: &mut Asking) -> Result<(), ClientError> {
        for mut peers in asking.peers(&self.masters()).await? {
            for peer in &mut peers {
                peer.addr = SentinelAddr(self.address_map.reach(peer.addr.0.clone()));
            }
            self.report(Heard::Others(peers));
        }
        Ok(())
    }

    /// Asks for every master. How often that is to be done at least, where somebody's lease depends on it.
    async fn question(
        &self,
        asking: &mut Asking,
        questions: &mut Questions,
        told: &mut Told,
        asked: Asked,
        since: Moment,
    ) -> Result<Option<Duration>, ClientError> {
        let mut pace: Option<Duration> = None;
        let masters = self.masters();
        let all_asked_at = now();
        let views = self.views(asking, &masters).await?;
        for (master, mut view) in masters.into_iter().zip(views) {
            let mut asked_at = all_asked_at;
            if questions.is_torn(master, view.as_ref()) {
                asked_at = now();
                let again = self.views(asking, &[master]).await?;
                view = again.into_iter().next().unwrap_or(view);
            }
            questions.remember(master, view.as_ref());
            told.view(&self.addr, master, view.as_ref().err());
            let down_after = view.as_ref().ok().and_then(|view| view.down_after);
            for subscriber in self.subscribers.iter().filter(|s| s.master == master) {
                if let Some(down_after) = down_after.filter(|_| subscriber.leases) {
                    let needed = lease_poll(down_after).max(FASTEST_POLL);
                    pace = Some(pace.map_or(needed, |pace| pace.min(needed)));
                }
                let said = Said::View {
                    view: view.clone(),
                    asked_at,
                    asked,
                    since,
                };
                self.tell(subscriber, said).await;
            }
        }
        if questions.wants_a_list(asked, Instant::now()) {
            self.list.notify_one();
        }
        Ok(pace)
    }

    async fn views(
        &self,
        asking: &mut Asking,
        masters: &[&str],
    ) -> Result<Vec<Result<View, NoView>>, ClientError> {
        let mut views = asking.views(masters).await?;
        for view in views.iter_mut().flatten() {
            view.master = self.reach(view.master.clone());
        }
        Ok(views)
    }

    fn reach(&self, announced: NodeAddr) -> NodeAddr {
        NodeAddr(self.address_map.reach(announced.0))
    }

    async fn tell_all(&self, said: Said) {
        for subscriber in self.subscribers.iter() {
            self.tell(subscriber, said.clone()).await;
        }
    }

    async fn tell(&self, subscriber: &Subscriber, said: Said) {
        subscriber.tell(&self.addr, said).await;
    }

    fn report(&self, heard: Heard) {
        // Full only if discovery is far behind; the next report tells the same again.
        let _ = self.found.try_send(Found {
            by: self.addr.clone(),
            heard,
        });
    }
}

enum Step {
    Nothing,
    Event(RawEvent),
    Due,
}
