//! The client of a relay, and what is on its way.

use std::ops::ControlFlow::{self, Break, Continue};

use bytes::BytesMut;

use super::super::budget::Share;
use super::super::close::CloseReason;
use crate::net::stream::Stream;
use crate::session::sniff::{Verdict, sniff};

/// What outlives an upstream: the client, what is known of it, and what is on its way.
#[derive(Debug)]
pub(in crate::session) struct Carried<W> {
    pub(in crate::session) client: Stream,
    pub(in crate::session) watch: W,
    /// Read from the client and written to no master, or to be written again; begins at a request.
    pub(in crate::session) unsent: BytesMut,
    /// The right to keep it while there is no upstream. In a box, as hardly any has it.
    pub(in crate::session) share: Option<Box<Share>>,
    /// The client said something that its last master was not to hear, and has waited since.
    pub(in crate::session) kept_waiting: bool,
    /// Replies that were read and not yet taken by the client.
    pub(in crate::session) owed: BytesMut,
    /// The client has said nothing yet that tells what it speaks.
    pub(in crate::session) fresh: bool,
}

impl<W> Carried<W> {
    /// A client that came before, and has said nothing yet if it is `fresh`.
    pub(in crate::session) fn met(client: Stream, watch: W, fresh: bool) -> Self {
        Self {
            fresh,
            ..Self::new(client, watch)
        }
    }

    /// A client that has just come.
    pub(in crate::session) fn new(client: Stream, watch: W) -> Self {
        Self {
            client,
            watch,
            unsent: BytesMut::new(),
            share: None,
            kept_waiting: false,
            owed: BytesMut::new(),
            fresh: true,
        }
    }

    /// Judges what a client has said that has said nothing before. False: not enough to be judged.
    #[cold]
    pub(in crate::session) fn meets(&mut self, said: &[u8]) -> ControlFlow<CloseReason, bool> {
        match sniff(said) {
            Verdict::Known => {
                self.fresh = false;
                Continue(true)
            }
            Verdict::Foreign(foreign) => Break(foreign.reason()),
            Verdict::More => Continue(false),
        }
    }

    /// The same of what was kept back of it.
    pub(in crate::session) fn meets_unsent(&mut self) -> ControlFlow<CloseReason, bool> {
        let said = std::mem::take(&mut self.unsent);
        let met = self.meets(&said);
        self.unsent = said;
        met
    }
}
