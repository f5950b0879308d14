//! How values are written: sizes, times, switches. Pure; knows no option by name.
//!
//! Every source gives text to the same readers, so `64KiB` means the same on the command line, in the environment
//! and in the file. What [`Value`] writes, the readers read back to the same value.

use std::fmt;

use crate::limits::{KIB, MIB};

const GIB: usize = 1024 * MIB;

/// The value of an option, ready to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing was said, and there is no default that could be written.
    Unset,
    /// On or off.
    Switch(bool),
    /// A number, a time in milliseconds among them.
    Number(u64),
    /// A size.
    Bytes(u64),
    /// A time that is written in seconds, in milliseconds.
    Seconds(u64),
    /// A word, an address, a path.
    Text(String),
    /// Several of them.
    List(Vec<String>),
    /// There is a value, and it is a secret.
    Hidden,
}

impl Value {
    /// As a value of the TOML file; `None` where there is nothing that could be written.
    pub fn toml(&self) -> Option<String> {
        match self {
            Value::Unset | Value::Hidden => None,
            Value::Switch(on) => Some(on.to_string()),
            Value::Number(number) | Value::Bytes(number) => Some(number.to_string()),
            Value::Seconds(ms) => Some(seconds(*ms)),
            Value::Text(text) => Some(quoted(text)),
            Value::List(list) => {
                let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
                Some(format!("[{}]", items.join(", ")))
            }
        }
    }
}

/// As a person writes it on a command line; empty where there is nothing to write.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unset => Ok(()),
            Value::Switch(on) => on.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Bytes(bytes) => f.write_str(&size(*bytes)),
            Value::Seconds(ms) => f.write_str(&seconds(*ms)),
            Value::Text(text) => f.write_str(text),
            Value::List(list) => f.write_str(&list.join(", ")),
            Value::Hidden => f.write_str("(hidden)"),
        }
    }
}

/// A TOML basic string. Its escapes are those of JSON but for a few that TOML reads too.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            control if control.is_control() => {
                quoted.push_str(&format!("\\u{:04X}", control as u32));
            }
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

/// A size in the largest unit that leaves no remainder.
pub fn size(bytes: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        let unit = unit as u64;
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

fn seconds(ms: u64) -> String {
    let text = format!("{}.{:03}", ms / 1000, ms % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A whole number, with `_` between digits where one likes.
///
/// # Errors
/// What was wanted.
pub fn read_number(text: &str) -> Result<u64, String> {
    let wanted = || "wants a whole number".to_owned();
    let plausible = text.starts_with(|first: char| first.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'_');
    if !plausible {
        return Err(wanted());
    }
    text.replace('_', "").parse().map_err(|_| wanted())
}

/// A size: a whole number of bytes, or of `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// What was wanted.
pub fn read_bytes(text: &str) -> Result<u64, String> {
    let wanted = || "wants a size in bytes, such as 65536, 64KiB or 1MiB".to_owned();
    let digits = text
        .find(|character: char| !character.is_ascii_digit() && character != '_')
        .unwrap_or(text.len());
    let unit = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => KIB,
        "mib" => MIB,
        "gib" => GIB,
        _ => return Err(wanted()),
    };
    let number = read_number(&text[..digits]).map_err(|_| wanted())?;
    number.checked_mul(unit as u64).ok_or_else(wanted)
}

/// Seconds, with at most three decimals, as milliseconds.
///
/// # Errors
/// What was wanted.
pub fn read_seconds(text: &str) -> Result<u64, String> {
    let wanted = || "wants seconds, such as 10 or 0.5".to_owned();
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.is_empty() || decimals.len() > 3 || decimals.contains('_') {
        return Err(wanted());
    }
    let whole = read_number(whole).map_err(|_| wanted())?;
    let ms = read_number(&format!("{decimals:0<3}")).map_err(|_| wanted())?;
    whole
        .checked_mul(1000)
        .and_then(|whole| whole.checked_add(ms))
        .ok_or_else(wanted)
}

/// A switch.
///
/// # Errors
/// What was wanted.
pub fn read_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Ok(true),
        "false" | "off" | "no" | "0" => Ok(false),
        _ => Err("wants true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text, bytes: Option<u64>| assert_eq!(read_bytes(text).ok(), bytes, "{text}");
        check("0", Some(0));
        check("65536", Some(65_536));
        check("65_536", Some(65_536));
        check("64KiB", Some(65_536));
        check("64 kib", Some(65_536));
        check("3MiB", Some(3 << 20));
        check("2GiB", Some(2 << 30));
        check("17b", Some(17));
        for refused in [
            "",
            "KiB",
            "-1",
            "+1",
            "1.5MiB",
            "64KB",
            "64k",
            "_1",
            "1 2",
            "99999999999999999999",
            "99999999999GiB",
            "64é",
        ] {
            check(refused, None);
        }
        for (bytes, text) in [
            (0, "0"),
            (1000, "1000"),
            (1024, "1KiB"),
            (1536, "1536"),
            (1 << 20, "1MiB"),
            (3 << 30, "3GiB"),
        ] {
            assert_eq!(size(bytes), text);
            assert_eq!(read_bytes(text), Ok(bytes));
        }
    }

    #[test]
    fn times() {
        let check = |text, ms: Option<u64>| assert_eq!(read_seconds(text).ok(), ms, "{text}");
        check("0", Some(0));
        check("10", Some(10_000));
        check("0.5", Some(500));
        check("1.25", Some(1_250));
        check("0.001", Some(1));
        for refused in ["", ".5", "1.", "1.0001", "-1", "1e3", "0.-1", "0.1_1", "x"] {
            check(refused, None);
        }
        for ms in [0, 1, 10, 500, 1_250, 10_000, 100_000] {
            assert_eq!(read_seconds(&Value::Seconds(ms).to_string()), Ok(ms));
        }
    }

    #[test]
    fn switches() {
        for (text, on) in [("true", true), ("ON", true), ("0", false), ("no", false)] {
            assert_eq!(read_switch(text), Ok(on));
        }
        assert!(read_switch("").is_err() && read_switch("2").is_err());
    }

    #[test]
    fn toml_values() {
        let check = |value: Value, toml: Option<&str>| assert_eq!(value.toml().as_deref(), toml);
        check(Value::Unset, None);
        check(Value::Hidden, None);
        check(Value::Bytes(65_536), Some("65536"));
        check(Value::Seconds(1_500), Some("1.5"));
        check(
            Value::Text("a\"b\\c\n".to_owned()),
            Some(r#""a\"b\\c\u000A""#),
        );
        check(
            Value::List(vec!["a".to_owned(), "b".to_owned()]),
            Some(r#"["a", "b"]"#),
        );
    }
}
