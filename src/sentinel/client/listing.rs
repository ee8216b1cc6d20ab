//! The replicas that a Sentinel lists.

use redis::{ProtocolVersion, Value};

use super::reply::read_listed;
use super::{ClientError, Connection, Dial};
use crate::net::addr::HostPort;
use crate::topology::observation::Listed;

/// Most replicas taken from one reply, those first that are not called down, and of those the ones it is connected to.
const MAX_LISTED: usize = 64;
/// Longest list of replicas: some 750, of 670 bytes each.
pub(super) const LONGEST_LIST: usize = 512 * 1024;

/// A connection of its own for lists: one that is too long, or late, ends nothing else.
#[derive(Debug)]
pub struct ListLink(Connection);

impl ListLink {
    /// Dials and logs in.
    ///
    /// # Errors
    /// When the Sentinel cannot be reached, refuses the login or does not answer in time.
    pub async fn open(addr: &HostPort, dial: &Dial) -> Result<Self, ClientError> {
        let login = &dial.credentials;
        let opened = Connection::open(addr, dial, login, ProtocolVersion::RESP2, None).await;
        opened.map(Self)
    }

    /// The replicas that this Sentinel knows of this master (SENTINEL REPLICAS).
    ///
    /// # Errors
    /// When it may not be asked, answers something else or too much, or not in time.
    pub async fn replicas(&mut self, master: &str) -> Result<Vec<Listed>, ClientError> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("REPLICAS").arg(master);
        match self.0.ask_at_length(&question, LONGEST_LIST).await {
            Ok(Value::Array(listed)) => Ok(first_the_living(&listed)),
            Ok(_) => Err(ClientError::Protocol("it is no list".to_owned())),
            Err(ClientError::Io(why)) => Err(ClientError::Io(format!(
                "{why} (a list may have {} KiB; SENTINEL RESET, at one Sentinel after the other, removes dead replicas)",
                LONGEST_LIST / 1024
            ))),
            Err(why) => Err(why),
        }
    }
}

/// Sentinels forget nobody, so a list may be long of the dead.
pub(super) fn first_the_living(listed: &[Value]) -> Vec<Listed> {
    let mut all: Vec<(Listed, bool)> = listed.iter().filter_map(read_listed).collect();
    all.sort_by_key(|(of, connected)| (of.down, !connected));
    all.truncate(MAX_LISTED);
    all.into_iter().map(|(of, _)| of).collect()
}
