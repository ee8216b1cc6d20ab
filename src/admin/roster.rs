//! The `[[proxy]]` entries that are looked at; they come and go with a reload.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::samples::Samples;
use crate::control::ledger::Book;
use crate::control::orders::Orders;
use crate::net::tls::Validity;
use crate::topology::publish::Reader;
use crate::worker::Counting;

/// One proxy entry, as far as the panel looks at it.
#[derive(Debug)]
pub struct Entry {
    /// The number it is known by while the process runs.
    pub number: usize,
    /// Its book.
    pub book: Book,
    /// Where its clients connect.
    pub listen: ArcSwap<Vec<String>>,
    /// Where its control task is told what to do.
    pub orders: Orders,
    /// What the workers have counted.
    pub counting: Counting,
    /// What is published.
    pub reader: Reader,
    pub(super) watch: Watch,
}

/// What is kept of an entry from look to look.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Seen>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) samples: Samples,
    /// Outages that the histograms have.
    pub(super) recorded: u64,
}

impl Entry {
    /// An entry that nobody has looked at yet.
    pub fn new(
        number: usize,
        book: Book,
        listen: Vec<String>,
        orders: Orders,
        counting: Counting,
        reader: Reader,
    ) -> Self {
        Self {
            number,
            book,
            listen: ArcSwap::from_pointee(listen),
            orders,
            counting,
            reader,
            watch: Watch::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.book.with(|ledger| ledger.proxy().to_owned())
    }

    pub(super) fn with_seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.watch.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A certificate of our own, as the configuration in force has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// To whom it is shown: `client`, `upstream` or `sentinel`.
    pub leg: &'static str,
    /// The entry that it is of; empty where it is of all.
    pub proxy: String,
    /// Until when it is valid.
    pub validity: Validity,
}

/// All entries, in the order of the configuration, and the certificates that they are served with.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    entries: Arc<ArcSwap<Vec<Arc<Entry>>>>,
    certificates: Arc<ArcSwap<Vec<Certificate>>>,
}

impl Roster {
    /// These and no others, from now on.
    pub fn set(&self, entries: Vec<Arc<Entry>>) {
        self.entries.store(Arc::new(entries));
    }

    /// These certificates and no others, from now on.
    pub fn set_certificates(&self, certificates: Vec<Certificate>) {
        self.certificates.store(Arc::new(certificates));
    }

    /// Those there are now.
    pub fn certificates(&self) -> Arc<Vec<Certificate>> {
        self.certificates.load_full()
    }

    /// Those there are now.
    pub fn entries(&self) -> Arc<Vec<Arc<Entry>>> {
        self.entries.load_full()
    }

    /// The one of this name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Entry>> {
        self.entries()
            .iter()
            .find(|entry| entry.name() == name)
            .cloned()
    }
}
