//! The hands of the process that is followed: starts the one that follows, and does what [`Giver`] says.
//!
//! The new process is our child, so that it is inside whatever we are inside of (a sandbox, a cgroup, a user that exists only as long
//! as the unit runs), and its end is known for certain.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::known::{Known, close_doors, open_doors};
use super::manager::Manager;
use super::program::Program;
use super::report::millis;
use crate::listener::Bound;
use crate::net::clock::{Moment, now};
use crate::session::luggage::{Luggage, Packet};
use crate::upgrade::link::{Broken, Link, Parcel};
use crate::upgrade::message::{
    Batch, DESCRIPTORS_MAX, Hello, Listener, Message, Offer, Reign, SESSIONS, Said, fitting, words,
};
use crate::upgrade::old::{Action, Failure, Giver, Input, Outcome};
use crate::worker::{Reins, Round};

/// How often it is looked whether a master is held, and whether this process still turns.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Whoever has not looked for so long has stood still: it was stopped, or the machine was.
const STOOD_STILL: Duration = Duration::from_millis(250);
/// Longest wait for the new process to end by itself when it was told to; then it is killed.
const ABORT_LIMIT: Duration = Duration::from_millis(500);
/// How often, and how many times, it is tried to accept again.
const RESUME_EVERY: Duration = Duration::from_millis(100);
const RESUME_TRIES: usize = 50;
/// Longest wait for sessions that were taken back to be served.
const SEAT_LIMIT: Duration = Duration::from_secs(1);
/// Longest wait for a message to be taken; the other side reads all the time.
const SEND_LIMIT: Duration = Duration::from_secs(2);

/// What there is to hand over.
pub(super) struct Estate {
    pub(super) program: Program,
    /// As they are now; none comes or goes meanwhile.
    pub(super) entries: Vec<Known>,
    pub(super) reins: Reins,
    /// The admin endpoint's listeners.
    pub(super) admin: Vec<Bound>,
    pub(super) manager: Arc<Manager>,
    /// Sessions that are not quiet are asked again for so long.
    pub(super) grace: Duration,
    /// This process is told to end.
    pub(super) ending: CancellationToken,
}

/// Why no upgrade is begun.
pub(super) fn obstacle(program: &Program, entries: &[Known]) -> Option<&'static str> {
    if program.is_container {
        Some("container")
    } else if entries.iter().any(Known::is_held) {
        Some("held")
    } else {
        None
    }
}

/// Hands everything over, or nothing. Ends within the limits of [`Giver`].
pub(super) async fn hand_over(estate: Estate) -> Outcome {
    let begun = now();
    let path = estate.program.path.display().to_string();
    let (link, child) = match estate.program.start() {
        Ok(started) => started,
        Err(error) => {
            warn!(
                event = "upgrade_failed",
                reason = Failure::NotStarted.label(),
                "cannot start {path}: {error}. This process goes on"
            );
            return Outcome::Failed(Failure::NotStarted);
        }
    };
    let pid = child.id().unwrap_or_default();
    info!(
        event = "upgrade_started",
        pid, "process {pid} is to follow this one: {path}"
    );
    let mut giver = Giver::new(now(), estate.grace);
    let mut hand = Hand {
        numbers: estate.entries.iter().map(|known| known.number).collect(),
        estate,
        link,
        child,
        pid,
        common: BTreeSet::new(),
        version: String::new(),
        same_form: false,
        round: Round::default(),
        waiting: VecDeque::new(),
        sent: VecDeque::new(),
        entry: 0,
        handed: 0,
        seatings: TaskTracker::new(),
        why: None,
        aborted: false,
        told_to_end: false,
        look: looks(),
        looked: now(),
    };
    loop {
        if let Some(outcome) = giver.outcome() {
            hand.tell(outcome, begun);
            return outcome;
        }
        let mut inputs = VecDeque::from([hand.next_input(giver.next_turn()).await]);
        while let Some(input) = inputs.pop_front() {
            let actions = giver.on(now(), input);
            let acts = !actions.is_empty();
            for action in actions {
                inputs.extend(hand.act(action).await);
            }
            if acts {
                // What was done is no standstill.
                hand.looked = now();
                giver.acted(hand.looked);
            }
        }
    }
}

