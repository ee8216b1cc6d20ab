//! Reads the file into what was written. Knows TOML and the keys' names; knows no key's meaning.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::{Error, Problem, Source, Text, nearest, printable, printable_path};
use super::schema::{Key, Section};
use super::written::{Item, Items, Raw};

/// Largest file read: thousands of proxy entries; anything larger is not a configuration.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The file's content by key.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// Tables that exist once.
    pub(super) global: Items,
    /// `[[proxy]]` entries, in order.
    pub(super) proxies: Vec<Items>,
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read, is too large or is not UTF-8.
pub(super) fn read(path: &Path) -> Result<Text, Error> {
    let shown = printable_path(path);
    let unreadable = |e: std::io::Error| {
        let help = match e.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path, or make one: switchmaster config example > config.toml"
            }
            std::io::ErrorKind::PermissionDenied => {
                "the file must be readable by the user that switchmaster runs as"
            }
            _ => "name a readable file with --config FILE",
        };
        Problem::missing(format!("cannot read the configuration {shown}: {e}"), help)
    };

    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(Problem::missing(
            format!("the configuration {shown} is a directory"),
            format!("name the file in it: --config {shown}/config.toml"),
        )
        .into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Problem::missing(
            format!("the configuration {shown} is larger than 1 MiB"),
            "this is probably another file: name the right one with --config FILE",
        )
        .into());
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        Problem::missing(
            format!("the configuration {shown} is not UTF-8 text (line {line})"),
            "save it as UTF-8",
        )
    })?;
    Ok(Text {
        path: path.to_owned(),
        text,
    })
}

/// Takes the text apart.
///
/// # Errors
/// When it is not TOML, or has tables or keys that do not exist; all of those at once.
pub(super) fn parse(text: &Arc<Text>) -> Result<Document, Error> {
    let reader = Reader { text };
    let root = DeTable::parse(&text.text).map_err(|e| {
        let source = reader.source(e.span().unwrap_or(0..0));
        let message: Vec<_> = e.message().lines().collect();
        Problem::at(
            &source,
            printable(&message.join(", ")),
            "this is not valid TOML; `switchmaster config example` shows how the file looks",
        )
    })?;

    let mut problems = Vec::new();
    let document = reader.document(root.get_ref(), &mut problems);
    if problems.is_empty() {
        Ok(document)
    } else {
        Err(Error::new(problems))
    }
}

/// Walks the parsed file, with the text at hand to say where things are.
struct Reader<'a> {
    text: &'a Arc<Text>,
}

