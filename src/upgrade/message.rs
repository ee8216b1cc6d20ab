//! What two processes say to each other, as text and bytes. Pure.
//!
//! ```text
//! new: Hello ------------------------> old     what it is, and which proxy entries it has
//! old: Listeners* Offer -------------> new     its sockets, what it believes
//! new: Ready ------------------------> old     it knows the same masters
//! old: Go (it accepts no more) ------> new
//! new: Opened (it accepts) ----------> old
//! old: (sessions) -> new: Adopted, or Refused: they go back       again and again
//! old: Done -------------------------> new     the rest drains
//! ```
//!
//! What is agreed on is JSON, in which either side may know fields that the other does not: listeners can be handed between any
//! two versions. What a session is has one form for each number of [`SESSIONS`], and between different ones sessions do not travel.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::session::luggage::Luggage;

/// The form that sessions have here. To be counted up whenever [`Luggage`] or anything in it changes.
pub const SESSIONS: u32 = 3;
/// Longest message.
pub const MESSAGE_MAX: usize = 96 * 1024;
/// Most descriptors of one message (`SCM_MAX_FD`, unix(7)).
pub const DESCRIPTORS_MAX: usize = 253;
/// Most sessions of one message: two descriptors each.
pub const BATCH_MAX: usize = DESCRIPTORS_MAX / 2;
/// So much of a message is left to what frames its sessions.
const BATCH_WEIGHT: usize = MESSAGE_MAX - 4096;
/// Longest reason that is taken from the other side.
const WORDS_MAX: usize = 200;

/// First byte of a message that is JSON, and of one that is sessions.
const TEXT: u8 = b'{';
const BYTES: u8 = b'S';

/// Anything that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// What is agreed on.
    Said(Said),
    /// Sessions; their descriptors come with it, in order.
    Sessions(Batch),
}

/// What is agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum Said {
    /// The new process is there.
    Hello(Hello),
    /// Listening sockets: as many descriptors come with it.
    Listeners {
        /// In the order of the descriptors.
        listeners: Vec<Listener>,
    },
    /// All of them were sent; this is what the old process believes.
    Offer(Offer),
    /// The new process has verified these masters and could serve.
    Ready {
        /// One for each entry that both have.
        masters: Vec<Reign>,
    },
    /// The old process accepts no more: the new one is to.
    Go,
    /// It does.
    Opened,
    /// All sessions of the last message are the new process's, which serves them from now on. Said before it does.
    Adopted,
    /// None of them is; their descriptors are closed.
    Refused {
        /// Why.
        why: String,
    },
    /// No more sessions will come.
    Done,
    /// It comes to nothing: the new process is to end.
    Abort {
        /// Why.
        why: String,
    },
    /// The new process cannot, and ends.
    Failed {
        /// Why.
        why: String,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// The new process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its version, for people.
    pub version: String,
    /// The form of sessions that it takes, see [`SESSIONS`].
    pub sessions: u32,
    /// Its proxy entries.
    pub entries: Vec<Named>,
}

/// A proxy entry: two processes have the same when all of this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The name Sentinel knows its master by.
    pub master: String,
    /// It leads to replicas of that. Versions that know nothing of it lead to masters.
    #[serde(default)]
    pub replicas: bool,
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The proxy entry; `None` = the admin endpoint.
    pub entry: Option<String>,
    /// As it was asked for in the configuration.
    pub asked: String,
    /// The device and the inode of its file, if the process made one, which it removes at its end. What else is at that path is not its.
    #[serde(default)]
    pub file: Option<(u64, u64)>,
}

/// What the old process believes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// One for each of its entries.
    pub beliefs: Vec<Belief>,
    /// Sessions that may come: there is to be room for them. A version before this did not say.
    #[serde(default)]
    pub sessions: u64,
}

/// What is believed of one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belief {
    /// Which.
    #[serde(flatten)]
    pub of: Named,
    /// How many masters there have been.
    pub generation: u64,
    /// The highest config-epoch believed: a Sentinel that says less is behind.
    pub epoch: Option<u64>,
}

/// A master in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// The proxy entry's name.
    pub entry: String,
    /// Where it was verified.
    pub at: SocketAddr,
    /// The config-epoch that is believed.
    pub epoch: Option<u64>,
}

/// Sessions of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The master that their upstreams lead to.
    pub reign: Reign,
    /// One for each.
    pub sessions: Vec<Luggage>,
}

impl Batch {
    /// Descriptors that belong to it.
    pub fn sockets(&self) -> usize {
        self.sessions.iter().map(Luggage::sockets).sum()
    }
}

/// How many of these fit into one message.
pub fn fitting<'a>(sessions: impl IntoIterator<Item = &'a Luggage>) -> usize {
    let mut weight = 0;
    sessions
        .into_iter()
        .take(BATCH_MAX)
        .take_while(|luggage| {
            weight += luggage.weight();
            weight <= BATCH_WEIGHT
        })
        .count()
}