struct Hand {
    estate: Estate,
    link: Link,
    child: Child,
    pid: u32,
    /// Entries that both processes have, by name.
    common: BTreeSet<String>,
    /// What the new process says that it is: the path may have led to any.
    version: String,
    /// Its sessions are what ours are.
    same_form: bool,
    /// Of all entries, in order.
    numbers: Vec<usize>,
    round: Round,
    /// Let go, and not sent.
    waiting: VecDeque<Packet>,
    /// Sent, and not acknowledged.
    sent: VecDeque<Packet>,
    /// Whose they are, by place.
    entry: usize,
    handed: u64,
    /// Nobody ends these: they end by themselves, or with the process.
    seatings: TaskTracker,
    /// What the other side gave as a reason, or how it ended.
    why: Option<String>,
    aborted: bool,
    told_to_end: bool,
    look: Interval,
    /// When it was last looked.
    looked: Moment,
}

fn looks() -> Interval {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    look
}

impl Hand {
    async fn next_input(&mut self, turn: Moment) -> Input {
        let turning = sleep(turn.since(now()));
        tokio::pin!(turning);
        loop {
            tokio::select! {
                biased;
                received = self.link.receive() => {
                    if let Some(input) = self.heard(received) {
                        return input;
                    }
                }
                ended = self.child.wait() => {
                    self.why = ended.ok().map(|status| in_words(&status));
                    return Input::Dead { adopted: false };
                }
                () = self.estate.ending.cancelled(), if !self.told_to_end => {
                    self.told_to_end = true;
                    return Input::Ending;
                }
                () = &mut turning => {
                    return if self.stood_still() { Input::StoodStill } else { Input::Turn };
                }
                _ = self.look.tick() => {
                    if self.stood_still() {
                        return Input::StoodStill;
                    }
                    let held = |known: &Known| self.is_common(known) && known.is_held();
                    if self.estate.entries.iter().any(held) {
                        return Input::Held;
                    }
                }
            }
        }
    }

    /// Since it was last looked.
    fn stood_still(&mut self) -> bool {
        let last = std::mem::replace(&mut self.looked, now());
        self.looked.since(last) > STOOD_STILL
    }

    /// `None` for what changes nothing.
    fn heard(&mut self, received: Result<Parcel, Broken>) -> Option<Input> {
        Some(match received.map(|parcel| parcel.message) {
            // A later version may say more than this one understands.
            Ok(Message::Said(Said::Unknown)) => return None,
            Ok(Message::Said(said)) => self.said(said),
            Ok(Message::Sessions(_)) => Input::Gone(Failure::Confused),
            Err(Broken::Gone) => Input::Gone(Failure::Ended),
            Err(broken) => {
                self.why = Some(broken.to_string());
                Input::Gone(Failure::Confused)
            }
        })
    }

    fn said(&mut self, said: Said) -> Input {
        match said {
            Said::Hello(hello) => self.greeted(&hello),
            Said::Ready { masters } => Input::Ready {
                agrees: self.agrees(&masters),
            },
            Said::Opened => {
                let (pid, version) = (self.pid, &self.version);
                let sessions = if self.same_form { self.left() } else { 0 };
                info!(
                    event = "upgrade_handing",
                    pid,
                    version,
                    sessions,
                    "process {pid}, version {version}, accepts from now on; {sessions} sessions are to be handed to it"
                );
                Input::Opened
            }
            Said::Adopted => Input::Adopted,
            Said::Refused { why } => {
                info!(
                    event = "upgrade_refused_sessions",
                    sessions = self.sent.len(),
                    "the new process does not take these sessions now: {}",
                    words(&why)
                );
                Input::Refused
            }
            Said::Failed { why } => {
                self.why = Some(words(&why));
                Input::Gone(Failure::Ended)
            }
            _ => Input::Gone(Failure::Confused),
        }
    }

    fn greeted(&mut self, hello: &Hello) -> Input {
        let ours = self.estate.entries.iter().map(Known::named);
        self.version = words(&hello.version);
        self.common = ours
            .filter(|named| hello.entries.contains(named))
            .map(|named| named.name)
            .collect();
        let same_form = hello.sessions == SESSIONS;
        self.same_form = same_form;
        if !same_form {
            info!(
                event = "upgrade_drains",
                "version {} has sessions of another form ({}, here {SESSIONS}): it takes the listeners, and sessions drain \
                 in this process",
                words(&hello.version),
                hello.sessions
            );
        }
        Input::Hello { same_form }
    }

    fn is_common(&self, known: &Known) -> bool {
        self.common.contains(&known.name)
    }

