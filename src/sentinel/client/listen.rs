//! The half of a link that tells of events.

use futures_util::StreamExt;
use redis::Value;
use redis::aio::PubSub;
use tokio::sync::mpsc;

use super::reply::raw_event;
use super::{ClientError, answer};
use crate::sentinel::metered::Meter;

/// A published event, not yet understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// The channel, which is the event's name.
    pub channel: String,
    /// The event's text.
    pub payload: String,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Listening {
    pub(super) events: Events,
    /// Of the link that takes the questions.
    questions: Meter,
}

#[derive(Debug)]
pub(super) enum Events {
    /// RESP3: they come over the link of the questions.
    Same(mpsc::Receiver<RawEvent>),
    /// RESP2: a link of their own.
    Own(Box<OwnEvents>),
    /// SUBSCRIBE is not permitted, in these words: polling has to do.
    Denied(String),
}

pub(super) struct OwnEvents {
    pub(super) pubsub: PubSub,
    pub(super) meter: Meter,
}

impl std::fmt::Debug for OwnEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnEvents").finish_non_exhaustive()
    }
}

impl Listening {
    pub(super) const fn new(events: Events, questions: Meter) -> Self {
        Self { events, questions }
    }

    /// False when this Sentinel refuses SUBSCRIBE to our user, so that only polling tells of a failover.
    pub const fn subscribed(&self) -> bool {
        !matches!(self.events, Events::Denied(_))
    }

    /// True when events have a link of their own, which needs its own heartbeat.
    pub const fn has_event_link(&self) -> bool {
        matches!(self.events, Events::Own(_))
    }

    /// The next event, or the end of the link. Never completes where SUBSCRIBE was denied and the link
    /// lives. Cancel-safe.
    pub async fn event(&mut self) -> Result<RawEvent, ClientError> {
        let closed = || ClientError::Io("the Sentinel closed the connection".to_owned());
        match &mut self.events {
            Events::Same(events) => tokio::select! {
                biased;
                event = events.recv() => event.ok_or_else(closed),
                () = self.questions.closed() => Err(closed()),
            },
            Events::Own(own) => {
                let OwnEvents { pubsub, meter } = &mut **own;
                let mut messages = pubsub.on_message();
                loop {
                    let message = tokio::select! {
                        biased;
                        message = messages.next() => message.ok_or_else(closed)?,
                        () = meter.closed() => return Err(closed()),
                        () = self.questions.closed() => return Err(closed()),
                    };
                    meter.reset();
                    let payload = message.get_payload_bytes();
                    if let Some(event) = raw_event(message.get_channel_name().as_bytes(), payload) {
                        return Ok(event);
                    }
                }
            }
            Events::Denied(_) => {
                self.questions.closed().await;
                Err(closed())
            }
        }
    }

    /// PING on a separate event link: Sentinel sends nothing on a quiet one, so a dead one looks alive.
    ///
    /// # Errors
    /// When no answer comes within [`REPLY_TIMEOUT`](super::REPLY_TIMEOUT).
    pub async fn ping_events(&mut self) -> Result<(), ClientError> {
        match &mut self.events {
            Events::Own(own) => {
                own.meter.reset();
                answer("waiting for PONG", own.pubsub.ping::<Value>())
                    .await
                    .map(drop)
            }
            Events::Same(_) | Events::Denied(_) => Ok(()),
        }
    }
}