/// A message that cannot be written, or is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It would be longer than [`MESSAGE_MAX`].
    #[error("a message is too long")]
    TooLong,
    /// Its sessions have another form.
    #[error("sessions of form {0} where {SESSIONS} was agreed on")]
    OtherForm(u32),
    /// It is neither JSON as it should be, nor sessions.
    #[error("a message that means nothing")]
    Nothing,
    /// It holds a session that cannot be.
    #[error("a session that cannot be")]
    Unsound,
}

/// Writes a message; it may hold secrets, and is wiped.
///
/// # Errors
/// When it is too long.
pub fn encode(message: &Message) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    // Made at its full length, as one that grows leaves what it held in freed memory.
    let mut bytes = Zeroizing::new(vec![0; MESSAGE_MAX]);
    let length = match message {
        Message::Said(said) => {
            let text = serde_json::to_vec(said).map_err(|_| Malformed::Nothing)?;
            bytes
                .get_mut(..text.len())
                .ok_or(Malformed::TooLong)?
                .copy_from_slice(&text);
            text.len()
        }
        Message::Sessions(batch) => {
            let (head, body) = bytes.split_at_mut(1);
            head.fill(BYTES);
            let written = postcard::to_slice(&(SESSIONS, batch), body);
            1 + written.map_err(|_| Malformed::TooLong)?.len()
        }
    };
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads a message. Allocates no more than a small multiple of its length, whatever it says.
///
/// # Errors
/// See [`Malformed`].
pub fn decode(bytes: &[u8]) -> Result<Message, Malformed> {
    match bytes.first() {
        _ if bytes.len() > MESSAGE_MAX => Err(Malformed::TooLong),
        Some(&TEXT) => {
            let said = serde_json::from_slice(bytes).map_err(|_| Malformed::Nothing)?;
            Ok(Message::Said(said))
        }
        Some(&BYTES) => {
            let nothing = |_| Malformed::Nothing;
            // The form alone first: nothing behind it means anything in another.
            let (form, body) = postcard::take_from_bytes::<u32>(&bytes[1..]).map_err(nothing)?;
            if form != SESSIONS {
                return Err(Malformed::OtherForm(form));
            }
            let (batch, rest) = postcard::take_from_bytes::<Batch>(body).map_err(nothing)?;
            let sound = batch.sessions.len() <= BATCH_MAX
                && batch.sessions.iter().all(Luggage::is_sound)
                && rest.is_empty();
            if sound {
                Ok(Message::Sessions(batch))
            } else {
                Err(Malformed::Unsound)
            }
        }
        _ => Err(Malformed::Nothing),
    }
}

