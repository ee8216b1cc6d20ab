//! `POST /reload`, and what is told of reloads: how many there were, and whether the last one was carried out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Panel;
use super::actions::By;

/// Reloads that wait to be carried out; whoever asks then is turned away.
const MAX_ASKED: usize = 4;
/// Longest wait for the answer: those before it are carried out first, and each has limits of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(45);

/// Somebody wants the configuration to be read anew.
#[derive(Debug)]
pub struct Asked {
    /// Who: a uid, or the token.
    pub by: String,
    /// Where it is told what came of it.
    pub answer: oneshot::Sender<Outcome>,
}

/// Where that is asked for.
pub type Reload = mpsc::Sender<Asked>;

/// The two ends of the line of those who ask.
pub fn channel() -> (Reload, mpsc::Receiver<Asked>) {
    mpsc::channel(MAX_ASKED)
}

/// What came of a reload. Field names are public interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// This was changed.
    Reloaded {
        /// A piece each.
        changed: Vec<String>,
        /// What looks like a mistake and does no harm.
        warnings: Vec<String>,
    },
    /// What was read is what is run.
    Unchanged {
        /// What looks like a mistake and does no harm.
        warnings: Vec<String>,
    },
    /// The old configuration stays in force.
    Failed {
        /// The file is in order, but this process cannot go over to it: a restart is needed, or a port is taken.
        refused: bool,
        /// Why, a piece each.
        problems: Vec<Fault>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// `/etc/switchmaster/config.toml:12`, where it is something that was written.
    pub place: Option<String>,
    /// The line alone.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Outcome {
    /// Every word for an outcome; public interface.
    pub const LABELS: [&'static str; 3] = ["reloaded", "unchanged", "failed"];

    const fn index(&self) -> usize {
        match self {
            Self::Reloaded { .. } => 0,
            Self::Unchanged { .. } => 1,
            Self::Failed { .. } => 2,
        }
    }

    const fn code(&self) -> StatusCode {
        match self {
            Self::Reloaded { .. } | Self::Unchanged { .. } => StatusCode::OK,
            Self::Failed { refused: true, .. } => StatusCode::CONFLICT,
            Self::Failed { refused: false, .. } => StatusCode::BAD_REQUEST,
        }
    }
}

/// How reloads went; the start counts as the first success.
#[derive(Clone, Debug)]
pub struct Reloads(Arc<Mutex<Count>>);

#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) by_outcome: [u64; Outcome::LABELS.len()],
    pub(super) last_succeeded: bool,
    /// When what is in force was read last, in seconds of the Unix epoch.
    pub(super) succeeded_at: f64,
}

impl Default for Reloads {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Count {
            by_outcome: [0; Outcome::LABELS.len()],
            last_succeeded: true,
            succeeded_at: seconds(SystemTime::now()),
        })))
    }
}

impl Reloads {
    /// Counts one.
    pub fn note(&self, outcome: &Outcome, at: SystemTime) {
        let mut count = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        count.by_outcome[outcome.index()] += 1;
        count.last_succeeded = !matches!(outcome, Outcome::Failed { .. });
        if count.last_succeeded {
            count.succeeded_at = seconds(at);
        }
    }

    pub(super) fn read(&self) -> Count {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// `POST /reload`
pub(super) async fn reload(
    State(panel): State<Arc<Panel>>,
    RawQuery(query): RawQuery,
    Extension(By(by)): Extension<By>,
) -> Response {
    if query.is_some_and(|query| !query.is_empty()) {
        return (StatusCode::BAD_REQUEST, "a reload has no parameters\n").into_response();
    }
    let (answer, answered) = oneshot::channel();
    if panel.reload.try_send(Asked { by, answer }).is_err() {
        let why = "too many reloads at once, or the process ends\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    match timeout(ANSWER_LIMIT, answered).await {
        Ok(Ok(outcome)) => (outcome.code(), Json(outcome)).into_response(),
        // It is carried out all the same, unless the process ends.
        Ok(Err(_)) | Err(_) => {
            let why = "no answer: see the log (reloaded, reload_failed) and /livez\n";
            (StatusCode::GATEWAY_TIMEOUT, why).into_response()
        }
    }
}
