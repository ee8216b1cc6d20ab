//! The last log events, kept in memory: what the admin endpoint shows is what the log says, in the same words.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::net::clock::At;

/// Events kept.
const KEPT: usize = 256;
/// Is told every ten seconds for as long as it lasts. The last of those that say the same stays: the others would push out what
/// they have come from.
const REPEATED: &str = "waiting";
/// Longest text of one field, in characters; peers' words are bounded already, errors of libraries may not be.
const MAX_TEXT: usize = 500;

/// One event of the log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RecentEvent {
    /// When, in seconds of the Unix epoch.
    pub at: f64,
    /// `ERROR`, `WARN` or `INFO`.
    pub level: String,
    /// Its stable name.
    pub event: String,
    /// For people.
    pub message: String,
    /// Its other fields.
    pub fields: BTreeMap<String, Value>,
}

impl RecentEvent {
    /// It says the same of the same entry.
    fn repeats(&self, other: &Self) -> bool {
        self.event == other.event && self.message == other.message && self.fields == other.fields
    }
}

/// The last events, oldest first. Written by whoever logs, never per request.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<RecentEvent>>>);

impl Recent {
    /// What is kept now.
    pub fn events(&self) -> Vec<RecentEvent> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }

    /// What has to be put on the way of log events to fill it.
    pub(super) fn layer(&self) -> Keep {
        Keep(self.clone())
    }

    fn push(&self, event: RecentEvent) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if event.event == REPEATED
            && let Some(before) = kept.iter().rposition(|before| before.repeats(&event))
        {
            kept.remove(before);
        }
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
    }
}

/// See [`Recent::layer`].
#[derive(Debug)]
pub(super) struct Keep(Recent);

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // What happens to single sessions is told at debug, and is none of the story.
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let at = At::now();
        let mut kept = RecentEvent {
            at: at.unix_of(at.moment),
            level: event.metadata().level().to_string(),
            ..RecentEvent::default()
        };
        event.record(&mut Read(&mut kept));
        if !kept.event.is_empty() {
            self.0.push(kept);
        }
    }
}

struct Read<'a>(&'a mut RecentEvent);

impl Read<'_> {
    fn text(&mut self, field: &Field, text: String) {
        let text = if text.chars().count() > MAX_TEXT {
            text.chars().take(MAX_TEXT).chain("...".chars()).collect()
        } else {
            text
        };
        match field.name() {
            "event" => self.0.event = text,
            "message" => self.0.message = text,
            _ => self.value(field, text),
        }
    }

    fn value(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Read<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, message: &str) -> RecentEvent {
        RecentEvent {
            event: name.to_owned(),
            message: message.to_owned(),
            ..RecentEvent::default()
        }
    }

    #[test]
    fn what_is_told_while_clients_wait_pushes_nothing_out() {
        let recent = Recent::default();
        recent.push(event("sentinel_down", "login failed"));
        for n in 0..2 * KEPT {
            recent.push(RecentEvent {
                at: n as f64,
                ..event("waiting", "no Sentinel answers")
            });
            recent.push(event("waiting", "of another entry"));
        }
        recent.push(event("sentinel_down", "login failed"));
        let told = recent.events();
        let words: Vec<_> = told.iter().map(|e| e.message.as_str()).collect();
        assert_eq!(
            words,
            [
                "login failed",
                "no Sentinel answers",
                "of another entry",
                "login failed"
            ]
        );
        assert_eq!(told[1].at, (2 * KEPT - 1) as f64, "the last of them");
    }
}
