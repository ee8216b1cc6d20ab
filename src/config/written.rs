//! What was written, by whom: values before anybody looked at what they mean.

use std::collections::BTreeMap;

use super::problem::Source;
use super::schema::Key;

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
pub(super) struct Items(BTreeMap<Key, Item>);

impl Items {
    /// Writes a value, over one that was there.
    pub(super) fn set(&mut self, key: Key, item: Item) {
        self.0.insert(key, item);
    }

    /// Writes what `over` says over what was there.
    pub(super) fn overlay(&mut self, over: Self) {
        self.0.extend(over.0);
    }

    /// Moves the keys of `[[proxy]]` entries out.
    pub(super) fn split_off_proxy(&mut self) -> Self {
        let (proxy, rest) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(key, _)| key.is_per_proxy());
        self.0 = rest;
        Self(proxy)
    }

    /// What was written for this key.
    pub(super) fn get(&self, key: Key) -> Option<&Item> {
        self.0.get(&key)
    }

    /// What was written, in the order of [`Key::ALL`].
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &Item)> {
        self.0.iter().map(|(key, item)| (*key, item))
    }

    /// Who wrote this key.
    pub(super) fn source(&self, key: Key) -> &Source {
        self.get(key).map_or(&Source::Default, |item| &item.source)
    }
}
