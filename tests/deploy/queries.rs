//! The queries of the rules, of their tests and of the dashboard, and what they name: metrics and labels.

use std::collections::BTreeSet;

use serde_json::Value;

/// Words of the language that stand where a metric could.
const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset", "inf", "nan"];
/// Words before a list of labels.
const BEFORE_LABELS: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// A query and where it is from, for people.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expr: String,
    /// Labels that what is shown of the result names: a legend, the words of an alert.
    pub(crate) shown: Vec<String>,
}

/// A metric with what its braces say.
#[derive(Debug, PartialEq)]
pub(crate) struct Selector {
    pub(crate) metric: String,
    /// Label, operator, text.
    pub(crate) matchers: Vec<(String, String, String)>,
}

/// What a query names.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) selectors: Vec<Selector>,
    /// Labels to group or to join by.
    pub(crate) grouping: Vec<String>,
}

/// An alert as it is written in the file of rules, by the lines of its block.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) waits: bool,
    pub(crate) query: Query,
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

/// Every alert of a file of rules. promtool has read the file: only its plain form is known here.
pub(crate) fn alerts(rules: &str) -> Vec<Alert> {
    let mut blocks = rules.split("- alert:");
    blocks.next();
    let alerts: Vec<_> = blocks.map(alert).collect();
    assert!(!alerts.is_empty(), "no alert in the file");
    alerts
}

fn alert(block: &str) -> Alert {
    let name = block.lines().next().unwrap_or_default().trim().to_owned();
    let mut expr = Vec::new();
    for line in block.lines().skip_while(|line| !is_key(line, "expr")) {
        let line = line.trim();
        if is_key(line, "for") || is_key(line, "labels") {
            break;
        }
        expr.push(
            line.trim_start_matches("expr:")
                .trim_start_matches(" >-")
                .trim(),
        );
    }
    let expr = expr.join(" ").trim().to_owned();
    assert!(!expr.is_empty(), "{name} has no expr");
    Alert {
        waits: block.lines().any(|line| is_key(line, "for")),
        query: Query {
            place: format!("alert {name}"),
            expr,
            shown: after_each(block, "$labels."),
        },
        name,
    }
}

fn is_key(line: &str, key: &str) -> bool {
    line.trim()
        .strip_prefix(key)
        .is_some_and(|rest| rest.starts_with(':'))
}

/// The series that the tests of the rules make up.
pub(crate) fn made_up(tests: &str) -> Vec<Query> {
    let lines = tests.lines().enumerate();
    let series: Vec<_> = lines
        .filter_map(|(n, line)| Some((n, line.trim().strip_prefix("- series: ")?)))
        .map(|(n, series)| Query {
            place: format!("line {} of the tests", n + 1),
            expr: series.to_owned(),
            shown: Vec::new(),
        })
        .collect();
    assert!(!series.is_empty(), "no series in the file");
    series
}

/// The queries of every panel, of the annotations and of the variables.
pub(crate) fn of_dashboard(dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    collect(dashboard, "the dashboard", &mut found);
    for variable in dashboard["templating"]["list"].as_array().expect("a list") {
        let Some(query) = variable["query"]["query"].as_str() else {
            continue;
        };
        let inner = query
            .strip_prefix("label_values(")
            .and_then(|q| q.strip_suffix(')'));
        let (expr, label) = inner
            .and_then(|q| q.rsplit_once(','))
            .expect("label_values(query, label)");
        found.push(Query {
            place: format!("variable {}", variable["name"]),
            expr: expr.trim().to_owned(),
            shown: vec![label.trim().to_owned()],
        });
    }
    found
}

