//! What was written, by whom: values before anybody looked at what they mean.

use std::collections::{BTreeMap, BTreeSet};

use super::problem::Source;
use super::schema::{Key, Section};

/// A value as its writer typed it.
#[derive(Clone, Debug)]
pub(super) enum Raw {
    /// `"..."` of the file, or anything in a flag or a variable.
    Text(String),
    /// A whole number of the file, with its sign; kept as text so that none is too large to talk about.
    Integer(String),
    /// `true` or `false` of the file.
    Bool(bool),
    /// `[...]` of the file, or a repeated flag.
    List(Vec<Item>),
    /// What no key takes: a float, a date, a table; with its name.
    Strange(&'static str),
}

/// A value and its writer.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// What.
    pub(super) raw: Raw,
    /// By whom.
    pub(super) source: Source,
}

impl Item {
    /// A text.
    pub(super) fn text(text: impl Into<String>, source: Source) -> Self {
        Self {
            raw: Raw::Text(text.into()),
            source,
        }
    }

    /// A list of texts by one writer.
    pub(super) fn list(texts: impl IntoIterator<Item = String>, source: Source) -> Self {
        let items = texts
            .into_iter()
            .map(|text| Self::text(text, source.clone()))
            .collect();
        Self {
            raw: Raw::List(items),
            source,
        }
    }
}

/// Values by key. What is absent was not written.
#[derive(Clone, Debug, Default)]
pub(super) struct Items {
    values: BTreeMap<Key, Item>,
    /// Tables of an entry that are there, also without a key.
    open: BTreeSet<Section>,
}

impl Items {
    /// There is this table.
    pub(super) fn open(&mut self, section: Section) {
        self.open.insert(section);
    }

    /// There is this table of an entry, with keys or without.
    pub(super) fn is_open(&self, section: Section) -> bool {
        self.open.contains(&section)
    }

    /// Writes a value, over one that was there.
    pub(super) fn set(&mut self, key: Key, item: Item) {
        self.values.insert(key, item);
    }

    /// Writes what `over` says over what was there.
    pub(super) fn overlay(&mut self, over: Self) {
        self.values.extend(over.values);
        self.open.extend(over.open);
    }

    /// Moves the keys of `[[proxy]]` entries out.
    pub(super) fn split_off_proxy(&mut self) -> Self {
        let (proxy, rest) = std::mem::take(&mut self.values)
            .into_iter()
            .partition(|(key, _)| key.is_per_proxy());
        self.values = rest;
        Self {
            values: proxy,
            open: BTreeSet::new(),
        }
    }

    /// What was written for this key.
    pub(super) fn get(&self, key: Key) -> Option<&Item> {
        self.values.get(&key)
    }

    /// What was written, in the order of [`Key::ALL`].
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Item)> {
        self.values.iter().map(|(key, item)| (*key, item))
    }

    /// Who wrote this key.
    pub(super) fn source(&self, key: Key) -> &Source {
        self.get(key).map_or(&Source::Default, |item| &item.source)
    }
}
