//! What only the doctor (`switchmaster check`) asks: every question by itself, every refusal kept. The proxy needs
//! none of it to serve.

use std::net::SocketAddr;

use redis::{RedisError, Value};

use super::listen::Events;
use super::listing::LONGEST_LIST;
use super::reply::{count, read_peer, read_view, text};
use super::{ClientError, MAX_PEERS, RoleLink, SentinelLink};
use crate::sentinel::Peer;
use crate::topology::observation::{NoView, RunId, View};

/// Questions about each master, in this order.
const QUESTIONS: [(&str, &str); 4] = [
    ("MASTER", "+sentinel|master"),
    (
        "GET-MASTER-ADDR-BY-NAME",
        "+sentinel|get-master-addr-by-name",
    ),
    ("SENTINELS", "+sentinel|sentinels"),
    ("CKQUORUM", "+sentinel|ckquorum"),
];
/// What is asked once, before those.
const MYID: &str = "+sentinel|myid";
const INFO: &str = "+info";
/// What is asked of it by those who lead clients to replicas.
pub const LIST_REPLICAS: &str = "+sentinel|replicas";

/// Whether events would come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Every channel was granted.
    Granted,
    /// The user may not run SUBSCRIBE.
    CommandDenied,
    /// The user may run it, but not for these channels.
    ChannelsDenied,
}

/// What one Sentinel told.
#[derive(Clone, Debug)]
pub struct Testimony {
    /// Where it was dialled.
    pub peer: SocketAddr,
    /// Its run id, where it tells it.
    pub run_id: Option<RunId>,
    /// Whether it subscribed us.
    pub subscription: Subscription,
    /// It has seen its own clock jump, and neither votes nor fails over for half a minute. `None` is not known.
    pub tilt: Option<bool>,
    /// Rights (as ACL SETUSER takes them) that it refused.
    pub refused: Vec<&'static str>,
    /// One for each master asked about, in that order.
    pub masters: Vec<MasterTestimony>,
}

/// What one Sentinel told of one master.
#[derive(Clone, Debug)]
pub struct MasterTestimony {
    /// Where it says the master is, and the rest of its view. `None` where it may not say.
    pub view: Option<Result<View, NoView>>,
    /// The replicas that it knows.
    pub replicas: Option<u64>,
    /// The other Sentinels that it knows. `None` where it may not say.
    pub peers: Option<Vec<Peer>>,
    /// SENTINEL CKQUORUM: its words, good or bad. `None` is not known.
    pub quorum: Option<Result<String, String>>,
}

impl SentinelLink {
    /// Asks for all that it knows of these masters, in one write.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn testify(&mut self, masters: &[&str]) -> Result<Testimony, ClientError> {
        let mut pipe = redis::pipe();
        pipe.cmd("SENTINEL").arg("MYID");
        pipe.cmd("INFO").arg("sentinel");
        for master in masters {
            for (question, _) in QUESTIONS {
                pipe.cmd("SENTINEL").arg(question).arg(*master);
            }
        }
        let mut answers = self.asking.0.ask_pipe(&pipe).await?.into_iter();
        let mut refused = Vec::new();
        let run_id = heard(answers.next(), MYID, &mut refused)
            .and_then(Result::ok)
            .and_then(|value| RunId::parse(&text(&value)?));
        let tilt = heard(answers.next(), INFO, &mut refused)
            .and_then(Result::ok)
            .and_then(|value| tilt(&text(&value)?));
        let masters = masters
            .iter()
            .map(|_| master(&mut answers, &mut refused))
            .collect();
        refused.sort_unstable();
        refused.dedup();
        Ok(Testimony {
            peer: self.asking.0.peer,
            run_id,
            subscription: self.subscription(),
            tilt,
            refused,
            masters,
        })
    }

    /// Whether the replicas of this master would be listed (SENTINEL REPLICAS): false where the right is missing.
    ///
    /// # Errors
    /// When the link fails.
    pub async fn may_list_replicas(&mut self, master: &str) -> Result<bool, ClientError> {
        let question = redis::cmd("SENTINEL")
            .arg("REPLICAS")
            .arg(master)
            .to_owned();
        match self.asking.0.ask_at_length(&question, LONGEST_LIST).await {
            Err(ClientError::NoPermission(_)) => Ok(false),
            Ok(_) | Err(ClientError::Protocol(_)) => Ok(true),
            Err(e) => Err(e),
        }
    }

    fn subscription(&self) -> Subscription {
        match &self.listening.events {
            Events::Same(_) | Events::Own(_) => Subscription::Granted,
            // "... has no permissions to access the '+odown' channel", and older words with the same word.
            Events::Denied(why) if why.contains("channel") => Subscription::ChannelsDenied,
            Events::Denied(_) => Subscription::CommandDenied,
        }
    }
}