    /// Both have verified the same masters, wherever there are any.
    fn agrees(&mut self, masters: &[Reign]) -> bool {
        let differs = self
            .estate
            .entries
            .iter()
            .filter(|known| self.is_common(known) && known.belief().generation > 0)
            .find(|known| known.reign().is_none_or(|reign| !masters.contains(&reign)));
        if let Some(known) = differs {
            let theirs = masters.iter().find(|reign| reign.entry == known.name);
            self.why = Some(format!(
                "{}: here {:?}, there {theirs:?}",
                known.name,
                known.reign()
            ));
        }
        differs.is_none()
    }

    /// Does it, and says what came of it where that is known at once.
    async fn act(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::Offer => self.offer().await,
            Action::Pause => {
                if close_doors(&self.estate.entries, &self.estate.reins).await {
                    Some(Input::Paused)
                } else {
                    self.why = Some("a worker does not stop accepting".to_owned());
                    Some(Input::Gone(Failure::Confused))
                }
            }
            Action::Go => {
                // However this process ends from here on, another one may be listening there.
                self.own_files(false);
                self.say(Said::Go).await
            }
            Action::Ask => Some(self.ask().await),
            Action::Send => self.send().await,
            Action::Forget => {
                self.handed += self.sent.len() as u64;
                // The connections live on in the other process.
                self.sent.clear();
                None
            }
            Action::TakeBack => {
                self.take_back().await;
                None
            }
            Action::Introduce => {
                self.estate.manager.introduce(self.pid).await;
                None
            }
            Action::Done => self.say(Said::Done).await,
            Action::Abort(failure) => {
                self.aborted = true;
                let why = failure.label().to_owned();
                self.say(Said::Abort { why }).await;
                None
            }
            Action::Kill { at_once } => {
                self.kill(at_once).await;
                let said = self.link.last_words();
                let adopted = said.contains(&Message::Said(Said::Adopted));
                Some(Input::Dead { adopted })
            }
            Action::Resume => {
                self.resume().await;
                None
            }
        }
    }

    async fn offer(&mut self) -> Option<Input> {
        let estate = &self.estate;
        let of_entries = estate.entries.iter().flat_map(|known| {
            let entry = Some(known.name.clone());
            known.doors.iter().map(move |door| (entry.clone(), door))
        });
        let admin = estate.admin.iter().map(|bound| (None, bound));
        let all: Vec<(Listener, &Bound)> = of_entries
            .chain(admin)
            .map(|(entry, bound)| (described(entry, bound), bound))
            .collect();
        for some in all.chunks(DESCRIPTORS_MAX) {
            let listeners = some.iter().map(|(listener, _)| listener.clone()).collect();
            let sockets: Vec<_> = some.iter().map(|(_, bound)| bound.as_fd()).collect();
            let said = Message::Said(Said::Listeners { listeners });
            if let Some(failed) = send(&self.link, &said, &sockets, &mut self.why).await {
                return Some(failed);
            }
        }
        let offer = Offer {
            beliefs: estate.entries.iter().map(Known::belief).collect(),
            sessions: self.left(),
        };
        self.say(Said::Offer(offer)).await
    }

    /// Goes on with the round: the next sessions that let go, or how many there are behind the last.
    async fn ask(&mut self) -> Input {
        while self.waiting.is_empty() {
            let let_go = self.estate.reins.let_go(&mut self.round, &self.numbers);
            let Some((entry, packets)) = let_go.await else {
                self.round = Round::default();
                return Input::Asked { left: self.left() };
            };
            self.entry = entry;
            self.waiting.extend(packets);
            let known = self.estate.entries.get(entry);
            if known.is_none_or(|known| !self.is_common(known)) {
                self.take_back().await;
            }
        }
        Input::Taken
    }

    async fn send(&mut self) -> Option<Input> {
        let known = self.estate.entries.get(self.entry);
        let in_force = known.and_then(Known::in_force);
        // A hold began, or a switch: they go back, and wait for its end. What leads to another master than the one in force must not
        // be taken for what leads to this one.
        let Some((reign, _)) =
            in_force.filter(|(_, origin)| self.waiting.iter().all(|packet| packet.is_of(*origin)))
        else {
            return Some(Input::Refused);
        };
        let luggage: Vec<Luggage> = self.waiting.iter().map(Packet::luggage).collect();
        // Each fits by itself.
        let count = fitting(&luggage).max(1);
        let sessions = luggage.into_iter().take(count).collect();
        self.sent.extend(self.waiting.drain(..count));
        let sockets: Vec<BorrowedFd<'_>> = self
            .sent
            .iter()
            .flat_map(|packet| {
                let upstream = packet.upstream.as_ref().map(|u| u.socket.as_fd());
                [Some(packet.client.as_fd()), upstream]
            })
            .flatten()
            .collect();
        let batch = Message::Sessions(Batch { reign, sessions });
        send(&self.link, &batch, &sockets, &mut self.why).await
    }

    async fn take_back(&mut self) {
        let packets: Vec<Packet> = self.sent.drain(..).chain(self.waiting.drain(..)).collect();
        let Some(known) = self.estate.entries.get(self.entry) else {
            return;
        };
        let (reins, number) = (self.estate.reins.clone(), known.number);
        // It goes on by itself where a worker is slow.
        let seating = self
            .seatings
            .spawn(async move { reins.seat(number, packets).await });
        let _ = timeout(SEAT_LIMIT, seating).await;
    }

    /// Accepts again. What the dead process had open is free again, so that this fails only for a moment.
    async fn resume(&self) {
        self.own_files(true);
        for _ in 0..RESUME_TRIES {
            if open_doors(&self.estate.entries, &self.estate.reins).await {
                return;
            }
            sleep(RESUME_EVERY).await;
        }
        error!(
            event = "listener_failed",
            "no connections are accepted any more: there are no descriptors left to listen with; restart this process"
        );
    }

    /// Whether the files of unix sockets are removed at the end of this process.
    fn own_files(&self, own: bool) {
        let doors = self.estate.entries.iter().flat_map(|known| &known.doors);
        let all = doors.chain(&self.estate.admin);
        all.for_each(|bound| bound.own_file(own));
    }

    async fn kill(&mut self, at_once: bool) {
        // Whoever closed the link, or was told to end, ends by itself in a moment, and its exit code tells why.
        let limit = if at_once { Duration::ZERO } else { ABORT_LIMIT };
        let ended = match timeout(limit, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                // Fails only when it has ended meanwhile.
                let _ = self.child.start_kill();
                self.child.wait().await
            }
        };
        if let (Ok(status), None, false) = (ended, &self.why, self.aborted) {
            self.why = Some(in_words(&status));
        }
    }

    async fn say(&mut self, said: Said) -> Option<Input> {
        send(&self.link, &Message::Said(said), &[], &mut self.why).await
    }

    /// Sessions that are still here.
    fn left(&self) -> u64 {
        let entries = self.estate.entries.iter();
        entries
            .filter(|known| self.is_common(known))
            .map(|known| self.estate.reins.sessions(known.number))
            .sum()
    }

    fn tell(&self, outcome: Outcome, begun: Moment) {
        let (pid, handed, left) = (self.pid, self.handed, self.left());
        let ms = millis(now().since(begun));
        match outcome {
            Outcome::Handed => info!(
                event = "upgrade_finished",
                pid,
                handed,
                left,
                ms,
                "process {pid} serves: {handed} sessions were handed to it, {left} drain here"
            ),
            Outcome::Failed(failure) => {
                let why = self.why.as_deref().unwrap_or("no more is known");
                warn!(
                    event = "upgrade_failed",
                    pid,
                    reason = failure.label(),
                    handed,
                    ms,
                    "the upgrade came to nothing, and this process goes on: {why}"
                );
            }
        }
    }
}

fn described(entry: Option<String>, bound: &Bound) -> Listener {
    Listener {
        entry,
        asked: bound.asked().to_string(),
        file: bound.file(),
    }
}

/// Sends a message; what went wrong, if it did.
async fn send(
    link: &Link,
    message: &Message,
    sockets: &[BorrowedFd<'_>],
    why: &mut Option<String>,
) -> Option<Input> {
    match timeout(SEND_LIMIT, link.send(message, sockets)).await {
        Ok(Ok(())) => None,
        Ok(Err(Broken::Gone)) => Some(Input::Gone(Failure::Ended)),
        Ok(Err(broken)) => {
            *why = Some(broken.to_string());
            Some(Input::Gone(Failure::Confused))
        }
        Err(_) => Some(Input::Gone(Failure::Silent)),
    }
}

fn in_words(status: &ExitStatus) -> String {
    format!("the new process ended: {status}; its own lines say why")
}
