//! A session as plain data and two sockets, so that another process can go on with it: the client does not notice.
//!
//! Only what has nothing in this process's memory travels: no byte that was read and not yet written, either way.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::tracker::Packed;
use crate::net::stream::{Kind, Unregistered};
use crate::topology::publish::Reader;
use crate::topology::{Generation, Phase};

/// What is said of a session; its sockets go beside it, the client's first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Luggage {
    /// What the client's socket is.
    pub client: Kind,
    /// What the master's is; `None` of a session that has none at the time.
    pub upstream: Option<Kind>,
    /// What the tracker knows; `None` of a session that has none (`on_switch = "close"`), and is relayed blindly.
    pub tracked: Option<Packed>,
    /// Its client has said nothing yet: what it speaks is to be looked at.
    pub fresh: bool,
    /// From where a balancer said that its client comes.
    pub conveyed: Option<IpAddr>,
}

impl Luggage {
    /// Sockets that belong to it.
    pub const fn sockets(&self) -> usize {
        1 + self.upstream.is_some() as usize
    }

    /// Most bytes it is encoded in, roughly.
    pub fn weight(&self) -> usize {
        const KINDS: usize = 5;
        const ADDRESS: usize = 18;
        KINDS + ADDRESS + self.tracked.as_ref().map_or(0, Packed::weight)
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
    pub upstream: Option<Upstream>,
    /// What is known of both.
    pub tracked: Option<Packed>,
    /// The client has said nothing yet.
    pub fresh: bool,
    /// From where a balancer said that it comes.
    pub conveyed: Option<IpAddr>,
}

/// A master's socket on its way, and what it is worth.
#[derive(Debug)]
pub struct Upstream {
    /// Dropped before the stay, which says that there is one.
    pub socket: Unregistered,
    /// Where it leads.
    pub origin: Origin,
    /// Until nobody here can be given it back.
    pub stay: Stay,
}

/// The master that an upstream leads to. It stays what it was when the upstream was made: a master that is in force later is never
/// written to by it, even where it has the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its generation.
    pub generation: Generation,
    /// Its edition.
    pub edition: u64,
    /// Where it was verified; `None` when that has passed.
    pub at: Option<SocketAddr>,
}

impl Origin {
    /// What is in force now; `None` while nothing may be written.
    pub fn in_force(reader: &Reader) -> Option<Self> {
        // In this order: what is renewed meanwhile is old.
        let edition = reader.edition();
        let state = reader.state();
        (state.phase == Phase::Serving).then_some(Self {
            generation: state.generation,
            edition,
            at: Some(state.verified_at?),
        })
    }
}

/// As long as there is one of an older generation, its house acknowledges no newer one.
#[derive(Debug, Default)]
pub struct Stay {
    _end: Option<Box<dyn Any + Send + Sync>>,
}

impl Stay {
    /// Dropping it is heard there.
    pub(super) fn new(end: impl Any + Send + Sync) -> Self {
        Self {
            _end: Some(Box::new(end)),
        }
    }
}

impl Packet {
    /// What is said of it.
    pub fn luggage(&self) -> Luggage {
        Luggage {
            client: self.client.kind(),
            upstream: self.upstream.as_ref().map(|u| u.socket.kind()),
            tracked: self.tracked.clone(),
            fresh: self.fresh,
            conveyed: self.conveyed,
        }
    }

    /// It leads to this master, or to none.
    pub fn is_of(&self, origin: Origin) -> bool {
        self.upstream.as_ref().is_none_or(|u| u.origin == origin)
    }
}