fn collect(value: &Value, place: &str, found: &mut Vec<Query>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, place, found)),
        Value::Object(fields) => {
            let titled = fields.get("title").and_then(Value::as_str);
            let place = titled.unwrap_or(place);
            if let Some(expr) = fields.get("expr").and_then(Value::as_str) {
                let words = ["legendFormat", "titleFormat", "textFormat"].map(|key| &value[key]);
                let words = words.iter().filter_map(|words| words.as_str());
                found.push(Query {
                    place: format!("panel {place:?}"),
                    expr: expr.to_owned(),
                    shown: words.flat_map(|words| after_each(words, "{{")).collect(),
                });
            }
            fields
                .values()
                .for_each(|field| collect(field, place, found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The word behind each of these marks.
fn after_each(text: &str, mark: &str) -> Vec<String> {
    let pieces = text.split(mark).skip(1);
    let words: BTreeSet<String> = pieces
        .map(|piece| {
            piece
                .trim_start()
                .chars()
                .take_while(|c| is_inner(*c))
                .collect()
        })
        .collect();
    words.into_iter().collect()
}

/// What a query names. promtool and Prometheus know the language; here only names are told from functions.
pub(crate) fn names(expr: &str) -> Names {
    let tokens = tokens(expr);
    let mut names = Names::default();
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        rest = after;
        let Token::Word(word) = token else { continue };
        if BEFORE_LABELS.contains(&word.as_str()) {
            // group_left may go without a list.
            if rest.first() == Some(&Token::Mark('(')) {
                rest = until(rest, ')', |token| {
                    if let Token::Word(label) = token {
                        names.grouping.push(label.clone());
                    }
                });
            }
        } else if rest.first() == Some(&Token::Mark('{')) {
            let mut inside = Vec::new();
            rest = until(rest, '}', |token| inside.push(token));
            names.selectors.push(Selector {
                metric: word.clone(),
                matchers: matchers(&inside),
            });
        } else if !is_function(rest.first()) && !WORDS.contains(&word.as_str()) {
            names.selectors.push(Selector {
                metric: word.clone(),
                matchers: Vec::new(),
            });
        }
    }
    names
}

/// By what follows the word: its arguments, or the labels that an aggregation is by.
fn is_function(next: Option<&Token>) -> bool {
    match next {
        Some(Token::Mark(mark)) => *mark == '(',
        Some(Token::Word(word)) => word == "by" || word == "without",
        Some(Token::Text(_)) | None => false,
    }
}

fn until<'t>(tokens: &'t [Token], end: char, mut each: impl FnMut(&'t Token)) -> &'t [Token] {
    let length = tokens.iter().position(|token| *token == Token::Mark(end));
    let (inside, rest) = tokens.split_at(length.expect("the list ends"));
    inside.iter().skip(1).for_each(&mut each);
    &rest[1..]
}

fn matchers(inside: &[&Token]) -> Vec<(String, String, String)> {
    inside
        .split(|token| **token == Token::Mark(','))
        .filter(|piece| !piece.is_empty())
        .map(|piece| match piece {
            [Token::Word(label), signs @ .., Token::Text(text)] => {
                let signs = signs.iter().map(|sign| match sign {
                    Token::Mark(sign) => *sign,
                    other => panic!("{other:?} between {label} and its text"),
                });
                (label.clone(), signs.collect(), text.clone())
            }
            other => panic!("no matcher: {other:?}"),
        })
        .collect()
}

fn tokens(expr: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut chars = expr.chars().peekable();
    while let Some(c) = chars.next() {
        let mut take = |first: char, belongs: fn(char) -> bool| {
            let mut word = String::from(first);
            while let Some(c) = chars.next_if(|c| belongs(*c)) {
                word.push(c);
            }
            word
        };
        match c {
            '"' => {
                let text = take(c, |c| c != '"');
                chars.next();
                tokens.push(Token::Text(text[1..].to_owned()));
            }
            // A variable of the dashboard, a number, a duration.
            '$' | '0'..='9' => drop(take(c, is_inner)),
            _ if c.is_ascii_alphabetic() || c == '_' => tokens.push(Token::Word(take(c, is_inner))),
            _ if c.is_whitespace() => {}
            _ => tokens.push(Token::Mark(c)),
        }
    }
    tokens
}

const fn is_inner(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[test]
fn names_are_told_from_functions_words_and_texts() {
    let selector = |metric: &str, matchers: &[(&str, &str, &str)]| Selector {
        metric: metric.to_owned(),
        matchers: matchers
            .iter()
            .map(|(l, o, t)| ((*l).to_owned(), (*o).to_owned(), (*t).to_owned()))
            .collect(),
    };
    let found = names(
        r#"sum by (le, x) (rate(a_total{x=~"$x", y!="b{c"}[$__rate_interval])) > 64 * 1e3 unless on (job) group_left d"#,
    );
    assert_eq!(
        found.selectors,
        [
            selector("a_total", &[("x", "=~", "$x"), ("y", "!=", "b{c")]),
            selector("d", &[])
        ]
    );
    assert_eq!(found.grouping, ["le", "x", "job"]);
}