impl Reader<'_> {
    fn document(&self, root: &DeTable<'_>, problems: &mut Vec<Problem>) -> Document {
        let mut document = Document::default();
        for (name, value) in in_order(root) {
            let section = Section::ALL
                .into_iter()
                .find(|s| s.name() == name.get_ref());
            match (section, value.get_ref()) {
                (Some(Section::Proxy), DeValue::Array(entries)) => {
                    self.proxies(entries, &mut document.proxies, problems);
                }
                (Some(Section::Proxy), _) => problems.push(Problem::at(
                    &self.source(name.span()),
                    "`proxy` is a list of entries",
                    "write [[proxy]] with two brackets on each side",
                )),
                (Some(Section::AddressMap), DeValue::Table(table)) => {
                    let item = self.address_map(table, self.source(name.span()), problems);
                    document.global.set(Key::AddressMap, item);
                }
                (Some(section), DeValue::Table(table)) => {
                    self.table(section, table, &mut document.global, problems);
                }
                (Some(section), _) => problems.push(Problem::at(
                    &self.source(name.span()),
                    format!("`{}` is a table, not a value", section.name()),
                    format!(
                        "write {} on a line of its own, its keys below",
                        section.header()
                    ),
                )),
                (None, value) => problems.push(self.unknown_section(name, value.is_table())),
            }
        }
        document
    }

    fn proxies(
        &self,
        entries: &DeArray<'_>,
        proxies: &mut Vec<Items>,
        problems: &mut Vec<Problem>,
    ) {
        for entry in entries.iter() {
            let mut items = Items::default();
            if let DeValue::Table(table) = entry.get_ref() {
                self.table(Section::Proxy, table, &mut items, problems);
            } else {
                problems.push(Problem::at(
                    &self.source(entry.span()),
                    "a `proxy` entry is a table, not a value",
                    "write [[proxy]] on a line of its own, its keys below",
                ));
            }
            proxies.push(items);
        }
    }

    fn table(
        &self,
        section: Section,
        table: &DeTable<'_>,
        items: &mut Items,
        problems: &mut Vec<Problem>,
    ) {
        for (name, value) in in_order(table) {
            if section == Section::Proxy
                && let Some(inner) = inner_table(name.get_ref())
            {
                if let DeValue::Table(table) = value.get_ref() {
                    items.open(inner);
                    self.table(inner, table, items, problems);
                } else {
                    let header = inner.header();
                    problems.push(Problem::at(
                        &self.source(name.span()),
                        format!("`{}` is a table, not a value", name.get_ref()),
                        format!(
                            "write {header} on a line of its own, below the entry it belongs to"
                        ),
                    ));
                }
                continue;
            }
            match section.keys().find(|key| key.name() == name.get_ref()) {
                Some(key) => items.set(key, self.item(value)),
                None => problems.push(self.unknown_key(section, name)),
            }
        }
    }

    /// The one table whose keys are values. Written as one would in a variable: `announced=reachable`.
    fn address_map(
        &self,
        table: &DeTable<'_>,
        source: Source,
        problems: &mut Vec<Problem>,
    ) -> Item {
        let mut entries = Vec::new();
        for (announced, reachable) in in_order(table) {
            let place = self.source(announced.span().start..reachable.span().end);
            match reachable.get_ref() {
                DeValue::String(text) => {
                    entries.push(Item::text(format!("{}={text}", announced.get_ref()), place));
                }
                _ => problems.push(Problem::at(
                    &place,
                    "address_map: a text in quotes is needed on both sides",
                    "write \"172.19.0.2:6379\" = \"redis-a.internal:6379\" (an address has dots, so its quotes are needed)",
                )),
            }
        }
        Item {
            raw: Raw::List(entries),
            source,
        }
    }

    fn item(&self, value: &Spanned<DeValue<'_>>) -> Item {
        let raw = match value.get_ref() {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Boolean(value) => Raw::Bool(*value),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Raw::Integer(number.to_string()),
                    Err(_) => Raw::Integer(number.as_str().to_owned()),
                }
            }
            DeValue::Array(values) => Raw::List(values.iter().map(|v| self.item(v)).collect()),
            DeValue::Float(_) => Raw::Strange("a number with a fraction"),
            DeValue::Datetime(_) => Raw::Strange("a date"),
            DeValue::Table(_) => Raw::Strange("a table"),
        };
        Item {
            raw,
            source: self.source(value.span()),
        }
    }

    fn unknown_section(
        &self,
        name: &Spanned<std::borrow::Cow<'_, str>>,
        is_table: bool,
    ) -> Problem {
        let source = self.source(name.span());
        let shown = printable(name.get_ref());
        if !is_table && let Some(key) = Key::ALL.into_iter().find(|k| k.name() == name.get_ref()) {
            return Problem::at(
                &source,
                format!("`{shown}` is not in any table"),
                format!("put it below {}", key.section().header()),
            );
        }
        let headers = Section::ALL.map(Section::header).join(", ");
        let help = match nearest(name.get_ref(), Section::ALL.map(Section::name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("tables are {headers}"),
        };
        Problem::at(&source, format!("unknown table `{shown}`"), help)
    }

    fn unknown_key(&self, section: Section, name: &Spanned<std::borrow::Cow<'_, str>>) -> Problem {
        let source = self.source(name.span());
        let message = format!(
            "unknown key `{}` in {}",
            printable(name.get_ref()),
            section.header()
        );
        let tables = Section::ALL
            .into_iter()
            .filter_map(Section::in_entry)
            .filter(|_| section == Section::Proxy);
        let near = nearest(name.get_ref(), section.keys().map(Key::name).chain(tables));
        let elsewhere: Vec<_> = Key::ALL
            .into_iter()
            .filter(|key| key.name() == name.get_ref())
            .map(|key| key.section().header())
            .collect();
        let help = if name.get_ref() == "password" {
            "passwords are not written into the configuration: write the password into a file \
             only switchmaster can read, and `password_file = \"/path/to/it\"` here"
                .to_owned()
        } else if name.get_ref() == "url" {
            "a URL is a flag or a variable: --url, SWITCHMASTER_URL. Here write `addresses` below [sentinel] and `master` below [[proxy]]"
                .to_owned()
        } else if section == Section::Proxy && matches!(&**name.get_ref(), "tls" | "ssl") {
            "each leg has a table of its own, below the entry it belongs to: [proxy.client_tls] between clients and the \
             proxy (cert_file, key_file), [proxy.upstream_tls] between the proxy and Redis (ca_file, or enabled = true)"
                .to_owned()
        } else if let [.., last] = &elsewhere[..] {
            let others = &elsewhere[..elsewhere.len() - 1];
            let or = if others.is_empty() { "" } else { " or " };
            format!(
                "`{}` belongs below {}{or}{last}",
                name.get_ref(),
                others.join(", ")
            )
        } else if let Some(near) = near {
            format!("did you mean `{near}`?")
        } else {
            let names: Vec<_> = section.keys().map(Key::name).collect();
            format!("keys here are {}", names.join(", "))
        };
        Problem::at(&source, message, help)
    }

    fn source(&self, span: Range<usize>) -> Source {
        Source::File {
            text: Arc::clone(self.text),
            span,
        }
    }
}

/// A table of an entry, by its name in there.
fn inner_table(name: &str) -> Option<Section> {
    Section::ALL
        .into_iter()
        .find(|section| section.in_entry() == Some(name))
}

/// The table's entries as they stand in the file, so that problems are told from top to bottom.
fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(
    &'a Spanned<std::borrow::Cow<'i, str>>,
    &'a Spanned<DeValue<'i>>,
)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}
