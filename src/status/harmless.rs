//! What an endpoint answered, made harmless for a terminal: no character of a name or a message moves a cursor, begins an escape
//! sequence or turns the direction of writing. Pure.

use std::fmt::Write;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an answer; every text in it is harmless.
pub(crate) fn read<T: DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    let mut value = serde_json::from_str(json)?;
    clean(&mut value);
    serde_json::from_value(value)
}

/// Text with its control characters escaped, but for the ends of lines.
pub(crate) fn lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(line).collect();
    lines.join("\n")
}

/// JSON that says the same, with every harmful character escaped as JSON does it: outside of strings there is none.
pub(crate) fn json(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) && !matches!(c, '\n' | '\r' | '\t') {
            // Harmful characters are all in the first plane. Writing into a String does not fail.
            let _ = write!(harmless, "\\u{:04x}", u32::from(c));
        } else {
            harmless.push(c);
        }
    }
    harmless
}

fn line(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmful(c) {
            harmless.extend(c.escape_default());
        } else {
            harmless.push(c);
        }
    }
    harmless
}

fn clean(value: &mut Value) {
    match value {
        Value::String(text) => *text = line(text),
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(members) => {
            let old = std::mem::take(members);
            for (name, mut member) in old {
                clean(&mut member);
                members.insert(line(&name), member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Control characters of both sets, marks that turn the direction of writing, and what is not seen at all.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\u{1b}[2J\u{9b}31m\r\n\u{202e}\u{7f}b";

    #[test]
    fn names_and_values_are_harmless_wherever_they_stand() {
        let answer =
            serde_json::json!({ "x": [{ HOSTILE: HOSTILE }], "n": 1, "good": "d\u{e9}j\u{e0} vu" });
        let read: Value = read(&answer.to_string()).expect("JSON");
        let text = read.to_string();
        assert!(!text.chars().any(is_harmful), "{text}");
        assert!(
            text.contains("\\\\u{1b}[2J") && text.contains("\\\\u{202e}"),
            "{text}"
        );
        assert!(text.contains("d\u{e9}j\u{e0} vu"), "{text}");
    }

    #[test]
    fn json_says_the_same() {
        let answer = serde_json::json!({ "x": HOSTILE });
        let harmless = json(&answer.to_string());
        assert!(!harmless.chars().any(is_harmful), "{harmless}");
        assert_eq!(
            serde_json::from_str::<Value>(&harmless).expect("JSON"),
            answer
        );
    }

    #[test]
    fn lines_stay_lines() {
        assert_eq!(lines("a\u{7}\nb\u{1b}c\n"), "a\\u{7}\nb\\u{1b}c");
    }
}
