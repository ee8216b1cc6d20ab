//! From what was written for a key to what it means: the kinds of value there are, with their bounds.
//!
//! A value that is not valid becomes a problem and the default goes on in its place, so that all
//! problems of a configuration are told at once.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Problem, Source, nearest, printable};
use super::schema::Key;
use super::written::{Item, Items, Raw};

/// Reads the values of one set of items.
pub(super) struct Values<'a> {
    items: &'a Items,
    problems: &'a mut Vec<Problem>,
}

/// What became of a list.
pub(super) enum Listed<T> {
    /// Nobody wrote one.
    Unwritten,
    /// Some of it is not valid; the problems are told.
    Refused,
    /// All of it is valid; each value with its place.
    Values(Vec<(T, Source)>),
}

/// Why a text is not valid: what is wrong with it, what to write instead.
pub(super) type Refusal = (String, String);

impl<'a> Values<'a> {
    /// Reads `items`, tells problems to `problems`.
    pub(super) fn new(items: &'a Items, problems: &'a mut Vec<Problem>) -> Self {
        Self { items, problems }
    }

    /// Tells a problem with what was written for a key.
    pub(super) fn refuse(&mut self, key: Key, message: &str, help: &str) {
        let source = self.items.source(key);
        let message = format!("{}: {message}", key.path());
        self.problems.push(match source {
            Source::Default => Problem::missing(message, help),
            source => Problem::at(source, message, help),
        });
    }

    /// A text that means something by itself.
    pub(super) fn text(
        &mut self,
        key: Key,
        check: impl FnOnce(&str) -> Result<(), Refusal>,
    ) -> Option<String> {
        self.parsed(key, |text| check(text).map(|()| text.to_owned()))
    }

    /// What a text stands for.
    pub(super) fn parsed<T>(
        &mut self,
        key: Key,
        parse: impl FnOnce(&str) -> Result<T, Refusal>,
    ) -> Option<T> {
        self.read(key, |item| parse(expect_text(item, "a text in quotes")?))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: Key,
        choices: &[(&'static str, T)],
        default: T,
    ) -> T {
        let words: Vec<_> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        let words = words.join(" or ");
        self.read(key, |item| {
            let text = expect_text(item, &words)?;
            match choices.iter().find(|(word, _)| *word == text) {
                Some((_, value)) => Ok(*value),
                None => {
                    let help = match nearest(text, choices.iter().map(|(word, _)| *word)) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("write {words}"),
                    };
                    Err((format!("\"{}\" is none of {words}", printable(text)), help))
                }
            }
        })
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: Key, default: bool) -> bool {
        self.read(key, |item| match &item.raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) if !is_typed(item) && text == "true" => Ok(true),
            Raw::Text(text) if !is_typed(item) && text == "false" => Ok(false),
            _ => Err((
                format!("{} is neither true nor false", shown(item)),
                "write true or false, without quotes".to_owned(),
            )),
        })
        .unwrap_or(default)
    }

    /// A whole number.
    pub(super) fn count(
        &mut self,
        key: Key,
        bounds: RangeInclusive<usize>,
        default: usize,
    ) -> usize {
        self.read(key, |item| count(item, &bounds))
            .unwrap_or(default)
    }

    /// A whole number or `"auto"`, which is `None`.
    pub(super) fn count_or_auto(
        &mut self,
        key: Key,
        bounds: RangeInclusive<usize>,
    ) -> Option<usize> {
        self.read(key, |item| match &item.raw {
            Raw::Text(text) if text == "auto" => Ok(None),
            _ => count(item, &bounds)
                .map(Some)
                .map_err(|(message, help)| (message, format!("{help}, or \"auto\""))),
        })
        .flatten()
    }

    /// A time with its unit.
    pub(super) fn duration(
        &mut self,
        key: Key,
        bounds: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        self.read(key, |item| duration(item, &bounds))
            .unwrap_or(default)
    }

    /// A time with its unit or `"auto"`, which is `None`.
    pub(super) fn duration_or_auto(
        &mut self,
        key: Key,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        self.read(key, |item| match &item.raw {
            Raw::Text(text) if text == "auto" => Ok(None),
            _ => duration(item, &bounds).map(Some),
        })
        .flatten()
    }

    /// A list of at most `limit` texts.
    pub(super) fn list<T>(
        &mut self,
        key: Key,
        limit: usize,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Listed<T> {
        self.list_of(key, limit, |item| {
            expect_text(item, "a list of texts in quotes").and_then(&parse)
        })
    }

    /// A list of at most `limit` whole numbers.
    pub(super) fn numbers(
        &mut self,
        key: Key,
        limit: usize,
        bounds: RangeInclusive<usize>,
    ) -> Listed<usize> {
        self.list_of(key, limit, |item| count(item, &bounds))
    }

    fn list_of<T>(
        &mut self,
        key: Key,
        limit: usize,
        parse: impl Fn(&Item) -> Result<T, Refusal>,
    ) -> Listed<T> {
        if self.items.get(key).is_none() {
            return Listed::Unwritten;
        }
        let Some(items) = self.read(key, list) else {
            return Listed::Refused;
        };
        if items.len() > limit {
            self.refuse(
                key,
                &format!("{} entries are too many", items.len()),
                &format!("at most {limit} are allowed"),
            );
            return Listed::Refused;
        }
        let mut values = Vec::new();
        let mut refused = false;
        for item in items {
            match parse(&item) {
                Ok(value) => values.push((value, item.source)),
                Err((message, help)) => {
                    refused = true;
                    let message = format!("{}: {message}", key.path());
                    self.push(Problem::at(&item.source, message, help));
                }
            }
        }
        if refused {
            Listed::Refused
        } else {
            Listed::Values(values)
        }
    }

    /// Tells a problem of another kind.
    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn read<T>(&mut self, key: Key, parse: impl FnOnce(&Item) -> Result<T, Refusal>) -> Option<T> {
        match parse(self.items.get(key)?) {
            Ok(value) => Some(value),
            Err((message, help)) => {
                self.refuse(key, &message, &help);
                None
            }
        }
    }
}

