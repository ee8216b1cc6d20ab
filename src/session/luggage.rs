//! A session as plain data and two sockets, so that another process can go on with it: the client does not notice.
//!
//! Only what has nothing in this process's memory travels: no byte that was read and not yet written, either way.

use serde::{Deserialize, Serialize};

use super::tracker::Packed;
use crate::net::stream::{Kind, Unregistered};

/// What is said of a session; its sockets go beside it, the client's first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Luggage {
    /// What the client's socket is.
    pub client: Kind,
    /// What the master's is; `None` of a session that has none at the time.
    pub upstream: Option<Kind>,
    /// What the tracker knows; `None` of a session that has none (`on_switch = "close"`), and is relayed blindly.
    pub tracked: Option<Packed>,
}

impl Luggage {
    /// Sockets that belong to it.
    pub const fn sockets(&self) -> usize {
        1 + self.upstream.is_some() as usize
    }

    /// Most bytes it is encoded in, roughly.
    pub fn weight(&self) -> usize {
        const KINDS: usize = 4;
        KINDS + self.tracked.as_ref().map_or(0, Packed::weight)
    }

    /// It is a session as there are: it has a master, or may get one without its client's notice.
    pub fn is_sound(&self) -> bool {
        match &self.tracked {
            Some(packed) => packed.is_within_limits(),
            None => self.upstream.is_some(),
        }
    }
}

/// A session that this process has let go of: nobody reads or writes its sockets.
#[derive(Debug)]
pub struct Packet {
    /// The client's socket.
    pub client: Unregistered,
    /// The master's.
    pub upstream: Option<Unregistered>,
    /// What is known of both.
    pub tracked: Option<Packed>,
}

impl Packet {
    /// What is said of it.
    pub fn luggage(&self) -> Luggage {
        Luggage {
            client: self.client.kind(),
            upstream: self.upstream.as_ref().map(Unregistered::kind),
            tracked: self.tracked.clone(),
        }
    }
}
