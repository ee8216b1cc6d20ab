//! `switchmaster top`: what a running proxy says of itself, live in a terminal. It asks the admin endpoint, as `status` does, and
//! changes nothing.
//!
//! ```text
//! endpoint --answers--> Facts --+
//! keyboard --keys-----> View ---+--draw (pure)--> cells --> terminal
//! ```

mod draw;
mod facts;
mod keys;
pub mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use self::draw::{Theme, draw};
use self::facts::Facts;
use self::terminal::Screen;
use self::view::{View, Wish};
use crate::admin::status::Status;
use crate::exit::Exit;
use crate::net::addr::ListenAddr;
use crate::net::clock;
use crate::status::fetch::{Answer, Asker};
use crate::status::{ANSWER_LIMIT, allows_colour, complain, harmless};
use crate::telemetry::RecentEvent;

/// How often a screen is drawn anew that says for how long nothing has come.
const TICK: Duration = Duration::from_secs(1);
/// Longest text of an answer that is none, in characters.
const MAX_REFUSAL: usize = 200;

/// What is asked for on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often the endpoint is asked.
    pub every: Duration,
    /// Colours, where `NO_COLOR` does not forbid them.
    pub colour: bool,
}

/// Reads an interval: `1s`, `500ms`.
///
/// # Errors
/// When it is none, too short or too long.
pub fn interval(text: &str) -> Result<Duration, String> {
    let every =
        humantime::parse_duration(text).map_err(|_| "an interval is 1s, 500ms, 1m".to_owned())?;
    if (view::SHORTEST..=view::LONGEST).contains(&every) {
        return Ok(every);
    }
    Err(format!(
        "from {} to {}",
        humantime::format_duration(view::SHORTEST),
        humantime::format_duration(view::LONGEST)
    ))
}

/// Shows the proxy whose admin endpoint is there until somebody has seen enough.
pub fn run(endpoint: Option<&ListenAddr>, options: Options) -> Exit {
    let Some(endpoint) = endpoint else {
        complain("the admin endpoint is off (admin.listen), so there is nobody to ask");
        return Exit::Unreachable;
    };
    if let Some(why) = terminal::unfit() {
        complain(&format!(
            "top needs a terminal, and {why}: use `switchmaster status`, or `switchmaster status --json` in scripts"
        ));
        return Exit::Usage;
    }
    let theme = Theme {
        colour: options.colour && allows_colour(),
    };
    let shown = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|runtime| runtime.block_on(show(endpoint, options.every, theme)));
    match shown {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format!("the terminal cannot be used any longer: {error}"));
            Exit::Runtime
        }
    }
}

async fn show(endpoint: &ListenAddr, every: Duration, theme: Theme) -> io::Result<()> {
    let mut ended = terminal::ends()?;
    let mut resized = signal(SignalKind::window_change())?;
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?;
    let mut facts = Facts::new(harmless::lines(&endpoint.to_string()));
    let mut view = View::new(every);
    let (pace, paced) = watch::channel(every);
    let (tell, mut told) = mpsc::channel(1);
    let asking = ask(Asker::new(endpoint.clone()), paced, tell);
    tokio::pin!(asking);
    let mut screen = Screen::take()?;
    let mut keys = terminal::keys()?;
    loop {
        let now = clock::now();
        let mut seen = (0, 0);
        screen.draw(|frame| seen = draw(frame, &facts, &view, theme, now))?;
        view.drawn(seen.0, seen.1);
        let is_counting = facts.silence.is_some() || view.frozen.is_some();
        let mut pressed = None;
        tokio::select! {
            () = &mut asking => return Ok(()),
            _ = ended.recv() => return Ok(()),
            Some(answer) = told.recv() => match answer {
                Ok(answer) => facts.heard(answer.0, answer.1, clock::now()),
                Err(why) => facts.unanswered(why, clock::now()),
            },
            key = keys.recv() => match key {
                Some(key) => pressed = Some(key),
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = resized.recv() => {}
            _ = continued.recv() => screen.retake()?,
            () = sleep(TICK), if is_counting => {}
        }
        while let Some(key) = pressed {
            match view.press(key, &facts, clock::now()) {
                Wish::Nothing => {}
                Wish::Quit => return Ok(()),
                // The asking part lives as long as this does.
                Wish::Pace => drop(pace.send(view.every)),
                Wish::Redraw => screen.anew()?,
                Wish::Suspend => screen.suspend()?,
            }
            // What came meanwhile is drawn once.
            pressed = keys.try_recv().ok();
        }
    }
}

type Told = Result<Box<(Status, Vec<RecentEvent>)>, String>;

/// Asks, and asks again at the pace of the moment, until nobody listens.
async fn ask(mut asker: Asker, mut pace: watch::Receiver<Duration>, tell: mpsc::Sender<Told>) {
    loop {
        let began = Instant::now();
        if tell.send(look(&mut asker).await).await.is_err() {
            return;
        }
        loop {
            let every = *pace.borrow_and_update();
            tokio::select! {
                () = sleep_until(began + every) => break,
                changed = pace.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }
}

async fn look(asker: &mut Asker) -> Told {
    let status = asker.get("/status", ANSWER_LIMIT).await?;
    let status = read(&status, "status")?;
    let events = asker.get("/events", ANSWER_LIMIT).await?;
    let events = read(&events, "list of events")?;
    Ok(Box::new((status, events)))
}

fn read<T: serde::de::DeserializeOwned>(answer: &Answer, what: &str) -> Result<T, String> {
    if !answer.is_good() {
        let words = harmless::lines(&answer.text).replace('\n', " ");
        let words: String = words.chars().take(MAX_REFUSAL).collect();
        return Err(format!("it answered {}: {words}", answer.code));
    }
    harmless::read(&answer.text).map_err(|error| {
        format!("what it answered is no {what} ({error}): is that another program?")
    })
}