fn list(item: &Item) -> Result<Vec<Item>, Refusal> {
    match &item.raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Text(text) if !is_typed(item) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| Item::text(part, item.source.clone()))
            .collect()),
        Raw::Text(text) => {
            let parts: Vec<_> = text
                .split(',')
                .map(|part| format!("\"{}\"", printable(part.trim())))
                .collect();
            Err((
                format!("{} is not a list", shown(item)),
                format!("write it with brackets: [{}]", parts.join(", ")),
            ))
        }
        _ => Err((
            format!("{} is not a list", shown(item)),
            "write a list of texts: [\"...\", \"...\"]".to_owned(),
        )),
    }
}

fn count(item: &Item, bounds: &RangeInclusive<usize>) -> Result<usize, Refusal> {
    let digits = match &item.raw {
        Raw::Integer(number) => number.as_str(),
        Raw::Text(text) if !is_typed(item) => text.as_str(),
        _ => "",
    };
    let help = format!(
        "write a whole number from {} to {}",
        bounds.start(),
        bounds.end()
    );
    match digits.parse::<usize>() {
        Ok(number) if bounds.contains(&number) => Ok(number),
        Ok(number) => Err((format!("{number} is out of range"), help)),
        Err(_) => Err((
            format!("{} is not a whole number in range", shown(item)),
            format!("{help}, without quotes"),
        )),
    }
}

fn duration(item: &Item, bounds: &RangeInclusive<Duration>) -> Result<Duration, Refusal> {
    let text = match &item.raw {
        Raw::Text(text) => text.as_str(),
        Raw::Integer(number) => return Err(without_unit(number)),
        _ => {
            return Err((
                format!("{} is not a duration", shown(item)),
                "write a number and its unit in quotes: \"5s\", \"300ms\"".to_owned(),
            ));
        }
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(without_unit(text));
    }
    let duration = humantime::parse_duration(text).map_err(|e| {
        (
            format!(
                "\"{}\" is not a duration: {}",
                printable(text),
                printable(&e.to_string())
            ),
            "write a number and its unit: \"5s\", \"300ms\", \"1m 30s\"".to_owned(),
        )
    })?;
    if bounds.contains(&duration) {
        Ok(duration)
    } else {
        Err((
            format!("\"{}\" is out of range", printable(text)),
            format!(
                "write a duration from {} to {}",
                humantime::format_duration(*bounds.start()),
                humantime::format_duration(*bounds.end())
            ),
        ))
    }
}

fn without_unit(number: &str) -> Refusal {
    let number = printable(number);
    (
        format!("{number} has no unit, and seconds and milliseconds are both usual"),
        match number.parse::<u32>() {
            Ok(seconds) => format!("write \"{seconds}s\" or \"{seconds}ms\", whichever you mean"),
            Err(_) => "write a number and its unit: \"5s\", \"300ms\"".to_owned(),
        },
    )
}

fn expect_text<'i>(item: &'i Item, expected: &str) -> Result<&'i str, Refusal> {
    match &item.raw {
        Raw::Text(text) => Ok(text),
        _ => Err((
            format!("{} stands where {expected} is needed", shown(item)),
            format!("write {expected}"),
        )),
    }
}

/// The value, or its kind, for a message.
fn shown(item: &Item) -> String {
    match &item.raw {
        Raw::Text(text) => format!("\"{}\"", printable(text)),
        Raw::Integer(number) => printable(number),
        Raw::Bool(value) => value.to_string(),
        Raw::List(_) => "a list".to_owned(),
        Raw::Strange(name) => (*name).to_owned(),
    }
}

/// True when the writer could tell numbers from texts, as one can in a file and cannot in a variable.
const fn is_typed(item: &Item) -> bool {
    matches!(item.source, Source::File { .. })
}