impl RoleLink {
    /// `min-replicas-to-write` of this node (CONFIG GET).
    ///
    /// # Errors
    /// When it may not be asked, does not know the setting or does not answer.
    pub async fn min_replicas(&mut self) -> Result<u64, ClientError> {
        let unknown = || ClientError::Protocol("it has no min-replicas-to-write".to_owned());
        let question = redis::cmd("CONFIG")
            .arg("GET")
            .arg("min-replicas-to-write")
            .to_owned();
        let answer = self.connection.ask(&question).await?;
        count(&answer, "min-replicas-to-write").ok_or_else(unknown)
    }

    /// What the node said of the login that was configured, if it refused it and was then asked without one.
    pub fn refused_login(&self) -> Option<&str> {
        self.refused_login.as_deref()
    }
}

fn master(
    answers: &mut impl Iterator<Item = Value>,
    refused: &mut Vec<&'static str>,
) -> MasterTestimony {
    let [details, address, peers, quorum] =
        QUESTIONS.map(|(_, right)| heard(answers.next(), right, refused));
    let replicas = match &details {
        Some(Ok(details)) => count(details, "num-slaves"),
        _ => None,
    };
    let view = match (details, address) {
        (Some(Ok(details)), Some(Ok(address))) => Some(match address {
            Value::Nil => Err(NoView::UnknownMaster),
            address => read_view(&details, &address),
        }),
        // An error to SENTINEL MASTER that is no refusal: there is no such master.
        (Some(Err(why)), _) if why.contains("No such master") => Some(Err(NoView::UnknownMaster)),
        (Some(Err(why)), _) | (_, Some(Err(why))) => Some(Err(NoView::Absurd(why))),
        (None, _) | (_, None) => None,
    };
    let peers = match peers {
        Some(Ok(Value::Array(peers))) => {
            Some(peers.iter().take(MAX_PEERS).filter_map(read_peer).collect())
        }
        _ => None,
    };
    let quorum = match quorum {
        Some(Ok(words)) => text(&words).map(Ok),
        Some(Err(why)) if why.contains("NOQUORUM") => Some(Err(why)),
        _ => None,
    };
    MasterTestimony {
        view,
        replicas,
        peers,
        quorum,
    }
}

/// An answer, or the words of an error; `None` where the right is missing, which is noted.
fn heard(
    answer: Option<Value>,
    right: &'static str,
    refused: &mut Vec<&'static str>,
) -> Option<Result<Value, String>> {
    let error = match answer? {
        Value::ServerError(error) => ClientError::from(RedisError::from(error)),
        value => return Some(Ok(value)),
    };
    match error {
        ClientError::NoPermission(_) => {
            refused.push(right);
            None
        }
        ClientError::Protocol(why) => Some(Err(why)),
        other => Some(Err(other.to_string())),
    }
}

/// `sentinel_tilt:1` in the answer to INFO.
fn tilt(info: &str) -> Option<bool> {
    info.lines()
        .find_map(|line| line.trim().strip_prefix("sentinel_tilt:"))
        .map(|value| value != "0")
}

#[cfg(test)]
mod tests {
    use super::tilt;

    #[test]
    fn tilt_is_read_from_info() {
        let info = |n| format!("# Sentinel\r\nsentinel_masters:1\r\nsentinel_tilt:{n}\r\n");
        assert_eq!(tilt(&info(1)), Some(true));
        assert_eq!(tilt(&info(0)), Some(false));
        assert_eq!(tilt("# Sentinel\r\n"), None);
    }
}