/// What the other side gave as a reason, fit for a log line.
pub fn words(why: &str) -> String {
    why.chars()
        .take(WORDS_MAX)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::stream::Kind;
    use crate::session::tracker::{Rules, Tracker};

    const RULES: Rules = Rules {
        login: false,
        replay_auth: true,
        pubsub: true,
        resend_reads: false,
    };

    fn reign() -> Reign {
        Reign {
            entry: "main".to_owned(),
            at: ([127, 0, 0, 1], 6379).into(),
            epoch: Some(7),
        }
    }

    /// A session of whatever its client said and had confirmed.
    fn session(db: u32, secret: &str, channels: usize, in_flight: u8) -> Luggage {
        let mut tracker = Tracker::new(RULES);
        let mut say = |asked: String, answered: String| {
            tracker.client_bytes(asked.as_bytes());
            let _ = tracker.master_bytes(answered.as_bytes());
        };
        say(format!("SELECT {db}\r\n"), "+OK\r\n".to_owned());
        if !secret.is_empty() {
            say(format!("AUTH user {secret}\r\n"), "+OK\r\n".to_owned());
        }
        for n in 1..=channels {
            let name = format!("channel-{n}");
            let confirmed = format!(
                "*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:{n}\r\n",
                name.len()
            );
            say(format!("SUBSCRIBE {name}\r\n"), confirmed);
        }
        if channels == 0 {
            tracker.client_bytes("PING\r\n".repeat(in_flight.into()).as_bytes());
        }
        Luggage {
            client: Kind::Unix,
            upstream: Some(Kind::Tcp),
            tracked: tracker.pack(),
            fresh: db == 0,
            conveyed: (db == 0).then_some(([192, 0, 2, 1]).into()),
        }
    }

    fn sessions() -> impl Strategy<Value = Vec<Luggage>> {
        let one = (0..16_u32, "[a-z]{0,40}", 0..40_usize, 0..9_u8).prop_map(
            |(db, secret, channels, in_flight)| session(db, &secret, channels, in_flight),
        );
        proptest::collection::vec(one, 0..20)
    }

    fn said() -> impl Strategy<Value = Said> {
        let named = || {
            ("[a-z]{0,9}", "\\PC{0,9}", proptest::bool::ANY).prop_map(|(name, master, replicas)| {
                Named {
                    name,
                    master,
                    replicas,
                }
            })
        };
        prop_oneof![
            proptest::collection::vec(named(), 0..5).prop_map(|entries| Said::Hello(Hello {
                version: "1.2.3".to_owned(),
                sessions: SESSIONS,
                entries,
            })),
            (named(), any::<u64>(), any::<Option<u64>>()).prop_map(|(of, generation, epoch)| {
                Said::Offer(Offer {
                    beliefs: vec![Belief {
                        of,
                        generation,
                        epoch,
                    }],
                    sessions: generation,
                })
            }),
            ("\\PC{0,9}", any::<Option<(u64, u64)>>()).prop_map(|(asked, file)| Said::Listeners {
                listeners: vec![Listener {
                    entry: None,
                    asked,
                    file,
                }]
            }),
            "\\PC{0,9}".prop_map(|why| Said::Refused { why }),
            Just(Said::Ready {
                masters: vec![reign()]
            }),
            Just(Said::Go),
            Just(Said::Done),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(said in said(), sessions in sessions()) {
            let batch = Batch { reign: reign(), sessions };
            for message in [Message::Said(said), Message::Sessions(batch)] {
                let bytes = encode(&message).expect("it fits");
                prop_assert_eq!(decode(&bytes), Ok(message));
            }
        }

        /// Whatever somebody sends: an answer, and no more memory than the message is worth.
        #[test]
        fn hostile_bytes_are_an_error_or_a_message(
            head in prop_oneof![Just(vec![]), Just(vec![b'{']), Just(vec![BYTES, 1]), Just(vec![BYTES])],
            rest in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let bytes = [head, rest].concat();
            if let Ok(Message::Sessions(batch)) = decode(&bytes) {
                prop_assert!(batch.sessions.len() <= bytes.len());
            }
        }

        /// The same of a message that was whole once.
        #[test]
        fn a_message_with_a_wrong_byte_is_an_error_or_another(
            sessions in sessions(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let batch = Batch { reign: reign(), sessions };
            let mut bytes = encode(&Message::Sessions(batch)).expect("it fits").to_vec();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] = byte;
            }
            if let Ok(message) = decode(&bytes) {
                let again = encode(&message).expect("it fits");
                prop_assert_eq!(decode(&again), Ok(message));
            }
        }
    }

    #[test]
    fn a_length_that_promises_too_much_allocates_nothing() {
        // 2^34 sessions, and nothing behind it.
        let mut bytes = encode(&Message::Sessions(Batch {
            reign: reign(),
            sessions: Vec::new(),
        }))
        .expect("it fits")
        .to_vec();
        assert_eq!(bytes.pop(), Some(0));
        bytes.extend([0xff, 0xff, 0xff, 0xff, 0x3f]);
        assert_eq!(decode(&bytes), Err(Malformed::Nothing));
    }

    #[test]
    fn another_form_of_sessions_is_noticed_before_they_are_read() {
        assert_eq!(
            decode(&[BYTES, 1, 0xff, 0xff]),
            Err(Malformed::OtherForm(1))
        );
    }

    #[test]
    fn what_a_later_version_says_in_addition_is_no_error() {
        let hello = br#"{"say":"hello","version":"9","sessions":9,"entries":[],"more":{"x":1}}"#;
        assert!(matches!(
            decode(hello),
            Ok(Message::Said(Said::Hello(Hello { sessions: 9, .. })))
        ));
        assert_eq!(
            decode(br#"{"say":"something_new","of":"it"}"#),
            Ok(Message::Said(Said::Unknown))
        );
    }

    #[test]
    fn the_largest_sessions_fit_one_by_one() {
        let large = session(15, &"x".repeat(900), 1000, 0);
        assert!(large.tracked.is_some());
        let many = vec![large; BATCH_MAX];
        let count = fitting(&many);
        assert!(count > 0 && count < BATCH_MAX, "{count}");
        let batch = Batch {
            reign: reign(),
            sessions: many.into_iter().take(count).collect(),
        };
        assert!(batch.sockets() <= DESCRIPTORS_MAX);
        encode(&Message::Sessions(batch)).expect("it fits");
        let small = vec![session(0, "", 0, 1); 500];
        assert_eq!(fitting(&small), BATCH_MAX);
    }

    #[test]
    fn words_of_others_are_short_and_harmless() {
        assert_eq!(words("a\nb"), "a\\nb");
        assert_eq!(words(&"x".repeat(1000)).len(), WORDS_MAX);
    }
}
